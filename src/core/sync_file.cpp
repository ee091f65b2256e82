// SPDX-License-Identifier: MIT
#include <sluice/sync_file.hpp>

#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <string>

#include <linux/sync_file.h>
#include <poll.h>

#include "core/fence_list.hpp"
#include "core/sync_file_adopt.hpp"
#include "core/sys.hpp"

#ifndef SYNC_IOC_SET_DEADLINE // linux/sync_file.h, since 6.4
struct sync_set_deadline {
    __u64 deadline_ns;
    __u64 pad;
};
#define SYNC_IOC_SET_DEADLINE _IOW(SYNC_IOC_MAGIC, 5, struct sync_set_deadline)
#endif

namespace sluice {

namespace {

Error not_a_sync_file(int error, std::string_view operation, int fd) {
    const Errc code = sys::code_of_wrong_object(error);
    if (code != Errc::wrong_object)
        return sys::failed_call(error, operation, sys::describe_fd(fd),
                                "the kernel does not tell its state",
                                "Free memory, or have the process's rights extended");
    return Error{.code = code,
                 .operation = std::string(operation),
                 .object = sys::describe_fd(fd),
                 .problem = "is not a sync_file: " + sys::errno_text(error),
                 .remedy = "Pass a sync_file's fd (a Vulkan SYNC_FD, a KMS out-fence) that is open",
                 .sys_errno = error};
}

Error failed_fence(int error, std::string_view operation, int fd) {
    return Error{.code = Errc::fence_failed,
                 .operation = std::string(operation),
                 .object = sys::describe_fd(fd),
                 .problem = "the work behind it failed: " + sys::errno_text(error),
                 .remedy = "Take the buffer's contents as lost and produce them again",
                 .sys_errno = error};
}

/// What one fence says of itself.
FenceStatus status_of(const sync_fence_info& fence) noexcept {
    if (fence.status < 0)
        return {.state = FenceState::failed, .error = -fence.status};
    return {.state = fence.status > 0 ? FenceState::signalled : FenceState::pending, .error = 0};
}

// What goes wrong is told out of line, so that what goes right stays short.

[[gnu::cold, gnu::noinline]] Result<void> not_signalled(int fd, int error) {
    constexpr std::string_view operation = "SyncFile::wait";
    if (error != 0)
        return tl::unexpected(sys::failed_call(error, operation, sys::describe_fd(fd),
                                               "cannot be polled",
                                               "Keep the fd open while waiting"));
    return tl::unexpected(
        Error{.code = Errc::timed_out,
              .operation = std::string(operation),
              .object = sys::describe_fd(fd),
              .problem = "was still pending at the deadline",
              .remedy = "Allow more time, or find out why the work behind it does not finish"});
}

[[gnu::cold, gnu::noinline]] Result<void> not_well(int fd, int error, int failure) {
    constexpr std::string_view operation = "SyncFile::wait";
    return tl::unexpected(error != 0 ? not_a_sync_file(error, operation, fd)
                                     : failed_fence(failure, operation, fd));
}

Result<FenceStatus> ask_status(int fd, std::string_view operation) {
    FenceList list;
    if (const int error = list.read(fd); error != 0)
        return tl::unexpected(not_a_sync_file(error, operation, fd));
    if (list.any_pending())
        return FenceStatus{.state = FenceState::pending, .error = 0};
    const int error = list.failure();
    return FenceStatus{.state = error != 0 ? FenceState::failed : FenceState::signalled,
                       .error = error};
}

/// \returns a new sync_file's fd, or -1 with errno set.
int merge_fds(int a, int b) noexcept {
    sync_merge_data request{.name = "sluice", .fd2 = b, .fence = -1, .flags = 0, .pad = 0};
    return sys::ioctl(a, SYNC_IOC_MERGE, &request) == 0 ? request.fence : -1;
}

/// Whether it is of `SyncFile::signalled`, so that nobody need be asked.
bool signalled(const SyncFile& fence) noexcept {
    return fence.fd() < 0 && fence.valid();
}

template <typename Range, typename Fence>
Result<SyncFile> merge_all(const Range& fences, Fence fence_of) {
    constexpr std::string_view operation = "SyncFile::merge";
    const SyncFile* first = nullptr;
    UniqueFd merged; // of the first and all after it, once there are two
    for (const auto& each : fences) {
        const SyncFile& fence = fence_of(each);
        if (signalled(fence))
            continue;
        if (first == nullptr) {
            first = &fence;
            continue;
        }
        const int so_far = merged ? merged.get() : first->fd();
        int next = merge_fds(so_far, fence.fd());
        if (next < 0) {
            const int error = errno;
            Error failure = sys::failed_call(
                error, operation, sys::describe_fd(so_far) + " and " + sys::describe_fd(fence.fd()),
                "the kernel did not merge them",
                error == EMFILE || error == ENFILE
                    ? "Close fds that are no longer used, or raise RLIMIT_NOFILE"
                    : "Keep the fds open; wait for one fence after the other instead");
            // ENOENT is what the kernel says of a second fd that is no sync_file.
            if (error == ENOENT || error == ENOTTY)
                failure.code = Errc::wrong_object;
            return tl::unexpected(std::move(failure));
        }
        merged = UniqueFd(std::move(next));
    }
    // Asked only now: what failed before it was merged is not in the result, what fails later is.
    bool pending = false;
    for (const auto& each : fences) {
        const SyncFile& fence = fence_of(each);
        if (signalled(fence))
            continue;
        FenceList list;
        if (const int error = list.read(fence.fd()); error != 0)
            return tl::unexpected(not_a_sync_file(error, operation, fence.fd()));
        // Also one of several in it, while the others are pending.
        if (const int error = list.failure(); error != 0)
            return tl::unexpected(failed_fence(error, operation, fence.fd()));
        pending = pending || list.any_pending();
    }
    if (!pending || first == nullptr)
        return SyncFile::signalled();
    if (merged)
        return SyncFileAdopt::adopt(std::move(merged));
    auto copy = first->duplicate();
    if (!copy)
        copy.error().operation = operation;
    return copy;
}

/// What struct sync_fence_info calls a string: it may fill all of its bytes.
template <std::size_t size> std::string text(const char (&bytes)[size]) {
    return {bytes, strnlen(bytes, size)};
}

} // namespace

Result<SyncFile> SyncFile::from_fd(UniqueFd&& fd) noexcept {
    constexpr std::string_view operation = "SyncFile::from_fd";
    struct statx file {};
    if (sys::stat_at_once(fd.get(), file) != 0)
        return tl::unexpected(not_a_sync_file(errno, operation, fd.get()));
    // A file is refused before its filesystem is asked anything.
    if (!sys::is_anonymous(file))
        return tl::unexpected(not_a_sync_file(ENOTTY, operation, fd.get()));
    if (auto status = ask_status(fd.get(), operation); !status)
        return tl::unexpected(std::move(status.error()));
    return SyncFile(std::move(fd));
}

Result<SyncFile> SyncFile::merge(const SyncFile& a, const SyncFile& b) noexcept {
    const std::array both{&a, &b};
    return merge_all(both, [](const SyncFile* fence) -> const SyncFile& { return *fence; });
}

Result<SyncFile> SyncFile::merge(std::span<const SyncFile> fences) noexcept {
    return merge_all(fences, std::identity());
}

Result<SyncFile> SyncFile::duplicate() const noexcept {
    if (signalled_)
        return signalled();
    auto copy = fd_.duplicate();
    if (!copy) {
        copy.error().operation = "SyncFile::duplicate";
        return tl::unexpected(std::move(copy.error()));
    }
    return SyncFile(std::move(*copy));
}

Result<FenceStatus> SyncFile::status() const noexcept {
    if (signalled_)
        return FenceStatus{.state = FenceState::signalled, .error = 0};
    return ask_status(fd_.get(), "SyncFile::status");
}

Result<std::vector<FenceInfo>> SyncFile::fences() const noexcept {
    std::vector<FenceInfo> infos;
    if (signalled_)
        return infos;
    FenceList list;
    if (const int error = list.read(fd_.get()); error != 0)
        return tl::unexpected(not_a_sync_file(error, "SyncFile::fences", fd_.get()));
    for (const sync_fence_info& fence : list.fences())
        infos.push_back({.driver = text(fence.driver_name),
                         .timeline = text(fence.obj_name),
                         .status = status_of(fence),
                         .signalled_at = Deadline(std::chrono::nanoseconds(fence.timestamp_ns))});
    return infos;
}

Result<void> SyncFile::wait(Deadline deadline) const noexcept {
    if (signalled_)
        return sys::success();
    const int ready = sys::poll_until(fd_.get(), POLLIN, deadline);
    if (ready <= 0)
        return not_signalled(fd_.get(), ready < 0 ? errno : 0);
    // A fence that failed polls as ready too.
    FenceList list;
    const int error = list.read(fd_.get());
    const int failure = error == 0 ? list.failure() : 0;
    if (error != 0 || failure != 0)
        return not_well(fd_.get(), error, failure);
    return sys::success();
}

Result<void> SyncFile::hint_deadline(Deadline deadline) const noexcept {
    if (signalled_)
        return {};
    const auto since_boot = std::max(deadline.time_since_epoch(), Deadline::duration::zero());
    sync_set_deadline request{
        .deadline_ns = static_cast<__u64>(std::chrono::nanoseconds(since_boot).count()), .pad = 0};
    if (sys::ioctl(fd_.get(), SYNC_IOC_SET_DEADLINE, &request) != 0) {
        const int error = errno;
        if (auto still = ask_status(fd_.get(), "SyncFile::hint_deadline"); !still)
            return tl::unexpected(std::move(still.error()));
        return tl::unexpected(sys::failed_call(
            error, "SyncFile::hint_deadline", sys::describe_fd(fd_.get()),
            "the kernel did not take the hint", "Go on without it: kernels before 6.4 have none"));
    }
    return {};
}

} // namespace sluice
