// SPDX-License-Identifier: MIT
/// \file
/// Device memory that is a dma-buf, somebody's or Vulkan's own. Not installed.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include <sluice/dma_buf.hpp>
#include <sluice/frame.hpp>

#include "vulkan/vulkan_driver.hpp"

namespace sluice {

/// The memory that an image, one plane of it, or a buffer must have.
struct VulkanMemoryNeeds {
    VkMemoryRequirements requirements = {};
    bool device_address = false;     // VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT
    bool dedicated = false;          // to the one below
    bool dedicated_required = false; // or it is only what the driver likes better
    VkImage image = VK_NULL_HANDLE;  // this one or the next
    VkBuffer buffer = VK_NULL_HANDLE;
};

/// For the Errors, which alone ask what the object is called.
struct VulkanMemoryPurpose {
    const char* operation = "";
    std::function<std::string()> object;
};

/// Memory as it was allocated. It is not owned here.
struct VulkanMemory {
    VkDeviceMemory handle = VK_NULL_HANDLE;
    VkMemoryPropertyFlags flags = 0; // of its type
};

/// What \p operation says to a use that \p writes into \p frame where one of its buffers was given
/// out to be read only. The kernel holds the CPU alone to a fd's mode (mmap(2)); drivers either map
/// it for writing, which fails, or write whatever the mode. Asks the kernel nothing.
/// \returns nothing, or `no_permission`.
[[nodiscard]] Result<void> check_mode(const VulkanDriver& driver, const Frame& frame, bool writes,
                                      const char* operation);

/// Whether the fd of \p buffer still is the buffer's. A driver that is handed another object's
/// number would import that.
/// \returns nothing, or `wrong_object`: it was closed behind our back.
[[nodiscard]] Result<void> check_identity(const DmaBuf& buffer, const VulkanMemoryPurpose& purpose);

/// Imports \p buffer, whose fd stays where it is.
/// \returns the memory, or `out_of_bounds`: it is too small; `wrong_object`: the driver does not
///   take it for a dma-buf; `unsupported`, `no_resources`, `device_lost`, `failed`.
[[nodiscard]] Result<VulkanMemory> import_memory(const VulkanDriver& driver,
                                                 const VulkanMemoryNeeds& needs,
                                                 const DmaBuf& buffer,
                                                 const VulkanMemoryPurpose& purpose);

/// Allocates memory that `export_memory` can export.
[[nodiscard]] Result<VulkanMemory> allocate_exportable(const VulkanDriver& driver,
                                                       const VulkanMemoryNeeds& needs,
                                                       const VulkanMemoryPurpose& purpose);

/// The dma-buf of \p memory.
/// \returns it, or `wrong_object`: what the driver gave is none; or a VkResult.
[[nodiscard]] Result<DmaBuf> export_memory(const VulkanDriver& driver, VkDeviceMemory memory,
                                           const VulkanMemoryPurpose& purpose);

} // namespace sluice
