// SPDX-License-Identifier: MIT
/// \file
/// Who uses a frame, as `Frame::revoke` sees it. Not installed.
#pragma once

#include <memory>
#include <string_view>

#include <sluice/frame.hpp>

namespace sluice {

/// Whoever keeps attachments of frames and has to let them go.
struct FrameWatcher {
    FrameWatcher() = default;
    FrameWatcher(const FrameWatcher&) = delete;
    FrameWatcher& operator=(const FrameWatcher&) = delete;
    virtual ~FrameWatcher() = default;

    /// \p frame has been revoked, and nobody uses its buffers any more.
    virtual void revoked(const Frame& frame) noexcept = 0;
};

/// What importers tell a frame, and ask of it.
struct FrameUse {
    /// An access begins. \returns nothing, and `end` is due; or `revoked`, in the name of
    /// \p operation.
    [[nodiscard]] static Result<void> begin(const Frame& frame, std::string_view operation);
    static void end(const Frame& frame) noexcept;

    /// The error that `begin` gives for a frame that is revoked.
    [[nodiscard]] static Error refusal(const Frame& frame, std::string_view operation);

    /// An attachment holds \p frame, and no longer does.
    static void attached(const Frame& frame) noexcept;
    static void detached(const Frame& frame) noexcept;
    /// Whether anybody but attachments holds it.
    [[nodiscard]] static bool held(const Frame& frame) noexcept;

    /// Has \p watcher told when \p frame is revoked.
    static void watch(const Frame& frame, const std::weak_ptr<FrameWatcher>& watcher);
};

} // namespace sluice
