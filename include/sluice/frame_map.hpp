// SPDX-License-Identifier: MIT
/// \file
/// A frame's pixels in this process.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include <sluice/access.hpp>
#include <sluice/cpu_access.hpp>
#include <sluice/cpu_map.hpp>
#include <sluice/deadline.hpp>
#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/frame.hpp>

namespace sluice {

/// The CPU's attachment of a frame: each of its buffers mapped once, whatever the number of planes.
///
/// A handle: copies mean the same mapping. It keeps the frame. Threads: as `CpuMap`.
class SLUICE_API FrameMap {
public:
    /// Maps \p frame, whose layout must be one that the CPU understands.
    /// \returns the mapping, or as `CpuMap::map`; also
    ///   - `unsupported`: the modifier is not LINEAR;
    ///   - `revoked`: the frame's owner has taken it back.
    [[nodiscard]] static Result<FrameMap> map(const Frame& frame, Access access,
                                              CpuMapMode mode = CpuMapMode::automatic) noexcept;

    [[nodiscard]] const Frame& frame() const noexcept;

    // Copies only, so that no handle is ever empty.
    FrameMap(const FrameMap&) noexcept = default;
    FrameMap& operator=(const FrameMap&) noexcept = default;
    ~FrameMap() = default;

private:
    friend class FrameAccess;
    struct State;
    explicit FrameMap(std::shared_ptr<const State> state) noexcept;

    std::shared_ptr<const State> state_;
};

/// One plane inside an access.
struct FramePlaneBytes {
    std::byte* first = nullptr; ///< The plane's first byte.
    std::size_t row_bytes = 0;  ///< Bytes of pixels in a row.
    std::size_t stride = 0;     ///< Bytes from one row to the next.
    std::size_t rows = 0;       ///< Rows of pixels, or of blocks where a row holds several.

    /// Row \p y, without what pads it. \param y below `rows`.
    [[nodiscard]] std::span<std::byte> row(std::size_t y) const noexcept {
        return {first + y * stride, row_bytes};
    }
};

/// The bracket around one use of a frame by the CPU: a `CpuAccess` over its buffers, each bracketed
/// once, that `Frame::revoke` waits for.
///
/// Threads: as `CpuAccess`.
class SLUICE_API FrameAccess {
public:
    /// Waits until \p deadline at most for the fences in the frame's buffers, then opens the
    /// brackets. \param map borrowed; the access keeps mapping and frame alive by itself.
    /// \returns the access, or as `CpuAccess::begin`; also `revoked`: the frame's owner has taken
    ///   it back.
    [[nodiscard]] static Result<FrameAccess> begin(const FrameMap& map, Access access,
                                                   Deadline deadline) noexcept;

    /// The plane of that \p index; nothing once the access has ended, and where there is no such
    /// plane. What may be written is as for `CpuAccess::bytes`.
    [[nodiscard]] FramePlaneBytes plane(std::size_t index = 0) const noexcept;

    /// Closes the brackets. \returns as `CpuAccess::end`.
    [[nodiscard]] Result<void> end() noexcept;

    FrameAccess(FrameAccess&& other) noexcept;
    /// Ends what was open here first; as `CpuAccess`.
    FrameAccess& operator=(FrameAccess&& other) noexcept;
    FrameAccess(const FrameAccess&) = delete;
    FrameAccess& operator=(const FrameAccess&) = delete;
    /// Ends the access where `end()` was not called; as `CpuAccess`.
    ~FrameAccess();

private:
    FrameAccess(std::shared_ptr<const FrameMap::State> map, CpuAccess&& access) noexcept;

    std::shared_ptr<const FrameMap::State> map_; // null once ended
    CpuAccess access_;
};

} // namespace sluice
