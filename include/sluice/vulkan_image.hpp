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

/// What lies between the numbers in memory and those that shaders see.
enum class VulkanCurve : std::uint8_t {
    none, ///< Nothing.
    srgb, ///< The sRGB curve: red, green and blue are light for shaders and for blending.
};

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
    /// As `VulkanAttachInfo::srgb_views`.
    bool srgb_views = false;
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
    /// There may be views with `VulkanCurve::srgb` as well: the format has `VulkanFormatInfo::srgb`
    /// and the usage SAMPLED, COLOR_ATTACHMENT or INPUT_ATTACHMENT. Such an image has
    /// VK_IMAGE_CREATE_MUTABLE_FORMAT_BIT, for which some drivers take fewer modifiers or are
    /// slower. Not together with `view`.
    bool srgb_views = false;
};

/// The GPU's attachment of a frame, exported or attached, and the owner of its VkImage and memory.
///
/// See `VulkanAttachment` for how long it lasts.
class SLUICE_API VulkanImage : public VulkanAttachment {
public:
    [[nodiscard]] VkImage image() const noexcept;
    [[nodiscard]] VkFormat format() const noexcept;

    /// The view to sample all of it through as its format's colours: with the components that move
    /// every channel to its place and make an alpha one that means nothing (vulkan_format.hpp) and,
    /// for an image that holds YCbCr, with \p conversion, which the sampler must have too and which
    /// must live as long. Made the first time and kept; it goes with the image. Needs a usage that
    /// views are for (sampled, storage, attachment).
    ///
    /// Attachments and storage must be `unswizzled_view`s: where components are, as in XR24, this
    /// one may not be either (VUID-VkFramebufferCreateInfo-pAttachments-00884,
    /// VUID-VkWriteDescriptorSet-descriptorType-00336).
    /// \returns it, or
    ///   - `no_resources`, `device_lost`, `failed`: as Vulkan says, in `Error::vk_result`.
    [[nodiscard]] Result<VkImageView>
    view(VkSamplerYcbcrConversion conversion = VK_NULL_HANDLE) const noexcept;

    /// The same without a conversion, through \p curve.
    /// \returns also `invalid_argument`: a curve for an image without `srgb_views`.
    [[nodiscard]] Result<VkImageView> view(VulkanCurve curve) const noexcept;

    /// The view for attachments and storage, whose components Vulkan wants to be the identity: the
    /// channels are those of `format()`. Where the format's alpha means nothing it is read as it
    /// lies there, and may be written. Not for an image that holds YCbCr in several planes or
    /// subsampled. Made and kept as `view`'s.
    /// \param curve with srgb it is for attachments alone.
    /// \returns as `view`.
    [[nodiscard]] Result<VkImageView>
    unswizzled_view(VulkanCurve curve = VulkanCurve::none) const noexcept;

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
