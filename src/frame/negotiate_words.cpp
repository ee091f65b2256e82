// SPDX-License-Identifier: MIT
#include "frame/negotiate_words.hpp"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include <drm_fourcc.h>

#include <sluice/format.hpp>

namespace sluice {

namespace {

using std::to_string;

constexpr std::size_t shown_at_most = 4; // of a list

/// "a/b/c/d and 3 more".
std::string join(std::span<const std::string> names, const char* what = "") {
    std::string text;
    for (const std::string& each : names.first(std::min(names.size(), shown_at_most)))
        text += (text.empty() ? "" : "/") + each;
    if (names.size() > shown_at_most)
        text += " and " + to_string(names.size() - shown_at_most) + " more" + what;
    return text;
}

/// The format, with the planes that a modifier adds.
std::string name_with_planes(const FormatSupport& support) {
    const FormatInfo* format = find_format(support.format);
    const bool adds =
        support.plane_count != 0 && (!format || support.plane_count != format->plane_count);
    return short_name(support.format) +
           (adds ? " (" + to_string(support.plane_count) + " planes)" : "");
}

} // namespace

std::string name_of(const ImporterCaps& importer) {
    return importer.name.empty() ? "somebody" : importer.name;
}

std::string name_of(const ExporterCaps& exporter) {
    return exporter.name.empty() ? "an exporter" : exporter.name;
}

std::string list_names(std::span<const std::string> names) {
    std::string text;
    for (std::size_t i = 0; i < names.size(); ++i)
        text += (i == 0 ? "" : i + 1 == names.size() ? " and " : ", ") + names[i];
    return text;
}

std::string short_name(std::uint32_t format) {
    const FormatInfo* info = find_format(format);
    return info ? std::string(info->name) : format_name(format);
}

std::string short_names(std::span<const std::uint32_t> formats) {
    std::vector<std::string> names;
    for (const std::uint32_t each : formats)
        names.push_back(short_name(each));
    return join(names);
}

std::string modifier_names(std::span<const std::uint64_t> modifiers) {
    std::vector<std::string> names;
    for (const std::uint64_t each : modifiers)
        names.push_back(modifier_name(each) +
                        (each == DRM_FORMAT_MOD_INVALID ? " (of its own device)" : ""));
    return join(names, " modifiers");
}

std::string layout_names(std::span<const FormatSupport* const> layouts) {
    using Formats = std::vector<std::string>;
    std::vector<std::uint64_t> modifiers; // in the order in which they are listed
    std::map<std::uint64_t, Formats> formats;
    for (const FormatSupport* each : layouts) {
        Formats& of = formats[each->modifier];
        if (of.empty())
            modifiers.push_back(each->modifier);
        if (const std::string name = name_with_planes(*each); of.empty() || of.back() != name)
            of.push_back(name);
    }
    std::vector<std::pair<const Formats*, std::vector<std::uint64_t>>> groups;
    std::map<Formats, std::size_t> group_of;
    for (const std::uint64_t modifier : modifiers) {
        const auto [at, is_new] = group_of.emplace(formats[modifier], groups.size());
        if (is_new)
            groups.emplace_back(&at->first, std::vector<std::uint64_t>());
        groups[at->second].second.push_back(modifier);
    }
    std::string text;
    for (std::size_t i = 0; i < std::min(groups.size(), shown_at_most); ++i)
        text +=
            (i == 0 ? "" : ", ") + modifier_names(groups[i].second) + " " + join(*groups[i].first);
    if (groups.size() > shown_at_most)
        text += " and more";
    return text.empty() ? "nothing" : "only " + text;
}

std::string size_text(std::uint32_t width, std::uint32_t height) {
    return to_string(width) + "x" + to_string(height);
}

} // namespace sluice
