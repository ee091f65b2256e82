// SPDX-License-Identifier: MIT
#include "copy_path.hpp"

#include <cstdint>
#include <cstring>

#include <linux/dma-buf.h>

namespace bench {

namespace {

constexpr by_hand::Access read_only = DMA_BUF_SYNC_READ;

} // namespace

std::unique_ptr<CopyPath> CopyPath::create(const VulkanApp& app, const sluice::DmaBuf& buffer,
                                           VkFormat format, VkExtent2D size, bool bracketed) {
    std::unique_ptr<CopyPath> path(new CopyPath(app));
    path->bracketed_ = bracketed;
    if (by_hand::map(buffer.fd(), buffer.size(), path->source_) != 0 || !path->make(format, size))
        return nullptr;
    return path;
}

CopyPath::~CopyPath() {
    const VkDevice device = app_.info().device;
    vkDestroyFence(device, done_, nullptr);
    vkDestroyImage(device, image_, nullptr);
    vkDestroyBuffer(device, staging_, nullptr);
    vkFreeMemory(device, image_memory_, nullptr);
    vkFreeMemory(device, staging_memory_, nullptr);
    if (source_.address != nullptr)
        by_hand::unmap(source_);
}

VkDeviceMemory CopyPath::memory_for(const VkMemoryRequirements& needs,
                                    VkMemoryPropertyFlags wanted) const {
    VkPhysicalDeviceMemoryProperties all{};
    vkGetPhysicalDeviceMemoryProperties(app_.info().physical_device, &all);
    for (std::uint32_t i = 0; i < all.memoryTypeCount; ++i) {
        if ((needs.memoryTypeBits >> i & 1U) == 0 ||
            (all.memoryTypes[i].propertyFlags & wanted) != wanted)
            continue;
        const VkMemoryAllocateInfo allocate{.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                            .pNext = nullptr,
                                            .allocationSize = needs.size,
                                            .memoryTypeIndex = i};
        VkDeviceMemory memory = VK_NULL_HANDLE;
        if (vkAllocateMemory(app_.info().device, &allocate, nullptr, &memory) == VK_SUCCESS)
            return memory;
    }
    return VK_NULL_HANDLE;
}

bool CopyPath::make(VkFormat format, VkExtent2D size) {
    const VkDevice device = app_.info().device;
    const VkBufferCreateInfo staging{.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                     .pNext = nullptr,
                                     .flags = 0,
                                     .size = source_.size,
                                     .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT,
                                     .sharingMode = VK_SHARING_MODE_EXCLUSIVE,
                                     .queueFamilyIndexCount = 0,
                                     .pQueueFamilyIndices = nullptr};
    const VkImageCreateInfo image{.sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO,
                                  .pNext = nullptr,
                                  .flags = 0,
                                  .imageType = VK_IMAGE_TYPE_2D,
                                  .format = format,
                                  .extent = {size.width, size.height, 1},
                                  .mipLevels = 1,
                                  .arrayLayers = 1,
                                  .samples = VK_SAMPLE_COUNT_1_BIT,
                                  .tiling = VK_IMAGE_TILING_OPTIMAL,
                                  .usage =
                                      VK_IMAGE_USAGE_SAMPLED_BIT | VK_IMAGE_USAGE_TRANSFER_DST_BIT,
                                  .sharingMode = VK_SHARING_MODE_EXCLUSIVE,
                                  .queueFamilyIndexCount = 0,
                                  .pQueueFamilyIndices = nullptr,
                                  .initialLayout = VK_IMAGE_LAYOUT_UNDEFINED};
    const VkFenceCreateInfo fence{
        .sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO, .pNext = nullptr, .flags = 0};
    if (vkCreateBuffer(device, &staging, nullptr, &staging_) != VK_SUCCESS ||
        vkCreateImage(device, &image, nullptr, &image_) != VK_SUCCESS ||
        vkCreateFence(device, &fence, nullptr, &done_) != VK_SUCCESS)
        return false;
    VkMemoryRequirements needs{};
    vkGetBufferMemoryRequirements(device, staging_, &needs);
    staging_memory_ = memory_for(needs, VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                                            VK_MEMORY_PROPERTY_HOST_COHERENT_BIT);
    vkGetImageMemoryRequirements(device, image_, &needs);
    image_memory_ = memory_for(needs, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT);
    if (staging_memory_ == VK_NULL_HANDLE || image_memory_ == VK_NULL_HANDLE ||
        vkBindBufferMemory(device, staging_, staging_memory_, 0) != VK_SUCCESS ||
        vkBindImageMemory(device, image_, image_memory_, 0) != VK_SUCCESS ||
        vkMapMemory(device, staging_memory_, 0, VK_WHOLE_SIZE, 0, &staging_address_) != VK_SUCCESS)
        return false;

    commands_ = app_.commands();
    const VkCommandBufferBeginInfo begin{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                         .pNext = nullptr,
                                         .flags = 0,
                                         .pInheritanceInfo = nullptr};
    vkBeginCommandBuffer(commands_, &begin);
    const VkImageMemoryBarrier overwrite{
        .sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER,
        .pNext = nullptr,
        .srcAccessMask = 0,
        .dstAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT,
        .oldLayout = VK_IMAGE_LAYOUT_UNDEFINED,
        .newLayout = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL,
        .srcQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
        .dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
        .image = image_,
        .subresourceRange = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1}};
    vkCmdPipelineBarrier(commands_, VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT,
                         VK_PIPELINE_STAGE_TRANSFER_BIT, 0, 0, nullptr, 0, nullptr, 1, &overwrite);
    const VkBufferImageCopy all{.bufferOffset = 0,
                                .bufferRowLength = 0,
                                .bufferImageHeight = 0,
                                .imageSubresource = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 0, 1},
                                .imageOffset = {0, 0, 0},
                                .imageExtent = {size.width, size.height, 1}};
    vkCmdCopyBufferToImage(commands_, staging_, image_, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL, 1,
                           &all);
    return vkEndCommandBuffer(commands_) == VK_SUCCESS;
}

bool CopyPath::frame() noexcept {
    if (bracketed_ && by_hand::begin_access(source_.fd, read_only, INT64_MAX) != 0)
        return false;
    std::memcpy(staging_address_, source_.address, source_.size);
    if (bracketed_ && by_hand::end_access(source_.fd, read_only) != 0)
        return false;
    const VkSubmitInfo submit{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                              .pNext = nullptr,
                              .waitSemaphoreCount = 0,
                              .pWaitSemaphores = nullptr,
                              .pWaitDstStageMask = nullptr,
                              .commandBufferCount = 1,
                              .pCommandBuffers = &commands_,
                              .signalSemaphoreCount = 0,
                              .pSignalSemaphores = nullptr};
    const VkDevice device = app_.info().device;
    return vkQueueSubmit(app_.info().queue, 1, &submit, done_) == VK_SUCCESS &&
           vkWaitForFences(device, 1, &done_, VK_TRUE, UINT64_MAX) == VK_SUCCESS &&
           vkResetFences(device, 1, &done_) == VK_SUCCESS;
}

} // namespace bench
