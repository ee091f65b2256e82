// SPDX-License-Identifier: MIT
#include <cstdint>
#include <vector>

#include <vulkan/vulkan_core.h>

// As in later headers; Debian 12's do not have it. The specification's words,
// VK_EXT_layer_settings.
#ifndef VK_EXT_layer_settings
#define VK_EXT_layer_settings 1
constexpr auto VK_STRUCTURE_TYPE_LAYER_SETTINGS_CREATE_INFO_EXT =
    static_cast<VkStructureType>(1000496000);
enum VkLayerSettingTypeEXT {
    VK_LAYER_SETTING_TYPE_BOOL32_EXT = 0,
    VK_LAYER_SETTING_TYPE_INT32_EXT = 1,
    VK_LAYER_SETTING_TYPE_STRING_EXT = 7,
};
struct VkLayerSettingEXT {
    const char* pLayerName;
    const char* pSettingName;
    VkLayerSettingTypeEXT type;
    std::uint32_t valueCount;
    const void* pValues;
};
struct VkLayerSettingsCreateInfoEXT {
    VkStructureType sType;
    const void* pNext;
    std::uint32_t settingCount;
    const VkLayerSettingEXT* pSettings;
};
#endif

#include "settings_chain.hpp"

#include <gtest/gtest.h>

namespace sluice::layer {
namespace {

using Type = GivenSetting::Type;

constexpr const char* ours = "VK_LAYER_SLUICE_dma_buf";

VkLayerSettingsCreateInfoEXT chained(const std::vector<VkLayerSettingEXT>& settings,
                                     const void* next = nullptr) {
    return {.sType = VK_STRUCTURE_TYPE_LAYER_SETTINGS_CREATE_INFO_EXT,
            .pNext = next,
            .settingCount = static_cast<std::uint32_t>(settings.size()),
            .pSettings = settings.data()};
}

TEST(LayerSettingsChainTest, AnEmptyChainHasNone) {
    EXPECT_TRUE(settings_in_chain(nullptr).empty());
    const VkApplicationInfo other{.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO};
    EXPECT_TRUE(settings_in_chain(&other).empty());
    const VkLayerSettingsCreateInfoEXT nothing = chained({});
    EXPECT_TRUE(settings_in_chain(&nothing).empty());
}

TEST(LayerSettingsChainTest, OursComeInTheirOrderFromEveryStructure) {
    const char* const words[] = {"ownership", "second"};
    const char* const file = "t.json";
    const VkBool32 yes = VK_TRUE, no = VK_FALSE;
    const std::int32_t number = 1;
    const std::vector<VkLayerSettingEXT> last{
        {ours, "trace", VK_LAYER_SETTING_TYPE_STRING_EXT, 1, &file},
        {ours, "log", VK_LAYER_SETTING_TYPE_STRING_EXT, 0, nullptr},
        {ours, "emulate", VK_LAYER_SETTING_TYPE_BOOL32_EXT, 0, nullptr},
        {ours, "validate", VK_LAYER_SETTING_TYPE_INT32_EXT, 1, &number}};
    const std::vector<VkLayerSettingEXT> first{
        {"VK_LAYER_KHRONOS_validation", "sync", VK_LAYER_SETTING_TYPE_STRING_EXT, 1, &file},
        {ours, "sync", VK_LAYER_SETTING_TYPE_STRING_EXT, 2, words},
        {ours, "validate", VK_LAYER_SETTING_TYPE_BOOL32_EXT, 1, &yes},
        {ours, "sync_on_cpu", VK_LAYER_SETTING_TYPE_BOOL32_EXT, 1, &no}};
    const VkLayerSettingsCreateInfoEXT inner = chained(last);
    const VkApplicationInfo between{.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .pNext = &inner};
    const VkLayerSettingsCreateInfoEXT outer = chained(first, &between);

    const std::vector<GivenSetting> given = settings_in_chain(&outer);
    const GivenSetting expected[] = {{"sync", Type::text, "ownership"},
                                     {"validate", Type::boolean, "true"},
                                     {"sync_on_cpu", Type::boolean, "false"},
                                     {"trace", Type::text, "t.json"},
                                     {"log", Type::other, ""},
                                     {"emulate", Type::other, ""},
                                     {"validate", Type::other, ""}};
    ASSERT_EQ(given.size(), std::size(expected));
    for (std::size_t i = 0; i < given.size(); ++i) {
        EXPECT_EQ(given[i].key, expected[i].key) << i;
        EXPECT_EQ(given[i].type, expected[i].type) << i;
        EXPECT_EQ(given[i].value, expected[i].value) << i;
    }

    LoadedSettings loaded;
    read_given(given, loaded);
    const Settings read{.sync = Settings::Sync::ownership, .validate = true, .trace = "t.json"};
    EXPECT_EQ(loaded.settings, read);
    EXPECT_EQ(loaded.messages.size(), 2U); // log and emulate, without a value
}

} // namespace
} // namespace sluice::layer
