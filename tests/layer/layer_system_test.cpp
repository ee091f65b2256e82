// SPDX-License-Identifier: MIT
// Plain Vulkan programs, which know nothing of sluice, with the layer and without: what they read
// and write of dma-bufs that others use too, on a real kernel.
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/dma-buf.h>
#include <linux/udmabuf.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vulkan/vulkan.h>

#include "support/requires.hpp"

namespace {

using namespace std::chrono_literals;

constexpr std::uint32_t size = 4096;
constexpr std::uint32_t before = 0x01010101, after = 0x02020202;
constexpr std::uint64_t patience = 10'000'000'000; // nanoseconds

// ---- The others ---------------------------------------------------------------------------------

/// A dma-buf of pages, which this program can look into.
class Buffer {
public:
    Buffer() {
        const int pages = memfd_create("layer", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        EXPECT_EQ(ftruncate(pages, size), 0);
        EXPECT_EQ(fcntl(pages, F_ADD_SEALS, F_SEAL_SHRINK), 0);
        const int maker = open("/dev/udmabuf", O_RDWR | O_CLOEXEC);
        udmabuf_create create{.memfd = static_cast<std::uint32_t>(pages),
                              .flags = UDMABUF_FLAGS_CLOEXEC,
                              .offset = 0,
                              .size = size};
        fd_ = ioctl(maker, UDMABUF_CREATE, &create);
        close(maker);
        close(pages);
        EXPECT_GE(fd_, 0);
        words_ = static_cast<std::uint32_t*>(
            mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
        EXPECT_NE(words_, MAP_FAILED);
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() {
        munmap(words_, size);
        close(fd_);
    }

    [[nodiscard]] int fd() const { return fd_; }
    void fill(std::uint32_t with) const {
        for (std::uint32_t i = 0; i < size / 4; ++i)
            static_cast<volatile std::uint32_t*>(words_)[i] = with;
    }
    [[nodiscard]] std::uint32_t last_word() const {
        return static_cast<const volatile std::uint32_t*>(words_)[size / 4 - 1];
    }
    /// Whether poll(2) says, within \p milliseconds, that everyone is done with it.
    [[nodiscard]] bool idle_within(int milliseconds) const {
        pollfd entry{.fd = fd_, .events = POLLOUT, .revents = 0};
        return poll(&entry, 1, milliseconds) == 1;
    }
    void leave(int fence) const {
        dma_buf_import_sync_file import{.flags = DMA_BUF_SYNC_WRITE, .fd = fence};
        EXPECT_EQ(ioctl(fd_, DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &import), 0);
    }

private:
    int fd_ = -1;
    std::uint32_t* words_ = nullptr;
};

/// A fence that signals when the test likes (sw_sync).
class Fence {
public:
    static bool available() { return access(path, R_OK | W_OK) == 0; }

    Fence() : timeline_(open(path, O_RDWR | O_CLOEXEC)) {
        Create create{.value = 1, .name = "layer", .fence = -1};
        EXPECT_EQ(ioctl(timeline_, _IOWR('W', 0, Create), &create), 0);
        fd_ = create.fence;
    }
    Fence(const Fence&) = delete;
    Fence& operator=(const Fence&) = delete;
    ~Fence() {
        close(fd_);
        close(timeline_);
    }
    [[nodiscard]] int fd() const { return fd_; }
    void signal() const {
        std::uint32_t by = 1;
        EXPECT_EQ(ioctl(timeline_, _IOW('W', 1, std::uint32_t), &by), 0);
    }

private:
    struct Create { // drivers/dma-buf/sw_sync.c, which has no header for programs
        std::uint32_t value;
        char name[32];
        std::int32_t fence;
    };
    static constexpr const char* path = "/sys/kernel/debug/sync/sw_sync";
    int timeline_, fd_ = -1;
};

// ---- The application ----------------------------------------------------------------------------

struct Mode {
    bool layer = false;
    bool barriers = false; // from and to VK_QUEUE_FAMILY_FOREIGN_EXT
};

/// Copies from and fills VkBuffers, one of which is a dma-buf.
class Application {
public:
    explicit Application(const Mode& mode) : mode_(mode) {
        const VkApplicationInfo about{.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                      .apiVersion = VK_API_VERSION_1_1};
        const char* const layer = "VK_LAYER_SLUICE_dma_buf";
        const VkInstanceCreateInfo info{.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                        .pApplicationInfo = &about,
                                        .enabledLayerCount = mode.layer ? 1U : 0U,
                                        .ppEnabledLayerNames = &layer};
        check(vkCreateInstance(&info, nullptr, &instance_));
        std::uint32_t count = 1;
        vkEnumeratePhysicalDevices(instance_, &count, &physical_);
        make_device();
    }
    Application(const Application&) = delete;
    Application& operator=(const Application&) = delete;
    ~Application() {
        vkDeviceWaitIdle(device_);
        for (const auto& undo : undo_)
            undo();
        vkDestroyDevice(device_, nullptr);
        vkDestroyInstance(instance_, nullptr);
    }

    /// A VkBuffer of \p buffer, or of memory of its own that the CPU sees at \p mapped.
    VkBuffer make_buffer(const Buffer* buffer, void** mapped = nullptr) {
        const VkExternalMemoryBufferCreateInfo external{
            .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
            .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
        const VkBufferCreateInfo info{.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                      .pNext = buffer != nullptr ? &external : nullptr,
                                      .size = size,
                                      .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                                               VK_BUFFER_USAGE_TRANSFER_DST_BIT};
        VkBuffer made = VK_NULL_HANDLE;
        check(vkCreateBuffer(device_, &info, nullptr, &made));
        VkImportMemoryFdInfoKHR import{.sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR,
                                       .handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT,
                                       .fd = -1};
        if (buffer != nullptr)
            import.fd = fcntl(buffer->fd(), F_DUPFD_CLOEXEC, 0);
        const VkMemoryAllocateInfo allocate{.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                            .pNext = buffer != nullptr ? &import : nullptr,
                                            .allocationSize = size,
                                            .memoryTypeIndex = 0};
        VkDeviceMemory memory = VK_NULL_HANDLE;
        check(vkAllocateMemory(device_, &allocate, nullptr, &memory));
        check(vkBindBufferMemory(device_, made, memory, 0));
        if (mapped != nullptr)
            check(vkMapMemory(device_, memory, 0, size, 0, mapped));
        undo_.push_back([=, this] {
            vkDestroyBuffer(device_, made, nullptr);
            vkFreeMemory(device_, memory, nullptr);
        });
        return made;
    }

    /// Records \p work between the barriers that take \p shared and hand it over, and submits it.
    void submit(VkBuffer shared, VkAccessFlags access,
                const std::function<void(VkCommandBuffer)>& work) {
        const VkCommandBufferBeginInfo begin{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
        check(vkBeginCommandBuffer(commands_, &begin));
        if (mode_.barriers)
            barrier(shared, VK_QUEUE_FAMILY_FOREIGN_EXT, 0, 0, access);
        work(commands_);
        if (mode_.barriers)
            barrier(shared, 0, VK_QUEUE_FAMILY_FOREIGN_EXT, access, 0);
        check(vkEndCommandBuffer(commands_));
        const VkSubmitInfo info{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                                .commandBufferCount = 1,
                                .pCommandBuffers = &commands_};
        check(vkQueueSubmit(queue_, 1, &info, done_));
    }
    void wait() {
        check(vkWaitForFences(device_, 1, &done_, VK_TRUE, patience));
        check(vkResetFences(device_, 1, &done_));
    }
    VkEvent make_event() {
        const VkEventCreateInfo info{.sType = VK_STRUCTURE_TYPE_EVENT_CREATE_INFO};
        VkEvent made = VK_NULL_HANDLE;
        check(vkCreateEvent(device_, &info, nullptr, &made));
        undo_.push_back([=, this] { vkDestroyEvent(device_, made, nullptr); });
        return made;
    }
    void set(VkEvent event) const { check(vkSetEvent(device_, event)); }

private:
    static void check(VkResult result) { ASSERT_EQ(result, VK_SUCCESS); }

    void make_device() {
        const float priority = 1;
        const VkDeviceQueueCreateInfo queue{.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                            .queueFamilyIndex = 0,
                                            .queueCount = 1,
                                            .pQueuePriorities = &priority};
        const std::array extensions{VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
                                    VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME,
                                    VK_EXT_QUEUE_FAMILY_FOREIGN_EXTENSION_NAME};
        const VkDeviceCreateInfo info{.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                      .queueCreateInfoCount = 1,
                                      .pQueueCreateInfos = &queue,
                                      .enabledExtensionCount = extensions.size(),
                                      .ppEnabledExtensionNames = extensions.data()};
        check(vkCreateDevice(physical_, &info, nullptr, &device_));
        vkGetDeviceQueue(device_, 0, 0, &queue_);
        const VkCommandPoolCreateInfo pool{.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                           .flags =
                                               VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT};
        VkCommandPool made = VK_NULL_HANDLE;
        check(vkCreateCommandPool(device_, &pool, nullptr, &made));
        const VkCommandBufferAllocateInfo allocate{
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
            .commandPool = made,
            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
            .commandBufferCount = 1};
        check(vkAllocateCommandBuffers(device_, &allocate, &commands_));
        const VkFenceCreateInfo fence{.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
        check(vkCreateFence(device_, &fence, nullptr, &done_));
        undo_.push_back([=, this] {
            vkDestroyFence(device_, done_, nullptr);
            vkDestroyCommandPool(device_, made, nullptr);
        });
    }
    void barrier(VkBuffer buffer, std::uint32_t from, std::uint32_t to, VkAccessFlags from_access,
                 VkAccessFlags to_access) const {
        const VkBufferMemoryBarrier barrier{.sType = VK_STRUCTURE_TYPE_BUFFER_MEMORY_BARRIER,
                                            .srcAccessMask = from_access,
                                            .dstAccessMask = to_access,
                                            .srcQueueFamilyIndex = from,
                                            .dstQueueFamilyIndex = to,
                                            .buffer = buffer,
                                            .offset = 0,
                                            .size = VK_WHOLE_SIZE};
        vkCmdPipelineBarrier(commands_, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT,
                             VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, 0, 0, nullptr, 1, &barrier, 0,
                             nullptr);
    }

    Mode mode_;
    VkInstance instance_ = VK_NULL_HANDLE;
    VkPhysicalDevice physical_ = VK_NULL_HANDLE;
    VkDevice device_ = VK_NULL_HANDLE;
    VkQueue queue_ = VK_NULL_HANDLE;
    VkCommandBuffer commands_ = VK_NULL_HANDLE;
    VkFence done_ = VK_NULL_HANDLE;
    std::vector<std::function<void()>> undo_;
};

class LayerSystemTest : public ::testing::TestWithParam<Mode> {
protected:
    void SetUp() override {
        SLUICE_REQUIRES(access("/dev/udmabuf", R_OK | W_OK) == 0, "/dev/udmabuf does not open");
        SLUICE_REQUIRES(Fence::available(), "no sw_sync in debugfs: no fences to control");
        setenv("VK_LAYER_PATH", SLUICE_LAYER_MANIFESTS, 1);
    }
};

TEST_P(LayerSystemTest, AConsumerReadsWhatTheProducersFenceIsAbout) {
    const Buffer shared;
    const Fence fence;
    Application consumer(GetParam());
    void* copied = nullptr;
    const VkBuffer from = consumer.make_buffer(&shared),
                   to = consumer.make_buffer(nullptr, &copied);
    shared.fill(before);
    shared.leave(fence.fd());
    std::thread producer([&] { // lavapipe's queue blocks whoever asks it for a fence
        std::this_thread::sleep_for(300ms);
        shared.fill(after);
        fence.signal();
    });
    consumer.submit(from, VK_ACCESS_TRANSFER_READ_BIT, [&](VkCommandBuffer commands) {
        const VkBufferCopy all{.srcOffset = 0, .dstOffset = 0, .size = size};
        vkCmdCopyBuffer(commands, from, to, 1, &all);
    });
    consumer.wait();
    producer.join();
    std::uint32_t last = 0;
    std::memcpy(&last, static_cast<const char*>(copied) + size - 4, 4);
    EXPECT_EQ(last, GetParam().layer ? after : before);
}

TEST_P(LayerSystemTest, AConsumerThatTrustsPollSeesWhatTheProducerWrote) {
    const Buffer shared;
    Application producer(GetParam());
    const VkBuffer to = producer.make_buffer(&shared);
    shared.fill(before);
    const VkEvent event = producer.make_event();
    std::thread slow([&] { // as above
        std::this_thread::sleep_for(200ms);
        producer.set(event);
    });
    producer.submit(to, VK_ACCESS_TRANSFER_WRITE_BIT, [&](VkCommandBuffer commands) {
        vkCmdWaitEvents(commands, 1, &event, VK_PIPELINE_STAGE_HOST_BIT,
                        VK_PIPELINE_STAGE_TRANSFER_BIT, 0, nullptr, 0, nullptr, 0, nullptr);
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
        void* copied = nullptr;
        const VkBuffer from = consumer.make_buffer(&shared),
                       to = consumer.make_buffer(nullptr, &copied);
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
        consumer.submit(from, VK_ACCESS_TRANSFER_READ_BIT, [&](VkCommandBuffer commands) {
            const VkBufferCopy all{.srcOffset = 0, .dstOffset = 0, .size = size};
            vkCmdCopyBuffer(commands, from, to, 1, &all);
        });
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
    EXPECT_EQ(number_after("size", import), size);
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
