// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>

namespace sluice::test {

/// Whether they are counted, which takes time itself. Default: yes.
void count_allocations(bool on) noexcept;

/// How often this program has called operator new; the drivers' and libdrm's own malloc is not in
/// it. Only the difference of two calls means anything.
[[nodiscard]] std::size_t allocations() noexcept;

/// How many of them are still there.
[[nodiscard]] std::ptrdiff_t live_allocations() noexcept;

/// How many bytes they take of the heap, as it rounds them up.
[[nodiscard]] std::ptrdiff_t live_bytes() noexcept;

/// Has this thread's \p nth operator new from now on fail, once, counted from 1; 0 has none fail.
/// Code that is not to be met calls `exempt_allocations(true)` around itself.
/// \returns whether one that was to fail is still to come.
bool fail_allocation(int nth) noexcept;
void exempt_allocations(bool on) noexcept;

} // namespace sluice::test
