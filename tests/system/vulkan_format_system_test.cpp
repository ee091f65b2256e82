// SPDX-License-Identifier: MIT
// The format tables on a real driver: bytes laid out by drm_fourcc.h's words are read, and bytes
// that are drawn are found where those words put them. Plain LINEAR images in host memory do for
// that, so any Vulkan device will.
#include <sluice/vulkan_format.hpp>

#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <drm_fourcc.h>
#include <gtest/gtest.h>
#include <vulkan/vulkan.h>

#include <sluice/format.hpp>

#include "support/pixel_layout.hpp"
#include "support/requires.hpp"
#include "support/vulkan_under_validation.hpp"

namespace sluice {
namespace {

using test::PixelLayout;
using test::Sample;

constexpr std::uint32_t read_views[] = {
#include "read_views.comp.inc"
};

constexpr std::uint32_t width = 8; // a multiple of every chroma
constexpr std::uint32_t height = 4;
constexpr std::string_view channels = "rgba";

using Bytes = std::vector<std::uint8_t>;
using Colour = std::array<float, 4>;

/// What is made on the device, undone in reverse.
class Cleanup {
public:
    Cleanup() = default;
    Cleanup(const Cleanup&) = delete;
    Cleanup& operator=(const Cleanup&) = delete;
    ~Cleanup() {
        while (!undo_.empty()) {
            undo_.back()();
            undo_.pop_back();
        }
    }
    void add(std::function<void()> undo) { undo_.push_back(std::move(undo)); }

private:
    std::vector<std::function<void()>> undo_;
};

/// One plane of a frame in memory, its rows without gaps.
struct Plane {
    Bytes bytes;
    std::size_t row_bytes = 0;
};

void put(Bytes& bytes, std::size_t bit, std::uint32_t bits, std::uint32_t value) {
    for (std::uint32_t i = 0; i < bits; ++i)
        if ((value >> i & 1U) != 0)
            bytes[(bit + i) / 8] |= static_cast<std::uint8_t>(1U << ((bit + i) % 8));
}

/// A sample's value and what a shader makes of it.
struct Value {
    std::uint32_t raw;
    float read;
};

/// Something else for each channel, pixel and format.
Value value(const PixelLayout& layout, const Sample& sample, std::uint32_t seed) {
    const std::uint32_t noise = (seed * 2654435761U) ^ (seed * 40503U << 7);
    if (layout.is_float) {
        constexpr std::array halves = {Value{0x0000, 0.0F}, Value{0x3400, 0.25F},
                                       Value{0x3c00, 1.0F}, Value{0x4100, 2.5F},
                                       Value{0xb800, -0.5F}};
        return halves[noise % halves.size()];
    }
    const std::uint32_t most = (1U << sample.bits) - 1;
    const std::uint32_t raw = noise >> 3 & most;
    return {raw, static_cast<float>(raw) / static_cast<float>(most)};
}

/// A frame whose pixels all differ, laid out by the words of drm_fourcc.h, with the padding zero.
struct Picture {
    std::vector<Plane> planes;
    std::vector<Colour> pixels; ///< What reading it should give, row by row.
};

Picture paint(const PixelLayout& layout) {
    Picture picture;
    picture.pixels.assign(std::size_t{width} * height, Colour{0, 0, 0, 1});
    std::uint32_t seed = 1;
    for (std::uint32_t plane = 0; plane < layout.blocks.size(); ++plane) {
        const test::Block& block = layout.blocks[plane];
        const std::size_t row_bytes = std::size_t{width} / block.width * block.bits / 8;
        Plane made{Bytes(row_bytes * (height / block.height)), row_bytes};
        for (std::uint32_t y = 0; y < height; y += block.height)
            for (std::uint32_t x = 0; x < width; x += block.width)
                for (const Sample& each : layout.samples) {
                    if (each.plane != plane)
                        continue;
                    const Value written = value(layout, each, seed++);
                    put(made.bytes,
                        (y / block.height * row_bytes * 8) +
                            std::size_t{x} / block.width * block.bits + each.low,
                        each.bits, written.raw);
                    // The pixels of the block that have this sample.
                    const auto shared =
                        block.width / static_cast<std::uint32_t>(layout.of(each.channel).size());
                    for (std::uint32_t down = 0; down < block.height; ++down)
                        for (std::uint32_t across = 0; across < shared; ++across)
                            picture.pixels[(std::size_t{y} + down) * width + x + each.of * shared +
                                           across][channels.find(each.channel)] = written.read;
                }
        picture.planes.push_back(std::move(made));
    }
    return picture;
}

class VulkanFormatSystemTest : public ::testing::Test {
protected:
    void SetUp() override {
#if defined(__SANITIZE_THREAD__)
        GTEST_SKIP() << "a driver with threads of its own is not built for ThreadSanitizer";
#endif
        SLUICE_REQUIRES(drm_.size() > 90, "cannot read " SLUICE_DRM_FOURCC);
        create_instance();
        if (!IsSkipped() && !HasFatalFailure())
            create_device();
    }

    void TearDown() override {
        for (const std::string& each : messages_)
            ADD_FAILURE() << each;
    }

    void create_instance() {
        static constexpr std::array layers = {"VK_LAYER_KHRONOS_validation"};
        static constexpr std::array extensions = {VK_EXT_DEBUG_UTILS_EXTENSION_NAME};
        const bool validate = test::Validation::available();
        const VkDebugUtilsMessengerCreateInfoEXT listen{
            .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
            .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
            .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
            .pfnUserCallback = &VulkanFormatSystemTest::heard,
            .pUserData = this};
        const VkApplicationInfo application{.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                            .pApplicationName = "sluice tests",
                                            .apiVersion = VK_API_VERSION_1_3};
        const VkInstanceCreateInfo create{.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                          .pNext = validate ? &listen : nullptr,
                                          .pApplicationInfo = &application,
                                          .enabledLayerCount = validate ? 1U : 0U,
                                          .ppEnabledLayerNames = layers.data(),
                                          .enabledExtensionCount = validate ? 1U : 0U,
                                          .ppEnabledExtensionNames = extensions.data()};
        SLUICE_REQUIRES(vkCreateInstance(&create, nullptr, &instance_) == VK_SUCCESS,
                        "there is no Vulkan driver");
        end_.add([this] { vkDestroyInstance(instance_, nullptr); });
        if (!validate)
            return;
        const auto create_messenger = reinterpret_cast<PFN_vkCreateDebugUtilsMessengerEXT>(
            vkGetInstanceProcAddr(instance_, "vkCreateDebugUtilsMessengerEXT"));
        VkDebugUtilsMessengerEXT messenger = VK_NULL_HANDLE;
        ASSERT_EQ(create_messenger(instance_, &listen, nullptr, &messenger), VK_SUCCESS);
        end_.add([this, messenger] {
            reinterpret_cast<PFN_vkDestroyDebugUtilsMessengerEXT>(vkGetInstanceProcAddr(
                instance_, "vkDestroyDebugUtilsMessengerEXT"))(instance_, messenger, nullptr);
        });
    }

    static VKAPI_ATTR VkBool32 VKAPI_CALL heard(VkDebugUtilsMessageSeverityFlagBitsEXT,
                                                VkDebugUtilsMessageTypeFlagsEXT,
                                                const VkDebugUtilsMessengerCallbackDataEXT* data,
                                                void* self) {
        static_cast<VulkanFormatSystemTest*>(self)->messages_.emplace_back(data->pMessage);
        return VK_FALSE;
    }

    void create_device() {
        std::uint32_t count = 1; // the first will do
        vkEnumeratePhysicalDevices(instance_, &count, &physical_);
        SLUICE_REQUIRES(count == 1, "there is no Vulkan device");
        VkPhysicalDeviceProperties properties{};
        vkGetPhysicalDeviceProperties(physical_, &properties);
        SLUICE_REQUIRES(properties.apiVersion >= VK_API_VERSION_1_3,
                        "the device is older than Vulkan 1.3");
        std::cout << "on " << properties.deviceName << '\n';
        vkGetPhysicalDeviceMemoryProperties(physical_, &memory_);

        VkPhysicalDeviceVulkan11Features can{
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES};
        VkPhysicalDeviceFeatures2 features{.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                           .pNext = &can};
        vkGetPhysicalDeviceFeatures2(physical_, &features);
        converts_ = can.samplerYcbcrConversion == VK_TRUE;
        const VkPhysicalDeviceVulkan11Features wanted{
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES,
            .samplerYcbcrConversion = can.samplerYcbcrConversion};

        // The first queue family of a device that draws or computes takes transfers as well.
        const float priority = 1;
        const VkDeviceQueueCreateInfo queue{.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                            .queueFamilyIndex = 0,
                                            .queueCount = 1,
                                            .pQueuePriorities = &priority};
        const VkDeviceCreateInfo create{.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                        .pNext = &wanted,
                                        .queueCreateInfoCount = 1,
                                        .pQueueCreateInfos = &queue};
        ASSERT_EQ(vkCreateDevice(physical_, &create, nullptr, &device_), VK_SUCCESS);
        end_.add([this] { vkDestroyDevice(device_, nullptr); });
        vkGetDeviceQueue(device_, 0, 0, &queue_);
        const VkCommandPoolCreateInfo pool{.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                           .queueFamilyIndex = 0};
        ASSERT_EQ(vkCreateCommandPool(device_, &pool, nullptr, &pool_), VK_SUCCESS);
        end_.add([this] { vkDestroyCommandPool(device_, pool_, nullptr); });
        const VkShaderModuleCreateInfo code{.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                            .codeSize = sizeof read_views,
                                            .pCode = read_views};
        ASSERT_EQ(vkCreateShaderModule(device_, &code, nullptr, &shader_), VK_SUCCESS);
        end_.add([this] { vkDestroyShaderModule(device_, shader_, nullptr); });
    }

    VkFormatFeatureFlags linear_features(VkFormat format) const {
        VkFormatProperties properties{};
        vkGetPhysicalDeviceFormatProperties(physical_, format, &properties);
        return properties.linearTilingFeatures;
    }

    /// Memory that the CPU sees, mapped for as long as \p cleanup lives; null where there is none.
    std::uint8_t* allocate(Cleanup& cleanup, const VkMemoryRequirements& needs,
                           VkDeviceMemory& memory) const {
        constexpr VkMemoryPropertyFlags flags =
            VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
        std::uint32_t type = 0;
        while (type < memory_.memoryTypeCount &&
               ((needs.memoryTypeBits >> type & 1U) == 0 ||
                (memory_.memoryTypes[type].propertyFlags & flags) != flags))
            ++type;
        const VkMemoryAllocateInfo info{.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                        .allocationSize = needs.size,
                                        .memoryTypeIndex = type};
        if (type == memory_.memoryTypeCount ||
            vkAllocateMemory(device_, &info, nullptr, &memory) != VK_SUCCESS)
            return nullptr;
        cleanup.add([this, memory] { vkFreeMemory(device_, memory, nullptr); });
        void* at = nullptr;
        vkMapMemory(device_, memory, 0, VK_WHOLE_SIZE, 0, &at);
        std::memset(at, 0, needs.size);
        return static_cast<std::uint8_t*>(at);
    }

    struct Image {
        VkImage image = VK_NULL_HANDLE;
        std::uint8_t* memory = nullptr;
    };

    /// A LINEAR image in mapped memory, or nothing where the driver has no such image.
    std::optional<Image> create_image(Cleanup& cleanup, VkFormat format, VkExtent2D size,
                                      VkImageUsageFlags usage) const {
        const VkImageCreateInfo info{.sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO,
                                     .imageType = VK_IMAGE_TYPE_2D,
                                     .format = format,
                                     .extent = {size.width, size.height, 1},
                                     .mipLevels = 1,
                                     .arrayLayers = 1,
                                     .samples = VK_SAMPLE_COUNT_1_BIT,
                                     .tiling = VK_IMAGE_TILING_LINEAR,
                                     .usage = usage,
                                     .initialLayout = VK_IMAGE_LAYOUT_PREINITIALIZED};
        VkImageFormatProperties properties{};
        if (vkGetPhysicalDeviceImageFormatProperties(physical_, format, info.imageType, info.tiling,
                                                     usage, 0, &properties) != VK_SUCCESS)
            return std::nullopt;
        Image made;
        EXPECT_EQ(vkCreateImage(device_, &info, nullptr, &made.image), VK_SUCCESS);
        VkMemoryRequirements needs{};
        vkGetImageMemoryRequirements(device_, made.image, &needs);
        VkDeviceMemory memory = VK_NULL_HANDLE;
        made.memory = allocate(cleanup, needs, memory);
        cleanup.add([this, image = made.image] { vkDestroyImage(device_, image, nullptr); });
        if (made.memory == nullptr)
            return std::nullopt;
        EXPECT_EQ(vkBindImageMemory(device_, made.image, memory, 0), VK_SUCCESS);
        return made;
    }

    VkSubresourceLayout layout_of(const Image& image, VkImageAspectFlags aspect) const {
        const VkImageSubresource which{.aspectMask = aspect};
        VkSubresourceLayout layout{};
        vkGetImageSubresourceLayout(device_, image.image, &which, &layout);
        return layout;
    }

    void fill(const Image& image, VkImageAspectFlags aspect, const Plane& plane) const {
        const VkSubresourceLayout layout = layout_of(image, aspect);
        for (std::size_t y = 0; y * plane.row_bytes < plane.bytes.size(); ++y)
            std::memcpy(image.memory + layout.offset + y * layout.rowPitch,
                        plane.bytes.data() + y * plane.row_bytes, plane.row_bytes);
    }

    VkSampler create_sampler(Cleanup& cleanup, VkSamplerYcbcrConversion conversion) const {
        const VkSamplerYcbcrConversionInfo with{
            .sType = VK_STRUCTURE_TYPE_SAMPLER_YCBCR_CONVERSION_INFO, .conversion = conversion};
        const VkSamplerCreateInfo info{.sType = VK_STRUCTURE_TYPE_SAMPLER_CREATE_INFO,
                                       .pNext = conversion == VK_NULL_HANDLE ? nullptr : &with,
                                       .addressModeU = VK_SAMPLER_ADDRESS_MODE_CLAMP_TO_EDGE,
                                       .addressModeV = VK_SAMPLER_ADDRESS_MODE_CLAMP_TO_EDGE,
                                       .addressModeW = VK_SAMPLER_ADDRESS_MODE_CLAMP_TO_EDGE};
        VkSampler sampler = VK_NULL_HANDLE;
        EXPECT_EQ(vkCreateSampler(device_, &info, nullptr, &sampler), VK_SUCCESS);
        cleanup.add([this, sampler] { vkDestroySampler(device_, sampler, nullptr); });
        return sampler;
    }

    VkImageView create_view(Cleanup& cleanup, const Image& image, VkFormat format,
                            const VkComponentMapping& components,
                            VkSamplerYcbcrConversion conversion) const {
        const VkSamplerYcbcrConversionInfo with{
            .sType = VK_STRUCTURE_TYPE_SAMPLER_YCBCR_CONVERSION_INFO, .conversion = conversion};
        const VkImageViewCreateInfo info{
            .sType = VK_STRUCTURE_TYPE_IMAGE_VIEW_CREATE_INFO,
            .pNext = conversion == VK_NULL_HANDLE ? nullptr : &with,
            .image = image.image,
            .viewType = VK_IMAGE_VIEW_TYPE_2D,
            .format = format,
            .components = components,
            .subresourceRange = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1}};
        VkImageView view = VK_NULL_HANDLE;
        EXPECT_EQ(vkCreateImageView(device_, &info, nullptr, &view), VK_SUCCESS);
        cleanup.add([this, view] { vkDestroyImageView(device_, view, nullptr); });
        return view;
    }

    void run(Cleanup& cleanup, const std::vector<Image>& images, VkImageLayout layout,
             VkAccessFlags access, const std::function<void(VkCommandBuffer)>& record) const {
        const VkCommandBufferAllocateInfo allocate_info{
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
            .commandPool = pool_,
            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
            .commandBufferCount = 1};
        VkCommandBuffer commands = VK_NULL_HANDLE;
        ASSERT_EQ(vkAllocateCommandBuffers(device_, &allocate_info, &commands), VK_SUCCESS);
        cleanup.add([this, commands] { vkFreeCommandBuffers(device_, pool_, 1, &commands); });
        const VkCommandBufferBeginInfo begin{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
        vkBeginCommandBuffer(commands, &begin);
        for (const Image& each : images) {
            const VkImageMemoryBarrier to{
                .sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER,
                .srcAccessMask = VK_ACCESS_HOST_WRITE_BIT,
                .dstAccessMask = access,
                .oldLayout = VK_IMAGE_LAYOUT_PREINITIALIZED,
                .newLayout = layout,
                .srcQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
                .dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
                .image = each.image,
                .subresourceRange = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1}};
            vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_HOST_BIT,
                                 VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, 0, 0, nullptr, 0, nullptr, 1,
                                 &to);
        }
        record(commands);
        const VkMemoryBarrier done{.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                                   .srcAccessMask = VK_ACCESS_MEMORY_WRITE_BIT,
                                   .dstAccessMask = VK_ACCESS_HOST_READ_BIT};
        vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT,
                             VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &done, 0, nullptr, 0, nullptr);
        ASSERT_EQ(vkEndCommandBuffer(commands), VK_SUCCESS);
        const VkSubmitInfo submit{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                                  .commandBufferCount = 1,
                                  .pCommandBuffers = &commands};
        ASSERT_EQ(vkQueueSubmit(queue_, 1, &submit, VK_NULL_HANDLE), VK_SUCCESS);
        ASSERT_EQ(vkQueueWaitIdle(queue_), VK_SUCCESS);
    }

    std::vector<Colour> sample(Cleanup& cleanup, const std::vector<Image>& images,
                               const std::vector<VkImageView>& views, VkSampler sampler) const;

    /// What a shader gets of \p picture through the entry's views, or nothing where the driver
    /// cannot sample one of them.
    std::optional<std::vector<Colour>> read_by_views(const VulkanFormatInfo& info,
                                                     const Picture& picture) const {
        Cleanup cleanup;
        std::vector<Image> images;
        std::vector<VkImageView> views;
        for (std::uint32_t i = 0; i < info.view_count; ++i) {
            const VulkanPlaneView& view = info.views[i];
            if ((linear_features(view.format) & VK_FORMAT_FEATURE_SAMPLED_IMAGE_BIT) == 0)
                return std::nullopt;
            auto image = create_image(cleanup, view.format,
                                      {width / view.texel_width, height / view.texel_height},
                                      VK_IMAGE_USAGE_SAMPLED_BIT);
            if (!image)
                return std::nullopt;
            fill(*image, VK_IMAGE_ASPECT_COLOR_BIT, picture.planes[view.plane]);
            views.push_back(
                create_view(cleanup, *image, view.format, view.components, VK_NULL_HANDLE));
            images.push_back(*image);
        }
        return sample(cleanup, images, views, create_sampler(cleanup, VK_NULL_HANDLE));
    }

    /// The same through one image of `info.format`.
    std::optional<std::vector<Colour>> read_whole(const VulkanFormatInfo& info,
                                                  const Picture& picture) const {
        if (info.format == VK_FORMAT_UNDEFINED)
            return std::nullopt;
        const VkFormatFeatureFlags features = linear_features(info.format);
        constexpr VkFormatFeatureFlags midpoint = VK_FORMAT_FEATURE_MIDPOINT_CHROMA_SAMPLES_BIT;
        constexpr VkFormatFeatureFlags either =
            midpoint | VK_FORMAT_FEATURE_COSITED_CHROMA_SAMPLES_BIT;
        if ((features & VK_FORMAT_FEATURE_SAMPLED_IMAGE_BIT) == 0 ||
            (info.is_ycbcr && ((features & either) == 0 || !converts_)))
            return std::nullopt;
        Cleanup cleanup;
        auto image =
            create_image(cleanup, info.format, {width, height}, VK_IMAGE_USAGE_SAMPLED_BIT);
        if (!image)
            return std::nullopt;
        for (std::size_t i = 0; i < picture.planes.size(); ++i)
            fill(*image,
                 picture.planes.size() == 1 ? VkImageAspectFlags{VK_IMAGE_ASPECT_COLOR_BIT}
                                            : VkImageAspectFlags{VK_IMAGE_ASPECT_PLANE_0_BIT} << i,
                 picture.planes[i]);
        VkSamplerYcbcrConversion conversion = VK_NULL_HANDLE;
        if (info.is_ycbcr) {
            const auto where = (features & midpoint) != 0 ? VK_CHROMA_LOCATION_MIDPOINT
                                                          : VK_CHROMA_LOCATION_COSITED_EVEN;
            const VkSamplerYcbcrConversionCreateInfo create{
                .sType = VK_STRUCTURE_TYPE_SAMPLER_YCBCR_CONVERSION_CREATE_INFO,
                .format = info.format,
                .ycbcrModel = VK_SAMPLER_YCBCR_MODEL_CONVERSION_RGB_IDENTITY,
                .ycbcrRange = VK_SAMPLER_YCBCR_RANGE_ITU_FULL,
                .components = info.components,
                .xChromaOffset = where,
                .yChromaOffset = where,
                .chromaFilter = VK_FILTER_NEAREST};
            EXPECT_EQ(vkCreateSamplerYcbcrConversion(device_, &create, nullptr, &conversion),
                      VK_SUCCESS);
            cleanup.add([this, conversion] {
                vkDestroySamplerYcbcrConversion(device_, conversion, nullptr);
            });
        }
        const VkImageView view =
            create_view(cleanup, *image, info.format,
                        info.is_ycbcr ? VkComponentMapping{} : info.components, conversion);
        return sample(cleanup, {*image}, {view}, create_sampler(cleanup, conversion));
    }

    const std::map<std::uint32_t, test::DrmFormat> drm_ = test::read_drm_fourcc(SLUICE_DRM_FOURCC);
    std::vector<std::string> messages_;
    VkInstance instance_ = VK_NULL_HANDLE;
    VkPhysicalDevice physical_ = VK_NULL_HANDLE;
    VkPhysicalDeviceMemoryProperties memory_{};
    VkDevice device_ = VK_NULL_HANDLE;
    VkQueue queue_ = VK_NULL_HANDLE;
    VkCommandPool pool_ = VK_NULL_HANDLE;
    VkShaderModule shader_ = VK_NULL_HANDLE;
    bool converts_ = false;
    Cleanup end_;
};

std::vector<Colour> VulkanFormatSystemTest::sample(Cleanup& cleanup,
                                                   const std::vector<Image>& images,
                                                   const std::vector<VkImageView>& views,
                                                   VkSampler sampler) const {
    // A conversion's sampler must be known to the layout.
    std::array<VkDescriptorSetLayoutBinding, 4> bindings{};
    for (std::uint32_t i = 0; i < bindings.size(); ++i)
        bindings[i] = {.binding = i,
                       .descriptorType = i < 3 ? VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER
                                               : VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                       .descriptorCount = 1,
                       .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
                       .pImmutableSamplers = i < 3 ? &sampler : nullptr};
    const VkDescriptorSetLayoutCreateInfo set_info{
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .bindingCount = bindings.size(),
        .pBindings = bindings.data()};
    VkDescriptorSetLayout set_layout = VK_NULL_HANDLE;
    EXPECT_EQ(vkCreateDescriptorSetLayout(device_, &set_info, nullptr, &set_layout), VK_SUCCESS);
    cleanup.add([this, set_layout] { vkDestroyDescriptorSetLayout(device_, set_layout, nullptr); });
    const VkPushConstantRange push{VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof(std::uint32_t)};
    const VkPipelineLayoutCreateInfo layout_info{.sType =
                                                     VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                                 .setLayoutCount = 1,
                                                 .pSetLayouts = &set_layout,
                                                 .pushConstantRangeCount = 1,
                                                 .pPushConstantRanges = &push};
    VkPipelineLayout layout = VK_NULL_HANDLE;
    EXPECT_EQ(vkCreatePipelineLayout(device_, &layout_info, nullptr, &layout), VK_SUCCESS);
    cleanup.add([this, layout] { vkDestroyPipelineLayout(device_, layout, nullptr); });
    const VkComputePipelineCreateInfo pipeline_info{
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                  .module = shader_,
                  .pName = "main"},
        .layout = layout};
    VkPipeline pipeline = VK_NULL_HANDLE;
    EXPECT_EQ(
        vkCreateComputePipelines(device_, VK_NULL_HANDLE, 1, &pipeline_info, nullptr, &pipeline),
        VK_SUCCESS);
    cleanup.add([this, pipeline] { vkDestroyPipeline(device_, pipeline, nullptr); });

    const VkBufferCreateInfo buffer_info{.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                         .size = std::size_t{width} * height * sizeof(Colour),
                                         .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT};
    VkBuffer buffer = VK_NULL_HANDLE;
    EXPECT_EQ(vkCreateBuffer(device_, &buffer_info, nullptr, &buffer), VK_SUCCESS);
    VkMemoryRequirements needs{};
    vkGetBufferMemoryRequirements(device_, buffer, &needs);
    VkDeviceMemory memory = VK_NULL_HANDLE;
    const std::uint8_t* pixels = allocate(cleanup, needs, memory);
    cleanup.add([this, buffer] { vkDestroyBuffer(device_, buffer, nullptr); });
    EXPECT_EQ(vkBindBufferMemory(device_, buffer, memory, 0), VK_SUCCESS);

    // A conversion may take as many descriptors as its image has planes.
    const std::array sizes = {
        VkDescriptorPoolSize{VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER, 3 * 3},
        VkDescriptorPoolSize{VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1}};
    const VkDescriptorPoolCreateInfo pool_info{.sType =
                                                   VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
                                               .maxSets = 1,
                                               .poolSizeCount = sizes.size(),
                                               .pPoolSizes = sizes.data()};
    VkDescriptorPool pool = VK_NULL_HANDLE;
    EXPECT_EQ(vkCreateDescriptorPool(device_, &pool_info, nullptr, &pool), VK_SUCCESS);
    cleanup.add([this, pool] { vkDestroyDescriptorPool(device_, pool, nullptr); });
    const VkDescriptorSetAllocateInfo set_allocate{
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
        .descriptorPool = pool,
        .descriptorSetCount = 1,
        .pSetLayouts = &set_layout};
    VkDescriptorSet set = VK_NULL_HANDLE;
    EXPECT_EQ(vkAllocateDescriptorSets(device_, &set_allocate, &set), VK_SUCCESS);
    for (std::uint32_t i = 0; i < bindings.size(); ++i) {
        const VkDescriptorImageInfo image{.imageView = views[i < views.size() ? i : 0],
                                          .imageLayout = VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL};
        const VkDescriptorBufferInfo whole{buffer, 0, VK_WHOLE_SIZE};
        const VkWriteDescriptorSet write{.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                         .dstSet = set,
                                         .dstBinding = i,
                                         .descriptorCount = 1,
                                         .descriptorType = bindings[i].descriptorType,
                                         .pImageInfo = &image,
                                         .pBufferInfo = &whole};
        vkUpdateDescriptorSets(device_, 1, &write, 0, nullptr);
    }
    run(cleanup, images, VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL, VK_ACCESS_SHADER_READ_BIT,
        [&](VkCommandBuffer commands) {
            const auto count = static_cast<std::uint32_t>(views.size());
            vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
            vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, layout, 0, 1, &set, 0,
                                    nullptr);
            vkCmdPushConstants(commands, layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof count,
                               &count);
            vkCmdDispatch(commands, width, height, 1);
        });
    std::vector<Colour> read(std::size_t{width} * height);
    std::memcpy(read.data(), pixels, read.size() * sizeof(Colour));
    return read;
}

enum class Through : std::uint8_t {
    views,
    whole, ///< One image of all planes, and a conversion where they are YCbCr.
};

/// Whether one nearest sample of chroma is meant at pixel \p i: where chroma is cosited, what lies
/// between two samples may be either.
bool is_sited(const VkExtent2D& chroma, std::size_t i) {
    return i % width % chroma.width == 0 && i / width % chroma.height == 0;
}

void expect_pixels(const VulkanFormatInfo& entry, const Picture& picture,
                   const std::vector<Colour>& read, Through through) {
    const FormatInfo& info = *find_format(entry.fourcc);
    // bits are of Y, Cb and Cr; channels of Cr, Y and Cb.
    const auto bits = info.is_yuv
                          ? std::array{info.bits[2], info.bits[0], info.bits[1], info.bits[3]}
                          : info.bits;
    int wrong = 0;
    for (std::size_t i = 0; i < read.size(); ++i)
        for (std::size_t channel = 0; channel < channels.size(); ++channel) {
            if (through == Through::whole && channels[channel] != 'g' && !is_sited(entry.chroma, i))
                continue;
            const double levels = std::max(std::exp2(bits[channel]) - 1, 1.0);
            double wanted = picture.pixels[i][channel];
            double tolerance = info.is_float ? 0 : std::max(0.25 / levels, 1e-5);
            if (through == Through::whole) {
                // lavapipe reads 10 bits at the top of 16 as if they were 16.
                tolerance = info.is_float ? 0 : std::max(tolerance, 1e-3);
            } else if (entry.format != entry.views[0].format &&
                       (bits[channel] == 10 || bits[channel] == 12)) {
                wanted *= levels * std::exp2(16 - bits[channel]) / 65535.0;
            }
            if (std::abs(double{read[i][channel]} - wanted) > tolerance && ++wrong <= 3)
                ADD_FAILURE() << "pixel " << i % width << ',' << i / width << " has "
                              << read[i][channel] << " as " << channels[channel] << ", not "
                              << wanted;
        }
    EXPECT_EQ(wrong, 0) << "channels of " << read.size() << " pixels";
}

TEST_F(VulkanFormatSystemTest, AShaderReadsWhatTheKernelsWordsMean) {
    int by_views = 0;
    int whole = 0;
    std::string no_views;
    std::string no_whole;
    for (const VulkanFormatInfo& each : vulkan_formats()) {
        const FormatInfo& info = *find_format(each.fourcc);
        const auto said = drm_.find(each.fourcc);
        if (said == drm_.end())
            continue;
        SCOPED_TRACE(std::string(info.name) + " " + said->second.name);
        const Picture picture = paint(*said->second.layout);
        if (const auto read = read_by_views(each, picture)) {
            SCOPED_TRACE("by views");
            expect_pixels(each, picture, *read, Through::views);
            ++by_views;
        } else {
            no_views += " " + std::string(info.name);
        }
        if (const auto read = read_whole(each, picture)) {
            SCOPED_TRACE("as a whole");
            expect_pixels(each, picture, *read, Through::whole);
            ++whole;
        } else {
            no_whole += " " + std::string(info.name);
        }
    }
    std::cout << by_views << " formats read by views, without" << no_views << '\n'
              << whole << " formats read as a whole, without" << no_whole << '\n';
    EXPECT_GE(by_views, 8);
    EXPECT_GE(whole, 8);
}

TEST_F(VulkanFormatSystemTest, WhatIsDrawnLiesWhereTheKernelsWordsPutIt) {
    int drawn = 0;
    std::string without;
    for (const FormatInfo& each : formats()) {
        const VkFormat format = vulkan_format(each.fourcc);
        const auto said = drm_.find(each.fourcc);
        if (format == VK_FORMAT_UNDEFINED || said == drm_.end())
            continue;
        SCOPED_TRACE(std::string(each.name) + " " + said->second.name);
        for (const char channel : channels) {
            const auto samples = said->second.layout->of(channel);
            if (samples.empty())
                continue;
            Cleanup cleanup;
            std::optional<Image> image;
            if ((linear_features(format) & VK_FORMAT_FEATURE_TRANSFER_DST_BIT) != 0)
                image =
                    create_image(cleanup, format, {width, height}, VK_IMAGE_USAGE_TRANSFER_DST_BIT);
            if (!image) {
                without += " " + std::string(each.name);
                break;
            }
            drawn += channel == 'r' ? 1 : 0;
            VkClearColorValue colour{};
            colour.float32[channels.find(channel)] = 1;
            run(cleanup, {*image}, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL,
                VK_ACCESS_TRANSFER_WRITE_BIT, [&](VkCommandBuffer commands) {
                    const VkImageSubresourceRange all{VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1};
                    vkCmdClearColorImage(commands, image->image,
                                         VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL, &colour, 1, &all);
                });
            Bytes wanted(each.planes[0].block_bytes);
            put(wanted, samples[0].low, samples[0].bits,
                each.is_float ? 0x3c00 : (1U << samples[0].bits) - 1);
            const VkSubresourceLayout layout = layout_of(*image, VK_IMAGE_ASPECT_COLOR_BIT);
            for (std::uint32_t y = 0; y < height; y += height - 1)
                for (std::uint32_t x = 0; x < width; x += width - 1) {
                    const std::uint8_t* at =
                        image->memory + layout.offset + y * layout.rowPitch + x * wanted.size();
                    EXPECT_EQ(Bytes(at, at + wanted.size()), wanted) << channel << " alone";
                }
        }
    }
    std::cout << drawn << " formats drawn, without" << without << '\n';
    EXPECT_GE(drawn, 4);
}

} // namespace
} // namespace sluice
