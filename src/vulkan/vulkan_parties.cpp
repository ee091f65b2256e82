// SPDX-License-Identifier: MIT
// What a device says of itself to `negotiate`.
#include <sluice/vulkan_device.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include <drm_fourcc.h>
#include <sys/sysmacros.h>

#include "core/sys.hpp"
#include "vulkan/vulkan_device_state.hpp"
#include "vulkan/vulkan_enumerate.hpp"
#include "vulkan/vulkan_error.hpp"
#include "vulkan/vulkan_image_state.hpp"
#include <sluice/format.hpp>
#include <sluice/vulkan_format.hpp>

namespace sluice {

namespace {

struct UseOfUsage {
    VkImageUsageFlags usage;
    Uses use;
};
constexpr std::array image_uses{
    UseOfUsage{VK_IMAGE_USAGE_SAMPLED_BIT, Uses::sample},
    UseOfUsage{VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT, Uses::render},
    UseOfUsage{VK_IMAGE_USAGE_STORAGE_BIT, Uses::store},
    UseOfUsage{VK_IMAGE_USAGE_TRANSFER_SRC_BIT, Uses::copy_from},
    UseOfUsage{VK_IMAGE_USAGE_TRANSFER_DST_BIT, Uses::copy_to},
};

Uses uses_of(VkImageUsageFlags usage) {
    Uses uses = Uses::none;
    for (const UseOfUsage& each : image_uses)
        if ((usage & each.usage) != 0)
            uses = uses | each.use;
    return uses;
}

/// One way to take a format: as one image, or part by part.
using Parts = std::span<const VkFormat>;

/// Asks for \p usage; nothing where a part does not have \p modifier. The texels of a part are
/// fewer than the frame's pixels, so a part's limit is the frame's at least.
tl::expected<std::optional<VulkanModifierCaps>, VkResult>
ask(const VulkanDriver& driver, Parts parts, std::uint64_t modifier, VkImageUsageFlags usage) {
    std::optional<VulkanModifierCaps> all;
    for (const VkFormat part : parts) {
        const auto modifiers =
            driver.image_caps->modifiers(driver, {.format = part, .usage = usage, .flags = 0});
        if (!modifiers)
            return tl::unexpected(modifiers.error());
        const auto found = std::ranges::find(*modifiers, modifier, &VulkanModifierCaps::modifier);
        if (found == modifiers->end())
            return std::nullopt;
        if (!all) {
            all = *found;
            continue;
        }
        all->features &= found->features;
        all->max_extent = {std::min(all->max_extent.width, found->max_extent.width),
                           std::min(all->max_extent.height, found->max_extent.height)};
        all->importable = all->importable && found->importable;
        all->exportable = all->exportable && found->exportable;
    }
    return all;
}

/// The formats, by modifier, with every use that goes together with the others, or each use by
/// itself where they do not.
class Listing {
public:
    Listing(const VulkanDriver& driver, bool VulkanModifierCaps::*able) noexcept
        : driver_(driver), able_(able) {}

    VkResult add(const VulkanFormatInfo& format, Parts parts, bool in_parts, Uses without) {
        const auto known = driver_.image_caps->modifiers(
            driver_, {.format = parts[0], .usage = VK_IMAGE_USAGE_SAMPLED_BIT, .flags = 0});
        if (!known)
            return known.error();
        for (const VulkanModifierCaps& each : *known) {
            // A plane of another modifier means nothing by itself.
            if (in_parts && each.modifier != DRM_FORMAT_MOD_LINEAR)
                continue;
            const VkResult result = add(format, parts, in_parts, without, each.modifier);
            if (result != VK_SUCCESS)
                return result;
        }
        return VK_SUCCESS;
    }

    std::vector<FormatSupport> formats;

private:
    VkResult add(const VulkanFormatInfo& format, Parts parts, bool in_parts, Uses without,
                 std::uint64_t modifier) {
        const auto first = ask(driver_, parts, modifier, VK_IMAGE_USAGE_SAMPLED_BIT);
        if (!first)
            return first.error();
        if (!*first)
            return VK_SUCCESS;
        VkImageUsageFlags together = 0;
        for (const UseOfUsage& each : image_uses)
            if (missing_use(each.usage, (*first)->features) == nullptr &&
                !contains(without, each.use))
                together |= each.usage;
        const auto list = [&](VkImageUsageFlags usage) -> tl::expected<bool, VkResult> {
            const auto caps = ask(driver_, parts, modifier, usage);
            if (!caps)
                return tl::unexpected(caps.error());
            if (!*caps || !((**caps).*able_) || (*caps)->max_extent.width == 0)
                return false;
            formats.push_back({.format = format.fourcc,
                               .modifier = modifier,
                               .uses = uses_of(usage),
                               .plane_count = in_parts ? find_format(format.fourcc)->plane_count
                                                       : (*caps)->plane_count,
                               .max_width = (*caps)->max_extent.width,
                               .max_height = (*caps)->max_extent.height,
                               .disjoint = in_parts || (*caps)->disjoint});
            return true;
        };
        if (together == 0)
            return VK_SUCCESS;
        const auto all = list(together);
        if (!all)
            return all.error();
        if (!*all)
            for (const UseOfUsage& each : image_uses)
                if ((together & each.usage) != 0)
                    if (const auto one = list(each.usage); !one)
                        return one.error();
        return VK_SUCCESS;
    }

    const VulkanDriver& driver_;
    bool VulkanModifierCaps::*able_;
};

/// What is read and written past `VulkanFormatInfo::components`.
constexpr Uses unswizzled = Uses::render | Uses::store;

tl::expected<std::vector<FormatSupport>, VkResult>
list(const VulkanDriver& driver, bool VulkanModifierCaps::*able, bool in_parts_too) {
    Listing listing(driver, able);
    for (const VulkanFormatInfo& format : vulkan_formats()) {
        const std::size_t before = listing.formats.size();
        if (format.format != VK_FORMAT_UNDEFINED) {
            const VkResult result =
                listing.add(format, std::span(&format.format, 1), false,
                            format.is_swizzled || format.is_ycbcr ? unswizzled : Uses::none);
            if (result != VK_SUCCESS)
                return tl::unexpected(result);
        }
        if (!in_parts_too || listing.formats.size() != before)
            continue;
        std::array<VkFormat, 3> parts{};
        for (std::uint32_t i = 0; i < format.view_count; ++i)
            parts[i] = format.views[i].format;
        const VkResult result =
            listing.add(format, std::span(parts).first(format.view_count), true, unswizzled);
        if (result != VK_SUCCESS)
            return tl::unexpected(result);
    }
    return std::move(listing.formats);
}

/// The device in sysfs, where VK_EXT_physical_device_drm tells.
std::string device_of(const VulkanDriver& driver) {
    std::vector<VkExtensionProperties> extensions;
    const VkResult result =
        enumerate(extensions, [&](std::uint32_t* count, VkExtensionProperties* into) {
            return driver.vk.EnumerateDeviceExtensionProperties(driver.info.physical_device,
                                                                nullptr, count, into);
        });
    if (result != VK_SUCCESS || std::ranges::none_of(extensions, [](const auto& each) {
            return std::strcmp(each.extensionName, VK_EXT_PHYSICAL_DEVICE_DRM_EXTENSION_NAME) == 0;
        }))
        return {};
    VkPhysicalDeviceDrmPropertiesEXT node{};
    node.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRM_PROPERTIES_EXT;
    VkPhysicalDeviceProperties2 properties{};
    properties.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
    properties.pNext = &node;
    driver.vk.GetPhysicalDeviceProperties2(driver.info.physical_device, &properties);
    if (node.hasRender == VK_TRUE)
        return sys::device_of(makedev(static_cast<unsigned>(node.renderMajor),
                                      static_cast<unsigned>(node.renderMinor)));
    if (node.hasPrimary == VK_TRUE)
        return sys::device_of(makedev(static_cast<unsigned>(node.primaryMajor),
                                      static_cast<unsigned>(node.primaryMinor)));
    return {};
}

bool is_software(const VulkanDriver& driver) {
    VkPhysicalDeviceProperties properties{};
    driver.vk.GetPhysicalDeviceProperties(driver.info.physical_device, &properties);
    return properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
}

/// How many rows the driver wants the memory of an image of one row to have, found by making one:
/// no query tells. 0 where that is no more than the row, or where there is no such image.
std::uint32_t rows_of_one(std::shared_ptr<const VulkanDriver> driver) {
    constexpr std::uint32_t stride = 4096;
    VulkanImageHandles probe(std::move(driver));
    const VkSubresourceLayout row{.offset = 0, .size = 0, .rowPitch = stride};
    const VkImageDrmFormatModifierExplicitCreateInfoEXT layout{
        .sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_EXPLICIT_CREATE_INFO_EXT,
        .pNext = nullptr,
        .drmFormatModifier = DRM_FORMAT_MOD_LINEAR,
        .drmFormatModifierPlaneCount = 1,
        .pPlaneLayouts = &row};
    const VkResult result = create_image(*probe.device,
                                         {.format = VK_FORMAT_B8G8R8A8_UNORM,
                                          .extent = {stride / 4, 1},
                                          .usage = VK_IMAGE_USAGE_TRANSFER_SRC_BIT,
                                          .layout = &layout},
                                         probe.image);
    if (result != VK_SUCCESS)
        return 0;
    const VkDeviceSize size = image_needs(*probe.device, probe.image).requirements.size;
    const VkDeviceSize rows = (size + stride - 1) / stride;
    constexpr VkDeviceSize absurd = 4096;
    return rows > 1 && rows <= absurd ? static_cast<std::uint32_t>(rows) : 0;
}

Error not_told(const VulkanDriver& driver, VkResult result, std::string_view operation) {
    return failed_vk(result, operation, driver.name, "the driver could not be asked for its limits",
                     "Free memory and try again");
}

} // namespace

Result<ImporterCaps> VulkanDevice::importer_caps() const noexcept {
    const VulkanDriver& driver = *state_->driver;
    auto formats = list(driver, &VulkanModifierCaps::importable, true);
    if (!formats)
        return tl::unexpected(not_told(driver, formats.error(), "VulkanDevice::importer_caps"));
    return ImporterCaps{.name = "vulkan " + driver.name,
                        .device = device_of(driver),
                        .formats = std::move(*formats),
                        .height_alignment = driver.caps.modifiers ? rows_of_one(state_->driver) : 0,
                        .maps = is_software(driver)};
}

Result<ExporterCaps> VulkanDevice::exporter_caps() const noexcept {
    const VulkanDriver& driver = *state_->driver;
    auto formats = list(driver, &VulkanModifierCaps::exportable, false);
    if (!formats)
        return tl::unexpected(not_told(driver, formats.error(), "VulkanDevice::exporter_caps"));
    const bool software = is_software(driver);
    return ExporterCaps{.name = "vulkan " + driver.name,
                        .device = device_of(driver),
                        .max_size_source = "none known: the driver's own",
                        .granularity = 1,
                        .cpu_mappable = software,
                        .gives_bytes = false,
                        .lays_out_frames = true,
                        .formats = std::move(*formats)};
}

} // namespace sluice
