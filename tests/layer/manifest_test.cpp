// SPDX-License-Identifier: MIT
// The manifests that CMake makes, and the page for users, against what the layer reads.
#include "settings.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace sluice::layer {
namespace {

using Json = nlohmann::json;
using Kind = SettingInfo::Kind;

std::string contents(const std::string& path) {
    std::ifstream file(path);
    EXPECT_TRUE(file) << path;
    return {std::istreambuf_iterator(file), {}};
}

Json manifest(const std::string& folder) {
    return Json::parse(
        contents(SLUICE_LAYER_MANIFESTS "/" + folder + "/VkLayer_sluice_dma_buf.json"));
}

/// The settings of \p list and of what is nested in them, by their keys.
void collect(const Json& list, std::map<std::string, Json>& into) {
    for (const Json& setting : list) {
        EXPECT_TRUE(into.emplace(setting.at("key"), setting).second) << setting.at("key");
        if (setting.contains("settings"))
            collect(setting.at("settings"), into);
    }
}

std::map<std::string, Json> settings_of(const Json& file) {
    std::map<std::string, Json> all;
    collect(file.at("layer").at("features").at("settings"), all);
    return all;
}

/// What vkconfig writes for \p value into vk_layer_settings.txt.
std::string written(const Json& value) {
    return value.is_string() ? value.get<std::string>() : value.dump();
}

class LayerManifestTest : public testing::TestWithParam<const char*> {
protected:
    const Json file = manifest(GetParam());
    const Json layer = file.at("layer");
};

INSTANTIATE_TEST_SUITE_P(All, LayerManifestTest,
                         testing::Values("explicit_layer.d", "implicit_layer.d",
                                         "install/explicit_layer.d", "install/implicit_layer.d"),
                         [](const auto& folder) {
                             std::string name = folder.param;
                             std::erase_if(name, [](char c) { return !std::isalpha(c); });
                             return name;
                         });

// The loader's "Loader and Layer Interface", "Layer Manifest File Format" and "Requirements of
// Well-Behaved Layers".
TEST_P(LayerManifestTest, KeepsTheLoadersRules) {
    EXPECT_EQ(file.at("file_format_version"), "1.2.0");
    EXPECT_EQ(layer.at("name"),
              layer_name); // LLP_LAYER_3: prefix, ALL_CAPS vendor, lower_case name
    for (const char* required : {"type", "library_path", "api_version", "implementation_version",
                                 "description"}) // LLP_LAYER_6
        EXPECT_TRUE(layer.at(required).is_string()) << required;
    EXPECT_EQ(layer.at("api_version").get<std::string>().substr(0, 2), "1.");
    EXPECT_FALSE(layer.contains("component_layers")); // LLP_LAYER_7 and 8 are of meta-layers
    const bool implicit = std::string_view(GetParam()).find("implicit") != std::string_view::npos;
    EXPECT_EQ(layer.contains("disable_environment"), implicit); // LLP_LAYER_9
    EXPECT_EQ(layer.contains("enable_environment"), implicit);
    if (implicit) {
        EXPECT_EQ(layer.at("enable_environment"), Json({{"ENABLE_SLUICE_DMA_BUF", "1"}}));
        EXPECT_EQ(layer.at("disable_environment"), Json({{"DISABLE_SLUICE_DMA_BUF", "1"}}));
    }
    for (const char* list : {"instance_extensions", "device_extensions"})
        for (const Json& extension : layer.at(list)) {
            EXPECT_TRUE(extension.at("name").is_string());
            EXPECT_TRUE(extension.at("spec_version").is_string());
        }
}

TEST_P(LayerManifestTest, NamesTheLibrary) {
    const bool installed = std::string_view(GetParam()).starts_with("install/");
    EXPECT_EQ(layer.at("library_path"),
              std::string(installed ? "" : "../") + "libVkLayer_sluice_dma_buf.so");
}

TEST_P(LayerManifestTest, HasTheSettingsThatTheLayerKnows) {
    std::map<std::string, Json> described = settings_of(file);
    for (const SettingInfo& known : known_settings()) {
        SCOPED_TRACE(known.key);
        ASSERT_TRUE(described.contains(std::string(known.key)));
        const Json setting = described.extract(std::string(known.key)).mapped();
        EXPECT_EQ(setting.at("type"), known.kind == Kind::word      ? "ENUM"
                                      : known.kind == Kind::boolean ? "BOOL"
                                                                    : "SAVE_FILE");
        EXPECT_EQ(setting.at("default").is_boolean(), known.kind == Kind::boolean);
        EXPECT_EQ(written(setting.at("default")), known.fallback);
        EXPECT_EQ(setting.at("description"), known.description);
        EXPECT_FALSE(setting.at("label").get<std::string>().empty());
        EXPECT_EQ(setting.at("platforms"), Json({"LINUX"}));
        std::vector<std::string> words;
        for (const Json& flag : setting.value("flags", Json::array()))
            words.push_back(flag.at("key"));
        if (known.kind == Kind::word)
            EXPECT_TRUE(std::ranges::equal(words, known.words));
        else
            EXPECT_TRUE(words.empty());

        // What it calls the setting in the environment is read, and as this setting.
        const std::string env = setting.at("env").get<std::string>() + "=?";
        const char* const block[] = {env.c_str(), nullptr};
        LoadedSettings loaded;
        read_environment(block, loaded);
        if (known.kind == Kind::file)
            EXPECT_TRUE(loaded.settings.trace == "?" || loaded.settings.log_file == "?");
        else
            ASSERT_EQ(loaded.messages.size(), 1U);
        EXPECT_EQ(
            env, "VK_SLUICE_DMA_BUF_" + [&] {
                std::string upper(known.key);
                std::ranges::transform(upper, upper.begin(),
                                       [](char c) { return std::toupper(c); });
                return upper;
            }() + "=?");
    }
    EXPECT_TRUE(described.empty()) << described.begin()->first << " is unknown to the layer";
}

TEST_P(LayerManifestTest, HasPresetsAndDependencesThatTheLayerReads) {
    std::set<std::string> labels;
    const auto check = [](const Json& values) {
        std::set<std::string> keys;
        for (const Json& value : values) {
            LoadedSettings loaded;
            read_text("sluice_dma_buf." + value.at("key").get<std::string>() + " = " +
                          written(value.at("value")),
                      "manifest", loaded);
            EXPECT_TRUE(loaded.messages.empty()) << loaded.messages[0];
            keys.insert(value.at("key"));
        }
        return keys.size();
    };
    for (const Json& preset : layer.at("features").at("presets")) {
        EXPECT_EQ(check(preset.at("settings")), preset.at("settings").size())
            << preset.at("label") << " sets something twice";
        labels.insert(preset.at("label"));
    }
    EXPECT_EQ(labels, (std::set<std::string>{"Out of the box", "Validate hand-overs", "Trace"}));
    for (const auto& [key, setting] : settings_of(file)) {
        if (!setting.contains("dependence"))
            continue;
        EXPECT_GT(check(setting.at("dependence").at("settings")), 0U) << key;
    }
}

TEST(LayerPresetTest, OutOfTheBoxIsTheDefault) {
    const Json file = manifest("explicit_layer.d");
    const Json preset = file.at("layer").at("features").at("presets").at(0);
    LoadedSettings loaded{.settings = {.sync = Settings::Sync::off,
                                       .sync_on_cpu = true,
                                       .validate = true,
                                       .trace = "t",
                                       .emulate = true}};
    for (const Json& value : preset.at("settings"))
        read_text("sluice_dma_buf." + value.at("key").get<std::string>() + " = " +
                      written(value.at("value")),
                  "manifest", loaded);
    EXPECT_EQ(loaded.settings, Settings());
}

TEST(LayerPageTest, HasARowForEachSetting) {
    const std::string page = contents(SLUICE_LAYER_PAGE);
    for (const SettingInfo& known : known_settings()) {
        std::string values;
        if (known.kind == Kind::word)
            for (const std::string_view word : known.words)
                values += (values.empty() ? "`" : ", `") + std::string(word) + "`";
        else
            values = known.kind == Kind::boolean ? "`true`, `false`" : "a file";
        const std::string fallback =
            known.fallback.empty() ? "none" : "`" + std::string(known.fallback) + "`";
        const std::string row =
            "| `" + std::string(known.key) + "` | " + values + " | " + fallback + " | ";
        EXPECT_NE(page.find(row), std::string::npos) << "docs/layer.md has no row " << row;
    }
}

} // namespace
} // namespace sluice::layer
