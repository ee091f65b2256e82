// SPDX-License-Identifier: MIT
#include "frame/spec_fit.hpp"

#include <drm_fourcc.h>
#include <gtest/gtest.h>

namespace sluice {
namespace {

FrameLayout nv12() {
    return {.width = 33,
            .height = 9,
            .format = DRM_FORMAT_NV12,
            .plane_count = 2,
            .planes = {FramePlane{.offset = 0, .stride = 64},
                       FramePlane{.offset = 1000, .stride = 48}}};
}

TEST(SpecFit, NamesThePlaneThatIsNotAsAskedFor) {
    EXPECT_EQ(misfit(nv12(), {.format = DRM_FORMAT_NV12}), "");
    EXPECT_EQ(misfit(nv12(), {.format = DRM_FORMAT_NV12, .stride_alignment = 16}), "");
    EXPECT_EQ(misfit(nv12(), {.format = DRM_FORMAT_NV12, .stride_alignment = 64}),
              "plane 1's stride of 48 bytes is no multiple of 64");
    EXPECT_EQ(misfit(nv12(), {.format = DRM_FORMAT_NV12, .offset_alignment = 100}), "");
    EXPECT_EQ(misfit(nv12(), {.format = DRM_FORMAT_NV12, .offset_alignment = 300}),
              "plane 1's offset of 1000 bytes is no multiple of 300");
    // The second plane of an XR24 frame is its modifier's.
    FrameLayout compressed = nv12();
    compressed.format = DRM_FORMAT_XRGB8888;
    EXPECT_EQ(misfit(compressed, {.format = DRM_FORMAT_XRGB8888, .stride_alignment = 64}), "");
}

TEST(SpecFit, CountsEveryPlanesOwnRows) {
    // 9 rows, and 5 of chroma.
    EXPECT_EQ(padded_size(nv12(), {}), 1000U + 48 * 5);
    EXPECT_EQ(padded_size(nv12(), {.height_alignment = 4}), 1000U + 48 * 8)
        << "12 rows have 6 of chroma, and its own 5 are rounded up to 8";
    EXPECT_EQ(padded_size(nv12(), {.height_alignment = 16}), 1000U + 48 * 16);
    EXPECT_EQ(padded_size(nv12(), {.slack = 7}), 1000U + 48 * 5 + 7);
    EXPECT_EQ(padded_size(nv12(), {.slack = 7, .size_alignment = 512}), 1536U);
    FrameLayout short_chroma = nv12();
    short_chroma.planes[1] = {.offset = 0, .stride = 1};
    EXPECT_EQ(padded_size(short_chroma, {}), 64U * 9) << "the plane that reaches furthest";
}

TEST(SpecFit, CountsEachBufferByItself) {
    FrameLayout apart = nv12();
    apart.planes[1].buffer = 1;
    EXPECT_EQ(padded_size(apart, {.slack = 1}, 0), 64U * 9 + 1);
    EXPECT_EQ(padded_size(apart, {.slack = 1}, 1), 1000U + 48 * 5 + 1);
}

TEST(SpecFit, DoesNotWrap) {
    FrameLayout large = nv12();
    large.height = UINT32_MAX;
    large.format = DRM_FORMAT_R8;
    large.plane_count = 1;
    large.planes[0] = {.offset = UINT32_MAX, .stride = UINT32_MAX};
    EXPECT_EQ(padded_size(large, {.slack = UINT32_MAX}),
              UINT32_MAX + std::uint64_t{UINT32_MAX} * UINT32_MAX + UINT32_MAX);
    EXPECT_EQ(padded_size(large, {.slack = UINT32_MAX, .size_alignment = UINT32_MAX - 1}),
              UINT64_MAX);
}

} // namespace
} // namespace sluice
