// SPDX-License-Identifier: MIT
#include <sluice/syncobj.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include <linux/sync_file.h>
#include <poll.h>

#include "core/fence_list.hpp"
#include "core/sync_file_adopt.hpp"
#include "core/syncobj_uapi.hpp"
#include "core/sys.hpp"

namespace sluice {

struct SyncobjDevice::State {
    State(UniqueFd&& device, SyncobjCaps found) noexcept : fd(std::move(device)), caps(found) {}

    UniqueFd fd;
    SyncobjCaps caps;
};

namespace {

/// A point of a sync object, and the operation on it, for errors to name.
struct Place {
    const SyncobjDevice::State& device;
    std::uint32_t handle;
    std::uint64_t point;
    const char* operation;
};

std::string describe(const Place& at) {
    return (at.handle != 0 ? "syncobj " + std::to_string(at.handle) + ", " : std::string()) +
           (at.point != 0 ? "point " + std::to_string(at.point) + ", " : std::string()) +
           sys::describe_fd(at.device.fd.get());
}

tl::unexpected<Error> refused(const Place& at, Errc code, std::string problem, std::string remedy,
                              int error = 0) {
    return tl::unexpected(Error{.code = code,
                                .operation = at.operation,
                                .object = describe(at),
                                .problem = std::move(problem),
                                .remedy = std::move(remedy),
                                .sys_errno = error});
}

tl::unexpected<Error> failed(const Place& at, int error, std::string_view problem) {
    Error failure = sys::failed_call(error, at.operation, describe(at), problem, "");
    if (error == ENOENT) // how all calls but the export of a fd say that there is no such handle
        failure.code = Errc::wrong_object;
    switch (failure.code) {
    case Errc::wrong_object:
        failure.remedy = "Leave the handle and the device's fd to this object alone: somebody else "
                         "has closed one of them";
        break;
    case Errc::no_resources:
        failure.remedy = "Close fds and drop sync objects that are no longer used";
        break;
    case Errc::device_lost:
        failure.remedy = "The device is gone: drop its objects and wrap another one";
        break;
    default:
        failure.remedy = "Look into the kernel's log, or use another device's sync objects";
    }
    return tl::unexpected(std::move(failure));
}

tl::unexpected<Error> fence_failed(const Place& at, std::string problem, int error) {
    return refused(at, Errc::fence_failed, std::move(problem) + ": " + sys::errno_text(error),
                   "Take what the work should have written as lost and produce it again", error);
}

tl::unexpected<Error> no_timelines(const Place& at, std::string remedy) {
    return refused(at, Errc::unsupported,
                   "the driver has no timelines (DRM_CAP_SYNCOBJ_TIMELINE), only point 0",
                   std::move(remedy));
}

int call(const Place& at, unsigned long request, void* argument) noexcept {
    return sys::ioctl(at.device.fd.get(), request, argument);
}

std::uint64_t address_of(const void* object) noexcept {
    return reinterpret_cast<std::uintptr_t>(object);
}

void destroy(const SyncobjDevice::State& device, std::uint32_t handle) noexcept {
    const int saved = errno;
    uapi::SyncobjDestroy request{.handle = handle, .pad = 0};
    // Fails only where somebody else destroyed the handle, or the device is gone.
    (void)sys::ioctl(device.fd.get(), uapi::syncobj_destroy, &request);
    errno = saved;
}

Result<std::uint32_t> create_handle(const Place& at, std::uint32_t flags) {
    uapi::SyncobjCreate request{.handle = 0, .flags = flags};
    if (call(at, uapi::syncobj_create, &request) != 0)
        return failed(at, errno, "the kernel made no sync object");
    return request.handle;
}

/// A binary sync object on the way between a timeline's point and a sync_file.
class Temporary {
public:
    [[nodiscard]] static Result<Temporary> create(const Place& at) {
        auto handle = create_handle(at, 0);
        if (!handle)
            return tl::unexpected(std::move(handle.error()));
        return Temporary(at.device, *handle);
    }
    Temporary(Temporary&& other) noexcept
        : device_(other.device_), handle_(std::exchange(other.handle_, 0)) {}
    Temporary& operator=(Temporary&&) = delete;
    Temporary(const Temporary&) = delete;
    Temporary& operator=(const Temporary&) = delete;
    ~Temporary() {
        if (handle_ != 0)
            destroy(device_, handle_);
    }
    [[nodiscard]] std::uint32_t handle() const noexcept { return handle_; }

private:
    Temporary(const SyncobjDevice::State& device, std::uint32_t handle) noexcept
        : device_(device), handle_(handle) {}

    const SyncobjDevice::State& device_;
    std::uint32_t handle_;
};

/// The fence at a point as the kernel gives it; no fd where nothing was submitted for it yet.
Result<UniqueFd> export_sync_file(const Place& at) {
    constexpr const char* problem = "the kernel gave out no fence";
    uapi::SyncobjHandle request{
        .handle = at.handle, .flags = uapi::export_sync_file, .fd = -1, .pad = 0};
    if (at.point == 0) {
        if (call(at, uapi::syncobj_handle_to_fd, &request) == 0)
            return UniqueFd(std::move(request.fd));
        if (errno == EINVAL)
            return UniqueFd();
        return failed(at, errno, problem);
    }
    auto binary = Temporary::create(at);
    if (!binary)
        return tl::unexpected(std::move(binary.error()));
    uapi::SyncobjTransfer transfer{.src_handle = at.handle,
                                   .dst_handle = binary->handle(),
                                   .src_point = at.point,
                                   .dst_point = 0,
                                   .flags = 0,
                                   .pad = 0};
    if (call(at, uapi::syncobj_transfer, &transfer) != 0) {
        if (errno == EINVAL)
            return UniqueFd();
        return failed(at, errno, problem);
    }
    request.handle = binary->handle();
    if (call(at, uapi::syncobj_handle_to_fd, &request) != 0)
        return failed(at, errno, problem);
    return UniqueFd(std::move(request.fd));
}

/// The fences of a timeline's point as one that tells of failures, whoever waits for it. What a
/// point gives is a dma_fence_chain, which signals without the error of the fences inside; merged,
/// the ones that are pending come out of it, and those that have failed until then are asked.
Result<SyncFile> out_of_the_chain(const Place& at, const UniqueFd& chain) {
    constexpr const char* problem = "the fences of the point could not be merged";
    sync_merge_data merge{};
    std::strncpy(merge.name, "sluice-syncobj", sizeof merge.name - 1);
    merge.fd2 = chain.get();
    merge.fence = -1;
    if (sys::ioctl(chain.get(), SYNC_IOC_MERGE, &merge) != 0)
        return failed(at, errno, problem);
    UniqueFd merged(std::move(merge.fence));
    // Of several fences the kernel notes an error only once somebody has begun to wait for them.
    if (sys::poll_now(merged.get(), POLLIN) < 0)
        return failed(at, errno, problem);
    FenceList list;
    if (const int error = list.read(chain.get()); error != 0)
        return failed(at, error, "the fences of the point could not be asked for their state");
    if (const int error = list.failure(); error != 0)
        return fence_failed(at, "the work behind it has failed", error);
    return SyncFileAdopt::adopt(std::move(merged));
}

/// The fence at a point; none where nothing was submitted for it yet.
Result<std::optional<SyncFile>> export_point(const Place& at) {
    auto fd = export_sync_file(at);
    if (!fd)
        return tl::unexpected(std::move(fd.error()));
    if (!*fd)
        return std::nullopt;
    if (at.point == 0)
        return SyncFileAdopt::adopt(std::move(*fd));
    auto fence = out_of_the_chain(at, *fd);
    if (!fence)
        return tl::unexpected(std::move(fence.error()));
    return std::move(*fence);
}

tl::unexpected<Error> nothing_submitted(const Place& at) {
    return refused(at, Errc::busy, "no fence was submitted for it yet",
                   "Wait with wait_available() first, or have an eventfd tell with notify()",
                   EINVAL);
}

/// A wait whose argument holds an absolute timeout, on the clock of Deadline: restarted calls need
/// not be told of the time that has passed.
int call_until(const Place& at, unsigned long request, void* argument, Deadline deadline) noexcept {
    int result = 0;
    do { // The kernel counts in jiffies: it may come back early.
        result = call(at, request, argument);
    } while (result != 0 && errno == ETIME && Deadline::clock::now() < deadline);
    return result;
}

std::int64_t timeout_of(Deadline deadline) noexcept {
    const auto since_boot = std::chrono::nanoseconds(deadline.time_since_epoch());
    return std::max<std::int64_t>(since_boot.count(), 0);
}

/// Waits until a fence was submitted for the point; on a device without timelines, where the kernel
/// cannot tell, until it has signalled too.
Result<void> wait_submitted(const Place& at, Deadline deadline) {
    int result = 0;
    if (at.device.caps.timeline) {
        // WAIT_AVAILABLE alone does not wake up for what is submitted later before 6.8.
        uapi::SyncobjTimelineWait request{.handles = address_of(&at.handle),
                                          .points = address_of(&at.point),
                                          .timeout_nsec = timeout_of(deadline),
                                          .count_handles = 1,
                                          .flags = uapi::wait_for_submit | uapi::wait_available,
                                          .first_signaled = 0,
                                          .pad = 0};
        result = call_until(at, uapi::syncobj_timeline_wait, &request, deadline);
    } else {
        uapi::SyncobjWait request{.handles = address_of(&at.handle),
                                  .timeout_nsec = timeout_of(deadline),
                                  .count_handles = 1,
                                  .flags = uapi::wait_for_submit,
                                  .first_signaled = 0,
                                  .pad = 0};
        result = call_until(at, uapi::syncobj_wait, &request, deadline);
    }
    if (result == 0)
        return {};
    if (errno != ETIME)
        return failed(at, errno, "the kernel did not wait");
    return refused(at, Errc::timed_out,
                   at.device.caps.timeline
                       ? "no fence was submitted for it until the deadline"
                       : "no fence was submitted for it, or it was pending, at the deadline",
                   "Allow more time, or find out why the work for it is not submitted", ETIME);
}

Result<std::uint64_t> query_point(const Place& at, std::uint32_t flags) {
    std::uint64_t point = 0;
    uapi::SyncobjTimelineArray request{.handles = address_of(&at.handle),
                                       .points = address_of(&point),
                                       .count_handles = 1,
                                       .flags = flags};
    if (call(at, uapi::syncobj_query, &request) != 0)
        return failed(at, errno, "the kernel does not tell its point");
    return point;
}

/// Whether a fence may be put at the point: the kernel takes points in any order and then tells
/// nonsense of those that went before.
Result<void> is_next_point(const Place& at) {
    if (at.point == 0)
        return {};
    auto last = query_point(at, uapi::query_last_submitted);
    if (!last)
        return tl::unexpected(std::move(last.error()));
    if (at.point > *last)
        return {};
    return refused(at, Errc::invalid_argument,
                   "point " + std::to_string(at.point) + " is not after point " +
                       std::to_string(*last) + ", the last one submitted",
                   "Submit points in growing order, which all who submit have agreed on");
}

Result<void> signal_point(const Place& at) {
    int result = 0;
    if (at.point == 0) {
        uapi::SyncobjArray request{.handles = address_of(&at.handle), .count_handles = 1, .pad = 0};
        result = call(at, uapi::syncobj_signal, &request);
    } else {
        uapi::SyncobjTimelineArray request{.handles = address_of(&at.handle),
                                           .points = address_of(&at.point),
                                           .count_handles = 1,
                                           .flags = 0};
        result = call(at, uapi::syncobj_timeline_signal, &request);
    }
    if (result != 0)
        return failed(at, errno, "the kernel did not signal it");
    return {};
}

/// Replaces what a binary object holds.
Result<void> import_sync_file(const Place& at, std::uint32_t handle, int fd) {
    uapi::SyncobjHandle request{
        .handle = handle, .flags = uapi::import_sync_file, .fd = fd, .pad = 0};
    if (call(at, uapi::syncobj_fd_to_handle, &request) == 0)
        return {};
    if (errno == EINVAL)
        return refused(at, Errc::wrong_object,
                       sys::describe_fd(fd) +
                           " was not taken as a fence: " + sys::errno_text(EINVAL),
                       "Keep the fence's fd open until it was imported", EINVAL);
    return failed(at, errno, "the kernel did not take " + sys::describe_fd(fd) + " as a fence");
}

/// What a member function works on, where it can.
Result<Place> place_of(const SyncobjDevice::State* device, std::uint32_t handle,
                       std::uint64_t point, const char* operation) {
    if (device == nullptr)
        return tl::unexpected(Error{.code = Errc::wrong_object,
                                    .operation = operation,
                                    .object = "no syncobj",
                                    .problem = "the object was moved from",
                                    .remedy = "Use the one that it was moved to"});
    const Place at{*device, handle, point, operation};
    if (point != 0 && !device->caps.timeline)
        return no_timelines(at, "Use one binary sync object per fence, at point 0");
    return at;
}

} // namespace

SyncobjDevice::SyncobjDevice(std::shared_ptr<const State> state) noexcept
    : state_(std::move(state)) {}

Result<SyncobjDevice> SyncobjDevice::wrap(int fd) noexcept {
    constexpr const char* operation = "SyncobjDevice::wrap";
    auto copy = UniqueFd::duplicate(fd);
    if (!copy)
        return tl::unexpected(std::move(copy.error()));
    const auto has = [&](std::uint64_t capability) {
        uapi::DrmGetCap request{.capability = capability, .value = 0};
        return sys::ioctl(copy->get(), uapi::get_cap, &request) == 0 ? request.value != 0 : false;
    };
    errno = 0;
    if (!has(uapi::cap_syncobj)) {
        const int error = errno;
        Error refusal{.code = Errc::unsupported,
                      .operation = operation,
                      .object = sys::describe_fd(fd),
                      .problem = "the driver has no sync objects (DRM_CAP_SYNCOBJ)",
                      .remedy = "Hand fences over as SyncFiles, or use another device's sync "
                                "objects: they take fences of any device",
                      .sys_errno = error};
        if (error == ENODEV) {
            refusal.code = Errc::device_lost;
            refusal.problem = "the device is gone: " + sys::errno_text(error);
            refusal.remedy = "Wrap another device";
        } else if (error != 0) {
            refusal.code = sys::code_of_wrong_object(error);
            refusal.problem = "is not a DRM device: " + sys::errno_text(error);
            refusal.remedy = "Open a /dev/dri/renderD* or /dev/dri/card* node, or pass a lease";
        }
        return tl::unexpected(std::move(refusal));
    }
    SyncobjCaps caps{.timeline = has(uapi::cap_syncobj_timeline)};
    // There is no handle 0. A kernel that knows the call says so; DRM answers EINVAL to one that it
    // does not know.
    uapi::SyncobjEventfd nobody{.handle = 0, .flags = 0, .point = 0, .fd = -1, .pad = 0};
    caps.eventfd = sys::ioctl(copy->get(), uapi::syncobj_eventfd, &nobody) != 0 && errno == ENOENT;
    return SyncobjDevice(std::make_shared<const State>(std::move(*copy), caps));
}

SyncobjCaps SyncobjDevice::caps() const noexcept {
    return state_->caps;
}

Syncobj::Syncobj(std::shared_ptr<const SyncobjDevice::State> device, std::uint32_t handle) noexcept
    : device_(std::move(device)), handle_(handle) {}

Syncobj::Syncobj(Syncobj&& other) noexcept
    : device_(std::move(other.device_)), handle_(std::exchange(other.handle_, 0)) {}

Syncobj& Syncobj::operator=(Syncobj&& other) noexcept {
    Syncobj old(std::move(other));
    std::swap(device_, old.device_);
    std::swap(handle_, old.handle_);
    return *this;
}

Syncobj::~Syncobj() {
    if (device_)
        destroy(*device_, handle_);
}

Result<Syncobj> Syncobj::create(const SyncobjDevice& device, const SyncobjInfo& info) noexcept {
    const Place at{*device.state_, 0, 0, "Syncobj::create"};
    auto handle = create_handle(at, info.signalled ? uapi::create_signalled : 0);
    if (!handle)
        return tl::unexpected(std::move(handle.error()));
    return Syncobj(device.state_, *handle);
}

Result<Syncobj> Syncobj::from_fd(const SyncobjDevice& device, UniqueFd&& fd) noexcept {
    const Place at{*device.state_, 0, 0, "Syncobj::from_fd"};
    uapi::SyncobjHandle request{.handle = 0, .flags = 0, .fd = fd.get(), .pad = 0};
    if (call(at, uapi::syncobj_fd_to_handle, &request) != 0) {
        const int error = errno;
        if (error == EINVAL)
            return refused(at, Errc::wrong_object,
                           sys::describe_fd(fd.get()) +
                               " is not a sync object's: " + sys::errno_text(error),
                           "Pass a fd that Syncobj::export_fd or another DRM user exported", error);
        return failed(at, error, "the kernel gave no handle for " + sys::describe_fd(fd.get()));
    }
    fd.reset();
    return Syncobj(device.state_, request.handle);
}

Result<UniqueFd> Syncobj::export_fd() const noexcept {
    const auto at = place_of(device_.get(), handle_, 0, "Syncobj::export_fd");
    if (!at)
        return tl::unexpected(at.error());
    uapi::SyncobjHandle request{.handle = handle_, .flags = 0, .fd = -1, .pad = 0};
    if (call(*at, uapi::syncobj_handle_to_fd, &request) != 0) {
        const int error = errno;
        auto refusal = failed(*at, error, "the kernel gave out no fd");
        // All that the kernel says EINVAL to here is a handle that is not there.
        if (error == EINVAL)
            refusal.value().code = Errc::wrong_object;
        return refusal;
    }
    return UniqueFd(std::move(request.fd));
}

Result<void> Syncobj::import_fence(const SyncFile& fence, std::uint64_t point) const noexcept {
    const auto at = place_of(device_.get(), handle_, point, "Syncobj::import_fence");
    if (!at)
        return tl::unexpected(at.error());
    if (auto next = is_next_point(*at); !next)
        return next;
    if (!fence.valid())
        return refused(*at, Errc::wrong_object, "the fence was moved from",
                       "Use the one that it was moved to");
    if (fence.fd() < 0)
        return signal_point(*at);
    if (point == 0)
        return import_sync_file(*at, handle_, fence.fd());
    FenceList list;
    if (const int error = list.read(fence.fd()); error != 0)
        return refused(*at, sys::code_of_wrong_object(error),
                       sys::describe_fd(fence.fd()) +
                           " cannot be asked for its fences: " + sys::errno_text(error),
                       "Keep the fence's fd open until it was imported", error);
    if (const int error = list.failure(); error != 0)
        return fence_failed(*at,
                            "the kernel would take " + sys::describe_fd(fence.fd()) +
                                " as signalled, but the work behind it has failed",
                            error);
    auto binary = Temporary::create(*at);
    if (!binary)
        return tl::unexpected(std::move(binary.error()));
    if (auto imported = import_sync_file(*at, binary->handle(), fence.fd()); !imported)
        return imported;
    uapi::SyncobjTransfer transfer{.src_handle = binary->handle(),
                                   .dst_handle = handle_,
                                   .src_point = 0,
                                   .dst_point = point,
                                   .flags = 0,
                                   .pad = 0};
    if (call(*at, uapi::syncobj_transfer, &transfer) != 0)
        return failed(*at, errno, "the kernel did not put the fence there");
    return {};
}

Result<SyncFile> Syncobj::export_fence(std::uint64_t point) const noexcept {
    const auto at = place_of(device_.get(), handle_, point, "Syncobj::export_fence");
    if (!at)
        return tl::unexpected(at.error());
    auto fence = export_point(*at);
    if (!fence)
        return tl::unexpected(std::move(fence.error()));
    if (!*fence)
        return nothing_submitted(*at);
    return std::move(**fence);
}

Result<void> Syncobj::wait(std::uint64_t point, Deadline deadline) const noexcept {
    const auto at = place_of(device_.get(), handle_, point, "Syncobj::wait");
    if (!at)
        return tl::unexpected(at.error());
    auto fence = export_point(*at);
    if (fence && !*fence) {
        if (auto submitted = wait_submitted(*at, deadline); !submitted)
            return submitted;
        fence = export_point(*at);
    }
    if (!fence)
        return tl::unexpected(std::move(fence.error()));
    if (!*fence)
        return nothing_submitted(*at); // reset by somebody else in between
    auto waited = (*fence)->wait(deadline);
    if (!waited) {
        waited.error().operation = at->operation;
        waited.error().object = describe(*at);
    }
    return waited;
}

Result<void> Syncobj::wait_available(std::uint64_t point, Deadline deadline) const noexcept {
    const auto at = place_of(device_.get(), handle_, point, "Syncobj::wait_available");
    if (!at)
        return tl::unexpected(at.error());
    if (!device_->caps.timeline)
        return no_timelines(*at, "Use wait(), which also waits for the fence itself");
    return wait_submitted(*at, deadline);
}

Result<void> Syncobj::signal(std::uint64_t point) const noexcept {
    const auto at = place_of(device_.get(), handle_, point, "Syncobj::signal");
    if (!at)
        return tl::unexpected(at.error());
    if (auto next = is_next_point(*at); !next)
        return next;
    return signal_point(*at);
}

Result<void> Syncobj::reset() const noexcept {
    const auto at = place_of(device_.get(), handle_, 0, "Syncobj::reset");
    if (!at)
        return tl::unexpected(at.error());
    uapi::SyncobjArray request{.handles = address_of(&handle_), .count_handles = 1, .pad = 0};
    if (call(*at, uapi::syncobj_reset, &request) != 0)
        return failed(*at, errno, "the kernel did not reset it");
    return {};
}

Result<std::uint64_t> Syncobj::query() const noexcept {
    const auto at = place_of(device_.get(), handle_, 0, "Syncobj::query");
    if (!at)
        return tl::unexpected(at.error());
    if (!device_->caps.timeline)
        return no_timelines(*at, "Use wait() with a deadline that has passed");
    return query_point(*at, 0);
}

Result<std::uint64_t> Syncobj::query_submitted() const noexcept {
    const auto at = place_of(device_.get(), handle_, 0, "Syncobj::query_submitted");
    if (!at)
        return tl::unexpected(at.error());
    if (!device_->caps.timeline)
        return no_timelines(*at, "Use export_fence(), which refuses where there is no fence");
    return query_point(*at, uapi::query_last_submitted);
}

Result<void> Syncobj::notify(std::uint64_t point, SyncobjEvent event, int eventfd) const noexcept {
    const auto at = place_of(device_.get(), handle_, point, "Syncobj::notify");
    if (!at)
        return tl::unexpected(at.error());
    if (!device_->caps.eventfd)
        return refused(*at, Errc::unsupported,
                       "this kernel or driver tells no eventfds (DRM_IOCTL_SYNCOBJ_EVENTFD, Linux "
                       "6.6, drivers with timelines)",
                       "Wait in a thread, or poll the fd of export_fence() once there is one");
    uapi::SyncobjEventfd request{.handle = handle_,
                                 .flags =
                                     event == SyncobjEvent::available ? uapi::wait_available : 0,
                                 .point = point,
                                 .fd = eventfd,
                                 .pad = 0};
    if (call(*at, uapi::syncobj_eventfd, &request) == 0)
        return {};
    const int error = errno;
    if (error == EBADF || error == EINVAL)
        return refused(*at, Errc::wrong_object,
                       sys::describe_fd(eventfd) + " is not an eventfd: " + sys::errno_text(error),
                       "Pass an eventfd(2) that is open", error);
    return failed(*at, error, "the kernel did not take " + sys::describe_fd(eventfd));
}

} // namespace sluice
