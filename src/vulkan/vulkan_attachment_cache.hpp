// SPDX-License-Identifier: MIT
/// \file
/// What tells one Vulkan attachment of a frame from another. Not installed.
#pragma once

#include <cstdint>

#include "frame/attachment_cache.hpp"
#include "vulkan/vulkan_attachment_state.hpp"

namespace sluice {

struct VulkanAttachmentKey {
    enum class Kind : std::uint8_t { image, buffer };
    static constexpr std::uint32_t whole = UINT32_MAX;

    Kind kind = Kind::image;
    std::uint32_t part = whole; // the view of an image, or the frame's buffer
    std::uint32_t usage = 0;
    bool srgb_views = false;

    [[nodiscard]] bool operator==(const VulkanAttachmentKey&) const noexcept = default;
    [[nodiscard]] std::uint64_t hash() const noexcept {
        return mix(part, usage + static_cast<unsigned>(kind));
    }
};

using VulkanAttachmentCache = AttachmentCache<VulkanAttachment::State, VulkanAttachmentKey>;

} // namespace sluice
