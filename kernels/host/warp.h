// What the 32 threads of a warp do together, and atomics on integers.
#pragma once

namespace host {

// Every lane of `mask` gives `bytes` bytes and waits for the others; all of them can then read what each gave, until
// they call the next operation.
static void exchange(const void* mine, int bytes, unsigned mask, int line) {
    Thread* t = current;
    const int lane = int(t - threads) % LANES;
    if (!(mask >> lane & 1)) fail("line %d: a lane calls a warp operation whose mask 0x%x leaves it out", line, mask);
    memcpy(t->offered, mine, bytes);
    t->state = IN_WARP;
    t->line = line;
    t->mask = mask;
    suspend();
}

// What lane `lane` of this thread's warp gave.
template <class T>
static T given(int lane, unsigned mask) {
    const int index = int(current - threads) / LANES * LANES + lane;
    if (index >= n_threads || !(mask >> lane & 1)) fail("a warp operation reads lane %d, which takes no part", lane);
    T value;
    memcpy(&value, threads[index].given, sizeof(T));
    return value;
}

template <class T>
static T shuffle(unsigned mask, T value, int from, int line) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "the hardware moves 32 or 64 bits");
    exchange(&value, sizeof(T), mask, line);
    return from < 0 || from >= LANES ? value : given<T>(from, mask);
}

static unsigned ballot(unsigned mask, bool vote, int line) {
    const int mine = vote, first = int(current - threads) / LANES * LANES;
    exchange(&mine, 4, mask, line);
    unsigned bits = 0;
    for (int lane = 0; lane < LANES && first + lane < n_threads; lane++)
        if (mask >> lane & 1 && given<int>(lane, mask)) bits |= 1u << lane;
    return bits;
}

static inline int lane() { return int(current - threads) % LANES; }

}  // namespace host

#define __shfl_sync(mask, value, from) ::host::shuffle(mask, value, (from) & 31, __LINE__)
#define __shfl_down_sync(mask, value, by) ::host::shuffle(mask, value, ::host::lane() + int(by), __LINE__)
#define __shfl_up_sync(mask, value, by) ::host::shuffle(mask, value, ::host::lane() - int(by), __LINE__)
#define __shfl_xor_sync(mask, value, by) ::host::shuffle(mask, value, ::host::lane() ^ int(by), __LINE__)
#define __ballot_sync(mask, vote) ::host::ballot(mask, vote, __LINE__)
#define __any_sync(mask, vote) (::host::ballot(mask, vote, __LINE__) != 0)
#define __all_sync(mask, vote) (::host::ballot(mask, !(vote), __LINE__) == 0)
#define __syncwarp(...) ::host::ballot(0xFFFFFFFFu, false, __LINE__)
#define __threadfence()
#define __threadfence_block()

static inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
static inline int __ffs(int bits) { return __builtin_ffs(bits); }
static inline int __clz(int bits) { return bits ? __builtin_clz(unsigned(bits)) : 32; }

// Fibers change only where they wait, so these are whole. Integers only: sums of floats would depend on the order.
template <class T>
static T atomicAdd(T* p, T by) {
    static_assert(T(0.5) == T(0), "no float atomics");
    const T old = *p;
    *p = old + by;
    return old;
}
template <class T>
static T atomicMax(T* p, T with) {
    const T old = *p;
    *p = max(old, with);
    return old;
}
template <class T>
static T atomicMin(T* p, T with) {
    const T old = *p;
    *p = min(old, with);
    return old;
}
template <class T>
static T atomicExch(T* p, T with) {
    const T old = *p;
    *p = with;
    return old;
}
template <class T>
static T atomicOr(T* p, T with) {
    const T old = *p;
    *p = old | with;
    return old;
}
template <class T>
static T atomicCAS(T* p, T expected, T with) {
    const T old = *p;
    if (old == expected) *p = with;
    return old;
}
