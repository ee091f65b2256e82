// SPDX-License-Identifier: MIT
/// \file
/// What this process has open, to see that a test leaves nothing behind.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include <gtest/gtest.h>

namespace sluice::test {

/// Every open fd with what it is, by the kernel's own list.
inline std::map<std::string, std::string> open_fds() {
    std::map<std::string, std::string> fds;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code error;
        const auto target = std::filesystem::read_symlink(entry.path(), error);
        // The iterator's own fd is in its list, and gone by the time anybody looks.
        if (!error && target.string().find("/fd") == std::string::npos)
            fds[entry.path().filename()] = target;
    }
    return fds;
}

/// A test whose fds are counted before and after it.
class FdTest : public ::testing::Test {
protected:
    void SetUp() override { before_ = open_fds(); }
    void TearDown() override { EXPECT_EQ(before_, open_fds()) << "the test leaked or closed a fd"; }

private:
    std::map<std::string, std::string> before_;
};

} // namespace sluice::test
