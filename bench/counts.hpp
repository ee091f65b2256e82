// SPDX-License-Identifier: MIT
/// \file
/// What can be counted, and so is the same on every machine and every day.
#pragma once

#include <optional>

namespace bench {

/// An operation, and whether it succeeded.
using Operation = bool (*)(void* self);

/// Nothing where it cannot be told.
struct Counts {
    /// The program's own by stepping through it (ptrace(2)): neither the kernel's nor those of the
    /// clock that the kernel lends to programs (vDSO).
    std::optional<long> instructions;
    std::optional<long> system_calls;
};

/// Counts in child processes. \param steps whether instructions are counted too, which takes long.
Counts count(Operation operation, void* self, bool steps);

} // namespace bench
