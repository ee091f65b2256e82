// SPDX-License-Identifier: MIT
#include <sluice/format.hpp>

#include <fstream>
#include <iostream>
#include <map>
#include <regex>
#include <set>
#include <string>

#include <drm_fourcc.h>
#include <gtest/gtest.h>

#include "support/pixel_layout.hpp"

namespace sluice {
namespace {

using test::DrmFormat;
using test::PixelLayout;
using test::Sample;

std::uint32_t code_of(std::string name) {
    name.resize(4, ' ');
    return static_cast<std::uint32_t>(fourcc_code(name[0], name[1], name[2], name[3]));
}

TEST(Format, NamesAreTheFourccsOwnLetters) {
    for (const FormatInfo& each : formats()) {
        EXPECT_EQ(each.fourcc, code_of(std::string(each.name)));
        EXPECT_EQ(find_format(each.fourcc), &each) << each.name;
    }
}

/// What the header's words tell, and the table leaves out.
const std::map<std::string, std::string> left_out = {
    {"C1", "a palette"},
    {"C2", "a palette"},
    {"C4", "a palette"},
    {"C8", "a palette"},
    {"D1", "darkness"},
    {"D2", "darkness"},
    {"D4", "darkness"},
    {"D8", "darkness"},
    {"R1", "pixels below a byte"},
    {"R2", "pixels below a byte"},
    {"R4", "pixels below a byte"},
    {"VUY101010", "no linear layout"},
    {"YUV420_8BIT", "no linear layout"},
    {"YUV420_10BIT", "no linear layout"},
    {"Y0L0", "tiles of 2x2"},
    {"X0L0", "tiles of 2x2"},
    {"Y0L2", "tiles of 2x2"},
    {"X0L2", "tiles of 2x2"},
    {"XRGB8888_A8", "alpha in a second plane"},
    {"XBGR8888_A8", "alpha in a second plane"},
    {"RGBX8888_A8", "alpha in a second plane"},
    {"BGRX8888_A8", "alpha in a second plane"},
    {"RGB888_A8", "alpha in a second plane"},
    {"BGR888_A8", "alpha in a second plane"},
    {"RGB565_A8", "alpha in a second plane"},
    {"BGR565_A8", "alpha in a second plane"},
};

/// Formats that the oldest libdrm sluice is built with (2.4.114) does not have yet.
const std::set<std::string_view> younger = {"AVUY", "XVUY", "NV20", "NV30"};

/// Whether both have their colours in the same bits.
bool same_colours(const PixelLayout& one, const PixelLayout& other) {
    return one.is_float == other.is_float && one.blocks == other.blocks &&
           one.of('r') == other.of('r') && one.of('g') == other.of('g') &&
           one.of('b') == other.of('b');
}

TEST(Format, TheTableIsWhatTheKernelsHeaderSays) {
    const auto header = test::read_drm_fourcc(SLUICE_DRM_FOURCC);
    ASSERT_GT(header.size(), 90U) << "cannot read " SLUICE_DRM_FOURCC;
    for (const FormatInfo& each : formats()) {
        if (!header.contains(each.fourcc) && younger.contains(each.name)) {
            std::cout << each.name << " is younger than this drm_fourcc.h: not checked\n";
            continue;
        }
        ASSERT_TRUE(header.contains(each.fourcc)) << each.name;
        const DrmFormat& said = header.at(each.fourcc);
        SCOPED_TRACE(std::string(each.name) + ": " + said.name + " " + said.words);
        ASSERT_TRUE(said.layout) << "its words are not understood";
        EXPECT_EQ(each.is_yuv, said.is_yuv);
        EXPECT_EQ(each.is_float, said.layout->is_float);
        EXPECT_EQ(each.has_alpha, !said.layout->of('a').empty());

        ASSERT_EQ(each.plane_count, said.layout->blocks.size());
        for (std::uint32_t i = 0; i < each.plane_count; ++i) {
            const test::Block& block = said.layout->blocks[i];
            EXPECT_EQ(each.planes[i].block_bytes * 8, block.bits) << "plane " << i;
            EXPECT_EQ(each.planes[i].block_width, block.width) << "plane " << i;
            EXPECT_EQ(each.planes[i].block_height, block.height) << "plane " << i;
        }

        const std::string channels = each.is_yuv ? "gbra" : "rgba"; // Y is 'g', Cb 'b', Cr 'r'
        for (std::size_t i = 0; i < channels.size(); ++i) {
            const auto samples = said.layout->of(channels[i]);
            EXPECT_EQ(each.bits[i] == 0, samples.empty()) << "channel " << i;
            for (const Sample& sample : samples)
                EXPECT_EQ(each.bits[i], sample.bits) << "channel " << i;
        }

        std::uint32_t twin = 0;
        for (const auto& [code, other] : header)
            if (other.layout && other.is_yuv == said.is_yuv &&
                same_colours(*other.layout, *said.layout) &&
                other.layout->of('a').empty() == each.has_alpha)
                twin = code;
        if (!header.contains(each.alpha_twin)) // it is none, or younger
            twin = twin == 0 ? each.alpha_twin : twin;
        EXPECT_EQ(format_name(each.alpha_twin), format_name(twin));
    }
    for (const auto& [code, said] : header) {
        EXPECT_FALSE(find_format(code) && left_out.contains(said.name)) << said.name;
        if (!find_format(code) && !left_out.contains(said.name))
            std::cout << "drm_fourcc.h has " << said.name << ", which the table lacks\n";
    }
}

TEST(Format, TwinsAreEachOthers) {
    for (const FormatInfo& each : formats()) {
        if (each.alpha_twin == 0)
            continue;
        const FormatInfo* twin = find_format(each.alpha_twin);
        ASSERT_NE(twin, nullptr) << each.name;
        EXPECT_EQ(twin->alpha_twin, each.fourcc) << each.name;
        EXPECT_NE(twin->has_alpha, each.has_alpha) << each.name;
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
    EXPECT_EQ(modifier_name(I915_FORMAT_MOD_X_TILED), "INTEL 0x100000000000001");
    EXPECT_EQ(modifier_name(std::uint64_t{0xff} << 56 | 1), "0xff00000000000001");
    EXPECT_EQ(modifier_name(1), "0x1");
}

TEST(Format, ModifiersBearTheirVendorsNames) {
    std::ifstream header(SLUICE_DRM_FOURCC);
    const std::regex vendor(R"(#define DRM_FORMAT_MOD_VENDOR_(\w+)\s+(0x[0-9a-f]+))");
    int named = 0;
    for (std::string line; std::getline(header, line);) {
        std::smatch part;
        if (!std::regex_search(line, part, vendor))
            continue;
        const std::uint64_t id = std::stoull(part[2], nullptr, 16);
        const std::string name = modifier_name(id << 56 | 0x23);
        if (name.starts_with("0x")) {
            std::cout << "modifier_name() does not know the vendor " << part[1] << '\n';
            continue;
        }
        EXPECT_TRUE(name.starts_with(part[1].str() + " 0x")) << name;
        ++named;
    }
    EXPECT_EQ(named, 10);
}

} // namespace
} // namespace sluice
