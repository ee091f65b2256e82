// SPDX-License-Identifier: MIT
// What of a conflict is whose, in words.
#include "frame/conflict.hpp"

#include <algorithm>
#include <iterator>

#include "frame/negotiate_words.hpp"

namespace sluice {

namespace {

using std::to_string;
using Layouts = std::vector<const FormatSupport*>;

class Words {
public:
    Words(const Situation& situation, const NumberSet& conflict, const std::string& bytes_needed)
        : exporters_(situation.exporters), importers_(situation.importers),
          request_(situation.request), situation_(situation), conflict_(conflict),
          bytes_needed_(bytes_needed), in_the_way_(situation.exporters.size()) {
        for (const Way& each : situation.ways)
            in_the_way_[each.exporter] |= each.broken & conflict;
    }

    [[nodiscard]] std::string of_importer(Requirement requirement, std::size_t index) const {
        const ImporterUse& importer = importers_[index];
        const ImporterCaps& caps = *importer.caps;
        const std::string to_use =
            importer.uses == Uses::none ? "" : " to " + to_string(importer.uses);
        const std::string frame = size_text(request_.width, request_.height);
        Layouts all, for_uses, at_size;
        for (const FormatSupport& each : caps.formats) {
            all.push_back(&each);
            if (!contains(each.uses, importer.uses))
                continue;
            for_uses.push_back(&each);
            if (fits(request_, caps, each))
                at_size.push_back(&each);
        }
        const std::string takes = name_of(caps) + " takes ";
        switch (requirement) {
        case Requirement::takes:
            return takes + layout_names(asked_for(all));
        case Requirement::takes_for_uses:
            return takes + layout_names(asked_for(for_uses)) + to_use;
        case Requirement::takes_at_size:
            return at_size.empty()
                       ? takes + limits_of(caps, asked_for(for_uses)) + to_use +
                             ", and the frame is " + frame
                       : takes + layout_names(asked_for(at_size)) + to_use + " at " + frame;
        case Requirement::max_size:
            return takes + "at most " + to_string(caps.max_size) + " bytes, and " + bytes_needed_;
        case Requirement::memory: {
            std::vector<std::string> kinds;
            for (const MemoryKind each : caps.memory)
                kinds.emplace_back(to_string(each));
            return takes + "only " + list_names(kinds) + " memory";
        }
        case Requirement::own_device:
            return takes + "only buffers of its own device, " +
                   (caps.device.empty() ? "which is not known" : caps.device);
        case Requirement::made_for_uses:
            return name_of(caps) + " needs a buffer that was made" + to_use;
        default:
            return name_of(caps) + " must map the buffer to the CPU";
        }
    }

    [[nodiscard]] std::string of_others(Requirement requirement) const {
        switch (requirement) {
        case Requirement::formats:
            return "the frame is to be " + short_names(request_.formats);
        case Requirement::size:
            return std::ranges::any_of(exporters_,
                                       [&](const auto* each) { return lacks_the_size(*each); })
                       ? "the frame is " + size_text(request_.width, request_.height)
                       : bytes_needed_;
        case Requirement::zeroed:
            return "the frame must start out zero";
        case Requirement::coherency:
            return "everyone must see what the others write";
        default:
            break;
        }
        std::string text;
        for (std::size_t i = 0; i < exporters_.size(); ++i)
            text += (i == 0 ? "" : "; ") + of_exporter(i);
        return text.empty() ? "there is no exporter" : text;
    }

private:
    /// Those of \p layouts that are asked for, where that is part of the conflict; all of them
    /// where none is.
    [[nodiscard]] Layouts asked_for(const Layouts& layouts) const {
        Layouts asked;
        for (const FormatSupport* each : layouts)
            if (std::ranges::find(request_.formats, each->format) != request_.formats.end())
                asked.push_back(each);
        return conflict_.contains(number(Requirement::formats)) && !asked.empty() ? asked : layouts;
    }

    /// Of \p layouts, none of which is there in this size, the steps in which the sizes go of those
    /// that are large enough: "sizes in multiples of 2x2"; empty where there is no such layout.
    [[nodiscard]] std::string steps_of(const Layouts& layouts) const {
        const FormatSupport* finest = nullptr;
        const auto step = [](const FormatSupport& each) {
            return std::uint64_t{each.width_granularity} * each.height_granularity;
        };
        for (const FormatSupport* each : layouts)
            if (request_.width <= each->max_width && request_.height <= each->max_height &&
                (finest == nullptr || step(*each) < step(*finest)))
                finest = each;
        return finest == nullptr
                   ? ""
                   : "only sizes in multiples of " +
                         size_text(finest->width_granularity, finest->height_granularity) +
                         " pixels";
    }

    /// An importer's limits in pixels for \p layouts, none of which it takes in this size.
    [[nodiscard]] std::string limits_of(const ImporterCaps& importer,
                                        const Layouts& layouts) const {
        const bool too_small =
            request_.width < importer.min_width || request_.height < importer.min_height;
        if (std::string steps = steps_of(layouts); !too_small && !steps.empty())
            return steps;
        const FormatSupport* largest =
            *std::ranges::max_element(layouts, {}, [](const FormatSupport* each) {
                return std::uint64_t{each->max_width} * each->max_height;
            });
        const std::string most = size_text(largest->max_width, largest->max_height);
        const std::string least = size_text(importer.min_width, importer.min_height);
        return (most == least ? "exactly " + most
                : too_small   ? "at least " + least
                              : "at most " + most) +
               " pixels";
    }

    [[nodiscard]] Layouts asked_of(const ExporterCaps& exporter) const {
        Layouts all;
        for (const FormatSupport& each : exporter.formats)
            all.push_back(&each);
        return asked_for(all);
    }

    /// Whether an exporter has layouts, and none of them in the pixels that are asked for.
    [[nodiscard]] bool lacks_the_size(const ExporterCaps& exporter) const {
        const Layouts asked = asked_of(exporter);
        return !asked.empty() && std::ranges::none_of(asked, [&](const FormatSupport* each) {
            return fits(request_, *each);
        });
    }

    [[nodiscard]] bool broken(std::size_t exporter, Requirement requirement) const {
        if (number(requirement) < first_of_importers)
            return in_the_way_[exporter].contains(number(requirement));
        for (std::size_t i = 0; i < importers_.size(); ++i)
            if (in_the_way_[exporter].contains(number(requirement, i)))
                return true;
        return false;
    }

    /// What of an exporter does not go with the rest of the conflict.
    [[nodiscard]] std::string of_exporter(std::size_t index) const {
        const ExporterCaps& exporter = *exporters_[index];
        const bool layouts =
            broken(index, Requirement::formats) || broken(index, Requirement::takes) ||
            broken(index, Requirement::takes_for_uses) || broken(index, Requirement::takes_at_size);
        const std::string makes = layouts ? "" : "makes "; // said once
        std::vector<std::string> parts;
        if (broken(index, Requirement::size)) {
            const Layouts asked = asked_of(exporter);
            if (const std::string steps = steps_of(asked);
                lacks_the_size(exporter) && !steps.empty())
                parts.push_back(makes + steps);
            else if (lacks_the_size(exporter))
                parts.push_back(makes + "at most " +
                                size_text(asked.front()->max_width, asked.front()->max_height) +
                                " pixels");
            else if (exporter.max_size != UINT64_MAX)
                parts.push_back(makes + "at most " + to_string(exporter.max_size) + " bytes" +
                                (exporter.max_size_source.empty()
                                     ? ""
                                     : " (" + exporter.max_size_source + ")"));
        }
        if (broken(index, Requirement::memory))
            parts.push_back("has " + std::string(to_string(exporter.memory)) + " memory");
        if (broken(index, Requirement::own_device))
            parts.push_back("belongs to " +
                            (exporter.device.empty() ? "no device" : exporter.device));
        if (broken(index, Requirement::made_for_uses))
            parts.emplace_back("was not told of that use");
        if (broken(index, Requirement::cpu_mapping))
            parts.emplace_back("gives the CPU no mapping");
        if (broken(index, Requirement::zeroed))
            parts.emplace_back("promises no zeros, and the CPU cannot map its buffers to clear "
                               "them");
        if (broken(index, Requirement::coherency))
            parts.push_back("does not promise that: " + situation_.verdicts[index].why);
        if (layouts || parts.empty())
            parts.insert(parts.begin(), "makes " + layout_names(asked_of(exporter)));
        return name_of(exporter) + " " + list_names(parts);
    }

    std::span<const ExporterCaps* const> exporters_;
    std::span<const ImporterUse> importers_;
    const FrameRequest& request_;
    const Situation& situation_;
    const NumberSet& conflict_;
    const std::string& bytes_needed_;
    std::vector<Broken> in_the_way_; // of each exporter: what of the conflict it breaks
};

} // namespace

std::vector<Conflict> in_words(const Situation& situation, const NumberSet& conflict,
                               const std::string& bytes_needed) {
    const Words words(situation, conflict, bytes_needed);
    std::vector<Conflict> importers, others;
    for (const std::size_t each : conflict.numbers()) {
        if (each < first_of_importers) {
            const auto requirement = static_cast<Requirement>(each);
            others.push_back({requirement, {}, words.of_others(requirement)});
            continue;
        }
        const std::size_t importer = (each - first_of_importers) / per_importer;
        const auto requirement = static_cast<Requirement>(each - importer * per_importer);
        importers.push_back({requirement, importer, words.of_importer(requirement, importer)});
    }
    importers.insert(importers.end(), std::make_move_iterator(others.begin()),
                     std::make_move_iterator(others.end()));
    return importers;
}

} // namespace sluice
