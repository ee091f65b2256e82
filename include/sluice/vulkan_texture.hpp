// SPDX-License-Identifier: MIT
/// \file
/// A frame as a shader samples it, whatever the driver makes of its format.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include <vulkan/vulkan_core.h>

#include <sluice/export.hpp>
#include <sluice/vulkan_image.hpp>

namespace sluice {

/// How a shader is to sample a frame. What is said of YCbCr counts for formats that hold it; see
/// "Sampler Y'CbCr conversion" in the Vulkan specification. The defaults are those of most video.
struct VulkanTextureInfo {
    VkImageUsageFlags usage = VK_IMAGE_USAGE_SAMPLED_BIT; ///< Others may be added.
    VkSamplerYcbcrModelConversion model = VK_SAMPLER_YCBCR_MODEL_CONVERSION_YCBCR_709;
    VkSamplerYcbcrRange range = VK_SAMPLER_YCBCR_RANGE_ITU_NARROW;
    /// Where the chroma samples lie; the other place where the driver does not know this one.
    VkChromaLocation x_chroma = VK_CHROMA_LOCATION_COSITED_EVEN;
    VkChromaLocation y_chroma = VK_CHROMA_LOCATION_MIDPOINT;
    /// VK_FILTER_NEAREST where the driver has no linear one; `VulkanSampling` tells.
    VkFilter chroma_filter = VK_FILTER_LINEAR;
};

/// What came of a `VulkanTextureInfo` on this driver, and what a sampler of the texture must keep
/// to.
struct VulkanSampling {
    /// The conversion's, where there is one.
    VkChromaLocation x_chroma = VK_CHROMA_LOCATION_COSITED_EVEN;
    VkChromaLocation y_chroma = VK_CHROMA_LOCATION_COSITED_EVEN;
    VkFilter chroma_filter = VK_FILTER_NEAREST;
    /// magFilter and minFilter may differ from `chroma_filter`; with a conversion and without this
    /// they may not (VUID-VkSamplerCreateInfo-minFilter-01645).
    bool separate_filters = true;
    /// magFilter and minFilter may be VK_FILTER_LINEAR, for all parts
    /// (VUID-vkCmdDraw-magFilter-04553).
    bool linear = false;

    /// What VkSamplerCreateInfo::magFilter and minFilter must be to come nearest to \p wanted.
    [[nodiscard]] VkFilter filter(VkFilter wanted) const noexcept {
        if (!separate_filters)
            return chroma_filter;
        return linear ? wanted : VK_FILTER_NEAREST;
    }
};

/// One image with a view, and where that holds YCbCr a conversion; or an image and a view for each
/// part that `VulkanFormatInfo::views` names, whose samples add up to the pixel: Cr, Y, Cb in red,
/// green, blue, which the shader turns into colours by itself. So it must wherever the format holds
/// YCbCr (`VulkanFormatInfo::is_ycbcr`) and there is no conversion, also where there is one part.
///
/// A handle, as `VulkanImage`. Threads: any.
class SLUICE_API VulkanTexture {
public:
    static constexpr std::uint32_t max_parts = 3;

    /// How many images and views there are: one, or as many as the format has views.
    [[nodiscard]] std::uint32_t parts() const noexcept { return parts_; }

    /// \param part below `parts()`. Each image is to be named in a `VulkanUse` and in barriers.
    [[nodiscard]] const VulkanImage& image(std::uint32_t part = 0) const noexcept {
        return *images_[part];
    }
    /// For the shader, owned by the image.
    [[nodiscard]] std::span<const VkImageView> views() const noexcept {
        return std::span(views_).first(parts_);
    }

    /// What the sampler must be made with (VkSamplerYcbcrConversionInfo), owned by the device and
    /// as good as it; VK_NULL_HANDLE where nothing is converted. Textures of one format and
    /// modifier that are asked for in one way have the same. Those of two modifiers may not: what
    /// the driver can do with a modifier is in it.
    ///
    /// The sampler's addressModeU, V and W must then be VK_SAMPLER_ADDRESS_MODE_CLAMP_TO_EDGE
    /// (VUID-VkSamplerCreateInfo-addressModeU-01646), its filters those of `sampling`, and it must
    /// be an immutable one of the descriptor set's layout.
    [[nodiscard]] VkSamplerYcbcrConversion conversion() const noexcept { return conversion_; }

    /// What the sampler must keep to.
    [[nodiscard]] const VulkanSampling& sampling() const noexcept { return sampling_; }

private:
    friend class VulkanDevice;
    VulkanTexture() noexcept = default;

    std::uint32_t parts_ = 0;
    std::array<std::optional<VulkanImage>, max_parts> images_;
    std::array<VkImageView, max_parts> views_{};
    VkSamplerYcbcrConversion conversion_ = VK_NULL_HANDLE;
    VulkanSampling sampling_;
};

} // namespace sluice
