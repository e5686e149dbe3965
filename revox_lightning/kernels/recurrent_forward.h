// A recurrent net's way forward through time, and its linear read-out.
#pragma once

#include "recurrent_net.h"

// One step of all columns of a group: from the weighted sums to the gates, which may take their place, and the state.
INLINE void lstm_step(
    const Plan& plan, const float* sums, float* gates, const float* c_before, float* c, float* h, int columns
) {
    const int W = plan.width, M = plan.gates;
    for (int n = 0; n < columns; n++, sums += M, gates += M, c_before += W, c += W, h += W)
        for (int u = 0; u < W; u += LANES) {
            const vec i = sigmoid_vector(load(sums + u)), f = sigmoid_vector(load(sums + W + u));
            const vec g = tanh_vector(load(sums + 2 * W + u)), o = sigmoid_vector(load(sums + 3 * W + u));
            const vec cell = f * load(c_before + u) + i * g;
            store(gates + u, i), store(gates + W + u, f), store(gates + 2 * W + u, g), store(gates + 3 * W + u, o);
            store(c + u, cell);
            store(h + u, o * tanh_vector(cell));
        }
}

INLINE void gru_step(
    const Plan& plan, const float* sums, float* gates, const float* h_before, float* h, int columns
) {
    const int W = plan.width, M = plan.gates;
    for (int n = 0; n < columns; n++, sums += M, gates += M, h_before += W, h += W)
        for (int u = 0; u < W; u += LANES) {
            const vec r = sigmoid_vector(load(sums + W + u)), z = sigmoid_vector(load(sums + 2 * W + u));
            const vec from_state = load(sums + 3 * W + u), fresh = tanh_vector(load(sums + u) + r * from_state);
            store(gates + u, fresh), store(gates + W + u, r);
            store(gates + 2 * W + u, z), store(gates + 3 * W + u, from_state);
            store(h + u, fresh + z * (load(h_before + u) - fresh));
        }
}

// `frames` frames of all layers of a group, from frame `at` of its memory on, which has room for `room` of them.
static void forward_chunk(
    const Plan& plan, const std::vector<Packed>& packed, float* memory, int columns, int room, int at, int frames,
    float* sums
) {
    const int W = plan.width, M = plan.gates, H = plan.net.hidden;
    const size_t row = size_t(at) * columns, before = size_t(columns) * W;
    for (int l = 0; l < plan.net.layers; l++) {
        const Kept kept(plan, memory, l, columns, room);
        const Packed& p = packed[l];
        const int I = plan.inputs(l), step = l ? W : I;
        const float* in = l ? Kept(plan, memory, l - 1, columns, room).h + row * W + before : kept.x + row * I;
        float *gates = kept.gates + row * M, *h = kept.h + row * W, *c = kept.c + row * W;
        for (int t = 0; t < frames; t++, in += columns * step, gates += size_t(columns) * M, h += before, c += before) {
            const Product products[] = {{in, step, I, p.x.data()}, {h, W, H, p.h.data()}};
            if (!plan.net.gru) {
                multiply(sums, M, columns, M, products, 2, p.bias.data(), t & 1);
                lstm_step(plan, sums, gates, c, c + before, h + before, columns);
                continue;
            }
            // input and state each reach three of the four blocks of columns
            for (int n = 0; n < columns; n++)
                std::memcpy(sums + size_t(n) * M + plan.part, p.bias.data() + plan.part, W * 4);
            multiply(sums, M, columns, plan.part, products, 1, p.bias.data());
            multiply(sums + plan.h_first, M, columns, plan.part, products + 1, 1, nullptr, t & 1);
            gru_step(plan, sums, gates, h, h + before, columns);
        }
    }
}

// y = read-out of the uppermost h, plus the skipped input.
static void read_out(
    const Plan& plan, const float* packed, const float* bias, const float* h, const Signal& x, const Group& group,
    int from, int frames, float* y, Aligned& rows
) {
    const Net& net = plan.net;
    const int step = padded(net.outputs);
    rows.resize(size_t(frames) * group.count * step);
    const Product product{h, plan.width, net.hidden, packed};
    multiply(rows.data(), step, frames * group.count, net.outputs, &product, 1, bias);
    for (int n = 0; n < group.count; n++)
        for (int o = 0; o < net.outputs; o++) {
            const float* in = x.x + (group.first + n) * x.batch_step + o * x.channel_step + from * x.frame_step;
            float* out = y + (size_t(group.first + n) * net.outputs + o) * x.frames + from;
            for (int t = 0; t < frames; t++)
                out[t] = rows[(size_t(t) * group.count + n) * step + o] + (net.skip ? in[t * x.frame_step] : 0.0f);
        }
}

// The weights of a net on its way forward.
struct Forward {
    Plan plan;
    std::vector<Packed> layers;
    Aligned head, bias;

    explicit Forward(const Net& net) : plan(net), layers(pack_layers(plan, false, false)) {
        head.resize(packed_floats(net.hidden, net.outputs));
        pack(head.data(), net.hidden, net.outputs, [&](int k, int o) { return net.read_out[o * net.hidden + k]; });
        bias.resize(padded(net.outputs));
        std::memcpy(bias.data(), net.read_out_bias, net.outputs * 4);
    }
};

// Takes a group through all frames of x, from the states in the first rows of `memory` on, which has room for `room`
// frames. With `keep` that is all of them, and each stays; else the last states end up in the first rows again.
static void walk(
    const Forward& net, const Signal& x, const Group& group, float* y, float* memory, int room, bool keep,
    Aligned& sums, Aligned& rows
) {
    const Plan& plan = net.plan;
    const int n = group.count, I = plan.net.inputs, chunk = chunk_frames(plan, n, room);
    const size_t before = size_t(n) * plan.width;
    sums.resize(size_t(n) * plan.gates);
    for (int from = 0; from < x.frames; from += chunk) {
        const int frames = x.frames - from < chunk ? x.frames - from : chunk, at = keep ? from : 0;
        float* in = Kept(plan, memory, 0, n, room).x + size_t(at) * n * I;
        for (int t = from; t < from + frames; t++)
            for (int b = group.first; b < group.first + n; b++)
                for (int i = 0; i < I; i++) *in++ = x.x[b * x.batch_step + i * x.channel_step + t * x.frame_step];
        forward_chunk(plan, net.layers, memory, n, room, at, frames, sums.data());
        const float* top = Kept(plan, memory, plan.net.layers - 1, n, room).h + (size_t(at) + 1) * before;
        read_out(plan, net.head.data(), net.bias.data(), top, x, group, from, frames, y, rows);
        for (int l = 0; l < plan.net.layers && !keep; l++) {
            const Kept kept(plan, memory, l, n, room);
            std::memcpy(kept.h, kept.h + frames * before, before * 4);
            if (!plan.net.gru) std::memcpy(kept.c, kept.c + frames * before, before * 4);
        }
    }
}

static void forward_group(
    const Forward& net, const Signal& x, const Group& group, const State& state, float* y, float* kept_by_caller
) {
    const Plan& plan = net.plan;
    const int n = group.count, room = kept_by_caller ? x.frames : chunk_frames(plan, n, x.frames);
    Aligned own, sums, rows;
    if (!kept_by_caller) own.resize(plan.kept(room) * n);
    float* memory = kept_by_caller ? kept_by_caller + plan.kept(room) * group.first : own.data();
    for (int l = 0; l < plan.net.layers; l++) {
        const Kept kept(plan, memory, l, n, room);
        state_in(plan, kept.h, state.h, l, group, x.batch);
        if (!plan.net.gru) state_in(plan, kept.c, state.c, l, group, x.batch);
    }
    walk(net, x, group, y, memory, room, kept_by_caller != nullptr, sums, rows);
    const size_t last = kept_by_caller ? size_t(x.frames) * n * plan.width : 0;
    for (int l = 0; l < plan.net.layers; l++) {
        const Kept kept(plan, memory, l, n, room);
        state_out(plan, kept.h + last, state.h_end, l, group, x.batch);
        if (!plan.net.gru) state_out(plan, kept.c + last, state.c_end, l, group, x.batch);
    }
}
