// SPDX-License-Identifier: MIT
/// \file
/// Who uses a frame, as `Frame::revoke` sees it. Not installed.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include <sluice/frame.hpp>
#include <sluice/sync_file.hpp>

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
    /// Instead of `end`: the access is over once \p fence has signalled. \param user a number of
    /// the one whose access it was; what it left here before is over by now, and forgotten.
    static void end_after(const Frame& frame, std::uint64_t user,
                          std::shared_ptr<const SyncFile> fence) noexcept;

    /// Waits for what `end_after` left. \returns nothing, or as `SyncFile::wait`, but never
    /// `fence_failed`: what failed is over too.
    [[nodiscard]] static Result<void> wait_for_leaving(const Frame& frame, Deadline deadline);

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
