// SPDX-License-Identifier: MIT
/// \file
/// Which few of many demands stand in the way of everything. Not installed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace sluice {

/// A set of small numbers.
class NumberSet {
public:
    static constexpr std::size_t capacity = 192;

    constexpr void insert(std::size_t number) noexcept {
        words_[number / 64] |= std::uint64_t{1} << number % 64;
    }
    constexpr void erase(std::size_t number) noexcept {
        words_[number / 64] &= ~(std::uint64_t{1} << number % 64);
    }
    [[nodiscard]] constexpr bool contains(std::size_t number) const noexcept {
        return (words_[number / 64] >> number % 64 & 1) != 0;
    }
    [[nodiscard]] std::size_t size() const noexcept;
    [[nodiscard]] bool empty() const noexcept { return *this == NumberSet(); }
    [[nodiscard]] bool intersects(const NumberSet& other) const noexcept;
    [[nodiscard]] bool subset_of(const NumberSet& other) const noexcept;
    /// The smallest first.
    [[nodiscard]] std::vector<std::size_t> numbers() const;

    NumberSet& operator|=(const NumberSet& other) noexcept;
    NumberSet& operator&=(const NumberSet& other) noexcept;
    NumberSet& operator-=(const NumberSet& other) noexcept;
    [[nodiscard]] friend NumberSet operator|(NumberSet a, const NumberSet& b) noexcept {
        return a |= b;
    }
    [[nodiscard]] friend NumberSet operator&(NumberSet a, const NumberSet& b) noexcept {
        return a &= b;
    }
    [[nodiscard]] friend NumberSet operator-(NumberSet a, const NumberSet& b) noexcept {
        return a -= b;
    }
    [[nodiscard]] bool operator==(const NumberSet&) const noexcept = default;
    /// Some order, to sort by.
    [[nodiscard]] bool operator<(const NumberSet& other) const noexcept {
        return words_ < other.words_;
    }

private:
    std::array<std::uint64_t, capacity / 64> words_{};
};

/// The smallest set that has a number in common with each of \p sets, none of which is empty; of
/// several such always the same one. Exact, by branch and bound: meant for few numbers that differ
/// in where they occur, in however many sets.
[[nodiscard]] NumberSet smallest_hitting_set(std::vector<NumberSet> sets);

} // namespace sluice
