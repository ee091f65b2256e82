// SPDX-License-Identifier: MIT
#include <sluice/syncobj.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <drm.h>
#include <fcntl.h>
#include <linux/sync_file.h>
#include <sys/eventfd.h>

#include "core/syncobj_uapi.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/scripted_libc.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::ScriptedLibc;

// Our own copy of the kernel's interface against libdrm's. The waits of newer ones are longer.
#define SAME_FIELD(ours, theirs, field)                                                            \
    static_assert(offsetof(uapi::ours, field) == offsetof(theirs, field) &&                        \
                  sizeof(uapi::ours::field) == sizeof(theirs::field))
static_assert(uapi::get_cap == DRM_IOCTL_GET_CAP);
static_assert(uapi::syncobj_create == DRM_IOCTL_SYNCOBJ_CREATE);
static_assert(uapi::syncobj_destroy == DRM_IOCTL_SYNCOBJ_DESTROY);
static_assert(_IOC_NR(uapi::syncobj_handle_to_fd) == _IOC_NR(DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD));
static_assert(_IOC_NR(uapi::syncobj_fd_to_handle) == _IOC_NR(DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE));
static_assert(_IOC_NR(uapi::syncobj_wait) == _IOC_NR(DRM_IOCTL_SYNCOBJ_WAIT));
static_assert(uapi::syncobj_reset == DRM_IOCTL_SYNCOBJ_RESET);
static_assert(uapi::syncobj_signal == DRM_IOCTL_SYNCOBJ_SIGNAL);
static_assert(_IOC_NR(uapi::syncobj_timeline_wait) == _IOC_NR(DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT));
static_assert(uapi::syncobj_query == DRM_IOCTL_SYNCOBJ_QUERY);
static_assert(uapi::syncobj_transfer == DRM_IOCTL_SYNCOBJ_TRANSFER);
static_assert(uapi::syncobj_timeline_signal == DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL);
static_assert(uapi::cap_syncobj == DRM_CAP_SYNCOBJ);
static_assert(uapi::cap_syncobj_timeline == DRM_CAP_SYNCOBJ_TIMELINE);
static_assert(uapi::create_signalled == DRM_SYNCOBJ_CREATE_SIGNALED);
static_assert(uapi::import_sync_file == DRM_SYNCOBJ_FD_TO_HANDLE_FLAGS_IMPORT_SYNC_FILE);
static_assert(uapi::export_sync_file == DRM_SYNCOBJ_HANDLE_TO_FD_FLAGS_EXPORT_SYNC_FILE);
static_assert(uapi::wait_for_submit == DRM_SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT);
static_assert(uapi::wait_available == DRM_SYNCOBJ_WAIT_FLAGS_WAIT_AVAILABLE);
static_assert(uapi::query_last_submitted == DRM_SYNCOBJ_QUERY_FLAGS_LAST_SUBMITTED);
SAME_FIELD(SyncobjCreate, drm_syncobj_create, handle);
SAME_FIELD(SyncobjCreate, drm_syncobj_create, flags);
SAME_FIELD(SyncobjHandle, drm_syncobj_handle, handle);
SAME_FIELD(SyncobjHandle, drm_syncobj_handle, flags);
SAME_FIELD(SyncobjHandle, drm_syncobj_handle, fd);
SAME_FIELD(SyncobjHandle, drm_syncobj_handle, pad);
SAME_FIELD(SyncobjTransfer, drm_syncobj_transfer, src_handle);
SAME_FIELD(SyncobjTransfer, drm_syncobj_transfer, dst_handle);
SAME_FIELD(SyncobjTransfer, drm_syncobj_transfer, src_point);
SAME_FIELD(SyncobjTransfer, drm_syncobj_transfer, dst_point);
SAME_FIELD(SyncobjTransfer, drm_syncobj_transfer, flags);
SAME_FIELD(SyncobjTransfer, drm_syncobj_transfer, pad);
SAME_FIELD(SyncobjWait, drm_syncobj_wait, handles);
SAME_FIELD(SyncobjWait, drm_syncobj_wait, timeout_nsec);
SAME_FIELD(SyncobjWait, drm_syncobj_wait, count_handles);
SAME_FIELD(SyncobjWait, drm_syncobj_wait, flags);
SAME_FIELD(SyncobjTimelineWait, drm_syncobj_timeline_wait, handles);
SAME_FIELD(SyncobjTimelineWait, drm_syncobj_timeline_wait, points);
SAME_FIELD(SyncobjTimelineWait, drm_syncobj_timeline_wait, timeout_nsec);
SAME_FIELD(SyncobjTimelineWait, drm_syncobj_timeline_wait, count_handles);
SAME_FIELD(SyncobjTimelineWait, drm_syncobj_timeline_wait, flags);
SAME_FIELD(SyncobjArray, drm_syncobj_array, handles);
SAME_FIELD(SyncobjArray, drm_syncobj_array, count_handles);
SAME_FIELD(SyncobjTimelineArray, drm_syncobj_timeline_array, handles);
SAME_FIELD(SyncobjTimelineArray, drm_syncobj_timeline_array, points);
SAME_FIELD(SyncobjTimelineArray, drm_syncobj_timeline_array, count_handles);
SAME_FIELD(SyncobjTimelineArray, drm_syncobj_timeline_array, flags);
#ifdef DRM_IOCTL_SYNCOBJ_EVENTFD
static_assert(uapi::syncobj_eventfd == DRM_IOCTL_SYNCOBJ_EVENTFD);
SAME_FIELD(SyncobjEventfd, drm_syncobj_eventfd, handle);
SAME_FIELD(SyncobjEventfd, drm_syncobj_eventfd, flags);
SAME_FIELD(SyncobjEventfd, drm_syncobj_eventfd, point);
SAME_FIELD(SyncobjEventfd, drm_syncobj_eventfd, fd);
#endif

template <typename T> T at(std::uint64_t address) {
    return *reinterpret_cast<const T*>(static_cast<std::uintptr_t>(address));
}

/// A DRM device that plays its part for every fd: handles that can be counted, fences that are
/// eventfds, and calls that fail when told to.
class FakeDrm {
public:
    FakeDrm() {
        libc_.ioctl = [this](int fd, unsigned long request, void* argument) {
            return ioctl(fd, request, argument);
        };
    }

    bool syncobj = true;
    bool timeline = true;
    int eventfd_probe = ENOENT;    ///< What the eventfd call says to handle 0.
    bool ready = true;             ///< Whether the fences that are given out poll as ready.
    std::vector<int> fences = {1}; ///< The states in a sync_file.
    std::uint64_t submitted = 0;

    int fail_at = -1;  ///< The call, counted from now on and without destroys, that fails,
    int fail_with = 0; ///< and its errno.

    unsigned long failed = 0; ///< The request that did.

    std::vector<unsigned long> calls; ///< Every request since it was cleared.
    std::multiset<std::uint32_t> handles;
    std::vector<std::uint32_t> flags; ///< Of every call that has some.
    std::int64_t timeout = -1;
    std::uint64_t point = 0;
    std::uint32_t destroyed_unknown = 0;

    [[nodiscard]] bool called(unsigned long request) const {
        return std::find(calls.begin(), calls.end(), request) != calls.end();
    }
    void forget() {
        calls.clear();
        flags.clear();
        failed = 0;
        counted_ = 0;
    }

private:
    static int refuse(int error) {
        errno = error;
        return -1;
    }
    int file_info(sync_file_info& info) const {
        if (info.num_fences != 0 && info.num_fences < fences.size())
            return refuse(EINVAL);
        auto* list =
            reinterpret_cast<sync_fence_info*>(static_cast<std::uintptr_t>(info.sync_fence_info));
        info.status = 1; // as a dma_fence_chain has it
        if (fences.size() == 1)
            info.status = fences[0];
        for (std::size_t i = 0; info.num_fences != 0 && i < fences.size(); ++i)
            list[i].status = fences[i];
        info.num_fences = static_cast<__u32>(fences.size());
        return 0;
    }
    int ioctl(int fd, unsigned long request, void* argument) {
        calls.push_back(request);
        if (request == uapi::syncobj_destroy) {
            const auto* destroy = static_cast<uapi::SyncobjDestroy*>(argument);
            EXPECT_EQ(destroy->pad, 0U);
            const auto found = handles.find(destroy->handle);
            if (found == handles.end()) {
                ++destroyed_unknown;
                return refuse(EINVAL);
            }
            handles.erase(found);
            return refuse(EIO); // nobody may care, nor see errno change
        }
        if (counted_++ == fail_at) {
            failed = request;
            return refuse(fail_with);
        }
        const auto known = [&](std::uint32_t handle) { return handles.count(handle) == 1; };
        switch (request) {
        case uapi::get_cap: {
            auto* cap = static_cast<uapi::DrmGetCap*>(argument);
            EXPECT_EQ(cap->value, 0U);
            cap->value = cap->capability == uapi::cap_syncobj ? syncobj : timeline;
            return 0;
        }
        case uapi::syncobj_create: {
            auto* create = static_cast<uapi::SyncobjCreate*>(argument);
            flags.push_back(create->flags);
            create->handle = next_++;
            handles.insert(create->handle);
            return 0;
        }
        case uapi::syncobj_handle_to_fd: {
            auto* out = static_cast<uapi::SyncobjHandle*>(argument);
            EXPECT_TRUE(known(out->handle));
            EXPECT_EQ(out->pad, 0U);
            flags.push_back(out->flags);
            out->fd = eventfd(ready ? 1 : 0, EFD_CLOEXEC);
            return 0;
        }
        case uapi::syncobj_fd_to_handle: {
            auto* in = static_cast<uapi::SyncobjHandle*>(argument);
            EXPECT_EQ(in->pad, 0U);
            flags.push_back(in->flags);
            if (in->flags == 0) {
                in->handle = next_++;
                handles.insert(in->handle);
            } else {
                EXPECT_TRUE(known(in->handle));
            }
            return fcntl(in->fd, F_GETFD) < 0 ? refuse(EINVAL) : 0;
        }
        case uapi::syncobj_transfer: {
            const auto* transfer = static_cast<uapi::SyncobjTransfer*>(argument);
            EXPECT_TRUE(known(transfer->src_handle) && known(transfer->dst_handle));
            EXPECT_NE(transfer->src_handle, transfer->dst_handle);
            EXPECT_EQ(transfer->pad, 0U);
            EXPECT_EQ(transfer->flags, 0U);
            EXPECT_NE(transfer->src_point == 0, transfer->dst_point == 0);
            point = transfer->src_point | transfer->dst_point;
            return 0;
        }
        case uapi::syncobj_wait: {
            const auto* wait = static_cast<uapi::SyncobjWait*>(argument);
            EXPECT_EQ(wait->count_handles, 1U);
            EXPECT_EQ(wait->pad, 0U);
            EXPECT_TRUE(known(at<std::uint32_t>(wait->handles)));
            flags.push_back(wait->flags);
            timeout = wait->timeout_nsec;
            return 0;
        }
        case uapi::syncobj_timeline_wait: {
            const auto* wait = static_cast<uapi::SyncobjTimelineWait*>(argument);
            EXPECT_EQ(wait->count_handles, 1U);
            EXPECT_EQ(wait->pad, 0U);
            EXPECT_TRUE(known(at<std::uint32_t>(wait->handles)));
            flags.push_back(wait->flags);
            timeout = wait->timeout_nsec;
            point = at<std::uint64_t>(wait->points);
            return 0;
        }
        case uapi::syncobj_reset:
        case uapi::syncobj_signal: {
            const auto* array = static_cast<uapi::SyncobjArray*>(argument);
            EXPECT_EQ(array->count_handles, 1U);
            EXPECT_EQ(array->pad, 0U);
            EXPECT_TRUE(known(at<std::uint32_t>(array->handles)));
            return 0;
        }
        case uapi::syncobj_query:
        case uapi::syncobj_timeline_signal: {
            const auto* array = static_cast<uapi::SyncobjTimelineArray*>(argument);
            EXPECT_EQ(array->count_handles, 1U);
            EXPECT_TRUE(known(at<std::uint32_t>(array->handles)));
            flags.push_back(array->flags);
            if (request == uapi::syncobj_query)
                *reinterpret_cast<std::uint64_t*>(static_cast<std::uintptr_t>(array->points)) =
                    submitted;
            else
                point = at<std::uint64_t>(array->points);
            return 0;
        }
        case uapi::syncobj_eventfd: {
            const auto* event = static_cast<uapi::SyncobjEventfd*>(argument);
            EXPECT_EQ(event->pad, 0U);
            flags.push_back(event->flags);
            point = event->point;
            if (event->handle == 0)
                return refuse(eventfd_probe);
            EXPECT_TRUE(known(event->handle));
            return 0;
        }
        case SYNC_IOC_MERGE: {
            auto* merge = static_cast<sync_merge_data*>(argument);
            EXPECT_EQ(merge->fd2, fd);
            EXPECT_EQ(merge->flags | merge->pad, 0U);
            merge->fence = eventfd(ready ? 1 : 0, EFD_CLOEXEC);
            return 0;
        }
        case SYNC_IOC_FILE_INFO:
            return file_info(*static_cast<sync_file_info*>(argument));
        default:
            ADD_FAILURE() << "unexpected request " << request;
            return refuse(ENOTTY);
        }
    }

    ScriptedLibc libc_;
    std::uint32_t next_ = 1;
    int counted_ = 0;
};

class SyncobjTest : public test::FdTest {
protected:
    void TearDown() override {
        EXPECT_TRUE(drm.handles.empty()) << drm.handles.size() << " handles leaked";
        EXPECT_EQ(drm.destroyed_unknown, 0U) << "a handle was destroyed twice";
        FdTest::TearDown();
    }

    /// A device of what `drm` says at the time.
    static SyncobjDevice device() {
        auto wrapped = SyncobjDevice::wrap(UniqueFd(test::memfd(0)).get());
        EXPECT_TRUE(wrapped) << wrapped.error().message();
        return *wrapped;
    }
    /// A sync object, after which the calls are counted anew.
    Syncobj create(SyncobjInfo info = {}) {
        auto object = Syncobj::create(device(), info);
        EXPECT_TRUE(object) << object.error().message();
        drm.forget();
        return std::move(*object);
    }
    /// A fence that the fake kernel knows.
    static SyncFile fence() {
        auto made = SyncFile::from_fd(UniqueFd(eventfd(1, EFD_CLOEXEC)));
        EXPECT_TRUE(made);
        return std::move(*made);
    }

    FakeDrm drm;
};

template <typename T> std::optional<Error> error_of(const Result<T>& result) {
    return result ? std::nullopt : std::optional<Error>(result.error());
}

TEST_F(SyncobjTest, CapabilitiesAreFoundByAskingAndTrying) {
    for (const bool timeline : {false, true})
        for (const int probe : {ENOENT, EINVAL, EOPNOTSUPP, ENOTTY}) {
            drm.timeline = timeline;
            drm.eventfd_probe = probe;
            drm.forget();
            const SyncobjDevice wrapped = device();
            EXPECT_EQ(wrapped.caps().timeline, timeline);
            EXPECT_EQ(wrapped.caps().eventfd, probe == ENOENT);
            EXPECT_EQ(drm.calls, (std::vector<unsigned long>{uapi::get_cap, uapi::get_cap,
                                                             uapi::syncobj_eventfd}));
        }
}

TEST_F(SyncobjTest, ADriverWithoutThemIsRefused) {
    drm.syncobj = false;
    const UniqueFd node = test::memfd(0);
    auto refused = SyncobjDevice::wrap(node.get());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::unsupported);
    EXPECT_NE(refused.error().message().find("DRM_CAP_SYNCOBJ"), std::string::npos);
}

TEST_F(SyncobjTest, WhatIsNoDeviceIsRefused) {
    const UniqueFd node = test::memfd(0);
    for (const int error : {ENOTTY, EINVAL, EOPNOTSUPP, ENODEV}) {
        drm.forget();
        drm.fail_at = 0;
        drm.fail_with = error;
        auto refused = SyncobjDevice::wrap(node.get());
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, error == ENODEV ? Errc::device_lost : Errc::wrong_object);
        EXPECT_EQ(refused.error().sys_errno, error);
    }
    auto none = SyncobjDevice::wrap(-1);
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code, Errc::wrong_object);
}

TEST_F(SyncobjTest, TheDeviceLivesAsLongAsItsObjects) {
    const std::size_t before = test::open_fds().size();
    {
        const Syncobj object = create(); // the node and the device are gone
        EXPECT_EQ(test::open_fds().size(), before + 1);
        EXPECT_TRUE(object.signal());
    }
    EXPECT_EQ(test::open_fds().size(), before);
}

TEST_F(SyncobjTest, HandlesAreDestroyedOnce) {
    Syncobj a = create();
    Syncobj b = create({.signalled = true});
    EXPECT_EQ(drm.handles.size(), 2U);
    const std::uint32_t kept = b.handle();
    errno = EDOM;
    a = std::move(b);
    EXPECT_EQ(errno, EDOM);
    EXPECT_EQ(drm.handles, std::multiset<std::uint32_t>{kept});
    Syncobj& same = a;
    a = std::move(same);
    EXPECT_EQ(a.handle(), kept);
    const Syncobj c(std::move(a));
    EXPECT_EQ(c.handle(), kept);
    EXPECT_EQ(drm.handles.size(), 1U);
}

TEST_F(SyncobjTest, SignalledFromTheStartIsAFlag) {
    const SyncobjDevice made_of = device();
    drm.forget();
    ASSERT_TRUE(Syncobj::create(made_of));
    ASSERT_TRUE(Syncobj::create(made_of, {.signalled = true}));
    EXPECT_EQ(drm.flags, (std::vector<std::uint32_t>{0, uapi::create_signalled}));
}

/// Every operation at a point, by name, on an object that is not empty.
struct Operation {
    const char* name;
    std::function<std::optional<Error>(const Syncobj&)> run;
    bool makes_fence = false; ///< With a call of its own before.
};

std::vector<Operation> operations(std::uint64_t point) {
    std::vector<Operation> all = {
        {"Syncobj::import_fence",
         [=](const Syncobj& object) {
             auto fence = SyncFile::from_fd(UniqueFd(eventfd(1, EFD_CLOEXEC)));
             return fence ? error_of(object.import_fence(*fence, point)) : fence.error();
         },
         true},
        {"Syncobj::import_fence",
         [=](const Syncobj& object) {
             return error_of(object.import_fence(SyncFile::signalled(), point));
         }},
        {"Syncobj::export_fence",
         [=](const Syncobj& object) { return error_of(object.export_fence(point)); }},
        {"Syncobj::wait",
         [=](const Syncobj& object) { return error_of(object.wait(point, deadline_in(0s))); }},
        {"Syncobj::signal", [=](const Syncobj& object) { return error_of(object.signal(point)); }},
        {"Syncobj::wait_available",
         [=](const Syncobj& object) {
             return error_of(object.wait_available(point, deadline_in(0s)));
         }},
        {"Syncobj::notify",
         [=](const Syncobj& object) {
             const UniqueFd event(eventfd(0, EFD_CLOEXEC));
             return error_of(object.notify(point, SyncobjEvent::signalled, event.get()));
         }},
    };
    if (point == 0) {
        all.push_back({"Syncobj::export_fd",
                       [](const Syncobj& object) { return error_of(object.export_fd()); }});
        all.push_back(
            {"Syncobj::reset", [](const Syncobj& object) { return error_of(object.reset()); }});
        all.push_back(
            {"Syncobj::query", [](const Syncobj& object) { return error_of(object.query()); }});
        all.push_back({"Syncobj::query_submitted",
                       [](const Syncobj& object) { return error_of(object.query_submitted()); }});
    }
    return all;
}

TEST_F(SyncobjTest, EveryOperationSucceedsAndLeavesNothingBehind) {
    for (const std::uint64_t point : {0U, 5U})
        for (const Operation& operation : operations(point)) {
            const Syncobj object = create();
            drm.submitted = 4;
            drm.point = 0;
            const auto error = operation.run(object);
            EXPECT_FALSE(error) << operation.name << ": " << error->message();
            EXPECT_EQ(drm.point, point) << operation.name;
            EXPECT_EQ(drm.handles.size(), 1U) << operation.name;
        }
}

TEST_F(SyncobjTest, EveryCallOfEveryOperationMayFail) {
    const std::map<int, Errc> meanings = {
        {ENOMEM, Errc::no_resources}, {EMFILE, Errc::no_resources}, {ENODEV, Errc::device_lost},
        {ENOENT, Errc::wrong_object}, {EPERM, Errc::no_permission}, {EIO, Errc::failed}};
    for (const auto& [error, meaning] : meanings)
        for (const std::uint64_t point : {0U, 5U})
            for (const Operation& operation : operations(point))
                for (int call = 0;; ++call) {
                    const Syncobj object = create();
                    drm.fail_at = call;
                    drm.fail_with = error;
                    const auto failure = operation.run(object);
                    drm.fail_at = -1;
                    if (drm.failed == 0)
                        break;
                    // The making of the fence that an import takes is not the operation.
                    if (operation.makes_fence && call == 0)
                        continue;
                    ASSERT_TRUE(failure) << operation.name << " does not care about call " << call;
                    const std::string text = failure->message();
                    EXPECT_EQ(failure->operation, operation.name) << text;
                    EXPECT_NE(failure->object.find("syncobj " + std::to_string(object.handle())),
                              std::string::npos)
                        << text;
                    EXPECT_FALSE(failure->remedy.empty()) << text;
                    EXPECT_EQ(failure->sys_errno, error) << text;
                    if (drm.failed != SYNC_IOC_FILE_INFO) {
                        EXPECT_EQ(failure->code, meaning) << text;
                    }
                    EXPECT_EQ(drm.handles.size(), 1U) << text;
                }
}

TEST_F(SyncobjTest, HowManyCallsMayFailIsKnown) {
    // So that the test before this one cannot pass by missing some.
    const auto failures = [&](const Operation& operation) {
        int count = 0;
        for (int call = 0; call < 20; ++call) {
            const Syncobj object = create();
            drm.fail_at = call;
            drm.fail_with = EIO;
            count += operation.run(object).has_value();
            drm.fail_at = -1;
        }
        return count;
    };
    const auto at_zero = operations(0);
    const auto at_point = operations(5);
    EXPECT_EQ(failures(at_zero[0]), 2) << "(the fence's own), import";
    EXPECT_EQ(failures(at_zero[1]), 1) << "signal";
    EXPECT_EQ(failures(at_zero[2]), 1) << "export";
    EXPECT_EQ(failures(at_zero[3]), 2) << "export, info";
    EXPECT_EQ(failures(at_point[0]), 6) << "(own), query, info, create, import, transfer";
    EXPECT_EQ(failures(at_point[1]), 2) << "query, signal";
    EXPECT_EQ(failures(at_point[2]), 5) << "create, transfer, export, merge, info";
    EXPECT_EQ(failures(at_point[3]), 6) << "and info";
}

TEST_F(SyncobjTest, CreateAndFromFdMayFail) {
    const SyncobjDevice made_of = device();
    for (const int error : {ENOMEM, EMFILE, EINVAL, ENODEV, ENOSPC}) {
        drm.forget();
        drm.fail_at = 0;
        drm.fail_with = error;
        auto object = Syncobj::create(made_of);
        ASSERT_FALSE(object);
        EXPECT_EQ(object.error().sys_errno, error);
        drm.forget();
        UniqueFd fd = test::memfd(0);
        auto imported = Syncobj::from_fd(made_of, std::move(fd));
        ASSERT_FALSE(imported);
        EXPECT_TRUE(fd) << "it stays with the caller";
        EXPECT_EQ(imported.error().code == Errc::wrong_object, error == EINVAL);
    }
    drm.fail_at = -1;
    UniqueFd fd = test::memfd(0);
    auto imported = Syncobj::from_fd(made_of, std::move(fd));
    ASSERT_TRUE(imported);
    EXPECT_FALSE(fd);
    EXPECT_EQ(drm.flags.back(), 0U);
}

TEST_F(SyncobjTest, AHandleThatIsGoneIsTheWrongObject) {
    const Syncobj object = create();
    drm.fail_at = 0;
    drm.fail_with = EINVAL; // what this one call says for it
    auto fd = object.export_fd();
    ASSERT_FALSE(fd);
    EXPECT_EQ(fd.error().code, Errc::wrong_object);
}

TEST_F(SyncobjTest, AFenceThatIsNotThereYetIsBusy) {
    const Syncobj object = create();
    drm.fail_with = EINVAL;
    drm.fail_at = 0;
    auto fence = object.export_fence();
    ASSERT_FALSE(fence);
    EXPECT_EQ(fence.error().code, Errc::busy);
    drm.forget();
    drm.fail_at = 1; // the transfer
    fence = object.export_fence(5);
    ASSERT_FALSE(fence);
    EXPECT_EQ(fence.error().code, Errc::busy);
    EXPECT_NE(fence.error().message().find("wait_available"), std::string::npos);
    EXPECT_EQ(drm.handles.size(), 1U);
}

TEST_F(SyncobjTest, AWaitWaitsForTheSubmissionFirst) {
    const Syncobj object = create();
    drm.fail_with = EINVAL;
    drm.fail_at = 0;
    EXPECT_TRUE(object.wait(0, deadline_in(5s)));
    EXPECT_EQ(drm.calls[1], uapi::syncobj_timeline_wait);
    EXPECT_EQ(drm.flags[0], uapi::wait_for_submit | uapi::wait_available);
}

TEST_F(SyncobjTest, DeadlinesReachTheKernelAsTheyAre) {
    const Syncobj object = create();
    const Deadline soon = deadline_in(5s);
    EXPECT_TRUE(object.wait_available(7, soon));
    EXPECT_EQ(drm.timeout, soon.time_since_epoch().count());
    EXPECT_EQ(drm.point, 7U);
    EXPECT_TRUE(object.wait_available(7, Deadline::max()));
    EXPECT_EQ(drm.timeout, std::numeric_limits<std::int64_t>::max());
    for (const Deadline past : {Deadline::min(), Deadline(-1ns), Deadline()}) {
        EXPECT_TRUE(object.wait_available(7, past));
        EXPECT_EQ(drm.timeout, 0);
    }
}

TEST_F(SyncobjTest, AnEarlyTimeoutIsNoTimeout) {
    const Syncobj object = create();
    // The kernel's jiffies may be over before the deadline is.
    drm.fail_at = 0;
    drm.fail_with = ETIME;
    EXPECT_TRUE(object.wait_available(1, deadline_in(10s)));
    EXPECT_EQ(drm.calls.size(), 2U);
    drm.forget();
    auto waited = object.wait_available(1, deadline_in(0s));
    ASSERT_FALSE(waited);
    EXPECT_EQ(waited.error().code, Errc::timed_out);
    EXPECT_EQ(drm.calls.size(), 1U);
}

TEST_F(SyncobjTest, InterruptedCallsAreMadeAgain) {
    const Syncobj object = create();
    drm.fail_at = 0;
    drm.fail_with = EINTR;
    EXPECT_TRUE(object.wait_available(1, deadline_in(10s)));
    EXPECT_EQ(drm.calls.size(), 2U);
}

TEST_F(SyncobjTest, APendingFenceTimesOut) {
    drm.ready = false;
    for (const std::uint64_t point : {0U, 5U}) {
        const Syncobj object = create();
        for (const Deadline deadline : {Deadline::min(), deadline_in(5ms)}) {
            auto waited = object.wait(point, deadline);
            ASSERT_FALSE(waited);
            EXPECT_EQ(waited.error().code, Errc::timed_out);
            EXPECT_EQ(waited.error().operation, "Syncobj::wait");
        }
    }
}

TEST_F(SyncobjTest, AFailureAmongTheFencesOfAPointIsFound) {
    for (const std::size_t count : {1U, 2U, 16U, 17U, 100U}) {
        const Syncobj object = create();
        drm.fences.assign(count, 1);
        drm.fences.back() = -EIO;
        auto fence = object.export_fence(5);
        ASSERT_FALSE(fence) << count;
        EXPECT_EQ(fence.error().code, Errc::fence_failed);
        EXPECT_EQ(fence.error().sys_errno, EIO);
        auto waited = object.wait(5, deadline_in(5s));
        ASSERT_FALSE(waited);
        EXPECT_EQ(waited.error().code, Errc::fence_failed);
        EXPECT_EQ(waited.error().operation, "Syncobj::wait");
    }
}

TEST_F(SyncobjTest, ALongListOfFencesMayFailToCome) {
    const Syncobj object = create();
    drm.fences.assign(100, 1);
    EXPECT_TRUE(object.export_fence(5));
    for (const int call : {5, 6}) { // the count, the list
        drm.forget();
        drm.fail_at = call;
        drm.fail_with = ENOMEM;
        auto fence = object.export_fence(5);
        ASSERT_FALSE(fence) << call;
        EXPECT_EQ(fence.error().code, Errc::no_resources);
    }
}

TEST_F(SyncobjTest, AFailedFenceIsNotPutAtAPoint) {
    const Syncobj object = create();
    const SyncFile broken = fence();
    drm.forget();
    drm.fences = {1, -EIO};
    auto imported = object.import_fence(broken, 5);
    ASSERT_FALSE(imported);
    EXPECT_EQ(imported.error().code, Errc::fence_failed);
    EXPECT_EQ(imported.error().sys_errno, EIO);
    EXPECT_FALSE(drm.called(uapi::syncobj_transfer));
    drm.forget();
    EXPECT_TRUE(object.import_fence(broken)) << "where the kernel keeps the error";
    EXPECT_EQ(drm.flags, std::vector<std::uint32_t>{uapi::import_sync_file});
}

TEST_F(SyncobjTest, PointsGrow) {
    const Syncobj object = create();
    const SyncFile signalled = fence();
    drm.forget();
    drm.submitted = 5;
    for (const std::uint64_t point : {1U, 4U, 5U}) {
        auto refused = object.signal(point);
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, Errc::invalid_argument);
        refused = object.import_fence(signalled, point);
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, Errc::invalid_argument);
    }
    EXPECT_EQ(std::set(drm.flags.begin(), drm.flags.end()),
              std::set<std::uint32_t>{uapi::query_last_submitted});
    EXPECT_FALSE(drm.called(uapi::syncobj_timeline_signal));
    EXPECT_FALSE(drm.called(uapi::syncobj_transfer));
    EXPECT_TRUE(object.signal(6));
}

TEST_F(SyncobjTest, QueriesTellTheirPoint) {
    const Syncobj object = create();
    drm.submitted = std::numeric_limits<std::uint64_t>::max();
    EXPECT_EQ(object.query(), drm.submitted);
    EXPECT_EQ(drm.flags.back(), 0U);
    EXPECT_EQ(object.query_submitted(), drm.submitted);
    EXPECT_EQ(drm.flags.back(), uapi::query_last_submitted);
}

TEST_F(SyncobjTest, NotificationsSayWhatTheyAreOf) {
    const Syncobj object = create();
    const UniqueFd event(eventfd(0, EFD_CLOEXEC));
    EXPECT_TRUE(object.notify(9, SyncobjEvent::signalled, event.get()));
    EXPECT_EQ(drm.flags.back(), 0U);
    EXPECT_EQ(drm.point, 9U);
    EXPECT_TRUE(object.notify(9, SyncobjEvent::available, event.get()));
    EXPECT_EQ(drm.flags.back(), uapi::wait_available);
    for (const int error : {EBADF, EINVAL}) {
        drm.forget();
        drm.fail_at = 0;
        drm.fail_with = error;
        auto refused = object.notify(9, SyncobjEvent::signalled, event.get());
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, Errc::wrong_object);
        EXPECT_NE(refused.error().message().find("eventfd"), std::string::npos);
    }
}

TEST_F(SyncobjTest, AKernelWithoutEventfdsSaysSo) {
    drm.eventfd_probe = EINVAL;
    const Syncobj object = create();
    const UniqueFd event(eventfd(0, EFD_CLOEXEC));
    auto refused = object.notify(0, SyncobjEvent::signalled, event.get());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::unsupported);
    EXPECT_NE(refused.error().message().find("export_fence()"), std::string::npos);
    EXPECT_TRUE(drm.calls.empty());
}

TEST_F(SyncobjTest, ADeviceWithoutTimelinesKeepsToPointZero) {
    drm.timeline = false;
    drm.eventfd_probe = EOPNOTSUPP;
    const Syncobj object = create();
    for (const Operation& operation : operations(5)) {
        const auto error = operation.run(object);
        ASSERT_TRUE(error) << operation.name;
        EXPECT_EQ(error->code, Errc::unsupported) << error->message();
    }
    EXPECT_EQ(object.query().error().code, Errc::unsupported);
    EXPECT_EQ(object.query_submitted().error().code, Errc::unsupported);
    EXPECT_EQ(object.wait_available(0, deadline_in(0s)).error().code, Errc::unsupported);
    EXPECT_TRUE(object.signal());
    EXPECT_TRUE(object.import_fence(fence()));
    EXPECT_TRUE(object.export_fence());
    EXPECT_TRUE(object.reset());
    drm.forget();
    drm.fail_at = 0; // nothing to export yet
    drm.fail_with = EINVAL;
    const Deadline deadline = deadline_in(5s);
    EXPECT_TRUE(object.wait(0, deadline));
    EXPECT_EQ(drm.calls[1], uapi::syncobj_wait);
    EXPECT_EQ(drm.flags[0], uapi::wait_for_submit);
    EXPECT_EQ(drm.timeout, deadline.time_since_epoch().count());
}

TEST_F(SyncobjTest, OneThatWasMovedFromRefusesEverything) {
    Syncobj object = create();
    const Syncobj taken(std::move(object));
    drm.forget();
    EXPECT_EQ(object.handle(), 0U); // NOLINT(bugprone-use-after-move)
    for (const std::uint64_t point : {0U, 5U})
        for (const Operation& operation : operations(point)) {
            const auto error = operation.run(object);
            ASSERT_TRUE(error) << operation.name;
            EXPECT_EQ(error->code, Errc::wrong_object) << error->message();
            EXPECT_EQ(error->operation, operation.name);
        }
    drm.forget();
}

TEST(SyncobjThreads, ShareADeviceAndAnObject) {
    // Nothing here orders the threads but what the library does itself.
    std::atomic<std::uint32_t> next = 1;
    std::atomic<int> live = 0;
    ScriptedLibc libc;
    libc.ioctl = [&](int, unsigned long request, void* argument) {
        constexpr auto relaxed = std::memory_order_relaxed;
        if (request == uapi::get_cap)
            static_cast<uapi::DrmGetCap*>(argument)->value = 1;
        if (request == uapi::syncobj_create) {
            static_cast<uapi::SyncobjCreate*>(argument)->handle = next.fetch_add(1, relaxed);
            live.fetch_add(1, relaxed);
        }
        if (request == uapi::syncobj_destroy)
            live.fetch_sub(1, relaxed);
        return 0;
    };
    {
        auto wrapped = SyncobjDevice::wrap(UniqueFd(test::memfd(0)).get());
        ASSERT_TRUE(wrapped);
        const SyncobjDevice device = *wrapped;
        auto shared = Syncobj::create(device);
        ASSERT_TRUE(shared);
        std::vector<std::jthread> threads;
        for (int i = 0; i < 4; ++i)
            threads.emplace_back([&device, &shared] {
                const SyncobjDevice copy = device;
                for (std::uint64_t point = 1; point <= 200; ++point) {
                    auto own = Syncobj::create(copy);
                    EXPECT_TRUE(own && own->signal(point) && shared->signal(point));
                    EXPECT_TRUE(shared->wait_available(point, Deadline()) && shared->query());
                }
            });
    }
    EXPECT_EQ(live, 0);
}

} // namespace
} // namespace sluice
