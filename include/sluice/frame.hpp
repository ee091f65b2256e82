// SPDX-License-Identifier: MIT
/// \file
/// An image over buffers: what is handed from one device to the next.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <sluice/deadline.hpp>
#include <sluice/dma_buf.hpp>
#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/format.hpp>

namespace sluice {

/// Where one plane of an image lies.
struct FramePlane {
    std::uint32_t offset = 0; ///< First byte of the plane, counted from its buffer's start.
    std::uint32_t stride = 0; ///< Bytes from one row to the next.
    std::uint32_t buffer = 0; ///< Which of the frame's buffers it lies in.

    [[nodiscard]] bool operator==(const FramePlane&) const noexcept = default;
};

/// What an image looks like in memory.
struct FrameLayout {
    std::uint32_t width = 0;    ///< Pixels.
    std::uint32_t height = 0;   ///< Rows of pixels.
    std::uint32_t format = 0;   ///< DRM_FORMAT_*; one of `formats()`.
    std::uint64_t modifier = 0; ///< DRM_FORMAT_MOD_*; LINEAR is 0.
    /// How many planes there are in memory; 0 means as many as the format has
    /// (`FormatInfo::plane_count`). A modifier may add some of its own: what compresses an image
    /// lies in further planes.
    std::uint32_t plane_count = 0;
    /// The planes, the format's in the format's order, then the modifier's. The rest stays zero.
    std::array<FramePlane, max_planes> planes{};

    [[nodiscard]] bool operator==(const FrameLayout&) const noexcept = default;
};

/// An image over buffers, its layout checked once and for all against the buffers' real sizes.
///
/// A frame is a handle on shared state: copies are cheap and mean the same frame, and whoever holds
/// one (an attachment, a screen) keeps the buffers alive. Any thread may use it.
class SLUICE_API Frame {
public:
    /// Checks \p layout against \p buffers: each refusal names the plane, the value and the bound.
    ///
    /// What is checked depends on the modifier. LINEAR: every byte. Others: what holds for all of
    /// them, since only drivers know their layouts: the number of planes, and that each begins
    /// inside its buffer. INVALID, the layout that a driver has not told, is held to its format's
    /// planes, and only the device that made it can use such a frame.
    ///
    /// Odd sizes round up: the chroma of a 1x1 NV12 is one block of 2 bytes. Planes may overlap;
    /// nothing here reads them, and `VulkanDevice::attach` refuses them.
    /// \param buffers taken over on success; on failure they stay the caller's. Those that are the
    ///   same buffer, by identity, become one, and the planes' numbers follow.
    /// \returns the frame, or
    ///   - `invalid_argument`: no pixels; more or fewer planes than format and modifier have; a
    ///     stride below the plane's row, above INT32_MAX, or no multiple of the pixel's size; a
    ///     plane in a buffer that is not there, or a buffer without a plane;
    ///   - `unsupported`: a format that sluice does not know;
    ///   - `wrong_object`: a buffer that was moved from;
    ///   - `out_of_bounds`: a plane reaches past its buffer's end.
    [[nodiscard]] static Result<Frame> create(const FrameLayout& layout,
                                              std::vector<DmaBuf>&& buffers) noexcept;

    /// The same over buffers that lie elsewhere. They are taken over without a std::move in sight:
    /// prefer the other.
    [[nodiscard]] static Result<Frame> create(const FrameLayout& layout,
                                              std::span<DmaBuf> buffers) noexcept;

    /// The same over one buffer.
    [[nodiscard]] static Result<Frame> create(const FrameLayout& layout, DmaBuf&& buffer) noexcept;

    /// As it was given, with `plane_count` filled in.
    [[nodiscard]] const FrameLayout& layout() const noexcept;

    /// The buffers, each another one; `FramePlane::buffer` counts in here.
    [[nodiscard]] std::span<const DmaBuf> buffers() const noexcept;

    /// The buffer that \p plane lies in. \param plane below `layout().plane_count`.
    [[nodiscard]] const DmaBuf& buffer(std::uint32_t plane = 0) const noexcept;

    /// True where planes lie in several buffers.
    [[nodiscard]] bool disjoint() const noexcept { return buffers().size() > 1; }

    /// Takes the frame back from everyone who uses it, before its owner reuses or frees the memory
    /// in another way than through fences. From this call on every new access is refused as
    /// `revoked`, through any handle and attachment. Waits until \p deadline at most for the
    /// accesses that are open, for screens that show the frame or are about to, and for every fence
    /// in the buffers; then devices drop the attachments that they keep of them. Revoking again
    /// waits again.
    ///
    /// What goes by the frame is what it knows of: whoever takes `buffer()` or a duplicate of it to
    /// a `CpuAccess` of his own, to a device or to another process is outside, and is waited for
    /// only where he left a fence in the buffer.
    /// \returns nothing: nobody in this process uses the frame any more; or
    ///   - `timed_out`: somebody still does, as the message says. The frame stays revoked. A screen
    ///     lets go of a frame once another has replaced it, or the output and the framebuffer have
    ///     been destroyed;
    ///   - `no_resources`, `wrong_object`: as `DmaBuf::wait`.
    Result<void> revoke(Deadline deadline) const noexcept;

    /// Whether `revoke` has been called.
    [[nodiscard]] bool revoked() const noexcept;

    // A move copies too, so that no handle is ever empty.
    Frame(const Frame&) noexcept = default;
    // NOLINTNEXTLINE(performance-move-constructor-init)
    Frame(Frame&& other) noexcept : Frame(std::as_const(other)) {}
    Frame& operator=(const Frame&) noexcept = default;
    Frame& operator=(Frame&& other) noexcept { return *this = std::as_const(other); }
    ~Frame() = default;

    /// True where both are the same frame, not merely equal ones.
    [[nodiscard]] bool operator==(const Frame& other) const noexcept = default;

private:
    friend struct FrameUse;
    struct State;
    explicit Frame(std::shared_ptr<State> state) noexcept;

    std::shared_ptr<State> state_;
};

/// \p layout for people: "1024x768 XR24 LINEAR, stride 4096, offset 0"; further planes
/// follow, with the buffer where that is not the first.
[[nodiscard]] SLUICE_API std::string describe(const FrameLayout& layout) noexcept;

} // namespace sluice
