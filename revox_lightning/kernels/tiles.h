// The two matrix products and the threads that all kernels share.
//
// A tile fills as many registers as the target has. All matrices are row-major floats, their columns padded to whole
// vectors.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstring>
#include <new>
#include <thread>
#include <vector>

#include "vectors.h"

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int ACCUMULATORS = 24;  // of 32 registers
#else
constexpr int ACCUMULATORS = 12;  // of 16 registers
#endif
constexpr int PANEL = 2 * LANES;  // columns of a packed matrix that lie together

// Floats from the start of a cache line on: a vector that lies across two of them costs twice.
template <class T>
struct CacheLines {
    using value_type = T;
    static constexpr std::align_val_t SIZE{64};

    T* allocate(size_t count) { return static_cast<T*>(operator new(count * sizeof(T), SIZE)); }
    void deallocate(T* place, size_t) { operator delete(place, SIZE); }
    bool operator==(const CacheLines&) const { return true; }
    bool operator!=(const CacheLines&) const { return false; }
};
using Aligned = std::vector<float, CacheLines<float>>;

// A matrix (rows x columns) in panels of PANEL columns: all rows of the first panel, then all of the second. The last
// panel is one vector wide where the padded columns end there.
INLINE size_t packed_floats(int rows, int columns) { return size_t(rows) * padded(columns); }

// element(row, column) gives the entries; padding is zero.
template <class Element>
static void pack(float* out, int rows, int columns, Element element) {
    const int whole = padded(columns);
    for (int first = 0; first < whole; first += PANEL) {
        const int width = whole - first < PANEL ? whole - first : PANEL;
        for (int row = 0; row < rows; row++)
            for (int c = first; c < first + width; c++) *out++ = c < columns ? element(row, c) : 0.0f;
    }
}

// One term of a sum of products: entry (row, k) of the left matrix is in[row * step + k], k < inner; the right matrix
// (inner x columns) is packed.
struct Product {
    const float* in;
    ptrdiff_t step;
    int inner;
    const float* packed;
};

// acc[v][n] += right[k][v] * left[n][k], over all products, from column `first` of the right matrices on. Three rows
// share a pointer: processors add one or two times a step to an address for nothing.
template <int V, int N>
INLINE void accumulate(vec (&acc)[V][N], const Product* products, int count, int row, int first) {
    for (int i = 0; i < count; i++) {
        const Product& product = products[i];
        const int inner = product.inner;
        const float* w = product.packed + size_t(first) * inner;
        const ptrdiff_t step = product.step;
        const float* in[(N + 2) / 3];
#pragma GCC unroll 8
        for (int j = 0; j < (N + 2) / 3; j++) in[j] = product.in + (row + 3 * j) * step;
#pragma GCC unroll 2
        for (int k = 0; k < inner; k++) {
            vec b[V];
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) {
                b[v] = load(w + (k * V + v) * LANES);
                KEEP(b[v]);
            }
#pragma GCC unroll 24
            for (int n = 0; n < N; n++) {
                const vec a = all(in[n / 3][n % 3 * step + k]);
#pragma GCC unroll 8
                for (int v = 0; v < V; v++) acc[v][n] += b[v] * a;
            }
        }
    }
}

template <int V, int N>
static void multiply_tile(
    float* out, ptrdiff_t out_step, int row, int first, const Product* products, int count, const float* start
) {
    vec acc[V][N];
    float* to = out + row * out_step + first;
    if (start) {
        start += first;
#pragma GCC unroll 24
        for (int n = 0; n < N; n++)
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) acc[v][n] = load(start + v * LANES);
    } else {
        const float* from[(N + 2) / 3];
#pragma GCC unroll 8
        for (int j = 0; j < (N + 2) / 3; j++) from[j] = to + 3 * j * out_step;
#pragma GCC unroll 24
        for (int n = 0; n < N; n++)
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) acc[v][n] = load(from[n / 3] + n % 3 * out_step + v * LANES);
    }
    accumulate<V, N>(acc, products, count, row, first);
    AFRESH(to);
    float* into[(N + 2) / 3];
#pragma GCC unroll 8
    for (int j = 0; j < (N + 2) / 3; j++) into[j] = to + 3 * j * out_step;
#pragma GCC unroll 24
    for (int n = 0; n < N; n++)
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) store(into[n / 3] + n % 3 * out_step + v * LANES, acc[v][n]);
}

// One row against four panels at once: a single row has too few independent sums otherwise.
static void multiply_row(
    float* out, ptrdiff_t out_step, int row, int first, const Product* products, int count, const float* start
) {
    constexpr int P = 4;
    vec acc[P][2];
    float* to = out + row * out_step + first;
#pragma GCC unroll 8
    for (int p = 0; p < P; p++)
        for (int v = 0; v < 2; v++) acc[p][v] = load((start ? start + first : to) + p * PANEL + v * LANES);
    for (int i = 0; i < count; i++) {
        const Product& product = products[i];
        const int inner = product.inner;
        const float* w = product.packed + size_t(first) * inner;
        const float* in = product.in + row * product.step;
        for (int k = 0; k < inner; k++) {
            const vec a = all(in[k]);
#pragma GCC unroll 8
            for (int p = 0; p < P; p++)
#pragma GCC unroll 2
                for (int v = 0; v < 2; v++)
                    acc[p][v] += load(w + size_t(p) * PANEL * inner + k * PANEL + v * LANES) * a;
        }
    }
#pragma GCC unroll 8
    for (int p = 0; p < P; p++)
        for (int v = 0; v < 2; v++) store(to + p * PANEL + v * LANES, acc[p][v]);
}

// Tiles of exactly `height` <= N rows, from `row` up to `end`.
template <int V, int N>
static void multiply_tiles(
    float* out, ptrdiff_t out_step, int row, int end, int height, int first, const Product* products, int count,
    const float* start
) {
    if (height == N) {
        for (; row < end; row += N) multiply_tile<V, N>(out, out_step, row, first, products, count, start);
    } else if constexpr (N > 1) {
        multiply_tiles<V, N - 1>(out, out_step, row, end, height, first, products, count, start);
    }
}

// All rows of V vectors of columns, in as few tiles as the registers allow, all about equally high: a low tile has too
// few independent sums to keep the multipliers busy.
template <int V>
static void multiply_columns(
    float* out, ptrdiff_t out_step, int rows, int first, const Product* products, int count, const float* start
) {
    constexpr int N = ACCUMULATORS / V;
    const int tiles = (rows + N - 1) / N, height = (rows + tiles - 1) / tiles;
    const int middle = (rows - (height - 1) * tiles) * height;
    multiply_tiles<V, N>(out, out_step, 0, middle, height, first, products, count, start);
    if (middle < rows)
        multiply_tiles<V, N>(out, out_step, middle, rows, height - 1, first, products, count, start);
}

// out[row][c] = start[c] + sum over products; without `start` the sum is added to what stands in `out`. A single row
// is bound by how fast the weights arrive: who walks `backwards` every other time finds the last ones still near.
static void multiply(
    float* out, ptrdiff_t out_step, int rows, int columns, const Product* products, int count,
    const float* start = nullptr, bool backwards = false
) {
    const int whole = padded(columns), quads = rows == 1 ? whole / (4 * PANEL) : 0;
    if (rows < 1) return;
    for (int i = 0; i < quads; i++) {
        const int first = (backwards ? quads - 1 - i : i) * 4 * PANEL;
        multiply_row(out, out_step, 0, first, products, count, start);
    }
    int first = quads * 4 * PANEL;
    for (; first + PANEL <= whole; first += PANEL)
        multiply_columns<2>(out, out_step, rows, first, products, count, start);
    if (first < whole)
        multiply_columns<1>(out, out_step, rows, first, products, count, start);
}

// sums[k][c] += sum over rows of left[row][k] * right[row][c]: the gradient of a right matrix.
template <int V, int N>
static void outer_tile(
    float* sums, ptrdiff_t sums_step, int k, int c, const float* left, ptrdiff_t left_step, const float* right,
    ptrdiff_t right_step, int rows
) {
    constexpr int S = V * N > 4 ? 1 : V * N > 2 ? 2 : 4;  // several sums of each, or one would wait for the one before
    vec acc[S][V][N] = {};
#pragma GCC unroll 24
    for (int n = 0; n < N; n++)
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) acc[0][v][n] = load(sums + (k + n) * sums_step + c + v * LANES);
    const float* l = left + k;
    const float* r = right + c;
    auto add_row = [&](vec (&to)[V][N]) __attribute__((always_inline)) {
        vec b[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) {
            b[v] = load(r + v * LANES);
            KEEP(b[v]);
        }
#pragma GCC unroll 24
        for (int n = 0; n < N; n++) {
            const vec a = all(l[n]);
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) to[v][n] += b[v] * a;
        }
        l += left_step, r += right_step;
    };
    int row = 0;
    for (; row + S <= rows; row += S)
#pragma GCC unroll 4
        for (int i = 0; i < S; i++) add_row(acc[i]);
    for (; row < rows; row++) add_row(acc[0]);
#pragma GCC unroll 24
    for (int n = 0; n < N; n++)
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) {
            vec sum = acc[0][v][n];
#pragma GCC unroll 4
            for (int i = 1; i < S; i++) sum += acc[i][v][n];
            store(sums + (k + n) * sums_step + c + v * LANES, sum);
        }
}

// Tiles of exactly `height` <= N rows of the sums, from row k up to `end`.
template <int V, int N>
static void outer_rows(
    float* sums, ptrdiff_t sums_step, int k, int end, int height, int c, const float* left, ptrdiff_t left_step,
    const float* right, ptrdiff_t right_step, int rows
) {
    if (height == N) {
        for (; k < end; k += N) outer_tile<V, N>(sums, sums_step, k, c, left, left_step, right, right_step, rows);
    } else if constexpr (N > 1) {
        outer_rows<V, N - 1>(sums, sums_step, k, end, height, c, left, left_step, right, right_step, rows);
    }
}

// As few tiles as the registers allow, all about equally high.
template <int V>
static void outer_columns(
    float* sums, ptrdiff_t sums_step, int inner, int c, const float* left, ptrdiff_t left_step, const float* right,
    ptrdiff_t right_step, int rows
) {
    constexpr int N = ACCUMULATORS / V;
    const int tiles = (inner + N - 1) / N, height = (inner + tiles - 1) / tiles;
    const int middle = (inner - (height - 1) * tiles) * height;
    outer_rows<V, N>(sums, sums_step, 0, middle, height, c, left, left_step, right, right_step, rows);
    if (middle < inner)
        outer_rows<V, N>(sums, sums_step, middle, inner, height - 1, c, left, left_step, right, right_step, rows);
}

// sums (inner x columns) += left^T (rows x inner) right (rows x columns). The columns count padding.
static void add_outer(
    float* sums, ptrdiff_t sums_step, int inner, int columns, const float* left, ptrdiff_t left_step,
    const float* right, ptrdiff_t right_step, int rows
) {
    const int whole = padded(columns);
    int c = 0;
    for (; c + PANEL <= whole; c += PANEL)
        outer_columns<2>(sums, sums_step, inner, c, left, left_step, right, right_step, rows);
    if (c < whole)
        outer_columns<1>(sums, sums_step, inner, c, left, left_step, right, right_step, rows);
}

// work(part) for part 0 to parts - 1, each on a thread of its own; the caller's thread takes the first. Threads are
// made anew each time: that costs some 20 us, and none of them waits in a loop while torch computes.
template <class Work>
static void in_parallel(int parts, Work work) {
    std::vector<std::thread> others;
    others.reserve(parts > 1 ? parts - 1 : 0);
    for (int part = 1; part < parts; part++) others.emplace_back([=] { work(part); });
    if (parts > 0) work(0);
    for (std::thread& other : others) other.join();
}
