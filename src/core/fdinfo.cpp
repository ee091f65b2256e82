// SPDX-License-Identifier: MIT
#include "core/fdinfo.hpp"

#include <charconv>

namespace sluice {

std::optional<DmaBufInfo> parse_fdinfo(std::string_view text) {
    constexpr std::string_view name_key = "name:\t";
    DmaBufInfo info;
    bool counted = false;
    while (!text.empty()) {
        const std::string_view line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(line.size() + 1, text.size()));
        const auto colon = line.find(":\t");
        if (colon == std::string_view::npos)
            continue;
        const std::string_view key = line.substr(0, colon);
        const std::string_view value = line.substr(colon + 2);
        if (key == "count") {
            const auto [end, error] =
                std::from_chars(value.data(), value.data() + value.size(), info.references);
            if (error != std::errc() || end != value.data() + value.size())
                return std::nullopt;
            counted = true;
        }
        if (key == "exp_name") {
            if (!counted)
                return std::nullopt;
            info.exporter = value;
            // All that is left is the name, and its own line's end.
            if (text.starts_with(name_key)) {
                text.remove_prefix(name_key.size());
                info.name = text.substr(0, text.size() - (text.ends_with('\n') ? 1 : 0));
            }
            return info;
        }
    }
    return std::nullopt;
}

} // namespace sluice
