// SPDX-License-Identifier: MIT
// Negotiations of random small parties, held against a model that tries everything: each maker,
// each layout, each subset of the requirements.
#include <sluice/negotiate.hpp>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include <drm_fourcc.h>
#include <gtest/gtest.h>

namespace sluice {
namespace {

constexpr std::uint32_t all_formats[] = {DRM_FORMAT_XRGB8888, DRM_FORMAT_R8, DRM_FORMAT_RGB565,
                                         DRM_FORMAT_ARGB8888}; // nobody lists the last one
constexpr std::uint64_t all_modifiers[] = {DRM_FORMAT_MOD_LINEAR, I915_FORMAT_MOD_X_TILED,
                                           I915_FORMAT_MOD_Y_TILED, DRM_FORMAT_MOD_INVALID,
                                           999}; // nor this one

using Atom = std::pair<Requirement, std::size_t>; // a requirement, and whose
using Atoms = std::set<Atom>;

struct Case {
    std::vector<ExporterCaps> exporters;
    std::vector<ImporterCaps> importers;
    std::vector<Uses> uses;
    FrameRequest request;

    [[nodiscard]] auto negotiate() const {
        std::vector<const ExporterCaps*> makers;
        for (const ExporterCaps& each : exporters)
            makers.push_back(&each);
        std::vector<ImporterUse> takers;
        for (std::size_t i = 0; i < importers.size(); ++i)
            takers.push_back({&importers[i], uses[i]});
        return sluice::negotiate(makers, takers, request);
    }
};

/// A maker of the model: one of the case's exporters, or one that makes everything on `device`.
struct Maker {
    const ExporterCaps* real = nullptr;
    std::string device;
};

struct Layout {
    std::uint32_t format;
    std::uint64_t modifier;
    std::uint32_t planes;
};

class Model {
public:
    explicit Model(const Case& of) : case_(of) {}

    [[nodiscard]] Atoms all_atoms() const {
        Atoms all;
        for (int each = 0; each < static_cast<int>(Requirement::alignment); ++each) {
            const auto requirement = static_cast<Requirement>(each);
            if (requirement < Requirement::takes)
                all.insert({requirement, 0});
            else
                for (std::size_t i = 0; i < case_.importers.size(); ++i)
                    all.insert({requirement, i});
        }
        return all;
    }

    /// Whether somebody can make a frame, if only \p kept must hold.
    [[nodiscard]] bool possible(const Atoms& kept) const {
        for (const ExporterCaps& each : case_.exporters)
            if (makes_something({&each, each.device}, kept))
                return true;
        if (kept.contains({Requirement::exporters, 0}))
            return false;
        if (makes_something({}, kept))
            return true;
        return std::ranges::any_of(case_.importers, [&](const ImporterCaps& each) {
            return makes_something({nullptr, each.device}, kept);
        });
    }

    [[nodiscard]] bool can(const Maker& maker, const Layout& layout, const Atoms& kept) const {
        const auto keeps = [&](Requirement requirement, std::size_t importer = 0) {
            return kept.contains({requirement, importer});
        };
        if (case_.importers.empty() && layout.modifier != DRM_FORMAT_MOD_LINEAR)
            return false;
        if (keeps(Requirement::formats) &&
            std::ranges::find(case_.request.formats, layout.format) == case_.request.formats.end())
            return false;
        if (keeps(Requirement::zeroed) && case_.request.zeroed && maker.real &&
            !maker.real->zeroed && !maker.real->cpu_mappable)
            return false;
        if (keeps(Requirement::coherency) && maker.real && incoherent(*maker.real))
            return false;
        const std::uint64_t bytes = bytes_of(maker, layout);
        if (keeps(Requirement::size) && maker.real && bytes > maker.real->max_size)
            return false;
        for (std::size_t i = 0; i < case_.importers.size(); ++i) {
            const ImporterCaps& importer = case_.importers[i];
            const bool own = !maker.device.empty() && maker.device == importer.device;
            const bool on_cpu = importer.maps || (case_.uses[i] & cpu_uses) != Uses::none;
            if (keeps(Requirement::max_size, i) && bytes > importer.max_size)
                return false;
            if (maker.real) {
                if (keeps(Requirement::memory, i) && !own && !importer.memory.empty() &&
                    std::ranges::count(importer.memory, maker.real->memory) == 0)
                    return false;
                if (keeps(Requirement::own_device, i) && !own && !importer.foreign)
                    return false;
                if (keeps(Requirement::cpu_mapping, i) && on_cpu && !maker.real->cpu_mappable)
                    return false;
            }
            bool listed = false, for_uses = false, at_size = false;
            for (const FormatSupport& each : importer.formats) {
                if (!matches(each, layout) || (layout.modifier == DRM_FORMAT_MOD_INVALID && !own))
                    continue;
                const bool usable = contains(each.uses, case_.uses[i]);
                listed = true;
                for_uses = for_uses || usable;
                at_size = at_size || (usable && has_the_size(each) &&
                                      case_.request.width >= importer.min_width &&
                                      case_.request.height >= importer.min_height);
            }
            if ((keeps(Requirement::takes, i) && !listed) ||
                (keeps(Requirement::takes_for_uses, i) && !for_uses) ||
                (keeps(Requirement::takes_at_size, i) && !at_size))
                return false;
        }
        if (!maker.real)
            return true;
        return std::ranges::any_of(maker.real->formats, [&](const FormatSupport& each) {
            if (!matches(each, layout))
                return false;
            if (keeps(Requirement::size) && !has_the_size(each))
                return false;
            for (std::size_t i = 0; i < case_.importers.size(); ++i)
                if (keeps(Requirement::made_for_uses, i) &&
                    !contains(each.uses, case_.uses[i] - cpu_uses))
                    return false;
            return true;
        });
    }

    [[nodiscard]] std::uint32_t largest(std::uint32_t ImporterCaps::*field) const {
        std::uint32_t most = 0;
        for (const ImporterCaps& each : case_.importers)
            most = std::max(most, each.*field);
        return most;
    }

    [[nodiscard]] bool incoherent(const ExporterCaps& exporter) const {
        bool cpu = false, blind = false;
        for (std::size_t i = 0; i < case_.importers.size(); ++i) {
            cpu = cpu || case_.importers[i].maps || (case_.uses[i] & cpu_uses) != Uses::none;
            blind =
                blind || (!case_.importers[i].maps && case_.importers[i].snooping == Snooping::no);
        }
        return exporter.cpu_caching == CpuCaching::unmaintained && cpu && blind;
    }

    [[nodiscard]] bool has_the_size(const FormatSupport& support) const {
        std::set<std::uint32_t> widths, heights;
        for (std::uint32_t all = 0; all <= std::min(support.max_width, 100U);
             all += support.width_granularity)
            widths.insert(all);
        for (std::uint32_t all = 0; all <= std::min(support.max_height, 100U);
             all += support.height_granularity)
            heights.insert(all);
        return widths.contains(case_.request.width) && heights.contains(case_.request.height);
    }

private:
    static bool matches(const FormatSupport& support, const Layout& layout) {
        if (support.format != layout.format || support.modifier != layout.modifier)
            return false;
        if (support.plane_count != 0)
            return support.plane_count == layout.planes;
        const bool formats_own =
            layout.modifier == DRM_FORMAT_MOD_LINEAR || layout.modifier == DRM_FORMAT_MOD_INVALID;
        return !formats_own || layout.planes == 1;
    }

    [[nodiscard]] bool makes_something(const Maker& maker, const Atoms& kept) const {
        for (const std::uint32_t format : all_formats)
            for (const std::uint64_t modifier : all_modifiers)
                for (std::uint32_t planes = 1; planes <= 3; ++planes)
                    if (can(maker, {format, modifier, planes}, kept))
                        return true;
        return false;
    }

    /// The smallest number that all of \p numbers go into; 0 stands for 1.
    static std::uint64_t common(const std::vector<std::uint64_t>& numbers) {
        for (std::uint64_t all = 1;; ++all)
            if (std::ranges::all_of(
                    numbers, [&](std::uint64_t each) { return each == 0 || all % each == 0; }))
                return all;
    }

    [[nodiscard]] std::uint64_t bytes_of(const Maker& maker, const Layout& layout) const {
        std::vector<std::uint64_t> strides, heights, sizes;
        std::uint64_t bytes = 0, slack = 0;
        bool all_say = !case_.importers.empty();
        for (const ImporterCaps& each : case_.importers) {
            strides.push_back(each.stride_alignment);
            heights.push_back(each.height_alignment);
            sizes.push_back(each.size_alignment);
            slack = std::max<std::uint64_t>(slack, each.slack);
            bytes = std::max(bytes, each.min_size);
            all_say = all_say && each.stride_alignment != 0;
        }
        if (maker.real && !maker.real->lays_out_frames && !all_say)
            strides.push_back(256);
        if (layout.modifier == DRM_FORMAT_MOD_LINEAR) {
            const std::uint64_t pixel = layout.format == DRM_FORMAT_R8       ? 1
                                        : layout.format == DRM_FORMAT_RGB565 ? 2
                                                                             : 4;
            std::uint64_t stride = 0, rows = 0;
            for (const std::uint64_t step = common(strides); stride < case_.request.width * pixel;)
                stride += step;
            for (const std::uint64_t step = common(heights); rows < case_.request.height;)
                rows += step;
            std::uint64_t whole = stride * rows + slack;
            for (const std::uint64_t step = common(sizes); whole % step != 0;)
                ++whole;
            bytes = std::max(bytes, whole);
        }
        if (maker.real)
            while (bytes % maker.real->granularity != 0)
                ++bytes;
        return bytes;
    }

    const Case& case_;
};

class Dice {
public:
    explicit Dice(unsigned seed) : engine_(seed) {}

    bool one_in(unsigned sides) { return engine_() % sides == 0; }
    template <typename T> T of(std::initializer_list<T> values) {
        return values.begin()[engine_() % values.size()];
    }
    std::size_t below(std::size_t count) { return engine_() % count; }

private:
    std::mt19937 engine_;
};

std::vector<FormatSupport> random_formats(Dice& dice, unsigned sparse) {
    std::vector<FormatSupport> formats;
    for (std::size_t f = 0; f < 3; ++f)
        for (std::size_t m = 0; m < 4; ++m) {
            if (!dice.one_in(sparse))
                continue;
            FormatSupport support{all_formats[f], all_modifiers[m]};
            if (dice.one_in(4))
                support.uses = dice.of({Uses::sample, Uses::render, Uses::sample | Uses::render});
            if (m != 0 && dice.one_in(4))
                support.plane_count = dice.of({1U, 2U});
            if (dice.one_in(6))
                support.max_width = dice.of({7U, 8U, 100U});
            if (dice.one_in(12))
                support.max_height = dice.of({7U, 100U});
            support.disjoint = !dice.one_in(4);
            if (dice.one_in(8))
                support.width_granularity = dice.of({3U, 4U});
            if (dice.one_in(12))
                support.height_granularity = dice.of({2U, 8U});
            formats.push_back(support);
        }
    std::ranges::rotate(
        formats, formats.begin() +
                     static_cast<std::ptrdiff_t>(formats.empty() ? 0 : dice.below(formats.size())));
    return formats;
}

Case random_case(unsigned seed) {
    Dice dice(seed);
    Case made;
    const auto device = [&] { return dice.of<std::string>({"", "/a", "/b"}); };
    for (std::size_t i = 0, count = dice.below(4); i < count; ++i)
        made.exporters.push_back(
            {.name = "maker " + std::to_string(i),
             .device = device(),
             .max_size = dice.of<std::uint64_t>({UINT64_MAX, UINT64_MAX, 256, 4096}),
             .granularity = dice.of<std::uint64_t>({1, 64, 4096}),
             .zeroed = dice.one_in(2),
             .cpu_mappable = !dice.one_in(3),
             .cpu_caching = dice.of({CpuCaching::bypassed, CpuCaching::unmaintained}),
             .lays_out_frames = dice.one_in(2),
             .memory = dice.of({MemoryKind::unknown, MemoryKind::system, MemoryKind::contiguous}),
             .formats = random_formats(dice, 2)});
    for (std::size_t i = 0, count = dice.below(4); i < count; ++i) {
        ImporterCaps caps{.name = "taker " + std::to_string(i),
                          .device = device(),
                          .formats = random_formats(dice, 2),
                          .stride_alignment = dice.of({0U, 1U, 3U, 64U}),
                          .height_alignment = dice.of({0U, 2U, 3U}),
                          .slack = dice.of({0U, 0U, 1U, 64U}),
                          .size_alignment = dice.of({0U, 0U, 24U, 64U}),
                          .min_size = dice.of<std::uint64_t>({0, 0, 100, 400}),
                          .max_size = dice.of<std::uint64_t>({UINT64_MAX, UINT64_MAX, 300, 5000}),
                          .foreign = !dice.one_in(4),
                          .maps = dice.one_in(4),
                          .snooping = dice.of({Snooping::yes, Snooping::no})};
        if (dice.one_in(6))
            caps.min_width = dice.of({8U, 9U});
        if (dice.one_in(3))
            caps.memory = {MemoryKind::contiguous};
        made.importers.push_back(std::move(caps));
        made.uses.push_back(dice.of({Uses::none, Uses::sample, Uses::sample | Uses::render,
                                     Uses::sample | Uses::cpu_read}));
    }
    made.request = {.width = 8, .height = dice.of({4U, 8U}), .zeroed = dice.one_in(3)};
    for (std::size_t i = 0, count = 1 + dice.below(3); i < count; ++i)
        made.request.formats.push_back(all_formats[(i + dice.below(2)) % 4]);
    return made;
}

/// What the choices must be: for each format asked for and each exporter, the modifiers in order.
std::map<std::pair<std::size_t, std::size_t>, std::vector<std::uint64_t>>
expected_choices(const Case& of, const Model& model) {
    std::map<std::pair<std::size_t, std::size_t>, std::vector<std::uint64_t>> expected;
    const Atoms everything = model.all_atoms();
    for (std::size_t e = 0; e < of.exporters.size(); ++e)
        for (const FormatSupport& each : of.exporters[e].formats) {
            const auto rank = static_cast<std::size_t>(
                std::ranges::find(of.request.formats, each.format) - of.request.formats.begin());
            bool can = false;
            for (std::uint32_t planes = 1; planes <= 3; ++planes)
                can = can || model.can({&of.exporters[e], of.exporters[e].device},
                                       {each.format, each.modifier, planes}, everything);
            if (can)
                expected[{rank, e}].push_back(each.modifier);
        }
    for (auto& [key, modifiers] : expected) {
        const auto last = [&, &all = modifiers](std::uint64_t modifier) {
            if (const auto at = std::ranges::find(all, modifier); at != all.end()) {
                all.erase(at);
                all.push_back(modifier);
            }
        };
        last(DRM_FORMAT_MOD_LINEAR);
        if (modifiers.size() > 1)
            std::erase(modifiers, DRM_FORMAT_MOD_INVALID);
    }
    return expected;
}

/// Calls \p call with each subset of \p count of \p atoms.
template <typename Call>
void each_subset(const std::vector<Atom>& atoms, std::size_t count, std::size_t from, Atoms& chosen,
                 Call call) {
    if (chosen.size() == count) {
        call(chosen);
        return;
    }
    for (std::size_t i = from; i < atoms.size(); ++i) {
        chosen.insert(atoms[i]);
        each_subset(atoms, count, i + 1, chosen, call);
        chosen.erase(atoms[i]);
    }
}

void expect_best_first(const Case& of, const Model& model,
                       const std::vector<FrameChoice>& choices) {
    // How an exporter is judged, as the header puts it; true is better.
    const auto judge = [&](const FrameChoice& choice) {
        const ExporterCaps& exporter = of.exporters[choice.exporter];
        const bool cpu_reads =
            std::ranges::any_of(of.uses, [](Uses each) { return contains(each, Uses::cpu_read); });
        // The device of the importer that has one and lists the fewest usable layouts.
        const ImporterCaps* pickiest = nullptr;
        std::ptrdiff_t fewest = 0;
        for (std::size_t i = 0; i < of.importers.size(); ++i) {
            const ImporterCaps& each = of.importers[i];
            const auto count =
                std::ranges::count_if(each.formats, [&](const FormatSupport& support) {
                    return contains(support.uses, of.uses[i]) && model.has_the_size(support) &&
                           of.request.width >= each.min_width;
                });
            if (!each.device.empty() && (!pickiest || count < fewest)) {
                pickiest = &each;
                fewest = count;
            }
        }
        const bool is_importers = std::ranges::any_of(of.importers, [&](const ImporterCaps& each) {
            return !each.device.empty() && each.device == exporter.device;
        });
        return std::vector<bool>{
            choice.coherency != Coherency::unknown,
            !cpu_reads || exporter.cpu_caching != CpuCaching::bypassed,
            choice.spec.modifiers.front() != DRM_FORMAT_MOD_LINEAR &&
                choice.spec.modifiers.front() != DRM_FORMAT_MOD_INVALID,
            choice.spec.modifiers.front() != DRM_FORMAT_MOD_INVALID,
            pickiest && pickiest->device == exporter.device && is_importers,
            is_importers,
            !of.request.zeroed || exporter.zeroed,
        };
    };
    for (std::size_t i = 1; i < choices.size(); ++i) {
        const auto rank = [&](const FrameChoice& each) {
            return std::ranges::find(of.request.formats, each.spec.format) -
                   of.request.formats.begin();
        };
        const FrameChoice& better = choices[i - 1];
        const FrameChoice& worse = choices[i];
        ASSERT_LE(rank(better), rank(worse));
        if (rank(better) != rank(worse))
            continue;
        ASSERT_GE(judge(better), judge(worse)) << better.why << " / " << worse.why;
        if (judge(better) == judge(worse)) {
            ASSERT_LT(better.exporter, worse.exporter);
        }
    }
}

TEST(NegotiateProperty, ChoicesAndConflictsAreTheModels) {
    std::map<std::size_t, int> sizes; // of conflicts, and how many there were
    std::map<Requirement, int> kinds;
    int agreed = 0;
    for (unsigned seed = 0; seed < 1000; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        const Case of = random_case(seed);
        const Model model(of);
        const auto outcome = of.negotiate();
        const auto expected = expected_choices(of, model);
        ASSERT_EQ(outcome.has_value(), !expected.empty())
            << (outcome ? outcome->front().why : outcome.error().error.message());
        ASSERT_EQ(outcome.has_value(), model.possible(model.all_atoms()));
        if (outcome) {
            ++agreed;
            ASSERT_EQ(outcome->size(), expected.size());
            for (const FrameChoice& each : *outcome) {
                const auto rank = static_cast<std::size_t>(
                    std::ranges::find(of.request.formats, each.spec.format) -
                    of.request.formats.begin());
                const auto found = expected.find({rank, each.exporter});
                ASSERT_NE(found, expected.end()) << each.why;
                EXPECT_EQ(each.spec.modifiers, found->second) << each.why;
                EXPECT_EQ(each.spec.slack, model.largest(&ImporterCaps::slack)) << each.why;
                EXPECT_EQ(each.clear, of.request.zeroed && !of.exporters[each.exporter].zeroed);
            }
            expect_best_first(of, model, *outcome);
            continue;
        }
        Atoms blamed;
        for (const Conflict& each : outcome.error().conflicts) {
            blamed.insert({each.requirement, each.importer.value_or(0)});
            ++kinds[each.requirement];
        }
        ASSERT_EQ(blamed.size(), outcome.error().conflicts.size());
        ++sizes[blamed.size()];
        ASSERT_FALSE(model.possible(blamed)) << outcome.error().error.message();
        // What is less strict would not do.
        for (const auto& [requirement, importer] : blamed)
            for (const Requirement weaker : {Requirement::takes, Requirement::takes_for_uses})
                if (requirement >= Requirement::takes &&
                    requirement <= Requirement::takes_at_size && weaker < requirement) {
                    Atoms instead = blamed;
                    instead.erase({requirement, importer});
                    instead.insert({weaker, importer});
                    ASSERT_TRUE(model.possible(instead)) << outcome.error().error.message();
                }
        // And fewer would not.
        const Atoms all = model.all_atoms();
        if (blamed.size() > 4 || seed % 8 != 0) {
            for (const Atom& each : blamed) {
                Atoms rest = blamed;
                rest.erase(each);
                ASSERT_TRUE(model.possible(rest)) << outcome.error().error.message();
            }
            continue;
        }
        Atoms chosen;
        each_subset(std::vector(all.begin(), all.end()), blamed.size() - 1, 0, chosen,
                    [&](const Atoms& fewer) {
                        EXPECT_TRUE(model.possible(fewer)) << outcome.error().error.message();
                    });
        if (HasFailure())
            return;
    }
    EXPECT_GT(agreed, 100);
    for (const std::size_t size : {1U, 2U, 3U, 4U})
        EXPECT_GT(sizes[size], 5) << "conflicts of " << size;
    for (int each = 0; each < static_cast<int>(Requirement::alignment); ++each)
        EXPECT_GT(kinds[static_cast<Requirement>(each)], 0) << "requirement " << each;
}

} // namespace
} // namespace sluice
