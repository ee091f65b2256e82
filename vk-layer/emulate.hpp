// SPDX-License-Identifier: MIT
/// \file
/// VK_EXT_external_memory_dma_buf on drivers that run on the CPU and have only
/// VK_EXT_external_memory_host: dma-bufs are mapped, and the driver gets the mapping.
///
/// It stands between the rest of the layer and the driver: whoever looks the functions of an
/// instance or a device up through it finds a driver that has the extensions below.
///
///   - VK_EXT_external_memory_dma_buf: import, and export where there is /dev/udmabuf, of buffers
///     and of images that are LINEAR, by tiling or by modifier;
///   - VK_KHR_external_memory_fd, VK_EXT_queue_family_foreign;
///   - VK_EXT_image_drm_format_modifier with DRM_FORMAT_MOD_LINEAR alone, for formats of one plane.
///     An explicit layout must have the pitch of the driver's own; its offset may be any that the
///     driver can bind at.
///
/// What a driver has of these, it keeps. Submissions that execute commands are bracketed over all
/// dma-bufs of their device (`CpuBrackets`), since nobody can tell cheaply which ones they touch.
/// They return when they are done, wherever they need nothing more of the application for that.
///
/// Ownership barriers reach the driver as they are: one that runs on the CPU has nothing to do for
/// them.
#pragma once

#include <vulkan/vulkan.h>

namespace sluice::layer {

/// Emulates for \p instance from now on. Once, before anything else is called of it; it ends with
/// the vkDestroyInstance that is found here.
/// \param next finds the functions below.
/// \returns what finds the functions of \p instance; \p next where there are too many instances.
[[nodiscard]] PFN_vkGetInstanceProcAddr emulate(VkInstance instance,
                                                PFN_vkGetInstanceProcAddr next);

/// vkCreateDevice for an instance that emulates.
/// \param create the one below. \param info the application's, and what the layer adds to it.
/// \param next finds the functions of the device below. Where the device emulates it becomes what
///   finds ours, until the vkDestroyDevice that is found there.
/// \returns also VK_ERROR_INITIALIZATION_FAILED where there are too many devices.
[[nodiscard]] VkResult create_emulating(PFN_vkCreateDevice create, VkPhysicalDevice physical,
                                        const VkDeviceCreateInfo& info,
                                        const VkAllocationCallbacks* allocator, VkDevice* device,
                                        PFN_vkGetDeviceProcAddr& next);

} // namespace sluice::layer
