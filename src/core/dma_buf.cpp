// SPDX-License-Identifier: MIT
#include <sluice/dma_buf.hpp>

#include <cerrno>
#include <string>

#include <linux/dma-buf.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "core/dma_buf_text.hpp"
#include "core/sync_file_adopt.hpp"
#include "core/sys.hpp"

namespace sluice {

namespace {

#ifndef DMA_BUF_MAGIC
constexpr long DMA_BUF_MAGIC = 0x444d4142; // linux/magic.h, since 5.7
#endif

// The implicit-sync ioctls take the DMA_BUF_SYNC_* bits, which Access mirrors.
static_assert(static_cast<unsigned>(Access::read) == DMA_BUF_SYNC_READ);
static_assert(static_cast<unsigned>(Access::write) == DMA_BUF_SYNC_WRITE);
static_assert(static_cast<unsigned>(Access::read_write) == DMA_BUF_SYNC_RW);

constexpr const char* no_fd_left = "Close fds that are no longer used, or raise RLIMIT_NOFILE";

Error not_a_dma_buf(int fd, std::string problem, int error) {
    return Error{.code = Errc::wrong_object,
                 .operation = "DmaBuf::from_fd",
                 .object = sys::describe_fd(fd),
                 .problem = std::move(problem),
                 .remedy = "Pass a fd that a dma-buf exporter gave out and that is still open",
                 .sys_errno = error};
}

} // namespace

std::string describe(const DmaBuf& buffer) {
    return "buffer ino " + std::to_string(buffer.inode()) + ", " + std::to_string(buffer.size()) +
           " bytes, " + sys::describe_fd(buffer.fd());
}

Result<DmaBuf> DmaBuf::from_fd(UniqueFd&& fd) noexcept {
    if (!fd)
        return tl::unexpected(not_a_dma_buf(-1, "there is no fd", 0));
    struct statfs filesystem {};
    if (fstatfs(fd.get(), &filesystem) != 0) {
        const int error = errno;
        return tl::unexpected(not_a_dma_buf(
            fd.get(), "cannot be asked for its filesystem: " + sys::errno_text(error), error));
    }
    if (filesystem.f_type != DMA_BUF_MAGIC)
        return tl::unexpected(not_a_dma_buf(fd.get(), "is not a dma-buf", 0));
    struct stat status {};
    if (fstat(fd.get(), &status) != 0) {
        const int error = errno;
        return tl::unexpected(not_a_dma_buf(
            fd.get(), "cannot be asked for its size: " + sys::errno_text(error), error));
    }
    return DmaBuf(std::move(fd), static_cast<std::uint64_t>(status.st_size),
                  static_cast<std::uint64_t>(status.st_ino));
}

Result<DmaBuf> DmaBuf::from_borrowed_fd(int fd) noexcept {
    auto copy = UniqueFd::duplicate(fd);
    if (!copy)
        return tl::unexpected(std::move(copy.error()));
    return from_fd(std::move(*copy));
}

Result<DmaBuf> DmaBuf::duplicate() const noexcept {
    auto copy = fd_.duplicate();
    if (!copy)
        return tl::unexpected(std::move(copy.error()));
    return DmaBuf(std::move(*copy), size_, inode_);
}

Result<SyncFile> DmaBuf::export_fence(Access access) const noexcept {
    dma_buf_export_sync_file request{.flags = static_cast<__u32>(access), .fd = -1};
    if (sys::ioctl(fd_.get(), DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &request) != 0) {
        const int error = errno;
        return tl::unexpected(sys::failed_call(
            error, "DmaBuf::export_fence", describe(*this),
            "the kernel gave no fence for access " + std::string(to_string(access)),
            error == ENOTTY ? "This kernel is older than 6.0: use DmaBuf::wait" : no_fd_left));
    }
    return SyncFileAdopt::adopt(UniqueFd(std::move(request.fd)));
}

Result<void> DmaBuf::import_fence(const SyncFile& fence, Access access) const noexcept {
    if (fence.fd() < 0)
        return {};
    dma_buf_import_sync_file request{.flags = static_cast<__u32>(access), .fd = fence.fd()};
    if (sys::ioctl(fd_.get(), DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &request) != 0) {
        const int error = errno;
        return tl::unexpected(sys::failed_call(
            error, "DmaBuf::import_fence", describe(*this),
            "the kernel did not take " + sys::describe_fd(fence.fd()) + " as a fence for access " +
                std::string(to_string(access)),
            error == ENOTTY ? "This kernel is older than 6.0: wait for the fence, then hand over"
                            : "Wait for the fence on the CPU before handing the buffer over"));
    }
    return {};
}

Result<void> DmaBuf::wait(Access access, Deadline deadline) const noexcept {
    // "Implicit Fence Poll Support" in the kernel's dma-buf document: EPOLLIN waits for the
    // writers, EPOLLOUT for everyone.
    const short events = writes(access) ? POLLOUT : POLLIN;
    const int ready = sys::poll_until(fd_.get(), events, deadline);
    if (ready > 0)
        return {};
    if (ready == 0)
        return tl::unexpected(
            Error{.code = Errc::timed_out,
                  .operation = "DmaBuf::wait",
                  .object = describe(*this),
                  .problem = "fences that access " + std::string(to_string(access)) +
                             " waits for were still pending at the deadline",
                  .remedy = "Allow more time, or find who left the fence and never signals it"});
    return tl::unexpected(sys::failed_call(errno, "DmaBuf::wait", describe(*this),
                                           "cannot be polled", "Keep the fd open while waiting"));
}

} // namespace sluice
