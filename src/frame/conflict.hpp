// SPDX-License-Identifier: MIT
/// \file
/// Why nobody can make a frame: which requirements stand against each other. Not installed.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "frame/coherency.hpp"
#include "frame/hitting_set.hpp"
#include <sluice/negotiate.hpp>

namespace sluice {

/// Requirements that do not hold, by their numbers.
using Broken = NumberSet;

inline constexpr auto first_of_importers = static_cast<std::size_t>(Requirement::takes);
inline constexpr std::size_t per_importer =
    static_cast<std::size_t>(Requirement::alignment) - first_of_importers;
static_assert(first_of_importers + per_importer * max_importers <= NumberSet::capacity);

/// The request's and the exporters' requirements come first, then each importer's.
[[nodiscard]] constexpr std::size_t number(Requirement requirement) noexcept {
    return static_cast<std::size_t>(requirement);
}
[[nodiscard]] constexpr std::size_t number(Requirement requirement, std::size_t importer) noexcept {
    return number(requirement) + importer * per_importer;
}

/// One way to make the frame.
struct Way {
    std::size_t exporter = 0;
    Broken broken;
};

/// Whether \p support is there in the size that is asked for.
[[nodiscard]] bool fits(const FrameRequest& request, const FormatSupport& support) noexcept;

/// Whether \p importer takes \p support in the size that is asked for.
[[nodiscard]] bool fits(const FrameRequest& request, const ImporterCaps& importer,
                        const FormatSupport& support) noexcept;

/// All that was found out on the way to no choice.
struct Situation {
    std::span<const ExporterCaps* const> exporters;
    std::span<const ImporterUse> importers;
    const FrameRequest& request;
    std::vector<CoherencyVerdict> verdicts; // of each exporter
    std::vector<Way> ways;                  // of the exporters at hand; each breaks something
    std::vector<Broken> wishes;             // what would be broken if somebody made everything
};

/// The fewest requirements of which each of the situation's ways and wishes breaks one.
[[nodiscard]] NumberSet smallest_conflict(const Situation& situation);

/// \p conflict in words. \p bytes_needed is what the frame comes to, or why it cannot be.
[[nodiscard]] std::vector<Conflict> in_words(const Situation& situation, const NumberSet& conflict,
                                             const std::string& bytes_needed);

} // namespace sluice
