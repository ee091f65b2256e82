// SPDX-License-Identifier: MIT
#include <sluice/vulkan_texture.hpp>

#include <algorithm>

#include "vulkan/vulkan_conversions.hpp"
#include "vulkan/vulkan_device_state.hpp"
#include "vulkan/vulkan_error.hpp"
#include <sluice/format.hpp>
#include <sluice/vulkan_format.hpp>

namespace sluice {

namespace {

constexpr const char* operation = "VulkanDevice::texture";

VulkanAttachmentKey key_of(VkImageUsageFlags usage, std::uint32_t part) noexcept {
    return {.kind = VulkanAttachmentKey::Kind::image, .part = part, .usage = usage};
}

} // namespace

Result<VulkanTexture> VulkanDevice::texture(const Frame& frame,
                                            const VulkanTextureInfo& info) const noexcept {
    const VulkanDriver& driver = *state_->driver;
    const VulkanFormatInfo* format = find_vulkan_format(frame.layout().format);
    const bool converts = format != nullptr && format->is_ycbcr;
    const auto failed = [&](VkResult result, const char* problem) {
        return tl::unexpected(failed_vk(result, operation,
                                        describe(frame.layout()) + " on " + driver.name, problem,
                                        "Free device objects and try again"));
    };

    // Whether the frame is sampled as a whole is found once and shows in what is attached.
    const auto attached = [&](std::uint32_t part) {
        return state_->attachments.find(frame, key_of(info.usage, part)) != nullptr;
    };
    const bool in_parts = (converts && !driver.info.sampler_ycbcr_conversion) ||
                          (!attached(VulkanAttachmentKey::whole) && attached(0));
    VulkanTexture texture;
    if (!in_parts) {
        auto whole = attach(frame, {.usage = info.usage});
        if (whole) {
            texture.parts_ = 1;
            texture.images_[0] = std::move(*whole);
        } else if (whole.error().code != Errc::unsupported || format == nullptr) {
            whole.error().operation = operation;
            return tl::unexpected(std::move(whole.error()));
        }
    }
    if (texture.parts_ == 0) {
        for (std::uint32_t part = 0; part < format->view_count; ++part) {
            auto one = attach(frame, {.usage = info.usage, .view = part});
            if (!one) {
                one.error().operation = operation;
                return tl::unexpected(std::move(one.error()));
            }
            texture.images_[part] = std::move(*one);
        }
        texture.parts_ = format->view_count;
    } else if (converts) {
        const auto modifiers = driver.image_caps->modifiers(
            driver, {.format = format->format, .usage = info.usage, .flags = 0});
        if (!modifiers)
            return failed(modifiers.error(), "the driver could not be asked for its features");
        const auto caps =
            std::ranges::find(*modifiers, frame.layout().modifier, &VulkanModifierCaps::modifier);
        const VkFormatFeatureFlags2 features = caps == modifiers->end() ? 0 : caps->features;
        const auto conversion =
            driver.conversions->find(driver, VulkanConversionKey::of(*format, info, features));
        if (!conversion)
            return failed(conversion.error(), "vkCreateSamplerYcbcrConversion failed");
        texture.conversion_ = *conversion;
    }
    for (std::uint32_t part = 0; part < texture.parts_; ++part) {
        auto view = texture.images_[part]->view(texture.conversion_);
        if (!view)
            return tl::unexpected(std::move(view.error()));
        texture.views_[part] = *view;
    }
    return texture;
}

} // namespace sluice
