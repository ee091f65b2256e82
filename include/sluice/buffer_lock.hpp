// SPDX-License-Identifier: MIT
/// \file
/// Keeps two threads of this process from using a buffer's fences past each other.
///
/// Source: the kernel's "Buffer Sharing and Synchronization (dma-buf)": export and import of
/// sync_files are two calls, and whoever exports between another's two misses that one's work.
#pragma once

#include <cstdint>
#include <span>

#include <sluice/deadline.hpp>
#include <sluice/dma_buf.hpp>
#include <sluice/error.hpp>
#include <sluice/export.hpp>

namespace sluice {

/// Holds buffers, by their identity and not by their fds, while their fences are exported, work
/// that waits for them is submitted, and that work's own fence is imported. Other processes are not
/// held off; neither is work, which runs on after the lock is gone.
///
/// All buffers of a lock are taken at once, so no order of them can deadlock. A thread must not
/// take a second lock on a buffer it holds; that is refused, not waited for.
///
/// Whoever waits is served in the order of arrival: a request passes an earlier one that waits only
/// where they want no buffer in common. A thread that holds a lock already passes all, or those who
/// wait for it would hold it up.
///
/// Threads: `acquire` from any; one object belongs to one thread at a time. A lock may be moved to
/// another thread, which may release it; it goes on counting as the one's that took it.
class SLUICE_API BufferLock {
public:
    /// Waits until \p deadline at most while other threads hold any of \p buffers. Uncontended it
    /// makes no system call. \param buffers borrowed; one buffer may be among them twice.
    /// \returns the lock, or
    ///   - `timed_out`: another thread has held one of them all the time; none is held;
    ///   - `busy`: this thread holds one of them already;
    ///   - `wrong_object`: one of them was moved from.
    [[nodiscard]] static Result<BufferLock> acquire(std::span<const DmaBuf* const> buffers,
                                                    Deadline deadline) noexcept;

    /// The same for buffers that lie one after the other, as a frame's (`Frame::buffers`).
    [[nodiscard]] static Result<BufferLock> acquire(std::span<const DmaBuf> buffers,
                                                    Deadline deadline) noexcept;

    /// The same for one.
    [[nodiscard]] static Result<BufferLock> acquire(const DmaBuf& buffer,
                                                    Deadline deadline) noexcept;

    /// Lets the buffers go before the object does.
    void release() noexcept;

    BufferLock(BufferLock&& other) noexcept : holder_(other.holder_) { other.holder_ = 0; }
    BufferLock& operator=(BufferLock&& other) noexcept {
        if (this != &other) {
            release();
            holder_ = other.holder_;
            other.holder_ = 0;
        }
        return *this;
    }
    BufferLock(const BufferLock&) = delete;
    BufferLock& operator=(const BufferLock&) = delete;
    ~BufferLock() { release(); }

private:
    explicit BufferLock(std::uint64_t holder) noexcept : holder_(holder) {}

    std::uint64_t holder_; // 0 holds nothing
};

} // namespace sluice
