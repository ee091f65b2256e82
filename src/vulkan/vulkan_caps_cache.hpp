// SPDX-License-Identifier: MIT
/// \file
/// What a driver has said of images so far. Not installed.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include <tl/expected.hpp>
#include <vulkan/vulkan_core.h>

#include <sluice/vulkan_caps.hpp>

namespace sluice {

struct VulkanDriver;
struct VulkanFormatInfo;

/// The images that are asked about, all modifiers of them.
struct VulkanImageKind {
    VkFormat format = VK_FORMAT_UNDEFINED;
    VkImageUsageFlags usage = 0;
    VkImageCreateFlags flags = 0;
    bool linear_only = false; // a part of a frame, whose other modifiers speak of all of it

    [[nodiscard]] friend bool operator<(const VulkanImageKind& a,
                                        const VulkanImageKind& b) noexcept {
        return std::tie(a.format, a.usage, a.flags, a.linear_only) <
               std::tie(b.format, b.usage, b.flags, b.linear_only);
    }
};

/// What a driver says of images of one kind and modifier.
struct VulkanImageAnswer {
    VkResult result = VK_SUCCESS; // VK_ERROR_FORMAT_NOT_SUPPORTED where it has none
    VkExtent2D max_extent = {};
    VkExternalMemoryFeatureFlags dma_buf = 0; // VK_EXTERNAL_MEMORY_FEATURE_*
};

/// \param modifier of no meaning but with VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT.
[[nodiscard]] VulkanImageAnswer
ask_image(PFN_vkGetPhysicalDeviceImageFormatProperties2 get_properties, VkPhysicalDevice device,
          const VulkanImageKind& kind, VkImageTiling tiling, std::uint64_t modifier);

/// The name of the first use in \p usage that \p features have not, or null.
[[nodiscard]] const char* missing_use(VkImageUsageFlags usage, VkFormatFeatureFlags2 features);

/// The name of the first use in \p usage that reads or writes channels where \p format has them,
/// past the components of a view, and so in the wrong places; null where all are in their places.
/// \param view as `VulkanAttachInfo::view`. A plane among several has channels of its own, and who
///   draws into it by itself knows which.
[[nodiscard]] const char* misplaced_use(const VulkanFormatInfo& format, VkImageUsageFlags usage,
                                        std::optional<std::uint32_t> view = std::nullopt);

/// What there is to say of such a use, and to do about it.
[[nodiscard]] std::string misplaced_problem(const char* use);
constexpr const char* misplaced_remedy =
    "Leave COLOR_ATTACHMENT, STORAGE and INPUT_ATTACHMENT out of the usage, or use a format that "
    "vulkan_format() knows";

/// Whether the only view of \p format is the frame itself, and so of any modifier.
[[nodiscard]] bool view_is_whole(const VulkanFormatInfo& format) noexcept;

/// "LINEAR, INTEL 0x100000000000001", or "none".
[[nodiscard]] std::string modifier_names(std::span<const VulkanModifierCaps> modifiers);

/// Asks a driver once. Threads: any.
class VulkanCapsCache {
public:
    /// The modifiers of \p kind, or why \p driver could not be asked; it is asked again then. The
    /// span lasts as long as this.
    [[nodiscard]] tl::expected<std::span<const VulkanModifierCaps>, VkResult>
    modifiers(const VulkanDriver& driver, const VulkanImageKind& kind);

private:
    std::mutex lock_;
    std::map<VulkanImageKind, std::vector<VulkanModifierCaps>> known_; // what is in stays as it is
};

} // namespace sluice
