// SPDX-License-Identifier: MIT
//
// Every way to make the frame (an exporter, a format, a modifier) is held against every
// requirement, which gives the set of those that it breaks. A way that breaks none is a choice.
// Where there is none, the requirements that cannot hold together are those that have one in common
// with each way's set, and the fewest such are the answer. What the exporters make is a requirement
// too: an exporter that is not there, and makes anything, breaks that one alone.
#include <sluice/negotiate.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <tuple>
#include <utility>

#include <drm_fourcc.h>

#include "frame/hitting_set.hpp"
#include "frame/linear_plan.hpp"
#include <sluice/format.hpp>

namespace sluice {

namespace {

using std::to_string;

constexpr const char* operation = "negotiate";

// -- words ----------------------------------------------------------------------------------------

constexpr std::size_t shown_at_most = 4; // of a list, for people

/// "a/b/c/d and 3 more".
std::string join(std::span<const std::string> names, const char* what = "") {
    std::string text;
    for (const std::string& each : names.first(std::min(names.size(), shown_at_most)))
        text += (text.empty() ? "" : "/") + each;
    if (names.size() > shown_at_most)
        text += " and " + to_string(names.size() - shown_at_most) + " more" + what;
    return text;
}

std::string short_name(std::uint32_t format) {
    const FormatInfo* info = find_format(format);
    return info ? std::string(info->name) : format_name(format);
}

std::string short_names(std::span<const std::uint32_t> formats) {
    std::vector<std::string> names;
    for (const std::uint32_t each : formats)
        names.push_back(short_name(each));
    return join(names);
}

std::string modifier_names(std::span<const std::uint64_t> modifiers) {
    std::vector<std::string> names;
    for (const std::uint64_t each : modifiers)
        names.push_back(modifier_name(each));
    return join(names, " modifiers");
}

/// "only LINEAR XR24/AR24, INTEL 0x100000000000001 XR24"; modifiers with the same formats share
/// them.
std::string layout_names(std::span<const FormatSupport* const> layouts) {
    std::vector<std::uint64_t> modifiers; // in the order in which they are listed
    std::map<std::uint64_t, std::vector<std::uint32_t>> formats;
    for (const FormatSupport* each : layouts) {
        std::vector<std::uint32_t>& of = formats[each->modifier];
        if (of.empty())
            modifiers.push_back(each->modifier);
        if (of.empty() || of.back() != each->format)
            of.push_back(each->format);
    }
    std::vector<std::pair<std::vector<std::uint32_t>, std::vector<std::uint64_t>>> groups;
    std::map<std::vector<std::uint32_t>, std::size_t> group_of;
    for (const std::uint64_t modifier : modifiers) {
        const auto [at, is_new] = group_of.emplace(formats[modifier], groups.size());
        if (is_new)
            groups.emplace_back(at->first, std::vector<std::uint64_t>());
        groups[at->second].second.push_back(modifier);
    }
    std::string text;
    for (std::size_t i = 0; i < std::min(groups.size(), shown_at_most); ++i)
        text += (i == 0 ? "" : ", ") + modifier_names(groups[i].second) + " " +
                short_names(groups[i].first);
    if (groups.size() > shown_at_most)
        text += " and more";
    return text.empty() ? "nothing" : "only " + text;
}

std::string size_text(std::uint32_t width, std::uint32_t height) {
    return to_string(width) + "x" + to_string(height);
}

std::string name_of(const ImporterCaps& importer) {
    return importer.name.empty() ? "somebody" : importer.name;
}

std::string name_of(const ExporterCaps& exporter) {
    return exporter.name.empty() ? "an exporter" : exporter.name;
}

std::string list_names(std::span<const std::string> names) {
    std::string text;
    for (std::size_t i = 0; i < names.size(); ++i)
        text += (i == 0 ? "" : i + 1 == names.size() ? " and " : ", ") + names[i];
    return text;
}

// -- coherency ------------------------------------------------------------------------------------

struct Verdict {
    Coherency coherency = Coherency::unknown;
    std::string why;
};

bool on_cpu(const ImporterUse& importer) {
    return importer.caps->maps || (importer.uses & cpu_uses) != Uses::none;
}

/// Whether everyone sees what the others wrote into \p exporter's memory.
Verdict coherency_of(const ExporterCaps& exporter, std::span<const ImporterUse> importers) {
    std::vector<std::string> snooping, blind, silent;
    const ImporterCaps* device = nullptr;
    bool several = false;
    bool cpu = false;
    for (const ImporterUse& each : importers) {
        cpu = cpu || on_cpu(each);
        if (each.caps->maps)
            continue;
        (each.caps->snooping == Snooping::yes  ? snooping
         : each.caps->snooping == Snooping::no ? blind
                                               : silent)
            .push_back(name_of(*each.caps));
        several = several || (device != nullptr &&
                              (device->device.empty() || device->device != each.caps->device));
        device = each.caps;
    }
    if (exporter.cpu_caching == CpuCaching::bypassed)
        return {Coherency::always, "the CPU's caches are not used for " + name_of(exporter)};
    if (blind.empty() && silent.empty())
        return {Coherency::always, snooping.empty()
                                       ? "the CPU alone uses it"
                                       : list_names(snooping) + " look into the CPU's caches"};
    if (cpu && exporter.cpu_caching == CpuCaching::unmaintained && !blind.empty())
        return {Coherency::incoherent, list_names(blind) +
                                           " cannot look into the CPU's caches, and nothing "
                                           "writes those back for " +
                                           name_of(exporter)};
    // Among several devices it is enough that all are of one kind.
    if (several && !silent.empty())
        return {Coherency::unknown,
                "nobody says whether " + list_names(silent) + " look into the CPU's caches"};
    if (several && !snooping.empty())
        return {Coherency::unknown, list_names(snooping) + " look into the CPU's caches, and " +
                                        list_names(blind) + " do not"};
    if (!cpu)
        return {Coherency::always, several ? "no device looks into the CPU's caches, and the CPU "
                                             "does not use it"
                                           : "one device alone uses it"};
    if (exporter.cpu_caching == CpuCaching::maintained)
        return {Coherency::bracketed, name_of(exporter) +
                                          " keeps the CPU's caches right between the brackets of "
                                          "an access"};
    return {Coherency::unknown,
            exporter.cpu_caching == CpuCaching::unknown
                ? "nobody says how the CPU's caches are kept right for " + name_of(exporter)
                : "nobody says whether " + list_names(silent) + " look into the CPU's caches"};
}

// -- layouts --------------------------------------------------------------------------------------

/// One way to lay a frame out.
struct Layout {
    std::uint32_t format = 0;
    std::uint64_t modifier = 0;
    std::uint32_t planes = 0; // 0: nobody says

    [[nodiscard]] bool operator==(const Layout&) const noexcept = default;
    [[nodiscard]] bool operator<(const Layout& other) const noexcept {
        return std::tie(format, modifier, planes) <
               std::tie(other.format, other.modifier, other.planes);
    }
};

Layout layout_of(const FormatSupport& support) {
    std::uint32_t planes = support.plane_count;
    if (planes == 0 &&
        (support.modifier == DRM_FORMAT_MOD_LINEAR || support.modifier == DRM_FORMAT_MOD_INVALID))
        if (const FormatInfo* format = find_format(support.format))
            planes = format->plane_count;
    return {support.format, support.modifier, planes};
}

bool is(const FormatSupport& support, const Layout& layout) {
    const Layout of = layout_of(support);
    return of.format == layout.format && of.modifier == layout.modifier &&
           (of.planes == layout.planes || of.planes == 0 || layout.planes == 0);
}

/// What a party lists, sorted for the search.
class Listed {
public:
    explicit Listed(std::span<const FormatSupport> formats) {
        for (const FormatSupport& each : formats)
            sorted_.push_back(&each);
        std::ranges::stable_sort(sorted_, {}, key);
    }

    /// All entries with this format and modifier.
    [[nodiscard]] std::span<const FormatSupport* const> find(const Layout& layout) const {
        const auto first =
            std::ranges::lower_bound(sorted_, std::pair(layout.format, layout.modifier), {}, key);
        const auto last = std::find_if(first, sorted_.end(), [&](const FormatSupport* each) {
            return each->format != layout.format || each->modifier != layout.modifier;
        });
        return {first, last};
    }

private:
    static std::pair<std::uint32_t, std::uint64_t> key(const FormatSupport* each) {
        return {each->format, each->modifier};
    }

    std::vector<const FormatSupport*> sorted_;
};

bool same_device(const ImporterCaps& importer, const std::string& device) {
    return !device.empty() && importer.device == device;
}

// -- requirements ---------------------------------------------------------------------------------

constexpr auto first_of_importers = static_cast<std::size_t>(Requirement::takes);
constexpr std::size_t per_importer =
    static_cast<std::size_t>(Requirement::alignment) - first_of_importers;
static_assert(first_of_importers + per_importer * max_importers <= NumberSet::capacity);

constexpr std::size_t number(Requirement requirement) {
    return static_cast<std::size_t>(requirement);
}
constexpr std::size_t number(Requirement requirement, std::size_t importer) {
    return number(requirement) + importer * per_importer;
}

using Broken = NumberSet; // requirements that do not hold

/// A way to make the frame that breaks nothing.
struct Option {
    std::size_t format_rank = 0;
    std::size_t exporter = 0;
    std::vector<std::uint64_t> modifiers;
    bool one_buffer = false;
    /// What it is judged by, the weightiest first; less is better.
    std::array<std::size_t, 7> rank{};
};

class Negotiation {
public:
    Negotiation(std::span<const ExporterCaps* const> exporters,
                std::span<const ImporterUse> importers, const FrameRequest& request)
        : exporters_(exporters), importers_(importers),
          request_(request), spec_{.width = request.width,
                                   .height = request.height,
                                   .name = request.name} {
        for (const ImporterUse& each : importers) {
            listed_.emplace_back(each.caps->formats);
            spec_.min_size = std::max(spec_.min_size, each.caps->min_size);
            says_stride_ = says_stride_ && each.caps->stride_alignment != 0;
        }
        align("strides in multiples of ", " bytes", &ImporterCaps::stride_alignment,
              spec_.stride_alignment, INT32_MAX);
        align("a height in multiples of ", " rows", &ImporterCaps::height_alignment,
              spec_.height_alignment, UINT32_MAX);
        align("offsets in multiples of ", " bytes", &ImporterCaps::offset_alignment,
              spec_.offset_alignment, UINT32_MAX);
        for (const ExporterCaps* each : exporters) {
            verdicts_.push_back(coherency_of(*each, importers));
            broken_by_exporter_.push_back(broken_by(*each, verdicts_.back()));
        }
        list_layouts();
    }

    tl::expected<std::vector<FrameChoice>, NoChoice> run() {
        for (std::size_t i = 0; i < exporters_.size(); ++i)
            try_exporter(i);
        if (options_.empty() || !alignment_conflicts_.empty())
            return tl::unexpected(no_choice());
        return choices();
    }

private:
    // -- what everybody together needs ------------------------------------------------------------

    /// Combines one alignment, or notes the fewest importers whose alignments do not go together.
    void align(const char* before, const char* after, std::uint32_t ImporterCaps::*field,
               std::uint32_t& into, std::uint64_t limit) {
        const auto combined = [&](std::uint32_t members) {
            std::optional<std::uint64_t> all = 1;
            for (std::size_t i = 0; all && i < importers_.size(); ++i)
                if ((members >> i & 1) != 0)
                    all = common_multiple(*all, importers_[i].caps->*field, limit);
            return all;
        };
        const std::uint32_t everybody = (1U << importers_.size()) - 1;
        if (const auto all = combined(everybody)) {
            into = *all == 1 ? 0 : static_cast<std::uint32_t>(*all);
            return;
        }
        std::uint32_t fewest = everybody;
        for (std::uint32_t members = 1; members < everybody; ++members)
            if (std::popcount(members) < std::popcount(fewest) && !combined(members))
                fewest = members;
        std::vector<Conflict> conflicts;
        for (std::size_t i = 0; i < importers_.size(); ++i)
            if ((fewest >> i & 1) != 0)
                conflicts.push_back({Requirement::alignment, i,
                                     name_of(*importers_[i].caps) + " takes only " + before +
                                         to_string(importers_[i].caps->*field) + after});
        conflicts.back().text +=
            (conflicts.size() == 1 ? ", above the limit of " : ", together above the limit of ") +
            to_string(limit);
        if (alignment_conflicts_.empty() || conflicts.size() < alignment_conflicts_.size())
            alignment_conflicts_ = std::move(conflicts);
    }

    /// The stride alignment to ask \p exporter for.
    [[nodiscard]] std::uint32_t stride_alignment(bool lays_out_frames) const {
        if (lays_out_frames || (says_stride_ && !importers_.empty()))
            return spec_.stride_alignment;
        return static_cast<std::uint32_t>(
            common_multiple(spec_.stride_alignment, default_stride_alignment, INT32_MAX)
                .value_or(spec_.stride_alignment));
    }

    struct Need {
        std::uint64_t size = 0; // bytes
        std::string problem;    // where there can be no such frame
    };

    /// What a LINEAR frame of \p format comes to where the driver lays out frames, or sluice.
    const Need& need(std::uint32_t format, bool lays_out_frames) {
        const auto [at, is_new] = needs_.try_emplace(std::pair(format, lays_out_frames));
        if (is_new) {
            FrameSpec spec = spec_;
            spec.format = format;
            const auto plan = plan_linear(spec, std::max(stride_alignment(lays_out_frames), 1U));
            if (plan)
                at->second.size = plan->size;
            else if (plan.error().code == Errc::unsupported) // sluice knows nothing of it
                at->second.size = spec_.min_size;
            else
                at->second.problem = plan.error().problem;
        }
        return at->second;
    }

    // -- what is broken by what -------------------------------------------------------------------

    /// Everything about an exporter that is the same for all its layouts.
    [[nodiscard]] Broken broken_by(const ExporterCaps& exporter, const Verdict& verdict) const {
        Broken broken;
        if (request_.zeroed && !exporter.zeroed && !exporter.cpu_mappable)
            broken.insert(number(Requirement::zeroed));
        if (verdict.coherency == Coherency::incoherent ||
            (request_.known_coherent && verdict.coherency == Coherency::unknown))
            broken.insert(number(Requirement::coherency));
        for (std::size_t i = 0; i < importers_.size(); ++i) {
            const ImporterCaps& importer = *importers_[i].caps;
            const bool own = same_device(importer, exporter.device);
            if (!own && !importer.foreign)
                broken.insert(number(Requirement::own_device, i));
            if (!own && !importer.memory.empty() &&
                std::ranges::find(importer.memory, exporter.memory) == importer.memory.end())
                broken.insert(number(Requirement::memory, i));
            if (on_cpu(importers_[i]) && !exporter.cpu_mappable)
                broken.insert(number(Requirement::cpu_mapping, i));
        }
        return broken;
    }

    [[nodiscard]] bool fits(const ImporterCaps& importer, const FormatSupport& support) const {
        return request_.width <= support.max_width && request_.height <= support.max_height &&
               request_.width >= importer.min_width && request_.height >= importer.min_height;
    }

    /// What importers and request have against \p layout. What is not taken at all is not taken for
    /// a use either, nor in a size.
    [[nodiscard]] Broken broken_by(const Layout& layout, const std::string& device) const {
        Broken broken;
        if (std::ranges::find(request_.formats, layout.format) == request_.formats.end())
            broken.insert(number(Requirement::formats));
        for (std::size_t i = 0; i < importers_.size(); ++i) {
            const ImporterUse& importer = importers_[i];
            bool takes = false, for_uses = false, at_size = false;
            if (layout.modifier != DRM_FORMAT_MOD_INVALID || same_device(*importer.caps, device))
                for (const FormatSupport* each : listed_[i].find(layout)) {
                    if (!is(*each, layout))
                        continue;
                    takes = true;
                    if (!contains(each->uses, importer.uses))
                        continue;
                    for_uses = true;
                    at_size = at_size || fits(*importer.caps, *each);
                }
            if (!takes)
                broken.insert(number(Requirement::takes, i));
            if (!for_uses)
                broken.insert(number(Requirement::takes_for_uses, i));
            if (!at_size)
                broken.insert(number(Requirement::takes_at_size, i));
        }
        return broken;
    }

    /// The requirements that \p size bytes break.
    [[nodiscard]] Broken broken_by(std::optional<std::uint64_t> size, std::uint64_t limit) const {
        Broken broken;
        if (!size || *size > limit)
            broken.insert(number(Requirement::size));
        for (std::size_t i = 0; i < importers_.size(); ++i)
            if (size && *size > importers_[i].caps->max_size)
                broken.insert(number(Requirement::max_size, i));
        return broken;
    }

    [[nodiscard]] Broken broken_by_size(const Layout& layout, bool lays_out_frames,
                                        std::uint64_t granularity, std::uint64_t limit) {
        if (layout.modifier != DRM_FORMAT_MOD_LINEAR) // its driver knows
            return broken_by(round_up(spec_.min_size, granularity), limit);
        const Need& bytes = need(layout.format, lays_out_frames);
        return bytes.problem.empty() ? broken_by(round_up(bytes.size, granularity), limit)
                                     : broken_by(std::nullopt, limit);
    }

    /// All that anybody names, each with what is against it, whoever makes it.
    void list_layouts() {
        const auto list = [&](std::span<const FormatSupport> formats) {
            for (const FormatSupport& each : formats)
                if (!importers_.empty() || each.modifier == DRM_FORMAT_MOD_LINEAR)
                    layouts_.push_back(layout_of(each));
        };
        for (const ExporterCaps* each : exporters_)
            list(each->formats);
        for (const ImporterUse& each : importers_)
            list(each.caps->formats);
        std::sort(layouts_.begin(), layouts_.end());
        const auto same = [](const Layout& a, const Layout& b) {
            return a.format == b.format && a.modifier == b.modifier;
        };
        // Who does not say the planes means the same as one who does.
        std::vector<Layout> kept;
        for (std::size_t i = 0; i < layouts_.size(); ++i) {
            const bool last = i + 1 == layouts_.size();
            if (!last && (layouts_[i] == layouts_[i + 1] ||
                          (layouts_[i].planes == 0 && same(layouts_[i], layouts_[i + 1]))))
                continue;
            kept.push_back(layouts_[i]);
        }
        layouts_ = std::move(kept);
        for (const Layout& each : layouts_)
            broken_by_layout_.push_back(broken_by(each, {}));
    }

    /// Holds each layout of an exporter against everything.
    void try_exporter(std::size_t index) {
        const ExporterCaps& exporter = *exporters_[index];
        for (const FormatSupport& made : exporter.formats) {
            Broken by_use;
            for (std::size_t i = 0; i < importers_.size(); ++i)
                if (!contains(made.uses, importers_[i].uses - cpu_uses))
                    by_use.insert(number(Requirement::made_for_uses, i));
            if (request_.width > made.max_width || request_.height > made.max_height)
                by_use.insert(number(Requirement::size));
            const Layout first{made.format, made.modifier, 0};
            for (auto at = std::lower_bound(layouts_.begin(), layouts_.end(), first);
                 at != layouts_.end() && at->format == made.format && at->modifier == made.modifier;
                 ++at) {
                if (!is(made, *at))
                    continue;
                const Broken broken =
                    by_use | broken_by_exporter_[index] |
                    (at->modifier == DRM_FORMAT_MOD_INVALID
                         ? broken_by(*at, exporter.device)
                         : broken_by_layout_[static_cast<std::size_t>(at - layouts_.begin())]) |
                    broken_by_size(*at, exporter.lays_out_frames, exporter.granularity,
                                   exporter.max_size);
                ways_.emplace_back(broken, index);
                if (broken.empty())
                    add_option(index, *at);
            }
        }
    }

    void add_option(std::size_t exporter, const Layout& layout) {
        const auto format_rank = static_cast<std::size_t>(
            std::ranges::find(request_.formats, layout.format) - request_.formats.begin());
        Option& option = options_[{format_rank, exporter}];
        option.format_rank = format_rank;
        option.exporter = exporter;
        if (std::ranges::find(option.modifiers, layout.modifier) == option.modifiers.end())
            option.modifiers.push_back(layout.modifier);
        for (std::size_t i = 0; i < importers_.size(); ++i)
            option.one_buffer =
                option.one_buffer ||
                std::ranges::none_of(listed_[i].find(layout), [&](const FormatSupport* each) {
                    return each->disjoint && is(*each, layout) &&
                           contains(each->uses, importers_[i].uses) &&
                           fits(*importers_[i].caps, *each);
                });
    }

    // -- the choices ------------------------------------------------------------------------------

    /// The device of the importer that takes the fewest layouts in this size, of those that have a
    /// device.
    [[nodiscard]] const ImporterCaps* pickiest() const {
        const ImporterCaps* found = nullptr;
        std::size_t fewest = SIZE_MAX;
        for (const ImporterUse& importer : importers_) {
            if (importer.caps->device.empty())
                continue;
            const auto count = static_cast<std::size_t>(
                std::ranges::count_if(importer.caps->formats, [&](const FormatSupport& each) {
                    return contains(each.uses, importer.uses) && fits(*importer.caps, each);
                }));
            if (count < fewest) {
                fewest = count;
                found = importer.caps;
            }
        }
        return found;
    }

    void judge(Option& option, const ImporterCaps* pickiest) const {
        const ExporterCaps& exporter = *exporters_[option.exporter];
        const bool cpu_reads = std::ranges::any_of(importers_, [](const ImporterUse& each) {
            return contains(each.uses, Uses::cpu_read);
        });
        std::size_t caching = 0;
        if (cpu_reads)
            caching = exporter.cpu_caching == CpuCaching::unknown    ? 1
                      : exporter.cpu_caching == CpuCaching::bypassed ? 2
                                                                     : 0;
        std::size_t native = 2;
        for (const ImporterUse& each : importers_)
            if (same_device(*each.caps, exporter.device))
                native = std::min<std::size_t>(native, each.caps == pickiest ? 0 : 1);
        option.rank = {option.format_rank,
                       std::size_t{verdicts_[option.exporter].coherency == Coherency::unknown},
                       caching,
                       option.modifiers.front() == DRM_FORMAT_MOD_LINEAR    ? 1U
                       : option.modifiers.front() == DRM_FORMAT_MOD_INVALID ? 2U
                                                                            : 0U,
                       native,
                       std::size_t{request_.zeroed && !exporter.zeroed},
                       option.exporter};
    }

    std::vector<FrameChoice> choices() {
        const ImporterCaps* picky = pickiest();
        std::vector<Option> options;
        for (auto& [key, option] : options_) {
            // The exporter's order, LINEAR last, and no unnamed layout beside one with a name.
            std::ranges::stable_sort(option.modifiers, {}, [](std::uint64_t modifier) {
                return modifier == DRM_FORMAT_MOD_INVALID  ? 2
                       : modifier == DRM_FORMAT_MOD_LINEAR ? 1
                                                           : 0;
            });
            if (option.modifiers.size() > 1 && option.modifiers.back() == DRM_FORMAT_MOD_INVALID)
                option.modifiers.pop_back();
            judge(option, picky);
            options.push_back(std::move(option));
        }
        std::ranges::sort(options, {}, &Option::rank);
        std::vector<FrameChoice> all;
        for (std::size_t i = 0; i < options.size(); ++i) {
            const Option& option = options[i];
            const ExporterCaps& exporter = *exporters_[option.exporter];
            FrameChoice choice{.exporter = option.exporter, .spec = spec_};
            choice.spec.format = request_.formats[option.format_rank];
            choice.spec.modifiers = option.modifiers;
            choice.spec.stride_alignment = stride_alignment(exporter.lays_out_frames);
            choice.spec.one_buffer = option.one_buffer;
            choice.clear = request_.zeroed && !exporter.zeroed;
            choice.coherency = verdicts_[option.exporter].coherency;
            choice.coherency_why = verdicts_[option.exporter].why;
            choice.why =
                name_of(exporter) + " makes " + short_name(choice.spec.format) + " " +
                modifier_names(option.modifiers) + ": " +
                why(option, i + 1 < options.size() ? &options[i + 1] : nullptr, i == 0, picky);
            all.push_back(std::move(choice));
        }
        return all;
    }

    /// What puts \p option before \p next.
    [[nodiscard]] std::string why(const Option& option, const Option* next, bool best,
                                  const ImporterCaps* pickiest) const {
        if (next == nullptr)
            return best ? "there is no other choice" : "the last choice";
        const std::string other = name_of(*exporters_[next->exporter]);
        const auto differs = std::ranges::mismatch(option.rank, next->rank).in1;
        switch (differs - option.rank.begin()) {
        case 0:
            return short_name(request_.formats[option.format_rank]) + " is asked for before " +
                   short_name(request_.formats[next->format_rank]);
        case 1:
            return "all see what the others write there, which nobody says of " + other;
        case 2:
            return "the CPU reads it through its caches, which is not said of " + other;
        case 3:
            return "it leaves a choice of layouts, where " + other + " makes " +
                   modifier_names(next->modifiers) + " alone";
        case 4:
            return option.rank[4] == 0
                       ? "it is the device of " + name_of(*pickiest) + ", which takes least"
                       : "it is the device of an importer, which " + other + " is not";
        case 5:
            return "it comes zeroed, where what " + other + " makes must be cleared";
        default:
            return "it is listed before " + other;
        }
    }

    // -- the conflicts ----------------------------------------------------------------------------

    NoChoice no_choice() {
        std::vector<Conflict> conflicts;
        if (options_.empty())
            conflicts = conflicts_of(smallest_conflict());
        if (!alignment_conflicts_.empty() &&
            (conflicts.empty() || alignment_conflicts_.size() < conflicts.size()))
            conflicts = alignment_conflicts_;
        std::string problem;
        for (const Conflict& each : conflicts)
            problem += (problem.empty() ? "" : "; ") + each.text;
        const bool among_importers = std::ranges::any_of(
            conflicts, [](const Conflict& each) { return each.importer.has_value(); });
        return {.error = {.code = Errc::unsupported,
                          .operation = operation,
                          .object = describe(),
                          .problem = std::move(problem),
                          .remedy = among_importers
                                        ? "Let one of them have a copy, or offer other exporters"
                                        : "Ask for less, or offer other exporters"},
                .conflicts = std::move(conflicts)};
    }

    [[nodiscard]] std::string describe() const {
        return size_text(request_.width, request_.height) + " " + short_names(request_.formats);
    }

    NumberSet smallest_conflict() {
        std::vector<NumberSet> ways;
        for (const auto& [broken, exporter] : ways_)
            ways.push_back(broken);
        // An exporter that makes everything, on whichever device.
        const auto wish = [&](Broken broken) {
            broken.insert(number(Requirement::exporters));
            ways.push_back(broken);
        };
        for (std::size_t i = 0; i < layouts_.size(); ++i) {
            const Broken by_size = broken_by_size(layouts_[i], true, 0, UINT64_MAX);
            if (layouts_[i].modifier != DRM_FORMAT_MOD_INVALID)
                wish(broken_by_layout_[i] | by_size);
            else
                for (const ImporterUse& each : importers_)
                    wish(broken_by(layouts_[i], each.caps->device) | by_size);
        }
        // ... and a layout that nobody names.
        Broken unnamed;
        for (std::size_t i = 0; i < importers_.size(); ++i) {
            unnamed.insert(number(Requirement::takes, i));
            unnamed.insert(number(Requirement::takes_for_uses, i));
            unnamed.insert(number(Requirement::takes_at_size, i));
        }
        wish(unnamed);
        std::sort(ways.begin(), ways.end());
        ways.erase(std::unique(ways.begin(), ways.end()), ways.end());

        // What an importer takes counts once in the search, at its strictest; then the least strict
        // that will do is found.
        std::vector<NumberSet> strictest = ways;
        for (NumberSet& each : strictest)
            for (std::size_t i = 0; i < importers_.size(); ++i) {
                each.erase(number(Requirement::takes, i));
                each.erase(number(Requirement::takes_for_uses, i));
            }
        NumberSet chosen = smallest_hitting_set(std::move(strictest));
        for (std::size_t i = 0; i < importers_.size(); ++i)
            for (const Requirement weaker : {Requirement::takes, Requirement::takes_for_uses}) {
                if (!chosen.contains(number(Requirement::takes_at_size, i)))
                    break;
                NumberSet instead = chosen;
                instead.erase(number(Requirement::takes_at_size, i));
                instead.insert(number(weaker, i));
                if (std::ranges::all_of(
                        ways, [&](const NumberSet& each) { return each.intersects(instead); }))
                    chosen = instead;
            }
        return chosen;
    }

    std::vector<Conflict> conflicts_of(const NumberSet& chosen) {
        std::vector<Conflict> importers, others;
        for (const std::size_t each : chosen.numbers()) {
            if (each < first_of_importers) {
                const auto requirement = static_cast<Requirement>(each);
                others.push_back({requirement, {}, text_of(requirement, chosen)});
                continue;
            }
            const std::size_t importer = (each - first_of_importers) / per_importer;
            const auto requirement = static_cast<Requirement>(each - importer * per_importer);
            importers.push_back({requirement, importer, text_of(requirement, importer, chosen)});
        }
        importers.insert(importers.end(), std::make_move_iterator(others.begin()),
                         std::make_move_iterator(others.end()));
        return importers;
    }

    /// Those of \p formats that are asked for, where that is part of the conflict; all of them
    /// where none is.
    [[nodiscard]] std::vector<const FormatSupport*>
    asked_for(const std::vector<const FormatSupport*>& formats, const NumberSet& chosen) const {
        std::vector<const FormatSupport*> asked;
        for (const FormatSupport* each : formats)
            if (std::ranges::find(request_.formats, each->format) != request_.formats.end())
                asked.push_back(each);
        return chosen.contains(number(Requirement::formats)) && !asked.empty() ? asked : formats;
    }

    /// An importer's limits in pixels for \p formats, none of which it takes in this size.
    [[nodiscard]] std::string limits_of(const ImporterCaps& importer,
                                        std::span<const FormatSupport* const> formats) const {
        const FormatSupport* largest =
            *std::ranges::max_element(formats, {}, [](const FormatSupport* each) {
                return std::uint64_t{each->max_width} * each->max_height;
            });
        const std::string most = size_text(largest->max_width, largest->max_height);
        const std::string least = size_text(importer.min_width, importer.min_height);
        const bool too_small =
            request_.width < importer.min_width || request_.height < importer.min_height;
        return (most == least ? "exactly " + most
                : too_small   ? "at least " + least
                              : "at most " + most) +
               " pixels";
    }

    std::string text_of(Requirement requirement, std::size_t index, const NumberSet& chosen) {
        const ImporterUse& importer = importers_[index];
        const ImporterCaps& caps = *importer.caps;
        const std::string to_use =
            importer.uses == Uses::none ? "" : " to " + to_string(importer.uses);
        std::vector<const FormatSupport*> all, for_uses, at_size;
        for (const FormatSupport& each : caps.formats) {
            all.push_back(&each);
            if (!contains(each.uses, importer.uses))
                continue;
            for_uses.push_back(&each);
            if (fits(caps, each))
                at_size.push_back(&each);
        }
        switch (requirement) {
        case Requirement::takes:
            return name_of(caps) + " takes " + layout_names(asked_for(all, chosen));
        case Requirement::takes_for_uses:
            return name_of(caps) + " takes " + layout_names(asked_for(for_uses, chosen)) + to_use;
        case Requirement::takes_at_size:
            if (at_size.empty())
                return name_of(caps) + " takes " + limits_of(caps, asked_for(for_uses, chosen)) +
                       to_use + ", and the frame is " + size_text(request_.width, request_.height);
            return name_of(caps) + " takes " + layout_names(asked_for(at_size, chosen)) + to_use +
                   " at " + size_text(request_.width, request_.height);
        case Requirement::max_size:
            return name_of(caps) + " takes at most " + to_string(caps.max_size) + " bytes, and " +
                   bytes_needed();
        case Requirement::memory: {
            std::vector<std::string> kinds;
            for (const MemoryKind each : caps.memory)
                kinds.emplace_back(to_string(each));
            return name_of(caps) + " takes only " + join(kinds) + " memory";
        }
        case Requirement::own_device:
            return name_of(caps) + " takes only its own device's buffers";
        case Requirement::made_for_uses:
            return name_of(caps) + " needs a buffer that was made" + to_use;
        default:
            return name_of(caps) + " must map the buffer to the CPU";
        }
    }

    /// What the first format comes to that is asked for.
    std::string bytes_needed() {
        const Need& bytes = need(request_.formats.front(), false);
        const std::string frame =
            size_text(request_.width, request_.height) + " " + short_name(request_.formats.front());
        return bytes.problem.empty() ? frame + " LINEAR needs " + to_string(bytes.size) + " bytes"
                                     : frame + " LINEAR cannot be: " + bytes.problem;
    }

    std::string text_of(Requirement requirement, const NumberSet& chosen) {
        switch (requirement) {
        case Requirement::formats:
            return "the frame is to be " + short_names(request_.formats);
        case Requirement::size:
            return bytes_needed();
        case Requirement::zeroed:
            return "the frame must start out zero";
        case Requirement::coherency:
            return "everyone must see what the others write";
        default:
            break;
        }
        std::string text;
        for (std::size_t i = 0; i < exporters_.size(); ++i)
            text += (i == 0 ? "" : ", ") + exporter_text(i, chosen);
        return text.empty() ? "there is no exporter" : text;
    }

    /// What of an exporter does not go with the rest of the conflict.
    std::string exporter_text(std::size_t index, const NumberSet& chosen) {
        const ExporterCaps& exporter = *exporters_[index];
        Broken in_the_way;
        for (const auto& [broken, of] : ways_)
            if (of == index)
                in_the_way |= broken & chosen;
        std::vector<std::string> parts;
        bool layouts = exporter.formats.empty() || in_the_way.empty() ||
                       in_the_way.contains(number(Requirement::formats));
        bool memory = false, own = false, uses = false, maps = false;
        for (std::size_t i = 0; i < importers_.size(); ++i) {
            const auto broken = [&](Requirement each) {
                return in_the_way.contains(number(each, i));
            };
            layouts = layouts || broken(Requirement::takes) ||
                      broken(Requirement::takes_for_uses) || broken(Requirement::takes_at_size);
            memory = memory || broken(Requirement::memory);
            own = own || broken(Requirement::own_device);
            uses = uses || broken(Requirement::made_for_uses);
            maps = maps || broken(Requirement::cpu_mapping);
        }
        if (layouts) {
            std::vector<const FormatSupport*> all;
            for (const FormatSupport& each : exporter.formats)
                all.push_back(&each);
            parts.push_back("makes " + layout_names(asked_for(all, chosen)));
        }
        if (in_the_way.contains(number(Requirement::size)))
            parts.push_back(limit_text(exporter));
        if (memory)
            parts.push_back("has " + std::string(to_string(exporter.memory)) + " memory");
        if (own)
            parts.emplace_back("is no device of theirs");
        if (uses)
            parts.emplace_back("was not told of that use");
        if (maps)
            parts.emplace_back("gives the CPU no mapping");
        if (in_the_way.contains(number(Requirement::zeroed)))
            parts.emplace_back("promises no zeros, and the CPU cannot map its buffers to clear "
                               "them");
        if (in_the_way.contains(number(Requirement::coherency)))
            parts.push_back("does not promise that: " + verdicts_[index].why);
        return name_of(exporter) + " " + list_names(parts);
    }

    [[nodiscard]] std::string limit_text(const ExporterCaps& exporter) const {
        std::uint32_t width = 0, height = 0;
        for (const FormatSupport& each : exporter.formats) {
            width = std::max(width, each.max_width);
            height = std::max(height, each.max_height);
        }
        if (request_.width > width || request_.height > height)
            return "makes at most " + size_text(width, height) + " pixels";
        return "makes at most " + to_string(exporter.max_size) + " bytes" +
               (exporter.max_size_source.empty() ? "" : " (" + exporter.max_size_source + ")");
    }

    std::span<const ExporterCaps* const> exporters_;
    std::span<const ImporterUse> importers_;
    const FrameRequest& request_;
    FrameSpec spec_; // what everybody together needs; format and modifiers are open
    bool says_stride_ = true;
    std::vector<Conflict> alignment_conflicts_;
    std::map<std::pair<std::uint32_t, bool>, Need> needs_;
    std::vector<Listed> listed_;    // of each importer
    std::vector<Verdict> verdicts_; // of each exporter
    std::vector<Broken> broken_by_exporter_;
    std::vector<Layout> layouts_;
    std::vector<Broken> broken_by_layout_;
    std::vector<std::pair<Broken, std::size_t>> ways_; // by which exporter
    std::map<std::pair<std::size_t, std::size_t>, Option> options_;
};

/// Why \p request makes no sense, or an empty text.
std::string nonsense(std::span<const ExporterCaps* const> exporters,
                     std::span<const ImporterUse> importers, const FrameRequest& request) {
    if (request.width == 0 || request.height == 0)
        return "it has no pixels";
    if (request.formats.empty())
        return "it names no format";
    if (importers.size() > max_importers)
        return to_string(importers.size()) + " importers, and at most " + to_string(max_importers) +
               " can share a frame";
    if (std::ranges::find(exporters, nullptr) != exporters.end())
        return "an exporter is null";
    if (std::ranges::find(importers, nullptr, &ImporterUse::caps) != importers.end())
        return "ImporterUse::caps is null";
    return {};
}

} // namespace

std::string_view to_string(Coherency coherency) noexcept {
    switch (coherency) {
    case Coherency::always:
        return "always";
    case Coherency::bracketed:
        return "bracketed";
    case Coherency::incoherent:
        return "incoherent";
    case Coherency::unknown:
        break;
    }
    return "unknown";
}

tl::expected<std::vector<FrameChoice>, NoChoice>
negotiate(std::span<const ExporterCaps* const> exporters, std::span<const ImporterUse> importers,
          const FrameRequest& request) noexcept {
    if (std::string problem = nonsense(exporters, importers, request); !problem.empty())
        return tl::unexpected(
            NoChoice{.error = {.code = Errc::invalid_argument,
                               .operation = operation,
                               .object = size_text(request.width, request.height) + " " +
                                         short_names(request.formats),
                               .problem = std::move(problem),
                               .remedy = "Give pixels, a format, and everybody's capabilities"},
                     .conflicts = {}});
    return Negotiation(exporters, importers, request).run();
}

} // namespace sluice
