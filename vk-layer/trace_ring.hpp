// SPDX-License-Identifier: MIT
/// \file
/// A queue of fixed length between the threads that submit and the one that writes. Not installed.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace sluice::layer {

/// Who pushes neither waits, allocates nor calls the kernel: where there is no room, it is told so.
///
/// Threads: any may push; one at a time pops.
template <typename T> class TraceRing {
public:
    /// For \p length values, rounded up to a power of two.
    explicit TraceRing(std::size_t length) : slots_(std::bit_ceil(length)) {
        for (std::size_t i = 0; i < slots_.size(); ++i)
            slots_[i].turn.store(i, std::memory_order_relaxed);
    }

    /// \returns whether there was room; \p value is moved from only then.
    [[nodiscard]] bool push(T& value) noexcept {
        std::size_t at = tail_.load(std::memory_order_relaxed);
        for (;;) {
            Slot& slot = slots_[at & (slots_.size() - 1)];
            const std::size_t turn = slot.turn.load(std::memory_order_acquire);
            if (turn == at) {
                if (!tail_.compare_exchange_weak(at, at + 1, std::memory_order_relaxed))
                    continue;
                slot.value = std::move(value);
                slot.turn.store(at + 1, std::memory_order_release);
                return true;
            }
            if (static_cast<std::ptrdiff_t>(turn - at) < 0)
                return false; // what stood there one round ago has not been popped
            at = tail_.load(std::memory_order_relaxed);
        }
    }

    /// The oldest into \p value. \returns whether there was one.
    [[nodiscard]] bool pop(T& value) noexcept {
        Slot& slot = slots_[head_ & (slots_.size() - 1)];
        if (slot.turn.load(std::memory_order_acquire) != head_ + 1)
            return false;
        value = std::move(slot.value);
        slot.turn.store(head_ + slots_.size(), std::memory_order_release);
        ++head_;
        return true;
    }

private:
    struct Slot {
        /// The push that may fill it; one more than that once it is full.
        std::atomic<std::size_t> turn = 0;
        T value;
    };

    std::vector<Slot> slots_;
    alignas(64) std::atomic<std::size_t> tail_ = 0;
    alignas(64) std::size_t head_ = 0;
};

} // namespace sluice::layer
