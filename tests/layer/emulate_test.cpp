// SPDX-License-Identifier: MIT
// dma-bufs on a driver that takes the host's memory alone.
#include <algorithm>
#include <array>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/udmabuf.h>
#include <sys/mman.h>
#include <vulkan/vk_layer.h>

#include "layer/application.hpp"
#include "support/allocations.hpp"
#include "support/fake_sync_file.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/scripted_libc.hpp"

extern "C" VkResult vkNegotiateLoaderLayerInterfaceVersion(VkNegotiateLayerInterface* version);

extern "C" void* __real_mmap(void*, std::size_t, int, int, int, off_t); // NOLINT(*-identifier)
extern "C" int __real_munmap(void*, std::size_t);                       // NOLINT(*-identifier)

namespace sluice::test {
namespace {

constexpr auto dma_buf = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT;
constexpr auto host_memory = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT;
constexpr auto modifier_tiling = VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT;
constexpr VkDeviceSize page = 4096;

const std::array emulated{
    VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME, VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
    VK_EXT_QUEUE_FAMILY_FOREIGN_EXTENSION_NAME, VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_EXTENSION_NAME};

/// As Debian 12's lavapipe is, with less.
FakeIcd::PhysicalDevice old_lavapipe() {
    FakeIcd::PhysicalDevice device{.name = "Old lavapipe", .type = VK_PHYSICAL_DEVICE_TYPE_CPU};
    std::erase_if(device.extensions, [](const std::string& each) {
        return std::ranges::find(emulated, each) != emulated.end() ||
               each == VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME;
    });
    return device;
}

/// Allocations that are not the layer's.
struct Exempt {
    Exempt() { exempt_allocations(true); }
    ~Exempt() { exempt_allocations(false); }
    Exempt(const Exempt&) = delete;
    Exempt& operator=(const Exempt&) = delete;
};

class LayerEmulateTest : public FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        setenv("VK_SLUICE_DMA_BUF_EMULATE", "1", 1);
        setenv("VK_SLUICE_DMA_BUF_SYNC", "off", 1);
        libc.emplace();
        libc->memfds_are_dma_bufs();
        libc->ioctl = [this](int fd, unsigned long request, void* argument) {
            const Exempt ours;
            if (request == DMA_BUF_IOCTL_SYNC)
                return sync(fd, *static_cast<const dma_buf_sync*>(argument));
            if (request == UDMABUF_CREATE) {
                note("UDMABUF_CREATE");
                return fcntl(static_cast<int>(static_cast<const udmabuf_create*>(argument)->memfd),
                             F_DUPFD_CLOEXEC, 0);
            }
            return ScriptedLibc::real_ioctl(fd, request, argument);
        };
        libc->ppoll = [this](pollfd* fds, nfds_t count, const timespec*) {
            const std::lock_guard held(lock);
            int ready = 0;
            for (nfds_t i = 0; i < count; ++i) {
                const bool is_busy = busy > 0;
                busy -= is_busy ? 1 : 0;
                fds[i].revents = static_cast<short>(is_busy ? 0 : fds[i].events);
                ready += is_busy ? 0 : 1;
                if (is_busy)
                    events.emplace_back("busy");
            }
            return ready;
        };
        libc->open = [this](const char* path, int flags) {
            if (path == std::string_view("/dev/udmabuf")) {
                if (has_udmabuf)
                    return ScriptedLibc::real_open("/dev/null", flags);
                errno = ENOENT;
                return -1;
            }
            return ScriptedLibc::real_open(path, flags);
        };
        libc->mmap = [this](void* at, size_t size, int protection, int flags, int fd,
                            off_t offset) -> void* {
            const Exempt ours;
            if (fd >= 0 && refuse_mapping != 0) {
                errno = refuse_mapping;
                return MAP_FAILED;
            }
            void* mapped = __real_mmap(at, size, protection, flags, fd, offset);
            const std::lock_guard held(lock);
            if (fd >= 0 && mapped != MAP_FAILED)
                mappings.insert(mapped);
            return mapped;
        };
        libc->munmap = [this](void* at, size_t size) {
            {
                const std::lock_guard held(lock);
                mappings.erase(at);
            }
            return __real_munmap(at, size);
        };
        icd.emplace(fail_the_test);
        icd->physical_devices = {old_lavapipe()};
        icd->on_call = [](std::string_view) { exempt_allocations(true); };
        icd->on_return = [this](std::string_view function) {
            if (function.starts_with("vkQueueSubmit"))
                note(std::string(function));
            exempt_allocations(false);
        };
    }
    void TearDown() override {
        for (VkBuffer each : buffers)
            app->vk.DestroyBuffer(app->device, each, nullptr);
        for (VkImage each : images)
            app->vk.DestroyImage(app->device, each, nullptr);
        end();
        icd.reset();
        EXPECT_TRUE(mappings.empty());
        libc.reset();
        unsetenv("VK_SLUICE_DMA_BUF_EMULATE");
        unsetenv("VK_SLUICE_DMA_BUF_SYNC");
        FdTest::TearDown();
    }
    void start(std::uint32_t api_version = VK_API_VERSION_1_3) {
        loader.emplace(*icd, std::vector{&vkNegotiateLoaderLayerInterfaceVersion}, fail_the_test);
        loader->layers_may_add = {"vkGetMemoryFdKHR", "vkGetMemoryFdPropertiesKHR",
                                  "vkGetImageDrmFormatModifierPropertiesEXT"};
        app.emplace(HandLoader::get_instance_proc_addr, api_version);
        ASSERT_EQ(app->result, VK_SUCCESS);
        queue = app->queue();
    }

    /// The application and its device.
    void end() {
        for (VkDeviceMemory each : memories)
            app->vk.FreeMemory(app->device, each, nullptr);
        memories.clear();
        if (pool != VK_NULL_HANDLE)
            app->vk.DestroyCommandPool(app->device, std::exchange(pool, VK_NULL_HANDLE), nullptr);
        app.reset();
        loader.reset();
    }
    void signal(VkSemaphore timeline, std::uint64_t value) const {
        const VkSemaphoreSignalInfo info{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO,
                                         .semaphore = timeline,
                                         .value = value};
        EXPECT_EQ(app->vk.SignalSemaphore(app->device, &info), VK_SUCCESS);
    }

    int sync(int fd, const dma_buf_sync& request) {
        const bool is_end = (request.flags & DMA_BUF_SYNC_END) != 0;
        EXPECT_EQ(request.flags & DMA_BUF_SYNC_RW, std::uint64_t{DMA_BUF_SYNC_RW});
        if (const int error = is_end ? end_error : start_error; error != 0) {
            errno = error;
            return -1;
        }
        note((is_end ? "END " : "START ") + std::to_string(inode_of(fd)));
        return 0;
    }
    void note(std::string what) {
        const std::lock_guard held(lock);
        events.push_back(std::move(what));
    }
    std::vector<std::string> take_events() {
        const std::lock_guard held(lock);
        return std::exchange(events, {});
    }

    [[nodiscard]] std::vector<std::string> extensions(const char* layer = nullptr) const {
        const auto enumerate = app->of_instance.EnumerateDeviceExtensionProperties;
        std::uint32_t count = 0;
        EXPECT_EQ(enumerate(app->physical_device, layer, &count, nullptr), VK_SUCCESS);
        std::vector<VkExtensionProperties> all(count);
        EXPECT_EQ(enumerate(app->physical_device, layer, &count, all.data()), VK_SUCCESS);
        std::vector<std::string> names;
        for (const auto& each : all)
            names.emplace_back(each.extensionName);
        return names;
    }
    [[nodiscard]] bool has(const char* extension) const {
        const auto all = extensions();
        return std::ranges::count(all, extension) == 1;
    }
    /// Imports \p size bytes of a new dma-buf. \returns its inode, or 0 where that fails.
    ino_t import(VkDeviceSize size = page, VkDeviceSize of = page) {
        UniqueFd buffer = memfd(of);
        const ino_t inode = inode_of(buffer.get());
        VkDeviceMemory memory = VK_NULL_HANDLE;
        result = app->import_memory(buffer.get(), size, memory);
        if (result != VK_SUCCESS)
            return 0;
        (void)buffer.release();
        memories.push_back(memory);
        return inode;
    }
    VkBuffer make_buffer(VkExternalMemoryHandleTypeFlags types) {
        const VkBufferDeviceAddressCreateInfoEXT before{
            .sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_CREATE_INFO_EXT};
        VkExternalMemoryBufferCreateInfo external{
            .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
            .pNext = &before,
            .handleTypes = types};
        const VkBufferCreateInfo info{.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                      .pNext = &external,
                                      .size = page,
                                      .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT};
        VkBuffer made = VK_NULL_HANDLE;
        EXPECT_EQ(app->vk.CreateBuffer(app->device, &info, nullptr, &made), VK_SUCCESS);
        EXPECT_EQ(external.handleTypes, types) << "the application's own structure";
        buffers.push_back(made);
        return made;
    }
    static VkImageCreateInfo image_info(const void* next, VkImageTiling tiling) {
        return {.sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO,
                .pNext = next,
                .imageType = VK_IMAGE_TYPE_2D,
                .format = VK_FORMAT_B8G8R8A8_UNORM,
                .extent = {64, 16, 1},
                .mipLevels = 1,
                .arrayLayers = 1,
                .samples = VK_SAMPLE_COUNT_1_BIT,
                .tiling = tiling,
                .usage = VK_IMAGE_USAGE_TRANSFER_SRC_BIT};
    }
    /// An image with the modifiers of \p list, or laid out as \p layout says with \p modifier.
    VkImage make_image(const std::vector<std::uint64_t>& list, const VkSubresourceLayout* layout,
                       std::uint64_t modifier = 0, std::uint32_t planes = 1) {
        const VkExternalMemoryImageCreateInfo external{
            .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO, .handleTypes = dma_buf};
        const VkImageDrmFormatModifierListCreateInfoEXT any{
            .sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_LIST_CREATE_INFO_EXT,
            .pNext = &external,
            .drmFormatModifierCount = static_cast<std::uint32_t>(list.size()),
            .pDrmFormatModifiers = list.data()};
        const VkImageDrmFormatModifierExplicitCreateInfoEXT whole{
            .sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_EXPLICIT_CREATE_INFO_EXT,
            .pNext = &external,
            .drmFormatModifier = modifier,
            .drmFormatModifierPlaneCount = planes,
            .pPlaneLayouts = layout};
        const auto* next = layout != nullptr ? static_cast<const void*>(&whole) : &any;
        const VkFormat format = VK_FORMAT_B8G8R8A8_UNORM;
        const VkImageFormatListCreateInfo formats{
            .sType = VK_STRUCTURE_TYPE_IMAGE_FORMAT_LIST_CREATE_INFO,
            .pNext = next,
            .viewFormatCount = 1,
            .pViewFormats = &format};
        const auto info = image_info(&formats, modifier_tiling);
        VkImage made = VK_NULL_HANDLE;
        result = app->vk.CreateImage(app->device, &info, nullptr, &made);
        if (result == VK_SUCCESS)
            images.push_back(made);
        return made;
    }
    VkResult image_properties(VkImageTiling tiling, std::uint64_t modifier,
                              VkExternalMemoryHandleTypeFlagBits type, VkFormat format,
                              VkImageFormatProperties2& into) const {
        const VkPhysicalDeviceImageDrmFormatModifierInfoEXT of{
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_DRM_FORMAT_MODIFIER_INFO_EXT,
            .drmFormatModifier = modifier};
        const VkPhysicalDeviceExternalImageFormatInfo external{
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_IMAGE_FORMAT_INFO,
            .pNext = tiling == modifier_tiling ? &of : nullptr,
            .handleType = type};
        const VkPhysicalDeviceImageFormatInfo2 info{
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_FORMAT_INFO_2,
            .pNext = &external,
            .format = format,
            .type = VK_IMAGE_TYPE_2D,
            .tiling = tiling,
            .usage = VK_IMAGE_USAGE_TRANSFER_SRC_BIT};
        return app->of_instance.GetPhysicalDeviceImageFormatProperties2(app->physical_device, &info,
                                                                        &into);
    }
    VkCommandBuffer commands() {
        if (pool == VK_NULL_HANDLE)
            pool = app->command_pool();
        VkCommandBuffer made = app->begin(pool);
        EXPECT_EQ(app->vk.EndCommandBuffer(made), VK_SUCCESS);
        return made;
    }

    std::mutex lock;
    std::vector<std::string> events;
    std::multiset<void*> mappings; // of fds
    int busy = 0;                  // how often a buffer is found busy
    int start_error = 0, end_error = 0, refuse_mapping = 0;
    bool has_udmabuf = true;

    VkResult result = VK_SUCCESS;
    std::optional<ScriptedLibc> libc;
    std::optional<FakeIcd> icd;
    std::optional<HandLoader> loader;
    std::optional<Application> app;
    VkQueue queue = VK_NULL_HANDLE;
    VkCommandPool pool = VK_NULL_HANDLE;
    std::vector<VkDeviceMemory> memories;
    std::vector<VkBuffer> buffers;
    std::vector<VkImage> images;
};

// ---- Which devices ------------------------------------------------------------------------------

TEST_F(LayerEmulateTest, OffersWhatTheDriverLacks) {
    start();
    for (const char* each : emulated)
        EXPECT_TRUE(has(each)) << each;
    EXPECT_TRUE(has(VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME));
    EXPECT_FALSE(has(VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME));
    const auto ours = extensions("VK_LAYER_SLUICE_dma_buf");
    EXPECT_EQ(ours, (std::vector<std::string>(emulated.begin(), emulated.end())));

    // The application has enabled all of them, and the driver has seen none.
    const auto request = icd->created_devices().at(0).extensions;
    for (const char* each : emulated)
        EXPECT_EQ(std::ranges::count(request, each), 0) << each;
    EXPECT_EQ(std::ranges::count(request, VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME), 1);
    EXPECT_NE(app->vk.GetMemoryFdKHR, nullptr);
    EXPECT_NE(app->vk.GetMemoryFdPropertiesKHR, nullptr);
    EXPECT_NE(app->vk.GetImageDrmFormatModifierPropertiesEXT, nullptr);
}

TEST_F(LayerEmulateTest, ListsAsMuchAsThereIsRoomFor) {
    start();
    const auto enumerate = app->of_instance.EnumerateDeviceExtensionProperties;
    std::uint32_t all = 0;
    ASSERT_EQ(enumerate(app->physical_device, nullptr, &all, nullptr), VK_SUCCESS);
    std::vector<VkExtensionProperties> into(all + 1);
    std::uint32_t count = all - 1;
    EXPECT_EQ(enumerate(app->physical_device, nullptr, &count, into.data()), VK_INCOMPLETE);
    EXPECT_EQ(count, all - 1);
    EXPECT_EQ(into[all - 1].extensionName[0], '\0') << "past the room that there is";
    count = all + 1;
    EXPECT_EQ(enumerate(app->physical_device, nullptr, &count, into.data()), VK_SUCCESS);
    EXPECT_EQ(count, all);
}

TEST_F(LayerEmulateTest, IsOffUnlessAskedFor) {
    unsetenv("VK_SLUICE_DMA_BUF_EMULATE");
    start();
    for (const char* each : emulated)
        EXPECT_FALSE(has(each)) << each;
}

TEST_F(LayerEmulateTest, LeavesAGpuAsItIs) {
    icd->physical_devices[0].type = VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU;
    ::testing::internal::CaptureStderr();
    start();
    for (const char* each : emulated)
        EXPECT_FALSE(has(each)) << each;
    EXPECT_TRUE(extensions("VK_LAYER_SLUICE_dma_buf").empty());
    const std::string log = ::testing::internal::GetCapturedStderr();
    const auto first = log.find("does not run on the CPU");
    EXPECT_NE(first, std::string::npos) << log;
    EXPECT_EQ(log.find("does not run on the CPU", first + 1), std::string::npos) << "once";
}

TEST_F(LayerEmulateTest, LeavesADriverAsItIsThatTakesNoHostMemory) {
    std::erase(icd->physical_devices[0].extensions, VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME);
    ::testing::internal::CaptureStderr();
    start();
    for (const char* each : emulated)
        EXPECT_FALSE(has(each)) << each;
    EXPECT_NE(::testing::internal::GetCapturedStderr().find("no VK_EXT_external_memory_host"),
              std::string::npos);
}

TEST_F(LayerEmulateTest, LeavesADriverAsItIsThatTakesDmaBufs) {
    icd->physical_devices[0].extensions = FakeIcd::all_extensions();
    ::testing::internal::CaptureStderr();
    start();
    for (const char* each : emulated)
        EXPECT_TRUE(has(each)) << each;
    EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
    const ino_t inode = import();
    EXPECT_EQ(icd->allocations().at(0).imported, inode) << "by the driver itself";
    ASSERT_EQ(app->submit(queue, {}, {}, {commands()}), VK_SUCCESS);
    EXPECT_EQ(take_events(), (std::vector<std::string>{"vkQueueSubmit2"}));
    app->vk.QueueWaitIdle(queue);
}

TEST_F(LayerEmulateTest, WhatADriverHasItKeeps) {
    icd->physical_devices[0].extensions.emplace_back(VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME);
    icd->physical_devices[0].extensions.emplace_back(
        VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_EXTENSION_NAME);
    icd->physical_devices[0].modifiers = {{.drmFormatModifier = 77,
                                           .drmFormatModifierPlaneCount = 1,
                                           .drmFormatModifierTilingFeatures = 1}};
    start();
    EXPECT_TRUE(has(VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME));
    EXPECT_TRUE(has(VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_EXTENSION_NAME));
    VkDrmFormatModifierPropertiesListEXT list{
        .sType = VK_STRUCTURE_TYPE_DRM_FORMAT_MODIFIER_PROPERTIES_LIST_EXT};
    VkDrmFormatModifierPropertiesEXT modifier{};
    list.drmFormatModifierCount = 1;
    list.pDrmFormatModifierProperties = &modifier;
    VkFormatProperties2 format{.sType = VK_STRUCTURE_TYPE_FORMAT_PROPERTIES_2, .pNext = &list};
    app->of_instance.GetPhysicalDeviceFormatProperties2(app->physical_device,
                                                        VK_FORMAT_B8G8R8A8_UNORM, &format);
    EXPECT_EQ(modifier.drmFormatModifier, 77U);
    VkImage image = make_image({77}, nullptr);
    ASSERT_EQ(result, VK_SUCCESS);
    EXPECT_EQ(icd->creations().at(0).tiling, modifier_tiling);
    EXPECT_EQ(icd->creations().at(0).types, VkFlags{host_memory});
    VkImageDrmFormatModifierPropertiesEXT has{
        .sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_PROPERTIES_EXT};
    EXPECT_EQ(app->vk.GetImageDrmFormatModifierPropertiesEXT(app->device, image, &has), VK_SUCCESS);
    EXPECT_EQ(has.drmFormatModifier, 77U);
    EXPECT_NE(import(), 0U);
    EXPECT_EQ(icd->allocations().at(0).imported, 0U);
}

// ---- Queries ------------------------------------------------------------------------------------

TEST_F(LayerEmulateTest, AnswersForBuffers) {
    start();
    VkPhysicalDeviceExternalBufferInfo info{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_BUFFER_INFO,
        .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT,
        .handleType = dma_buf};
    VkExternalBufferProperties can{.sType = VK_STRUCTURE_TYPE_EXTERNAL_BUFFER_PROPERTIES};
    app->of_instance.GetPhysicalDeviceExternalBufferProperties(app->physical_device, &info, &can);
    EXPECT_EQ(can.externalMemoryProperties.externalMemoryFeatures,
              VkFlags{VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT |
                      VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT});
    EXPECT_EQ(can.externalMemoryProperties.compatibleHandleTypes, VkFlags{dma_buf});
    EXPECT_EQ(info.handleType, dma_buf);
    info.handleType = host_memory;
    app->of_instance.GetPhysicalDeviceExternalBufferProperties(app->physical_device, &info, &can);
    EXPECT_EQ(can.externalMemoryProperties.compatibleHandleTypes, VkFlags{host_memory});
}

TEST_F(LayerEmulateTest, WithoutUdmabufNothingIsExported) {
    has_udmabuf = false;
    start();
    const VkPhysicalDeviceExternalBufferInfo info{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_BUFFER_INFO,
        .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT,
        .handleType = dma_buf};
    VkExternalBufferProperties can{.sType = VK_STRUCTURE_TYPE_EXTERNAL_BUFFER_PROPERTIES};
    app->of_instance.GetPhysicalDeviceExternalBufferProperties(app->physical_device, &info, &can);
    EXPECT_EQ(can.externalMemoryProperties.externalMemoryFeatures,
              VkFlags{VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT});
    const VkExportMemoryAllocateInfo as{.sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO,
                                        .handleTypes = dma_buf};
    const VkMemoryAllocateInfo allocate{
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, .pNext = &as, .allocationSize = page};
    VkDeviceMemory memory = VK_NULL_HANDLE;
    EXPECT_EQ(app->vk.AllocateMemory(app->device, &allocate, nullptr, &memory),
              VK_ERROR_FEATURE_NOT_PRESENT);
    EXPECT_NE(import(), 0U) << "imports go on";
}

TEST_F(LayerEmulateTest, AnswersForImages) {
    start();
    VkExternalImageFormatProperties external{
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_IMAGE_FORMAT_PROPERTIES};
    VkImageFormatProperties2 can{.sType = VK_STRUCTURE_TYPE_IMAGE_FORMAT_PROPERTIES_2,
                                 .pNext = &external};
    constexpr auto bgra = VK_FORMAT_B8G8R8A8_UNORM;
    EXPECT_EQ(image_properties(modifier_tiling, 0, dma_buf, bgra, can), VK_SUCCESS);
    EXPECT_EQ(external.externalMemoryProperties.externalMemoryFeatures,
              VkFlags{VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT |
                      VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT});
    EXPECT_EQ(external.externalMemoryProperties.compatibleHandleTypes, VkFlags{dma_buf});
    EXPECT_EQ(can.imageFormatProperties.maxMipLevels, 1U);
    EXPECT_EQ(image_properties(VK_IMAGE_TILING_LINEAR, 0, dma_buf, bgra, can), VK_SUCCESS);
    EXPECT_EQ(external.externalMemoryProperties.compatibleHandleTypes, VkFlags{dma_buf});
    EXPECT_EQ(image_properties(modifier_tiling, 0, host_memory, bgra, can), VK_SUCCESS);
    EXPECT_EQ(external.externalMemoryProperties.compatibleHandleTypes, VkFlags{host_memory});

    EXPECT_EQ(image_properties(VK_IMAGE_TILING_OPTIMAL, 0, dma_buf, bgra, can),
              VK_ERROR_FORMAT_NOT_SUPPORTED);
    EXPECT_EQ(image_properties(modifier_tiling, 1, dma_buf, bgra, can),
              VK_ERROR_FORMAT_NOT_SUPPORTED);
    EXPECT_EQ(
        image_properties(modifier_tiling, 0, dma_buf, VK_FORMAT_G8_B8R8_2PLANE_420_UNORM, can),
        VK_ERROR_FORMAT_NOT_SUPPORTED);
    icd->fail("vkGetPhysicalDeviceImageFormatProperties", VK_ERROR_FORMAT_NOT_SUPPORTED);
    EXPECT_EQ(image_properties(modifier_tiling, 0, dma_buf, bgra, can),
              VK_ERROR_FORMAT_NOT_SUPPORTED);
}

TEST_F(LayerEmulateTest, ListsLinearAndNothingElse) {
    start();
    VkDrmFormatModifierPropertiesList2EXT list2{
        .sType = VK_STRUCTURE_TYPE_DRM_FORMAT_MODIFIER_PROPERTIES_LIST_2_EXT};
    VkDrmFormatModifierPropertiesListEXT list{
        .sType = VK_STRUCTURE_TYPE_DRM_FORMAT_MODIFIER_PROPERTIES_LIST_EXT, .pNext = &list2};
    VkFormatProperties2 format{.sType = VK_STRUCTURE_TYPE_FORMAT_PROPERTIES_2, .pNext = &list};
    const auto ask = [&](VkFormat of) {
        app->of_instance.GetPhysicalDeviceFormatProperties2(app->physical_device, of, &format);
    };
    ask(VK_FORMAT_B8G8R8A8_UNORM);
    EXPECT_EQ(list.drmFormatModifierCount, 1U);
    EXPECT_EQ(list2.drmFormatModifierCount, 1U);
    std::array<VkDrmFormatModifierPropertiesEXT, 2> all{{{7, 7, 7}, {7, 7, 7}}};
    std::array<VkDrmFormatModifierProperties2EXT, 2> all2{{{7, 7, 7}, {7, 7, 7}}};
    list.drmFormatModifierCount = list2.drmFormatModifierCount = 2;
    list.pDrmFormatModifierProperties = all.data();
    list2.pDrmFormatModifierProperties = all2.data();
    ask(VK_FORMAT_B8G8R8A8_UNORM);
    EXPECT_EQ(list.drmFormatModifierCount, 1U);
    EXPECT_EQ(all[0].drmFormatModifier, 0U);
    EXPECT_EQ(all[0].drmFormatModifierPlaneCount, 1U);
    EXPECT_EQ(all[0].drmFormatModifierTilingFeatures, format.formatProperties.linearTilingFeatures);
    EXPECT_EQ(all[1].drmFormatModifier, 7U) << "past the end";
    EXPECT_EQ(list2.drmFormatModifierCount, 1U);
    EXPECT_EQ(all2[0].drmFormatModifierTilingFeatures,
              format.formatProperties.linearTilingFeatures);
    list.drmFormatModifierCount = 0;
    ask(VK_FORMAT_B8G8R8A8_UNORM);
    EXPECT_EQ(list.drmFormatModifierCount, 0U) << "there is no room";
    list.drmFormatModifierCount = 2;
    ask(VK_FORMAT_G8_B8_R8_3PLANE_420_UNORM);
    EXPECT_EQ(list.drmFormatModifierCount, 0U) << "it has several planes";
}

TEST_F(LayerEmulateTest, TellsTheMemoryTypesOfADmaBuf) {
    start();
    const UniqueFd buffer = memfd(page);
    VkMemoryFdPropertiesKHR can{.sType = VK_STRUCTURE_TYPE_MEMORY_FD_PROPERTIES_KHR};
    const auto ask = [&](VkExternalMemoryHandleTypeFlagBits type, int fd) {
        return app->vk.GetMemoryFdPropertiesKHR(app->device, type, fd, &can);
    };
    EXPECT_EQ(ask(dma_buf, buffer.get()), VK_SUCCESS);
    EXPECT_EQ(can.memoryTypeBits, 7U);
    EXPECT_TRUE(mappings.empty());
    std::array<int, 2> pipe_fds{};
    ASSERT_EQ(pipe(pipe_fds.data()), 0);
    const UniqueFd pipe_in(std::move(pipe_fds[0])), pipe_out(std::move(pipe_fds[1]));
    EXPECT_EQ(ask(dma_buf, pipe_in.get()), VK_ERROR_INVALID_EXTERNAL_HANDLE);
    EXPECT_EQ(ask(dma_buf, -1), VK_ERROR_INVALID_EXTERNAL_HANDLE);
    EXPECT_EQ(ask(VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT, buffer.get()),
              VK_ERROR_INVALID_EXTERNAL_HANDLE);
    refuse_mapping = ENODEV;
    EXPECT_EQ(ask(dma_buf, buffer.get()), VK_ERROR_INVALID_EXTERNAL_HANDLE);
}

// ---- Memory -------------------------------------------------------------------------------------

TEST_F(LayerEmulateTest, AnImportIsTheMappingAndTakesTheFd) {
    start();
    UniqueFd buffer = memfd(2 * page);
    const int number = buffer.get();
    VkDeviceMemory memory = VK_NULL_HANDLE;
    ASSERT_EQ(app->import_memory(buffer.release(), page + 1, memory), VK_SUCCESS);
    memories.push_back(memory);
    EXPECT_EQ(fcntl(number, F_GETFD), -1) << "it is Vulkan's, which has no use for it";
    const auto allocation = icd->allocations().at(0);
    EXPECT_EQ(allocation.imported, 0U);
    EXPECT_EQ(allocation.size, 2 * page) << "whole pages";
    EXPECT_EQ(mappings.count(allocation.host), 1U);
    app->vk.FreeMemory(app->device, memory, nullptr);
    memories.clear();
    EXPECT_TRUE(mappings.empty());
}

TEST_F(LayerEmulateTest, WhatFailsLeavesTheFd) {
    start();
    VkDeviceMemory memory = VK_NULL_HANDLE;
    UniqueFd buffer = memfd(page);
    const auto import = [&](VkDeviceSize size) {
        const VkResult refused = app->import_memory(buffer.get(), size, memory);
        EXPECT_NE(fcntl(buffer.get(), F_GETFD), -1);
        EXPECT_TRUE(mappings.empty());
        return refused;
    };
    EXPECT_EQ(import(page + 1), VK_ERROR_INVALID_EXTERNAL_HANDLE) << "it is not so large";
    refuse_mapping = EACCES;
    EXPECT_EQ(import(page), VK_ERROR_INVALID_EXTERNAL_HANDLE);
    refuse_mapping = ENOMEM;
    EXPECT_EQ(import(page), VK_ERROR_OUT_OF_HOST_MEMORY);
    refuse_mapping = 0;
    icd->fail("vkAllocateMemory", VK_ERROR_OUT_OF_DEVICE_MEMORY);
    EXPECT_EQ(import(page), VK_ERROR_OUT_OF_DEVICE_MEMORY);
}

TEST_F(LayerEmulateTest, AReadOnlyBufferIsRefused) {
    start();
    const UniqueFd buffer = memfd(page);
    const UniqueFd to_read(
        open(("/proc/self/fd/" + std::to_string(buffer.get())).c_str(), O_RDONLY | O_CLOEXEC));
    VkDeviceMemory memory = VK_NULL_HANDLE;
    EXPECT_EQ(app->import_memory(to_read.get(), page, memory), VK_ERROR_INVALID_EXTERNAL_HANDLE);
    VkMemoryFdPropertiesKHR can{.sType = VK_STRUCTURE_TYPE_MEMORY_FD_PROPERTIES_KHR};
    EXPECT_EQ(app->vk.GetMemoryFdPropertiesKHR(app->device, dma_buf, to_read.get(), &can),
              VK_ERROR_INVALID_EXTERNAL_HANDLE);
}

TEST_F(LayerEmulateTest, ABufferIsMappedOnceHoweverOftenItIsImported) {
    start();
    UniqueFd buffer = memfd(page);
    for (int i = 0; i < 2; ++i) {
        VkDeviceMemory memory = VK_NULL_HANDLE;
        ASSERT_EQ(app->import_memory(fcntl(buffer.get(), F_DUPFD_CLOEXEC, 0), page, memory),
                  VK_SUCCESS);
        memories.push_back(memory);
    }
    EXPECT_EQ(mappings.size(), 1U);
    app->vk.FreeMemory(app->device, memories.back(), nullptr);
    memories.pop_back();
    EXPECT_EQ(mappings.size(), 1U) << "the other one has it still";
    ASSERT_EQ(app->submit(queue, {}, {}, {commands()}), VK_SUCCESS);
    const std::string inode = std::to_string(inode_of(buffer.get()));
    EXPECT_EQ(take_events(), (std::vector<std::string>{"START " + inode, "vkQueueSubmit2",
                                                       "vkQueueSubmit", "END " + inode}));
    app->vk.QueueWaitIdle(queue);
}

TEST_F(LayerEmulateTest, ExportsWhatItMade) {
    start();
    const VkExportMemoryAllocateInfo as{.sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO,
                                        .handleTypes = dma_buf};
    const VkMemoryAllocateInfo info{
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, .pNext = &as, .allocationSize = 5000};
    VkDeviceMemory memory = VK_NULL_HANDLE;
    ASSERT_EQ(app->vk.AllocateMemory(app->device, &info, nullptr, &memory), VK_SUCCESS);
    memories.push_back(memory);
    EXPECT_EQ(take_events(), (std::vector<std::string>{"UDMABUF_CREATE"}));
    EXPECT_EQ(icd->allocations().at(0).exportable_as, 0U);
    EXPECT_EQ(icd->allocations().at(0).size, 2 * page);
    const VkMemoryGetFdInfoKHR get{
        .sType = VK_STRUCTURE_TYPE_MEMORY_GET_FD_INFO_KHR, .memory = memory, .handleType = dma_buf};
    int fd = -1;
    ASSERT_EQ(app->vk.GetMemoryFdKHR(app->device, &get, &fd), VK_SUCCESS);
    const UniqueFd exported(std::move(fd));
    // It is the memory that the driver has.
    void* ours = __real_mmap(nullptr, page, PROT_READ, MAP_SHARED, exported.get(), 0);
    ASSERT_NE(ours, MAP_FAILED);
    *static_cast<char*>(icd->allocations().at(0).host) = 42;
    EXPECT_EQ(*static_cast<const char*>(ours), 42);
    __real_munmap(ours, page);
    const VkMemoryGetFdInfoKHR opaque{.sType = VK_STRUCTURE_TYPE_MEMORY_GET_FD_INFO_KHR,
                                      .memory = memory,
                                      .handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT};
    EXPECT_EQ(app->vk.GetMemoryFdKHR(app->device, &opaque, &fd), VK_ERROR_INVALID_EXTERNAL_HANDLE);
}

TEST_F(LayerEmulateTest, OtherMemoryIsTheDriversBusiness) {
    start();
    const VkMemoryAllocateInfo info{.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                    .allocationSize = 5000};
    VkDeviceMemory memory = VK_NULL_HANDLE;
    ASSERT_EQ(app->vk.AllocateMemory(app->device, &info, nullptr, &memory), VK_SUCCESS);
    memories.push_back(memory);
    EXPECT_EQ(icd->allocations().at(0).host, nullptr);
    EXPECT_EQ(icd->allocations().at(0).size, 5000U);
    const VkMemoryGetFdInfoKHR get{
        .sType = VK_STRUCTURE_TYPE_MEMORY_GET_FD_INFO_KHR, .memory = memory, .handleType = dma_buf};
    int fd = -1;
    EXPECT_EQ(app->vk.GetMemoryFdKHR(app->device, &get, &fd), VK_ERROR_INVALID_EXTERNAL_HANDLE);
    ASSERT_EQ(app->submit(queue, {}, {}, {commands()}), VK_SUCCESS);
    EXPECT_EQ(take_events(), (std::vector<std::string>{"vkQueueSubmit2"})) << "no bracket";
    app->vk.QueueWaitIdle(queue);
}

// ---- Buffers and images -------------------------------------------------------------------------

TEST_F(LayerEmulateTest, ABufferIsSharedByHostMemoryBelow) {
    start();
    make_buffer(dma_buf);
    make_buffer(host_memory);
    const auto made = icd->creations();
    for (const auto& each : made) {
        EXPECT_EQ(each.types, VkFlags{host_memory});
        EXPECT_EQ(each.chain.size(), 2U);
    }
    const VkExternalMemoryBufferCreateInfo external{
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO, .handleTypes = dma_buf};
    const VkBufferCreateInfo info{.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                  .pNext = &external,
                                  .size = page,
                                  .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT};
    const VkDeviceBufferMemoryRequirements of{
        .sType = VK_STRUCTURE_TYPE_DEVICE_BUFFER_MEMORY_REQUIREMENTS, .pCreateInfo = &info};
    VkMemoryRequirements2 needs{.sType = VK_STRUCTURE_TYPE_MEMORY_REQUIREMENTS_2};
    app->vk.GetDeviceBufferMemoryRequirements(app->device, &of, &needs);
    EXPECT_EQ(needs.memoryRequirements.size, page);
    EXPECT_EQ(icd->creations().back().types, VkFlags{host_memory});
}

TEST_F(LayerEmulateTest, AModifierIsLinearTilingBelow) {
    start();
    VkImage image = make_image({5, 0}, nullptr);
    ASSERT_EQ(result, VK_SUCCESS);
    const auto made = icd->creations().at(0);
    EXPECT_EQ(made.tiling, VK_IMAGE_TILING_LINEAR);
    EXPECT_EQ(made.types, VkFlags{host_memory});
    EXPECT_EQ(made.chain, (std::vector{VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO,
                                       VK_STRUCTURE_TYPE_IMAGE_FORMAT_LIST_CREATE_INFO}));
    VkImageDrmFormatModifierPropertiesEXT modifier{
        .sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_PROPERTIES_EXT,
        .drmFormatModifier = 9};
    EXPECT_EQ(app->vk.GetImageDrmFormatModifierPropertiesEXT(app->device, image, &modifier),
              VK_SUCCESS);
    EXPECT_EQ(modifier.drmFormatModifier, 0U);
    const VkImageSubresource plane{.aspectMask = VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT};
    VkSubresourceLayout layout{};
    app->vk.GetImageSubresourceLayout(app->device, image, &plane, &layout);
    EXPECT_EQ(layout.offset, 0U);
    EXPECT_EQ(layout.rowPitch, 256U);

    EXPECT_EQ(make_image({5}, nullptr), VK_NULL_HANDLE);
    EXPECT_EQ(result, VK_ERROR_FORMAT_NOT_SUPPORTED);
    icd->fail("vkCreateImage", VK_ERROR_OUT_OF_DEVICE_MEMORY);
    EXPECT_EQ(make_image({0}, nullptr), VK_NULL_HANDLE);
    EXPECT_EQ(result, VK_ERROR_OUT_OF_DEVICE_MEMORY);
}

TEST_F(LayerEmulateTest, AnExplicitLayoutHasTheDriversPitch) {
    start();
    ::testing::internal::CaptureStderr();
    for (const auto& [layout, modifier, planes] :
         {std::tuple(VkSubresourceLayout{.rowPitch = 512}, 0U, 1U),
          std::tuple(VkSubresourceLayout{.rowPitch = 240}, 0U, 1U),
          std::tuple(VkSubresourceLayout{.offset = 64, .rowPitch = 256}, 0U, 1U), // no whole page
          std::tuple(VkSubresourceLayout{.rowPitch = 256}, 1U, 1U),
          std::tuple(VkSubresourceLayout{.rowPitch = 256}, 0U, 2U)}) {
        EXPECT_EQ(make_image({}, &layout, modifier, planes), VK_NULL_HANDLE);
        EXPECT_EQ(result, VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT);
    }
    EXPECT_NE(::testing::internal::GetCapturedStderr().find("pitch 512"), std::string::npos);
    EXPECT_EQ(icd->living().count("image"), 0U);
    const VkSubresourceLayout right{.rowPitch = 256};
    make_image({}, &right);
    EXPECT_EQ(result, VK_SUCCESS);
}

TEST_F(LayerEmulateTest, AnOffsetIsWhereTheImageIsBound) {
    start();
    const VkSubresourceLayout asked{.offset = 2 * page, .rowPitch = 256};
    VkImage image = make_image({}, &asked);
    ASSERT_EQ(result, VK_SUCCESS);
    VkMemoryRequirements needs{};
    app->vk.GetImageMemoryRequirements(app->device, image, &needs);
    EXPECT_EQ(needs.size, 3 * page);
    const VkImageMemoryRequirementsInfo2 of{
        .sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_REQUIREMENTS_INFO_2, .image = image};
    VkMemoryRequirements2 needs_2{.sType = VK_STRUCTURE_TYPE_MEMORY_REQUIREMENTS_2};
    app->vk.GetImageMemoryRequirements2(app->device, &of, &needs_2);
    EXPECT_EQ(needs_2.memoryRequirements.size, 3 * page);
    const VkImageSubresource plane{.aspectMask = VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT};
    VkSubresourceLayout layout{};
    app->vk.GetImageSubresourceLayout(app->device, image, &plane, &layout);
    EXPECT_EQ(layout.offset, 2 * page);

    UniqueFd buffer = memfd(4 * page);
    const VkMemoryDedicatedAllocateInfo alone{
        .sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO, .image = image};
    const VkImportMemoryFdInfoKHR import{.sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR,
                                         .pNext = &alone,
                                         .handleType = dma_buf,
                                         .fd = buffer.release()};
    const VkMemoryAllocateInfo info{.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                    .pNext = &import,
                                    .allocationSize = 4 * page};
    VkDeviceMemory memory = VK_NULL_HANDLE;
    ASSERT_EQ(app->vk.AllocateMemory(app->device, &info, nullptr, &memory), VK_SUCCESS);
    memories.push_back(memory);
    EXPECT_EQ(icd->allocations().at(0).dedicated_image, VK_NULL_HANDLE)
        << "it does not begin where its memory does";
    EXPECT_EQ(app->vk.BindImageMemory(app->device, image, memory, 0), VK_SUCCESS);
    EXPECT_EQ(icd->bound_at(image), 2 * page);
    const VkBindImageMemoryInfo bind{.sType = VK_STRUCTURE_TYPE_BIND_IMAGE_MEMORY_INFO,
                                     .image = image,
                                     .memory = memory,
                                     .memoryOffset = page};
    EXPECT_EQ(app->vk.BindImageMemory2(app->device, 1, &bind), VK_SUCCESS);
    EXPECT_EQ(icd->bound_at(image), 3 * page);
    EXPECT_EQ(bind.memoryOffset, page);
}

TEST_F(LayerEmulateTest, WithoutAnOffsetAnImagesMemoryMayBeItsOwn) {
    start();
    VkImage image = make_image({0}, nullptr);
    const VkMemoryDedicatedAllocateInfo alone{
        .sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO, .image = image};
    UniqueFd buffer = memfd(page);
    const VkImportMemoryFdInfoKHR import{.sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR,
                                         .pNext = &alone,
                                         .handleType = dma_buf,
                                         .fd = buffer.release()};
    const VkMemoryAllocateInfo info{
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, .pNext = &import, .allocationSize = page};
    VkDeviceMemory memory = VK_NULL_HANDLE;
    ASSERT_EQ(app->vk.AllocateMemory(app->device, &info, nullptr, &memory), VK_SUCCESS);
    memories.push_back(memory);
    EXPECT_EQ(icd->allocations().at(0).dedicated_image, image);
}

TEST_F(LayerEmulateTest, TellsWhatAnImageThatIsNotThereYetWouldNeed) {
    start();
    const VkSubresourceLayout asked{.offset = page, .rowPitch = 256};
    const VkImageDrmFormatModifierExplicitCreateInfoEXT whole{
        .sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_EXPLICIT_CREATE_INFO_EXT,
        .drmFormatModifierPlaneCount = 1,
        .pPlaneLayouts = &asked};
    const auto info = image_info(&whole, modifier_tiling);
    const VkDeviceImageMemoryRequirements of{
        .sType = VK_STRUCTURE_TYPE_DEVICE_IMAGE_MEMORY_REQUIREMENTS, .pCreateInfo = &info};
    VkMemoryRequirements2 needs{.sType = VK_STRUCTURE_TYPE_MEMORY_REQUIREMENTS_2};
    app->vk.GetDeviceImageMemoryRequirements(app->device, &of, &needs);
    EXPECT_EQ(needs.memoryRequirements.size, 2 * page);
}

TEST_F(LayerEmulateTest, WithoutMemoryTheDriverAnswersAsItCan) {
    icd->physical_devices.push_back(old_lavapipe()); // nobody has asked about this one
    const VkExternalMemoryBufferCreateInfo external{
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO, .handleTypes = dma_buf};
    const VkBufferDeviceAddressCreateInfoEXT ahead{
        .sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_CREATE_INFO_EXT, .pNext = &external};
    const VkBufferCreateInfo info{.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                  .pNext = &ahead,
                                  .size = page,
                                  .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT};
    const VkExternalMemoryImageCreateInfo shared{
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO, .handleTypes = dma_buf};
    const VkImageStencilUsageCreateInfo before{
        .sType = VK_STRUCTURE_TYPE_IMAGE_STENCIL_USAGE_CREATE_INFO, .pNext = &shared};
    const auto image = image_info(&before, VK_IMAGE_TILING_LINEAR);
    const VkDeviceBufferMemoryRequirements of_buffer{
        .sType = VK_STRUCTURE_TYPE_DEVICE_BUFFER_MEMORY_REQUIREMENTS, .pCreateInfo = &info};
    const VkDeviceImageMemoryRequirements of_image{
        .sType = VK_STRUCTURE_TYPE_DEVICE_IMAGE_MEMORY_REQUIREMENTS, .pCreateInfo = &image};
    const VkPhysicalDeviceExternalBufferInfo about{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_BUFFER_INFO, .handleType = dma_buf};
    const std::array<std::pair<const char*, std::function<void(VkPhysicalDevice)>>, 4> calls{{
        {"vkCreateBuffer", // as the driver does it
         [&](VkPhysicalDevice) {
             VkMemoryRequirements2 needs{.sType = VK_STRUCTURE_TYPE_MEMORY_REQUIREMENTS_2};
             app->vk.GetDeviceBufferMemoryRequirements(app->device, &of_buffer, &needs);
         }},
        {"vkCreateImage",
         [&](VkPhysicalDevice) {
             VkMemoryRequirements2 needs{.sType = VK_STRUCTURE_TYPE_MEMORY_REQUIREMENTS_2};
             app->vk.GetDeviceImageMemoryRequirements(app->device, &of_image, &needs);
         }},
        {"vkGetPhysicalDeviceExternalBufferProperties",
         [&](VkPhysicalDevice of) {
             VkExternalBufferProperties can{.sType = VK_STRUCTURE_TYPE_EXTERNAL_BUFFER_PROPERTIES};
             app->of_instance.GetPhysicalDeviceExternalBufferProperties(of, &about, &can);
         }},
        {"vkGetPhysicalDeviceFormatProperties2",
         [&](VkPhysicalDevice of) {
             VkFormatProperties2 can{.sType = VK_STRUCTURE_TYPE_FORMAT_PROPERTIES_2};
             app->of_instance.GetPhysicalDeviceFormatProperties2(of, VK_FORMAT_B8G8R8A8_UNORM,
                                                                 &can);
         }},
    }};
    for (const auto& [name, call] : calls) {
        start();
        std::array<VkPhysicalDevice, 2> all{};
        std::uint32_t count = 2;
        ASSERT_EQ(app->of_instance.EnumeratePhysicalDevices(app->instance, &count, all.data()),
                  VK_SUCCESS);
        const int so_far = icd->calls(name);
        fail_allocation(1); // more of them are the library's, which ends the program
        call(all[1]);
        EXPECT_FALSE(fail_allocation(0)) << name;
        EXPECT_GT(icd->calls(name), so_far) << name;
        end();
    }
}

TEST_F(LayerEmulateTest, OtherImagesAreTheDriversBusiness) {
    start();
    const auto info = image_info(nullptr, VK_IMAGE_TILING_OPTIMAL);
    VkImage image = VK_NULL_HANDLE;
    ASSERT_EQ(app->vk.CreateImage(app->device, &info, nullptr, &image), VK_SUCCESS);
    images.push_back(image);
    EXPECT_EQ(icd->creations().at(0).tiling, VK_IMAGE_TILING_OPTIMAL);
    EXPECT_TRUE(icd->creations().at(0).chain.empty());
}

TEST_F(LayerEmulateTest, AStructureThatNobodyKnowsIsToldOf) {
    start();
    VkExternalMemoryBufferCreateInfo external{
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO, .handleTypes = dma_buf};
    const VkBaseInStructure unknown{.sType = static_cast<VkStructureType>(1999999999),
                                    .pNext = reinterpret_cast<const VkBaseInStructure*>(&external)};
    const VkBufferCreateInfo info{.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                  .pNext = &unknown,
                                  .size = page,
                                  .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT};
    VkBuffer made = VK_NULL_HANDLE;
    ::testing::internal::CaptureStderr();
    ASSERT_EQ(app->vk.CreateBuffer(app->device, &info, nullptr, &made), VK_SUCCESS);
    buffers.push_back(made);
    EXPECT_NE(::testing::internal::GetCapturedStderr().find("1999999999"), std::string::npos);
    EXPECT_EQ(icd->creations().at(0).chain,
              (std::vector{VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO}));
    // Behind what has to differ it stays.
    const VkBaseInStructure behind{.sType = unknown.sType};
    external.pNext = &behind;
    const VkBufferCreateInfo other{.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                   .pNext = &external,
                                   .size = page,
                                   .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT};
    ASSERT_EQ(app->vk.CreateBuffer(app->device, &other, nullptr, &made), VK_SUCCESS);
    buffers.push_back(made);
    EXPECT_EQ(icd->creations().at(1).chain.size(), 2U);
    EXPECT_EQ(external.pNext, &behind);
}

// ---- Brackets -----------------------------------------------------------------------------------

TEST_F(LayerEmulateTest, WorkIsBracketedOverEveryBuffer) {
    start();
    const std::string one = std::to_string(import()), other = std::to_string(import());
    VkFence done = app->fence();
    ASSERT_EQ(app->submit(queue, {}, {}, {commands()}, done), VK_SUCCESS);
    const auto all = take_events();
    ASSERT_EQ(all.size(), 6U);
    EXPECT_EQ((std::set<std::string>(all.begin(), all.begin() + 2)),
              (std::set<std::string>{"START " + one, "START " + other}));
    EXPECT_EQ(all[2], "vkQueueSubmit2");
    EXPECT_EQ(all[3], "vkQueueSubmit") << "what tells the end";
    EXPECT_EQ((std::set<std::string>(all.begin() + 4, all.end())),
              (std::set<std::string>{"END " + one, "END " + other}));
    EXPECT_EQ(icd->submissions(queue).at(0).fence, done) << "the application's own";
    EXPECT_EQ(icd->submissions(queue).at(0).batches.size(), 1U);
    EXPECT_TRUE(icd->submissions(queue).at(1).batches.empty());
    EXPECT_TRUE(icd->submissions(queue).at(1).finished);

    app->vk.QueueWaitIdle(queue);
    app->vk.DestroyFence(app->device, done, nullptr);
}

TEST_F(LayerEmulateTest, TheOlderSubmissionToo) {
    start();
    const std::string inode = std::to_string(import());
    VkCommandBuffer work = commands();
    const VkSubmitInfo info{
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &work};
    ASSERT_EQ(app->vk.QueueSubmit(queue, 1, &info, VK_NULL_HANDLE), VK_SUCCESS);
    EXPECT_EQ(take_events(), (std::vector<std::string>{"START " + inode, "vkQueueSubmit",
                                                       "vkQueueSubmit", "END " + inode}));
    app->vk.QueueWaitIdle(queue);
}

TEST_F(LayerEmulateTest, WhatExecutesNothingHasNoBracket) {
    start();
    import();
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
    EXPECT_EQ(take_events(), (std::vector<std::string>{"vkQueueSubmit2"}));
    app->vk.QueueWaitIdle(queue);
}

TEST_F(LayerEmulateTest, TheBuffersFencesComeFirst) {
    start();
    const std::string inode = std::to_string(import());
    busy = 1;
    ASSERT_EQ(app->submit(queue, {}, {}, {commands()}), VK_SUCCESS);
    const auto all = take_events();
    ASSERT_GE(all.size(), 2U);
    EXPECT_EQ(all[0], "busy");
    EXPECT_EQ(all[1], "START " + inode);
    app->vk.QueueWaitIdle(queue);
}

TEST_F(LayerEmulateTest, ASubmissionThatFailsClosesItsBracket) {
    start();
    const std::string inode = std::to_string(import());
    icd->fail("vkQueueSubmit2", VK_ERROR_OUT_OF_DEVICE_MEMORY);
    EXPECT_EQ(app->submit(queue, {}, {}, {commands()}), VK_ERROR_OUT_OF_DEVICE_MEMORY);
    EXPECT_EQ(take_events(),
              (std::vector<std::string>{"START " + inode, "vkQueueSubmit2", "END " + inode}));
}

TEST_F(LayerEmulateTest, WhereWeFailTheSubmissionGoesOn) {
    start();
    const std::string inode = std::to_string(import());
    const auto work = commands();
    const auto submit = [&] {
        ::testing::internal::CaptureStderr();
        EXPECT_EQ(app->submit(queue, {}, {}, {work}), VK_SUCCESS);
        app->vk.QueueWaitIdle(queue);
        return ::testing::internal::GetCapturedStderr();
    };
    start_error = EINVAL;
    EXPECT_NE(submit().find("START is refused: EINVAL"), std::string::npos);
    EXPECT_EQ(take_events(), (std::vector<std::string>{"vkQueueSubmit2"})) << "nothing to close";
    EXPECT_EQ(submit(), "") << "told once";
    start_error = 0;
    end_error = EINVAL;
    EXPECT_NE(submit().find("END is refused: EINVAL"), std::string::npos);
    end_error = 0;
    take_events();
    icd->fail("vkQueueSubmit", VK_ERROR_OUT_OF_HOST_MEMORY);
    EXPECT_NE(submit().find("no fence tells"), std::string::npos);
    EXPECT_EQ(take_events(), (std::vector<std::string>{"START " + inode, "vkQueueSubmit2",
                                                       "vkQueueSubmit", "END " + inode}));
}

TEST_F(LayerEmulateTest, ALostDeviceHoldsNothing) {
    start();
    const std::string inode = std::to_string(import());
    icd->fail("vkWaitForFences", VK_ERROR_DEVICE_LOST);
    ASSERT_EQ(app->submit(queue, {}, {}, {commands()}), VK_SUCCESS);
    EXPECT_EQ(take_events().back(), "END " + inode);
}

TEST_F(LayerEmulateTest, WhatWaitsForTheApplicationDoesNotHoldItUp) {
    start();
    const std::string inode = std::to_string(import());
    VkSemaphore timeline = app->timeline();
    ::testing::internal::CaptureStderr();
    ASSERT_EQ(app->submit(queue, {{timeline, 1}}, {}, {commands()}), VK_SUCCESS);
    ASSERT_EQ(app->submit(queue, {}, {}, {commands()}), VK_SUCCESS) << "which comes after it";
    EXPECT_EQ(::testing::internal::GetCapturedStderr(), "") << "nobody has waited";
    auto all = take_events();
    EXPECT_EQ(std::ranges::count(all, "START " + inode), 2);
    EXPECT_EQ(std::ranges::count(all, "END " + inode), 0);
    const VkSemaphoreSignalInfo signal{
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO, .semaphore = timeline, .value = 1};
    ASSERT_EQ(app->vk.SignalSemaphore(app->device, &signal), VK_SUCCESS);
    // The thread comes to it by itself.
    std::ptrdiff_t ends = 0;
    for (int i = 0; i < 5000 && ends < 2; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        const std::lock_guard held(lock);
        ends = std::ranges::count(events, "END " + inode);
    }
    EXPECT_EQ(ends, 2);
    take_events();
    // A value that has been reached holds nobody up.
    ASSERT_EQ(app->submit(queue, {{timeline, 1}}, {}, {commands()}), VK_SUCCESS);
    EXPECT_EQ(take_events().back(), "END " + inode);
    app->vk.QueueWaitIdle(queue);
    app->vk.DestroySemaphore(app->device, timeline, nullptr);
}

TEST_F(LayerEmulateTest, WithoutMemoryASubmissionGoesOnAndSignalsAreAsTheyWere) {
    ::testing::internal::CaptureStderr(); // of what comes too early, or too late
    int failures = 0;
    for (int nth = 1;; ++nth) {
        start();
        const std::string inode = std::to_string(import());
        const auto work = commands();
        VkSemaphore timeline = app->timeline();
        const VkCommandBufferSubmitInfo one{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO,
                                            .commandBuffer = work};
        const VkSemaphoreSubmitInfo wait{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
                                         .semaphore = timeline,
                                         .value = 1,
                                         .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT};
        const VkSubmitInfo2 info{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                                 .waitSemaphoreInfoCount = 1,
                                 .pWaitSemaphoreInfos = &wait,
                                 .commandBufferInfoCount = 1,
                                 .pCommandBufferInfos = &one};
        fail_allocation(nth);
        const VkResult submitted = app->vk.QueueSubmit2(queue, 1, &info, VK_NULL_HANDLE);
        const bool failed = !fail_allocation(0);
        EXPECT_EQ(submitted, VK_SUCCESS);
        sigset_t blocked{}, before{};
        sigemptyset(&blocked);
        pthread_sigmask(SIG_SETMASK, &blocked, &before);
        EXPECT_FALSE(sigismember(&before, SIGTERM)) << nth;
        signal(timeline, 1);
        app->vk.QueueWaitIdle(queue);
        app->vk.DestroySemaphore(app->device, timeline, nullptr);
        end();
        const auto all = take_events();
        EXPECT_EQ(std::ranges::count(all, "START " + inode),
                  std::ranges::count(all, "END " + inode))
            << nth;
        if (!failed)
            break;
        ++failures;
    }
    ::testing::internal::GetCapturedStderr();
    EXPECT_GE(failures, 3);
}

TEST_F(LayerEmulateTest, WhatAnEarlierBatchSignalsHoldsNobodyUp) {
    start();
    const std::string inode = std::to_string(import());
    VkSemaphore timeline = app->timeline();
    const auto at = [&](const std::uint64_t value) {
        return VkSemaphoreSubmitInfo{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
                                     .semaphore = timeline,
                                     .value = value,
                                     .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT};
    };
    const VkSemaphoreSubmitInfo first = at(1);
    const VkCommandBufferSubmitInfo one{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO,
                                        .commandBuffer = commands()};
    const std::array batches{VkSubmitInfo2{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                                           .signalSemaphoreInfoCount = 1,
                                           .pSignalSemaphoreInfos = &first},
                             VkSubmitInfo2{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                                           .waitSemaphoreInfoCount = 1,
                                           .pWaitSemaphoreInfos = &first,
                                           .commandBufferInfoCount = 1,
                                           .pCommandBufferInfos = &one}};
    ASSERT_EQ(app->vk.QueueSubmit2(queue, 2, batches.data(), VK_NULL_HANDLE), VK_SUCCESS);
    EXPECT_EQ(take_events().back(), "END " + inode);
    // The older structures too.
    const std::uint64_t two = 2;
    const VkCommandBuffer work = one.commandBuffer;
    const VkPipelineStageFlags stage = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    const VkTimelineSemaphoreSubmitInfo signals{
        .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
        .signalSemaphoreValueCount = 1,
        .pSignalSemaphoreValues = &two};
    const VkTimelineSemaphoreSubmitInfo waits{.sType =
                                                  VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
                                              .waitSemaphoreValueCount = 1,
                                              .pWaitSemaphoreValues = &two};
    const std::array older{VkSubmitInfo{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                                        .pNext = &signals,
                                        .signalSemaphoreCount = 1,
                                        .pSignalSemaphores = &timeline},
                           VkSubmitInfo{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                                        .pNext = &waits,
                                        .waitSemaphoreCount = 1,
                                        .pWaitSemaphores = &timeline,
                                        .pWaitDstStageMask = &stage,
                                        .commandBufferCount = 1,
                                        .pCommandBuffers = &work}};
    ASSERT_EQ(app->vk.QueueSubmit(queue, 2, older.data(), VK_NULL_HANDLE), VK_SUCCESS);
    EXPECT_EQ(take_events().back(), "END " + inode);
    // What it signals only when it has waited itself does not count, nor does what is not enough.
    const VkSemaphoreSubmitInfo third = at(3), fourth = at(4);
    auto chained = batches;
    chained[0].pSignalSemaphoreInfos = &third;
    chained[1].pWaitSemaphoreInfos = &fourth;
    ASSERT_EQ(app->vk.QueueSubmit2(queue, 2, chained.data(), VK_NULL_HANDLE), VK_SUCCESS);
    EXPECT_NE(take_events().back(), "END " + inode);
    signal(timeline, 4);
    app->vk.QueueWaitIdle(queue);
    app->vk.DestroySemaphore(app->device, timeline, nullptr);
}

TEST_F(LayerEmulateTest, WhatIsStillOpenIsClosedWithTheDevice) {
    start();
    const std::string inode = std::to_string(import());
    // The thread does not come to it before.
    icd->on_call = [](std::string_view function) {
        exempt_allocations(true);
        if (function == "vkGetFenceStatus")
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
    };
    for (int nth = 1; nth <= 10'000; ++nth)
        icd->fail("vkGetFenceStatus", VK_NOT_READY, nth);
    VkSemaphore timeline = app->timeline();
    ASSERT_EQ(app->submit(queue, {{timeline, 1}}, {}, {commands()}), VK_SUCCESS);
    signal(timeline, 1);
    app->vk.QueueWaitIdle(queue);
    app->vk.DestroySemaphore(app->device, timeline, nullptr);
    {
        const std::lock_guard held(lock);
        EXPECT_EQ(std::ranges::count(events, "END " + inode), 0);
    }
    app->vk.FreeMemory(app->device, memories.at(0), nullptr); // before END
    memories.clear();
    app->vk.DestroyCommandPool(app->device, std::exchange(pool, VK_NULL_HANDLE), nullptr);
    app.reset();
    EXPECT_EQ(std::ranges::count(take_events(), "END " + inode), 1);
}

TEST_F(LayerEmulateTest, ALongSubmissionIsLeftToTheThread) {
    start();
    const std::string inode = std::to_string(import());
    icd->fail("vkWaitForFences", VK_TIMEOUT);
    ::testing::internal::CaptureStderr();
    ASSERT_EQ(app->submit(queue, {}, {}, {commands()}), VK_SUCCESS);
    EXPECT_NE(::testing::internal::GetCapturedStderr().find("more than a second"),
              std::string::npos);
    app->vk.QueueWaitIdle(queue);
    std::ptrdiff_t ends = 0;
    for (int i = 0; i < 5000 && ends == 0; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        const std::lock_guard held(lock);
        ends = std::ranges::count(events, "END " + inode);
    }
    EXPECT_EQ(ends, 1);
}

TEST_F(LayerEmulateTest, ManyQueuesAndThreads) {
    start();
    import();
    import();
    std::vector<std::thread> threads;
    for (std::uint32_t family = 0; family < 2; ++family)
        for (std::uint32_t index = 0; index < 2; ++index)
            threads.emplace_back([&, family, index] {
                VkQueue mine = app->queue(family, index);
                VkCommandPool from = app->command_pool();
                VkCommandBuffer work = app->begin(from);
                EXPECT_EQ(app->vk.EndCommandBuffer(work), VK_SUCCESS);
                for (int i = 0; i < 50; ++i) {
                    EXPECT_EQ(app->submit(mine, {}, {}, {work}), VK_SUCCESS);
                    VkDeviceMemory memory = VK_NULL_HANDLE;
                    EXPECT_EQ(app->import_memory(memfd(page).release(), page, memory), VK_SUCCESS);
                    app->vk.FreeMemory(app->device, memory, nullptr);
                }
                app->vk.QueueWaitIdle(mine);
                app->vk.DestroyCommandPool(app->device, from, nullptr);
            });
    for (std::thread& each : threads)
        each.join();
    std::ptrdiff_t starts = 0, ends = 0;
    for (const std::string& each : take_events()) {
        starts += each.starts_with("START") ? 1 : 0;
        ends += each.starts_with("END") ? 1 : 0;
    }
    EXPECT_GE(starts, 4 * 50 * 2);
    EXPECT_EQ(starts, ends);
}

} // namespace
} // namespace sluice::test
