// SPDX-License-Identifier: MIT
#include "vulkan/vulkan_conversions.hpp"

#include <algorithm>

#include <sluice/vulkan_format.hpp>
#include <sluice/vulkan_texture.hpp>

#include "vulkan/vulkan_driver.hpp"

namespace sluice {

std::optional<VulkanConversionKey>
VulkanConversionKey::of(const VulkanFormatInfo& format, const VulkanTextureInfo& info,
                        VkFormatFeatureFlags2 features) noexcept {
    const auto has = [features](VkFormatFeatureFlags2 feature) {
        return (features & feature) != 0;
    };
    // VUID-VkSamplerYcbcrConversionCreateInfo-format-01650.
    const bool cosited = has(VK_FORMAT_FEATURE_2_COSITED_CHROMA_SAMPLES_BIT);
    const bool midpoint = has(VK_FORMAT_FEATURE_2_MIDPOINT_CHROMA_SAMPLES_BIT);
    if (!cosited && !midpoint)
        return std::nullopt;
    // -xChromaOffset-01651 and -01652.
    const auto place = [&](VkChromaLocation wanted) {
        if (wanted == VK_CHROMA_LOCATION_COSITED_EVEN)
            return cosited ? wanted : VK_CHROMA_LOCATION_MIDPOINT;
        return midpoint ? wanted : VK_CHROMA_LOCATION_COSITED_EVEN;
    };
    // -chromaFilter-01657. Where the sampler's filter must be the same
    // (VUID-VkSamplerCreateInfo-minFilter-01645), the image must be able to be filtered too.
    const bool linear =
        has(VK_FORMAT_FEATURE_2_SAMPLED_IMAGE_YCBCR_CONVERSION_LINEAR_FILTER_BIT) &&
        (has(separate_filters) || has(VK_FORMAT_FEATURE_2_SAMPLED_IMAGE_FILTER_LINEAR_BIT));
    return VulkanConversionKey{.format = format.format,
                               .model = info.model,
                               .range = info.range,
                               .components = {format.components.r, format.components.g,
                                              format.components.b, format.components.a},
                               .x_chroma = place(info.x_chroma),
                               .y_chroma = place(info.y_chroma),
                               .chroma_filter = linear ? info.chroma_filter : VK_FILTER_NEAREST};
}

tl::expected<VkSamplerYcbcrConversion, VkResult>
VulkanConversions::find(const VulkanDriver& driver, const VulkanConversionKey& key) {
    const std::scoped_lock held(lock_);
    const auto known = std::ranges::find(all_, key, &Entry::key);
    if (known != all_.end())
        return known->conversion;
    const VkSamplerYcbcrConversionCreateInfo create{
        .sType = VK_STRUCTURE_TYPE_SAMPLER_YCBCR_CONVERSION_CREATE_INFO,
        .pNext = nullptr,
        .format = key.format,
        .ycbcrModel = key.model,
        .ycbcrRange = key.range,
        .components = {key.components[0], key.components[1], key.components[2], key.components[3]},
        .xChromaOffset = key.x_chroma,
        .yChromaOffset = key.y_chroma,
        .chromaFilter = key.chroma_filter,
        .forceExplicitReconstruction = VK_FALSE};
    VkSamplerYcbcrConversion created = VK_NULL_HANDLE;
    const VkResult result =
        driver.vk.CreateSamplerYcbcrConversion(driver.info.device, &create, nullptr, &created);
    if (result != VK_SUCCESS)
        return tl::unexpected(result);
    all_.push_back({.key = key, .conversion = created});
    return created;
}

void VulkanConversions::clear(const VulkanDriver& driver) noexcept {
    for (const Entry& each : all_)
        driver.vk.DestroySamplerYcbcrConversion(driver.info.device, each.conversion, nullptr);
    all_.clear();
}

} // namespace sluice
