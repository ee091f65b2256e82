// SPDX-License-Identifier: MIT
#include "vulkan/vulkan_access_pool.hpp"

#include <algorithm>
#include <array>
#include <chrono>

#include "core/sys.hpp"

namespace sluice {

namespace {

using Record = VulkanAccess::Record;

void destroy(const VulkanDriver& driver, const Record& record) noexcept {
    const auto& vk = driver.vk;
    for (VkSemaphore wait : record.waits)
        vk.DestroySemaphore(driver.info.device, wait, nullptr);
    if (record.signal != VK_NULL_HANDLE)
        vk.DestroySemaphore(driver.info.device, record.signal, nullptr);
    for (const Record::Done* each : {&record.done, &record.hopped})
        if (each->fence != VK_NULL_HANDLE)
            vk.DestroyFence(driver.info.device, each->fence, nullptr);
}

/// Forgets the access and keeps the objects.
void forget(Record& record) noexcept {
    record.stage = Record::Stage::idle;
    record.wait_count = 0;
    record.kept.clear();
    record.buffers.clear();
    record.accesses.clear();
    record.inputs.clear();
    record.fence = SyncFile::signalled();
    record.fetched = false;
    record.done.pending = false;
    record.hopped.pending = false;
}

/// Waits for the GPU to be done with \p record. \returns whether it is, or is lost.
bool wait_for(const VulkanDriver& driver, const Record& record, Deadline deadline) noexcept {
    for (const Record::Done* each : {&record.done, &record.hopped}) {
        if (!each->pending)
            continue;
        const auto left = std::chrono::nanoseconds(deadline - Deadline::clock::now()).count();
        const VkResult waited =
            driver.vk.WaitForFences(driver.info.device, 1, &each->fence, VK_TRUE,
                                    static_cast<std::uint64_t>(std::max(left, decltype(left){0})));
        if (waited != VK_SUCCESS && waited != VK_ERROR_DEVICE_LOST)
            return false;
    }
    if (record.fence.fd() < 0)
        return true;
    const auto waited = record.fence.wait(deadline);
    return waited || waited.error().code == Errc::fence_failed;
}

/// How many fences are looked at in one call.
constexpr std::size_t batch = 32;

} // namespace

Record* VulkanAccessPool::take(const VulkanDriver& driver) {
    const std::scoped_lock held(lock_);
    if (idle_.empty())
        collect_locked(driver);
    if (idle_.empty()) {
        all_.push_back(std::make_unique<Record>());
        idle_.reserve(all_.size());
        in_flight_.reserve(all_.size());
        idle_.push_back(all_.back().get());
    }
    Record* record = idle_.back();
    idle_.pop_back();
    return record;
}

void VulkanAccessPool::give_back(const VulkanDriver& driver, Record* record) noexcept {
    record->let_go();
    const std::scoped_lock held(lock_);
    if (record->spoiled)
        record->fence = SyncFile::signalled(); // whatever it is, it tells nothing
    if (record->done.pending || record->hopped.pending || record->fence.fd() >= 0) {
        in_flight_.push_back(record);
    } else if (record->spoiled) {
        drop(driver, record); // whoever gave it up has waited for the queue
    } else {
        forget(*record);
        idle_.push_back(record);
    }
}

void VulkanAccessPool::collect(const VulkanDriver& driver) noexcept {
    const std::scoped_lock held(lock_);
    collect_locked(driver);
}

void VulkanAccessPool::collect_locked(const VulkanDriver& driver) noexcept {
    const std::size_t count = std::min(in_flight_.size(), batch);
    std::array<pollfd, batch> fences{};
    bool any = false;
    for (std::size_t i = 0; i < count; ++i) {
        fences[i] = {.fd = in_flight_[i]->fence.fd(), .events = POLLIN, .revents = 0};
        any = any || fences[i].fd >= 0;
    }
    if (any && sys::poll_now(std::span(fences).first(count)) < 0)
        return;
    std::size_t kept = 0;
    for (std::size_t i = 0; i < in_flight_.size(); ++i) {
        Record* record = in_flight_[i];
        const bool done = i < count && (fences[i].fd < 0 || (fences[i].revents & POLLIN) != 0) &&
                          !record->done_pending(driver);
        if (!done) {
            in_flight_[kept++] = record;
        } else if (record->spoiled) {
            drop(driver, record);
        } else {
            forget(*record);
            idle_.push_back(record);
        }
    }
    in_flight_.resize(kept);
}

void VulkanAccessPool::drop(const VulkanDriver& driver, const Record* record) noexcept {
    destroy(driver, *record);
    std::erase_if(all_, [record](const auto& each) { return each.get() == record; });
}

void VulkanAccessPool::clear(const VulkanDriver& driver, Deadline deadline) noexcept {
    const std::scoped_lock held(lock_);
    bool everything = true;
    for (Record* record : in_flight_) {
        // Destroying what the GPU still uses is undefined, and so would be waiting for ever for a
        // GPU that hangs: what it does not let go of in time is left as it is.
        const bool done = wait_for(driver, *record, deadline);
        everything = everything && done;
        if (done)
            destroy(driver, *record);
    }
    for (const Record* record : idle_)
        destroy(driver, *record);
    if (!everything)
        driver.abandon(); // before the attachments go that are kept
    all_.clear();
    idle_.clear();
    in_flight_.clear();
}

} // namespace sluice
