// SPDX-License-Identifier: MIT
// Any bytes as a plane's IN_FORMATS blob: what is accepted says no more than the bytes do, looked
// up in another way than the library does.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <drm_fourcc.h>
#include <drm_mode.h>

#include "fuzz/seeds.hpp"
#include "kms/kms_in_formats.hpp"
#include "support/in_formats_blob.hpp"

namespace {

void require(bool holds) {
    if (!holds)
        std::abort();
}

template <typename T> T read(std::span<const std::byte> blob, std::size_t at) {
    require(at + sizeof(T) <= blob.size());
    T value;
    std::memcpy(&value, &blob[at], sizeof value);
    return value;
}

} // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
    using sluice::test::InFormatsBlob;
    const auto seed = [](std::string_view name, auto change) {
        InFormatsBlob blob;
        change(blob);
        const std::vector<std::byte> bytes = blob.bytes();
        sluice::test::write_seed(std::string(name), bytes);
    };
    seed("good", [](InFormatsBlob&) {});
    seed("version-2", [](InFormatsBlob& blob) { blob.header.version = 2; });
    seed("formats-past-the-end", [](InFormatsBlob& blob) { blob.header.count_formats = 999; });
    seed("modifiers-wrap", [](InFormatsBlob& blob) {
        blob.header.modifiers_offset = UINT32_MAX;
        blob.header.count_modifiers = UINT32_MAX;
    });
    seed("a-bit-past-the-formats", [](InFormatsBlob& blob) { blob.modifiers[0].offset = 63; });
    seed("offset-wraps", [](InFormatsBlob& blob) { blob.modifiers[0].offset = UINT32_MAX; });
    seed("misaligned", [](InFormatsBlob& blob) { blob.header.formats_offset += 1; });
    seed("nothing", [](InFormatsBlob& blob) { blob.formats.clear(), blob.modifiers.clear(); });
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto blob = std::as_bytes(std::span(data, size));
    const auto all = sluice::parse_in_formats(blob);
    if (!all)
        return 0;
    const auto header = read<drm_format_modifier_blob>(blob, 0);
    require(header.version == 1);
    // Bit by bit, every pair that the bytes say is there, as often as they say it.
    std::vector<sluice::KmsFormat> left = *all;
    for (std::size_t m = 0; m < header.count_modifiers; ++m) {
        const auto modifier = read<drm_format_modifier>(blob, std::size_t{header.modifiers_offset} +
                                                                  m * sizeof(drm_format_modifier));
        for (std::size_t f = 0; f < header.count_formats; ++f) {
            if (f < modifier.offset || f - modifier.offset > 63 ||
                (modifier.formats & (1ULL << (f - modifier.offset))) == 0)
                continue;
            const sluice::KmsFormat pair{
                .format = read<std::uint32_t>(blob, std::size_t{header.formats_offset} + f * 4),
                .modifier = modifier.modifier};
            const auto found = std::find(left.begin(), left.end(), pair);
            require(found != left.end());
            left.erase(found);
        }
    }
    require(left.empty());
    return 0;
}
