// SPDX-License-Identifier: MIT
#include <sluice/frame_map.hpp>

#include <array>
#include <cerrno>
#include <string>
#include <vector>

#include <drm_fourcc.h>
#include <linux/dma-buf.h>

#include <sluice/log.hpp>

#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/scripted_libc.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;

/// Frames over idle buffers whose brackets are counted.
class FrameMapTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        libc.memfds_are_dma_bufs();
        libc.ppoll = [](pollfd* fds, nfds_t, const timespec*) {
            fds->revents = fds->events;
            return 1;
        };
        libc.ioctl = [this](int, unsigned long request, void* argument) {
            EXPECT_EQ(request, DMA_BUF_IOCTL_SYNC);
            const bool end = (static_cast<dma_buf_sync*>(argument)->flags & DMA_BUF_SYNC_END) != 0;
            if ((end ? refuse_end : refuse_start) != 0) {
                errno = end ? refuse_end : refuse_start;
                return -1;
            }
            ++(end ? ends : starts);
            return 0;
        };
    }

    static DmaBuf buffer(std::uint64_t size) {
        return std::move(*DmaBuf::from_fd(test::memfd(size)));
    }
    /// A 5x3 NV12, its chroma in the same buffer or in another.
    static Frame nv12(bool disjoint) {
        std::array buffers{buffer(46), buffer(46)};
        const std::uint32_t second = disjoint ? 1 : 0;
        return std::move(
            *Frame::create({.width = 5,
                            .height = 3,
                            .format = DRM_FORMAT_NV12,
                            .planes = {FramePlane{.stride = 8},
                                       FramePlane{.offset = 24, .stride = 16, .buffer = second}}},
                           std::span(buffers).first(1 + second)));
    }

    test::ScriptedLibc libc;
    int starts = 0;
    int ends = 0;
    int refuse_start = 0;
    int refuse_end = 0;
};

TEST_F(FrameMapTest, GivesEachPlaneAndBracketsEachBufferOnce) {
    for (const bool disjoint : {false, true}) {
        starts = ends = 0;
        auto map = FrameMap::map(nv12(disjoint), Access::read_write);
        ASSERT_TRUE(map) << map.error().message();
        auto access = FrameAccess::begin(*map, Access::read_write, deadline_in(1s));
        ASSERT_TRUE(access) << access.error().message();
        EXPECT_EQ(starts, disjoint ? 2 : 1);
        const auto luma = access->plane(0);
        const auto chroma = access->plane(1);
        EXPECT_EQ(luma.rows, 3U);
        EXPECT_EQ(luma.row(2).size(), 5U);
        EXPECT_EQ(luma.row(2).data(), luma.first + 16);
        EXPECT_EQ(chroma.rows, 2U);
        EXPECT_EQ(chroma.row(1).size(), 6U);
        EXPECT_EQ(chroma.first == luma.first + 24, !disjoint);
        luma.row(2).back() = std::byte{1};
        chroma.row(1).back() = std::byte{2};
        EXPECT_EQ(access->plane(2).first, nullptr);
        EXPECT_TRUE(access->end());
        EXPECT_EQ(ends, starts);
        EXPECT_EQ(access->plane(0).first, nullptr);
        EXPECT_TRUE(access->end());
    }
}

TEST_F(FrameMapTest, ALayoutForDevicesIsNotMapped) {
    auto frame = Frame::create({.width = 64,
                                .height = 16,
                                .format = DRM_FORMAT_XRGB8888,
                                .modifier = I915_FORMAT_MOD_X_TILED,
                                .planes = {FramePlane{.stride = 512}}},
                               buffer(16384));
    ASSERT_TRUE(frame);
    EXPECT_EQ(FrameMap::map(*frame, Access::read).error().code, Errc::unsupported);
}

TEST_F(FrameMapTest, RevokeWaitsForAnOpenAccessAndRefusesTheNext) {
    const Frame frame = nv12(false);
    auto map = FrameMap::map(frame, Access::read);
    {
        auto access = FrameAccess::begin(*map, Access::read, deadline_in(1s));
        ASSERT_TRUE(access);
        EXPECT_EQ(frame.revoke(deadline_in(1ms)).error().code, Errc::timed_out);
        auto moved = std::move(*access);
        EXPECT_EQ(frame.revoke(deadline_in(1ms)).error().code, Errc::timed_out);
    }
    EXPECT_TRUE(frame.revoke(deadline_in(1s)));
    EXPECT_EQ(FrameAccess::begin(*map, Access::read, deadline_in(1s)).error().code, Errc::revoked);
    EXPECT_EQ(FrameMap::map(frame, Access::read).error().code, Errc::revoked);
}

TEST_F(FrameMapTest, ARefusedBeginLeavesTheFrameFree) {
    const Frame frame = nv12(false);
    auto map = FrameMap::map(frame, Access::read);
    refuse_start = EIO;
    EXPECT_FALSE(FrameAccess::begin(*map, Access::read, deadline_in(1s)));
    EXPECT_TRUE(frame.revoke(deadline_in(0s)));
}

TEST_F(FrameMapTest, MovingEndsWhatItReplaces) {
    const Frame first = nv12(false);
    const Frame second = nv12(false);
    auto map_first = FrameMap::map(first, Access::read);
    auto map_second = FrameMap::map(second, Access::read);
    auto a = FrameAccess::begin(*map_first, Access::read, deadline_in(1s));
    auto b = FrameAccess::begin(*map_second, Access::read, deadline_in(1s));
    ASSERT_TRUE(a && b);
    *a = std::move(*b);
    EXPECT_EQ(ends, 1);
    EXPECT_TRUE(first.revoke(deadline_in(0s)));
    EXPECT_FALSE(second.revoke(deadline_in(0s)));
    EXPECT_TRUE(a->end());
    EXPECT_TRUE(second.revoke(deadline_in(0s)));
    EXPECT_TRUE(b->end()) << "moved from";
}

TEST_F(FrameMapTest, AnEndThatFailsIsReportedAndTheFrameIsFreeAllTheSame) {
    static int logged;
    logged = 0;
    set_log([](const Error&, void*) noexcept { ++logged; }, nullptr);
    const Frame frame = nv12(false);
    auto map = FrameMap::map(frame, Access::read);
    refuse_end = EIO;
    {
        auto access = FrameAccess::begin(*map, Access::read, deadline_in(1s));
        EXPECT_EQ(access->end().error().sys_errno, EIO);
        EXPECT_EQ(logged, 0);
    }
    { auto access = FrameAccess::begin(*map, Access::read, deadline_in(1s)); }
    EXPECT_EQ(logged, 1);
    EXPECT_TRUE(frame.revoke(deadline_in(0s)));
    set_log(nullptr, nullptr);
}

} // namespace
} // namespace sluice
