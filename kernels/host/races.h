// Races. Under -fsanitize=thread the compiler calls a function of this file for each access to memory. Where two
// threads touch a byte, one of them writing, and nothing between orders the two, that is reported in whichever order
// they ran: `with cuda_host.races():` in Python.
//
// Beside each byte of shared memory, and of the launch's arrays, stands who wrote and who read it last. Within a block
// a barrier orders what is before it and after it; a shuffle orders no memory. Blocks of a launch are not ordered at
// all. An asynchronous copy writes at some time from its issue to the end of its wait: it counts at both.
#pragma once

namespace host {

enum Access { READ, WRITE };

#ifndef MINUNET_RACES
static inline void touch(const void*, int, Access) {}
static inline void next_span() {}
static inline void next_block() {}
struct Watch {
    template <class A>
    Watch(const A*, int) {}
};
#else
#define UNWATCHED __attribute__((no_sanitize("thread")))

struct Touch {
    unsigned span, block, thread;  // span 0: nobody
};
struct Byte {
    Touch written, read, read_too;  // the last write, and two of the last reads, by different threads if there were any
};
struct Region {
    const char *begin, *end, *name;
    Byte* bytes;
    bool global;
};

constexpr int MOST_REGIONS = 64;
static Byte static_touched[MOST_SHARED], dynamic_touched[MOST_SHARED];
static Region regions[MOST_REGIONS];
static int n_regions;
static unsigned span, block_number;  // a span lies between two barriers of a block; both count on from launch to launch

static inline void next_span() { span++; }
static inline void next_block() { span++, block_number++; }

UNWATCHED static bool clash(const Touch& a, const Touch& b, bool global) {
    if (!a.span) return false;
    if (a.block != b.block) return global;
    return a.span == b.span && a.thread != b.thread;
}

UNWATCHED static void touch(const void* address, int count, Access access) {
    const char* p = static_cast<const char*>(address);
    const Region* r = regions;
    while (r < regions + n_regions && !(p >= r->begin && p < r->end)) r++;
    if (r == regions + n_regions) return;
    const Touch mine = {span, block_number, unsigned(current - threads)};
    for (int k = 0; k < count; k++) {
        Byte& b = r->bytes[p - r->begin + k];
        const Touch* other = clash(b.written, mine, r->global) ? &b.written : nullptr;
        if (access == WRITE && clash(b.read, mine, r->global)) other = &b.read;
        if (access == WRITE && clash(b.read_too, mine, r->global)) other = &b.read_too;
        if (other) {
            const unsigned t = other->thread, x = blockDim.x, y = blockDim.y;
            fail("%s byte %d of %s, which %sthread (%u, %u, %u) touched with no barrier between: a race",
                 access == WRITE ? "writes" : "reads", int(p - r->begin) + k, r->name,
                 other->block == mine.block ? "" : "another block's ", t % x, t / x % y, t / (x * y));
        }
        if (access == WRITE) b.written = mine;
        else if (b.read.block == mine.block && b.read.span != mine.span) b.read = b.read_too = mine;
        else if (b.read.block != mine.block || b.read.thread != mine.thread) b.read_too = b.read, b.read = mine;
    }
}

// While it lives, shared memory and the arrays among a launch's arguments are watched.
struct Watch {
    template <class A>
    UNWATCHED Watch(const A* arguments, int count) {
        add({__start_minunet_shared, __stop_minunet_shared, "fixed shared memory", static_touched, false});
        add({dynamic_shared, dynamic_shared + dynamic_bytes, "dynamic shared memory", dynamic_touched, false});
        for (int k = 0; k < count; k++)
            if (const char* begin = static_cast<const char*>(arguments[k].array)) {
                const size_t bytes = arguments[k].integer * arguments[k].bytes;
                add({begin, begin + bytes, arguments[k].name, static_cast<Byte*>(calloc(bytes, sizeof(Byte))), true});
            }
    }
    UNWATCHED ~Watch() {
        while (n_regions)
            if (regions[--n_regions].global) free(regions[n_regions].bytes);
    }
    UNWATCHED static void add(const Region& region) {
        if (n_regions < MOST_REGIONS) regions[n_regions++] = region;
    }
};
#endif

}  // namespace host

#ifdef MINUNET_RACES
#define HOOK extern "C" __attribute__((visibility("hidden"), no_sanitize("thread")))
#define ACCESSES(bytes)                                                                               \
    HOOK void __tsan_read##bytes(void* p) { host::touch(p, bytes, host::READ); }                      \
    HOOK void __tsan_write##bytes(void* p) { host::touch(p, bytes, host::WRITE); }                    \
    HOOK void __tsan_unaligned_read##bytes(void* p) { host::touch(p, bytes, host::READ); }            \
    HOOK void __tsan_unaligned_write##bytes(void* p) { host::touch(p, bytes, host::WRITE); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
HOOK void __tsan_read_range(void* p, size_t bytes) { host::touch(p, int(bytes), host::READ); }
HOOK void __tsan_write_range(void* p, size_t bytes) { host::touch(p, int(bytes), host::WRITE); }
HOOK void __tsan_func_entry(void*) {}
HOOK void __tsan_func_exit() {}
HOOK void __tsan_init() {}
// Clang calls these in place of the C library's.
HOOK void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
    host::touch(from, int(bytes), host::READ), host::touch(to, int(bytes), host::WRITE);
    return memcpy(to, from, bytes);
}
HOOK void* __tsan_memset(void* to, int value, size_t bytes) { return memset(to, value, bytes); }
HOOK void* __tsan_memmove(void* to, const void* from, size_t bytes) { return memmove(to, from, bytes); }
#endif
