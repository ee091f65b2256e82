// SPDX-License-Identifier: MIT
/// \file
/// Where the channels of a format lie in memory, read from the words of drm_fourcc.h: what the
/// format tables are held against.
#pragma once

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <map>
#include <optional>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

namespace sluice::test {

/// One channel's bits for one pixel, within a plane's block taken as one little-endian number.
/// Y is 'g', Cb 'b' and Cr 'r', as Vulkan has it ("Chroma Reconstruction").
struct Sample {
    char channel;     ///< 'r', 'g', 'b' or 'a'
    std::uint32_t of; ///< Which of the channel's samples in this block, from the left.
    std::uint32_t plane;
    std::uint32_t low;  ///< The lowest bit.
    std::uint32_t bits; ///< How many.

    auto operator<=>(const Sample&) const = default;
};

/// One plane's block.
struct Block {
    std::uint32_t bits;
    std::uint32_t width; ///< In pixels of the image.
    std::uint32_t height;

    bool operator==(const Block&) const = default;
};

struct PixelLayout {
    bool is_float = false;
    std::vector<Block> blocks;   ///< One for each plane.
    std::vector<Sample> samples; ///< Sorted.

    bool operator==(const PixelLayout&) const = default;

    [[nodiscard]] std::vector<Sample> of(char channel) const {
        std::vector<Sample> found;
        std::ranges::copy_if(samples, std::back_inserter(found),
                             [&](const Sample& each) { return each.channel == channel; });
        return found;
    }
};

/// One definition in drm_fourcc.h.
struct DrmFormat {
    std::string name;  ///< "XRGB8888"
    std::string words; ///< The comment beside it.
    std::string group; ///< The comment above it.
    bool is_yuv = false;
    std::optional<PixelLayout> layout; ///< Nothing where the words tell none.
};

/// "x:R:G:B" to its parts.
inline std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> parts;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, separator);)
        parts.push_back(part);
    return parts;
}

/// Reads "[31:0] x:R:G:B 8:8:8:8 little endian" as \p plane of \p layout, highest bits first. The
/// block's width is left at the number of its luma samples, or 1. False where it is something else.
inline bool read_word(const std::string& words, PixelLayout& layout, bool& is_yuv) {
    static const std::regex form(R"(\[(\d+):0\]\s+([A-Za-z0-9:]+)(?:\s+\[?([\d:]+)\]?)?)");
    static const std::regex part(R"((R|G|B|A|Y|Cb|Cr)(\d?))");
    static const std::map<std::string, char> channels = {
        {"R", 'r'}, {"G", 'g'}, {"B", 'b'}, {"A", 'a'}, {"Cr", 'r'}, {"Y", 'g'}, {"Cb", 'b'}};
    std::smatch found;
    if (!std::regex_search(words, found, form))
        return false;
    const auto total = static_cast<std::uint32_t>(std::stoul(found[1]) + 1);
    const auto names = split(found[2], ':');
    const auto widths = split(found[3], ':');
    if (!widths.empty() && widths.size() != names.size())
        return false;
    const auto plane = static_cast<std::uint32_t>(layout.blocks.size());
    std::uint32_t luma = 0;
    std::uint32_t top = total;
    for (std::size_t i = 0; i < names.size(); ++i) {
        const auto bits = static_cast<std::uint32_t>(widths.empty() ? total / names.size()
                                                                    : std::stoul(widths[i]));
        if (bits > top)
            return false;
        top -= bits;
        if (names[i] == "x" || names[i] == "X" || names[i] == "0")
            continue;
        std::smatch name;
        if (!std::regex_match(names[i], name, part))
            return false;
        is_yuv = is_yuv || name[1] == "Y" || name[1] == "Cb" || name[1] == "Cr";
        luma += name[1] == "Y" ? 1U : 0U;
        const std::string of = name[2];
        layout.samples.push_back({.channel = channels.at(name[1]),
                                  .of = of.empty() ? 0 : static_cast<std::uint32_t>(of[0] - '0'),
                                  .plane = plane,
                                  .low = top,
                                  .bits = bits});
    }
    layout.blocks.push_back({.bits = total, .width = std::max(luma, 1U), .height = 1});
    return top == 0;
}

/// Reads the list of planes, "index 1 = Cr:Cb plane, [15:0] Cr:Cb little endian", in \p format's
/// group, as far as it is \p format's own ("2x2 subsampled Cr:Cb plane").
inline std::optional<PixelLayout> read_planes(const DrmFormat& format, bool& is_yuv) {
    static const std::regex index(R"(index (\d)\s*[:=] ([A-Za-z:]+) plane, (.*))");
    static const std::regex chroma(R"((C[rb]):?(?:C[rb])? (?:plane|\(1\)))");
    static const std::regex subsampling(R"((\d)x(\d) subsampled|non-subsampled)");
    std::smatch found;
    // The first word of its own plane 1: "Cr" of "Cr:Cb plane", "Cb" of "Cb (1) and Cr (2)".
    const std::string first =
        std::regex_search(format.words, found, chroma) ? found[1].str() : std::string();
    const std::string& all = format.words.empty() ? format.group : format.words;
    if (!std::regex_search(all, found, subsampling))
        return std::nullopt;
    const auto factor = [&](std::size_t i) {
        return found[i].matched ? static_cast<std::uint32_t>(std::stoul(found[i])) : 1;
    };
    const std::uint32_t x = factor(1);
    const std::uint32_t y = factor(2);

    PixelLayout layout;
    for (const std::string& line : split(format.group, '\n')) {
        if (!std::regex_search(line, found, index))
            continue;
        const std::uint32_t plane = static_cast<std::uint32_t>(std::stoul(found[1]));
        const std::string name = found[2];
        // Where the group lists alternatives, plane 1 must be the format's own and plane 2 the
        // other.
        if (plane == 1 && !first.empty() && !name.starts_with(first))
            continue;
        if (plane == 2 && !first.empty() && name.starts_with(first))
            continue;
        if (plane != layout.blocks.size())
            continue;
        if (!read_word(found[3], layout, is_yuv))
            return std::nullopt;
        if (plane > 0) {
            std::uint32_t pairs = 1; // of chroma in one block
            for (const Sample& each : layout.samples)
                if (each.plane == plane)
                    pairs = std::max(pairs, each.of + 1);
            layout.blocks.back().width = x * pairs;
            layout.blocks.back().height = y;
        }
    }
    if (layout.blocks.size() < 2)
        return std::nullopt;
    return layout;
}

/// All that drm_fourcc.h at \p path defines, by code. Empty where it cannot be read.
inline std::map<std::uint32_t, DrmFormat> read_drm_fourcc(const std::string& path) {
    static const std::regex definition(
        R"(#define DRM_FORMAT_(\w+)\s+fourcc_code\('(.)', '(.)', '(.)', '(.)'\)(?:\s*/\* (.*) \*/)?)");
    std::map<std::uint32_t, DrmFormat> formats;
    std::ifstream header(path);
    std::string group;
    bool in_comment = false;
    for (std::string line; std::getline(header, line);) {
        if (line.starts_with("/*")) {
            group.clear();
            in_comment = true;
        }
        if (in_comment) {
            group += line + '\n';
            in_comment = line.find("*/") == std::string::npos;
            continue;
        }
        std::smatch part;
        if (!line.starts_with("#define DRM_FORMAT_") || !std::regex_search(line, part, definition))
            continue;
        std::uint32_t code = 0;
        for (unsigned i = 0; i < 4; ++i)
            code |= static_cast<std::uint32_t>(static_cast<unsigned char>(part[2 + i].str()[0]))
                    << (8 * i);
        DrmFormat format{.name = part[1], .words = part[6], .group = group, .layout = {}};
        PixelLayout layout;
        if (format.group.find("index 0") != std::string::npos)
            format.layout = read_planes(format, format.is_yuv);
        else if (read_word(format.words, layout, format.is_yuv))
            format.layout = layout;
        if (format.layout) {
            format.layout->is_float = group.find("Floating point") != std::string::npos;
            std::ranges::sort(format.layout->samples);
        }
        formats[code] = std::move(format);
    }
    return formats;
}

} // namespace sluice::test
