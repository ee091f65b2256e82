// SPDX-License-Identifier: MIT
/// \file
/// The mapping that a CpuMap and the accesses on it share. Not installed.
#pragma once

#include <cstddef>

#include <sluice/cpu_map.hpp>

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
};

} // namespace sluice
