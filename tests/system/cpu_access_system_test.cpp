// SPDX-License-Identifier: MIT
// The bracket around the CPU's use of real buffers.
#include <sluice/cpu_access.hpp>

#include <array>
#include <cerrno>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/perf_event.h>
#include <sys/syscall.h>

#include <sluice/log.hpp>

#include "support/asleep.hpp"
#include "support/dma_heap.hpp"
#include "support/fd_limit.hpp"
#include "support/protection.hpp"
#include "support/real_kernel.hpp"
#include "support/signal_storm.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::accesses;
using test::protection_of;
using test::SignalStorm;
using test::SwSync;
using test::udmabuf;

using CpuAccessSystemTest = test::RealKernelTest;

CpuMap map(const DmaBuf& buffer, CpuMapMode mode = CpuMapMode::automatic) {
    auto mapped = CpuMap::map(buffer, Access::read_write, mode);
    EXPECT_TRUE(mapped) << mapped.error().message();
    return std::move(*mapped);
}

/// The kernel's own answer to DMA_BUF_IOCTL_SYNC: 0 or an errno.
int sync(const DmaBuf& buffer, std::uint64_t flags) {
    dma_buf_sync request{.flags = flags};
    return ioctl(buffer.fd(), DMA_BUF_IOCTL_SYNC, &request) == 0 ? 0 : errno;
}

/// How many system calls this thread makes, by the kernel's own count.
class SyscallCounter {
public:
    SyscallCounter() {
        std::ifstream id("/sys/kernel/tracing/events/raw_syscalls/sys_enter/id");
        perf_event_attr event{};
        event.type = PERF_TYPE_TRACEPOINT;
        event.size = sizeof(event);
        if (id >> event.config)
            fd_ = UniqueFd(static_cast<int>(
                syscall(SYS_perf_event_open, &event, 0, -1, -1, PERF_FLAG_FD_CLOEXEC)));
    }
    [[nodiscard]] bool works() const { return static_cast<bool>(fd_); }
    /// So many of them \p body makes.
    template <typename Body> [[nodiscard]] std::uint64_t during(Body body) const {
        const std::uint64_t before = now();
        body();
        return now() - before - 1; // the second look
    }

private:
    [[nodiscard]] std::uint64_t now() const {
        std::uint64_t count = 0;
        EXPECT_EQ(read(fd_.get(), &count, sizeof(count)), static_cast<ssize_t>(sizeof(count)));
        return count;
    }
    UniqueFd fd_;
};

TEST_F(CpuAccessSystemTest, WhatOneAccessWritesAnotherReads) {
    const DmaBuf buffer = udmabuf(8192);
    auto writer = CpuMap::map(buffer, Access::write);
    auto reader = CpuMap::map(*buffer.duplicate(), Access::read);
    ASSERT_TRUE(writer && reader);
    {
        auto access = CpuAccess::begin(*writer, Access::write, deadline_in(1s));
        ASSERT_TRUE(access) << access.error().message();
        access->bytes()[8191] = std::byte{42};
        EXPECT_TRUE(access->end());
    }
    auto access = CpuAccess::begin(*reader, Access::read, deadline_in(1s));
    ASSERT_TRUE(access);
    EXPECT_EQ(access->bytes()[8191], std::byte{42});
    EXPECT_TRUE(access->end());
}

TEST_F(CpuAccessSystemTest, HeapBuffersWorkAlike) {
    SLUICE_REQUIRES(test::has_system_heap(), "/dev/dma_heap/system does not open");
    for (const bool writable : {true, false}) {
        auto buffer = test::heap_buffer(4096, writable ? O_RDWR : O_RDONLY);
        ASSERT_TRUE(buffer) << buffer.error().message();
        auto reader = CpuMap::map(*buffer, Access::read);
        ASSERT_TRUE(reader) << reader.error().message();
        EXPECT_TRUE(CpuAccess::begin(*reader, Access::read, deadline_in(1s))->end());
        auto writer = CpuMap::map(*buffer, Access::write);
        EXPECT_EQ(writer.has_value(), writable);
        if (!writable) {
            EXPECT_EQ(writer.error().code, Errc::no_permission) << writer.error().message();
        } else {
            EXPECT_TRUE(CpuAccess::begin(*writer, Access::write, deadline_in(1s))->end());
        }
    }
}

TEST_F(CpuAccessSystemTest, APendingWriterIsWaitedForWithABound) {
    for (const Access access : accesses) {
        SwSync timeline;
        const DmaBuf buffer = udmabuf(4096);
        const CpuMap mapping = map(buffer);
        ASSERT_TRUE(buffer.import_fence(timeline.fence(1), Access::write));
        const auto start = Deadline::clock::now();
        auto early = CpuAccess::begin(mapping, access, deadline_in(50ms));
        ASSERT_FALSE(early);
        EXPECT_EQ(early.error().code, Errc::timed_out);
        EXPECT_EQ(early.error().operation, "CpuAccess::begin");
        EXPECT_GE(Deadline::clock::now() - start, 50ms);
        timeline.advance(1);
        EXPECT_TRUE(CpuAccess::begin(mapping, access, deadline_in(5s)));
    }
}

TEST_F(CpuAccessSystemTest, AReaderWaitsForNoReaderButAWriterDoes) {
    SwSync timeline;
    const DmaBuf buffer = udmabuf(4096);
    const CpuMap mapping = map(buffer);
    ASSERT_TRUE(buffer.import_fence(timeline.fence(1), Access::read));
    EXPECT_TRUE(CpuAccess::begin(mapping, Access::read, deadline_in(0s)));
    for (const Access access : {Access::write, Access::read_write})
        EXPECT_EQ(CpuAccess::begin(mapping, access, deadline_in(5ms)).error().code,
                  Errc::timed_out);
    timeline.advance(1);
    EXPECT_TRUE(CpuAccess::begin(mapping, Access::write, deadline_in(5s)));
}

TEST_F(CpuAccessSystemTest, BeginGoesOnAsSoonAsTheFenceSignals) {
    SwSync timeline;
    const DmaBuf buffer = udmabuf(4096);
    const CpuMap mapping = map(buffer);
    ASSERT_TRUE(buffer.import_fence(timeline.fence(1), Access::write));
    std::jthread signaller([&] {
        std::this_thread::sleep_for(30ms);
        timeline.advance(1);
    });
    EXPECT_TRUE(CpuAccess::begin(mapping, Access::read, deadline_in(20s)));
}

TEST_F(CpuAccessSystemTest, AFailedFenceIsToldOnceAndTheNextBeginSucceeds) {
    SwSync timeline;
    const DmaBuf buffer = udmabuf(4096);
    const CpuMap mapping = map(buffer);
    ASSERT_TRUE(buffer.import_fence(timeline.fence(1), Access::write));
    std::jthread closer([&, waiter = test::this_thread()] {
        test::until_it_polls(waiter);
        timeline.close();
    });
    auto failed = CpuAccess::begin(mapping, Access::read, deadline_in(20s));
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().code, Errc::fence_failed);
    EXPECT_EQ(failed.error().sys_errno, ENOENT);
    EXPECT_TRUE(CpuAccess::begin(mapping, Access::read, deadline_in(0s)));
}

TEST_F(CpuAccessSystemTest, AnAccessOutlivesEveryOtherHold) {
    auto buffer = std::make_unique<DmaBuf>(udmabuf(8192));
    auto mapping = std::make_unique<CpuMap>(map(*buffer));
    auto access = CpuAccess::begin(*mapping, Access::write, deadline_in(1s));
    ASSERT_TRUE(access);
    mapping.reset();
    buffer.reset();
    access->bytes()[8191] = std::byte{1};
    EXPECT_TRUE(access->end());
}

TEST_F(CpuAccessSystemTest, AStormOfSignalsInterruptsNoBracket) {
    SwSync timeline;
    const DmaBuf buffer = udmabuf(4096);
    const CpuMap mapping = map(buffer);
    const SignalStorm storm(100us);
    int brackets = 0;
    for (; brackets < 300 || (SignalStorm::delivered() < 100 && brackets < 100000); ++brackets) {
        auto access = CpuAccess::begin(mapping, Access::read_write, deadline_in(20s));
        ASSERT_TRUE(access) << access.error().message();
        ASSERT_TRUE(access->end());
    }
    EXPECT_GE(SignalStorm::delivered(), 100);
}

TEST_F(CpuAccessSystemTest, AStormOfSignalsNeitherCutsNorStretchesAWait) {
    SwSync timeline;
    const DmaBuf buffer = udmabuf(4096);
    const CpuMap mapping = map(buffer);
    ASSERT_TRUE(buffer.import_fence(timeline.fence(1), Access::write));
    const SignalStorm storm(100us);
    auto start = Deadline::clock::now();
    auto early = CpuAccess::begin(mapping, Access::read, start + 50ms);
    ASSERT_FALSE(early);
    EXPECT_EQ(early.error().code, Errc::timed_out);
    EXPECT_GE(Deadline::clock::now() - start, 50ms);

    start = Deadline::clock::now();
    std::jthread signaller([&] {
        std::this_thread::sleep_until(start + 200ms);
        timeline.advance(1);
    });
    auto access = CpuAccess::begin(mapping, Access::read, deadline_in(20s));
    EXPECT_TRUE(access) << access.error().message();
    EXPECT_GE(Deadline::clock::now() - start, 200ms);
    EXPECT_GE(SignalStorm::delivered(), 20);
}

// Why begin() waits by itself first.
TEST_F(CpuAccessSystemTest, TheKernelsStartWaitsForFencesWithNoBoundButSignals) {
    SwSync timeline;
    const DmaBuf buffer = udmabuf(4096);
    ASSERT_TRUE(buffer.import_fence(timeline.fence(1), Access::write));
    fcntl(buffer.fd(), F_SETFL, O_NONBLOCK);
    {
        const auto start = Deadline::clock::now();
        const SignalStorm after(50ms);
        EXPECT_EQ(sync(buffer, DMA_BUF_SYNC_READ | DMA_BUF_SYNC_START), EINTR);
        EXPECT_GE(Deadline::clock::now() - start, 50ms) << "O_NONBLOCK is of no use";
    }
    timeline.advance(1);
    EXPECT_EQ(sync(buffer, DMA_BUF_SYNC_READ | DMA_BUF_SYNC_START), 0);
    EXPECT_EQ(sync(buffer, DMA_BUF_SYNC_READ | DMA_BUF_SYNC_END), 0);
}

TEST_F(CpuAccessSystemTest, TheKernelTakesKnownFlagsOnly) {
    const DmaBuf buffer = udmabuf(4096);
    EXPECT_EQ(sync(buffer, 0), EINVAL);
    EXPECT_EQ(sync(buffer, DMA_BUF_SYNC_START), EINVAL);
    EXPECT_EQ(sync(buffer, DMA_BUF_SYNC_READ | 8), EINVAL);
    EXPECT_EQ(sync(buffer, DMA_BUF_SYNC_READ | (std::uint64_t{1} << 32)), EINVAL);
}

TEST_F(CpuAccessSystemTest, TheKernelCountsNoBrackets) {
    constexpr std::uint64_t start = DMA_BUF_SYNC_RW | DMA_BUF_SYNC_START;
    constexpr std::uint64_t end = DMA_BUF_SYNC_RW | DMA_BUF_SYNC_END;
    const DmaBuf of_memfd = udmabuf(4096);
    EXPECT_EQ(sync(of_memfd, end), EINVAL) << "udmabuf: END before the first START";
    std::vector<DmaBuf> buffers;
    buffers.push_back(std::move(*of_memfd.duplicate()));
    if (auto heap = test::heap_buffer(4096)) {
        EXPECT_EQ(sync(*heap, end), 0) << "a heap does not mind";
        buffers.push_back(std::move(*heap));
    }
    for (const DmaBuf& buffer : buffers) {
        EXPECT_EQ(sync(buffer, start), 0);
        EXPECT_EQ(sync(buffer, start), 0);
        EXPECT_EQ(sync(buffer, end), 0);
        EXPECT_EQ(sync(buffer, end), 0);
        EXPECT_EQ(sync(buffer, end), 0) << "one more END than START";
    }
}

TEST_F(CpuAccessSystemTest, AccessesNestInAnyOrder) {
    const CpuMap mapping = map(udmabuf(4096));
    auto first = CpuAccess::begin(mapping, Access::write, deadline_in(1s));
    auto second = CpuAccess::begin(mapping, Access::read, deadline_in(1s));
    auto third = CpuAccess::begin(mapping, Access::read_write, deadline_in(1s));
    ASSERT_TRUE(first && second && third);
    EXPECT_TRUE(first->end());
    EXPECT_EQ(third->bytes().size(), 4096U);
    EXPECT_TRUE(third->end());
    EXPECT_TRUE(second->end());
    EXPECT_TRUE(second->end()) << "ended already";
}

TEST_F(CpuAccessSystemTest, PlanesOfOneBufferAreBracketedOnce) {
    const SyscallCounter counter;
    SLUICE_REQUIRES(counter.works(), "no tracepoint that counts system calls (raw_syscalls)");
    const DmaBuf buffer = udmabuf(4096);
    const DmaBuf other = udmabuf(4096);
    const std::array one{map(buffer), map(*buffer.duplicate()), map(buffer)};
    const std::array two{map(buffer), map(other), map(buffer), map(other)};
    const auto bracket = [](std::span<const CpuMap> maps) {
        EXPECT_TRUE(CpuAccess::begin(maps, Access::write, deadline_in(1s))->end());
    };
    bracket(two);
    EXPECT_EQ(counter.during([] {}), 0U);
    EXPECT_EQ(counter.during([&] { bracket(one); }), 3U) << "a poll, a START and an END";
    EXPECT_EQ(counter.during([&] { bracket(two); }), 6U);
}

TEST_F(CpuAccessSystemTest, AllBracketsAreOpenOrNone) {
    SwSync timeline;
    const DmaBuf idle = udmabuf(4096);
    const DmaBuf busy = udmabuf(4096);
    const std::array maps{map(idle, CpuMapMode::strict), map(busy, CpuMapMode::strict)};
    const void* idles = CpuAccess::begin(maps[0], Access::read, deadline_in(1s))->bytes().data();
    ASSERT_TRUE(busy.import_fence(timeline.fence(1), Access::write));
    EXPECT_EQ(CpuAccess::begin(maps, Access::write, deadline_in(10ms)).error().code,
              Errc::timed_out);
    EXPECT_EQ(protection_of(idles), "---") << "the bracket that was open is closed again";
    timeline.advance(1);
    auto access = CpuAccess::begin(maps, Access::write, deadline_in(5s));
    ASSERT_TRUE(access);
    EXPECT_EQ(protection_of(idles), "rw-");
    EXPECT_EQ(protection_of(access->bytes(1).data()), "rw-");
}

TEST_F(CpuAccessSystemTest, WithNoFdLeftForAFenceNoBracketStaysOpen) {
    std::array<SwSync, 2> timelines;
    const DmaBuf idle = udmabuf(4096);
    const DmaBuf busy = udmabuf(4096);
    const DmaBuf busier = udmabuf(4096);
    const std::array maps{map(idle, CpuMapMode::strict), map(busy), map(busier)};
    const void* idles = CpuAccess::begin(maps[0], Access::read, deadline_in(1s))->bytes().data();
    ASSERT_TRUE(busy.import_fence(timelines[0].fence(1), Access::write));
    ASSERT_TRUE(busier.import_fence(timelines[1].fence(1), Access::read));
    {
        const test::FdLimit none_left;
        auto refused = CpuAccess::begin(maps, Access::write, deadline_in(20s));
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, Errc::no_resources) << refused.error().message();
        EXPECT_EQ(refused.error().operation, "CpuAccess::begin");
        timelines[0].advance(1);
        EXPECT_EQ(CpuAccess::begin(maps, Access::write, deadline_in(20s)).error().code,
                  Errc::no_resources);
        timelines[1].advance(1);
        EXPECT_TRUE(CpuAccess::begin(maps, Access::write, deadline_in(20s)))
            << "idle buffers need no fd";
    }
    EXPECT_EQ(protection_of(idles), "---");
}

/// The fd that the mapping of \p buffer keeps for itself, the one beside the buffer's own.
int fd_of_mapping(const DmaBuf& buffer) {
    for (const auto& [number, what] : test::open_fds())
        if (what.starts_with("/dmabuf:") && std::stoi(number) != buffer.fd())
            return std::stoi(number);
    return -1;
}

TEST_F(CpuAccessSystemTest, AnEndThatTheKernelRefusesIsReturnedOrLogged) {
    const DmaBuf buffer = udmabuf(4096);
    const CpuMap mapping = map(buffer);
    auto ended = CpuAccess::begin(mapping, Access::write, deadline_in(1s));
    auto dropped = CpuAccess::begin(mapping, Access::write, deadline_in(1s));
    ASSERT_TRUE(ended && dropped);
    const UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
    const int number = fd_of_mapping(buffer);
    ASSERT_EQ(dup3(null.get(), number, O_CLOEXEC), number);

    std::vector<Error> logged;
    set_log([](const Error& error,
               void* to) noexcept { static_cast<std::vector<Error>*>(to)->push_back(error); },
            &logged);
    auto refused = ended->end();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().operation, "CpuAccess::end");
    EXPECT_EQ(refused.error().sys_errno, ENOTTY);
    EXPECT_TRUE(logged.empty());
    { const CpuAccess gone = std::move(*dropped); }
    ASSERT_EQ(logged.size(), 1U);
    EXPECT_EQ(logged[0].operation, "CpuAccess::end");
    EXPECT_NE(logged[0].object.find("ino " + std::to_string(buffer.inode())), std::string::npos);
    set_log(nullptr, nullptr);
}

} // namespace
} // namespace sluice
