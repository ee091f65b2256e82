// SPDX-License-Identifier: MIT
/// \file
/// One access to a frame, as `Frame::revoke` sees it. Not installed.
#pragma once

#include <string_view>

#include <sluice/frame.hpp>

namespace sluice {

/// Importers say where an access to a frame begins and where it ends.
struct FrameUse {
    /// \returns nothing, and `end` is due; or `revoked`, in the name of \p operation.
    [[nodiscard]] static Result<void> begin(const Frame& frame, std::string_view operation);
    static void end(const Frame& frame) noexcept;
};

} // namespace sluice
