// SPDX-License-Identifier: MIT
// Any text as a vk_layer_settings.txt, and its NUL-separated parts as an environment: what is set
// and how much is told, found out letter by letter and with another list of what is allowed.
#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz/seeds.hpp"
#include "settings.hpp"

namespace {

using sluice::layer::LoadedSettings;
using sluice::layer::Settings;

void require(bool holds) {
    if (!holds)
        std::abort();
}

/// Settings, word by word, as this file counts them.
using Values = std::map<std::string, std::string>;

const std::set<std::string> no{"false", "off", "0"}, yes{"true", "on", "1"};
const std::set<std::string> syncs{"off", "auto", "ownership", "all"};
const std::set<std::string> logs{"off", "error", "warn", "info", "debug"};

Values defaults() {
    return {{"sync", "auto"},  {"sync_on_cpu", "no"}, {"validate", "no"}, {"trace", ""},
            {"emulate", "no"}, {"log", "warn"},       {"log_file", ""}};
}

Values values(const Settings& settings) {
    const auto sync = [&] {
        switch (settings.sync) {
        case Settings::Sync::off:
            return "off";
        case Settings::Sync::automatic:
            return "auto";
        case Settings::Sync::ownership:
            return "ownership";
        case Settings::Sync::all:
            return "all";
        }
        std::abort();
    };
    const auto log = [&] {
        switch (settings.log) {
        case Settings::Log::off:
            return "off";
        case Settings::Log::error:
            return "error";
        case Settings::Log::warn:
            return "warn";
        case Settings::Log::info:
            return "info";
        case Settings::Log::debug:
            return "debug";
        }
        std::abort();
    };
    const auto word = [](bool value) { return value ? "yes" : "no"; };
    return {{"sync", sync()},
            {"sync_on_cpu", word(settings.sync_on_cpu)},
            {"validate", word(settings.validate)},
            {"trace", settings.trace},
            {"emulate", word(settings.emulate)},
            {"log", log()},
            {"log_file", settings.log_file}};
}

/// Sets \p key of \p into, or says that it must be told.
bool must_tell(const std::string& key, const std::string& value, Values& into) {
    const auto slot = into.find(key);
    if (slot == into.end())
        return true;
    if (key == "trace" || key == "log_file") {
        if (value.find('\0') != std::string::npos)
            return true;
        slot->second = value;
        return false;
    }
    std::string word;
    for (const char letter : value)
        word += static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
    if (key == "sync" || key == "log") {
        if (!(key == "sync" ? syncs : logs).contains(word))
            return true;
        slot->second = word;
        return false;
    }
    if (!no.contains(word) && !yes.contains(word))
        return true;
    slot->second = yes.contains(word) ? "yes" : "no";
    return false;
}

void strip(std::string& text) {
    while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())))
        text.pop_back();
    while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())))
        text.erase(text.begin());
}

void check(const LoadedSettings& loaded, const Values& expected, std::size_t told) {
    require(values(loaded.settings) == expected);
    require(loaded.messages.size() == told);
    for (const std::string& message : loaded.messages) {
        require(message.size() < 512);
        for (const char letter : message)
            require(static_cast<unsigned char>(letter) >= 0x20 && letter != 0x7f);
    }
}

void check_text(std::string_view text) {
    const std::string prefix = "sluice_dma_buf.";
    Values expected = defaults();
    std::size_t told = 0;
    std::string left, right;
    bool equals = false, comment = false;
    const auto finish = [&] {
        strip(left);
        strip(right);
        if (left.rfind(prefix, 0) == 0)
            told += !equals || must_tell(left.substr(prefix.size()), right, expected) ? 1 : 0;
        left.clear();
        right.clear();
        equals = comment = false;
    };
    for (const char letter : text) {
        if (letter == '\n')
            finish();
        else if (comment || letter == '#')
            comment = true;
        else if (letter == '=' && !equals)
            equals = true;
        else
            (equals ? right : left) += letter;
    }
    finish();

    LoadedSettings loaded;
    sluice::layer::read_text(text, "file", loaded);
    check(loaded, expected, told);
}

void check_environment(std::string_view text) {
    // Each part ends with a NUL of its own.
    const std::string parts = std::string(text) + '\0';
    std::vector<const char*> block;
    for (std::size_t at = 0; at < parts.size(); at += std::string_view(&parts[at]).size() + 1)
        block.push_back(&parts[at]);
    Values expected = defaults();
    std::map<std::string, std::string> variables;
    std::size_t told = 0;
    const std::string own = "VK_SLUICE_DMA_BUF_";
    for (const std::string entry : block) {
        const std::size_t equals = entry.find('=');
        const std::string name = entry.substr(0, equals);
        if (equals != std::string::npos)
            variables.emplace(name, entry.substr(equals + 1));
        if (name.rfind(own, 0) != 0)
            continue;
        std::string key;
        bool capital = true;
        for (const char letter : name.substr(own.size())) {
            capital = capital && !std::islower(static_cast<unsigned char>(letter));
            key += static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
        }
        told += capital && expected.contains(key) ? 0 : 1;
    }
    for (const auto& [key, fallback] : defaults()) {
        std::string name;
        for (const char letter : key)
            name += static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
        std::string value = variables["VK_" + name];
        for (const std::string& prefix : {std::string("VK_DMA_BUF_"), own})
            if (!variables[prefix + name].empty())
                value = variables[prefix + name];
        if (!value.empty())
            told += must_tell(key, value, expected) ? 1 : 0;
    }

    block.push_back(nullptr);
    LoadedSettings loaded;
    sluice::layer::read_environment(block.data(), loaded);
    check(loaded, expected, told);
}

} // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
    using namespace std::string_view_literals;
    const auto seed = [](const char* name, std::string_view text) {
        sluice::test::write_seed(name, std::as_bytes(std::span(text)));
    };
    seed("all", "# ours\nsluice_dma_buf.sync = ownership\nsluice_dma_buf.sync_on_cpu=1\n"
                "sluice_dma_buf.validate = TRUE\r\nsluice_dma_buf.trace = a b.json\n"
                "sluice_dma_buf.emulate = on\nsluice_dma_buf.log = debug\n"
                "sluice_dma_buf.log_file = l # c\n");
    seed("wrong", "sluice_dma_buf.sync = allways\nsluice_dma_buf.snyc = off\nsluice_dma_buf.sync\n"
                  "sluice_dma_buf. = 1\nsluice_dma_buf.sync#=all\nsluice_dma_buf.log\v= =warn\n"
                  "sluice_dma_buf\nkhronos_validation.sync = on\n=\n");
    seed("nul", "sluice_dma_buf.trace = a\0b\nsluice_dma_buf.validate = true\0\n"sv);
    seed("environment",
         "VK_SLUICE_DMA_BUF_SYNC=all\0VK_DMA_BUF_SYNC=off\0VK_SYNC=maybe\0"
         "VK_DMA_BUF_LOG=\0VK_LOG=info\0VK_SLUICE_DMA_BUF_LOG=loud\0"
         "VK_SLUICE_DMA_BUF_TRACE=t=1\0VK_SLUICE_DMA_BUF_\0VK_SLUICE_DMA_BUF_sync=all\0"
         "VK_SYNC_ON_CPU=1\0VK_VALIDATE=on\0VK_EMULATE=yes\0VK_LOG_FILE=l\0="sv);
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    check_text(text);
    check_environment(text);
    return 0;
}
