// SPDX-License-Identifier: MIT
/// \file
/// What the layer is told to do: by vk_layer_settings.txt, the environment and the application.
/// Needs no Vulkan; the application's part is read by settings_chain.hpp. Not installed.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::layer {

/// The layer's name, as its manifest has it.
inline constexpr std::string_view layer_name = "VK_LAYER_SLUICE_dma_buf";

/// What the modules do. The defaults here are those of `known_settings()` and of the manifest.
struct Settings {
    /// Which tracked buffers take part in a submission.
    enum class Sync { off, automatic, ownership, all };
    /// The least grave message that is still logged.
    enum class Log { off, error, warn, info, debug };

    Sync sync = Sync::automatic;
    /// Wait and signal on the CPU where the driver has no SYNC_FD semaphores.
    bool sync_on_cpu = false;
    bool validate = false;
    /// The file that the trace is written to; empty is no trace.
    std::string trace;
    bool emulate = false;
    Log log = Log::warn;
    /// The file that the log is written to; empty is stderr.
    std::string log_file;

    bool operator==(const Settings&) const = default;
};

/// One setting as its users know it.
struct SettingInfo {
    enum class Kind { word, boolean, file };

    /// As in `sluice_dma_buf.KEY = ...`.
    std::string_view key;
    Kind kind;
    /// The values allowed, in lower case; their case does not matter when read. A word's index is
    /// its enumerator; a boolean's words take turns, false first. Empty for a file.
    std::span<const std::string_view> words;
    /// The default, as it would be written.
    std::string_view fallback;
    /// For the manifest and the documentation.
    std::string_view description;
    /// Takes the value that is the \p word th of `words`, or the \p text of a file.
    void (*assign)(Settings& settings, std::size_t word, std::string_view text);
};

/// The one table that reading, messages, manifest and documentation follow.
[[nodiscard]] std::span<const SettingInfo> known_settings() noexcept;

/// What was read, and what was wrong with it. A bad value is ignored, whatever it is: the one that
/// the source before gave stays.
struct LoadedSettings {
    Settings settings;
    /// For people, one line each: the source, the line or name, what was read, what is allowed.
    std::vector<std::string> messages;
};

/// Reads \p text, the contents of a vk_layer_settings.txt: lines `sluice_dma_buf.KEY = VALUE`, `#`
/// starts a comment anywhere, the last line about a key wins, other layers' lines are passed over.
/// \param name what messages call it.
void read_text(std::string_view text, std::string_view name, LoadedSettings& into) noexcept;

/// Reads the environment \p block, null-terminated as environ is; null is an empty one. Each
/// setting has three names, the first that is there and not empty counts: VK_SLUICE_DMA_BUF_KEY,
/// VK_DMA_BUF_KEY, VK_KEY.
void read_environment(const char* const* block, LoadedSettings& into) noexcept;

/// A setting that the application gave with VK_EXT_layer_settings.
struct GivenSetting {
    enum class Type { boolean, text, other };

    /// Borrowed from the application's structures.
    std::string_view key;
    Type type;
    /// "false" or "true" for a boolean; for text, borrowed; else nothing.
    std::string_view value;
};

/// Reads what the application gave; of several about a key the first counts, as
/// VkLayerSettingsCreateInfoEXT has it.
void read_given(std::span<const GivenSetting> given, LoadedSettings& into) noexcept;

/// The process that the settings are for.
struct Surroundings {
    /// It has more rights than who started it (set-user-ID and the like, AT_SECURE): neither the
    /// environment nor a file found through it or in the current folder is to be trusted, and no
    /// file is written for it.
    bool secure;
    /// Its environment, borrowed, null-terminated; may be null.
    const char* const* environment;
};

/// This process. Borrows environ: nobody may change the environment while it is in use.
[[nodiscard]] Surroundings this_process() noexcept;

/// Which vk_layer_settings.txt to read, if any: the one that every layer in the process reads which
/// uses the Khronos layer settings library (Vulkan-Utility-Libraries,
/// LayerSettings::FindSettingsFile). It is one file alone, the first of
/// 1. $XDG_DATA_HOME/vulkan/settings.d/vk_layer_settings.txt, where XDG_DATA_HOME is not set
///    $HOME/.local/share/vulkan/settings.d/vk_layer_settings.txt: vkconfig's, if it is a file;
/// 2. $VK_LAYER_SETTINGS_PATH, a file of any name or a folder with a vk_layer_settings.txt, if it
/// is there;
/// 3. vk_layer_settings.txt in the current folder.
/// In a secure process there is none.
/// \returns its path, which need not exist.
[[nodiscard]] std::optional<std::string> find_settings_file(const Surroundings& process) noexcept;

/// Everything there is to read, later sources over earlier ones: the defaults, the application,
/// vk_layer_settings.txt, the environment. \param given from
/// `settings_in_chain()`. Threads: any. Blocks no longer than reading a file of at most 1 MiB
/// takes.
[[nodiscard]] LoadedSettings load_settings(const Surroundings& process,
                                           std::span<const GivenSetting> given) noexcept;

} // namespace sluice::layer
