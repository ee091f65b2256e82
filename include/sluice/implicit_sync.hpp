// SPDX-License-Identifier: MIT
/// \file
/// The fences that a buffer carries from one use to the next, on kernels new and old.
///
/// Source: linux/dma-buf.h, "Implicit synchronization"; the ioctls came with kernel 6.0, and
/// vendors carry them back to older ones, so their presence is found by trying.
#pragma once

#include <optional>
#include <utility>

#include <sluice/access.hpp>
#include <sluice/deadline.hpp>
#include <sluice/dma_buf.hpp>
#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/sync_file.hpp>
#include <sluice/unique_fd.hpp>

namespace sluice {

/// What the running kernel does for implicit sync.
struct ImplicitSyncCaps {
    /// Fences come out of buffers. Without it `fence_before()` gives something to poll that no
    /// device can wait for, and failed work looks like finished work.
    bool export_fence = false;
    /// Fences go into buffers. Without it `fence_after()` waits on the CPU.
    bool import_fence = false;
};

/// The caps, found by trying on any \p buffer, once for each process: at most two calls.
/// Threads: any. \returns them, or `wrong_object`: the fd was closed behind our back.
[[nodiscard]] SLUICE_API Result<ImplicitSyncCaps> implicit_sync_caps(const DmaBuf& buffer) noexcept;

/// What to wait for before one access: a real fence where the kernel exports one, else the buffer
/// itself, to be polled.
///
/// Threads: the const functions may be called from several threads at once.
class SLUICE_API ImplicitFence {
public:
    /// The fence for devices to wait for, borrowed; null where the kernel exports none: wait on the
    /// CPU then, before the work is submitted.
    [[nodiscard]] const SyncFile* sync_file() const noexcept { return fence_ ? &*fence_ : nullptr; }

    /// The same, handed out. Only where `sync_file()` is not null.
    [[nodiscard]] SyncFile take() && noexcept { return std::move(*fence_); }

    /// What to poll in the caller's event loop, and for which event; still owned here. Where there
    /// is no `sync_file()` fences that others leave meanwhile are waited for as well.
    [[nodiscard]] int fd() const noexcept { return fence_ ? fence_->fd() : buffer_->fd(); }
    [[nodiscard]] short poll_events() const noexcept;

    /// Waits on the CPU until \p deadline at most.
    /// \returns as `SyncFile::wait`, or as `DmaBuf::wait` where there is no `sync_file()`.
    [[nodiscard]] Result<void> wait(Deadline deadline) const noexcept;

private:
    friend SLUICE_API Result<ImplicitFence> fence_before(const DmaBuf&, Access) noexcept;
    explicit ImplicitFence(SyncFile&& fence) noexcept : fence_(std::move(fence)) {}
    ImplicitFence(DmaBuf&& buffer, Access access) noexcept
        : buffer_(std::move(buffer)), access_(access) {}

    std::optional<SyncFile> fence_; // either this
    std::optional<DmaBuf> buffer_;  // or our own duplicate
    Access access_ = Access::read_write;
};

/// What \p access to \p buffer has to wait for: `DmaBuf::export_fence`, with the way around for
/// kernels that cannot. Threads: any; see `BufferLock`.
/// \returns it, or as `DmaBuf::export_fence`, but never `unsupported`.
[[nodiscard]] SLUICE_API Result<ImplicitFence> fence_before(const DmaBuf& buffer,
                                                            Access access) noexcept;

/// Hands \p buffer over once the work behind \p fence is submitted: `DmaBuf::import_fence`, or a
/// wait on the CPU for \p fence, until \p deadline at most, on kernels that cannot take it. Those
/// tell of a fence that has failed; where the kernel takes it, one that has failed already is left
/// as nothing (see `DmaBuf::import_fence`).
/// Threads: any; see `BufferLock`.
/// \returns nothing: whoever comes next is safe; or as `DmaBuf::import_fence`, but never
///   `unsupported`, and as `SyncFile::wait` (`fence_failed`, `timed_out`) where it had to wait:
///   then do not hand the buffer over.
[[nodiscard]] SLUICE_API Result<void> fence_after(const DmaBuf& buffer, const SyncFile& fence,
                                                  Access access, Deadline deadline) noexcept;

} // namespace sluice
