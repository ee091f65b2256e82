// SPDX-License-Identifier: MIT
#include <sluice/gbm.hpp>

#include <cerrno>
#include <thread>
#include <vector>

#include <drm_fourcc.h>
#include <gbm.h>
#include <gtest/gtest.h>

#include "support/fake_drm.hpp"
#include "support/open_fds.hpp"
#include "support/refused.hpp"

namespace sluice {
namespace {

using test::expect_refused;
using Bo = test::FakeGbm::Bo;

class GbmTest : public test::FdTest {
protected:
    GbmTest() {
        drm.add_handle(1, 1 << 20);
        drm.add_handle(2, 1 << 20);
    }
    std::shared_ptr<const GbmExporter> wrap(std::uint32_t usage = 0) {
        auto exporter = GbmExporter::wrap(drm.card.get(), usage);
        EXPECT_TRUE(exporter) << exporter.error().message();
        gbm.made.clear();
        return *exporter;
    }
    void TearDown() override {
        EXPECT_EQ(drm.handles.size(), 2U) << "the handles are GBM's to close";
        FdTest::TearDown();
    }

    test::FakeDrm drm;
    test::FakeGbm gbm;
};

constexpr FrameSpec small{.width = 100, .height = 10, .format = DRM_FORMAT_XRGB8888};

TEST_F(GbmTest, SaysWhatItCanDo) {
    const auto exporter = wrap(GBM_BO_USE_SCANOUT);
    EXPECT_EQ(exporter->caps().name, "gbm fake");
    EXPECT_FALSE(exporter->caps().zeroed);
    EXPECT_FALSE(exporter->caps().gives_bytes);
    EXPECT_TRUE(exporter->caps().lays_out_frames);
    EXPECT_TRUE(exporter->caps().cpu_mappable);
    const Uses uses = all_uses - Uses::render - Uses::store - Uses::copy_to;
    EXPECT_EQ(exporter->caps().formats,
              (std::vector<FormatSupport>{{DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_LINEAR, uses},
                                          {DRM_FORMAT_ARGB8888, DRM_FORMAT_MOD_LINEAR, uses}}));
    EXPECT_EQ(wrap(GBM_BO_USE_RENDERING)->caps().formats[0].uses, all_uses - Uses::scan_out);
    expect_refused(exporter->allocate({.size = 4096}), Errc::unsupported,
                   {"4096 bytes", "no plain bytes"});
}

TEST_F(GbmTest, RefusesWhatHasNoDriver) {
    drm.driver.clear();
    expect_refused(GbmExporter::wrap(drm.card.get()), Errc::wrong_object,
                   {"/dev/null", "is not a DRM device"});
    drm.driver = "fake";
    gbm.opens = false;
    expect_refused(GbmExporter::wrap(drm.card.get()), Errc::unsupported,
                   {"gbm fake", "no GBM driver", "ENOSYS"});
    gbm.opens = true;
    gbm.supports = [](std::uint32_t, std::uint32_t) { return false; };
    expect_refused(GbmExporter::wrap(drm.card.get(), GBM_BO_USE_CURSOR), Errc::unsupported,
                   {"no format LINEAR for usage 2"});
    gbm.supports = [](std::uint32_t, std::uint32_t) { return true; };
    gbm.create = [](Bo&) { return EACCES; };
    expect_refused(GbmExporter::wrap(drm.card.get()), Errc::unsupported,
                   {"no buffer of 64x64", "EACCES", "/dev/dri/card*"});
    EXPECT_FALSE(gbm.alive);
}

TEST_F(GbmTest, TakesTheDriversLayoutAndItsWordForLinear) {
    gbm.create = [](Bo& bo) {
        bo.modifier = DRM_FORMAT_MOD_LINEAR;
        bo.planes = {{.handle = 1, .offset = 64, .stride = 512}};
        return 0;
    };
    const auto exporter = wrap(GBM_BO_USE_SCANOUT | GBM_BO_USE_RENDERING);
    FrameSpec spec = small;
    spec.name = "screen";
    auto frame = exporter->allocate_frame(spec);
    ASSERT_TRUE(frame) << frame.error().message();
    EXPECT_EQ(describe(frame->layout()), "100x10 XR24 LINEAR, stride 512, offset 64");
    EXPECT_EQ(drm.export_flags, static_cast<std::uint32_t>(DRM_CLOEXEC | DRM_RDWR));
    EXPECT_EQ(drm.last_name, "screen");
    ASSERT_EQ(gbm.made.size(), 1U);
    EXPECT_TRUE(gbm.made[0].with_modifiers);
    EXPECT_EQ(gbm.made[0].usage,
              static_cast<std::uint32_t>(GBM_BO_USE_SCANOUT | GBM_BO_USE_RENDERING));
}

TEST_F(GbmTest, AnUnknownLayoutIsNoLinearOne) {
    // A driver without modifiers: INVALID, however it is asked. The flag is its promise then.
    gbm.create = [](Bo& bo) {
        bo.modifier = DRM_FORMAT_MOD_INVALID;
        bo.planes = {{.handle = 1, .offset = 0, .stride = 512}};
        return 0;
    };
    const auto exporter = wrap(GBM_BO_USE_SCANOUT);
    auto frame = exporter->allocate_frame(small);
    ASSERT_TRUE(frame) << frame.error().message();
    EXPECT_EQ(frame->layout().modifier, DRM_FORMAT_MOD_LINEAR);
    EXPECT_FALSE(gbm.made.back().with_modifiers);
    EXPECT_EQ(gbm.made.back().usage,
              static_cast<std::uint32_t>(GBM_BO_USE_SCANOUT | GBM_BO_USE_LINEAR));

    // One that refuses modifiers outright.
    gbm.create = [](Bo& bo) {
        if (bo.with_modifiers)
            return ENOSYS;
        bo.modifier = DRM_FORMAT_MOD_INVALID;
        bo.planes = {{.handle = 1, .offset = 0, .stride = 512}};
        return 0;
    };
    EXPECT_TRUE(exporter->allocate_frame(small));

    // One that gives a tiling though LINEAR was asked for.
    gbm.create = [](Bo& bo) {
        bo.modifier = I915_FORMAT_MOD_X_TILED;
        bo.planes = {{.handle = 1, .offset = 0, .stride = 512}};
        return 0;
    };
    expect_refused(exporter->allocate_frame(small), Errc::unsupported,
                   {"asked for LINEAR", "0x100000000000001"});
}

TEST_F(GbmTest, TheDriverChoosesAmongTheModifiersAskedFor) {
    const auto exporter = wrap(GBM_BO_USE_RENDERING);
    gbm.create = [](Bo& bo) {
        bo.modifier = I915_FORMAT_MOD_Y_TILED_CCS;
        bo.planes = {{.handle = 1, .offset = 0, .stride = 512},
                     {.handle = 1, .offset = 65536, .stride = 64}};
        return 0;
    };
    FrameSpec spec = small;
    spec.modifiers = {I915_FORMAT_MOD_Y_TILED_CCS, I915_FORMAT_MOD_X_TILED, DRM_FORMAT_MOD_LINEAR};
    auto frame = exporter->allocate_frame(spec);
    ASSERT_TRUE(frame) << frame.error().message();
    EXPECT_EQ(frame->layout().modifier, I915_FORMAT_MOD_Y_TILED_CCS);
    EXPECT_EQ(frame->layout().plane_count, 2U);
    EXPECT_EQ(frame->layout().planes[1].offset, 65536U);
    EXPECT_FALSE(frame->disjoint());
    EXPECT_EQ(gbm.made.back().offered, spec.modifiers);

    // Nobody gets what they did not ask for, LINEAR neither.
    for (const std::uint64_t taken :
         {std::uint64_t{DRM_FORMAT_MOD_LINEAR}, std::uint64_t{DRM_FORMAT_MOD_INVALID},
          std::uint64_t{I915_FORMAT_MOD_Y_TILED}}) {
        gbm.create = [taken](Bo& bo) {
            bo.modifier = taken;
            bo.planes = {{.handle = 1, .offset = 0, .stride = 512}};
            return 0;
        };
        FrameSpec tiled = small;
        tiled.modifiers = {I915_FORMAT_MOD_X_TILED};
        expect_refused(exporter->allocate_frame(tiled), Errc::unsupported,
                       {"took modifier", "which was not asked for"});
    }
}

TEST_F(GbmTest, LinearIsTheWayOutWhereItWasOffered) {
    const auto exporter = wrap();
    gbm.create = [](Bo& bo) {
        if (bo.with_modifiers)
            return ENOSYS;
        bo.modifier = DRM_FORMAT_MOD_INVALID;
        bo.planes = {{.handle = 1, .offset = 0, .stride = 512}};
        return 0;
    };
    FrameSpec spec = small;
    spec.modifiers = {I915_FORMAT_MOD_X_TILED};
    EXPECT_FALSE(exporter->allocate_frame(spec));
    spec.modifiers.push_back(DRM_FORMAT_MOD_LINEAR);
    auto frame = exporter->allocate_frame(spec);
    ASSERT_TRUE(frame) << frame.error().message();
    EXPECT_EQ(frame->layout().modifier, std::uint64_t{DRM_FORMAT_MOD_LINEAR});
}

TEST_F(GbmTest, AnUnknownLayoutGoesOnlyToWhoTakesOne) {
    const auto exporter = wrap();
    gbm.create = [](Bo& bo) {
        bo.modifier = DRM_FORMAT_MOD_INVALID;
        bo.planes = {{.handle = 1, .offset = 0, .stride = 512}};
        return 0;
    };
    FrameSpec spec = small;
    spec.modifiers = {DRM_FORMAT_MOD_INVALID};
    auto frame = exporter->allocate_frame(spec);
    ASSERT_TRUE(frame) << frame.error().message();
    EXPECT_EQ(frame->layout().modifier, std::uint64_t{DRM_FORMAT_MOD_INVALID});
    EXPECT_FALSE(gbm.made.back().with_modifiers);
    EXPECT_EQ(gbm.made.back().usage, 0U) << "nobody asked for LINEAR";
}

TEST_F(GbmTest, ADriverThatLiesIsNotBelieved) {
    const auto exporter = wrap();
    FrameSpec spec = small;
    spec.modifiers = {I915_FORMAT_MOD_X_TILED};
    for (const std::size_t planes : {0U, 5U}) {
        gbm.create = [planes](Bo& bo) {
            bo.modifier = I915_FORMAT_MOD_X_TILED;
            bo.planes.assign(planes, {.handle = 1, .offset = 0, .stride = 512});
            return 0;
        };
        expect_refused(exporter->allocate_frame(spec), Errc::unsupported, {"planes"});
    }
    gbm.create = [](Bo& bo) {
        bo.modifier = I915_FORMAT_MOD_X_TILED;
        bo.planes = {{.handle = 1, .offset = 1 << 20, .stride = 512}};
        return 0;
    };
    expect_refused(exporter->allocate_frame(spec), Errc::out_of_bounds, {"begins at byte 1048576"});
}

TEST_F(GbmTest, PlanesShareABufferOrHaveTheirOwn) {
    gbm.supports = [](std::uint32_t format, std::uint32_t) {
        return format == DRM_FORMAT_NV12 || format == DRM_FORMAT_YUV420;
    };
    gbm.plane_count = [](std::uint32_t format) { return format == DRM_FORMAT_NV12 ? 2 : -1; };
    std::uint32_t second = 1;
    std::size_t planes = 2;
    gbm.create = [&](Bo& bo) {
        bo.modifier = DRM_FORMAT_MOD_LINEAR;
        bo.planes = {{.handle = 1, .offset = 0, .stride = 128},
                     {.handle = second, .offset = 8192, .stride = 128}};
        bo.planes.resize(planes);
        return 0;
    };
    const auto exporter = wrap();
    EXPECT_EQ(exporter->caps().formats.size(), 2U) << "a driver that does not say is tried";
    FrameSpec spec = small;
    spec.format = DRM_FORMAT_NV12;
    auto frame = exporter->allocate_frame(spec);
    ASSERT_TRUE(frame) << frame.error().message();
    EXPECT_EQ(describe(frame->layout()),
              "100x10 NV12 LINEAR, stride 128, offset 0; stride 128, offset 8192");
    second = 2;
    auto disjoint = exporter->allocate_frame(spec);
    ASSERT_TRUE(disjoint) << disjoint.error().message();
    EXPECT_TRUE(disjoint->disjoint());
    EXPECT_EQ(disjoint->layout().planes[1].buffer, 1U);
    planes = 1;
    expect_refused(exporter->allocate_frame(spec), Errc::unsupported, {"made 1 planes", "has 2"});
    expect_refused(exporter->allocate_frame(small), Errc::unsupported,
                   {"XR24", "ExporterCaps::formats"});
}

TEST_F(GbmTest, AsksForAWiderBufferWhereTheStrideDoesNotFit) {
    const auto exporter = wrap();
    FrameSpec spec = small;
    spec.stride_alignment = 256;
    spec.height_alignment = 16;
    auto frame = exporter->allocate_frame(spec);
    ASSERT_TRUE(frame) << frame.error().message();
    EXPECT_EQ(describe(frame->layout()), "100x10 XR24 LINEAR, stride 512, offset 0");
    ASSERT_EQ(gbm.made.size(), 2U);
    EXPECT_EQ(gbm.made[0].height, 16U);
    EXPECT_EQ(gbm.made[1].width, 128U);

    gbm.create = [](Bo& bo) {
        bo.modifier = DRM_FORMAT_MOD_LINEAR;
        bo.planes = {{.handle = 1, .offset = 16, .stride = bo.width * 4 + 4}};
        return 0;
    };
    expect_refused(exporter->allocate_frame(spec), Errc::unsupported,
                   {"stride of 516 bytes is no multiple of 256"});
    spec.stride_alignment = 0;
    spec.offset_alignment = 64;
    expect_refused(exporter->allocate_frame(spec), Errc::unsupported,
                   {"offset of 16 bytes is no multiple of 64"});
    spec.offset_alignment = 0;
    spec.min_size = 1 << 21;
    expect_refused(exporter->allocate_frame(spec), Errc::unsupported, {"1048576 bytes", "2097152"});
}

TEST_F(GbmTest, EachCallMayFailAndLeavesNothing) {
    const auto exporter = wrap();
    const auto before = test::open_fds();
    FrameSpec spec = small;
    spec.height = 0;
    expect_refused(exporter->allocate_frame(spec), Errc::invalid_argument, {"no pixels"});
    drm.export_error = EMFILE;
    expect_refused(exporter->allocate_frame(small), Errc::no_resources,
                   {"DRM_IOCTL_PRIME_HANDLE_TO_FD", "EMFILE"});
    drm.export_error = 0;
    drm.exports_dma_bufs = false;
    expect_refused(exporter->allocate_frame(small), Errc::wrong_object, {"is not a dma-buf"});
    drm.exports_dma_bufs = true;
    drm.missing_bytes = (1 << 20) - 400 * 10 + 1; // a byte less than the driver's own layout
    expect_refused(exporter->allocate_frame(small), Errc::out_of_bounds, {"the buffer holds 3999"});
    gbm.create = [](Bo&) { return ENOMEM; };
    expect_refused(exporter->allocate_frame(small), Errc::no_resources,
                   {"gbm_bo_create", "ENOMEM"});
    EXPECT_EQ(gbm.bos, 0);
    EXPECT_EQ(before, test::open_fds());
}

TEST_F(GbmTest, FramesOutliveTheExporterAndItsDevice) {
    auto frame = wrap()->allocate_frame(small);
    ASSERT_TRUE(frame);
    EXPECT_FALSE(gbm.alive);
    EXPECT_EQ(frame->buffer().size(), 1U << 20);
}

TEST_F(GbmTest, SeveralThreadsTakeTurns) {
    const auto exporter = wrap();
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] {
            for (int n = 0; n < 25; ++n)
                EXPECT_TRUE(exporter->allocate_frame(small));
        });
    threads.clear();
    EXPECT_EQ(gbm.made.size(), 100U);
}

} // namespace
} // namespace sluice
