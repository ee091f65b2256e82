// SPDX-License-Identifier: MIT
#include <sluice/frame_allocator.hpp>

#include <array>
#include <cerrno>
#include <optional>
#include <vector>

#include <drm_fourcc.h>
#include <gtest/gtest.h>
#include <linux/dma-buf.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/refused.hpp"
#include "support/scripted_libc.hpp"

namespace sluice {
namespace {

using test::expect_refused;

/// Buffers of memfds that are full of ones, behind capabilities and refusals of the test's choice.
class FakeExporter final : public Exporter {
public:
    explicit FakeExporter(ExporterCaps caps) : Exporter(std::move(caps)) {}

    Result<DmaBuf> allocate(const BufferRequest& request) const noexcept override {
        asked = request.size;
        name = request.name;
        if (refusal)
            return tl::unexpected(*refusal);
        UniqueFd memory = test::memfd(request.size);
        if (!caps().zeroed) {
            const std::vector<char> ones(request.size, 1);
            EXPECT_EQ(write(memory.get(), ones.data(), ones.size()),
                      static_cast<ssize_t>(ones.size()));
        }
        return DmaBuf::from_fd(std::move(memory));
    }

    Result<Frame> allocate_frame(const FrameSpec& spec) const noexcept override {
        modifiers = spec.modifiers;
        return Exporter::allocate_frame(spec);
    }

    std::optional<Error> refusal;
    mutable std::uint64_t asked = 0;
    mutable std::vector<std::uint64_t> modifiers;
    mutable std::string name;
};

class FrameAllocatorTest : public test::FdTest {
protected:
    FrameAllocatorTest() {
        libc.memfds_are_dma_bufs();
        libc.ioctl = [](int, unsigned long, void*) { return 0; }; // DMA_BUF_IOCTL_SYNC
        libc.ppoll = [](pollfd* fds, nfds_t, const timespec*) {
            fds->revents = fds->events;
            return 1;
        };
    }

    static std::shared_ptr<FakeExporter> exporter(const char* name, bool zeroed = true,
                                                  bool mappable = true) {
        return std::make_shared<FakeExporter>(ExporterCaps{
            .name = name,
            .max_size_source = "nowhere",
            .granularity = 4096,
            .zeroed = zeroed,
            .cpu_mappable = mappable,
            .formats = {{.format = DRM_FORMAT_XRGB8888}, {.format = DRM_FORMAT_NV12}}});
    }
    static Error error(Errc code, const char* problem) {
        return {.code = code, .operation = "x", .problem = problem, .remedy = "y"};
    }

    const FrameRequest request{.width = 100, .height = 10, .formats = {DRM_FORMAT_XRGB8888}};
    test::ScriptedLibc libc;
};

TEST_F(FrameAllocatorTest, TakesTheFirstThatCanAndSaysWhy) {
    const auto first = exporter("first");
    const auto second = exporter("second");
    const FrameAllocator allocator({first, nullptr, second});
    EXPECT_EQ(allocator.exporters().size(), 2U);
    FrameRequest wanted = request;
    wanted.name = "screen";
    auto made = allocator.allocate({}, wanted);
    ASSERT_TRUE(made) << made.error().message();
    EXPECT_EQ(made->exporter, first);
    EXPECT_EQ(made->passed_over, "");
    EXPECT_EQ(made->choice.why, "first makes XR24 LINEAR: it is listed before second");
    EXPECT_FALSE(made->choice.clear);
    EXPECT_EQ(first->name, "screen");
    EXPECT_EQ(describe(made->frame.layout()), "100x10 XR24 LINEAR, stride 512, offset 0");

    first->refusal = error(Errc::no_resources, "asked for 5120 bytes, and 4096 are available");
    made = allocator.allocate({}, wanted);
    ASSERT_TRUE(made) << made.error().message();
    EXPECT_EQ(made->exporter, second);
    EXPECT_EQ(made->passed_over, "first: asked for 5120 bytes, and 4096 are available");
}

TEST_F(FrameAllocatorTest, NamesEveryExportersOwnReason) {
    const auto first = exporter("first");
    const auto second = exporter("second");
    first->refusal = error(Errc::no_resources, "5120 of 4096 bytes");
    first->refusal->sys_errno = ENOMEM;
    second->refusal = error(Errc::no_resources, "none left");
    second->refusal->sys_errno = ENOMEM;
    const FrameAllocator allocator({first, second});
    auto made = allocator.allocate({}, request);
    expect_refused(made, Errc::no_resources,
                   {"FrameAllocator::allocate", "100x10 XR24",
                    "first: 5120 of 4096 bytes; second: none left"});
    EXPECT_EQ(made.error().sys_errno, ENOMEM);
    second->refusal = error(Errc::busy, "later");
    made = allocator.allocate({}, request);
    expect_refused(made, Errc::unsupported, {"second: later"});
    EXPECT_EQ(made.error().sys_errno, 0);
}

TEST_F(FrameAllocatorTest, WhatCannotBeIsRefusedBeforeAnythingIsAllocated) {
    const auto only = exporter("only");
    const ImporterCaps screen{.name = "screen", .formats = {{.format = DRM_FORMAT_RGB565}}};
    const std::array importers{ImporterUse{&screen, Uses::scan_out}};
    expect_refused(FrameAllocator({only}).allocate(importers, request), Errc::unsupported,
                   {"FrameAllocator::allocate", "100x10 XR24", "screen takes only LINEAR RG16",
                    "the frame is to be XR24"});
    expect_refused(FrameAllocator({}).allocate({}, request), Errc::unsupported,
                   {"there is no exporter"});
    FrameRequest empty = request;
    empty.width = 0;
    expect_refused(FrameAllocator({only}).allocate({}, empty), Errc::invalid_argument,
                   {"0x10", "no pixels"});
    EXPECT_EQ(only->asked, 0U);
}

TEST_F(FrameAllocatorTest, CombinesWhatEverybodyNeeds) {
    const auto only = exporter("only");
    const std::vector<FormatSupport> takes{
        {.format = DRM_FORMAT_NV12, .modifier = I915_FORMAT_MOD_X_TILED},
        {.format = DRM_FORMAT_NV12, .modifier = DRM_FORMAT_MOD_LINEAR}};
    const ImporterCaps kms{.name = "kms",
                           .formats = takes,
                           .stride_alignment = 64,
                           .offset_alignment = 100,
                           .height_alignment = 4,
                           .min_size = 20'000};
    const ImporterCaps encoder{.name = "encoder",
                               .formats = takes,
                               .stride_alignment = 48,
                               .offset_alignment = 64,
                               .height_alignment = 6,
                               .min_size = 10'000};
    FrameRequest wanted = request;
    wanted.formats = {DRM_FORMAT_NV12};
    auto made = FrameAllocator({only}).allocate(
        std::array{ImporterUse{&kms, Uses::scan_out}, ImporterUse{&encoder, Uses::sample}}, wanted);
    ASSERT_TRUE(made) << made.error().message();
    // 192 is both strides', 12 rows both heights', 1600 both offsets'.
    EXPECT_EQ(describe(made->frame.layout()),
              "100x10 NV12 LINEAR, stride 192, offset 0; stride 192, offset 3200");
    EXPECT_EQ(only->asked, 20'000U);
}

TEST_F(FrameAllocatorTest, ClearsWhatIsNotPromisedToBeZero) {
    const auto dirty = exporter("dirty", false);
    FrameRequest wanted = request;
    auto made = FrameAllocator({dirty}).allocate({}, wanted);
    ASSERT_TRUE(made);
    EXPECT_FALSE(made->choice.clear) << "nobody asked";

    wanted.zeroed = true;
    made = FrameAllocator({dirty}).allocate({}, wanted);
    ASSERT_TRUE(made) << made.error().message();
    EXPECT_TRUE(made->choice.clear);
    std::vector<char> bytes(made->frame.buffer().size(), 1);
    ASSERT_EQ(pread(made->frame.buffer().fd(), bytes.data(), bytes.size(), 0),
              static_cast<ssize_t>(bytes.size()));
    EXPECT_EQ(bytes, std::vector<char>(bytes.size(), 0)) << "padding and all";

    const auto clean = exporter("clean");
    EXPECT_EQ(FrameAllocator({dirty, clean}).allocate({}, wanted)->exporter, clean);
    clean->refusal = error(Errc::no_resources, "none left");
    EXPECT_EQ(FrameAllocator({dirty, clean}).allocate({}, wanted)->passed_over, "clean: none left");

    libc.ioctl = [](int, unsigned long, void* sync) {
        errno = EIO;
        return (static_cast<dma_buf_sync*>(sync)->flags & DMA_BUF_SYNC_END) != 0 ? -1 : 0;
    };
    expect_refused(FrameAllocator({dirty}).allocate({}, wanted), Errc::failed,
                   {"dirty: its buffer is not zero and cannot be cleared", "EIO"});
    libc.mmap = [](void*, size_t, int, int, int, off_t) -> void* {
        errno = EACCES;
        return MAP_FAILED;
    };
    expect_refused(FrameAllocator({dirty}).allocate({}, wanted), Errc::no_permission, {"EACCES"});
}

} // namespace
} // namespace sluice
