// SPDX-License-Identifier: MIT
#include <sluice/vulkan_texture.hpp>

#include <algorithm>
#include <string>
#include <string_view>

#include <drm_fourcc.h>

#include "vulkan/vulkan_conversions.hpp"
#include "vulkan/vulkan_device_state.hpp"
#include "vulkan/vulkan_error.hpp"
#include "vulkan/vulkan_image_state.hpp"
#include <sluice/format.hpp>
#include <sluice/vulkan_format.hpp>

namespace sluice {

namespace {

constexpr const char* operation = "VulkanDevice::texture";
constexpr const char* not_enabled = "the feature samplerYcbcrConversion is not enabled";

/// What the driver says of images of \p kind and the frame's modifier; nothing where it has none.
tl::expected<std::optional<VkFormatFeatureFlags2>, VkResult>
features_of(const VulkanDriver& driver, const VulkanImageKind& kind, std::uint64_t modifier) {
    const auto modifiers = driver.image_caps->modifiers(driver, kind);
    if (!modifiers)
        return tl::unexpected(modifiers.error());
    const auto found = std::ranges::find(*modifiers, modifier, &VulkanModifierCaps::modifier);
    if (found == modifiers->end())
        return std::nullopt;
    return found->features;
}

/// \p part's error, with the reason why the frame is not sampled as a whole, empty where another
/// call has told it.
Error of_both(Error part, std::string_view not_whole, std::uint64_t modifier) {
    part.operation = operation;
    if (not_whole.empty() || not_whole == part.problem || part.code != Errc::unsupported)
        return part;
    part.problem += "; as a whole: " + std::string(not_whole);
    if (modifier == DRM_FORMAT_MOD_LINEAR)
        return part;
    // It is no use to attach the whole instead.
    part.remedy =
        std::string(not_whole == not_enabled ? "Enable the feature, or allocate" : "Allocate") +
        " the frame LINEAR, or with a modifier that VulkanDevice::support tells of";
    return part;
}

} // namespace

Result<VulkanTexture> VulkanDevice::texture(const Frame& frame,
                                            const VulkanTextureInfo& info) const noexcept {
    using Lookup = VulkanAttachmentCache::Lookup;
    const VulkanDriver& driver = *state_->driver;
    const std::uint64_t modifier = frame.layout().modifier;
    const auto failed = [&](VkResult result, const char* problem) {
        return tl::unexpected(failed_vk(result, operation,
                                        describe(frame.layout()) + " on " + driver.name, problem,
                                        "Free device objects and try again"));
    };
    constexpr const char* not_told = "the driver could not be asked for its features";
    Lookup lookup = Lookup::of_a_new_call;
    const auto attached = [&](std::optional<std::uint32_t> part) {
        auto state = state_->attach(frame, {.usage = info.usage, .view = part}, lookup);
        lookup = Lookup::of_the_same_call;
        return state;
    };

    const VulkanFormatInfo* format = find_vulkan_format(frame.layout().format);
    const bool has_parts = format != nullptr && (format->is_ycbcr || !view_is_whole(*format));
    const char* known = nullptr; // why the frame is not sampled as a whole
    std::optional<VulkanConversionKey> conversion;
    if (has_parts && format->format == VK_FORMAT_UNDEFINED) {
        known = "Vulkan has no format for all of its planes together";
    } else if (has_parts && format->is_ycbcr && !driver.info.sampler_ycbcr_conversion) {
        known = not_enabled;
    } else if (has_parts && format->is_ycbcr && info.usage != 0) {
        const auto features =
            features_of(driver, {.format = format->format, .usage = info.usage}, modifier);
        if (!features)
            return failed(features.error(), not_told);
        if (*features) {
            conversion = VulkanConversionKey::of(*format, info, **features);
            if (!conversion)
                known = "the driver converts none of this format and modifier";
        }
    }
    bool in_parts = known != nullptr;
    if (!in_parts && has_parts) {
        // What else makes the whole fail is found by trying, and shows in the first part from then
        // on.
        const auto first = state_->attachments.find(
            frame, {.kind = VulkanAttachmentKey::Kind::image, .part = 0, .usage = info.usage},
            lookup);
        lookup = Lookup::of_the_same_call;
        in_parts =
            first != nullptr && static_cast<const VulkanImage::State&>(*first).instead_of_whole;
    }

    VulkanTexture texture;
    std::string found; // the same, where it had to be tried
    if (!in_parts) {
        auto whole = attached(std::nullopt);
        if (whole) {
            texture.parts_ = 1;
            texture.images_[0] = VulkanImage(std::move(*whole), frame);
        } else if (whole.error().code != Errc::unsupported || !has_parts) {
            whole.error().operation = operation;
            return tl::unexpected(std::move(whole.error()));
        } else {
            found = std::move(whole.error().problem);
        }
    }
    in_parts = texture.parts_ == 0;
    if (in_parts) {
        for (std::uint32_t part = 0; part < format->view_count; ++part) {
            auto one = attached(part);
            if (!one)
                return tl::unexpected(
                    of_both(std::move(one.error()), known ? known : found, modifier));
            if (part == 0 && known == nullptr)
                (*one)->instead_of_whole = true;
            texture.images_[part] = VulkanImage(std::move(*one), frame);
        }
        texture.parts_ = format->view_count;
    } else if (conversion) {
        const auto made = driver.conversions->find(driver, *conversion);
        if (!made)
            return failed(made.error(), "vkCreateSamplerYcbcrConversion failed");
        texture.conversion_ = *made;
        texture.sampling_ = {.x_chroma = conversion->x_chroma,
                             .y_chroma = conversion->y_chroma,
                             .chroma_filter = conversion->chroma_filter};
    }
    texture.sampling_.linear = true;
    for (std::uint32_t part = 0; part < texture.parts_; ++part) {
        const VulkanImage& image = *texture.images_[part];
        const auto features = features_of(driver,
                                          {.format = image.format(),
                                           .usage = info.usage,
                                           .linear_only = in_parts && !view_is_whole(*format)},
                                          modifier);
        if (!features)
            return failed(features.error(), not_told);
        const VkFormatFeatureFlags2 has = features->value_or(0);
        VulkanSampling& sampling = texture.sampling_;
        sampling.linear =
            sampling.linear && (has & VK_FORMAT_FEATURE_2_SAMPLED_IMAGE_FILTER_LINEAR_BIT) != 0;
        if (texture.conversion_ != VK_NULL_HANDLE)
            sampling.separate_filters = (has & separate_filters) != 0;
        auto view = image.view(texture.conversion_);
        if (!view)
            return tl::unexpected(std::move(view.error()));
        texture.views_[part] = *view;
    }
    return texture;
}

} // namespace sluice
