// SPDX-License-Identifier: MIT
/// \file
/// DRM sync objects: places that fences are put into, by drivers and by hand, and waited for, even
/// before there is one. Compositors, Vulkan drivers and KMS hand them around instead of fences.
///
/// A binary one holds one fence, at point 0, or none. A timeline has a fence at each of its points,
/// numbers that grow; a point has signalled once it and all before it have. The kernel does not
/// tell the two apart: what is done to point 0 replaces everything that the object held.
///
/// Sources: drm/drm.h and the kernel's "DRM Sync Objects" (drivers/gpu/drm/drm_syncobj.c).
#pragma once

#include <cstdint>
#include <memory>

#include <sluice/deadline.hpp>
#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/sync_file.hpp>
#include <sluice/unique_fd.hpp>

namespace sluice {

/// What a device's sync objects can do, found by asking and trying when it is wrapped.
struct SyncobjCaps {
    /// Points other than 0, `query()` and `wait_available()` (DRM_CAP_SYNCOBJ_TIMELINE).
    bool timeline = false;
    /// `notify()` (DRM_IOCTL_SYNCOBJ_EVENTFD, Linux 6.6).
    bool eventfd = false;
};

/// A handle on the DRM device that sync objects live in; copies mean the same one.
///
/// Threads: may be used, and copied, by several threads at once.
class SLUICE_API SyncobjDevice {
public:
    /// Wraps the device behind \p fd (a primary node, a render node or a DRM lease), which stays
    /// the caller's; a duplicate is kept until the last object that was made of it is gone.
    /// \returns the device, or
    ///   - `wrong_object`: closed, or not a DRM device;
    ///   - `unsupported`: its driver has no sync objects (DRM_CAP_SYNCOBJ): hand fences around as
    ///     `SyncFile`s, or use another device's sync objects: their fences may be anyone's;
    ///   - `device_lost`: the device has been unplugged;
    ///   - `no_resources`: no fd left.
    [[nodiscard]] static Result<SyncobjDevice> wrap(int fd) noexcept;

    // Copies only: a handle that was moved from would have to be checked everywhere.
    SyncobjDevice(const SyncobjDevice&) noexcept = default;
    SyncobjDevice& operator=(const SyncobjDevice&) noexcept = default;
    ~SyncobjDevice() = default;

    [[nodiscard]] SyncobjCaps caps() const noexcept;

    struct State; ///< Not part of the API.

private:
    friend class Syncobj;
    explicit SyncobjDevice(std::shared_ptr<const State> state) noexcept;

    std::shared_ptr<const State> state_;
};

/// How a sync object starts.
struct SyncobjInfo {
    bool signalled = false; ///< With a signalled fence at point 0 instead of none.
};

/// What `Syncobj::notify` tells of.
enum class SyncobjEvent : std::uint8_t {
    signalled, ///< The point's fence has signalled, or failed: ask `wait()` which.
    available, ///< Somebody has submitted a fence for the point.
};

/// Owns one handle of a sync object, which lives on while anyone, here or in another process, has a
/// handle or a fd of it. One that was moved from refuses everything with `wrong_object`.
///
/// Handles belong to the open file behind the device's fd: every duplicate of that fd sees them,
/// also a child's after fork(). A child that destroys its copy of a Syncobj takes the handle away
/// from its parent, so it leaves by exec or _exit; what both need goes over as a fd.
///
/// Threads: the const functions may be called from several threads at once; the kernel puts them
/// into an order. Whoever submits points of one timeline has to agree on theirs with the others.
///
/// Errors that each function can give, besides its own:
///   - `wrong_object`: moved from, or the handle was destroyed behind our back;
///   - `unsupported`: a point other than 0 on a device without timelines (`SyncobjCaps`): use one
///     binary object per fence;
///   - `no_resources`: no memory or fd left;
///   - `device_lost`: the device has been unplugged.
class SLUICE_API Syncobj {
public:
    /// A new sync object (DRM_IOCTL_SYNCOBJ_CREATE).
    [[nodiscard]] static Result<Syncobj> create(const SyncobjDevice& device,
                                                const SyncobjInfo& info = {}) noexcept;

    /// The sync object behind \p fd, which any DRM device exported
    /// (DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE). Importing one twice gives two handles, each with an owner
    /// of its own. \param fd taken over, and closed, on success; on failure it stays the caller's.
    /// \returns the object, or `wrong_object`: no fd, a closed one, or no sync object's. A
    /// sync_file
    ///   is none: see `import_fence`.
    [[nodiscard]] static Result<Syncobj> from_fd(const SyncobjDevice& device,
                                                 UniqueFd&& fd) noexcept;

    Syncobj(Syncobj&& other) noexcept;
    Syncobj& operator=(Syncobj&& other) noexcept;
    Syncobj(const Syncobj&) = delete;
    Syncobj& operator=(const Syncobj&) = delete;
    ~Syncobj();

    /// The handle, still owned here, for the ioctls of the device's own driver; 0 once moved from.
    [[nodiscard]] std::uint32_t handle() const noexcept { return handle_; }

    /// A fd of the same object for another process or device (DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD). The
    /// kernel makes it close-on-exec. It always polls as ready: for event loops see `notify`.
    [[nodiscard]] Result<UniqueFd> export_fd() const noexcept;

    /// Puts \p fence at \p point. At point 0 it replaces everything, at others it comes after all
    /// points before it. Whoever waits for the point goes on to wait for the fence.
    /// \param fence borrowed; one without a fd (see `SyncFile::signalled`) signals the point.
    /// \returns nothing, or
    ///   - `invalid_argument`: \p point is not after the last one submitted. The kernel would take
    ///     it, and lose the order of the points;
    ///   - `fence_failed`: \p fence has failed already and \p point is not 0. The kernel would take
    ///     it for a signalled one, so nothing was submitted; `signal()` lets the waiters go on if
    ///     that is wanted. A fence that fails in the microseconds between this check and the
    ///     kernel's own look at it counts as signalled all the same. One that fails later, and any
    ///     at point 0, is told of by `wait` and `export_fence`;
    ///   - `wrong_object`: also where \p fence was closed behind our back.
    [[nodiscard]] Result<void> import_fence(const SyncFile& fence,
                                            std::uint64_t point = 0) const noexcept;

    /// The fence at \p point as a sync_file, for a device that takes only those. A snapshot: what
    /// is submitted later is not in it. It has signalled once \p point and all before it have, and
    /// has failed where one of those that are still to come fails. Point 0 gives what a binary
    /// object holds, failed or not; on a timeline ask for points. \returns a new fence, or
    ///   - `busy`: nothing was submitted for \p point yet: `wait_available` first;
    ///   - `fence_failed`: the work behind \p point (other than 0) has failed already, with the
    ///     errno in `Error::sys_errno`. A sync_file of it would be lost on who gets it.
    ///
    /// What the kernel forgets, nobody can tell: once a later point was submitted, a point that has
    /// failed before it is asked for is a signalled one. Export it while it is pending, or wait for
    /// it from before then. Kernels before 5.19 keep no error of timeline points at all.
    [[nodiscard]] Result<SyncFile> export_fence(std::uint64_t point = 0) const noexcept;

    /// Waits on the CPU, until \p deadline at most, for a fence to be submitted at \p point and
    /// then to signal. The kernel's own wait takes a failed fence for a signalled one; this is
    /// `export_fence` and `SyncFile::wait`, and sees what they see.
    /// \returns nothing once it has signalled, or
    ///   - `timed_out`: the message says whether a fence was there;
    ///   - `fence_failed`: the work ended with an error, in `Error::sys_errno`.
    [[nodiscard]] Result<void> wait(std::uint64_t point, Deadline deadline) const noexcept;

    /// Waits on the CPU, until \p deadline at most, for somebody to submit a fence at \p point or
    /// after it, signalled or not (DRM_SYNCOBJ_WAIT_FLAGS_WAIT_AVAILABLE).
    /// \returns nothing once it is there, or
    ///   - `timed_out`: there was none at the deadline;
    ///   - `unsupported`: a device without timelines, also for point 0: `wait` for the fence.
    [[nodiscard]] Result<void> wait_available(std::uint64_t point,
                                              Deadline deadline) const noexcept;

    /// Puts a signalled fence at \p point, from the CPU.
    /// \returns also `invalid_argument`, as `import_fence` does.
    [[nodiscard]] Result<void> signal(std::uint64_t point = 0) const noexcept;

    /// Takes out everything that the object holds. Who has begun to wait for a fence stays with it.
    [[nodiscard]] Result<void> reset() const noexcept;

    /// The last point that has signalled, or failed; 0 where none has, and for a binary object.
    /// \returns also `unsupported`: a device without timelines.
    [[nodiscard]] Result<std::uint64_t> query() const noexcept;

    /// The last point that a fence was submitted for; 0 where there is none.
    /// \returns also `unsupported`: a device without timelines.
    [[nodiscard]] Result<std::uint64_t> query_submitted() const noexcept;

    /// Has the kernel add 1 to \p eventfd once \p event has happened at \p point, at once where it
    /// has already, so that an event loop can wait for fences that are still to be submitted.
    /// \param eventfd borrowed for the call; the kernel keeps a reference to its file. An object
    ///   that goes away before a fence was submitted never adds anything.
    /// \returns nothing, or
    ///   - `unsupported`: a kernel before 6.6 or a device without timelines: wait for the point in
    ///     a thread, or export its fence and poll that;
    ///   - `wrong_object`: also where \p eventfd is closed or none.
    [[nodiscard]] Result<void> notify(std::uint64_t point, SyncobjEvent event,
                                      int eventfd) const noexcept;

private:
    Syncobj(std::shared_ptr<const SyncobjDevice::State> device, std::uint32_t handle) noexcept;

    std::shared_ptr<const SyncobjDevice::State> device_;
    std::uint32_t handle_ = 0;
};

} // namespace sluice
