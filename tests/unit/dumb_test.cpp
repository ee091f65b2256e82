// SPDX-License-Identifier: MIT
#include <sluice/dumb.hpp>

#include <cerrno>

#include <drm_fourcc.h>
#include <gtest/gtest.h>

#include "support/fake_drm.hpp"
#include "support/open_fds.hpp"
#include "support/refused.hpp"

namespace sluice {
namespace {

using test::expect_refused;

class DumbTest : public test::FdTest {
protected:
    std::shared_ptr<const DumbExporter> wrap() {
        auto exporter = DumbExporter::wrap(drm.card.get());
        EXPECT_TRUE(exporter) << exporter.error().message();
        drm.created.clear();
        return *exporter;
    }
    void TearDown() override {
        EXPECT_TRUE(drm.handles.empty()) << "a GEM handle was left open";
        FdTest::TearDown();
    }

    test::FakeDrm drm;
};

const FrameSpec small{.width = 100, .height = 10, .format = DRM_FORMAT_XRGB8888};

TEST_F(DumbTest, SaysWhatItCanDo) {
    const auto exporter = wrap();
    EXPECT_EQ(exporter->caps().name, "dumb fake");
    EXPECT_EQ(exporter->caps().max_size, 0xfffff000U);
    EXPECT_FALSE(exporter->caps().zeroed);
    EXPECT_TRUE(exporter->caps().cpu_mappable) << "the one it made to find out was mapped";
    EXPECT_TRUE(exporter->caps().gives_bytes);
    EXPECT_TRUE(exporter->caps().lays_out_frames);
    drm.libc.mmap = [](void*, size_t, int, int, int, off_t) -> void* {
        errno = ENODEV;
        return reinterpret_cast<void*>(-1);
    };
    EXPECT_FALSE(wrap()->caps().cpu_mappable);
}

TEST_F(DumbTest, RefusesWhatMakesNone) {
    drm.driver.clear();
    expect_refused(DumbExporter::wrap(drm.card.get()), Errc::wrong_object,
                   {"/dev/null", "is not a DRM device"});
    expect_refused(DumbExporter::wrap(-1), Errc::wrong_object, {"(none)"});
    drm.driver = "fake";
    drm.dumb_cap = 0;
    expect_refused(DumbExporter::wrap(drm.card.get()), Errc::unsupported,
                   {"dumb fake", "DRM_CAP_DUMB_BUFFER is 0"});
    drm.cap_error = EOPNOTSUPP; // a driver without a display does not say
    EXPECT_TRUE(DumbExporter::wrap(drm.card.get()));
    const std::pair<int, Errc> refusals[] = {{EACCES, Errc::no_permission},
                                             {ENOSYS, Errc::unsupported},
                                             {EINVAL, Errc::unsupported},
                                             {ENOMEM, Errc::no_resources}};
    for (const auto& [error, code] : refusals) {
        drm.create_error = error;
        expect_refused(DumbExporter::wrap(drm.card.get()), code,
                       {"DumbExporter::wrap", "DRM_IOCTL_MODE_CREATE_DUMB"});
    }
    drm.create_error = EACCES;
    expect_refused(DumbExporter::wrap(drm.card.get()), Errc::no_permission,
                   {"render nodes", "/dev/dri/card*"});
    drm.create_error = 0;
    drm.export_error = ENOSYS;
    expect_refused(DumbExporter::wrap(drm.card.get()), Errc::unsupported,
                   {"DRM_IOCTL_PRIME_HANDLE_TO_FD"});
}

TEST_F(DumbTest, TakesTheDriversStride) {
    drm.pitch = [](std::uint32_t row) { return (row + 63) / 64 * 64; };
    const auto exporter = wrap();
    FrameSpec spec = small;
    spec.name = "screen";
    auto frame = exporter->allocate_frame(spec);
    ASSERT_TRUE(frame) << frame.error().message();
    EXPECT_EQ(describe(frame->layout()), "100x10 XR24 LINEAR, stride 448, offset 0");
    EXPECT_EQ(drm.export_flags, static_cast<std::uint32_t>(DRM_CLOEXEC | DRM_RDWR));
    EXPECT_EQ(drm.last_name, "screen");
    drm.pitch = [](std::uint32_t row) { return row; };
    drm.created.clear();
    frame = exporter->allocate_frame(small);
    ASSERT_TRUE(frame);
    EXPECT_EQ(frame->layout().planes[0].stride, 400U) << "nobody asked for more";
    ASSERT_EQ(drm.created.size(), 1U);
    EXPECT_EQ(drm.created[0].width, 100U);
    EXPECT_EQ(drm.created[0].height, 10U);
    EXPECT_EQ(drm.created[0].bpp, 32U);
}

TEST_F(DumbTest, AsksForAWiderBufferWhereTheStrideDoesNotFit) {
    const auto exporter = wrap();
    FrameSpec spec = small;
    spec.stride_alignment = 256;
    auto frame = exporter->allocate_frame(spec);
    ASSERT_TRUE(frame) << frame.error().message();
    EXPECT_EQ(frame->layout().planes[0].stride, 512U);
    EXPECT_EQ(frame->layout().width, 100U);

    // The driver goes by 192: 576, of which 64 is a part but 256 is not; 768 is both.
    drm.pitch = [](std::uint32_t row) { return (row + 191) / 192 * 192; };
    frame = exporter->allocate_frame(spec);
    ASSERT_TRUE(frame) << frame.error().message();
    EXPECT_EQ(frame->layout().planes[0].stride, 768U);

    spec.stride_alignment = 3; // of whole pixels all the same
    drm.pitch = [](std::uint32_t row) { return row; };
    frame = exporter->allocate_frame(spec);
    ASSERT_TRUE(frame) << frame.error().message();
    EXPECT_EQ(frame->layout().planes[0].stride, 408U);

    drm.pitch = [](std::uint32_t row) { return row + 4; }; // never what was asked for
    expect_refused(exporter->allocate_frame(spec), Errc::unsupported,
                   {"100x10 XR24", "alignment of 12 bytes"});
}

TEST_F(DumbTest, PlanesLieInOneBufferOfBytes) {
    const auto exporter = wrap();
    FrameSpec spec{.width = 5, .height = 3, .format = DRM_FORMAT_NV12};
    auto frame = exporter->allocate_frame(spec);
    ASSERT_TRUE(frame) << frame.error().message();
    EXPECT_EQ(describe(frame->layout()),
              "5x3 NV12 LINEAR, stride 256, offset 0; stride 256, offset 768");
    ASSERT_EQ(drm.created.size(), 1U);
    EXPECT_EQ(drm.created[0].bpp, 8U);
    EXPECT_EQ(drm.created[0].width, 256U);
    EXPECT_EQ(drm.created[0].height, 5U);

    drm.pitch = [](std::uint32_t row) { return (row + 1023) / 1024 * 1024; };
    frame = exporter->allocate_frame(spec);
    ASSERT_TRUE(frame) << frame.error().message();
    EXPECT_EQ(describe(frame->layout()),
              "5x3 NV12 LINEAR, stride 1024, offset 0; stride 1024, offset 3072");
}

TEST_F(DumbTest, GoesBy32BitsWhereTheDriverHasNothingElse) {
    drm.only_32_bpp = true;
    const auto exporter = wrap();
    for (const FormatInfo& format : formats()) {
        auto frame = exporter->allocate_frame({.width = 33, .height = 17, .format = format.fourcc});
        ASSERT_TRUE(frame) << frame.error().message();
    }
    auto buffer = exporter->allocate({.size = 5000});
    ASSERT_TRUE(buffer) << buffer.error().message();
    EXPECT_EQ(buffer->size(), 8192U);
}

TEST_F(DumbTest, EveryFormatHasAFrameOfOddSize) {
    const auto exporter = wrap();
    for (const FormatInfo& format : formats())
        for (const std::uint32_t alignment : {0U, 64U, 100U}) {
            auto frame = exporter->allocate_frame({.width = 3,
                                                   .height = 5,
                                                   .format = format.fourcc,
                                                   .stride_alignment = alignment,
                                                   .height_alignment = 16,
                                                   .min_size = 100'000});
            ASSERT_TRUE(frame) << frame.error().message();
            EXPECT_GE(frame->buffer().size(), 100'000U);
            for (std::uint32_t i = 0; i < format.plane_count; ++i)
                EXPECT_EQ(frame->layout().planes[i].stride % std::max(alignment, 1U), 0U)
                    << describe(frame->layout());
        }
}

TEST_F(DumbTest, AnyStrideAlignmentLeadsToAFrame) {
    const auto exporter = wrap();
    for (const FormatInfo& format : formats())
        for (std::uint32_t alignment = 1; alignment <= 40; ++alignment) {
            auto frame = exporter->allocate_frame(
                {.width = 33, .height = 3, .format = format.fourcc, .stride_alignment = alignment});
            ASSERT_TRUE(frame) << alignment << ": " << frame.error().message();
            for (std::uint32_t i = 0; i < format.plane_count; ++i)
                EXPECT_EQ(frame->layout().planes[i].stride % alignment, 0U)
                    << describe(frame->layout());
        }
}

TEST_F(DumbTest, RefusesSizesThatTheKernelCannotCount) {
    const auto exporter = wrap();
    expect_refused(exporter->allocate({.size = 0}), Errc::invalid_argument, {"0 bytes"});
    expect_refused(exporter->allocate({.size = std::uint64_t{1} << 32}), Errc::unsupported,
                   {"4294967296 bytes", "4294963200", "32 bits"});
    FrameSpec spec = small;
    spec.width = spec.height = 65536;
    expect_refused(exporter->allocate_frame(spec), Errc::unsupported,
                   {"17179869184 bytes", "4294963200"});
    spec = small;
    spec.width = 0;
    expect_refused(exporter->allocate_frame(spec), Errc::invalid_argument, {"no pixels"});
    spec = small;
    spec.format = DRM_FORMAT_C8;
    expect_refused(exporter->allocate_frame(spec), Errc::unsupported, {"C8"});
    spec = small;
    spec.stride_alignment = UINT32_MAX;
    expect_refused(exporter->allocate_frame(spec), Errc::invalid_argument, {"2147483647"});
    EXPECT_TRUE(drm.created.empty()) << "refused before the kernel is asked";
}

TEST_F(DumbTest, APitchThatLeadsNowhereIsTheDriversOwn) {
    const auto exporter = wrap();
    FrameSpec spec = small;
    spec.height = 4;
    drm.pitch = [](std::uint32_t) { return 1U << 31; };
    expect_refused(exporter->allocate_frame(spec), Errc::unsupported,
                   {"DumbExporter::allocate_frame", "dumb fake",
                    "the driver's pitch of 2147483648 bytes", "2147483647"});
    drm.pitch = [](std::uint32_t) { return 1U << 30; };
    expect_refused(exporter->allocate_frame(spec), Errc::unsupported,
                   {"dumb fake", "the driver's pitch of 1073741824 bytes", "4294967296 bytes"});
}

TEST_F(DumbTest, EachCallMayFailAndLeavesNoHandle) {
    const auto exporter = wrap();
    const auto before = test::open_fds();
    const auto refuse_both = [&](Errc code, const std::vector<std::string>& words) {
        expect_refused(exporter->allocate({.size = 8192}), code, words);
        expect_refused(exporter->allocate_frame(small), code, words);
        EXPECT_TRUE(drm.handles.empty());
    };
    drm.create_error = ENOMEM;
    refuse_both(Errc::no_resources, {"DRM_IOCTL_MODE_CREATE_DUMB", "ENOMEM"});
    drm.create_error = EINVAL;
    refuse_both(Errc::invalid_argument, {"DRM_IOCTL_MODE_CREATE_DUMB", "EINVAL"});
    drm.create_error = 0;
    drm.export_error = EMFILE;
    refuse_both(Errc::no_resources, {"DRM_IOCTL_PRIME_HANDLE_TO_FD", "EMFILE"});
    drm.export_error = 0;
    drm.exports_dma_bufs = false;
    refuse_both(Errc::wrong_object, {"is not a dma-buf"});
    drm.exports_dma_bufs = true;
    drm.missing_bytes = 4096;
    refuse_both(Errc::failed, {"the driver gave"});
    drm.missing_bytes = 0;
    drm.pitch = [](std::uint32_t row) { return row - 4; };
    refuse_both(Errc::failed, {"less than"});
    drm.pitch = [](std::uint32_t) { return 0U; };
    refuse_both(Errc::failed, {"pitch of 0"});
    EXPECT_EQ(before, test::open_fds());
}

} // namespace
} // namespace sluice
