// SPDX-License-Identifier: MIT
#include "vulkan_by_hand.hpp"

#include <cerrno>
#include <type_traits>

#include <drm_fourcc.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <unistd.h>

#include "by_hand.hpp"

namespace by_hand {

namespace {

constexpr Access read_write = DMA_BUF_SYNC_RW;
constexpr Access write_only = DMA_BUF_SYNC_WRITE;

} // namespace

Vulkan::Vulkan(PFN_vkGetInstanceProcAddr get, VkInstance instance, VkDevice of, VkQueue submits_to,
               bool has_modifiers) noexcept
    : device(of), queue(submits_to), modifiers(has_modifiers) {
    const auto get_device =
        reinterpret_cast<PFN_vkGetDeviceProcAddr>(get(instance, "vkGetDeviceProcAddr"));
    const auto load = [&](auto& function, const char* name) {
        function =
            reinterpret_cast<std::remove_reference_t<decltype(function)>>(get_device(device, name));
    };
    load(CreateImage, "vkCreateImage");
    load(DestroyImage, "vkDestroyImage");
    load(GetImageMemoryRequirements2, "vkGetImageMemoryRequirements2");
    load(GetMemoryFdPropertiesKHR, "vkGetMemoryFdPropertiesKHR");
    load(AllocateMemory, "vkAllocateMemory");
    load(FreeMemory, "vkFreeMemory");
    load(BindImageMemory, "vkBindImageMemory");
    load(CreateSemaphore, "vkCreateSemaphore");
    load(DestroySemaphore, "vkDestroySemaphore");
    load(ImportSemaphoreFdKHR, "vkImportSemaphoreFdKHR");
    load(GetSemaphoreFdKHR, "vkGetSemaphoreFdKHR");
    load(QueueSubmit, "vkQueueSubmit");
}

int import_image(const Vulkan& vulkan, int fd, const ImageLayout& layout, Image& made) noexcept {
    const VkSubresourceLayout plane{
        .offset = 0, .size = 0, .rowPitch = layout.stride, .arrayPitch = 0, .depthPitch = 0};
    const VkImageDrmFormatModifierExplicitCreateInfoEXT modifier{
        .sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_EXPLICIT_CREATE_INFO_EXT,
        .pNext = nullptr,
        .drmFormatModifier = DRM_FORMAT_MOD_LINEAR,
        .drmFormatModifierPlaneCount = 1,
        .pPlaneLayouts = &plane};
    const VkExternalMemoryImageCreateInfo external{
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO,
        .pNext = vulkan.modifiers ? &modifier : nullptr,
        .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
    const VkImageCreateInfo create{.sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO,
                                   .pNext = &external,
                                   .flags = 0,
                                   .imageType = VK_IMAGE_TYPE_2D,
                                   .format = layout.format,
                                   .extent = {layout.width, layout.height, 1},
                                   .mipLevels = 1,
                                   .arrayLayers = 1,
                                   .samples = VK_SAMPLE_COUNT_1_BIT,
                                   .tiling = vulkan.modifiers
                                                 ? VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT
                                                 : VK_IMAGE_TILING_LINEAR,
                                   .usage = layout.usage,
                                   .sharingMode = VK_SHARING_MODE_EXCLUSIVE,
                                   .queueFamilyIndexCount = 0,
                                   .pQueueFamilyIndices = nullptr,
                                   .initialLayout = VK_IMAGE_LAYOUT_UNDEFINED};
    made = {};
    if (const VkResult result = vulkan.CreateImage(vulkan.device, &create, nullptr, &made.image);
        result != VK_SUCCESS)
        return result;
    const auto fail = [&](int result) {
        destroy(vulkan, made);
        return result;
    };
    VkMemoryDedicatedRequirements dedicated{.sType =
                                                VK_STRUCTURE_TYPE_MEMORY_DEDICATED_REQUIREMENTS,
                                            .pNext = nullptr,
                                            .prefersDedicatedAllocation = VK_FALSE,
                                            .requiresDedicatedAllocation = VK_FALSE};
    VkMemoryRequirements2 needs{.sType = VK_STRUCTURE_TYPE_MEMORY_REQUIREMENTS_2,
                                .pNext = &dedicated,
                                .memoryRequirements = {}};
    const VkImageMemoryRequirementsInfo2 which{
        .sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_REQUIREMENTS_INFO_2,
        .pNext = nullptr,
        .image = made.image};
    vulkan.GetImageMemoryRequirements2(vulkan.device, &which, &needs);
    if (needs.memoryRequirements.size > layout.size)
        return fail(-EINVAL);
    VkMemoryFdPropertiesKHR properties{
        .sType = VK_STRUCTURE_TYPE_MEMORY_FD_PROPERTIES_KHR, .pNext = nullptr, .memoryTypeBits = 0};
    if (const VkResult result = vulkan.GetMemoryFdPropertiesKHR(
            vulkan.device, VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT, fd, &properties);
        result != VK_SUCCESS)
        return fail(result);
    const std::uint32_t types = needs.memoryRequirements.memoryTypeBits & properties.memoryTypeBits;
    if (types == 0)
        return fail(-EINVAL);
    // The driver takes the fd that it imports.
    const int copy = duplicate(fd);
    if (copy < 0)
        return fail(copy);
    const VkMemoryDedicatedAllocateInfo for_image{
        .sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO,
        .pNext = nullptr,
        .image = made.image,
        .buffer = VK_NULL_HANDLE};
    const VkImportMemoryFdInfoKHR import{
        .sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR,
        .pNext = dedicated.requiresDedicatedAllocation == VK_TRUE ? &for_image : nullptr,
        .handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT,
        .fd = copy};
    const VkMemoryAllocateInfo allocate{.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                        .pNext = &import,
                                        .allocationSize = layout.size,
                                        .memoryTypeIndex =
                                            static_cast<std::uint32_t>(__builtin_ctz(types))};
    if (const VkResult result =
            vulkan.AllocateMemory(vulkan.device, &allocate, nullptr, &made.memory);
        result != VK_SUCCESS) {
        close(copy);
        return fail(result);
    }
    if (const VkResult result = vulkan.BindImageMemory(vulkan.device, made.image, made.memory, 0);
        result != VK_SUCCESS)
        return fail(result);
    return 0;
}

void destroy(const Vulkan& vulkan, const Image& image) noexcept {
    vulkan.DestroyImage(vulkan.device, image.image, nullptr);
    vulkan.FreeMemory(vulkan.device, image.memory, nullptr);
}

Submitter::Submitter(const Vulkan& vulkan) noexcept : vulkan_(vulkan) {
    const VkExportSemaphoreCreateInfo as_sync_fd{
        .sType = VK_STRUCTURE_TYPE_EXPORT_SEMAPHORE_CREATE_INFO,
        .pNext = nullptr,
        .handleTypes = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT};
    for (Slot& slot : slots_) {
        VkSemaphoreCreateInfo create{
            .sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = nullptr, .flags = 0};
        vulkan.CreateSemaphore(vulkan.device, &create, nullptr, &slot.wait);
        create.pNext = &as_sync_fd;
        vulkan.CreateSemaphore(vulkan.device, &create, nullptr, &slot.signal);
    }
}

Submitter::~Submitter() {
    for (const Slot& slot : slots_) {
        if (slot.fence >= 0) {
            fence_wait(slot.fence, INT64_MAX);
            close(slot.fence);
        }
        vulkan_.DestroySemaphore(vulkan_.device, slot.wait, nullptr);
        vulkan_.DestroySemaphore(vulkan_.device, slot.signal, nullptr);
    }
}

int Submitter::submit(int buffer, VkCommandBuffer commands) noexcept {
    Slot& slot = slots_[next_];
    next_ = (next_ + 1) % slots_.size();
    if (slot.fence >= 0) { // the GPU may still be at it
        if (const int result = fence_wait(slot.fence, INT64_MAX); result < 0)
            return result;
        close(slot.fence);
        slot.fence = -1;
    }
    const int before = export_fence(buffer, read_write);
    if (before < 0)
        return before;
    // Drivers take a failed fence for one that has signalled.
    const int status = fence_status(before);
    if (status != 0)
        close(before);
    if (status < 0)
        return status;
    if (status == 0) {
        const VkImportSemaphoreFdInfoKHR import{
            .sType = VK_STRUCTURE_TYPE_IMPORT_SEMAPHORE_FD_INFO_KHR,
            .pNext = nullptr,
            .semaphore = slot.wait,
            .flags = VK_SEMAPHORE_IMPORT_TEMPORARY_BIT,
            .handleType = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT,
            .fd = before};
        if (const VkResult result = vulkan_.ImportSemaphoreFdKHR(vulkan_.device, &import);
            result != VK_SUCCESS) {
            close(before);
            return result;
        }
    }
    constexpr VkPipelineStageFlags everything = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    const VkSubmitInfo submission{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                                  .pNext = nullptr,
                                  .waitSemaphoreCount = status == 0 ? 1U : 0U,
                                  .pWaitSemaphores = &slot.wait,
                                  .pWaitDstStageMask = &everything,
                                  .commandBufferCount = 1,
                                  .pCommandBuffers = &commands,
                                  .signalSemaphoreCount = 1,
                                  .pSignalSemaphores = &slot.signal};
    if (const VkResult result = vulkan_.QueueSubmit(vulkan_.queue, 1, &submission, VK_NULL_HANDLE);
        result != VK_SUCCESS)
        return result;
    const VkSemaphoreGetFdInfoKHR get{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_GET_FD_INFO_KHR,
                                      .pNext = nullptr,
                                      .semaphore = slot.signal,
                                      .handleType = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT};
    if (const VkResult result = vulkan_.GetSemaphoreFdKHR(vulkan_.device, &get, &slot.fence);
        result != VK_SUCCESS)
        return result;
    return slot.fence < 0 ? 0 : import_fence(buffer, slot.fence, write_only);
}

} // namespace by_hand
