// SPDX-License-Identifier: MIT
#include <sluice/negotiate.hpp>

#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <random>
#include <set>
#include <vector>

#include <drm_fourcc.h>
#include <gtest/gtest.h>

#include <sluice/format.hpp>

namespace sluice {
namespace {

constexpr std::uint64_t linear = DRM_FORMAT_MOD_LINEAR;
constexpr std::uint64_t x_tiled = I915_FORMAT_MOD_X_TILED;
constexpr std::uint64_t y_tiled = I915_FORMAT_MOD_Y_TILED;
constexpr std::uint64_t implicit = DRM_FORMAT_MOD_INVALID;
constexpr std::uint32_t xr24 = DRM_FORMAT_XRGB8888;
constexpr std::uint32_t ar24 = DRM_FORMAT_ARGB8888;
constexpr std::uint32_t nv12 = DRM_FORMAT_NV12;

using Formats = std::vector<FormatSupport>;
using Modifiers = std::vector<std::uint64_t>;
using Outcome = tl::expected<std::vector<FrameChoice>, NoChoice>;

ExporterCaps maker(const char* name, Formats formats = {{xr24, linear}}) {
    return {.name = name,
            .granularity = 4096,
            .zeroed = true,
            .cpu_mappable = true,
            .cpu_caching = CpuCaching::maintained,
            .formats = std::move(formats)};
}

/// A GPU's own allocator: lays out its frames.
ExporterCaps driver(const char* name, Formats formats) {
    ExporterCaps caps = maker(name, std::move(formats));
    caps.device = std::string("/devices/") + name;
    caps.lays_out_frames = true;
    return caps;
}

ImporterCaps taker(const char* name, Formats formats = {{xr24, linear}}) {
    return {.name = name, .formats = std::move(formats), .stride_alignment = 1};
}

struct Party {
    const ImporterCaps& caps;
    Uses uses = Uses::sample;
};

/// A frame of 64x16 pixels, unless the request says otherwise.
Outcome agree(std::initializer_list<std::reference_wrapper<const ExporterCaps>> exporters,
              std::initializer_list<Party> importers, FrameRequest request = {}) {
    std::vector<const ExporterCaps*> makers;
    for (const ExporterCaps& each : exporters)
        makers.push_back(&each);
    std::vector<ImporterUse> takers;
    for (const Party& each : importers)
        takers.push_back({&each.caps, each.uses});
    if (request.width == 0)
        request.width = 64;
    if (request.height == 0)
        request.height = 16;
    if (request.formats.empty())
        request.formats = {xr24};
    return negotiate(makers, takers, request);
}

/// The best choice, or an empty one and a failure.
FrameChoice best(const Outcome& outcome) {
    if (outcome && !outcome->empty())
        return outcome->front();
    ADD_FAILURE() << (outcome ? "no choice, and no conflict" : outcome.error().error.message());
    return {};
}

/// The conflicts in words, each on a line.
std::string conflicts(const Outcome& outcome) {
    if (outcome)
        return "none: " + outcome->front().why;
    std::string text;
    for (const Conflict& each : outcome.error().conflicts)
        text += (text.empty() ? "" : "\n") + each.text;
    return text;
}

// -- requests -------------------------------------------------------------------------------------

TEST(Negotiate, ARequestThatMakesNoSenseIsInvalid) {
    const ExporterCaps a = maker("a");
    const ImporterCaps b = taker("b");
    const std::array<const ExporterCaps*, 1> makers{&a};
    const std::array takers{ImporterUse{&b, Uses::sample}};
    const FrameRequest good{.width = 1, .height = 1, .formats = {xr24}};
    ASSERT_TRUE(negotiate(makers, takers, good));
    const auto problem = [&](const std::function<void(FrameRequest&)>& change) {
        FrameRequest request = good;
        change(request);
        const auto outcome = negotiate(makers, takers, request);
        EXPECT_FALSE(outcome);
        EXPECT_EQ(outcome.error().error.code, Errc::invalid_argument);
        EXPECT_TRUE(outcome.error().conflicts.empty());
        return outcome.error().error.problem;
    };
    EXPECT_EQ(problem([](FrameRequest& r) { r.width = 0; }), "it has no pixels");
    EXPECT_EQ(problem([](FrameRequest& r) { r.height = 0; }), "it has no pixels");
    EXPECT_EQ(problem([](FrameRequest& r) { r.formats.clear(); }), "it names no format");
    const std::array<const ExporterCaps*, 2> null_maker{&a, nullptr};
    EXPECT_EQ(negotiate(null_maker, takers, good).error().error.problem, "an exporter is null");
    const std::array<ImporterUse, 1> null_taker{};
    EXPECT_EQ(negotiate(makers, null_taker, good).error().error.problem,
              "ImporterUse::caps is null");
    EXPECT_TRUE(negotiate(makers, std::vector(max_importers, takers[0]), good));
    EXPECT_EQ(
        negotiate(makers, std::vector(max_importers + 1, takers[0]), good).error().error.problem,
        "17 importers, and at most 16 can share a frame");
}

TEST(Negotiate, TheRequestGoesIntoTheSpec) {
    const ExporterCaps a = maker("a");
    const FrameChoice choice = best(agree({a}, {}, {.width = 3, .height = 5, .name = "cam"}));
    EXPECT_EQ(choice.exporter, 0U);
    EXPECT_EQ(choice.spec.width, 3U);
    EXPECT_EQ(choice.spec.height, 5U);
    EXPECT_EQ(choice.spec.format, xr24);
    EXPECT_EQ(choice.spec.modifiers, Modifiers{linear});
    EXPECT_EQ(choice.spec.name, "cam");
    EXPECT_FALSE(choice.clear);
    EXPECT_EQ(choice.why, "a makes XR24 LINEAR: there is no other choice");
}

// -- layouts --------------------------------------------------------------------------------------

TEST(Negotiate, ThePreferredFormatThatAllTakeIsBest) {
    const ExporterCaps a = maker("a", {{ar24, linear}, {xr24, linear}, {nv12, linear}});
    const ImporterCaps screen = taker("screen", {{ar24, linear}, {xr24, linear}});
    const ImporterCaps gpu = taker("gpu", {{nv12, linear}, {xr24, linear}, {ar24, linear}});
    const auto outcome = agree({a}, {{screen}, {gpu}}, {.formats = {nv12, xr24, ar24}});
    ASSERT_TRUE(outcome);
    ASSERT_EQ(outcome->size(), 2U);
    EXPECT_EQ((*outcome)[0].spec.format, xr24);
    EXPECT_EQ((*outcome)[0].why, "a makes XR24 LINEAR: XR24 is asked for before AR24");
    EXPECT_EQ((*outcome)[1].spec.format, ar24);
    EXPECT_EQ((*outcome)[1].why, "a makes AR24 LINEAR: the last choice");
}

TEST(Negotiate, TheDriverGetsAllModifiersThatEverybodyTakes) {
    const ExporterCaps gbm =
        driver("gbm", {{xr24, linear}, {xr24, y_tiled}, {xr24, x_tiled}, {xr24, 77}});
    const ImporterCaps screen = taker("screen", {{xr24, x_tiled}, {xr24, linear}, {xr24, y_tiled}});
    const ImporterCaps gpu =
        taker("gpu", {{xr24, y_tiled}, {xr24, x_tiled}, {xr24, linear}, {ar24, 77}});
    EXPECT_EQ(best(agree({gbm}, {{screen}, {gpu}})).spec.modifiers,
              (Modifiers{y_tiled, x_tiled, linear}))
        << "in the exporter's order, LINEAR last";
    const ImporterCaps cpu = cpu_caps();
    EXPECT_EQ(best(agree({gbm}, {{screen}, {gpu}, {cpu, Uses::cpu_read}})).spec.modifiers,
              Modifiers{linear});
}

TEST(Negotiate, AllUsesOfAnImporterMustGoTogether) {
    const ExporterCaps gbm = driver("gbm", {{xr24, linear}, {xr24, x_tiled}, {xr24, y_tiled}});
    const ImporterCaps gpu = taker("gpu", {{xr24, linear, Uses::sample},
                                           {xr24, linear, Uses::render},
                                           {xr24, x_tiled, Uses::sample | Uses::render},
                                           {xr24, y_tiled, Uses::sample | Uses::store}});
    const auto modifiers = [&](Uses uses) {
        return best(agree({gbm}, {{gpu, uses}})).spec.modifiers;
    };
    EXPECT_EQ(modifiers(Uses::sample), (Modifiers{x_tiled, y_tiled, linear}));
    EXPECT_EQ(modifiers(Uses::render), (Modifiers{x_tiled, linear}));
    EXPECT_EQ(modifiers(Uses::sample | Uses::render), Modifiers{x_tiled});
    EXPECT_EQ(conflicts(agree({gbm}, {{gpu, Uses::capture}})), "gpu takes nothing to capture");
}

TEST(Negotiate, EverybodyMustMeanTheSamePlanes) {
    const ExporterCaps silent = driver("gbm", {{xr24, y_tiled}});
    const ExporterCaps plain = driver("gbm", {{xr24, y_tiled, all_uses, 1}});
    const ImporterCaps compressed = taker("gpu", {{xr24, y_tiled, all_uses, 2}});
    const ImporterCaps screen = taker("screen", {{xr24, y_tiled}});
    const ImporterCaps single = taker("old screen", {{xr24, y_tiled, all_uses, 1}});
    EXPECT_TRUE(agree({silent}, {{compressed}, {screen}}));
    EXPECT_TRUE(agree({plain}, {{single}, {screen}}));
    EXPECT_EQ(conflicts(agree({silent}, {{compressed}, {single}})),
              "gpu takes only INTEL 0x100000000000002 XR24 (2 planes)\n"
              "old screen takes only INTEL 0x100000000000002 XR24");
    EXPECT_EQ(conflicts(agree({plain}, {{compressed}, {screen}})),
              "gpu takes only INTEL 0x100000000000002 XR24 (2 planes)\n"
              "gbm makes only INTEL 0x100000000000002 XR24");
    // LINEAR has its format's, said or not.
    const ExporterCaps linear_maker = maker("a", {{nv12, linear}});
    const ImporterCaps says = taker("b", {{nv12, linear, all_uses, 2}});
    EXPECT_TRUE(agree({linear_maker}, {{says}}, {.formats = {nv12}}));
    const ImporterCaps differs = taker("b", {{nv12, linear, all_uses, 3}});
    EXPECT_FALSE(agree({linear_maker}, {{differs}}, {.formats = {nv12}}));
}

TEST(Negotiate, PlanesLieInOneBufferWhereSomebodyTakesNoMore) {
    const ExporterCaps gbm = driver("gbm", {{nv12, linear}, {nv12, x_tiled}});
    const ImporterCaps screen = taker("screen", {{nv12, linear}, {nv12, x_tiled}});
    ImporterCaps gpu = taker("gpu", {{nv12, linear}, {nv12, x_tiled}});
    EXPECT_FALSE(best(agree({gbm}, {{screen}, {gpu}}, {.formats = {nv12}})).spec.one_buffer);
    gpu.formats[1].disjoint = false;
    EXPECT_TRUE(best(agree({gbm}, {{screen}, {gpu}}, {.formats = {nv12}})).spec.one_buffer);
    const ExporterCaps plain = maker("plain", {{nv12, linear}});
    EXPECT_FALSE(best(agree({plain}, {{screen}, {gpu}}, {.formats = {nv12}})).spec.one_buffer);
    // Only what goes with the layout counts.
    FormatSupport compressed{nv12, x_tiled, all_uses, 4};
    compressed.disjoint = false;
    const ImporterCaps picky = taker("picky", {{nv12, x_tiled, all_uses, 2}, compressed});
    const ExporterCaps four = driver("four", {{nv12, x_tiled, all_uses, 4}});
    const ExporterCaps two = driver("two", {{nv12, x_tiled, all_uses, 2}});
    EXPECT_TRUE(best(agree({four}, {{picky}}, {.formats = {nv12}})).spec.one_buffer);
    EXPECT_FALSE(best(agree({two}, {{picky}}, {.formats = {nv12}})).spec.one_buffer);
}

TEST(Negotiate, AnUnnamedLayoutStaysWithinItsDevice) {
    const ExporterCaps gbm = driver("card", {{xr24, implicit}, {xr24, linear}});
    ImporterCaps screen = taker("screen", {{xr24, implicit}, {ar24, linear}});
    EXPECT_FALSE(agree({gbm}, {{screen}})) << "of no device";
    screen.device = "/devices/another";
    EXPECT_EQ(conflicts(agree({gbm}, {{screen}})),
              "screen takes only INVALID (of its own device) XR24, LINEAR AR24\n"
              "card makes only INVALID (of its own device)/LINEAR XR24");
    screen.device = gbm.device;
    const FrameChoice choice = best(agree({gbm}, {{screen}}));
    EXPECT_EQ(choice.spec.modifiers, Modifiers{implicit});
    EXPECT_EQ(choice.why, "card makes XR24 INVALID (of its own device): there is no other choice");

    ImporterCaps gpu = taker("gpu", {{xr24, implicit}});
    gpu.device = gbm.device;
    EXPECT_TRUE(agree({gbm}, {{screen}, {gpu}}));
    gpu.device = "/devices/another";
    EXPECT_FALSE(agree({gbm}, {{screen}, {gpu}}));

    gpu.device = gbm.device;
    gpu.formats = {{xr24, implicit}, {xr24, linear}};
    EXPECT_EQ(best(agree({gbm}, {{gpu}})).spec.modifiers, Modifiers{linear})
        << "never beside a layout that has a name";
    const ExporterCaps secret = driver("card", {{xr24, implicit}});
    EXPECT_FALSE(agree({secret}, {})) << "nor without an importer";
}

TEST(Negotiate, WithoutImportersFramesAreLinear) {
    const ExporterCaps tiled = driver("tiled", {{xr24, x_tiled}});
    const ExporterCaps both = driver("both", {{xr24, x_tiled}, {xr24, linear}});
    const FrameChoice choice = best(agree({tiled, both}, {}));
    EXPECT_EQ(choice.exporter, 1U);
    EXPECT_EQ(choice.spec.modifiers, Modifiers{linear});
    EXPECT_EQ(conflicts(agree({tiled}, {})), "tiled makes only INTEL 0x100000000000001 XR24");
}

// -- sizes and alignments -------------------------------------------------------------------------

TEST(Negotiate, AlignmentsAreCombined) {
    const ExporterCaps plain = maker("plain");
    const ExporterCaps gbm = driver("gbm", {{xr24, linear}});
    ImporterCaps a = taker("a");
    ImporterCaps b = taker("b");
    FrameSpec spec = best(agree({plain}, {{a}, {b}})).spec;
    EXPECT_EQ(spec.stride_alignment, 0U) << "all said that they take any";
    EXPECT_EQ(spec.offset_alignment, 0U);
    EXPECT_EQ(spec.height_alignment, 0U);
    EXPECT_EQ(spec.min_size, 0U);
    a.stride_alignment = 48;
    b.stride_alignment = 64;
    a.offset_alignment = 100;
    b.offset_alignment = 64;
    b.height_alignment = 6;
    a.min_size = 20'000;
    b.min_size = 10'000;
    spec = best(agree({plain}, {{a}, {b}})).spec;
    EXPECT_EQ(spec.stride_alignment, 192U);
    EXPECT_EQ(spec.offset_alignment, 1600U);
    EXPECT_EQ(spec.height_alignment, 6U);
    EXPECT_EQ(spec.min_size, 20'000U);
    b.stride_alignment = 0; // does not say
    EXPECT_EQ(best(agree({plain}, {{a}, {b}})).spec.stride_alignment, 768U);
    EXPECT_EQ(best(agree({gbm}, {{a}, {b}})).spec.stride_alignment, 48U) << "its driver knows";
    EXPECT_EQ(best(agree({plain}, {})).spec.stride_alignment, default_stride_alignment);
    EXPECT_EQ(best(agree({gbm}, {})).spec.stride_alignment, 0U);
    a.stride_alignment = 0x7ffffffcU;
    EXPECT_EQ(best(agree({gbm}, {{a}, {b}})).spec.stride_alignment, 0x7ffffffcU);
    EXPECT_EQ(conflicts(agree({plain}, {{a}, {b}}, {.width = 1 << 29})),
              "536870912x16 XR24 LINEAR cannot be: plane 0 would lie at offset 0 with a stride of "
              "4294967288 bytes, and the limits are 4294967295 and 2147483647\n"
              "plain makes only LINEAR XR24");
}

TEST(Negotiate, TheNameOutlivesTheRequest) {
    const ExporterCaps a = maker("a");
    const std::array<const ExporterCaps*, 1> makers{&a};
    std::vector<FrameChoice> choices;
    {
        const FrameRequest request{.width = 1,
                                   .height = 1,
                                   .formats = {xr24},
                                   .name = "a name that no short string has room for"};
        auto outcome = negotiate(makers, {}, request);
        ASSERT_TRUE(outcome);
        choices = std::move(*outcome);
    }
    EXPECT_EQ(choices.front().spec.name, "a name that no short string has room for");
}

TEST(Negotiate, PaddingIsCombined) {
    ExporterCaps plain = maker("plain");
    plain.granularity = 1;
    ImporterCaps a = taker("a");
    ImporterCaps b = taker("b");
    a.slack = 64;
    b.slack = 100;
    a.size_alignment = 48;
    b.size_alignment = 64;
    const FrameSpec spec = best(agree({plain}, {{a}, {b}})).spec;
    EXPECT_EQ(spec.slack, 100U);
    EXPECT_EQ(spec.size_alignment, 192U);
    // 64x16 pixels are 4096 bytes, and 22 times 192 are the first that 4196 fit into.
    plain.max_size = 22 * 192;
    EXPECT_TRUE(agree({plain}, {{a}, {b}}));
    plain.max_size -= 1;
    EXPECT_EQ(conflicts(agree({plain}, {{a}, {b}})),
              "64x16 XR24 LINEAR needs 4224 bytes\nplain makes at most 4223 bytes");
    a.size_alignment = 65536;
    b.size_alignment = 65537;
    EXPECT_EQ(conflicts(agree({plain}, {{a}, {b}})),
              "a takes only a size in multiples of 65536 bytes\n"
              "b takes only a size in multiples of 65537 bytes, together above the limit of "
              "4294967295");
}

TEST(Negotiate, SizesMayGoInSteps) {
    FormatSupport even{nv12, linear};
    even.width_granularity = even.height_granularity = 2;
    const ExporterCaps plain = maker("plain", {{nv12, linear}, {xr24, linear}});
    const ImporterCaps gpu = taker("gpu", {even, {xr24, linear}});
    const auto with = [](std::uint32_t width, std::uint32_t height) {
        return FrameRequest{.width = width, .height = height, .formats = {nv12}};
    };
    const ImporterCaps video = taker("video", {even});
    const ExporterCaps camera = maker("camera", {even, {xr24, linear}});
    EXPECT_TRUE(agree({plain}, {{gpu}}, with(1920, 1080)));
    for (const auto& [width, height] : {std::pair(1919U, 1080U), std::pair(1920U, 1081U)}) {
        const std::string size = std::to_string(width) + "x" + std::to_string(height);
        EXPECT_EQ(conflicts(agree({plain}, {{gpu}}, with(width, height))),
                  "gpu takes only LINEAR XR24 to sample at " + size + "\nthe frame is to be NV12");
        EXPECT_EQ(conflicts(agree({plain}, {{video}}, with(width, height))),
                  "video takes only sizes in multiples of 2x2 pixels to sample, and the frame is " +
                      size);
        EXPECT_EQ(conflicts(agree({camera}, {}, with(width, height))),
                  "the frame is to be NV12\nthe frame is " + size +
                      "\ncamera makes only LINEAR NV12 and only sizes in multiples of 2x2 pixels");
    }
    // The finest steps of those that are large enough.
    FormatSupport coarse{nv12, x_tiled}, small{nv12, linear};
    coarse.width_granularity = 64;
    small.max_width = 64;
    small.max_height = 64;
    const ExporterCaps both = maker("both", {small, coarse});
    const ImporterCaps b = taker("b", {small, coarse});
    EXPECT_EQ(conflicts(agree({both}, {{b}}, with(65, 1))),
              "b takes only sizes in multiples of 64x1 pixels to sample, and the frame is 65x1");
    // Another way to take the format has no steps.
    const ImporterCaps also = taker("gpu", {even, {nv12, linear, Uses::sample}});
    EXPECT_TRUE(agree({plain}, {{also}}, with(1919, 1081)));
    EXPECT_FALSE(agree({plain}, {{also, Uses::render}}, with(1919, 1081)));
}

TEST(Negotiate, ADriverThatListsNoModifiersIsOfferedTheImporters) {
    ExporterCaps gbm = maker("gbm");
    gbm.lays_out_frames = true;
    constexpr std::uint64_t tiled = I915_FORMAT_MOD_X_TILED;
    ImporterCaps gpu = taker("gpu");
    gpu.formats.push_back({.format = DRM_FORMAT_XRGB8888, .modifier = tiled});
    ImporterCaps screen = gpu;
    screen.name = "screen";
    EXPECT_EQ(best(agree({gbm}, {{gpu}, {screen}})).spec.modifiers,
              Modifiers{DRM_FORMAT_MOD_LINEAR});
    gbm.unlisted_modifiers = true;
    EXPECT_EQ(best(agree({gbm}, {{gpu}, {screen}})).spec.modifiers,
              (Modifiers{tiled, DRM_FORMAT_MOD_LINEAR}));
    EXPECT_EQ(best(agree({gbm}, {{gpu}, {taker("encoder")}})).spec.modifiers,
              Modifiers{DRM_FORMAT_MOD_LINEAR});
}

TEST(Negotiate, AlignmentsThatDoNotGoTogetherAreNamed) {
    const ExporterCaps plain = maker("plain");
    ImporterCaps kms = taker("kms");
    ImporterCaps encoder = taker("encoder");
    const ImporterCaps third = taker("third");
    kms.stride_alignment = 65536;
    encoder.stride_alignment = 65537;
    const auto outcome = agree({plain}, {{kms}, {third}, {encoder}});
    EXPECT_EQ(conflicts(outcome),
              "kms takes only strides in multiples of 65536 bytes\n"
              "encoder takes only strides in multiples of 65537 bytes, together above the limit of "
              "2147483647");
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().conflicts[0].requirement, Requirement::alignment);
    EXPECT_EQ(outcome.error().conflicts[1].importer, 2U);
    kms.stride_alignment = encoder.stride_alignment = 1;
    kms.height_alignment = 65536;
    encoder.height_alignment = 65537;
    EXPECT_EQ(conflicts(agree({plain}, {{kms}, {encoder}})),
              "kms takes only a height in multiples of 65536 rows\n"
              "encoder takes only a height in multiples of 65537 rows, together above the limit of "
              "4294967295");
    // The fewest of several alignments, and of all conflicts.
    encoder.stride_alignment = UINT32_MAX;
    EXPECT_EQ(conflicts(agree({plain}, {{kms}, {encoder}})),
              "encoder takes only strides in multiples of 4294967295 bytes, above the limit of "
              "2147483647");
    EXPECT_EQ(conflicts(agree({}, {{kms}, {encoder}})), "there is no exporter");
    const ImporterCaps tiled = taker("tiled", {{xr24, linear}, {xr24, x_tiled}});
    const ImporterCaps other = taker("other", {{xr24, x_tiled}, {xr24, y_tiled}});
    const ImporterCaps third_kind = taker("third kind", {{xr24, linear}, {xr24, y_tiled}});
    EXPECT_EQ(agree({plain}, {{tiled}, {other}, {third_kind}}).error().conflicts.size(), 2U);
    EXPECT_EQ(conflicts(agree({plain}, {{tiled}, {other}, {kms}, {encoder}})),
              "encoder takes only strides in multiples of 4294967295 bytes, above the limit of "
              "2147483647")
        << "one is fewer than two";
    encoder.stride_alignment = 1;
    kms.offset_alignment = 65536;
    encoder.offset_alignment = 65537;
    encoder.height_alignment = 1;
    EXPECT_EQ(conflicts(agree({plain}, {{kms}, {encoder}})),
              "kms takes only offsets in multiples of 65536 bytes\n"
              "encoder takes only offsets in multiples of 65537 bytes, together above the limit of "
              "4294967295");
}

TEST(Negotiate, LimitsInPixels) {
    const ExporterCaps plain = maker("plain");
    const ImporterCaps gpu = taker("gpu", {{xr24, linear, all_uses, 0, 4096, 2048}});
    ImporterCaps screen = taker("screen", {{xr24, linear, Uses::scan_out, 0, 640, 480}});
    const auto with = [](std::uint32_t width, std::uint32_t height) {
        return FrameRequest{.width = width, .height = height};
    };
    EXPECT_TRUE(agree({plain}, {{gpu}}, with(4096, 2048)));
    EXPECT_EQ(conflicts(agree({plain}, {{gpu}}, with(4097, 2048))),
              "gpu takes at most 4096x2048 pixels to sample, and the frame is 4097x2048");
    EXPECT_EQ(conflicts(agree({plain}, {{gpu}}, with(4096, 2049))),
              "gpu takes at most 4096x2048 pixels to sample, and the frame is 4096x2049");
    screen.min_width = 320;
    screen.min_height = 240;
    EXPECT_TRUE(agree({plain}, {{screen, Uses::scan_out}}, with(320, 240)));
    for (const auto& [width, height] : {std::pair(319U, 240U), std::pair(320U, 239U)})
        EXPECT_EQ(conflicts(agree({plain}, {{screen, Uses::scan_out}}, with(width, height))),
                  "screen takes at least 320x240 pixels to scan out, and the frame is " +
                      std::to_string(width) + "x" + std::to_string(height));
    screen.min_width = 640;
    screen.min_height = 480;
    EXPECT_EQ(conflicts(agree({plain}, {{screen, Uses::scan_out}}, with(64, 64))),
              "screen takes exactly 640x480 pixels to scan out, and the frame is 64x64");
    // Only some layouts are too small: another party takes only those.
    const ImporterCaps mixed =
        taker("gpu", {{xr24, linear, all_uses, 0, 1024, 1024}, {xr24, x_tiled}});
    EXPECT_EQ(conflicts(agree({plain}, {{mixed}}, with(2048, 16))),
              "gpu takes only INTEL 0x100000000000001 XR24 to sample at 2048x16\n"
              "plain makes only LINEAR XR24");
    // An exporter's own limit.
    const ExporterCaps small = maker("small", {{xr24, linear, all_uses, 0, 512, 512}});
    EXPECT_EQ(conflicts(agree({small}, {}, with(513, 1))),
              "the frame is 513x1\nsmall makes at most 512x512 pixels");
}

TEST(Negotiate, LimitsInBytes) {
    ExporterCaps a = maker("a");
    a.max_size = 8192;
    a.max_size_source = "its module";
    ExporterCaps gbm = driver("gbm", {{xr24, linear}, {xr24, x_tiled}});
    gbm.max_size = 8192;
    ImporterCaps tiled = taker("tiled", {{xr24, linear}, {xr24, x_tiled}});
    EXPECT_TRUE(agree({a}, {{tiled}}, {.width = 64, .height = 32})) << "8192 bytes";
    EXPECT_EQ(conflicts(agree({a}, {{tiled}}, {.width = 64, .height = 33})),
              "64x33 XR24 LINEAR needs 8448 bytes\na makes at most 8192 bytes (its module)");
    EXPECT_EQ(best(agree({gbm}, {{tiled}}, {.width = 64, .height = 33})).spec.modifiers,
              Modifiers{x_tiled})
        << "what a driver's layout comes to, it must say itself";
    tiled.min_size = 8193;
    EXPECT_FALSE(agree({gbm}, {{tiled}}));
    ImporterCaps careful = taker("careful");
    careful.max_size = 8000;
    EXPECT_EQ(conflicts(agree({a}, {{careful}, {tiled}})),
              "careful takes at most 8000 bytes, and 64x16 XR24 LINEAR needs 8193 bytes, as tiled "
              "wants");
    tiled.min_size = 0;
    tiled.max_size = 4096;
    EXPECT_EQ(conflicts(agree({a}, {{tiled}}, {.width = 64, .height = 17})),
              "tiled takes at most 4096 bytes, and 64x17 XR24 LINEAR needs 4352 bytes\n"
              "a makes only LINEAR XR24");
    a.granularity = 65536;
    a.max_size = UINT64_MAX;
    EXPECT_FALSE(agree({a}, {{tiled}}, {.width = 1, .height = 1})) << "a has no buffer that small";
    // The padding counts.
    ImporterCaps tall = taker("tall");
    tall.height_alignment = 64;
    a = maker("a");
    a.max_size = 64 * 64 * 4;
    EXPECT_TRUE(agree({a}, {{tall}}, {.width = 64, .height = 1}));
    a.max_size -= 1;
    EXPECT_FALSE(agree({a}, {{tall}}, {.width = 64, .height = 1}));
}

// -- who can use whose memory ---------------------------------------------------------------------

TEST(Negotiate, SomeDevicesTakeTheirOwnBuffersOnly) {
    const ExporterCaps udmabuf = maker("udmabuf");
    ExporterCaps dumb = maker("dumb");
    dumb.device = "/devices/card";
    ImporterCaps screen = taker("screen");
    screen.foreign = false;
    EXPECT_EQ(conflicts(agree({udmabuf, dumb}, {{screen, Uses::scan_out}})),
              "screen takes only buffers of its own device, which is not known\n"
              "udmabuf belongs to no device; dumb belongs to /devices/card");
    screen.device = dumb.device;
    const FrameChoice choice = best(agree({udmabuf, dumb}, {{screen}}));
    EXPECT_EQ(choice.exporter, 1U);
    EXPECT_EQ(choice.why, "dumb makes XR24 LINEAR: there is no other choice");
}

TEST(Negotiate, SomeDevicesNeedContiguousMemory) {
    ExporterCaps scattered = maker("scattered");
    scattered.memory = MemoryKind::system;
    ExporterCaps cma = maker("cma");
    cma.memory = MemoryKind::contiguous;
    ExporterCaps own = maker("own");
    own.device = "/devices/screen";
    ImporterCaps screen = taker("screen");
    screen.device = "/devices/screen";
    screen.memory = {MemoryKind::contiguous};
    EXPECT_EQ(best(agree({scattered, cma}, {{screen}})).exporter, 1U);
    EXPECT_EQ(best(agree({scattered, own}, {{screen}})).exporter, 1U) << "what it made itself";
    EXPECT_EQ(conflicts(agree({scattered}, {{screen}})),
              "screen takes only contiguous memory\nscattered has system memory");
    screen.memory.push_back(MemoryKind::system);
    EXPECT_EQ(best(agree({scattered}, {{screen}})).exporter, 0U);
}

TEST(Negotiate, TheCpuMustBeAbleToMap) {
    ExporterCaps closed = maker("closed");
    closed.cpu_mappable = false;
    const ExporterCaps open = maker("open");
    const ImporterCaps cpu = cpu_caps();
    const ImporterCaps gpu = taker("gpu");
    ImporterCaps software = taker("software");
    software.maps = true;
    EXPECT_TRUE(agree({closed}, {{gpu}}));
    const char* refusal = " must map the buffer to the CPU\nclosed gives the CPU no mapping";
    EXPECT_EQ(conflicts(agree({closed}, {{cpu, Uses::cpu_write}})), std::string("cpu") + refusal);
    EXPECT_EQ(conflicts(agree({closed}, {{software}})), std::string("software") + refusal);
    EXPECT_EQ(conflicts(agree({closed}, {{gpu, Uses::sample | Uses::cpu_read}})),
              std::string("gpu") + refusal);
    EXPECT_EQ(best(agree({closed, open}, {{cpu, Uses::cpu_read}})).exporter, 1U);
}

TEST(Negotiate, DriversMustHaveBeenToldOfTheUse) {
    const ExporterCaps gbm = driver("gbm", {{xr24, linear, all_uses - Uses::scan_out}});
    const ImporterCaps screen = taker("screen");
    EXPECT_TRUE(agree({gbm}, {{screen, Uses::sample}}));
    EXPECT_EQ(conflicts(agree({gbm}, {{screen, Uses::scan_out}})),
              "screen needs a buffer that was made to scan out\ngbm was not told of that use");
    const ExporterCaps for_devices = driver("gbm", {{xr24, linear, Uses::sample}});
    EXPECT_TRUE(agree({for_devices}, {{cpu_caps(), Uses::cpu_read}}))
        << "of the CPU cpu_mappable tells";
}

TEST(Negotiate, ZerosArePromisedOrMade) {
    ExporterCaps dirty = maker("dirty");
    dirty.zeroed = false;
    ExporterCaps hopeless = dirty;
    hopeless.name = "hopeless";
    hopeless.cpu_mappable = false;
    const ExporterCaps clean = maker("clean");
    EXPECT_FALSE(best(agree({dirty}, {})).clear);
    EXPECT_TRUE(best(agree({hopeless}, {})).spec.width != 0);
    EXPECT_TRUE(best(agree({dirty}, {}, {.zeroed = true})).clear);
    const FrameChoice choice = best(agree({dirty, hopeless, clean}, {}, {.zeroed = true}));
    EXPECT_EQ(choice.exporter, 2U);
    EXPECT_FALSE(choice.clear);
    EXPECT_EQ(choice.why, "clean makes XR24 LINEAR: it comes zeroed, where what dirty makes must "
                          "be cleared");
    EXPECT_EQ(conflicts(agree({hopeless}, {}, {.zeroed = true})),
              "the frame must start out zero\n"
              "hopeless promises no zeros, and the CPU cannot map its buffers to clear them");
}

// -- coherency ------------------------------------------------------------------------------------

/// One cache line of a machine: what the RAM holds, and what the cache holds if anything.
struct Line {
    int ram = 0;
    std::optional<int> cache = {};
    bool dirty = false;

    void write(bool through_cache, bool allocates, int value) {
        if (!through_cache)
            ram = value;
        else if (allocates || cache)
            cache = value, dirty = true;
        else
            ram = value;
    }
    int read(bool through_cache) {
        if (!through_cache)
            return ram;
        if (!cache)
            cache = ram;
        return *cache;
    }
    void maintain() {
        if (dirty)
            ram = *cache;
        cache.reset();
        dirty = false;
    }
};

struct Machine {
    CpuCaching caching;
    bool cpu;
    std::vector<bool> snoops;     // each device
    bool snooped_writes_allocate; // a matter of the interconnect
};

/// Whether everyone reads what was written last, whoever writes and reads after whom; with the
/// CPU's accesses in brackets or without.
bool everyone_sees(const Machine& machine, bool brackets) {
    const int parties = static_cast<int>(machine.snoops.size()) + (machine.cpu ? 1 : 0);
    const auto is_cpu = [&](int party) { return party == static_cast<int>(machine.snoops.size()); };
    const bool maintains = brackets && machine.caching == CpuCaching::maintained;
    // Every sequence of three accesses: who, and whether it writes.
    for (int sequence = 0; sequence < 8 * parties * parties * parties; ++sequence) {
        Line line;
        int last = 0;
        int rest = sequence;
        for (int step = 1; step <= 3; ++step) {
            const bool writes = (rest & 1) != 0;
            rest >>= 1;
            const int party = rest % parties;
            rest /= parties;
            const bool cached = machine.caching != CpuCaching::bypassed &&
                                (is_cpu(party) || machine.snoops[static_cast<std::size_t>(party)]);
            if (is_cpu(party) && maintains)
                line.maintain();
            if (writes)
                line.write(cached, is_cpu(party) || machine.snooped_writes_allocate, last = step);
            else if (line.read(cached && (is_cpu(party) || line.cache)) != last)
                return false;
            if (is_cpu(party) && maintains)
                line.maintain();
        }
    }
    return true;
}

/// The verdict over all machines that what the parties say allows.
Coherency model_of_coherency(CpuCaching caching, bool cpu, const std::vector<Snooping>& devices) {
    std::vector<CpuCaching> cachings{caching};
    if (caching == CpuCaching::unknown)
        cachings = {CpuCaching::bypassed, CpuCaching::maintained, CpuCaching::unmaintained};
    bool always = true, bracketed = true, never = true;
    for (const CpuCaching each : cachings)
        for (const bool allocate : {false, true})
            for (unsigned mask = 0; mask < 1U << devices.size(); ++mask) {
                Machine machine{each, cpu, {}, allocate};
                bool possible = true;
                for (std::size_t i = 0; i < devices.size(); ++i) {
                    machine.snoops.push_back((mask >> i & 1) != 0);
                    possible = possible && (devices[i] == Snooping::unknown ||
                                            (devices[i] == Snooping::yes) == machine.snoops[i]);
                }
                if (!possible)
                    continue;
                always = always && everyone_sees(machine, false);
                bracketed = bracketed && everyone_sees(machine, true);
                never = never && !everyone_sees(machine, true);
            }
    return always      ? Coherency::always
           : bracketed ? Coherency::bracketed
           : never     ? Coherency::incoherent
                       : Coherency::unknown;
}

TEST(Negotiate, CoherencyIsWhatTheCachesOfAllPossibleMachinesDo) {
    constexpr std::array cachings{CpuCaching::unknown, CpuCaching::bypassed, CpuCaching::maintained,
                                  CpuCaching::unmaintained};
    constexpr std::array snoopings{Snooping::unknown, Snooping::yes, Snooping::no};
    const ImporterCaps cpu = cpu_caps();
    std::set<Coherency> seen;
    for (const CpuCaching caching : cachings)
        for (const bool with_cpu : {false, true})
            for (std::size_t count = 0; count <= 3; ++count)
                for (std::size_t code = 0; code < std::array{1U, 3U, 9U, 27U}[count]; ++code) {
                    ExporterCaps exporter = maker("exporter");
                    exporter.cpu_caching = caching;
                    std::vector<Snooping> says;
                    std::vector<ImporterCaps> devices;
                    for (std::size_t i = 0, rest = code; i < count; ++i, rest /= 3) {
                        says.push_back(snoopings[rest % 3]);
                        devices.push_back(taker(("device " + std::to_string(i)).c_str()));
                        devices.back().snooping = says.back();
                    }
                    std::vector<ImporterUse> importers;
                    for (const ImporterCaps& each : devices)
                        importers.push_back({&each, Uses::sample});
                    if (with_cpu)
                        importers.push_back({&cpu, cpu_uses});
                    if (importers.empty())
                        continue;
                    const std::array<const ExporterCaps*, 1> makers{&exporter};
                    FrameRequest request{.width = 64, .height = 16, .formats = {xr24}};
                    const auto outcome = negotiate(makers, importers, request);
                    const Coherency expected = model_of_coherency(caching, with_cpu, says);
                    seen.insert(expected);
                    const auto text = [&] {
                        std::string of = "caching " + std::to_string(static_cast<int>(caching)) +
                                         (with_cpu ? ", cpu" : "");
                        for (const Snooping each : says)
                            of += ", snooping " + std::to_string(static_cast<int>(each));
                        return of;
                    };
                    ASSERT_EQ(outcome.has_value(), expected != Coherency::incoherent) << text();
                    if (outcome) {
                        EXPECT_EQ(to_string(outcome->front().coherency), to_string(expected))
                            << text();
                        EXPECT_FALSE(outcome->front().coherency_why.empty());
                    }
                    request.known_coherent = true;
                    EXPECT_EQ(negotiate(makers, importers, request).has_value(),
                              expected == Coherency::always || expected == Coherency::bracketed)
                        << text();
                }
    EXPECT_EQ(seen.size(), 4U) << "every verdict comes up";
}

TEST(Negotiate, CoherencyIsToldInWords) {
    ExporterCaps heap = maker("heap");
    ImporterCaps gpu = taker("gpu");
    ImporterCaps screen = taker("screen");
    const ImporterCaps cpu = cpu_caps();
    const auto with_cpu = [&] {
        return best(agree({heap}, {{gpu}, {screen}, {cpu, Uses::cpu_read}})).coherency_why;
    };
    const auto devices = [&] { return best(agree({heap}, {{gpu}, {screen}})).coherency_why; };
    EXPECT_EQ(best(agree({heap}, {{cpu, Uses::cpu_read}})).coherency_why, "the CPU alone uses it");
    EXPECT_EQ(best(agree({heap}, {{gpu}})).coherency_why, "one device alone uses it");
    EXPECT_EQ(with_cpu(), "nobody says whether gpu and screen look into the CPU's caches");
    gpu.snooping = Snooping::yes;
    EXPECT_EQ(with_cpu(), "nobody says whether screen looks into the CPU's caches");
    screen.snooping = Snooping::no;
    EXPECT_EQ(with_cpu(), "gpu looks into the CPU's caches, and screen does not");
    gpu.snooping = Snooping::no;
    EXPECT_EQ(with_cpu(), "heap keeps the CPU's caches right between the brackets of an access");
    EXPECT_EQ(devices(),
              "no device looks into the CPU's caches, and the CPU does not use the frame");
    heap.cpu_caching = CpuCaching::unknown;
    EXPECT_EQ(with_cpu(), "nobody says how the CPU's caches are kept right for heap");
    heap.cpu_caching = CpuCaching::bypassed;
    EXPECT_EQ(with_cpu(), "the CPU's caches are not used for heap");
    heap.cpu_caching = CpuCaching::unmaintained;
    EXPECT_EQ(conflicts(agree({heap}, {{gpu}, {screen}, {cpu, Uses::cpu_read}})),
              "everyone must see what the others write\n"
              "heap does not promise that: gpu and screen do not look into the CPU's caches, and "
              "nothing writes those back for heap");
    gpu.snooping = screen.snooping = Snooping::yes;
    EXPECT_EQ(with_cpu(), "gpu and screen look into the CPU's caches");
    // Two importers of one device are one.
    gpu.snooping = screen.snooping = Snooping::unknown;
    gpu.device = screen.device = "/devices/card";
    EXPECT_EQ(devices(), "one device alone uses it");
}

// -- the order ------------------------------------------------------------------------------------

TEST(Negotiate, KnownCoherencyGoesFirst) {
    ExporterCaps dumb = maker("dumb");
    dumb.cpu_caching = CpuCaching::unknown;
    const ExporterCaps heap = maker("heap");
    const ImporterCaps gpu = taker("gpu");
    const ImporterCaps cpu = cpu_caps();
    EXPECT_EQ(best(agree({dumb, heap}, {{gpu}})).exporter, 0U) << "one device needs nothing";
    const FrameChoice choice = best(agree({dumb, heap}, {{gpu}, {cpu, Uses::cpu_write}}));
    EXPECT_EQ(choice.exporter, 1U);
    EXPECT_EQ(choice.coherency, Coherency::bracketed);
    EXPECT_EQ(choice.why, "heap makes XR24 LINEAR: all see what the others write there, which "
                          "nobody says of dumb");
}

TEST(Negotiate, CachedMemoryGoesFirstWhereTheCpuReads) {
    ExporterCaps slow = maker("slow");
    slow.cpu_caching = CpuCaching::bypassed;
    ExporterCaps silent = maker("silent");
    silent.cpu_caching = CpuCaching::unknown;
    const ExporterCaps heap = maker("heap");
    const ImporterCaps cpu = cpu_caps();
    const auto outcome = agree({slow, silent, heap}, {{cpu, Uses::cpu_read}});
    ASSERT_TRUE(outcome);
    EXPECT_EQ((*outcome)[0].exporter, 2U);
    EXPECT_EQ((*outcome)[0].why, "heap makes XR24 LINEAR: the CPU reads it through its caches, "
                                 "which is not said of silent");
    EXPECT_EQ((*outcome)[1].exporter, 1U);
    EXPECT_EQ((*outcome)[1].why, "silent makes XR24 LINEAR: the CPU reads past its caches from "
                                 "slow, which is slow");
    EXPECT_EQ((*outcome)[2].exporter, 0U);
    EXPECT_EQ(best(agree({slow, silent, heap}, {{cpu, Uses::cpu_write}})).exporter, 0U);
}

TEST(Negotiate, AChoiceOfLayoutsGoesFirst) {
    const ExporterCaps plain = maker("plain");
    ExporterCaps secret = driver("secret", {{xr24, implicit}});
    const ExporterCaps gbm = driver("gbm", {{xr24, x_tiled}, {xr24, linear}});
    ImporterCaps gpu = taker("gpu", {{xr24, linear}, {xr24, x_tiled}, {xr24, implicit}});
    gpu.device = secret.device;
    const auto outcome = agree({secret, plain, gbm}, {{gpu}});
    ASSERT_TRUE(outcome);
    ASSERT_EQ(outcome->size(), 3U);
    EXPECT_EQ((*outcome)[0].why, "gbm makes XR24 INTEL 0x100000000000001/LINEAR: it leaves other "
                                 "layouts than plain, which makes LINEAR");
    EXPECT_EQ((*outcome)[1].why, "plain makes XR24 LINEAR: it leaves other layouts than secret, "
                                 "which makes INVALID (of its own device)");
    EXPECT_EQ((*outcome)[2].exporter, 0U);
}

TEST(Negotiate, ThePickiestImportersDeviceGoesFirst) {
    const ExporterCaps udmabuf = maker("udmabuf");
    const ExporterCaps gpu_memory = driver("gpu", {{xr24, linear}});
    const ExporterCaps card_memory = driver("card", {{xr24, linear}});
    ImporterCaps screen = taker("screen");
    screen.device = card_memory.device;
    ImporterCaps gpu = taker("gpu", {{xr24, linear}, {ar24, linear, Uses::sample}});
    gpu.device = gpu_memory.device;
    const auto outcome = agree({udmabuf, gpu_memory, card_memory}, {{gpu}, {screen}});
    ASSERT_TRUE(outcome);
    EXPECT_EQ((*outcome)[0].exporter, 2U);
    EXPECT_EQ((*outcome)[0].why,
              "card makes XR24 LINEAR: it is the device of screen, which takes the fewest layouts");
    EXPECT_EQ((*outcome)[1].exporter, 1U);
    EXPECT_EQ((*outcome)[1].why, "gpu makes XR24 LINEAR: it is the device of an importer, which "
                                 "udmabuf is not");
    EXPECT_EQ((*outcome)[2].exporter, 0U);
    // Only what fits the use and the size counts.
    EXPECT_EQ(best(agree({gpu_memory, card_memory}, {{gpu, Uses::render}, {screen}})).exporter, 0U)
        << "equally picky: the first";
}

// -- conflicts ------------------------------------------------------------------------------------

TEST(Negotiate, ConflictsSayWhoTakesWhat) {
    const ExporterCaps gbm = driver("gbm", {{xr24, linear}, {nv12, linear}, {nv12, x_tiled}});
    const ImporterCaps screen =
        taker("screen", {{xr24, linear, Uses::scan_out}, {ar24, linear, Uses::scan_out}});
    const ImporterCaps gpu =
        taker("gpu", {{nv12, x_tiled, Uses::sample}, {xr24, linear, Uses::sample | Uses::render}});
    auto outcome =
        agree({gbm}, {{screen, Uses::scan_out}, {gpu, Uses::sample}}, {.formats = {nv12}});
    EXPECT_EQ(conflicts(outcome), "screen takes only LINEAR XR24/AR24\nthe frame is to be NV12");
    ASSERT_FALSE(outcome);
    const Error& error = outcome.error().error;
    EXPECT_EQ(error.message(),
              "negotiate(64x16 NV12): screen takes only LINEAR XR24/AR24; the frame is to be NV12. "
              "Let one of them have a copy, or offer other exporters.");
    EXPECT_EQ(error.code, Errc::unsupported);
    EXPECT_EQ(outcome.error().conflicts[0].requirement, Requirement::takes);
    EXPECT_EQ(outcome.error().conflicts[0].importer, 0U);
    EXPECT_EQ(outcome.error().conflicts[1].requirement, Requirement::formats);
    EXPECT_EQ(outcome.error().conflicts[1].importer, std::nullopt);

    outcome = agree({gbm}, {{gpu, Uses::render}}, {.formats = {nv12}});
    EXPECT_EQ(conflicts(outcome), "gpu takes only LINEAR XR24 to render\nthe frame is to be NV12");
    const ImporterCaps other = taker("codec", {{nv12, linear, Uses::sample}, {ar24, y_tiled}});
    EXPECT_EQ(conflicts(agree({gbm}, {{gpu}, {other}}, {.formats = {nv12}})),
              "gpu takes only INTEL 0x100000000000001 NV12, LINEAR XR24\n"
              "codec takes only LINEAR NV12, INTEL 0x100000000000002 AR24");
    const ExporterCaps plain = maker("plain", {{nv12, linear}});
    EXPECT_EQ(conflicts(agree({plain}, {{gpu}}, {.formats = {nv12}})),
              "gpu takes only INTEL 0x100000000000001 NV12, LINEAR XR24\n"
              "plain makes only LINEAR NV12");
}

TEST(Negotiate, WhatNobodyMakesIsTheExportersConflict) {
    EXPECT_EQ(conflicts(agree({}, {})), "there is no exporter");
    const ExporterCaps a = maker("a");
    const ExporterCaps b = maker("", {});
    EXPECT_EQ(conflicts(agree({a, b}, {}, {.formats = {nv12, ar24}})),
              "the frame is to be NV12/AR24\na makes only LINEAR XR24; an exporter makes nothing");
    const ImporterCaps empty = taker("", {});
    EXPECT_EQ(conflicts(agree({a, b}, {{empty}})), "somebody takes nothing");
}

TEST(Negotiate, LongListsAreShortened) {
    const ImporterCaps cpu = cpu_caps();
    const ExporterCaps tiled = driver("tiled", {{xr24, x_tiled}});
    EXPECT_EQ(conflicts(agree({tiled}, {{cpu, Uses::cpu_read}})),
              "cpu takes only LINEAR XR24/AR24/XB24/AB24 and " +
                  std::to_string(formats().size() - 4) +
                  " more\ntiled makes only INTEL 0x100000000000001 XR24");
    Formats many;
    for (std::uint64_t modifier = 1; modifier <= 30; ++modifier)
        for (const std::uint32_t format : {xr24, ar24})
            many.push_back({format, modifier});
    const ImporterCaps gpu = taker("gpu", many);
    const ExporterCaps a = maker("a");
    EXPECT_EQ(conflicts(agree({a}, {{gpu}})),
              "gpu takes only 0x1/0x2/0x3/0x4 and 26 more modifiers XR24/AR24\n"
              "a makes only LINEAR XR24");
    // Where the format is part of the conflict, only the layouts of that format are told.
    const ImporterCaps screen = taker("screen", {{nv12, x_tiled}, {xr24, linear}, {ar24, linear}});
    const ExporterCaps plain = maker("plain", {{nv12, linear}, {ar24, x_tiled}, {xr24, linear}});
    EXPECT_EQ(conflicts(agree({plain}, {{screen}}, {.formats = {nv12}})),
              "screen takes only INTEL 0x100000000000001 NV12\n"
              "the frame is to be NV12\n"
              "plain makes only LINEAR NV12");
    Formats scattered;
    for (std::uint64_t i = 1; i <= 6; ++i)
        scattered.push_back({formats()[i].fourcc, i});
    EXPECT_EQ(conflicts(agree({a}, {{taker("b", scattered)}})),
              "b takes only 0x1 AR24, 0x2 XB24, 0x3 AB24, 0x4 RX24 and more\n"
              "the frame is to be XR24");
}

} // namespace
} // namespace sluice
