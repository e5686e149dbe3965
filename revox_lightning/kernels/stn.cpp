// The State Transition Network: a small tanh MLP whose output moves a magnetisation, sample by sample.
//
// What does not depend on the magnetisation is given: rows `a` (batch, frames, width of the first layer) of sums from
// the other inputs. One step is  h1 = tanh(a + q M w),  h2 = tanh(W2 h1 + b2), ...,  z = head . h + bias, and
// M += p z + p' z', z' being the one before; M is kept within +-limit. Lanes are units of a layer; a few columns of the batch go side by side, so that the processor always
// has something to do while one of them waits.
#include <algorithm>

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

// The signals of all columns: q, p, p_before, limit, m, z (batch, frames), a (batch, frames, width), h (batch, frames,
// kept); start and z_start (batch).
struct Signals {
    const float *a, *q, *p, *p_before, *limit, *start, *z_start;
    float *m, *z, *h;
    int batch, frames;
};

template <int C>
static void forward_columns(const Net& net, const Signals& s, int first) {
    const int width = net.width[0];
    float m[C], z[C], z_before[C];
    Aligned own(s.h ? 0 : C * net.kept);
    for (int c = 0; c < C; c++) m[c] = s.start[first + c], z_before[c] = s.z_start[first + c];
    for (int t = 0; t < s.frames; t++) {
        float* h[C];
        for (int c = 0; c < C; c++) {
            const size_t at = size_t(first + c) * s.frames + t;
            h[c] = s.h ? s.h + at * net.kept : own.data() + c * net.kept;
            const vec pushed = all(s.q[at] * m[c]);
            for (int v = 0; v < width; v += LANES)
                store(h[c] + v, tanh_vector(load(s.a + at * width + v) + pushed * load(net.from_m.data() + v)));
        }
        layers_on<C>(net, h, z);
        for (int c = 0; c < C; c++) {
            const size_t at = size_t(first + c) * s.frames + t;
            s.m[at] = m[c] = within(m[c] + s.p[at] * z[c] + s.p_before[at] * z_before[c], s.limit[at]);
            s.z[at] = z_before[c] = z[c];
        }
    }
}

// dm, dz_end: gradients of m and of the last z; d: of the sums of all layers, laid out like h; dz: of the net's output.
struct Gradients {
    const float *dm, *dz_end;
    float *d, *dq, *dp, *dp_before, *dz, *d_start, *dz_start;
};

static void backward_column(const Net& net, const Signals& s, const Gradients& g, int column) {
    float carried = 0, owed = g.dz_end[column];
    for (int t = s.frames - 1; t >= 0; t--) {
        const size_t at = size_t(column) * s.frames + t;
        const float *h = s.h + at * net.kept, before = t ? s.m[at - 1] : s.start[column];
        const size_t last = net.kept - net.width.back();
        float* d = g.d + at * net.kept;
        const bool free = s.m[at] < s.limit[at] && s.m[at] > -s.limit[at];
        const float dm = free ? carried + g.dm[at] : 0.0f, dz = dm * s.p[at] + owed;
        owed = dm * s.p_before[at];
        g.dp[at] = dm * s.z[at];
        g.dp_before[at] = dm * (t ? s.z[at - 1] : s.z_start[column]);
        g.dz[at] = dz;
        for (int v = 0; v < net.width.back(); v += LANES) {
            const vec y = load(h + last + v);
            store(d + last + v, dz * load(net.head.data() + v) * (1.0f - y * y));
        }
        size_t place = last;
        for (int l = net.layers - 1; l > 0; l--) {
            const int in = net.width[l - 1];
            for (int v = 0; v < in; v += LANES) {
                vec sums[2] = {};
                const float* w = net.back[l].data() + v;
                for (int o = 0; o < net.hidden[l]; o++, w += in) sums[o & 1] += all(d[place + o]) * load(w);
                const vec y = load(h + place - in + v);
                store(d + place - in + v, (sums[0] + sums[1]) * (1.0f - y * y));
            }
            place -= in;
        }
        vec pulled = {};
        for (int v = 0; v < net.width[0]; v += LANES) pulled += load(d + v) * load(net.from_m.data() + v);
        const float back = sum_of(pulled);
        g.dq[at] = back * before;
        carried = dm + back * s.q[at];
    }
    g.d_start[column] = carried;
    g.dz_start[column] = owed;
}


// Whole signals at the least cost, from the field itself: D is 1.75 (H - H1) - 0.75 D1, its sign turns the inputs.
template <int C>
static void play_columns(
    const Net& net, const Aligned& weights, const float* scales, const float* x, float* y, float* state, int first,
    int frames
) {
    const int width = net.width[0];
    float m[C], h1[C], d1[C], z1[C], z[C], step[C];
    Aligned own(C * net.kept);
    float* h[C];
    for (int c = 0; c < C; c++) {
        h[c] = own.data() + c * net.kept;
        const float* from = state + 4 * (first + c);
        m[c] = from[0], h1[c] = from[1], d1[c] = from[2], z1[c] = from[3];
    }
    for (int t = 0; t < frames; t++) {
        for (int c = 0; c < C; c++) {
            const float now = x[size_t(first + c) * frames + t], d = 1.75f * (now - h1[c]) - 0.75f * d1[c];
            const float sign = d >= 0 ? 1.0f : -1.0f, *scale = scales + 3 * (first + c);
            const float* w = weights.data() + size_t(first + c) * 5 * width;
            const vec inputs[4] = {all(sign * now), all(sign * d), all(sign * h1[c]), all(sign * d1[c])};
            const vec pushed = all(sign * scale[0] * m[c]);
            for (int v = 0; v < width; v += LANES) {
                vec sum = load(w + 4 * width + v) + inputs[0] * load(w + v) + inputs[1] * load(w + width + v);
                sum += inputs[2] * load(w + 2 * width + v) + inputs[3] * load(w + 3 * width + v);
                store(h[c] + v, tanh_vector(sum + pushed * load(net.from_m.data() + v)));
            }
            m[c] += scale[1] * d1[c] * z1[c];
            step[c] = scale[1] * d;
            h1[c] = now, d1[c] = d;
        }
        layers_on<C>(net, h, z);
        for (int c = 0; c < C; c++) {
            y[size_t(first + c) * frames + t] = m[c] = within(m[c] + step[c] * z[c], scales[3 * (first + c) + 2]);
            z1[c] = z[c];
        }
    }
    for (int c = 0; c < C; c++) {
        float* to = state + 4 * (first + c);
        to[0] = m[c], to[1] = h1[c], to[2] = d1[c], to[3] = z1[c];
    }
}

constexpr int SIDE_BY_SIDE = 4;

template <class Many, class One>
static void columns_in_parallel(int batch, int threads, Many many, One one) {
    const int groups = (batch + SIDE_BY_SIDE - 1) / SIDE_BY_SIDE, parts = threads < 1 ? 1 : std::min(threads, groups);
    in_parallel(parts, [=](int part) {
        for (int group = groups * part / parts; group < groups * (part + 1) / parts; group++) {
            const int first = group * SIDE_BY_SIDE, end = std::min(batch, first + SIDE_BY_SIDE);
            if (end - first == SIDE_BY_SIDE) many(first);
            else
                for (int column = first; column < end; column++) one(column);
        }
    });
}

// A net with its columns, for signals that come block by block.
struct Stream {
    Net net;
    Aligned weights, scales, state;
    int batch;

    // weights (batch, 5, hidden): of H, D, H1, D1 and the bias; scales (batch, 3): q, p, limit; state (batch, 4).
    Stream(const Sizes& sizes, const float* w, const float* s, const float* start, int columns)
        : net(sizes), scales(s, s + 3 * columns), state(start, start + 4 * columns), batch(columns) {
        const int units = net.hidden[0], width = net.width[0];
        weights.resize(size_t(batch) * 5 * width);
        for (int row = 0; row < batch * 5; row++)
            std::memcpy(weights.data() + size_t(row) * width, w + size_t(row) * units, units * 4);
    }

    void play(const float* x, float* y, int frames, int threads) {
        auto many = [&](int first) {
            play_columns<SIDE_BY_SIDE>(net, weights, scales.data(), x, y, state.data(), first, frames);
        };
        auto one = [&](int first) { play_columns<1>(net, weights, scales.data(), x, y, state.data(), first, frames); };
        columns_in_parallel(batch, threads, [&](int c) { many(c); }, [&](int c) { one(c); });
    }
};

extern "C" {

void stn_forward(const Sizes* sizes, const Signals* signals, int threads) {
    const Net net(*sizes);
    columns_in_parallel(
        signals->batch, threads, [&](int c) { forward_columns<SIDE_BY_SIDE>(net, *signals, c); },
        [&](int c) { forward_columns<1>(net, *signals, c); });
}

void stn_backward(const Sizes* sizes, const Signals* signals, const Gradients* gradients, int threads) {
    const Net net(*sizes);
    auto one = [&](int c) { backward_column(net, *signals, *gradients, c); };
    columns_in_parallel(
        signals->batch, threads,
        [&](int first) {
            for (int c = first; c < first + SIDE_BY_SIDE; c++) one(c);
        },
        one);
}

void* stn_open(const Sizes* sizes, const float* weights, const float* scales, const float* state, int columns) {
    return new Stream(*sizes, weights, scales, state, columns);
}
void stn_close(void* stream) { delete static_cast<Stream*>(stream); }

// x, y (batch, frames)
void stn_play(void* stream, const float* x, float* y, int frames, int threads) {
    static_cast<Stream*>(stream)->play(x, y, frames, threads);
}
// state (batch, 4): M, H, D, z
void stn_state(void* stream, float* state) {
    const Aligned& own = static_cast<Stream*>(stream)->state;
    std::memcpy(state, own.data(), own.size() * 4);
}
}
