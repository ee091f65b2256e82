// SPDX-License-Identifier: MIT
// One test for each operation of the tables. --table prints every case; where SLUICE_RESULTS names
// a folder they are written there too.
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string_view>

#include <gtest/gtest.h>
#include <unistd.h>

#include "fault/operation.hpp"
#include "support/requires.hpp"
#include "support/sw_sync.hpp"
#include "support/udmabuf.hpp"

namespace sluice::test {
namespace {

constexpr const char* heap = "/dev/dma_heap/system";

class FaultTest : public ::testing::Test {
public:
    explicit FaultTest(Operation operation) : operation_(std::move(operation)) {}

    void TestBody() override {
        SLUICE_REQUIRES(has_udmabuf(), "/dev/udmabuf does not open");
        SLUICE_REQUIRES(SwSync::available(), "no sw_sync in debugfs: no fences to control");
        if (operation_.needs_heap)
            SLUICE_REQUIRES(access(heap, R_OK) == 0, "/dev/dma_heap/system does not open");
        explore(operation_);
    }

private:
    Operation operation_;
};

/// Test names have no blanks.
std::string test_name(std::string name) {
    std::ranges::replace_if(
        name, [](char each) { return std::isalnum(static_cast<unsigned char>(each)) == 0; }, '_');
    return name;
}

} // namespace
} // namespace sluice::test

int main(int argc, char** argv) {
    using namespace sluice::test;
    ::testing::InitGoogleTest(&argc, argv);
    const bool print_table = argc > 1 && std::string_view(argv[1]) == "--table";
    auto operations = core_operations();
    for (Operation& operation : device_operations())
        operations.push_back(std::move(operation));
#ifdef SLUICE_TESTS_VULKAN
    for (Operation& operation : vulkan_operations())
        operations.push_back(std::move(operation));
#endif
    for (const Operation& operation : operations)
        ::testing::RegisterTest(
            "Fault", test_name(operation.name).c_str(), nullptr, nullptr, __FILE__, __LINE__,
            [operation]() -> ::testing::Test* { return new FaultTest(operation); });
    const int failed = RUN_ALL_TESTS();
    if (::testing::GTEST_FLAG(list_tests))
        return failed;
    if (print_table)
        std::cout << table();
    if (const char* results = std::getenv("SLUICE_RESULTS"))
        std::ofstream(std::string(results) + "/faults.txt") << table();
    std::cout << summary() << "\n";
    const auto& all = *::testing::UnitTest::GetInstance();
    // So that CTest tells a run in which nothing could run from one that passed.
    constexpr int all_skipped = 77;
    return failed == 0 && all.skipped_test_count() == all.test_to_run_count() ? all_skipped
                                                                              : failed;
}
