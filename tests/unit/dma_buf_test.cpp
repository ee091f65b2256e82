// SPDX-License-Identifier: MIT
#include <sluice/dma_buf.hpp>

#include <array>
#include <cerrno>
#include <chrono>
#include <thread>
#include <tuple>

#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/sync_file.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/probe.hpp"
#include "core/sys.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/scripted_libc.hpp"
#include "support/scripted_sync_file.hpp"
#include <sluice/buffer_lock.hpp>
#include <sluice/cpu_map.hpp>
#include <sluice/implicit_sync.hpp>

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::memfd;
using test::ScriptedLibc;

class DmaBufTest : public test::FdTest {
protected:
    void TearDown() override {
        probe::forget();
        FdTest::TearDown();
    }
};

/// A buffer that the scripted libc makes of a memfd.
DmaBuf buffer_of(std::uint64_t size) {
    auto buffer = DmaBuf::from_fd(memfd(size));
    EXPECT_TRUE(buffer) << buffer.error().message();
    return std::move(*buffer);
}

/// A pending fence's answer to SYNC_IOC_FILE_INFO, for an eventfd that stands for one.
int answer_pending(void* argument) {
    return test::answer_file_info(argument, std::array{0});
}

void expect_refused(const Result<DmaBuf>& result, const std::string& object) {
    ASSERT_FALSE(result) << object;
    EXPECT_EQ(result.error().code, Errc::wrong_object);
    EXPECT_NE(result.error().message().find(object), std::string::npos) << result.error().message();
    EXPECT_FALSE(result.error().remedy.empty());
}

TEST_F(DmaBufTest, RefusesWhatIsNoDmaBufAndLeavesItWithTheCaller) {
    int pipes[2];
    ASSERT_EQ(pipe2(pipes, O_CLOEXEC), 0);
    UniqueFd write_end(std::move(pipes[1]));
    std::pair<const char*, UniqueFd> wrong[] = {
        {"memfd:sluice-test", memfd(4096)},
        {"[eventfd]", UniqueFd(eventfd(0, EFD_CLOEXEC))},
        {"pipe:", UniqueFd(std::move(pipes[0]))},
        {"socket:", UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0))},
        {"/dev/null", UniqueFd(open("/dev/null", O_RDWR | O_CLOEXEC))},
        {"'/'", UniqueFd(open("/", O_PATH | O_CLOEXEC))},
    };
    for (auto& [object, fd] : wrong) {
        const int number = fd.get();
        expect_refused(DmaBuf::from_fd(std::move(fd)), object);
        EXPECT_EQ(fd.get(), number) << "the fd is still the caller's";
        expect_refused(DmaBuf::from_borrowed_fd(number), object);
    }
}

TEST_F(DmaBufTest, RefusesNoFdAndAClosedOne) {
    expect_refused(DmaBuf::from_fd(UniqueFd()), "fd -1 (none)");
    expect_refused(DmaBuf::from_borrowed_fd(-1), "fd -1 (none)");
    auto closed = memfd(4096);
    const int number = closed.get();
    close(number);
    expect_refused(DmaBuf::from_borrowed_fd(number), "(closed)");
    expect_refused(DmaBuf::from_fd(std::move(closed)), "(closed)");
    (void)closed.release(); // it was closed above
}

TEST_F(DmaBufTest, WithoutProcAnOpenFdIsNotSaidToBeClosed) {
    ScriptedLibc libc;
    libc.readlink = [](const char*, char*, size_t) {
        errno = ENOENT;
        return ssize_t{-1};
    };
    const auto fd = memfd(4096);
    EXPECT_EQ(sys::describe_fd(fd.get()), "fd " + std::to_string(fd.get()));
    const int number = UniqueFd(fcntl(fd.get(), F_DUPFD_CLOEXEC, 0)).get(); // closed again
    EXPECT_EQ(sys::describe_fd(number), "fd " + std::to_string(number) + " (closed)");
}

TEST_F(DmaBufTest, WhatAStrangerNamedABufferCannotWriteToATerminal) {
    ScriptedLibc libc;
    libc.readlink = [](const char*, char* text, size_t) {
        constexpr std::string_view name = "/dmabuf:a\x1b[2J\xc2\x9b\x7fz";
        return static_cast<ssize_t>(name.copy(text, name.size()));
    };
    EXPECT_EQ(sys::describe_fd(0), "fd 0 ('/dmabuf:a?[2J???z')");
}

TEST_F(DmaBufTest, TheirFilesystemIsAskedOnce) {
    test::ScriptedLibc libc;
    libc.memfds_are_dma_bufs();
    int asked = 0;
    libc.fstatfs = [&, others = libc.fstatfs](int fd, struct statfs* filesystem) {
        ++asked;
        return others(fd, filesystem);
    };
    (void)buffer_of(4096);
    (void)buffer_of(4096);
    EXPECT_EQ(asked, 1);
    // What lies elsewhere is asked, and refused.
    const UniqueFd no_buffer(eventfd(0, EFD_CLOEXEC));
    expect_refused(DmaBuf::from_borrowed_fd(no_buffer.get()), "eventfd");
    EXPECT_EQ(asked, 2);
}

TEST_F(DmaBufTest, KnowsItsSizeAndIdentity) {
    ScriptedLibc libc;
    libc.memfds_are_dma_bufs();
    auto fd = memfd(12288);
    const int number = fd.get();
    struct stat status {};
    ASSERT_EQ(fstat(number, &status), 0);
    auto buffer = DmaBuf::from_fd(std::move(fd));
    ASSERT_TRUE(buffer);
    EXPECT_EQ(buffer->fd(), number);
    EXPECT_EQ(buffer->size(), 12288U);
    EXPECT_EQ(buffer->inode(), status.st_ino);
    auto copy = buffer->duplicate();
    ASSERT_TRUE(copy);
    EXPECT_NE(copy->fd(), number);
    EXPECT_TRUE(same_buffer(*buffer, *copy));
    EXPECT_EQ(copy->size(), 12288U);
    EXPECT_FALSE(same_buffer(*buffer, buffer_of(12288)));
}

TEST_F(DmaBufTest, BorrowingLeavesTheCallersFdOpen) {
    ScriptedLibc libc;
    libc.memfds_are_dma_bufs();
    auto fd = memfd(4096);
    {
        auto buffer = DmaBuf::from_borrowed_fd(fd.get());
        ASSERT_TRUE(buffer);
        EXPECT_NE(buffer->fd(), fd.get());
    }
    EXPECT_GE(fcntl(fd.get(), F_GETFD), 0);
}

TEST_F(DmaBufTest, AKernelThatTellsNoSizeIsAnError) {
    ScriptedLibc libc;
    libc.memfds_are_dma_bufs();
    libc.statx = [](int, struct statx*) {
        errno = EIO;
        return -1;
    };
    auto fd = memfd(4096);
    auto buffer = DmaBuf::from_fd(std::move(fd));
    ASSERT_FALSE(buffer);
    EXPECT_EQ(buffer.error().sys_errno, EIO);
    EXPECT_TRUE(fd);
}

TEST_F(DmaBufTest, AFileIsRefusedBeforeItsFilesystemIsAsked) {
    ScriptedLibc libc;
    libc.fstatfs = [](int, struct statfs*) {
        ADD_FAILURE() << "a FUSE mount's answer may never come";
        return -1;
    };
    libc.ioctl = [](int, unsigned long, void*) {
        ADD_FAILURE() << "a FUSE mount's answer may never come";
        return -1;
    };
    for (const char* path : {"/proc/self/exe", "/dev/null", "/tmp"}) {
        UniqueFd fd(open(path, O_RDONLY | O_CLOEXEC));
        ASSERT_TRUE(fd) << path;
        expect_refused(DmaBuf::from_fd(std::move(fd)), "fd ");
        auto fence = SyncFile::from_fd(std::move(fd));
        ASSERT_FALSE(fence);
        EXPECT_EQ(fence.error().code, Errc::wrong_object);
        EXPECT_TRUE(fd);
    }
}

TEST_F(DmaBufTest, OneThatWasMovedFromIsNoBuffer) {
    ScriptedLibc libc;
    libc.memfds_are_dma_bufs();
    DmaBuf buffer = buffer_of(4096);
    DmaBuf taken(std::move(buffer));
    EXPECT_EQ(buffer.fd(), -1);
    EXPECT_EQ(buffer.size(), 0U);
    EXPECT_EQ(buffer.inode(), 0U);
    EXPECT_FALSE(same_buffer(buffer, buffer));
    EXPECT_FALSE(same_buffer(buffer, taken));
    const auto refused = [](const auto& result) {
        return !result && result.error().code == Errc::wrong_object;
    };
    EXPECT_TRUE(refused(buffer.wait(Access::read, Deadline::max())));
    EXPECT_TRUE(refused(buffer.export_fence(Access::read)));
    EXPECT_TRUE(refused(buffer.import_fence(SyncFile::signalled(), Access::read)));
    EXPECT_TRUE(refused(buffer.duplicate()));
    EXPECT_TRUE(refused(buffer.info()));
    EXPECT_TRUE(refused(buffer.set_name("gone")));
    EXPECT_TRUE(refused(CpuMap::map(buffer, Access::read)));
    EXPECT_TRUE(refused(BufferLock::acquire(buffer, Deadline::max())));
    EXPECT_TRUE(refused(implicit_sync_caps(buffer)));
    EXPECT_TRUE(refused(fence_before(buffer, Access::read)));
    SyncFile fence = SyncFile::signalled();
    const SyncFile kept(std::move(fence));
    EXPECT_TRUE(refused(taken.import_fence(fence, Access::read)));
    buffer = std::move(taken);
    EXPECT_EQ(buffer.size(), 4096U);
    EXPECT_EQ(taken.size(), 0U);
}

TEST_F(DmaBufTest, ExportAsksForTheAccessAndRestartsWhenInterrupted) {
    ScriptedLibc libc;
    libc.memfds_are_dma_bufs();
    for (const Access access : {Access::read, Access::write, Access::read_write}) {
        int interruptions = 0;
        std::uint32_t flags = 0;
        libc.ioctl = [&](int, unsigned long request, void* argument) {
            EXPECT_EQ(request, DMA_BUF_IOCTL_EXPORT_SYNC_FILE) << "one call is all it takes";
            if (++interruptions <= 2) {
                errno = interruptions == 1 ? EINTR : EAGAIN;
                return -1;
            }
            auto* asked = static_cast<dma_buf_export_sync_file*>(argument);
            flags = asked->flags;
            asked->fd = eventfd(0, EFD_CLOEXEC);
            return 0;
        };
        auto fence = buffer_of(4096).export_fence(access);
        ASSERT_TRUE(fence) << fence.error().message();
        EXPECT_EQ(interruptions, 3);
        EXPECT_EQ(flags, static_cast<std::uint32_t>(access));
    }
}

TEST_F(DmaBufTest, AnOldKernelIsNamedAsSuch) {
    ScriptedLibc libc;
    libc.memfds_are_dma_bufs();
    libc.ioctl = [](int, unsigned long request, void* argument) {
        if (request == SYNC_IOC_FILE_INFO)
            return answer_pending(argument);
        errno = ENOTTY;
        return -1;
    };
    const DmaBuf buffer = buffer_of(4096);
    auto fence = buffer.export_fence(Access::read);
    ASSERT_FALSE(fence);
    EXPECT_EQ(fence.error().code, Errc::unsupported);
    EXPECT_NE(fence.error().remedy.find("fence_before"), std::string::npos);
    auto pending = SyncFile::from_fd(UniqueFd(eventfd(0, EFD_CLOEXEC)));
    ASSERT_TRUE(pending);
    auto left = buffer.import_fence(*pending, Access::write);
    ASSERT_FALSE(left);
    EXPECT_EQ(left.error().code, Errc::unsupported);
}

TEST_F(DmaBufTest, ImportHandsOverTheFenceForTheAccess) {
    ScriptedLibc libc;
    libc.memfds_are_dma_bufs();
    dma_buf_import_sync_file got{};
    libc.ioctl = [&](int, unsigned long request, void* argument) {
        if (request == SYNC_IOC_FILE_INFO)
            return answer_pending(argument);
        EXPECT_EQ(request, DMA_BUF_IOCTL_IMPORT_SYNC_FILE);
        got = *static_cast<dma_buf_import_sync_file*>(argument);
        return 0;
    };
    auto fence = SyncFile::from_fd(UniqueFd(eventfd(0, EFD_CLOEXEC)));
    ASSERT_TRUE(fence);
    for (const Access access : {Access::read, Access::write, Access::read_write}) {
        EXPECT_TRUE(buffer_of(4096).import_fence(*fence, access));
        EXPECT_EQ(got.flags, static_cast<std::uint32_t>(access));
        EXPECT_EQ(got.fd, fence->fd());
    }
}

TEST_F(DmaBufTest, AnErrnoIsTheCodeThatACallerBranchesOn) {
    ScriptedLibc libc;
    libc.memfds_are_dma_bufs();
    const std::pair<int, Errc> meanings[] = {
        {EMFILE, Errc::no_resources},
        {ENFILE, Errc::no_resources},
        {ENOMEM, Errc::no_resources},
        {EBADF, Errc::wrong_object},
        {EINVAL, Errc::invalid_argument},
        {EBUSY, Errc::busy},
        {EACCES, Errc::no_permission},
        {EPERM, Errc::no_permission},
        {ENODEV, Errc::device_lost},
        {EOPNOTSUPP, Errc::unsupported},
        {EIO, Errc::failed},
    };
    const DmaBuf buffer = buffer_of(4096);
    for (const auto& [error, code] : meanings) {
        libc.ioctl = [error = error](int, unsigned long, void*) {
            errno = error;
            return -1;
        };
        auto refused = buffer.export_fence(Access::read);
        ASSERT_FALSE(refused);
        EXPECT_EQ(to_string(refused.error().code), to_string(code)) << refused.error().message();
        EXPECT_EQ(refused.error().sys_errno, error);
    }
}

TEST_F(DmaBufTest, ImportLeavesNothingOfAFenceThatNeedsNoFd) {
    ScriptedLibc libc;
    libc.memfds_are_dma_bufs();
    libc.ioctl = [](int, unsigned long, void*) -> int {
        ADD_FAILURE() << "no system call is needed";
        return -1;
    };
    EXPECT_TRUE(buffer_of(4096).import_fence(SyncFile::signalled(), Access::write));
}

TEST_F(DmaBufTest, WaitPollsForWritersOrForEveryone) {
    ScriptedLibc libc;
    libc.memfds_are_dma_bufs();
    short events = 0;
    libc.ppoll = [&](pollfd* fds, nfds_t, const timespec*) {
        events = fds->events;
        fds->revents = fds->events;
        return 1;
    };
    const DmaBuf buffer = buffer_of(4096);
    EXPECT_TRUE(buffer.wait(Access::read, deadline_in(1s)));
    EXPECT_EQ(events, POLLIN);
    EXPECT_TRUE(buffer.wait(Access::write, deadline_in(1s)));
    EXPECT_EQ(events, POLLOUT);
    EXPECT_TRUE(buffer.wait(Access::read_write, deadline_in(1s)));
    EXPECT_EQ(events, POLLOUT);
}

TEST_F(DmaBufTest, WaitEndsAtTheDeadlineHoweverOftenItIsInterrupted) {
    ScriptedLibc libc;
    libc.memfds_are_dma_bufs();
    probe::set_export_fence(false); // all the waiting is one poll
    int calls = 0;
    timespec last{};
    libc.ppoll = [&](pollfd*, nfds_t, const timespec* timeout) {
        ++calls;
        last = *timeout;
        std::this_thread::sleep_for(1ms);
        if (timeout->tv_sec == 0 && timeout->tv_nsec == 0)
            return 0;
        errno = EINTR;
        return -1;
    };
    const auto deadline = deadline_in(20ms);
    auto waited = buffer_of(4096).wait(Access::read, deadline);
    ASSERT_FALSE(waited);
    EXPECT_EQ(waited.error().code, Errc::timed_out);
    EXPECT_GE(Deadline::clock::now(), deadline);
    EXPECT_GT(calls, 2);
    EXPECT_EQ(last.tv_nsec, 0) << "the time that is left shrinks to nothing";
}

TEST_F(DmaBufTest, WaitGoesOnWhereTheTimerFiredEarly) {
    ScriptedLibc libc;
    libc.memfds_are_dma_bufs();
    probe::set_export_fence(false);
    int calls = 0;
    libc.ppoll = [&](pollfd* fds, nfds_t, const timespec*) {
        fds->revents = fds->events;
        return calls++ == 0 ? 0 : 1;
    };
    EXPECT_TRUE(buffer_of(4096).wait(Access::read, deadline_in(5s)));
    EXPECT_EQ(calls, 2);
}

TEST_F(DmaBufTest, TellsIdleFromBusyByOnePoll) {
    ScriptedLibc libc;
    libc.memfds_are_dma_bufs();
    const DmaBuf buffer = buffer_of(4096);
    int polls = 0;
    short busy = POLLOUT; // readers are left
    libc.ppoll = [&](pollfd* fds, nfds_t, const timespec* timeout) {
        ++polls;
        EXPECT_EQ(timeout->tv_sec + timeout->tv_nsec, 0);
        fds->revents = static_cast<short>(fds->events & ~busy);
        return fds->revents != 0 ? 1 : 0;
    };
    EXPECT_TRUE(buffer.idle(Access::read).value());
    EXPECT_FALSE(buffer.idle(Access::write).value());
    EXPECT_EQ(polls, 2);
    libc.ppoll = [&](pollfd* fds, nfds_t, const timespec*) {
        fds->revents = POLLNVAL;
        return 1;
    };
    auto closed = buffer.idle(Access::read);
    ASSERT_FALSE(closed);
    EXPECT_EQ(closed.error().code, Errc::wrong_object);
    EXPECT_EQ(closed.error().operation, "DmaBuf::idle");
}

TEST_F(DmaBufTest, RefusalsSayWhatHelps) {
    ScriptedLibc libc;
    libc.memfds_are_dma_bufs();
    const DmaBuf buffer = buffer_of(4096);
    int error = 0;
    libc.ioctl = [&](int, unsigned long request, void* argument) {
        if (request == SYNC_IOC_FILE_INFO)
            return answer_pending(argument);
        errno = error;
        return -1;
    };
    for (const auto& [number, code, remedy] :
         {std::tuple(EMFILE, Errc::no_resources, "RLIMIT_NOFILE"),
          std::tuple(ENOMEM, Errc::no_resources, "memory"),
          std::tuple(EBADF, Errc::wrong_object, "open")}) {
        error = number;
        auto refused = buffer.export_fence(Access::read);
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, code);
        EXPECT_NE(refused.error().remedy.find(remedy), std::string::npos)
            << refused.error().message();
    }
    error = EINVAL; // what the kernel says of a fence's fd that is closed
    const SyncFile fence = std::move(*SyncFile::from_fd(UniqueFd(eventfd(0, EFD_CLOEXEC))));
    auto refused = buffer.import_fence(fence, Access::read);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::wrong_object);
}

TEST_F(DmaBufTest, WaitOnAClosedFdIsAnErrorAndNoEndlessWait) {
    ScriptedLibc libc;
    libc.memfds_are_dma_bufs();
    DmaBuf buffer = buffer_of(4096);
    const int number = buffer.fd();
    const int spare = dup(number);
    close(number);
    auto waited = buffer.wait(Access::read, deadline_in(5s));
    ASSERT_FALSE(waited);
    EXPECT_EQ(waited.error().code, Errc::wrong_object);
    ASSERT_EQ(dup2(spare, number), number);
    close(spare);
}

/// A kernel whose buffer stays busy for \p polls of it, and whose fence ends with \p status.
class BusyBuffer {
public:
    BusyBuffer(ScriptedLibc& libc, int polls, int status) {
        libc.memfds_are_dma_bufs();
        libc.ppoll = [this, polls](pollfd* fds, nfds_t, const timespec*) {
            const bool buffer = fds->fd == number;
            const bool ready = !buffer || buffer_polls++ >= polls;
            fds->revents = ready ? fds->events : short{0};
            return ready ? 1 : 0;
        };
        libc.ioctl = [this, status](int, unsigned long request, void* argument) {
            if (request == SYNC_IOC_FILE_INFO)
                return test::answer_file_info(argument, std::array{status});
            EXPECT_EQ(request, DMA_BUF_IOCTL_EXPORT_SYNC_FILE);
            ++exports;
            static_cast<dma_buf_export_sync_file*>(argument)->fd = eventfd(0, EFD_CLOEXEC);
            return 0;
        };
    }

    int number = -1;
    int buffer_polls = 0;
    int exports = 0;
};

TEST_F(DmaBufTest, WaitTellsOfAFenceThatFailsMeanwhile) {
    ScriptedLibc libc;
    BusyBuffer kernel(libc, 1, -EIO);
    const DmaBuf buffer = buffer_of(4096);
    kernel.number = buffer.fd();
    auto waited = buffer.wait(Access::read, deadline_in(5s));
    ASSERT_FALSE(waited);
    EXPECT_EQ(waited.error().code, Errc::fence_failed);
    EXPECT_EQ(waited.error().sys_errno, EIO);
    EXPECT_EQ(waited.error().operation, "DmaBuf::wait");
    EXPECT_NE(waited.error().object.find("buffer ino"), std::string::npos);
    EXPECT_TRUE(buffer.wait(Access::read, deadline_in(5s))) << "nothing holds it any more";
}

TEST_F(DmaBufTest, WaitGoesOnForFencesThatCameMeanwhile) {
    ScriptedLibc libc;
    BusyBuffer kernel(libc, 3, 1);
    const DmaBuf buffer = buffer_of(4096);
    kernel.number = buffer.fd();
    EXPECT_TRUE(buffer.wait(Access::write, deadline_in(5s)));
    EXPECT_EQ(kernel.exports, 3);
    EXPECT_EQ(kernel.buffer_polls, 4);
}

TEST_F(DmaBufTest, WaitWithNoTimeLeftAsksForNoFence) {
    ScriptedLibc libc;
    BusyBuffer kernel(libc, 100, 1);
    const DmaBuf buffer = buffer_of(4096);
    kernel.number = buffer.fd();
    EXPECT_EQ(buffer.wait(Access::write, deadline_in(0s)).error().code, Errc::timed_out);
    EXPECT_EQ(kernel.exports, 0);
}

TEST_F(DmaBufTest, WaitThatFindsNoFdForAFenceSaysSo) {
    ScriptedLibc libc;
    BusyBuffer kernel(libc, 100, 1);
    libc.ioctl = [](int, unsigned long, void*) {
        errno = EMFILE;
        return -1;
    };
    const DmaBuf buffer = buffer_of(4096);
    kernel.number = buffer.fd();
    auto waited = buffer.wait(Access::read, deadline_in(5s));
    ASSERT_FALSE(waited);
    EXPECT_EQ(waited.error().code, Errc::no_resources);
    EXPECT_EQ(waited.error().operation, "DmaBuf::wait");
}

TEST_F(DmaBufTest, ModeIsTheFdsOwn) {
    ScriptedLibc libc;
    libc.memfds_are_dma_bufs();
    const DmaBuf writable = buffer_of(4096);
    const std::string path = "/proc/self/fd/" + std::to_string(writable.fd());
    for (const auto& [flags, mode] :
         {std::pair(O_RDWR, Access::read_write), std::pair(O_RDONLY, Access::read),
          std::pair(O_WRONLY, Access::write)}) {
        auto buffer = DmaBuf::from_fd(UniqueFd(open(path.c_str(), flags | O_CLOEXEC)));
        ASSERT_TRUE(buffer);
        EXPECT_EQ(buffer->mode(), mode);
    }
}

TEST_F(DmaBufTest, NamesAreCutToWhatTheKernelTakes) {
    ScriptedLibc libc;
    libc.memfds_are_dma_bufs();
    std::string got;
    libc.ioctl = [&](int, unsigned long request, void* argument) {
        EXPECT_EQ(request, DMA_BUF_SET_NAME_B);
        got = static_cast<const char*>(argument);
        return 0;
    };
    const DmaBuf buffer = buffer_of(4096);
    EXPECT_TRUE(buffer.set_name("cam-0"));
    EXPECT_EQ(got, "cam-0");
    EXPECT_TRUE(buffer.set_name(std::string(100, 'x')));
    EXPECT_EQ(got, std::string(31, 'x'));
    libc.ioctl = [](int, unsigned long, void*) {
        errno = ENOMEM;
        return -1;
    };
    EXPECT_EQ(buffer.set_name("a").error().code, Errc::no_resources);
}

TEST_F(DmaBufTest, InfoOfWhatIsNoDmaBufAfterAllIsAnError) {
    ScriptedLibc libc;
    libc.memfds_are_dma_bufs();
    auto info = buffer_of(4096).info();
    ASSERT_FALSE(info) << "a memfd's fdinfo has no exp_name";
    EXPECT_EQ(info.error().code, Errc::unsupported);
}

} // namespace
} // namespace sluice
