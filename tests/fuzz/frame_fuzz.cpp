// SPDX-License-Identifier: MIT
// Any layout over any buffers: what is accepted lies in its buffers, counted in 128 bits and in
// another way than the library does; what is refused says why and stays the caller's.
#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <drm_fourcc.h>

#include <sluice/frame.hpp>

#include "fuzz/seeds.hpp"
#include "support/memfd.hpp"
#include "support/scripted_libc.hpp"

namespace {

using sluice::DmaBuf;
using sluice::Frame;
using sluice::FrameLayout;
using sluice::FramePlane;

/// A run's input, byte for byte.
struct Input {
    std::uint32_t width = 64;
    std::uint32_t height = 16;
    std::uint32_t format = DRM_FORMAT_XRGB8888;
    std::uint32_t plane_count = 0;
    std::uint64_t modifier = DRM_FORMAT_MOD_LINEAR;
    std::array<FramePlane, sluice::max_planes> planes{FramePlane{.stride = 256}};
    std::array<std::uint64_t, 4> sizes{256 * 16};
    std::uint8_t buffers = 1;      // how many are passed, up to 4
    std::uint8_t same = 0;         // bit n: buffer n is another fd of buffer 0
    std::uint8_t known_format = 1; // odd: `format` is an index into formats()
    std::uint8_t padding[5] = {};
};
static_assert(std::has_unique_object_representations_v<Input>);

void require(bool holds) {
    if (!holds)
        std::abort();
}

/// Whether every byte of a LINEAR plane lies in \p size bytes, row by row from the outside in.
bool lies_in(const FrameLayout& layout, std::uint32_t index, std::uint64_t size) {
    const auto& block = sluice::find_format(layout.format)->planes[index];
    __extension__ using Wide = unsigned __int128;
    const Wide across = (Wide{layout.width} + block.block_width - 1) / block.block_width;
    const Wide down = (Wide{layout.height} + block.block_height - 1) / block.block_height;
    const Wide row = across * block.block_bytes;
    const FramePlane& plane = layout.planes[index];
    return plane.stride >= row &&
           Wide{plane.offset} + (down - 1) * plane.stride + row <= Wide{size};
}

void write_seeds() {
    const auto seed = [](const char* name, auto change) {
        Input input;
        input.known_format = 0;
        change(input);
        sluice::test::write_seed(name, std::as_bytes(std::span(&input, 1)));
    };
    const auto nv12 = [](Input& in) {
        in.format = DRM_FORMAT_NV12;
        in.planes = {FramePlane{.stride = 64}, FramePlane{.offset = 1024, .stride = 64}};
        in.sizes[0] = 1536;
    };
    seed("good", [](Input&) {});
    seed("no-size", [](Input& in) { in.width = in.height = 0; });
    seed("stride-0", [](Input& in) { in.planes[0].stride = 0; });
    seed("stride-below-row", [](Input& in) { in.planes[0].stride = 255; });
    seed("stride-misaligned", [](Input& in) { in.planes[0].stride = 257; });
    seed("stride-above-int32", [](Input& in) { in.planes[0].stride = 0x80000000U; });
    seed("wraps-32", [](Input& in) { in.planes[0].offset = 0xfffff000U; });
    seed("wraps-64", [](Input& in) {
        in.width = in.height = UINT32_MAX;
        in.planes[0] = {.offset = UINT32_MAX, .stride = INT32_MAX};
    });
    seed("one-byte-short", [](Input& in) { in.sizes[0] = 256 * 16 - 1; });
    seed("five-planes", [](Input& in) { in.plane_count = 5; });
    seed("a-gap", [](Input& in) { in.planes[2].stride = 256; });
    seed("invalid-modifier", [](Input& in) { in.modifier = DRM_FORMAT_MOD_INVALID; });
    seed("modifier-with-aux", [](Input& in) {
        in.modifier = I915_FORMAT_MOD_Y_TILED_CCS;
        in.plane_count = 2;
        in.planes[1] = {.offset = 4000, .stride = 0};
    });
    seed("nv12", nv12);
    seed("nv12-1x1", [&](Input& in) {
        nv12(in);
        in.width = in.height = 1;
    });
    seed("nv12-disjoint", [&](Input& in) {
        nv12(in);
        in.planes[1] = {.offset = 0, .stride = 64, .buffer = 1};
        in.sizes = {1024, 512};
        in.buffers = 2;
    });
    seed("nv12-two-fds", [&](Input& in) {
        nv12(in);
        in.planes[1].buffer = 1;
        in.buffers = 2;
        in.same = 2;
    });
    seed("no-buffer", [](Input& in) { in.buffers = 0; });
    seed("buffer-not-there", [](Input& in) { in.planes[0].buffer = 1; });
    seed("buffer-in-no-use", [](Input& in) {
        in.sizes[1] = 4096;
        in.buffers = 2;
    });
}

} // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
    write_seeds();
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input;
    std::memcpy(&input, data, std::min(size, sizeof input));
    if (input.known_format % 2 == 1)
        input.format = sluice::formats()[input.format % sluice::formats().size()].fourcc;

    sluice::test::ScriptedLibc libc;
    libc.memfds_are_dma_bufs();
    std::vector<DmaBuf> buffers;
    for (std::uint32_t i = 0; i < input.buffers % 5; ++i) {
        const bool same = i > 0 && (input.same >> i) % 2 == 1;
        auto buffer = same ? buffers[0].duplicate()
                           : DmaBuf::from_fd(sluice::test::memfd(input.sizes[i] & INT64_MAX));
        require(buffer.has_value());
        buffers.push_back(std::move(*buffer));
    }
    std::vector<int> fds;
    for (const DmaBuf& buffer : buffers)
        fds.push_back(buffer.fd());

    const FrameLayout layout{.width = input.width,
                             .height = input.height,
                             .format = input.format,
                             .modifier = input.modifier,
                             .plane_count = input.plane_count,
                             .planes = input.planes};
    (void)describe(layout);
    const auto frame = Frame::create(layout, std::move(buffers));
    if (!frame) {
        const sluice::Error& error = frame.error();
        require(!error.problem.empty() && !error.remedy.empty() && !error.object.empty());
        require(buffers.size() == fds.size());
        for (std::size_t i = 0; i < fds.size(); ++i)
            require(buffers[i].fd() == fds[i]);
        return 0;
    }
    const FrameLayout& got = frame->layout();
    require(got.plane_count >= 1 && got.plane_count <= sluice::max_planes);
    for (std::uint32_t i = 0; i < got.plane_count; ++i) {
        require(got.planes[i].buffer < frame->buffers().size());
        const std::uint64_t holds = frame->buffer(i).size();
        require(got.planes[i].offset < holds);
        if (got.modifier == DRM_FORMAT_MOD_LINEAR)
            require(lies_in(got, i, holds));
    }
    require(buffers.empty());
    for (const DmaBuf& one : frame->buffers())
        for (const DmaBuf& other : frame->buffers())
            require(&one == &other || !same_buffer(one, other));
    return 0;
}
