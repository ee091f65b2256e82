// SPDX-License-Identifier: MIT
#include "report.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <mutex>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include <sluice/log.hpp>
#include <sluice/unique_fd.hpp>

#include "core/sys.hpp"
#include "immortal.hpp"

namespace sluice::layer {

namespace {

constinit std::atomic<Settings::Log> least_logged = Settings::Log::warn;
constinit std::mutex file_lock;
constinit Immortal<UniqueFd> log_file; // none: stderr

std::string_view word_of(Settings::Log gravity) noexcept {
    switch (gravity) {
    case Settings::Log::error:
        return "error: ";
    case Settings::Log::warn:
        return "warning: ";
    case Settings::Log::debug:
        return "debug: ";
    case Settings::Log::off:
    case Settings::Log::info:
        break;
    }
    return "";
}

/// What the parts of the library that we are made of have to say.
void of_the_library(const Error& error, void*) noexcept {
    warn(error.message());
}

} // namespace

void set_log(Settings::Log least, const std::string& file) noexcept {
    sluice::set_log(of_the_library, nullptr);
    UniqueFd opened;
    int error = 0;
    if (!file.empty()) {
        opened = UniqueFd(open(file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644));
        error = errno;
    }
    const bool refused = !file.empty() && !opened;
    {
        const std::scoped_lock held(file_lock);
        log_file.value = std::move(opened);
    }
    least_logged.store(least, std::memory_order_relaxed);
    if (refused)
        say(Settings::Log::error, "the log file \"" + file + "\" cannot be opened: " +
                                      sys::errno_text(error) + "; the log goes to stderr");
}

bool logs(Settings::Log gravity) noexcept {
    return gravity <= least_logged.load(std::memory_order_relaxed);
}

void say(Settings::Log gravity, std::string_view what) noexcept {
    if (!logs(gravity))
        return;
    std::array<char, 1024> line{}; // longer ones are cut
    const std::string_view word = word_of(gravity);
    int length = std::snprintf(line.data(), line.size() - 1, "%s: %.*s%.*s", layer_name.data(),
                               static_cast<int>(word.size()), word.data(),
                               static_cast<int>(what.size()), what.data());
    length = std::min(length, static_cast<int>(line.size()) - 2);
    line[static_cast<std::size_t>(length)] = '\n';
    const std::scoped_lock held(file_lock);
    const int fd = log_file.value ? log_file.value.get() : STDERR_FILENO;
    // Where even this fails there is nobody left to tell.
    [[maybe_unused]] const auto written =
        write(fd, line.data(), static_cast<std::size_t>(length) + 1);
}

} // namespace sluice::layer
