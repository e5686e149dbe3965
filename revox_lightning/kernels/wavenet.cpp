// WaveNets in one pass: Wright's gated one with a mixer over all layers, and the Neural Amp Modeler's arrays of layers.
//
// A tile of some rows (samples, channels last) goes through all layers before the next one comes, so that activations
// stay in the first cache; each layer's past inputs lie in a ring. The way back is the same in reverse time: the
// gradients of the weighted sums lie in rings. Each thread owns items of the batch. Equations: Wright et al., Appl.
// Sci. 2020, section 2.1; Atkinson's Neural Amp Modeler. Weights and gradients are torch's own tensors.
#include "wavenet_backward.h"

static int first_item(const Call& call, int parts, int part) { return int(int64_t(call.batch) * part / parts); }

static int parts_of(const Call& call) { return std::max(1, std::min(call.threads, call.batch)); }

extern "C" size_t wavenet_tape_floats(const Call* call) {
    return call->batch * Net(*call, SIZES).tape_of_item(call->frames);
}

extern "C" void wavenet_forward(const Call* asked) {
    const Call& call = *asked;
    const Net net(call, FORWARD);
    const int parts = parts_of(call), T = call.frames;
    in_parallel(parts, [&](int part) {
        Player player(net);
        Floats u(TILE * net.inputs);
        for (int item = first_item(call, parts, part); item < first_item(call, parts, part + 1); item++) {
            player.start(call.histories, item);
            float* tape = call.tape ? call.tape + size_t(item) * net.tape_of_item(T) : nullptr;
            for (int t = 0; t < T; t += TILE) {
                const int rows = std::min(TILE, T - t);
                to_rows(u, net.inputs, call.u + size_t(item) * net.inputs * T + t, T, net.inputs, rows);
                const float* y = player.play(u, rows, tape ? tape + size_t(t / TILE) * net.tape : nullptr);
                from_rows(call.y + size_t(item) * net.outputs * T + t, T, y, padded(net.outputs), net.outputs, rows);
            }
            player.end(call.states, item);
        }
    });
}

extern "C" void wavenet_backward(const Call* asked) {
    const Call& call = *asked;
    const Net net(call, BACKWARD);
    const int parts = parts_of(call);
    std::vector<std::vector<double>> totals(parts);
    in_parallel(parts, [&](int part) {
        Rewinder rewinder(net, call);
        for (int item = first_item(call, parts, part); item < first_item(call, parts, part + 1); item++)
            rewinder.rewind(item);
        totals[part] = std::move(rewinder.totals);
    });
    for (int part = 1; part < parts; part++)
        for (size_t n = 0; n < net.sums; n++) totals[0][n] += totals[part][n];
    each_map(net, [&](const Map& map) {
        float* gradient = call.gradients[map.parameter];
        for (int k = 0; k < map.inner; k++)
            for (int c = 0; c < map.columns(); c++)
                if (map.place(k, c) >= 0)
                    gradient[map.place(k, c)] = float(map.scale * totals[0][map.sums + size_t(k) * map.columns() + c]);
    });
}

// One signal in blocks of any length; knobs that stand still are the last inputs.
struct Stream {
    const Net net;
    Player player;
    std::vector<float> knobs;
    Floats u;

    Stream(const Call& call, const float* positions, int count)
        : net(call, FORWARD), player(net), knobs(positions, positions + count), u(TILE * net.inputs) {
        player.start(nullptr, 0);
        const int signals = net.inputs - count;
        for (int n = 0; n < TILE; n++)
            for (int c = 0; c < count; c++) u[n * net.inputs + signals + c] = knobs[c];
    }
};

extern "C" void* wavenet_stream(const Call* call, const float* knobs, int count) {
    return new Stream(*call, knobs, count);
}

extern "C" void wavenet_stream_start(void* handle, const float* const* histories) {
    static_cast<Stream*>(handle)->player.start(histories, 0);
}

extern "C" void wavenet_stream_state(void* handle, float* const* states) {
    static_cast<Stream*>(handle)->player.end(states, 0);
}

// x (inputs without knobs, frames) -> y (outputs, frames)
extern "C" void wavenet_stream_play(void* handle, const float* x, float* y, int frames) {
    Stream& stream = *static_cast<Stream*>(handle);
    const Net& net = stream.net;
    const int signals = net.inputs - int(stream.knobs.size());
    for (int t = 0; t < frames; t += TILE) {
        const int rows = std::min(TILE, frames - t);
        to_rows(stream.u, net.inputs, x + t, frames, signals, rows);
        const float* out = stream.player.play(stream.u, rows, nullptr);
        from_rows(y + t, frames, out, padded(net.outputs), net.outputs, rows);
    }
}

extern "C" void wavenet_stream_delete(void* handle) { delete static_cast<Stream*>(handle); }
