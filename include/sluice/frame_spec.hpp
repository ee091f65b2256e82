// SPDX-License-Identifier: MIT
/// \file
/// What a frame must look like before there is one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sluice {

/// The stride alignment in bytes where nobody says one: what the display engines and GPUs at hand
/// ask of buffers that are not their own.
inline constexpr std::uint32_t default_stride_alignment = 256;

/// What a frame must look like, whoever makes it. An alignment of 0 asks for nothing, and need not
/// be a power of two.
struct FrameSpec {
    std::uint32_t width = 0;  ///< Pixels.
    std::uint32_t height = 0; ///< Rows.
    std::uint32_t format = 0; ///< DRM_FORMAT_*; one of `formats()`.
    /// The modifiers to choose from; empty means LINEAR.
    std::vector<std::uint64_t> modifiers = {};
    /// Bytes. 0: `default_stride_alignment` where sluice lays out, the driver's wish elsewhere. The
    /// stride is a multiple of this and of the pixel's size, where that is a power of two. It is
    /// about the format's planes: those that a modifier adds have strides of their own.
    std::uint32_t stride_alignment = 0;
    std::uint32_t offset_alignment = 0; ///< Bytes, for each plane's offset.
    /// Rows: the memory is there for a height that is rounded up to this and, behind the last
    /// plane, for as many rows of each plane's own.
    std::uint32_t height_alignment = 0;
    std::uint32_t slack = 0; ///< Bytes that must be there behind the last of these rows.
    /// Bytes: the buffer goes on from there to a multiple of this. Slack and this are about LINEAR
    /// frames; of other modifiers the drivers know.
    std::uint32_t size_alignment = 0;
    std::uint64_t min_size = 0; ///< Bytes that the buffer must have at least.
    bool one_buffer = false;    ///< All planes must lie in the same buffer.
    /// What to call the buffers in debugfs and fdinfo (DMA_BUF_SET_NAME), cut at 31 bytes. A kernel
    /// that does not take the name is no error.
    std::string name = {};
};

} // namespace sluice
