// SPDX-License-Identifier: MIT
/// \file
/// A VkImage whose memory is a frame.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include <vulkan/vulkan_core.h>

#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/frame.hpp>
#include <sluice/frame_spec.hpp>
#include <sluice/vulkan_attachment.hpp>
#include <sluice/vulkan_device.hpp>
#include <sluice/vulkan_format.hpp>

namespace sluice {

/// What image to make.
struct VulkanImageInfo {
    std::uint32_t width = 0;  ///< Pixels.
    std::uint32_t height = 0; ///< Rows.
    /// DRM_FORMAT_*, one of `vulkan_formats()`. One that is `VulkanFormatInfo::is_swizzled` can be
    /// sampled and copied, but not be an attachment or storage.
    std::uint32_t format = 0;
    VkImageUsageFlags usage = 0; ///< What the GPU will do with it, exactly.
    /// DRM_FORMAT_MOD_* to choose from, in any order; the driver takes the one that it likes best.
    /// Those that it cannot make are passed over. Borrowed for the call. Empty means LINEAR.
    std::span<const std::uint64_t> modifiers = {};
};

/// How to attach a frame.
struct VulkanAttachInfo {
    VkImageUsageFlags usage = 0; ///< What the GPU will do with it, exactly. Required.
    /// None attaches the frame as one image of `VulkanFormatInfo::format`. A number attaches one of
    /// `VulkanFormatInfo::views`: a plane as an image of its own, for formats of several planes on
    /// drivers that do not have them, or without VkSamplerYcbcrConversion. Reading it needs the
    /// view's `components`. Of LINEAR frames only: with other modifiers the pixels lie by their
    /// size, which a view changes. A view that is the frame itself, as that of XR24, is for all.
    std::optional<std::uint32_t> view = std::nullopt;
};

/// The GPU's attachment of a frame, exported or attached, and the owner of its VkImage and memory.
///
/// See `VulkanAttachment` for how long it lasts.
class SLUICE_API VulkanImage : public VulkanAttachment {
public:
    [[nodiscard]] VkImage image() const noexcept;
    [[nodiscard]] VkFormat format() const noexcept;

    /// The view of all of it as its format's colours: with the components that move every channel
    /// to its place (vulkan_format.hpp) and, for an image that holds YCbCr, with \p conversion,
    /// which the sampler must have too and which must live as long. Made the first time and kept;
    /// it goes with the image. Needs a usage that views are for (sampled, storage, attachment).
    ///
    /// It is for sampling. Vulkan wants attachments and storage without components
    /// (VUID-VkFramebufferCreateInfo-pAttachments-00884,
    /// -VkWriteDescriptorSet-descriptorType-00336), and one for a format such as XR24 makes alpha
    /// one: draw through a view of `image()` that the application makes of `format()` by itself.
    /// The channels are in their places there.
    ///
    /// \returns it, or
    ///   - `no_resources`, `device_lost`, `failed`: as Vulkan says, in `Error::vk_result`.
    [[nodiscard]] Result<VkImageView>
    view(VkSamplerYcbcrConversion conversion = VK_NULL_HANDLE) const noexcept;

    /// The barrier that takes the image over from whoever used the frame before
    /// (VK_QUEUE_FAMILY_FOREIGN_EXT, see `VulkanDeviceCaps::foreign_queue`): record it first, with
    /// the stages that use the image as both its source and its destination, and have the
    /// submission wait in those stages. It orders nothing in time: that is the fences' part.
    /// \param layout the layout to use it in; \param access what will be done in it.
    [[nodiscard]] VkImageMemoryBarrier acquire_barrier(Contents contents, VkImageLayout layout,
                                                       VkAccessFlags access) const noexcept;

    /// The barrier that gives the image away: record it last, with the stages that used the image
    /// as its source and VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT as its destination.
    [[nodiscard]] VkImageMemoryBarrier release_barrier(VkImageLayout layout,
                                                       VkAccessFlags access) const noexcept;

    /// The same two for vkCmdPipelineBarrier2 (VK_KHR_synchronization2), stages included.
    [[nodiscard]] VkImageMemoryBarrier2 acquire_barrier2(Contents contents, VkImageLayout layout,
                                                         VkPipelineStageFlags2 stages,
                                                         VkAccessFlags2 access) const noexcept;
    [[nodiscard]] VkImageMemoryBarrier2 release_barrier2(VkImageLayout layout,
                                                         VkPipelineStageFlags2 stages,
                                                         VkAccessFlags2 access) const noexcept;

    struct State; ///< Not part of the API.

private:
    friend class VulkanDevice;
    VulkanImage(std::shared_ptr<const State> state, Frame frame) noexcept;
    [[nodiscard]] const State& state() const noexcept;
};

} // namespace sluice
