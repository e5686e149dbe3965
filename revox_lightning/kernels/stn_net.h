// A State Transition Network as its loops see it: packed weights, and one sample's way through the layers.
#pragma once

#include "tiles.h"

struct Sizes {
    int layers;
    const int* hidden;
    const float* const* weights;  // from M to the first layer, then W and b of each further layer, then head and bias
};

// All widths are padded to vectors; padding is zero and stays so, because tanh(0) = 0.
struct Net {
    int layers;
    std::vector<int> hidden, width;
    std::vector<Aligned> forward, back, bias;  // of layer l: (unit of l - 1, width of l); (unit of l, width of l - 1)
    Aligned from_m, head;
    float head_bias;
    size_t kept = 0;  // floats of all layers at one sample

    explicit Net(const Sizes& s) : layers(s.layers), hidden(s.hidden, s.hidden + s.layers) {
        for (int units : hidden) width.push_back(padded(units)), kept += padded(units);
        forward.resize(layers), back.resize(layers), bias.resize(layers);
        from_m.assign(s.weights[0], s.weights[0] + hidden[0]);
        from_m.resize(width[0]);
        for (int l = 1; l < layers; l++) {
            const float *w = s.weights[2 * l - 1], *b = s.weights[2 * l];
            const int in = hidden[l - 1], out = hidden[l];
            forward[l].resize(size_t(width[l - 1]) * width[l]);
            back[l].resize(size_t(out) * width[l - 1]);
            for (int o = 0; o < out; o++)
                for (int i = 0; i < in; i++)
                    forward[l][size_t(i) * width[l] + o] = back[l][size_t(o) * width[l - 1] + i] = w[o * in + i];
            bias[l].assign(b, b + out);
            bias[l].resize(width[l]);
        }
        const float* last = s.weights[2 * layers - 1];
        head.assign(last, last + hidden.back());
        head.resize(width.back());
        head_bias = *s.weights[2 * layers];
    }
};

INLINE float sum_of(vec v) {
    float sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += v[lane];
    return sum;
}

INLINE float within(float m, float limit) { return m > limit ? limit : m < -limit ? -limit : m; }  // NaN stays

INLINE float positive(float x) { return x < 0 ? 0.0f : x; }

// One sample of C columns: from the first layer, already in `h`, to the output of the net. h[c] holds all layers.
template <int C>
INLINE void layers_on(const Net& net, float* const (&h)[C], float (&z)[C]) {
    constexpr int CHAINS = C == 1 ? 4 : 1;  // sums that need not wait for each other
    size_t at = 0;
    for (int l = 1; l < net.layers; l++) {
        const int in = net.width[l - 1], out = net.width[l];
        for (int v = 0; v < out; v += LANES) {
            const float* w = net.forward[l].data() + v;
            vec sums[C][CHAINS] = {};
            for (int c = 0; c < C; c++) sums[c][0] = load(net.bias[l].data() + v);
            for (int k = 0; k < in; k += CHAINS)
#pragma GCC unroll 4
                for (int chain = 0; chain < CHAINS; chain++, w += out) {
                    const vec weights = load(w);
#pragma GCC unroll 4
                    for (int c = 0; c < C; c++) sums[c][chain] += all(h[c][at + k + chain]) * weights;
                }
            for (int c = 0; c < C; c++) {
                for (int chain = 1; chain < CHAINS; chain++) sums[c][0] += sums[c][chain];
                store(h[c] + at + in + v, tanh_vector(sums[c][0]));
            }
        }
        at += in;
    }
    for (int c = 0; c < C; c++) {
        vec sum = {};
        for (int v = 0; v < net.width.back(); v += LANES) sum += load(h[c] + at + v) * load(net.head.data() + v);
        z[c] = sum_of(sum) + net.head_bias;
    }
}
