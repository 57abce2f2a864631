// Asynchronous copies, ldmatrix and mma.sync with the fragment layouts of the PTX manual (sections 9.7.9, 9.7.14).
#pragma once

namespace host {

constexpr unsigned ALL = 0xFFFFFFFFu;  // lanes

// --- cp.async: the copy happens when its group is waited for; until then the destination holds NaN.

static void copy_async(void* to, const void* from, int bytes) {
    Thread* t = current;
    if (t->copies == MOST_COPIES) fail("more than %d asynchronous copies are on their way", MOST_COPIES);
    require_shared(to, bytes, "cp.async");
    touch(to, bytes, WRITE);
    memset(to, 0xFF, bytes);
    t->copy[t->copies++] = {static_cast<char*>(to), static_cast<const char*>(from), bytes, t->group};
}

static void commit_copies() { current->group++; }

// Finishes all groups but the `pending` newest ones.
static void wait_copies(int pending) {
    Thread* t = current;
    int kept = 0;
    for (int k = 0; k < t->copies; k++) {
        const Copy c = t->copy[k];
        if (c.group >= t->group - pending) {
            t->copy[kept++] = c;
            continue;
        }
        touch(c.to, c.bytes, WRITE);
        if (c.from) touch(c.from, c.bytes, READ);
        if (c.from) memcpy(c.to, c.from, c.bytes);
        else memset(c.to, 0, c.bytes);
    }
    t->copies = kept;
}

// --- 16-bit formats

static inline float bf16_value(unsigned short bits) { return __uint_as_float(unsigned(bits) << 16); }
static inline unsigned short bf16_bits(float x) {  // to nearest, ties to even
    const unsigned u = __float_as_uint(x);
    if (isnan(x)) return 0x7FFF;
    return static_cast<unsigned short>((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}
static inline float f16_value(unsigned short bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float sign = bits >> 15 ? -1.0f : 1.0f;
    if (exponent == 31) return fraction ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * ldexpf(float(fraction), -24);
    return sign * ldexpf(float(fraction + 1024), exponent - 25);
}
static inline unsigned short f16_bits(float x) {  // to nearest, ties to even
    const unsigned short sign = std::signbit(x) ? 0x8000 : 0;
    const float size = fabsf(x);
    if (isnan(x)) return 0x7FFF;
    if (size >= 65520.0f) return sign | 0x7C00;  // rounds beyond the largest, 65504
    int exponent;
    frexpf(size, &exponent);                                       // size = m 2^exponent, 1/2 <= m < 1
    const int unit = size < ldexpf(1, -14) ? -24 : exponent - 11;  // the last place's weight; zero, subnormal: 2^-24
    const unsigned steps = unsigned(nearbyintf(ldexpf(size, -unit)));
    if (unit == -24) return static_cast<unsigned short>(sign | steps);  // 1024 steps carry into the exponent
    return static_cast<unsigned short>(sign | (((unit + 24) << 10) + steps));
}
static inline float tf32_value(unsigned bits) { return __uint_as_float(bits & 0xFFFFE000u); }  // what the unit reads

// --- ldmatrix: eight rows of eight 16-bit elements; lane 8 m + r gives the address of row r of matrix m.

template <int MATRICES, bool TRANSPOSED>
static void load_matrices(unsigned* r, const void* row) {
    if (lane() < 8 * MATRICES) require_shared(row, 16, "ldmatrix");
    exchange(&row, sizeof row, ALL, -1);
    const int g = lane() / 4, t = lane() % 4;
    for (int m = 0; m < MATRICES; m++) {
        unsigned short pair[2];
        for (int k = 0; k < 2; k++) {
            const int i = TRANSPOSED ? 2 * t + k : g, j = TRANSPOSED ? g : 2 * t + k;
            memcpy(pair + k, given<const char*>(8 * m + i, ALL) + 2 * j, 2);
        }
        r[m] = pair[0] | unsigned(pair[1]) << 16;
    }
}

// --- mma.sync, d += a b. Lane 4 g + t; register k of d holds row g + 8 (k / 2), column 2 t + k % 2.

struct Fragments {
    unsigned a[4], b[2];
};

template <class F>  // product(i, j) -> sum over k of a[i][k] b[k][j]
static void multiply(float* d, const unsigned* a, const unsigned* b, F product) {
    Fragments mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    exchange(&mine, sizeof mine, ALL, -2);
    const int g = lane() / 4, t = lane() % 4;
    for (int k = 0; k < 4; k++) d[k] += float(product(g + k / 2 * 8, 2 * t + k % 2));
}

static void mma_tf32(float* d, const unsigned* a, const unsigned* b) {  // a 16 x 8, b 8 x 8
    multiply(d, a, b, [](int i, int j) {
        double sum = 0;
        for (int k = 0; k < 8; k++) {  // a[i][k]: lane 4 (i % 8) + k % 4; register i / 8 + 2 (k / 4)
            const Fragments fa = given<Fragments>(i % 8 * 4 + k % 4, ALL);
            const Fragments fb = given<Fragments>(j * 4 + k % 4, ALL);
            sum += double(tf32_value(fa.a[i / 8 + k / 4 * 2])) * tf32_value(fb.b[k / 4]);
        }
        return sum;
    });
}

template <float (*VALUE)(unsigned short)>
static void mma_16(float* d, const unsigned* a, const unsigned* b) {  // a 16 x 16, b 16 x 8
    multiply(d, a, b, [](int i, int j) {
        double sum = 0;
        for (int k = 0; k < 16; k++) {  // a[i][k]: lane 4 (i % 8) + k % 8 / 2; register i / 8 + 2 (k / 8), half k % 2
            const Fragments fa = given<Fragments>(i % 8 * 4 + k % 8 / 2, ALL);
            const Fragments fb = given<Fragments>(j * 4 + k % 8 / 2, ALL);
            const int shift = k % 2 * 16;
            sum += double(VALUE(static_cast<unsigned short>(fa.a[i / 8 + k / 8 * 2] >> shift))) *
                   VALUE(static_cast<unsigned short>(fb.b[k / 8] >> shift));
        }
        return sum;
    });
}

}  // namespace host
