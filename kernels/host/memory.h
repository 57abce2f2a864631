// Global arrays that know their length, 16-byte vectors, shared memory.
#pragma once

struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) double2 {
    double x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline double2 make_double2(double x, double y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

extern char __start_minunet_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_minunet_shared[] __attribute__((weak, visibility("hidden")));

namespace host {

constexpr int MOST_SHARED = 227 * 1024, GUARD = 1024;
alignas(1024) static char dynamic_shared[MOST_SHARED + GUARD];
static int dynamic_bytes;

static void poison_shared() {
    if (__start_minunet_shared) memset(__start_minunet_shared, 0xFF, __stop_minunet_shared - __start_minunet_shared);
    memset(dynamic_shared, 0xFF, dynamic_bytes + GUARD);
}

static bool overran_shared() {
    for (int k = 0; k < GUARD; k++)
        if (dynamic_shared[dynamic_bytes + k] != char(0xFF)) return true;
    return false;
}

static void require_shared(const void* address, int bytes, const char* what) {
    const char* p = static_cast<const char*>(address);
    const bool fixed = __start_minunet_shared && p >= __start_minunet_shared && p + bytes <= __stop_minunet_shared;
    const bool dynamic = p >= dynamic_shared && p + bytes <= dynamic_shared + dynamic_bytes;
    if (!fixed && !dynamic) fail("%s: the address does not lie in shared memory", what);
    if (reinterpret_cast<uintptr_t>(p) % bytes) fail("%s: the shared address is no multiple of %d bytes", what, bytes);
}

// A pointer into a global array: what a kernel's In, Out or InOut argument is on the host.
template <class T>
struct Pointer {
    T* base = nullptr;
    long long length = 0, offset = 0;  // in elements
    const char* name = "";

    T* at(long long i, int count = 1) const {
        const long long k = offset + i;
        if (!base) fail("%s is missing (a null pointer), and is read or written", name);
        if (k < 0 || k + count > length) {
            if (count == 1) fail("%s[%lld] lies outside of its %lld elements", name, k, length);
            fail("%s[%lld] to [%lld] lie outside of its %lld elements", name, k, k + count - 1, length);
        }
        return base + k;
    }
    T* aligned(int count, int bytes) const {  // `count` elements at an address that is a multiple of `bytes`
        T* p = at(0, count);
        if (reinterpret_cast<uintptr_t>(p) % bytes) fail("%s[%lld] is not aligned to %d bytes", name, offset, bytes);
        return p;
    }
    T& operator[](long long i) const { return *at(i); }
    T& operator*() const { return *at(0); }
    Pointer operator+(long long i) const { return {base, length, offset + i, name}; }
    Pointer operator-(long long i) const { return {base, length, offset - i, name}; }
    Pointer& operator+=(long long i) {
        offset += i;
        return *this;
    }
    explicit operator bool() const { return base != nullptr; }
    operator Pointer<const T>() const { return {base, length, offset, name}; }
};

template <class T>
struct Pointer<const T&>;

}  // namespace host

template <class T>
using In = host::Pointer<const T>;
template <class T>
using Out = host::Pointer<T>;
template <class T>
using InOut = host::Pointer<T>;

template <class T>
static inline T __ldg(host::Pointer<const T> p) {
    return *p;
}
template <class T>
static inline T __ldg(const T* p) {
    return *p;
}

#define DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(::host::dynamic_shared)
