// SPDX-License-Identifier: MIT
/// \file
/// An application's VkDevice, wrapped: exports images and hands fences over.
///
/// Sources: the Vulkan specification's chapters on external memory and synchronization, and the
/// extensions that `VulkanDevice::required_extensions()` lists.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include <vulkan/vulkan_core.h>

#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/sync_file.hpp>

namespace sluice {

class Frame;
class VulkanImage;
struct VulkanAttachInfo;
struct VulkanImageInfo;

/// The application's own objects that `VulkanDevice::wrap` borrows.
struct VulkanDeviceInfo {
    /// Where every Vulkan function is looked up; sluice links no loader. Required.
    PFN_vkGetInstanceProcAddr get_instance_proc_addr = nullptr;
    VkInstance instance = VK_NULL_HANDLE;              ///< Required; Vulkan 1.1 or up.
    VkPhysicalDevice physical_device = VK_NULL_HANDLE; ///< Required.
    VkDevice device = VK_NULL_HANDLE;                  ///< Required; see required_extensions().
    VkQueue queue = VK_NULL_HANDLE;                    ///< Required; where `submit` submits.
    std::uint32_t queue_family = 0;                    ///< The family that `queue` is of.
};

/// What one submission consists of. All spans are borrowed for the call.
struct VulkanSubmitInfo {
    /// Recorded command buffers, in order. Required.
    std::span<const VkCommandBuffer> command_buffers = {};
    /// Fences that must signal before the GPU starts. They stay the caller's. Those that have
    /// signalled already cost no semaphore. Default: none.
    std::span<const SyncFile> wait_fences = {};
    /// The stages that wait for them. Default: all.
    VkPipelineStageFlags wait_stages = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
};

/// A handle on a wrapped VkDevice; copies mean the same one.
///
/// The application's objects stay the application's: destroy every `VulkanDevice` and `VulkanImage`
/// before the VkDevice. Their destruction waits for the submissions made here, up to five seconds.
///
/// Threads: any thread may export images. `submit` uses the queue, which Vulkan makes the caller
/// synchronise: one thread at a time on it.
class SLUICE_API VulkanDevice {
public:
    /// The device extensions that an application must enable to be wrapped.
    [[nodiscard]] static std::span<const char* const> required_extensions() noexcept;

    /// Wraps an application's device. Nothing is created before it is needed.
    /// \returns the device, or
    ///   - `invalid_argument`: a handle that is null, or a function that the device does not have:
    ///     an extension was not enabled;
    ///   - `unsupported`: the driver cannot hand its fences over as SYNC_FD, or take them.
    [[nodiscard]] static Result<VulkanDevice> wrap(const VulkanDeviceInfo& info) noexcept;

    /// What was wrapped.
    [[nodiscard]] const VulkanDeviceInfo& info() const noexcept;

    /// The driver's name for the physical device: "llvmpipe (LLVM 19.1.7, 256 bits)".
    [[nodiscard]] const std::string& name() const noexcept;

    /// Makes an image in memory that is exported as a dma-buf; see vulkan_image.hpp.
    [[nodiscard]] Result<VulkanImage> export_image(const VulkanImageInfo& info) const noexcept;

    /// Imports a frame of anybody's as an image; see vulkan_image.hpp. The pixels stay where they
    /// are.
    /// \returns the image, or, with the frame as it was,
    ///   - `unsupported`: the driver does not take the format, modifier, usage or size, as the
    ///     message says; the modifiers that it does take are named;
    ///   - `invalid_argument`: no usage, or a view that the format does not have;
    ///   - `out_of_bounds`: the driver needs more bytes than a buffer holds, both in the message;
    ///   - `wrong_object`: the driver takes a buffer for no dma-buf that it can use;
    ///   - `revoked`: the frame's owner has taken it back;
    ///   - `no_resources`, `device_lost`, `failed`: as Vulkan says, in `Error::vk_result`.
    [[nodiscard]] Result<VulkanImage> attach(const Frame& frame,
                                             const VulkanAttachInfo& info) const noexcept;

    /// Submits, and gives the fence that signals when the GPU is done. After warm-up, when earlier
    /// submissions have finished, it creates no Vulkan object.
    ///
    /// Nothing is left in any buffer: `DmaBuf::import_fence` does that.
    /// \returns the fence, or
    ///   - `fence_failed`: one of the fences to wait for has failed; nothing was submitted;
    ///   - `no_resources`: out of memory or fds; nothing was submitted unless the message says so;
    ///   - `device_lost`: the GPU is gone;
    ///   - `wrong_object`: a fence to wait for was closed behind our back, or, with the work
    ///     submitted, the driver gave something that is no fence;
    ///   - `failed`: another VkResult, in `Error::vk_result`.
    [[nodiscard]] Result<SyncFile> submit(const VulkanSubmitInfo& info) const noexcept;

    struct State; ///< Not part of the API.

private:
    friend class VulkanContext;
    friend class VulkanImage;
    explicit VulkanDevice(std::shared_ptr<State> state) noexcept;

    std::shared_ptr<State> state_;
};

} // namespace sluice
