// SPDX-License-Identifier: MIT
/// \file
/// VK_KHR_map_memory2, which is younger than the oldest headers that the layer is built with.
#pragma once

#include <vulkan/vulkan_core.h>

#ifndef VK_KHR_map_memory2
struct VkMemoryMapInfoKHR {
    VkStructureType sType;
    const void* pNext;
    VkMemoryMapFlags flags;
    VkDeviceMemory memory;
    VkDeviceSize offset, size;
};
struct VkMemoryUnmapInfoKHR {
    VkStructureType sType;
    const void* pNext;
    VkFlags flags;
    VkDeviceMemory memory;
};
using PFN_vkMapMemory2KHR = VkResult(VKAPI_PTR*)(VkDevice, const VkMemoryMapInfoKHR*, void**);
using PFN_vkUnmapMemory2KHR = VkResult(VKAPI_PTR*)(VkDevice, const VkMemoryUnmapInfoKHR*);
#endif
#ifndef VK_VERSION_1_4
using PFN_vkMapMemory2 = PFN_vkMapMemory2KHR;
using PFN_vkUnmapMemory2 = PFN_vkUnmapMemory2KHR;
#endif
