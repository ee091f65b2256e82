// SPDX-License-Identifier: MIT
// The Vulkan side of the format table, held against the words of drm_fourcc.h and the names in
// vulkan_core.h.
#include <sluice/vulkan_format.hpp>

#include <algorithm>
#include <array>
#include <fstream>
#include <iostream>
#include <map>
#include <regex>
#include <set>
#include <string>

#include <drm_fourcc.h>
#include <gtest/gtest.h>

#include <sluice/format.hpp>

#include "support/pixel_layout.hpp"
#include "support/requires.hpp"

namespace sluice {
namespace {

using test::Block;
using test::PixelLayout;
using test::Sample;

/// One enumerator of VkFormat.
struct VkText {
    std::string name;    ///< "VK_FORMAT_G8_B8R8_2PLANE_420_UNORM"
    std::string numeric; ///< "UNORM"
    VkExtent2D chroma;
    PixelLayout layout;
};

/// Reads the channels of one plane, "B10X6R10X6". In words of \p word bits they count from the high
/// bits down, word after word; where that is 0, they lie one after the other.
void read_channels(const std::string& text, std::uint32_t word, VkExtent2D span,
                   PixelLayout& layout) {
    static const std::regex channel(R"(([RGBAX])(\d+))");
    const auto plane = static_cast<std::uint32_t>(layout.blocks.size());
    std::uint32_t done = 0;
    for (std::sregex_iterator it(text.begin(), text.end(), channel), end; it != end; ++it) {
        const auto bits = static_cast<std::uint32_t>(std::stoul((*it)[2]));
        const char name = static_cast<char>((*it)[1].str()[0] - 'A' + 'a');
        const std::uint32_t low = word == 0 ? done : done / word * word + word - done % word - bits;
        const auto of = std::ranges::count_if(layout.samples, [&](const Sample& each) {
            return each.plane == plane && each.channel == name;
        });
        if (name != 'x')
            layout.samples.push_back({name, static_cast<std::uint32_t>(of), plane, low, bits});
        done += bits;
    }
    layout.blocks.push_back({done, span.width, span.height});
}

/// The VkFormats whose names tell where their channels lie: all of colours, uncompressed.
std::map<VkFormat, VkText> read_vulkan_core() {
    static const std::regex enumerator(
        R"(^    (VK_FORMAT_((?:(?:[RGBAX]\d+)+_)+)(?:\dPLANE_)?(?:(420|422|444)_)?)"
        R"((UNORM|SNORM|USCALED|SSCALED|UINT|SINT|SRGB|SFLOAT|UFLOAT)(?:_(\d?)PACK(\d+))?)"
        R"((?:_[A-Z]+)?) = (\d+),)");
    std::map<VkFormat, VkText> formats;
    std::ifstream header(SLUICE_VULKAN_CORE);
    for (std::string line; std::getline(header, line);) {
        std::smatch part;
        if (!line.starts_with("    VK_FORMAT_") || !std::regex_search(line, part, enumerator))
            continue;
        VkText text{.name = part[1], .numeric = part[4], .chroma = {1, 1}, .layout = {}};
        if (part[3] == "420")
            text.chroma = {2, 2};
        if (part[3] == "422")
            text.chroma = {2, 1};
        const std::uint32_t word =
            part[6].matched ? static_cast<std::uint32_t>(std::stoul(part[6])) : 0;
        const auto planes = test::split(part[2], '_');
        // A single plane with subsampled chroma has two pixels in a block.
        VkExtent2D span = planes.size() == 1 ? text.chroma : VkExtent2D{1, 1};
        for (const std::string& plane : planes) {
            read_channels(plane, word, span, text.layout);
            span = text.chroma;
        }
        text.layout.is_float = text.numeric == "SFLOAT";
        std::ranges::sort(text.layout.samples);
        formats[static_cast<VkFormat>(std::stoul(part[7]))] = std::move(text);
    }
    return formats;
}

/// Where a channel's samples lie, whatever it is called.
std::vector<Sample> places(const PixelLayout& layout, char channel) {
    auto samples = layout.of(channel);
    for (Sample& each : samples)
        each.channel = '?';
    return samples;
}

constexpr std::string_view channels = "rgba";

/// What \p mapping reads as \p channel: a channel, '0' or '1'.
char source(const VkComponentMapping& mapping, char channel) {
    const std::array swizzles = {mapping.r, mapping.g, mapping.b, mapping.a};
    switch (const auto from = swizzles[channels.find(channel)]) {
    case VK_COMPONENT_SWIZZLE_IDENTITY:
        return channel;
    case VK_COMPONENT_SWIZZLE_ZERO:
        return '0';
    case VK_COMPONENT_SWIZZLE_ONE:
        return '1';
    default:
        return channels[static_cast<std::size_t>(from - VK_COMPONENT_SWIZZLE_R)];
    }
}

/// What a shader gets as \p channel: "Conversion to RGBA" makes alpha one and the others zero where
/// the image has no such channel.
char sampled(const PixelLayout& image, const VkComponentMapping& mapping, char channel) {
    const char from = source(mapping, channel);
    if (from == '0' || from == '1' || !image.of(from).empty())
        return from;
    return from == 'a' ? '1' : '0';
}

/// Pixels that share a chroma sample.
VkExtent2D chroma_of(const PixelLayout& layout) {
    const auto chroma = layout.of('b');
    if (chroma.empty())
        return {1, 1};
    const Block& block = layout.blocks[chroma[0].plane];
    return {block.width / static_cast<std::uint32_t>(chroma.size()), block.height};
}

/// Whether some mapping makes \p image read as \p frame, and whether no colour need move for it.
enum class Match { none, swizzled, in_place };
Match match(const PixelLayout& frame, const PixelLayout& image) {
    if (frame.blocks != image.blocks || frame.is_float != image.is_float)
        return Match::none;
    Match found = Match::in_place;
    for (const char channel : channels) {
        const auto wanted = places(frame, channel);
        if (wanted.empty() || wanted == places(image, channel))
            continue;
        if (std::ranges::none_of(channels,
                                 [&](char from) { return wanted == places(image, from); }))
            return Match::none;
        found = Match::swizzled;
    }
    return found;
}

class VulkanFormatTest : public ::testing::Test {
protected:
    void SetUp() override {
        SLUICE_REQUIRES(drm_.size() > 90, "cannot read " SLUICE_DRM_FOURCC);
        SLUICE_REQUIRES(vulkan_.size() > 120, "cannot read " SLUICE_VULKAN_CORE);
    }

    /// What drm_fourcc.h says; null for a format that this one does not have yet.
    const PixelLayout* frame(std::uint32_t fourcc) const {
        const auto found = drm_.find(fourcc);
        return found == drm_.end() || !found->second.layout ? nullptr : &*found->second.layout;
    }

    const VkText* image(VkFormat format) const {
        const auto found = vulkan_.find(format);
        return found == vulkan_.end() ? nullptr : &found->second;
    }

    void expect_view_reads(const VulkanPlaneView& view, const PixelLayout& frame,
                           std::map<char, int>& read) const;

    const std::map<std::uint32_t, test::DrmFormat> drm_ = test::read_drm_fourcc(SLUICE_DRM_FOURCC);
    const std::map<VkFormat, VkText> vulkan_ = read_vulkan_core();
};

TEST_F(VulkanFormatTest, TheHeadersAreReadRight) {
    // By hand, once for each kind of name.
    const auto expect = [&](VkFormat format, std::vector<Block> blocks,
                            std::vector<Sample> samples) {
        ASSERT_NE(image(format), nullptr);
        std::ranges::sort(samples);
        EXPECT_EQ(image(format)->layout.blocks, blocks) << image(format)->name;
        EXPECT_EQ(image(format)->layout.samples, samples) << image(format)->name;
    };
    expect(VK_FORMAT_B8G8R8A8_UNORM, {{32, 1, 1}},
           {{'b', 0, 0, 0, 8}, {'g', 0, 0, 8, 8}, {'r', 0, 0, 16, 8}, {'a', 0, 0, 24, 8}});
    expect(VK_FORMAT_R5G6B5_UNORM_PACK16, {{16, 1, 1}},
           {{'r', 0, 0, 11, 5}, {'g', 0, 0, 5, 6}, {'b', 0, 0, 0, 5}});
    expect(VK_FORMAT_R10X6G10X6_UNORM_2PACK16, {{32, 1, 1}},
           {{'r', 0, 0, 6, 10}, {'g', 0, 0, 22, 10}});
    expect(VK_FORMAT_B8G8R8G8_422_UNORM, {{32, 2, 1}},
           {{'b', 0, 0, 0, 8}, {'g', 0, 0, 8, 8}, {'r', 0, 0, 16, 8}, {'g', 1, 0, 24, 8}});
    expect(VK_FORMAT_G10X6_B10X6R10X6_2PLANE_420_UNORM_3PACK16, {{16, 1, 1}, {32, 2, 2}},
           {{'g', 0, 0, 6, 10}, {'b', 0, 1, 6, 10}, {'r', 0, 1, 22, 10}});
    EXPECT_EQ(frame(DRM_FORMAT_ARGB8888)->samples, image(VK_FORMAT_B8G8R8A8_UNORM)->layout.samples);
    EXPECT_EQ(frame(DRM_FORMAT_UYVY)->samples, image(VK_FORMAT_B8G8R8G8_422_UNORM)->layout.samples);
}

TEST_F(VulkanFormatTest, EachEntryIsWhatBothHeadersSay) {
    std::set<std::uint32_t> seen;
    for (const VulkanFormatInfo& each : vulkan_formats()) {
        SCOPED_TRACE(format_name(each.fourcc));
        EXPECT_TRUE(seen.insert(each.fourcc).second) << "is there twice";
        EXPECT_EQ(find_vulkan_format(each.fourcc), &each);
        const FormatInfo* info = find_format(each.fourcc);
        ASSERT_NE(info, nullptr);
        EXPECT_EQ(each.is_ycbcr, info->is_yuv);
        const PixelLayout* wanted = frame(each.fourcc);
        if (wanted == nullptr) {
            std::cout << info->name << " is younger than this drm_fourcc.h: not checked\n";
            continue;
        }
        EXPECT_EQ(each.chroma.width, info->is_yuv ? chroma_of(*wanted).width : 1);
        EXPECT_EQ(each.chroma.height, info->is_yuv ? chroma_of(*wanted).height : 1);
        if (each.format == VK_FORMAT_UNDEFINED) {
            EXPECT_EQ(each.srgb, VK_FORMAT_UNDEFINED);
            continue;
        }

        const VkText* text = image(each.format);
        ASSERT_NE(text, nullptr) << "the name of VkFormat " << each.format << " is not understood";
        SCOPED_TRACE(text->name);
        EXPECT_EQ(text->numeric, info->is_float ? "SFLOAT" : "UNORM");
        EXPECT_EQ(text->layout.blocks, wanted->blocks);
        EXPECT_EQ(each.chroma.width, text->chroma.width);
        EXPECT_EQ(each.chroma.height, text->chroma.height);
        bool colours_move = false;
        for (const char channel : channels) {
            const char from = sampled(text->layout, each.components, channel);
            const std::string what = std::string("as ") + channel + " it reads " + from;
            if (wanted->of(channel).empty())
                EXPECT_EQ(from, channel == 'a' ? '1' : '0') << what;
            else
                EXPECT_EQ(places(text->layout, from), places(*wanted, channel)) << what;
            colours_move =
                colours_move || (channel != 'a' && source(each.components, channel) != channel);
        }
        EXPECT_EQ(each.is_swizzled, colours_move);

        // The curve is on red, green and blue only: as YCbCr it means nothing, and a colour that
        // lies where Vulkan has alpha would be left out of it.
        const bool alpha_stays = std::ranges::none_of(std::string_view("rgb"), [&](char channel) {
            return source(each.components, channel) == 'a';
        });
        VkFormat srgb = VK_FORMAT_UNDEFINED;
        for (const auto& [format, other] : vulkan_)
            if (!each.is_ycbcr && alpha_stays && other.numeric == "SRGB" &&
                other.name == std::regex_replace(text->name, std::regex("UNORM"), "SRGB"))
                srgb = format;
        EXPECT_EQ(each.srgb, srgb);
    }
}

/// Expects that what \p view reads are channels of \p frame, and counts them in \p read.
void VulkanFormatTest::expect_view_reads(const VulkanPlaneView& view, const PixelLayout& frame,
                                         std::map<char, int>& read) const {
    ASSERT_LT(view.plane, frame.blocks.size());
    const VkText* text = image(view.format);
    ASSERT_NE(text, nullptr);
    SCOPED_TRACE("view of plane " + std::to_string(view.plane) + " as " + text->name);
    EXPECT_EQ(text->numeric, frame.is_float ? "SFLOAT" : "UNORM");
    ASSERT_EQ(text->layout.blocks.size(), 1U);
    const std::uint32_t texel = text->layout.blocks[0].bits;
    const Block& block = frame.blocks[view.plane];
    ASSERT_EQ(block.bits % texel, 0U);
    const std::uint32_t texels = block.bits / texel;
    EXPECT_EQ(texels * view.texel_width, block.width);
    EXPECT_EQ(view.texel_height, block.height);
    for (const char channel : channels) {
        const char from = sampled(text->layout, view.components, channel);
        if (from == '0')
            continue;
        ++read[channel];
        const auto wanted = frame.of(channel);
        const std::string what = std::string("as ") + channel + " it reads " + from;
        if (from == '1') {
            EXPECT_TRUE(channel == 'a' && wanted.empty()) << what;
            continue;
        }
        ASSERT_EQ(wanted.size(), texels) << what;
        const Sample one = text->layout.of(from)[0];
        for (std::uint32_t i = 0; i < texels; ++i) {
            const std::uint32_t low = one.low + i * texel;
            // What lies below the sample's bits is padding, if anything.
            EXPECT_EQ(wanted[i].plane, view.plane) << what;
            EXPECT_EQ(wanted[i].low + wanted[i].bits, low + one.bits) << what;
            EXPECT_GE(one.bits, wanted[i].bits) << what;
            for (const Sample& other : frame.samples)
                EXPECT_FALSE(other != wanted[i] && other.plane == view.plane &&
                             other.low < low + one.bits && low < other.low + other.bits)
                    << what << " and " << other.channel;
        }
    }
}

TEST_F(VulkanFormatTest, TheViewsTogetherReadEachChannelOnce) {
    for (const VulkanFormatInfo& each : vulkan_formats()) {
        const PixelLayout* wanted = frame(each.fourcc);
        if (wanted == nullptr)
            continue;
        SCOPED_TRACE(format_name(each.fourcc));
        ASSERT_GE(each.view_count, 1U);
        ASSERT_LE(each.view_count, each.views.size());
        std::map<char, int> read;
        for (std::uint32_t i = 0; i < each.view_count; ++i)
            expect_view_reads(each.views[i], *wanted, read);
        for (const char channel : channels)
            EXPECT_EQ(read[channel], channel != 'a' && wanted->of(channel).empty() ? 0 : 1)
                << channel;
        for (std::size_t i = each.view_count; i < each.views.size(); ++i)
            EXPECT_EQ(each.views[i].format, VK_FORMAT_UNDEFINED);
    }
}

/// Formats for which a younger Vulkan than the oldest that sluice is built with has a name.
const std::set<std::uint32_t> younger_in_vulkan = {DRM_FORMAT_ABGR1555, DRM_FORMAT_XBGR1555};

TEST_F(VulkanFormatTest, WhatBothHeadersHaveTheTableHas) {
    std::string alone;
    for (const auto& [fourcc, drm] : drm_) {
        if (!drm.layout)
            continue;
        Match best = Match::none;
        std::string names;
        for (const auto& [format, text] : vulkan_) {
            if (text.numeric != "UNORM" && text.numeric != "SFLOAT")
                continue;
            const Match found = match(*drm.layout, text.layout);
            best = std::max(best, found);
            if (found != Match::none)
                names += " " + text.name;
        }
        const VulkanFormatInfo* info = find_vulkan_format(fourcc);
        if (best == Match::none) {
            EXPECT_TRUE(info == nullptr || info->format == VK_FORMAT_UNDEFINED) << drm.name;
            if (find_format(fourcc))
                alone += " " + drm.name;
            continue;
        }
        if (!find_format(fourcc)) {
            std::cout << "both headers have " << drm.name << " (" << names
                      << " ), which the tables lack\n";
            continue;
        }
        ASSERT_NE(info, nullptr) << drm.name << names;
        EXPECT_NE(info->format, VK_FORMAT_UNDEFINED) << drm.name << names;
        if (best != Match::in_place)
            continue;
        if (info->is_swizzled && younger_in_vulkan.contains(fourcc))
            std::cout << "vulkan_core.h has " << names << ", which the table does not use for "
                      << drm.name << '\n';
        else
            EXPECT_FALSE(info->is_swizzled) << drm.name << names;
    }
    std::cout << "no VkFormat has the bytes of" << alone << '\n';
}

TEST(VulkanFormat, LeadsBackToTheDrmFormats) {
    using Codes = std::vector<std::uint32_t>;
    const auto codes = [](VkFormat format) {
        const auto found = drm_formats(format);
        return Codes(found.begin(), found.end());
    };
    EXPECT_EQ(codes(VK_FORMAT_B8G8R8A8_UNORM), (Codes{DRM_FORMAT_ARGB8888, DRM_FORMAT_XRGB8888}));
    EXPECT_EQ(codes(VK_FORMAT_B8G8R8A8_SRGB), (Codes{DRM_FORMAT_ARGB8888, DRM_FORMAT_XRGB8888}));
    EXPECT_EQ(codes(VK_FORMAT_A2R10G10B10_UNORM_PACK32),
              (Codes{DRM_FORMAT_ARGB2101010, DRM_FORMAT_XRGB2101010}));
    EXPECT_EQ(codes(VK_FORMAT_R8G8_UNORM), Codes{DRM_FORMAT_GR88});
    EXPECT_EQ(codes(VK_FORMAT_G8_B8R8_2PLANE_420_UNORM), Codes{DRM_FORMAT_NV12});
    EXPECT_EQ(codes(VK_FORMAT_UNDEFINED), Codes{});
    EXPECT_EQ(codes(VK_FORMAT_D16_UNORM), Codes{});
    EXPECT_EQ(codes(VK_FORMAT_R8_UINT), Codes{});
    EXPECT_EQ(codes(VK_FORMAT_MAX_ENUM), Codes{});

    for (const VulkanFormatInfo& each : vulkan_formats()) {
        SCOPED_TRACE(format_name(each.fourcc));
        const bool drawable = !each.is_swizzled && !each.is_ycbcr;
        EXPECT_EQ(vulkan_format(each.fourcc), drawable ? each.format : VK_FORMAT_UNDEFINED);
        const FormatInfo* twin = find_format(find_format(each.fourcc)->alpha_twin);
        for (const VkFormat format : {each.format, each.srgb}) {
            if (format == VK_FORMAT_UNDEFINED)
                continue;
            const Codes back = codes(format);
            const auto found = std::ranges::find(back, each.fourcc);
            const bool borrowed = each.is_ycbcr && find_format(each.fourcc)->plane_count == 1 &&
                                  each.chroma.width == 1;
            EXPECT_EQ(found != back.end(), !each.is_swizzled && !borrowed);
            if (found != back.end() && twin) {
                EXPECT_EQ(back.size(), 2U);
                EXPECT_EQ(found == back.begin(), find_format(each.fourcc)->has_alpha);
            } else if (found != back.end()) {
                EXPECT_EQ(back.size(), 1U);
            }
        }
    }
}

TEST(VulkanFormat, IsUndefinedWhereNothingCanBeDrawn) {
    for (const std::uint32_t fourcc :
         {std::uint32_t{0}, std::uint32_t{DRM_FORMAT_C8}, std::uint32_t{DRM_FORMAT_RGB332},
          std::uint32_t{DRM_FORMAT_NV15}, DRM_FORMAT_XRGB8888 | DRM_FORMAT_BIG_ENDIAN}) {
        EXPECT_EQ(find_vulkan_format(fourcc), nullptr);
        EXPECT_EQ(vulkan_format(fourcc), VK_FORMAT_UNDEFINED);
    }
    EXPECT_EQ(vulkan_format(DRM_FORMAT_NV12), VK_FORMAT_UNDEFINED);
    EXPECT_EQ(vulkan_format(DRM_FORMAT_RGBX8888), VK_FORMAT_UNDEFINED);
    EXPECT_EQ(vulkan_format(DRM_FORMAT_YUV410), VK_FORMAT_UNDEFINED);
}

} // namespace
} // namespace sluice
