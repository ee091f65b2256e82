// SPDX-License-Identifier: MIT
// Plain Vulkan programs, which know nothing of sluice, with the layer and without: what they read
// and write of dma-bufs that others use too, on a real kernel. lavapipe gives no fence before the
// work is done: that a fence is left in the buffers while it is pending, bridge_test.cpp shows.
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

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

/// What it wrote, while the program still runs or after.
class TraceFile {
public:
    TraceFile() { setenv("VK_SLUICE_DMA_BUF_TRACE", path_.c_str(), 1); }
    TraceFile(const TraceFile&) = delete;
    TraceFile& operator=(const TraceFile&) = delete;
    ~TraceFile() {
        unsetenv("VK_SLUICE_DMA_BUF_TRACE");
        unlink(path_.c_str());
    }
    /// The first event of \p phase and \p name, a line; empty where there is none.
    [[nodiscard]] std::string event(char phase, const std::string& name) const {
        const std::string start = std::string(R"({"ph":")") + phase + R"(","name":")" + name + "\"";
        std::ifstream file(path_);
        for (std::string line; std::getline(file, line);)
            if (line.starts_with(start))
                return line;
        return "";
    }
    [[nodiscard]] bool ends_as_an_array() const {
        std::ifstream file(path_);
        const std::string text{std::istreambuf_iterator(file), {}};
        return text.starts_with("[\n") && text.ends_with("}\n]\n");
    }

private:
    const std::string path_ = "/tmp/sluice-layer-trace-" + std::to_string(getpid()) + ".json";
};

double number_after(const std::string& key, const std::string& line) {
    const auto found = line.find("\"" + key + "\":");
    return found == std::string::npos ? -1
                                      : std::strtod(line.c_str() + found + key.size() + 3, nullptr);
}

class LayerTraceSystemTest : public LayerSystemTest {};

TEST_P(LayerTraceSystemTest, ATraceShowsTheWaitAsItHangsAndItsStall) {
    const Buffer shared;
    const Fence fence;
    const TraceFile trace;
    bool hangs = false;
    double until_signal = 0; // microseconds
    {
        Application consumer(GetParam());
        const std::uint32_t* copied = nullptr;
        const VkBuffer from = consumer.import(shared), to = consumer.make_buffer(copied);
        shared.leave(fence.fd());
        const auto begin = std::chrono::steady_clock::now();
        std::thread producer([&] { // lavapipe's queue blocks whoever asks it for a fence
            for (int i = 0; i < 1000 && !hangs; ++i) {
                std::this_thread::sleep_for(10ms);
                hangs = !trace.event('B', "wait").empty();
            }
            std::this_thread::sleep_for(100ms);
            fence.signal();
        });
        consumer.submit({from}, VK_ACCESS_TRANSFER_READ_BIT,
                        [&](VkCommandBuffer commands) { Application::copy(commands, from, to); });
        producer.join();
        until_signal =
            std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
                .count();
        consumer.wait();
    }
    EXPECT_TRUE(hangs) << "the wait is there before it is over";
    const std::string stall = trace.event('E', "wait");
    EXPECT_GE(number_after("stall_us", stall), 100'000) << stall;
    EXPECT_LE(number_after("stall_us", stall), until_signal) << stall;
    struct stat status {};
    ASSERT_EQ(fstat(shared.fd(), &status), 0);
    const std::string import = trace.event('i', "import");
    EXPECT_EQ(number_after("inode", import), static_cast<double>(status.st_ino)) << import;
    EXPECT_EQ(number_after("size", import), shared.size());
    EXPECT_NE(import.find(R"("exporter":"udmabuf")"), std::string::npos) << import;
    EXPECT_FALSE(trace.event('E', "submission").empty());
    EXPECT_FALSE(trace.event('E', "fence pending").empty()) << "what it has handed over";
    EXPECT_TRUE(trace.ends_as_an_array());
}

INSTANTIATE_TEST_SUITE_P(All, LayerTraceSystemTest,
                         ::testing::Values(Mode{.layer = true, .barriers = true},
                                           Mode{.layer = true, .barriers = false}),
                         [](const auto& each) {
                             return each.param.barriers ? "with_barriers" : "without_barriers";
                         });

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
