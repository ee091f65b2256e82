// SPDX-License-Identifier: MIT
#include <sluice/implicit_sync.hpp>

#include <array>
#include <cerrno>
#include <thread>
#include <vector>

#include <linux/dma-buf.h>
#include <linux/sync_file.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "core/probe.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/scripted_libc.hpp"
#include "support/scripted_sync_file.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::ScriptedLibc;

/// A kernel whose implicit-sync ioctls answer what a test says: 0 works, otherwise an errno.
class ImplicitSyncTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        probe::forget();
        libc.memfds_are_dma_bufs();
        libc.ioctl = [this](int, unsigned long request, void* argument) {
            if (request == SYNC_IOC_FILE_INFO)
                return test::answer_file_info(argument, std::array{fence_status});
            const bool exports = request == DMA_BUF_IOCTL_EXPORT_SYNC_FILE;
            EXPECT_TRUE(exports || request == DMA_BUF_IOCTL_IMPORT_SYNC_FILE);
            ++calls;
            int error = exports ? export_answer : import_answer;
            auto* out = static_cast<dma_buf_export_sync_file*>(argument); // both begin with flags
            if (error == 0 && out->flags == 0)
                error = EINVAL;
            if (error != 0) {
                errno = error;
                return -1;
            }
            if (exports)
                out->fd = eventfd(0, EFD_CLOEXEC);
            return 0;
        };
        libc.ppoll = [this](pollfd* fds, nfds_t, const timespec*) {
            polled.emplace_back(fds->fd, fds->events);
            fds->revents = ready ? fds->events : short{0};
            return ready ? 1 : 0;
        };
    }
    void TearDown() override {
        probe::forget();
        FdTest::TearDown();
    }

    static DmaBuf buffer() { return std::move(*DmaBuf::from_fd(test::memfd(4096))); }
    static SyncFile fence() {
        return std::move(*SyncFile::from_fd(UniqueFd(eventfd(0, EFD_CLOEXEC))));
    }

    ScriptedLibc libc;
    int export_answer = 0;
    int import_answer = 0;
    int fence_status = 0;
    int calls = 0;
    bool ready = true;
    std::vector<std::pair<int, short>> polled;
};

TEST_F(ImplicitSyncTest, CapsAreProbedOnceForEachProcess) {
    const DmaBuf of = buffer();
    for (int i = 0; i < 3; ++i) {
        auto caps = implicit_sync_caps(of);
        ASSERT_TRUE(caps);
        EXPECT_TRUE(caps->export_fence);
        EXPECT_TRUE(caps->import_fence);
        EXPECT_EQ(calls, 2);
    }
}

TEST_F(ImplicitSyncTest, CapsSayWhatAnOldKernelLacks) {
    export_answer = import_answer = ENOTTY;
    auto caps = implicit_sync_caps(buffer());
    ASSERT_TRUE(caps);
    EXPECT_FALSE(caps->export_fence);
    EXPECT_FALSE(caps->import_fence);
    probe::forget();
    export_answer = 0; // a vendor may have carried back one of the two
    caps = implicit_sync_caps(buffer());
    EXPECT_TRUE(caps->export_fence);
    EXPECT_FALSE(caps->import_fence);
}

TEST_F(ImplicitSyncTest, AProbeThatFailsIsNotKept) {
    for (int* answer : {&export_answer, &import_answer}) {
        *answer = EBADF;
        auto caps = implicit_sync_caps(buffer());
        ASSERT_FALSE(caps);
        EXPECT_EQ(caps.error().code, Errc::wrong_object);
        *answer = 0;
    }
    EXPECT_TRUE(implicit_sync_caps(buffer())->import_fence);
}

TEST_F(ImplicitSyncTest, BeforeIsARealFenceWhereTheKernelGivesOne) {
    auto before = fence_before(buffer(), Access::write);
    ASSERT_TRUE(before);
    ASSERT_NE(before->sync_file(), nullptr);
    EXPECT_EQ(before->fd(), before->sync_file()->fd());
    EXPECT_EQ(before->poll_events(), POLLIN);
    fence_status = -EIO;
    EXPECT_EQ(before->wait(deadline_in(1s)).error().code, Errc::fence_failed);
}

TEST_F(ImplicitSyncTest, BeforeIsTheBufferItselfOnAnOldKernel) {
    export_answer = ENOTTY;
    const DmaBuf of = buffer();
    for (const auto& [access, events] :
         {std::pair(Access::read, POLLIN), std::pair(Access::write, POLLOUT)}) {
        auto before = fence_before(of, access);
        ASSERT_TRUE(before) << before.error().message();
        EXPECT_EQ(before->sync_file(), nullptr);
        EXPECT_NE(before->fd(), of.fd()) << "it outlives the buffer's own fd";
        EXPECT_EQ(before->poll_events(), events);
        ready = true;
        EXPECT_TRUE(before->wait(deadline_in(1s)));
        EXPECT_EQ(polled.back(), std::pair(before->fd(), short(events)));
        ready = false;
        EXPECT_EQ(before->wait(deadline_in(1ms)).error().code, Errc::timed_out);
    }
    EXPECT_EQ(calls, 1) << "the kernel is asked once";
}

TEST_F(ImplicitSyncTest, BeforeReportsWhatIsNoMatterOfTheKernelsAge) {
    export_answer = EMFILE;
    EXPECT_EQ(fence_before(buffer(), Access::read).error().code, Errc::no_resources);
    export_answer = ENOTTY;
    const DmaBuf of = buffer();
    libc.fcntl = [](int, int, long) {
        errno = EMFILE;
        return -1;
    };
    EXPECT_EQ(fence_before(of, Access::read).error().code, Errc::no_resources);
}

TEST_F(ImplicitSyncTest, AfterImportsWhereTheKernelCan) {
    EXPECT_TRUE(fence_after(buffer(), fence(), Access::write, deadline_in(0s)));
    EXPECT_EQ(calls, 1);
    EXPECT_TRUE(polled.empty()) << "nobody waits";
    import_answer = ENOMEM;
    EXPECT_EQ(fence_after(buffer(), fence(), Access::write, deadline_in(0s)).error().code,
              Errc::no_resources);
}

TEST_F(ImplicitSyncTest, AfterWaitsOnAnOldKernel) {
    import_answer = ENOTTY;
    const SyncFile done = fence();
    fence_status = 1;
    for (int i = 0; i < 2; ++i) {
        EXPECT_TRUE(fence_after(buffer(), done, Access::read, deadline_in(1s)));
        EXPECT_EQ(polled.back(), std::pair(done.fd(), short{POLLIN}));
    }
    EXPECT_EQ(calls, 1) << "the kernel is asked once";
    fence_status = -EIO;
    EXPECT_EQ(fence_after(buffer(), done, Access::read, deadline_in(1s)).error().code,
              Errc::fence_failed);
    ready = false;
    EXPECT_EQ(fence_after(buffer(), done, Access::read, deadline_in(1ms)).error().code,
              Errc::timed_out);
    EXPECT_TRUE(fence_after(buffer(), SyncFile::signalled(), Access::read, deadline_in(0s)));
}

TEST_F(ImplicitSyncTest, ManyThreadsMayAskAtOnce) {
    probe::forget();
    libc.ioctl = [](int, unsigned long, void*) {
        errno = ENOTTY;
        return -1;
    };
    const DmaBuf of = buffer();
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] {
            for (int n = 0; n < 100; ++n) {
                EXPECT_FALSE(implicit_sync_caps(of)->export_fence);
                EXPECT_EQ(fence_before(of, Access::read)->sync_file(), nullptr);
            }
        });
}

} // namespace
} // namespace sluice
