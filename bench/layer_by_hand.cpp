// SPDX-License-Identifier: MIT
#include "layer_by_hand.hpp"

#include <cerrno>
#include <utility>

#include <linux/dma-buf.h>
#include <linux/sync_file.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "by_hand.hpp"

namespace by_hand {

namespace {

constexpr Access read_write = DMA_BUF_SYNC_RW;
constexpr int no_fence = -1;
constexpr int failed = -2;

int poll_now(std::span<pollfd> entries) noexcept {
    constexpr timespec at_once{};
    int ready = 0;
    do {
        ready = ppoll(entries.data(), entries.size(), &at_once, nullptr);
    } while (ready < 0 && (errno == EINTR || errno == EAGAIN));
    return ready;
}

int merge_two(int a, int b) noexcept {
    sync_merge_data request{};
    request.name[0] = 'x';
    request.fd2 = b;
    return ioctl(a, SYNC_IOC_MERGE, &request) == 0 ? request.fence : failed;
}

} // namespace

Bracketed::Bracketed(const sluice::test::DeviceFunctions& vk, VkDevice device, VkQueue queue,
                     std::vector<int> buffers, PFN_vkQueueSubmit queue_submit,
                     PFN_vkImportSemaphoreFdKHR import, PFN_vkGetSemaphoreFdKHR get)
    : vk_(vk), device_(device), queue_(queue), submit_(queue_submit), import_(import), get_(get),
      buffers_(std::move(buffers)) {}

Bracketed::~Bracketed() {
    for (const Slot& slot : slots_) {
        if (slot.done >= 0)
            close(slot.done);
        vk_.DestroySemaphore(device_, slot.wait, nullptr);
        vk_.DestroySemaphore(device_, slot.signal, nullptr);
    }
}

Bracketed::Slot& Bracketed::take_slot() {
    if (!slots_.empty()) {
        // A queue is done in order, so where the oldest is not none is.
        Slot& oldest = slots_[next_];
        pollfd one{.fd = oldest.done, .events = POLLIN, .revents = 0};
        if (oldest.done < 0 || poll_now({&one, 1}) > 0) {
            if (oldest.done >= 0)
                close(std::exchange(oldest.done, -1));
            next_ = (next_ + 1) % slots_.size();
            return oldest;
        }
    }
    const VkExportSemaphoreCreateInfo as_sync_fd{
        .sType = VK_STRUCTURE_TYPE_EXPORT_SEMAPHORE_CREATE_INFO,
        .pNext = nullptr,
        .handleTypes = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT};
    VkSemaphoreCreateInfo create{
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = nullptr, .flags = 0};
    Slot made;
    vk_.CreateSemaphore(device_, &create, nullptr, &made.wait);
    create.pNext = &as_sync_fd;
    vk_.CreateSemaphore(device_, &create, nullptr, &made.signal);
    const auto place = slots_.begin() + static_cast<std::ptrdiff_t>(next_);
    Slot& slot = *slots_.insert(place, made);
    next_ = (next_ + 1) % slots_.size();
    return slot;
}

int Bracketed::take_fences() {
    fences_.clear();
    polls_.clear();
    for (const int each : buffers_) {
        const int fence = export_fence(each, read_write);
        if (fence < 0)
            continue;
        fences_.push_back(fence);
        polls_.push_back({.fd = fence, .events = POLLIN, .revents = 0});
    }
    if (fences_.empty())
        return no_fence;
    if (poll_now(polls_) < 0)
        return failed;
    std::size_t pending = 0;
    for (std::size_t i = 0; i < fences_.size(); ++i)
        if (polls_[i].revents == 0)
            fences_[pending++] = fences_[i];
        else
            close(fences_[i]);
    fences_.resize(pending);
    if (pending < 2)
        return pending == 0 ? no_fence : fences_[0];
    int merged = merge_two(fences_[0], fences_[1]);
    for (std::size_t i = 2; i < pending && merged >= 0; ++i)
        close(std::exchange(merged, merge_two(merged, fences_[i])));
    for (const int each : fences_) {
        // What failed before the merge is not in it any more.
        if (merged >= 0 && fence_status(each) < 0)
            close(std::exchange(merged, failed));
        close(each);
    }
    return merged;
}

int Bracketed::submit(std::span<const VkSubmitInfo> infos, VkFence fence) {
    const std::scoped_lock held(lock_);
    Slot& slot = take_slot();
    const int before = take_fences();
    if (before == failed)
        return before;
    constexpr VkPipelineStageFlags everything = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    infos_.clear();
    if (before >= 0) {
        const VkImportSemaphoreFdInfoKHR import{
            .sType = VK_STRUCTURE_TYPE_IMPORT_SEMAPHORE_FD_INFO_KHR,
            .pNext = nullptr,
            .semaphore = slot.wait,
            .flags = VK_SEMAPHORE_IMPORT_TEMPORARY_BIT,
            .handleType = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT,
            .fd = before};
        if (const VkResult result = import_(device_, &import); result != VK_SUCCESS) {
            close(before);
            return result;
        }
        infos_.push_back({.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                          .waitSemaphoreCount = 1,
                          .pWaitSemaphores = &slot.wait,
                          .pWaitDstStageMask = &everything});
    }
    infos_.insert(infos_.end(), infos.begin(), infos.end());
    infos_.push_back({.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                      .signalSemaphoreCount = 1,
                      .pSignalSemaphores = &slot.signal});
    if (const VkResult result =
            submit_(queue_, static_cast<std::uint32_t>(infos_.size()), infos_.data(), fence);
        result != VK_SUCCESS)
        return result;
    const VkSemaphoreGetFdInfoKHR get{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_GET_FD_INFO_KHR,
                                      .pNext = nullptr,
                                      .semaphore = slot.signal,
                                      .handleType = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT};
    if (const VkResult result = get_(device_, &get, &slot.done); result != VK_SUCCESS)
        return result;
    if (slot.done >= 0)
        for (const int each : buffers_)
            if (const int result = import_fence(each, slot.done, read_write); result < 0)
                return result;
    return 0;
}

} // namespace by_hand
