// SPDX-License-Identifier: MIT
#include "tracker.hpp"

#include <algorithm>
#include <mutex>
#include <utility>

#include "chain.hpp"

namespace sluice::layer {

void Behind::add(const SharedMemoryPtr& memory) {
    for (SharedMemoryPtr& each : memories) {
        if (each == memory)
            return;
        if (!each) {
            each = memory;
            return;
        }
    }
}

namespace {

/// What is behind \p fd, by a duplicate.
std::optional<DmaBuf> buffer_of(int fd, Report& report) {
    auto buffer = DmaBuf::from_borrowed_fd(fd);
    if (buffer)
        return std::move(*buffer);
    if (buffer.error().code != Errc::wrong_object) // that one is between application and driver
        report.once(Trouble::not_tracked, buffer.error());
    return std::nullopt;
}

} // namespace

std::optional<DmaBuf> Tracker::imported_by(const VkMemoryAllocateInfo& info, Report& report) {
    const auto* import =
        find_in<VkImportMemoryFdInfoKHR>(info.pNext, VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR);
    if (import == nullptr || import->handleType != VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT ||
        import->fd < 0)
        return std::nullopt;
    return buffer_of(import->fd, report);
}

bool Tracker::exportable(const VkMemoryAllocateInfo& info) noexcept {
    const auto* as = find_in<VkExportMemoryAllocateInfo>(
        info.pNext, VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO);
    return as != nullptr && (as->handleTypes & VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT) != 0;
}

void Tracker::allocated(VkDeviceMemory memory, std::optional<DmaBuf>&& imported) {
    auto shared = imported ? std::make_shared<SharedMemory>(std::move(*imported))
                           : std::make_shared<SharedMemory>();
    const std::scoped_lock held(lock_);
    // One buffer is one, however often it is imported.
    if (const DmaBuf* buffer = shared->buffer(); buffer != nullptr)
        for (const auto& [handle, other] : memories_)
            if (other->buffer() != nullptr && same_buffer(*other->buffer(), *buffer)) {
                shared = other;
                break;
            }
    forget(memory); // which should not be there
    ++shared->handles;
    memories_.emplace(number(memory), std::move(shared));
    active_.store(memories_.size(), std::memory_order_relaxed);
}

void Tracker::exported(VkDeviceMemory memory, int fd, Report& report) {
    {
        const std::shared_lock held(lock_);
        const auto found = memories_.find(number(memory));
        if (found == memories_.end() || found->second->buffer() != nullptr)
            return;
    }
    auto buffer = buffer_of(fd, report); // not under the lock
    const std::scoped_lock held(lock_);
    const auto found = memories_.find(number(memory));
    if (buffer && found != memories_.end() && found->second->buffer() == nullptr)
        found->second->come_to_be(std::move(*buffer));
}

void Tracker::forget(VkDeviceMemory memory) {
    if (const auto found = memories_.find(number(memory)); found != memories_.end()) {
        --found->second->handles;
        memories_.erase(found);
    }
}

void Tracker::freed(VkDeviceMemory memory) {
    if (!active())
        return;
    const std::scoped_lock held(lock_);
    forget(memory);
    active_.store(memories_.size(), std::memory_order_relaxed);
}

SharedMemoryPtr Tracker::memory_of(VkDeviceMemory memory) const {
    if (!active())
        return nullptr;
    const std::shared_lock held(lock_);
    const auto found = memories_.find(number(memory));
    return found != memories_.end() ? found->second : nullptr;
}

void Tracker::bound(Number resource, VkDeviceMemory memory, Resources& all) {
    if (!active())
        return;
    const std::scoped_lock held(lock_);
    if (const auto found = memories_.find(number(memory)); found != memories_.end())
        all[resource].add(found->second);
    any_bound_.store(true, std::memory_order_relaxed);
}

void Tracker::destroyed(Number resource, Resources& all) {
    if (!any_bound_.load(std::memory_order_relaxed))
        return;
    const std::scoped_lock held(lock_);
    all.erase(resource);
}

Behind Tracker::find(Number resource, const Resources& all) const {
    const std::shared_lock held(lock_);
    const auto found = all.find(resource);
    return found != all.end() ? found->second : Behind();
}

} // namespace sluice::layer
