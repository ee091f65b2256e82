// SPDX-License-Identifier: MIT
#include <sluice/vulkan_image.hpp>

#include <array>
#include <utility>

#include "vulkan/vulkan_device_state.hpp"
#include "vulkan/vulkan_error.hpp"
#include "vulkan/vulkan_image_state.hpp"
#include <sluice/vulkan_format.hpp>

namespace sluice {

namespace {

VkImageMemoryBarrier barrier(VkImage image) noexcept {
    return VkImageMemoryBarrier{.sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER,
                                .pNext = nullptr,
                                .srcAccessMask = 0,
                                .dstAccessMask = 0,
                                .oldLayout = VK_IMAGE_LAYOUT_GENERAL,
                                .newLayout = VK_IMAGE_LAYOUT_GENERAL,
                                .srcQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
                                .dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
                                .image = image,
                                .subresourceRange = {.aspectMask = VK_IMAGE_ASPECT_COLOR_BIT,
                                                     .baseMipLevel = 0,
                                                     .levelCount = 1,
                                                     .baseArrayLayer = 0,
                                                     .layerCount = 1}};
}

/// The same without stages and access, for the larger masks of synchronization2.
VkImageMemoryBarrier2 in_stages(const VkImageMemoryBarrier& from) noexcept {
    return VkImageMemoryBarrier2{.sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER_2,
                                 .pNext = nullptr,
                                 .srcStageMask = VK_PIPELINE_STAGE_2_NONE,
                                 .srcAccessMask = VK_ACCESS_2_NONE,
                                 .dstStageMask = VK_PIPELINE_STAGE_2_NONE,
                                 .dstAccessMask = VK_ACCESS_2_NONE,
                                 .oldLayout = from.oldLayout,
                                 .newLayout = from.newLayout,
                                 .srcQueueFamilyIndex = from.srcQueueFamilyIndex,
                                 .dstQueueFamilyIndex = from.dstQueueFamilyIndex,
                                 .image = from.image,
                                 .subresourceRange = from.subresourceRange};
}

constexpr bool is_identity(const VkComponentMapping& components) noexcept {
    return components.r == VK_COMPONENT_SWIZZLE_IDENTITY &&
           components.g == VK_COMPONENT_SWIZZLE_IDENTITY &&
           components.b == VK_COMPONENT_SWIZZLE_IDENTITY &&
           components.a == VK_COMPONENT_SWIZZLE_IDENTITY;
}

struct ViewOrder {
    VkSamplerYcbcrConversion conversion = VK_NULL_HANDLE;
    VulkanCurve curve = VulkanCurve::none;
    bool swizzled = false;
};

/// The view, made now where there is none like it.
Result<VkImageView> view_of(const VulkanImage::State& of, const ViewOrder& order,
                            const char* operation) {
    const VulkanDriver& driver = *of.image.device;
    const auto object = [&] { return describe(of.frame.layout()) + " on " + driver.name; };
    const bool srgb = order.curve == VulkanCurve::srgb;
    if (srgb && of.viewing.srgb == VK_FORMAT_UNDEFINED)
        return tl::unexpected(Error{.code = Errc::invalid_argument,
                                    .operation = operation,
                                    .object = object(),
                                    .problem = "it has no sRGB views",
                                    .remedy = "Ask for them where the image is made: "
                                              "VulkanAttachInfo::srgb_views, "
                                              "VulkanImageInfo::srgb_views"});
    const VkFormat format = srgb ? of.viewing.srgb : of.viewing.format;
    const bool swizzled = order.swizzled && !is_identity(of.viewing.components);
    const std::scoped_lock held(of.lock);
    for (const VulkanImageHandles::View& each : of.image.views)
        if (each.conversion == order.conversion && each.format == format &&
            each.swizzled == swizzled)
            return each.view;
    const VkSamplerYcbcrConversionInfo converted{
        .sType = VK_STRUCTURE_TYPE_SAMPLER_YCBCR_CONVERSION_INFO,
        .pNext = nullptr,
        .conversion = order.conversion};
    // The image's usage may have storage, the sRGB format need not
    // (VUID-VkImageViewCreateInfo-usage-02275).
    const VkImageViewUsageCreateInfo without_storage{
        .sType = VK_STRUCTURE_TYPE_IMAGE_VIEW_USAGE_CREATE_INFO,
        .pNext = nullptr,
        .usage = of.viewing.usage & ~VkImageUsageFlags{VK_IMAGE_USAGE_STORAGE_BIT}};
    const void* next = srgb ? static_cast<const void*>(&without_storage) : nullptr;
    if (order.conversion != VK_NULL_HANDLE)
        next = &converted;
    const VkImageViewCreateInfo create{.sType = VK_STRUCTURE_TYPE_IMAGE_VIEW_CREATE_INFO,
                                       .pNext = next,
                                       .flags = 0,
                                       .image = of.image.image,
                                       .viewType = VK_IMAGE_VIEW_TYPE_2D,
                                       .format = format,
                                       .components =
                                           swizzled ? of.viewing.components : VkComponentMapping{},
                                       .subresourceRange = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1}};
    VkImageView created = VK_NULL_HANDLE;
    const VkResult result =
        driver.vk.CreateImageView(driver.info.device, &create, nullptr, &created);
    if (result != VK_SUCCESS)
        return tl::unexpected(failed_vk(result, operation, object(), "vkCreateImageView failed",
                                        "Free device objects"));
    of.image.views.push_back(
        {.conversion = order.conversion, .format = format, .swizzled = swizzled, .view = created});
    return created;
}

} // namespace

VkResult create_image(const VulkanDriver& driver, const VulkanImagePlan& plan, VkImage& into) {
    const VkExternalMemoryImageCreateInfo external{
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO,
        .pNext = plan.layout,
        .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
    const VulkanViewFormats views(plan.format, plan.srgb, driver.tiling(), &external);
    const VkImageCreateInfo create{.sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO,
                                   .pNext = views.chain(),
                                   .flags = plan.flags | views.flags(),
                                   .imageType = VK_IMAGE_TYPE_2D,
                                   .format = plan.format,
                                   .extent = {plan.extent.width, plan.extent.height, 1},
                                   .mipLevels = 1,
                                   .arrayLayers = 1,
                                   .samples = VK_SAMPLE_COUNT_1_BIT,
                                   .tiling = driver.tiling(),
                                   .usage = plan.usage,
                                   .sharingMode = VK_SHARING_MODE_EXCLUSIVE,
                                   .queueFamilyIndexCount = 0,
                                   .pQueueFamilyIndices = nullptr,
                                   .initialLayout = VK_IMAGE_LAYOUT_UNDEFINED};
    // What a call that failed leaves in its handle is no handle.
    VkImage created = VK_NULL_HANDLE;
    const VkResult result = driver.vk.CreateImage(driver.info.device, &create, nullptr, &created);
    if (result == VK_SUCCESS)
        into = created;
    return result;
}

VulkanMemoryNeeds image_needs(const VulkanDriver& driver, VkImage image,
                              std::optional<std::uint32_t> plane) {
    const VkImagePlaneMemoryRequirementsInfo of_plane{
        .sType = VK_STRUCTURE_TYPE_IMAGE_PLANE_MEMORY_REQUIREMENTS_INFO,
        .pNext = nullptr,
        .planeAspect = plane_aspect(driver, plane.value_or(0), max_planes)};
    const VkImageMemoryRequirementsInfo2 of{.sType =
                                                VK_STRUCTURE_TYPE_IMAGE_MEMORY_REQUIREMENTS_INFO_2,
                                            .pNext = plane ? &of_plane : nullptr,
                                            .image = image};
    VkMemoryDedicatedRequirements wants{};
    wants.sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_REQUIREMENTS;
    VkMemoryRequirements2 needs{};
    needs.sType = VK_STRUCTURE_TYPE_MEMORY_REQUIREMENTS_2;
    needs.pNext = plane ? nullptr : &wants; // disjoint planes cannot have memory of their own
    driver.vk.GetImageMemoryRequirements2(driver.info.device, &of, &needs);
    return {.requirements = needs.memoryRequirements,
            .dedicated = wants.requiresDedicatedAllocation == VK_TRUE ||
                         wants.prefersDedicatedAllocation == VK_TRUE,
            .dedicated_required = wants.requiresDedicatedAllocation == VK_TRUE,
            .image = image};
}

VkComponentMapping whole_components(std::uint32_t format) noexcept {
    const VulkanFormatInfo* info = find_vulkan_format(format);
    return info == nullptr || info->is_ycbcr ? VkComponentMapping{} : info->components;
}

VkImageAspectFlagBits plane_aspect(const VulkanDriver& driver, std::uint32_t index,
                                   std::uint32_t count) noexcept {
    constexpr std::array memory_planes{
        VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT, VK_IMAGE_ASPECT_MEMORY_PLANE_1_BIT_EXT,
        VK_IMAGE_ASPECT_MEMORY_PLANE_2_BIT_EXT, VK_IMAGE_ASPECT_MEMORY_PLANE_3_BIT_EXT};
    if (driver.caps.modifiers)
        return memory_planes[index];
    constexpr std::array planes{VK_IMAGE_ASPECT_PLANE_0_BIT, VK_IMAGE_ASPECT_PLANE_1_BIT,
                                VK_IMAGE_ASPECT_PLANE_2_BIT};
    return count == 1 ? VK_IMAGE_ASPECT_COLOR_BIT : planes[index];
}

VulkanImage::VulkanImage(std::shared_ptr<const State> state, Frame frame) noexcept
    : VulkanAttachment(std::move(state), std::move(frame)) {}

const VulkanImage::State& VulkanImage::state() const noexcept {
    return static_cast<const State&>(*state_);
}

VkImage VulkanImage::image() const noexcept {
    return state().image.image;
}

VkFormat VulkanImage::format() const noexcept {
    return state().viewing.format;
}

Result<VkImageView> VulkanImage::view(VkSamplerYcbcrConversion conversion) const noexcept {
    // A conversion moves the channels by itself, and suffers no other mapping.
    const bool converts = conversion != VK_NULL_HANDLE;
    return view_of(state(), {.conversion = conversion, .swizzled = !converts}, "VulkanImage::view");
}

Result<VkImageView> VulkanImage::view(VulkanCurve curve) const noexcept {
    return view_of(state(), {.curve = curve, .swizzled = true}, "VulkanImage::view");
}

Result<VkImageView> VulkanImage::unswizzled_view(VulkanCurve curve) const noexcept {
    return view_of(state(), {.curve = curve}, "VulkanImage::unswizzled_view");
}

VkImageMemoryBarrier VulkanImage::acquire_barrier(Contents contents, VkImageLayout layout,
                                                  VkAccessFlags access) const noexcept {
    VkImageMemoryBarrier acquire = barrier(image());
    acquire.dstAccessMask = access;
    acquire.newLayout = layout;
    if (contents == Contents::discard) {
        // "Queue Family Ownership Transfer": one whose contents are not needed is to be left out.
        acquire.oldLayout = VK_IMAGE_LAYOUT_UNDEFINED;
    } else {
        acquire.srcQueueFamilyIndex = state().image.device->foreign_family();
        acquire.dstQueueFamilyIndex = state().image.device->info.queue_family;
    }
    return acquire;
}

VkImageMemoryBarrier VulkanImage::release_barrier(VkImageLayout layout,
                                                  VkAccessFlags access) const noexcept {
    VkImageMemoryBarrier release = barrier(image());
    release.srcAccessMask = access;
    release.oldLayout = layout;
    release.srcQueueFamilyIndex = state().image.device->info.queue_family;
    release.dstQueueFamilyIndex = state().image.device->foreign_family();
    return release;
}

VkImageMemoryBarrier2 VulkanImage::acquire_barrier2(Contents contents, VkImageLayout layout,
                                                    VkPipelineStageFlags2 stages,
                                                    VkAccessFlags2 access) const noexcept {
    VkImageMemoryBarrier2 acquire = in_stages(acquire_barrier(contents, layout, 0));
    acquire.srcStageMask = stages; // what the semaphores hold back
    acquire.dstStageMask = stages;
    acquire.dstAccessMask = access;
    return acquire;
}

VkImageMemoryBarrier2 VulkanImage::release_barrier2(VkImageLayout layout,
                                                    VkPipelineStageFlags2 stages,
                                                    VkAccessFlags2 access) const noexcept {
    VkImageMemoryBarrier2 release = in_stages(release_barrier(layout, 0));
    release.srcStageMask = stages;
    release.srcAccessMask = access;
    return release;
}

} // namespace sluice
