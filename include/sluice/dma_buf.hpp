// SPDX-License-Identifier: MIT
/// \file
/// The kernel's dma-buf, owned through one fd.
///
/// Sources: linux/dma-buf.h and the kernel's "Buffer Sharing and Synchronization (dma-buf)".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <sluice/access.hpp>
#include <sluice/deadline.hpp>
#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/sync_file.hpp>
#include <sluice/unique_fd.hpp>

namespace sluice {

/// What the kernel tells about a buffer in /proc/self/fdinfo.
struct DmaBufInfo {
    std::string name;             ///< As `set_name` left it; empty for none.
    std::string exporter;         ///< Who made it: "udmabuf", "system" for that dma-heap, a driver.
    std::uint64_t references = 0; ///< Holds on it in the whole system: fds, mappings, devices.
};

/// One dma-buf. The memory lives as long as any fd, mapping or device holds it, in any process.
///
/// Threads: the const functions may be called from several threads at once. An export of a fence,
/// the work that waits for it and the import of that work's own fence are not one atomic step: hold
/// a `BufferLock` over them where several threads may do so on the same buffer.
///
/// One that was moved from is no buffer: its size and inode are 0, and it says `wrong_object` to
/// everything.
class SLUICE_API DmaBuf {
public:
    /// Adopts a dma-buf's fd, checked by its filesystem (fstatfs(2), DMA_BUF_MAGIC) and not by
    /// hope. Safe on any fd, also one from a stranger: a file is refused before its filesystem,
    /// which may be a process that never answers (FUSE), is asked anything. \param fd taken over on
    /// success; on failure it stays the caller's. \returns the buffer, or `wrong_object`: no fd, a
    /// closed one, not a dma-buf, or one that was opened as a path only (O_PATH).
    [[nodiscard]] static Result<DmaBuf> from_fd(UniqueFd&& fd) noexcept;

    /// The same on a duplicate of a fd that stays the caller's.
    /// \returns also `no_resources` where no further fd can be opened.
    [[nodiscard]] static Result<DmaBuf> from_borrowed_fd(int fd) noexcept;

    /// The fd, still owned here: for APIs that borrow, and for the caller's own event loop, which
    /// asks for `poll_events()`.
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }

    /// The event to poll `fd()` for before \p access: POLLIN comes once every writer's fence has
    /// signalled, POLLOUT once everyone's has. EPOLLIN and EPOLLOUT are the same numbers. It tells
    /// neither that a fence failed nor anything of CPU caches.
    [[nodiscard]] static short poll_events(Access access) noexcept;

    /// The buffer's size in bytes, fixed for its life; 0 once moved from.
    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

    /// The buffer's identity: the inode, unique among the dma-bufs of the running kernel while the
    /// buffer lives (kernel 5.3 and up). A fd number is none: it is reused. 0 once moved from.
    [[nodiscard]] std::uint64_t inode() const noexcept { return inode_; }

    /// What the CPU may do through `fd()`, as the exporter gave it out: `Access::read` for a
    /// read-only one, which `CpuMap` cannot map for writing.
    [[nodiscard]] Access mode() const noexcept { return mode_; }

    /// Names the buffer for people: in fdinfo, debugfs and sluice's own errors
    /// (DMA_BUF_SET_NAME). Every holder of the buffer may name it, and the last one stays.
    /// \param name of up to 31 bytes; what is longer is cut off. Empty takes the name away.
    /// \returns nothing, or why not. A buffer serves without a name as well.
    Result<void> set_name(std::string_view name) const noexcept;

    /// Name, exporter and number of holds, by way of /proc: three calls, nothing for each frame.
    /// \returns them, or
    ///   - `unsupported`: there is no /proc, or it does not tell (kernel before 5.3);
    ///   - `wrong_object`: the fd was closed behind our back.
    [[nodiscard]] Result<DmaBufInfo> info() const noexcept;

    /// A second owner of the same buffer, with its own fd.
    /// \returns also `no_resources` where no further fd can be opened.
    [[nodiscard]] Result<DmaBuf> duplicate() const noexcept;

    /// The fence to wait for before accessing the buffer (DMA_BUF_IOCTL_EXPORT_SYNC_FILE): for
    /// `Access::read` that of its writers, otherwise that of everyone. It is a snapshot: what is
    /// imported later is not in it. An idle buffer gives a fence that has already signalled, also
    /// where the last work failed before this call: the kernel no longer tells by then.
    /// \returns a new fence, or
    ///   - `unsupported`: a kernel before 6.0 (ENOTTY); `fence_before()` has a way around;
    ///   - `no_resources`: no further fd can be opened, or no memory.
    [[nodiscard]] Result<SyncFile> export_fence(Access access) const noexcept;

    /// Leaves \p fence in the buffer for whoever comes next (DMA_BUF_IOCTL_IMPORT_SYNC_FILE). As
    /// `Access::read` it holds later writers; otherwise it holds everyone. A reader must leave its
    /// fence too, or the next writer tears what is still being read.
    ///
    /// A failure is left only while it is still to come: of a fence that has failed already the
    /// kernel keeps nothing, and whoever comes next finds an idle buffer. To ask costs a call for
    /// each frame, so it is the caller's: `SyncFile::status` first, and no import of what failed.
    /// \param fence borrowed; the kernel takes its own reference. One without a fd (see
    ///   `SyncFile::signalled`) has nothing to leave, and nothing is done.
    /// \returns nothing, or
    ///   - `wrong_object`: the fence or the buffer was moved from, or its fd was closed behind our
    ///     back;
    ///   - `unsupported`: a kernel before 6.0 (ENOTTY); `fence_after()` has a way around;
    ///   - `no_resources`: the kernel has no memory for it.
    [[nodiscard]] Result<void> import_fence(const SyncFile& fence, Access access) const noexcept;

    /// Whether no fence holds \p access now; never waits, one call (poll(2)). It cannot tell work
    /// that failed from work that is done: `wait` and the fence itself do, while it is pending.
    /// \returns it, or `wrong_object`: the fd was closed behind our back.
    [[nodiscard]] Result<bool> idle(Access access) const noexcept;

    /// Waits on the CPU, until \p deadline at most, until no fence holds \p access any more. One
    /// call where none does. It says nothing of CPU caches: that is `CpuAccess`, which also waits.
    /// \returns nothing, or
    ///   - `timed_out`: some are still pending; nothing was changed;
    ///   - `fence_failed`: work that was waited for ended with an error, in `Error::sys_errno`.
    ///   That
    ///     work holds the buffer no more, but others may have left fences meanwhile: wait again
    ///     where that matters. Not told by kernels before 6.0;
    ///   - `no_resources`: no further fd can be opened for the fence to wait for;
    ///   - `wrong_object`: the fd was closed behind our back.
    [[nodiscard]] Result<void> wait(Access access, Deadline deadline) const noexcept;

    DmaBuf(DmaBuf&& other) noexcept
        : fd_(std::move(other.fd_)), size_(std::exchange(other.size_, 0)),
          inode_(std::exchange(other.inode_, 0)), mode_(other.mode_) {}
    DmaBuf& operator=(DmaBuf&& other) noexcept {
        if (this != &other) {
            fd_ = std::move(other.fd_);
            size_ = std::exchange(other.size_, 0);
            inode_ = std::exchange(other.inode_, 0);
            mode_ = other.mode_;
        }
        return *this;
    }
    DmaBuf(const DmaBuf&) = delete;
    DmaBuf& operator=(const DmaBuf&) = delete;
    ~DmaBuf() = default;

private:
    DmaBuf(UniqueFd&& fd, std::uint64_t size, std::uint64_t inode, Access mode) noexcept
        : fd_(std::move(fd)), size_(size), inode_(inode), mode_(mode) {}

    UniqueFd fd_;
    std::uint64_t size_;
    std::uint64_t inode_;
    Access mode_;
};

/// True where both are the same kernel object, whatever their fd numbers. One that was moved from
/// is like none.
[[nodiscard]] inline bool same_buffer(const DmaBuf& a, const DmaBuf& b) noexcept {
    return a.inode() == b.inode() && a.fd() >= 0 && b.fd() >= 0;
}

} // namespace sluice
