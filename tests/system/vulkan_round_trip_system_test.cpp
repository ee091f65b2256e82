// SPDX-License-Identifier: MIT
// Every exporter's frames of every format that a real driver takes: the CPU's bytes through the GPU
// and back, however the planes lie.
#include <sluice/vulkan_image.hpp>

#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

#include <drm_fourcc.h>

#include <sluice/dma_heap.hpp>
#include <sluice/dumb.hpp>
#include <sluice/format.hpp>
#include <sluice/udmabuf.hpp>
#include <sluice/vulkan_format.hpp>
#ifdef SLUICE_TESTS_GBM
#include <sluice/gbm.hpp>
#endif

#include "support/drm_cards.hpp"
#include "support/gpu_test.hpp"

namespace sluice {
namespace {

constexpr auto source = VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL;
constexpr auto target = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL;
/// lavapipe reads up to the next multiple of four rows.
constexpr std::uint32_t spare_rows = 4;

class VulkanRoundTripSystemTest : public test::GpuTest,
                                  public ::testing::WithParamInterface<const char*> {
protected:
    static Result<std::shared_ptr<const Exporter>> exporter() {
        const std::string name = GetParam();
        if (name == "udmabuf")
            return UdmabufExporter::open();
        if (name == "heap")
            return DmaHeapExporter::open();
#ifdef SLUICE_TESTS_GBM
        if (name.starts_with("gbm_"))
            return GbmExporter::wrap(test::open_drm(name.substr(4)).get());
#endif
        return DumbExporter::wrap(test::open_drm(name).get());
    }

    /// As the exporter lays it out.
    static Result<Frame> allocate(const Exporter& maker, std::uint32_t format, VkExtent2D size) {
        return maker.allocate_frame({.width = size.width,
                                     .height = size.height,
                                     .format = format,
                                     .height_alignment = spare_rows});
    }
    /// Every plane in a buffer of its own, not at its start, with room between the rows.
    static Result<Frame> scatter(const Exporter& maker, std::uint32_t format, VkExtent2D size) {
        const FormatInfo& info = *find_format(format);
        FrameLayout layout{.width = size.width, .height = size.height, .format = format};
        std::vector<DmaBuf> buffers;
        for (std::uint32_t i = 0; i < info.plane_count; ++i) {
            const auto row = static_cast<std::uint32_t>(info.planes[i].row_bytes(size.width));
            const std::uint32_t stride = (row + 63) / 64 * 64 + 192;
            const std::uint64_t rows = info.planes[i].rows(size.height) + spare_rows;
            layout.planes[i] = {.offset = 4096, .stride = stride, .buffer = i};
            auto buffer = maker.allocate({.size = 4096 + rows * stride});
            if (!buffer)
                return tl::unexpected(buffer.error());
            buffers.push_back(std::move(*buffer));
        }
        return Frame::create(layout, buffers);
    }

    /// Whether the driver takes every part of \p format.
    [[nodiscard]] bool takes(const VulkanFormatInfo& format) const {
        for (std::uint32_t part = 0; part < format.view_count; ++part) {
            const auto caps = gpu().support(
                format.fourcc, VK_IMAGE_USAGE_TRANSFER_SRC_BIT | VK_IMAGE_USAGE_TRANSFER_DST_BIT,
                part);
            EXPECT_TRUE(caps) << caps.error().message();
            const auto linear = std::ranges::find(caps->modifiers, DRM_FORMAT_MOD_LINEAR,
                                                  &VulkanModifierCaps::modifier);
            if (linear == caps->modifiers.end() || !linear->importable)
                return false;
        }
        return true;
    }

    /// Has the GPU copy all parts of \p from into \p to.
    void copy(const Frame& from, const Frame& to) const {
        const VulkanFormatInfo& format = *find_vulkan_format(from.layout().format);
        std::vector<VulkanImage> sources;
        std::vector<VulkanImage> targets;
        for (std::uint32_t part = 0; part < format.view_count; ++part) {
            auto read =
                gpu().attach(from, {.usage = VK_IMAGE_USAGE_TRANSFER_SRC_BIT, .view = part});
            auto written =
                gpu().attach(to, {.usage = VK_IMAGE_USAGE_TRANSFER_DST_BIT, .view = part});
            ASSERT_TRUE(read) << read.error().message();
            ASSERT_TRUE(written) << written.error().message();
            sources.push_back(std::move(*read));
            targets.push_back(std::move(*written));
        }
        run([&](VkCommandBuffer commands) {
            Barriers acquire;
            Barriers release;
            for (std::size_t i = 0; i < sources.size(); ++i) {
                acquire.images.push_back(sources[i].acquire_barrier(Contents::keep, source,
                                                                    VK_ACCESS_TRANSFER_READ_BIT));
                acquire.images.push_back(targets[i].acquire_barrier(Contents::discard, target,
                                                                    VK_ACCESS_TRANSFER_WRITE_BIT));
                release.images.push_back(
                    sources[i].release_barrier(source, VK_ACCESS_TRANSFER_READ_BIT));
                release.images.push_back(
                    targets[i].release_barrier(target, VK_ACCESS_TRANSFER_WRITE_BIT));
            }
            barrier(commands, copying, copying, acquire);
            for (std::uint32_t part = 0; part < format.view_count; ++part) {
                const VulkanPlaneView& view = format.views[part];
                const VkImageSubresourceLayers all{VK_IMAGE_ASPECT_COLOR_BIT, 0, 0, 1};
                const VkImageCopy texels{
                    .srcSubresource = all,
                    .dstSubresource = all,
                    .extent = {(from.layout().width + view.texel_width - 1) / view.texel_width,
                               (from.layout().height + view.texel_height - 1) / view.texel_height,
                               1}};
                vkCmdCopyImage(commands, sources[part].image(), source, targets[part].image(),
                               target, 1, &texels);
            }
            barrier(commands, copying, end, release);
        });
    }

    /// \returns whether the exporter makes such frames.
    template <typename Make> bool goes_round(Make make) const {
        const Result<Frame> from = make();
        if (!from && from.error().code == Errc::unsupported)
            return false;
        const Result<Frame> to = make();
        EXPECT_TRUE(from) << from.error().message();
        EXPECT_TRUE(to) << to.error().message();
        if (!from || !to)
            return false;
        test::fill(*from);
        EXPECT_GT(test::wrong_bytes(*to), 0U);
        copy(*from, *to);
        EXPECT_EQ(test::wrong_bytes(*to), 0U);
        EXPECT_EQ(test::wrong_bytes(*from), 0U) << "the source is as it was";
        return true;
    }
};

constexpr const char* exporters[] = {"udmabuf",  "heap",    "vkms", "vgem",
#ifdef SLUICE_TESTS_GBM
                                     "gbm_vkms", "gbm_vgem"
#endif
};
INSTANTIATE_TEST_SUITE_P(All, VulkanRoundTripSystemTest, ::testing::ValuesIn(exporters),
                         [](const auto& each) { return std::string(each.param); });

TEST_P(VulkanRoundTripSystemTest, EveryFormatGoesFromTheCpuThroughTheGpuAndBackByteForByte) {
    const auto made = exporter();
    SLUICE_REQUIRES(made, made.error().message());
    const Exporter& maker = **made;
    std::string copied;
    std::size_t round_trips = 0;
    for (const VulkanFormatInfo& format : vulkan_formats()) {
        if (!takes(format))
            continue;
        SCOPED_TRACE(format_name(format.fourcc));
        bool any = false;
        for (const VkExtent2D size : {VkExtent2D{64, 16}, VkExtent2D{33, 7}, VkExtent2D{1, 1}}) {
            const bool as_it_is = goes_round([&] { return allocate(maker, format.fourcc, size); });
            const bool scattered = maker.caps().gives_bytes &&
                                   goes_round([&] { return scatter(maker, format.fourcc, size); });
            round_trips += (as_it_is ? 1U : 0U) + (scattered ? 1U : 0U);
            any = any || as_it_is || scattered;
        }
        if (any)
            copied += " " + std::string(find_format(format.fourcc)->name);
    }
    std::cout << maker.caps().name << ": " << round_trips << " round trips of" << copied << '\n';
    EXPECT_NE((copied + " ").find(" XR24 "), std::string::npos);
    if (maker.caps().gives_bytes) {
        EXPECT_NE((copied + " ").find(" NV12 "), std::string::npos);
    }
}

} // namespace
} // namespace sluice
