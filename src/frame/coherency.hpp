// SPDX-License-Identifier: MIT
/// \file
/// Who sees whose writes. Not installed.
#pragma once

#include <span>
#include <string>

#include <sluice/negotiate.hpp>

namespace sluice {

/// Whether an importer's accesses are the CPU's own.
[[nodiscard]] bool on_cpu(const ImporterUse& importer) noexcept;

struct CoherencyVerdict {
    Coherency coherency = Coherency::unknown;
    std::string why;
};

/// Whether everyone sees what the others wrote into \p exporter's memory.
///
/// Where the CPU uses its caches, its writes may lie there, and what it has read may be old; only
/// devices that look into the caches see and correct that, or brackets that maintain them. A device
/// that looks may also leave what it writes in the caches, as interconnects please, where one that
/// does not look will miss it; fences maintain nothing.
[[nodiscard]] CoherencyVerdict coherency_of(const ExporterCaps& exporter,
                                            std::span<const ImporterUse> importers);

} // namespace sluice
