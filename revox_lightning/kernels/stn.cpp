// The State Transition Network: a small tanh MLP whose output moves a magnetisation, sample by sample.
//
// What does not depend on the magnetisation is given: rows `a` (batch, frames, width of the first layer) of sums from
// the other inputs. One step is  m = keep M + p' z'  with the slope z' before,  h1 = tanh(a + q m w),
// h2 = tanh(W2 h1 + b2), ...,  y = gain (head . h + bias),  z = y + max(target - pull m - lag y, 0),  and M = m + p z,
// kept within +-limit. Lanes are units of a layer; a few columns of the batch go side by side, so that the processor
// always has something to do while one of them waits.
#include <algorithm>
#include <type_traits>

#include "stn_net.h"

// The signals of all columns: (batch, frames), but a (batch, frames, width), h (batch, frames, kept), start and
// z_start (batch).
struct Signals {
    const float *a, *q, *p, *p_before, *gain, *target, *pull, *lag, *limit, *start, *z_start;
    float *m, *z, *h;
    int batch, frames;
    float keep;
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
            m[c] = s.keep * m[c] + s.p_before[at] * z_before[c];
            const vec pushed = all(s.q[at] * m[c]);
            for (int v = 0; v < width; v += LANES)
                store(h[c] + v, tanh_vector(load(s.a + at * width + v) + pushed * load(net.from_m.data() + v)));
        }
        layers_on<C>(net, h, z);
        for (int c = 0; c < C; c++) {
            const size_t at = size_t(first + c) * s.frames + t;
            const float y = s.gain[at] * z[c];
            s.z[at] = z_before[c] = y + positive(s.target[at] - s.pull[at] * m[c] - s.lag[at] * y);
            s.m[at] = m[c] = within(m[c] + s.p[at] * z_before[c], s.limit[at]);
        }
    }
}

// dm, dz_end: gradients of m and of the last z; d: of the sums of all layers, laid out like h; dz: of the net's output.
struct Gradients {
    const float *dm, *dz_end;
    float *d, *dq, *dp, *dp_before, *d_gain, *d_target, *d_pull, *d_lag, *dz, *d_start, *dz_start;
};

static void backward_column(const Net& net, const Signals& s, const Gradients& g, int column) {
    float carried = 0, owed = g.dz_end[column];
    for (int t = s.frames - 1; t >= 0; t--) {
        const size_t at = size_t(column) * s.frames + t;
        const float *h = s.h + at * net.kept, z_before = t ? s.z[at - 1] : s.z_start[column];
        const float m = s.keep * (t ? s.m[at - 1] : s.start[column]) + s.p_before[at] * z_before;
        const size_t last = net.kept - net.width.back();
        float* d = g.d + at * net.kept;
        const bool free = s.m[at] < s.limit[at] && s.m[at] > -s.limit[at];
        const float dm = free ? carried + g.dm[at] : 0.0f, dz_all = dm * s.p[at] + owed;
        // z = y where nothing is drawn; else z - y = rest - lag y
        const float rest = s.target[at] - s.pull[at] * m, y = std::min(s.z[at], (s.z[at] - rest) / (1.0f - s.lag[at]));
        const float drawn = s.z[at] > y ? dz_all : 0.0f, dy = dz_all - drawn * s.lag[at], dz = dy * s.gain[at];
        g.d_gain[at] = dy * y / s.gain[at];
        g.d_lag[at] = -drawn * y;
        g.dp[at] = dm * s.z[at];
        g.d_target[at] = drawn;
        g.d_pull[at] = -drawn * m;
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
        g.dq[at] = back * m;
        const float of_m = dm + back * s.q[at] - drawn * s.pull[at];
        g.dp_before[at] = of_m * z_before;
        owed = of_m * s.p_before[at];
        carried = of_m * s.keep;
    }
    g.d_start[column] = carried;
    g.dz_start[column] = owed;
}


// coth x - 1/x; a series near zero, where the closed form cancels.
INLINE vec langevin(vec x) {
    const vec s = x * x;
    vec series = all(-2.1644e-6f);
    series = series * s + 2.13779916e-05f;
    series = series * s - 2.11640212e-04f;
    series = series * s + 2.11640212e-03f;
    series = series * s - 2.22222222e-02f;
    series = series * s + 3.33333333e-01f;
    return s < 0.36f ? series * x : 1.0f / tanh_vector(x) - 1.0f / x;
}

// A column's own numbers: factors of M and of the step, saturation, the anhysteretic curve height L(H * slope), and the
// pull towards it, drag / (1 + soft |D|), and the gain of the net.
struct Scales {
    float q, p, limit, slope, height, drag, soft, gain;
};

constexpr int CHUNK_FRAMES = 256;

static void bend(const float* x, const Scales& scales, float* out, int frames) {
    for (int t = 0; t < frames; t += LANES) {
        float some[LANES] = {};
        const int count = std::min(LANES, frames - t);
        std::memcpy(some, x + t, count * 4);
        store(out + t, scales.height * langevin(load(some) * scales.slope));
    }
}

// Whole signals at the least cost, from the field itself: D is 1.75 (H - H1) - 0.75 D1, its sign turns the inputs; the
// net is given the anhysteretic magnetisation of H and H1.
template <int C>
static void play_columns(
    const Net& net, const Aligned& weights, const Scales* scales, float keep, const float* x, float* y, float* state,
    int first, int frames
) {
    const int width = net.width[0];
    float m[C], h1[C], d1[C], z1[C], bent1[C], z[C], step[C], pull[C], turned[C];
    alignas(64) float bent[C][CHUNK_FRAMES + LANES];
    Aligned own(C * net.kept);
    float* h[C];
    for (int c = 0; c < C; c++) {
        h[c] = own.data() + c * net.kept;
        const float* from = state + 4 * (first + c);
        m[c] = from[0], h1[c] = from[1], d1[c] = from[2], z1[c] = from[3];
        bend(h1 + c, scales[first + c], bent[c], 1);
        bent1[c] = bent[c][0];
    }
    for (int t = 0; t < frames; t++) {
        const int place = t % CHUNK_FRAMES;
        for (int c = 0; c < C; c++) {
            const float* in = x + size_t(first + c) * frames + t;
            const Scales& scale = scales[first + c];
            if (place == 0) bend(in, scale, bent[c], std::min(CHUNK_FRAMES, frames - t));
            const float d = 1.75f * (*in - h1[c]) - 0.75f * d1[c], sign = d >= 0 ? 1.0f : -1.0f;
            const float* w = weights.data() + size_t(first + c) * 5 * width;
            const vec inputs[4] = {all(sign * bent[c][place]), all(sign * d), all(sign * bent1[c]), all(sign * d1[c])};
            m[c] = keep * m[c] + scale.p * d1[c] * z1[c];
            pull[c] = scale.drag / (1.0f + scale.soft * std::fabs(d)), turned[c] = sign;
            const vec pushed = all(sign * scale.q * m[c]);
            for (int v = 0; v < width; v += LANES) {
                vec sum = load(w + 4 * width + v) + inputs[0] * load(w + v) + inputs[1] * load(w + width + v);
                sum += inputs[2] * load(w + 2 * width + v) + inputs[3] * load(w + 3 * width + v);
                store(h[c] + v, tanh_vector(sum + pushed * load(net.from_m.data() + v)));
            }
            step[c] = scale.p * d;
            h1[c] = *in, d1[c] = d, bent1[c] = bent[c][place];
        }
        layers_on<C>(net, h, z);
        for (int c = 0; c < C; c++) {
            const Scales& scale = scales[first + c];
            const float slope = scale.gain * z[c], lag = scale.drag - pull[c];
            z1[c] = slope + positive(pull[c] * turned[c] * (bent1[c] - scale.q * m[c]) - lag * slope);
            y[size_t(first + c) * frames + t] = m[c] = within(m[c] + step[c] * z1[c], scale.limit);
        }
    }
    for (int c = 0; c < C; c++) {
        float* to = state + 4 * (first + c);
        to[0] = m[c], to[1] = h1[c], to[2] = d1[c], to[3] = z1[c];
    }
}

constexpr int SIDE_BY_SIDE = 4;

// work(C, first) for columns first to first + C of the batch, C being 4 or, where they run out, 1.
template <class Work>
static void columns_in_parallel(int batch, int threads, Work work) {
    const int groups = (batch + SIDE_BY_SIDE - 1) / SIDE_BY_SIDE, parts = threads < 1 ? 1 : std::min(threads, groups);
    in_parallel(parts, [=](int part) {
        for (int group = groups * part / parts; group < groups * (part + 1) / parts; group++) {
            const int first = group * SIDE_BY_SIDE, end = std::min(batch, first + SIDE_BY_SIDE);
            if (end - first == SIDE_BY_SIDE) work(std::integral_constant<int, SIDE_BY_SIDE>(), first);
            else
                for (int column = first; column < end; column++) work(std::integral_constant<int, 1>(), column);
        }
    });
}

// A net with its columns, for signals that come block by block.
struct Stream {
    Net net;
    Aligned weights, state;
    std::vector<Scales> scales;
    float keep;
    int batch;

    // weights (batch, 5, hidden): of H, D, H1, D1 and the bias; state (batch, 4).
    Stream(const Sizes& sizes, const float* w, const Scales* s, const float* start, float kept, int columns)
        : net(sizes), state(start, start + 4 * columns), scales(s, s + columns), keep(kept), batch(columns) {
        const int units = net.hidden[0], width = net.width[0];
        weights.resize(size_t(batch) * 5 * width);
        for (int row = 0; row < batch * 5; row++)
            std::memcpy(weights.data() + size_t(row) * width, w + size_t(row) * units, units * 4);
    }

    void play(const float* x, float* y, int frames, int threads) {
        columns_in_parallel(batch, threads, [=](auto columns, int first) {
            play_columns<columns>(net, weights, scales.data(), keep, x, y, state.data(), first, frames);
        });
    }
};

extern "C" {

void stn_forward(const Sizes* sizes, const Signals* signals, int threads) {
    const Net net(*sizes);
    columns_in_parallel(
        signals->batch, threads, [&](auto columns, int first) { forward_columns<columns>(net, *signals, first); });
}

void stn_backward(const Sizes* sizes, const Signals* signals, const Gradients* gradients, int threads) {
    const Net net(*sizes);
    columns_in_parallel(signals->batch, threads, [&](auto columns, int first) {
        for (int c = 0; c < columns; c++) backward_column(net, *signals, *gradients, first + c);
    });
}

void* stn_open(
    const Sizes* sizes, const float* weights, const Scales* scales, const float* state, float keep, int columns
) {
    return new Stream(*sizes, weights, scales, state, keep, columns);
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
