// SPDX-License-Identifier: MIT
// What is negotiated with a real driver is what it then takes.
#include <sluice/negotiate.hpp>

#include <array>
#include <iostream>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <drm_fourcc.h>

#include <sluice/dma_heap.hpp>
#include <sluice/dumb.hpp>
#include <sluice/frame_allocator.hpp>
#include <sluice/frame_map.hpp>
#include <sluice/kms_device.hpp>
#include <sluice/kms_output.hpp>
#include <sluice/udmabuf.hpp>
#include <sluice/vulkan_format.hpp>
#include <sluice/vulkan_texture.hpp>

#include "support/drm_cards.hpp"
#include "support/gpu_test.hpp"

namespace sluice {
namespace {

class VulkanNegotiateSystemTest : public test::GpuTest {};

TEST_F(VulkanNegotiateSystemTest, EveryFormatThatItAgreesToIsAttached) {
    auto udmabuf = UdmabufExporter::open();
    auto heap = DmaHeapExporter::open();
    auto dumb = DumbExporter::wrap(test::open_drm("vkms").get());
    SLUICE_REQUIRES(udmabuf && heap && dumb, "no exporters here");
    const FrameAllocator allocator({*udmabuf, *heap, *dumb});
    const auto caps = gpu().importer_caps();
    ASSERT_TRUE(caps) << caps.error().message();
    const ImporterCaps cpu = cpu_caps();
    const std::array importers{ImporterUse{.caps = &cpu, .uses = Uses::cpu_write},
                               ImporterUse{.caps = &*caps, .uses = Uses::sample | Uses::copy_from}};
    int attached = 0;
    for (const VulkanFormatInfo& format : vulkan_formats()) {
        SCOPED_TRACE(format_name(format.fourcc));
        // A size at which the driver wants more rows than there are.
        auto made =
            allocator.allocate(importers, {.width = 33, .height = 7, .formats = {format.fourcc}});
        const auto taken = gpu().support(format.fourcc, VK_IMAGE_USAGE_SAMPLED_BIT, 0);
        ASSERT_TRUE(taken);
        if (!made) {
            EXPECT_EQ(to_string(made.error().code), to_string(Errc::unsupported))
                << made.error().message();
            EXPECT_NE(made.error().message().find(caps->name), std::string::npos)
                << made.error().message();
            continue;
        }
        auto texture = gpu().texture(
            made->frame, {.usage = VK_IMAGE_USAGE_SAMPLED_BIT | VK_IMAGE_USAGE_TRANSFER_SRC_BIT});
        EXPECT_TRUE(texture) << texture.error().message();
        ++attached;
    }
    EXPECT_GT(attached, 50);
}

TEST_F(VulkanNegotiateSystemTest, TheGpusOwnFramesAreAChoiceToo) {
    auto udmabuf = UdmabufExporter::open();
    SLUICE_REQUIRES(udmabuf, udmabuf.error().message());
    const auto makes = gpu().exporter_caps();
    const auto takes = gpu().importer_caps();
    ASSERT_TRUE(makes && takes);
    EXPECT_TRUE(takes->maps) << "lavapipe is software";
    EXPECT_TRUE(makes->cpu_mappable) << "and exports udmabufs";
    const std::array exporters{&*makes, &(*udmabuf)->caps()};
    const std::array importers{ImporterUse{.caps = &*takes, .uses = Uses::render | Uses::sample}};
    const auto choices = negotiate(exporters, importers,
                                   {.width = 33, .height = 7, .formats = {DRM_FORMAT_XRGB8888}});
    ASSERT_TRUE(choices) << choices.error().error.message();
    ASSERT_EQ(choices->size(), 2U);
    for (const FrameChoice& each : *choices)
        if (each.exporter == 0) {
            const auto image = gpu().export_image(each.spec, VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT |
                                                                 VK_IMAGE_USAGE_SAMPLED_BIT);
            EXPECT_TRUE(image) << image.error().message();
        }
}

TEST_F(VulkanNegotiateSystemTest, TheDriverTakesABufferOfJustTheBytesThatItSaidItNeeds) {
    auto udmabuf = UdmabufExporter::open();
    SLUICE_REQUIRES(udmabuf, udmabuf.error().message());
    const auto takes = gpu().importer_caps();
    ASSERT_TRUE(takes) << takes.error().message();
    std::cout << takes->name << ": rows in multiples of " << takes->height_alignment << ", "
              << takes->slack << " bytes more, all in multiples of " << takes->size_alignment
              << '\n';
    const FrameAllocator allocator({*udmabuf});
    const std::array importers{ImporterUse{.caps = &*takes, .uses = Uses::sample}};
    // Sizes that are whole pages before anything is behind the rows, and chroma with rows of its
    // own: 9 have 5 of it.
    for (const std::uint32_t format : {DRM_FORMAT_XRGB8888, DRM_FORMAT_R8, DRM_FORMAT_NV12})
        for (const auto& [width, height] : {std::pair(1920U, 1080U), std::pair(1024U, 1U),
                                            std::pair(1024U, 13U), std::pair(4096U, 9U)}) {
            SCOPED_TRACE(std::to_string(width) + "x" + std::to_string(height) + " " +
                         format_name(format));
            auto made = allocator.allocate(importers,
                                           {.width = width, .height = height, .formats = {format}});
            ASSERT_TRUE(made) << made.error().message();
            auto texture = gpu().texture(made->frame, {.usage = VK_IMAGE_USAGE_SAMPLED_BIT});
            EXPECT_TRUE(texture) << texture.error().message();
        }
}

/// Each card with a display, beside the GPU and the CPU.
TEST_F(VulkanNegotiateSystemTest, WhatIsChosenForAScreenIsTakenByEverybody) {
    auto udmabuf = UdmabufExporter::open();
    SLUICE_REQUIRES(udmabuf, udmabuf.error().message());
    const auto sample = (*udmabuf)->allocate({.size = 1 << 20});
    ASSERT_TRUE(sample) << sample.error().message();
    const auto makes = gpu().exporter_caps();
    const auto takes = gpu().importer_caps();
    ASSERT_TRUE(makes && takes);
    const std::array exporters{&*makes, &(*udmabuf)->caps()};
    const ImporterCaps cpu = cpu_caps();
    std::set<std::string> agreed, refused;
    for (const KmsCard& found : kms_cards()) {
        SCOPED_TRACE(found.driver);
        auto card = KmsDevice::open(found.path);
        auto output = card ? card->find_output({}) : tl::unexpected(card.error());
        if (!output) { // vgem has no display
            std::cout << found.driver << ": " << output.error().message() << '\n';
            continue;
        }
        ImporterCaps screen = output->caps();
        const auto imports = card->imports(*sample);
        ASSERT_TRUE(imports) << imports.error().message();
        screen.foreign = *imports;
        const std::array importers{
            ImporterUse{.caps = &screen, .uses = Uses::scan_out},
            ImporterUse{.caps = &*takes, .uses = Uses::render | Uses::sample},
            ImporterUse{.caps = &cpu, .uses = Uses::cpu_read | Uses::cpu_write}};
        const auto choices = negotiate(exporters, importers,
                                       {.width = output->width(),
                                        .height = output->height(),
                                        .formats = {DRM_FORMAT_XRGB8888},
                                        .zeroed = true});
        const auto image_of = [&](const FrameSpec& spec) {
            return gpu().export_image(spec, VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT |
                                                VK_IMAGE_USAGE_SAMPLED_BIT);
        };
        if (!choices) {
            const Error& error = choices.error().error;
            std::cout << found.driver << ": " << error.message() << '\n';
            EXPECT_NE(error.message().find(screen.name + " takes only buffers of its own device"),
                      std::string::npos)
                << error.message();
            EXPECT_EQ(choices.error().conflicts[0].importer, 0U);
            // As the card says itself.
            auto image = image_of({.width = output->width(),
                                   .height = output->height(),
                                   .format = DRM_FORMAT_XRGB8888});
            ASSERT_TRUE(image) << image.error().message();
            EXPECT_FALSE(card->attach(image->frame()));
            refused.insert(found.driver);
            continue;
        }
        std::set<std::size_t> makers;
        for (const FrameChoice& choice : *choices) {
            SCOPED_TRACE(choice.why);
            makers.insert(choice.exporter);
            EXPECT_EQ(choice.clear, choice.exporter == 0) << "only udmabuf promises zeros";
            std::cout << found.driver << ": " << choice.why << "; " << to_string(choice.coherency)
                      << ", " << choice.coherency_why << '\n';
            const auto image = choice.exporter == 0 ? std::optional(image_of(choice.spec))
                                                    : std::optional<Result<VulkanImage>>();
            ASSERT_TRUE(!image || *image) << image->error().message();
            auto frame =
                image ? Result<Frame>((*image)->frame()) : (*udmabuf)->allocate_frame(choice.spec);
            ASSERT_TRUE(frame) << frame.error().message();
            auto framebuffer = card->attach(*frame);
            ASSERT_TRUE(framebuffer) << framebuffer.error().message();
            const auto shown = output->test({.framebuffer = &*framebuffer});
            EXPECT_TRUE(shown) << shown.error().message();
            auto texture = gpu().texture(*frame, {.usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT |
                                                           VK_IMAGE_USAGE_SAMPLED_BIT});
            EXPECT_TRUE(texture) << texture.error().message();
            test::fill(*frame);
            EXPECT_EQ(test::wrong_bytes(*frame), 0U);
        }
        EXPECT_EQ(makers, (std::set<std::size_t>{0, 1}));
        agreed.insert(found.driver);
    }
    SLUICE_REQUIRES(!agreed.empty() || !refused.empty(), "no card with a display");
    EXPECT_TRUE(!refused.contains("vkms") && !refused.contains("cirrus"));
    EXPECT_FALSE(agreed.contains("virtio_gpu")) << "it imports nobody's buffers";
}

} // namespace
} // namespace sluice
