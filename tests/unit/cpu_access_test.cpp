// SPDX-License-Identifier: MIT
#include <sluice/cpu_access.hpp>

#include <cerrno>
#include <vector>

#include <fcntl.h>
#include <linux/dma-buf.h>
#include <sys/mman.h>

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
    EXPECT_EQ(access.error().code, Errc::invalid_argument);
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

} // namespace
} // namespace sluice
