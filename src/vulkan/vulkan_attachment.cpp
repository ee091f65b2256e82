// SPDX-License-Identifier: MIT
#include <sluice/vulkan_attachment.hpp>

#include "vulkan/vulkan_attachment_state.hpp"

namespace sluice {

Coherency VulkanAttachment::coherency() const noexcept {
    const VkMemoryPropertyFlags flags = state_->memory_flags;
    constexpr VkMemoryPropertyFlags snooped = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                                              VK_MEMORY_PROPERTY_HOST_COHERENT_BIT |
                                              VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    if ((flags & snooped) == snooped)
        return Coherency::always;
    return (flags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT) != 0 ? Coherency::bracketed
                                                              : Coherency::unknown;
}

} // namespace sluice
