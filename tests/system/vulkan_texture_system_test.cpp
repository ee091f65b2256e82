// SPDX-License-Identifier: MIT
// Video in somebody else's memory as a shader sees it: colour bars by the standards' own numbers,
// through the conversion that a texture comes with, and part by part.
#include <sluice/vulkan_texture.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include <drm_fourcc.h>

#include <sluice/vulkan_format.hpp>

#include "support/gpu_test.hpp"
#include "support/udmabuf.hpp"

namespace sluice {
namespace {

constexpr std::uint32_t read_views[] = {
#include "read_views.comp.inc"
};

constexpr std::uint32_t width = 64;
constexpr std::uint32_t height = 16;
constexpr std::uint32_t bar = 8; ///< Pixels across.

using Colour = std::array<double, 3>; // red, green, blue, or Y, Cb, Cr

/// White, yellow, cyan, green, magenta, red, blue and black, at three quarters.
constexpr std::array<Colour, width / bar> bars{{{0.75, 0.75, 0.75},
                                                {0.75, 0.75, 0},
                                                {0, 0.75, 0.75},
                                                {0, 0.75, 0},
                                                {0.75, 0, 0.75},
                                                {0.75, 0, 0},
                                                {0, 0, 0.75},
                                                {0, 0, 0}}};

/// How colours become Y, Cb and Cr: the weights of red and blue in BT.601-7, 2.5.1, and
/// BT.709-6, 3.2.
struct Standard {
    const char* name;
    VkSamplerYcbcrModelConversion model;
    double red, blue;

    /// Y of 0 to 1, Cb and Cr of -0.5 to 0.5.
    [[nodiscard]] Colour encode(const Colour& rgb) const {
        const double y = red * rgb[0] + (1 - red - blue) * rgb[1] + blue * rgb[2];
        return {y, (rgb[2] - y) / (2 * (1 - blue)), (rgb[0] - y) / (2 * (1 - red))};
    }
    [[nodiscard]] Colour decode(const Colour& ycbcr) const {
        const auto [y, cb, cr] = ycbcr;
        const double r = y + cr * 2 * (1 - red);
        const double b = y + cb * 2 * (1 - blue);
        return {r, (y - red * r - blue * b) / (1 - red - blue), b};
    }
};
constexpr std::array standards{
    Standard{"BT.601", VK_SAMPLER_YCBCR_MODEL_CONVERSION_YCBCR_601, 0.299, 0.114},
    Standard{"BT.709", VK_SAMPLER_YCBCR_MODEL_CONVERSION_YCBCR_709, 0.2126, 0.0722}};

/// The limited range: code values of \p bits bits, and back.
std::array<unsigned, 3> quantise(const Colour& ycbcr, unsigned bits) {
    const double unit = std::exp2(bits - 8);
    return {static_cast<unsigned>(std::lround((16 + 219 * ycbcr[0]) * unit)),
            static_cast<unsigned>(std::lround((128 + 224 * ycbcr[1]) * unit)),
            static_cast<unsigned>(std::lround((128 + 224 * ycbcr[2]) * unit))};
}
Colour restore(const Colour& codes, unsigned bits) {
    const double unit = std::exp2(bits - 8);
    return {(codes[0] / unit - 16) / 219, (codes[1] / unit - 128) / 224,
            (codes[2] / unit - 128) / 224};
}

unsigned bits_of(std::uint32_t format) {
    return format == DRM_FORMAT_P010 ? 10 : 8;
}

/// The CPU writes the bars into \p frame.
void draw(const Frame& frame, const Standard& standard) {
    const std::uint32_t format = frame.layout().format;
    auto map = FrameMap::map(frame, Access::write);
    ASSERT_TRUE(map) << map.error().message();
    auto access = FrameAccess::begin(*map, Access::write, deadline_in(test::gpu_patience));
    ASSERT_TRUE(access) << access.error().message();
    const auto put = [&](std::size_t plane, std::size_t row, std::size_t at, unsigned value) {
        std::byte* bytes = access->plane(plane).row(row).data();
        if (bits_of(format) == 8) {
            bytes[at] = static_cast<std::byte>(value);
        } else { // the ten bits lie at the top of sixteen
            const auto word = static_cast<std::uint16_t>(value << 6);
            std::memcpy(bytes + 2 * at, &word, sizeof word);
        }
    };
    for (std::size_t y = 0; y < height; ++y)
        for (std::size_t x = 0; x < width; ++x) {
            const auto [luma, cb, cr] = quantise(standard.encode(bars[x / bar]), bits_of(format));
            if (format == DRM_FORMAT_YUYV) {
                put(0, y, 2 * x, luma);
                put(0, y, 2 * x + 1, x % 2 == 0 ? cb : cr);
                continue;
            }
            put(0, y, x, luma);
            if (y % 2 == 0)
                put(1, y / 2, x, x % 2 == 0 ? cb : cr);
        }
    ASSERT_TRUE(access->end());
}

/// How far what a shader read is from the bars at most, in 255ths. Half a code value is 0.6 of
/// luma, and 1.1 of chroma in blue.
double worst(const std::vector<std::array<float, 4>>& read, const Standard& standard, unsigned bits,
             bool converted) {
    double worst = 0;
    for (std::size_t i = 0; i < read.size(); ++i) {
        // Chroma at a bar's edge is the neighbour's too, where it is filtered.
        const std::size_t in_bar = i % width % bar;
        if (in_bar < 2 || in_bar >= bar - 2)
            continue;
        Colour seen{read[i][0], read[i][1], read[i][2]};
        if (!converted) { // Cr, Y, Cb of full scale; ten bits lie at the top of sixteen
            const double scale = bits == 10 ? 65535.0 / 64 : 255.0;
            seen =
                standard.decode(restore({seen[1] * scale, seen[2] * scale, seen[0] * scale}, bits));
        }
        for (std::size_t channel = 0; channel < seen.size(); ++channel)
            worst = std::max(worst, std::abs(seen[channel] - bars[i % width / bar][channel]) * 255);
    }
    return worst;
}

class VulkanTextureSystemTest : public test::GpuTest {
protected:
    void SetUp() override {
        SLUICE_REQUIRES(test::has_udmabuf(), "/dev/udmabuf does not open");
        GpuTest::SetUp();
    }
    void TearDown() override {
        for (; !undo_.empty(); undo_.pop_back())
            undo_.back()();
        GpuTest::TearDown();
    }

    [[nodiscard]] const void* features() const override { return &converts_; }

    /// The same device, said to convert or not to.
    [[nodiscard]] VulkanDevice wrap(bool converts) const {
        VulkanDeviceInfo info = gpu().info();
        info.sampler_ycbcr_conversion = converts;
        auto device = VulkanDevice::wrap(info);
        EXPECT_TRUE(device) << device.error().message();
        return std::move(*device);
    }

    static Frame picture(std::uint32_t format, const Standard& standard) {
        auto frame = test::udmabuf_exporter()->allocate_frame(
            {.width = width, .height = height, .format = format});
        EXPECT_TRUE(frame) << frame.error().message();
        draw(*frame, standard);
        return std::move(*frame);
    }

    /// What a shader gets of each pixel, the parts added up.
    std::vector<std::array<float, 4>> sample(const VulkanTexture& texture);

private:
    template <typename Create, typename Info, typename Handle, typename Destroy>
    void make(Create create, const Info& info, Handle& into, Destroy destroy) {
        ASSERT_EQ(create(device(), &info, nullptr, &into), VK_SUCCESS);
        undo_.push_back([this, handle = into, destroy] { destroy(device(), handle, nullptr); });
    }

    const VkPhysicalDeviceVulkan11Features converts_ = [] {
        VkPhysicalDeviceVulkan11Features features{};
        features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
        features.samplerYcbcrConversion = VK_TRUE;
        return features;
    }();
    std::vector<std::function<void()>> undo_;
};

std::vector<std::array<float, 4>> VulkanTextureSystemTest::sample(const VulkanTexture& texture) {
    std::vector<std::array<float, 4>> read(std::size_t{width} * height);
    const auto read_back = gpu().export_buffer({.width = width * sizeof read[0],
                                                .height = height,
                                                .format = DRM_FORMAT_R8,
                                                .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT});
    EXPECT_TRUE(read_back) << read_back.error().message();

    const VkSamplerYcbcrConversionInfo with{.sType =
                                                VK_STRUCTURE_TYPE_SAMPLER_YCBCR_CONVERSION_INFO,
                                            .conversion = texture.conversion()};
    VkSampler sampler = VK_NULL_HANDLE;
    make(vkCreateSampler,
         VkSamplerCreateInfo{.sType = VK_STRUCTURE_TYPE_SAMPLER_CREATE_INFO,
                             .pNext = texture.conversion() == VK_NULL_HANDLE ? nullptr : &with,
                             .addressModeU = VK_SAMPLER_ADDRESS_MODE_CLAMP_TO_EDGE,
                             .addressModeV = VK_SAMPLER_ADDRESS_MODE_CLAMP_TO_EDGE,
                             .addressModeW = VK_SAMPLER_ADDRESS_MODE_CLAMP_TO_EDGE},
         sampler, vkDestroySampler);
    std::array<VkDescriptorSetLayoutBinding, 4> bindings{};
    for (std::uint32_t i = 0; i < bindings.size(); ++i)
        bindings[i] = {.binding = i,
                       .descriptorType = i < 3 ? VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER
                                               : VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                       .descriptorCount = 1,
                       .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
                       .pImmutableSamplers = i < 3 ? &sampler : nullptr};
    VkDescriptorSetLayout set_layout = VK_NULL_HANDLE;
    make(vkCreateDescriptorSetLayout,
         VkDescriptorSetLayoutCreateInfo{.sType =
                                             VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
                                         .bindingCount = bindings.size(),
                                         .pBindings = bindings.data()},
         set_layout, vkDestroyDescriptorSetLayout);
    const VkPushConstantRange push{VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof(std::uint32_t)};
    VkPipelineLayout layout = VK_NULL_HANDLE;
    make(vkCreatePipelineLayout,
         VkPipelineLayoutCreateInfo{.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                    .setLayoutCount = 1,
                                    .pSetLayouts = &set_layout,
                                    .pushConstantRangeCount = 1,
                                    .pPushConstantRanges = &push},
         layout, vkDestroyPipelineLayout);
    VkShaderModule shader = VK_NULL_HANDLE;
    make(vkCreateShaderModule,
         VkShaderModuleCreateInfo{.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                  .codeSize = sizeof read_views,
                                  .pCode = read_views},
         shader, vkDestroyShaderModule);
    VkPipeline pipeline = VK_NULL_HANDLE;
    make(
        [](VkDevice on, const VkComputePipelineCreateInfo* info,
           const VkAllocationCallbacks* allocator, VkPipeline* into) {
            return vkCreateComputePipelines(on, VK_NULL_HANDLE, 1, info, allocator, into);
        },
        VkComputePipelineCreateInfo{
            .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
            .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                      .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                      .module = shader,
                      .pName = "main"},
            .layout = layout},
        pipeline, vkDestroyPipeline);
    // A conversion may take as many descriptors as its image has planes.
    const std::array sizes{VkDescriptorPoolSize{VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER, 3 * 3},
                           VkDescriptorPoolSize{VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1}};
    VkDescriptorPool pool = VK_NULL_HANDLE;
    make(vkCreateDescriptorPool,
         VkDescriptorPoolCreateInfo{.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
                                    .maxSets = 1,
                                    .poolSizeCount = sizes.size(),
                                    .pPoolSizes = sizes.data()},
         pool, vkDestroyDescriptorPool);
    const VkDescriptorSetAllocateInfo allocate{.sType =
                                                   VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
                                               .descriptorPool = pool,
                                               .descriptorSetCount = 1,
                                               .pSetLayouts = &set_layout};
    VkDescriptorSet set = VK_NULL_HANDLE;
    EXPECT_EQ(vkAllocateDescriptorSets(device(), &allocate, &set), VK_SUCCESS);
    constexpr auto sampled = VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL;
    for (std::uint32_t i = 0; i < bindings.size(); ++i) {
        const VkDescriptorImageInfo image{.imageView = texture.views()[i < texture.parts() ? i : 0],
                                          .imageLayout = sampled};
        const VkDescriptorBufferInfo whole{read_back->buffer(), 0, VK_WHOLE_SIZE};
        const VkWriteDescriptorSet write{.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                         .dstSet = set,
                                         .dstBinding = i,
                                         .descriptorCount = 1,
                                         .descriptorType = bindings[i].descriptorType,
                                         .pImageInfo = &image,
                                         .pBufferInfo = &whole};
        vkUpdateDescriptorSets(device(), 1, &write, 0, nullptr);
    }
    run([&](VkCommandBuffer commands) {
        constexpr VkPipelineStageFlags compute = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT;
        Barriers before{
            .buffers = {read_back->acquire_barrier(Contents::discard, VK_ACCESS_SHADER_WRITE_BIT)}};
        Barriers after{.buffers = {read_back->release_barrier(VK_ACCESS_SHADER_WRITE_BIT)}};
        for (std::uint32_t part = 0; part < texture.parts(); ++part) {
            const VulkanImage& image = texture.image(part);
            before.images.push_back(
                image.acquire_barrier(Contents::keep, sampled, VK_ACCESS_SHADER_READ_BIT));
            after.images.push_back(image.release_barrier(sampled, VK_ACCESS_SHADER_READ_BIT));
        }
        barrier(commands, compute, compute, before);
        vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
        vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, layout, 0, 1, &set, 0,
                                nullptr);
        const std::uint32_t parts = texture.parts();
        vkCmdPushConstants(commands, layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof parts, &parts);
        vkCmdDispatch(commands, width, height, 1);
        barrier(commands, compute, end, after);
    });
    auto map = FrameMap::map(read_back->frame(), Access::read);
    EXPECT_TRUE(map) << map.error().message();
    auto access = FrameAccess::begin(*map, Access::read, deadline_in(test::gpu_patience));
    EXPECT_TRUE(access) << access.error().message();
    for (std::size_t y = 0; y < height; ++y)
        std::memcpy(&read[y * width], access->plane(0).row(y).data(), width * sizeof read[0]);
    return read;
}

TEST_F(VulkanTextureSystemTest, AShaderSeesTheColoursThatTheStandardsMean) {
    std::string as_one;
    for (const bool converts : {true, false}) {
        const VulkanDevice device = wrap(converts);
        for (const std::uint32_t format : {DRM_FORMAT_NV12, DRM_FORMAT_P010, DRM_FORMAT_YUYV})
            for (const Standard& standard : standards) {
                SCOPED_TRACE(format_name(format) + ", " + standard.name +
                             (converts ? ", converted" : ", in parts"));
                const Frame frame = picture(format, standard);
                const auto texture =
                    device.texture(frame, {.model = standard.model,
                                           .range = VK_SAMPLER_YCBCR_RANGE_ITU_NARROW,
                                           .chroma_filter = VK_FILTER_NEAREST});
                ASSERT_TRUE(texture) << texture.error().message();
                const bool whole = texture->conversion() != VK_NULL_HANDLE;
                EXPECT_EQ(texture->parts(), whole ? 1 : find_vulkan_format(format)->view_count);
                EXPECT_FALSE(whole && !converts);
                if (whole)
                    as_one += " " + std::string(find_format(format)->name);
                EXPECT_LE(worst(sample(*texture), standard, bits_of(format), whole), 2.0);
            }
    }
    // lavapipe lists one memory plane for every format and modifier, so that formats of several
    // come in parts there.
    std::cout << "converted as one image:" << as_one << '\n';
    EXPECT_NE(as_one.find(" YUYV YUYV"), std::string::npos) << "by each standard";
}

} // namespace
} // namespace sluice
