// Vectors as wide as the target's registers, and the activations on them.
//
// Written with the compilers' vector extensions, so that one text serves AVX2, AVX-512 and NEON.
#pragma once

#if defined(REVOX_VECTOR_BYTES)  // for tests of a width that the machine does not have
constexpr int VECTOR_BYTES = REVOX_VECTOR_BYTES;
#elif defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif
constexpr int LANES = VECTOR_BYTES / 4;

typedef float vec __attribute__((vector_size(VECTOR_BYTES)));
typedef float vec_anywhere __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))

// Keeps a value in a register, where the compiler would load it again for each use.
#if defined(REVOX_VECTOR_BYTES)
#define KEEP(v)  // there may be no such register
#elif defined(__x86_64__)
#define KEEP(v) asm("" : "+v"(v))
#elif defined(__aarch64__)
#define KEEP(v) asm("" : "+w"(v))
#else
#define KEEP(v)
#endif

// Makes addresses that follow from p be computed again after this line: kept in registers, they would be spilt.
#define AFRESH(p) asm("" : "+r"(p))

INLINE vec load(const float* p) { return *reinterpret_cast<const vec_anywhere*>(p); }
INLINE void store(float* p, vec v) { *reinterpret_cast<vec_anywhere*>(p) = v; }
INLINE vec all(float x) { return x - vec{}; }  // x + 0 would cost an addition: it turns -0 into 0

INLINE int padded(int columns) { return (columns + LANES - 1) / LANES * LANES; }

// x, but not beyond an end; NaN stays NaN. The processor has one instruction where the compiler takes two.
#if defined(__AVX__) && !defined(REVOX_VECTOR_BYTES)
INLINE vec at_most(vec x, vec top) {
    asm("vminps %1, %2, %0" : "=v"(x) : "v"(x), "v"(top));
    return x;
}
INLINE vec at_least(vec x, vec bottom) {
    asm("vmaxps %1, %2, %0" : "=v"(x) : "v"(x), "v"(bottom));
    return x;
}
#else
INLINE vec at_most(vec x, vec top) { return x > top ? top : x; }
INLINE vec at_least(vec x, vec bottom) { return x < bottom ? bottom : x; }
#endif

// Odd rational function of degree 9 over 8, fitted to tanh on [-9, 9] for the least relative error (2e-8 before
// rounding).
INLINE vec tanh_vector(vec x) {
    x = at_least(at_most(x, all(9.0f)), all(-9.0f));
    const vec s = x * x;
    vec p = all(1.335462854e-08f);
    p = p * s + 2.060905622e-05f;
    p = p * s + 3.495586445e-03f;
    p = p * s + 1.338102420e-01f;
    p = p * s + 9.999999795e-01f;
    vec q = all(7.776544131e-07f);
    q = q * s + 3.285632134e-04f;
    q = q * s + 2.587697571e-02f;
    q = q * s + 4.671433979e-01f;
    q = q * s + 1.0f;
    return x * p / q;
}

INLINE vec sigmoid_vector(vec x) { return 0.5f + 0.5f * tanh_vector(0.5f * x); }

// How wide this build is: the records of a run say so.
extern "C" int vector_bytes() { return VECTOR_BYTES; }

// The options that it was compiled with; the build says them.
#if !defined(REVOX_OPTIONS)
#define REVOX_OPTIONS ""
#endif
extern "C" const char* compiler_options() { return REVOX_OPTIONS; }
