// SPDX-License-Identifier: MIT
// Threads of a plain Vulkan program, each with a device of its own, that write the same dma-bufs,
// on a real kernel.
#include <atomic>
#include <barrier>
#include <chrono>
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
using namespace std::chrono_literals;

class LayerThreadsSystemTest : public ::testing::TestWithParam<Mode> {};

/// Fills two buffers and, some time later on the GPU, looks what is in them.
/// \returns how many words were somebody else's.
std::size_t write_and_read(const Mode& mode, std::barrier<>& ready, const Buffer& one,
                           const Buffer& two, std::uint32_t own) {
    constexpr VkAccessFlags reads = VK_ACCESS_TRANSFER_READ_BIT,
                            writes = VK_ACCESS_TRANSFER_WRITE_BIT;
    Application application(mode);
    const VkBuffer first = application.import(one), second = application.import(two);
    const std::uint32_t *first_words = nullptr, *second_words = nullptr;
    const VkBuffer first_copy = application.make_buffer(first_words);
    const VkBuffer second_copy = application.make_buffer(second_words);
    std::size_t wrong = 0;
    ready.arrive_and_wait(); // the loader makes one instance at a time
    for (int i = 0; i < 10; ++i, ++own) {
        const VkEvent event = application.make_event();
        std::thread later;
        application.submit({first, second}, reads | writes, [&](VkCommandBuffer commands) {
            vkCmdFillBuffer(commands, first, 0, VK_WHOLE_SIZE, own);
            vkCmdFillBuffer(commands, second, 0, VK_WHOLE_SIZE, own);
            Application::wait_for(commands, event);
            Application::barrier(commands, writes, reads);
            Application::copy(commands, first, first_copy);
            Application::copy(commands, second, second_copy);
            later = std::thread([&] { // lavapipe's queue blocks whoever asks it for a fence
                std::this_thread::sleep_for(30ms);
                application.set(event);
            });
        });
        application.wait();
        later.join();
        for (std::uint32_t word = 0; word < Buffer::default_size / 4; ++word)
            wrong += (first_words[word] != own ? 1U : 0U) + (second_words[word] != own ? 1U : 0U);
    }
    return wrong;
}

TEST_P(LayerThreadsSystemTest, SubmissionsToManyDevicesTakeTurns) {
    SLUICE_REQUIRES(access("/dev/udmabuf", R_OK | W_OK) == 0, "/dev/udmabuf does not open");
    setenv("VK_ADD_LAYER_PATH", SLUICE_LAYER_MANIFESTS, 1);
    const Buffer one, two;
    std::atomic<std::size_t> wrong = 0;
    constexpr std::uint32_t threads = 4;
    std::barrier ready(threads);
    std::vector<std::thread> all;
    for (std::uint32_t i = 0; i < threads; ++i)
        all.emplace_back([&, i] { // no two that come one after the other agree on an order
            wrong += write_and_read(GetParam(), ready, i % 2 == 0 ? one : two,
                                    i % 2 == 0 ? two : one, (i + 1) << 16U);
        });
    for (std::thread& each : all)
        each.join();
    EXPECT_EQ(wrong == 0, GetParam().layer) << wrong << " words";
}

INSTANTIATE_TEST_SUITE_P(All, LayerThreadsSystemTest,
                         ::testing::Values(Mode{.layer = false, .barriers = true},
                                           Mode{.layer = true, .barriers = true},
                                           Mode{.layer = false, .barriers = false},
                                           Mode{.layer = true, .barriers = false}),
                         [](const auto& each) {
                             return std::string(each.param.layer ? "with" : "without") +
                                    (each.param.barriers ? "_and_barriers" : "");
                         });

} // namespace
