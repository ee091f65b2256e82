// SPDX-License-Identifier: MIT
/// \file
/// How much memory the planes of linear images need at least.
#pragma once

#include <cstdint>
#include <optional>

#include <vulkan/vulkan.h>

namespace sluice::layer {

/// As many planes as \p format has, from its name; 1 where it is not known.
[[nodiscard]] std::uint32_t format_planes(VkFormat format) noexcept;

/// The bytes that plane \p plane of a linear image with one layer and level covers, from its first
/// texel to its last; nothing for formats that are not known. \param row_pitch in bytes.
[[nodiscard]] std::optional<std::uint64_t> linear_plane_bytes(VkFormat format, std::uint32_t plane,
                                                              VkExtent3D extent,
                                                              std::uint64_t row_pitch) noexcept;

} // namespace sluice::layer
