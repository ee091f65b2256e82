// SPDX-License-Identifier: MIT
/// \file
/// The kernel's sync_file: a fence that is handed from one device to the next.
///
/// Sources: linux/sync_file.h and the kernel's "Sync File API Guide".
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

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

/// One of the kernel's fences inside a sync_file: struct sync_fence_info.
struct FenceInfo {
    std::string driver;   ///< Who signals it: "virtio_gpu"; at most 31 bytes.
    std::string timeline; ///< Which of its queues: "sdma0"; at most 31 bytes.
    FenceStatus status;
    Deadline signalled_at; ///< When it signalled or failed; meaningless while pending.
};

/// One fence, owned through one fd. It signals once and stays so.
///
/// Threads: the const functions may be called from several threads at once.
///
/// One that was moved from is no fence, and says `wrong_object` to everything; see `valid()`.
class SLUICE_API SyncFile {
public:
    /// Adopts a sync_file's fd, checked by asking it for its state (SYNC_IOC_FILE_INFO). Safe on
    /// any fd, also one from a stranger: a file is refused before its filesystem is asked anything.
    /// \param fd taken over on success; on failure it stays the caller's.
    /// \returns the fence, or `wrong_object`: no fd, a closed one, or not a sync_file.
    [[nodiscard]] static Result<SyncFile> from_fd(UniqueFd&& fd) noexcept;

    /// A fence that has signalled already and needs no fd: its `fd()` is -1, which is how Vulkan
    /// (VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT) spells the same, and what KMS takes as
    /// "no fence" in IN_FENCE_FD.
    [[nodiscard]] static SyncFile signalled() noexcept {
        SyncFile fence{UniqueFd()};
        fence.signalled_ = true;
        return fence;
    }

    /// One fence that signals once all of \p fences have (SYNC_IOC_MERGE). Those that have
    /// signalled are left out, and so are earlier fences of a timeline whose later one is there;
    /// where nothing is left the result is `signalled()`. Costs a call for each fence and one for
    /// each merge of two.
    ///
    /// The kernel forgets a failure that it merges, so a fence that has failed by now is refused; a
    /// failure after that is the result's own.
    /// \param fences borrowed. \returns the merged fence, or
    ///   - `fence_failed`: one of them has failed, with its errno in `Error::sys_errno`;
    ///   - `no_resources`: no further fd can be opened, or no memory;
    ///   - `wrong_object`: a fd was closed behind our back, or a fence was moved from.
    [[nodiscard]] static Result<SyncFile> merge(std::span<const SyncFile> fences) noexcept;

    /// The same for two.
    [[nodiscard]] static Result<SyncFile> merge(const SyncFile& a, const SyncFile& b) noexcept;

    /// The fd, still owned here, readable (POLLIN) once the fence has signalled or failed; -1 for
    /// one that `signalled()` made, and once moved from.
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }

    /// False once moved from. Whoever takes `fd()` to an API to which -1 says "signalled" asks this
    /// first.
    [[nodiscard]] bool valid() const noexcept { return signalled_ || fd_; }

    /// A second owner of the same fence, with its own fd.
    /// \returns also `no_resources` where no further fd can be opened.
    [[nodiscard]] Result<SyncFile> duplicate() const noexcept;

    /// Where the fence stands now; never waits. A merged one is pending until all of its fences are
    /// done, and has failed where one of them has.
    /// \returns the status, or `wrong_object`: the fd was closed behind our back.
    [[nodiscard]] Result<FenceStatus> status() const noexcept;

    /// The kernel's fences inside this one, for people who look for the one that hangs: one, or
    /// those that were merged. None for `signalled()`.
    /// \returns them, or `wrong_object`: the fd was closed behind our back.
    [[nodiscard]] Result<std::vector<FenceInfo>> fences() const noexcept;

    /// Waits on the CPU until the fence has signalled, until \p deadline at most.
    /// \returns nothing once it has, or
    ///   - `timed_out`: still pending at the deadline;
    ///   - `fence_failed`: the work ended with an error, in `Error::sys_errno`. The kernel reports
    ///     such a fence as ready; it is never success here;
    ///   - `wrong_object`: the fd was closed behind our back.
    [[nodiscard]] Result<void> wait(Deadline deadline) const noexcept;

    /// Tells the driver when the fence is needed, so that it can choose its clocks accordingly
    /// (SYNC_IOC_SET_DEADLINE, kernel 6.4 and up). A hint: nothing fails when it is missed.
    /// \returns nothing, or
    ///   - `unsupported`: the kernel has no such hint; go on without;
    ///   - `wrong_object`: the fd was closed behind our back.
    [[nodiscard]] Result<void> hint_deadline(Deadline deadline) const noexcept;

    SyncFile(SyncFile&& other) noexcept
        : fd_(std::move(other.fd_)), signalled_(std::exchange(other.signalled_, false)) {}
    SyncFile& operator=(SyncFile&& other) noexcept {
        fd_ = std::move(other.fd_);
        const bool signalled = std::exchange(other.signalled_, false);
        signalled_ = signalled; // kept where it is moved onto itself
        return *this;
    }
    SyncFile(const SyncFile&) = delete;
    SyncFile& operator=(const SyncFile&) = delete;
    ~SyncFile() = default;

private:
    friend struct SyncFileAdopt;
    explicit SyncFile(UniqueFd&& fd) noexcept : fd_(std::move(fd)) {}

    UniqueFd fd_;
    bool signalled_ = false; // and needs no fd; moved from where there is neither
};

} // namespace sluice
