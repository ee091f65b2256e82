// SPDX-License-Identifier: MIT
#include <sluice/frame.hpp>

#include <array>
#include <atomic>
#include <climits>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include <drm_fourcc.h>
#include <linux/dma-buf.h>
#include <sys/eventfd.h>

#include "core/probe.hpp"
#include "frame/frame_use.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/scripted_libc.hpp"
#include "support/scripted_sync_file.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;

class FrameTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        libc.memfds_are_dma_bufs();
    }

    static DmaBuf buffer(std::uint64_t size) {
        return std::move(*DmaBuf::from_fd(test::memfd(size)));
    }

    test::ScriptedLibc libc;
};

constexpr FrameLayout good{.width = 64,
                           .height = 16,
                           .format = DRM_FORMAT_XRGB8888,
                           .modifier = DRM_FORMAT_MOD_LINEAR,
                           .planes = {FramePlane{.offset = 0, .stride = 256}}};
constexpr std::uint64_t good_size = 256 * 16;

TEST_F(FrameTest, HoldsItsBufferAndLayout) {
    DmaBuf of = buffer(good_size);
    const auto inode = of.inode();
    auto frame = Frame::create(good, std::move(of));
    ASSERT_TRUE(frame) << frame.error().message();
    EXPECT_EQ(frame->buffer().inode(), inode);
    EXPECT_EQ(frame->layout().width, 64U);
    EXPECT_EQ(describe(frame->layout()), "64x16 XR24 LINEAR, stride 256, offset 0");
}

TEST_F(FrameTest, CopiesAreTheSameFrameAndKeepItsBuffer) {
    auto frame = std::make_unique<Frame>(*Frame::create(good, buffer(good_size)));
    const Frame copy = *frame;
    EXPECT_EQ(copy, *frame);
    frame.reset();
    EXPECT_EQ(copy.buffer().size(), good_size);
    EXPECT_NE(copy, *Frame::create(good, buffer(good_size)));
}

TEST_F(FrameTest, AHandleThatWasMovedFromIsStillTheFrame) {
    Frame frame = *Frame::create(good, buffer(good_size));
    const Frame taken(std::move(frame));
    EXPECT_EQ(frame, taken);
    EXPECT_EQ(frame.buffer().size(), good_size);
}

TEST_F(FrameTest, ABufferThatWasMovedFromMakesNoFrame) {
    DmaBuf of = buffer(good_size);
    const DmaBuf taken(std::move(of));
    auto frame = Frame::create(good, std::move(of));
    ASSERT_FALSE(frame);
    EXPECT_EQ(frame.error().code, Errc::wrong_object);
}

TEST_F(FrameTest, TheLastRowNeedsNoPadding) {
    // 15 rows of 300 bytes and one of 256.
    FrameLayout layout = good;
    layout.planes[0].stride = 300;
    const std::uint64_t exact = 15 * 300 + 256;
    EXPECT_TRUE(Frame::create(layout, buffer(exact)));
    auto short_by_one = Frame::create(layout, buffer(exact - 1));
    ASSERT_FALSE(short_by_one);
    EXPECT_EQ(short_by_one.error().code, Errc::out_of_bounds);
    EXPECT_NE(short_by_one.error().problem.find("needs 4756 bytes, the buffer holds 4755"),
              std::string::npos)
        << short_by_one.error().message();
}

TEST_F(FrameTest, RefusalsNameTheValueAndTheBoundAndLeaveTheBufferWithTheCaller) {
    struct Case {
        const char* what;
        FrameLayout layout;
        Errc code;
        const char* says;
    };
    const auto with = [](auto change) {
        FrameLayout layout = good;
        change(layout);
        return layout;
    };
    using L = FrameLayout;
    const Case cases[] = {
        {"no width", with([](L& l) { l.width = 0; }), Errc::invalid_argument, "0x16"},
        {"no height", with([](L& l) { l.height = 0; }), Errc::invalid_argument, "64x0"},
        {"no stride", with([](L& l) { l.planes[0].stride = 0; }), Errc::invalid_argument,
         "stride of 0 bytes"},
        {"stride below a row", with([](L& l) { l.planes[0].stride = 255; }), Errc::invalid_argument,
         "stride of 255 bytes is below its row of 64 pixels x 4 bytes = 256"},
        {"stride above INT32_MAX", with([](L& l) { l.planes[0].stride = 0x80000000U; }),
         Errc::invalid_argument, "2147483648 bytes is above 2147483647"},
        {"width times bytes above 32 bits", with([](L& l) { l.width = 0x40000001U; }),
         Errc::invalid_argument, "= 4294967300"},
        {"offset past the end", with([](L& l) { l.planes[0].offset = 1; }), Errc::out_of_bounds,
         "needs 4097 bytes, the buffer holds 4096"},
        {"offset that would wrap 32 bits", with([](L& l) { l.planes[0].offset = 0xfffff000U; }),
         Errc::out_of_bounds, "needs 4294967296 bytes"},
        {"rows that would wrap 32 bits", with([](L& l) { l.height = 0x01000001U; }),
         Errc::out_of_bounds, "needs 4294967552 bytes"},
        {"the largest of everything", with([](L& l) {
             l.width = 0x1fffffffU;
             l.height = 0xffffffffU;
             l.planes[0] = {.offset = 0xffffffffU, .stride = 0x7ffffffcU};
         }),
         Errc::out_of_bounds, "the buffer holds 4096"},
        {"stride between pixels", with([](L& l) { l.planes[0].stride = 258; }),
         Errc::invalid_argument, "stride of 258 bytes is no multiple of its 4 bytes a pixel"},
        {"too many planes", with([](L& l) { l.plane_count = 5; }), Errc::invalid_argument,
         "it has 5 planes, and XR24 (0x34325258) has 1 plane"},
        {"a plane more than LINEAR has", with([](L& l) {
             l.plane_count = 2;
             l.planes[1] = l.planes[0];
         }),
         Errc::invalid_argument, "it has 2 planes, and XR24 (0x34325258) has 1 plane"},
        {"a plane more than a format has", with([](L& l) {
             l.modifier = DRM_FORMAT_MOD_INVALID;
             l.plane_count = 2;
         }),
         Errc::invalid_argument, "it has 2 planes"},
        {"five planes with a modifier", with([](L& l) {
             l.modifier = I915_FORMAT_MOD_Y_TILED_CCS;
             l.plane_count = 5;
         }),
         Errc::invalid_argument, "has 1 plane, up to 4 with a modifier's"},
        {"a modifier's plane past the end", with([](L& l) {
             l.modifier = I915_FORMAT_MOD_Y_TILED_CCS;
             l.plane_count = 2;
             l.planes[1].offset = 4096;
         }),
         Errc::out_of_bounds, "plane 1 begins at byte 4096, the buffer holds 4096"},
        {"a modifier's stride above INT32_MAX", with([](L& l) {
             l.modifier = I915_FORMAT_MOD_X_TILED;
             l.planes[0].stride = 0x80000000U;
         }),
         Errc::invalid_argument, "2147483648 bytes is above 2147483647"},
        {"a buffer that is not there", with([](L& l) { l.planes[0].buffer = 1; }),
         Errc::invalid_argument, "plane 0 lies in buffer 1, and there are 1"},
        {"a buffer for a plane that is not there", with([](L& l) { l.planes[3].buffer = 1; }),
         Errc::invalid_argument, "plane 3 has offset 0"},
        {"an unknown format", with([](L& l) { l.format = DRM_FORMAT_C8; }), Errc::unsupported,
         "C8 (0x20203843)"},
        {"a plane that the format lacks", with([](L& l) { l.planes[1].stride = 256; }),
         Errc::invalid_argument,
         "plane 1 has offset 0 and stride 256, and XR24 (0x34325258) has 1"},
        {"a plane beyond a gap", with([](L& l) { l.planes[3].offset = 1; }), Errc::invalid_argument,
         "plane 3 has offset 1"},
        {"no format", with([](L& l) { l.format = 0; }), Errc::unsupported, "????"},
    };
    DmaBuf of = buffer(good_size);
    for (const Case& each : cases) {
        auto frame = Frame::create(each.layout, std::move(of));
        ASSERT_FALSE(frame) << each.what;
        EXPECT_EQ(frame.error().code, each.code) << each.what;
        EXPECT_NE(frame.error().problem.find(each.says), std::string::npos)
            << each.what << ": " << frame.error().message();
        EXPECT_NE(frame.error().object.find("buffer ino"), std::string::npos);
        EXPECT_FALSE(frame.error().remedy.empty());
        ASSERT_GE(of.fd(), 0) << each.what << ": the buffer is still the caller's";
    }
    EXPECT_TRUE(Frame::create(good, std::move(of)));
}

/// A 5x3 NV12: 3 rows of 5 luma bytes, then 2 rows of 3 chroma pairs.
constexpr FrameLayout odd_nv12{.width = 5,
                               .height = 3,
                               .format = DRM_FORMAT_NV12,
                               .modifier = DRM_FORMAT_MOD_LINEAR,
                               .planes = {FramePlane{0, 8}, FramePlane{24, 16}}};
constexpr std::uint64_t odd_nv12_size = 24 + 16 + 6;

TEST_F(FrameTest, EveryPlaneIsCheckedAgainstItsOwnBounds) {
    struct Case {
        const char* what;
        FrameLayout layout;
        std::uint64_t size;
        Errc code;
        const char* says;
    };
    const auto with = [](auto change) {
        FrameLayout layout = odd_nv12;
        change(layout);
        return layout;
    };
    using L = FrameLayout;
    const Case cases[] = {
        {"no second plane", with([](L& l) { l.planes[1] = {}; }), odd_nv12_size,
         Errc::invalid_argument, "plane 1's stride of 0 bytes is below its row of 3 blocks x 2"},
        {"a chroma row rounded down", with([](L& l) { l.planes[1].stride = 4; }), odd_nv12_size,
         Errc::invalid_argument, "plane 1's stride of 4 bytes is below its row of 3 blocks x 2"},
        {"a luma row short of a byte", with([](L& l) { l.planes[0].stride = 4; }), odd_nv12_size,
         Errc::invalid_argument, "plane 0's stride of 4 bytes is below its row of 5 pixels x 1"},
        {"chroma that ends past the buffer", odd_nv12, odd_nv12_size - 1, Errc::out_of_bounds,
         "plane 1 needs 46 bytes, the buffer holds 45"},
        {"luma that ends past the buffer", with([](L& l) { l.planes[0].offset = 26; }),
         odd_nv12_size, Errc::out_of_bounds, "plane 0 needs 47 bytes, the buffer holds 46"},
        {"a chroma offset that would wrap", with([](L& l) { l.planes[1].offset = 0xffffffffU; }),
         odd_nv12_size, Errc::out_of_bounds, "plane 1 needs 4294967317 bytes"},
        {"a chroma stride above INT32_MAX", with([](L& l) { l.planes[1].stride = 0x80000000U; }),
         odd_nv12_size, Errc::invalid_argument,
         "plane 1's stride of 2147483648 bytes is above 2147483647"},
        {"a third plane", with([](L& l) {
             l.planes[2] = {40, 16};
         }),
         odd_nv12_size, Errc::invalid_argument,
         "plane 2 has offset 40 and stride 16, and NV12 (0x3231564e) has 2"},
    };
    EXPECT_TRUE(Frame::create(odd_nv12, buffer(odd_nv12_size)));
    for (const Case& each : cases) {
        auto frame = Frame::create(each.layout, buffer(each.size));
        ASSERT_FALSE(frame) << each.what;
        EXPECT_EQ(frame.error().code, each.code) << each.what;
        EXPECT_NE(frame.error().problem.find(each.says), std::string::npos)
            << each.what << ": " << frame.error().message();
    }
    EXPECT_EQ(describe(odd_nv12), "5x3 NV12 LINEAR, stride 8, offset 0; stride 16, offset 24");
}

TEST_F(FrameTest, TheSmallestOfEachFormatFitsItsBlocksAndNoByteLess) {
    for (const FormatInfo& format : formats()) {
        FrameLayout layout{.width = 1, .height = 1, .format = format.fourcc, .planes = {}};
        std::uint32_t size = 0;
        for (std::uint32_t i = 0; i < format.plane_count; ++i) {
            layout.planes[i] = {.offset = size, .stride = format.planes[i].block_bytes};
            size += format.planes[i].block_bytes;
        }
        EXPECT_TRUE(Frame::create(layout, buffer(size))) << format.name;
        auto refused = Frame::create(layout, buffer(size - 1));
        ASSERT_FALSE(refused) << format.name;
        EXPECT_EQ(refused.error().code, Errc::out_of_bounds);
    }
}

TEST_F(FrameTest, TheLargestOfEachFormatDoesNotWrap) {
    for (const FormatInfo& format : formats()) {
        FrameLayout layout{
            .width = 1U << 28, .height = UINT32_MAX, .format = format.fourcc, .planes = {}};
        for (std::uint32_t i = 0; i < format.plane_count; ++i)
            layout.planes[i] = {.offset = UINT32_MAX, .stride = INT32_MAX - 7};
        auto refused = Frame::create(layout, buffer(4096));
        ASSERT_FALSE(refused) << format.name;
        EXPECT_NE(refused.error().code, Errc::unsupported) << refused.error().message();
    }
}

TEST_F(FrameTest, ThePlaneCountIsFilledIn) {
    EXPECT_EQ(Frame::create(good, buffer(good_size))->layout().plane_count, 1U);
    EXPECT_EQ(Frame::create(odd_nv12, buffer(odd_nv12_size))->layout().plane_count, 2U);
}

TEST_F(FrameTest, AModifierMayAddPlanesOfItsOwn) {
    FrameLayout layout = good;
    layout.modifier = I915_FORMAT_MOD_Y_TILED_CCS;
    layout.plane_count = 2;
    layout.planes[1] = {.offset = 4032, .stride = 0}; // some drivers tell no stride for these
    auto frame = Frame::create(layout, buffer(good_size));
    ASSERT_TRUE(frame) << frame.error().message();
    EXPECT_EQ(frame->layout().plane_count, 2U);
    EXPECT_NE(describe(frame->layout()).find("; stride 0, offset 4032"), std::string::npos);
}

TEST_F(FrameTest, ALayoutThatADriverKeepsToItselfIsHeld) {
    FrameLayout layout = good;
    layout.modifier = DRM_FORMAT_MOD_INVALID;
    EXPECT_TRUE(Frame::create(layout, buffer(good_size)));
}

TEST_F(FrameTest, APackedFormatOfThreeBytesNeedsWholeWordsOnly) {
    if (find_format(DRM_FORMAT_RGB888) == nullptr)
        GTEST_SKIP() << "not in the table";
    const FrameLayout layout{.width = 3,
                             .height = 2,
                             .format = DRM_FORMAT_RGB888,
                             .planes = {FramePlane{.offset = 0, .stride = 16}}};
    EXPECT_TRUE(Frame::create(layout, buffer(32)));
}

class DisjointFrameTest : public FrameTest {
protected:
    static std::vector<DmaBuf> buffers_of(std::initializer_list<std::uint64_t> sizes) {
        std::vector<DmaBuf> buffers;
        for (const std::uint64_t size : sizes)
            buffers.push_back(buffer(size));
        return buffers;
    }

    /// A 4x4 NV12 with each plane in a buffer of its own.
    static constexpr FrameLayout nv12{
        .width = 4,
        .height = 4,
        .format = DRM_FORMAT_NV12,
        .planes = {FramePlane{.stride = 4, .buffer = 0}, FramePlane{.stride = 4, .buffer = 1}}};
};

TEST_F(DisjointFrameTest, PlanesLieInTheirOwnBuffers) {
    auto buffers = buffers_of({16, 8});
    const std::array inodes{buffers[0].inode(), buffers[1].inode()};
    auto frame = Frame::create(nv12, std::move(buffers));
    ASSERT_TRUE(frame) << frame.error().message();
    EXPECT_TRUE(frame->disjoint());
    EXPECT_EQ(frame->buffer(0).inode(), inodes[0]);
    EXPECT_EQ(frame->buffer(1).inode(), inodes[1]);
    EXPECT_EQ(describe(frame->layout()),
              "4x4 NV12 LINEAR, stride 4, offset 0; stride 4, offset 0 in buffer 1");
    EXPECT_TRUE(buffers.empty()) << "taken over";
}

TEST_F(DisjointFrameTest, EachPlaneIsHeldToItsOwnBuffersSize) {
    auto buffers = buffers_of({16, 7});
    auto refused = Frame::create(nv12, std::move(buffers));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::out_of_bounds);
    EXPECT_NE(refused.error().problem.find("plane 1 needs 8 bytes, the buffer holds 7"),
              std::string::npos);
    EXPECT_NE(refused.error().object.find(" and buffer ino"), std::string::npos);
    ASSERT_EQ(buffers.size(), 2U);
    EXPECT_GE(buffers[0].fd(), 0) << "still the caller's";
    EXPECT_GE(buffers[1].fd(), 0);
}

TEST_F(DisjointFrameTest, TwoFdsOfOneBufferAreNotDisjoint) {
    FrameLayout layout = nv12;
    layout.planes[1].offset = 16;
    auto buffers = buffers_of({24, 1});
    buffers[1] = std::move(*buffers[0].duplicate());
    auto frame = Frame::create(layout, std::move(buffers));
    ASSERT_TRUE(frame) << frame.error().message();
    EXPECT_FALSE(frame->disjoint());
    EXPECT_EQ(frame->buffers().size(), 1U);
    EXPECT_EQ(frame->layout().planes[1].buffer, 0U);
    EXPECT_TRUE(buffers.empty()) << "taken over as well";
}

TEST_F(DisjointFrameTest, EveryBufferHoldsAPlane) {
    auto three = buffers_of({16, 8, 8});
    auto refused = Frame::create(nv12, std::move(three));
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().problem.find("no plane lies in buffer 2"), std::string::npos);
    refused = Frame::create(nv12, buffers_of({16}));
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().problem.find("plane 1 lies in buffer 1, and there are 1"),
              std::string::npos);
    refused = Frame::create(nv12, std::vector<DmaBuf>());
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().object.find("in no buffer"), std::string::npos);
}

class FrameRevokeTest : public FrameTest {
protected:
    void SetUp() override {
        FrameTest::SetUp();
        probe::set_export_fence(false); // buffers are polled
        libc.ppoll = [this](pollfd* fds, nfds_t, const timespec*) {
            const bool ready = idle;
            fds->revents = ready ? fds->events : short{0};
            return ready ? 1 : 0;
        };
    }
    void TearDown() override {
        probe::forget();
        FrameTest::TearDown();
    }

    static Frame frame() { return std::move(*Frame::create(good, buffer(good_size))); }

    std::atomic<bool> idle = true;
};

TEST_F(FrameRevokeTest, RefusesEveryAccessFromThenOn) {
    const Frame frame = this->frame();
    const Frame copy = frame;
    EXPECT_FALSE(frame.revoked());
    ASSERT_TRUE(FrameUse::begin(frame, "test"));
    FrameUse::end(frame);
    EXPECT_TRUE(copy.revoke(deadline_in(0ms)));
    EXPECT_TRUE(frame.revoked());
    auto refused = FrameUse::begin(frame, "test");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::revoked);
    EXPECT_EQ(refused.error().operation, "test");
    EXPECT_TRUE(frame.revoke(deadline_in(0ms))) << "again";
}

TEST_F(FrameRevokeTest, WaitsForWhoeverUsesIt) {
    const Frame frame = this->frame();
    ASSERT_TRUE(FrameUse::begin(frame, "test"));
    ASSERT_TRUE(FrameUse::begin(frame, "test"));
    auto waited = frame.revoke(deadline_in(5ms));
    ASSERT_FALSE(waited);
    EXPECT_EQ(waited.error().code, Errc::timed_out);
    EXPECT_NE(waited.error().problem.find("2 accesses were still open"), std::string::npos);
    EXPECT_TRUE(frame.revoked());
    FrameUse::end(frame);
    std::jthread user([frame] {
        std::this_thread::sleep_for(5ms);
        FrameUse::end(frame);
    });
    EXPECT_TRUE(frame.revoke(deadline_in(10s)));
}

TEST_F(FrameRevokeTest, WaitsForTheFencesInEveryBuffer) {
    const Frame frame = this->frame();
    idle = false;
    auto waited = frame.revoke(deadline_in(1ms));
    ASSERT_FALSE(waited);
    EXPECT_EQ(waited.error().code, Errc::timed_out);
    EXPECT_EQ(waited.error().operation, "Frame::revoke");
    idle = true;
    EXPECT_TRUE(frame.revoke(deadline_in(1ms)));
}

TEST_F(FrameRevokeTest, WhatOthersLeaveBesideAFailedFenceIsWaitedForToo) {
    probe::forget(); // fences are exported
    const Frame frame = this->frame();
    bool left = false;
    int failures = 1;
    libc.ppoll = [&](pollfd* fds, nfds_t, const timespec*) {
        const bool is_buffer = fds->fd == frame.buffer().fd();
        const bool ready = is_buffer ? idle.load() : failures > 0;
        fds->revents = ready ? fds->events : short{0};
        return ready ? 1 : 0;
    };
    libc.ioctl = [&](int, unsigned long request, void* argument) {
        if (request == SYNC_IOC_FILE_INFO) {
            left = --failures == 0; // somebody's next one, which stays pending
            return test::answer_file_info(argument, std::array{-EIO});
        }
        EXPECT_EQ(request, DMA_BUF_IOCTL_EXPORT_SYNC_FILE);
        static_cast<dma_buf_export_sync_file*>(argument)->fd = eventfd(0, EFD_CLOEXEC);
        return 0;
    };
    idle = false;
    auto waited = frame.revoke(deadline_in(5ms));
    ASSERT_FALSE(waited);
    EXPECT_EQ(waited.error().code, Errc::timed_out);
    EXPECT_TRUE(left);
    failures = INT_MAX; // whoever leaves failed ones without end does not hold it up for longer
    waited = frame.revoke(deadline_in(5ms));
    ASSERT_FALSE(waited);
    EXPECT_EQ(waited.error().code, Errc::timed_out);
    idle = true;
    EXPECT_TRUE(frame.revoke(deadline_in(1ms)));
}

TEST_F(FrameRevokeTest, AccessesOnManyThreadsEndInBoundedTime) {
    const Frame frame = this->frame();
    std::atomic<int> open = 0;
    std::vector<std::jthread> users;
    for (int i = 0; i < 4; ++i)
        users.emplace_back([&] {
            while (FrameUse::begin(frame, "test")) {
                ++open;
                --open;
                FrameUse::end(frame);
            }
        });
    std::this_thread::sleep_for(2ms);
    ASSERT_TRUE(frame.revoke(deadline_in(60s)));
    EXPECT_EQ(open, 0);
}

} // namespace
} // namespace sluice
