// SPDX-License-Identifier: MIT
// Buffers and fences in two processes: across fork(2) and over a Unix socket.
#include <memory>
#include <utility>

#include <sluice/cpu_access.hpp>
#include <sluice/dma_buf.hpp>

#include "support/child.hpp"
#include "support/real_kernel.hpp"
#include "support/unix_socket.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::Child;
using test::state_of;
using test::SwSync;
using test::udmabuf;
using enum FenceState;

using SharingSystemTest = test::RealKernelTest;

/// Lets the other process go on.
void tell(const UniqueFd& to) {
    const char byte = 0;
    (void)!write(to.get(), &byte, 1);
}

/// Waits until the other process lets this one go on.
bool told(const UniqueFd& from) {
    char byte = 0;
    return read(from.get(), &byte, 1) == 1;
}

TEST_F(SharingSystemTest, AChildSignalsWhatItsParentWaitsFor) {
    SwSync timeline;
    const DmaBuf buffer = udmabuf(4096);
    ASSERT_TRUE(buffer.import_fence(timeline.fence(1), Access::write));
    Child child([&] {
        usleep(30000);
        timeline.advance(1);
        return 0;
    });
    EXPECT_TRUE(buffer.wait(Access::read, deadline_in(20s)));
    EXPECT_EQ(child.wait(), 0);
}

TEST_F(SharingSystemTest, AChildWaitsForWhatItsParentSignals) {
    SwSync timeline;
    const DmaBuf buffer = udmabuf(4096);
    const SyncFile fence = timeline.fence(1);
    ASSERT_TRUE(buffer.import_fence(fence, Access::write));
    auto [here, there] = test::socket_pair();
    Child child([&, &there = there] {
        if (buffer.wait(Access::read, deadline_in(1ms)) || fence.wait(deadline_in(1ms)))
            return 1;
        tell(there);
        if (!fence.wait(deadline_in(20s)))
            return 2;
        if (!buffer.wait(Access::read, deadline_in(20s)))
            return 3;
        auto left = SyncFile::merge(fence, fence);
        return left && left->fd() == -1 ? 0 : 4;
    });
    there.reset(); // so that a child's early end is seen as such
    ASSERT_TRUE(told(here));
    timeline.advance(1);
    EXPECT_EQ(child.wait(), 0);
}

TEST_F(SharingSystemTest, AFenceThatAChildLeavesHoldsItsParent) {
    SwSync timeline;
    const DmaBuf buffer = udmabuf(4096);
    Child child([&] {
        return buffer.import_fence(timeline.fence(1), Access::read) &&
                       state_of(buffer.export_fence(Access::write)) == pending
                   ? 0
                   : 1;
    });
    ASSERT_EQ(child.wait(), 0);
    EXPECT_EQ(state_of(buffer.export_fence(Access::write)), pending)
        << "a fence in a buffer outlives the process that left it";
    timeline.advance(1);
    EXPECT_TRUE(buffer.wait(Access::write, deadline_in(5s)));
}

TEST_F(SharingSystemTest, AFenceOfAProcessThatDiedHasFailed) {
    const DmaBuf buffer = udmabuf(4096);
    auto [here, there] = test::socket_pair();
    Child child([&, &there = there] {
        SwSync timeline; // the child's alone
        if (!buffer.import_fence(timeline.fence(1), Access::write))
            return 1;
        tell(there);
        pause();
        return 0;
    });
    there.reset(); // so that a child's early end is seen as such
    ASSERT_TRUE(told(here));
    const SyncFile fence = std::move(*buffer.export_fence(Access::read));
    EXPECT_EQ(state_of(fence), pending);
    child.kill();
    auto waited = fence.wait(deadline_in(20s));
    ASSERT_FALSE(waited);
    EXPECT_EQ(waited.error().code, Errc::fence_failed);
}

TEST_F(SharingSystemTest, AChildMayHoldTheLastFd) {
    auto [here, there] = test::socket_pair();
    auto buffer = std::make_unique<DmaBuf>(udmabuf(8192));
    ASSERT_TRUE(buffer->set_name("heirloom"));
    const std::uint64_t inode = buffer->inode();
    Child child([&, &there = there] {
        if (!told(there)) // the parent has let go
            return 1;
        const auto info = buffer->info();
        if (!info || info->references != 1 || info->name != "heirloom")
            return 2;
        auto map = CpuMap::map(*buffer, Access::write);
        if (!map)
            return 3;
        auto access = CpuAccess::begin(*map, Access::write, deadline_in(5s));
        if (!access)
            return 4;
        access->bytes()[8191] = std::byte{7};
        if (!access->end())
            return 5;
        return test::send_fd(there, buffer->fd()) ? 0 : 6;
    });
    there.reset(); // so that a child's early end is seen as such
    EXPECT_EQ(buffer->info()->references, 2U);
    buffer.reset();
    tell(here);
    auto back = DmaBuf::from_fd(test::receive_fd(here));
    EXPECT_EQ(child.wait(), 0);
    ASSERT_TRUE(back) << back.error().message();
    EXPECT_EQ(back->inode(), inode);
    EXPECT_EQ(back->info()->references, 1U);
    auto map = CpuMap::map(*back, Access::read);
    ASSERT_TRUE(map);
    EXPECT_EQ(CpuAccess::begin(*map, Access::read, deadline_in(5s))->bytes()[8191], std::byte{7});
}

TEST_F(SharingSystemTest, ABufferComesBackOverASocketAsItself) {
    auto [here, there] = test::socket_pair();
    const DmaBuf buffer = udmabuf(8192);
    ASSERT_TRUE(buffer.set_name("round-trip"));
    ASSERT_TRUE(test::send_fd(here, buffer.fd()));
    EXPECT_EQ(buffer.info()->references, 2U) << "one is on its way";
    auto received = DmaBuf::from_fd(test::receive_fd(there));
    ASSERT_TRUE(received) << received.error().message();
    EXPECT_NE(received->fd(), buffer.fd());
    EXPECT_TRUE(same_buffer(*received, buffer));
    EXPECT_EQ(received->size(), 8192U);
    EXPECT_EQ(received->info()->name, "round-trip");
    EXPECT_EQ(*CpuMap::map(*received, Access::read), *CpuMap::map(*received, Access::read));
    auto map = CpuMap::map(buffer, Access::read);
    EXPECT_EQ(*CpuMap::map(*received, Access::read), *map) << "one mapping for both";
}

TEST_F(SharingSystemTest, APeersBufferAndFenceWorkHere) {
    auto [here, there] = test::socket_pair();
    Child child([&, &there = there] {
        SwSync timeline("peer");
        const DmaBuf buffer = udmabuf(4096);
        (void)buffer.set_name("peers-own");
        const SyncFile fence = timeline.fence(1);
        if (!test::send_fd(there, buffer.fd()) || !test::send_fd(there, fence.fd()))
            return 1;
        if (!told(there))
            return 2;
        // What the parent left in the buffer is seen here too.
        if (state_of(buffer.export_fence(Access::read)) != pending)
            return 3;
        timeline.advance(1);
        return buffer.wait(Access::write, deadline_in(20s)) ? 0 : 4;
    });
    there.reset(); // so that a child's early end is seen as such
    auto buffer = DmaBuf::from_fd(test::receive_fd(here));
    auto fence = SyncFile::from_fd(test::receive_fd(here));
    ASSERT_TRUE(buffer && fence);
    EXPECT_EQ(buffer->info()->name, "peers-own");
    EXPECT_EQ(fence->fences()->at(0).timeline, "peer");
    EXPECT_EQ(state_of(*fence), pending);
    ASSERT_TRUE(buffer->import_fence(*fence, Access::write));
    tell(here);
    EXPECT_TRUE(fence->wait(deadline_in(20s)));
    EXPECT_TRUE(buffer->wait(Access::write, deadline_in(20s)));
    EXPECT_EQ(child.wait(), 0);
}

TEST_F(SharingSystemTest, WhatIsOnItsWayToNobodyIsFreed) {
    const DmaBuf buffer = udmabuf(4096);
    {
        auto [here, there] = test::socket_pair();
        ASSERT_TRUE(test::send_fd(here, buffer.fd()));
    }
    EXPECT_EQ(buffer.info()->references, 1U);
}

} // namespace
} // namespace sluice
