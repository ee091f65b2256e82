// SPDX-License-Identifier: MIT
/// \file
/// Whether the CPU and a device see each other's bytes.
#pragma once

#include <cstdint>

namespace sluice {

/// Whether all who use a frame see what the others wrote, once its fences are passed on.
enum class Coherency : std::uint8_t {
    unknown,    ///< Some driver does not say.
    always,     ///< They do, whatever the CPU does.
    bracketed,  ///< They do where the CPU brackets its accesses (`CpuAccess`), as it must anyway.
    incoherent, ///< Some would read stale bytes. `negotiate` never chooses this.
};

} // namespace sluice
