// SPDX-License-Identifier: MIT
#include "chain_copy.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace sluice::layer {

namespace {

/// The size of what may hang at the structures that are copied here; 0 for what is not known.
std::size_t size_of(VkStructureType type) noexcept {
    switch (type) {
    // At VkMemoryAllocateInfo.
    case VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR:
        return sizeof(VkImportMemoryFdInfoKHR);
    case VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO:
        return sizeof(VkExportMemoryAllocateInfo);
    case VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO:
        return sizeof(VkMemoryDedicatedAllocateInfo);
    case VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO:
        return sizeof(VkMemoryAllocateFlagsInfo);
    case VK_STRUCTURE_TYPE_MEMORY_OPAQUE_CAPTURE_ADDRESS_ALLOCATE_INFO:
        return sizeof(VkMemoryOpaqueCaptureAddressAllocateInfo);
    case VK_STRUCTURE_TYPE_MEMORY_PRIORITY_ALLOCATE_INFO_EXT:
        return sizeof(VkMemoryPriorityAllocateInfoEXT);
    // At VkBufferCreateInfo.
    case VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO:
        return sizeof(VkExternalMemoryBufferCreateInfo);
    case VK_STRUCTURE_TYPE_BUFFER_OPAQUE_CAPTURE_ADDRESS_CREATE_INFO:
        return sizeof(VkBufferOpaqueCaptureAddressCreateInfo);
    case VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_CREATE_INFO_EXT:
        return sizeof(VkBufferDeviceAddressCreateInfoEXT);
    // At VkImageCreateInfo and VkPhysicalDeviceImageFormatInfo2.
    case VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO:
        return sizeof(VkExternalMemoryImageCreateInfo);
    case VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_LIST_CREATE_INFO_EXT:
        return sizeof(VkImageDrmFormatModifierListCreateInfoEXT);
    case VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_EXPLICIT_CREATE_INFO_EXT:
        return sizeof(VkImageDrmFormatModifierExplicitCreateInfoEXT);
    case VK_STRUCTURE_TYPE_IMAGE_FORMAT_LIST_CREATE_INFO:
        return sizeof(VkImageFormatListCreateInfo);
    case VK_STRUCTURE_TYPE_IMAGE_STENCIL_USAGE_CREATE_INFO:
        return sizeof(VkImageStencilUsageCreateInfo);
    case VK_STRUCTURE_TYPE_IMAGE_SWAPCHAIN_CREATE_INFO_KHR:
        return sizeof(VkImageSwapchainCreateInfoKHR);
    case VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_IMAGE_FORMAT_INFO:
        return sizeof(VkPhysicalDeviceExternalImageFormatInfo);
    case VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_DRM_FORMAT_MODIFIER_INFO_EXT:
        return sizeof(VkPhysicalDeviceImageDrmFormatModifierInfoEXT);
    case VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_VIEW_IMAGE_FORMAT_INFO_EXT:
        return sizeof(VkPhysicalDeviceImageViewImageFormatInfoEXT);
    default:
        return 0;
    }
}

} // namespace

ChainCopy::ChainCopy(const void* next, std::span<const VkStructureType> without) : head_(next) {
    constexpr std::size_t word = sizeof(std::uint64_t);
    const auto unwanted = [&](const VkBaseInStructure* each) {
        return std::ranges::find(without, each->sType) != without.end();
    };
    const auto words_of = [](const VkBaseInStructure* each) {
        return (size_of(each->sType) + word - 1) / word;
    };
    const auto* const first = static_cast<const VkBaseInStructure*>(next);
    const VkBaseInStructure* shared = first; // from here on
    for (const auto* each = first; each != nullptr; each = each->pNext)
        if (unwanted(each))
            shared = each->pNext;
    std::size_t words = 0;
    for (const auto* each = first; each != shared; each = each->pNext)
        words += words_of(each);
    room_.resize(words);
    std::uint64_t* room = room_.data();
    VkBaseInStructure* last = nullptr;
    head_ = shared;
    for (const auto* each = first; each != shared; each = each->pNext) {
        const std::size_t size = size_of(each->sType);
        if (!unwanted(each) && size == 0)
            lost_ = each->sType;
        if (unwanted(each) || size == 0)
            continue;
        auto* copy = reinterpret_cast<VkBaseInStructure*>(room);
        std::memcpy(static_cast<void*>(copy), each, size);
        copy->pNext = shared;
        room += words_of(each);
        if (last != nullptr)
            last->pNext = copy;
        else
            head_ = copy;
        last = copy;
    }
}

} // namespace sluice::layer
