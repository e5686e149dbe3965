// A TCN in training, forward: layer by layer over the whole signal, with all that the gradients need kept.
#pragma once

#include "tcn_net.h"

// Where the windows and the convolutions' outputs lie in the memory that is kept for the backward pass.
struct Saved {
    std::vector<float*> windows, z;
    size_t floats = 0;

    Saved(const Net& net, float* base) {  // base null: sizes only
        const auto take = [&](size_t count) {
            float* place = base ? base + floats : nullptr;
            floats += rounded(count);
            return place;
        };
        for (int n = 0; n <= net.s.blocks; n++)
            windows.push_back(take(size_t(net.s.batch) * net.window_rows(n) * net.window_step(n)));
        for (int n = 0; n < net.s.blocks; n++) z.push_back(take(size_t(net.s.batch) * net.s.time * net.row));
    }
    float* window(const Net& net, int n, int item, int row) const {
        return windows[n] + (size_t(item) * net.window_rows(n) + row) * net.window_step(n);
    }
    float* output(const Net& net, int n, int item, int t) const {
        return z[n] + (size_t(item) * net.s.time + t) * net.row;
    }
};

// The past of each window: a history (batch, past, inputs) or silence, and the padding of the rows.
static void fill_past(const Net& net, const Saved& saved, const float* const* histories) {
    for (int n = 0; n < net.s.blocks; n++) {
        const Block& block = net.blocks[n];
        for (int item = 0; item < net.s.batch; item++) {
            float* to = saved.window(net, n, item, 0);
            std::memset(to, 0, size_t(block.past) * block.step * sizeof(float));
            if (!histories[n]) continue;
            const float* from = histories[n] + size_t(item) * block.past * block.inputs;
            copy_rows(from, block.inputs, to, block.step, block.inputs, block.past);
        }
    }
}

static void save_past(const Net& net, const Saved& saved, int n, float* state) {
    const Block& block = net.blocks[n];
    for (int item = 0; item < net.s.batch; item++)
        copy_rows(
            saved.window(net, n, item, net.s.time), block.step, state + size_t(item) * block.past * block.inputs,
            block.inputs, block.inputs, block.past);
}

// The first tap of a stretch at row t that hears more than silence.
static int first_tap(const Net& net, const Block& block, bool silent_past, int t, int rows) {
    int tap = 0;
    while (silent_past && tap < net.s.kernel - 1 && t + rows + tap * block.dilation <= block.past) tap++;
    return tap;
}

// Sum and sum of squares of each channel; the squares about the stretch's own mean, lest they cancel.
static void add_statistics(const Net& net, const float* z, int rows, double* sums) {
    for (int c = 0; c < net.row; c += LANES) {
        vec sum = {}, squares = {};
        for (int r = 0; r < rows; r++) sum += load(z + r * net.row + c);
        const vec mean = sum / float(rows);
        for (int r = 0; r < rows; r++) {
            const vec apart = load(z + r * net.row + c) - mean;
            squares += apart * apart;
        }
        for (int i = 0; i < LANES; i++) {
            const double s = sum[i], m = mean[i];
            sums[c + i] += s;
            sums[net.row + c + i] += squares[i] + 2.0 * m * s - rows * m * m;
        }
    }
}

// z = convolution of the window; in training the statistics [2][width] of it, too.
static void forward_convolution(const Net& net, const Saved& saved, int n, bool silent_past, float* statistics) {
    const Block& block = net.blocks[n];
    std::vector<std::vector<double>> sums(net.parts, std::vector<double>(2 * net.row));
    in_parts(net, [&](int part, int item, int begin, int end) {
        in_stretches(begin, end, block.dilation, [&](int t, int rows) {
            float* z = saved.output(net, n, item, t);
            const int tap = first_tap(net, block, silent_past, t, rows);
            convolve(net, block, saved.window(net, n, item, t), tap, z, rows);
            if (net.s.training) add_statistics(net, z, rows, sums[part].data());
        });
    });
    if (!net.s.training) return;
    const double count = double(net.s.batch) * net.s.time;
    for (int c = 0; c < net.s.width; c++) {
        double sum = 0, squares = 0;
        for (const auto& part : sums) sum += part[c], squares += part[net.row + c];
        const double mean = sum / count;
        statistics[c] = float(mean);
        statistics[net.s.width + c] = float(std::max(0.0, squares / count - mean * mean));
    }
}

static void forward_activation(const Net& net, const Saved& saved, int n, const Norm& norm, float* y) {
    const Block& block = net.blocks[n];
    const int past = n + 1 < net.s.blocks ? net.blocks[n + 1].past : 0;
    in_parts(net, [&](int, int item, int begin, int end) {
        in_stretches(begin, end, 1, [&](int t, int rows) {
            float* out = saved.window(net, n + 1, item, past + t);
            const float* late = saved.window(net, n, item, block.past - net.s.late + t);
            activate(net, block, norm, item, saved.output(net, n, item, t), late, out, rows);
            if (n + 1 == net.s.blocks)
                output_layer(net, out, y + size_t(item) * net.s.outputs * net.s.time + t, net.s.time, rows);
        });
    });
}
