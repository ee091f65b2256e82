// SPDX-License-Identifier: MIT
/// \file
/// An image over buffers: what is handed from one device to the next.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include <sluice/dma_buf.hpp>
#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/format.hpp>

namespace sluice {

/// Where one plane of an image lies in its buffer.
struct FramePlane {
    std::uint32_t offset = 0; ///< First byte of the plane, counted from the buffer's start.
    std::uint32_t stride = 0; ///< Bytes from one row to the next.
};

/// What an image looks like in memory.
struct FrameLayout {
    std::uint32_t width = 0;    ///< Pixels.
    std::uint32_t height = 0;   ///< Rows of pixels.
    std::uint32_t format = 0;   ///< DRM_FORMAT_*; one of `formats()`.
    std::uint64_t modifier = 0; ///< DRM_FORMAT_MOD_*; LINEAR is 0. INVALID is not a layout.
    /// The planes in the format's order, all in one buffer: as many as the format has
    /// (`FormatInfo::plane_count`); those after them stay zero.
    std::array<FramePlane, max_planes> planes{};
};

/// An image over a buffer, its layout checked once and for all against the buffer's real size.
///
/// A frame is a handle on shared, immutable state: copies are cheap and mean the same frame, and
/// whoever holds one (an attachment, a screen) keeps the buffer alive. Any thread may use it.
class SLUICE_API Frame {
public:
    /// Checks \p layout against \p buffer: each refusal names the value and the bound it broke.
    /// \param buffer taken over on success; on failure it stays the caller's.
    /// \returns the frame, or
    ///   - `invalid_argument`: no pixels; a plane's stride below its row or above INT32_MAX; a
    ///   plane
    ///     that the format does not have; DRM_FORMAT_MOD_INVALID, which names no layout;
    ///   - `unsupported`: a format or modifier that sluice does not know;
    ///   - `out_of_bounds`: a plane's last pixel would lie past the buffer's end.
    ///
    /// Odd sizes round up: the chroma of a 1x1 NV12 is one block of 2 bytes. Planes may share rows
    /// or overlap; nothing here reads them.
    [[nodiscard]] static Result<Frame> create(const FrameLayout& layout, DmaBuf&& buffer) noexcept;

    [[nodiscard]] const FrameLayout& layout() const noexcept;
    [[nodiscard]] const DmaBuf& buffer() const noexcept;

    /// True where both are the same frame, not merely equal ones.
    [[nodiscard]] bool operator==(const Frame& other) const noexcept = default;

private:
    struct State;
    explicit Frame(std::shared_ptr<const State> state) noexcept;

    std::shared_ptr<const State> state_;
};

/// \p layout for people: "1024x768 XR24 LINEAR, stride 4096, offset 0"; further planes follow.
[[nodiscard]] SLUICE_API std::string describe(const FrameLayout& layout) noexcept;

} // namespace sluice
