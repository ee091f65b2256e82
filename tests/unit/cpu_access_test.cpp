// SPDX-License-Identifier: MIT
#include <sluice/cpu_access.hpp>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <linux/dma-buf.h>
#include <sys/mman.h>

#include <sluice/log.hpp>

#include "core/probe.hpp"
#include "core/strict_pages.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/scripted_libc.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::ScriptedLibc;

constexpr std::uint64_t START = DMA_BUF_SYNC_START;
constexpr std::uint64_t END = DMA_BUF_SYNC_END;
constexpr std::uint64_t READ = DMA_BUF_SYNC_READ;
constexpr std::uint64_t RW = DMA_BUF_SYNC_RW;

/// Buffers over memfds, idle, whose brackets are written down. Outside a test's body the objects
/// must be gone, since the fixture counts the fds.
class CpuAccessTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        libc.memfds_are_dma_bufs();
        libc.ppoll = [this](pollfd* fds, nfds_t, const timespec*) {
            waited_for = fds->events;
            fds->revents = idle ? fds->events : short{0};
            return idle ? 1 : 0;
        };
        libc.ioctl = [this](int, unsigned long request, void* argument) {
            if (request == DMA_BUF_IOCTL_EXPORT_SYNC_FILE) { // a pending fence is polled for
                errno = ENOTTY;
                return -1;
            }
            EXPECT_EQ(request, DMA_BUF_IOCTL_SYNC);
            if (!refusals.empty()) {
                errno = refusals.back();
                refusals.pop_back();
                return -1;
            }
            edges.push_back(static_cast<dma_buf_sync*>(argument)->flags);
            return 0;
        };
    }

    void TearDown() override {
        probe::forget();
        FdTest::TearDown();
    }

    static DmaBuf buffer() { return std::move(*DmaBuf::from_fd(test::memfd(8192))); }
    static CpuMap map(Access access) { return std::move(*CpuMap::map(buffer(), access)); }

    ScriptedLibc libc;
    bool idle = true;
    short waited_for = 0;             // POLLIN: the writers, POLLOUT: everyone
    std::vector<int> refusals;        // errnos that the next ioctls give, last first
    std::vector<std::uint64_t> edges; // the flags of every bracket's edge
};

TEST_F(CpuAccessTest, BracketsTheUseAndGivesTheWholeBuffer) {
    const CpuMap mapping = map(Access::read_write);
    auto access = CpuAccess::begin(mapping, Access::read_write, deadline_in(1s));
    ASSERT_TRUE(access) << access.error().message();
    EXPECT_EQ(edges, (std::vector{RW | START}));
    ASSERT_EQ(access->bytes().size(), 8192U);
    access->bytes().back() = std::byte{42};
    EXPECT_TRUE(access->end());
    EXPECT_EQ(edges, (std::vector{RW | START, RW | END}));
    EXPECT_TRUE(access->bytes().empty());
    EXPECT_TRUE(access->end()) << "ending twice is nothing to complain about";
    EXPECT_EQ(edges.size(), 2U);
}

TEST_F(CpuAccessTest, TheDestructorEnds) {
    const CpuMap mapping = map(Access::read);
    { auto access = CpuAccess::begin(mapping, Access::read, deadline_in(1s)); }
    EXPECT_EQ(edges, (std::vector{READ | START, READ | END}));
}

TEST_F(CpuAccessTest, MovingEndsWhatItReplacesAndNothingTwice) {
    const CpuMap first = map(Access::read);
    const CpuMap second = map(Access::read_write);
    {
        auto a = CpuAccess::begin(first, Access::read, deadline_in(1s));
        auto b = CpuAccess::begin(second, Access::read_write, deadline_in(1s));
        ASSERT_TRUE(a && b);
        *a = std::move(*b);
        EXPECT_EQ(edges, (std::vector{READ | START, RW | START, READ | END}));
        CpuAccess c(std::move(*a));
        EXPECT_EQ(c.bytes().size(), 8192U);
        EXPECT_TRUE(a->bytes().empty());
    }
    EXPECT_EQ(edges, (std::vector{READ | START, RW | START, READ | END, RW | END}));
}

TEST_F(CpuAccessTest, AnAccessOutlivesItsMappingsOwner) {
    auto mapping = std::make_unique<CpuMap>(map(Access::read_write));
    auto access = CpuAccess::begin(*mapping, Access::read_write, deadline_in(1s));
    mapping.reset();
    access->bytes().front() = std::byte{1};
    EXPECT_TRUE(access->end());
}

TEST_F(CpuAccessTest, APendingFenceEndsTheWaitAtTheDeadlineWithNoBracketOpen) {
    const CpuMap mapping = map(Access::read);
    idle = false;
    auto access = CpuAccess::begin(mapping, Access::read, deadline_in(5ms));
    ASSERT_FALSE(access);
    EXPECT_EQ(access.error().code, Errc::timed_out);
    EXPECT_EQ(access.error().operation, "CpuAccess::begin");
    EXPECT_TRUE(edges.empty()) << "START would wait without end";
}

TEST_F(CpuAccessTest, AReaderWaitsForTheWritersAndAWriterForEveryone) {
    const CpuMap mapping = map(Access::read_write);
    for (const auto& [access, events] :
         {std::pair(Access::read, POLLIN), std::pair(Access::write, POLLOUT),
          std::pair(Access::read_write, POLLOUT)}) {
        ASSERT_TRUE(CpuAccess::begin(mapping, access, deadline_in(1s)));
        EXPECT_EQ(waited_for, events) << to_string(access);
    }
}

TEST_F(CpuAccessTest, InterruptedEdgesAreRestarted) {
    const CpuMap mapping = map(Access::read);
    refusals = {EINTR, EAGAIN, EINTR};
    auto access = CpuAccess::begin(mapping, Access::read, deadline_in(1s));
    ASSERT_TRUE(access);
    refusals = {EAGAIN, EINTR};
    EXPECT_TRUE(access->end());
    EXPECT_EQ(edges, (std::vector{READ | START, READ | END}));
}

TEST_F(CpuAccessTest, RefusedEdgesAreReported) {
    const CpuMap mapping = map(Access::read);
    refusals = {EIO};
    auto refused = CpuAccess::begin(mapping, Access::read, deadline_in(1s));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().sys_errno, EIO);
    EXPECT_TRUE(edges.empty()) << "what did not begin is not ended";

    auto access = CpuAccess::begin(mapping, Access::read, deadline_in(1s));
    ASSERT_TRUE(access);
    refusals = {EINVAL};
    auto ended = access->end();
    ASSERT_FALSE(ended);
    EXPECT_EQ(ended.error().operation, "CpuAccess::end");
    EXPECT_EQ(ended.error().sys_errno, EINVAL);
}

TEST_F(CpuAccessTest, WritingNeedsAMappingForIt) {
    const CpuMap mapping = map(Access::read);
    auto access = CpuAccess::begin(mapping, Access::write, deadline_in(1s));
    ASSERT_FALSE(access);
    EXPECT_EQ(access.error().code, Errc::invalid_argument);
    EXPECT_TRUE(edges.empty());
}

TEST_F(CpuAccessTest, AMappingThatWasMovedAwayIsRefused) {
    CpuMap mapping = map(Access::read);
    const CpuMap moved(std::move(mapping));
    auto access = CpuAccess::begin(mapping, Access::read, deadline_in(1s));
    ASSERT_FALSE(access);
    EXPECT_EQ(access.error().code, Errc::wrong_object);
    EXPECT_EQ(mapping.size(), 0U);
    EXPECT_EQ(moved.size(), 8192U);
}

TEST_F(CpuAccessTest, AReadOnlyBufferIsMappedForReadingOnly) {
    auto writable = test::memfd(4096);
    const std::string path = "/proc/self/fd/" + std::to_string(writable.get());
    auto buffer = DmaBuf::from_fd(UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC)));
    ASSERT_TRUE(buffer);
    EXPECT_TRUE(CpuMap::map(*buffer, Access::read));
    auto refused = CpuMap::map(*buffer, Access::write);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::no_permission);
    EXPECT_EQ(refused.error().sys_errno, EACCES);

    auto same = DmaBuf::from_fd(std::move(writable));
    auto mapped = CpuMap::map(*same, Access::write);
    ASSERT_TRUE(mapped);
    EXPECT_FALSE(CpuMap::map(*buffer, Access::write)) << "another fd's mapping is no way around";
}

TEST_F(CpuAccessTest, RefusedMappingsLeaveNothingBehind) {
    const DmaBuf of = buffer();
    for (const auto& [error, code] :
         {std::pair(ENOMEM, Errc::no_resources), std::pair(ENODEV, Errc::unsupported),
          std::pair(EINVAL, Errc::unsupported)}) {
        libc.mmap = [error = error](void*, size_t, int, int, int, off_t) {
            errno = error;
            return MAP_FAILED;
        };
        auto refused = CpuMap::map(of, Access::read);
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, code);
    }
    auto empty = DmaBuf::from_fd(test::memfd(0));
    ASSERT_TRUE(empty);
    EXPECT_EQ(CpuMap::map(*empty, Access::read).error().code, Errc::unsupported);
}

TEST_F(CpuAccessTest, TheMappingGoesWithItsLastHolder) {
    int unmapped = 0;
    libc.munmap = [&](void*, size_t size) {
        EXPECT_EQ(size, 8192U);
        ++unmapped;
        return 0;
    };
    {
        auto mapping = std::make_unique<CpuMap>(map(Access::read));
        auto access = CpuAccess::begin(*mapping, Access::read, deadline_in(1s));
        mapping.reset();
        EXPECT_EQ(unmapped, 0);
    }
    EXPECT_EQ(unmapped, 1);
}

TEST_F(CpuAccessTest, ABufferIsMappedOnceHoweverOftenItIsAskedFor) {
    const DmaBuf of = buffer();
    const DmaBuf same = std::move(*of.duplicate());
    auto first = CpuMap::map(of, Access::read_write, CpuMapMode::quick);
    for (const Access access : {Access::read, Access::write, Access::read_write}) {
        auto again = CpuMap::map(same, access, CpuMapMode::quick);
        ASSERT_TRUE(again);
        EXPECT_EQ(*first, *again);
    }
    EXPECT_NE(*first, *CpuMap::map(same, Access::read, CpuMapMode::strict));
    EXPECT_NE(*first, *CpuMap::map(buffer(), Access::read, CpuMapMode::quick));
}

TEST_F(CpuAccessTest, ThreadsMayMapAndDropTheSameBufferAtOnce) {
    const DmaBuf of = buffer();
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] {
            for (int n = 0; n < 300; ++n) {
                auto map = CpuMap::map(of, Access::read);
                ASSERT_TRUE(map);
                const CpuMap copy = *map;
                EXPECT_EQ(copy.size(), 8192U);
            }
        });
}

TEST_F(CpuAccessTest, AssigningAMappingLetsGoOfTheOneBefore) {
    int unmapped = 0;
    {
        CpuMap first = map(Access::read);
        CpuMap second = map(Access::read);
        libc.munmap = [&](void*, size_t) {
            ++unmapped;
            return 0;
        };
        first = second;
        EXPECT_EQ(unmapped, 1);
        EXPECT_EQ(first, second);
        second = std::move(first);
        EXPECT_EQ(first.size(), 0U);
        first = second;
        EXPECT_EQ(unmapped, 1);
    }
    EXPECT_EQ(unmapped, 2);
}

TEST_F(CpuAccessTest, AMappingThatOnlyReadsDoesNotServeAWriter) {
    const DmaBuf of = buffer();
    auto reader = CpuMap::map(of, Access::read);
    auto writer = CpuMap::map(of, Access::write);
    ASSERT_TRUE(reader && writer);
    EXPECT_NE(*reader, *writer);
    EXPECT_TRUE(CpuAccess::begin(*writer, Access::write, deadline_in(1s)));
}

TEST_F(CpuAccessTest, PlanesOfOneBufferAreBracketedOnce) {
    const DmaBuf a = buffer();
    const DmaBuf b = buffer();
    const std::array maps{*CpuMap::map(a, Access::read_write), *CpuMap::map(b, Access::read_write),
                          *CpuMap::map(*a.duplicate(), Access::read_write),
                          *CpuMap::map(a, Access::read)};
    auto access = CpuAccess::begin(maps, Access::read, deadline_in(1s));
    ASSERT_TRUE(access);
    EXPECT_EQ(edges, (std::vector{READ | START, READ | START}));
    EXPECT_EQ(access->bytes(0).data(), access->bytes(2).data());
    EXPECT_NE(access->bytes(0).data(), access->bytes(1).data());
    EXPECT_EQ(access->bytes(3).size(), 8192U);
    EXPECT_TRUE(access->bytes(4).empty());
    EXPECT_TRUE(access->end());
    EXPECT_EQ(edges, (std::vector{READ | START, READ | START, READ | END, READ | END}));
}

TEST_F(CpuAccessTest, AnAccessIsOverOneToFourMappings) {
    const CpuMap one = map(Access::read);
    const std::vector<CpuMap> five(5, one);
    EXPECT_EQ(CpuAccess::begin(std::span(five), Access::read, deadline_in(1s)).error().code,
              Errc::invalid_argument);
    EXPECT_EQ(
        CpuAccess::begin(std::span<const CpuMap>(), Access::read, deadline_in(1s)).error().code,
        Errc::invalid_argument);
    EXPECT_TRUE(CpuAccess::begin(std::span(five).first(4), Access::read, deadline_in(1s)));
}

TEST_F(CpuAccessTest, AllBracketsAreOpenOrNone) {
    const std::array maps{map(Access::read), map(Access::read), map(Access::read)};
    int starts = 0;
    libc.ioctl = [&](int, unsigned long, void* argument) {
        const auto flags = static_cast<dma_buf_sync*>(argument)->flags;
        edges.push_back(flags);
        if (flags == (READ | START) && ++starts == 3) {
            errno = EIO;
            return -1;
        }
        return 0;
    };
    auto refused = CpuAccess::begin(maps, Access::read, deadline_in(1s));
    ASSERT_FALSE(refused);
    EXPECT_EQ(edges,
              (std::vector{READ | START, READ | START, READ | START, READ | END, READ | END}));
}

TEST_F(CpuAccessTest, AStormOfInterruptionsEndsAtTheDeadline) {
    const CpuMap mapping = map(Access::read);
    libc.ioctl = [](int, unsigned long, void*) {
        errno = EINTR;
        return -1;
    };
    const Deadline deadline = deadline_in(10ms);
    auto stormy = CpuAccess::begin(mapping, Access::read, deadline);
    ASSERT_FALSE(stormy);
    EXPECT_EQ(stormy.error().code, Errc::timed_out);
    EXPECT_GE(Deadline::clock::now(), deadline);
}

/// What the log was told.
class CpuAccessLogTest : public CpuAccessTest {
protected:
    void SetUp() override {
        CpuAccessTest::SetUp();
        set_log(
            [](const Error& error, void* user) noexcept {
                static_cast<std::vector<int>*>(user)->push_back(error.sys_errno);
            },
            &logged);
    }
    void TearDown() override {
        set_log(nullptr, nullptr);
        CpuAccessTest::TearDown();
    }

    std::vector<int> logged;
};

TEST_F(CpuAccessLogTest, AnEndThatNobodyCanBeToldOfGoesToTheLog) {
    const CpuMap mapping = map(Access::read);
    {
        auto access = CpuAccess::begin(mapping, Access::read, deadline_in(1s));
        refusals = {EIO};
    }
    EXPECT_EQ(logged, std::vector{EIO});
    auto access = CpuAccess::begin(mapping, Access::read, deadline_in(1s));
    auto other = CpuAccess::begin(mapping, Access::read, deadline_in(1s));
    refusals = {EINVAL};
    *access = std::move(*other);
    EXPECT_EQ(logged, (std::vector{EIO, EINVAL}));
    refusals = {ENOMEM};
    EXPECT_EQ(access->end().error().sys_errno, ENOMEM);
    EXPECT_EQ(logged.size(), 2U) << "what is returned is not logged as well";
}

TEST_F(CpuAccessLogTest, OfSeveralRefusedEndsTheFirstIsReturned) {
    const std::array maps{map(Access::read), map(Access::read), map(Access::read)};
    auto access = CpuAccess::begin(maps, Access::read, deadline_in(1s));
    refusals = {ENOMEM, EIO, EINVAL};
    EXPECT_EQ(access->end().error().sys_errno, EINVAL);
    EXPECT_EQ(logged, (std::vector{EIO, ENOMEM}));
}

class StrictTest : public CpuAccessTest {
protected:
    static CpuMap strict(Access access = Access::read_write) {
        return std::move(*CpuMap::map(buffer(), access, CpuMapMode::strict));
    }
};

using StrictDeathTest = StrictTest;

/// Kept out of the optimiser's hands.
void touch(std::byte* at) {
    *const_cast<volatile std::byte*>(at) = std::byte{1};
}
void look(const std::byte* at) {
    (void)*const_cast<const volatile std::byte*>(at);
}

TEST_F(StrictTest, InsideItsAccessTheMemoryIsOpen) {
    const CpuMap mapping = strict();
    for (const Access access : {Access::write, Access::read_write, Access::read}) {
        auto opened = CpuAccess::begin(mapping, access, deadline_in(1s));
        ASSERT_TRUE(opened) << opened.error().message();
        look(opened->bytes().data());
        if (writes(access))
            touch(&opened->bytes().back());
        EXPECT_TRUE(opened->end());
    }
}

TEST_F(StrictTest, TheMemoryStaysOpenUntilTheLastAccessEnds) {
    const CpuMap mapping = strict();
    auto reader = CpuAccess::begin(mapping, Access::read, deadline_in(1s));
    {
        auto writer = CpuAccess::begin(mapping, Access::write, deadline_in(1s));
        touch(reader->bytes().data());
    }
    look(reader->bytes().data());
}

TEST_F(StrictTest, PagesThatCannotBeOpenedOpenNoBracket) {
    const CpuMap mapping = strict();
    libc.mprotect = [](void*, size_t, int) {
        errno = ENOMEM;
        return -1;
    };
    auto refused = CpuAccess::begin(mapping, Access::read, deadline_in(1s));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::no_resources);
    EXPECT_EQ(edges, (std::vector{READ | START, READ | END}));
    EXPECT_FALSE(CpuMap::map(buffer(), Access::read, CpuMapMode::strict));
}

TEST_F(StrictTest, ThreadsMayOpenAndCloseAtOnce) {
    const CpuMap mapping = strict();
    std::atomic<int> ends = 0;
    libc.ioctl = [&](int, unsigned long, void*) {
        ++ends;
        return 0;
    };
    libc.ppoll = [](pollfd* fds, nfds_t, const timespec*) {
        fds->revents = fds->events;
        return 1;
    };
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] {
            for (int n = 0; n < 200; ++n)
                look(CpuAccess::begin(mapping, Access::read, deadline_in(60s))->bytes().data());
        });
    threads.clear();
    EXPECT_EQ(ends, 2 * 4 * 200);
}

TEST_F(StrictDeathTest, AStrayTouchDiesWithTheBuffersNameAndWhatWasMissing) {
    const CpuMap mapping = strict();
    const CpuMap other = strict();
    std::byte* memory = CpuAccess::begin(mapping, Access::read, deadline_in(1s))->bytes().data();
    auto elsewhere = CpuAccess::begin(other, Access::write, deadline_in(1s));
    EXPECT_DEATH(look(memory + 5), "stray read at byte 5 of buffer ino .*memfd:sluice-test.*: no "
                                   "access is open on it, CpuAccess::begin with Access::read");
    EXPECT_DEATH(touch(memory + 8191), "stray write at byte 8191 of buffer ino .*: no access is "
                                       "open on it, CpuAccess::begin with Access::write");
    auto reader = CpuAccess::begin(mapping, Access::read, deadline_in(1s));
    EXPECT_DEATH(touch(memory), "stray write at byte 0 .*: only accesses that read are open");
}

TEST_F(StrictDeathTest, TheProgramsOwnHandlerGetsItsTurn) {
    // Each death happens in a process that starts with this test, so that the program's handler is
    // there before the first strict mapping.
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    struct sigaction own {};
    struct sigaction before {};
    own.sa_handler = [](int) {
        (void)!write(STDERR_FILENO, "own handler", 11);
        _exit(7);
    };
    sigaction(SIGSEGV, &own, &before);
    {
        const CpuMap mapping = strict();
        std::byte* memory =
            CpuAccess::begin(mapping, Access::read, deadline_in(1s))->bytes().data();
        auto* hole = static_cast<std::byte*>(
            ::mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        EXPECT_EXIT(look(memory), ::testing::ExitedWithCode(7), "stray read.*\nown handler");
        EXPECT_EXIT(look(hole), ::testing::ExitedWithCode(7), "^own handler$");
        EXPECT_EXIT(raise(SIGSEGV), ::testing::ExitedWithCode(7), "^own handler$");
        ::munmap(hole, 4096);
    }
    sigaction(SIGSEGV, &before, nullptr);
}

TEST_F(StrictTest, TheEnvironmentSwitchesItOn) {
    const DmaBuf of = buffer();
    const CpuMap quick = std::move(*CpuMap::map(of, Access::read, CpuMapMode::quick));
    const CpuMap guarded = std::move(*CpuMap::map(of, Access::read, CpuMapMode::strict));
    for (const auto& [value, expected] :
         {std::pair("1", guarded), std::pair("0", quick), std::pair("", quick)}) {
        setenv("SLUICE_STRICT", value, 1);
        EXPECT_EQ(*CpuMap::map(of, Access::read), expected) << value;
    }
    unsetenv("SLUICE_STRICT");
    EXPECT_EQ(*CpuMap::map(of, Access::read), quick);
}

TEST(StrictPagesTest, TwoThatAreMadeAtOnceShareNothing) {
    ScriptedLibc libc;
    std::array<std::byte, 2> first{};
    std::array<std::byte, 2> second{};
    std::optional<StrictPages> other;
    std::vector<void*> protected_at;
    libc.mprotect = [&](void* at, size_t, int) {
        protected_at.push_back(at);
        if (at == first.data() && !other) // as another thread may, between the two steps of making
            other.emplace(second.data(), second.size(), "second");
        return 0;
    };
    StrictPages pages(first.data(), first.size(), "first");
    protected_at.clear();
    EXPECT_EQ(pages.open(false), 0);
    EXPECT_EQ(other->open(true), 0);
    EXPECT_EQ(protected_at, (std::vector<void*>{first.data(), second.data()}));
}

} // namespace
} // namespace sluice
