// SPDX-License-Identifier: MIT
#include <sluice/dma_buf.hpp>

#include <array>
#include <cerrno>
#include <optional>
#include <string>

#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "core/dma_buf_text.hpp"
#include "core/fdinfo.hpp"
#include "core/probe.hpp"
#include "core/sync_file_adopt.hpp"
#include "core/sys.hpp"

namespace sluice {

Error moved_from(const char* operation) {
    return Error{.code = Errc::wrong_object,
                 .operation = operation,
                 .object = "no buffer",
                 .problem = "the object was moved from",
                 .remedy = "Use the one that it was moved to"};
}

namespace {

#ifndef DMA_BUF_MAGIC
constexpr long DMA_BUF_MAGIC = 0x444d4142; // linux/magic.h, since 5.7
#endif

// The implicit-sync ioctls take the DMA_BUF_SYNC_* bits, which Access mirrors.
static_assert(static_cast<unsigned>(Access::read) == DMA_BUF_SYNC_READ);
static_assert(static_cast<unsigned>(Access::write) == DMA_BUF_SYNC_WRITE);
static_assert(static_cast<unsigned>(Access::read_write) == DMA_BUF_SYNC_RW);

/// What the caller can do about \p error, which a call on a buffer gave.
const char* remedy_for(int error) noexcept {
    switch (error) {
    case EMFILE:
    case ENFILE:
        return "Close fds that are no longer used, or raise RLIMIT_NOFILE";
    case ENOMEM:
        return "Free memory and try again";
    case EBADF:
        return "Keep the fd open for as long as the buffer is used";
    default:
        return "Wait on the CPU instead (DmaBuf::wait, SyncFile::wait)";
    }
}

Error not_a_dma_buf(int fd, std::string problem, int error) {
    return Error{.code = sys::code_of_wrong_object(error),
                 .operation = "DmaBuf::from_fd",
                 .object = sys::describe_fd(fd),
                 .problem = std::move(problem),
                 .remedy = "Pass a fd that a dma-buf exporter gave out and that is still open",
                 .sys_errno = error};
}

bool is_dma_buf(int fd) noexcept {
    struct statx status {};
    struct statfs filesystem {};
    return sys::stat_at_once(fd, status) == 0 && sys::is_anonymous(status) &&
           fstatfs(fd, &filesystem) == 0 && filesystem.f_type == DMA_BUF_MAGIC;
}

/// Somebody closed the fd, and the number is another object's. Such an object's answers must not be
/// taken for the kernel's.
Error taken_over(const DmaBuf& buffer, const char* operation, int error) {
    if (buffer.fd() < 0)
        return moved_from(operation);
    return Error{.code = Errc::wrong_object,
                 .operation = operation,
                 .object = describe(buffer),
                 .problem = "the fd was closed behind its back: the number is another object's now",
                 .remedy = "Find who closes a fd that a DmaBuf owns",
                 .sys_errno = error};
}

// What goes wrong is told out of line, so that what goes right stays short.

[[gnu::cold, gnu::noinline]] Result<SyncFile> not_exported(const DmaBuf& buffer, Access access,
                                                           int error) {
    constexpr const char* operation = "DmaBuf::export_fence";
    if (error == ENOTTY && !is_dma_buf(buffer.fd()))
        return tl::unexpected(taken_over(buffer, operation, error));
    return tl::unexpected(sys::failed_call(
        error, operation, describe(buffer),
        "the kernel gave no fence for access " + std::string(to_string(access)),
        error == ENOTTY ? "This kernel has no such call (6.0 has): use fence_before"
                        : remedy_for(error)));
}

[[gnu::cold, gnu::noinline]] tl::unexpected<Error>
not_imported(const DmaBuf& buffer, const SyncFile& fence, Access access, int error) {
    constexpr const char* operation = "DmaBuf::import_fence";
    if (error == ENOTTY && !is_dma_buf(buffer.fd()))
        return tl::unexpected(taken_over(buffer, operation, error));
    Error failure =
        sys::failed_call(error, operation, describe(buffer),
                         "the kernel did not take " + sys::describe_fd(fence.fd()) +
                             " as a fence for access " + std::string(to_string(access)),
                         error == ENOTTY ? "This kernel has no such call (6.0 has): use fence_after"
                                         : remedy_for(error));
    // All that the kernel says EINVAL to here is a fd that is no sync_file.
    if (error == EINVAL) {
        failure.code = Errc::wrong_object;
        failure.remedy = "Find who closes a fd that a SyncFile owns";
    }
    return tl::unexpected(std::move(failure));
}

/// DmaBuf::import_fence of a fence without a fd.
[[gnu::cold, gnu::noinline]] Result<void> import_nothing(const DmaBuf& buffer,
                                                         const SyncFile& fence) {
    constexpr const char* operation = "DmaBuf::import_fence";
    if (buffer.fd() < 0)
        return tl::unexpected(moved_from(operation));
    if (!fence.valid())
        return tl::unexpected(Error{.code = Errc::wrong_object,
                                    .operation = operation,
                                    .object = describe(buffer),
                                    .problem = "the fence was moved from",
                                    .remedy = "Use the one that it was moved to"});
    return sys::success();
}

constexpr const char* wait_operation = "DmaBuf::wait";

Error still_pending(const DmaBuf& buffer, Access access) {
    return Error{.code = Errc::timed_out,
                 .operation = wait_operation,
                 .object = describe(buffer),
                 .problem = "fences that access " + std::string(to_string(access)) +
                            " waits for were still pending at the deadline",
                 .remedy = "Allow more time, or find who left the fence and never signals it"};
}

Error cannot_poll(const DmaBuf& buffer, const char* operation, int error) {
    return sys::failed_call(error, operation, describe(buffer), "cannot be polled",
                            "Keep the fd open while waiting");
}

/// Waits for the fences that are in the buffer now, through a sync_file: polling the buffer does
/// not tell that one failed.
Result<void> wait_for_export(const DmaBuf& buffer, Access access, Deadline deadline) {
    auto fence = buffer.export_fence(access);
    if (!fence) {
        fence.error().operation = wait_operation;
        return tl::unexpected(std::move(fence.error()));
    }
    auto done = fence->wait(deadline);
    if (done)
        return done;
    if (done.error().code == Errc::timed_out)
        return tl::unexpected(still_pending(buffer, access));
    done.error().operation = wait_operation;
    done.error().object = describe(buffer) + ", " + done.error().object;
    return done;
}

/// The rest of DmaBuf::wait, where \p buffer was not idle at once, or \p error came of polling it.
[[gnu::cold, gnu::noinline]] Result<void> wait_for_fences(const DmaBuf& buffer, Access access,
                                                          Deadline deadline, int error) {
    const short events = DmaBuf::poll_events(access);
    for (;;) {
        if (error != 0)
            return tl::unexpected(cannot_poll(buffer, wait_operation, error));
        if (Deadline::clock::now() >= deadline)
            return tl::unexpected(still_pending(buffer, access));
        int idle = 0;
        if (probe::export_fence() == probe::Known::absent) {
            idle = sys::poll_until(buffer.fd(), events, deadline);
        } else if (auto waited = wait_for_export(buffer, access, deadline); waited) {
            idle = sys::poll_now(buffer.fd(), events);
        } else if (waited.error().code == Errc::unsupported) {
            probe::set_export_fence(false);
            continue;
        } else {
            return waited;
        }
        if (idle > 0)
            return {};
        error = idle < 0 ? errno : 0;
    }
}

} // namespace

std::string describe(const DmaBuf& buffer) {
    return "buffer ino " + std::to_string(buffer.inode()) + ", " + std::to_string(buffer.size()) +
           " bytes, " + sys::describe_fd(buffer.fd());
}

Result<DmaBuf> DmaBuf::from_fd(UniqueFd&& fd) noexcept {
    if (!fd)
        return tl::unexpected(not_a_dma_buf(-1, "there is no fd", 0));
    struct statx status {};
    if (sys::stat_at_once(fd.get(), status) != 0) {
        const int error = errno;
        return tl::unexpected(not_a_dma_buf(
            fd.get(), "cannot be asked for its size: " + sys::errno_text(error), error));
    }
    // A file is refused before its filesystem is asked anything.
    if (!sys::is_anonymous(status))
        return tl::unexpected(not_a_dma_buf(fd.get(), "is not a dma-buf", 0));
    // Its filesystem is asked once.
    const std::uint64_t device = std::uint64_t{status.stx_dev_major} << 32U | status.stx_dev_minor;
    if (device != probe::dma_buf_device()) {
        struct statfs filesystem {};
        if (fstatfs(fd.get(), &filesystem) != 0) {
            const int error = errno;
            return tl::unexpected(not_a_dma_buf(
                fd.get(), "cannot be asked for its filesystem: " + sys::errno_text(error), error));
        }
        if (filesystem.f_type != DMA_BUF_MAGIC)
            return tl::unexpected(not_a_dma_buf(fd.get(), "is not a dma-buf", 0));
        probe::set_dma_buf_device(device);
    }
    const int flags = fcntl(fd.get(), F_GETFL);
    if (flags < 0) {
        const int error = errno;
        return tl::unexpected(not_a_dma_buf(
            fd.get(), "cannot be asked for its mode: " + sys::errno_text(error), error));
    }
    if ((flags & O_PATH) != 0)
        return tl::unexpected(not_a_dma_buf(
            fd.get(), "is open as a path only (O_PATH), which gives no access to it", 0));
    const int mode = flags & O_ACCMODE;
    return DmaBuf(std::move(fd), status.stx_size, status.stx_ino,
                  mode == O_RDONLY   ? Access::read
                  : mode == O_WRONLY ? Access::write
                                     : Access::read_write);
}

Result<DmaBuf> DmaBuf::from_borrowed_fd(int fd) noexcept {
    auto copy = UniqueFd::duplicate(fd);
    if (!copy) {
        copy.error().operation = "DmaBuf::from_borrowed_fd";
        return tl::unexpected(std::move(copy.error()));
    }
    return from_fd(std::move(*copy));
}

Result<DmaBuf> DmaBuf::duplicate() const noexcept {
    auto copy = fd_.duplicate();
    if (!copy) {
        copy.error().operation = "DmaBuf::duplicate";
        copy.error().object = describe(*this);
        return tl::unexpected(std::move(copy.error()));
    }
    return DmaBuf(std::move(*copy), size_, inode_, mode_);
}

Result<SyncFile> DmaBuf::export_fence(Access access) const noexcept {
    dma_buf_export_sync_file request{.flags = static_cast<__u32>(access), .fd = -1};
    if (sys::ioctl(fd_.get(), DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &request) != 0)
        return not_exported(*this, access, errno);
    return SyncFileAdopt::adopt(UniqueFd(std::move(request.fd)));
}

Result<void> DmaBuf::import_fence(const SyncFile& fence, Access access) const noexcept {
    if (fence.fd() < 0)
        return import_nothing(*this, fence);
    dma_buf_import_sync_file request{.flags = static_cast<__u32>(access), .fd = fence.fd()};
    if (sys::ioctl(fd_.get(), DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &request) != 0)
        return not_imported(*this, fence, access, errno);
    return sys::success();
}

short DmaBuf::poll_events(Access access) noexcept {
    // "Implicit Fence Poll Support" in the kernel's dma-buf document.
    return writes(access) ? POLLOUT : POLLIN;
}

Result<bool> DmaBuf::idle(Access access) const noexcept {
    const int ready = sys::poll_now(fd_.get(), poll_events(access));
    if (ready < 0)
        return tl::unexpected(cannot_poll(*this, "DmaBuf::idle", errno));
    return ready > 0;
}

Result<void> DmaBuf::wait(Access access, Deadline deadline) const noexcept {
    const int idle = sys::poll_now(fd_.get(), poll_events(access));
    if (idle > 0)
        return sys::success();
    return wait_for_fences(*this, access, deadline, idle < 0 ? errno : 0);
}

Result<void> DmaBuf::set_name(std::string_view name) const noexcept {
    std::array<char, DMA_BUF_NAME_LEN> text{}; // the kernel refuses longer ones
    name.copy(text.data(), text.size() - 1);
    // In 32-bit programs the first header's DMA_BUF_SET_NAME is not the same number.
    if (sys::ioctl(fd_.get(), DMA_BUF_SET_NAME_B, text.data()) != 0)
        return tl::unexpected(
            sys::failed_call(errno, "DmaBuf::set_name", describe(*this),
                             "the kernel did not take the name '" + std::string(text.data()) + "'",
                             "Go on without: a name is for people only"));
    return {};
}

Result<DmaBufInfo> DmaBuf::info() const noexcept {
    std::array<char, 1024> text{}; // pos to exp_name are some 150 bytes, the name 31
    const auto length = sys::read_file("/proc/self/fdinfo/" + std::to_string(fd_.get()), text);
    const int error = errno;
    std::optional<DmaBufInfo> info;
    if (length >= 0)
        info = parse_fdinfo({text.data(), static_cast<std::size_t>(length)});
    if (!info && (length >= 0 || error == ENOENT) && !is_dma_buf(fd_.get()))
        return tl::unexpected(taken_over(*this, "DmaBuf::info", length < 0 ? error : 0));
    if (length < 0 && error != ENOENT)
        return tl::unexpected(sys::failed_call(error, "DmaBuf::info", describe(*this),
                                               "its fdinfo cannot be read",
                                               "Go on without: nothing depends on it"));
    if (!info)
        return tl::unexpected(
            Error{.code = Errc::unsupported,
                  .operation = "DmaBuf::info",
                  .object = describe(*this),
                  .problem = length < 0 ? "its fdinfo cannot be read: " + sys::errno_text(error)
                                        : "its fdinfo tells no exporter",
                  .remedy = "Have /proc mounted, and a kernel of 5.3 or up",
                  .sys_errno = length < 0 ? error : 0});
    return std::move(*info);
}

} // namespace sluice
