// SPDX-License-Identifier: MIT
#include <sluice/vulkan_caps.hpp>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <drm_fourcc.h>

#include "vulkan/vulkan_caps_cache.hpp"
#include "vulkan/vulkan_device_state.hpp"
#include "vulkan/vulkan_enumerate.hpp"
#include "vulkan/vulkan_error.hpp"
#include <sluice/format.hpp>
#include <sluice/vulkan_format.hpp>
#include <sluice/vulkan_image.hpp>

namespace sluice {

namespace {

using Modifiers = std::vector<VulkanModifierCaps>;

/// The uses of an sRGB view. Storage is none: few drivers have it.
constexpr VkImageUsageFlags srgb_view_uses = VK_IMAGE_USAGE_SAMPLED_BIT |
                                             VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT |
                                             VK_IMAGE_USAGE_INPUT_ATTACHMENT_BIT;

/// The extension that brings \p format to devices before Vulkan 1.3, or null for a format of 1.1.
const char* extension_of(VkFormat format) {
    switch (format) {
    case VK_FORMAT_A4R4G4B4_UNORM_PACK16:
    case VK_FORMAT_A4B4G4R4_UNORM_PACK16:
        return VK_EXT_4444_FORMATS_EXTENSION_NAME;
    case VK_FORMAT_G8_B8R8_2PLANE_444_UNORM:
    case VK_FORMAT_G10X6_B10X6R10X6_2PLANE_444_UNORM_3PACK16:
    case VK_FORMAT_G12X4_B12X4R12X4_2PLANE_444_UNORM_3PACK16:
    case VK_FORMAT_G16_B16R16_2PLANE_444_UNORM:
        return VK_EXT_YCBCR_2PLANE_444_FORMATS_EXTENSION_NAME;
    default:
        return nullptr;
    }
}

/// What a physical device may be asked, which is invalid where it lacks the version and the
/// extension ("VkFormat" and "VkFormatProperties2" in the specification, valid usage).
struct Vocabulary {
    bool format = true;        // its very name
    bool more_features = true; // VkDrmFormatModifierPropertiesList2EXT
};

tl::expected<Vocabulary, VkResult> vocabulary(const VulkanDriver& driver, VkFormat format) {
    const VkPhysicalDevice device = driver.info.physical_device;
    VkPhysicalDeviceProperties properties{};
    driver.vk.GetPhysicalDeviceProperties(device, &properties);
    if (properties.apiVersion >= VK_API_VERSION_1_3)
        return Vocabulary{};
    std::vector<VkExtensionProperties> extensions;
    const VkResult result =
        enumerate(extensions, [&](std::uint32_t* count, VkExtensionProperties* into) {
            return driver.vk.EnumerateDeviceExtensionProperties(device, nullptr, count, into);
        });
    if (result != VK_SUCCESS)
        return tl::unexpected(result);
    const auto has = [&](std::string_view name) {
        return std::ranges::any_of(extensions, [&](const VkExtensionProperties& each) {
            return name == each.extensionName;
        });
    };
    const char* extension = extension_of(format);
    return Vocabulary{.format = extension == nullptr || has(extension),
                      .more_features = has(VK_KHR_FORMAT_FEATURE_FLAGS_2_EXTENSION_NAME)};
}

/// The modifiers that the driver lists for a format, without their usage. Drivers may fill in the
/// first list only: lavapipe leaves the second as it was.
Modifiers list_modifiers(const VulkanDriver& driver, VkFormat format, bool more_features) {
    VkDrmFormatModifierPropertiesList2EXT list_2{};
    list_2.sType = VK_STRUCTURE_TYPE_DRM_FORMAT_MODIFIER_PROPERTIES_LIST_2_EXT;
    VkDrmFormatModifierPropertiesListEXT list{};
    list.sType = VK_STRUCTURE_TYPE_DRM_FORMAT_MODIFIER_PROPERTIES_LIST_EXT;
    list.pNext = more_features ? &list_2 : nullptr;
    VkFormatProperties2 properties{};
    properties.sType = VK_STRUCTURE_TYPE_FORMAT_PROPERTIES_2;
    properties.pNext = &list;
    const auto ask = [&] {
        driver.vk.GetPhysicalDeviceFormatProperties2(driver.info.physical_device, format,
                                                     &properties);
    };
    ask();
    std::vector<VkDrmFormatModifierPropertiesEXT> first(list.drmFormatModifierCount);
    std::vector<VkDrmFormatModifierProperties2EXT> second(list_2.drmFormatModifierCount);
    list.pDrmFormatModifierProperties = first.data();
    list_2.pDrmFormatModifierProperties = second.data();
    ask();
    first.resize(std::min<std::size_t>(first.size(), list.drmFormatModifierCount));
    second.resize(std::min<std::size_t>(second.size(), list_2.drmFormatModifierCount));

    Modifiers modifiers;
    modifiers.reserve(first.size());
    for (const auto& each : first)
        modifiers.push_back({.modifier = each.drmFormatModifier,
                             .plane_count = each.drmFormatModifierPlaneCount,
                             .features = each.drmFormatModifierTilingFeatures});
    for (const auto& each : second) {
        const auto known =
            std::ranges::find(modifiers, each.drmFormatModifier, &VulkanModifierCaps::modifier);
        if (known != modifiers.end())
            known->features |= each.drmFormatModifierTilingFeatures;
        else
            modifiers.push_back({.modifier = each.drmFormatModifier,
                                 .plane_count = each.drmFormatModifierPlaneCount,
                                 .features = each.drmFormatModifierTilingFeatures});
    }
    return modifiers;
}

/// What takes the place of the list where the driver has no modifiers: VK_IMAGE_TILING_LINEAR.
Modifiers linear_alone(const VulkanDriver& driver, VkFormat format) {
    VkFormatProperties2 properties{};
    properties.sType = VK_STRUCTURE_TYPE_FORMAT_PROPERTIES_2;
    driver.vk.GetPhysicalDeviceFormatProperties2(driver.info.physical_device, format, &properties);
    const auto all = vulkan_formats();
    const auto whole = std::ranges::find(all, format, &VulkanFormatInfo::format);
    return {{.modifier = DRM_FORMAT_MOD_LINEAR,
             .plane_count = whole == all.end() ? 1 : find_format(whole->fourcc)->plane_count,
             .features = properties.formatProperties.linearTilingFeatures}};
}

tl::expected<Modifiers, VkResult> ask_modifiers(const VulkanDriver& driver,
                                                const VulkanImageKind& kind) {
    const auto may = vocabulary(driver, kind.format);
    if (!may)
        return tl::unexpected(may.error());
    if (!may->format)
        return Modifiers{};
    const auto list = [&](VkFormat format) {
        return driver.caps.modifiers ? list_modifiers(driver, format, may->more_features)
                                     : linear_alone(driver, format);
    };
    Modifiers modifiers = list(kind.format);
    const Modifiers srgb = kind.srgb == VK_FORMAT_UNDEFINED ? Modifiers{} : list(kind.srgb);
    // A view has the features of its own format.
    const auto viewed = [&](std::uint64_t modifier) {
        const auto found = std::ranges::find(srgb, modifier, &VulkanModifierCaps::modifier);
        return found != srgb.end() &&
               missing_use(kind.usage & srgb_view_uses, found->features) == nullptr;
    };
    if (kind.linear_only)
        std::erase_if(modifiers, [](const VulkanModifierCaps& each) {
            return each.modifier != DRM_FORMAT_MOD_LINEAR;
        });
    for (VulkanModifierCaps& each : modifiers) {
        each.disjoint = (each.features & VK_FORMAT_FEATURE_2_DISJOINT_BIT) != 0;
        // What the features deny must not be asked for.
        if (missing_use(kind.usage, each.features) != nullptr ||
            (kind.srgb != VK_FORMAT_UNDEFINED && !viewed(each.modifier)) ||
            ((kind.flags & VK_IMAGE_CREATE_DISJOINT_BIT) != 0 && !each.disjoint))
            continue;
        const VulkanImageAnswer answer =
            ask_image(driver.vk.GetPhysicalDeviceImageFormatProperties2,
                      driver.info.physical_device, kind, driver.tiling(), each.modifier);
        if (answer.result == VK_ERROR_FORMAT_NOT_SUPPORTED)
            continue;
        if (answer.result != VK_SUCCESS)
            return tl::unexpected(answer.result);
        each.max_extent = answer.max_extent;
        each.importable = (answer.dma_buf & VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT) != 0;
        each.exportable = (answer.dma_buf & VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT) != 0;
        each.dedicated_only = (answer.dma_buf & VK_EXTERNAL_MEMORY_FEATURE_DEDICATED_ONLY_BIT) != 0;
    }
    return modifiers;
}

} // namespace

VulkanImageAnswer ask_image(PFN_vkGetPhysicalDeviceImageFormatProperties2 get_properties,
                            VkPhysicalDevice device, const VulkanImageKind& kind,
                            VkImageTiling tiling, std::uint64_t modifier) {
    const VkPhysicalDeviceExternalImageFormatInfo external{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_IMAGE_FORMAT_INFO,
        .pNext = nullptr,
        .handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
    const VulkanViewFormats views(kind.format, kind.srgb, tiling, &external);
    const VkPhysicalDeviceImageDrmFormatModifierInfoEXT with{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_DRM_FORMAT_MODIFIER_INFO_EXT,
        .pNext = views.chain(),
        .drmFormatModifier = modifier,
        .sharingMode = VK_SHARING_MODE_EXCLUSIVE,
        .queueFamilyIndexCount = 0,
        .pQueueFamilyIndices = nullptr};
    const VkPhysicalDeviceImageFormatInfo2 asked{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_FORMAT_INFO_2,
        .pNext = tiling == VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT ? &with : views.chain(),
        .format = kind.format,
        .type = VK_IMAGE_TYPE_2D,
        .tiling = tiling,
        .usage = kind.usage,
        .flags = kind.flags | views.flags()};
    VkExternalImageFormatProperties can{};
    can.sType = VK_STRUCTURE_TYPE_EXTERNAL_IMAGE_FORMAT_PROPERTIES;
    VkImageFormatProperties2 answer{};
    answer.sType = VK_STRUCTURE_TYPE_IMAGE_FORMAT_PROPERTIES_2;
    answer.pNext = &can;
    const VkResult result = get_properties(device, &asked, &answer);
    if (result != VK_SUCCESS)
        return {.result = result};
    const VkExtent3D most = answer.imageFormatProperties.maxExtent;
    return {.max_extent = {most.width, most.height},
            .dma_buf = can.externalMemoryProperties.externalMemoryFeatures};
}

const char* missing_use(VkImageUsageFlags usage, VkFormatFeatureFlags2 features) {
    struct Use {
        VkImageUsageFlags usage;
        VkFormatFeatureFlags2 feature;
        const char* name;
    };
    constexpr std::array uses{
        Use{VK_IMAGE_USAGE_SAMPLED_BIT, VK_FORMAT_FEATURE_2_SAMPLED_IMAGE_BIT, "SAMPLED"},
        Use{VK_IMAGE_USAGE_STORAGE_BIT, VK_FORMAT_FEATURE_2_STORAGE_IMAGE_BIT, "STORAGE"},
        Use{VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT, VK_FORMAT_FEATURE_2_COLOR_ATTACHMENT_BIT,
            "COLOR_ATTACHMENT"},
        Use{VK_IMAGE_USAGE_INPUT_ATTACHMENT_BIT, VK_FORMAT_FEATURE_2_COLOR_ATTACHMENT_BIT,
            "INPUT_ATTACHMENT"},
        Use{VK_IMAGE_USAGE_TRANSFER_SRC_BIT, VK_FORMAT_FEATURE_2_TRANSFER_SRC_BIT, "TRANSFER_SRC"},
        Use{VK_IMAGE_USAGE_TRANSFER_DST_BIT, VK_FORMAT_FEATURE_2_TRANSFER_DST_BIT, "TRANSFER_DST"},
    };
    for (const Use& each : uses)
        if ((usage & each.usage) != 0 && (features & each.feature) == 0)
            return each.name;
    return nullptr;
}

const char* misplaced_use(const VulkanFormatInfo& format, VkImageUsageFlags usage,
                          std::optional<std::uint32_t> view) {
    if (!format.is_swizzled || (view && format.view_count > 1))
        return nullptr;
    struct Use {
        VkImageUsageFlags usage;
        const char* name;
    };
    constexpr std::array uses{
        Use{VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT, "COLOR_ATTACHMENT"},
        Use{VK_IMAGE_USAGE_STORAGE_BIT, "STORAGE"},
        Use{VK_IMAGE_USAGE_INPUT_ATTACHMENT_BIT, "INPUT_ATTACHMENT"},
    };
    for (const Use& each : uses)
        if ((usage & each.usage) != 0)
            return each.name;
    return nullptr;
}

std::string misplaced_problem(const char* use) {
    return std::string("its channels lie elsewhere in Vulkan's format, and only sampling moves "
                       "them, which ") +
           use + " is not";
}

Result<VkFormat> srgb_views_of(const VulkanFormatInfo& format, VkImageUsageFlags usage,
                               const char* operation, std::string object) {
    const auto refuse = [&](Errc code, const char* problem, const char* remedy) {
        return tl::unexpected(Error{.code = code,
                                    .operation = operation,
                                    .object = std::move(object),
                                    .problem = problem,
                                    .remedy = remedy});
    };
    if (format.srgb == VK_FORMAT_UNDEFINED)
        return refuse(Errc::unsupported, "Vulkan has no sRGB format with its bytes",
                      "Leave sRGB views out, or use a format that has VulkanFormatInfo::srgb");
    if ((usage & srgb_view_uses) == 0)
        return refuse(Errc::invalid_argument, "its usage has no use for an sRGB view",
                      "Add SAMPLED, COLOR_ATTACHMENT or INPUT_ATTACHMENT to the usage, or leave "
                      "sRGB views out");
    return format.srgb;
}

bool view_is_whole(const VulkanFormatInfo& format) noexcept {
    return format.view_count == 1 && format.views[0].format == format.format;
}

std::string modifier_names(std::span<const VulkanModifierCaps> modifiers) {
    std::string names;
    for (const VulkanModifierCaps& each : modifiers)
        names += (names.empty() ? "" : ", ") + modifier_name(each.modifier);
    return names.empty() ? "none" : names;
}

tl::expected<std::span<const VulkanModifierCaps>, VkResult>
VulkanCapsCache::modifiers(const VulkanDriver& driver, const VulkanImageKind& kind) {
    {
        const std::lock_guard held(lock_);
        if (const auto known = known_.find(kind); known != known_.end())
            return known->second;
    }
    // The driver may take its time, and who asks it for the same meanwhile gets the same answer.
    auto asked = ask_modifiers(driver, kind);
    if (!asked)
        return tl::unexpected(asked.error());
    const std::lock_guard held(lock_);
    return known_.try_emplace(kind, std::move(*asked)).first->second;
}

Result<VulkanFormatCaps> VulkanDevice::support(std::uint32_t format, VkImageUsageFlags usage,
                                               std::optional<std::uint32_t> view) const noexcept {
    return support(format, {.usage = usage, .view = view});
}

Result<VulkanFormatCaps> VulkanDevice::support(std::uint32_t format,
                                               const VulkanAttachInfo& how) const noexcept {
    const auto& [usage, view, srgb_views] = how;
    const VulkanDriver& driver = *state_->driver;
    const auto refuse = [&](Errc code, std::string problem, std::string remedy) {
        return tl::unexpected(Error{.code = code,
                                    .operation = "VulkanDevice::support",
                                    .object = format_name(format) + " on " + driver.name,
                                    .problem = std::move(problem),
                                    .remedy = std::move(remedy)});
    };
    const VulkanFormatInfo* info = find_vulkan_format(format);
    if (info == nullptr)
        return refuse(Errc::unsupported, "Vulkan has no format with its bytes",
                      "Use one of vulkan_formats()");
    if (usage == 0)
        return refuse(Errc::invalid_argument, "it has no usage",
                      "Say what the GPU will do with the image");
    if (view && *view >= info->view_count)
        return refuse(Errc::invalid_argument,
                      "there is no view " + std::to_string(*view) + ", the format has " +
                          std::to_string(info->view_count),
                      "Count the views from 0");
    if (const char* use = misplaced_use(*info, usage, view))
        return refuse(Errc::unsupported, misplaced_problem(use), misplaced_remedy);
    const VkFormat asked = view ? info->views[*view].format : info->format;
    if (asked == VK_FORMAT_UNDEFINED) // views alone
        return VulkanFormatCaps{.format = format};
    VkFormat srgb = VK_FORMAT_UNDEFINED;
    if (srgb_views && view)
        return refuse(Errc::invalid_argument, "a part of a frame has no sRGB views",
                      "Ask about the whole, or leave sRGB views out");
    if (srgb_views) {
        auto views = srgb_views_of(*info, usage, "VulkanDevice::support",
                                   format_name(format) + " on " + driver.name);
        if (!views)
            return tl::unexpected(std::move(views.error()));
        srgb = *views;
    }
    const auto modifiers = driver.image_caps->modifiers(
        driver, {.format = asked,
                 .usage = usage,
                 .srgb = srgb,
                 .linear_only = view.has_value() && !view_is_whole(*info)});
    if (!modifiers)
        return tl::unexpected(failed_vk(
            modifiers.error(), "VulkanDevice::support", format_name(format) + " on " + driver.name,
            "the driver could not be asked for its limits", "Free memory and try again"));
    return VulkanFormatCaps{.format = format, .modifiers = *modifiers};
}

Result<std::vector<VulkanFormatCaps>>
VulkanDevice::formats(VkImageUsageFlags usage) const noexcept {
    std::vector<VulkanFormatCaps> all;
    for (const VulkanFormatInfo& each : vulkan_formats()) {
        if (misplaced_use(each, usage) != nullptr)
            continue;
        auto caps = support(each.fourcc, usage);
        if (!caps) {
            caps.error().operation = "VulkanDevice::formats";
            return tl::unexpected(std::move(caps.error()));
        }
        if (std::ranges::any_of(caps->modifiers, [](const VulkanModifierCaps& modifier) {
                return modifier.importable || modifier.exportable;
            }))
            all.push_back(*caps);
    }
    return all;
}

} // namespace sluice
