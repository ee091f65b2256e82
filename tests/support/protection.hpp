// SPDX-License-Identifier: MIT
/// \file
/// What the kernel lets the CPU do with an address.
#pragma once

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>

namespace sluice::test {

/// "rw-", "r--" or "---" for the mapping that \p address is in, by /proc/self/maps; empty for none.
inline std::string protection_of(const void* address) {
    const auto wanted = reinterpret_cast<std::uintptr_t>(address);
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
        unsigned long begin = 0;
        unsigned long end = 0;
        char protection[5]{};
        if (std::sscanf(line.c_str(), "%lx-%lx %4s", &begin, &end, protection) == 3 &&
            begin <= wanted && wanted < end)
            return std::string(protection, 3);
    }
    return {};
}

} // namespace sluice::test
