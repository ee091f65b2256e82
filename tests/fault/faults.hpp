// SPDX-License-Identifier: MIT
/// \file
/// How each call can fail.
#pragma once

#include <optional>
#include <vector>

#include <sluice/error.hpp>

#include "fault/libc_boundary.hpp"

namespace sluice::test {

/// One way for a call to fail.
struct Failure {
    int error = 0;
    /// How often in a row.
    int times = 1;
    /// The operation has to come to its right result all the same: the call is to be made again, or
    /// its failure means nothing.
    bool invisible = false;
};

/// All the ways that are tried: none for a call that cannot fail, nullopt for one that nobody has
/// thought about yet.
[[nodiscard]] std::optional<std::vector<Failure>> failures_of(const LibcCall& call);

/// "EIO", "EINTR x5", "short x5".
[[nodiscard]] std::string to_string(const Failure& failure);

/// Whether a caller who branches on \p code does the right thing about \p error.
[[nodiscard]] bool sensible(Errc code, int error) noexcept;

} // namespace sluice::test
