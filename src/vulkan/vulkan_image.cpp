// SPDX-License-Identifier: MIT
#include <sluice/vulkan_image.hpp>

#include <algorithm>
#include <utility>

#include <drm_fourcc.h>
#include <fcntl.h>

#include "core/sys.hpp"
#include "vulkan/vulkan_device_state.hpp"
#include "vulkan/vulkan_error.hpp"
#include "vulkan/vulkan_image_state.hpp"
#include <sluice/format.hpp>
#include <sluice/vulkan_format.hpp>

namespace sluice {

namespace {

constexpr const char* operation = "VulkanDevice::export_image";
constexpr std::uint64_t linear = DRM_FORMAT_MOD_LINEAR;

using Image = VulkanImageHandles;

std::string describe(const VulkanDriver& device, const VulkanImageInfo& info) {
    return std::to_string(info.width) + "x" + std::to_string(info.height) + " " +
           format_name(info.format) + " LINEAR on " + device.name;
}

VkResult create_image(Image& image, const VulkanImageInfo& info) {
    const VkExternalMemoryImageCreateInfo external{
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO,
        .pNext = nullptr,
        .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
    const VkImageDrmFormatModifierListCreateInfoEXT modifiers{
        .sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_LIST_CREATE_INFO_EXT,
        .pNext = &external,
        .drmFormatModifierCount = 1,
        .pDrmFormatModifiers = &linear};
    const VkImageCreateInfo create{.sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO,
                                   .pNext = &modifiers,
                                   .flags = 0,
                                   .imageType = VK_IMAGE_TYPE_2D,
                                   .format = vulkan_format(info.format),
                                   .extent = {info.width, info.height, 1},
                                   .mipLevels = 1,
                                   .arrayLayers = 1,
                                   .samples = VK_SAMPLE_COUNT_1_BIT,
                                   .tiling = VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT,
                                   .usage = info.usage,
                                   .sharingMode = VK_SHARING_MODE_EXCLUSIVE,
                                   .queueFamilyIndexCount = 0,
                                   .pQueueFamilyIndices = nullptr,
                                   .initialLayout = VK_IMAGE_LAYOUT_UNDEFINED};
    // What a call that failed leaves in its handle is no handle.
    VkImage created = VK_NULL_HANDLE;
    const auto& device = *image.device;
    const VkResult result = device.vk.CreateImage(device.info.device, &create, nullptr, &created);
    if (result == VK_SUCCESS)
        image.image = created;
    return result;
}

VkResult allocate_and_bind(Image& image, bool dedicated) {
    const auto& vk = image.device->vk;
    const auto& info = image.device->info;
    VkMemoryDedicatedRequirements wants{};
    wants.sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_REQUIREMENTS;
    VkMemoryRequirements2 needs{};
    needs.sType = VK_STRUCTURE_TYPE_MEMORY_REQUIREMENTS_2;
    needs.pNext = &wants;
    const VkImageMemoryRequirementsInfo2 of{.sType =
                                                VK_STRUCTURE_TYPE_IMAGE_MEMORY_REQUIREMENTS_INFO_2,
                                            .pNext = nullptr,
                                            .image = image.image};
    vk.GetImageMemoryRequirements2(info.device, &of, &needs);
    dedicated = dedicated || wants.requiresDedicatedAllocation == VK_TRUE ||
                wants.prefersDedicatedAllocation == VK_TRUE;

    const std::uint32_t type = memory_type(*image.device, needs.memoryRequirements.memoryTypeBits);
    if (type == VK_MAX_MEMORY_TYPES)
        return VK_ERROR_OUT_OF_DEVICE_MEMORY; // no memory that can be exported will do

    const VkMemoryDedicatedAllocateInfo alone{.sType =
                                                  VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO,
                                              .pNext = nullptr,
                                              .image = image.image,
                                              .buffer = VK_NULL_HANDLE};
    const VkExportMemoryAllocateInfo exported{
        .sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO,
        .pNext = dedicated ? &alone : nullptr,
        .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
    const VkMemoryAllocateInfo allocate{.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                        .pNext = &exported,
                                        .allocationSize = needs.memoryRequirements.size,
                                        .memoryTypeIndex = type};
    VkDeviceMemory allocated = VK_NULL_HANDLE;
    const VkResult result = vk.AllocateMemory(info.device, &allocate, nullptr, &allocated);
    if (result != VK_SUCCESS)
        return result;
    image.memories[0] = allocated;
    return vk.BindImageMemory(info.device, image.image, allocated, 0);
}

Result<DmaBuf> export_memory(const Image& image, std::string object) {
    const VkMemoryGetFdInfoKHR get{.sType = VK_STRUCTURE_TYPE_MEMORY_GET_FD_INFO_KHR,
                                   .pNext = nullptr,
                                   .memory = image.memories[0],
                                   .handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
    int raw = -1;
    const VkResult result = image.device->vk.GetMemoryFdKHR(image.device->info.device, &get, &raw);
    if (result != VK_SUCCESS)
        return tl::unexpected(
            failed_vk(result, operation, std::move(object), "vkGetMemoryFdKHR gave no dma-buf",
                      "Close fds that are no longer used, or use another device"));
    UniqueFd fd(std::move(raw));
    // Drivers do not all ask for CLOEXEC (lavapipe does not). One that gave no fd at all is left to
    // from_fd, which says so.
    if (fd)
        (void)fcntl(fd.get(), F_SETFD, FD_CLOEXEC);
    return DmaBuf::from_fd(std::move(fd));
}

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

} // namespace

std::uint32_t memory_type(const VulkanDriver& device, std::uint32_t allowed) {
    VkPhysicalDeviceMemoryProperties memory{};
    device.vk.GetPhysicalDeviceMemoryProperties(device.info.physical_device, &memory);
    std::uint32_t first = VK_MAX_MEMORY_TYPES;
    for (std::uint32_t type = 0; type < memory.memoryTypeCount; ++type) {
        if ((allowed & (1U << type)) == 0)
            continue;
        if ((memory.memoryTypes[type].propertyFlags & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT) != 0)
            return type;
        first = std::min(first, type);
    }
    return first;
}

VulkanExportSupport ask_export_support(PFN_vkGetPhysicalDeviceImageFormatProperties2 get_properties,
                                       VkPhysicalDevice device, std::uint32_t format,
                                       VkImageUsageFlags usage, std::uint32_t width,
                                       std::uint32_t height) {
    const VkPhysicalDeviceExternalImageFormatInfo external{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_IMAGE_FORMAT_INFO,
        .pNext = nullptr,
        .handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
    const VkPhysicalDeviceImageDrmFormatModifierInfoEXT modifier{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_DRM_FORMAT_MODIFIER_INFO_EXT,
        .pNext = &external,
        .drmFormatModifier = linear,
        .sharingMode = VK_SHARING_MODE_EXCLUSIVE,
        .queueFamilyIndexCount = 0,
        .pQueueFamilyIndices = nullptr};
    const VkPhysicalDeviceImageFormatInfo2 asked{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_FORMAT_INFO_2,
        .pNext = &modifier,
        .format = vulkan_format(format),
        .type = VK_IMAGE_TYPE_2D,
        .tiling = VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT,
        .usage = usage,
        .flags = 0};
    VkExternalImageFormatProperties can{};
    can.sType = VK_STRUCTURE_TYPE_EXTERNAL_IMAGE_FORMAT_PROPERTIES;
    VkImageFormatProperties2 answer{};
    answer.sType = VK_STRUCTURE_TYPE_IMAGE_FORMAT_PROPERTIES_2;
    answer.pNext = &can;
    VulkanExportSupport support{.problem = {}, .result = get_properties(device, &asked, &answer)};
    if (support.result != VK_SUCCESS) {
        support.problem =
            "the driver has no such LINEAR image for this usage: " + vk_result_text(support.result);
        return support;
    }
    const VkExternalMemoryFeatureFlags features =
        can.externalMemoryProperties.externalMemoryFeatures;
    const VkExtent3D most = answer.imageFormatProperties.maxExtent;
    if ((features & VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT) == 0)
        support.problem = "the driver does not export it as a dma-buf";
    else if (width > most.width || height > most.height)
        support.problem = "the driver's limit is " + std::to_string(most.width) + "x" +
                          std::to_string(most.height);
    support.dedicated = (features & VK_EXTERNAL_MEMORY_FEATURE_DEDICATED_ONLY_BIT) != 0;
    return support;
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
    return state().format;
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
        acquire.srcQueueFamilyIndex = VK_QUEUE_FAMILY_FOREIGN_EXT;
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
    release.dstQueueFamilyIndex = VK_QUEUE_FAMILY_FOREIGN_EXT;
    return release;
}

Result<VulkanImage> VulkanDevice::export_image(const VulkanImageInfo& info) const noexcept {
    const VulkanDriver& device = *state_->driver;
    const auto refuse = [&](Errc code, std::string problem, std::string remedy) {
        return tl::unexpected(Error{.code = code,
                                    .operation = operation,
                                    .object = describe(device, info),
                                    .problem = std::move(problem),
                                    .remedy = std::move(remedy)});
    };
    if (vulkan_format(info.format) == VK_FORMAT_UNDEFINED) {
        const FormatInfo* known = find_format(info.format);
        return refuse(Errc::unsupported,
                      known && known->plane_count > 1
                          ? "the format has " + std::to_string(known->plane_count) +
                                " planes, and an exported image has one"
                          : "is not a format it knows",
                      "Use XR24, AR24, XB24 or AB24");
    }
    if (info.width == 0 || info.height == 0 || info.usage == 0)
        return refuse(Errc::invalid_argument, "it has no pixels, or no usage",
                      "Give a width, a height and what the GPU will do with the image");
    const auto support = ask_export_support(device.vk.GetPhysicalDeviceImageFormatProperties2,
                                            device.info.physical_device, info.format, info.usage,
                                            info.width, info.height);
    if (support.result == VK_ERROR_OUT_OF_HOST_MEMORY ||
        support.result == VK_ERROR_OUT_OF_DEVICE_MEMORY)
        return tl::unexpected(failed_vk(support.result, operation, describe(device, info),
                                        "the driver could not be asked for its limits",
                                        "Free memory and try again"));
    if (!support.problem.empty()) {
        auto refusal =
            refuse(Errc::unsupported, support.problem,
                   "Ask for another format, usage or size, or use another device (lavapipe "
                   "exports only where /dev/udmabuf opens)");
        refusal.value().vk_result = static_cast<std::int32_t>(support.result);
        return refusal;
    }

    Image image(state_->driver);
    VkResult result = create_image(image, info);
    if (result != VK_SUCCESS)
        return tl::unexpected(failed_vk(result, operation, describe(device, info),
                                        "vkCreateImage failed", "Ask for a smaller image"));
    result = allocate_and_bind(image, support.dedicated);
    if (result != VK_SUCCESS)
        return tl::unexpected(failed_vk(result, operation, describe(device, info),
                                        "no memory for it was to be had",
                                        "Free images that are no longer used"));
    auto buffer = export_memory(image, describe(device, info));
    if (!buffer)
        return tl::unexpected(std::move(buffer.error()));

    const VkImageSubresource plane{
        .aspectMask = VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT, .mipLevel = 0, .arrayLayer = 0};
    VkSubresourceLayout where{};
    device.vk.GetImageSubresourceLayout(device.info.device, image.image, &plane, &where);
    if (where.offset > UINT32_MAX || where.rowPitch > UINT32_MAX)
        return refuse(Errc::unsupported,
                      "the driver lays it out at offset " + std::to_string(where.offset) +
                          " with a stride of " + std::to_string(where.rowPitch) +
                          " bytes, above 32 bits",
                      "Ask for a smaller image");
    auto frame = Frame::create({.width = info.width,
                                .height = info.height,
                                .format = info.format,
                                .modifier = linear,
                                .planes = {FramePlane{static_cast<std::uint32_t>(where.offset),
                                                      static_cast<std::uint32_t>(where.rowPitch)}}},
                               std::move(*buffer));
    if (!frame)
        return tl::unexpected(std::move(frame.error()));
    const VkFormat format = vulkan_format(info.format);
    return VulkanImage(std::make_shared<const VulkanImage::State>(std::move(image), format, *frame),
                       *frame);
}

} // namespace sluice
