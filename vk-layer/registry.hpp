// SPDX-License-Identifier: MIT
/// \file
/// Which of the layer's objects belongs to a handle, found without a lock.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

namespace sluice::layer {

/// Objects by a pointer that names each: few, looked up at every call and seldom added.
///
/// Threads: any. An object may be removed only when nobody uses it any more, which Vulkan asks of
/// whoever destroys the handle.
template <typename T> class Registry {
public:
    /// \returns the object, or null.
    [[nodiscard]] T* find(const void* key) const noexcept {
        for (std::size_t i = start(key), probed = 0; probed < slots;
             ++probed, i = (i + 1) % slots) {
            const void* const found = slots_[i].key.load(std::memory_order_acquire);
            if (found == key)
                return slots_[i].object.get();
            if (found == nullptr)
                return nullptr;
        }
        return nullptr;
    }

    /// \returns it, or null where there are too many.
    T* add(const void* key, std::unique_ptr<T> object) {
        const std::scoped_lock held(lock_);
        for (std::size_t i = start(key), probed = 0; probed < slots;
             ++probed, i = (i + 1) % slots) {
            Slot& slot = slots_[i];
            const void* const found = slot.key.load(std::memory_order_relaxed);
            if (found != nullptr && found != &removed_)
                continue;
            slot.object = std::move(object);
            slot.key.store(key, std::memory_order_release);
            return slot.object.get();
        }
        return nullptr;
    }

    /// \returns what was there, or null.
    std::unique_ptr<T> remove(const void* key) {
        const std::scoped_lock held(lock_);
        for (Slot& slot : slots_)
            if (slot.key.load(std::memory_order_relaxed) == key) {
                slot.key.store(&removed_, std::memory_order_release);
                return std::move(slot.object);
            }
        return nullptr;
    }

private:
    struct Slot {
        std::atomic<const void*> key = nullptr;
        std::unique_ptr<T> object;
    };
    static constexpr std::size_t slots = 256;

    static std::size_t start(const void* key) noexcept {
        return (reinterpret_cast<std::uintptr_t>(key) >> 4U) * 2654435761U % slots;
    }

    std::mutex lock_;
    std::array<Slot, slots> slots_;
    static constexpr char removed_ = 0; // its address stands where something was
};

/// What all dispatchable objects of one instance, or of one device, have in common.
template <typename Handle> [[nodiscard]] const void* key_of(Handle dispatchable) noexcept {
    return *reinterpret_cast<const void* const*>(dispatchable);
}

} // namespace sluice::layer
