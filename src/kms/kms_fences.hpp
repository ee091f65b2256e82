// SPDX-License-Identifier: MIT
/// \file
/// Fences that several share, whose memory goes round: a warm flip takes none from the heap. Not
/// installed.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include <sluice/sync_file.hpp>

namespace sluice {

/// Blocks of one size that were given back. Threads: any.
class KmsFenceRoom {
public:
    KmsFenceRoom() { idle_.reserve(most); }
    KmsFenceRoom(const KmsFenceRoom&) = delete;
    KmsFenceRoom& operator=(const KmsFenceRoom&) = delete;
    ~KmsFenceRoom() {
        for (void* each : idle_)
            ::operator delete(each);
    }

    [[nodiscard]] void* take(std::size_t size) {
        {
            const std::scoped_lock held(lock_);
            if (!idle_.empty()) {
                void* const block = idle_.back();
                idle_.pop_back();
                return block;
            }
        }
        return ::operator new(size);
    }
    void give(void* block) noexcept {
        {
            const std::scoped_lock held(lock_);
            if (idle_.size() < most) {
                idle_.push_back(block);
                return;
            }
        }
        ::operator delete(block);
    }

private:
    static constexpr std::size_t most = 64; // more than a card has flips and frames under way

    std::mutex lock_;
    std::vector<void*> idle_;
};

/// Gives std::allocate_shared the room, which lives as long as any of the fences. All that is
/// allocated with one room is of one type.
template <typename T> struct KmsFenceAllocator {
    using value_type = T;

    explicit KmsFenceAllocator(std::shared_ptr<KmsFenceRoom> from) noexcept
        : room(std::move(from)) {}
    template <typename U>
    explicit KmsFenceAllocator(const KmsFenceAllocator<U>& other) noexcept : room(other.room) {}

    [[nodiscard]] T* allocate(std::size_t count) {
        return static_cast<T*>(room->take(count * sizeof(T)));
    }
    void deallocate(T* block, std::size_t) noexcept { room->give(block); }

    template <typename U>
    [[nodiscard]] bool operator==(const KmsFenceAllocator<U>& other) const noexcept {
        return room == other.room;
    }

    std::shared_ptr<KmsFenceRoom> room;
};

/// \p fence for all who want it.
[[nodiscard]] inline std::shared_ptr<const SyncFile>
share(SyncFile&& fence, const std::shared_ptr<KmsFenceRoom>& room) {
    return std::allocate_shared<const SyncFile>(KmsFenceAllocator<SyncFile>(room),
                                                std::move(fence));
}

} // namespace sluice
