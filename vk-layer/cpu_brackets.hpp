// SPDX-License-Identifier: MIT
/// \file
/// The brackets (DMA_BUF_IOCTL_SYNC) that a driver on the CPU needs around its work on dma-bufs.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <thread>
#include <vector>

#include <vulkan/vulkan.h>

#include <sluice/deadline.hpp>
#include <sluice/dma_buf.hpp>

namespace sluice::layer {

/// A dma-buf in this process's memory, for a driver to work on.
class MappedBuffer {
public:
    /// \returns the mapping, readable and writable, or null with errno set.
    [[nodiscard]] static std::shared_ptr<const MappedBuffer> map(DmaBuf&& buffer);
    MappedBuffer(DmaBuf&& buffer, void* address) noexcept;
    ~MappedBuffer();
    MappedBuffer(const MappedBuffer&) = delete;
    MappedBuffer& operator=(const MappedBuffer&) = delete;

    [[nodiscard]] const DmaBuf& buffer() const noexcept { return buffer_; }
    [[nodiscard]] void* address() const noexcept { return address_; }

private:
    DmaBuf buffer_;
    void* address_;
};

using MappedBufferPtr = std::shared_ptr<const MappedBuffer>;

/// What the brackets need of the driver.
struct FenceFunctions {
    PFN_vkCreateFence CreateFence = nullptr;
    PFN_vkDestroyFence DestroyFence = nullptr;
    PFN_vkResetFences ResetFences = nullptr;
    PFN_vkGetFenceStatus GetFenceStatus = nullptr;
    PFN_vkWaitForFences WaitForFences = nullptr;
    PFN_vkQueueSubmit QueueSubmit = nullptr;
};

/// The brackets of one device.
///
/// Before work: wait for the buffers' fences, then START. After it: END, which must not come before
/// the work is done, and should come before the application can know that it is. So whoever submits
/// waits for that here. What may take as long as the application likes, or does take long, is
/// waited for by a thread of ours instead, and the submission returns: then END comes when that
/// thread sees the end of the work, which may be a moment after the application does.
///
/// Threads: any; one queue's by one thread at a time, as Vulkan asks.
class CpuBrackets {
public:
    /// What a queue needs, used again with each submission.
    struct Queue {
        VkQueue handle = VK_NULL_HANDLE;
        std::vector<MappedBufferPtr> buffers; // after `begin`: those whose brackets are open
        std::atomic<std::size_t> late = 0;    // brackets that the thread is to close
    };

    CpuBrackets(VkDevice device, const FenceFunctions& functions) noexcept
        : device_(device), vk_(functions) {}
    /// The device is idle.
    ~CpuBrackets();
    CpuBrackets(const CpuBrackets&) = delete;
    CpuBrackets& operator=(const CpuBrackets&) = delete;

    /// Opens the brackets of `Queue::buffers`, and leaves out of them what cannot be opened.
    void begin(Queue& queue) noexcept;
    /// Closes them once what was submitted to the queue so far is done. \param slow it may wait for
    /// what the application does later.
    void end_when_done(Queue& queue, bool slow) noexcept;
    /// Closes them now.
    void end(Queue& queue) noexcept;

private:
    struct Late {
        VkFence fence = VK_NULL_HANDLE;
        std::vector<MappedBufferPtr> buffers;
        Queue* queue = nullptr;
    };
    enum class Trouble : std::uint8_t { wait, start, end, fence, thread, slow, count_ };

    void close(std::span<const MappedBufferPtr> buffers) noexcept;
    VkFence take_fence() noexcept;
    void give_back(VkFence fence) noexcept;
    void leave_to_thread(Late& late);
    void run();
    /// \returns whether there may be more to come.
    bool end_late_ones();
    void say_once(Trouble trouble, std::string_view what) noexcept;

    VkDevice device_;
    FenceFunctions vk_;
    std::atomic<bool> told_[static_cast<std::size_t>(Trouble::count_)]{};
    std::mutex lock_;             // never held across a call of the driver's
    std::vector<VkFence> fences_; // all of them: one that is pending cannot be destroyed before
    std::vector<VkFence> free_;   // with room for all
    std::vector<Late> late_;
    bool stop_ = false;
    std::condition_variable changed_;
    std::thread thread_;
};

} // namespace sluice::layer
