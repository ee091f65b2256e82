// SPDX-License-Identifier: MIT
#include <sluice/kms_resources.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <string_view>

#include <drm_fourcc.h>

#include "core/sys.hpp"
#include "kms/drm_ptr.hpp"
#include "kms/kms_in_formats.hpp"
#include "kms/kms_properties.hpp"
#include "kms/kms_state.hpp"

namespace sluice {

namespace {

/// As the kernel's drm_mode_vrefresh() counts, in thousandths.
std::uint32_t refresh_mhz(const drmModeModeInfo& mode) noexcept {
    std::uint64_t dots = std::uint64_t{mode.htotal} * mode.vtotal;
    if ((mode.flags & DRM_MODE_FLAG_DBLSCAN) != 0)
        dots *= 2;
    if (mode.vscan > 1)
        dots *= mode.vscan;
    const std::uint64_t fields = (mode.flags & DRM_MODE_FLAG_INTERLACE) != 0 ? 2 : 1;
    return dots == 0 ? 0 : static_cast<std::uint32_t>(mode.clock * 1000000ULL * fields / dots);
}

KmsMode mode_of(const drmModeModeInfo& mode) {
    return {.name = {mode.name, strnlen(mode.name, sizeof mode.name)},
            .width = mode.hdisplay,
            .height = mode.vdisplay,
            .refresh_mhz = refresh_mhz(mode),
            .preferred = (mode.type & DRM_MODE_TYPE_PREFERRED) != 0,
            .clock_khz = mode.clock,
            .hsync_start = mode.hsync_start,
            .hsync_end = mode.hsync_end,
            .htotal = mode.htotal,
            .hskew = mode.hskew,
            .vsync_start = mode.vsync_start,
            .vsync_end = mode.vsync_end,
            .vtotal = mode.vtotal,
            .vscan = mode.vscan,
            .flags = mode.flags,
            .type = mode.type};
}

std::string connector_name(const drmModeConnector& connector) {
    const char* type = drmModeGetConnectorTypeName(connector.connector_type);
    return std::string(type ? type : "Unknown") + "-" + std::to_string(connector.connector_type_id);
}

std::vector<std::uint32_t> words_of(const drmModePropertyBlobRes* blob) {
    std::vector<std::uint32_t> words(blob ? blob->length / sizeof(std::uint32_t) : 0);
    if (!words.empty())
        std::memcpy(words.data(), blob->data, words.size() * sizeof(std::uint32_t));
    return words;
}

class Reader {
public:
    Reader(int fd, bool probe) noexcept : fd_(fd), probe_(probe), properties_(fd) {}

    /// \returns 0, or an errno.
    int read(KmsResources& to) {
        const DrmResources resources(drmModeGetResources(fd_));
        if (!resources)
            return errno;
        const DrmPlaneResources planes(drmModeGetPlaneResources(fd_));
        if (!planes)
            return errno;
        all_crtcs_ = std::span(resources->crtcs, static_cast<std::size_t>(resources->count_crtcs));
        // What goes while we look (a lease, a connector of a dock) is not there.
        for (const std::uint32_t id : all_crtcs_)
            to.crtcs.push_back(read_crtc(id));
        for (int i = 0; i < resources->count_connectors; ++i)
            if (const DrmConnector each{
                    probe_ ? drmModeGetConnector(fd_, resources->connectors[i])
                           : drmModeGetConnectorCurrent(fd_, resources->connectors[i])})
                to.connectors.push_back(read_connector(*each));
        for (std::uint32_t i = 0; i < planes->count_planes; ++i)
            if (const DrmPlane each{drmModeGetPlane(fd_, planes->planes[i])})
                to.planes.push_back(read_plane(*each));
        return 0;
    }

private:
    /// The kernel's masks count the CRTCs as it lists them, those of a lease too.
    [[nodiscard]] std::vector<std::uint32_t> crtcs_of(std::uint32_t mask) const {
        std::vector<std::uint32_t> ids;
        for (std::size_t i = 0; i < std::min<std::size_t>(all_crtcs_.size(), 32); ++i)
            if (((mask >> i) & 1) != 0)
                ids.push_back(all_crtcs_[i]);
        return ids;
    }

    [[nodiscard]] DrmBlob blob_of(const KmsProperties::Property& property) const {
        return DrmBlob(property.value != 0
                           ? drmModeGetPropertyBlob(fd_, static_cast<std::uint32_t>(property.value))
                           : nullptr);
    }

    KmsCrtc read_crtc(std::uint32_t id) {
        const KmsProperties properties = properties_.read(id, DRM_MODE_OBJECT_CRTC);
        return {.id = id,
                .active = properties.find("ACTIVE").value != 0,
                .out_fence = static_cast<bool>(properties.find("OUT_FENCE_PTR")),
                .variable_refresh = static_cast<bool>(properties.find("VRR_ENABLED"))};
    }

    KmsConnector read_connector(const drmModeConnector& from) {
        const KmsProperties properties =
            properties_.read(from.connector_id, DRM_MODE_OBJECT_CONNECTOR);
        std::uint32_t mask = 0;
        for (int i = 0; i < from.count_encoders; ++i)
            if (const DrmEncoder encoder{drmModeGetEncoder(fd_, from.encoders[i])})
                mask |= encoder->possible_crtcs;
        KmsConnector connector{
            .id = from.connector_id,
            .name = connector_name(from),
            .type = from.connector_type,
            .connection = from.connection == DRM_MODE_CONNECTED      ? KmsConnection::connected
                          : from.connection == DRM_MODE_DISCONNECTED ? KmsConnection::disconnected
                                                                     : KmsConnection::unknown,
            .width_mm = from.mmWidth,
            .height_mm = from.mmHeight,
            .modes = {},
            .crtcs = crtcs_of(mask),
            .crtc = static_cast<std::uint32_t>(properties.find("CRTC_ID").value),
            .non_desktop = properties.find("non-desktop").value != 0,
            .writeback_formats =
                words_of(blob_of(properties.find("WRITEBACK_PIXEL_FORMATS")).get())};
        for (const drmModeModeInfo& each :
             std::span(from.modes, static_cast<std::size_t>(from.count_modes)))
            connector.modes.push_back(mode_of(each));
        return connector;
    }

    KmsPlane read_plane(const drmModePlane& from) {
        const KmsProperties properties = properties_.read(from.plane_id, DRM_MODE_OBJECT_PLANE);
        KmsPlane plane{.id = from.plane_id,
                       .type = type_of(properties.find("type").value),
                       .crtcs = crtcs_of(from.possible_crtcs),
                       .crtc = from.crtc_id,
                       .framebuffer = from.fb_id,
                       .formats = formats_of(from, properties),
                       .in_fence = static_cast<bool>(properties.find("IN_FENCE_FD")),
                       .rotations = rotations_of(properties.find("rotation")),
                       .alpha = static_cast<bool>(properties.find("alpha"))};
        if (const auto zpos = properties.find("zpos"); zpos && zpos.definition->count_values >= 2)
            plane.zpos = {.min = zpos.definition->values[0],
                          .max = zpos.definition->values[1],
                          .value = zpos.value,
                          .fixed = (zpos.definition->flags & DRM_MODE_PROP_IMMUTABLE) != 0};
        const auto blend = properties.find("pixel blend mode");
        plane.blend = {.none = blend.offers("None"),
                       .premultiplied = blend.offers("Pre-multiplied"),
                       .coverage = blend.offers("Coverage")};
        const auto encoding = properties.find("COLOR_ENCODING");
        const auto range = properties.find("COLOR_RANGE");
        plane.ycbcr = {.bt601 = encoding.offers("ITU-R BT.601 YCbCr"),
                       .bt709 = encoding.offers("ITU-R BT.709 YCbCr"),
                       .bt2020 = encoding.offers("ITU-R BT.2020 YCbCr"),
                       .limited_range = range.offers("YCbCr limited range"),
                       .full_range = range.offers("YCbCr full range")};
        return plane;
    }

    static KmsPlaneType type_of(std::uint64_t type) noexcept {
        return type == DRM_PLANE_TYPE_PRIMARY  ? KmsPlaneType::primary
               : type == DRM_PLANE_TYPE_CURSOR ? KmsPlaneType::cursor
                                               : KmsPlaneType::overlay;
    }

    /// A bitmask property's values are the numbers of its bits.
    static std::uint32_t rotations_of(const KmsProperties::Property& rotation) noexcept {
        if (!rotation)
            return DRM_MODE_ROTATE_0;
        std::uint32_t bits = 0;
        for (const drm_mode_property_enum& each :
             std::span(rotation.definition->enums,
                       static_cast<std::size_t>(rotation.definition->count_enums)))
            bits |= each.value < 32 ? 1U << each.value : 0;
        return bits;
    }

    [[nodiscard]] std::vector<KmsFormat> formats_of(const drmModePlane& from,
                                                    const KmsProperties& properties) const {
        if (const DrmBlob blob = blob_of(properties.find("IN_FORMATS")))
            if (auto told = parse_in_formats(
                    std::span(static_cast<const std::byte*>(blob->data), blob->length)))
                return std::move(*told);
        std::vector<KmsFormat> formats;
        for (const std::uint32_t each :
             std::span(from.formats, static_cast<std::size_t>(from.count_formats)))
            formats.push_back({.format = each, .modifier = DRM_FORMAT_MOD_INVALID});
        return formats;
    }

    int fd_;
    bool probe_;
    KmsPropertyReader properties_;
    std::span<const std::uint32_t> all_crtcs_;
};

template <typename T> const T* by_id(const std::vector<T>& all, std::uint32_t id) noexcept {
    const auto found = std::ranges::find(all, id, &T::id);
    return found != all.end() ? &*found : nullptr;
}

} // namespace

std::string to_string(KmsConnection connection) noexcept {
    constexpr std::array names{"connected", "disconnected", "unknown"};
    return names[static_cast<std::size_t>(connection)];
}

std::string to_string(KmsPlaneType type) noexcept {
    constexpr std::array names{"primary", "overlay", "cursor"};
    return names[static_cast<std::size_t>(type)];
}

bool KmsConnector::is_writeback() const noexcept {
    return type == DRM_MODE_CONNECTOR_WRITEBACK;
}

bool KmsPlane::tells_modifiers() const noexcept {
    return std::ranges::none_of(
        formats, [](const KmsFormat& each) { return each.modifier == DRM_FORMAT_MOD_INVALID; });
}

bool KmsPlane::takes(std::uint32_t format, std::uint64_t modifier) const noexcept {
    if (modifier == DRM_FORMAT_MOD_INVALID)
        return false;
    if (modifier == DRM_FORMAT_MOD_LINEAR && !tells_modifiers())
        modifier = DRM_FORMAT_MOD_INVALID;
    return std::ranges::find(formats, KmsFormat{.format = format, .modifier = modifier}) !=
           formats.end();
}

const KmsConnector* KmsResources::connector(std::uint32_t id) const noexcept {
    return by_id(connectors, id);
}

const KmsCrtc* KmsResources::crtc(std::uint32_t id) const noexcept {
    return by_id(crtcs, id);
}

const KmsPlane* KmsResources::plane(std::uint32_t id) const noexcept {
    return by_id(planes, id);
}

std::vector<const KmsPlane*> KmsResources::planes_of(std::uint32_t crtc,
                                                     KmsPlaneType type) const noexcept {
    std::vector<const KmsPlane*> found;
    for (const KmsPlane& each : planes)
        if (each.type == type && std::ranges::find(each.crtcs, crtc) != each.crtcs.end())
            found.push_back(&each);
    return found;
}

Result<KmsResources> read_resources(const KmsFile& file, bool probe, const char* operation) {
    KmsResources resources;
    if (const int error = Reader(file.fd(), probe).read(resources); error != 0)
        return tl::unexpected(
            sys::failed_call(error, operation, describe(file), "it has no display engine",
                             "Use a card with one, and find it again if it was unplugged"));
    return resources;
}

Result<KmsResources> KmsDevice::resources() const noexcept {
    return read_resources(*state_->file, true, "KmsDevice::resources");
}

} // namespace sluice
