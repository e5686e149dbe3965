// A WaveNet's way forward: tiles of rows through all layers, with the past of each layer in a ring.
#pragma once

#include "wavenet_net.h"

// Rows by time, as many as the longest look back needs. A tile of rows from any time lies together: the first TILE rows
// stand behind the last ones again.
class Ring {
    Floats rows;
    int width = 0;
    long length = 0;

    void copy(long from, long to, long count) {
        if (count > 0) std::memcpy(rows + to * width, rows + from * width, size_t(count) * width * sizeof(float));
    }

public:
    Ring(int past, int row_width)
        : rows(size_t((past + 2 * TILE - 1) / TILE + 1) * TILE * row_width), width(row_width),
          length(long((past + 2 * TILE - 1) / TILE) * TILE) {}
    void clear() { rows.clear(); }
    float* at(long time) { return rows + ((time % length + length) % length) * width; }
    // After rows were written.
    void mirror(long time, int count) {
        const long first = (time % length + length) % length, end = first + count;
        copy(first, first + length, std::min(end, long(TILE)) - first);
        copy(std::max(first, length), std::max(first, length) - length, end - std::max(first, length));
    }
};

// Between (channels, time) and rows of `step`; channels lie `length` apart.
static void to_rows(float* rows, int step, const float* signal, ptrdiff_t length, int channels, int count) {
    for (int c = 0; c < channels; c++)
        for (int n = 0; n < count; n++) rows[n * step + c] = signal[c * length + n];
}

static void from_rows(float* signal, ptrdiff_t length, const float* rows, int step, int channels, int count) {
    for (int c = 0; c < channels; c++)
        for (int n = 0; n < count; n++) signal[c * length + n] = rows[n * step + c];
}

static void add_to_rows(float* rows, int step, const float* signal, ptrdiff_t length, int channels, int count) {
    for (int c = 0; c < channels; c++)
        for (int n = 0; n < count; n++) rows[n * step + c] += signal[c * length + n];
}

// z becomes the activations (tanh or relu, then the gates), p what the layer hands on; next is x and the residual's
// bias, to which p's part comes later.
template <bool GATED, bool RELU>
static void activate(
    const Layer& layer, const float* x, float* z, float* p, float* head, float* next, float* kept_x, int rows
) {
    const int W = layer.width, M = layer.columns();
    const vec zero = all(0.0f);
    for (int c = 0; c < W; c += LANES) {
        const vec bias = load(layer.residual_bias.forward + c);
        for (int n = 0; n < rows; n++) {
            const vec v = load(z + n * M + c);
            vec a = RELU ? (v < zero ? zero : v) : tanh_vector(v);
            if (GATED) {
                const vec gate = sigmoid_vector(load(z + n * M + W + c));
                store(z + n * M + c, a);
                store(z + n * M + W + c, gate);
                a *= gate;
            }
            store(p + n * W + c, a);
            if (head) store(head + n * W + c, load(head + n * W + c) + a);
            const vec in = load(x + n * W + c);
            if (kept_x) store(kept_x + n * W + c, in);
            store(next + n * W + c, in + bias);
        }
    }
}

// The part of the outputs that comes from p: each output's vector of partial sums grows by products lane by lane.
static void mix(float* head, int outputs, const float* p, int width, const Map& mixer, int rows) {
    for (int c = 0; c < width; c += LANES) {
        const int panel = c / PANEL * PANEL, panel_width = std::min(PANEL, width - panel);
        for (int o = 0; o < outputs; o++) {
            const vec w = load(mixer.forward + panel * outputs + o * panel_width + c - panel);
            float* sums = head + o * LANES;
            for (int n = 0; n < rows; n++) {
                float* sum = sums + n * outputs * LANES;
                store(sum, load(sum) + w * load(p + n * width + c));
            }
        }
    }
}

// The vectors of partial sums (rows, outputs) -> rows of padded outputs.
static void add_lanes(float* y, const float* head, int outputs, const float* bias, int rows) {
    for (int n = 0; n < rows; n++)
        for (int o = 0; o < outputs; o++, head += LANES) {
            float sum = bias[o];
            for (int lane = 0; lane < LANES; lane++) sum += head[lane];
            y[n * padded(outputs) + o] = sum;
        }
}

// One item of the batch, or one stream, on its way forward.
class Player {
    const Net& net;
    std::vector<Ring> rings;
    std::vector<Product> products;
    Floats z, p, exit, heads[2];
    long now = 0;

    void play_layer(const Layer&, Ring&, const float* u, float* head, float* next, float* tape, int rows);

public:
    explicit Player(const Net& n)
        : net(n), z(TILE * n.widest), p(TILE * n.widest), exit(TILE * n.widest),
          heads{Floats(TILE * n.widest), Floats(TILE * n.widest)} {
        for (const Array& a : net.arrays)
            for (const Layer& l : a.layers) rings.emplace_back(l.past, l.width);
    }
    void start(const float* const* histories, int item);
    const float* play(const float* u, int rows, float* tape);
    void end(float* const* states, int item);
};

// Histories are (batch, channels, past) each.
void Player::start(const float* const* histories, int item) {
    now = 0;
    size_t i = 0;
    for (const Array& a : net.arrays)
        for (const Layer& l : a.layers) {
            Ring& ring = rings[i];
            const float* history = histories ? histories[i] + size_t(item) * l.channels * l.past : nullptr;
            i++;
            if (!history) {
                ring.clear();
                continue;
            }
            for (int n = 0; n < l.past; n += TILE) {
                const int count = std::min(TILE, l.past - n);
                to_rows(ring.at(n - l.past), l.width, history + n, l.past, l.channels, count);
                ring.mirror(n - l.past, count);
            }
        }
}

void Player::end(float* const* states, int item) {
    size_t i = 0;
    for (const Array& a : net.arrays)
        for (const Layer& l : a.layers) {
            float* state = states[i] + size_t(item) * l.channels * l.past;
            for (int n = 0; n < l.past; n += TILE)
                from_rows(state + n, l.past, rings[i].at(now + n - l.past), l.width, l.channels,
                          std::min(TILE, l.past - n));
            i++;
        }
}

void Player::play_layer(
    const Layer& layer, Ring& ring, const float* u, float* head, float* next, float* tape, int rows
) {
    float* sums = tape ? tape + layer.kept_z : z;
    float* out = layer.gates == 1 ? sums : p;
    const int M = layer.columns(), W = layer.width;
    products.clear();
    for (size_t k = 0; k < layer.taps.size(); k++)
        products.push_back({ring.at(now - layer.lag(k)), W, layer.channels, layer.taps[k].forward});
    if (layer.condition.present) products.push_back({u, net.inputs, net.inputs, layer.condition.forward});
    multiply(sums, M, rows, M, products.data(), int(products.size()), layer.bias.forward);
    float* added = net.mixed ? nullptr : head;
    float* kept_x = tape ? tape + layer.kept_x : nullptr;
    const auto pass = layer.gates == 1 ? (layer.relu ? activate<false, true> : activate<false, false>)
                                       : (layer.relu ? activate<true, true> : activate<true, false>);
    pass(layer, ring.at(now), sums, out, added, next, kept_x, rows);
    const Product residual{out, W, layer.channels, layer.residual.forward};
    if (layer.leads_on) multiply(next, W, rows, W, &residual, 1);
    if (net.mixed) mix(head, net.outputs, out, W, layer.mixer, rows);
}

// At most TILE rows of u -> as many rows of the outputs.
const float* Player::play(const float* u, int rows, float* tape) {
    const float* in = u;
    float* head = nullptr;
    int in_step = net.inputs, i = 0, n = 0;
    for (const Array& a : net.arrays) {
        const Product enter{in, in_step, a.rechannel.inner, a.rechannel.forward};
        multiply(rings[i].at(now), a.width, rows, a.width, &enter, 1, a.rechannel_bias.forward);
        float* before = head;
        head = tape ? tape + a.kept_head : heads[n % 2];
        if (n == 0) {
            std::memset(head, 0, sizeof(float) * rows * a.head_width);
        } else {
            const Array& last = net.arrays[n - 1];
            const Product hand_on{before, last.width, last.head.inner, last.head.forward};
            multiply(head, a.width, rows, a.width, &hand_on, 1, last.head_bias.forward);
        }
        float* left = tape ? tape + a.kept_exit : exit;
        for (const Layer& layer : a.layers) {
            rings[i].mirror(now, rows);
            float* next = &layer == &a.layers.back() ? left : rings[i + 1].at(now);
            play_layer(layer, rings[i], u, head, next, tape, rows);
            i++;
        }
        in = left, in_step = a.width, n++;
    }
    now += rows;
    const Array& last = net.arrays.back();
    if (net.mixed) {
        add_lanes(z, head, net.outputs, last.head_bias.forward, rows);
        return z;
    }
    const Product leave{head, last.width, last.head.inner, last.head.forward};
    multiply(z, padded(net.outputs), rows, net.outputs, &leave, 1, last.head_bias.forward);
    return z;
}
