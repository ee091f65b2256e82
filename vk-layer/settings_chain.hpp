// SPDX-License-Identifier: MIT
/// \file
/// The settings that an application hands over in a pNext chain. Not installed.
#pragma once

#include <vector>

#include <vulkan/vulkan_core.h>

#include "settings.hpp"

namespace sluice::layer {

#ifdef VK_EXT_layer_settings

/// What VkInstanceCreateInfo's \p next chain has for this layer (VK_EXT_layer_settings), in its
/// order. The views are borrowed from the chain.
[[nodiscard]] inline std::vector<GivenSetting> settings_in_chain(const void* next) noexcept {
    std::vector<GivenSetting> given;
    for (auto* link = static_cast<const VkBaseInStructure*>(next); link != nullptr;
         link = link->pNext) {
        if (link->sType != VK_STRUCTURE_TYPE_LAYER_SETTINGS_CREATE_INFO_EXT)
            continue;
        const auto* info = reinterpret_cast<const VkLayerSettingsCreateInfoEXT*>(link);
        for (const VkLayerSettingEXT& setting : std::span(info->pSettings, info->settingCount)) {
            if (setting.pLayerName != layer_name)
                continue;
            GivenSetting one{.key = setting.pSettingName, .type = GivenSetting::Type::other};
            if (setting.valueCount > 0 && setting.type == VK_LAYER_SETTING_TYPE_BOOL32_EXT) {
                one.type = GivenSetting::Type::boolean;
                one.value =
                    *static_cast<const VkBool32*>(setting.pValues) != VK_FALSE ? "true" : "false";
            } else if (setting.valueCount > 0 && setting.type == VK_LAYER_SETTING_TYPE_STRING_EXT) {
                one.type = GivenSetting::Type::text;
                one.value = *static_cast<const char* const*>(setting.pValues);
            }
            given.push_back(one);
        }
    }
    return given;
}

#else

/// The headers do not know VK_EXT_layer_settings.
[[nodiscard]] inline std::vector<GivenSetting> settings_in_chain(const void*) noexcept {
    return {};
}

#endif

} // namespace sluice::layer
