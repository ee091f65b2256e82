// SPDX-License-Identifier: MIT
/// \file
/// Layers against planes: what a layer asks for, which planes can do it, and in which order they
/// lie. No system calls. Not installed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include <sluice/error.hpp>
#include <sluice/frame.hpp>
#include <sluice/kms_commit.hpp>
#include <sluice/kms_resources.hpp>

namespace sluice {

/// The properties of a plane that stay as they are from one commit to the next.
enum class KmsPlaneProperty : std::uint8_t {
    crtc_id,
    src_x,
    src_y,
    src_w,
    src_h,
    crtc_x,
    crtc_y,
    crtc_w,
    crtc_h,
    rotation,
    alpha,
    zpos,
    blend,
    encoding,
    range,
};
inline constexpr std::size_t kms_plane_properties = 15;

/// As the kernel calls them. Every plane has those up to CRTC_H.
inline constexpr std::array<const char*, kms_plane_properties> kms_plane_property_names{
    "CRTC_ID",          "SRC_X",          "SRC_Y",      "SRC_W",    "SRC_H", "CRTC_X",
    "CRTC_Y",           "CRTC_W",         "CRTC_H",     "rotation", "alpha", "zpos",
    "pixel blend mode", "COLOR_ENCODING", "COLOR_RANGE"};
inline constexpr std::size_t kms_plane_properties_required = 9;

/// One value for each of them.
using KmsPlaneValues = std::array<std::uint64_t, kms_plane_properties>;

[[nodiscard]] constexpr std::uint64_t& at(KmsPlaneValues& values, KmsPlaneProperty which) noexcept {
    return values[static_cast<std::size_t>(which)];
}

/// The kernel's numbers of a plane's properties and of their values.
struct KmsPlaneControls {
    std::uint32_t fb_id = 0;
    std::uint32_t in_fence_fd = 0; // 0: it has none
    // 0: it has none that can be set
    std::array<std::uint32_t, kms_plane_properties> ids{};
    std::array<std::uint64_t, 3> blends{}, encodings{}; // by KmsBlend, KmsEncoding
    std::array<std::uint64_t, 2> ranges{};              // by KmsRange
    std::uint64_t own_encoding = 0, own_range = 0;      // for a layer that asks for none
};

/// A layer with its defaults filled in, and its plane.
struct KmsPlacedLayer {
    static constexpr std::size_t nowhere = SIZE_MAX;

    const KmsLayer* layer = nullptr;
    KmsSource source;
    KmsDestination destination;
    std::size_t plane = nowhere; // its place among the output's planes
    std::uint64_t zpos = 0;      // where the plane has any
};

/// What is wrong, and what helps, for an Error.
struct KmsRefusal {
    Errc code = Errc::unsupported;
    std::string problem;
    std::string remedy;
    int sys_errno = 0;
};

/// Fills in the defaults of \p layer, number \p number of \p count on a screen of that size.
/// \returns it without a plane, or `invalid_argument`.
[[nodiscard]] tl::expected<KmsPlacedLayer, KmsRefusal>
with_defaults(const KmsLayer& layer, std::size_t number, std::size_t count, const KmsMode& mode);

/// What \p plane cannot do of \p layer, or nothing.
[[nodiscard]] std::optional<KmsRefusal> refusal_of(const KmsPlane& plane, const KmsLayer& layer);

/// A layer's plane that does not lie where it has to.
struct KmsMisplaced {
    std::size_t layer = 0;
    KmsRefusal why;
};

/// Finds out in which order those of \p layers lie that have a plane, and sets their zpos.
/// \param planes the output's, from the bottom to the top. \returns the first that is in the wrong
/// place, or nothing.
[[nodiscard]] std::optional<KmsMisplaced> stack(std::span<KmsPlacedLayer> layers,
                                                std::span<const KmsPlane* const> planes);

/// What a plane's properties have to be for \p layer. \param crtc the kernel's number of it.
[[nodiscard]] KmsPlaneValues values_of(const KmsPlacedLayer& layer,
                                       const KmsPlaneControls& controls, std::uint32_t crtc);

/// Whether \p a lies below \p b, as far as the driver tells: by zpos, or else as the kernel says,
/// primary planes below overlays below cursors, and by number.
[[nodiscard]] bool lies_below(const KmsPlane& a, const KmsPlane& b) noexcept;

/// "layer 1, 64x64 XR24 LINEAR, of which 64x64 at 0,0 go to 64x64 at 100,50 on plane 35".
[[nodiscard]] std::string describe(const KmsPlacedLayer& layer, std::size_t number,
                                   const KmsPlane* plane);

/// What planes are chosen by: a layer of the same shape gets the same plane again.
struct KmsLayerShape {
    std::uint32_t plane = 0, format = 0, width = 0, height = 0;
    std::uint64_t modifier = 0;
    KmsSource source;
    std::uint32_t shown_width = 0, shown_height = 0, rotation = 1;
    std::optional<std::uint64_t> zpos;
    bool alpha = false;
    std::optional<KmsBlend> blend;
    std::optional<KmsEncoding> encoding;
    std::optional<KmsRange> range;

    [[nodiscard]] bool operator==(const KmsLayerShape&) const noexcept = default;
};

[[nodiscard]] KmsLayerShape shape_of(const KmsPlacedLayer& layer) noexcept;

} // namespace sluice
