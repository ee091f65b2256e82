// SPDX-License-Identifier: MIT
/// \file
/// The mapping that CpuMaps and the accesses on them share. Not installed.
#pragma once

#include <atomic>
#include <optional>

#include <sluice/cpu_map.hpp>

#include "core/strict_pages.hpp"

namespace sluice {

/// Made with one holder. Counted here rather than by shared_ptr, which costs an access as much as
/// all the rest of it does beside its system calls.
struct CpuMap::State {
    State(DmaBuf&& mapped, void* at, Access mapped_for) noexcept
        : buffer(std::move(mapped)), address(at), access(mapped_for) {}
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State();

    void hold() noexcept { holders.fetch_add(1, std::memory_order_relaxed); }
    /// One holder more, unless the last is gone.
    [[nodiscard]] bool hold_if_alive() noexcept {
        unsigned count = holders.load(std::memory_order_relaxed);
        while (count != 0)
            if (holders.compare_exchange_weak(count, count + 1, std::memory_order_relaxed))
                return true;
        return false;
    }
    void drop() noexcept {
        if (holders.fetch_sub(1, std::memory_order_acq_rel) == 1)
            destroy();
    }

    DmaBuf buffer; // our own duplicate: END needs a fd for as long as an access may be open
    void* address;
    Access access;
    std::optional<StrictPages> strict;
    std::atomic<unsigned> holders = 1;

private:
    /// Takes itself off the list of mappings, and goes.
    void destroy() noexcept;
};

} // namespace sluice
