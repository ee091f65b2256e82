// SPDX-License-Identifier: MIT
/// \file
/// Tells when screens are plugged in and out, and cards.
///
/// Sources: the kernel's "Connector Hotplug" (drm_sysfs.c) and libudev(3).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <sluice/error.hpp>
#include <sluice/export.hpp>

namespace sluice {

/// One thing that has changed.
struct KmsChange {
    enum class What : std::uint8_t {
        added,   ///< A card has come.
        removed, ///< A card has gone.
        changed, ///< A card's connectors have: look at `KmsDevice::resources`.
        leases,  ///< A lease of the card has ended, or what was leased has.
        unknown, ///< Changes came faster than they were read, and some were lost: look at all.
    };
    What what = What::unknown;
    /// The device, as `KmsDevice::device` names it: "/devices/platform/vkms". Empty for `unknown`.
    std::string device = {};
    std::string node = {}; ///< The card: "/dev/dri/card2". Empty for `unknown`.
    /// The connector that has changed; 0: the driver does not say, so any of the device's.
    std::uint32_t connector = 0;
    /// The connector's property that has changed, as for content protection; 0: any.
    std::uint32_t property = 0;

    [[nodiscard]] bool operator==(const KmsChange&) const = default;
};

/// "added", "removed", "changed", "leases" or "unknown".
[[nodiscard]] SLUICE_API std::string to_string(KmsChange::What what) noexcept;

/// Listens to what the kernel tells of DRM devices (uevents), by way of udevd where that runs, so
/// that a new card's node has its owner and mode by the time it is told of.
///
/// In your event loop:
///
///     poll fd() for POLLIN; then
///     while (auto change = hotplug.read(); change && *change)
///         look_again(**change);
///
/// It tells what comes after it was opened: open it first, and look at the resources then.
///
/// Threads: one object belongs to one thread at a time. One that was moved from has fd -1, and
/// refuses to read with `wrong_object`.
class SLUICE_API KmsHotplug {
public:
    /// \returns it, or
    ///   - `no_resources`: no fd or memory left;
    ///   - `failed`, `no_permission`: a sandbox without netlink sockets; see `Error::sys_errno`.
    [[nodiscard]] static Result<KmsHotplug> open() noexcept;

    /// Readable when there may be something to read. It stays this object's.
    [[nodiscard]] int fd() const noexcept;

    /// The next change, without waiting. \returns it, or nothing where there is none, or
    ///   - `failed`, `no_resources`: see `Error::sys_errno`. Reading again may go on.
    [[nodiscard]] Result<std::optional<KmsChange>> read() noexcept;

    KmsHotplug(KmsHotplug&&) noexcept;
    KmsHotplug& operator=(KmsHotplug&&) noexcept;
    ~KmsHotplug();

    struct State; ///< Not part of the API.

private:
    explicit KmsHotplug(std::unique_ptr<State> state) noexcept;

    std::unique_ptr<State> state_;
};

} // namespace sluice
