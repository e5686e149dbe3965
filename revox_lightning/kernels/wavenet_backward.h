// A WaveNet's way back: the gradients of everything, tiles of rows from the last to the first through all layers.
#pragma once

#include "wavenet_forward.h"

// dp (and what the head adds to it) -> dz, the gradient of the weighted sums; p again where there are gates. `ahead` is
// the part of the tape that is read next.
template <bool GATED, bool RELU>
static void activate_back(
    int width, const float* z, const float* dp, const float* dhead, float* dz, float* p, const float* ahead, int rows
) {
    const vec zero = all(0.0f);
    const int once = GATED ? width : rows * width;  // without gates all rows are one
    for (int n = 0; n < rows * width; n += once, z += (GATED + 1) * once, dz += (GATED + 1) * once)
        for (int c = 0; c < once; c += LANES) {
            for (int i = 0; i < (GATED ? 3 : 2) * LANES; i += 16) __builtin_prefetch(ahead), ahead += 16;
            const vec a = load(z + c);
            vec d = load(dp + n + c);
            if (dhead) d += load(dhead + n + c);
            vec through = d;
            if (GATED) {
                const vec gate = load(z + width + c);
                through = d * gate;
                store(dz + width + c, d * a * gate * (1.0f - gate));
                store(p + n + c, a * gate);
            }
            store(dz + c, RELU ? (a <= zero ? zero : through) : through * (1.0f - a * a));
        }
}

static void add_rows(float* sums, const float* rows, int columns, int count) {
    for (int c = 0; c < columns; c += LANES) {
        vec sum[4] = {load(sums + c)};  // several, or each addition would wait for the one before
        int n = 0;
        for (; n + 4 <= count; n += 4)
            for (int i = 0; i < 4; i++) sum[i] += load(rows + (n + i) * columns + c);
        for (; n < count; n++) sum[0] += load(rows + n * columns + c);
        store(sums + c, (sum[0] + sum[1]) + (sum[2] + sum[3]));
    }
}

// From where on each layer's input, and the sums of its convolution, have a gradient: nothing is done before it.
struct Reach {
    long x, z;
};

// One item of the batch on its way back, tiles from the last to the first.
class Rewinder {
    const Net& net;
    const Call& call;
    std::vector<Ring> rings;
    std::vector<Reach> reach;
    std::vector<Product> products;
    Floats sums, p, dp, dx[2], dheads[2], u, du, x;

    void find_reach(int item);
    void rewind_tile(int item, long time, int rows, const float* tape);
    void rewind_layer(const Layer&, int i, long time, int rows, const float* tape, const float* dhead, float* d);
    void into_sums(const Layer&, Ring&, long time, int rows, const float* tape, const float* dhead, float* d);
    void through_taps(const Layer&, Ring&, long time, int rows, const float* inputs, float* d);
    void add_state_gradient(const Layer&, int i, int item, long time, int rows, float* d);
    void rewind_history(const Layer&, int i, int item);
    void add_outer_of(const Map& map, const float* left, int left_step, const float* right, int rows) {
        const int columns = map.columns();
        add_outer(sums + map.sums, columns, map.inner, columns, left, left_step, right, columns, rows);
    }

public:
    std::vector<double> totals;

    Rewinder(const Net& n, const Call& c)
        : net(n), call(c), sums(n.sums), p(TILE * n.widest), dp(TILE * n.widest),
          dx{Floats(TILE * n.widest), Floats(TILE * n.widest)},
          dheads{Floats(TILE * n.widest), Floats(TILE * n.widest)}, u(TILE * (n.inputs + 1)), du(TILE * n.widest),
          x(TILE * n.widest), totals(n.sums) {
        for (int n = 0; n < TILE; n++) u[n * (net.inputs + 1) + net.inputs] = 1.0f;
        for (const Array& a : net.arrays)
            for (const Layer& l : a.layers) rings.emplace_back(l.past, l.columns());
        reach.resize(net.layers);
    }
    void rewind(int item);
};

void Rewinder::find_reach(int item) {
    const int T = call.frames;
    long first = T;
    if (call.dy)
        for (int c = 0; c < net.outputs; c++) {
            const float* dy = call.dy + (size_t(item) * net.outputs + c) * T;
            first = std::min(first, long(std::find_if(dy, dy + T, [](float d) { return d != 0.0f; }) - dy));
        }
    long later = T;
    size_t i = net.layers;
    for (size_t n = net.arrays.size(); n-- > 0;)
        for (size_t l = net.arrays[n].layers.size(); l-- > 0;) {
            const int past = net.arrays[n].layers[l].past;
            Reach& r = reach[--i];
            r.z = std::min(first, later);
            r.x = r.z < T ? r.z - past : T;
            if (call.dstates && call.dstates[i]) r.x = std::min(r.x, long(T) - past);
            later = std::max(r.x, 0L);
        }
}

void Rewinder::rewind(int item) {
    const int T = call.frames;
    find_reach(item);
    for (Ring& ring : rings) ring.clear();
    sums.clear();
    const float* tape = call.tape + size_t(item) * net.tape_of_item(T);
    for (int tile = (T - 1) / TILE; tile >= 0; tile--)
        rewind_tile(item, long(tile) * TILE, std::min(TILE, T - tile * TILE), tape + tile * net.tape);
    int i = 0;
    for (const Array& a : net.arrays)
        for (const Layer& l : a.layers) rewind_history(l, i++, item);
    // Single precision within an item, double between them: sums over millions of samples keep their digits.
    for (size_t n = 0; n < totals.size(); n++) totals[n] += sums[n];
}

void Rewinder::rewind_tile(int item, long time, int rows, const float* tape) {
    const int T = call.frames, O = padded(net.outputs), U = padded(net.inputs);
    to_rows(u, net.inputs + 1, call.u + size_t(item) * net.inputs * T + time, T, net.inputs, rows);
    std::memset(du, 0, sizeof(float) * TILE * U);
    float *dhead = dheads[0], *d = dx[0];
    std::memset(dhead, 0, sizeof(float) * rows * O);
    if (call.dy) to_rows(dhead, O, call.dy + size_t(item) * net.outputs * T + time, T, net.outputs, rows);
    if (net.mixed) add_rows(sums + net.arrays[0].head_bias.sums, dhead, O, rows);
    std::memset(d, 0, sizeof(float) * rows * net.arrays.back().width);
    int i = net.layers;
    for (size_t n = net.arrays.size(); n-- > 0;) {
        const Array& a = net.arrays[n];
        if (!net.mixed) {
            add_outer_of(a.head, tape + a.kept_head, a.width, dhead, rows);
            add_rows(sums + a.head_bias.sums, dhead, a.head_bias.columns(), rows);
            const Product leave{dhead, a.head.columns(), a.head.outs, a.head.backward};
            dhead = dhead == dheads[0] ? dheads[1] : dheads[0];
            multiply(dhead, a.width, rows, a.width, &leave, 1, net.zeros);
        }
        for (size_t l = a.layers.size(); l-- > 0;) {
            rewind_layer(a.layers[l], --i, time, rows, tape, dhead, d);
            add_state_gradient(a.layers[l], i, item, time, rows, d);
        }
        const float* in = n ? tape + net.arrays[n - 1].kept_exit : u;
        add_outer_of(a.rechannel, in, n ? net.arrays[n - 1].width : net.inputs + 1, d, rows);
        add_rows(sums + a.rechannel_bias.sums, d, a.width, rows);
        const Product enter{d, a.width, a.layers[0].channels, a.rechannel.backward};
        d = d == dx[0] ? dx[1] : dx[0];
        if (n) multiply(d, net.arrays[n - 1].width, rows, net.arrays[n - 1].width, &enter, 1, net.zeros);
        else if (call.du) multiply(du, U, rows, a.rechannel.inner, &enter, 1);
    }
    if (call.du) from_rows(call.du + size_t(item) * net.inputs * T + time, T, du, U, net.inputs, rows);
}

// d: the gradient of the layer's output on the way in, of its input on the way out.
void Rewinder::rewind_layer(
    const Layer& layer, int i, long time, int rows, const float* tape, const float* dhead, float* d
) {
    if (time + rows <= reach[i].x) return;  // d is zero
    Ring& ring = rings[i];
    if (time + rows > reach[i].z) into_sums(layer, ring, time, rows, tape, dhead, d);
    else std::memset(ring.at(time), 0, sizeof(float) * rows * layer.columns());
    ring.mirror(time, rows);
    through_taps(layer, ring, time, rows, tape + layer.kept_x, d);
}

void Rewinder::into_sums(
    const Layer& layer, Ring& ring, long time, int rows, const float* tape, const float* dhead, float* d
) {
    const int W = layer.width, M = layer.columns(), O = padded(net.outputs), U = padded(net.inputs);
    products.clear();
    if (layer.leads_on) products.push_back({d, W, layer.channels, layer.residual.backward});
    if (net.mixed) products.push_back({dhead, O, net.outputs, layer.mixer.forward});
    multiply(dp, W, rows, W, products.data(), int(products.size()), net.zeros);
    float* dz = ring.at(time);
    const float* z = tape + layer.kept_z;
    const float* added = net.mixed ? nullptr : dhead;
    const auto pass = layer.gates == 1 ? (layer.relu ? activate_back<false, true> : activate_back<false, false>)
                                       : (layer.relu ? activate_back<true, true> : activate_back<true, false>);
    pass(W, z, dp, added, dz, p, z - TILE * (2 * W + M), rows);
    const float* out = layer.gates == 1 ? z : p;
    if (layer.leads_on) {
        add_outer_of(layer.residual, out, W, d, rows);
        add_rows(sums + layer.residual_bias.sums, d, W, rows);
    }
    if (net.mixed) add_outer_of(layer.mixer, dhead, O, out, rows);
    // The bias is the condition's last row: u ends with ones.
    const int first = layer.condition.present ? 0 : net.inputs, step = net.inputs + 1;
    const size_t place = layer.condition.present ? layer.condition.sums : layer.bias.sums;
    add_outer(sums + place, M, step - first, M, u + first, step, dz, M, rows);
    const Product condition{dz, M, layer.condition.rows_back(), layer.condition.backward};
    if (call.du && layer.condition.present) multiply(du, U, rows, net.inputs, &condition, 1);
}

// An input goes through each tap into the sums of a later time.
void Rewinder::through_taps(const Layer& layer, Ring& ring, long time, int rows, const float* inputs, float* d) {
    const int W = layer.width, M = layer.columns();
    products.clear();
    for (size_t k = 0; k < layer.taps.size(); k++) {
        const Map& tap = layer.taps[k];
        const float* dz = ring.at(time + layer.lag(k));
        add_outer_of(tap, inputs, W, dz, rows);
        products.push_back({dz, M, tap.rows_back(), tap.backward});
    }
    multiply(d, W, rows, W, products.data(), int(products.size()));
}

// The state that was handed back is the layer's last inputs.
void Rewinder::add_state_gradient(const Layer& layer, int i, int item, long time, int rows, float* d) {
    if (!call.dstates || !call.dstates[i]) return;
    const float* dstate = call.dstates[i] + size_t(item) * layer.channels * layer.past;
    const long start = call.frames - layer.past, skip = std::max(start - time, 0L);
    if (skip < rows)
        add_to_rows(d + skip * layer.width, layer.width, dstate + (time + skip - start), layer.past, layer.channels,
                    int(rows - skip));
}

// Inputs before the first sample, from the last to the first: they have no layer behind them, only taps.
void Rewinder::rewind_history(const Layer& layer, int i, int item) {
    const size_t offset = size_t(item) * layer.channels * layer.past;
    float* wanted = call.dhistories && call.dhistories[i] ? call.dhistories[i] + offset : nullptr;
    if (!call.histories) return;
    Ring& ring = rings[i];
    float* d = dx[0];
    if (reach[i].z >= layer.past) ring.clear();  // its first rows were passed over
    for (long end = 0; end > -layer.past; end -= TILE) {
        const long time = std::max(end - TILE, long(-layer.past));
        const int rows = int(end - time);
        std::memset(ring.at(time), 0, sizeof(float) * rows * layer.columns());
        ring.mirror(time, rows);
        const float* history = call.histories[i] + offset + time + layer.past;
        to_rows(x, layer.width, history, layer.past, layer.channels, rows);
        std::memset(d, 0, sizeof(float) * rows * layer.width);
        through_taps(layer, ring, time, rows, x, d);
        add_state_gradient(layer, i, item, time, rows, d);
        if (wanted) from_rows(wanted + time + layer.past, layer.past, d, layer.width, layer.channels, rows);
    }
}
