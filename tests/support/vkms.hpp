// SPDX-License-Identifier: MIT
/// \file
/// Cards found by their driver's name, and frames to show on them.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

#include <drm_fourcc.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <sluice/cpu_access.hpp>
#include <sluice/frame.hpp>
#include <sluice/kms_device.hpp>

#include "support/udmabuf.hpp"

namespace sluice::test {

/// The node of the card that \p driver drives, or an empty text.
inline std::string card_of(std::string_view driver) {
    for (const KmsCard& card : kms_cards())
        if (card.driver == driver)
            return card.path;
    return {};
}

/// A frame over a dma-buf of its own, zeroed.
inline Frame make_frame(std::uint32_t width, std::uint32_t height,
                        std::uint32_t format = DRM_FORMAT_XRGB8888) {
    const std::uint32_t stride = width * 4;
    auto frame = Frame::create({.width = width,
                                .height = height,
                                .format = format,
                                .modifier = DRM_FORMAT_MOD_LINEAR,
                                .planes = {FramePlane{.offset = 0, .stride = stride}}},
                               udmabuf(std::uint64_t{stride} * height));
    EXPECT_TRUE(frame) << frame.error().message();
    return *frame;
}

/// Writes a picture that has every byte depend on its place and on \p seed; X is 0xff, as a capture
/// has it. It takes no bracket, so that a test can write while a fence is pending.
inline void paint(const Frame& frame, std::uint32_t seed) {
    const FrameLayout& layout = frame.layout();
    void* at = mmap(nullptr, frame.buffer().size(), PROT_READ | PROT_WRITE, MAP_SHARED,
                    frame.buffer().fd(), 0);
    ASSERT_NE(at, MAP_FAILED);
    for (std::uint32_t y = 0; y < layout.height; ++y)
        for (std::uint32_t x = 0; x < layout.width; ++x) {
            const std::uint32_t pixel =
                0xff000000U | ((x * 2654435761U + y * 40503U + seed * 97U) >> 8);
            std::memcpy(static_cast<char*>(at) + layout.planes[0].offset +
                            std::size_t{y} * layout.planes[0].stride + std::size_t{x} * 4,
                        &pixel, sizeof pixel);
        }
    munmap(at, frame.buffer().size());
}

/// How many pixels of two frames of one size differ.
inline std::uint64_t differing_pixels(const Frame& a, const Frame& b) {
    using namespace std::chrono_literals;
    std::uint64_t differing = 0;
    auto map_a = CpuMap::map(a.buffer(), Access::read);
    auto map_b = CpuMap::map(b.buffer(), Access::read);
    if (!map_a || !map_b) {
        ADD_FAILURE() << "a frame cannot be mapped";
        return ~0ULL;
    }
    auto access_a = CpuAccess::begin(*map_a, Access::read, deadline_in(5s));
    auto access_b = CpuAccess::begin(*map_b, Access::read, deadline_in(5s));
    if (!access_a || !access_b) {
        ADD_FAILURE() << (access_a ? access_b : access_a).error().message();
        return ~0ULL;
    }
    const auto row = [](const CpuAccess& access, const FrameLayout& layout, std::uint32_t y) {
        return access.bytes().data() + layout.planes[0].offset +
               std::size_t{y} * layout.planes[0].stride;
    };
    for (std::uint32_t y = 0; y < a.layout().height; ++y)
        for (std::uint32_t x = 0; x < a.layout().width; ++x)
            differing += std::memcmp(row(*access_a, a.layout(), y) + std::size_t{x} * 4,
                                     row(*access_b, b.layout(), y) + std::size_t{x} * 4, 4) != 0;
    return differing;
}

} // namespace sluice::test
