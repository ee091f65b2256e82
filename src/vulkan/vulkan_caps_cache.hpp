// SPDX-License-Identifier: MIT
/// \file
/// What a driver has said of images so far. Not installed.
#pragma once

#include <array>
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

#include <sluice/error.hpp>
#include <sluice/vulkan_caps.hpp>

namespace sluice {

struct VulkanDriver;
struct VulkanFormatInfo;

/// The images that are asked about, all modifiers of them.
struct VulkanImageKind {
    VkFormat format = VK_FORMAT_UNDEFINED;
    VkImageUsageFlags usage = 0;
    VkImageCreateFlags flags = 0;
    VkFormat srgb = VK_FORMAT_UNDEFINED; // that views have too: VK_IMAGE_CREATE_MUTABLE_FORMAT_BIT
    bool linear_only = false; // a part of a frame, whose other modifiers speak of all of it

    [[nodiscard]] friend bool operator<(const VulkanImageKind& a,
                                        const VulkanImageKind& b) noexcept {
        return std::tie(a.format, a.usage, a.flags, a.srgb, a.linear_only) <
               std::tie(b.format, b.usage, b.flags, b.srgb, b.linear_only);
    }
};

/// The formats that an image's views may have. With modifiers, Vulkan wants them named wherever
/// there is more than the image's own (VUID-VkImageCreateInfo-tiling-02353,
/// VUID-VkPhysicalDeviceImageFormatInfo2-tiling-02313); without, a driver may not know
/// VkImageFormatListCreateInfo.
class VulkanViewFormats {
public:
    /// \param srgb VK_FORMAT_UNDEFINED for none. \param next what comes after in the chain.
    VulkanViewFormats(VkFormat own, VkFormat srgb, VkImageTiling tiling, const void* next) noexcept
        : formats_{own, srgb},
          next_(next), list_{.sType = VK_STRUCTURE_TYPE_IMAGE_FORMAT_LIST_CREATE_INFO,
                             .pNext = next,
                             .viewFormatCount = static_cast<std::uint32_t>(formats_.size()),
                             .pViewFormats = formats_.data()},
          several_(srgb != VK_FORMAT_UNDEFINED),
          listed_(several_ && tiling == VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT) {}
    VulkanViewFormats(const VulkanViewFormats&) = delete;
    VulkanViewFormats& operator=(const VulkanViewFormats&) = delete;
    ~VulkanViewFormats() = default;

    /// For the pNext of the image's create or format info.
    [[nodiscard]] const void* chain() const noexcept { return listed_ ? &list_ : next_; }
    [[nodiscard]] VkImageCreateFlags flags() const noexcept {
        return several_ ? VkImageCreateFlags{VK_IMAGE_CREATE_MUTABLE_FORMAT_BIT} : 0;
    }

private:
    std::array<VkFormat, 2> formats_;
    const void* next_;
    VkImageFormatListCreateInfo list_;
    bool several_;
    bool listed_;
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

/// The format that an image's sRGB views have, for `VulkanAttachInfo::srgb_views`.
/// \returns it, or `unsupported`: \p format has none, or `invalid_argument`: \p usage has no use
///   for a view of it. The Error names \p operation and \p object.
[[nodiscard]] Result<VkFormat> srgb_views_of(const VulkanFormatInfo& format,
                                             VkImageUsageFlags usage, const char* operation,
                                             std::string object);

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
