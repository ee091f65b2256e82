// SPDX-License-Identifier: MIT
#include "frame/conflict.hpp"

#include <algorithm>

namespace sluice {

bool fits(const FrameRequest& request, const FormatSupport& support) noexcept {
    return request.width <= support.max_width && request.height <= support.max_height &&
           request.width % std::max(support.width_granularity, 1U) == 0 &&
           request.height % std::max(support.height_granularity, 1U) == 0;
}

bool fits(const FrameRequest& request, const ImporterCaps& importer,
          const FormatSupport& support) noexcept {
    return fits(request, support) && request.width >= importer.min_width &&
           request.height >= importer.min_height;
}

NumberSet smallest_conflict(const Situation& situation) {
    std::vector<Broken> all = situation.wishes;
    for (const Way& each : situation.ways)
        all.push_back(each.broken);
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());

    // What is not taken at all is not taken for a use, nor in a size. So what an importer takes
    // counts once in the search, at its strictest; then the least strict that will do is found.
    std::vector<Broken> strictest = all;
    for (Broken& each : strictest)
        for (std::size_t i = 0; i < situation.importers.size(); ++i) {
            each.erase(number(Requirement::takes, i));
            each.erase(number(Requirement::takes_for_uses, i));
        }
    NumberSet found = smallest_hitting_set(std::move(strictest));
    for (std::size_t i = 0; i < situation.importers.size(); ++i)
        for (const Requirement weaker : {Requirement::takes, Requirement::takes_for_uses}) {
            if (!found.contains(number(Requirement::takes_at_size, i)))
                break;
            NumberSet instead = found;
            instead.erase(number(Requirement::takes_at_size, i));
            instead.insert(number(weaker, i));
            if (std::ranges::all_of(all,
                                    [&](const Broken& each) { return each.intersects(instead); }))
                found = instead;
        }
    return found;
}

} // namespace sluice
