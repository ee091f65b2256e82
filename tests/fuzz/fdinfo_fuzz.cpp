// SPDX-License-Identifier: MIT
// What anybody may write into a buffer's name, and any other text, as fdinfo.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "core/fdinfo.hpp"
#include "fuzz/seeds.hpp"

namespace {

constexpr std::string_view head = "pos:\t0\nino:\t7\nsize:\t4096\ncount:\t3\nexp_name:\tudmabuf\n";

void require(bool holds) {
    if (!holds)
        std::abort();
}

} // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
    for (const std::string_view name : {"cam-0", "a\nexp_name:\tvgem\ncount:\t9\n", "\n", "\t:"})
        sluice::test::write_seed("name-" + std::to_string(name.size()),
                                 std::as_bytes(std::span(name)));
    sluice::test::write_seed("whole", std::as_bytes(std::span(head)));
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    (void)sluice::parse_fdinfo(text);

    // As a name it comes out as it went in, and changes nothing else.
    const auto info =
        sluice::parse_fdinfo(std::string(head) + "name:\t" + std::string(text) + "\n");
    require(info.has_value());
    require(info->exporter == "udmabuf");
    require(info->references == 3);
    require(info->name == text);
    return 0;
}
