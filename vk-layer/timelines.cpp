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
}

void Timelines::signalled(VkSemaphore semaphore, std::uint64_t value) {
    const std::scoped_lock held(lock_);
    if (const auto found = submitted_.find(semaphore); found != submitted_.end())
        found->second = std::max(found->second, value);
}

bool Timelines::is_on_its_way(const TimelineWait& wait) const {
    {
        const std::scoped_lock held(lock_);
        const auto found = submitted_.find(wait.semaphore);
        if (found == submitted_.end() || found->second >= wait.value)
            return true;
    }
    // Another process may signal one that is shared.
    std::uint64_t reached = 0;
    return counter_value_ != nullptr &&
           counter_value_(device_, wait.semaphore, &reached) == VK_SUCCESS && reached >= wait.value;
}

} // namespace sluice::layer
