// A TCN in training, backward: from the gradient of its output to those of weights, input and histories.
#pragma once

#include "tcn_forward.h"

constexpr int FLUSH = 16;  // stretches after which a float sum is added to its double

// The gradient of a matrix as one part of the work finds it: in float, that moves into double before it loses digits.
struct Sums {
    Aligned now;
    std::vector<double> total;
    int stretches = 0;

    explicit Sums(size_t floats) : now(floats), total(floats) {}
    void flush() {
        for (size_t i = 0; i < now.size(); i++) total[i] += now[i];
        std::fill(now.begin(), now.end(), 0.0f);
        stretches = 0;
    }
    void stretch_done() {
        if (++stretches == FLUSH) flush();
    }
};

static double total(std::vector<Sums>& parts, size_t i) {
    double sum = 0;
    for (Sums& part : parts) sum += part.total[i];
    return sum;
}

// What Python hands over; pointers are null where there is no gradient, or none is wanted.
struct Gradients {
    const float* of_y;                // (batch, outputs, time)
    const float* const* of_states;    // of each block (batch, past, inputs)
    float *parameters, *film, *x;     // x (batch, time, padded inputs)
    float* const* histories;          // of each block (batch, past, padded inputs)
};

struct Backward {
    const Net& net;
    const Saved& saved;
    const Gradients& to;
    std::vector<float*> places;   // of each block's gradients in to.parameters, then of the output layer
    float *above, *below, *dz;    // (batch, time, row) twice; (batch, STRETCH + time + STRETCH, row): zeros around it
    std::vector<double> channels;  // [part][item][4][row]: sums of add_channel_sums
    std::vector<Sums> residuals;   // of the first block

    Backward(const Net& net, const Saved& saved, const Gradients& to, float* scratch);
    void run(const float* y, const float* film, const float* statistics, const int* silent);
    void output(const float* y, const Norm& norm);
    void add_channel_sums(int n, const Norm& norm, int part, int item, int t, const float* g, int rows);
    void collect(int n, const Norm& norm, const float* film, float* level, float* slant);
    void convolution(int n, const Norm& norm, bool silent_past, const float* level, const float* slant);
    void data(int n, const Norm* lower);
    void data_rows(int n, int item, int t, int rows, float* out);
    size_t gap() const { return size_t(STRETCH) * net.row; }
    float* dz_row(int item, int t) const {
        return dz + item * (2 * gap() + size_t(net.s.time) * net.row) + gap() + ptrdiff_t(t) * net.row;
    }
    float* above_row(int item, int t) const { return above + (size_t(item) * net.s.time + t) * net.row; }
};

static size_t scratch_floats(const Net& net) {
    return rounded(size_t(net.row) * net.s.batch * (3 * size_t(net.s.time) + 2 * STRETCH)) + 16;
}

inline Backward::Backward(const Net& net, const Saved& saved, const Gradients& to, float* scratch)
    : net(net), saved(saved), to(to), channels(size_t(net.parts) * net.s.batch * 4 * net.row),
      residuals(net.parts, Sums(size_t(net.s.inputs) * net.row)) {
    const size_t signal = size_t(net.s.batch) * net.s.time * net.row;
    above = scratch, below = above + signal, dz = below + signal;
    for (int item = 0; item < net.s.batch; item++)
        for (float* at : {dz_row(item, -STRETCH), dz_row(item, net.s.time)}) std::fill_n(at, gap(), 0.0f);
    float* place = to.parameters;
    for (const Block& block : net.blocks) {
        places.push_back(place);
        place += size_t(net.s.width) * (block.inputs * net.s.kernel + 2);
    }
    places.push_back(place);
}

// Through tanh and the last 1x1: its weights' gradients, and that of the last block's output, in `above`.
inline void Backward::output(const float* y, const Norm& norm) {
    const int outputs = net.s.outputs, width = net.s.width, time = net.s.time, last = net.s.blocks - 1;
    std::vector<Sums> sums(net.parts, Sums(size_t(outputs) * net.row + outputs));
    in_parts(net, [&](int part, int item, int begin, int end) {
        Aligned g(size_t(STRETCH) * outputs);
        in_stretches(begin, end, 1, [&](int t, int rows) {
            for (int o = 0; o < outputs; o++)
                for (int r = 0; r < rows; r++) {
                    const size_t at = (size_t(item) * outputs + o) * time + t + r;
                    g[r * outputs + o] = to.of_y[at] * (1.0f - y[at] * y[at]);
                    sums[part].now[size_t(outputs) * net.row + o] += g[r * outputs + o];
                }
            const float* x = saved.window(net, last + 1, item, t);
            add_outer(sums[part].now.data(), net.row, outputs, width, g.data(), outputs, x, net.row, rows);
            const Product product{g.data(), outputs, outputs, net.back_output.data()};
            multiply(above_row(item, t), net.row, rows, width, &product, 1, net.zeros.data());
            add_channel_sums(last, norm, part, item, t, above_row(item, t), rows);
            sums[part].stretch_done();
        });
    });
    for (Sums& part : sums) part.flush();
    float* place = places.back();
    for (int o = 0; o < outputs; o++) {
        for (int c = 0; c < width; c++) place[o * width + c] = float(total(sums, size_t(o) * net.row + c));
        place[outputs * width + o] = float(total(sums, size_t(outputs) * net.row + o));
    }
}

// Block n's sums over a stretch, of the gradient g of its output: du, du (z - mean) / deviation, and those for the
// slopes and the residual path, where u = scale z + shift enters the PReLU.
inline void Backward::add_channel_sums(
    int n, const Norm& norm, int part, int item, int t, const float* g, int rows
) {
    const Block& block = net.blocks[n];
    const float* z = saved.output(net, n, item, t);
    const float* late = saved.window(net, n, item, block.past - net.s.late + t);
    double* sums = &channels[(size_t(part) * net.s.batch + item) * 4 * net.row];
    for (int c = 0; c < net.row; c += LANES) {
        const vec scale = load(&norm.scale[item * net.row + c]), shift = load(&norm.shift[item * net.row + c]);
        const vec mean = load(&norm.mean[c]), slope = load(&block.slope[c]);
        vec du_sum = {}, product = {}, slopes = {}, residual = {};
        for (int r = 0; r < rows; r++) {
            const vec z_r = load(z + r * net.row + c), g_r = load(g + r * net.row + c), u = scale * z_r + shift;
            const vec du = u > 0.0f ? g_r : g_r * slope;
            du_sum += du;
            product += du * (z_r - mean);
            slopes += u > 0.0f ? vec{} : g_r * u;
            if (!block.whole_residual) residual += g_r * load(late + r * block.step + c);
        }
        for (int i = 0; i < LANES; i++) {
            sums[c + i] += du_sum[i];
            sums[net.row + c + i] += double(product[i]) * norm.inverse[c + i];
            sums[2 * net.row + c + i] += slopes[i];
            sums[3 * net.row + c + i] += residual[i];
        }
    }
    if (!block.whole_residual) return;
    add_outer(residuals[part].now.data(), net.row, block.inputs, net.s.width, late, block.step, g, net.row, rows);
    residuals[part].stretch_done();
}

// Adds the parts' channel sums up: gradients of film, slopes and residual path, and what batch norm subtracts from the
// gradient because its statistics depend on the signal: level + slant (z - mean).
inline void Backward::collect(int n, const Norm& norm, const float* film, float* level, float* slant) {
    const Block& block = net.blocks[n];
    const int width = net.s.width, batch = net.s.batch;
    float* place = places[n] + size_t(width) * block.inputs * net.s.kernel;
    for (Sums& part : residuals) part.flush();
    for (int c = 0; c < width; c++) {
        double totals[4] = {}, means[2] = {};
        for (int item = 0; item < batch; item++) {
            const size_t at = (size_t(n) * batch + item) * 2 * width + c;
            double sums[4] = {};
            for (int part = 0; part < net.parts; part++)
                for (int i = 0; i < 4; i++)
                    sums[i] += channels[((size_t(part) * batch + item) * 4 + i) * net.row + c];
            for (int i = 0; i < 4; i++) totals[i] += sums[i];
            for (int i = 0; i < 2; i++) means[i] += film[at] * sums[i] / (double(batch) * net.s.time);
            to.film[at] = float(sums[1]);
            to.film[at + width] = float(sums[0]);
        }
        place[c] = float(totals[2]);
        const int input = c / (width / block.inputs);
        place[width + c] = float(block.whole_residual ? total(residuals, size_t(input) * net.row + c) : totals[3]);
        level[c] = net.s.training ? float(means[0] * norm.inverse[c]) : 0.0f;
        slant[c] = net.s.training ? float(means[1] * norm.inverse[c] * norm.inverse[c]) : 0.0f;
    }
    std::fill(channels.begin(), channels.end(), 0.0);
}

// Through PReLU and batch norm to the gradient dz of the convolution's output, and with it that of its weights.
inline void Backward::convolution(int n, const Norm& norm, bool silent_past, const float* level, const float* slant) {
    const Block& block = net.blocks[n];
    const int inputs = block.inputs, width = net.s.width, kernel = net.s.kernel, row = net.row;
    std::vector<Sums> sums(net.parts, Sums(size_t(kernel) * inputs * row));
    in_parts(net, [&](int part, int item, int begin, int end) {
        const float *scale = &norm.scale[item * row], *shift = &norm.shift[item * row], *mean = norm.mean.data();
        in_stretches(begin, end, block.dilation, [&](int t, int rows) {
            const float *z = saved.output(net, n, item, t), *g = above_row(item, t);
            float* out = dz_row(item, t);
            for (int r = 0; r < rows; r++, z += row, g += row, out += row)
                for (int c = 0; c < row; c += LANES) {
                    const vec z_r = load(z + c), g_r = load(g + c), u = load(scale + c) * z_r + load(shift + c);
                    const vec du = u > 0.0f ? g_r : g_r * load(&block.slope[c]);
                    store(out + c, load(scale + c) * du - load(level + c) - load(slant + c) * (z_r - load(mean + c)));
                }
            const float *window = saved.window(net, n, item, t), *right = dz_row(item, t);
            float* now = sums[part].now.data();
            const size_t reach = size_t(block.dilation) * block.step, tap_floats = size_t(inputs) * row;
            if (block.joined) add_outer(now, row, kernel * inputs, width, window, block.step, right, row, rows);
            for (int tap = block.joined ? kernel : first_tap(net, block, silent_past, t, rows); tap < kernel; tap++)
                add_outer(
                    now + tap * tap_floats, row, inputs, width, window + tap * reach, block.step, right, row, rows);
            sums[part].stretch_done();
        });
    });
    for (Sums& part : sums) part.flush();
    for (int c = 0; c < width; c++)
        for (int i = 0; i < inputs; i++)
            for (int tap = 0; tap < kernel; tap++)
                places[n][(size_t(c) * inputs + i) * kernel + tap] =
                    float(total(sums, (size_t(tap) * inputs + i) * row + c));
}

// The gradient of block n's window in `rows` rows from time t on (negative: its past), rows of padded inputs.
inline void Backward::data_rows(int n, int item, int t, int rows, float* out) {
    const Block& block = net.blocks[n];
    const int time = net.s.time, late = net.s.late, step = padded(block.inputs), kernel = net.s.kernel;
    const int from = std::max(t, -late), until = std::min(t + rows, time - late);  // heard through the residual path
    std::fill_n(out, size_t(rows) * step, 0.0f);
    if (block.whole_residual && from < until) {
        const Product product{above_row(item, from + late), net.row, net.s.width, block.back_residual.data()};
        multiply(out + size_t(from - t) * step, step, until - from, block.inputs, &product, 1);
    }
    for (int r = from; r < until && !block.whole_residual; r++)
        for (int c = 0; c < step; c += LANES)
            store(out + (r - t) * step + c, load(&block.residual[c]) * load(above_row(item, r + late) + c));
    if (const float* of_state = to.of_states[n])
        for (int r = std::max(t, time - block.past); r < t + rows; r++)
            for (int c = 0; c < block.inputs; c++)
                out[(r - t) * step + c] +=
                    of_state[(size_t(item) * block.past + r - time + block.past) * block.inputs + c];
    const size_t floats = packed_floats(net.s.width, block.inputs);
    Product products[GROUP];
    int count = 0;
    for (int tap = 0; tap < kernel; tap++) {
        const int at = t + block.past - tap * block.dilation;
        if (at < time && at + rows > 0)
            products[count++] = {dz_row(item, at), net.row, net.s.width, block.back.data() + tap * floats};
        if (count == GROUP || (count && tap + 1 == kernel)) {
            multiply(out, step, rows, block.inputs, products, count);
            count = 0;
        }
    }
}

// From dz to the gradient of block n's input: that of the block below (with its channel sums), or of x and the past.
inline void Backward::data(int n, const Norm* lower) {
    const Block& block = net.blocks[n];
    const size_t step = padded(block.inputs);
    float* out = n ? below : to.x;
    if (out)
        in_parts(net, [&](int part, int item, int begin, int end) {
            in_stretches(begin, end, block.dilation, [&](int t, int rows) {
                float* at = out + (size_t(item) * net.s.time + t) * step;
                data_rows(n, item, t, rows, at);
                if (lower) add_channel_sums(n - 1, *lower, part, item, t, at, rows);
            });
        });
    if (float* history = to.histories[n])
        for (int item = 0; item < net.s.batch; item++)
            in_stretches(0, block.past, 1, [&](int r, int rows) {
                data_rows(n, item, r - block.past, rows, history + (size_t(item) * block.past + r) * step);
            });
    std::swap(above, below);
}

inline void Backward::run(const float* y, const float* film, const float* statistics, const int* silent) {
    std::vector<Norm> norms;
    const size_t film_floats = size_t(net.s.batch) * 2 * net.s.width;
    for (int n = 0; n < net.s.blocks; n++)
        norms.emplace_back(net, film + n * film_floats, statistics + size_t(n) * 2 * net.s.width);
    output(y, norms.back());
    Aligned level(net.row), slant(net.row);
    for (int n = net.s.blocks - 1; n >= 0; n--) {
        collect(n, norms[n], film, level.data(), slant.data());
        convolution(n, norms[n], silent[n], level.data(), slant.data());
        data(n, n ? &norms[n - 1] : nullptr);
    }
}
