// SPDX-License-Identifier: MIT
#include <sluice/format.hpp>

#include <fstream>
#include <map>
#include <regex>
#include <string>

#include <drm_fourcc.h>
#include <gtest/gtest.h>

namespace sluice {
namespace {

std::uint32_t code_of(std::string name) {
    name.resize(4, ' ');
    return static_cast<std::uint32_t>(fourcc_code(name[0], name[1], name[2], name[3]));
}

TEST(Format, NamesAreTheFourccsOwnLetters) {
    for (const FormatInfo& each : formats()) {
        EXPECT_EQ(each.fourcc, code_of(std::string(each.name)));
        EXPECT_EQ(find_format(each.fourcc), &each) << each.name << " is there twice";
    }
}

/// What drm_fourcc.h says in words, beside each code's definition.
std::map<std::uint32_t, std::string> remarks() {
    std::map<std::uint32_t, std::string> found;
    std::ifstream header(SLUICE_DRM_FOURCC);
    const std::regex definition(
        R"(#define DRM_FORMAT_\w+\s+fourcc_code\('(.)', '(.)', '(.)', '(.)'\) /\* (.*) \*/)");
    for (std::string line; std::getline(header, line);)
        if (std::smatch part; std::regex_search(line, part, definition))
            found[code_of(part[1].str() + part[2].str() + part[3].str() + part[4].str())] = part[5];
    return found;
}

TEST(Format, TheTableIsWhatTheKernelsHeaderSays) {
    const auto said = remarks();
    ASSERT_GT(said.size(), 50U) << "cannot read " SLUICE_DRM_FOURCC;
    for (const FormatInfo& each : formats()) {
        ASSERT_TRUE(said.contains(each.fourcc)) << each.name;
        const std::string& words = said.at(each.fourcc);
        SCOPED_TRACE(std::string(each.name) + ": " + words);
        std::smatch part;
        if (std::regex_search(words, part, std::regex(R"(^\[(\d+):0\] ([^ ]+))"))) {
            // "[31:0] x:R:G:B 2:10:10:10": the block's bits, and what they are.
            ASSERT_EQ(each.plane_count, 1U);
            EXPECT_EQ(each.planes[0].block_bytes * 8, std::stoul(part[1]) + 1);
            EXPECT_EQ(each.has_alpha, part[2].str().starts_with("A"));
            // "Cr0:Y1:Cb0:Y0" has two pixels' luma.
            EXPECT_EQ(each.planes[0].block_width,
                      part[2].str().find("Y1") == std::string::npos ? 1U : 2U);
            EXPECT_EQ(each.planes[0].block_height, 1U);
            continue;
        }
        std::uint32_t x = 1;
        std::uint32_t y = 1;
        if (std::regex_search(words, part, std::regex(R"(^(\d)x(\d) subsampled )"))) {
            x = static_cast<std::uint32_t>(std::stoul(part[1]));
            y = static_cast<std::uint32_t>(std::stoul(part[2]));
        } else {
            EXPECT_TRUE(words.starts_with("non-subsampled"));
        }
        const bool together = words.find(" planes") == std::string::npos; // "Cr:Cb plane"
        const std::uint32_t bytes = words.find("10 bits per channel") == std::string::npos ? 1 : 2;
        EXPECT_FALSE(each.has_alpha);
        ASSERT_EQ(each.plane_count, together ? 2U : 3U);
        EXPECT_EQ(each.planes[0].block_bytes, bytes);
        EXPECT_EQ(each.planes[0].block_width, 1U);
        EXPECT_EQ(each.planes[0].block_height, 1U);
        for (std::uint32_t i = 1; i < each.plane_count; ++i) {
            EXPECT_EQ(each.planes[i].block_bytes, together ? 2 * bytes : bytes);
            EXPECT_EQ(each.planes[i].block_width, x);
            EXPECT_EQ(each.planes[i].block_height, y);
        }
    }
}

TEST(Format, PlanesThatAFormatLacksAreEmpty) {
    for (const FormatInfo& each : formats()) {
        ASSERT_GE(each.plane_count, 1U);
        ASSERT_LE(each.plane_count, max_planes);
        for (std::uint32_t i = 0; i < max_planes; ++i)
            EXPECT_EQ(each.planes[i].block_bytes != 0, i < each.plane_count) << each.name;
    }
}

TEST(Format, BlocksThatTheEdgeCutsCountWhole) {
    const FormatPlane& chroma = find_format(DRM_FORMAT_NV12)->planes[1];
    EXPECT_EQ(chroma.row_bytes(1), 2U);
    EXPECT_EQ(chroma.row_bytes(2), 2U);
    EXPECT_EQ(chroma.row_bytes(3), 4U);
    EXPECT_EQ(chroma.rows(1), 1U);
    EXPECT_EQ(chroma.rows(2), 1U);
    EXPECT_EQ(chroma.rows(3), 2U);
    EXPECT_EQ(find_format(DRM_FORMAT_YUYV)->planes[0].row_bytes(3), 8U);
    EXPECT_EQ(chroma.row_bytes(UINT32_MAX), std::uint64_t{1} << 32) << "must not wrap";
    EXPECT_EQ(chroma.rows(UINT32_MAX), std::uint64_t{1} << 31);
}

TEST(Format, UnknownOnesAreNotFound) {
    EXPECT_EQ(find_format(0), nullptr);
    EXPECT_EQ(find_format(DRM_FORMAT_C8), nullptr);
    EXPECT_EQ(find_format(DRM_FORMAT_XRGB8888 | DRM_FORMAT_BIG_ENDIAN), nullptr);
}

TEST(Format, NamesArePrintable) {
    EXPECT_EQ(format_name(DRM_FORMAT_XRGB8888), "XR24 (0x34325258)");
    EXPECT_EQ(format_name(DRM_FORMAT_R8), "R8 (0x20203852)");
    EXPECT_EQ(format_name(0x01020304), "???? (0x1020304)");
    EXPECT_EQ(modifier_name(DRM_FORMAT_MOD_LINEAR), "LINEAR");
    EXPECT_EQ(modifier_name(DRM_FORMAT_MOD_INVALID), "INVALID");
    EXPECT_EQ(modifier_name(I915_FORMAT_MOD_X_TILED), "0x100000000000001");
}

} // namespace
} // namespace sluice
