// SPDX-License-Identifier: MIT
// Finds planes for layers.
#include <algorithm>
#include <utility>
#include <vector>

#include "kms/kms_state.hpp"

namespace sluice {

namespace {

/// Drivers give cursor planes little but small squares, and a layer that takes one takes the
/// cursor's.
bool suits(const KmsOutput::State& output, const KmsOutputPlane& plane,
           const KmsPlacedLayer& layer) {
    const KmsDeviceCaps& caps = output.device->caps;
    if (plane.can.type == KmsPlaneType::cursor && (layer.destination.width > caps.cursor_width ||
                                                   layer.destination.height > caps.cursor_height))
        return false;
    return output.is_free(plane) && !refusal_of(plane.can, *layer.layer);
}

/// Gives \p layer the lowest plane that the card accepts for it beside those that have one, or, as
/// \p highest says, the highest. \returns 0, or an errno that is not about planes.
int find_plane(KmsOutput::State& output, KmsPlacedLayer& layer, bool highest) {
    const std::size_t count = output.planes.size();
    for (std::size_t step = 0; step < count; ++step) {
        const std::size_t i = highest ? count - 1 - step : step;
        if (!suits(output, output.planes[i], layer) ||
            std::ranges::find(output.placed, i, &KmsPlacedLayer::plane) != output.placed.end())
            continue;
        layer.plane = i;
        const int error = output.try_placed();
        if (error == 0)
            return 0;
        layer.plane = KmsPlacedLayer::nowhere;
        if (!is_about_planes(error))
            return error;
    }
    return 0;
}

bool has_none(const KmsPlacedLayer& each) {
    return each.plane == KmsPlacedLayer::nowhere;
}

/// Gives planes by a simple rule. \returns 0, or an errno that is not about planes.
int assign_simply(KmsOutput::State& output) {
    auto& layers = output.placed;
    // The rest is composited into the first where it has to be.
    if (has_none(layers.front()))
        if (const int error = find_plane(output, layers.front(), false); error != 0)
            return error;
    // From the top, so that what is left over lies between the first and all that has a plane.
    for (std::size_t i = layers.size() - 1; i > 0; --i) {
        if (!has_none(layers[i]))
            continue;
        if (const int error = find_plane(output, layers[i], true); error != 0)
            return error;
        if (has_none(layers[i]))
            break;
    }
    return 0;
}

} // namespace

int assign_planes(KmsOutput::State& output) {
    auto& layers = output.placed;
    if (!std::ranges::all_of(layers, has_none)) // or all would seem to be refused
        if (const int error = output.try_placed(); error != 0)
            return error;
#ifdef SLUICE_LIFTOFF
    const std::vector<KmsPlacedLayer> given = layers;
    if (assign_by_liftoff(output, false))
        return 0;
#endif
    if (const int error = assign_simply(output); error != 0)
        return error;
#ifdef SLUICE_LIFTOFF
    // libliftoff takes planes that tell no zpos for ones that lie side by side, and finds less
    // there.
    const auto without = std::ranges::count_if(layers, has_none);
    if (without != 0) {
        const std::vector<KmsPlacedLayer> simple = std::exchange(layers, given);
        if (!assign_by_liftoff(output, true) || std::ranges::count_if(layers, has_none) > without)
            layers = simple;
    }
#endif
    return 0;
}

} // namespace sluice
