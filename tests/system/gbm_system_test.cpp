// SPDX-License-Identifier: MIT
// GBM on a real kernel, with Mesa's own drivers.
#include <drm_fourcc.h>
#include <gbm.h>

#include <sluice/frame_allocator.hpp>
#include <sluice/gbm.hpp>
#include <sluice/kms_device.hpp>

#include "support/drm_cards.hpp"
#include "support/exporter_checks.hpp"
#include "support/refused.hpp"
#include "support/requires.hpp"

namespace sluice {
namespace {

using test::expect_refused;

class GbmSystemTest : public test::FdTest, public ::testing::WithParamInterface<const char*> {
protected:
    void SetUp() override {
        // Mesa opens what it keeps for the process's life when it is first used.
        if (const UniqueFd first = test::open_drm(GetParam()))
            (void)GbmExporter::wrap(first.get());
        FdTest::SetUp();
        card = test::open_drm(GetParam());
        SLUICE_REQUIRES(card, "no such card");
    }
    void TearDown() override {
        card.reset();
        FdTest::TearDown();
    }

    std::shared_ptr<const GbmExporter> wrap(std::uint32_t usage = 0) {
        auto made = GbmExporter::wrap(card.get(), usage);
        EXPECT_TRUE(made) << made.error().message();
        return *made;
    }

    UniqueFd card;
};

INSTANTIATE_TEST_SUITE_P(All, GbmSystemTest, ::testing::Values("vkms", "vgem", "virtio_gpu"));

constexpr FrameSpec small{.width = 101, .height = 51, .format = DRM_FORMAT_XRGB8888};

TEST_P(GbmSystemTest, SaysWhatItCanDo) {
    const auto gbm = wrap(GBM_BO_USE_SCANOUT);
    EXPECT_EQ(gbm->caps().name, std::string("gbm ") + GetParam());
    EXPECT_TRUE(gbm->caps().cpu_mappable);
    EXPECT_EQ(std::ranges::count(gbm->caps().formats, DRM_FORMAT_XRGB8888, &FormatSupport::format),
              2)
        << "LINEAR, and as the driver likes it";
    expect_refused(gbm->allocate({.size = 4096}), Errc::unsupported, {"no plain bytes"});
}

TEST_P(GbmSystemTest, MakesWritableFramesForEachUse) {
    for (const unsigned usage : {0U, unsigned{GBM_BO_USE_SCANOUT}, unsigned{GBM_BO_USE_LINEAR},
                                 unsigned{GBM_BO_USE_SCANOUT | GBM_BO_USE_RENDERING}}) {
        const auto gbm = wrap(usage);
        FrameSpec spec = small;
        spec.stride_alignment = 192;
        spec.name = "gbm-test";
        auto frame = gbm->allocate_frame(spec);
        ASSERT_TRUE(frame) << frame.error().message();
        EXPECT_EQ(frame->layout().planes[0].stride % 192, 0U);
        EXPECT_EQ(test::name_of(frame->buffer()), "gbm-test");
        test::expect_writes_survive(frame->buffer());
    }
}

TEST_P(GbmSystemTest, MakesWhatItListsOrSaysWhy) {
    const auto gbm = wrap();
    int made = 0;
    for (const FormatSupport& each : gbm->caps().formats) {
        const std::uint64_t modifier = each.modifier;
        auto frame = gbm->allocate_frame(
            {.width = 33, .height = 17, .format = each.format, .modifiers = {modifier}});
        if (!frame) {
            // Mesa's software driver lists formats that the kernel's driver then refuses.
            EXPECT_EQ(frame.error().code, modifier == DRM_FORMAT_MOD_LINEAR ? Errc::invalid_argument
                                                                            : Errc::unsupported)
                << frame.error().message();
            continue;
        }
        ++made;
        EXPECT_EQ(frame->layout().modifier, each.modifier);
        EXPECT_TRUE(CpuMap::map(frame->buffer(), Access::read_write)) << format_name(each.format);
    }
    EXPECT_GE(made, 4);
}

TEST_P(GbmSystemTest, WhatHasANameComesBeforeWhatHasNone) {
    const auto gbm = wrap();
    FrameSpec spec = small;
    spec.modifiers = {DRM_FORMAT_MOD_INVALID, I915_FORMAT_MOD_X_TILED, DRM_FORMAT_MOD_LINEAR};
    auto frame = gbm->allocate_frame(spec);
    ASSERT_TRUE(frame) << frame.error().message();
    EXPECT_EQ(frame->layout().modifier, std::uint64_t{DRM_FORMAT_MOD_LINEAR});
    spec.modifiers.pop_back();
    frame = gbm->allocate_frame(spec);
    ASSERT_TRUE(frame) << frame.error().message();
    EXPECT_EQ(frame->layout().modifier, std::uint64_t{DRM_FORMAT_MOD_INVALID});
}

TEST_P(GbmSystemTest, RefusesWhatItCannotMake) {
    const auto gbm = wrap();
    FrameSpec spec = small;
    spec.format = DRM_FORMAT_NV12;
    expect_refused(gbm->allocate_frame(spec), Errc::unsupported, {"NV12", "does not make"});
    spec = small;
    spec.modifiers = {I915_FORMAT_MOD_X_TILED};
    expect_refused(gbm->allocate_frame(spec), Errc::unsupported, {"0x100000000000001"});
    spec = small;
    spec.width = 0;
    expect_refused(gbm->allocate_frame(spec), Errc::invalid_argument, {"no pixels"});
}

TEST_P(GbmSystemTest, LeavesNothingBehind) {
    const long before = test::live_buffers();
    {
        const auto gbm = wrap();
        const auto fds = test::open_fds();
        for (int i = 0; i < 300; ++i)
            ASSERT_TRUE(gbm->allocate_frame(small));
        EXPECT_EQ(fds, test::open_fds());
        test::expect_no_leak_without_fds([&] { return gbm->allocate_frame(small); });
    }
    EXPECT_EQ(test::live_buffers(), before);
    EXPECT_EQ(test::lowest_free_handle(card.get()), 1U);
}

TEST_P(GbmSystemTest, FramesOutliveItAndCardsShowThem) {
    auto made =
        FrameAllocator({wrap(GBM_BO_USE_SCANOUT)})
            .allocate(
                {}, {.width = 64, .height = 64, .formats = {DRM_FORMAT_XRGB8888}, .zeroed = true});
    ASSERT_TRUE(made) << made.error().message();
    made->exporter.reset();
    EXPECT_TRUE(test::is_zero(made->frame.buffer()));
    auto vkms = KmsDevice::wrap(test::open_drm("vkms").get());
    ASSERT_TRUE(vkms) << vkms.error().message();
    auto framebuffer = vkms->attach(made->frame);
    EXPECT_TRUE(framebuffer) << framebuffer.error().message();
}

TEST_P(GbmSystemTest, ANodeThatMakesNothingIsRefused) {
    const UniqueFd node = test::open_drm(GetParam(), "renderD");
    if (!node)
        return;
    auto made = GbmExporter::wrap(node.get());
    if (!made)
        expect_refused(made, Errc::unsupported, {"64x64", "/dev/dri/card*"});
    else
        EXPECT_TRUE((*made)->allocate_frame(small));
}

} // namespace
} // namespace sluice
