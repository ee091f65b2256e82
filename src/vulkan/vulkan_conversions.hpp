// SPDX-License-Identifier: MIT
/// \file
/// The VkSamplerYcbcrConversions of a device, made once each. Not installed.
#pragma once

#include <array>
#include <mutex>
#include <optional>
#include <vector>

#include <tl/expected.hpp>
#include <vulkan/vulkan_core.h>

namespace sluice {

struct VulkanDriver;
struct VulkanFormatInfo;
struct VulkanTextureInfo;

/// The sampler's filter may differ from the conversion's.
constexpr VkFormatFeatureFlags2 separate_filters =
    VK_FORMAT_FEATURE_2_SAMPLED_IMAGE_YCBCR_CONVERSION_SEPARATE_RECONSTRUCTION_FILTER_BIT;

/// What tells one conversion from another.
struct VulkanConversionKey {
    VkFormat format = VK_FORMAT_UNDEFINED;
    VkSamplerYcbcrModelConversion model = VK_SAMPLER_YCBCR_MODEL_CONVERSION_RGB_IDENTITY;
    VkSamplerYcbcrRange range = VK_SAMPLER_YCBCR_RANGE_ITU_FULL;
    std::array<VkComponentSwizzle, 4> components{};
    VkChromaLocation x_chroma = VK_CHROMA_LOCATION_COSITED_EVEN;
    VkChromaLocation y_chroma = VK_CHROMA_LOCATION_COSITED_EVEN;
    VkFilter chroma_filter = VK_FILTER_NEAREST;

    /// What comes nearest to \p info where the driver has \p features for images of \p format, or
    /// nothing where it converts none of them.
    [[nodiscard]] static std::optional<VulkanConversionKey>
    of(const VulkanFormatInfo& format, const VulkanTextureInfo& info,
       VkFormatFeatureFlags2 features) noexcept;
    [[nodiscard]] bool operator==(const VulkanConversionKey&) const noexcept = default;
};

/// Threads: any, but for `clear`.
class VulkanConversions {
public:
    [[nodiscard]] tl::expected<VkSamplerYcbcrConversion, VkResult>
    find(const VulkanDriver& driver, const VulkanConversionKey& key);

    /// Destroys all; for the driver's end.
    void clear(const VulkanDriver& driver) noexcept;

private:
    struct Entry {
        VulkanConversionKey key;
        VkSamplerYcbcrConversion conversion = VK_NULL_HANDLE;
    };

    std::mutex lock_;
    std::vector<Entry> all_; // few
};

} // namespace sluice
