// SPDX-License-Identifier: MIT
// Finds the parts of an output among a card's resources.
#include <sluice/kms_device.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include <drm_fourcc.h>

#include "core/sys.hpp"
#include "kms/drm_ptr.hpp"
#include "kms/kms_properties.hpp"
#include "kms/kms_state.hpp"

namespace sluice {

namespace {

using std::to_string;

/// The mode of the size asked for, or the preferred one, or null.
const KmsMode* find_mode(const KmsConnector& connector, const KmsOutputInfo& info) {
    const KmsMode* first = nullptr;
    for (const KmsMode& mode : connector.modes) {
        if (info.width == 0 && info.height == 0) {
            if (mode.preferred)
                return &mode;
        } else if (mode.width != info.width || mode.height != info.height) {
            continue;
        }
        if (first == nullptr)
            first = &mode;
    }
    return first;
}

/// Adds what \p plane shows; its formats LINEAR where the driver does not say modifiers, or takes
/// none.
void add_shown(const KmsDeviceCaps& caps, const KmsPlane& plane, std::vector<FormatSupport>& to) {
    const bool told = plane.tells_modifiers();
    for (const KmsFormat& each : plane.formats)
        if (!told || each.modifier == DRM_FORMAT_MOD_LINEAR || caps.modifiers)
            to.push_back({.format = each.format,
                          .modifier = told ? each.modifier : DRM_FORMAT_MOD_LINEAR,
                          .uses = Uses::scan_out});
}

/// Adds what the writeback connector captures into, whose formats come without modifiers.
void add_captured(std::span<const std::uint32_t> formats, std::vector<FormatSupport>& to) {
    for (const std::uint32_t each : formats)
        to.push_back({.format = each, .modifier = DRM_FORMAT_MOD_LINEAR, .uses = Uses::capture});
}

/// Whether the card sees what lies in the CPU's caches. The kernel does not tell; it is known of
/// drivers where a CPU, the host's at least, reads the pixels (vkms_composer.c, cirrus.c and
/// virtgpu_plane.c in drivers/gpu/drm).
Snooping snooping_of(std::string_view driver) {
    constexpr std::array<std::string_view, 4> by_cpu{"vkms", "virtio_gpu", "cirrus", "cirrus-qemu"};
    return std::ranges::find(by_cpu, driver) != by_cpu.end() ? Snooping::yes : Snooping::unknown;
}

/// As the kernel wants a mode back.
drm_mode_modeinfo modeinfo_of(const KmsMode& mode) {
    drm_mode_modeinfo info{.clock = mode.clock_khz,
                           .hdisplay = static_cast<std::uint16_t>(mode.width),
                           .hsync_start = mode.hsync_start,
                           .hsync_end = mode.hsync_end,
                           .htotal = mode.htotal,
                           .hskew = mode.hskew,
                           .vdisplay = static_cast<std::uint16_t>(mode.height),
                           .vsync_start = mode.vsync_start,
                           .vsync_end = mode.vsync_end,
                           .vtotal = mode.vtotal,
                           .vscan = mode.vscan,
                           .vrefresh = (mode.refresh_mhz + 500) / 1000,
                           .flags = mode.flags,
                           .type = mode.type};
    mode.name.copy(info.name, sizeof info.name - 1);
    return info;
}

using Wanted = std::initializer_list<std::pair<const char*, std::uint32_t*>>;

/// \returns the name of the first property that is not there, or an empty text.
std::string take(const KmsProperties& properties, Wanted wanted) {
    for (const auto& [name, id] : wanted)
        if (*id = properties.find(name).id; *id == 0)
            return name;
    return {};
}

/// The parts of one output, each found or not.
class Search {
public:
    Search(const KmsDevice::State& device, const KmsResources& resources, const KmsOutputInfo& info)
        : device_(device), resources_(resources), info_(info), properties_(device.file->fd()) {}

    /// Fills \p output. \returns what is missing, or an empty text.
    std::string run(KmsOutput::State& output) {
        std::string refusals;
        for (const KmsConnector& connector : resources_.connectors) {
            if (connector.is_writeback())
                continue;
            const std::string refusal = try_connector(connector, output);
            if (refusal.empty())
                return {};
            refusals += (refusals.empty() ? "" : "; ") + connector.name + " " + refusal;
        }
        return refusals.empty() ? "it has no connectors" : refusals;
    }

private:
    std::string try_connector(const KmsConnector& connector, KmsOutput::State& output) {
        if (connector.connection != KmsConnection::connected)
            return "is not connected";
        const KmsMode* mode = find_mode(connector, info_);
        if (mode == nullptr)
            return "has no mode of " + to_string(info_.width) + "x" + to_string(info_.height);
        std::string refusal = "has no CRTC";
        for (const std::uint32_t crtc : connector.crtcs) {
            refusal = try_crtc(connector, crtc, output);
            if (refusal.empty()) {
                output.mode = *mode;
                describe_to_others(connector, output);
                return {};
            }
        }
        return refusal;
    }

    std::string try_crtc(const KmsConnector& connector, std::uint32_t crtc,
                         KmsOutput::State& output) {
        const auto on_crtc = " on CRTC " + to_string(crtc);
        const auto primaries = resources_.planes_of(crtc, KmsPlaneType::primary);
        if (primaries.empty())
            return "has no primary plane" + on_crtc;
        const KmsPlane& primary = *primaries.front();

        const KmsConnector* writeback = nullptr;
        if (info_.writeback) {
            for (const KmsConnector& each : resources_.connectors)
                if (each.is_writeback() && std::ranges::find(each.crtcs, crtc) != each.crtcs.end())
                    writeback = &each;
            if (writeback == nullptr)
                return "has no writeback connector" + on_crtc;
        }

        output.connector = connector.id;
        output.crtc = crtc;
        output.caps.formats.clear();
        add_shown(device_.caps, primary, output.caps.formats);
        output.name = connector.name + on_crtc + ", plane " + to_string(primary.id);
        std::string missing = take_properties(output, primary.id);
        if (writeback != nullptr && missing.empty()) {
            output.writeback = writeback->id;
            output.name += ", captured by " + writeback->name;
            add_captured(writeback->writeback_formats, output.caps.formats);
            auto& of_writeback = output.writeback_properties;
            missing = take(properties_.read(output.writeback, DRM_MODE_OBJECT_CONNECTOR),
                           {{"CRTC_ID", &of_writeback.crtc_id},
                            {"WRITEBACK_FB_ID", &of_writeback.writeback_fb_id},
                            {"WRITEBACK_OUT_FENCE_PTR", &of_writeback.writeback_out_fence_ptr}});
        }
        return missing.empty() ? missing : "lacks the property " + missing + on_crtc;
    }

    void describe_to_others(const KmsConnector& connector, KmsOutput::State& output) const {
        ImporterCaps& caps = output.caps;
        caps.name = "kms " + device_.file->driver() + " " + connector.name;
        caps.device = device_.device;
        caps.snooping = snooping_of(device_.file->driver());
        caps.min_width = output.mode.width;
        caps.min_height = output.mode.height;
        for (FormatSupport& each : caps.formats) {
            each.max_width = output.mode.width;
            each.max_height = output.mode.height;
        }
    }

    std::string take_properties(KmsOutput::State& output, std::uint32_t primary) {
        std::string missing = take(properties_.read(output.connector, DRM_MODE_OBJECT_CONNECTOR),
                                   {{"CRTC_ID", &output.connector_properties.crtc_id}});
        if (!missing.empty())
            return missing;
        auto& of_crtc = output.crtc_properties;
        const KmsProperties crtc = properties_.read(output.crtc, DRM_MODE_OBJECT_CRTC);
        missing = take(crtc, {{"ACTIVE", &of_crtc.active},
                              {"MODE_ID", &of_crtc.mode_id},
                              {"OUT_FENCE_PTR", &of_crtc.out_fence_ptr}});
        if (!missing.empty())
            return missing;
        of_crtc.reset.clear();
        for (const char* each : {"GAMMA_LUT", "DEGAMMA_LUT", "CTM", "VRR_ENABLED"})
            if (const auto property = crtc.find(each))
                of_crtc.reset.push_back(property.id);
        return take_planes(output, primary);
    }

    std::string take_planes(KmsOutput::State& output, std::uint32_t primary) {
        output.planes.clear();
        output.plane_list.clear();
        for (const KmsPlane& each : resources_.planes) {
            if (std::ranges::find(each.crtcs, output.crtc) == each.crtcs.end())
                continue;
            KmsOutputPlane plane;
            plane.can = each;
            std::string missing = take_plane(plane);
            if (missing.empty())
                output.planes.push_back(std::move(plane));
            else if (each.id == primary)
                return missing;
        }
        std::ranges::sort(output.planes, lies_below, &KmsOutputPlane::can);
        for (std::size_t i = 0; i < output.planes.size(); ++i) {
            output.plane_list.push_back(&output.planes[i].can);
            if (output.planes[i].can.id == primary)
                output.primary = i;
        }
        return {};
    }

    std::string take_plane(KmsOutputPlane& plane) {
        const KmsProperties properties = properties_.read(plane.can.id, DRM_MODE_OBJECT_PLANE);
        KmsPlaneControls& controls = plane.controls;
        controls.fb_id = properties.find("FB_ID").id;
        if (controls.fb_id == 0)
            return "FB_ID";
        controls.in_fence_fd = properties.find("IN_FENCE_FD").id;
        for (std::size_t i = 0; i < kms_plane_properties; ++i) {
            const auto property = properties.find(kms_plane_property_names[i]);
            if (!property && i < kms_plane_properties_required)
                return kms_plane_property_names[i];
            if (property && !property.is_fixed())
                controls.ids[i] = property.id;
        }
        const auto blend = properties.find("pixel blend mode");
        controls.blends = {blend.value_of("None"), blend.value_of("Pre-multiplied"),
                           blend.value_of("Coverage")};
        const auto encoding = properties.find("COLOR_ENCODING");
        controls.encodings = {encoding.value_of("ITU-R BT.601 YCbCr"),
                              encoding.value_of("ITU-R BT.709 YCbCr"),
                              encoding.value_of("ITU-R BT.2020 YCbCr")};
        controls.own_encoding = controls.encodings[plane.can.ycbcr.bt709   ? 1
                                                   : plane.can.ycbcr.bt601 ? 0
                                                                           : 2];
        const auto range = properties.find("COLOR_RANGE");
        controls.ranges = {range.value_of("YCbCr limited range"),
                           range.value_of("YCbCr full range")};
        controls.own_range = controls.ranges[plane.can.ycbcr.limited_range ? 0 : 1];
        return {};
    }

    const KmsDevice::State& device_;
    const KmsResources& resources_;
    const KmsOutputInfo& info_;
    KmsPropertyReader properties_;
};

} // namespace

KmsLeftovers leftovers_of(const KmsResources& resources, std::uint32_t connector,
                          std::uint32_t crtc, std::uint32_t writeback) {
    KmsLeftovers leftovers;
    const auto is_ours = [&](const KmsConnector& each) {
        return each.id == connector || each.id == writeback;
    };
    // The kernel refuses to leave a CRTC on without a connector.
    for (const KmsCrtc& each : resources.crtcs) {
        const auto on_it = [&each](const KmsConnector& one) { return one.crtc == each.id; };
        if (each.id != crtc && std::ranges::any_of(resources.connectors, on_it) &&
            std::ranges::none_of(resources.connectors, [&](const KmsConnector& one) {
                return on_it(one) && !is_ours(one) && !one.is_writeback();
            }))
            leftovers.crtcs.push_back(each.id);
    }
    const auto goes = [&](std::uint32_t on) {
        return on == crtc || std::ranges::find(leftovers.crtcs, on) != leftovers.crtcs.end();
    };
    for (const KmsConnector& each : resources.connectors)
        if (!is_ours(each) && each.crtc != 0 && goes(each.crtc))
            leftovers.connectors.push_back(each.id);
    for (const KmsPlane& each : resources.planes)
        if (each.crtc != 0 && goes(each.crtc))
            leftovers.planes.push_back(each.id);
    return leftovers;
}

void note_leftovers(const KmsResources& resources, KmsOutput::State& output) {
    const KmsLeftovers all =
        leftovers_of(resources, output.connector, output.crtc, output.writeback);
    KmsPropertyReader reader(output.device->file->fd());
    output.leftovers.clear();
    const auto clear = [&](std::span<const std::uint32_t> objects, std::uint32_t type,
                           std::initializer_list<const char*> names) {
        for (const std::uint32_t each : objects) {
            const KmsProperties properties = reader.read(each, type);
            for (const char* name : names)
                if (const auto property = properties.find(name)) // or it is gone by now
                    output.leftovers.push_back({each, property.id});
        }
    };
    clear(all.connectors, DRM_MODE_OBJECT_CONNECTOR, {"CRTC_ID"});
    clear(all.crtcs, DRM_MODE_OBJECT_CRTC, {"ACTIVE", "MODE_ID"});
    clear(all.planes, DRM_MODE_OBJECT_PLANE, {"FB_ID", "CRTC_ID"});
    output.leftovers_known = true;
}

Result<KmsOutput> KmsDevice::find_output(const KmsOutputInfo& info) const noexcept {
    constexpr const char* operation = "KmsDevice::find_output";
    auto output = std::make_unique<KmsOutput::State>(state_);
    std::string missing;
    if (info.writeback && !state_->caps.writeback) {
        missing = "its driver has no writeback connectors";
    } else if (const auto all = resources(); !all) {
        missing = all.error().problem;
    } else {
        missing = Search(*state_, *all, info).run(*output);
        note_leftovers(*all, *output);
    }
    if (!missing.empty())
        return tl::unexpected(
            Error{.code = Errc::unsupported,
                  .operation = operation,
                  .object = describe(*state_->file),
                  .problem = std::move(missing),
                  .remedy = info.writeback
                                ? "Use a card that captures its screen (vkms does), or ask for none"
                                : "Connect a screen, or ask for a size that it has"});
    const drm_mode_modeinfo mode = modeinfo_of(output->mode);
    if (drmModeCreatePropertyBlob(state_->file->fd(), &mode, sizeof mode, &output->mode_blob) != 0)
        return tl::unexpected(sys::failed_call(errno, operation, describe(*state_->file),
                                               "the kernel took no copy of the mode",
                                               "Free kernel memory and try again"));
    return KmsOutput(std::move(output));
}

} // namespace sluice
