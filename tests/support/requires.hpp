// SPDX-License-Identifier: MIT
/// \file
/// Tests that need what this machine may not have say so. Where SLUICE_NO_SKIP is set, as in CI's
/// own VM, a test that cannot run is a failure.
#pragma once

#include <cstdlib>

#include <gtest/gtest.h>

/// Ends the test, with the reason, where \p condition does not hold.
#define SLUICE_REQUIRES(condition, reason)                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            if (std::getenv("SLUICE_NO_SKIP") != nullptr)                                          \
                FAIL() << "must run here, but: " << (reason);                                      \
            GTEST_SKIP() << (reason);                                                              \
        }                                                                                          \
    } while (false)
