// SPDX-License-Identifier: MIT
/// \file
/// The mapping that CpuMaps and the accesses on them share. Not installed.
#pragma once

#include <cstddef>
#include <optional>

#include <sluice/cpu_map.hpp>

#include "core/strict_pages.hpp"

namespace sluice {

struct CpuMap::State {
    State(DmaBuf&& mapped, void* at, Access mapped_for) noexcept
        : buffer(std::move(mapped)), address(at), access(mapped_for) {}
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State();

    DmaBuf buffer; // our own duplicate: END needs a fd for as long as an access may be open
    void* address;
    Access access;
    std::optional<StrictPages> strict;
};

} // namespace sluice
