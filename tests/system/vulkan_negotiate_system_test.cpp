// SPDX-License-Identifier: MIT
// What is negotiated with a real driver is what it then takes.
#include <sluice/negotiate.hpp>

#include <array>
#include <memory>
#include <vector>

#include <drm_fourcc.h>

#include <sluice/dma_heap.hpp>
#include <sluice/dumb.hpp>
#include <sluice/frame_allocator.hpp>
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
    const std::array exporters{&*makes, &(*udmabuf)->caps()};
    const std::array importers{ImporterUse{.caps = &*takes, .uses = Uses::render | Uses::sample}};
    const auto choices = negotiate(exporters, importers,
                                   {.width = 33, .height = 7, .formats = {DRM_FORMAT_XRGB8888}});
    ASSERT_TRUE(choices) << choices.error().error.message();
    ASSERT_EQ(choices->size(), 2U);
    for (const FrameChoice& each : *choices)
        if (each.exporter == 0) {
            const auto image = gpu().export_image(
                {.width = each.spec.width,
                 .height = each.spec.height,
                 .format = each.spec.format,
                 .usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT | VK_IMAGE_USAGE_SAMPLED_BIT,
                 .modifiers = each.spec.modifiers});
            EXPECT_TRUE(image) << image.error().message();
        }
}

} // namespace
} // namespace sluice
