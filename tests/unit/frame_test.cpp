// SPDX-License-Identifier: MIT
#include <sluice/frame.hpp>

#include <cstdint>
#include <string>

#include <drm_fourcc.h>

#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/scripted_libc.hpp"

namespace sluice {
namespace {

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
             l.planes[0] = {.offset = 0xffffffffU, .stride = 0x7fffffffU};
         }),
         Errc::out_of_bounds, "the buffer holds 4096"},
        {"no modifier", with([](L& l) { l.modifier = DRM_FORMAT_MOD_INVALID; }),
         Errc::invalid_argument, "INVALID"},
        {"a tiled modifier", with([](L& l) { l.modifier = I915_FORMAT_MOD_X_TILED; }),
         Errc::unsupported, "0x100000000000001 is not LINEAR"},
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
            layout.planes[i] = {.offset = UINT32_MAX, .stride = INT32_MAX};
        auto refused = Frame::create(layout, buffer(4096));
        ASSERT_FALSE(refused) << format.name;
        EXPECT_NE(refused.error().code, Errc::unsupported) << refused.error().message();
    }
}

} // namespace
} // namespace sluice
