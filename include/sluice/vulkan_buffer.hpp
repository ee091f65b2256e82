// SPDX-License-Identifier: MIT
/// \file
/// A VkBuffer whose memory is a frame's, or plain bytes.
///
/// For what reads and writes bytes rather than pixels: copies between buffers and images, and
/// shaders that compute on a frame.
#pragma once

#include <cstdint>
#include <memory>

#include <vulkan/vulkan_core.h>

#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/frame.hpp>
#include <sluice/vulkan_attachment.hpp>
#include <sluice/vulkan_device.hpp>

namespace sluice {

/// How to attach bytes.
struct VulkanBufferAttachInfo {
    VkBufferUsageFlags usage = 0; ///< What the GPU will do with them, exactly. Required.
    /// Which of `Frame::buffers()`, for frames whose planes lie in several.
    std::uint32_t buffer = 0;
};

/// What frame to make in a VkBuffer: LINEAR, its planes one after the other.
struct VulkanBufferInfo {
    std::uint32_t width = 0;      ///< Pixels.
    std::uint32_t height = 0;     ///< Rows.
    std::uint32_t format = 0;     ///< DRM_FORMAT_*; one of `formats()`.
    VkBufferUsageFlags usage = 0; ///< What the GPU will do with it, exactly.
    /// Bytes. Strides are multiples of it and of the plane's pixel, so that copies can name them in
    /// pixels (VkBufferImageCopy::bufferRowLength), and offsets are multiples of it. 256 is the
    /// most that any device asks of an offset (VkPhysicalDeviceLimits, "Required Limits").
    std::uint32_t alignment = 256;
};

/// The GPU's attachment of a frame's bytes, exported or attached, and the owner of its VkBuffer and
/// memory.
///
/// See `VulkanAttachment` for how long it lasts.
class SLUICE_API VulkanBuffer : public VulkanAttachment {
public:
    [[nodiscard]] VkBuffer buffer() const noexcept;

    /// The bytes of the VkBuffer, from the first of the dma-buf on: all of it where it was
    /// attached.
    [[nodiscard]] VkDeviceSize size() const noexcept;

    /// The barrier that takes the bytes over from whoever used the frame before
    /// (VK_QUEUE_FAMILY_FOREIGN_EXT, or see `VulkanDeviceCaps::foreign_queue`): record it first,
    /// with the stages that use the buffer as both its source and its destination, and have the
    /// submission wait in those stages: only then does it come after the semaphores. It orders
    /// nothing in time: that is the fences' part.
    ///
    /// \param access what will be done with it.
    [[nodiscard]] VkBufferMemoryBarrier acquire_barrier(Contents contents,
                                                        VkAccessFlags access) const noexcept;

    /// The barrier that gives the bytes away: record it last, with the stages that used the buffer
    /// as its source and VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT as its destination.
    [[nodiscard]] VkBufferMemoryBarrier release_barrier(VkAccessFlags access) const noexcept;

    /// The same two for vkCmdPipelineBarrier2 (VK_KHR_synchronization2), stages included: \p stages
    /// use the buffer.
    [[nodiscard]] VkBufferMemoryBarrier2 acquire_barrier2(Contents contents,
                                                          VkPipelineStageFlags2 stages,
                                                          VkAccessFlags2 access) const noexcept;
    [[nodiscard]] VkBufferMemoryBarrier2 release_barrier2(VkPipelineStageFlags2 stages,
                                                          VkAccessFlags2 access) const noexcept;

    struct State; ///< Not part of the API.

private:
    friend class VulkanDevice;
    VulkanBuffer(std::shared_ptr<const State> state, Frame frame) noexcept;
    [[nodiscard]] const State& state() const noexcept;
};

} // namespace sluice
