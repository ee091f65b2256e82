// SPDX-License-Identifier: MIT
#include <sluice/vulkan_image.hpp>

#include <array>
#include <string>
#include <vector>

#include <drm_fourcc.h>

#include <sluice/vulkan_format.hpp>

#include "support/fake_vulkan.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::FakeVulkan;
using Kinds = std::multiset<std::string>;

class VulkanAttachTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        libc_.memfds_are_dma_bufs();
    }

    VulkanDevice wrap() {
        auto device = VulkanDevice::wrap(driver_.application());
        EXPECT_TRUE(device) << device.error().message();
        return std::move(*device);
    }

    static DmaBuf buffer(std::uint64_t size) {
        return std::move(*DmaBuf::from_fd(test::memfd(size)));
    }
    static Frame xr24(std::uint64_t modifier = DRM_FORMAT_MOD_LINEAR, std::uint32_t planes = 0) {
        FrameLayout layout{.width = 64,
                           .height = 16,
                           .format = DRM_FORMAT_XRGB8888,
                           .modifier = modifier,
                           .plane_count = planes,
                           .planes = {FramePlane{.offset = 128, .stride = 320}}};
        if (planes == 2)
            layout.planes[1] = {.offset = 4096, .stride = 64};
        auto frame = Frame::create(layout, buffer(8192));
        EXPECT_TRUE(frame) << frame.error().message();
        return std::move(*frame);
    }
    static Frame nv12(bool disjoint, std::uint32_t width = 64) {
        std::array buffers{buffer(8192), buffer(8192)};
        const std::uint32_t second = disjoint ? 1 : 0;
        auto frame =
            Frame::create({.width = width,
                           .height = 16,
                           .format = DRM_FORMAT_NV12,
                           .planes = {FramePlane{.stride = 64},
                                      FramePlane{.offset = 1024, .stride = 64, .buffer = second}}},
                          std::span(buffers).first(1 + second));
        EXPECT_TRUE(frame) << frame.error().message();
        return std::move(*frame);
    }

    static void expect_refused(const Result<VulkanImage>& result, Errc code,
                               const std::vector<std::string>& words) {
        ASSERT_FALSE(result);
        EXPECT_EQ(to_string(result.error().code), to_string(code)) << result.error().message();
        for (const std::string& word : words)
            EXPECT_NE(result.error().message().find(word), std::string::npos)
                << word << " in " << result.error().message();
        EXPECT_EQ(result.error().operation, "VulkanDevice::attach");
        EXPECT_FALSE(result.error().remedy.empty());
    }

    static constexpr VulkanAttachInfo sampled{.usage = VK_IMAGE_USAGE_SAMPLED_BIT};
    test::ScriptedLibc libc_;
    FakeVulkan driver_;
};

TEST_F(VulkanAttachTest, ImportsTheFrameAsItLies) {
    const VulkanDevice device = wrap();
    const Frame frame = xr24();
    {
        auto image = device.attach(frame, sampled);
        ASSERT_TRUE(image) << image.error().message();
        EXPECT_EQ(image->format(), VK_FORMAT_B8G8R8A8_UNORM);
        EXPECT_EQ(image->frame(), frame);
        ASSERT_EQ(driver_.images.size(), 1U);
        const auto& request = driver_.images[0];
        EXPECT_EQ(request.handle_types,
                  VkExternalMemoryHandleTypeFlags{VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT});
        EXPECT_EQ(request.modifiers, std::vector<std::uint64_t>{DRM_FORMAT_MOD_LINEAR});
        ASSERT_EQ(request.planes.size(), 1U);
        EXPECT_EQ(request.planes[0].offset, 128U);
        EXPECT_EQ(request.planes[0].rowPitch, 320U);
        EXPECT_EQ(request.info.extent.width, 64U);
        EXPECT_EQ(request.info.usage, VkImageUsageFlags{VK_IMAGE_USAGE_SAMPLED_BIT});
        EXPECT_EQ(request.info.flags, 0U);
        ASSERT_EQ(driver_.allocations.size(), 1U);
        EXPECT_EQ(driver_.allocations[0].imported, test::inode_of(frame.buffer().fd()));
    }
    EXPECT_EQ(driver_.living(), (Kinds{"image", "memory"})) << "for as long as the frame";
}

TEST_F(VulkanAttachTest, TakesAMemoryTypeThatIsRightForTheImageAndTheBuffer) {
    const VulkanDevice device = wrap();
    driver_.memory_type_bits = 0b11;
    driver_.fd_memory_type_bits = 0b01;
    auto image = device.attach(xr24(), sampled);
    ASSERT_TRUE(image);
    EXPECT_EQ(driver_.allocations.back().memory_type, 0U);
    driver_.memory_type_bits = 0b10;
    expect_refused(device.attach(xr24(), sampled), Errc::unsupported,
                   {"no memory type is right for both"});
}

TEST_F(VulkanAttachTest, GivesMemoryOfItsOwnWhereTheDriverWantsThat) {
    const VulkanDevice device = wrap();
    for (const bool dedicated : {false, true}) {
        driver_.requires_dedicated = dedicated;
        auto image = device.attach(xr24(), sampled);
        ASSERT_TRUE(image);
        EXPECT_EQ(driver_.allocations.back().dedicated, dedicated);
    }
}

TEST_F(VulkanAttachTest, SaysHowManyBytesTheDriverWants) {
    const VulkanDevice device = wrap();
    driver_.memory_size = 8193;
    expect_refused(device.attach(xr24(), sampled), Errc::out_of_bounds,
                   {"needs 8193 bytes", "holds 8192", "Allocate 1 bytes more"});
    EXPECT_TRUE(driver_.allocations.empty()) << "the driver does not see it";
}

TEST_F(VulkanAttachTest, PassesAModifiersPlanes) {
    auto& modifiers = driver_.devices[0].modifiers;
    modifiers.push_back({.drmFormatModifier = I915_FORMAT_MOD_Y_TILED_CCS,
                         .drmFormatModifierPlaneCount = 2,
                         .drmFormatModifierTilingFeatures = ~VkFormatFeatureFlags{0}});
    const VulkanDevice device = wrap();
    auto image = device.attach(xr24(I915_FORMAT_MOD_Y_TILED_CCS, 2), sampled);
    ASSERT_TRUE(image) << image.error().message();
    EXPECT_EQ(driver_.images[0].modifiers, std::vector<std::uint64_t>{I915_FORMAT_MOD_Y_TILED_CCS});
    ASSERT_EQ(driver_.images[0].planes.size(), 2U);
    EXPECT_EQ(driver_.images[0].planes[1].offset, 4096U);
    expect_refused(device.attach(xr24(I915_FORMAT_MOD_Y_TILED_CCS, 1), sampled), Errc::unsupported,
                   {"the frame has 1 memory planes", "has 2 on this driver"});
}

TEST_F(VulkanAttachTest, RefusesWhatTheDriverDoesNotListAndSaysWhatItDoes) {
    expect_refused(wrap().attach(xr24(I915_FORMAT_MOD_X_TILED), sampled), Errc::unsupported,
                   {"does not take modifier INTEL 0x100000000000001", "it takes LINEAR"});
    driver_.devices[0].modifiers[0].drmFormatModifierTilingFeatures =
        VK_FORMAT_FEATURE_TRANSFER_SRC_BIT;
    expect_refused(wrap().attach(xr24(), sampled), Errc::unsupported, {"LINEAR lacks SAMPLED"});
    driver_.devices[0].modifiers.clear();
    expect_refused(wrap().attach(xr24(), sampled), Errc::unsupported, {"it takes none"});
    EXPECT_TRUE(driver_.images.empty());
}

TEST_F(VulkanAttachTest, RefusesWhatVulkanCannotMean) {
    const VulkanDevice device = wrap();
    expect_refused(device.attach(xr24(), {}), Errc::invalid_argument, {"it has no usage"});
    expect_refused(device.attach(xr24(), {.usage = VK_IMAGE_USAGE_SAMPLED_BIT, .view = 1}),
                   Errc::invalid_argument, {"no view 1, the format has 1"});
    expect_refused(device.attach(xr24(DRM_FORMAT_MOD_INVALID), sampled), Errc::unsupported,
                   {"INVALID"});
    driver_.devices[0].max_extent = {63, 16};
    expect_refused(wrap().attach(xr24(), sampled), Errc::unsupported, {"limit is 63x16"});
    driver_.devices[0].max_extent = {64, 15};
    expect_refused(wrap().attach(xr24(), sampled), Errc::unsupported, {"limit is 64x15"});
    driver_.devices[0].max_extent = {64, 16};
    driver_.devices[0].formats.clear();
    expect_refused(wrap().attach(xr24(), sampled), Errc::unsupported, {"no such image"});
    driver_.devices[0].formats = {VK_FORMAT_B8G8R8A8_UNORM};
    driver_.devices[0].memory_features = VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT;
    expect_refused(wrap().attach(xr24(), sampled), Errc::unsupported, {"does not import"});
    EXPECT_TRUE(driver_.images.empty());
}

TEST_F(VulkanAttachTest, PlanesInTwoBuffersAreBoundOneByOne) {
    driver_.devices[0].modifiers[0].drmFormatModifierPlaneCount = 2;
    driver_.requires_dedicated = true; // which disjoint planes cannot have
    driver_.memory_size = 4096;
    const VulkanDevice device = wrap();
    const Frame frame = nv12(true);
    auto image = device.attach(frame, sampled);
    ASSERT_TRUE(image) << image.error().message();
    EXPECT_EQ(image->format(), VK_FORMAT_G8_B8R8_2PLANE_420_UNORM);
    EXPECT_EQ(driver_.images[0].info.flags, VkImageCreateFlags{VK_IMAGE_CREATE_DISJOINT_BIT});
    ASSERT_EQ(driver_.allocations.size(), 2U);
    EXPECT_EQ(driver_.allocations[0].imported, test::inode_of(frame.buffer(0).fd()));
    EXPECT_EQ(driver_.allocations[1].imported, test::inode_of(frame.buffer(1).fd()));
    EXPECT_FALSE(driver_.allocations[0].dedicated);

    auto together = device.attach(nv12(false), sampled);
    ASSERT_TRUE(together) << together.error().message();
    EXPECT_EQ(driver_.allocations.size(), 3U);

    driver_.devices[0].modifiers[0].drmFormatModifierTilingFeatures &=
        ~VkFormatFeatureFlags{VK_FORMAT_FEATURE_DISJOINT_BIT};
    expect_refused(wrap().attach(frame, sampled), Errc::unsupported, {"several buffers"});
}

TEST_F(VulkanAttachTest, APlaneCanBeAnImageOfItsOwn) {
    const VulkanDevice device = wrap();
    const Frame frame = nv12(true, 63);
    expect_refused(device.attach(frame, sampled), Errc::unsupported,
                   {"no multiple of 2x2", "view"});
    for (const std::uint32_t view : {0U, 1U}) {
        auto image = device.attach(frame, {.usage = VK_IMAGE_USAGE_SAMPLED_BIT, .view = view});
        ASSERT_TRUE(image) << image.error().message();
        EXPECT_EQ(image->format(), view == 0 ? VK_FORMAT_R8_UNORM : VK_FORMAT_R8G8_UNORM);
        const auto& request = driver_.images.back();
        EXPECT_EQ(request.info.extent.width, view == 0 ? 63U : 32U);
        EXPECT_EQ(request.info.extent.height, view == 0 ? 16U : 8U);
        ASSERT_EQ(request.planes.size(), 1U);
        EXPECT_EQ(request.planes[0].offset, view == 0 ? 0U : 1024U);
        EXPECT_EQ(driver_.allocations.back().imported, test::inode_of(frame.buffer(view).fd()));
    }
}

TEST_F(VulkanAttachTest, HasSrgbViewsWhereTheyAreAskedFor) {
    const VulkanDevice device = wrap();
    const Frame frame = xr24();
    const VulkanAttachInfo with{.usage = VK_IMAGE_USAGE_SAMPLED_BIT, .srgb_views = true};
    const auto plain = device.attach(frame, sampled);
    const auto both = device.attach(frame, with);
    ASSERT_TRUE(plain && both);
    ASSERT_NE(plain->image(), both->image()) << "another image, which others may be slower with";
    EXPECT_EQ(device.attach(frame, with)->image(), both->image());
    EXPECT_EQ(driver_.images.front().info.flags, 0U);
    EXPECT_EQ(driver_.images.back().info.flags,
              VkImageCreateFlags{VK_IMAGE_CREATE_MUTABLE_FORMAT_BIT});
    EXPECT_EQ(driver_.images.back().view_formats,
              (std::vector{VK_FORMAT_B8G8R8A8_UNORM, VK_FORMAT_B8G8R8A8_SRGB}));
    EXPECT_EQ(driver_.images.back().planes[0].offset, 128U);
    EXPECT_TRUE(both->view(VulkanCurve::srgb));
    EXPECT_EQ(driver_.views.back().info.format, VK_FORMAT_B8G8R8A8_SRGB);
    EXPECT_FALSE(plain->view(VulkanCurve::srgb));

    expect_refused(
        device.attach(frame, {.usage = VK_IMAGE_USAGE_TRANSFER_SRC_BIT, .srgb_views = true}),
        Errc::invalid_argument, {"no use for an sRGB view"});
    expect_refused(
        device.attach(frame, {.usage = VK_IMAGE_USAGE_SAMPLED_BIT, .view = 0, .srgb_views = true}),
        Errc::invalid_argument, {"a part of a frame has no sRGB views"});
    expect_refused(device.attach(nv12(false), with), Errc::unsupported, {"no sRGB format"});
    driver_.devices[0].modifiers_of[VK_FORMAT_B8G8R8A8_SRGB] = {};
    expect_refused(wrap().attach(frame, with), Errc::unsupported,
                   {"no such image with sRGB views"});
}

TEST_F(VulkanAttachTest, APartOfATiledFrameMeansNothingByItself) {
    driver_.devices[0].modifiers.push_back(
        {.drmFormatModifier = I915_FORMAT_MOD_Y_TILED,
         .drmFormatModifierPlaneCount = 1,
         .drmFormatModifierTilingFeatures = ~VkFormatFeatureFlags{0}});
    const VulkanDevice device = wrap();
    const auto tiled = [](std::uint32_t format) {
        auto made = Frame::create({.width = 64,
                                   .height = 16,
                                   .format = format,
                                   .modifier = I915_FORMAT_MOD_Y_TILED,
                                   .planes = {FramePlane{.stride = 512}}},
                                  buffer(8192));
        EXPECT_TRUE(made) << made.error().message();
        return std::move(*made);
    };
    // Texels of another size than the image's, of which each tile has others.
    for (const std::uint32_t view : {0U, 1U})
        expect_refused(device.attach(tiled(DRM_FORMAT_YUYV),
                                     {.usage = VK_IMAGE_USAGE_SAMPLED_BIT, .view = view}),
                       Errc::unsupported, {"INTEL 0x100000000000002", "size", "LINEAR"});
    // One view, but not in the image's format.
    expect_refused(device.attach(tiled(DRM_FORMAT_AXBXGXRX106106106106),
                                 {.usage = VK_IMAGE_USAGE_SAMPLED_BIT, .view = 0}),
                   Errc::unsupported, {"INTEL 0x100000000000002"});
    EXPECT_TRUE(driver_.images.empty());
    EXPECT_TRUE(
        device.attach(tiled(DRM_FORMAT_XRGB8888), {.usage = VK_IMAGE_USAGE_SAMPLED_BIT, .view = 0}))
        << "the frame itself";
}

TEST_F(VulkanAttachTest, LeaksNothingWhereACallFails) {
    driver_.devices[0].modifiers[0].drmFormatModifierPlaneCount = 2;
    driver_.memory_size = 4096;
    const Frame frame = nv12(true);
    for (const bool closes : {false, true})
        for (const bool nonsense : {false, true})
            for (const auto& [function, nth] :
                 {std::pair("vkCreateImage", 1), std::pair("vkGetMemoryFdPropertiesKHR", 1),
                  std::pair("vkGetMemoryFdPropertiesKHR", 2), std::pair("vkAllocateMemory", 1),
                  std::pair("vkAllocateMemory", 2), std::pair("vkBindImageMemory2", 1),
                  std::pair("vkGetPhysicalDeviceImageFormatProperties2", 1)})
                for (const auto& [result, code] :
                     {std::pair(VK_ERROR_OUT_OF_DEVICE_MEMORY, Errc::no_resources),
                      std::pair(VK_ERROR_OUT_OF_HOST_MEMORY, Errc::no_resources)}) {
                    SCOPED_TRACE(std::string(function) + " number " + std::to_string(nth));
                    driver_.failed_import_closes = closes;
                    driver_.failures_leave_nonsense = nonsense;
                    driver_.fail(function, result, nth);
                    const VulkanDevice device = wrap(); // it has asked for nothing yet
                    expect_refused(device.attach(frame, sampled), code, {"Fake GPU"});
                    EXPECT_EQ(driver_.living(), Kinds{});
                    EXPECT_TRUE(device.attach(frame, sampled));
                }
    const VulkanDevice device = wrap();
    driver_.fail("vkAllocateMemory", VK_ERROR_INVALID_EXTERNAL_HANDLE);
    expect_refused(device.attach(frame, sampled), Errc::wrong_object,
                   {"did not import buffer ino"});
    driver_.fail("vkCreateImage", VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT);
    expect_refused(device.attach(frame, sampled), Errc::unsupported, {"vkCreateImage failed"});
}

TEST_F(VulkanAttachTest, ARevokedFrameIsRefused) {
    const VulkanDevice device = wrap();
    const Frame frame = xr24();
    libc_.ppoll = [](pollfd* fds, nfds_t, const timespec*) {
        fds->revents = fds->events;
        return 1;
    };
    ASSERT_TRUE(frame.revoke(deadline_in(0s)));
    expect_refused(device.attach(frame, sampled), Errc::revoked, {"taken the frame back"});
    EXPECT_TRUE(driver_.images.empty());
}

} // namespace
} // namespace sluice
