// SPDX-License-Identifier: MIT
#include <sluice/log.hpp>

#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "core/log.hpp"

namespace sluice {
namespace {

const Error lost{.operation = "CpuAccess::end", .object = "buffer", .problem = "it failed"};

class LogTest : public ::testing::Test {
protected:
    void TearDown() override { set_log(nullptr, nullptr); }
};

TEST_F(LogTest, GoesToTheFunctionWithItsUser) {
    std::vector<std::string> messages;
    set_log(
        [](const Error& error, void* user) noexcept {
            static_cast<std::vector<std::string>*>(user)->push_back(error.message());
        },
        &messages);
    log(lost);
    EXPECT_EQ(messages, std::vector{lost.message()});
    set_log(nullptr, nullptr);
    log(lost);
    EXPECT_EQ(messages.size(), 1U);
}

TEST_F(LogTest, TheFunctionMayCallBack) {
    set_log([](const Error&, void*) noexcept { set_log(nullptr, nullptr); }, nullptr);
    log(lost);
}

TEST_F(LogTest, FunctionAndUserStayTogetherAcrossThreads) {
    static int first = 1;
    static int second = 2;
    const auto use_first = [] {
        set_log([](const Error&, void* user) noexcept { EXPECT_EQ(user, &first); }, &first);
    };
    const auto use_second = [] {
        set_log([](const Error&, void* user) noexcept { EXPECT_EQ(user, &second); }, &second);
    };
    use_first();
    std::jthread logger([] {
        for (int i = 0; i < 1000; ++i)
            log(lost);
    });
    for (int i = 0; i < 500; ++i) {
        use_second();
        use_first();
    }
}

TEST(LogDeathTest, UntilThenItGoesToStderr) {
    // In a process of its own, where nobody has set anything.
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    EXPECT_EXIT(
        {
            log(lost);
            std::_Exit(0);
        },
        ::testing::ExitedWithCode(0), "sluice: CpuAccess::end\\(buffer\\): it failed");
}

} // namespace
} // namespace sluice
