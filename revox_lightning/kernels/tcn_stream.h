// A TCN in inference: short chunks go through all blocks, whose windows stay in the cache.
#pragma once

#include "tcn_net.h"

constexpr int CHUNK = 4096;  // rows that go through all blocks at a time

// The newest rows of a window, in a buffer that is longer than it: they move to its front when it is full.
struct Memory {
    Aligned rows;
    int step, past, capacity, end;

    Memory(int step, int past, int more)
        : rows(size_t(past + more) * step), step(step), past(past), capacity(past + more), end(past) {}
    float* window() { return rows.data() + size_t(end - past) * step; }
    float* room(int count) {
        if (end + count > capacity) {
            std::memmove(rows.data(), window(), size_t(past) * step * sizeof(float));
            end = past;
        }
        return rows.data() + size_t(end) * step;
    }
};

struct Stream {
    Net net;
    std::vector<Norm> norms;
    std::vector<std::vector<Memory>> items;  // of each item, before each block

    Stream(const Shape& shape, const float* parameters, const float* film, const float* statistics)
        : net(shape, parameters) {
        const int batch = net.s.batch, width = net.s.width, longest = net.s.time;
        for (int n = 0; n < net.s.blocks; n++)
            norms.emplace_back(net, film + size_t(n) * batch * 2 * width, statistics + size_t(n) * 2 * width);
        std::vector<Memory> memories;
        for (const Block& block : net.blocks)
            memories.emplace_back(block.step, block.past, std::min(longest, std::max(block.past, CHUNK)));
        memories.emplace_back(net.row, 0, std::min(longest, CHUNK));
        items.assign(batch, memories);
    }

    // At most as many frames as the memories have room for, and CHUNK.
    void play_chunk(int item, const float* x, size_t x_step, float* y, size_t y_step, int frames) {
        std::vector<Memory>& memories = items[item];
        to_rows(x, x_step, net.s.inputs, memories[0].room(frames), memories[0].step, frames);
        for (int n = 0; n < net.s.blocks; n++) {
            const Block& block = net.blocks[n];
            const float* window = memories[n].window();
            const float* late = window + size_t(block.past - net.s.late) * block.step;
            float* out = memories[n + 1].room(frames);
            in_stretches(0, frames, block.dilation, [&](int t, int rows) {
                float* z = out + size_t(t) * net.row;
                convolve(net, block, window + size_t(t) * block.step, 0, z, rows);
                activate(net, block, norms[n], item, z, late + size_t(t) * block.step, z, rows);
            });
            memories[n].end += frames;
        }
        const float* last = memories.back().window();
        for (int t = 0; t < frames; t += STRETCH)
            output_layer(net, last + size_t(t) * net.row, y + t, y_step, std::min(STRETCH, frames - t));
    }

    // x (batch, inputs, frames), y (batch, outputs, frames)
    void play(const float* x, float* y, int frames) {
        const int longest = std::min(CHUNK, net.s.time), parts = std::min(net.s.threads, net.s.batch);
        in_parallel(parts, [&](int part) {
            for (int item = part; item < net.s.batch; item += parts)
                for (int t = 0; t < frames; t += longest)
                    play_chunk(
                        item, x + size_t(item) * net.s.inputs * frames + t, frames,
                        y + size_t(item) * net.s.outputs * frames + t, frames, std::min(longest, frames - t));
        });
    }
};
