// SPDX-License-Identifier: MIT
/// \file
/// What command buffers take from others and hand over: their barriers from and to queue families
/// outside of the device.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include <vulkan/vulkan.h>

#include <sluice/access.hpp>

#include "tracker.hpp"

namespace sluice::layer {

/// Whether a queue \p family is outside of the device.
[[nodiscard]] constexpr bool is_outside(std::uint32_t family) noexcept {
    return family == VK_QUEUE_FAMILY_FOREIGN_EXT || family == VK_QUEUE_FAMILY_EXTERNAL;
}

/// How commands use memory that is shared.
struct Use {
    std::weak_ptr<SharedMemory> memory; // which goes when the application frees it
    Access access = Access::read;
    bool acquires = false; // it waits for who used it before
    bool releases = false; // it leaves its fence for who comes next
};

/// Threads: any, as far as Vulkan allows them on one command buffer or pool.
class Recorder {
public:
    void allocated(VkCommandPool pool, std::span<const VkCommandBuffer> all);
    void freed(std::span<const VkCommandBuffer> all);
    void pool_destroyed(VkCommandPool pool);
    void pool_reset(VkCommandPool pool);
    /// It begins anew.
    void reset(VkCommandBuffer commands);

    void barriers(const Tracker& tracker, VkCommandBuffer commands,
                  std::span<const VkImageMemoryBarrier> images,
                  std::span<const VkBufferMemoryBarrier> buffers);
    void barriers(const Tracker& tracker, VkCommandBuffer commands, const VkDependencyInfo& info);
    /// \p primary executes \p others, as they are recorded now.
    void executes(VkCommandBuffer primary, std::span<const VkCommandBuffer> others);

    /// Calls \p with with each use of \p commands.
    template <typename With> void for_each_use(VkCommandBuffer commands, With with) const {
        if (!any_.load(std::memory_order_relaxed))
            return;
        const std::shared_lock held(lock_);
        if (const auto found = recordings_.find(commands); found != recordings_.end())
            for (const Use& each : found->second->uses)
                with(each);
    }

private:
    struct Recording {
        VkCommandPool pool = VK_NULL_HANDLE;
        std::vector<Use> uses;
    };

    [[nodiscard]] Recording* find(VkCommandBuffer commands) const;
    template <typename Barrier>
    void barrier(VkCommandBuffer commands, const Barrier& barrier, const Behind& behind);

    std::atomic<bool> any_ = false; // some recording has had a use
    mutable std::shared_mutex lock_;
    std::unordered_map<VkCommandBuffer, std::unique_ptr<Recording>> recordings_;
};

} // namespace sluice::layer
