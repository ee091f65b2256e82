// SPDX-License-Identifier: MIT
// dma-bufs and fences on a real kernel.
#include <cerrno>
#include <thread>

#include <fcntl.h>
#include <linux/dma-heap.h>

#include <sluice/cpu_access.hpp>
#include <sluice/dma_buf.hpp>

#include "support/open_fds.hpp"
#include "support/requires.hpp"
#include "support/sw_sync.hpp"
#include "support/udmabuf.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::SwSync;
using test::udmabuf;

class DmaBufSystemTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        SLUICE_REQUIRES(test::has_udmabuf(), "/dev/udmabuf does not open");
        SLUICE_REQUIRES(SwSync::available(), "no sw_sync in debugfs: no fences to control");
    }
};

FenceState state_of(const Result<SyncFile>& fence) {
    EXPECT_TRUE(fence) << fence.error().message();
    return fence->status()->state;
}

TEST_F(DmaBufSystemTest, RecognisesARealOneByItsFilesystem) {
    const DmaBuf buffer = udmabuf(8192);
    EXPECT_EQ(buffer.size(), 8192U);
    auto borrowed = DmaBuf::from_borrowed_fd(buffer.fd());
    ASSERT_TRUE(borrowed) << borrowed.error().message();
    EXPECT_TRUE(same_buffer(buffer, *borrowed));
    EXPECT_FALSE(same_buffer(buffer, udmabuf(8192)));
}

TEST_F(DmaBufSystemTest, RefusesOtherGraphicsFds) {
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    auto refused = DmaBuf::from_borrowed_fd(fence.fd());
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message().find("sync_file"), std::string::npos)
        << refused.error().message();
    const DmaBuf buffer = udmabuf(4096);
    auto not_a_fence = SyncFile::from_fd(std::move(*UniqueFd::duplicate(buffer.fd())));
    ASSERT_FALSE(not_a_fence);
    EXPECT_EQ(not_a_fence.error().code, Errc::wrong_object);
}

TEST_F(DmaBufSystemTest, AnIdleBufferGivesASignalledFence) {
    const DmaBuf buffer = udmabuf(4096);
    for (const Access access : {Access::read, Access::write, Access::read_write})
        EXPECT_EQ(state_of(buffer.export_fence(access)), FenceState::signalled);
    EXPECT_TRUE(buffer.wait(Access::read_write, deadline_in(0s)));
}

TEST_F(DmaBufSystemTest, AWritersFenceHoldsEveryone) {
    SwSync timeline;
    const DmaBuf buffer = udmabuf(4096);
    ASSERT_TRUE(buffer.import_fence(timeline.fence(1), Access::write));
    EXPECT_EQ(state_of(buffer.export_fence(Access::read)), FenceState::pending);
    EXPECT_EQ(state_of(buffer.export_fence(Access::write)), FenceState::pending);
    EXPECT_EQ(buffer.wait(Access::read, deadline_in(20ms)).error().code, Errc::timed_out);
    timeline.advance(1);
    EXPECT_TRUE(buffer.wait(Access::read, deadline_in(5s)));
    EXPECT_TRUE(buffer.wait(Access::write, deadline_in(5s)));
}

TEST_F(DmaBufSystemTest, AReadersFenceHoldsWritersOnly) {
    SwSync timeline;
    const DmaBuf buffer = udmabuf(4096);
    ASSERT_TRUE(buffer.import_fence(timeline.fence(1), Access::read));
    EXPECT_EQ(state_of(buffer.export_fence(Access::read)), FenceState::signalled);
    EXPECT_EQ(state_of(buffer.export_fence(Access::write)), FenceState::pending);
    EXPECT_TRUE(buffer.wait(Access::read, deadline_in(0s)));
    EXPECT_EQ(buffer.wait(Access::write, deadline_in(20ms)).error().code, Errc::timed_out);
    timeline.advance(1);
    EXPECT_TRUE(buffer.wait(Access::write, deadline_in(5s)));
}

TEST_F(DmaBufSystemTest, AnExportedFenceIsASnapshot) {
    SwSync first;
    SwSync second;
    const DmaBuf buffer = udmabuf(4096);
    ASSERT_TRUE(buffer.import_fence(first.fence(1), Access::write));
    auto snapshot = buffer.export_fence(Access::write);
    ASSERT_TRUE(snapshot);
    ASSERT_TRUE(buffer.import_fence(second.fence(1), Access::write));
    first.advance(1);
    EXPECT_TRUE(snapshot->wait(deadline_in(5s)));
    EXPECT_EQ(state_of(buffer.export_fence(Access::write)), FenceState::pending);
    second.advance(1);
}

TEST_F(DmaBufSystemTest, AWaitWakesWhenTheFenceSignals) {
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    EXPECT_EQ(fence.wait(deadline_in(10ms)).error().code, Errc::timed_out);
    const auto start = Deadline::clock::now();
    std::jthread signaller([&] {
        std::this_thread::sleep_for(100ms);
        timeline.advance(1);
    });
    EXPECT_TRUE(fence.wait(deadline_in(10s)));
    EXPECT_GE(Deadline::clock::now() - start, 100ms);
}

TEST_F(DmaBufSystemTest, AFenceWhoseTimelineDiedHasFailed) {
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    timeline.close();
    auto waited = fence.wait(deadline_in(5s));
    ASSERT_FALSE(waited);
    EXPECT_EQ(waited.error().code, Errc::fence_failed);
    EXPECT_EQ(waited.error().sys_errno, ENOENT);
    EXPECT_EQ(fence.status()->state, FenceState::failed);
}

using CpuAccessSystemTest = DmaBufSystemTest;

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

TEST_F(CpuAccessSystemTest, APendingWriterIsWaitedForWithABound) {
    SwSync timeline;
    const DmaBuf buffer = udmabuf(4096);
    auto map = CpuMap::map(buffer, Access::read);
    ASSERT_TRUE(map);
    ASSERT_TRUE(buffer.import_fence(timeline.fence(1), Access::write));
    const auto start = Deadline::clock::now();
    auto early = CpuAccess::begin(*map, Access::read, deadline_in(50ms));
    ASSERT_FALSE(early);
    EXPECT_EQ(early.error().code, Errc::timed_out);
    EXPECT_GE(Deadline::clock::now() - start, 50ms);
    timeline.advance(1);
    EXPECT_TRUE(CpuAccess::begin(*map, Access::read, deadline_in(5s)));
}

TEST_F(CpuAccessSystemTest, HeapBuffersWorkAlike) {
    const UniqueFd heap(open("/dev/dma_heap/system", O_RDONLY | O_CLOEXEC));
    SLUICE_REQUIRES(heap, "/dev/dma_heap/system does not open");
    for (const bool writable : {true, false}) {
        dma_heap_allocation_data request{
            .len = 4096,
            .fd = 0,
            .fd_flags = static_cast<__u32>(O_CLOEXEC | (writable ? O_RDWR : O_RDONLY)),
            .heap_flags = 0};
        ASSERT_EQ(ioctl(heap.get(), DMA_HEAP_IOCTL_ALLOC, &request), 0);
        int raw = static_cast<int>(request.fd);
        auto buffer = DmaBuf::from_fd(UniqueFd(std::move(raw)));
        ASSERT_TRUE(buffer) << buffer.error().message();
        EXPECT_EQ(buffer->size(), 4096U);
        auto map = CpuMap::map(*buffer, Access::write);
        EXPECT_EQ(map.has_value(), writable);
        if (!writable)
            EXPECT_EQ(map.error().code, Errc::no_permission) << map.error().message();
        else
            EXPECT_TRUE(CpuAccess::begin(*map, Access::write, deadline_in(1s))->end());
    }
}

} // namespace
} // namespace sluice
