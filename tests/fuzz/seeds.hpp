// SPDX-License-Identifier: MIT
/// \file
/// Where a fuzz target's seeds go.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>

namespace sluice::test {

/// Writes \p bytes as the seed \p name into the folder that SLUICE_FUZZ_SEEDS names, if it does.
inline void write_seed(const std::string& name, std::span<const std::byte> bytes) {
    const char* folder = std::getenv("SLUICE_FUZZ_SEEDS");
    if (folder == nullptr)
        return;
    std::ofstream file(std::filesystem::path(folder) / name, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
}

} // namespace sluice::test
