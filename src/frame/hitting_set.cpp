// SPDX-License-Identifier: MIT
#include "frame/hitting_set.hpp"

#include <algorithm>
#include <bit>

namespace sluice {

std::size_t NumberSet::size() const noexcept {
    std::size_t count = 0;
    for (const std::uint64_t word : words_)
        count += static_cast<std::size_t>(std::popcount(word));
    return count;
}

bool NumberSet::intersects(const NumberSet& other) const noexcept {
    return !(*this & other).empty();
}

bool NumberSet::subset_of(const NumberSet& other) const noexcept {
    return (*this - other).empty();
}

std::vector<std::size_t> NumberSet::numbers() const {
    std::vector<std::size_t> all;
    for (std::size_t word = 0; word < words_.size(); ++word)
        for (std::uint64_t rest = words_[word]; rest != 0; rest &= rest - 1)
            all.push_back(word * 64 + static_cast<std::size_t>(std::countr_zero(rest)));
    return all;
}

NumberSet& NumberSet::operator|=(const NumberSet& other) noexcept {
    for (std::size_t i = 0; i < words_.size(); ++i)
        words_[i] |= other.words_[i];
    return *this;
}

NumberSet& NumberSet::operator&=(const NumberSet& other) noexcept {
    for (std::size_t i = 0; i < words_.size(); ++i)
        words_[i] &= other.words_[i];
    return *this;
}

NumberSet& NumberSet::operator-=(const NumberSet& other) noexcept {
    for (std::size_t i = 0; i < words_.size(); ++i)
        words_[i] &= ~other.words_[i];
    return *this;
}

namespace {

/// Those that no other one is part of: whoever hits them hits all. The smallest first.
std::vector<NumberSet> minimal(std::vector<NumberSet> sets) {
    std::ranges::sort(sets, [](const NumberSet& a, const NumberSet& b) {
        return a.size() != b.size() ? a.size() < b.size() : a < b;
    });
    std::vector<NumberSet> kept;
    for (const NumberSet& each : sets)
        if (std::ranges::none_of(kept,
                                 [&](const NumberSet& other) { return other.subset_of(each); }))
            kept.push_back(each);
    return kept;
}

/// Adds at most \p budget numbers to \p chosen, none of \p excluded, so that all of \p sets are
/// hit. \returns whether that was possible.
bool hit(const std::vector<NumberSet>& sets, NumberSet& chosen, NumberSet excluded,
         std::size_t budget) {
    // Sets that have nothing in common take a number each.
    const NumberSet* first = nullptr;
    NumberSet apart;
    std::size_t needed = 0;
    for (const NumberSet& each : sets) {
        if (each.intersects(chosen))
            continue;
        if (first == nullptr)
            first = &each;
        if (const NumberSet open = each - excluded; !open.intersects(apart)) {
            apart |= open;
            if (++needed > budget || open.empty())
                return false;
        }
    }
    if (first == nullptr)
        return true;
    for (const std::size_t number : (*first - excluded).numbers()) {
        chosen.insert(number);
        if (hit(sets, chosen, excluded, budget - 1))
            return true;
        chosen.erase(number);
        excluded.insert(number); // everything with it has been tried
    }
    return false;
}

} // namespace

NumberSet smallest_hitting_set(std::vector<NumberSet> sets) {
    sets = minimal(std::move(sets));
    NumberSet chosen;
    for (std::size_t budget = 0; !hit(sets, chosen, {}, budget); ++budget)
        chosen = {};
    return chosen;
}

} // namespace sluice
