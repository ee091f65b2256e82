// SPDX-License-Identifier: MIT
// Finds planes for layers by libliftoff, which tries more ways than our own rule does.
#include <algorithm>
#include <memory>
#include <vector>

#include <drm_mode.h>
#include <xf86drmMode.h>

extern "C" { // which the header does not say
#include <libliftoff.h>
}

#include "kms/drm_ptr.hpp"
#include "kms/kms_state.hpp"

namespace sluice {

namespace {

using Device = DrmPtr<liftoff_device, liftoff_device_destroy>;
using Output = DrmPtr<liftoff_output, liftoff_output_destroy>;
using Plane = DrmPtr<liftoff_plane, liftoff_plane_destroy>;
using Layer = DrmPtr<liftoff_layer, liftoff_layer_destroy>;
using Request = DrmPtr<drmModeAtomicReq, drmModeAtomicFree>;

/// What one search needs. They go in the opposite order.
struct Search {
    Device device;
    Output output;
    std::vector<Plane> planes;
    std::vector<Layer> layers; // for those of the commit that name no plane
    std::vector<std::size_t> layer_of;
};

bool has_plane(const KmsPlacedLayer& layer) {
    return layer.plane != KmsPlacedLayer::nowhere;
}

/// Tells libliftoff what \p placed, number \p number, asks of a plane.
void describe_to(liftoff_layer* layer, const KmsPlacedLayer& placed, std::size_t number,
                 const KmsPlaneControls& controls) {
    using enum KmsPlaneProperty;
    const KmsPlaneValues values = values_of(placed, controls, 0);
    const auto set = [&](KmsPlaneProperty which) {
        const auto i = static_cast<std::size_t>(which);
        liftoff_layer_set_property(layer, kms_plane_property_names[i], values[i]);
    };
    liftoff_layer_set_property(layer, "FB_ID", placed.layer->framebuffer->id());
    for (const KmsPlaneProperty each :
         {src_x, src_y, src_w, src_h, crtc_x, crtc_y, crtc_w, crtc_h, rotation, alpha})
        set(each);
    liftoff_layer_set_property(layer, "zpos", number); // read, and never set
    if (placed.layer->blend)
        set(blend);
    if (placed.layer->encoding)
        set(encoding);
    if (placed.layer->range)
        set(range);
}

/// Names the planes that are free, and the layers that want one. \returns whether that worked.
bool set_up(Search& search, KmsOutput::State& output) {
    const int fd = output.device->file->fd();
    if (drmIsMaster(fd) == 0) // it would complain to stderr
        return false;
    // Its header says that it takes the fd over; it makes a copy, and leaves ours alone.
    search.device.reset(liftoff_device_create(fd));
    if (!search.device)
        return false;
    search.output.reset(liftoff_output_create(search.device.get(), output.crtc));
    if (!search.output)
        return false;
    const auto& placed = output.placed;
    const KmsDeviceCaps& caps = output.device->caps;
    const KmsDestination& top = placed.back().destination;
    const bool for_cursor = top.width <= caps.cursor_width && top.height <= caps.cursor_height;
    for (std::size_t i = 0; i < output.planes.size(); ++i) {
        const KmsOutputPlane& each = output.planes[i];
        if (!output.is_free(each) || (each.can.type == KmsPlaneType::cursor && !for_cursor) ||
            std::ranges::find(placed, i, &KmsPlacedLayer::plane) != placed.end())
            continue;
        search.planes.emplace_back(liftoff_plane_create(search.device.get(), each.can.id));
        if (!search.planes.back())
            return false;
    }
    for (std::size_t i = 0; i < placed.size(); ++i) {
        if (has_plane(placed[i]))
            continue;
        search.layers.emplace_back(liftoff_layer_create(search.output.get()));
        if (!search.layers.back())
            return false;
        search.layer_of.push_back(i);
        // The numbers of blend modes and the like are the same on all planes that have them.
        const auto able = std::ranges::find_if(output.planes, [&](const KmsOutputPlane& plane) {
            return !refusal_of(plane.can, *placed[i].layer);
        });
        if (able == output.planes.end())
            liftoff_layer_set_fb_composited(search.layers.back().get());
        else
            describe_to(search.layers.back().get(), placed[i], i, able->controls);
    }
    return true;
}

/// Searches, and gives the planes that were found to the output's layers.
bool apply(const Search& search, KmsOutput::State& output) {
    const Request request(drmModeAtomicAlloc());
    if (!request)
        return false;
    output.want_placed();
    output.fill_others();
    output.request.copy_to(*request);
    const std::uint32_t flags = DRM_MODE_ATOMIC_NONBLOCK |
                                (output.routed ? 0U : std::uint32_t{DRM_MODE_ATOMIC_ALLOW_MODESET});
#ifdef SLUICE_LIFTOFF_OPTIONS
    const int error = liftoff_output_apply(search.output.get(), request.get(), flags, nullptr);
#else
    const int error = liftoff_output_apply(search.output.get(), request.get(), flags);
#endif
    if (error != 0)
        return false;
    for (std::size_t i = 0; i < search.layers.size(); ++i) {
        liftoff_plane* plane = liftoff_layer_get_plane(search.layers[i].get());
        const auto found =
            plane == nullptr
                ? output.planes.end()
                : std::ranges::find(output.planes, liftoff_plane_get_id(plane),
                                    [](const KmsOutputPlane& each) { return each.can.id; });
        output.placed[search.layer_of[i]].plane =
            found == output.planes.end() ? KmsPlacedLayer::nowhere
                                         : static_cast<std::size_t>(found - output.planes.begin());
    }
    return true;
}

/// Whether the card takes what was found, in the order that the layers have. libliftoff leaves
/// zpos alone, and planes that tell none are all the same to it.
bool holds(KmsOutput::State& output) {
    if (!has_plane(output.placed.front()))
        return false;
    for (const KmsPlacedLayer& each : output.placed)
        if (has_plane(each) && refusal_of(output.planes[each.plane].can, *each.layer))
            return false;
    return output.try_placed() == 0;
}

} // namespace

bool assign_by_liftoff(KmsOutput::State& output, bool composites) {
    Search search;
    if (has_plane(output.placed.front()) && composites)
        return false;
    if (!set_up(search, output))
        return false;
    // All others having planes, this layer would be taken for one that nobody needs.
    if (composites)
        liftoff_output_set_composition_layer(search.output.get(), search.layers.front().get());
    if (apply(search, output) && holds(output) &&
        (composites || std::ranges::all_of(output.placed, has_plane)))
        return true;
    for (const std::size_t each : search.layer_of)
        output.placed[each].plane = KmsPlacedLayer::nowhere;
    return false;
}

} // namespace sluice
