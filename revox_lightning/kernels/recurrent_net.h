// A recurrent net as its loops see it: sizes, packed weights, and where the signals of a group of columns lie.
#pragma once

#include "tiles.h"

// All pointers are torch's; gates are rows of its weights. Signals are (batch, channel, time) with any strides.
struct Net {
    int gru, layers, inputs, hidden, outputs, skip;
    const float* const* weights;  // for each layer: w_ih, w_hh, b_ih, b_hh
    const float *read_out, *read_out_bias;
};
struct Signal {
    const float* x;
    ptrdiff_t batch_step, channel_step, frame_step;
    int batch, frames;
};
struct Gradients {  // of the same shapes as what they are the gradients of; null where nobody asks
    float* const* weights;
    float *read_out, *read_out_bias, *x, *h, *c;
};

constexpr int GATES = 4;          // of the LSTM: i, f, g, o; of the GRU: n (from the input), r, z, n (from the state)
constexpr int MOST_COLUMNS = 32;  // that go through time together
constexpr size_t CHUNK_FLOATS = 16384;

// Sizes and places that follow from a net: all columns of gates are padded to whole vectors.
struct Plan {
    const Net& net;
    int width, gates;  // of the state; of all gates together
    int x_first, h_first, part;  // the columns of gates that the input and the state reach, each `part` wide

    explicit Plan(const Net& n) : net(n) {
        width = padded(n.hidden);
        gates = GATES * width;
        part = n.gru ? 3 * width : gates;
        x_first = 0;
        h_first = n.gru ? width : 0;
    }
    int inputs(int layer) const { return layer ? net.hidden : net.inputs; }
    // Which of torch's gates stands in a block of the columns that the input, or the state, reaches.
    int gate(bool of_input, int block) const { return net.gru && of_input ? (block + 2) % 3 : block; }
    int blocks() const { return net.gru ? 3 : 4; }
    // What a column of the batch keeps for the way back: gates, h, c (each with the state before the start) and x.
    size_t kept(int frames) const {
        return size_t(net.layers) * (size_t(frames) * gates + 2 * size_t(frames + 1) * width)
             + size_t(frames) * net.inputs;
    }
};

// Weights in the order in which the products read them.
struct Packed {
    Aligned x, h, bias, x_back, h_back;
};

static std::vector<Packed> pack_layers(const Plan& plan, bool back, bool back_to_x) {
    const int H = plan.net.hidden, W = plan.width;
    std::vector<Packed> layers(plan.net.layers);
    for (int l = 0; l < plan.net.layers; l++) {
        const int I = plan.inputs(l);
        const float* const* w = plan.net.weights + 4 * l;
        // entry(part, column, k): weight from input k to a column of gates; columns of padding are zero
        auto entry = [&](bool of_input, int column, int k) {
            const int unit = column % W, row = plan.gate(of_input, column / W) * H + unit;
            return unit < H ? w[of_input ? 0 : 1][size_t(row) * (of_input ? I : H) + k] : 0.0f;
        };
        Packed& p = layers[l];
        if (!back) {
            p.x.resize(packed_floats(I, plan.part));
            p.h.resize(packed_floats(H, plan.part));
            pack(p.x.data(), I, plan.part, [&](int k, int column) { return entry(true, column, k); });
            pack(p.h.data(), H, plan.part, [&](int k, int column) { return entry(false, column, k); });
            p.bias.assign(plan.gates, 0.0f);
            for (int block = 0; block < plan.blocks(); block++)
                for (int u = 0; u < H; u++) {
                    p.bias[plan.x_first + block * W + u] += w[2][plan.gate(true, block) * H + u];
                    p.bias[plan.h_first + block * W + u] += w[3][plan.gate(false, block) * H + u];
                }
            continue;
        }
        p.h_back.resize(packed_floats(plan.part, H));
        pack(p.h_back.data(), plan.part, H, [&](int column, int k) { return entry(false, column, k); });
        if (l || back_to_x) {
            p.x_back.resize(packed_floats(plan.part, I));
            pack(p.x_back.data(), plan.part, I, [&](int column, int k) { return entry(true, column, k); });
        }
    }
    return layers;
}

// Columns first to first + count of the batch, on their way through time.
struct Group {
    int first, count;
};

static std::vector<Group> groups_of(int batch, int parts, int part) {
    std::vector<Group> groups;
    const int begin = int(int64_t(batch) * part / parts), end = int(int64_t(batch) * (part + 1) / parts);
    const int many = (end - begin + MOST_COLUMNS - 1) / MOST_COLUMNS;
    for (int i = 0; i < many; i++) {
        const int from = begin + (end - begin) * i / many;
        groups.push_back({from, begin + (end - begin) * (i + 1) / many - from});
    }
    return groups;
}

// The places of one layer's signals within what a group keeps; h and c have a row of columns before the first frame.
struct Kept {
    float *gates, *h, *c, *x;
    Kept(const Plan& plan, float* memory, int layer, int columns, int frames) {
        const size_t g = size_t(frames) * columns * plan.gates, s = size_t(frames + 1) * columns * plan.width;
        gates = memory + layer * (g + 2 * s);
        h = gates + g;
        c = h + s;
        x = memory + plan.net.layers * (g + 2 * s);
    }
};

struct State {
    const float *h, *c;
    float *h_end, *c_end;
};

// Copies between torch's state (layer, batch, hidden) and the padded rows of a group; `none` gives zeros.
static void state_in(const Plan& plan, float* rows, const float* state, int layer, const Group& g, int batch) {
    const int H = plan.net.hidden;
    for (int n = 0; n < g.count; n++, rows += plan.width) {
        std::memset(rows, 0, plan.width * 4);
        if (state) std::memcpy(rows, state + (size_t(layer) * batch + g.first + n) * H, H * 4);
    }
}
static void state_out(const Plan& plan, const float* rows, float* state, int layer, const Group& g, int batch) {
    const int H = plan.net.hidden;
    for (int n = 0; n < g.count; n++, rows += plan.width)
        std::memcpy(state + (size_t(layer) * batch + g.first + n) * H, rows, H * 4);
}

static int chunk_frames(const Plan& plan, int columns, int frames) {
    const size_t fit = CHUNK_FLOATS / (size_t(columns) * plan.gates);
    return fit < 1 ? 1 : int(fit) < frames ? int(fit) : frames;
}
