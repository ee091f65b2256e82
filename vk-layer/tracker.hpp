// SPDX-License-Identifier: MIT
/// \file
/// Which dma-bufs a device's memory is, and which images and buffers lie in it.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include <vulkan/vulkan.h>

#include <sluice/dma_buf.hpp>

#include "report.hpp"

namespace sluice::layer {

/// Memory that is a dma-buf, or that may be exported as one later.
class SharedMemory {
public:
    SharedMemory() = default;
    explicit SharedMemory(DmaBuf&& imported) { come_to_be(std::move(imported)); }

    /// The dma-buf, by a duplicate of our own; null for as long as nobody has exported it.
    [[nodiscard]] const DmaBuf* buffer() const noexcept {
        return known_.load(std::memory_order_acquire) ? &*buffer_ : nullptr;
    }
    /// Once only; the caller sees to that.
    void come_to_be(DmaBuf&& buffer) noexcept {
        buffer_.emplace(std::move(buffer));
        known_.store(true, std::memory_order_release);
    }

    /// Whether the application has ever recorded a barrier that takes it from others or hands it
    /// over, so that it knows what it does.
    std::atomic<bool> has_barriers = false;

    /// As how many VkDeviceMemory it is tracked; the tracker's, under its lock.
    std::size_t handles = 0;

private:
    std::optional<DmaBuf> buffer_;
    std::atomic<bool> known_ = false;
};

using SharedMemoryPtr = std::shared_ptr<SharedMemory>;

/// What of it lies behind one image or buffer: one for each memory plane at most.
struct Behind {
    std::array<SharedMemoryPtr, 4> memories;

    void add(const SharedMemoryPtr& memory);
};

/// Threads: any.
class Tracker {
public:
    /// False where there is nothing to do for anybody. Cheap.
    [[nodiscard]] bool active() const noexcept {
        return active_.load(std::memory_order_relaxed) != 0;
    }

    /// What \p info imports, before the driver takes the fd; nothing where that is no dma-buf.
    /// One that cannot be had is told to \p report.
    [[nodiscard]] static std::optional<DmaBuf> imported_by(const VkMemoryAllocateInfo& info,
                                                           Report& report);
    /// Whether \p info allows the memory to be exported as a dma-buf.
    [[nodiscard]] static bool exportable(const VkMemoryAllocateInfo& info) noexcept;

    void allocated(VkDeviceMemory memory, std::optional<DmaBuf>&& imported);
    /// \p fd of it has been given out, as a dma-buf; borrowed.
    void exported(VkDeviceMemory memory, int fd, Report& report);
    /// Before the driver frees it: its number may be another's right after.
    void freed(VkDeviceMemory memory);

    void bound(VkImage image, VkDeviceMemory memory) { bound(number(image), memory, images_); }
    void bound(VkBuffer buffer, VkDeviceMemory memory) { bound(number(buffer), memory, buffers_); }
    void destroyed(VkImage image) { destroyed(number(image), images_); }
    void destroyed(VkBuffer buffer) { destroyed(number(buffer), buffers_); }

    [[nodiscard]] Behind behind(VkImage image) const { return find(number(image), images_); }
    [[nodiscard]] Behind behind(VkBuffer buffer) const { return find(number(buffer), buffers_); }

    /// What is known of \p memory; null where it is not shared.
    [[nodiscard]] SharedMemoryPtr memory_of(VkDeviceMemory memory) const;

    /// Calls \p with with each memory that is a dma-buf by now, and with whether it comes this once
    /// only. No lock of ours may be taken there.
    template <typename With> void for_each(With with) const {
        const std::shared_lock held(lock_);
        for (const auto& [handle, memory] : memories_)
            if (memory->buffer() != nullptr)
                with(memory, memory->handles == 1);
    }

private:
    using Number = std::uint64_t;
    using Resources = std::unordered_map<Number, Behind>;

    template <typename Handle> static Number number(Handle handle) noexcept {
        if constexpr (std::is_pointer_v<Handle>) // as the platform has it
            return reinterpret_cast<std::uintptr_t>(handle);
        else
            return handle;
    }
    void forget(VkDeviceMemory memory); // under the lock
    void bound(Number resource, VkDeviceMemory memory, Resources& all);
    void destroyed(Number resource, Resources& all);
    Behind find(Number resource, const Resources& all) const;

    std::atomic<std::size_t> active_ = 0; // as many as there are memories
    std::atomic<bool> any_bound_ = false; // some image or buffer has been
    mutable std::shared_mutex lock_;
    std::unordered_map<Number, SharedMemoryPtr> memories_;
    Resources images_, buffers_;
};

} // namespace sluice::layer
