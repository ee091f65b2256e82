// SPDX-License-Identifier: MIT
/// \file
/// What a card has to show pictures with: connectors, CRTCs and planes, as plain data.
///
/// Everything is named by the kernel's number of it, found by what it can do and never by its
/// place in a list. Sources: drm/drm_mode.h and the kernel's "KMS Properties".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <sluice/export.hpp>

namespace sluice {

/// A picture's timing on a connector, as drm_mode_modeinfo in drm/drm_mode.h has it.
struct KmsMode {
    std::string name;              ///< "640x480"
    std::uint32_t width = 0;       ///< Pixels that are seen.
    std::uint32_t height = 0;      ///< Rows that are seen.
    std::uint32_t refresh_mhz = 0; ///< Pictures in 1000 seconds (millihertz); 0 if unknown.
    bool preferred = false;        ///< The connector's own choice (DRM_MODE_TYPE_PREFERRED).

    std::uint32_t clock_khz = 0; ///< The pixel clock.
    /// Pixels at which the horizontal sync starts and ends, of a row of `htotal`, and the skew.
    std::uint16_t hsync_start = 0, hsync_end = 0, htotal = 0, hskew = 0;
    /// Rows at which the vertical sync starts and ends, of `vtotal`, and the scans of each row.
    std::uint16_t vsync_start = 0, vsync_end = 0, vtotal = 0, vscan = 0;
    std::uint32_t flags = 0; ///< DRM_MODE_FLAG_*
    std::uint32_t type = 0;  ///< DRM_MODE_TYPE_*

    [[nodiscard]] bool operator==(const KmsMode&) const = default;
};

enum class KmsConnection : std::uint8_t {
    connected,
    disconnected,
    unknown, ///< The hardware cannot tell.
};

/// "connected", "disconnected" or "unknown".
[[nodiscard]] SLUICE_API std::string to_string(KmsConnection connection) noexcept;

/// Where pictures leave the card.
struct KmsConnector {
    std::uint32_t id = 0;
    std::string name;       ///< "Virtual-1", "HDMI-A-2", as the kernel's log and sysfs say it.
    std::uint32_t type = 0; ///< DRM_MODE_CONNECTOR_*
    KmsConnection connection = KmsConnection::unknown;
    std::uint32_t width_mm = 0;       ///< The screen's width; 0 if unknown.
    std::uint32_t height_mm = 0;      ///< The screen's height; 0 if unknown.
    std::vector<KmsMode> modes;       ///< In the driver's order, the best first.
    std::vector<std::uint32_t> crtcs; ///< Those that can drive it.
    std::uint32_t crtc = 0;           ///< The one that does; 0: none.
    /// Not for a desktop: a headset (property non-desktop).
    bool non_desktop = false;
    /// A writeback connector's: DRM_FORMAT_* that it captures into, LINEAR. Empty of all others.
    std::vector<std::uint32_t> writeback_formats;

    /// Captures what its CRTC shows, into a framebuffer.
    [[nodiscard]] SLUICE_API bool is_writeback() const noexcept;

    [[nodiscard]] bool operator==(const KmsConnector&) const = default;
};

/// What puts planes together and drives connectors, in a mode.
struct KmsCrtc {
    std::uint32_t id = 0;
    bool active = false;           ///< It drives something now.
    bool out_fence = false;        ///< It gives fences of flips (OUT_FENCE_PTR).
    bool variable_refresh = false; ///< It has VRR_ENABLED; a connector has to be vrr_capable too.

    [[nodiscard]] bool operator==(const KmsCrtc&) const = default;
};

/// One layout that a plane takes.
struct KmsFormat {
    std::uint32_t format = 0;   ///< DRM_FORMAT_*
    std::uint64_t modifier = 0; ///< DRM_FORMAT_MOD_*

    [[nodiscard]] bool operator==(const KmsFormat&) const = default;
};

enum class KmsPlaneType : std::uint8_t { primary, overlay, cursor };

/// "primary", "overlay" or "cursor".
[[nodiscard]] SLUICE_API std::string to_string(KmsPlaneType type) noexcept;

/// Where a plane is in the pile: larger is nearer (property zpos).
struct KmsZpos {
    std::uint64_t min = 0, max = 0; ///< What it may be set to.
    std::uint64_t value = 0;        ///< What it is now.
    bool fixed = false;             ///< It is what it is.

    [[nodiscard]] bool operator==(const KmsZpos&) const = default;
};

/// What a pixel's alpha can mean on a plane (property "pixel blend mode"). None is set where the
/// driver has no such property; alpha is pre-multiplied there.
struct KmsBlendModes {
    bool none = false;          ///< Nothing: the plane is opaque.
    bool premultiplied = false; ///< The colours are multiplied by it already.
    bool coverage = false;      ///< The card multiplies.

    [[nodiscard]] bool operator==(const KmsBlendModes&) const noexcept = default;
};

/// How a plane can be told to read YCbCr. None is set where the driver has no such property.
struct KmsYcbcr {
    bool bt601 = false, bt709 = false, bt2020 = false; ///< Property COLOR_ENCODING.
    bool limited_range = false, full_range = false;    ///< Property COLOR_RANGE.

    [[nodiscard]] bool operator==(const KmsYcbcr&) const noexcept = default;
};

/// Shows a framebuffer, or part of it, on a CRTC.
struct KmsPlane {
    std::uint32_t id = 0;
    KmsPlaneType type = KmsPlaneType::overlay;
    std::vector<std::uint32_t> crtcs; ///< Those that can show it.
    std::uint32_t crtc = 0;           ///< The one that does; 0: none.
    std::uint32_t framebuffer = 0;    ///< What it shows; 0: nothing.
    /// What it takes. A plane that tells no modifiers (no IN_FORMATS) has its formats here with
    /// DRM_FORMAT_MOD_INVALID, which is what the driver says: nothing of the layout.
    std::vector<KmsFormat> formats;
    bool in_fence = false; ///< It waits for a fence (IN_FENCE_FD).
    /// DRM_MODE_ROTATE_* and DRM_MODE_REFLECT_* that it can do; 1 (DRM_MODE_ROTATE_0) where the
    /// driver has no such property.
    std::uint32_t rotations = 1;
    std::optional<KmsZpos> zpos; ///< Nothing where the driver does not say.
    bool alpha = false;          ///< It has an opacity of its own.
    KmsBlendModes blend;
    KmsYcbcr ycbcr;

    /// Whether it tells modifiers.
    [[nodiscard]] SLUICE_API bool tells_modifiers() const noexcept;
    /// Whether it shows a frame that was made elsewhere with this layout. LINEAR is taken by a
    /// plane that tells no modifiers, since a framebuffer without any is linear unless the card's
    /// own driver allocated it. INVALID never is.
    [[nodiscard]] SLUICE_API bool takes(std::uint32_t format,
                                        std::uint64_t modifier) const noexcept;

    [[nodiscard]] bool operator==(const KmsPlane&) const = default;
};

/// All of a card, or of a lease, at one time: `KmsDevice::resources`. Compare two to see what has
/// changed.
struct SLUICE_API KmsResources {
    std::vector<KmsConnector> connectors;
    std::vector<KmsCrtc> crtcs;
    std::vector<KmsPlane> planes;

    // By the kernel's number; null where there is none. The pointers go with the resources.
    [[nodiscard]] const KmsConnector* connector(std::uint32_t id) const noexcept;
    [[nodiscard]] const KmsCrtc* crtc(std::uint32_t id) const noexcept;
    [[nodiscard]] const KmsPlane* plane(std::uint32_t id) const noexcept;

    /// The planes of \p type that \p crtc can show.
    [[nodiscard]] std::vector<const KmsPlane*> planes_of(std::uint32_t crtc,
                                                         KmsPlaneType type) const noexcept;

    [[nodiscard]] bool operator==(const KmsResources&) const = default;
};

} // namespace sluice
