// SPDX-License-Identifier: MIT
#include "kms/kms_in_formats.hpp"

#include <algorithm>
#include <cstring>

#include <drm_mode.h>

namespace sluice {

namespace {

/// Entry \p index of the table at \p offset, which need not be aligned; nothing past the end.
template <typename T>
std::optional<T> entry(std::span<const std::byte> blob, std::uint64_t offset, std::uint64_t index) {
    const std::uint64_t at = offset + index * sizeof(T); // of 32 bits each: this does not wrap
    if (at > blob.size() || blob.size() - at < sizeof(T))
        return std::nullopt;
    T value{};
    std::memcpy(&value, blob.data() + at, sizeof value);
    return value;
}

} // namespace

std::optional<std::vector<KmsFormat>> parse_in_formats(std::span<const std::byte> blob) {
    const auto header = entry<drm_format_modifier_blob>(blob, 0, 0);
    if (!header || header->version != FORMAT_BLOB_CURRENT)
        return std::nullopt;
    // One table may lie over another, but each fits: so the counts are bounded by the blob's size.
    std::vector<std::uint32_t> formats;
    for (std::uint32_t i = 0; i < header->count_formats; ++i) {
        const auto format = entry<std::uint32_t>(blob, header->formats_offset, i);
        if (!format)
            return std::nullopt;
        formats.push_back(*format);
    }
    struct Pair {
        std::uint64_t format; // its place in the table
        std::uint64_t modifier;
    };
    std::vector<Pair> pairs;
    for (std::uint32_t i = 0; i < header->count_modifiers; ++i) {
        const auto modifier = entry<drm_format_modifier>(blob, header->modifiers_offset, i);
        if (!modifier)
            return std::nullopt;
        for (std::uint64_t bit = 0; bit < 64; ++bit)
            if (((modifier->formats >> bit) & 1) != 0) {
                if (modifier->offset + bit >= formats.size())
                    return std::nullopt;
                pairs.push_back({modifier->offset + bit, modifier->modifier});
            }
    }
    std::ranges::stable_sort(pairs, {}, &Pair::format);
    std::vector<KmsFormat> all;
    all.reserve(pairs.size());
    for (const Pair& each : pairs)
        all.push_back({.format = formats[each.format], .modifier = each.modifier});
    return all;
}

} // namespace sluice
