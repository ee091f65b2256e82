// SPDX-License-Identifier: MIT
/// \file
/// IN_FORMATS blobs made by hand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include <drm_fourcc.h>
#include <drm_mode.h>

namespace sluice::test {

/// A good one, to be changed: XR24 LINEAR and X-tiled, NV12 LINEAR only.
struct InFormatsBlob {
    std::vector<std::uint32_t> formats{DRM_FORMAT_XRGB8888, DRM_FORMAT_NV12};
    std::vector<drm_format_modifier> modifiers{
        {.formats = 3, .offset = 0, .modifier = DRM_FORMAT_MOD_LINEAR},
        {.formats = 1, .offset = 0, .modifier = I915_FORMAT_MOD_X_TILED}};
    /// As for what is above, with nothing between the tables.
    drm_format_modifier_blob header{.version = FORMAT_BLOB_CURRENT,
                                    .count_formats = 2,
                                    .formats_offset = 24,
                                    .count_modifiers = 2,
                                    .modifiers_offset = 32};

    [[nodiscard]] std::vector<std::byte> bytes() const {
        std::vector<std::byte> all;
        const auto add = [&all](const void* from, std::size_t size) {
            const auto* bytes = static_cast<const std::byte*>(from);
            all.insert(all.end(), bytes, bytes + size);
        };
        add(&header, sizeof header);
        add(formats.data(), formats.size() * sizeof formats[0]);
        add(modifiers.data(), modifiers.size() * sizeof modifiers[0]);
        return all;
    }
};

} // namespace sluice::test
