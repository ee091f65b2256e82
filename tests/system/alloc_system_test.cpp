// SPDX-License-Identifier: MIT
// The exporters on a real kernel.
#include <cerrno>
#include <thread>
#include <vector>

#include <drm_fourcc.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <sluice/dma_heap.hpp>
#include <sluice/dumb.hpp>
#include <sluice/frame_allocator.hpp>
#include <sluice/kms_device.hpp>
#include <sluice/udmabuf.hpp>

#include "support/drm_cards.hpp"
#include "support/exporter_checks.hpp"
#include "support/memfd.hpp"
#include "support/refused.hpp"
#include "support/requires.hpp"
#include "support/udmabuf.hpp"

namespace sluice {
namespace {

using test::expect_refused;

/// An exporter by the name in its capabilities, or why this machine has none.
Result<std::shared_ptr<const Exporter>> make(const std::string& name) {
    if (name == "udmabuf")
        return UdmabufExporter::open();
    if (name.starts_with("dma-heap "))
        return DmaHeapExporter::open({.name = name.substr(9)});
    return DumbExporter::wrap(test::open_drm(name.substr(5)).get());
}

class ExporterSystemTest : public test::FdTest, public ::testing::WithParamInterface<const char*> {
protected:
    void SetUp() override {
        FdTest::SetUp();
        auto made = make(GetParam());
        SLUICE_REQUIRES(made, made.error().message());
        exporter = std::move(*made);
    }
    void TearDown() override {
        exporter.reset();
        FdTest::TearDown();
    }

    std::shared_ptr<const Exporter> exporter;
};

INSTANTIATE_TEST_SUITE_P(All, ExporterSystemTest,
                         ::testing::Values("udmabuf", "dma-heap system", "dumb vkms", "dumb vgem",
                                           "dumb virtio_gpu"),
                         [](const auto& each) {
                             std::string name = each.param;
                             std::ranges::replace_if(
                                 name, [](char c) { return !std::isalnum(c); }, '_');
                             return name;
                         });

TEST_P(ExporterSystemTest, SaysWhatItCanDo) {
    EXPECT_EQ(exporter->caps().name, GetParam());
    EXPECT_EQ(exporter->caps().granularity, static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)));
    EXPECT_TRUE(exporter->caps().cpu_mappable);
    EXPECT_TRUE(exporter->caps().gives_bytes);
    EXPECT_EQ(exporter->caps().formats.size(), formats().size());
    EXPECT_FALSE(exporter->caps().max_size_source.empty());
}

TEST_P(ExporterSystemTest, GivesBuffersOfTheSizeAskedForAndTheirNames) {
    for (const std::uint64_t size : {1U, 4096U, 4097U, 1'000'000U}) {
        auto buffer =
            exporter->allocate({.size = size, .name = "sluice-system-test-of-a-name-too-long"});
        ASSERT_TRUE(buffer) << buffer.error().message();
        EXPECT_EQ(buffer->size(), (size + 4095) / 4096 * 4096);
        EXPECT_EQ(test::name_of(*buffer), "sluice-system-test-of-a-name-to");
        test::expect_writes_survive(*buffer);
    }
}

TEST_P(ExporterSystemTest, KeepsItsPromiseOfZeros) {
    if (!exporter->caps().zeroed)
        return;
    for (int i = 0; i < 5; ++i) {
        // Memory that was written to before comes back clean.
        auto buffer = exporter->allocate({.size = 1 << 20});
        ASSERT_TRUE(buffer);
        EXPECT_TRUE(test::is_zero(*buffer));
        test::expect_writes_survive(*buffer);
    }
}

TEST_P(ExporterSystemTest, MakesEveryFormat) {
    EXPECT_EQ(test::expect_frames_of_every_format(*exporter),
              static_cast<int>(formats().size()) * 4);
}

TEST_P(ExporterSystemTest, RefusesNothingAndTooMuch) {
    expect_refused(exporter->allocate({.size = 0}), Errc::invalid_argument, {"0 bytes"});
    for (const std::uint64_t size :
         {exporter->caps().max_size + 1, std::uint64_t{1} << 50, UINT64_MAX})
        expect_refused(exporter->allocate({.size = size}), Errc::unsupported,
                       {std::to_string(size) + " bytes",
                        std::to_string(exporter->caps().max_size) + " bytes",
                        exporter->caps().max_size_source});
}

TEST_P(ExporterSystemTest, WithoutFdsItFailsAndLeaksNothing) {
    test::expect_no_leak_without_fds([&] { return exporter->allocate({.size = 4096}); });
    test::expect_no_leak_without_fds([&] {
        return exporter->allocate_frame({.width = 8, .height = 8, .format = DRM_FORMAT_NV12});
    });
}

TEST_P(ExporterSystemTest, AThousandBuffersLeaveNothingBehind) {
    const long before = test::live_buffers();
    SLUICE_REQUIRES(before >= 0, "no dma_buf/bufinfo in debugfs");
    const auto fds = test::open_fds();
    for (int i = 0; i < 1000; ++i)
        ASSERT_TRUE(exporter->allocate({.size = 4096}));
    EXPECT_EQ(fds, test::open_fds());
    EXPECT_EQ(test::live_buffers(), before);
}

TEST_P(ExporterSystemTest, SeveralThreadsAllocateAtOnce) {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] {
            for (int n = 0; n < 25; ++n) {
                auto frame = exporter->allocate_frame(
                    {.width = 64, .height = 64, .format = DRM_FORMAT_XRGB8888});
                EXPECT_TRUE(frame) << frame.error().message();
            }
        });
}

TEST_P(ExporterSystemTest, BuffersOutliveIt) {
    auto buffer = exporter->allocate({.size = 8192});
    ASSERT_TRUE(buffer);
    exporter.reset();
    test::expect_writes_survive(*buffer);
}

// -- udmabuf --------------------------------------------------------------------------------------

class UdmabufSystemTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        SLUICE_REQUIRES(test::has_udmabuf(), "/dev/udmabuf does not open");
        exporter = *UdmabufExporter::open();
    }
    void TearDown() override {
        exporter.reset();
        FdTest::TearDown();
    }

    std::shared_ptr<const UdmabufExporter> exporter;
};

TEST_F(UdmabufSystemTest, ItsLimitIsTheModules) {
    std::ifstream parameter("/sys/module/udmabuf/parameters/size_limit_mb");
    std::uint64_t mib = 0;
    parameter >> mib;
    ASSERT_GT(mib, 0U);
    EXPECT_EQ(exporter->caps().max_size, mib << 20);
    auto largest = exporter->allocate({.size = exporter->caps().max_size});
    ASSERT_TRUE(largest) << largest.error().message();
    EXPECT_EQ(largest->size(), mib << 20);
}

TEST_F(UdmabufSystemTest, APeerCannotTakeTheMemoryAway) {
    const std::uint64_t page = exporter->caps().granularity;
    const UniqueFd memory = test::memfd(4 * page);
    expect_refused(exporter->wrap_memfd(memory.get(), 0, page), Errc::invalid_argument,
                   {"F_SEAL_SHRINK"});
    ASSERT_EQ(fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
    const long before = lseek(memory.get(), 0, SEEK_END);
    auto buffer = exporter->wrap_memfd(memory.get(), page, 2 * page, "pool");
    ASSERT_TRUE(buffer) << buffer.error().message();
    EXPECT_EQ(buffer->size(), 2 * page);
    EXPECT_EQ(test::name_of(*buffer), "pool");

    EXPECT_EQ(ftruncate(memory.get(), 0), -1);
    EXPECT_EQ(errno, EPERM);
    EXPECT_EQ(lseek(memory.get(), 0, SEEK_END), before);
    test::expect_writes_survive(*buffer);

    // It is the same memory, from the second page on.
    const char mark = 77;
    ASSERT_EQ(pwrite(memory.get(), &mark, 1, static_cast<off_t>(page)), 1);
    auto map = CpuMap::map(*buffer, Access::read);
    ASSERT_TRUE(map);
    EXPECT_EQ(
        CpuAccess::begin(*map, Access::read, deadline_in(std::chrono::seconds(5)))->bytes()[0],
        std::byte{77});
}

TEST_F(UdmabufSystemTest, WhatIsNoSealedMemfdIsRefused) {
    const std::uint64_t page = exporter->caps().granularity;
    const UniqueFd event(eventfd(0, EFD_CLOEXEC));
    const UniqueFd file(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    const DmaBuf buffer = test::udmabuf(page);
    for (const int fd : {event.get(), file.get(), buffer.fd(), -1})
        expect_refused(exporter->wrap_memfd(fd, 0, page), Errc::wrong_object, {"fd "});
    const UniqueFd memory = test::memfd(2 * page);
    ASSERT_EQ(fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
    expect_refused(exporter->wrap_memfd(memory.get(), page, 2 * page), Errc::out_of_bounds,
                   {"ends past"});
    ASSERT_EQ(fcntl(memory.get(), F_ADD_SEALS, F_SEAL_WRITE), 0);
    expect_refused(exporter->wrap_memfd(memory.get(), 0, page), Errc::invalid_argument,
                   {"F_SEAL_WRITE"});
}

// -- dma-heap -------------------------------------------------------------------------------------

using DmaHeapSystemTest = test::FdTest;

TEST_F(DmaHeapSystemTest, HeapsAreFoundByName) {
    const auto names = dma_heaps();
    SLUICE_REQUIRES(std::ranges::find(names, "system") != names.end(), "no system heap");
    for (const std::string& name : names)
        EXPECT_TRUE(DmaHeapExporter::open({.name = name})) << name;
    expect_refused(DmaHeapExporter::open({.name = "nobody's"}), Errc::unsupported,
                   {"/dev/dma_heap/nobody's", "system"});
}

TEST_F(DmaHeapSystemTest, MoreThanIsAvailableIsRefusedBeforeTheOomKillerComes) {
    auto heap = DmaHeapExporter::open({.max_size = std::uint64_t{1} << 60});
    SLUICE_REQUIRES(heap, heap.error().message());
    expect_refused((*heap)->allocate({.size = std::uint64_t{1} << 50}), Errc::no_resources,
                   {"1125899906842624 bytes", "MemAvailable"});
    EXPECT_TRUE((*heap)->allocate({.size = 4096}));
}

// -- dumb -----------------------------------------------------------------------------------------

class DumbSystemTest : public test::FdTest, public ::testing::WithParamInterface<const char*> {
protected:
    void SetUp() override {
        FdTest::SetUp();
        card = test::open_drm(GetParam());
        SLUICE_REQUIRES(card, "no such card");
    }
    void TearDown() override {
        card.reset();
        FdTest::TearDown();
    }
    UniqueFd card;
};

INSTANTIATE_TEST_SUITE_P(All, DumbSystemTest, ::testing::Values("vkms", "vgem", "virtio_gpu"));

TEST_P(DumbSystemTest, LeavesNoGemHandleBehind) {
    auto dumb = DumbExporter::wrap(card.get());
    ASSERT_TRUE(dumb) << dumb.error().message();
    std::vector<DmaBuf> alive;
    for (int i = 0; i < 1000; ++i) {
        auto buffer = (*dumb)->allocate({.size = 4096});
        ASSERT_TRUE(buffer) << buffer.error().message();
        if (i % 10 == 0)
            alive.push_back(std::move(*buffer));
        ASSERT_TRUE(
            (*dumb)->allocate_frame({.width = 33, .height = 17, .format = DRM_FORMAT_YUV420}));
    }
    test::expect_no_leak_without_fds([&] { return (*dumb)->allocate({.size = 4096}); });
    EXPECT_EQ(test::lowest_free_handle(card.get()), 1U) << "the caller's own file shares them";
    for (const DmaBuf& buffer : alive)
        test::expect_writes_survive(buffer);
}

TEST_P(DumbSystemTest, ARenderNodeIsToldApart) {
    const UniqueFd node = test::open_drm(GetParam(), "renderD");
    if (!node)
        return;
    expect_refused(DumbExporter::wrap(node.get()), Errc::no_permission,
                   {"render nodes", "/dev/dri/card*"});
}

// -- the allocator --------------------------------------------------------------------------------

class FrameAllocatorSystemTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        for (const char* name : {"dumb vkms", "dma-heap system", "udmabuf"}) {
            auto made = make(name);
            SLUICE_REQUIRES(made, made.error().message());
            exporters.push_back(std::move(*made));
        }
    }
    void TearDown() override {
        exporters.clear();
        FdTest::TearDown();
    }

    std::vector<std::shared_ptr<const Exporter>> exporters;
};

TEST_F(FrameAllocatorSystemTest, TakesTheOneThatIsLargeEnough) {
    const FrameAllocator allocator({exporters[2], exporters[1]});
    FrameRequest request{.width = 8192, .height = 4096, .formats = {DRM_FORMAT_XRGB8888}};
    auto made = allocator.allocate({}, request); // 128 MiB: too much for udmabuf
    ASSERT_TRUE(made) << made.error().message();
    EXPECT_EQ(made->exporter, exporters[1]);
    request.width = request.height = 1 << 20;
    expect_refused(allocator.allocate({}, request), Errc::unsupported,
                   {"udmabuf makes at most 67108864 bytes", "size_limit_mb", "dma-heap system",
                    "4398046511104 bytes"});
}

TEST_F(FrameAllocatorSystemTest, ZeroedFramesAreZeroFromEveryExporter) {
    for (const auto& exporter : exporters) {
        auto made =
            FrameAllocator({exporter})
                .allocate(
                    {}, {.width = 33, .height = 17, .formats = {DRM_FORMAT_NV12}, .zeroed = true});
        ASSERT_TRUE(made) << made.error().message();
        EXPECT_EQ(made->choice.clear, !exporter->caps().zeroed);
        EXPECT_TRUE(test::is_zero(made->frame.buffer()));
    }
}

TEST_F(FrameAllocatorSystemTest, ACardShowsFramesFromEveryExporter) {
    auto card = KmsDevice::wrap(test::open_drm("vkms").get());
    ASSERT_TRUE(card) << card.error().message();
    for (const auto& exporter : exporters) {
        for (const std::uint32_t format :
             {DRM_FORMAT_XRGB8888, DRM_FORMAT_XRGB16161616, DRM_FORMAT_RGB565}) {
            auto made = FrameAllocator({exporter})
                            .allocate({}, {.width = 101, .height = 51, .formats = {format}});
            ASSERT_TRUE(made) << made.error().message();
            auto framebuffer = card->attach(made->frame);
            EXPECT_TRUE(framebuffer) << framebuffer.error().message();
        }
        auto planar = FrameAllocator({exporter})
                          .allocate({}, {.width = 64, .height = 64, .formats = {DRM_FORMAT_NV12}});
        ASSERT_TRUE(planar);
        expect_refused(card->attach(planar->frame), Errc::unsupported,
                       {"NV12", "its planes take", "XR24"});
    }
}

} // namespace
} // namespace sluice
