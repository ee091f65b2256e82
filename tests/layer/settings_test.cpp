// SPDX-License-Identifier: MIT
#include "settings.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

namespace sluice::layer {
namespace {

using Sync = Settings::Sync;
using Log = Settings::Log;
using Type = GivenSetting::Type;

/// Nothing as by default.
Settings all_changed() {
    return {.sync = Sync::off,
            .sync_on_cpu = true,
            .validate = true,
            .trace = "t.json",
            .emulate = true,
            .log = Log::off,
            .log_file = "l.txt"};
}

LoadedSettings from_text(std::string_view text) {
    LoadedSettings loaded;
    read_text(text, "f", loaded);
    return loaded;
}

LoadedSettings from_environment(std::vector<const char*> entries) {
    entries.push_back(nullptr);
    LoadedSettings loaded;
    read_environment(entries.data(), loaded);
    return loaded;
}

LoadedSettings from_given(const std::vector<GivenSetting>& given) {
    LoadedSettings loaded;
    read_given(given, loaded);
    return loaded;
}

/// That there is one message, with all of \p parts in it.
void expect_told(const LoadedSettings& loaded, const std::vector<std::string_view>& parts) {
    ASSERT_EQ(loaded.messages.size(), 1U);
    for (const std::string_view part : parts)
        EXPECT_NE(loaded.messages[0].find(part), std::string::npos)
            << "no " << part << " in: " << loaded.messages[0];
    EXPECT_EQ(loaded.messages[0].find('\n'), std::string::npos);
}

TEST(LayerSettingsTest, TheTableHasTheDefaultsOfTheStructure) {
    LoadedSettings loaded{.settings = all_changed()};
    for (const SettingInfo& setting : known_settings())
        setting.assign(loaded.settings,
                       static_cast<std::size_t>(std::ranges::find(setting.words, setting.fallback) -
                                                setting.words.begin()),
                       setting.fallback);
    EXPECT_EQ(loaded.settings, Settings());
}

TEST(LayerSettingsTest, EachWordIsItsValue) {
    const std::pair<std::string_view, Sync> syncs[] = {{"off", Sync::off},
                                                       {"auto", Sync::automatic},
                                                       {"ownership", Sync::ownership},
                                                       {"all", Sync::all}};
    for (const auto& [word, value] : syncs)
        EXPECT_EQ(from_text("sluice_dma_buf.sync = " + std::string(word)).settings.sync, value)
            << word;
    const std::pair<std::string_view, Log> logs[] = {{"off", Log::off},
                                                     {"error", Log::error},
                                                     {"warn", Log::warn},
                                                     {"info", Log::info},
                                                     {"debug", Log::debug}};
    for (const auto& [word, value] : logs)
        EXPECT_EQ(from_text("sluice_dma_buf.log = " + std::string(word)).settings.log, value)
            << word;
}

TEST(LayerSettingsTest, BooleansAreWrittenInThreeWaysAndAnyCase) {
    for (const std::string_view word : {"true", "on", "1", "TRUE", "On"})
        EXPECT_TRUE(from_text("sluice_dma_buf.validate=" + std::string(word)).settings.validate)
            << word;
    for (const std::string_view word : {"false", "off", "0", "False", "OFF"}) {
        LoadedSettings loaded{.settings = all_changed()};
        read_text("sluice_dma_buf.validate=" + std::string(word), "f", loaded);
        EXPECT_FALSE(loaded.settings.validate) << word;
        EXPECT_TRUE(loaded.messages.empty()) << loaded.messages[0];
    }
}

TEST(LayerSettingsTest, AFileSetsEverything) {
    const LoadedSettings loaded = from_text("# ours\n"
                                            "sluice_dma_buf.sync = off\r\n"
                                            "\tsluice_dma_buf.sync_on_cpu\t=\ttrue \n"
                                            "sluice_dma_buf.validate = 1 # check\n"
                                            "\n"
                                            "sluice_dma_buf.trace = t.json\n"
                                            "khronos_validation.debug_action = whatever\n"
                                            "not a line of anybody\n"
                                            "sluice_dma_buf.emulate = on\n"
                                            "sluice_dma_buf.log = OFF\n"
                                            "sluice_dma_buf.log_file = l.txt");
    EXPECT_EQ(loaded.settings, all_changed());
    EXPECT_TRUE(loaded.messages.empty()) << loaded.messages[0];
}

TEST(LayerSettingsTest, TheLastLineOfAFileWins) {
    EXPECT_EQ(
        from_text("sluice_dma_buf.sync = all\nsluice_dma_buf.sync = ownership\n").settings.sync,
        Sync::ownership);
}

TEST(LayerSettingsTest, AnEmptyValueTakesAFileAway) {
    EXPECT_EQ(from_text("sluice_dma_buf.trace = a b=c\n").settings.trace, "a b=c");
    EXPECT_EQ(from_text("sluice_dma_buf.trace = a\nsluice_dma_buf.trace =\n").settings.trace, "");
}

TEST(LayerSettingsTest, ABadValueIsToldAndLeavesTheOneBefore) {
    const LoadedSettings loaded =
        from_text("sluice_dma_buf.sync = all\n\nsluice_dma_buf.sync = allways\n");
    EXPECT_EQ(loaded.settings.sync, Sync::all);
    expect_told(loaded,
                {"f:3: ", "sluice_dma_buf.sync is \"allways\"", "off, auto, ownership, all"});

    expect_told(from_text("sluice_dma_buf.sync =\n"), {"f:1: ", "is \"\"", "ownership"});
    expect_told(from_text("sluice_dma_buf.emulate = 2"), {"emulate is \"2\"", "false, true"});
    expect_told(from_text("sluice_dma_buf.emulate = tru"), {"emulate is \"tru\""});
    expect_told(from_text("sluice_dma_buf.emulate = truee"), {"emulate is \"truee\""});
    using namespace std::string_view_literals;
    const LoadedSettings nul = from_text("sluice_dma_buf.trace = a\0b"sv);
    EXPECT_EQ(nul.settings, Settings());
    expect_told(nul, {R"(trace is "a\x00b")"});
}

TEST(LayerSettingsTest, WhatIsNoSettingOfOursIsTold) {
    expect_told(from_text("\nsluice_dma_buf.snyc = off"),
                {"f:2: ", "\"sluice_dma_buf.snyc\"", "sync, sync_on_cpu, validate", "log_file"});
    expect_told(from_text("sluice_dma_buf.Sync = off"), {"\"sluice_dma_buf.Sync\""});
    expect_told(from_text("sluice_dma_buf. = off"), {"\"sluice_dma_buf.\""});
    expect_told(from_text("sluice_dma_buf.sync off"), {"\"sluice_dma_buf.sync off\"", "no \"=\""});
    expect_told(from_text("sluice_dma_buf.sync # = off"), {"no \"=\""});
    expect_told(from_text("sluice_dma_buf.\x1b[2J\x7f = off"), {R"(\x1b[2J\x7f)"});
    const std::string long_key =
        from_text("sluice_dma_buf." + std::string(500, 'x') + "=").messages[0];
    EXPECT_LT(long_key.size(), 250U);
    EXPECT_NE(long_key.find("xx...\""), std::string::npos);
}

TEST(LayerSettingsTest, TheEnvironmentSetsEverything) {
    const LoadedSettings loaded =
        from_environment({"VK_SLUICE_DMA_BUF_SYNC=off", "VK_SLUICE_DMA_BUF_SYNC_ON_CPU=1",
                          "VK_SLUICE_DMA_BUF_VALIDATE=true", "VK_SLUICE_DMA_BUF_TRACE=t.json",
                          "VK_SLUICE_DMA_BUF_EMULATE=on", "VK_SLUICE_DMA_BUF_LOG=off",
                          "VK_SLUICE_DMA_BUF_LOG_FILE=l.txt", "HOME=/home/me", "NOTHING"});
    EXPECT_EQ(loaded.settings, all_changed());
    EXPECT_TRUE(loaded.messages.empty()) << loaded.messages[0];
}

TEST(LayerSettingsTest, TheMostPreciseNameInTheEnvironmentWins) {
    EXPECT_EQ(from_environment({"VK_SYNC=off"}).settings.sync, Sync::off);
    EXPECT_EQ(from_environment({"VK_SYNC=off", "VK_DMA_BUF_SYNC=all"}).settings.sync, Sync::all);
    EXPECT_EQ(
        from_environment({"VK_SYNC=off", "VK_DMA_BUF_SYNC=all", "VK_SLUICE_DMA_BUF_SYNC=ownership"})
            .settings.sync,
        Sync::ownership);
    EXPECT_EQ(from_environment({"VK_SYNC=off", "VK_SLUICE_DMA_BUF_SYNC="}).settings.sync,
              Sync::off);
    EXPECT_EQ(from_environment({"VK_SYNC_=off", "VK_SYN=off", "vk_sync=off"}).settings.sync,
              Sync::automatic);
    LoadedSettings none;
    read_environment(nullptr, none);
    EXPECT_EQ(none.settings, Settings());
}

TEST(LayerSettingsTest, TheEnvironmentsMistakesAreTold) {
    const LoadedSettings bad = from_environment({"VK_DMA_BUF_SYNC=yes"});
    EXPECT_EQ(bad.settings, Settings());
    expect_told(bad, {"environment: VK_DMA_BUF_SYNC is \"yes\"", "ownership"});
    expect_told(from_environment({"VK_SLUICE_DMA_BUF_SNYC=off", "VK_DMA_BUF_X=1", "VK_X=1"}),
                {"environment: \"VK_SLUICE_DMA_BUF_SNYC\"", "known are sync"});
}

TEST(LayerSettingsTest, TheApplicationSetsEverythingOnce) {
    const LoadedSettings loaded = from_given({{"sync", Type::text, "off"},
                                              {"sync", Type::text, "all"},
                                              {"sync", Type::text, "nonsense"},
                                              {"sync_on_cpu", Type::boolean, "true"},
                                              {"validate", Type::text, "on"},
                                              {"trace", Type::text, "t.json"},
                                              {"emulate", Type::boolean, "true"},
                                              {"log", Type::text, "off"},
                                              {"log_file", Type::text, "l.txt"}});
    EXPECT_EQ(loaded.settings, all_changed());
    EXPECT_TRUE(loaded.messages.empty()) << loaded.messages[0];
}

TEST(LayerSettingsTest, TheApplicationsMistakesAreTold) {
    expect_told(from_given({{"snyc", Type::text, "off"}}),
                {"VkLayerSettingsCreateInfoEXT: \"snyc\"", "known are sync"});
    expect_told(from_given({{"sync", Type::text, "on"}}), {"sync is \"on\"", "ownership"});
    const LoadedSettings file = from_given({{"trace", Type::boolean, "true"}});
    EXPECT_EQ(file.settings.trace, "");
    expect_told(file, {"trace is of a wrong type", "allowed: a string;"});
    expect_told(from_given({{"sync", Type::boolean, "false"}}), {"sync is of a wrong type"});
    expect_told(from_given({{"validate", Type::other, ""}}),
                {"validate is of a wrong type", "a string or a VkBool32"});
}

/// In a folder of its own, which is the current one, with an environment of its own.
class LayerSettingsFileTest : public testing::Test {
protected:
    LayerSettingsFileTest() {
        std::string name = testing::TempDir() + "sluice-settings-XXXXXX";
        folder = mkdtemp(name.data());
        before = std::filesystem::current_path();
        std::filesystem::current_path(folder);
    }
    ~LayerSettingsFileTest() override {
        std::filesystem::current_path(before);
        std::filesystem::remove_all(folder);
    }

    /// A settings file at \p path in the folder, which sets log_file to \p word.
    static void write(const std::filesystem::path& path, std::string_view word) {
        if (path.has_parent_path())
            std::filesystem::create_directories(path.parent_path());
        std::ofstream(path) << "sluice_dma_buf.log_file = " << word << "\n";
    }

    /// An environment, which it keeps.
    Surroundings with(std::vector<std::string> entries, bool secure = false) {
        kept = std::move(entries);
        block.clear();
        for (const std::string& entry : kept)
            block.push_back(entry.c_str());
        block.push_back(nullptr);
        return {.secure = secure, .environment = block.data()};
    }

    /// What the file that is found says.
    std::string found(std::vector<std::string> entries) {
        const LoadedSettings loaded = load_settings(with(std::move(entries)), {});
        EXPECT_TRUE(loaded.messages.empty()) << loaded.messages[0];
        return loaded.settings.log_file;
    }

    std::filesystem::path folder, before;
    std::vector<std::string> kept;
    std::vector<const char*> block;
};

TEST_F(LayerSettingsFileTest, IsFoundWhereTheKhronosLibraryFindsIt) {
    EXPECT_EQ(found({}), "");
    write("vk_layer_settings.txt", "current");
    EXPECT_EQ(found({}), "current");
    EXPECT_EQ(found({"HOME=" + folder.string(), "XDG_DATA_HOME="}), "current");

    write("named/vk_layer_settings.txt", "folder");
    EXPECT_EQ(found({"VK_LAYER_SETTINGS_PATH=named"}), "folder");
    write("named/other.txt", "file");
    EXPECT_EQ(found({"VK_LAYER_SETTINGS_PATH=" + (folder / "named/other.txt").string()}), "file");

    write(".local/share/vulkan/settings.d/vk_layer_settings.txt", "home");
    EXPECT_EQ(found({"HOME=" + folder.string(), "XDG_DATA_HOME="}), "home");
    write("xdg/vulkan/settings.d/vk_layer_settings.txt", "xdg");
    EXPECT_EQ(found({"HOME=" + folder.string(), "XDG_DATA_HOME=xdg"}), "xdg");
    // With XDG_DATA_HOME, HOME does not count.
    EXPECT_EQ(found({"HOME=" + folder.string(), "XDG_DATA_HOME=nowhere"}), "current");
}

TEST_F(LayerSettingsFileTest, IsOneAlone) {
    std::ofstream("vk_layer_settings.txt") << "sluice_dma_buf.sync = all\n";
    write("named.txt", "named");
    const LoadedSettings loaded = load_settings(with({"VK_LAYER_SETTINGS_PATH=named.txt"}), {});
    EXPECT_EQ(loaded.settings, Settings{.log_file = "named"});
}

TEST_F(LayerSettingsFileTest, ANameThatIsNotReadIsTold) {
    write("vk_layer_settings.txt", "current");
    const LoadedSettings absent = load_settings(with({"VK_LAYER_SETTINGS_PATH=/absent"}), {});
    EXPECT_EQ(absent.settings.log_file, "current");
    expect_told(absent,
                {"VK_LAYER_SETTINGS_PATH is \"/absent\"", "instead: vk_layer_settings.txt"});

    write("xdg/vulkan/settings.d/vk_layer_settings.txt", "xdg");
    write("named.txt", "named");
    const LoadedSettings second =
        load_settings(with({"XDG_DATA_HOME=xdg", "VK_LAYER_SETTINGS_PATH=named.txt"}), {});
    EXPECT_EQ(second.settings.log_file, "xdg");
    expect_told(second, {"\"named.txt\"", "instead: xdg/vulkan/settings.d"});
}

TEST_F(LayerSettingsFileTest, WhatIsNoFileIsTold) {
    ASSERT_EQ(mkfifo("fifo", 0600), 0);
    expect_told(load_settings(with({"VK_LAYER_SETTINGS_PATH=fifo"}), {}), {"fifo: ", "regular"});
    expect_told(load_settings(with({"VK_LAYER_SETTINGS_PATH=/dev/zero"}), {}), {"regular file"});
    std::filesystem::create_symlink("loop", "vk_layer_settings.txt");
    std::filesystem::create_symlink("vk_layer_settings.txt", "loop");
    expect_told(load_settings(with({}), {}), {"vk_layer_settings.txt: ", "symbolic links"});
}

TEST_F(LayerSettingsFileTest, AFileTooLargeIsTold) {
    const std::string line = "sluice_dma_buf.sync = all\n";
    std::string text(std::size_t{1} << 20, '\n');
    text.replace(0, line.size(), line);
    std::ofstream("vk_layer_settings.txt") << text;
    EXPECT_EQ(load_settings(with({}), {}).settings.sync, Sync::all);
    std::ofstream("vk_layer_settings.txt") << text << '\n';
    const LoadedSettings loaded = load_settings(with({}), {});
    EXPECT_EQ(loaded.settings, Settings());
    expect_told(loaded, {"larger than 1 MiB"});
}

TEST_F(LayerSettingsFileTest, LaterSourcesWin) {
    std::ofstream("vk_layer_settings.txt") << "sluice_dma_buf.sync = off\n"
                                              "sluice_dma_buf.log = off\n"
                                              "sluice_dma_buf.trace = file\n"
                                              "sluice_dma_buf.emulate = true\n";
    const GivenSetting given[] = {{"sync", Type::text, "all"},
                                  {"validate", Type::text, "true"},
                                  {"emulate", Type::text, "maybe"}};
    const LoadedSettings loaded = load_settings(
        with({"VK_SLUICE_DMA_BUF_SYNC=ownership", "VK_SLUICE_DMA_BUF_LOG=debug"}), given);
    const Settings expected{.sync = Sync::ownership,
                            .validate = true,
                            .trace = "file",
                            .emulate = true,
                            .log = Log::debug};
    EXPECT_EQ(loaded.settings, expected);
    expect_told(loaded, {"emulate is \"maybe\""});
}

TEST_F(LayerSettingsFileTest, ASecureProcessTrustsTheApplicationAlone) {
    write("vk_layer_settings.txt", "current");
    write("xdg/vulkan/settings.d/vk_layer_settings.txt", "xdg");
    const std::vector<std::string> entries{"XDG_DATA_HOME=xdg", "VK_LAYER_SETTINGS_PATH=xdg",
                                           "VK_SLUICE_DMA_BUF_SYNC=off", "VK_VALIDATE=1"};
    const LoadedSettings alone = load_settings(with(entries, true), {});
    EXPECT_EQ(alone.settings, Settings());
    EXPECT_TRUE(alone.messages.empty()) << alone.messages[0];

    const GivenSetting given[] = {{"sync", Type::text, "all"},
                                  {"trace", Type::text, "t.json"},
                                  {"log_file", Type::text, "l.txt"}};
    const LoadedSettings told = load_settings(with(entries, true), given);
    EXPECT_EQ(told.settings, Settings{.sync = Sync::all});
    ASSERT_EQ(told.messages.size(), 2U);
    EXPECT_NE(told.messages[0].find("written to \"t.json\""), std::string::npos);
    EXPECT_NE(told.messages[1].find("written to \"l.txt\""), std::string::npos);
}

TEST_F(LayerSettingsFileTest, ThisProcessIsTheOneWithThisEnvironment) {
    const Surroundings process = this_process();
    EXPECT_FALSE(process.secure);
    EXPECT_EQ(process.environment, environ);
}

} // namespace
} // namespace sluice::layer
