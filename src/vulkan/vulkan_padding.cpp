// SPDX-License-Identifier: MIT
#include "vulkan/vulkan_padding.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include <drm_fourcc.h>

#include "frame/multiples.hpp"
#include "vulkan/vulkan_image_state.hpp"

namespace sluice {

namespace {

constexpr std::uint32_t most_rows = 128;
constexpr std::uint32_t most_rounding = 1U << 21; // a huge page

/// The slack that explains \p samples with what else is in \p with: the largest that does.
std::optional<std::uint32_t> slack_of(std::span<const VulkanSizeSample> samples,
                                      const VulkanPadding& with) {
    std::uint64_t least = 0, most = UINT32_MAX;
    for (const VulkanSizeSample& each : samples) {
        const std::uint64_t rows = each.stride * *round_up(each.rows, with.rows);
        if (each.size % with.rounding != 0 || each.size < rows)
            return std::nullopt;
        const std::uint64_t behind = each.size - rows;
        most = std::min(most, behind);
        if (behind >= with.rounding)
            least = std::max(least, behind - with.rounding + 1);
    }
    if (least > most)
        return std::nullopt;
    return static_cast<std::uint32_t>(most);
}

/// The size and the alignment of the memory that an image of \p stride bytes and \p rows wants, or
/// nothing where the driver makes no such image.
std::optional<VulkanSizeSample> sample(const std::shared_ptr<const VulkanDriver>& driver,
                                       std::uint32_t stride, std::uint32_t rows) {
    VulkanImageHandles probe(driver);
    const VkSubresourceLayout plane{.offset = 0, .size = 0, .rowPitch = stride};
    const VkImageDrmFormatModifierExplicitCreateInfoEXT layout{
        .sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_EXPLICIT_CREATE_INFO_EXT,
        .pNext = nullptr,
        .drmFormatModifier = DRM_FORMAT_MOD_LINEAR,
        .drmFormatModifierPlaneCount = 1,
        .pPlaneLayouts = &plane};
    const VkResult result = create_image(*driver,
                                         {.format = VK_FORMAT_B8G8R8A8_UNORM,
                                          .extent = {stride / 4, rows},
                                          .usage = VK_IMAGE_USAGE_TRANSFER_SRC_BIT,
                                          .layout = &layout},
                                         probe.image);
    if (result != VK_SUCCESS)
        return std::nullopt;
    const VkMemoryRequirements needs = image_needs(*driver, probe.image).requirements;
    return VulkanSizeSample{
        .stride = stride, .rows = rows, .size = needs.size, .alignment = needs.alignment};
}

} // namespace

VulkanPadding padding_of(std::span<const VulkanSizeSample> samples) noexcept {
    if (samples.empty())
        return {};
    // Sizes that are all multiples of the memory's alignment are taken to be rounded up to it: the
    // samples' rows are multiples of much by themselves, and would not show it.
    std::uint32_t known = 1;
    const std::uint64_t alignment = samples.front().alignment;
    if (alignment > 1 && alignment <= most_rounding &&
        std::ranges::all_of(samples, [&](const VulkanSizeSample& each) {
            return each.alignment == alignment && each.size % alignment == 0;
        }))
        known = static_cast<std::uint32_t>(alignment);
    VulkanPadding padding;
    for (padding.rows = 1; padding.rows <= most_rows; ++padding.rows)
        for (padding.rounding = known; padding.rounding <= most_rounding; padding.rounding *= 2)
            if (const auto slack = slack_of(samples, padding)) {
                padding.slack = *slack;
                return padding;
            }
    std::uint64_t most = 0;
    for (const VulkanSizeSample& each : samples)
        if (const std::uint64_t rows = std::uint64_t{each.stride} * each.rows; each.size > rows)
            most = std::max(most, each.size - rows);
    return {.slack = static_cast<std::uint32_t>(std::min<std::uint64_t>(most, UINT32_MAX))};
}

VulkanPadding padding_of(const std::shared_ptr<const VulkanDriver>& driver) {
    if (!driver->caps.modifiers)
        return {};
    // Odd multiples of what every driver takes for a stride, so that few rows end on a boundary by
    // themselves; 16 and 256 do.
    constexpr std::array strides{17U * 256, 63U * 256};
    constexpr std::array rows{1U, 2U, 3U, 5U, 9U, 16U, 17U, 33U, 65U, 256U};
    std::vector<VulkanSizeSample> samples;
    for (const std::uint32_t stride : strides)
        for (const std::uint32_t count : rows)
            if (const auto one = sample(driver, stride, count))
                samples.push_back(*one);
    return padding_of(samples);
}

} // namespace sluice
