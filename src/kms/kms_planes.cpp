// SPDX-License-Identifier: MIT
#include "kms/kms_planes.hpp"

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include <drm_fourcc.h>
#include <drm_mode.h>

#include <sluice/format.hpp>

namespace sluice {

namespace {

using std::to_string;

constexpr unsigned fixed_point = 16; // SRC_* are 16.16
constexpr std::uint32_t quarter_turns = DRM_MODE_ROTATE_90 | DRM_MODE_ROTATE_270;

/// \p value in 65536ths, as "12" or "12.5".
std::string pixels(std::uint64_t value) {
    std::string text = to_string(value >> fixed_point);
    const std::uint64_t rest = value & 0xffff;
    if (rest != 0) {
        std::string digits = to_string(rest * 1000 / 65536 + 1000).substr(1);
        text += "." + digits;
    }
    return text;
}

std::string joined(const std::vector<std::string>& names) {
    std::string text;
    for (const std::string& each : names)
        text += (text.empty() ? "" : ", ") + each;
    return text;
}

/// The formats that \p plane takes, or with \p of those the modifiers of that one.
std::string taken(const KmsPlane& plane, std::uint32_t of = 0) {
    std::vector<std::string> names;
    for (const KmsFormat& each : plane.formats)
        if (of == 0 || of == each.format)
            names.push_back(of == 0                   ? format_name(each.format)
                            : plane.tells_modifiers() ? modifier_name(each.modifier)
                                                      : modifier_name(DRM_FORMAT_MOD_LINEAR));
    std::ranges::sort(names);
    names.erase(std::unique(names.begin(), names.end()), names.end());
    return joined(names);
}

std::string rotations(std::uint32_t mask) {
    constexpr std::array names{"0", "90", "180", "270", "reflect-x", "reflect-y"};
    std::vector<std::string> all;
    for (std::size_t i = 0; i < names.size(); ++i)
        if (((mask >> i) & 1U) != 0)
            all.emplace_back(names[i]);
    return joined(all);
}

struct Flag {
    bool can;
    const char* name;
};

std::string offered(std::span<const Flag> flags) {
    std::vector<std::string> all;
    for (const Flag& each : flags)
        if (each.can)
            all.emplace_back(each.name);
    return all.empty() ? "none" : joined(all);
}

/// The size on the screen that \p source has by itself, rounded up.
std::pair<std::uint32_t, std::uint32_t> own_size(const KmsSource& source, std::uint32_t rotation) {
    const auto whole = [](std::uint32_t value) {
        return static_cast<std::uint32_t>((std::uint64_t{value} + 0xffff) >> fixed_point);
    };
    const std::uint32_t width = whole(source.width);
    const std::uint32_t height = whole(source.height);
    return (rotation & quarter_turns) != 0 ? std::pair(height, width) : std::pair(width, height);
}

/// Nothing where \p wanted, by the enumeration, is one of \p can.
template <typename Enum, std::size_t N>
std::optional<KmsRefusal> choice(const char* what, const std::optional<Enum>& wanted,
                                 const std::array<Flag, N>& can) {
    if (!wanted || can[static_cast<std::size_t>(*wanted)].can)
        return std::nullopt;
    return KmsRefusal{.problem = std::string(what) + " " +
                                 can[static_cast<std::size_t>(*wanted)].name +
                                 " cannot be set; the plane has " + offered(can),
                      .remedy = "Ask for one of these or for none, or composite the layer"};
}

} // namespace

tl::expected<KmsPlacedLayer, KmsRefusal> with_defaults(const KmsLayer& layer, std::size_t number,
                                                       std::size_t count, const KmsMode& mode) {
    const FrameLayout& frame = layer.framebuffer->frame().layout();
    const auto refuse = [&](std::string problem, std::string remedy) {
        return tl::unexpected(
            KmsRefusal{.code = Errc::invalid_argument,
                       .problem = "layer " + to_string(number) + "'s " + std::move(problem),
                       .remedy = std::move(remedy)});
    };
    KmsPlacedLayer placed{
        .layer = &layer, .source = layer.source, .destination = layer.destination};
    for (const auto& [start, size, whole, edge] :
         {std::tuple(placed.source.x, &placed.source.width, frame.width, "right edge"),
          std::tuple(placed.source.y, &placed.source.height, frame.height, "bottom")}) {
        const std::uint64_t all = std::uint64_t{whole} << fixed_point;
        if (*size == 0 && start < all)
            // A frame of 65536 pixels is beyond what SRC_W can tell.
            *size = static_cast<std::uint32_t>(std::min<std::uint64_t>(all - start, UINT32_MAX));
        if (*size == 0 || std::uint64_t{start} + *size > all)
            return refuse(std::string("source reaches to ") + pixels(std::uint64_t{start} + *size) +
                              " past its frame's " + edge + " at " + to_string(whole),
                          "Keep the source inside the frame; it is in 65536ths of a pixel");
    }
    const auto [width, height] = own_size(placed.source, layer.rotation);
    const bool whole_screen = count == 1 && layer.destination == KmsDestination{};
    if (placed.destination.width == 0)
        placed.destination.width = whole_screen ? mode.width : width;
    if (placed.destination.height == 0)
        placed.destination.height = whole_screen ? mode.height : height;
    constexpr std::int64_t largest = INT32_MAX; // CRTC_X to CRTC_X + CRTC_W have to fit
    if (std::int64_t{placed.destination.x} + placed.destination.width > largest ||
        std::int64_t{placed.destination.y} + placed.destination.height > largest)
        return refuse("destination ends beyond pixel " + to_string(largest),
                      "Keep it near the screen");
    return placed;
}

std::optional<KmsRefusal> refusal_of(const KmsPlane& plane, const KmsLayer& layer) {
    const FrameLayout& frame = layer.framebuffer->frame().layout();
    if (!plane.takes(frame.format, frame.modifier)) {
        const std::string modifiers = taken(plane, frame.format);
        const std::string format = format_name(frame.format);
        if (modifiers.empty())
            return KmsRefusal{.problem =
                                  "the plane takes " + taken(plane) + ", the frame is " + format,
                              .remedy = "Allocate the frame in one of these formats"};
        return KmsRefusal{.problem = "the plane takes " + format + " as " + modifiers +
                                     ", the frame is " + modifier_name(frame.modifier),
                          .remedy = "Allocate the frame with one of these modifiers"};
    }
    if ((layer.rotation & ~plane.rotations) != 0 || layer.rotation == 0)
        return KmsRefusal{.problem = "the plane turns by " + rotations(plane.rotations) +
                                     ", the layer asks for " + rotations(layer.rotation),
                          .remedy = "Turn the frame while it is drawn"};
    if (layer.alpha != 0xffff && !plane.alpha)
        return KmsRefusal{.problem = "the plane has no alpha of its own, the layer asks for " +
                                     to_string(layer.alpha) + " of 65535",
                          .remedy = "Multiply it into the frame, or composite the layer"};
    if (layer.zpos) {
        if (!plane.zpos)
            return KmsRefusal{.problem = "the plane has no zpos, the layer asks for " +
                                         to_string(*layer.zpos),
                              .remedy = "Leave zpos away: layers lie in the order they are given"};
        const KmsZpos& can = *plane.zpos;
        const std::uint64_t lowest = can.fixed ? can.value : can.min;
        const std::uint64_t highest = can.fixed ? can.value : can.max;
        if (*layer.zpos < lowest || *layer.zpos > highest)
            return KmsRefusal{.problem = "the plane's zpos goes from " + to_string(lowest) +
                                         " to " + to_string(highest) + ", the layer asks for " +
                                         to_string(*layer.zpos),
                              .remedy = "Ask for one that it has, or for none"};
    }
    // Without the property, alpha is pre-multiplied.
    const bool any_blend = plane.blend.none || plane.blend.premultiplied || plane.blend.coverage;
    if (auto refused =
            choice("blend mode", layer.blend,
                   std::array<Flag, 3>{{{plane.blend.none, "none"},
                                        {plane.blend.premultiplied || !any_blend, "pre-multiplied"},
                                        {plane.blend.coverage, "coverage"}}}))
        return refused;
    if (auto refused = choice("YCbCr encoding", layer.encoding,
                              std::array<Flag, 3>{{{plane.ycbcr.bt601, "BT.601"},
                                                   {plane.ycbcr.bt709, "BT.709"},
                                                   {plane.ycbcr.bt2020, "BT.2020"}}}))
        return refused;
    return choice("YCbCr range", layer.range,
                  std::array<Flag, 2>{
                      {{plane.ycbcr.limited_range, "limited"}, {plane.ycbcr.full_range, "full"}}});
}

std::optional<KmsMisplaced> stack(std::span<KmsPlacedLayer> layers,
                                  std::span<const KmsPlane* const> planes) {
    const KmsPlacedLayer* below = nullptr;
    for (std::size_t i = 0; i < layers.size(); ++i) {
        KmsPlacedLayer& each = layers[i];
        if (each.plane == KmsPlacedLayer::nowhere)
            continue;
        const KmsPlane& plane = *planes[each.plane];
        const auto refuse = [&](std::string problem) {
            return KmsMisplaced{
                .layer = i,
                .why = {.problem = std::move(problem),
                        .remedy = "Give planes from the bottom to the top, or none at all"}};
        };
        if (each.layer->zpos) {
            each.zpos = *each.layer->zpos; // by hand, whatever the layers' order
        } else if (plane.zpos) {
            const std::uint64_t lowest = below != nullptr ? below->zpos + 1 : 0;
            each.zpos = plane.zpos->fixed ? plane.zpos->value : std::max(plane.zpos->min, lowest);
            const std::uint64_t highest = plane.zpos->fixed ? plane.zpos->value : plane.zpos->max;
            if (each.zpos < lowest || each.zpos > highest)
                return refuse("the plane's zpos goes to " + to_string(highest) +
                              ", and the layer below it is at " + to_string(below->zpos));
        } else if (below != nullptr && each.plane <= below->plane) {
            return refuse(each.plane == below->plane
                              ? std::string("the layer below has the same plane")
                              : "the plane lies below plane " +
                                    to_string(planes[below->plane]->id) +
                                    ", which the layer before has");
        }
        below = &each;
    }
    return std::nullopt;
}

KmsPlaneValues values_of(const KmsPlacedLayer& placed, const KmsPlaneControls& controls,
                         std::uint32_t crtc) {
    const KmsLayer& layer = *placed.layer;
    const auto signed_value = [](std::int32_t value) {
        return static_cast<std::uint64_t>(std::int64_t{value});
    };
    KmsPlaneValues values{};
    using enum KmsPlaneProperty;
    at(values, crtc_id) = crtc;
    at(values, src_x) = placed.source.x;
    at(values, src_y) = placed.source.y;
    at(values, src_w) = placed.source.width;
    at(values, src_h) = placed.source.height;
    at(values, crtc_x) = signed_value(placed.destination.x);
    at(values, crtc_y) = signed_value(placed.destination.y);
    at(values, crtc_w) = placed.destination.width;
    at(values, crtc_h) = placed.destination.height;
    at(values, rotation) = layer.rotation;
    at(values, alpha) = layer.alpha;
    at(values, zpos) = placed.zpos;
    at(values, blend) =
        controls.blends[static_cast<std::size_t>(layer.blend.value_or(KmsBlend::premultiplied))];
    at(values, encoding) = layer.encoding
                               ? controls.encodings[static_cast<std::size_t>(*layer.encoding)]
                               : controls.own_encoding;
    at(values, range) =
        layer.range ? controls.ranges[static_cast<std::size_t>(*layer.range)] : controls.own_range;
    return values;
}

bool lies_below(const KmsPlane& a, const KmsPlane& b) noexcept {
    const auto place = [](const KmsPlane& plane) {
        const auto type = plane.type == KmsPlaneType::primary   ? 0
                          : plane.type == KmsPlaneType::overlay ? 1
                                                                : 2;
        const bool fixed = plane.zpos && plane.zpos->fixed;
        const std::uint64_t low = !plane.zpos ? 0 : fixed ? plane.zpos->value : plane.zpos->min;
        const std::uint64_t high = !plane.zpos ? 0 : fixed ? plane.zpos->value : plane.zpos->max;
        return std::tuple(low, high, type, plane.id);
    };
    return place(a) < place(b);
}

std::string describe(const KmsPlacedLayer& layer, std::size_t number, const KmsPlane* plane) {
    const auto size = [](const std::string& width, const std::string& height) {
        return width + "x" + height;
    };
    const auto at = [](const std::string& x, const std::string& y) { return " at " + x + "," + y; };
    const FrameLayout& frame = layer.layer->framebuffer->frame().layout();
    return "layer " + to_string(number) + ", " +
           size(to_string(frame.width), to_string(frame.height)) + " " + format_name(frame.format) +
           " " + modifier_name(frame.modifier) + ", of which " +
           size(pixels(layer.source.width), pixels(layer.source.height)) +
           at(pixels(layer.source.x), pixels(layer.source.y)) + " go to " +
           size(to_string(layer.destination.width), to_string(layer.destination.height)) +
           at(to_string(layer.destination.x), to_string(layer.destination.y)) +
           (plane != nullptr ? " on plane " + to_string(plane->id) : std::string());
}

KmsLayerShape shape_of(const KmsPlacedLayer& placed) noexcept {
    const FrameLayout& frame = placed.layer->framebuffer->frame().layout();
    const KmsLayer& layer = *placed.layer;
    return {.plane = layer.plane,
            .format = frame.format,
            .width = frame.width,
            .height = frame.height,
            .modifier = frame.modifier,
            .source = placed.source,
            .shown_width = placed.destination.width,
            .shown_height = placed.destination.height,
            .rotation = layer.rotation,
            .zpos = layer.zpos,
            .alpha = layer.alpha != 0xffff,
            .blend = layer.blend,
            .encoding = layer.encoding,
            .range = layer.range};
}

} // namespace sluice
