// SPDX-License-Identifier: MIT
#include <sluice/negotiate.hpp>

#include <algorithm>
#include <array>
#include <functional>
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

} // namespace
} // namespace sluice
