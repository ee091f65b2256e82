// SPDX-License-Identifier: MIT
/// \file
/// What a negotiation is about, in words for people. Not installed.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include <sluice/caps.hpp>

namespace sluice {

[[nodiscard]] std::string name_of(const ImporterCaps& importer);
[[nodiscard]] std::string name_of(const ExporterCaps& exporter);

/// "a", "a and b", "a, b and c".
[[nodiscard]] std::string list_names(std::span<const std::string> names);

/// "XR24".
[[nodiscard]] std::string short_name(std::uint32_t format);

/// "XR24/AR24/XB24/AB24 and 3 more".
[[nodiscard]] std::string short_names(std::span<const std::uint32_t> formats);

/// "LINEAR/INTEL 0x100000000000001", shortened like formats; INVALID says whose it is.
[[nodiscard]] std::string modifier_names(std::span<const std::uint64_t> modifiers);

/// "only LINEAR XR24/AR24, INTEL 0x100000000000002 XR24 (2 planes)", or "nothing". Modifiers with
/// the same formats share them.
[[nodiscard]] std::string layout_names(std::span<const FormatSupport* const> layouts);

/// "640x480".
[[nodiscard]] std::string size_text(std::uint32_t width, std::uint32_t height);

} // namespace sluice
