// SPDX-License-Identifier: MIT
#include "cpu_brackets.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <iterator>
#include <new>
#include <string>
#include <utility>

#include <linux/dma-buf.h>
#include <sys/mman.h>

#include "core/sys.hpp"
#include "quiet_thread.hpp"
#include "report.hpp"

namespace sluice::layer {

namespace {

using namespace std::chrono_literals;

constexpr auto fences_patience = 10s; // longer than any device works on one frame
constexpr auto work_patience = 1s;
constexpr auto look_around = 20ms; // how soon the thread finds out about further work

constexpr std::uint64_t nanoseconds(std::chrono::nanoseconds time) noexcept {
    return static_cast<std::uint64_t>(time.count());
}

/// \returns 0, or -1 with errno set.
int sync(const DmaBuf& buffer, std::uint64_t edge) noexcept {
    dma_buf_sync request{.flags = DMA_BUF_SYNC_RW | edge};
    return sys::ioctl(buffer.fd(), DMA_BUF_IOCTL_SYNC, &request);
}

} // namespace

std::shared_ptr<const MappedBuffer> MappedBuffer::map(DmaBuf&& buffer) {
    void* address = mmap(nullptr, static_cast<std::size_t>(buffer.size()), PROT_READ | PROT_WRITE,
                         MAP_SHARED, buffer.fd(), 0);
    if (address == MAP_FAILED)
        return nullptr;
    return std::make_shared<const MappedBuffer>(std::move(buffer), address);
}

MappedBuffer::MappedBuffer(DmaBuf&& buffer, void* address) noexcept
    : buffer_(std::move(buffer)), address_(address) {}

MappedBuffer::~MappedBuffer() {
    munmap(address_, static_cast<std::size_t>(buffer_.size()));
}

void CpuBrackets::say_once(Trouble trouble, std::string_view what) noexcept {
    if (!told_[static_cast<std::size_t>(trouble)].exchange(true, std::memory_order_relaxed))
        warn(what);
}

CpuBrackets::~CpuBrackets() {
    if (thread_.joinable()) {
        {
            const std::scoped_lock held(lock_);
            stop_ = true;
        }
        changed_.notify_one();
        thread_.join();
    }
    for (const Late& each : late_)
        close(each.buffers);
    for (VkFence each : fences_)
        vk_.DestroyFence(device_, each, nullptr);
}

void CpuBrackets::begin(Queue& queue) noexcept {
    const Deadline deadline = deadline_in(fences_patience);
    std::erase_if(queue.buffers, [&](const MappedBufferPtr& each) {
        // START would wait too, but for ever.
        if (auto idle = each->buffer().wait(Access::read_write, deadline);
            !idle && idle.error().code != Errc::fence_failed) {
            say_once(Trouble::wait, idle.error().message() + "; the submission goes on without it");
            return true;
        }
        if (sync(each->buffer(), DMA_BUF_SYNC_START) == 0)
            return false;
        say_once(Trouble::start, "DMA_BUF_IOCTL_SYNC START is refused: " + sys::errno_text(errno) +
                                     "; the driver may see what is no longer in a buffer");
        return true;
    });
}

void CpuBrackets::close(std::span<const MappedBufferPtr> buffers) noexcept {
    for (const MappedBufferPtr& each : buffers)
        if (sync(each->buffer(), DMA_BUF_SYNC_END) != 0)
            say_once(Trouble::end, "DMA_BUF_IOCTL_SYNC END is refused: " + sys::errno_text(errno) +
                                       "; devices may not see what the driver wrote");
}

void CpuBrackets::end(Queue& queue) noexcept {
    close(queue.buffers);
    queue.buffers.clear();
}

VkFence CpuBrackets::take_fence() noexcept {
    {
        const std::scoped_lock held(lock_);
        if (!free_.empty()) {
            VkFence fence = free_.back();
            free_.pop_back();
            return fence;
        }
    }
    const VkFenceCreateInfo info{
        .sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO, .pNext = nullptr, .flags = 0};
    VkFence made = VK_NULL_HANDLE; // what a call that fails leaves there is no handle
    if (vk_.CreateFence(device_, &info, nullptr, &made) != VK_SUCCESS)
        return VK_NULL_HANDLE;
    try {
        const std::scoped_lock held(lock_);
        free_.reserve(fences_.size() + 1); // so that giving one back needs no memory
        fences_.push_back(made);
        return made;
    } catch (const std::bad_alloc&) {
        vk_.DestroyFence(device_, made, nullptr);
        return VK_NULL_HANDLE;
    }
}

void CpuBrackets::give_back(VkFence fence) noexcept {
    const bool again = vk_.ResetFences(device_, 1, &fence) == VK_SUCCESS;
    {
        const std::scoped_lock held(lock_);
        if (again)
            free_.push_back(fence);
        else
            std::erase(fences_, fence);
    }
    if (!again)
        vk_.DestroyFence(device_, fence, nullptr);
}

void CpuBrackets::end_when_done(Queue& queue, bool slow) noexcept {
    if (queue.buffers.empty())
        return;
    VkFence fence = take_fence();
    // A submission of nothing signals its fence when everything before it is done.
    if (fence == VK_NULL_HANDLE || vk_.QueueSubmit(queue.handle, 0, nullptr, fence) != VK_SUCCESS) {
        if (fence != VK_NULL_HANDLE)
            give_back(fence);
        say_once(Trouble::fence, "no fence tells when a submission is done: DMA_BUF_IOCTL_SYNC END "
                                 "comes too early");
        end(queue);
        return;
    }
    // A queue works in order.
    if (!slow && queue.late.load(std::memory_order_acquire) == 0) {
        if (vk_.WaitForFences(device_, 1, &fence, VK_TRUE, nanoseconds(work_patience)) !=
            VK_TIMEOUT) { // a lost device has ended too
            end(queue);
            give_back(fence);
            return;
        }
        say_once(Trouble::slow,
                 "a submission takes more than a second, and is no longer waited for");
    }
    Late late{.fence = fence, .buffers = std::move(queue.buffers), .queue = &queue};
    queue.buffers.clear();
    try {
        leave_to_thread(late);
    } catch (const std::bad_alloc&) {
        close(late.buffers);
        say_once(Trouble::fence, "no memory for what is to be done after a submission: "
                                 "DMA_BUF_IOCTL_SYNC END comes too early");
    }
}

void CpuBrackets::leave_to_thread(Late& late) {
    {
        const std::scoped_lock held(lock_);
        late_.push_back(std::move(late));
        late_.back().queue->late.fetch_add(1, std::memory_order_relaxed);
        if (!thread_.joinable())
            thread_ = quiet_thread([this] { run(); });
        if (!thread_.joinable())
            say_once(Trouble::thread, "no thread can be started: DMA_BUF_IOCTL_SYNC END of some "
                                      "submissions comes when the device is destroyed");
    }
    changed_.notify_one();
}

void CpuBrackets::run() {
    for (;;)
        try {
            if (!end_late_ones())
                return;
        } catch (const std::bad_alloc&) {
            // They come again.
        }
}

bool CpuBrackets::end_late_ones() {
    std::vector<VkFence> fences;
    {
        std::unique_lock held(lock_);
        changed_.wait(held, [this] { return stop_ || !late_.empty(); });
        if (stop_)
            return false;
        for (const Late& each : late_)
            fences.push_back(each.fence);
    }
    (void)vk_.WaitForFences(device_, static_cast<std::uint32_t>(fences.size()), fences.data(),
                            VK_FALSE, nanoseconds(look_around));
    for (VkFence fence : fences) {
        if (vk_.GetFenceStatus(device_, fence) == VK_NOT_READY)
            continue;
        Late done;
        {
            const std::scoped_lock held(lock_);
            const auto found = std::ranges::find(late_, fence, &Late::fence);
            done = std::move(*found);
            late_.erase(found);
        }
        close(done.buffers);
        give_back(fence);
        done.queue->late.fetch_sub(1, std::memory_order_release);
    }
    return true;
}

} // namespace sluice::layer
