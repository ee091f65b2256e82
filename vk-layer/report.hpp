// SPDX-License-Identifier: MIT
/// \file
/// What the layer has to say to people.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sluice::layer {

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
};

/// Says \p what to people.
void warn(std::string_view what) noexcept;

class Report {
public:
    /// Says \p why, once for each kind of trouble.
    void once(Trouble trouble, std::string_view why) noexcept;

private:
    static constexpr std::size_t kinds = 16;
    std::array<std::atomic<bool>, kinds> told_{};
};

} // namespace sluice::layer
