// SPDX-License-Identifier: MIT
// Layers, fences and captures on real cards: what the screen shows, byte for byte, and what it
// costs.
#include <sluice/kms_commit.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <drm_fourcc.h>
#include <drm_mode.h>

#include <sluice/cpu_access.hpp>
#include <sluice/dma_heap.hpp>
#include <sluice/dumb.hpp>
#include <sluice/frame_allocator.hpp>
#ifdef SLUICE_TESTS_GBM
#include <sluice/gbm.hpp>
#endif
#include <sluice/kms_device.hpp>
#include <sluice/kms_output.hpp>

#include "support/allocations.hpp"
#include "support/drm_cards.hpp"
#include "support/footprint.hpp"
#include "support/open_fds.hpp"
#include "support/requires.hpp"
#include "support/sw_sync.hpp"
#include "support/syscall_counter.hpp"
#include "support/vkms.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::differing_pixels;
using test::make_frame;
using test::paint;
using test::SwSync;

constexpr std::uint32_t width = 640;
constexpr std::uint32_t height = 480;
constexpr auto patience = 10s;

/// Maps a frame's pixels, without a bracket and for as long as it lives.
class Pixels {
public:
    explicit Pixels(const Frame& frame)
        : layout_(frame.layout()), size_(frame.buffer().size()),
          at_(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, frame.buffer().fd(), 0)) {
        EXPECT_NE(at_, MAP_FAILED);
    }
    Pixels(const Pixels&) = delete;
    Pixels& operator=(const Pixels&) = delete;
    ~Pixels() { munmap(at_, size_); }

    std::uint32_t& operator()(std::int32_t x, std::int32_t y) {
        return *reinterpret_cast<std::uint32_t*>(
            static_cast<char*>(at_) + layout_.planes[0].offset +
            static_cast<std::size_t>(y) * layout_.planes[0].stride +
            static_cast<std::size_t>(x) * 4);
    }
    [[nodiscard]] std::int32_t width() const { return static_cast<std::int32_t>(layout_.width); }
    [[nodiscard]] std::int32_t height() const { return static_cast<std::int32_t>(layout_.height); }

private:
    FrameLayout layout_;
    std::size_t size_;
    void* at_;
};

/// Puts \p from onto \p to at a place, as a plane does: what the expectations are made with.
void put(const Frame& from, const Frame& to, std::int32_t x, std::int32_t y,
         bool upside_down = false) {
    Pixels source(from);
    Pixels screen(to);
    for (std::int32_t row = 0; row < source.height(); ++row)
        for (std::int32_t column = 0; column < source.width(); ++column) {
            if (x + column < 0 || x + column >= screen.width() || y + row < 0 ||
                y + row >= screen.height())
                continue;
            screen(x + column, y + row) =
                upside_down ? source(source.width() - 1 - column, source.height() - 1 - row)
                            : source(column, row);
        }
}

class KmsCommitSystemTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        file = test::open_drm("vkms");
        SLUICE_REQUIRES(file, "no vkms card");
        SLUICE_REQUIRES(test::has_udmabuf(), "/dev/udmabuf does not open");
        SLUICE_REQUIRES(SwSync::available(), "no sw_sync in debugfs: no fences to control");
        card.emplace(*KmsDevice::wrap(file.get()));
        auto found = card->find_output({.width = width, .height = height, .writeback = true});
        ASSERT_TRUE(found) << found.error().message();
        output.emplace(std::move(*found));
        whole.emplace(painted(width, height, 1));
        small.emplace(painted(64, 48, 2));
        other.emplace(painted(64, 48, 3));
        captured.emplace(make_frame(width, height));
        expected.emplace(make_frame(width, height));
        into.emplace(*card->attach(*captured));
    }
    void TearDown() override {
        into.reset();
        output.reset();
        card.reset();
        for (auto* each : {&whole, &small, &other, &captured, &expected})
            each->reset();
        file.reset();
        FdTest::TearDown();
    }

    static Frame painted(std::uint32_t w, std::uint32_t h, std::uint32_t seed) {
        Frame frame = make_frame(w, h);
        paint(frame, seed);
        return frame;
    }
    KmsFramebuffer attached(const std::optional<Frame>& frame) const {
        return *card->attach(*frame);
    }
    /// Shows \p commit, and captures it.
    void show(KmsCommit commit) {
        commit.writeback = &*into;
        auto flip = output->commit(commit);
        ASSERT_TRUE(flip) << flip.error().message();
        ASSERT_TRUE(flip->out_fence->wait(deadline_in(patience)));
        ASSERT_TRUE(flip->writeback_fence->wait(deadline_in(patience)));
    }
    void expect_capture(const char* what) const {
        EXPECT_EQ(differing_pixels(*expected, *captured), 0U) << what;
    }
    std::uint32_t overlay(std::size_t number) const {
        std::vector<std::uint32_t> all;
        for (const KmsPlane& each : output->planes())
            if (each.type == KmsPlaneType::overlay)
                all.push_back(each.id);
        return number < all.size() ? all[number] : 0;
    }

    UniqueFd file;
    std::optional<KmsDevice> card;
    std::optional<KmsOutput> output;
    std::optional<Frame> whole, small, other, captured, expected;
    std::optional<KmsFramebuffer> into;
};

TEST_F(KmsCommitSystemTest, LayersLieWhereTheyAreToAndInTheirOrder) {
    const KmsFramebuffer below = attached(whole), first = attached(small), second = attached(other);
    std::array layers{KmsLayer{.framebuffer = &below},
                      KmsLayer{.framebuffer = &first, .destination = {.x = 100, .y = 50}},
                      KmsLayer{.framebuffer = &second, .destination = {.x = 130, .y = 70}}};
    show({.layers = layers});
    put(*whole, *expected, 0, 0);
    put(*small, *expected, 100, 50);
    put(*other, *expected, 130, 70);
    expect_capture("the first below the second");

    std::swap(layers[1], layers[2]);
    show({.layers = layers});
    put(*small, *expected, 100, 50);
    expect_capture("the second below the first");

    layers[1].destination = {.x = -20, .y = 460};
    layers[2].destination = {.x = 600, .y = -7};
    show({.layers = layers});
    put(*whole, *expected, 0, 0);
    put(*other, *expected, -20, 460);
    put(*small, *expected, 600, -7);
    expect_capture("across the edges");

    show({.layers = std::span(layers).first(2)});
    put(*whole, *expected, 0, 0);
    put(*other, *expected, -20, 460);
    expect_capture("one has vanished");

    show({.framebuffer = &below});
    put(*whole, *expected, 0, 0);
    expect_capture("both have vanished");
}

TEST_F(KmsCommitSystemTest, PartsOfFramesAreShownAndTurned) {
    const KmsFramebuffer below = attached(whole), first = attached(small);
    const std::array layers{KmsLayer{.framebuffer = &below},
                            KmsLayer{.framebuffer = &first,
                                     .plane = overlay(0),
                                     .destination = {.x = 9, .y = 8},
                                     .rotation = DRM_MODE_ROTATE_180},
                            KmsLayer{.framebuffer = &below,
                                     .plane = overlay(1),
                                     .source = {.x = 300U << 16U,
                                                .y = 200U << 16U,
                                                .width = 50U << 16U,
                                                .height = 40U << 16U},
                                     .destination = {.x = 400, .y = 100}}};
    show({.layers = layers});
    put(*whole, *expected, 0, 0);
    put(*small, *expected, 9, 8, true);
    const Frame part = make_frame(50, 40);
    put(*whole, part, -300, -200);
    put(part, *expected, 400, 100);
    expect_capture("a part, and one upside down");
    show({.framebuffer = &below});
    const std::array again{
        layers[0],
        KmsLayer{.framebuffer = &first, .plane = overlay(0), .destination = {.x = 9, .y = 8}}};
    show({.layers = again});
    put(*whole, *expected, 0, 0);
    put(*small, *expected, 9, 8);
    expect_capture("the turn is not left on the plane");
}

TEST_F(KmsCommitSystemTest, WhatTheCardRefusesIsNamed) {
    const KmsFramebuffer below = attached(whole), first = attached(small);
    std::array layers{KmsLayer{.framebuffer = &below},
                      KmsLayer{.framebuffer = &first, .plane = overlay(0)},
                      KmsLayer{.framebuffer = &first,
                               .plane = overlay(1),
                               .destination = {.width = 128, .height = 96}}};
    const auto refused = output->commit({.layers = layers});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::unsupported) << refused.error().message();
    EXPECT_EQ(refused.error().sys_errno, ERANGE);
    EXPECT_EQ(refused.error().problem.rfind("layer 2", 0), 0U) << refused.error().message();
    EXPECT_NE(refused.error().problem.find("does not scale it to 128x96"), std::string::npos);
    layers[2].destination = {};
    EXPECT_TRUE(output->test({.layers = layers}));
}

TEST_F(KmsCommitSystemTest, LayersThatGetNoPlaneAreTold) {
    const KmsFramebuffer below = attached(whole), first = attached(small);
    std::vector<KmsLayer> layers{{.framebuffer = &below}};
    for (int i = 0; i < 12; ++i)
        layers.push_back({.framebuffer = &first, .destination = {.x = i * 3, .y = i * 5}});
    const auto found = output->assign({.layers = layers});
    ASSERT_TRUE(found) << found.error().message();
    EXPECT_EQ(std::ranges::count(*found, 0U), 3) << "of 13 layers, on 10 planes";
    EXPECT_NE(found->front(), 0U);
    // Those without are drawn into the lowest, and the others committed.
    std::vector<KmsLayer> rest;
    const Frame composited = painted(width, height, 1);
    put(*whole, *expected, 0, 0);
    for (std::size_t i = 1; i < layers.size(); ++i) {
        if ((*found)[i] == 0)
            put(*small, composited, layers[i].destination.x, layers[i].destination.y);
        else
            rest.push_back(layers[i]);
        put(*small, *expected, layers[i].destination.x, layers[i].destination.y);
    }
    const KmsFramebuffer lowest = *card->attach(composited);
    rest.insert(rest.begin(), KmsLayer{.framebuffer = &lowest});
    show({.layers = rest});
    expect_capture("some composited, the others on planes");
}

// ---- Fences -----------------------------------------------------------------------------------

TEST_F(KmsCommitSystemTest, APendingFenceOfAnyLayerHoldsTheFlipAndNobodyElse) {
    constexpr auto hold = 500ms;
    const KmsFramebuffer below = attached(whole), first = attached(small);
    show({.framebuffer = &below});
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    const std::array layers{
        KmsLayer{.framebuffer = &below},
        KmsLayer{.framebuffer = &first, .in_fence = &fence, .destination = {.x = 7, .y = 7}}};
    const auto start = Deadline::clock::now();
    auto flip = output->commit({.writeback = &*into, .layers = layers});
    const auto blocked = Deadline::clock::now() - start;
    ASSERT_TRUE(flip) << flip.error().message();
    EXPECT_EQ(fence.status()->state, FenceState::pending) << "the commit blocked";
    EXPECT_EQ(flip->out_fence->wait(deadline_in(hold)).error().code, Errc::timed_out);
    paint(*small, 9); // as the GPU would, just before its fence
    timeline.advance(1);
    ASSERT_TRUE(flip->out_fence->wait(deadline_in(patience)));
    const auto took = Deadline::clock::now() - start;
    ASSERT_TRUE(flip->writeback_fence->wait(deadline_in(patience)));
    EXPECT_GE(took, hold);
    std::printf("the commit took %.1f ms, the flip came after %.1f ms\n",
                std::chrono::duration<double, std::milli>(blocked).count(),
                std::chrono::duration<double, std::milli>(took).count());
    put(*whole, *expected, 0, 0);
    put(*small, *expected, 7, 7);
    expect_capture("what was drawn last");
    EXPECT_EQ(card->takes_in_fences(), true);
}

TEST_F(KmsCommitSystemTest, AFailedFenceShowsNothing) {
    const KmsFramebuffer below = attached(whole);
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    timeline.close();
    const auto refused = output->commit({.framebuffer = &below, .in_fence = &fence});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::fence_failed) << refused.error().message();
}

TEST_F(KmsCommitSystemTest, FencesInBuffersAreHonouredUnlessTheyAreIgnoredOnPurpose) {
    const KmsFramebuffer below = attached(whole);
    show({.framebuffer = &below});
    SwSync timeline;
    const Frame busy = painted(width, height, 4);
    ASSERT_TRUE(busy.buffer().import_fence(timeline.fence(1), Access::write));
    const KmsFramebuffer late = *card->attach(busy);

    KmsLayer layer{.framebuffer = &late, .ignore_buffer_fences = true};
    auto flip = output->commit({.layers = {&layer, 1}});
    ASSERT_TRUE(flip) << flip.error().message();
    EXPECT_TRUE(flip->out_fence->wait(deadline_in(patience))) << "its fence was waited for";

    layer.ignore_buffer_fences = false;
    const SyncFile done = SyncFile::signalled();
    for (const SyncFile* in_fence : {static_cast<const SyncFile*>(nullptr), &done}) {
        layer.in_fence = in_fence;
        flip = output->commit({.layers = {&layer, 1}});
        ASSERT_TRUE(flip) << flip.error().message();
        EXPECT_EQ(flip->out_fence->wait(deadline_in(200ms)).error().code, Errc::timed_out);
        timeline.advance(1);
        ASSERT_TRUE(flip->out_fence->wait(deadline_in(patience)));
        ASSERT_TRUE(busy.buffer().import_fence(timeline.fence(in_fence ? 1 : 2), Access::write));
    }
}

TEST_F(KmsCommitSystemTest, AFrameMayBeWrittenOnceTheNextOnesOutFenceHasSignalled) {
    const KmsFramebuffer first = attached(whole);
    const Frame frame = painted(width, height, 5);
    const KmsFramebuffer second = *card->attach(frame);
    show({.framebuffer = &first});
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    auto flip = output->commit({.framebuffer = &second, .in_fence = &fence});
    ASSERT_TRUE(flip) << flip.error().message();
    EXPECT_EQ(flip->out_fence->status()->state, FenceState::pending) << "the first is shown still";
    EXPECT_TRUE(same_buffer(*output->on_screen(), frame.buffer())) << "by the kernel's reckoning";
    timeline.advance(1);
    ASSERT_TRUE(flip->out_fence->wait(deadline_in(patience)));
    paint(*whole, 6);
    auto fence_of_capture = output->capture(*into);
    ASSERT_TRUE(fence_of_capture) << fence_of_capture.error().message();
    ASSERT_TRUE((*fence_of_capture)->wait(deadline_in(patience)));
    EXPECT_EQ(differing_pixels(frame, *captured), 0U);
}

// ---- Captures ---------------------------------------------------------------------------------

TEST_F(KmsCommitSystemTest, ACaptureIsWhatAllLayersShow) {
    const KmsFramebuffer below = attached(whole), first = attached(small);
    const auto nothing_yet = output->capture(*into);
    ASSERT_FALSE(nothing_yet);
    EXPECT_EQ(nothing_yet.error().code, Errc::invalid_argument) << nothing_yet.error().message();
    const std::array layers{KmsLayer{.framebuffer = &below},
                            KmsLayer{.framebuffer = &first, .destination = {.x = 200, .y = 100}}};
    auto flip = output->commit({.layers = layers});
    ASSERT_TRUE(flip) << flip.error().message();
    ASSERT_TRUE(flip->out_fence->wait(deadline_in(patience)));
    put(*whole, *expected, 0, 0);
    put(*small, *expected, 200, 100);
    for (int round = 0; round < 5; ++round) {
        paint(*captured, 77);
        auto fence = output->capture(*into);
        ASSERT_TRUE(fence) << fence.error().message();
        const auto second = output->capture(*into);
        if (!second) { // else it was quick
            EXPECT_EQ(second.error().code, Errc::busy) << second.error().message();
        }
        ASSERT_TRUE((second ? *second : *fence)->wait(deadline_in(patience)));
        expect_capture("what is shown");
    }
    EXPECT_TRUE(output->test({.layers = layers}));
}

TEST_F(KmsCommitSystemTest, ACaptureSaysWhichFormatsThereAre) {
    const KmsFramebuffer below = attached(whole);
    show({.framebuffer = &below});
    const KmsFramebuffer wrong = *card->attach(make_frame(width, height, DRM_FORMAT_ARGB8888));
    const auto refused = output->capture(wrong);
    const auto takes = [&](std::uint32_t format) {
        return std::ranges::any_of(output->caps().formats, [=](const FormatSupport& each) {
            return each.format == format && contains(each.uses, Uses::capture);
        });
    };
    if (takes(DRM_FORMAT_ARGB8888)) {
        ASSERT_TRUE(refused);
        ASSERT_TRUE((*refused)->wait(deadline_in(patience)));
    } else {
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, Errc::unsupported);
        EXPECT_NE(refused.error().problem.find("XR24"), std::string::npos);
    }
    const KmsFramebuffer too_small = *card->attach(make_frame(320, 240));
    EXPECT_EQ(output->capture(too_small).error().code, Errc::invalid_argument);
    SwSync timeline;
    ASSERT_TRUE(captured->buffer().import_fence(timeline.fence(1), Access::read));
    const auto busy = output->capture(*into);
    ASSERT_FALSE(busy) << "somebody reads it still";
    EXPECT_EQ(busy.error().code, Errc::busy) << busy.error().message();
    timeline.advance(1);
}

// ---- Everybody's frames -----------------------------------------------------------------------

TEST_F(KmsCommitSystemTest, FramesOfEveryExporterAreShownAsTheyAre) {
    const UniqueFd vgem = test::open_drm("vgem"), vkms = test::open_drm("vkms");
    std::vector<std::shared_ptr<const Exporter>> exporters{test::udmabuf_exporter()};
    for (const UniqueFd* each : {&vgem, &vkms})
        if (auto dumb = DumbExporter::wrap(each->get()))
            exporters.push_back(*dumb);
    if (auto heap = DmaHeapExporter::open())
        exporters.push_back(*heap);
#ifdef SLUICE_TESTS_GBM
    if (auto gbm = GbmExporter::wrap(vkms.get(), 0))
        exporters.push_back(*gbm);
#endif
    EXPECT_GE(exporters.size(), 3U);
    std::uint32_t seed = 10;
    for (const auto& exporter : exporters) {
        auto frame = exporter->allocate_frame({.width = width,
                                               .height = height,
                                               .format = DRM_FORMAT_XRGB8888,
                                               .modifiers = {DRM_FORMAT_MOD_LINEAR}});
        ASSERT_TRUE(frame) << frame.error().message();
        paint(*frame, ++seed);
        auto framebuffer = card->attach(*frame);
        ASSERT_TRUE(framebuffer) << framebuffer.error().message();
        show({.framebuffer = &*framebuffer});
        EXPECT_EQ(differing_pixels(*frame, *captured), 0U) << exporter->caps().name;
    }
}

/// A card that shows its own dumb buffers, whatever it thinks of others'.
class KmsCardsSystemTest : public test::FdTest, public testing::WithParamInterface<const char*> {
protected:
    void SetUp() override {
        FdTest::SetUp();
        file = test::open_drm(GetParam());
        maker = test::open_drm(GetParam());
        if (!file && std::string_view(GetParam()) == "cirrus")
            GTEST_SKIP()
                << "no cirrus card (tests/vm/run --device cirrus-vga, and modprobe cirrus)";
        SLUICE_REQUIRES(file, "no such card");
        card.emplace(*KmsDevice::wrap(file.get()));
        auto found = card->find_output({});
        ASSERT_TRUE(found) << found.error().message();
        output.emplace(std::move(*found));
        own = *DumbExporter::wrap(maker.get());
    }
    void TearDown() override {
        own.reset();
        output.reset();
        card.reset();
        file.reset();
        maker.reset();
        FdTest::TearDown();
    }
    /// Whether the card shows a frame of \p exporter; where it does not, the refusal is looked at.
    bool shows(const Exporter& exporter, std::uint32_t seed) {
        SCOPED_TRACE(exporter.caps().name);
        auto frame = exporter.allocate_frame(
            {.width = output->width(), .height = output->height(), .format = DRM_FORMAT_XRGB8888});
        if (!frame) {
            ADD_FAILURE() << frame.error().message();
            return false;
        }
        paint(*frame, seed);
        const auto framebuffer = card->attach(*frame);
        if (!framebuffer) {
            const Error& why = framebuffer.error();
            // EIO: the card's DMA does not reach that much of the memory.
            EXPECT_TRUE(why.code == Errc::unsupported || why.sys_errno == EIO) << why.message();
            EXPECT_EQ(why.remedy, "Allocate the buffer on that card and let the GPU import it");
            return false;
        }
        const auto flip = output->commit({.framebuffer = &*framebuffer});
        EXPECT_TRUE(flip) << flip.error().message();
        EXPECT_TRUE(flip && flip->out_fence->wait(deadline_in(patience)));
        const auto shown = output->on_screen();
        EXPECT_TRUE(shown && same_buffer(*shown, frame->buffer()));
        return true;
    }

    UniqueFd file, maker;
    std::optional<KmsDevice> card;
    std::optional<KmsOutput> output;
    std::shared_ptr<const Exporter> own;
};

TEST_P(KmsCardsSystemTest, ACardsOwnBuffersAreShown) {
    for (std::uint32_t seed = 0; seed < 3; ++seed)
        EXPECT_TRUE(shows(*own, seed));
}

TEST_P(KmsCardsSystemTest, EveryExportersFramesAreShownOrRefusedWithTheWayOut) {
    const UniqueFd vgem = test::open_drm("vgem"), vkms = test::open_drm("vkms");
    std::vector<std::shared_ptr<const Exporter>> exporters{test::udmabuf_exporter(), own};
    for (const UniqueFd* each : {&vgem, &vkms})
        if (auto dumb = DumbExporter::wrap(each->get()))
            exporters.push_back(*dumb);
    if (auto heap = DmaHeapExporter::open())
        exporters.push_back(*heap);
    ASSERT_EQ(exporters.size(), 5U);
    std::uint32_t shown = 0;
    for (const auto& each : exporters)
        shown += shows(*each, shown) ? 1U : 0U;
    std::printf("%s shows frames of %u of %zu exporters\n", GetParam(), shown, exporters.size());
    if (std::string_view(GetParam()) == "vkms") {
        EXPECT_EQ(shown, exporters.size());
    }
}

INSTANTIATE_TEST_SUITE_P(All, KmsCardsSystemTest, testing::Values("vkms", "virtio_gpu", "cirrus"),
                         [](const auto& each) { return std::string(each.param); });

// ---- What it costs ----------------------------------------------------------------------------

TEST_F(KmsCommitSystemTest, AWarmCommitIsOneRequestAndTakesNoMemory) {
    const test::SyscallCounter counter;
    SLUICE_REQUIRES(counter.available(), "the kernel counts no system calls for us (perf)");
    const KmsFramebuffer below = attached(whole), first = attached(small), second = attached(other);
    const auto wait = [](const Result<KmsFlip>& flip) {
        ASSERT_TRUE(flip) << flip.error().message();
        ASSERT_TRUE(flip->out_fence->wait(deadline_in(patience)));
    };
    const Frame spare = painted(width, height, 8);
    const KmsFramebuffer next = *card->attach(spare);
    std::array layers{KmsLayer{.framebuffer = &below}, KmsLayer{.framebuffer = &first},
                      KmsLayer{.framebuffer = &second, .destination = {.x = 80}}};
    std::optional<Result<KmsFlip>> flip;
    std::size_t allocated = 0;
    // The least of warm rounds: the heap asks the kernel for memory now and then.
    constexpr int rounds = 10, warm = 4;
    std::int64_t same = INT64_MAX, flipped = INT64_MAX;
    const auto commit = [&](int round, std::int64_t& least) {
        allocated = test::allocations();
        const auto calls = counter.count([&] { flip.emplace(output->commit({.layers = layers})); });
        allocated = test::allocations() - allocated;
        wait(*flip);
        flip.reset();
        if (round < warm)
            return;
        least = std::min(least, calls);
        EXPECT_EQ(allocated, 0U) << "in round " << round;
    };
    for (int i = 0; i < rounds; ++i) {
        layers[1].destination.x = i;
        commit(i, same);
    }
    EXPECT_EQ(same, 1) << "a layer was moved";
    for (int i = 0; i < rounds; ++i) {
        layers[0].framebuffer = i % 2 == 0 ? &next : &below;
        commit(i, flipped);
    }
    std::printf("a commit of three layers: %d call, with a new frame %d\n", static_cast<int>(same),
                static_cast<int>(flipped));
    // The request; and the frame's fence of two flips ago is closed, which nobody else has.
    EXPECT_EQ(flipped, 2);
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    timeline.advance(1);
    layers[0].in_fence = &fence;
    EXPECT_EQ(counter.count([&] { flip.emplace(output->commit({.layers = layers})); }), 2)
        << "and a look whether the fence has failed";
    wait(*flip);
}

TEST_F(KmsCommitSystemTest, ManyFlipsLeaveNothingBehind) {
    const char* wanted = std::getenv("SLUICE_FLIPS");
    const unsigned long flips = wanted != nullptr ? std::strtoul(wanted, nullptr, 10) : 300;
    std::vector<Frame> frames;
    for (std::uint32_t i = 0; i < 3; ++i)
        frames.push_back(painted(width, height, i));
    SwSync timeline;
    std::uint32_t point = 0;
    test::Footprint warm;
    const auto start = Deadline::clock::now();
    for (unsigned long i = 0; i < flips; ++i) {
        const KmsFramebuffer below = *card->attach(frames[i % 3]), above = attached(small);
        const SyncFile fence = timeline.fence(++point);
        std::array layers{
            KmsLayer{.framebuffer = &below, .in_fence = &fence},
            KmsLayer{.framebuffer = &above, .destination = {.x = static_cast<int>(i % 500)}}};
        auto flip = output->commit({.layers = std::span(layers).first(1 + i / 10 % 2)});
        ASSERT_TRUE(flip) << flip.error().message();
        timeline.advance(1);
        ASSERT_TRUE(flip->out_fence->wait(deadline_in(patience)));
        if (i == 60)
            warm = test::Footprint::of(file.get());
        if (i > 60 && i % 60 == 0) { // the same place in the pattern
            ASSERT_TRUE(is_as_before(test::Footprint::of(file.get()), warm)) << i;
        }
    }
    std::printf("%lu flips in %.1f s: %zu fds, lowest free handle %u, %+ld pages\n", flips,
                std::chrono::duration<double>(Deadline::clock::now() - start).count(), warm.fds,
                warm.handle, test::Footprint::of(file.get()).pages - warm.pages);
}

} // namespace
} // namespace sluice
