// SPDX-License-Identifier: MIT
#include "frame/hitting_set.hpp"

#include <algorithm>
#include <bit>
#include <random>

#include <gtest/gtest.h>

namespace sluice {
namespace {

NumberSet set_of(std::initializer_list<std::size_t> numbers) {
    NumberSet set;
    for (const std::size_t each : numbers)
        set.insert(each);
    return set;
}

TEST(NumberSet, HoldsNumbersUpToItsCapacity) {
    NumberSet set;
    EXPECT_TRUE(set.empty());
    for (std::size_t number = 0; number < NumberSet::capacity; ++number) {
        EXPECT_FALSE(set.contains(number));
        set.insert(number);
        EXPECT_TRUE(set.contains(number));
        EXPECT_EQ(set.size(), number + 1);
    }
    set.erase(64);
    EXPECT_FALSE(set.contains(64));
    EXPECT_EQ(set.numbers().size(), NumberSet::capacity - 1);
    EXPECT_EQ(set_of({191, 3, 64}).numbers(), (std::vector<std::size_t>{3, 64, 191}));
}

TEST(NumberSet, IsASet) {
    const NumberSet a = set_of({1, 70, 130});
    const NumberSet b = set_of({70, 131});
    EXPECT_EQ(a | b, set_of({1, 70, 130, 131}));
    EXPECT_EQ(a & b, set_of({70}));
    EXPECT_EQ(a - b, set_of({1, 130}));
    EXPECT_TRUE(a.intersects(b));
    EXPECT_FALSE((a - b).intersects(b));
    EXPECT_TRUE(set_of({1, 130}).subset_of(a));
    EXPECT_FALSE(b.subset_of(a));
    EXPECT_NE(a < b, b < a);
    EXPECT_FALSE(a < set_of({1, 70, 130}));
}

TEST(HittingSet, OfNothingIsEmpty) {
    EXPECT_TRUE(smallest_hitting_set({}).empty());
}

TEST(HittingSet, IsAsSmallAsOneThatIsFoundByTryingAll) {
    constexpr unsigned numbers = 8;
    std::mt19937 random(7);
    std::vector<int> sizes(numbers + 1, 0);
    for (int round = 0; round < 2000; ++round) {
        std::vector<NumberSet> sets;
        std::vector<unsigned> masks;
        for (auto count = random() % 12; count > 0; --count) {
            const auto mask = static_cast<unsigned>((random() & random() % (1U << numbers)) |
                                                    1U << random() % numbers);
            masks.push_back(mask);
            NumberSet set;
            for (unsigned bit = 0; bit < numbers; ++bit)
                if ((mask >> bit & 1) != 0)
                    set.insert(bit * 23); // across the words
            sets.push_back(set);
        }
        int best = numbers;
        for (unsigned chosen = 0; chosen < 1U << numbers; ++chosen)
            if (std::ranges::all_of(masks, [&](unsigned mask) { return (mask & chosen) != 0; }))
                best = std::min(best, std::popcount(chosen));
        const NumberSet found = smallest_hitting_set(sets);
        ASSERT_EQ(found.size(), static_cast<std::size_t>(best));
        for (const NumberSet& each : sets)
            ASSERT_TRUE(each.intersects(found));
        ++sizes[static_cast<std::size_t>(best)];
        std::ranges::shuffle(sets, random);
        ASSERT_EQ(smallest_hitting_set(sets), found) << "whatever the order";
    }
    for (const std::size_t size : {0U, 1U, 2U, 3U, 4U})
        EXPECT_GT(sizes[size], 0) << size;
}

TEST(HittingSet, OfPairsThatHaveNothingInCommonIsFoundWithoutTryingAll) {
    std::vector<NumberSet> sets;
    for (std::size_t pair = 0; pair < 60; ++pair)
        sets.push_back(set_of({2 * pair, 2 * pair + 1}));
    EXPECT_EQ(smallest_hitting_set(sets).size(), 60U);
}

} // namespace
} // namespace sluice
