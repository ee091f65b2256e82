// SPDX-License-Identifier: MIT
// Threads of a plain Vulkan program, each with a device of its own, that write the same dma-bufs,
// on a real kernel.
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "layer/plain_program.hpp"
#include "support/requires.hpp"

namespace {

using namespace plain;

class LayerThreadsTest : public ::testing::TestWithParam<bool> {};

TEST_P(LayerThreadsTest, SubmissionsOfManyDevicesTakeTurns) {
    SLUICE_REQUIRES(access("/dev/udmabuf", R_OK | W_OK) == 0, "/dev/udmabuf does not open");
    setenv("VK_LAYER_PATH", SLUICE_LAYER_MANIFESTS, 1);
    constexpr std::uint32_t size = 256 * 1024, threads = 4, times = 25;
    const Buffer one(size), two(size);
    std::atomic<std::size_t> not_its_own = 0;
    const auto work = [&](std::uint32_t thread) {
        Application application({.layer = true, .barriers = GetParam()});
        // No two threads meet the buffers in the same order.
        const VkBuffer first = application.import(thread % 2 == 0 ? one : two);
        const VkBuffer second = application.import(thread % 2 == 0 ? two : one);
        const std::uint32_t *first_words = nullptr, *second_words = nullptr;
        const VkBuffer first_copy = application.make_buffer(first_words, size);
        const VkBuffer second_copy = application.make_buffer(second_words, size);
        constexpr VkAccessFlags reads = VK_ACCESS_TRANSFER_READ_BIT,
                                writes = VK_ACCESS_TRANSFER_WRITE_BIT;
        for (std::uint32_t i = 0; i < times; ++i) {
            const std::uint32_t own = thread << 16U | i;
            application.submit({first, second}, reads | writes, [&](VkCommandBuffer commands) {
                vkCmdFillBuffer(commands, first, 0, VK_WHOLE_SIZE, own);
                vkCmdFillBuffer(commands, second, 0, VK_WHOLE_SIZE, own);
                Application::barrier(commands, writes, reads);
                Application::copy(commands, first, first_copy, size);
                Application::copy(commands, second, second_copy, size);
            });
            application.wait();
            for (std::uint32_t word = 0; word < size / 4; ++word)
                not_its_own +=
                    (first_words[word] != own ? 1U : 0U) + (second_words[word] != own ? 1U : 0U);
        }
    };
    std::vector<std::thread> all;
    for (std::uint32_t i = 0; i < threads; ++i)
        all.emplace_back(work, i + 1);
    for (std::thread& each : all)
        each.join();
    EXPECT_EQ(not_its_own, 0U);
    EXPECT_EQ(one.last_word(), two.last_word());
}

INSTANTIATE_TEST_SUITE_P(All, LayerThreadsTest, ::testing::Bool(), [](const auto& each) {
    return each.param ? std::string("with_barriers") : std::string("without");
});

} // namespace
