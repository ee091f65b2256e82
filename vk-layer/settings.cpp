// SPDX-License-Identifier: MIT
#include "settings.hpp"

#include <algorithm>
#include <array>
#include <bitset>
#include <cerrno>
#include <filesystem>
#include <functional>
#include <system_error>

#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

namespace sluice::layer {

namespace {

using Kind = SettingInfo::Kind;

constexpr std::string_view file_prefix = "sluice_dma_buf.";
constexpr std::string_view file_name = "vk_layer_settings.txt";
/// Of the names in the environment, the one that nobody else uses.
constexpr std::string_view own_prefix = "VK_SLUICE_DMA_BUF_";
constexpr std::array<std::string_view, 3> prefixes{own_prefix, "VK_DMA_BUF_", "VK_"};

constexpr std::array<std::string_view, 6> booleans{"false", "true", "off", "on", "0", "1"};
constexpr std::array<std::string_view, 4> syncs{"off", "auto", "ownership", "all"};
constexpr std::array<std::string_view, 5> logs{"off", "error", "warn", "info", "debug"};

constexpr std::array table{
    SettingInfo{
        "sync", Kind::word, syncs, "auto",
        "Which tracked dma-bufs get the implicit sync that Vulkan lacks: before a submission "
        "their fences become wait semaphores, after it its fence goes into them.",
        [](Settings& settings, std::size_t word, std::string_view) {
            settings.sync = static_cast<Settings::Sync>(word);
        }},
    SettingInfo{
        "sync_on_cpu", Kind::boolean, booleans, "false",
        "Where the driver has no SYNC_FD semaphores, wait on the CPU instead. It stalls the "
        "thread that submits.",
        [](Settings& settings, std::size_t word, std::string_view) {
            settings.sync_on_cpu = word % 2 != 0;
        }},
    SettingInfo{
        "validate", Kind::boolean, booleans, "false",
        "Check what the application does with dma-bufs; messages go to VK_EXT_debug_utils and "
        "to the log.",
        [](Settings& settings, std::size_t word, std::string_view) {
            settings.validate = word % 2 != 0;
        }},
    SettingInfo{
        "trace",
        Kind::file,
        {},
        "",
        "The file to write a trace of imports, exports, waits and hand-overs to, as Chrome and "
        "Perfetto read it (JSON). Empty: no trace.",
        [](Settings& settings, std::size_t, std::string_view text) { settings.trace = text; }},
    SettingInfo{"emulate", Kind::boolean, booleans, "false",
                "Offer VK_EXT_external_memory_dma_buf on CPU drivers that have only "
                "VK_EXT_external_memory_host.",
                [](Settings& settings, std::size_t word, std::string_view) {
                    settings.emulate = word % 2 != 0;
                }},
    SettingInfo{"log", Kind::word, logs, "warn", "The least grave message that is still logged.",
                [](Settings& settings, std::size_t word, std::string_view) {
                    settings.log = static_cast<Settings::Log>(word);
                }},
    SettingInfo{
        "log_file",
        Kind::file,
        {},
        "",
        "The file to write the log to. Empty: stderr.",
        [](Settings& settings, std::size_t, std::string_view text) { settings.log_file = text; }},
};

char lower(char letter) {
    return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
}

/// Whether \p text is \p word, itself in lower case, in any case.
bool is_word(std::string_view text, std::string_view word) {
    return std::ranges::equal(text, word, {}, lower);
}

std::string_view trim(std::string_view text) {
    constexpr std::string_view blank = " \t\f\v\n\r";
    const auto first = text.find_first_not_of(blank);
    if (first == std::string_view::npos)
        return {};
    return text.substr(first, text.find_last_not_of(blank) - first + 1);
}

/// What somebody wrote, fit for one line of a log.
std::string shown(std::string_view text) {
    constexpr std::size_t longest = 80;
    constexpr std::string_view digits = "0123456789abcdef";
    std::string result = "\"";
    for (const char letter : text.substr(0, longest)) {
        const auto byte = static_cast<unsigned char>(letter);
        if (byte >= ' ' && byte != 0x7f)
            result += letter;
        else
            (((result += "\\x") += digits[byte / 16]) += digits[byte % 16]);
    }
    return result += text.size() > longest ? "...\"" : "\"";
}

template <typename Range, typename Word> std::string listed(const Range& range, Word word) {
    std::string result;
    for (const auto& item : range)
        (result += result.empty() ? "" : ", ") += word(item);
    return result;
}

const SettingInfo* find(std::string_view key) {
    const auto found = std::ranges::find(table, key, &SettingInfo::key);
    return found == table.end() ? nullptr : &*found;
}

std::string unknown() {
    return "is no setting; known are " + listed(table, std::mem_fn(&SettingInfo::key)) +
           "; ignored";
}

/// \param where the source, and how it calls the setting.
void set(const SettingInfo& setting, std::string_view value, std::string_view where,
         LoadedSettings& into) {
    std::size_t word = 0;
    std::string allowed;
    if (setting.kind == Kind::file) {
        if (value.find('\0') != std::string_view::npos)
            allowed = "a file's name, without NUL";
    } else {
        const auto found = std::ranges::find_if(setting.words, [&](std::string_view allowed_word) {
            return is_word(value, allowed_word);
        });
        word = static_cast<std::size_t>(found - setting.words.begin());
        if (found == setting.words.end())
            allowed = listed(setting.words, std::identity());
    }
    if (allowed.empty())
        setting.assign(into.settings, word, value);
    else
        into.messages.push_back(std::string(where) + " is " + shown(value) +
                                "; allowed: " + allowed + "; ignored");
}

/// The value of \p name in \p block, empty where there is none.
std::string_view lookup(const char* const* block, std::string_view name) {
    for (; block != nullptr && *block != nullptr; ++block) {
        const std::string_view entry = *block;
        if (entry.starts_with(name) && entry.substr(name.size()).starts_with('='))
            return entry.substr(name.size() + 1);
    }
    return {};
}

std::string upper(std::string_view key) {
    std::string result(key);
    for (char& letter : result)
        letter = letter >= 'a' && letter <= 'z' ? static_cast<char>(letter - 'a' + 'A') : letter;
    return result;
}

void read_file(const std::string& path, LoadedSettings& into) {
    constexpr std::size_t longest = std::size_t{1} << 20;
    const auto refuse = [&](std::string_view why) {
        into.messages.push_back(path + ": " + std::string(why) + "; ignored");
    };
    // Not to wait for a FIFO's other end.
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        if (errno != ENOENT)
            refuse(std::system_category().message(errno));
        return;
    }
    std::string text;
    struct stat status {};
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        refuse("is no regular file");
    } else {
        text.resize(longest + 1);
        std::size_t size = 0;
        ssize_t got = 0;
        do {
            got = read(fd, text.data() + size, text.size() - size);
            size += got > 0 ? static_cast<std::size_t>(got) : 0;
        } while (got > 0 || (got < 0 && errno == EINTR));
        text.resize(size);
        if (got < 0)
            refuse(std::system_category().message(errno));
        else if (size > longest)
            refuse("is larger than 1 MiB");
        else
            read_text(text, path, into);
    }
    close(fd);
}

/// No file is written with rights that who started the process lacks.
void forbid_writing(LoadedSettings& into) {
    for (const auto file : {&Settings::trace, &Settings::log_file}) {
        if ((into.settings.*file).empty())
            continue;
        into.messages.push_back(
            "the process has more rights than who started it (AT_SECURE): nothing "
            "is written to " +
            shown(into.settings.*file));
        (into.settings.*file).clear();
    }
}

} // namespace

std::span<const SettingInfo> known_settings() noexcept {
    return table;
}

void read_text(std::string_view text, std::string_view name, LoadedSettings& into) noexcept {
    for (std::size_t number = 1; !text.empty(); ++number) {
        const std::string_view whole = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(whole.size() + 1, text.size()));
        const std::string_view line = trim(whole.substr(0, whole.find('#')));
        if (!line.starts_with(file_prefix))
            continue;
        const auto equals = line.find('=');
        const std::string_view left = trim(line.substr(0, equals));
        const std::string where = std::string(name) + ":" + std::to_string(number) + ": ";
        const SettingInfo* setting = find(left.substr(file_prefix.size()));
        if (equals == std::string_view::npos)
            into.messages.push_back(where + shown(line) + " has no \"=\"; ignored");
        else if (setting == nullptr)
            into.messages.push_back(where + shown(left) + " " + unknown());
        else
            set(*setting, trim(line.substr(equals + 1)), where + std::string(left), into);
    }
}

void read_environment(const char* const* block, LoadedSettings& into) noexcept {
    const auto tell = [](std::string_view name) { return "environment: " + std::string(name); };
    for (const SettingInfo& setting : table)
        for (const std::string_view prefix : prefixes) {
            const std::string name = std::string(prefix) + upper(setting.key);
            const std::string_view value = lookup(block, name);
            if (value.empty())
                continue;
            set(setting, value, tell(name), into);
            break;
        }
    for (; block != nullptr && *block != nullptr; ++block) {
        const std::string_view entry = *block;
        const std::string_view name = entry.substr(0, entry.find('='));
        if (name.starts_with(own_prefix) &&
            std::ranges::none_of(table, [&](const SettingInfo& setting) {
                return name.substr(own_prefix.size()) == upper(setting.key);
            }))
            into.messages.push_back(tell(shown(name)) + " " + unknown());
    }
}

void read_given(std::span<const GivenSetting> given, LoadedSettings& into) noexcept {
    std::bitset<table.size()> seen;
    for (const GivenSetting& one : given) {
        const std::string where = "VkLayerSettingsCreateInfoEXT: ";
        const SettingInfo* setting = find(one.key);
        if (setting == nullptr) {
            into.messages.push_back(where + shown(one.key) + " " + unknown());
            continue;
        }
        const auto index = static_cast<std::size_t>(setting - table.data());
        if (seen.test(index))
            continue;
        seen.set(index);
        const bool fits =
            one.type == GivenSetting::Type::text ||
            (one.type == GivenSetting::Type::boolean && setting->kind == Kind::boolean);
        if (fits)
            set(*setting, one.value, where + std::string(one.key), into);
        else
            into.messages.push_back(where + std::string(one.key) +
                                    " is of a wrong type or has no value; allowed: a string" +
                                    (setting->kind == Kind::boolean ? " or a VkBool32" : "") +
                                    "; ignored");
    }
}

Surroundings this_process() noexcept {
    return {.secure = getauxval(AT_SECURE) != 0, .environment = environ};
}

std::optional<std::string> find_settings_file(const Surroundings& process) noexcept {
    if (process.secure)
        return std::nullopt;
    std::error_code error;
    std::filesystem::path folder = lookup(process.environment, "XDG_DATA_HOME");
    if (folder.empty()) {
        folder = lookup(process.environment, "HOME");
        if (!folder.empty())
            folder /= ".local/share";
    }
    if (!folder.empty()) {
        const auto path = folder / "vulkan/settings.d" / file_name;
        if (std::filesystem::is_regular_file(path, error))
            return path.string();
    }
    const std::filesystem::path named = lookup(process.environment, "VK_LAYER_SETTINGS_PATH");
    if (std::filesystem::is_directory(named, error))
        return (named / file_name).string();
    if (std::filesystem::exists(named, error))
        return named.string();
    return std::string(file_name);
}

LoadedSettings load_settings(const Surroundings& process,
                             std::span<const GivenSetting> given) noexcept {
    LoadedSettings loaded;
    read_given(given, loaded);
    if (const auto path = find_settings_file(process)) {
        const std::string_view named = lookup(process.environment, "VK_LAYER_SETTINGS_PATH");
        if (!path->starts_with(named))
            loaded.messages.push_back(
                "environment: VK_LAYER_SETTINGS_PATH is " + shown(named) +
                ", which is not there or comes second; read instead: " + *path);
        read_file(*path, loaded);
    }
    if (!process.secure)
        read_environment(process.environment, loaded);
    if (process.secure)
        forbid_writing(loaded);
    return loaded;
}

} // namespace sluice::layer
