// SPDX-License-Identifier: MIT
/// \file
/// A layer below all others that answers in the driver's place what happens for each submission,
/// and at once: what is measured then is what stands above it.
#pragma once

#include <cstdint>

#include <vulkan/vk_layer.h>
#include <vulkan/vulkan_core.h>

namespace bench::quick {

/// For a loader. Everything else goes on to the driver.
VkResult VKAPI_CALL negotiate(VkNegotiateLayerInterface* version);

/// What a submission's fence comes to: duplicates of \p fence, borrowed.
void give(int fence) noexcept;
/// Eventfds in its place, each of which is ready when that many more submissions have given theirs:
/// as of a GPU that is so far behind. 0 goes back to the fence.
[[nodiscard]] bool lag_behind(int submissions) noexcept;

// The functions themselves, as an application without layers has them.

VkResult VKAPI_CALL QueueSubmit(VkQueue queue, std::uint32_t count, const VkSubmitInfo* infos,
                                VkFence fence);
VkResult VKAPI_CALL QueueSubmit2(VkQueue queue, std::uint32_t count, const VkSubmitInfo2* infos,
                                 VkFence fence);
VkResult VKAPI_CALL ImportSemaphoreFdKHR(VkDevice device, const VkImportSemaphoreFdInfoKHR* info);
VkResult VKAPI_CALL GetSemaphoreFdKHR(VkDevice device, const VkSemaphoreGetFdInfoKHR* info,
                                      int* fd);

} // namespace bench::quick
