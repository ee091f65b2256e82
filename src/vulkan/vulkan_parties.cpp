// SPDX-License-Identifier: MIT
// What a device says of itself to `negotiate`.
#include <sluice/vulkan_device.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <functional>
#include <optional>

#include <drm_fourcc.h>
#include <sys/sysmacros.h>

#include "core/sys.hpp"
#include "vulkan/vulkan_device_state.hpp"
#include "vulkan/vulkan_enumerate.hpp"
#include "vulkan/vulkan_error.hpp"
#include "vulkan/vulkan_padding.hpp"
#include <sluice/cpu_map.hpp>
#include <sluice/format.hpp>
#include <sluice/vulkan_format.hpp>
#include <sluice/vulkan_image.hpp>

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

VkImageUsageFlags usage_of(Uses uses) {
    VkImageUsageFlags usage = 0;
    for (const UseOfUsage& each : image_uses)
        if (contains(uses, each.use))
            usage |= each.usage;
    return usage;
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

/// One way to list a format.
struct Entry {
    const VulkanFormatInfo& format;
    Parts parts;
    bool in_parts = false;
    Uses without = Uses::none;
    bool converts = false; // sampling it takes a VkSamplerYcbcrConversion
};

/// The formats, by modifier, with the largest sets of uses that the driver takes together.
class Listing {
public:
    Listing(const VulkanDriver& driver, bool VulkanModifierCaps::*able, Uses always) noexcept
        : driver_(driver), able_(able), always_(always) {}

    VkResult add(const Entry& entry) {
        const auto known = driver_.image_caps->modifiers(
            driver_, {.format = entry.parts[0], .usage = VK_IMAGE_USAGE_SAMPLED_BIT, .flags = 0});
        if (!known)
            return known.error();
        for (const VulkanModifierCaps& each : *known) {
            // A plane of another modifier means nothing by itself.
            if (entry.in_parts && each.modifier != DRM_FORMAT_MOD_LINEAR)
                continue;
            const VkResult result = add(entry, each.modifier);
            if (result != VK_SUCCESS)
                return result;
        }
        return VK_SUCCESS;
    }

    std::vector<FormatSupport> formats;

private:
    /// Everything that the features allow each by itself.
    [[nodiscard]] VkImageUsageFlags allowed(const Entry& entry,
                                            VkFormatFeatureFlags2 features) const {
        // VUID-VkSamplerYcbcrConversionCreateInfo-format-01650.
        constexpr VkFormatFeatureFlags2 chroma = VK_FORMAT_FEATURE_2_MIDPOINT_CHROMA_SAMPLES_BIT |
                                                 VK_FORMAT_FEATURE_2_COSITED_CHROMA_SAMPLES_BIT;
        const bool samples =
            !entry.converts || (driver_.info.sampler_ycbcr_conversion && (features & chroma) != 0);
        const Uses without = samples ? entry.without : entry.without | Uses::sample;
        VkImageUsageFlags usage = 0;
        for (const UseOfUsage& each : image_uses)
            if (missing_use(each.usage, features) == nullptr && !contains(without, each.use))
                usage |= each.usage;
        return usage;
    }

    VkResult add(const Entry& entry, std::uint64_t modifier) {
        const auto first = ask(driver_, entry.parts, modifier, VK_IMAGE_USAGE_SAMPLED_BIT);
        if (!first)
            return first.error();
        if (!*first)
            return VK_SUCCESS;
        VkImageUsageFlags together = allowed(entry, (*first)->features);
        if (together == 0)
            return VK_SUCCESS;
        const auto all = list(entry, modifier, together);
        if (!all)
            return all.error();
        if (*all)
            return VK_SUCCESS;
        for (const UseOfUsage& each : image_uses) { // what is not taken alone is not taken at all
            if ((together & each.usage) == 0)
                continue;
            const auto alone = takes(entry, modifier, each.usage);
            if (!alone)
                return alone.error();
            if (!*alone)
                together &= ~each.usage;
        }
        return list_largest(entry, modifier, together);
    }

    /// Lists the sets within \p of that the driver takes and that are part of no other.
    VkResult list_largest(const Entry& entry, std::uint64_t modifier, VkImageUsageFlags of) {
        std::vector<VkImageUsageFlags> sets, taken;
        for (VkImageUsageFlags set = of; set != 0; set = (set - 1) & of)
            sets.push_back(set);
        std::ranges::stable_sort(sets, std::greater(),
                                 [](VkImageUsageFlags set) { return std::popcount(set); });
        for (const VkImageUsageFlags set : sets) {
            if (std::ranges::any_of(taken,
                                    [&](VkImageUsageFlags larger) { return (set & ~larger) == 0; }))
                continue;
            const auto listed = list(entry, modifier, set);
            if (!listed)
                return listed.error();
            if (*listed)
                taken.push_back(set);
        }
        return VK_SUCCESS;
    }

    /// What the driver says of \p usage where it takes that.
    [[nodiscard]] tl::expected<std::optional<VulkanModifierCaps>, VkResult>
    takes(const Entry& entry, std::uint64_t modifier, VkImageUsageFlags usage) const {
        auto caps = ask(driver_, entry.parts, modifier, usage);
        if (caps && *caps && (!((**caps).*able_) || (*caps)->max_extent.width == 0))
            return std::nullopt;
        return caps;
    }

    /// Whether the driver takes \p usage, which is listed then.
    tl::expected<bool, VkResult> list(const Entry& entry, std::uint64_t modifier,
                                      VkImageUsageFlags usage) {
        const auto caps = takes(entry, modifier, usage);
        if (!caps)
            return tl::unexpected(caps.error());
        if (!*caps)
            return false;
        // VUID-VkImageCreateInfo-format-04712 and -04713.
        const VkExtent2D step = entry.in_parts ? VkExtent2D{1, 1} : entry.format.chroma;
        formats.push_back({.format = entry.format.fourcc,
                           .modifier = modifier,
                           .uses = uses_of(usage) | always_,
                           .plane_count = entry.in_parts
                                              ? find_format(entry.format.fourcc)->plane_count
                                              : (*caps)->plane_count,
                           .max_width = (*caps)->max_extent.width,
                           .max_height = (*caps)->max_extent.height,
                           .disjoint = entry.in_parts || (*caps)->disjoint,
                           .width_granularity = step.width,
                           .height_granularity = step.height});
        return true;
    }

    const VulkanDriver& driver_;
    bool VulkanModifierCaps::*able_;
    Uses always_;
};

/// What is read and written past `VulkanFormatInfo::components`.
constexpr Uses unswizzled = Uses::render | Uses::store;

/// What an image is made for whatever its usage: Vulkan has no word for it.
constexpr Uses unsaid = Uses::scan_out | Uses::capture;

tl::expected<std::vector<FormatSupport>, VkResult> list_taken(const VulkanDriver& driver) {
    Listing listing(driver, &VulkanModifierCaps::importable, Uses::none);
    for (const VulkanFormatInfo& format : vulkan_formats()) {
        const std::size_t before = listing.formats.size();
        if (format.format != VK_FORMAT_UNDEFINED) {
            const VkResult result = listing.add(
                {.format = format,
                 .parts = std::span(&format.format, 1),
                 .without = format.is_swizzled || format.is_ycbcr ? unswizzled : Uses::none,
                 .converts = format.is_ycbcr});
            if (result != VK_SUCCESS)
                return tl::unexpected(result);
        }
        // What is taken as a whole may be sampled in parts only, or in some sizes.
        if (listing.formats.size() != before && !format.is_ycbcr)
            continue;
        std::array<VkFormat, 3> parts{};
        for (std::uint32_t i = 0; i < format.view_count; ++i)
            parts[i] = format.views[i].format;
        const VkResult result = listing.add({.format = format,
                                             .parts = std::span(parts).first(format.view_count),
                                             .in_parts = true,
                                             .without = unswizzled});
        if (result != VK_SUCCESS)
            return tl::unexpected(result);
    }
    return std::move(listing.formats);
}

tl::expected<std::vector<FormatSupport>, VkResult> list_made(const VulkanDriver& driver) {
    Listing listing(driver, &VulkanModifierCaps::exportable, unsaid);
    for (const VulkanFormatInfo& format : vulkan_formats()) {
        if (format.format == VK_FORMAT_UNDEFINED)
            continue;
        const VkResult result = listing.add(
            {.format = format,
             .parts = std::span(&format.format, 1),
             .without = format.is_swizzled || format.is_ycbcr ? unswizzled : Uses::none});
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

Error not_told(const VulkanDriver& driver, VkResult result, std::string_view operation) {
    return failed_vk(result, operation, driver.name, "the driver could not be asked for its limits",
                     "Free memory and try again");
}

/// Whether `CpuMap` maps what \p device exports, found by doing so: a small image, LINEAR where it
/// makes that.
bool is_mappable(const VulkanDevice& device, std::span<const FormatSupport> makes) {
    if (makes.empty())
        return false;
    const auto linear =
        std::ranges::find(makes, std::uint64_t{DRM_FORMAT_MOD_LINEAR}, &FormatSupport::modifier);
    const FormatSupport& tried = linear == makes.end() ? makes.front() : *linear;
    const auto image = device.export_image({.width = std::min(tried.max_width, 64U),
                                            .height = std::min(tried.max_height, 64U),
                                            .format = tried.format,
                                            .usage = usage_of(tried.uses),
                                            .modifiers = std::span(&tried.modifier, 1)});
    return image && CpuMap::map(image->frame().buffer(), Access::read_write);
}

} // namespace

Result<ImporterCaps> VulkanDevice::importer_caps() const noexcept {
    const VulkanDriver& driver = *state_->driver;
    auto formats = list_taken(driver);
    if (!formats)
        return tl::unexpected(not_told(driver, formats.error(), "VulkanDevice::importer_caps"));
    const VulkanPadding padding = padding_of(state_->driver);
    const auto unless_one = [](std::uint32_t alignment) { return alignment == 1 ? 0 : alignment; };
    return ImporterCaps{.name = "vulkan " + driver.name,
                        .device = device_of(driver),
                        .formats = std::move(*formats),
                        .height_alignment = unless_one(padding.rows),
                        .slack = padding.slack,
                        .size_alignment = unless_one(padding.rounding),
                        .maps = is_software(driver)};
}

Result<ExporterCaps> VulkanDevice::exporter_caps() const noexcept {
    const VulkanDriver& driver = *state_->driver;
    auto formats = list_made(driver);
    if (!formats)
        return tl::unexpected(not_told(driver, formats.error(), "VulkanDevice::exporter_caps"));
    const bool mappable = is_mappable(*this, *formats);
    return ExporterCaps{.name = "vulkan " + driver.name,
                        .device = device_of(driver),
                        .max_size_source = "none known: the driver's own",
                        .granularity = 1,
                        .cpu_mappable = mappable,
                        .gives_bytes = false,
                        .lays_out_frames = true,
                        .formats = std::move(*formats)};
}

} // namespace sluice
