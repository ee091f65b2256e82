// SPDX-License-Identifier: MIT
#include <sluice/deadline.hpp>

#include <gtest/gtest.h>

namespace sluice {
namespace {

using namespace std::chrono_literals;

TEST(Deadline, LiesTheDurationAhead) {
    const auto before = Deadline::clock::now();
    const auto deadline = deadline_in(250ms);
    const auto after = Deadline::clock::now();
    EXPECT_GE(deadline, before + 250ms);
    EXPECT_LE(deadline, after + 250ms);
}

TEST(Deadline, NeverLiesInThePast) {
    EXPECT_GE(deadline_in(-1h), Deadline::clock::now() - 1s);
}

TEST(Deadline, TooFarAwayIsTheFarthestThereIs) {
    EXPECT_EQ(deadline_in(std::chrono::hours::max()), Deadline::max());
    EXPECT_EQ(deadline_in(std::chrono::nanoseconds::max()), Deadline::max());
    EXPECT_EQ(deadline_in(std::chrono::duration<double>(1e300)), Deadline::max());
}

} // namespace
} // namespace sluice
