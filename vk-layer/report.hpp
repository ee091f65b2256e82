// SPDX-License-Identifier: MIT
/// \file
/// What the layer has to say to people.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <sluice/error.hpp>

#include "settings.hpp"

namespace sluice::layer {

/// Sends what the layer says to \p file, or to stderr where that is empty, as far as it is as grave
/// as \p least; for the whole process, from now on. A file is added to, never cut short. One that
/// cannot be opened is told on stderr, which is used then. Threads: any.
void set_log(Settings::Log least, const std::string& file) noexcept;

/// Whether what is as grave as \p gravity is logged: ask before putting long words together. Cheap.
[[nodiscard]] bool logs(Settings::Log gravity) noexcept;

/// Says \p what, in one line and one write(2). Threads: any.
void say(Settings::Log gravity, std::string_view what) noexcept;

/// Something does not work as it should, and the application goes on.
inline void warn(std::string_view what) noexcept {
    say(Settings::Log::warn, what);
}

/// Why a submission went on without us, each told once.
enum class Trouble : std::uint8_t {
    no_sync_fd,       ///< The driver takes or gives no SYNC_FD.
    lock,             ///< Somebody held a buffer for too long.
    export_fence,     ///< The kernel gives no fence out of a buffer.
    merge,            ///< Fences could not be merged, or one has failed.
    semaphore,        ///< A semaphore could not be made or filled.
    hand_over,        ///< The submission's fence could not be had.
    import_fence,     ///< The kernel did not take it.
    deferred,         ///< It waits for a timeline's value that nobody has submitted.
    too_many_objects, ///< More devices or queues than we have room for.
    not_tracked,      ///< A dma-buf could not be looked at.
    no_memory,        ///< None for what we keep of the application's objects.
    wait_on_cpu,      ///< The buffers, or the submission, were not done in time.
    given_up,         ///< Too much has failed on a queue.
    count_            ///< How many there are.
};

class Report {
public:
    /// Says \p why, once for each kind of trouble.
    void once(Trouble trouble, std::string_view why) noexcept {
        if (first(trouble))
            warn(why);
    }
    /// The same of an error, whose words are put together only then.
    void once(Trouble trouble, const Error& error) noexcept {
        if (first(trouble))
            warn(error.message());
    }

private:
    bool first(Trouble trouble) noexcept {
        auto& told = told_[static_cast<std::size_t>(trouble)];
        return !told.load(std::memory_order_relaxed) &&
               !told.exchange(true, std::memory_order_relaxed);
    }

    std::array<std::atomic<bool>, static_cast<std::size_t>(Trouble::count_)> told_{};
};

} // namespace sluice::layer
