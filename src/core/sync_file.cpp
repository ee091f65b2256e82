// SPDX-License-Identifier: MIT
#include <sluice/sync_file.hpp>

#include <cerrno>
#include <string>

#include <linux/sync_file.h>
#include <poll.h>

#include "core/sys.hpp"

namespace sluice {

namespace {

/// Asks for the state alone: num_fences = 0 leaves the list of fences out.
Result<FenceStatus> ask_status(int fd, std::string_view operation) {
    sync_file_info info{};
    if (sys::ioctl(fd, SYNC_IOC_FILE_INFO, &info) != 0) {
        const int error = errno;
        return tl::unexpected(Error{
            .code = Errc::wrong_object,
            .operation = std::string(operation),
            .object = sys::describe_fd(fd),
            .problem = "is not a sync_file: " + sys::errno_text(error),
            .remedy = "Pass a sync_file's fd (a Vulkan SYNC_FD, a KMS out-fence) that is open",
            .sys_errno = error});
    }
    if (info.status < 0)
        return FenceStatus{.state = FenceState::failed, .error = -info.status};
    return FenceStatus{.state = info.status > 0 ? FenceState::signalled : FenceState::pending,
                       .error = 0};
}

} // namespace

Result<SyncFile> SyncFile::from_fd(UniqueFd&& fd) noexcept {
    if (auto status = ask_status(fd.get(), "SyncFile::from_fd"); !status)
        return tl::unexpected(std::move(status.error()));
    return SyncFile(std::move(fd));
}

Result<SyncFile> SyncFile::duplicate() const noexcept {
    if (!fd_)
        return signalled();
    auto copy = fd_.duplicate();
    if (!copy)
        return tl::unexpected(std::move(copy.error()));
    return SyncFile(std::move(*copy));
}

Result<FenceStatus> SyncFile::status() const noexcept {
    if (!fd_)
        return FenceStatus{.state = FenceState::signalled, .error = 0};
    return ask_status(fd_.get(), "SyncFile::status");
}

Result<void> SyncFile::wait(Deadline deadline) const noexcept {
    if (!fd_)
        return {};
    const int ready = sys::poll_until(fd_.get(), POLLIN, deadline);
    if (ready < 0)
        return tl::unexpected(sys::failed_call(errno, "SyncFile::wait", sys::describe_fd(fd_.get()),
                                               "cannot be polled",
                                               "Keep the fd open while waiting"));
    if (ready == 0)
        return tl::unexpected(
            Error{.code = Errc::timed_out,
                  .operation = "SyncFile::wait",
                  .object = sys::describe_fd(fd_.get()),
                  .problem = "was still pending at the deadline",
                  .remedy = "Allow more time, or find out why the work behind it does not finish"});
    // A fence that failed polls as ready too.
    auto status = ask_status(fd_.get(), "SyncFile::wait");
    if (!status)
        return tl::unexpected(std::move(status.error()));
    if (status->state == FenceState::failed)
        return tl::unexpected(
            Error{.code = Errc::fence_failed,
                  .operation = "SyncFile::wait",
                  .object = sys::describe_fd(fd_.get()),
                  .problem = "the work behind it failed: " + sys::errno_text(status->error),
                  .remedy = "Take the buffer's contents as lost and produce them again",
                  .sys_errno = status->error});
    return {};
}

} // namespace sluice
