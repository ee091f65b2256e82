// SPDX-License-Identifier: MIT
#include <sluice/frame_allocator.hpp>

#include <array>
#include <cerrno>
#include <optional>

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
        return std::make_shared<FakeExporter>(ExporterCaps{.name = name,
                                                           .max_size_source = "nowhere",
                                                           .granularity = 4096,
                                                           .zeroed = zeroed,
                                                           .cpu_mappable = mappable});
    }
    static Error error(Errc code, const char* problem) {
        return {.code = code, .operation = "x", .problem = problem, .remedy = "y"};
    }

    static FrameRequest request(std::span<const FrameNeeds> needs = {}) {
        return {.width = 100, .height = 10, .format = DRM_FORMAT_XRGB8888, .needs = needs};
    }

    test::ScriptedLibc libc;
};

TEST_F(FrameAllocatorTest, TakesTheFirstThatCanAndSaysWhy) {
    const auto first = exporter("first");
    const auto second = exporter("second");
    const FrameAllocator allocator({first, nullptr, second});
    EXPECT_EQ(allocator.exporters().size(), 2U);
    FrameRequest wanted = request();
    wanted.name = "screen";
    auto made = allocator.allocate(wanted);
    ASSERT_TRUE(made) << made.error().message();
    EXPECT_EQ(made->exporter, first);
    EXPECT_EQ(made->passed_over, "");
    EXPECT_FALSE(made->cleared);
    EXPECT_EQ(first->name, "screen");
    EXPECT_EQ(describe(made->frame.layout()), "100x10 XR24 LINEAR, stride 512, offset 0");

    first->refusal = error(Errc::no_resources, "asked for 5120 bytes, and 4096 are available");
    made = allocator.allocate(wanted);
    ASSERT_TRUE(made) << made.error().message();
    EXPECT_EQ(made->exporter, second);
    EXPECT_EQ(made->passed_over, "first: asked for 5120 bytes, and 4096 are available");
}

TEST_F(FrameAllocatorTest, NamesEveryExportersOwnReason) {
    const auto first = exporter("first");
    const auto second = exporter("second", false, false);
    first->refusal = error(Errc::no_resources, "5120 of 4096 bytes");
    second->refusal = error(Errc::no_resources, "none left");
    const FrameAllocator allocator({first, second});
    expect_refused(allocator.allocate(request()), Errc::no_resources,
                   {"FrameAllocator::allocate", "100x10 XR24",
                    "first: 5120 of 4096 bytes; second: none left"});
    second->refusal = error(Errc::busy, "later");
    expect_refused(allocator.allocate(request()), Errc::unsupported, {"second: later"});
    FrameRequest zeroed = request();
    zeroed.zeroed = true;
    expect_refused(allocator.allocate(zeroed), Errc::unsupported,
                   {"second: it does not promise zeroed buffers, and the CPU cannot map"});
    expect_refused(FrameAllocator({}).allocate(request()), Errc::unsupported, {"no exporter"});
    FrameRequest empty = request();
    empty.width = 0;
    expect_refused(FrameAllocator({exporter("a"), exporter("b")}).allocate(empty),
                   Errc::invalid_argument, {"0x10", "no pixels"});
}

TEST_F(FrameAllocatorTest, CombinesWhatEverybodyNeeds) {
    const auto only = exporter("only");
    const FrameAllocator allocator({only});
    const std::array linear{std::uint64_t{7}, std::uint64_t{DRM_FORMAT_MOD_LINEAR}};
    const std::array needs{FrameNeeds{.who = "kms",
                                      .stride_alignment = 64,
                                      .height_alignment = 4,
                                      .offset_alignment = 100,
                                      .min_size = 20'000},
                           FrameNeeds{.who = "encoder",
                                      .stride_alignment = 48,
                                      .height_alignment = 6,
                                      .offset_alignment = 64,
                                      .min_size = 10'000,
                                      .modifiers = linear}};
    FrameRequest wanted = request(needs);
    wanted.format = DRM_FORMAT_NV12;
    auto made = allocator.allocate(wanted);
    ASSERT_TRUE(made) << made.error().message();
    // 192 is both strides', 12 rows both heights', 1600 both offsets'.
    EXPECT_EQ(describe(made->frame.layout()),
              "100x10 NV12 LINEAR, stride 192, offset 0; stride 192, offset 3200");
    EXPECT_EQ(only->asked, 20'000U);
}

TEST_F(FrameAllocatorTest, WhoNamesNoStrideGetsTheSafeOne) {
    const FrameAllocator allocator({exporter("only")});
    const auto stride_for = [&](std::span<const FrameNeeds> needs) {
        return allocator.allocate(request(needs))->frame.layout().planes[0].stride;
    };
    EXPECT_EQ(stride_for({}), 512U);
    const FrameNeeds picky{.who = "picky", .stride_alignment = 16};
    const FrameNeeds silent{.who = "silent"};
    EXPECT_EQ(stride_for(std::array{picky}), 400U) << "all said what they need";
    EXPECT_EQ(stride_for(std::array{picky, silent}), 512U);
    EXPECT_EQ(stride_for(std::array{silent, FrameNeeds{.stride_alignment = 96}}), 768U);
}

TEST_F(FrameAllocatorTest, AModifierIsOneThatEverybodyNames) {
    const auto only = exporter("only");
    const FrameAllocator allocator({only});
    const auto asked_for = [&](std::span<const FrameNeeds> needs) {
        only->modifiers = {1};
        (void)allocator.allocate(request(needs));
        return only->modifiers;
    };
    using Modifiers = std::vector<std::uint64_t>;
    const Modifiers linear{DRM_FORMAT_MOD_LINEAR};
    const Modifiers any{DRM_FORMAT_MOD_INVALID, I915_FORMAT_MOD_X_TILED, DRM_FORMAT_MOD_LINEAR};
    const Modifiers named{DRM_FORMAT_MOD_LINEAR, I915_FORMAT_MOD_X_TILED};
    const FrameNeeds gpu{.who = "gpu", .modifiers = any};
    const FrameNeeds screen{.who = "screen", .modifiers = named};
    const FrameNeeds silent{.who = "encoder", .stride_alignment = 64};
    const FrameNeeds cpu{.who = "cpu", .modifiers = any, .cpu_access = true};
    EXPECT_EQ(asked_for({}), Modifiers()) << "which is LINEAR";
    EXPECT_EQ(asked_for(std::array{silent}), Modifiers());
    EXPECT_EQ(asked_for(std::array{gpu}), any) << "INVALID too, if nobody else is there";
    EXPECT_EQ(asked_for(std::array{gpu, gpu}), any);
    EXPECT_EQ(asked_for(std::array{gpu, screen}),
              (Modifiers{I915_FORMAT_MOD_X_TILED, DRM_FORMAT_MOD_LINEAR}));
    EXPECT_EQ(asked_for(std::array{gpu, silent}), linear) << "who names none takes LINEAR";
    EXPECT_EQ(asked_for(std::array{silent, gpu}), linear);
    EXPECT_EQ(asked_for(std::array{gpu, cpu}), linear);
}

TEST_F(FrameAllocatorTest, ContradictionsAreNamed) {
    const FrameAllocator allocator({exporter("only")});
    const std::array linear{std::uint64_t{DRM_FORMAT_MOD_LINEAR}};
    const std::array tiled{std::uint64_t{I915_FORMAT_MOD_X_TILED}};
    const std::array implicit{std::uint64_t{DRM_FORMAT_MOD_INVALID}};
    using Needs = std::array<FrameNeeds, 2>;
    expect_refused(
        allocator.allocate(request(Needs{FrameNeeds{.who = "kms", .modifiers = linear},
                                         FrameNeeds{.who = "encoder", .modifiers = tiled}})),
        Errc::invalid_argument,
        {"kms wants LINEAR, encoder wants INTEL 0x100000000000001; there is none"});
    expect_refused(
        allocator.allocate(request(Needs{FrameNeeds{.who = "old gpu", .modifiers = implicit},
                                         FrameNeeds{.who = "encoder"}})),
        Errc::invalid_argument,
        {"old gpu wants INVALID, encoder names none and takes LINEAR; there is none"});
    expect_refused(
        allocator.allocate(request(std::array{FrameNeeds{.who = "gpu", .modifiers = tiled}})),
        Errc::unsupported, {"only: ", "makes LINEAR", "0x100000000000001"});
    expect_refused(allocator.allocate(request(std::array{
                       FrameNeeds{.who = "gpu", .modifiers = tiled, .cpu_access = true}})),
                   Errc::invalid_argument, {"the CPU understands LINEAR alone"});
    expect_refused(
        allocator.allocate(request(Needs{FrameNeeds{.who = "kms", .stride_alignment = 65536},
                                         FrameNeeds{.who = "encoder", .stride_alignment = 65537}})),
        Errc::invalid_argument,
        {"stride alignment: kms wants 65536, encoder wants 65537", "2147483647"});
    expect_refused(allocator.allocate(
                       request(Needs{FrameNeeds{.height_alignment = 65536},
                                     FrameNeeds{.height_alignment = 65537, .modifiers = tiled}})),
                   Errc::invalid_argument, {"height alignment: somebody wants 65536"});
}

TEST_F(FrameAllocatorTest, ClearsWhatIsNotPromisedToBeZero) {
    const auto dirty = exporter("dirty", false);
    FrameRequest wanted = request();
    auto made = FrameAllocator({dirty}).allocate(wanted);
    ASSERT_TRUE(made);
    EXPECT_FALSE(made->cleared) << "nobody asked";

    wanted.zeroed = true;
    made = FrameAllocator({dirty}).allocate(wanted);
    ASSERT_TRUE(made) << made.error().message();
    EXPECT_TRUE(made->cleared);
    std::vector<char> bytes(made->frame.buffer().size(), 1);
    ASSERT_EQ(pread(made->frame.buffer().fd(), bytes.data(), bytes.size(), 0),
              static_cast<ssize_t>(bytes.size()));
    EXPECT_EQ(bytes, std::vector<char>(bytes.size(), 0)) << "padding and all";

    libc.ioctl = [](int, unsigned long, void* sync) {
        errno = EIO;
        return (static_cast<dma_buf_sync*>(sync)->flags & DMA_BUF_SYNC_END) != 0 ? -1 : 0;
    };
    expect_refused(FrameAllocator({dirty}).allocate(wanted), Errc::failed,
                   {"dirty: its buffer is not zero and cannot be cleared", "EIO"});
    libc.mmap = [](void*, size_t, int, int, int, off_t) -> void* {
        errno = EACCES;
        return MAP_FAILED;
    };
    expect_refused(FrameAllocator({dirty}).allocate(wanted), Errc::no_permission, {"EACCES"});
    EXPECT_TRUE(FrameAllocator({dirty, exporter("clean")}).allocate(wanted))
        << "the next one promises it";
}

TEST_F(FrameAllocatorTest, PassesOverWhatTheCpuCannotMap) {
    const auto closed = exporter("closed", true, false);
    const auto open = exporter("open");
    const std::array needs{FrameNeeds{.who = "cpu", .cpu_access = true}};
    auto made = FrameAllocator({closed, open}).allocate(request(needs));
    ASSERT_TRUE(made) << made.error().message();
    EXPECT_EQ(made->exporter, open);
    EXPECT_EQ(made->passed_over, "closed: the CPU cannot map its buffers, and somebody needs that");
    EXPECT_EQ(FrameAllocator({closed}).allocate(request())->exporter, closed);
}

} // namespace
} // namespace sluice
