// SPDX-License-Identifier: MIT
#include "timelines.hpp"

#include <algorithm>
#include <thread>

#include "chain.hpp"

namespace sluice::layer {

void Timelines::created(VkSemaphore semaphore, const VkSemaphoreCreateInfo& info) {
    const auto* type = find_in<VkSemaphoreTypeCreateInfo>(
        info.pNext, VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO);
    if (type == nullptr || type->semaphoreType != VK_SEMAPHORE_TYPE_TIMELINE)
        return;
    const std::scoped_lock held(lock_);
    timelines_[semaphore] = {.number = ++last_timeline_, .submitted = type->initialValue};
    any_.store(true, std::memory_order_relaxed);
}

void Timelines::destroyed(VkSemaphore semaphore) {
    if (!any())
        return;
    {
        const std::scoped_lock held(lock_);
        if (timelines_.erase(semaphore) == 0)
            return;
    }
    while (asking_.load(std::memory_order_acquire) != 0)
        std::this_thread::yield();
}

void Timelines::signalled(const SemaphoreAt& at) {
    const std::scoped_lock held(lock_);
    if (const auto found = timelines_.find(at.semaphore); found != timelines_.end())
        found->second.submitted = std::max(found->second.submitted, at.value);
}

OpenWait Timelines::wait_of(const SemaphoreAt& at) const {
    const std::scoped_lock held(lock_);
    const auto found = timelines_.find(at.semaphore);
    return {.at = at, .timeline = found != timelines_.end() ? found->second.number : 0};
}

bool Timelines::is_on_its_way(const OpenWait& wait) const {
    {
        const std::scoped_lock held(lock_);
        const auto found = timelines_.find(wait.at.semaphore);
        if (found == timelines_.end() || found->second.number != wait.timeline ||
            found->second.submitted >= wait.at.value)
            return true;
        if (counter_value_ == nullptr)
            return false;
        asking_.fetch_add(1, std::memory_order_relaxed);
    }
    // Another process or device may signal one that is shared.
    std::uint64_t reached = 0;
    const bool asked = counter_value_(device_, wait.at.semaphore, &reached) == VK_SUCCESS;
    asking_.fetch_sub(1, std::memory_order_release);
    return asked && reached >= wait.at.value;
}

} // namespace sluice::layer
