// SPDX-License-Identifier: MIT
#include <sluice/format.hpp>

#include <drm_fourcc.h>
#include <gtest/gtest.h>

namespace sluice {
namespace {

TEST(Format, NamesAreTheFourccsOwnLetters) {
    for (const FormatInfo& each : formats()) {
        ASSERT_EQ(each.name.size(), 4U);
        EXPECT_EQ(each.fourcc, static_cast<std::uint32_t>(fourcc_code(each.name[0], each.name[1],
                                                                      each.name[2], each.name[3])));
        EXPECT_EQ(find_format(each.fourcc), &each);
    }
}

TEST(Format, TheLettersTellTheAlphaAndTheBits) {
    // drm_fourcc.h: A where the fourth channel is alpha and X where it is nothing; "24" is 8:8:8:8.
    for (const FormatInfo& each : formats()) {
        EXPECT_EQ(each.has_alpha, each.name[0] == 'A') << each.name;
        EXPECT_EQ(each.bytes_per_pixel, each.name.substr(2) == "24" ? 4U : 0U) << each.name;
    }
}

TEST(Format, UnknownOnesAreNotFound) {
    EXPECT_EQ(find_format(0), nullptr);
    EXPECT_EQ(find_format(DRM_FORMAT_NV12), nullptr);
    EXPECT_EQ(find_format(DRM_FORMAT_XRGB8888 | DRM_FORMAT_BIG_ENDIAN), nullptr);
}

TEST(Format, NamesArePrintable) {
    EXPECT_EQ(format_name(DRM_FORMAT_XRGB8888), "XR24 (0x34325258)");
    EXPECT_EQ(format_name(0x01020304), "???? (0x1020304)");
    EXPECT_EQ(modifier_name(DRM_FORMAT_MOD_LINEAR), "LINEAR");
    EXPECT_EQ(modifier_name(DRM_FORMAT_MOD_INVALID), "INVALID");
    EXPECT_EQ(modifier_name(I915_FORMAT_MOD_X_TILED), "0x100000000000001");
}

} // namespace
} // namespace sluice
