// Launches: a kernel's arguments unpacked by its own signature, its blocks and threads run, divergence reported.
#pragma once

namespace host {

enum Kind { INTEGER, FLOATING, ARRAY };

struct Argument {  // as minunet.backends.cuda_host packs them
    const char* name;
    void* array;        // ARRAY: its memory, or null
    long long integer;  // INTEGER: the value; ARRAY: the length in elements
    double floating;    // FLOATING: the value
    int kind, bytes;    // bytes: of one element
};

template <class T>
struct Unpack {  // int, float, double, unsigned long long
    static constexpr int kind = T(0.5) == T(0) ? INTEGER : FLOATING, bytes = sizeof(T);
    static T value(const Argument& a) { return kind == INTEGER ? T(a.integer) : T(a.floating); }
};
template <class T>
struct Unpack<Pointer<T>> {
    static constexpr int kind = ARRAY, bytes = sizeof(T);
    static Pointer<T> value(const Argument& a) { return {static_cast<T*>(a.array), a.integer, 0, a.name}; }
};

template <int... K>
struct Indices {};
template <int N, int... K>
struct Count : Count<N - 1, N - 1, K...> {};
template <int... K>
struct Count<0, K...> {
    using type = Indices<K...>;
};

struct Kernel {
    const char* name;
    void* function;
    void (*invoke)(void* function, const Argument* arguments);
    bool (*fits)(const Argument* arguments, int count);
};

template <class... A>
struct Invoke {
    template <int... K>
    static void with(void* function, const Argument* a, Indices<K...>) {
        reinterpret_cast<void (*)(A...)>(function)(Unpack<A>::value(a[K])...);
    }
    static void invoke(void* function, const Argument* a) { with(function, a, typename Count<sizeof...(A)>::type()); }
    static bool fits(const Argument* a, int count) {
        int k = 0;
        return count == int(sizeof...(A)) &&
               (... && (a[k].kind == Unpack<A>::kind && a[k].bytes == Unpack<A>::bytes && ++k));
    }
};

template <class... A>
Kernel kernel(const char* name, void (*function)(A...)) {
    return {name, reinterpret_cast<void*>(function), Invoke<A...>::invoke, Invoke<A...>::fits};
}

static Fiber fibers[MOST_THREADS];
static Fiber* idle[MOST_THREADS];
static int n_idle;
static const Kernel* running;
static const Argument* running_arguments;

static void thread_main() {
    for (;;) {
        running->invoke(running->function, running_arguments);
        current->state = DONE;
        suspend();
    }
}

static void resume(Thread& t) {
    if (!t.fiber) {
        t.fiber = idle[--n_idle];
        start(*t.fiber, thread_main);
    }
    current = &t;
    threadIdx = t.index;
    switch_context(&scheduler, &t.fiber->context);
    if (t.state == DONE) idle[n_idle++] = t.fiber;
}

// Lets the warps go on whose lanes have all arrived at one operation. Whether there were any.
static bool release_warps() {
    bool any = false;
    for (int first = 0; first < n_threads; first += LANES) {
        const int lanes = min(LANES, n_threads - first);
        for (int k = 0; k < lanes; k++) {
            Thread* warp = threads + first;
            if (warp[k].state != IN_WARP) continue;
            const unsigned mask = warp[k].mask;
            bool all = true;
            for (int l = 0; l < lanes; l++)
                if (mask >> l & 1)
                    all = all && warp[l].state == IN_WARP && warp[l].mask == mask && warp[l].line == warp[k].line;
            if (!all) continue;
            for (int l = 0; l < lanes; l++)
                if (mask >> l & 1) {
                    warp[l].state = READY;
                    memcpy(warp[l].given, warp[l].offered, SLOT);
                }
            any = true;
        }
    }
    return any;
}

static void report_divergence() {
    const Thread *waits = nullptr, *other = nullptr;
    for (int k = 0; k < n_threads && !waits; k++)
        if (threads[k].state != DONE) waits = threads + k;
    for (int k = 0; k < n_threads && !other; k++)
        if (threads[k].state != waits->state || threads[k].line != waits->line || threads[k].mask != waits->mask)
            other = threads + k;
    const char* what = waits->state == AT_BARRIER ? "__syncthreads" : "a warp operation";
    const uint3 a = waits->index, b = other ? other->index : a;
    char where[64];
    if (!other || other->state == DONE) snprintf(where, sizeof where, "has left the kernel");
    else snprintf(where, sizeof where, "waits in line %d", other->line);
    snprintf(
        message, sizeof message,
        "%s: divergence in block (%u, %u, %u): thread (%u, %u, %u) waits at %s in line %d, and thread (%u, %u, %u) %s",
        kernel_name, blockIdx.x, blockIdx.y, blockIdx.z, a.x, a.y, a.z, what, waits->line, b.x, b.y, b.z, where);
    failed = true;
}

static void run_block(bool descending) {
    poison_shared();
    next_block();
    for (int k = 0; k < n_threads; k++) {
        Thread& t = threads[k];
        t.fiber = nullptr;
        t.state = READY;
        t.line = t.copies = t.group = 0;
        t.mask = 0;
        t.index = {k % blockDim.x, k / blockDim.x % blockDim.y, k / (blockDim.x * blockDim.y)};
    }
    for (;;) {
        for (int k = 0; k < n_threads; k++) {
            Thread& t = threads[descending ? n_threads - 1 - k : k];
            if (t.state == READY) resume(t);
            if (failed) return;
        }
        int done = 0, at_barrier = 0;
        for (int k = 0; k < n_threads; k++) {
            done += threads[k].state == DONE;
            at_barrier += threads[k].state == AT_BARRIER && threads[k].line == threads[0].line;
        }
        if (done == n_threads) break;
        if (at_barrier == n_threads) {
            next_span();
            for (int k = 0; k < n_threads; k++) threads[k].state = READY;
        } else if (!release_warps()) return report_divergence();
    }
    if (overran_shared()) {
        current = threads;
        snprintf(message, sizeof message, "%s: block (%u, %u, %u) wrote behind its %d bytes of dynamic shared memory",
                 kernel_name, blockIdx.x, blockIdx.y, blockIdx.z, dynamic_bytes);
        failed = true;
    }
}

// Null, or what went wrong. grid and block: x, y, z.
static const char* launch(const Kernel& k, const unsigned* grid, const unsigned* block, int shared,
                          const Argument* arguments, int count, bool descending) {
    kernel_name = k.name;
    message[0] = 0;
    if (!k.fits(arguments, count)) {
        snprintf(message, sizeof message, "%s: %d arguments do not fit the kernel's parameters", k.name, count);
        return message;
    }
    if (failed || !n_idle)  // fibers that were left in the middle start anew
        for (n_idle = 0; n_idle < MOST_THREADS; n_idle++) {
            fibers[n_idle].fresh = true;
            idle[n_idle] = fibers + n_idle;
        }
    failed = false;
    running = &k;
    running_arguments = arguments;
    dynamic_bytes = shared;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    n_threads = int(block[0] * block[1] * block[2]);
    const Watch watch(arguments, count);
    const unsigned long long blocks = 1ull * grid[0] * grid[1] * grid[2];
    for (unsigned long long i = 0; i < blocks && !failed; i++) {
        const unsigned long long b = descending ? blocks - 1 - i : i;
        blockIdx = {unsigned(b % grid[0]), unsigned(b / grid[0] % grid[1]), unsigned(b / (1ull * grid[0] * grid[1]))};
        run_block(descending);
    }
    return failed ? message : nullptr;
}

}  // namespace host

// What -fsanitize calls. The first field of its data is the place in the source.
struct SanitizerPlace {
    const char* file;
    unsigned line, column;
};
#define MINUNET_SANITIZER(name, text, ...)                                                        \
    extern "C" __attribute__((visibility("hidden"))) void name(SanitizerPlace* at, __VA_ARGS__) { \
        host::fail("%s:%u: " text, at->file, at->line);                                           \
    }
MINUNET_SANITIZER(__ubsan_handle_out_of_bounds, "an index lies outside of its array", void*)
MINUNET_SANITIZER(__ubsan_handle_add_overflow, "an integer sum overflows", void*, void*)
MINUNET_SANITIZER(__ubsan_handle_sub_overflow, "an integer difference overflows", void*, void*)
MINUNET_SANITIZER(__ubsan_handle_mul_overflow, "an integer product overflows", void*, void*)
MINUNET_SANITIZER(__ubsan_handle_negate_overflow, "an integer overflows when its sign is changed", void*)
MINUNET_SANITIZER(__ubsan_handle_divrem_overflow, "an integer is divided by zero", void*, void*)
