// SPDX-License-Identifier: MIT
/// \file
/// Rounding up, and what several alignments come to. Not installed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <optional>

namespace sluice {

/// \p value rounded up to a multiple of \p alignment (0 counts as 1), or nothing past 64 bits.
[[nodiscard]] constexpr std::optional<std::uint64_t> round_up(std::uint64_t value,
                                                              std::uint64_t alignment) noexcept {
    const std::uint64_t past = value % std::max<std::uint64_t>(alignment, 1);
    std::uint64_t result = value;
    if (past != 0 && __builtin_add_overflow(value, alignment - past, &result))
        return std::nullopt;
    return result;
}

/// The least common multiple, 0 counting as 1, or nothing past \p limit.
[[nodiscard]] constexpr std::optional<std::uint64_t>
common_multiple(std::uint64_t a, std::uint64_t b, std::uint64_t limit) noexcept {
    a = std::max<std::uint64_t>(a, 1);
    b = std::max<std::uint64_t>(b, 1);
    std::uint64_t result = 0;
    if (__builtin_mul_overflow(a / std::gcd(a, b), b, &result) || result > limit)
        return std::nullopt;
    return result;
}

} // namespace sluice
