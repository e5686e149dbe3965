// The TCN of Steinmetz & Reiss, as Python calls it.
//
// A net is blocks of dilated convolution, batch norm or FiLM, PReLU and residual path.
// Signals lie channels last: a row is one sample of all channels, padded to whole vectors. The input of a block is a
// window: the rows of its past, then those of the signal. In training the statistics of batch norm need the whole
// signal of a block before the next can begin, so the threads share the rows of all items and join after each phase.
#include "tcn_backward.h"
#include "tcn_stream.h"

extern "C" {

// Floats of the memory that forward fills for backward, and of that which backward works in.
void tcn_floats(const Shape* shape, long long* floats) {
    const Net net(*shape);
    floats[0] = (long long)(Saved(net, nullptr).floats + 16);
    floats[1] = (long long)scratch_floats(net);
}

// x (batch, inputs, time) -> y (batch, outputs, time); histories (batch, past, inputs) or null, states alike.
// film (blocks, batch, 2, width): gains, biases; statistics (blocks, 2, width): mean, variance (filled in training).
void tcn_forward(
    const Shape* shape, const float* parameters, const float* film, float* statistics, const float* x,
    const float* const* histories, float* y, float* const* states, float* memory
) {
    const Net net(*shape, parameters);
    const Saved saved(net, rounded(memory));
    const Shape& s = net.s;
    fill_past(net, saved, histories);
    for (int item = 0; item < s.batch; item++)
        to_rows(
            x + size_t(item) * s.inputs * s.time, s.time, s.inputs, saved.window(net, 0, item, net.blocks[0].past),
            s.inputs, s.time);
    for (int n = 0; n < s.blocks; n++) {
        float* own = statistics + size_t(n) * 2 * s.width;
        forward_convolution(net, saved, n, !histories[n], own);
        forward_activation(net, saved, n, Norm(net, film + size_t(n) * s.batch * 2 * s.width, own), y);
        save_past(net, saved, n, states[n]);
    }
}

// silent: of each block, whether its history was null.
void tcn_backward(
    const Shape* shape, const float* parameters, const float* film, const float* statistics, const float* y,
    float* memory, const int* silent, float* scratch, const Gradients* gradients
) {
    const Net net(*shape, parameters);
    const Saved saved(net, rounded(memory));
    Backward(net, saved, *gradients, rounded(scratch)).run(y, film, statistics, silent);
}

// Inference: `time` of the shape is the most frames that one call will play, or all that there are.
void* tcn_open(const Shape* shape, const float* parameters, const float* film, const float* statistics) {
    return new Stream(*shape, parameters, film, statistics);
}

void tcn_close(void* stream) { delete static_cast<Stream*>(stream); }

// x (batch, inputs, frames) -> y (batch, outputs, frames)
void tcn_play(void* stream, const float* x, float* y, int frames) { static_cast<Stream*>(stream)->play(x, y, frames); }

// The past of block n, (batch, past, inputs).
void tcn_load(void* stream, int n, const float* history) {
    for (std::vector<Memory>& memories : static_cast<Stream*>(stream)->items) {
        Memory& m = memories[n];
        const int inputs = static_cast<Stream*>(stream)->net.blocks[n].inputs;
        copy_rows(history, inputs, m.window(), m.step, inputs, m.past);
        history += size_t(m.past) * inputs;
    }
}

void tcn_save(void* stream, int n, float* history) {
    for (std::vector<Memory>& memories : static_cast<Stream*>(stream)->items) {
        Memory& m = memories[n];
        const int inputs = static_cast<Stream*>(stream)->net.blocks[n].inputs;
        copy_rows(m.window(), m.step, history, inputs, inputs, m.past);
        history += size_t(m.past) * inputs;
    }
}
}
