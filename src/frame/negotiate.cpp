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

#include "frame/coherency.hpp"
#include "frame/conflict.hpp"
#include "frame/linear_plan.hpp"
#include "frame/multiples.hpp"
#include "frame/negotiate_words.hpp"
#include <sluice/format.hpp>

namespace sluice {

namespace {

using std::to_string;

constexpr const char* operation = "negotiate";

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

constexpr std::size_t slow = 2; // of how the CPU reads

/// Ways to make the frame that break nothing: an exporter with a format.
struct Option {
    std::size_t format_rank = 0;
    std::size_t exporter = 0;
    std::vector<std::uint64_t> modifiers;
    bool one_buffer = false;
    /// What it is judged by, the weightiest first; less is better.
    std::array<std::size_t, 7> rank{};
};

std::string describe(const FrameRequest& request) {
    return size_text(request.width, request.height) + " " + short_names(request.formats);
}

class Negotiation {
public:
    Negotiation(std::span<const ExporterCaps* const> exporters,
                std::span<const ImporterUse> importers, const FrameRequest& request)
        : exporters_(exporters), importers_(importers),
          request_(request), situation_{exporters, importers, request, {}, {}, {}},
          spec_{.width = request.width, .height = request.height, .name = request.name} {
        for (const ImporterUse& each : importers) {
            listed_.emplace_back(each.caps->formats);
            spec_.min_size = std::max(spec_.min_size, each.caps->min_size);
            spec_.slack = std::max(spec_.slack, each.caps->slack);
            says_stride_ = says_stride_ && each.caps->stride_alignment != 0;
        }
        align("strides in multiples of ", " bytes", &ImporterCaps::stride_alignment,
              spec_.stride_alignment, INT32_MAX);
        align("a height in multiples of ", " rows", &ImporterCaps::height_alignment,
              spec_.height_alignment, UINT32_MAX);
        align("offsets in multiples of ", " bytes", &ImporterCaps::offset_alignment,
              spec_.offset_alignment, UINT32_MAX);
        align("a size in multiples of ", " bytes", &ImporterCaps::size_alignment,
              spec_.size_alignment, UINT32_MAX);
        for (const ExporterCaps* each : exporters) {
            situation_.verdicts.push_back(coherency_of(*each, importers));
            broken_by_exporter_.push_back(broken_by(*each, situation_.verdicts.back()));
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
    [[nodiscard]] Broken broken_by(const ExporterCaps& exporter,
                                   const CoherencyVerdict& verdict) const {
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
                    at_size = at_size || fits(request_, *importer.caps, *each);
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

    /// What an exporter can be asked for: where its driver may make more modifiers than it lists,
    /// all those that anybody names for its formats too.
    [[nodiscard]] std::vector<FormatSupport> makes(const ExporterCaps& exporter) const {
        std::vector<FormatSupport> all = exporter.formats;
        if (!exporter.unlisted_modifiers)
            return all;
        const Listed listed(exporter.formats);
        for (const Layout& layout : layouts_) {
            const auto format =
                std::ranges::find(exporter.formats, layout.format, &FormatSupport::format);
            if (format == exporter.formats.end() || layout.modifier == DRM_FORMAT_MOD_INVALID ||
                !listed.find(layout).empty())
                continue;
            FormatSupport more = *format;
            more.modifier = layout.modifier;
            more.plane_count = layout.planes;
            all.push_back(more);
        }
        return all;
    }

    /// Holds each layout of an exporter against everything.
    void try_exporter(std::size_t index) {
        const ExporterCaps& exporter = *exporters_[index];
        for (const FormatSupport& made : makes(exporter)) {
            Broken by_use;
            for (std::size_t i = 0; i < importers_.size(); ++i)
                if (!contains(made.uses, importers_[i].uses - cpu_uses))
                    by_use.insert(number(Requirement::made_for_uses, i));
            if (!fits(request_, made))
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
                situation_.ways.push_back({index, broken});
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
                           fits(request_, *importers_[i].caps, *each);
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
                    return contains(each.uses, importer.uses) &&
                           fits(request_, *importer.caps, each);
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
                      : exporter.cpu_caching == CpuCaching::bypassed ? slow
                                                                     : 0;
        std::size_t native = 2;
        for (const ImporterUse& each : importers_)
            if (same_device(*each.caps, exporter.device))
                native = std::min<std::size_t>(native, each.caps == pickiest ? 0 : 1);
        option.rank = {
            option.format_rank,
            std::size_t{situation_.verdicts[option.exporter].coherency == Coherency::unknown},
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
            choice.coherency = situation_.verdicts[option.exporter].coherency;
            choice.coherency_why = situation_.verdicts[option.exporter].why;
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
            return next->rank[2] == slow
                       ? "the CPU reads past its caches from " + other + ", which is slow"
                       : "the CPU reads it through its caches, which is not said of " + other;
        case 3:
            return "it leaves other layouts than " + other + ", which makes " +
                   modifier_names(next->modifiers);
        case 4:
            return option.rank[4] == 0
                       ? "it is the device of " + name_of(*pickiest) +
                             ", which takes the fewest layouts"
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
        if (options_.empty()) {
            add_wishes();
            conflicts = in_words(situation_, smallest_conflict(situation_), bytes_needed());
        }
        if (!alignment_conflicts_.empty() &&
            (conflicts.empty() || alignment_conflicts_.size() < conflicts.size()))
            conflicts = std::move(alignment_conflicts_);
        std::string problem;
        for (const Conflict& each : conflicts)
            problem += (problem.empty() ? "" : "; ") + each.text;
        const bool among_importers = std::ranges::any_of(
            conflicts, [](const Conflict& each) { return each.importer.has_value(); });
        return {.error = {.code = Errc::unsupported,
                          .operation = operation,
                          .object = describe(request_),
                          .problem = std::move(problem),
                          .remedy = among_importers
                                        ? "Let one of them have a copy, or offer other exporters"
                                        : "Ask for less, or offer other exporters"},
                .conflicts = std::move(conflicts)};
    }

    /// What would be broken by an exporter that makes everything, on whichever device.
    void add_wishes() {
        const auto wish = [&](Broken broken) {
            broken.insert(number(Requirement::exporters));
            situation_.wishes.push_back(broken);
        };
        for (std::size_t i = 0; i < layouts_.size(); ++i) {
            const Broken by_size = broken_by_size(layouts_[i], true, 0, UINT64_MAX);
            if (layouts_[i].modifier != DRM_FORMAT_MOD_INVALID)
                wish(broken_by_layout_[i] | by_size);
            else
                for (const ImporterUse& each : importers_)
                    wish(broken_by(layouts_[i], each.caps->device) | by_size);
        }
        Broken by_unnamed_layout = broken_by(spec_.min_size, UINT64_MAX);
        for (std::size_t i = 0; i < importers_.size(); ++i) {
            by_unnamed_layout.insert(number(Requirement::takes, i));
            by_unnamed_layout.insert(number(Requirement::takes_for_uses, i));
            by_unnamed_layout.insert(number(Requirement::takes_at_size, i));
        }
        wish(by_unnamed_layout);
    }

    /// What the first format comes to that is asked for.
    std::string bytes_needed() {
        const Need& bytes = need(request_.formats.front(), false);
        const std::string frame = size_text(request_.width, request_.height) + " " +
                                  short_name(request_.formats.front()) + " LINEAR ";
        if (!bytes.problem.empty())
            return frame + "cannot be: " + bytes.problem;
        std::string text = frame + "needs " + to_string(bytes.size) + " bytes";
        for (const ImporterUse& each : importers_)
            if (bytes.size == each.caps->min_size)
                return text + ", as " + name_of(*each.caps) + " wants";
        return text;
    }

    std::span<const ExporterCaps* const> exporters_;
    std::span<const ImporterUse> importers_;
    const FrameRequest& request_;
    Situation situation_;
    FrameSpec spec_; // what everybody together needs; format and modifiers are open
    bool says_stride_ = true;
    std::vector<Conflict> alignment_conflicts_;
    std::map<std::pair<std::uint32_t, bool>, Need> needs_;
    std::vector<Listed> listed_; // of each importer
    std::vector<Broken> broken_by_exporter_;
    std::vector<Layout> layouts_;
    std::vector<Broken> broken_by_layout_;
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
                               .object = describe(request),
                               .problem = std::move(problem),
                               .remedy = "Give pixels, a format, and everybody's capabilities"},
                     .conflicts = {}});
    return Negotiation(exporters, importers, request).run();
}

} // namespace sluice
