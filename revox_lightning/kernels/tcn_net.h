// A TCN's layers on rows of samples, shared by training and inference.
#pragma once

#include "tiles.h"

#include <algorithm>

constexpr int STRETCH = 96;  // rows that are worked on at a time: they and the weights of GROUP taps stay in the cache
constexpr int GROUP = 4;
constexpr double EPSILON = 1e-5;  // of batch norm

// Sizes of a net and a call as Python hands them over.
struct Shape {
    int batch, time, blocks, inputs, width, outputs, kernel, late, training, threads;
    const int* dilations;  // of each block
};

struct Block {
    int inputs, step, dilation, past;  // step: floats from row to row of the window
    bool joined;                       // the taps of one output follow each other without a gap: one product
    bool whole_residual;               // the residual path is a matrix (inputs x width), not a factor per channel
    Aligned taps, back, slope, residual, back_residual;
};

static inline float* rounded(float* p) { return p + (16 - (reinterpret_cast<size_t>(p) / 4) % 16) % 16; }
static inline size_t rounded(size_t floats) { return (floats + 15) / 16 * 16; }

struct Net {
    Shape s;
    int row, output_row, parts;  // floats of a row of the inner signals and of the outputs; parts of the work
    std::vector<Block> blocks;
    Aligned output, back_output, bias, zeros;

    explicit Net(const Shape& shape);  // sizes only
    Net(const Shape& shape, const float* parameters) : Net(shape) { take(parameters); }
    void take(const float* parameters);
    void pack_taps(Block& block, const float* w);
    void pack_residual(Block& block, const float* r);
    // Rows of a window; that of the output layer has no past.
    int window_rows(int n) const { return s.time + (n < s.blocks ? blocks[n].past : 0); }
    int window_step(int n) const { return n < s.blocks ? blocks[n].step : row; }
};

inline void Net::pack_taps(Block& block, const float* w) {
    const int inputs = block.inputs, width = s.width, kernel = s.kernel;
    const auto weight = [=](int tap, int i, int c) { return w[(size_t(c) * inputs + i) * kernel + tap]; };
    block.taps.resize(packed_floats(kernel * inputs, width));
    if (block.joined)
        pack(block.taps.data(), kernel * inputs, width,
             [=](int k, int c) { return weight(k / inputs, k % inputs, c); });
    else
        for (int tap = 0; tap < kernel; tap++)
            pack(block.taps.data() + tap * packed_floats(inputs, width), inputs, width,
                 [=](int i, int c) { return weight(tap, i, c); });
    block.back.resize(kernel * packed_floats(width, inputs));
    for (int tap = 0; tap < kernel; tap++)
        pack(block.back.data() + tap * packed_floats(width, inputs), width, inputs,
             [=](int c, int i) { return weight(tap, i, c); });
}

inline void Net::pack_residual(Block& block, const float* r) {
    const int inputs = block.inputs, width = s.width, group = width / inputs;
    block.residual.assign(block.whole_residual ? packed_floats(inputs, width) : row, 0.0f);
    if (!block.whole_residual) {
        std::copy_n(r, width, block.residual.data());
        return;
    }
    const auto path = [=](int i, int c) { return c / group == i ? r[c] : 0.0f; };
    pack(block.residual.data(), inputs, width, path);
    block.back_residual.resize(packed_floats(width, inputs));
    pack(block.back_residual.data(), width, inputs, [=](int c, int i) { return path(i, c); });
}

inline Net::Net(const Shape& shape)
    : s(shape), row(padded(s.width)), output_row(padded(s.outputs)), blocks(s.blocks), zeros(row) {
    parts = int(std::min<size_t>(s.threads, size_t(s.batch) * s.time / 256 + 1));
    for (int n = 0; n < s.blocks; n++) {
        Block& block = blocks[n];
        block.inputs = n ? s.width : s.inputs;
        block.step = n ? row : s.inputs;
        block.dilation = s.dilations[n];
        block.past = (s.kernel - 1) * block.dilation;
        block.joined = block.dilation == 1 && block.step == block.inputs;
        block.whole_residual = n == 0;
    }
}

// Of each block the convolution (width, inputs, kernel), slopes and residual factors; weights and biases of the output.
inline void Net::take(const float* p) {
    const int width = s.width;
    for (Block& block : blocks) {
        pack_taps(block, p);
        p += size_t(width) * block.inputs * s.kernel;
        block.slope.assign(row, 0.0f);
        std::copy_n(p, width, block.slope.data());
        pack_residual(block, p + width);
        p += 2 * width;
    }
    output.resize(packed_floats(width, s.outputs));
    pack(output.data(), width, s.outputs, [=](int c, int o) { return p[o * width + c]; });
    back_output.resize(packed_floats(s.outputs, width));
    pack(back_output.data(), s.outputs, width, [=](int o, int c) { return p[o * width + c]; });
    bias.assign(output_row, 0.0f);
    std::copy_n(p + size_t(s.outputs) * width, s.outputs, bias.data());
}

// work(first, rows) for stretches that cover begin to end. With a large dilation they go through the signal in steps of
// it, again and again: the windows of successive stretches then overlap in all taps but one, which stay in the cache.
template <class Work>
static void in_stretches(int begin, int end, int dilation, Work work) {
    const int period = dilation > 3 * STRETCH ? dilation : end - begin;
    const int pieces = (period + STRETCH - 1) / STRETCH, height = pieces ? (period + pieces - 1) / pieces : 1;
    for (int phase = 0; phase < period; phase += height)
        for (int t = begin + phase; t < end; t += period)
            work(t, std::min(std::min(height, period - phase), end - t));
}

// work(part, item, begin, end): the samples of all items in equal parts, each part on a thread of its own.
template <class Work>
static void in_parts(const Net& net, Work work) {
    in_parallel(net.parts, [&](int part) {
        const size_t time = net.s.time, rows = time * net.s.batch;
        size_t begin = rows * part / net.parts;
        const size_t stop = rows * (part + 1) / net.parts;
        while (begin < stop) {
            const size_t item = begin / time, end = std::min(stop, (item + 1) * time);
            work(part, int(item), int(begin - item * time), int(end - item * time));
            begin = end;
        }
    });
}

// out[r] = sum over taps of window[r + tap * dilation] W[tap], from the first tap on that hears anything.
static void convolve(const Net& net, const Block& block, const float* window, int first_tap, float* out, int rows) {
    if (block.joined) {
        const Product product{window, block.step, net.s.kernel * block.inputs, block.taps.data()};
        multiply(out, net.row, rows, net.s.width, &product, 1, net.zeros.data());
        return;
    }
    const size_t floats = packed_floats(block.inputs, net.s.width), reach = size_t(block.dilation) * block.step;
    const float* taps = block.taps.data();
    for (int tap = first_tap; tap < net.s.kernel; tap += GROUP) {
        Product products[GROUP];
        const int count = std::min(GROUP, net.s.kernel - tap);
        for (int i = 0; i < count; i++)
            products[i] = {window + (tap + i) * reach, block.step, block.inputs, taps + (tap + i) * floats};
        multiply(out, net.row, rows, net.s.width, products, count, tap == first_tap ? net.zeros.data() : nullptr);
    }
}

// Batch norm and FiLM of one block: u = scale z + shift, of each item; they follow from mean, variance, gain and bias.
struct Norm {
    Aligned scale, shift, mean, inverse;  // [item][row], [item][row], [row], [row]

    // film [item][2][width], statistics [2][width]
    Norm(const Net& net, const float* film, const float* statistics)
        : scale(net.s.batch * net.row), shift(scale), mean(net.row), inverse(net.row) {
        const int width = net.s.width;
        for (int c = 0; c < width; c++) {
            mean[c] = statistics[c];
            inverse[c] = float(1.0 / std::sqrt(double(statistics[width + c]) + EPSILON));
            for (int item = 0; item < net.s.batch; item++) {
                const float* gain = film + size_t(item) * 2 * width;
                scale[item * net.row + c] = gain[c] * inverse[c];
                shift[item * net.row + c] = gain[width + c] - gain[c] * inverse[c] * mean[c];
            }
        }
    }
};

// out = PReLU(scale z + shift) + residual; `late` points at the rows of the window that the residual path takes.
static void activate(
    const Net& net, const Block& block, const Norm& norm, int item, const float* z, const float* late, float* out,
    int rows
) {
    const float *scale = &norm.scale[item * net.row], *shift = &norm.shift[item * net.row];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < net.row; c += LANES) {
            const vec u = load(z + r * net.row + c) * load(scale + c) + load(shift + c);
            vec v = u > 0.0f ? u : u * load(&block.slope[c]);
            if (!block.whole_residual) v += load(&block.residual[c]) * load(late + r * block.step + c);
            store(out + r * net.row + c, v);
        }
    if (block.whole_residual) {
        const Product product{late, block.step, block.inputs, block.residual.data()};
        multiply(out, net.row, rows, net.s.width, &product, 1);
    }
}

// y[o][r] = tanh(bias + x[r] W), planar with y_step floats from one output to the next; rows <= STRETCH.
static void output_layer(const Net& net, const float* x, float* y, size_t y_step, int rows) {
    Aligned sums(STRETCH * net.output_row);
    const Product product{x, net.row, net.s.width, net.output.data()};
    multiply(sums.data(), net.output_row, rows, net.s.outputs, &product, 1, net.bias.data());
    for (int o = 0; o < net.s.outputs; o++) {
        float column[STRETCH + LANES] = {};
        for (int r = 0; r < rows; r++) column[r] = sums[r * net.output_row + o];
        for (int r = 0; r < rows; r += LANES) store(column + r, tanh_vector(load(column + r)));
        std::copy_n(column, rows, y + o * y_step);
    }
}

// Planar signals (channels, time) to rows of `step` floats.
static void to_rows(const float* x, size_t x_step, int channels, float* out, int step, int rows) {
    for (int c = 0; c < channels; c++)
        for (int r = 0; r < rows; r++) out[size_t(r) * step + c] = x[c * x_step + r];
}

// (past, inputs) without gaps to rows of `step` floats, and back.
static void copy_rows(const float* from, int from_step, float* to, int to_step, int inputs, int rows) {
    for (int r = 0; r < rows; r++) std::copy_n(from + size_t(r) * from_step, inputs, to + size_t(r) * to_step);
}
