// SPDX-License-Identifier: MIT
// Sync objects on a real kernel, with fences that the tests signal and break.
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <drm.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sluice/syncobj.hpp>

#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/requires.hpp"
#include "support/sw_sync.hpp"
#include "support/udmabuf.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::SwSync;

/// A node of the device that \p driver drives, "card" or "renderD" by \p kind; no fd where there is
/// none.
UniqueFd open_node(std::string_view driver, std::string_view kind) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator("/dev/dri", error)) {
        if (!std::string(entry.path().filename()).starts_with(kind))
            continue;
        UniqueFd fd(open(entry.path().c_str(), O_RDWR | O_CLOEXEC));
        std::array<char, 32> name{};
        drm_version version{};
        version.name = name.data();
        version.name_len = name.size();
        if (fd && ioctl(fd.get(), DRM_IOCTL_VERSION, &version) == 0 &&
            std::string_view(name.data(), std::min<std::size_t>(version.name_len, name.size())) ==
                driver)
            return fd;
    }
    return UniqueFd();
}

class SyncobjSystemTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        SLUICE_REQUIRES(SwSync::available(), "no sw_sync in debugfs: no fences to control");
        const UniqueFd node = open_node("virtio_gpu", "renderD");
        SLUICE_REQUIRES(node, "no virtio-gpu: no DRM device with sync objects");
        auto wrapped = SyncobjDevice::wrap(node.get());
        ASSERT_TRUE(wrapped) << wrapped.error().message();
        device_.emplace(*wrapped);
    }
    void TearDown() override {
        device_.reset();
        FdTest::TearDown();
    }

    const SyncobjDevice& device() { return *device_; }
    Syncobj create(SyncobjInfo info = {}) {
        auto object = Syncobj::create(*device_, info);
        EXPECT_TRUE(object) << object.error().message();
        return std::move(*object);
    }

private:
    std::optional<SyncobjDevice> device_;
};

template <typename T> Errc code_of(const Result<T>& result) {
    if (result) {
        ADD_FAILURE() << "succeeded";
        return Errc::failed;
    }
    return result.error().code;
}

FenceState state_of(const Result<SyncFile>& fence) {
    if (!fence) {
        ADD_FAILURE() << fence.error().message();
        return FenceState::failed;
    }
    return fence->status()->state;
}

#define EXPECT_OK(expression)                                                                      \
    do {                                                                                           \
        const auto result = (expression);                                                          \
        EXPECT_TRUE(result) << (result ? "" : result.error().message());                           \
    } while (false)

/// How often \p event was told, 0 where it was not within \p patience.
std::uint64_t told(const UniqueFd& event, std::chrono::milliseconds patience) {
    pollfd entry{.fd = event.get(), .events = POLLIN, .revents = 0};
    std::uint64_t count = 0;
    if (poll(&entry, 1, static_cast<int>(patience.count())) != 1)
        return 0;
    EXPECT_EQ(read(event.get(), &count, sizeof count), ssize_t{sizeof count});
    return count;
}

TEST_F(SyncobjSystemTest, BothNodesOfADeviceHaveThemAll) {
    for (const char* kind : {"card", "renderD"}) {
        const UniqueFd node = open_node("virtio_gpu", kind);
        ASSERT_TRUE(node) << kind;
        auto device = SyncobjDevice::wrap(node.get());
        ASSERT_TRUE(device) << device.error().message();
        EXPECT_TRUE(device->caps().timeline);
        EXPECT_TRUE(device->caps().eventfd);
    }
}

TEST_F(SyncobjSystemTest, DriversWithoutThemSaySo) {
    for (const char* driver : {"vgem", "vkms"}) {
        const UniqueFd node = open_node(driver, "card");
        SLUICE_REQUIRES(node, std::string(driver) + " is not there");
        auto refused = SyncobjDevice::wrap(node.get());
        ASSERT_EQ(code_of(refused), Errc::unsupported) << driver;
        EXPECT_NE(refused.error().message().find("DRM_CAP_SYNCOBJ"), std::string::npos);
    }
}

TEST_F(SyncobjSystemTest, WhatIsNoDrmDeviceIsRefused) {
    const UniqueFd fds[] = {UniqueFd(),
                            test::memfd(4096),
                            UniqueFd(eventfd(0, EFD_CLOEXEC)),
                            UniqueFd(open("/dev/null", O_RDWR | O_CLOEXEC)),
                            *UniqueFd::duplicate(test::udmabuf(4096).fd()),
                            *UniqueFd::duplicate(SwSync().fence(1).fd()),
                            *create().export_fd()};
    for (const UniqueFd& fd : fds) {
        auto refused = SyncobjDevice::wrap(fd.get());
        EXPECT_EQ(code_of(refused), Errc::wrong_object) << refused.error().message();
    }
}

TEST_F(SyncobjSystemTest, ANewOneHoldsNothing) {
    const Syncobj object = create();
    EXPECT_EQ(code_of(object.export_fence()), Errc::busy);
    const auto start = Deadline::clock::now();
    auto waited = object.wait(0, deadline_in(50ms));
    ASSERT_EQ(code_of(waited), Errc::timed_out);
    EXPECT_GE(Deadline::clock::now() - start, 50ms);
    EXPECT_NE(waited.error().message().find("no fence was submitted"), std::string::npos);
    EXPECT_EQ(code_of(object.wait_available(0, deadline_in(0s))), Errc::timed_out);
    EXPECT_EQ(object.query(), 0U);
    EXPECT_EQ(object.query_submitted(), 0U);

    const Syncobj signalled = create({.signalled = true});
    EXPECT_OK(signalled.wait(0, deadline_in(0s)));
    EXPECT_OK(signalled.wait_available(0, deadline_in(0s)));
    EXPECT_EQ(state_of(signalled.export_fence()), FenceState::signalled);
    EXPECT_OK(signalled.reset());
    EXPECT_EQ(code_of(signalled.export_fence()), Errc::busy);
    EXPECT_OK(signalled.signal());
    EXPECT_OK(signalled.wait(0, deadline_in(0s)));
}

TEST_F(SyncobjSystemTest, ABinaryOneGivesItsFenceBack) {
    SwSync timeline;
    const Syncobj object = create();
    EXPECT_OK(object.import_fence(timeline.fence(1)));
    auto fence = object.export_fence();
    EXPECT_EQ(state_of(fence), FenceState::pending);
    auto waited = object.wait(0, deadline_in(20ms));
    EXPECT_EQ(code_of(waited), Errc::timed_out);
    EXPECT_NE(waited.error().message().find("was still pending"), std::string::npos);
    EXPECT_OK(object.import_fence(timeline.fence(2)));
    timeline.advance(1);
    EXPECT_EQ(state_of(fence), FenceState::signalled);
    EXPECT_EQ(state_of(object.export_fence()), FenceState::pending) << "the second replaced it";
    timeline.advance(1);
    EXPECT_OK(object.wait(0, deadline_in(5s)));
    EXPECT_OK(object.reset());
    EXPECT_OK(object.import_fence(SyncFile::signalled()));
    EXPECT_EQ(state_of(object.export_fence()), FenceState::signalled);
}

TEST_F(SyncobjSystemTest, ABinaryOneKeepsTheFailureOfItsFence) {
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    const Syncobj before = create();
    const Syncobj after = create();
    EXPECT_OK(before.import_fence(fence));
    timeline.close();
    EXPECT_OK(after.import_fence(fence));
    for (const Syncobj* object : {&before, &after}) {
        auto waited = object->wait(0, deadline_in(5s));
        ASSERT_EQ(code_of(waited), Errc::fence_failed);
        EXPECT_EQ(waited.error().sys_errno, ENOENT);
        EXPECT_EQ(waited.error().operation, "Syncobj::wait");
        EXPECT_EQ(state_of(object->export_fence()), FenceState::failed);
    }
}

TEST_F(SyncobjSystemTest, PointsSignalOneAfterTheOther) {
    SwSync timeline;
    const Syncobj object = create();
    EXPECT_OK(object.import_fence(timeline.fence(1), 10));
    EXPECT_OK(object.import_fence(timeline.fence(2), 20));
    EXPECT_EQ(object.query(), 0U);
    EXPECT_EQ(object.query_submitted(), 20U);
    auto tenth = object.export_fence(10);
    auto twentieth = object.export_fence(20);
    EXPECT_EQ(state_of(tenth), FenceState::pending);
    EXPECT_EQ(state_of(object.export_fence(15)), FenceState::pending) << "20 comes after it";
    EXPECT_EQ(code_of(object.export_fence(21)), Errc::busy);
    EXPECT_EQ(code_of(object.wait(10, deadline_in(20ms))), Errc::timed_out);
    timeline.advance(1);
    EXPECT_OK(object.wait(10, deadline_in(5s)));
    EXPECT_OK(object.wait(5, deadline_in(5s)));
    EXPECT_EQ(object.query(), 10U);
    EXPECT_EQ(state_of(tenth), FenceState::signalled);
    EXPECT_EQ(state_of(twentieth), FenceState::pending);
    EXPECT_EQ(code_of(object.wait(15, deadline_in(0s))), Errc::timed_out);
    timeline.advance(1);
    EXPECT_OK(object.wait(20, deadline_in(5s)));
    EXPECT_OK(twentieth->wait(deadline_in(5s)));
    EXPECT_EQ(object.query(), 20U);
    EXPECT_OK(object.signal(30));
    EXPECT_EQ(object.query(), 30U);
    EXPECT_OK(
        object.import_fence(SyncFile::signalled(), std::numeric_limits<std::uint64_t>::max()));
    EXPECT_EQ(object.query(), std::numeric_limits<std::uint64_t>::max());
    EXPECT_OK(object.reset());
    EXPECT_EQ(object.query_submitted(), 0U);
}

TEST_F(SyncobjSystemTest, APointWaitsForTheOnesBeforeIt) {
    SwSync slow;
    SwSync quick;
    const Syncobj object = create();
    EXPECT_OK(object.import_fence(slow.fence(1), 1));
    EXPECT_OK(object.import_fence(quick.fence(1), 2));
    auto second = object.export_fence(2);
    quick.advance(1);
    EXPECT_EQ(state_of(second), FenceState::pending);
    EXPECT_EQ(code_of(object.wait(2, deadline_in(20ms))), Errc::timed_out);
    slow.advance(1);
    EXPECT_OK(object.wait(2, deadline_in(5s)));
    EXPECT_OK(second->wait(deadline_in(5s)));
}

TEST_F(SyncobjSystemTest, PointsOutOfOrderAreRefusedAndHarmNothing) {
    SwSync timeline;
    const Syncobj object = create();
    EXPECT_OK(object.signal(3));
    EXPECT_OK(object.import_fence(timeline.fence(1), 7));
    for (const std::uint64_t point : {3U, 5U, 7U}) {
        auto refused = object.signal(point);
        EXPECT_EQ(code_of(refused), Errc::invalid_argument);
        EXPECT_NE(refused.error().message().find("point 7, the last one"), std::string::npos)
            << refused.error().message();
        EXPECT_EQ(code_of(object.import_fence(timeline.fence(2), point)), Errc::invalid_argument);
    }
    EXPECT_EQ(object.query(), 3U);
    EXPECT_EQ(object.query_submitted(), 7U);
    EXPECT_EQ(state_of(object.export_fence(7)), FenceState::pending);
    timeline.advance(1);
    EXPECT_OK(object.wait(7, deadline_in(5s)));
}

TEST_F(SyncobjSystemTest, APointKeepsAFailureThatComesAfterTheImport) {
    SwSync timeline;
    const Syncobj object = create();
    EXPECT_OK(object.import_fence(timeline.fence(1), 4));
    auto exported = object.export_fence(4);
    EXPECT_EQ(state_of(exported), FenceState::pending);
    timeline.close();
    EXPECT_EQ(code_of(exported->wait(deadline_in(5s))), Errc::fence_failed);
    EXPECT_EQ(state_of(exported), FenceState::failed);
    auto waited = object.wait(4, deadline_in(5s));
    ASSERT_EQ(code_of(waited), Errc::fence_failed);
    EXPECT_EQ(waited.error().sys_errno, ENOENT);
    EXPECT_NE(waited.error().object.find("point 4"), std::string::npos);
    EXPECT_EQ(code_of(object.export_fence(4)), Errc::fence_failed);
    EXPECT_EQ(object.query(), 4U);
}

TEST_F(SyncobjSystemTest, AFailedFenceIsNotPutAtAPoint) {
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    timeline.close();
    const Syncobj object = create();
    auto refused = object.import_fence(fence, 1);
    EXPECT_EQ(code_of(refused), Errc::fence_failed);
    EXPECT_EQ(refused.error().sys_errno, ENOENT);
    EXPECT_EQ(object.query_submitted(), 0U);
}

TEST_F(SyncobjSystemTest, AnExportedPointFailsWithAnyOfItsFences) {
    // Nobody polls or waits before the failure, and the first to ask must hear of it.
    for (const int broken : {0, 1, 2}) {
        std::array<SwSync, 3> timelines;
        const Syncobj object = create();
        for (std::uint64_t i = 0; i < 3; ++i)
            EXPECT_OK(object.import_fence(timelines[i].fence(1), i + 1));
        auto fence = object.export_fence(3);
        ASSERT_TRUE(fence);
        timelines[static_cast<std::size_t>(broken)].close();
        for (int i = 0; i < 3; ++i)
            if (i != broken)
                timelines[static_cast<std::size_t>(i)].advance(1);
        EXPECT_EQ(state_of(fence), FenceState::failed) << broken;
        EXPECT_EQ(code_of(fence->wait(deadline_in(5s))), Errc::fence_failed) << broken;
    }
}

TEST_F(SyncobjSystemTest, ManyPendingPointsAreExportedAsOne) {
    std::vector<SwSync> timelines(40); // more fences than failure_inside() has room for at first
    const Syncobj object = create();
    for (std::uint64_t i = 0; i < timelines.size(); ++i)
        EXPECT_OK(object.import_fence(timelines[i].fence(1), i + 1));
    auto fence = object.export_fence(40);
    const Syncobj other = create();
    ASSERT_TRUE(fence);
    EXPECT_OK(other.import_fence(*fence, 1));
    timelines[39].close(); // its fence is the newest, which the kernel keeps
    auto failed = object.export_fence(40);
    EXPECT_EQ(code_of(failed), Errc::fence_failed);
    for (std::size_t i = 0; i < 39; ++i)
        timelines[i].advance(1);
    EXPECT_EQ(code_of(fence->wait(deadline_in(5s))), Errc::fence_failed);
    EXPECT_EQ(code_of(other.wait(1, deadline_in(5s))), Errc::fence_failed);
}

TEST_F(SyncobjSystemTest, TheKernelForgetsAFailureOnceALaterPointIsThere) {
    // The documented limit of export_fence() and wait(): who asks too late is told "signalled".
    SwSync timeline;
    const Syncobj object = create();
    EXPECT_OK(object.import_fence(timeline.fence(1), 1));
    auto in_time = object.export_fence(1);
    timeline.close();
    EXPECT_OK(object.signal(2));
    EXPECT_OK(object.wait(1, deadline_in(5s)));
    EXPECT_EQ(state_of(object.export_fence(1)), FenceState::signalled);
    EXPECT_EQ(state_of(in_time), FenceState::failed) << "exported while it was pending";
}

TEST_F(SyncobjSystemTest, AWaitFromBeforeTheFailureSeesItDespiteLaterPoints) {
    SwSync timeline;
    const Syncobj object = create();
    EXPECT_OK(object.import_fence(timeline.fence(1), 1));
    std::jthread breaker([&] {
        std::this_thread::sleep_for(100ms);
        EXPECT_OK(object.signal(2));
        timeline.close();
    });
    EXPECT_EQ(code_of(object.wait(1, deadline_in(10s))), Errc::fence_failed);
}

TEST_F(SyncobjSystemTest, AWaitIsThereBeforeTheFenceIs) {
    for (const std::uint64_t point : {std::uint64_t{0}, std::uint64_t{8}}) {
        SwSync timeline;
        const Syncobj object = create();
        const auto start = Deadline::clock::now();
        std::jthread submitter([&] {
            std::this_thread::sleep_for(100ms);
            EXPECT_OK(object.import_fence(timeline.fence(1), point));
            std::this_thread::sleep_for(100ms);
            timeline.advance(1);
        });
        EXPECT_OK(object.wait_available(point, deadline_in(10s)));
        const auto available = Deadline::clock::now();
        EXPECT_GE(available - start, 100ms);
        EXPECT_OK(object.wait(point, deadline_in(10s)));
        EXPECT_GE(Deadline::clock::now() - start, 200ms);
        EXPECT_OK(object.wait_available(point, deadline_in(0s)));
    }
}

TEST_F(SyncobjSystemTest, OneWaitSeesTheFenceComeAndSignal) {
    for (const std::uint64_t point : {std::uint64_t{0}, std::uint64_t{8}}) {
        SwSync timeline;
        const Syncobj object = create();
        const auto start = Deadline::clock::now();
        std::jthread submitter([&] {
            std::this_thread::sleep_for(100ms);
            EXPECT_OK(object.import_fence(timeline.fence(1), point));
            std::this_thread::sleep_for(100ms);
            timeline.advance(1);
        });
        EXPECT_OK(object.wait(point, Deadline::max()));
        EXPECT_GE(Deadline::clock::now() - start, 200ms);
    }
}

TEST_F(SyncobjSystemTest, ADeadlineThatHasPassedAsksOnly) {
    SwSync timeline;
    const Syncobj object = create();
    const auto start = Deadline::clock::now();
    for (const Deadline past : {Deadline::min(), Deadline(), Deadline(-1ns), start}) {
        EXPECT_EQ(code_of(object.wait_available(1, past)), Errc::timed_out);
        EXPECT_EQ(code_of(object.wait(1, past)), Errc::timed_out);
    }
    EXPECT_OK(object.import_fence(timeline.fence(1), 1));
    for (const Deadline past : {Deadline::min(), Deadline(), Deadline(-1ns), start}) {
        EXPECT_OK(object.wait_available(1, past));
        EXPECT_EQ(code_of(object.wait(1, past)), Errc::timed_out);
    }
    EXPECT_LT(Deadline::clock::now() - start, 5s);
}

TEST_F(SyncobjSystemTest, SignalsNeitherEndNorStretchAWait) {
    struct sigaction action {};
    struct sigaction before {};
    action.sa_handler = [](int) {}; // without SA_RESTART
    ASSERT_EQ(sigaction(SIGALRM, &action, &before), 0);
    const itimerval every{.it_interval = {.tv_sec = 0, .tv_usec = 3000},
                          .it_value = {.tv_sec = 0, .tv_usec = 3000}};
    ASSERT_EQ(setitimer(ITIMER_REAL, &every, nullptr), 0);
    const Syncobj object = create();
    const auto start = Deadline::clock::now();
    EXPECT_EQ(code_of(object.wait_available(1, deadline_in(300ms))), Errc::timed_out);
    EXPECT_EQ(code_of(object.wait(0, deadline_in(300ms))), Errc::timed_out);
    const auto took = Deadline::clock::now() - start;
    const itimerval never{};
    setitimer(ITIMER_REAL, &never, nullptr);
    sigaction(SIGALRM, &before, nullptr);
    EXPECT_GE(took, 600ms);
    EXPECT_LT(took, 5s);
}

TEST_F(SyncobjSystemTest, AnEventfdTellsOfAPointThatIsNotSubmittedYet) {
    for (const std::uint64_t point : {std::uint64_t{0}, std::uint64_t{3}}) {
        SwSync timeline;
        const Syncobj object = create();
        const UniqueFd available(eventfd(0, EFD_CLOEXEC));
        const UniqueFd signalled(eventfd(0, EFD_CLOEXEC));
        EXPECT_OK(object.notify(point, SyncobjEvent::available, available.get()));
        EXPECT_OK(object.notify(point, SyncobjEvent::signalled, signalled.get()));
        EXPECT_EQ(told(available, 20ms), 0U);
        EXPECT_OK(object.import_fence(timeline.fence(1), point));
        EXPECT_EQ(told(available, 5s), 1U);
        EXPECT_EQ(told(signalled, 20ms), 0U);
        timeline.advance(1);
        EXPECT_EQ(told(signalled, 5s), 1U);
        EXPECT_OK(object.notify(point, SyncobjEvent::signalled, signalled.get()));
        EXPECT_EQ(told(signalled, 5s), 1U) << "at once for what has happened";
    }
}

TEST_F(SyncobjSystemTest, AnEventfdTellsOfAFailureAsOfAnEnd) {
    SwSync timeline;
    const Syncobj object = create();
    const UniqueFd signalled(eventfd(0, EFD_CLOEXEC));
    EXPECT_OK(object.import_fence(timeline.fence(1), 3));
    EXPECT_OK(object.notify(3, SyncobjEvent::signalled, signalled.get()));
    timeline.close();
    EXPECT_EQ(told(signalled, 5s), 1U);
    EXPECT_EQ(code_of(object.wait(3, deadline_in(0s))), Errc::fence_failed);
}

TEST_F(SyncobjSystemTest, AnObjectThatGoesAwayTellsNothing) {
    const UniqueFd event(eventfd(0, EFD_CLOEXEC));
    EXPECT_OK(create().notify(1, SyncobjEvent::signalled, event.get()));
    EXPECT_EQ(told(event, 20ms), 0U);
    SwSync timeline;
    {
        const Syncobj object = create();
        EXPECT_OK(object.import_fence(timeline.fence(1), 1));
        EXPECT_OK(object.notify(1, SyncobjEvent::signalled, event.get()));
    }
    timeline.advance(1);
    EXPECT_EQ(told(event, 5s), 1U) << "the fence was there, and it still tells";
}

TEST_F(SyncobjSystemTest, OnlyEventfdsAreTold) {
    const Syncobj object = create();
    const UniqueFd fds[] = {UniqueFd(), test::memfd(4096), *object.export_fd()};
    for (const UniqueFd& fd : fds) {
        auto refused = object.notify(0, SyncobjEvent::signalled, fd.get());
        EXPECT_EQ(code_of(refused), Errc::wrong_object);
    }
}

TEST_F(SyncobjSystemTest, AFdCarriesTheObjectToAnotherOpenFile) {
    SwSync timeline;
    const Syncobj ours = create();
    auto fd = ours.export_fd();
    ASSERT_TRUE(fd);
    EXPECT_EQ(fcntl(fd->get(), F_GETFD), FD_CLOEXEC);
    pollfd entry{.fd = fd->get(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(poll(&entry, 1, 0), 1) << "ready though it holds nothing: polling it tells nothing";
    const UniqueFd card = open_node("virtio_gpu", "card");
    auto other_device = SyncobjDevice::wrap(card.get());
    ASSERT_TRUE(other_device) << other_device.error().message();
    auto second_fd = fd->duplicate();
    auto theirs = Syncobj::from_fd(*other_device, std::move(*fd));
    ASSERT_TRUE(theirs) << theirs.error().message();
    EXPECT_FALSE(*fd) << "taken over";
    auto again = Syncobj::from_fd(*other_device, std::move(*second_fd));
    ASSERT_TRUE(again);
    EXPECT_NE(again->handle(), theirs->handle()) << "each import has an owner of its own";
    EXPECT_OK(ours.import_fence(timeline.fence(1), 5));
    EXPECT_EQ(theirs->query_submitted(), 5U);
    timeline.advance(1);
    EXPECT_OK(theirs->wait(5, deadline_in(5s)));
    theirs = std::move(again); // destroys one handle of the two
    EXPECT_OK(theirs->signal(6));
    EXPECT_EQ(ours.query(), 6U);
}

TEST_F(SyncobjSystemTest, OtherFdsAreRefusedAndStayWithTheCaller) {
    UniqueFd fds[] = {test::memfd(4096), UniqueFd(eventfd(0, EFD_CLOEXEC)),
                      *UniqueFd::duplicate(SwSync().fence(1).fd()),
                      *UniqueFd::duplicate(test::udmabuf(4096).fd()),
                      open_node("virtio_gpu", "renderD")};
    for (UniqueFd& fd : fds) {
        auto refused = Syncobj::from_fd(device(), std::move(fd));
        EXPECT_EQ(code_of(refused), Errc::wrong_object);
        EXPECT_TRUE(fd);
    }
    EXPECT_EQ(code_of(Syncobj::from_fd(device(), UniqueFd())), Errc::wrong_object);
}

TEST_F(SyncobjSystemTest, AChildProcessWaitsForWhatItsParentSubmits) {
    SwSync timeline;
    const Syncobj object = create();
    auto fd = object.export_fd();
    ASSERT_TRUE(fd);
    const pid_t child = fork();
    if (child == 0) {
        // _exit, so that the copies of the parent's objects are not destroyed here.
        const UniqueFd node = open_node("virtio_gpu", "renderD");
        auto mine = SyncobjDevice::wrap(node.get());
        if (!mine)
            _exit(2);
        auto theirs = Syncobj::from_fd(*mine, std::move(*fd));
        if (!theirs || !theirs->wait(1, deadline_in(20s)))
            _exit(3);
        // The inherited handle is the parent's own.
        if (!object.wait(1, deadline_in(0s)) || !theirs->signal(2))
            _exit(4);
        _exit(0);
    }
    ASSERT_GT(child, 0);
    EXPECT_OK(object.import_fence(timeline.fence(1), 1));
    std::this_thread::sleep_for(50ms);
    timeline.advance(1);
    EXPECT_OK(object.wait(2, deadline_in(20s)));
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0) << "exit status " << WEXITSTATUS(status);
    EXPECT_EQ(object.query(), 2U) << "the handle outlives the child";
}

TEST_F(SyncobjSystemTest, HandlesAndFdsComeBack) {
    SwSync timeline;
    const auto before = test::open_fds();
    const std::uint32_t first = create().handle();
    for (std::uint32_t i = 0; i < 300; ++i) {
        Syncobj object = create();
        ASSERT_EQ(object.handle(), first) << "the kernel gives the lowest free handle";
        ASSERT_TRUE(object.import_fence(timeline.fence(i + 1), 1));
        ASSERT_TRUE(object.export_fence(1));
        ASSERT_EQ(code_of(object.export_fence(2)), Errc::busy);
        ASSERT_EQ(code_of(object.wait(1, deadline_in(0s))), Errc::timed_out);
        auto imported = Syncobj::from_fd(device(), std::move(*object.export_fd()));
        ASSERT_TRUE(imported);
        timeline.advance(1);
        ASSERT_TRUE(imported->wait(1, deadline_in(5s)));
        object = std::move(*imported);
        ASSERT_TRUE(object.wait(1, deadline_in(5s)));
    }
    EXPECT_EQ(create().handle(), first);
    EXPECT_EQ(test::open_fds(), before);
}

TEST_F(SyncobjSystemTest, ThreadsShareOneTimeline) {
    const Syncobj object = create();
    constexpr std::uint64_t points = 50;
    std::vector<std::jthread> waiters;
    std::atomic<int> done = 0;
    for (int i = 0; i < 3; ++i)
        waiters.emplace_back([&] {
            for (std::uint64_t point = 1; point <= points; ++point)
                EXPECT_OK(object.wait(point, deadline_in(30s)));
            ++done;
        });
    for (std::uint64_t point = 1; point <= points; ++point) {
        SwSync timeline;
        EXPECT_OK(object.import_fence(timeline.fence(1), point));
        timeline.advance(1);
    }
    waiters.clear();
    EXPECT_EQ(done, 3);
}

} // namespace
} // namespace sluice
