// SPDX-License-Identifier: MIT
#include "recorder.hpp"

#include <algorithm>
#include <mutex>

namespace sluice::layer {

namespace {

// Of both VkAccessFlags and VkAccessFlags2, whose lower half is the former.
constexpr VkAccessFlags2 read_bits =
    VK_ACCESS_2_INDIRECT_COMMAND_READ_BIT | VK_ACCESS_2_INDEX_READ_BIT |
    VK_ACCESS_2_VERTEX_ATTRIBUTE_READ_BIT | VK_ACCESS_2_UNIFORM_READ_BIT |
    VK_ACCESS_2_INPUT_ATTACHMENT_READ_BIT | VK_ACCESS_2_SHADER_READ_BIT |
    VK_ACCESS_2_COLOR_ATTACHMENT_READ_BIT | VK_ACCESS_2_DEPTH_STENCIL_ATTACHMENT_READ_BIT |
    VK_ACCESS_2_TRANSFER_READ_BIT | VK_ACCESS_2_HOST_READ_BIT | VK_ACCESS_2_MEMORY_READ_BIT |
    VK_ACCESS_2_SHADER_SAMPLED_READ_BIT | VK_ACCESS_2_SHADER_STORAGE_READ_BIT |
    VK_ACCESS_2_TRANSFORM_FEEDBACK_COUNTER_READ_BIT_EXT |
    VK_ACCESS_2_CONDITIONAL_RENDERING_READ_BIT_EXT | VK_ACCESS_2_COMMAND_PREPROCESS_READ_BIT_NV |
    VK_ACCESS_2_FRAGMENT_SHADING_RATE_ATTACHMENT_READ_BIT_KHR |
    VK_ACCESS_2_ACCELERATION_STRUCTURE_READ_BIT_KHR |
    VK_ACCESS_2_FRAGMENT_DENSITY_MAP_READ_BIT_EXT |
    VK_ACCESS_2_COLOR_ATTACHMENT_READ_NONCOHERENT_BIT_EXT |
    VK_ACCESS_2_INVOCATION_MASK_READ_BIT_HUAWEI;

/// What is not known to read may write: other extensions' accesses, and none at all, where an
/// earlier barrier has said it.
Access access_of(VkAccessFlags2 mask) noexcept {
    return mask == 0 || (mask & ~read_bits) != 0 ? Access::write : Access::read;
}

} // namespace

void Recorder::allocated(VkCommandPool pool, std::span<const VkCommandBuffer> all) {
    const std::scoped_lock held(lock_);
    for (VkCommandBuffer each : all) {
        auto& recording = recordings_[each];
        recording = std::make_unique<Recording>();
        recording->pool = pool;
    }
}

void Recorder::freed(std::span<const VkCommandBuffer> all) {
    const std::scoped_lock held(lock_);
    for (VkCommandBuffer each : all)
        recordings_.erase(each);
}

void Recorder::pool_destroyed(VkCommandPool pool) {
    const std::scoped_lock held(lock_);
    std::erase_if(recordings_, [=](const auto& each) { return each.second->pool == pool; });
}

void Recorder::pool_reset(VkCommandPool pool) {
    if (!any_.load(std::memory_order_relaxed))
        return;
    const std::shared_lock held(lock_);
    for (const auto& [commands, recording] : recordings_)
        if (recording->pool == pool)
            recording->uses.clear();
}

Recorder::Recording* Recorder::find(VkCommandBuffer commands) const {
    const std::shared_lock held(lock_);
    const auto found = recordings_.find(commands);
    return found != recordings_.end() ? found->second.get() : nullptr;
}

void Recorder::reset(VkCommandBuffer commands) {
    if (!any_.load(std::memory_order_relaxed))
        return;
    if (Recording* recording = find(commands))
        recording->uses.clear();
}

template <typename Barrier>
void Recorder::barrier(VkCommandBuffer commands, const Barrier& barrier, const Behind& behind) {
    const bool from = is_outside(barrier.srcQueueFamilyIndex);
    const bool to = is_outside(barrier.dstQueueFamilyIndex);
    if (from == to)
        return;
    Recording* recording = nullptr;
    for (const SharedMemoryPtr& memory : behind.memories) {
        if (!memory)
            break;
        if (recording == nullptr)
            recording = find(commands);
        if (recording == nullptr)
            return;
        recording->uses.push_back(
            {.memory = memory,
             .access = access_of(from ? barrier.dstAccessMask : barrier.srcAccessMask),
             .acquires = from,
             .releases = to});
        memory->has_barriers.store(true, std::memory_order_relaxed);
        any_.store(true, std::memory_order_relaxed);
    }
}

void Recorder::barriers(const Tracker& tracker, VkCommandBuffer commands,
                        std::span<const VkImageMemoryBarrier> images,
                        std::span<const VkBufferMemoryBarrier> buffers) {
    for (const auto& each : images)
        if (each.srcQueueFamilyIndex != each.dstQueueFamilyIndex)
            barrier(commands, each, tracker.behind(each.image));
    for (const auto& each : buffers)
        if (each.srcQueueFamilyIndex != each.dstQueueFamilyIndex)
            barrier(commands, each, tracker.behind(each.buffer));
}

void Recorder::barriers(const Tracker& tracker, VkCommandBuffer commands,
                        const VkDependencyInfo& info) {
    for (const auto& each : std::span(info.pImageMemoryBarriers, info.imageMemoryBarrierCount))
        if (each.srcQueueFamilyIndex != each.dstQueueFamilyIndex)
            barrier(commands, each, tracker.behind(each.image));
    for (const auto& each : std::span(info.pBufferMemoryBarriers, info.bufferMemoryBarrierCount))
        if (each.srcQueueFamilyIndex != each.dstQueueFamilyIndex)
            barrier(commands, each, tracker.behind(each.buffer));
}

void Recorder::executes(VkCommandBuffer primary, std::span<const VkCommandBuffer> others) {
    if (!any_.load(std::memory_order_relaxed))
        return;
    Recording* into = find(primary);
    for (VkCommandBuffer each : others)
        if (const Recording* from = find(each); from != nullptr && into != nullptr)
            into->uses.insert(into->uses.end(), from->uses.begin(), from->uses.end());
}

} // namespace sluice::layer
