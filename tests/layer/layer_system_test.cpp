// SPDX-License-Identifier: MIT
// Plain Vulkan programs, which know nothing of sluice, with the layer and without: what they read
// and write of dma-bufs that others use too, on a real kernel.
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "layer/plain_program.hpp"
#include "support/requires.hpp"

namespace {

using namespace plain;
using namespace std::chrono_literals;

constexpr std::uint32_t before = 0x01010101, after = 0x02020202;
constexpr std::uint32_t last = Buffer::default_size / 4 - 1;

class LayerSystemTest : public ::testing::TestWithParam<Mode> {
protected:
    void SetUp() override {
        SLUICE_REQUIRES(access("/dev/udmabuf", R_OK | W_OK) == 0, "/dev/udmabuf does not open");
        SLUICE_REQUIRES(Fence::available(), "no sw_sync in debugfs: no fences to control");
        setenv("VK_ADD_LAYER_PATH", SLUICE_LAYER_MANIFESTS, 1);
    }
};

TEST_P(LayerSystemTest, AConsumerReadsWhatTheProducersFenceIsAbout) {
    const Buffer shared;
    const Fence fence;
    Application consumer(GetParam());
    const std::uint32_t* copied = nullptr;
    const VkBuffer from = consumer.import(shared), to = consumer.make_buffer(copied);
    shared.fill(before);
    shared.leave(fence.fd());
    std::thread producer([&] { // lavapipe's queue blocks whoever asks it for a fence
        std::this_thread::sleep_for(300ms);
        shared.fill(after);
        fence.signal();
    });
    consumer.submit({from}, VK_ACCESS_TRANSFER_READ_BIT,
                    [&](VkCommandBuffer commands) { Application::copy(commands, from, to); });
    consumer.wait();
    producer.join();
    EXPECT_EQ(copied[last], GetParam().layer ? after : before);
}

TEST_P(LayerSystemTest, AConsumerThatTrustsPollSeesWhatTheProducerWrote) {
    const Buffer shared;
    Application producer(GetParam());
    const VkBuffer to = producer.import(shared);
    shared.fill(before);
    const VkEvent event = producer.make_event();
    std::thread slow([&] { // as above
        std::this_thread::sleep_for(200ms);
        producer.set(event);
    });
    producer.submit({to}, VK_ACCESS_TRANSFER_WRITE_BIT, [&](VkCommandBuffer commands) {
        Application::wait_for(commands, event);
        vkCmdFillBuffer(commands, to, 0, VK_WHOLE_SIZE, after);
    });
    EXPECT_TRUE(shared.idle_within(10'000));
    EXPECT_EQ(shared.last_word(), GetParam().layer ? after : before);
    slow.join();
    producer.wait();
    EXPECT_EQ(shared.last_word(), after);
}

INSTANTIATE_TEST_SUITE_P(All, LayerSystemTest,
                         ::testing::Values(Mode{.layer = false, .barriers = true},
                                           Mode{.layer = true, .barriers = true},
                                           Mode{.layer = false, .barriers = false},
                                           Mode{.layer = true, .barriers = false}),
                         [](const auto& each) {
                             return std::string(each.param.layer ? "with" : "without") +
                                    (each.param.barriers ? "_and_barriers" : "");
                         });

} // namespace
