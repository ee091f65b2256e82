// SPDX-License-Identifier: MIT
// The exporters' tests lay out every format; here is what they share.
#include "frame/linear_plan.hpp"

#include <cstdint>
#include <optional>

#include <drm_fourcc.h>
#include <gtest/gtest.h>

#include "frame/multiples.hpp"

namespace sluice {
namespace {

TEST(LinearPlan, RoundingAndMultiplesDoNotWrap) {
    EXPECT_EQ(round_up(0, 4096), 0U);
    EXPECT_EQ(round_up(1, 4096), 4096U);
    EXPECT_EQ(round_up(4096, 4096), 4096U);
    EXPECT_EQ(round_up(7, 0), 7U);
    EXPECT_EQ(round_up(7, 3), 9U);
    EXPECT_EQ(round_up(UINT64_MAX, 4096), std::nullopt);
    EXPECT_EQ(round_up(UINT64_MAX, UINT64_MAX), UINT64_MAX);
    EXPECT_EQ(common_multiple(64, 256, UINT64_MAX), 256U);
    EXPECT_EQ(common_multiple(48, 64, UINT64_MAX), 192U);
    EXPECT_EQ(common_multiple(0, 0, UINT64_MAX), 1U);
    EXPECT_EQ(common_multiple(48, 64, 191), std::nullopt);
    EXPECT_EQ(common_multiple(UINT64_MAX, UINT64_MAX - 1, UINT64_MAX), std::nullopt);
}

TEST(LinearPlan, PutsPlaneAfterPlane) {
    const auto plan = plan_linear({.width = 33,
                                   .height = 17,
                                   .format = DRM_FORMAT_NV12,
                                   .offset_alignment = 100,
                                   .height_alignment = 4},
                                  64);
    ASSERT_TRUE(plan) << plan.error().message();
    EXPECT_EQ(describe(plan->layout),
              "33x17 NV12 LINEAR, stride 64, offset 0; stride 64, offset 1300");
    EXPECT_EQ(plan->size, 1300U + 64 * 12) << "20 rows, half of them, and four times its own 9";
    EXPECT_EQ(
        plan_linear({.width = 33, .height = 17, .format = DRM_FORMAT_NV12, .min_size = 5000}, 64)
            ->size,
        5000U);
}

TEST(LinearPlan, PadsWhatIsBehindTheLastRow) {
    // 1920 x 1080 pixels are 2025 pages and nothing more, whatever the rows are rounded up to.
    FrameSpec spec{.width = 1920, .height = 1080, .format = DRM_FORMAT_XRGB8888};
    spec.height_alignment = 2;
    EXPECT_EQ(plan_linear(spec, 1)->size, 1920U * 1080 * 4);
    spec.slack = 64;
    EXPECT_EQ(plan_linear(spec, 1)->size, 1920U * 1080 * 4 + 64);
    spec.size_alignment = 65536;
    EXPECT_EQ(plan_linear(spec, 1)->size, 127U * 65536);
    spec.min_size = 127U * 65536 + 1;
    EXPECT_EQ(plan_linear(spec, 1)->size, 127U * 65536 + 1) << "which nobody rounds up";
    spec.size_alignment = spec.slack = UINT32_MAX;
    EXPECT_EQ(plan_linear(spec, 1)->size, std::uint64_t{UINT32_MAX} * 2);
}

TEST(LinearPlan, LeavesOperationAndObjectToTheCaller) {
    const auto plan = plan_linear({.width = 0, .height = 17, .format = DRM_FORMAT_NV12}, 64);
    ASSERT_FALSE(plan);
    EXPECT_EQ(plan.error().code, Errc::invalid_argument);
    EXPECT_EQ(plan.error().problem, "no pixels");
    EXPECT_TRUE(plan.error().operation.empty());
    EXPECT_EQ(plan_linear({.width = 1, .height = 1, .format = 7}, 64).error().code,
              Errc::unsupported);
}

} // namespace
} // namespace sluice
