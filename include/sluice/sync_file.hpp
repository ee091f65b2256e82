// SPDX-License-Identifier: MIT
/// \file
/// The kernel's sync_file: a fence that is handed from one device to the next.
///
/// Sources: linux/sync_file.h and the kernel's "Sync File API Guide".
#pragma once

#include <cstdint>
#include <utility>

#include <sluice/deadline.hpp>
#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/unique_fd.hpp>

namespace sluice {

/// Where a fence stands.
enum class FenceState : std::uint8_t {
    pending,   ///< The work is still to be done.
    signalled, ///< The work is done.
    failed,    ///< The work ended with an error: what it should have written is not valid.
};

/// A fence's state and, where it failed, the errno that its driver gave (positive, otherwise 0).
struct FenceStatus {
    FenceState state = FenceState::pending;
    int error = 0;
};

/// One fence, owned through one fd. It signals once and stays so.
///
/// Threads: the const functions may be called from several threads at once.
class SLUICE_API SyncFile {
public:
    /// Adopts a sync_file's fd, checked by asking it for its state (SYNC_IOC_FILE_INFO).
    /// \param fd taken over on success; on failure it stays the caller's.
    /// \returns the fence, or `wrong_object`: no fd, a closed one, or not a sync_file.
    [[nodiscard]] static Result<SyncFile> from_fd(UniqueFd&& fd) noexcept;

    /// A fence that has signalled already and needs no fd: its `fd()` is -1, which is how Vulkan
    /// (VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT) spells the same, and what KMS takes as
    /// "no fence" in IN_FENCE_FD.
    [[nodiscard]] static SyncFile signalled() noexcept { return SyncFile(UniqueFd()); }

    /// The fd, still owned here, readable (POLLIN) once the fence has signalled or failed; -1 for
    /// one that `signalled()` made.
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }

    /// A second owner of the same fence, with its own fd.
    /// \returns also `no_resources` where no further fd can be opened.
    [[nodiscard]] Result<SyncFile> duplicate() const noexcept;

    /// Where the fence stands now; never waits.
    /// \returns the status, or `wrong_object`: the fd was closed behind our back.
    [[nodiscard]] Result<FenceStatus> status() const noexcept;

    /// Waits on the CPU until the fence has signalled, until \p deadline at most.
    /// \returns nothing once it has, or
    ///   - `timed_out`: still pending at the deadline;
    ///   - `fence_failed`: the work ended with an error, in `Error::sys_errno`. The kernel reports
    ///     such a fence as ready; it is never success here;
    ///   - `wrong_object`: the fd was closed behind our back.
    [[nodiscard]] Result<void> wait(Deadline deadline) const noexcept;

private:
    friend struct SyncFileAdopt;
    explicit SyncFile(UniqueFd&& fd) noexcept : fd_(std::move(fd)) {}

    UniqueFd fd_;
};

} // namespace sluice
