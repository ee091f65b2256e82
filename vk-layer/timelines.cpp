// SPDX-License-Identifier: MIT
#include "timelines.hpp"

#include <algorithm>

#include "chain.hpp"

namespace sluice::layer {

void Timelines::created(VkSemaphore semaphore, const VkSemaphoreCreateInfo& info) {
    const auto* type = find_in<VkSemaphoreTypeCreateInfo>(
        info.pNext, VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO);
    if (type == nullptr || type->semaphoreType != VK_SEMAPHORE_TYPE_TIMELINE)
        return;
    const std::scoped_lock held(lock_);
    submitted_[semaphore] = type->initialValue;
    any_.store(true, std::memory_order_relaxed);
}

void Timelines::destroyed(VkSemaphore semaphore) {
    if (!any())
        return;
    const std::scoped_lock held(lock_);
    submitted_.erase(semaphore);
    behind_.erase(semaphore);
}

void Timelines::signalled(const SemaphoreAt& at) {
    const std::scoped_lock held(lock_);
    if (const auto found = submitted_.find(at.semaphore); found != submitted_.end())
        found->second = std::max(found->second, at.value);
    else if (!behind_.empty())
        behind_.erase(at.semaphore);
}

void Timelines::signalled_behind(const SemaphoreAt& at, std::uint64_t behind) {
    const std::scoped_lock held(lock_);
    if (!submitted_.contains(at.semaphore))
        behind_[at.semaphore] = behind;
}

std::uint64_t Timelines::new_behind() {
    const std::scoped_lock held(lock_);
    unresolved_.insert(++last_behind_);
    return last_behind_;
}

void Timelines::resolved(std::uint64_t behind) {
    const std::scoped_lock held(lock_);
    unresolved_.erase(behind);
}

OpenWait Timelines::wait_of(const SemaphoreAt& at) const {
    const std::scoped_lock held(lock_);
    const auto found = behind_.find(at.semaphore);
    return {.at = at, .behind = found != behind_.end() ? found->second : 0};
}

bool Timelines::is_on_its_way(const OpenWait& wait) const {
    {
        const std::scoped_lock held(lock_);
        if (wait.behind != 0)
            return !unresolved_.contains(wait.behind);
        const auto found = submitted_.find(wait.at.semaphore);
        if (found == submitted_.end() || found->second >= wait.at.value)
            return true;
    }
    // Another process may signal one that is shared.
    std::uint64_t reached = 0;
    return counter_value_ != nullptr &&
           counter_value_(device_, wait.at.semaphore, &reached) == VK_SUCCESS &&
           reached >= wait.at.value;
}

} // namespace sluice::layer
