// SPDX-License-Identifier: MIT
/// \file
/// A refusal as it should be: the right code, a remedy, and what was wrong in words and numbers.
#pragma once

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <sluice/error.hpp>

namespace sluice::test {

template <typename T>
void expect_refused(const Result<T>& result, Errc code, const std::vector<std::string>& words) {
    ASSERT_FALSE(result) << words.front();
    EXPECT_EQ(to_string(result.error().code), to_string(code)) << result.error().message();
    EXPECT_FALSE(result.error().remedy.empty());
    for (const std::string& each : words)
        EXPECT_NE(result.error().message().find(each), std::string::npos)
            << "'" << each << "' in " << result.error().message();
}

} // namespace sluice::test
