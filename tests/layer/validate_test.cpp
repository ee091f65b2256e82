// SPDX-License-Identifier: MIT
// What `validate` says, and what it does not: each message has tests of both.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <vulkan/vk_layer.h>

#include "layer/application.hpp"
#include "messages.hpp"
#include "support/allocations.hpp"
#include "support/fake_reservations.hpp"
#include "support/fake_sync_file.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/scripted_libc.hpp"

extern "C" VkResult vkNegotiateLoaderLayerInterfaceVersion(VkNegotiateLayerInterface* version);

namespace sluice::test {
namespace {

using Ids = std::vector<std::string>;

constexpr std::uint32_t page = 4096;
constexpr std::uint64_t linear = 0, invalid = 0x00FF'FFFF'FFFF'FFFF, tiled = 0x0200'0000'0000'0001;
constexpr std::uint32_t foreign = VK_QUEUE_FAMILY_FOREIGN_EXT;
constexpr VkImageUsageFlags transfers =
    VK_IMAGE_USAGE_TRANSFER_SRC_BIT | VK_IMAGE_USAGE_TRANSFER_DST_BIT;
constexpr VkFormat nv12 = VK_FORMAT_G8_B8R8_2PLANE_420_UNORM;

class LayerValidateTest : public FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        libc.emplace();
        libc->memfds_are_dma_bufs();
        fake_sync_files(*libc);
        buffers.set_up(*libc);
        icd.emplace(fail_the_test);
        setenv("VK_SLUICE_DMA_BUF_VALIDATE", "1", 1);
        // Fences are left by others alone, unless a test wants it otherwise.
        setenv("VK_SLUICE_DMA_BUF_SYNC", "off", 1);
        testing::internal::CaptureStderr();
    }
    /// Makes the application, once the driver is as the test wants it.
    void start() {
        loader.emplace(*icd, std::vector{&vkNegotiateLoaderLayerInterfaceVersion}, fail_the_test);
        app.emplace(HandLoader::get_instance_proc_addr);
        ASSERT_EQ(app->result, VK_SUCCESS);
        queue = app->queue();
        pool = app->command_pool();
        const VkDebugUtilsMessengerCreateInfoEXT info{
            .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
            .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                               VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
            .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
            .pfnUserCallback = &hear,
            .pUserData = this};
        ASSERT_EQ(app->of_instance.CreateDebugUtilsMessengerEXT(app->instance, &info, nullptr,
                                                                &messenger),
                  VK_SUCCESS);
    }
    void TearDown() override {
        if (app) {
            app->vk.DeviceWaitIdle(app->device);
            for (VkBuffer each : vk_buffers)
                app->vk.DestroyBuffer(app->device, each, nullptr);
            for (VkImage each : images)
                app->vk.DestroyImage(app->device, each, nullptr);
            for (VkDeviceMemory each : memories)
                app->vk.FreeMemory(app->device, each, nullptr);
            app->vk.DestroyCommandPool(app->device, pool, nullptr);
            app->of_instance.DestroyDebugUtilsMessengerEXT(app->instance, messenger, nullptr);
        }
        EXPECT_EQ(heard, Ids()) << "after the end of the test";
        log += testing::internal::GetCapturedStderr();
        app.reset();
        loader.reset();
        icd.reset();
        libc.reset();
        unsetenv("VK_SLUICE_DMA_BUF_VALIDATE");
        unsetenv("VK_SLUICE_DMA_BUF_SYNC");
        FdTest::TearDown();
    }

    static VkBool32 VKAPI_CALL hear(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                    VkDebugUtilsMessageTypeFlagsEXT /*types*/,
                                    const VkDebugUtilsMessengerCallbackDataEXT* data, void* test) {
        auto& self = *static_cast<LayerValidateTest*>(test);
        self.heard.emplace_back(data->pMessageIdName);
        self.last = data->pMessage;
        self.last_number = data->messageIdNumber;
        self.last_severity = severity;
        self.last_object =
            data->objectCount > 0 ? data->pObjects[0] : VkDebugUtilsObjectNameInfoEXT{};
        return VK_FALSE;
    }
    /// What has been said since it was asked last.
    Ids said() { return std::exchange(heard, {}); }

    // ---- Memory

    [[nodiscard]] VkResult allocate(VkDeviceSize size, const void* next, VkDeviceMemory& memory) {
        const VkMemoryAllocateInfo info{
            .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, .pNext = next, .allocationSize = size};
        const VkResult result = app->vk.AllocateMemory(app->device, &info, nullptr, &memory);
        if (result == VK_SUCCESS)
            memories.push_back(memory);
        return result;
    }
    [[nodiscard]] VkResult import(int fd, VkDeviceSize size, VkDeviceMemory& memory,
                                  const void* next = nullptr) {
        const VkImportMemoryFdInfoKHR info{.sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR,
                                           .pNext = next,
                                           .handleType =
                                               VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT,
                                           .fd = fd};
        return allocate(size, &info, memory);
    }
    /// A dma-buf of \p size bytes, imported whole. `inode` is its own.
    VkDeviceMemory import(std::uint64_t size = page, const void* next = nullptr) {
        UniqueFd buffer = memfd(size);
        inode = inode_of(buffer.get());
        VkDeviceMemory memory = VK_NULL_HANDLE;
        EXPECT_EQ(import(buffer.release(), size, memory, next), VK_SUCCESS);
        return memory;
    }
    /// Memory of our own, exported as a dma-buf.
    VkDeviceMemory exported() {
        const VkExportMemoryAllocateInfo as{.sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO,
                                            .handleTypes =
                                                VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
        VkDeviceMemory memory = VK_NULL_HANDLE;
        EXPECT_EQ(allocate(page, &as, memory), VK_SUCCESS);
        const VkMemoryGetFdInfoKHR get{.sType = VK_STRUCTURE_TYPE_MEMORY_GET_FD_INFO_KHR,
                                       .memory = memory,
                                       .handleType =
                                           VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
        int fd = -1;
        EXPECT_EQ(app->vk.GetMemoryFdKHR(app->device, &get, &fd), VK_SUCCESS);
        const UniqueFd given(std::move(fd));
        return memory;
    }

    // ---- Images and buffers

    VkBuffer unbound_buffer(VkBufferUsageFlags usage, VkDeviceSize size = page) {
        const VkExternalMemoryBufferCreateInfo external{
            .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
            .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
        const VkBufferCreateInfo info{.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                      .pNext = &external,
                                      .size = size,
                                      .usage = usage};
        VkBuffer buffer = VK_NULL_HANDLE;
        EXPECT_EQ(app->vk.CreateBuffer(app->device, &info, nullptr, &buffer), VK_SUCCESS);
        vk_buffers.push_back(buffer);
        return buffer;
    }
    VkBuffer buffer_in(VkDeviceMemory memory,
                       VkBufferUsageFlags usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                                                  VK_BUFFER_USAGE_TRANSFER_DST_BIT) {
        VkBuffer buffer = unbound_buffer(usage);
        EXPECT_EQ(app->vk.BindBufferMemory(app->device, buffer, memory, 0), VK_SUCCESS);
        return buffer;
    }
    /// Where reads go to and writes come from: nobody shares it.
    VkBuffer staging() {
        if (own == VK_NULL_HANDLE) {
            VkDeviceMemory memory = VK_NULL_HANDLE;
            EXPECT_EQ(allocate(page, nullptr, memory), VK_SUCCESS);
            own = buffer_in(memory);
        }
        return own;
    }
    struct Image {
        VkFormat format = VK_FORMAT_R8G8B8A8_UNORM;
        VkImageUsageFlags usage = transfers;
        VkImageCreateFlags flags = 0;
        std::uint64_t modifier = linear;
        std::vector<VkSubresourceLayout> planes{{.offset = 0, .rowPitch = 128}};
    };
    /// 32 texels across and down, with an explicit layout.
    VkImage image(const Image& of) {
        const VkImageDrmFormatModifierExplicitCreateInfoEXT layout{
            .sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_EXPLICIT_CREATE_INFO_EXT,
            .drmFormatModifier = of.modifier,
            .drmFormatModifierPlaneCount = static_cast<std::uint32_t>(of.planes.size()),
            .pPlaneLayouts = of.planes.data()};
        return image(of, &layout);
    }
    VkImage image(const Image& of, const void* next) {
        const VkExternalMemoryImageCreateInfo external{
            .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO,
            .pNext = next,
            .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
        const VkImageCreateInfo info{.sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO,
                                     .pNext = &external,
                                     .flags = of.flags,
                                     .imageType = VK_IMAGE_TYPE_2D,
                                     .format = of.format,
                                     .extent = {32, 32, 1},
                                     .mipLevels = 1,
                                     .arrayLayers = 1,
                                     .samples = VK_SAMPLE_COUNT_1_BIT,
                                     .tiling = VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT,
                                     .usage = of.usage};
        VkImage made = VK_NULL_HANDLE;
        EXPECT_EQ(app->vk.CreateImage(app->device, &info, nullptr, &made), VK_SUCCESS);
        images.push_back(made);
        return made;
    }
    VkImage image_in(VkDeviceMemory memory, const Image& of) {
        VkImage made = image(of);
        bind(made, memory);
        return made;
    }
    void bind(VkImage to, VkDeviceMemory memory, VkDeviceSize offset = 0) const {
        EXPECT_EQ(app->vk.BindImageMemory(app->device, to, memory, offset), VK_SUCCESS);
    }
    void bind_plane(VkImage to, VkDeviceMemory memory, VkImageAspectFlagBits aspect,
                    VkDeviceSize offset = 0) const {
        const VkBindImagePlaneMemoryInfo plane{
            .sType = VK_STRUCTURE_TYPE_BIND_IMAGE_PLANE_MEMORY_INFO, .planeAspect = aspect};
        const VkBindImageMemoryInfo info{.sType = VK_STRUCTURE_TYPE_BIND_IMAGE_MEMORY_INFO,
                                         .pNext = &plane,
                                         .image = to,
                                         .memory = memory,
                                         .memoryOffset = offset};
        EXPECT_EQ(app->vk.BindImageMemory2(app->device, 1, &info), VK_SUCCESS);
    }

    // ---- Commands

    using Record = std::function<void(VkCommandBuffer)>;
    VkCommandBuffer record(const std::vector<Record>& what) const {
        VkCommandBuffer commands = app->begin(pool);
        for (const Record& each : what)
            each(commands);
        EXPECT_EQ(app->vk.EndCommandBuffer(commands), VK_SUCCESS);
        return commands;
    }
    /// Records and submits \p what. \returns what was said meanwhile.
    Ids run(const std::vector<Record>& what) {
        EXPECT_EQ(app->submit(queue, {}, {}, {record(what)}), VK_SUCCESS);
        return said();
    }
    Record barrier(VkBuffer buffer, std::uint32_t from, std::uint32_t to,
                   VkDeviceSize size = VK_WHOLE_SIZE) const {
        return [=, this](VkCommandBuffer commands) {
            const VkBufferMemoryBarrier info{.sType = VK_STRUCTURE_TYPE_BUFFER_MEMORY_BARRIER,
                                             .srcQueueFamilyIndex = from,
                                             .dstQueueFamilyIndex = to,
                                             .buffer = buffer,
                                             .size = size};
            app->vk.CmdPipelineBarrier(commands, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT,
                                       VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, 0, 0, nullptr, 1, &info,
                                       0, nullptr);
        };
    }
    Record barrier(VkImage of, std::uint32_t from, std::uint32_t to,
                   VkImageLayout before = VK_IMAGE_LAYOUT_GENERAL,
                   VkImageLayout after = VK_IMAGE_LAYOUT_GENERAL,
                   VkImageAspectFlags aspects = VK_IMAGE_ASPECT_COLOR_BIT) const {
        return [=, this](VkCommandBuffer commands) {
            const VkImageMemoryBarrier2 info{
                .sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER_2,
                .srcStageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
                .dstStageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
                .oldLayout = before,
                .newLayout = after,
                .srcQueueFamilyIndex = from,
                .dstQueueFamilyIndex = to,
                .image = of,
                .subresourceRange = {.aspectMask = aspects,
                                     .levelCount = VK_REMAINING_MIP_LEVELS,
                                     .layerCount = VK_REMAINING_ARRAY_LAYERS}};
            const VkDependencyInfo all{.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO,
                                       .imageMemoryBarrierCount = 1,
                                       .pImageMemoryBarriers = &info};
            app->vk.CmdPipelineBarrier2(commands, &all);
        };
    }
    template <typename Handle> Record acquire(Handle what) const {
        return barrier(what, foreign, 0);
    }
    template <typename Handle> Record release(Handle what) const {
        return barrier(what, 0, foreign);
    }
    Record transition(VkImage of, VkImageLayout before, VkImageLayout after) const {
        return barrier(of, VK_QUEUE_FAMILY_IGNORED, VK_QUEUE_FAMILY_IGNORED, before, after);
    }
    Record read(VkBuffer from) {
        return [this, from, to = staging()](VkCommandBuffer commands) {
            const VkBufferCopy region{.size = page};
            app->vk.CmdCopyBuffer(commands, from, to, 1, &region);
        };
    }
    Record write(VkBuffer to) {
        return [this, to, from = staging()](VkCommandBuffer commands) {
            const VkBufferCopy region{.size = page};
            app->vk.CmdCopyBuffer(commands, from, to, 1, &region);
        };
    }
    Record read(VkImage from) {
        return [this, from, to = staging()](VkCommandBuffer commands) {
            const VkBufferImageCopy region{.imageExtent = {32, 32, 1}};
            app->vk.CmdCopyImageToBuffer(commands, from, VK_IMAGE_LAYOUT_GENERAL, to, 1, &region);
        };
    }
    Record write(VkImage to) {
        return [this, to, from = staging()](VkCommandBuffer commands) {
            const VkBufferImageCopy region{.imageExtent = {32, 32, 1}};
            app->vk.CmdCopyBufferToImage(commands, from, to, VK_IMAGE_LAYOUT_GENERAL, 1, &region);
        };
    }

    /// Ends the program, and uses and destroys what there is after the destructors of all that was
    /// made meanwhile.
    void exit_with_a_device() {
        static LayerValidateTest* self = nullptr;
        self = this;
        (void)std::atexit([] { // what is registered first comes last
            LayerValidateTest& test = *self;
            VkBuffer buffer = test.unbound_buffer(VK_BUFFER_USAGE_TRANSFER_SRC_BIT);
            test.app->vk.DestroyBuffer(test.app->device, buffer, nullptr);
            test.app->vk.DestroyCommandPool(test.app->device, test.pool, nullptr);
            test.app->of_instance.DestroyDebugUtilsMessengerEXT(test.app->instance, test.messenger,
                                                                nullptr);
            test.app.reset();
            (void)std::fputs("all of it", stderr);
        });
        start();
        std::exit(0); // NOLINT(concurrency-mt-unsafe): the program's only thread
    }

    FakeReservations buffers;
    std::optional<ScriptedLibc> libc;
    std::optional<FakeIcd> icd;
    std::optional<HandLoader> loader;
    std::optional<Application> app;
    VkQueue queue = VK_NULL_HANDLE;
    VkCommandPool pool = VK_NULL_HANDLE;
    VkDebugUtilsMessengerEXT messenger = VK_NULL_HANDLE;
    VkBuffer own = VK_NULL_HANDLE;
    ino_t inode = 0;
    std::vector<VkDeviceMemory> memories;
    std::vector<VkBuffer> vk_buffers;
    std::vector<VkImage> images;

    Ids heard;
    std::string last, log;
    std::int32_t last_number = 0;
    VkDebugUtilsMessageSeverityFlagBitsEXT last_severity{};
    VkDebugUtilsObjectNameInfoEXT last_object{};
};

const Ids nothing, without_acquire{"SLUICE-use-without-acquire"},
    without_release{"SLUICE-handover-without-release"},
    allocation_beyond{"SLUICE-allocation-beyond-buffer"},
    plane_beyond{"SLUICE-plane-beyond-buffer"}, plane_count{"SLUICE-plane-count"},
    not_listed{"SLUICE-modifier-not-listed"}, is_invalid{"SLUICE-modifier-invalid"},
    need_disjoint{"SLUICE-planes-need-disjoint"}, no_disjoint{"SLUICE-disjoint-not-listed"},
    no_dedicated{"SLUICE-dedicated-missing"}, while_pending{"SLUICE-cpu-access-while-pending"},
    fd_reused{"SLUICE-fd-reused"};

// ---- The messages themselves --------------------------------------------------------------------

TEST_F(LayerValidateTest, AMessageGoesToMessengersAndToTheLog) {
    start();
    UniqueFd buffer = memfd(page);
    VkDeviceMemory memory = VK_NULL_HANDLE;
    ASSERT_EQ(import(buffer.release(), 2 * page, memory), VK_SUCCESS);
    EXPECT_EQ(said(), allocation_beyond);
    EXPECT_EQ(last_severity, VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT);
    EXPECT_EQ(last_number, 0x534C0003);
    EXPECT_NE(last.find("8192 bytes"), std::string::npos) << last;
    EXPECT_NE(last.find("(4096 bytes)"), std::string::npos) << last;
    EXPECT_NE(last.find("See SLUICE-allocation-beyond-buffer in docs/layer-messages.md"),
              std::string::npos)
        << last;
    log = testing::internal::GetCapturedStderr();
    testing::internal::CaptureStderr();
    EXPECT_NE(log.find(last), std::string::npos) << log;
}

TEST_F(LayerValidateTest, WithoutMessengersThereIsTheLog) {
    icd->lacks.insert("vkSubmitDebugUtilsMessageEXT");
    start();
    UniqueFd buffer = memfd(page);
    VkDeviceMemory memory = VK_NULL_HANDLE;
    ASSERT_EQ(import(buffer.release(), 2 * page, memory), VK_SUCCESS);
    EXPECT_EQ(said(), nothing);
    log = testing::internal::GetCapturedStderr();
    testing::internal::CaptureStderr();
    EXPECT_NE(log.find("SLUICE-allocation-beyond-buffer"), std::string::npos) << log;
}

TEST_F(LayerValidateTest, TheSameIsNotToldWithoutEnd) {
    start();
    for (int i = 0; i < 20; ++i) {
        UniqueFd buffer = memfd(page);
        VkDeviceMemory memory = VK_NULL_HANDLE;
        ASSERT_EQ(import(buffer.release(), 2 * page, memory), VK_SUCCESS);
    }
    EXPECT_EQ(said().size(), 10U);
    EXPECT_NE(last.find("not told any more"), std::string::npos) << last;
}

TEST_F(LayerValidateTest, WhereItIsOffNothingStandsInTheWay) {
    setenv("VK_SLUICE_DMA_BUF_VALIDATE", "0", 1);
    start();
    const auto driver = reinterpret_cast<PFN_vkGetDeviceProcAddr>(
        FakeIcd::get_instance_proc_addr(app->instance, "vkGetDeviceProcAddr"));
    for (const char* name : {"vkCmdCopyBuffer", "vkMapMemory", "vkCreateImage"})
        EXPECT_EQ(HandLoader::get_device_proc_addr(app->device, name), driver(app->device, name))
            << name;
    UniqueFd buffer = memfd(page);
    VkDeviceMemory memory = VK_NULL_HANDLE;
    ASSERT_EQ(import(buffer.release(), 2 * page, memory), VK_SUCCESS);
    EXPECT_EQ(said(), nothing);
}

TEST_F(LayerValidateTest, WhoDoesItRightHearsNothing) {
    setenv("VK_SLUICE_DMA_BUF_SYNC", "auto", 1);
    start();
    VkImage drawn = image_in(import(), {.usage = transfers | VK_IMAGE_USAGE_SAMPLED_BIT});
    VkBuffer filled = buffer_in(import());
    for (int frame = 0; frame < 3; ++frame)
        EXPECT_EQ(run({acquire(drawn), acquire(filled), read(drawn), write(filled), release(drawn),
                       release(filled)}),
                  nothing);
}

TEST(LayerMessagesTest, ThePageAndTheTableAgree) {
    std::ifstream file(SLUICE_MESSAGES_PAGE);
    ASSERT_TRUE(file) << SLUICE_MESSAGES_PAGE;
    std::stringstream text;
    text << file.rdbuf();
    const std::string page_text = text.str();
    Ids headings, known;
    std::istringstream lines(page_text);
    for (std::string line; std::getline(lines, line);)
        if (line.starts_with("## SLUICE-"))
            headings.push_back(line.substr(3));
    std::vector<std::int32_t> numbers;
    for (const layer::MessageInfo& each : layer::known_messages()) {
        known.emplace_back(each.id);
        EXPECT_EQ(each.id.data()[each.id.size()], '\0');
        EXPECT_EQ(std::ranges::count(numbers, each.number), 0) << each.id;
        numbers.push_back(each.number);
        const std::size_t begin = page_text.find("\n## " + std::string(each.id) + "\n");
        ASSERT_NE(begin, std::string::npos) << each.id;
        const std::string section =
            page_text.substr(begin, page_text.find("\n## ", begin + 1) - begin);
        for (const char* part : {"**Means.**", "**Matters.**", "**Fix.**", "**Source.**"})
            EXPECT_NE(section.find(part), std::string::npos) << each.id << ": " << part;
        std::ostringstream hex;
        hex << "0x" << std::hex << std::uppercase << each.number;
        EXPECT_NE(section.find(hex.str()), std::string::npos) << each.id << ": " << hex.str();
        const bool is_error = each.severity == VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT;
        EXPECT_NE(section.find(is_error ? "error" : "warning"), std::string::npos) << each.id;
    }
    EXPECT_EQ(headings, known) << "in the order of the table";
}

// ---- SLUICE-use-without-acquire -----------------------------------------------------------------

TEST_F(LayerValidateTest, ToReadAfterAReleaseNeedsAnAcquire) {
    start();
    VkBuffer buffer = buffer_in(import());
    EXPECT_EQ(run({acquire(buffer), read(buffer), release(buffer)}), nothing);
    EXPECT_EQ(run({read(buffer)}), without_acquire);
    EXPECT_EQ(last_object.objectHandle, layer::number_of(buffer));
    EXPECT_EQ(run({read(buffer)}), without_acquire) << "who knows is told each time";
    EXPECT_EQ(run({acquire(buffer), read(buffer)}), nothing);
    EXPECT_EQ(run({read(buffer)}), nothing) << "it is still ours";
}

TEST_F(LayerValidateTest, WhoNeverAcquiresIsToldOnce) {
    start();
    VkBuffer buffer = buffer_in(import());
    VkBuffer other = buffer_in(import());
    EXPECT_EQ(run({read(buffer)}), without_acquire);
    EXPECT_EQ(run({read(buffer)}), nothing);
    EXPECT_EQ(run({read(other)}), without_acquire) << "each buffer";
}

TEST_F(LayerValidateTest, TheOrderOfSubmissionCounts) {
    start();
    VkBuffer buffer = buffer_in(import());
    VkCommandBuffer reads = record({read(buffer)});
    VkCommandBuffer acquires = record({acquire(buffer)});
    ASSERT_EQ(app->submit(queue, {}, {}, {acquires, reads}), VK_SUCCESS);
    EXPECT_EQ(said(), nothing);
    VkBuffer late = buffer_in(import());
    VkCommandBuffer reads_late = record({read(late)});
    VkCommandBuffer acquires_late = record({acquire(late)});
    ASSERT_EQ(app->submit(queue, {}, {}, {reads_late, acquires_late}), VK_SUCCESS);
    EXPECT_EQ(said(), without_acquire);
}

TEST_F(LayerValidateTest, EveryKindOfTransferReads) {
    start();
    VkBuffer to = staging();
    VkImage into = image_in(exported(), {});
    const auto& vk = app->vk;
    const std::vector<std::function<void(VkCommandBuffer, VkBuffer)>> of_buffers{
        [&](VkCommandBuffer commands, VkBuffer from) {
            const VkCopyBufferInfo2 info{
                .sType = VK_STRUCTURE_TYPE_COPY_BUFFER_INFO_2, .srcBuffer = from, .dstBuffer = to};
            vk.CmdCopyBuffer2(commands, &info);
        },
        [&](VkCommandBuffer commands, VkBuffer from) {
            vk.CmdCopyBufferToImage(commands, from, into, VK_IMAGE_LAYOUT_GENERAL, 0, nullptr);
        },
        [&](VkCommandBuffer commands, VkBuffer from) {
            const VkCopyBufferToImageInfo2 info{.sType =
                                                    VK_STRUCTURE_TYPE_COPY_BUFFER_TO_IMAGE_INFO_2,
                                                .srcBuffer = from,
                                                .dstImage = into};
            vk.CmdCopyBufferToImage2(commands, &info);
        }};
    for (const auto& each : of_buffers) {
        VkBuffer from = buffer_in(import());
        EXPECT_EQ(run({[&](VkCommandBuffer commands) { each(commands, from); }}), without_acquire);
    }
    const std::vector<std::function<void(VkCommandBuffer, VkImage)>> of_images{
        [&](VkCommandBuffer commands, VkImage from) {
            vk.CmdCopyImage(commands, from, VK_IMAGE_LAYOUT_GENERAL, into, VK_IMAGE_LAYOUT_GENERAL,
                            0, nullptr);
        },
        [&](VkCommandBuffer commands, VkImage from) {
            vk.CmdBlitImage(commands, from, VK_IMAGE_LAYOUT_GENERAL, into, VK_IMAGE_LAYOUT_GENERAL,
                            0, nullptr, VK_FILTER_NEAREST);
        },
        [&](VkCommandBuffer commands, VkImage from) {
            const VkCopyImageInfo2 info{
                .sType = VK_STRUCTURE_TYPE_COPY_IMAGE_INFO_2, .srcImage = from, .dstImage = into};
            vk.CmdCopyImage2(commands, &info);
        },
        [&](VkCommandBuffer commands, VkImage from) {
            const VkBlitImageInfo2 info{
                .sType = VK_STRUCTURE_TYPE_BLIT_IMAGE_INFO_2, .srcImage = from, .dstImage = into};
            vk.CmdBlitImage2(commands, &info);
        },
        [&](VkCommandBuffer commands, VkImage from) {
            const VkResolveImageInfo2 info{.sType = VK_STRUCTURE_TYPE_RESOLVE_IMAGE_INFO_2,
                                           .srcImage = from,
                                           .dstImage = into};
            vk.CmdResolveImage2(commands, &info);
        },
        [&](VkCommandBuffer commands, VkImage from) {
            const VkCopyImageToBufferInfo2 info{.sType =
                                                    VK_STRUCTURE_TYPE_COPY_IMAGE_TO_BUFFER_INFO_2,
                                                .srcImage = from,
                                                .dstBuffer = to};
            vk.CmdCopyImageToBuffer2(commands, &info);
        }};
    for (const auto& each : of_images) {
        VkImage from = image_in(import(), {});
        Ids told = run({[&](VkCommandBuffer commands) { each(commands, from); }});
        if (told.empty()) // each message is told ten times only
            ADD_FAILURE();
        else
            EXPECT_EQ(told, without_acquire);
    }
}

TEST_F(LayerValidateTest, SecondaryCommandsCount) {
    start();
    VkBuffer buffer = buffer_in(import());
    const VkCommandBufferAllocateInfo info{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                           .commandPool = pool,
                                           .level = VK_COMMAND_BUFFER_LEVEL_SECONDARY,
                                           .commandBufferCount = 1};
    const VkCommandBufferBeginInfo begin{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    VkCommandBuffer secondary = VK_NULL_HANDLE;
    ASSERT_EQ(app->vk.AllocateCommandBuffers(app->device, &info, &secondary), VK_SUCCESS);
    ASSERT_EQ(app->vk.BeginCommandBuffer(secondary, &begin), VK_SUCCESS);
    read(buffer)(secondary);
    ASSERT_EQ(app->vk.EndCommandBuffer(secondary), VK_SUCCESS);
    EXPECT_EQ(run({[&](VkCommandBuffer commands) {
                  app->vk.CmdExecuteCommands(commands, 1, &secondary);
              }}),
              without_acquire);
}

TEST_F(LayerValidateTest, WhatIsRecordedAnewIsForgotten) {
    start();
    VkBuffer buffer = buffer_in(import());
    VkCommandBuffer commands = record({read(buffer)});
    const VkCommandBufferBeginInfo begin{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    ASSERT_EQ(app->vk.BeginCommandBuffer(commands, &begin), VK_SUCCESS);
    ASSERT_EQ(app->vk.EndCommandBuffer(commands), VK_SUCCESS);
    ASSERT_EQ(app->submit(queue, {}, {}, {commands}), VK_SUCCESS);
    EXPECT_EQ(said(), nothing);
}

TEST_F(LayerValidateTest, NoBufferIsKeptForCommandsThatAreGone) {
    start();
    (void)staging();
    const auto before = open_fds();
    const auto record_and_free = [&] {
        VkDeviceMemory memory = import();
        VkBuffer buffer = buffer_in(memory);
        VkCommandBuffer commands = record({acquire(buffer), read(buffer)});
        app->vk.DestroyBuffer(app->device, buffer, nullptr);
        app->vk.FreeMemory(app->device, memory, nullptr);
        vk_buffers.pop_back();
        memories.pop_back();
        EXPECT_NE(open_fds(), before);
        return commands;
    };
    (void)record_and_free();
    EXPECT_EQ(app->vk.ResetCommandPool(app->device, pool, 0), VK_SUCCESS);
    EXPECT_EQ(open_fds(), before);
    VkCommandBuffer commands = record_and_free();
    EXPECT_EQ(app->vk.ResetCommandBuffer(commands, 0), VK_SUCCESS);
    EXPECT_EQ(open_fds(), before);
    commands = record_and_free();
    app->vk.FreeCommandBuffers(app->device, pool, 1, &commands);
    EXPECT_EQ(open_fds(), before);
    (void)record_and_free();
    app->vk.DestroyCommandPool(app->device, pool, nullptr);
    EXPECT_EQ(open_fds(), before);
    pool = app->command_pool();
}

TEST_F(LayerValidateTest, ContentsThatWereGivenUpAreNotRead) {
    start();
    VkImage copied = image_in(import(), {});
    EXPECT_EQ(
        run({transition(copied, VK_IMAGE_LAYOUT_UNDEFINED, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL)}),
        nothing)
        << "as is done to images that are yet to be filled";
    EXPECT_EQ(run({read(copied)}), without_acquire);

    VkImage sampled = image_in(import(), {.usage = VK_IMAGE_USAGE_SAMPLED_BIT});
    const auto discard =
        transition(sampled, VK_IMAGE_LAYOUT_UNDEFINED, VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL);
    EXPECT_EQ(run({discard}), nothing);
    EXPECT_EQ(run({discard}), without_acquire) << "nobody here writes it in between";

    VkImage changed = image_in(import(), {});
    EXPECT_EQ(run({transition(changed, VK_IMAGE_LAYOUT_GENERAL,
                              VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL)}),
              without_acquire)
        << "a transition keeps the contents";
}

TEST_F(LayerValidateTest, WhoWritesFirstNeedsNoAcquire) {
    start();
    VkBuffer buffer = buffer_in(import());
    EXPECT_EQ(run({write(buffer), read(buffer)}), nothing);
    VkImage drawn = image_in(import(), {});
    EXPECT_EQ(run({transition(drawn, VK_IMAGE_LAYOUT_UNDEFINED, VK_IMAGE_LAYOUT_GENERAL),
                   write(drawn), read(drawn), release(drawn)}),
              nothing);
    EXPECT_EQ(run({transition(drawn, VK_IMAGE_LAYOUT_UNDEFINED, VK_IMAGE_LAYOUT_GENERAL),
                   write(drawn), read(drawn), release(drawn)}),
              nothing);
    VkImage pooled = image_in(import(), {.usage = VK_IMAGE_USAGE_SAMPLED_BIT});
    const auto prepare =
        transition(pooled, VK_IMAGE_LAYOUT_UNDEFINED, VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL);
    EXPECT_EQ(run({prepare}), nothing);
    EXPECT_EQ(run({acquire(pooled), release(pooled)}), nothing);
    EXPECT_EQ(run({prepare}), nothing) << "the first one since";
}

TEST_F(LayerValidateTest, WhatWeAllocatedIsOursUntilWeHandItOver) {
    start();
    VkBuffer buffer = buffer_in(exported());
    EXPECT_EQ(run({read(buffer)}), nothing);
    EXPECT_EQ(run({release(buffer)}), nothing);
    EXPECT_EQ(run({read(buffer)}), without_acquire);
}

TEST_F(LayerValidateTest, WritesThatCannotBeSeenAreAllowedFor) {
    start();
    VkBuffer stored =
        buffer_in(import(), VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_STORAGE_BUFFER_BIT);
    EXPECT_EQ(run({read(stored)}), nothing);
    VkImage rendered =
        image_in(import(), {.usage = transfers | VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT});
    EXPECT_EQ(run({read(rendered)}), nothing);

    VkDeviceMemory memory = import();
    VkBuffer mapped = buffer_in(memory);
    void* at = nullptr;
    ASSERT_EQ(app->vk.MapMemory(app->device, memory, 0, VK_WHOLE_SIZE, 0, &at), VK_SUCCESS);
    app->vk.UnmapMemory(app->device, memory);
    EXPECT_EQ(run({read(mapped)}), nothing);

    memory = import();
    mapped = buffer_in(memory);
    const VkMemoryMapInfoKHR map{.sType = static_cast<VkStructureType>(1000271000),
                                 .pNext = nullptr,
                                 .flags = 0,
                                 .memory = memory,
                                 .offset = 0,
                                 .size = VK_WHOLE_SIZE};
    ASSERT_EQ(app->vk.MapMemory2KHR(app->device, &map, &at), VK_SUCCESS);
    EXPECT_EQ(run({read(mapped)}), nothing);
    const VkMemoryUnmapInfoKHR unmap{.sType = static_cast<VkStructureType>(1000271001),
                                     .pNext = nullptr,
                                     .flags = 0,
                                     .memory = memory};
    ASSERT_EQ(app->vk.UnmapMemory2KHR(app->device, &unmap), VK_SUCCESS);
}

TEST_F(LayerValidateTest, WhoSharesTheMemoryMayHaveItForAll) {
    start();
    VkDeviceMemory memory = import();
    VkBuffer one = buffer_in(memory), other = buffer_in(memory);
    EXPECT_EQ(run({acquire(one), read(other)}), nothing);
    EXPECT_EQ(run({release(one), read(other)}), without_acquire);
    EXPECT_EQ(run({acquire(one)}), nothing);
    app->vk.DestroyBuffer(app->device, one, nullptr);
    std::erase(vk_buffers, one);
    EXPECT_EQ(run({read(other)}), nothing);
}

TEST_F(LayerValidateTest, PartsAreLeftAlone) {
    start();
    VkBuffer buffer = buffer_in(import());
    EXPECT_EQ(run({acquire(buffer)}), nothing);
    EXPECT_EQ(run({barrier(buffer, 0, foreign, 1024)}), nothing);
    EXPECT_EQ(run({read(buffer)}), nothing) << "some of it is ours still";
    EXPECT_EQ(run({barrier(buffer, foreign, 0, 1024)}), nothing);
    EXPECT_EQ(run({barrier(buffer, foreign, 0, 1024)}), nothing);

    icd->finish();
    VkImage planar = image_in(
        import(), {.format = nv12,
                   .planes = {{.offset = 0, .rowPitch = 32}, {.offset = 1024, .rowPitch = 32}}});
    (void)said();
    const auto plane = [&](std::uint32_t from, std::uint32_t to, VkImageAspectFlags which) {
        return barrier(planar, from, to, VK_IMAGE_LAYOUT_GENERAL, VK_IMAGE_LAYOUT_GENERAL, which);
    };
    EXPECT_EQ(run({acquire(planar)}), nothing);
    EXPECT_EQ(run({plane(0, foreign, VK_IMAGE_ASPECT_PLANE_0_BIT), read(planar)}), nothing);
    EXPECT_EQ(run({plane(0, foreign, VK_IMAGE_ASPECT_PLANE_0_BIT | VK_IMAGE_ASPECT_PLANE_1_BIT),
                   read(planar)}),
              without_acquire)
        << "both are all of it";
}

TEST_F(LayerValidateTest, WhereTheOrderIsNotKnownNothingIsSaid) {
    start();
    VkBuffer buffer = buffer_in(import());
    VkSemaphore timeline = app->timeline();
    VkQueue other = app->queue(0, 1);
    ASSERT_EQ(app->submit(queue, {{timeline, 1}}, {}, {record({read(buffer)})}), VK_SUCCESS);
    EXPECT_EQ(said(), nothing) << "it comes after what is to be submitted yet";
    ASSERT_EQ(app->submit(other, {}, {{timeline, 1}}, {record({acquire(buffer)})}), VK_SUCCESS);
    EXPECT_EQ(said(), nothing);
    EXPECT_EQ(run({acquire(buffer), acquire(buffer)}), nothing) << "nothing is known of it now";

    VkBuffer known = buffer_in(import());
    ASSERT_EQ(app->submit(queue, {{timeline, 1}}, {}, {record({read(known)})}), VK_SUCCESS);
    EXPECT_EQ(said(), without_acquire) << "what this waits for has been submitted";
    app->vk.DeviceWaitIdle(app->device);
    app->vk.DestroySemaphore(app->device, timeline, nullptr);
}

TEST_F(LayerValidateTest, WhatComesAfterALateSubmissionIsLateToo) {
    start();
    VkBuffer buffer = buffer_in(import());
    VkSemaphore timeline = app->timeline();
    ASSERT_EQ(app->submit(queue, {{timeline, 1}}, {}), VK_SUCCESS);
    EXPECT_EQ(run({read(buffer)}), nothing);
    const VkSemaphoreSignalInfo signal{
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO, .semaphore = timeline, .value = 1};
    ASSERT_EQ(app->vk.SignalSemaphore(app->device, &signal), VK_SUCCESS);
    VkBuffer other = buffer_in(import());
    EXPECT_EQ(run({read(other)}), without_acquire);
    app->vk.DeviceWaitIdle(app->device);
    app->vk.DestroySemaphore(app->device, timeline, nullptr);
}

TEST_F(LayerValidateTest, WhatAnEarlierBatchSignalsIsOnItsWay) {
    start();
    VkBuffer buffer = buffer_in(import());
    VkSemaphore timeline = app->timeline();
    const auto at = [=](std::uint64_t value) {
        return VkSemaphoreSubmitInfo{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
                                     .semaphore = timeline,
                                     .value = value,
                                     .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT};
    };
    const VkSemaphoreSubmitInfo first = at(1);
    const VkCommandBufferSubmitInfo reads{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO,
                                          .commandBuffer = record({read(buffer)})};
    const std::array batches{VkSubmitInfo2{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                                           .signalSemaphoreInfoCount = 1,
                                           .pSignalSemaphoreInfos = &first},
                             VkSubmitInfo2{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                                           .waitSemaphoreInfoCount = 1,
                                           .pWaitSemaphoreInfos = &first,
                                           .commandBufferInfoCount = 1,
                                           .pCommandBufferInfos = &reads}};
    ASSERT_EQ(app->vk.QueueSubmit2(queue, 2, batches.data(), VK_NULL_HANDLE), VK_SUCCESS);
    EXPECT_EQ(said(), without_acquire);

    // The same with values in a structure of their own.
    const std::uint64_t second = 2;
    const VkTimelineSemaphoreSubmitInfo signalled{
        .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
        .signalSemaphoreValueCount = 1,
        .pSignalSemaphoreValues = &second};
    const VkTimelineSemaphoreSubmitInfo waited{.sType =
                                                   VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
                                               .waitSemaphoreValueCount = 1,
                                               .pWaitSemaphoreValues = &second};
    const VkPipelineStageFlags everything = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    VkBuffer other = buffer_in(import());
    VkCommandBuffer commands = record({read(other)});
    const std::array old{VkSubmitInfo{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                                      .pNext = &signalled,
                                      .signalSemaphoreCount = 1,
                                      .pSignalSemaphores = &timeline},
                         VkSubmitInfo{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                                      .pNext = &waited,
                                      .waitSemaphoreCount = 1,
                                      .pWaitSemaphores = &timeline,
                                      .pWaitDstStageMask = &everything,
                                      .commandBufferCount = 1,
                                      .pCommandBuffers = &commands}};
    ASSERT_EQ(app->vk.QueueSubmit(queue, 2, old.data(), VK_NULL_HANDLE), VK_SUCCESS);
    EXPECT_EQ(said(), without_acquire);
    EXPECT_EQ(app->vk.DeviceWaitIdle(app->device), VK_SUCCESS);

    // A batch that waits for more than has been signalled is as late as ever.
    VkBuffer late = buffer_in(import());
    const VkSemaphoreSubmitInfo third = at(3), fourth = at(4);
    const VkCommandBufferSubmitInfo reads_late{.sType =
                                                   VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO,
                                               .commandBuffer = record({read(late)})};
    const std::array too_early{VkSubmitInfo2{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                                             .signalSemaphoreInfoCount = 1,
                                             .pSignalSemaphoreInfos = &third},
                               VkSubmitInfo2{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                                             .waitSemaphoreInfoCount = 1,
                                             .pWaitSemaphoreInfos = &fourth,
                                             .commandBufferInfoCount = 1,
                                             .pCommandBufferInfos = &reads_late}};
    ASSERT_EQ(app->vk.QueueSubmit2(queue, 2, too_early.data(), VK_NULL_HANDLE), VK_SUCCESS);
    EXPECT_EQ(said(), nothing);
    ASSERT_EQ(app->submit(app->queue(0, 1), {}, {{timeline, 4}}), VK_SUCCESS);
    app->vk.DeviceWaitIdle(app->device);
    app->vk.DestroySemaphore(app->device, timeline, nullptr);
}

TEST_F(LayerValidateTest, ASubmissionThatFailsIsNotCounted) {
    start();
    VkBuffer buffer = buffer_in(import());
    VkCommandBuffer acquires = record({acquire(buffer)});
    icd->fail("vkQueueSubmit2", VK_ERROR_OUT_OF_HOST_MEMORY);
    ASSERT_EQ(app->submit(queue, {}, {}, {acquires}), VK_ERROR_OUT_OF_HOST_MEMORY);
    ASSERT_EQ(app->submit(queue, {}, {}, {acquires}), VK_SUCCESS);
    EXPECT_EQ(said(), nothing);
}

// ---- SLUICE-handover-without-release ------------------------------------------------------------

TEST_F(LayerValidateTest, TwoAcquiresNeedAReleaseBetweenThem) {
    start();
    VkBuffer buffer = buffer_in(import());
    VkImage drawn = image_in(import(), {});
    EXPECT_EQ(run({acquire(buffer), acquire(drawn)}), nothing);
    EXPECT_EQ(run({acquire(buffer)}), without_release);
    EXPECT_EQ(last_object.objectHandle, layer::number_of(buffer));
    EXPECT_EQ(run({acquire(drawn)}), without_release);
    EXPECT_EQ(run({release(buffer), release(drawn)}), nothing);
    EXPECT_EQ(run({acquire(buffer), acquire(drawn)}), nothing);
}

TEST_F(LayerValidateTest, AnAcquiredBufferMayGo) {
    start();
    VkDeviceMemory memory = import();
    VkBuffer buffer = buffer_in(memory);
    EXPECT_EQ(run({acquire(buffer)}), nothing);
    VkBuffer again = buffer_in(memory);
    EXPECT_EQ(run({acquire(again)}), nothing) << "another resource is another ownership";
    app->vk.QueueWaitIdle(queue);
    app->vk.DestroyBuffer(app->device, buffer, nullptr);
    std::erase(vk_buffers, buffer);
    app->vk.FreeMemory(app->device, memory, nullptr);
    std::erase(memories, memory);
    EXPECT_EQ(said(), nothing);
}

// ---- SLUICE-allocation-beyond-buffer, SLUICE-plane-beyond-buffer --------------------------------

TEST_F(LayerValidateTest, AnAllocationIsNoLargerThanItsBuffer) {
    start();
    UniqueFd small = memfd(page);
    VkDeviceMemory memory = VK_NULL_HANDLE;
    ASSERT_EQ(import(small.release(), page + 1, memory), VK_SUCCESS);
    EXPECT_EQ(said(), allocation_beyond);
    (void)import(page);
    EXPECT_EQ(said(), nothing);
    UniqueFd large = memfd(std::uint64_t{4} * page);
    ASSERT_EQ(import(large.release(), page, memory), VK_SUCCESS);
    EXPECT_EQ(said(), nothing) << "a part of it";
}

TEST_F(LayerValidateTest, PlanesEndInsideOfTheirBuffer) {
    start();
    // 32 rows of 128 bytes are the buffer, to the byte.
    VkImage fits = image_in(import(), {.planes = {{.offset = 0, .rowPitch = 128}}});
    EXPECT_EQ(said(), nothing);
    // The last row needs no padding: 31 * 130 + 128 = 4158.
    (void)image_in(import(std::uint64_t{4158}), {.planes = {{.offset = 0, .rowPitch = 130}}});
    EXPECT_EQ(said(), nothing);
    (void)image_in(import(std::uint64_t{4157}), {.planes = {{.offset = 0, .rowPitch = 130}}});
    EXPECT_EQ(said(), plane_beyond);
    VkImage shifted = image_in(import(), {.planes = {{.offset = 128, .rowPitch = 128}}});
    EXPECT_EQ(said(), plane_beyond);
    EXPECT_EQ(last_object.objectHandle, layer::number_of(shifted));
    EXPECT_NE(last.find("plane 0 begins at byte 128 and needs 4224 bytes"), std::string::npos)
        << last;
    bind(image({}), import(), 256);
    EXPECT_EQ(said(), plane_beyond) << "where it is bound counts";
    (void)image_in(import(), {.planes = {{.offset = UINT64_MAX - 8, .rowPitch = 128}}});
    EXPECT_EQ(said(), plane_beyond);
    (void)fits;
}

TEST_F(LayerValidateTest, TheChromaEndsInsideOfItsBufferToo) {
    icd->physical_devices[0].modifiers[0].drmFormatModifierPlaneCount = 2;
    start();
    const auto with = [](std::uint64_t chroma) {
        return Image{.format = nv12,
                     .planes = {{.offset = 0, .rowPitch = 32}, {.offset = chroma, .rowPitch = 32}}};
    };
    // 16 rows of 32 bytes.
    (void)image_in(import(1536), with(1024));
    EXPECT_EQ(said(), nothing);
    (void)image_in(import(1536), with(1056));
    EXPECT_EQ(said(), plane_beyond);

    Image apart = with(0);
    apart.flags = VK_IMAGE_CREATE_DISJOINT_BIT;
    VkImage disjoint = image(apart);
    bind_plane(disjoint, import(1024), VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT);
    bind_plane(disjoint, import(512), VK_IMAGE_ASPECT_MEMORY_PLANE_1_BIT_EXT);
    EXPECT_EQ(said(), nothing) << "each plane has a buffer of its own";
    disjoint = image(apart);
    bind_plane(disjoint, import(512), VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT);
    EXPECT_EQ(said(), plane_beyond);
}

TEST_F(LayerValidateTest, OfOtherModifiersTheBeginningIsKnown) {
    icd->physical_devices[0].modifiers.push_back(
        {.drmFormatModifier = tiled,
         .drmFormatModifierPlaneCount = 2,
         .drmFormatModifierTilingFeatures = ~VkFormatFeatureFlags{0}});
    start();
    const auto with = [](std::uint64_t second) {
        return Image{.modifier = tiled,
                     .planes = {{.offset = 0, .rowPitch = 1 << 20},
                                {.offset = second, .rowPitch = 1 << 20}}};
    };
    (void)image_in(import(), with(page - 1));
    EXPECT_EQ(said(), nothing) << "nobody knows what a row of it is";
    (void)image_in(import(), with(page));
    EXPECT_EQ(said(), plane_beyond);
}

// ---- SLUICE-plane-count, SLUICE-modifier-not-listed, SLUICE-modifier-invalid --------------------

TEST_F(LayerValidateTest, ThereAreAsManyPlanesAsTheModifierHas) {
    icd->physical_devices[0].modifiers[0].drmFormatModifierPlaneCount = 2;
    start();
    (void)image({.planes = {{}}});
    EXPECT_EQ(said(), plane_count);
    (void)image({.planes = {{}, {}, {}}});
    EXPECT_EQ(said(), plane_count);
    (void)image({.planes = {{}, {}}});
    EXPECT_EQ(said(), nothing);
}

TEST_F(LayerValidateTest, ModifiersAreThoseThatTheDriverLists) {
    start();
    (void)image({.modifier = tiled});
    EXPECT_EQ(said(), not_listed);
    EXPECT_NE(last.find("0x200000000000001"), std::string::npos) << last;
    (void)image({});
    EXPECT_EQ(said(), nothing);

    std::vector<std::uint64_t> offered{linear, tiled};
    VkImageDrmFormatModifierListCreateInfoEXT list{
        .sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_LIST_CREATE_INFO_EXT,
        .drmFormatModifierCount = 2,
        .pDrmFormatModifiers = offered.data()};
    (void)image({}, &list);
    EXPECT_EQ(said(), not_listed) << "in a list too";
    list.drmFormatModifierCount = 1;
    (void)image({}, &list);
    EXPECT_EQ(said(), nothing);
}

TEST_F(LayerValidateTest, InvalidIsNoModifier) {
    start();
    (void)image({.modifier = invalid});
    EXPECT_EQ(said(), is_invalid) << "and that alone";
    std::vector<std::uint64_t> offered{linear, invalid};
    VkImageDrmFormatModifierListCreateInfoEXT list{
        .sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_LIST_CREATE_INFO_EXT,
        .drmFormatModifierCount = 2,
        .pDrmFormatModifiers = offered.data()};
    (void)image({}, &list);
    EXPECT_EQ(said(), is_invalid);
    list.drmFormatModifierCount = 1;
    (void)image({}, &list);
    EXPECT_EQ(said(), nothing);
}

// ---- SLUICE-planes-need-disjoint, SLUICE-disjoint-not-listed ------------------------------------

TEST_F(LayerValidateTest, PlanesInSeveralBuffersAreDisjoint) {
    icd->physical_devices[0].modifiers[0].drmFormatModifierPlaneCount = 2;
    start();
    const Image of{.format = nv12,
                   .planes = {{.offset = 0, .rowPitch = 32}, {.offset = 1024, .rowPitch = 32}}};
    VkImage split = image(of);
    bind_plane(split, import(), VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT);
    EXPECT_EQ(said(), nothing);
    bind_plane(split, import(), VK_IMAGE_ASPECT_MEMORY_PLANE_1_BIT_EXT);
    EXPECT_EQ(said(), need_disjoint);

    // One buffer, whatever the fds are called.
    UniqueFd one = memfd(page);
    VkDeviceMemory first = VK_NULL_HANDLE, second = VK_NULL_HANDLE;
    ASSERT_EQ(import(dup(one.get()), page, first), VK_SUCCESS);
    ASSERT_EQ(import(one.release(), page, second), VK_SUCCESS);
    VkImage joint = image(of);
    bind_plane(joint, first, VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT);
    bind_plane(joint, second, VK_IMAGE_ASPECT_MEMORY_PLANE_1_BIT_EXT);
    EXPECT_EQ(said(), nothing);

    Image disjoint = of;
    disjoint.flags = VK_IMAGE_CREATE_DISJOINT_BIT;
    VkImage apart = image(disjoint);
    bind_plane(apart, import(), VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT);
    bind_plane(apart, import(), VK_IMAGE_ASPECT_MEMORY_PLANE_1_BIT_EXT);
    EXPECT_EQ(said(), nothing);
    VkImage pointless = image(disjoint);
    bind_plane(pointless, first, VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT);
    bind_plane(pointless, second, VK_IMAGE_ASPECT_MEMORY_PLANE_1_BIT_EXT);
    EXPECT_EQ(said(), nothing) << "Vulkan allows it";
}

TEST_F(LayerValidateTest, DisjointIsWhatTheDriverLists) {
    auto& modifiers = icd->physical_devices[0].modifiers;
    modifiers[0].drmFormatModifierPlaneCount = 2;
    modifiers.push_back(modifiers[0]);
    modifiers[1].drmFormatModifier = tiled;
    modifiers[1].drmFormatModifierTilingFeatures &=
        ~VkFormatFeatureFlags{VK_FORMAT_FEATURE_DISJOINT_BIT};
    start();
    Image of{.format = nv12,
             .flags = VK_IMAGE_CREATE_DISJOINT_BIT,
             .planes = {{.offset = 0, .rowPitch = 32}, {.offset = 1024, .rowPitch = 32}}};
    (void)image(of);
    EXPECT_EQ(said(), nothing);
    of.modifier = tiled;
    (void)image(of);
    EXPECT_EQ(said(), no_disjoint);
    of.flags = 0;
    (void)image(of);
    EXPECT_EQ(said(), nothing);
    of.format = VK_FORMAT_R8G8B8A8_UNORM;
    of.flags = VK_IMAGE_CREATE_DISJOINT_BIT | VK_IMAGE_CREATE_ALIAS_BIT;
    (void)image(of);
    EXPECT_EQ(said(), nothing) << "VUID 01577 allows it to aliases";
}

// ---- SLUICE-dedicated-missing -------------------------------------------------------------------

TEST_F(LayerValidateTest, WhatNeedsADedicatedAllocationHasOne) {
    icd->physical_devices[0].requires_dedicated = true;
    start();
    VkImage shared = image_in(import(), {});
    EXPECT_EQ(said(), no_dedicated);
    EXPECT_EQ(last_object.objectHandle, layer::number_of(shared));
    (void)buffer_in(import());
    EXPECT_EQ(said(), no_dedicated);

    VkImage alone = image({});
    VkMemoryDedicatedAllocateInfo dedicated{
        .sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO, .image = alone};
    bind(alone, import(page, &dedicated));
    EXPECT_EQ(said(), nothing);
    VkBuffer alone_too = unbound_buffer(VK_BUFFER_USAGE_TRANSFER_SRC_BIT);
    dedicated = {.sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO, .buffer = alone_too};
    EXPECT_EQ(app->vk.BindBufferMemory(app->device, alone_too, import(page, &dedicated), 0),
              VK_SUCCESS);
    EXPECT_EQ(said(), nothing);

    // Memory that nobody shares is the validation layers' affair.
    VkDeviceMemory private_memory = VK_NULL_HANDLE;
    ASSERT_EQ(allocate(page, nullptr, private_memory), VK_SUCCESS);
    (void)image_in(private_memory, {});
    EXPECT_EQ(said(), nothing);
}

TEST_F(LayerValidateTest, WhatIsDedicatedOnlyNeedsItWhateverTheRequirements) {
    icd->physical_devices[0].memory_features |= VK_EXTERNAL_MEMORY_FEATURE_DEDICATED_ONLY_BIT;
    start();
    (void)image_in(import(), {});
    EXPECT_EQ(said(), no_dedicated);
    EXPECT_NE(last.find("DEDICATED_ONLY"), std::string::npos) << last;
    (void)buffer_in(import());
    EXPECT_EQ(said(), no_dedicated);
    VkImage disjoint = image({.format = nv12, .flags = VK_IMAGE_CREATE_DISJOINT_BIT});
    bind_plane(disjoint, import(), VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT);
    EXPECT_EQ(said(), nothing) << "disjoint images cannot have any";
}

TEST_F(LayerValidateTest, TheRequirementsAloneAreEnough) {
    icd->physical_devices[0].requires_dedicated = true;
    icd->lacks = {"vkGetPhysicalDeviceImageFormatProperties2",
                  "vkGetPhysicalDeviceExternalBufferProperties"};
    start();
    (void)image_in(import(), {});
    EXPECT_EQ(said(), no_dedicated);
    EXPECT_NE(last.find("requiresDedicatedAllocation"), std::string::npos) << last;
    (void)buffer_in(import());
    EXPECT_EQ(said(), no_dedicated);
}

TEST_F(LayerValidateTest, OtherwiseNoDedicatedAllocationIsAskedFor) {
    start();
    (void)image_in(import(), {});
    (void)buffer_in(import());
    EXPECT_EQ(said(), nothing);
}

// ---- SLUICE-cpu-access-while-pending ------------------------------------------------------------

TEST_F(LayerValidateTest, TheCpuWaitsForOthers) {
    start();
    VkDeviceMemory memory = import();
    const ino_t buffer = inode;
    const VkMappedMemoryRange range{
        .sType = VK_STRUCTURE_TYPE_MAPPED_MEMORY_RANGE, .memory = memory, .size = VK_WHOLE_SIZE};
    void* at = nullptr;
    ASSERT_EQ(app->vk.MapMemory(app->device, memory, 0, VK_WHOLE_SIZE, 0, &at), VK_SUCCESS);
    EXPECT_EQ(app->vk.InvalidateMappedMemoryRanges(app->device, 1, &range), VK_SUCCESS);
    EXPECT_EQ(app->vk.FlushMappedMemoryRanges(app->device, 1, &range), VK_SUCCESS);
    EXPECT_EQ(said(), nothing) << "nobody is at work";
    buffers.status[buffer] = 0;
    EXPECT_EQ(app->vk.InvalidateMappedMemoryRanges(app->device, 1, &range), VK_SUCCESS);
    EXPECT_EQ(said(), while_pending);
    EXPECT_EQ(last_object.objectHandle, layer::number_of(memory));
    EXPECT_EQ(buffers.asked.back().second, std::uint32_t{DMA_BUF_SYNC_READ}) << "writers";
    EXPECT_EQ(app->vk.FlushMappedMemoryRanges(app->device, 1, &range), VK_SUCCESS);
    EXPECT_EQ(said(), while_pending);
    EXPECT_EQ(buffers.asked.back().second, std::uint32_t{DMA_BUF_SYNC_WRITE}) << "everyone";
    app->vk.UnmapMemory(app->device, memory);
    EXPECT_EQ(said(), nothing) << "it was mapped while nobody was at work";
}

TEST_F(LayerValidateTest, AMappingThatOthersWriteToAllTheWhile) {
    start();
    VkDeviceMemory memory = import();
    buffers.status[inode] = 0;
    void* at = nullptr;
    ASSERT_EQ(app->vk.MapMemory(app->device, memory, 0, VK_WHOLE_SIZE, 0, &at), VK_SUCCESS);
    EXPECT_EQ(said(), nothing) << "to map is not to touch";
    app->vk.UnmapMemory(app->device, memory);
    EXPECT_EQ(said(), while_pending);

    // The fence that is exported last is the one that the layer keeps.
    int kept = -1;
    libc->ioctl = [&, others = libc->ioctl](int fd, unsigned long request, void* argument) {
        const int done = others(fd, request, argument);
        if (done == 0 && request == DMA_BUF_IOCTL_EXPORT_SYNC_FILE)
            kept = dup(static_cast<dma_buf_export_sync_file*>(argument)->fd);
        return done;
    };
    ASSERT_EQ(app->vk.MapMemory(app->device, memory, 0, VK_WHOLE_SIZE, 0, &at), VK_SUCCESS);
    ASSERT_TRUE(write_fake_status(kept, 1));
    app->vk.UnmapMemory(app->device, memory);
    EXPECT_EQ(said(), nothing) << "they were done while it was mapped";
    close(kept);
}

TEST_F(LayerValidateTest, OnesOwnWorkIsOnesOwnAffair) {
    start();
    VkDeviceMemory memory = import();
    const VkMappedMemoryRange range{
        .sType = VK_STRUCTURE_TYPE_MAPPED_MEMORY_RANGE, .memory = memory, .size = VK_WHOLE_SIZE};
    void* at = nullptr;
    ASSERT_EQ(app->vk.MapMemory(app->device, memory, 0, VK_WHOLE_SIZE, 0, &at), VK_SUCCESS);
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
    buffers.status[inode] = 0;
    EXPECT_EQ(app->vk.FlushMappedMemoryRanges(app->device, 1, &range), VK_SUCCESS);
    EXPECT_EQ(app->vk.InvalidateMappedMemoryRanges(app->device, 1, &range), VK_SUCCESS);
    EXPECT_EQ(said(), nothing) << "the fence may be the application's own";
    ASSERT_EQ(app->vk.DeviceWaitIdle(app->device), VK_SUCCESS);
    EXPECT_EQ(app->vk.FlushMappedMemoryRanges(app->device, 1, &range), VK_SUCCESS);
    EXPECT_EQ(said(), while_pending) << "now it is not";
    app->vk.UnmapMemory(app->device, memory);
}

TEST_F(LayerValidateTest, WorkThatComesWhileAFenceIsLookedAtIsOnesOwn) {
    start();
    VkDeviceMemory memory = import();
    const VkMappedMemoryRange range{
        .sType = VK_STRUCTURE_TYPE_MAPPED_MEMORY_RANGE, .memory = memory, .size = VK_WHOLE_SIZE};
    void* at = nullptr;
    ASSERT_EQ(app->vk.MapMemory(app->device, memory, 0, VK_WHOLE_SIZE, 0, &at), VK_SUCCESS);
    // Another thread submits, and its fence is in the buffer when that is asked. The second time it
    // sees the end of its work too, before this thread has thought about what it found.
    bool ends = false;
    libc->ioctl = [&, others = libc->ioctl](int fd, unsigned long request, void* argument) {
        if (request != DMA_BUF_IOCTL_EXPORT_SYNC_FILE)
            return others(fd, request, argument);
        EXPECT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
        buffers.status[inode] = 0;
        const int done = others(fd, request, argument);
        if (ends) {
            EXPECT_EQ(app->vk.DeviceWaitIdle(app->device), VK_SUCCESS);
        }
        return done;
    };
    EXPECT_EQ(app->vk.FlushMappedMemoryRanges(app->device, 1, &range), VK_SUCCESS);
    EXPECT_EQ(said(), nothing);
    ASSERT_EQ(app->vk.DeviceWaitIdle(app->device), VK_SUCCESS);
    ends = true;
    EXPECT_EQ(app->vk.FlushMappedMemoryRanges(app->device, 1, &range), VK_SUCCESS);
    EXPECT_EQ(said(), nothing);
    app->vk.UnmapMemory(app->device, memory);
}

TEST_F(LayerValidateTest, AnotherDeviceOfTheProcessIsNobodyElse) {
    start();
    std::optional<Application> other(HandLoader::get_instance_proc_addr);
    ASSERT_EQ(other->result, VK_SUCCESS);
    UniqueFd buffer = memfd(page);
    inode = inode_of(buffer.get());
    VkDeviceMemory theirs = VK_NULL_HANDLE, ours = VK_NULL_HANDLE;
    ASSERT_EQ(other->import_memory(dup(buffer.get()), page, theirs), VK_SUCCESS);
    ASSERT_EQ(other->submit(other->queue(), {}, {}), VK_SUCCESS);
    ASSERT_EQ(import(buffer.release(), page, ours), VK_SUCCESS);
    const VkMappedMemoryRange range{
        .sType = VK_STRUCTURE_TYPE_MAPPED_MEMORY_RANGE, .memory = ours, .size = VK_WHOLE_SIZE};
    void* at = nullptr;
    ASSERT_EQ(app->vk.MapMemory(app->device, ours, 0, VK_WHOLE_SIZE, 0, &at), VK_SUCCESS);
    const auto flush = [&] {
        EXPECT_EQ(app->vk.FlushMappedMemoryRanges(app->device, 1, &range), VK_SUCCESS);
        return said();
    };
    buffers.status[inode] = 0;
    EXPECT_EQ(flush(), nothing) << "the fence may be the other device's";
    ASSERT_EQ(app->vk.DeviceWaitIdle(app->device), VK_SUCCESS);
    EXPECT_EQ(flush(), nothing) << "which does not wait for that";
    ASSERT_EQ(other->vk.DeviceWaitIdle(other->device), VK_SUCCESS);
    EXPECT_EQ(flush(), while_pending);

    // Nor can anything be told of work that comes at nobody knows what time.
    VkSemaphore timeline = other->timeline();
    ASSERT_EQ(other->submit(other->queue(), {{timeline, 1}}, {}), VK_SUCCESS);
    buffers.status[inode] = 1;
    EXPECT_EQ(flush(), nothing);
    buffers.status[inode] = 0;
    EXPECT_EQ(flush(), nothing);
    ASSERT_EQ(other->submit(other->queue(0, 1), {}, {{timeline, 1}}), VK_SUCCESS);
    ASSERT_EQ(other->vk.DeviceWaitIdle(other->device), VK_SUCCESS);
    other->vk.DestroySemaphore(other->device, timeline, nullptr);
    other->vk.FreeMemory(other->device, theirs, nullptr);
    // A device that is gone has nothing under way.
    other.reset();
    EXPECT_EQ(flush(), while_pending);
    app->vk.UnmapMemory(app->device, ours);
}

TEST_F(LayerValidateTest, ABufferInPartsIsNotLookedAt) {
    start();
    VkDeviceMemory memory = import();
    (void)buffer_in(memory);
    (void)buffer_in(memory);
    buffers.status[inode] = 0;
    const VkMappedMemoryRange range{
        .sType = VK_STRUCTURE_TYPE_MAPPED_MEMORY_RANGE, .memory = memory, .size = VK_WHOLE_SIZE};
    void* at = nullptr;
    ASSERT_EQ(app->vk.MapMemory(app->device, memory, 0, VK_WHOLE_SIZE, 0, &at), VK_SUCCESS);
    EXPECT_EQ(app->vk.FlushMappedMemoryRanges(app->device, 1, &range), VK_SUCCESS);
    app->vk.UnmapMemory(app->device, memory);
    EXPECT_EQ(said(), nothing);
}

// ---- SLUICE-fd-reused ---------------------------------------------------------------------------

TEST_F(LayerValidateTest, AFdThatAnImportTookIsGone) {
    icd->import_closes = true;
    start();
    UniqueFd buffer = memfd(page);
    const int number = dup(buffer.get());
    VkDeviceMemory memory = VK_NULL_HANDLE;
    ASSERT_EQ(import(number, page, memory), VK_SUCCESS);
    VkMemoryFdPropertiesKHR properties{.sType = VK_STRUCTURE_TYPE_MEMORY_FD_PROPERTIES_KHR};
    icd->fail("vkGetMemoryFdPropertiesKHR", VK_ERROR_INVALID_EXTERNAL_HANDLE);
    EXPECT_EQ(app->vk.GetMemoryFdPropertiesKHR(
                  app->device, VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT, number, &properties),
              VK_ERROR_INVALID_EXTERNAL_HANDLE);
    EXPECT_EQ(said(), fd_reused);
    EXPECT_EQ(last_object.objectHandle, layer::number_of(memory));

    // The next duplicate has the same number, and is a new one.
    ASSERT_EQ(dup(buffer.get()), number);
    EXPECT_EQ(app->vk.GetMemoryFdPropertiesKHR(
                  app->device, VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT, number, &properties),
              VK_SUCCESS);
    ASSERT_EQ(import(number, page, memory), VK_SUCCESS);
    EXPECT_EQ(said(), nothing);
}

TEST_F(LayerValidateTest, AFdThatIsSomethingElseByNow) {
    icd->import_closes = true;
    icd->fail("vkAllocateMemory", VK_ERROR_INVALID_EXTERNAL_HANDLE, 2);
    start();
    UniqueFd buffer = memfd(page);
    const int number = buffer.get();
    VkDeviceMemory memory = VK_NULL_HANDLE;
    ASSERT_EQ(import(buffer.release(), page, memory), VK_SUCCESS);
    std::array<int, 2> ends{};
    ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
    const UniqueFd reads(std::move(ends[0])), writes(std::move(ends[1]));
    ASSERT_EQ(reads.get(), number);
    VkMemoryFdPropertiesKHR properties{.sType = VK_STRUCTURE_TYPE_MEMORY_FD_PROPERTIES_KHR};
    icd->fail("vkGetMemoryFdPropertiesKHR", VK_ERROR_INVALID_EXTERNAL_HANDLE);
    EXPECT_EQ(app->vk.GetMemoryFdPropertiesKHR(
                  app->device, VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT, number, &properties),
              VK_ERROR_INVALID_EXTERNAL_HANDLE);
    EXPECT_EQ(said(), nothing) << "who asks may not know what it is";
    VkDeviceMemory none = VK_NULL_HANDLE;
    EXPECT_EQ(import(number, page, none), VK_ERROR_INVALID_EXTERNAL_HANDLE);
    EXPECT_EQ(said(), fd_reused);
}

TEST_F(LayerValidateTest, AFdThatNobodyTookIsNotOurs) {
    icd->import_closes = true;
    icd->fail("vkAllocateMemory", VK_ERROR_OUT_OF_HOST_MEMORY, 1);
    start();
    UniqueFd buffer = memfd(page);
    VkDeviceMemory memory = VK_NULL_HANDLE;
    ASSERT_EQ(import(buffer.get(), page, memory), VK_ERROR_OUT_OF_HOST_MEMORY);
    ASSERT_EQ(import(buffer.release(), page, memory), VK_SUCCESS);
    EXPECT_EQ(said(), nothing) << "an import that fails leaves the fd";
}

TEST_F(LayerValidateTest, AFdThatTheDriverKeepsIsTheDrivers) {
    start();
    UniqueFd buffer = memfd(page);
    if (syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, buffer.get(), buffer.get()) != 0)
        GTEST_SKIP() << "kcmp(2) is forbidden here";
    UniqueFd other(dup(buffer.get()));
    const int number = buffer.get();
    VkDeviceMemory memory = VK_NULL_HANDLE;
    ASSERT_EQ(import(buffer.release(), page, memory), VK_SUCCESS);
    ASSERT_EQ(import(other.release(), page, memory), VK_SUCCESS);
    EXPECT_EQ(said(), nothing) << "a duplicate";
    icd->fail("vkAllocateMemory", VK_ERROR_OUT_OF_HOST_MEMORY, 1);
    EXPECT_EQ(import(number, page, memory), VK_ERROR_OUT_OF_HOST_MEMORY);
    EXPECT_EQ(said(), fd_reused);
    app->vk.FreeMemory(app->device, memories[0], nullptr);
    memories.erase(memories.begin());
    // Which closes it, and the number is free for others.
    UniqueFd again = memfd(page);
    ASSERT_EQ(again.get(), number);
    ASSERT_EQ(import(again.release(), page, memory), VK_SUCCESS);
    EXPECT_EQ(said(), nothing);
}

TEST_F(LayerValidateTest, AFdThatMayBeANewOneIsNotDoubted) {
    start();
    UniqueFd buffer = memfd(page);
    const int number = buffer.get();
    VkDeviceMemory memory = VK_NULL_HANDLE;
    ASSERT_EQ(import(buffer.release(), page, memory), VK_SUCCESS);
    const UniqueFd other = memfd(page);
    ASSERT_EQ(dup2(other.get(), number), number) << "another buffer under the same number";
    icd->fail("vkAllocateMemory", VK_ERROR_OUT_OF_HOST_MEMORY, 1);
    EXPECT_EQ(import(number, page, memory), VK_ERROR_OUT_OF_HOST_MEMORY);
    EXPECT_EQ(said(), nothing);

    UniqueFd third = memfd(page);
    const int kept = third.get();
    ASSERT_EQ(import(third.release(), page, memory), VK_SUCCESS);
    icd->import_closes = true;
    (void)import();
    icd->fail("vkAllocateMemory", VK_ERROR_OUT_OF_HOST_MEMORY, 1);
    EXPECT_EQ(import(kept, page, memory), VK_ERROR_OUT_OF_HOST_MEMORY);
    EXPECT_EQ(said(), nothing) << "this driver does not always keep them";
}

// ---- The program's end --------------------------------------------------------------------------

TEST_F(LayerValidateTest, DevicesMayBeDestroyedInLateDestructors) {
    GTEST_FLAG_SET(death_test_style, "threadsafe"); // nothing has been checked in that process
    log = testing::internal::GetCapturedStderr();
    EXPECT_EXIT(exit_with_a_device(), testing::ExitedWithCode(0), "^all of it$");
    testing::internal::CaptureStderr();
}

// ---- Without memory -----------------------------------------------------------------------------

TEST_F(LayerValidateTest, WithoutMemoryTheCallsGoOn) {
    start();
    (void)staging();
    icd->on_call = [](std::string_view) { exempt_allocations(true); };
    icd->on_return = [](std::string_view) { exempt_allocations(false); };
    libc->ioctl = [others = libc->ioctl](int fd, unsigned long request, void* argument) {
        exempt_allocations(true);
        const int result = others(fd, request, argument);
        exempt_allocations(false);
        return result;
    };
    int failures = 0;
    // Every allocation of ours, one after the other.
    for (bool failed = true; failed;) {
        Application own_app(HandLoader::get_instance_proc_addr);
        ASSERT_EQ(own_app.result, VK_SUCCESS);
        const DeviceFunctions& vk = own_app.vk;
        VkDevice device = own_app.device;
        VkQueue at = own_app.queue();
        VkCommandPool commands_of = own_app.command_pool();
        VkCommandBuffer commands = own_app.begin(commands_of);
        UniqueFd dma_buf = memfd(page);
        const int fd = dma_buf.release();
        const VkBufferCreateInfo info{.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                      .size = page,
                                      .usage = VK_BUFFER_USAGE_TRANSFER_DST_BIT};
        const VkSubmitInfo submission{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                                      .commandBufferCount = 1,
                                      .pCommandBuffers = &commands};
        VkDeviceMemory memory = VK_NULL_HANDLE;
        VkBuffer buffer = VK_NULL_HANDLE;
        void* mapped = nullptr;
        fail_allocation(++failures);
        EXPECT_EQ(own_app.import_memory(fd, page, memory), VK_SUCCESS);
        EXPECT_EQ(vk.CreateBuffer(device, &info, nullptr, &buffer), VK_SUCCESS);
        EXPECT_EQ(vk.BindBufferMemory(device, buffer, memory, 0), VK_SUCCESS);
        vk.CmdFillBuffer(commands, buffer, 0, page, 0);
        EXPECT_EQ(vk.EndCommandBuffer(commands), VK_SUCCESS);
        EXPECT_EQ(vk.QueueSubmit(at, 1, &submission, VK_NULL_HANDLE), VK_SUCCESS);
        EXPECT_EQ(vk.DeviceWaitIdle(device), VK_SUCCESS);
        EXPECT_EQ(vk.MapMemory(device, memory, 0, page, 0, &mapped), VK_SUCCESS);
        vk.UnmapMemory(device, memory);
        failed = !fail_allocation(0);
        vk.DestroyCommandPool(device, commands_of, nullptr);
        vk.DestroyBuffer(device, buffer, nullptr);
        vk.FreeMemory(device, memory, nullptr);
    }
    icd->on_call = icd->on_return = nullptr;
    EXPECT_GE(failures, 8);
    EXPECT_EQ(said(), nothing);
}

// ---- Threads ------------------------------------------------------------------------------------

TEST_F(LayerValidateTest, ManyThreadsAtOnce) {
    start();
    VkBuffer target = staging();
    const auto work = [&](std::uint32_t family, std::uint32_t index) {
        VkQueue at = app->queue(family, index);
        VkCommandPool commands_of = app->command_pool();
        for (int i = 0; i < 50; ++i) {
            UniqueFd buffer = memfd(page);
            VkDeviceMemory memory = VK_NULL_HANDLE;
            EXPECT_EQ(app->import_memory(buffer.release(), page, memory), VK_SUCCESS);
            const VkBufferCreateInfo info{.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                          .size = page,
                                          .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT};
            VkBuffer in = VK_NULL_HANDLE;
            EXPECT_EQ(app->vk.CreateBuffer(app->device, &info, nullptr, &in), VK_SUCCESS);
            EXPECT_EQ(app->vk.BindBufferMemory(app->device, in, memory, 0), VK_SUCCESS);
            VkCommandBuffer commands = app->begin(commands_of);
            acquire(in)(commands);
            const VkBufferCopy region{.size = page};
            app->vk.CmdCopyBuffer(commands, in, target, 1, &region);
            release(in)(commands);
            EXPECT_EQ(app->vk.EndCommandBuffer(commands), VK_SUCCESS);
            EXPECT_EQ(app->submit(at, {}, {}, {commands}), VK_SUCCESS);
            void* mapped = nullptr;
            EXPECT_EQ(app->vk.MapMemory(app->device, memory, 0, VK_WHOLE_SIZE, 0, &mapped),
                      VK_SUCCESS);
            app->vk.UnmapMemory(app->device, memory);
            app->vk.QueueWaitIdle(at);
            app->vk.FreeCommandBuffers(app->device, commands_of, 1, &commands);
            app->vk.DestroyBuffer(app->device, in, nullptr);
            app->vk.FreeMemory(app->device, memory, nullptr);
        }
        app->vk.DestroyCommandPool(app->device, commands_of, nullptr);
    };
    std::vector<std::thread> threads;
    for (std::uint32_t i = 0; i < 4; ++i)
        threads.emplace_back(work, i / 2, i % 2);
    for (std::thread& each : threads)
        each.join();
    EXPECT_EQ(said(), nothing);
}

} // namespace
} // namespace sluice::test
