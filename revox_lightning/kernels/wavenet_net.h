// What a WaveNet is made of: its layers with their weights packed, and where each signal is kept for the way back.
#pragma once

#include "tiles.h"

#include <algorithm>

constexpr int TILE = 96;  // rows: high enough for the products, low enough for the first cache

// Zeros.
class Floats {
    Aligned floats;

public:
    explicit Floats(size_t count = 0) : floats(count) {}
    operator float*() { return floats.data(); }
    operator const float*() const { return floats.data(); }
    void clear() { std::fill(floats.begin(), floats.end(), 0.0f); }
};

// What Python asks for: kernels/wavenet.py has the same fields. Signals are (batch, channels, time).
struct Call {
    const int* plan;                 // see Net
    const float* const* parameters;  // null: absent
    float scale;                     // of the last head
    int batch, frames, threads;
    const float* u;                  // the inputs, then what only the conditions have
    const float* const* histories;   // of each layer; null: silence
    float* tape;                     // what the way back needs; null: nothing is kept
    float* y;
    float* const* states;            // of each layer, at the end
    const float* dy;                 // null: zero
    const float* const* dstates;     // each may be null
    float* const* gradients;         // of the parameters
    float* du;                       // null: not wanted
    float* const* dhistories;        // each may be null
};

enum Purpose { SIZES, FORWARD, BACKWARD };  // of a net: what is packed

// A matrix between channels, and what is needed to compute with it in either direction. A gate's columns are padded to
// whole vectors. A vector is a matrix of one row.
struct Map {
    int parameter = -1, inner = 0, outs = 0, gates = 1;
    ptrdiff_t in_step = 0;
    float scale = 1.0f;
    bool present = false;
    size_t sums = 0;  // where its gradient lies: rows of `columns`
    std::vector<ptrdiff_t> of_column;  // where its first entry stands in the parameter, -1: padding
    Floats forward, backward;

    int columns() const { return gates * padded(outs); }
    int rows_back() const { return gates == 1 ? outs : columns(); }
    ptrdiff_t place(int k, int c) const { return of_column[c] < 0 ? -1 : of_column[c] + k * in_step; }
};

struct Layer {
    int channels, width, dilation, past, gates;
    bool relu, leads_on;  // the last one's residual leads nowhere
    size_t kept_x, kept_z;  // inputs and activations within a tile of the tape
    std::vector<Map> taps;  // the oldest first
    Map bias, condition, residual, residual_bias, mixer;  // the mixer leads from the outputs to the channels

    int columns() const { return gates * width; }
    int lag(int tap) const { return (int(taps.size()) - 1 - tap) * dilation; }
};

struct Array {
    int width, head_width;  // of x; of the sum of all layers: of a mixer's outputs, a vector of partial sums each
    size_t kept_head, kept_exit;  // the sum, and what the next array reads
    Map rechannel, rechannel_bias, head, head_bias;
    std::vector<Layer> layers;
};

struct Net {
    int inputs, outputs, widest = 0, layers = 0;
    bool mixed;  // each layer has its own matrix to the output; else all of an array are added up before its head
    size_t tape = 0, sums = 0;  // floats of a tile on the tape, and of all gradients
    std::vector<Array> arrays;
    Floats zeros;

    Net(const Call& call, Purpose purpose);
    size_t tape_of_item(int frames) const { return size_t((frames + TILE - 1) / TILE) * tape; }

private:
    // Entry (k, c) stands at offset + k * in_step + c * out_step of the parameter.
    Map map(const Call&, Purpose, int parameter, int inner, int outs, int gates, ptrdiff_t offset, ptrdiff_t in_step,
            ptrdiff_t out_step, float scale = 1.0f);
    Layer layer(const Call&, Purpose, const int* array, int index, int& parameter, int mixer);
    size_t keep(size_t columns) { return (tape += columns * TILE) - columns * TILE; }
};

Map Net::map(
    const Call& call, Purpose purpose, int parameter, int inner, int outs, int gates, ptrdiff_t offset,
    ptrdiff_t in_step, ptrdiff_t out_step, float scale
) {
    Map m;
    m.parameter = parameter, m.inner = inner, m.outs = outs, m.gates = gates;
    m.in_step = in_step, m.scale = scale;
    const float* weights = call.parameters[parameter];
    m.present = weights != nullptr;
    m.sums = sums;
    sums += size_t(inner) * m.columns();
    if (purpose == SIZES) return m;
    m.of_column.assign(m.columns(), -1);
    for (int gate = 0, out = 0; gate < gates; gate++)
        for (int unit = 0; unit < outs; unit++, out++)
            m.of_column[gate * padded(outs) + unit] = offset + out * out_step;
    auto entry = [&](int k, int c) {
        const ptrdiff_t place = m.place(k, c);
        return weights && place >= 0 ? scale * weights[place] : 0.0f;
    };
    m.forward = Floats(packed_floats(inner, m.columns()));
    pack(m.forward, inner, m.columns(), entry);
    if (purpose == BACKWARD) {
        m.backward = Floats(packed_floats(m.rows_back(), inner));
        pack(m.backward, m.rows_back(), inner, [&](int c, int k) { return entry(k, c); });
    }
    return m;
}

// An array's plan: inputs, channels, outputs of its head, kernel, gates, relu, number of layers, their dilations.
enum { INPUTS, CHANNELS, HEAD, KERNEL, GATES, RELU, LAYERS, DILATIONS };

Layer Net::layer(const Call& call, Purpose purpose, const int* array, int index, int& parameter, int mixer) {
    const int C = array[CHANNELS], K = array[KERNEL], G = array[GATES];
    Layer l;
    l.channels = C, l.width = padded(C), l.dilation = array[DILATIONS + index], l.gates = G;
    l.past = (K - 1) * l.dilation;
    l.relu = array[RELU], l.leads_on = true;
    l.kept_x = keep(l.width), l.kept_z = keep(l.columns());
    for (int k = 0; k < K; k++) l.taps.push_back(map(call, purpose, parameter, C, C, G, k, K, ptrdiff_t(C) * K));
    l.condition = map(call, purpose, parameter + 2, inputs, C, G, 0, 1, inputs);
    l.bias = map(call, purpose, parameter + 1, 1, C, G, 0, 0, 1);  // after the condition: Rewinder::into_sums
    l.residual = map(call, purpose, parameter + 3, C, C, 1, 0, 1, C);
    l.residual_bias = map(call, purpose, parameter + 4, 1, C, 1, 0, 0, 1);
    if (mixed) l.mixer = map(call, purpose, mixer, outputs, C, 1, index * C, ptrdiff_t(C) * array[LAYERS], 1);
    parameter += 5;
    widest = std::max(widest, l.columns());
    layers++;
    return l;
}

// The plan: inputs, outputs, mixed, number of arrays, the arrays. The parameters: of each array its rechannel, head (or
// mixer) and their biases, then of each layer its taps, their bias, condition, residual and its bias.
Net::Net(const Call& call, Purpose purpose) {
    const int* plan = call.plan;
    inputs = plan[0], outputs = plan[1], mixed = plan[2];
    const int count = plan[3];
    int parameter = 0;
    plan += 4;
    for (int n = 0; n < count; n++, plan += DILATIONS + plan[LAYERS]) {
        Array a;
        const int first = parameter, C = plan[CHANNELS];
        const float scale = n == count - 1 ? call.scale : 1.0f;
        a.width = padded(C), a.head_width = mixed ? outputs * LANES : a.width;
        a.rechannel = map(call, purpose, first, plan[INPUTS], C, 1, 0, 1, plan[INPUTS]);
        a.rechannel_bias = map(call, purpose, first + 1, 1, C, 1, 0, 0, 1);
        if (!mixed) a.head = map(call, purpose, first + 2, C, plan[HEAD], 1, 0, 1, C, scale);
        a.head_bias = map(call, purpose, first + 3, 1, mixed ? outputs : plan[HEAD], 1, 0, 0, 1, scale);
        parameter += 4;
        for (int l = 0; l < plan[LAYERS]; l++) a.layers.push_back(layer(call, purpose, plan, l, parameter, first + 2));
        a.layers.back().leads_on = n < count - 1;
        a.kept_head = keep(a.head_width), a.kept_exit = keep(a.width);
        arrays.push_back(std::move(a));
    }
    widest = std::max({widest, outputs * LANES, padded(inputs)});
    zeros = Floats(widest);
}

template <class Work>
static void each_map(const Net& net, Work work) {
    for (const Array& a : net.arrays) {
        for (const Map* m : {&a.rechannel, &a.rechannel_bias, &a.head, &a.head_bias})
            if (m->present) work(*m);
        for (const Layer& l : a.layers) {
            for (const Map& m : l.taps) work(m);
            for (const Map* m : {&l.bias, &l.condition, &l.residual, &l.residual_bias, &l.mixer})
                if (m->present) work(*m);
        }
    }
}
