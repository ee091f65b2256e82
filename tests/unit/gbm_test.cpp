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

const FrameSpec small{.width = 100, .height = 10, .format = DRM_FORMAT_XRGB8888};

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
                                          {DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_INVALID, uses},
                                          {DRM_FORMAT_ARGB8888, DRM_FORMAT_MOD_LINEAR, uses},
                                          {DRM_FORMAT_ARGB8888, DRM_FORMAT_MOD_INVALID, uses}}));
    EXPECT_TRUE(exporter->caps().unlisted_modifiers);
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
                   {"makes no format for usage 2"});
    gbm.supports = [](std::uint32_t, std::uint32_t) { return true; };
    gbm.create = [](Bo&) { return EACCES; };
    expect_refused(GbmExporter::wrap(drm.card.get()), Errc::unsupported,
                   {"no buffer of 64x64", "EACCES", "/dev/dri/card*"});
    EXPECT_FALSE(gbm.alive);
}

TEST_F(GbmTest, ListsLinearOnlyWhereTheUseAllowsIt) {
    gbm.supports = [](std::uint32_t format, std::uint32_t usage) {
        return format == DRM_FORMAT_ARGB8888 ||
               (format == DRM_FORMAT_XRGB8888 && usage == GBM_BO_USE_SCANOUT);
    };
    const Uses uses = all_uses - Uses::render - Uses::store - Uses::copy_to;
    EXPECT_EQ(wrap(GBM_BO_USE_SCANOUT)->caps().formats,
              (std::vector<FormatSupport>{{DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_INVALID, uses},
                                          {DRM_FORMAT_ARGB8888, DRM_FORMAT_MOD_LINEAR, uses},
                                          {DRM_FORMAT_ARGB8888, DRM_FORMAT_MOD_INVALID, uses}}));
    // A use that no LINEAR buffer serves has its exporter all the same.
    gbm.supports = [](std::uint32_t format, std::uint32_t usage) {
        return format == DRM_FORMAT_XRGB8888 && usage == GBM_BO_USE_SCANOUT;
    };
    gbm.create = [](Bo& bo) {
        bo.modifier = DRM_FORMAT_MOD_INVALID;
        bo.planes = {{.handle = 1, .offset = 0, .stride = 512}};
        return (bo.usage & GBM_BO_USE_LINEAR) == 0 && !bo.with_modifiers ? 0 : EINVAL;
    };
    const auto exporter = wrap(GBM_BO_USE_SCANOUT);
    FrameSpec spec = small;
    expect_refused(exporter->allocate_frame(spec), Errc::unsupported,
                   {"does not make this format LINEAR for this use"});
    spec.modifiers = {DRM_FORMAT_MOD_INVALID};
    auto frame = exporter->allocate_frame(spec);
    EXPECT_TRUE(frame) << frame.error().message();
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

TEST_F(GbmTest, WhatHasANameComesBeforeWhatHasNone) {
    const auto exporter = wrap();
    bool knows_modifiers = true;
    bool makes_linear = true;
    gbm.create = [&](Bo& bo) {
        bo.modifier = DRM_FORMAT_MOD_INVALID;
        bo.planes = {{.handle = 1, .offset = 0, .stride = 512}};
        if (bo.with_modifiers && knows_modifiers) {
            if (!makes_linear || bo.offered.back() != DRM_FORMAT_MOD_LINEAR)
                return EINVAL;
            bo.modifier = DRM_FORMAT_MOD_LINEAR;
        }
        return (bo.usage & GBM_BO_USE_LINEAR) != 0 && !makes_linear ? EINVAL : 0;
    };
    FrameSpec spec = small;
    const auto modifier = [&] {
        auto frame = exporter->allocate_frame(spec);
        EXPECT_TRUE(frame) << frame.error().message();
        return frame ? frame->layout().modifier : 1;
    };
    for (const bool knows : {true, false}) {
        knows_modifiers = knows;
        makes_linear = true;
        spec.modifiers = {DRM_FORMAT_MOD_INVALID, DRM_FORMAT_MOD_LINEAR};
        EXPECT_EQ(modifier(), std::uint64_t{DRM_FORMAT_MOD_LINEAR}) << knows;
        spec.modifiers = {DRM_FORMAT_MOD_INVALID, I915_FORMAT_MOD_X_TILED, DRM_FORMAT_MOD_LINEAR};
        EXPECT_EQ(modifier(), std::uint64_t{DRM_FORMAT_MOD_LINEAR}) << knows;
        makes_linear = false;
        EXPECT_EQ(modifier(), std::uint64_t{DRM_FORMAT_MOD_INVALID}) << "nothing else is to be had";
    }
}

TEST_F(GbmTest, WhoTakesAnUnknownLayoutDoesNotGetAnyOther) {
    const auto exporter = wrap();
    gbm.create = [](Bo& bo) {
        bo.modifier = I915_FORMAT_MOD_Y_TILED;
        bo.planes = {{.handle = 1, .offset = 0, .stride = 512}};
        return 0;
    };
    FrameSpec spec = small;
    for (const auto& modifiers : std::vector<std::vector<std::uint64_t>>{
             {DRM_FORMAT_MOD_INVALID}, {DRM_FORMAT_MOD_INVALID, I915_FORMAT_MOD_X_TILED}}) {
        spec.modifiers = modifiers;
        expect_refused(exporter->allocate_frame(spec), Errc::unsupported,
                       {"took modifier INTEL 0x100000000000002", "which was not asked for"});
    }
    // A layout that was asked for may come by a way that names none.
    gbm.create = [](Bo& bo) {
        bo.modifier = I915_FORMAT_MOD_Y_TILED;
        bo.planes = {{.handle = 1, .offset = 0, .stride = 512}};
        return bo.with_modifiers ? ENOSYS : 0;
    };
    spec.modifiers.push_back(I915_FORMAT_MOD_Y_TILED);
    auto frame = exporter->allocate_frame(spec);
    ASSERT_TRUE(frame) << frame.error().message();
    EXPECT_EQ(frame->layout().modifier, I915_FORMAT_MOD_Y_TILED);
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
    // What it says of the buffer is its own fault, and not the request's.
    const auto says = [&](std::uint64_t modifier, test::FakeGbm::Plane plane,
                          const std::vector<std::string>& words) {
        gbm.create = [=](Bo& bo) {
            bo.modifier = modifier;
            bo.planes = {plane};
            return 0;
        };
        spec.modifiers = {modifier};
        std::vector<std::string> all{"GbmExporter::allocate_frame", "gbm fake", "the driver says"};
        all.insert(all.end(), words.begin(), words.end());
        expect_refused(exporter->allocate_frame(spec), Errc::failed, all);
    };
    says(I915_FORMAT_MOD_X_TILED, {.offset = 1 << 20, .stride = 512},
         {"offset 1048576", "the buffer holds 1048576"});
    says(I915_FORMAT_MOD_X_TILED, {.stride = 1U << 31}, {"stride 2147483648", "2147483647"});
    says(DRM_FORMAT_MOD_LINEAR, {.stride = 396}, {"stride 396", "below its row of 100 pixels"});
    says(DRM_FORMAT_MOD_LINEAR, {.stride = 402}, {"stride 402", "no multiple of its 4 bytes"});
    says(DRM_FORMAT_MOD_LINEAR, {.offset = (1 << 20) - 3999, .stride = 400},
         {"offset 1044577", "needs 1048577 bytes, the buffer holds 1048576"});
    // A modifier may add planes, and never takes any away.
    gbm.supports = [](std::uint32_t, std::uint32_t) { return true; };
    spec.format = DRM_FORMAT_NV12;
    says(I915_FORMAT_MOD_X_TILED, {.stride = 512}, {"it has 1 plane", "NV12", "has 2 planes"});
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
    EXPECT_EQ(exporter->caps().formats.size(), 4U) << "a driver that does not say is tried";
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
    spec.min_size = 0;
    spec.slack = 1000;
    EXPECT_TRUE(exporter->allocate_frame(spec)) << "the buffer is large enough by itself";
    spec.slack = 1 << 20;
    expect_refused(exporter->allocate_frame(spec), Errc::unsupported,
                   {"1048576 bytes, and 1055056 are needed"}); // behind 16 rows of 404, from 16 on
}

TEST_F(GbmTest, AModifiersOwnPlanesHaveTheirOwnStrides) {
    const auto exporter = wrap();
    std::uint32_t stride = 512;
    std::uint32_t offset = 65536;
    gbm.create = [&](Bo& bo) {
        bo.modifier = I915_FORMAT_MOD_Y_TILED_CCS;
        bo.planes = {{.offset = 0, .stride = stride}, {.offset = offset, .stride = 40}};
        return 0;
    };
    FrameSpec spec = small;
    spec.modifiers = {I915_FORMAT_MOD_Y_TILED_CCS};
    spec.stride_alignment = 512;
    spec.offset_alignment = 4096;
    auto frame = exporter->allocate_frame(spec);
    ASSERT_TRUE(frame) << frame.error().message();
    EXPECT_EQ(frame->layout().planes[1].stride, 40U);
    stride = 544;
    expect_refused(exporter->allocate_frame(spec), Errc::unsupported,
                   {"plane 0's stride of 544 bytes is no multiple of 512"});
    stride = 512;
    offset = 65536 + 64;
    expect_refused(exporter->allocate_frame(spec), Errc::unsupported,
                   {"plane 1's offset of 65600 bytes is no multiple of 4096"});
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
    expect_refused(exporter->allocate_frame(small), Errc::failed,
                   {"the driver says", "stride 400", "the buffer holds 3999"});
    gbm.create = [](Bo&) { return ENOMEM; };
    expect_refused(exporter->allocate_frame(small), Errc::no_resources,
                   {"gbm_bo_create", "ENOMEM"});
    EXPECT_EQ(gbm.bos, 0);
    EXPECT_EQ(before, test::open_fds());
}

TEST_F(GbmTest, AFailureWithoutAnErrnoIsNotBlamedOnAnOlderOne) {
    const auto exporter = wrap();
    bool makes_something = false;
    gbm.create = [&](Bo& bo) { // as from a driver that leaves errno alone
        bo.modifier = DRM_FORMAT_MOD_INVALID;
        bo.planes = {{.handle = 1, .offset = 0, .stride = 512}};
        return makes_something && bo.with_modifiers ? 0 : test::FakeGbm::leaves_errno;
    };
    FrameSpec spec = small;
    for (const auto& modifiers : std::vector<std::vector<std::uint64_t>>{
             {}, {I915_FORMAT_MOD_X_TILED}, {DRM_FORMAT_MOD_INVALID}}) {
        spec.modifiers = modifiers;
        errno = ENOMEM;
        expect_refused(exporter->allocate_frame(spec), Errc::unsupported,
                       {"the driver makes no buffer", "and does not say why"});
    }
    // A buffer that is given back may set it as well.
    makes_something = true;
    gbm.destroy_errno = ENOMEM;
    expect_refused(exporter->allocate_frame(small), Errc::unsupported, {"and does not say why"});
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
