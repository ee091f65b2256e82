// SPDX-License-Identifier: MIT
#include <sluice/caps.hpp>

#include <array>
#include <utility>

#include <drm_fourcc.h>

#include <sluice/format.hpp>

namespace sluice {

std::string to_string(Uses uses) noexcept {
    constexpr std::array names{
        std::pair(Uses::cpu_read, "read"),   std::pair(Uses::cpu_write, "write"),
        std::pair(Uses::sample, "sample"),   std::pair(Uses::render, "render"),
        std::pair(Uses::store, "store"),     std::pair(Uses::copy_from, "copy from"),
        std::pair(Uses::copy_to, "copy to"), std::pair(Uses::scan_out, "scan out"),
        std::pair(Uses::capture, "capture"),
    };
    std::string text;
    for (const auto& [use, name] : names) {
        if ((uses & use) == Uses::none)
            continue;
        uses = uses - use;
        const bool last = (uses & all_uses) == Uses::none;
        text += (text.empty() ? "" : last ? " and " : ", ") + std::string(name);
    }
    return text.empty() ? "nothing" : text;
}

std::string_view to_string(MemoryKind kind) noexcept {
    switch (kind) {
    case MemoryKind::system:
        return "system";
    case MemoryKind::contiguous:
        return "contiguous";
    case MemoryKind::unknown:
        break;
    }
    return "unknown";
}

ImporterCaps cpu_caps() noexcept {
    ImporterCaps caps{
        .name = "cpu", .stride_alignment = 1, .maps = true, .snooping = Snooping::yes};
    for (const FormatInfo& each : formats())
        caps.formats.push_back(
            {.format = each.fourcc, .modifier = DRM_FORMAT_MOD_LINEAR, .uses = cpu_uses});
    return caps;
}

} // namespace sluice
