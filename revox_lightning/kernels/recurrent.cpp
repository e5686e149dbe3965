// LSTM and GRU over a whole signal: back-propagation through time, and what Python calls.
//
// Each thread owns columns of the batch and takes them through all of time, so nothing waits at a time step. Rows of
// all matrices are one column of the batch at one time; columns of the batch lie together, so that the rows of a
// stretch of time make one matrix for the products that do not recur. Equations: Wright, Damskaegg & Vaelimaeki,
// DAFx 2019, eq. 1 to 7; gates are numbered as in torch's parameters.
#include "recurrent_forward.h"

#include <memory>

// From dh (of this step's output) and dc to the deltas of the gates; dc becomes that of the step before.
INLINE void lstm_step_back(
    const Plan& plan, const float* gates, const float* c_before, const float* c, const float* dh_out, float* dh,
    float* dc, float* deltas, int columns
) {
    const int W = plan.width;
    for (int n = 0; n < columns; n++, gates += plan.gates, deltas += plan.gates)
        for (int u = 0; u < W; u += LANES) {
            const size_t at = size_t(n) * W + u;
            const vec i = load(gates + u), f = load(gates + W + u), g = load(gates + 2 * W + u);
            const vec o = load(gates + 3 * W + u), squashed = tanh_vector(load(c + at));
            const vec of_h = load(dh + at) + load(dh_out + at);
            const vec of_c = load(dc + at) + of_h * o * (1.0f - squashed * squashed);
            store(deltas + u, of_c * g * i * (1.0f - i));
            store(deltas + W + u, of_c * load(c_before + at) * f * (1.0f - f));
            store(deltas + 2 * W + u, of_c * i * (1.0f - g * g));
            store(deltas + 3 * W + u, of_h * squashed * o * (1.0f - o));
            store(dc + at, of_c * f);
            store(dh + at, vec{});
        }
}

INLINE void gru_step_back(
    const Plan& plan, const float* gates, const float* h_before, const float* dh_out, float* dh, float* deltas,
    int columns
) {
    const int W = plan.width;
    for (int n = 0; n < columns; n++, gates += plan.gates, deltas += plan.gates)
        for (int u = 0; u < W; u += LANES) {
            const size_t at = size_t(n) * W + u;
            const vec fresh = load(gates + u), r = load(gates + W + u), z = load(gates + 2 * W + u);
            const vec of_h = load(dh + at) + load(dh_out + at);
            const vec of_fresh = of_h * (1.0f - z) * (1.0f - fresh * fresh);
            store(deltas + u, of_fresh);
            store(deltas + W + u, of_fresh * load(gates + 3 * W + u) * r * (1.0f - r));
            store(deltas + 2 * W + u, of_h * (load(h_before + at) - fresh) * z * (1.0f - z));
            store(deltas + 3 * W + u, of_fresh * r);
            store(dh + at, of_h * z);
        }
}

// Sums of a thread, in padded rows: weights of each layer transposed (input, gate), then the biases.
struct Sums {
    std::vector<Aligned> x, h, bias;
    Aligned head;
    std::vector<double> head_bias;
    Aligned nothing;  // a row of zeros
    Sums(const Plan& plan) {
        for (int l = 0; l < plan.net.layers; l++) {
            x.emplace_back(size_t(plan.inputs(l)) * plan.part);
            h.emplace_back(size_t(plan.net.hidden) * plan.part);
            bias.emplace_back(plan.gates);
        }
        head.resize(size_t(plan.net.outputs) * plan.width);
        head_bias.resize(plan.net.outputs);
        nothing.resize(plan.width + padded(plan.net.inputs));
    }
};

static void add_rows(float* sums, const float* rows, int count, int width) {
    for (int r = 0; r < count; r++, rows += width)
        for (int u = 0; u < width; u += LANES) store(sums + u, load(sums + u) + load(rows + u));
}

// What comes back from the output to the uppermost layer: dh of frames `from` to `from + frames`, and the read-out's
// own gradient.
static void read_out_back(
    const Plan& plan, const float* dy, const Signal& x, const Group& group, const float* packed, const float* h,
    int from, int frames, Aligned& rows, float* dh, Sums& sums
) {
    const int O = plan.net.outputs, count = frames * group.count;
    rows.resize(size_t(count) * O);
    for (int n = 0; n < group.count; n++)
        for (int o = 0; o < O; o++) {
            const float* d = dy + (size_t(group.first + n) * O + o) * x.frames + from;
            double sum = 0;
            for (int t = 0; t < frames; t++) {
                rows[(size_t(t) * group.count + n) * O + o] = d[t];
                sum += d[t];
            }
            sums.head_bias[o] += sum;
        }
    const Product product{rows.data(), O, O, packed};
    multiply(dh, plan.width, count, plan.net.hidden, &product, 1, sums.nothing.data());
    add_outer(sums.head.data(), plan.width, O, plan.net.hidden, rows.data(), O, h, plan.width, count);
}

struct Deltas {  // working memory of a group on its way back
    Aligned chunk, dh, dc, out, rows;
};

// One layer, from the last frame to the first. from_above(frame, frames) gives dh of its outputs; dx, unless null,
// receives rows of dh for the layer below or of dx.
template <class Above>
static void layer_back(
    const Plan& plan, const Packed& p, const Kept& kept, const float* in, int in_step, int layer, int columns,
    int frames, Above from_above, float* dx, int dx_step, Deltas& work, Sums& sums
) {
    const int W = plan.width, M = plan.gates, I = plan.inputs(layer), chunk = chunk_frames(plan, columns, frames);
    const size_t before = size_t(columns) * W;
    work.chunk.resize(size_t(chunk) * columns * M);
    for (int end = frames; end > 0; end -= chunk) {
        const int begin = end > chunk ? end - chunk : 0, rows = (end - begin) * columns;
        const float* above = from_above(begin, end - begin);
        for (int t = end - 1; t >= begin; t--) {
            float* deltas = work.chunk.data() + size_t(t - begin) * columns * M;
            const float* gates = kept.gates + size_t(t) * columns * M;
            const float *h = kept.h + t * before, *c = kept.c + t * before, *out = above + (t - begin) * before;
            if (plan.net.gru)
                gru_step_back(plan, gates, h, out, work.dh.data(), deltas, columns);
            else
                lstm_step_back(
                    plan, gates, c, c + before, out, work.dh.data(), work.dc.data(), deltas, columns);
            const Product to_state{deltas + plan.h_first, M, plan.part, p.h_back.data()};
            multiply(work.dh.data(), W, columns, plan.net.hidden, &to_state, 1);
        }
        const float *deltas = work.chunk.data(), *to_h = deltas + plan.h_first;
        const size_t row = size_t(begin) * columns;
        add_outer(sums.h[layer].data(), plan.part, plan.net.hidden, plan.part, kept.h + row * W, W, to_h, M, rows);
        add_outer(sums.x[layer].data(), plan.part, I, plan.part, in + row * in_step, in_step, deltas, M, rows);
        add_rows(sums.bias[layer].data(), deltas, rows, M);
        const Product to_input{deltas, M, plan.part, p.x_back.data()};
        if (dx) multiply(dx + row * dx_step, dx_step, rows, I, &to_input, 1, sums.nothing.data());
    }
}

// dy: gradient of y (batch, output, time); h_end, c_end: of the last state, or null.
static void backward_group(
    const Plan& plan, const std::vector<Packed>& packed, const float* head, const Signal& x, const Group& group,
    float* memory, const float* dy, const State& state, const Gradients& gradients, Sums& sums
) {
    const Net& net = plan.net;
    const int n = group.count, W = plan.width, T = x.frames, x_step = padded(net.inputs);
    memory += plan.kept(T) * group.first;
    Deltas work;
    const size_t before = size_t(n) * W;
    Aligned dh, lower, dx(gradients.x ? size_t(T) * n * x_step : 0);
    if (net.layers > 1) dh.resize(T * before), lower.resize(T * before);
    for (int l = net.layers - 1; l >= 0; l--) {
        const Kept kept(plan, memory, l, n, T);
        work.dh.resize(size_t(n) * W), work.dc.resize(size_t(n) * W);
        state_in(plan, work.dh.data(), state.h, l, group, x.batch);
        state_in(plan, work.dc.data(), state.c, l, group, x.batch);
        const float* in = l ? Kept(plan, memory, l - 1, n, T).h + size_t(n) * W : kept.x;
        float* to = l ? lower.data() : gradients.x ? dx.data() : nullptr;
        auto from_above = [&](int from, int frames) -> const float* {
            if (l < net.layers - 1) return dh.data() + from * before;
            work.out.resize(frames * before);
            const float* h = kept.h + (from + 1) * before;
            read_out_back(plan, dy, x, group, head, h, from, frames, work.rows, work.out.data(), sums);
            return work.out.data();
        };
        layer_back(plan, packed[l], kept, in, l ? W : net.inputs, l, n, T, from_above, to, l ? W : x_step, work, sums);
        if (gradients.h) state_out(plan, work.dh.data(), gradients.h, l, group, x.batch);
        if (gradients.c) state_out(plan, work.dc.data(), gradients.c, l, group, x.batch);
        if (l) dh.swap(lower);
    }
    if (!gradients.x) return;
    for (int b = 0; b < n; b++)
        for (int i = 0; i < net.inputs; i++) {
            const size_t column = size_t(group.first + b);
            float* out = gradients.x + (column * net.inputs + i) * T;
            const float* skipped = net.skip && i < net.outputs ? dy + (column * net.outputs + i) * T : nullptr;
            for (int t = 0; t < T; t++)
                out[t] = dx[(size_t(t) * n + b) * x_step + i] + (skipped ? skipped[t] : 0.0f);
        }
}

// Adds a thread's sums to torch's gradients.
static void deliver(const Plan& plan, const Sums& sums, const Gradients& to) {
    const int H = plan.net.hidden, W = plan.width;
    for (int l = 0; l < plan.net.layers; l++) {
        float* const* w = to.weights + 4 * l;
        for (bool of_input : {true, false}) {
            const int inner = of_input ? plan.inputs(l) : H, first = of_input ? plan.x_first : plan.h_first;
            const float* from = of_input ? sums.x[l].data() : sums.h[l].data();
            float *weights = w[of_input ? 0 : 1], *biases = w[of_input ? 2 : 3];
            for (int block = 0; block < plan.blocks(); block++)
                for (int u = 0; u < H; u++) {
                    const int gate = plan.gate(of_input, block) * H + u;
                    biases[gate] += sums.bias[l][first + block * W + u];
                    for (int k = 0; k < inner; k++)
                        weights[size_t(gate) * inner + k] += from[size_t(k) * plan.part + block * W + u];
                }
        }
    }
    for (int o = 0; o < plan.net.outputs; o++) {
        to.read_out_bias[o] += float(sums.head_bias[o]);
        for (int u = 0; u < H; u++) to.read_out[size_t(o) * H + u] += sums.head[size_t(o) * W + u];
    }
}

static int parts_of(const Signal& x, int threads) { return x.batch < threads ? x.batch : threads < 1 ? 1 : threads; }

extern "C" {

// How many floats `kept` must hold.
size_t kept_floats(const Net* net, const Signal* x) { return Plan(*net).kept(x->frames) * x->batch; }

// y (batch, outputs, time); state.h and .c or null for zeros; kept: null where there is no way back.
void forward(const Net* net, const Signal* x, const State* state, float* y, float* kept, int threads) {
    const Forward weights(*net);
    const int parts = parts_of(*x, threads);
    in_parallel(parts, [&, parts](int part) {
        for (const Group& group : groups_of(x->batch, parts, part))
            forward_group(weights, *x, group, *state, y, kept);
    });
}

// state.h and .c: gradients of the last state, or null. The gradients of the weights must hold zeros.
void backward(
    const Net* net, const Signal* x, const State* state, const float* dy, float* kept, const Gradients* gradients,
    int threads
) {
    const Plan plan(*net);
    const std::vector<Packed> packed = pack_layers(plan, true, gradients->x != nullptr);
    Aligned head(packed_floats(net->outputs, net->hidden));
    pack(head.data(), net->outputs, net->hidden, [&](int o, int k) { return net->read_out[o * net->hidden + k]; });
    const int parts = parts_of(*x, threads);
    std::vector<std::unique_ptr<Sums>> sums(parts);
    in_parallel(parts, [&, parts](int part) {
        sums[part] = std::make_unique<Sums>(plan);  // here, not outside: no two threads' sums then share a cache line
        for (const Group& group : groups_of(x->batch, parts, part))
            backward_group(plan, packed, head.data(), *x, group, kept, dy, *state, *gradients, *sums[part]);
    });
    for (const std::unique_ptr<Sums>& own : sums) deliver(plan, *own, *gradients);
}

// One signal block by block, at the least cost per block: its weights are packed once and its state stays here.
struct Stream {
    Net net;
    Forward weights;
    Aligned memory, sums, rows;
    int room;

    explicit Stream(const Net& n) : net(n), weights(net), room(chunk_frames(weights.plan, 1, 1 << 20)) {
        memory.resize(weights.plan.kept(room));
    }
};

Stream* stream_new(const Net* net) { return new Stream(*net); }
void stream_delete(Stream* stream) { delete stream; }

// x (inputs, frames) -> y (outputs, frames), both contiguous.
void stream_play(Stream* stream, const float* x, float* y, int frames) {
    const Signal signal{x, 0, frames, 1, 1, frames};
    walk(stream->weights, signal, {0, 1}, y, stream->memory.data(), stream->room, false, stream->sums, stream->rows);
}
}
