// SPDX-License-Identifier: MIT
/// \file
/// How frames get to the GPU without dma-buf import: mapped, copied, uploaded.
#pragma once

#include <cstddef>
#include <memory>

#include <vulkan/vulkan.h>

#include <sluice/dma_buf.hpp>

#include "by_hand.hpp"
#include "vulkan_app.hpp"

namespace bench {

/// Copies one buffer's pixels into an image of the GPU's own, over a staging buffer. Everything is
/// made beforehand; a frame costs its two copies.
class CopyPath {
public:
    /// \param buffer borrowed; 32 bits a pixel, rows without padding.
    /// \param bracketed whether the CPU's access is bracketed (DMA_BUF_IOCTL_SYNC).
    /// \returns it, or null: out of memory.
    static std::unique_ptr<CopyPath> create(const VulkanApp& app, const sluice::DmaBuf& buffer,
                                            VkFormat format, VkExtent2D size, bool bracketed);
    CopyPath(const CopyPath&) = delete;
    CopyPath& operator=(const CopyPath&) = delete;
    ~CopyPath();

    /// \returns whether the GPU has the frame.
    [[nodiscard]] bool frame() noexcept;

private:
    explicit CopyPath(const VulkanApp& app) : app_(app) {}
    [[nodiscard]] bool make(VkFormat format, VkExtent2D size);
    [[nodiscard]] VkDeviceMemory memory_for(const VkMemoryRequirements& needs,
                                            VkMemoryPropertyFlags wanted) const;

    const VulkanApp& app_;
    bool bracketed_ = false;
    by_hand::Mapping source_{.fd = -1, .address = nullptr, .size = 0};
    void* staging_address_ = nullptr;
    VkBuffer staging_ = VK_NULL_HANDLE;
    VkImage image_ = VK_NULL_HANDLE;
    VkDeviceMemory staging_memory_ = VK_NULL_HANDLE, image_memory_ = VK_NULL_HANDLE;
    VkCommandBuffer commands_ = VK_NULL_HANDLE;
    VkFence done_ = VK_NULL_HANDLE;
};

} // namespace bench
