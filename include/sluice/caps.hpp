// SPDX-License-Identifier: MIT
/// \file
/// What everybody who makes or uses frames says of itself beforehand, in one vocabulary. Each part
/// publishes its own: `Exporter::caps`, `KmsOutput::caps`, `cpu_caps`. `negotiate` puts them
/// together.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <sluice/export.hpp>

namespace sluice {

/// What is done with a frame: a set, put together with `|`.
enum class Uses : std::uint32_t {
    none = 0,
    cpu_read = 1U << 0,
    cpu_write = 1U << 1,
    sample = 1U << 2,    ///< A GPU reads it as a texture (VK_IMAGE_USAGE_SAMPLED_BIT).
    render = 1U << 3,    ///< A GPU draws into it (VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT).
    store = 1U << 4,     ///< Shaders read and write its pixels (VK_IMAGE_USAGE_STORAGE_BIT).
    copy_from = 1U << 5, ///< VK_IMAGE_USAGE_TRANSFER_SRC_BIT
    copy_to = 1U << 6,   ///< VK_IMAGE_USAGE_TRANSFER_DST_BIT
    scan_out = 1U << 7,  ///< A display shows it.
    capture = 1U << 8,   ///< A display's writeback connector writes into it.
};

[[nodiscard]] constexpr Uses operator|(Uses a, Uses b) noexcept {
    return static_cast<Uses>(static_cast<std::uint32_t>(a) | static_cast<std::uint32_t>(b));
}
[[nodiscard]] constexpr Uses operator&(Uses a, Uses b) noexcept {
    return static_cast<Uses>(static_cast<std::uint32_t>(a) & static_cast<std::uint32_t>(b));
}
/// What is in \p a and not in \p b.
[[nodiscard]] constexpr Uses operator-(Uses a, Uses b) noexcept {
    return static_cast<Uses>(static_cast<std::uint32_t>(a) & ~static_cast<std::uint32_t>(b));
}

/// Whether all of \p part is in \p set.
[[nodiscard]] constexpr bool contains(Uses set, Uses part) noexcept {
    return (set & part) == part;
}

inline constexpr Uses cpu_uses = Uses::cpu_read | Uses::cpu_write;
inline constexpr Uses all_uses = cpu_uses | Uses::sample | Uses::render | Uses::store |
                                 Uses::copy_from | Uses::copy_to | Uses::scan_out | Uses::capture;

/// "sample and render"; "nothing" for none.
[[nodiscard]] SLUICE_API std::string to_string(Uses uses) noexcept;

/// Where memory lies, as far as the kernel's documents tell.
enum class MemoryKind : std::uint8_t {
    unknown,    ///< The driver's own business.
    system,     ///< Pages of RAM, anywhere: devices need an IOMMU, or scatter and gather.
    contiguous, ///< One physical range of RAM (CMA), for devices that have neither.
};

/// "unknown", "system" or "contiguous".
[[nodiscard]] SLUICE_API std::string_view to_string(MemoryKind kind) noexcept;

/// How the CPU reaches an exporter's memory, which decides what it takes for the CPU and the
/// devices to see each other's bytes.
enum class CpuCaching : std::uint8_t {
    unknown,
    /// Past its caches (write-combined): nothing is ever stale, and reading is slow.
    bypassed,
    /// Through its caches, which DMA_BUF_IOCTL_SYNC (`CpuAccess`) writes back and drops for the
    /// devices that need it.
    maintained,
    /// Through its caches, and DMA_BUF_IOCTL_SYNC does nothing about them: only devices that look
    /// into the caches see what the CPU wrote.
    unmaintained,
};

/// Whether a device's accesses look into the CPU's caches ("DMA-coherent" in the kernel).
enum class Snooping : std::uint8_t { unknown, yes, no };

/// One layout that a party makes or takes, and what for. Fits VkDrmFormatModifierPropertiesEXT, and
/// the IN_FORMATS blob of a KMS plane.
struct FormatSupport {
    std::uint32_t format = 0;   ///< DRM_FORMAT_*
    std::uint64_t modifier = 0; ///< DRM_FORMAT_MOD_*; see `negotiate` for INVALID.
    /// An importer's: all that it can do with such a frame at once. An exporter's: all that the
    /// driver was told its buffers are for.
    Uses uses = all_uses;
    /// Planes in memory, those of the modifier counted. 0: not said; LINEAR has its format's.
    std::uint32_t plane_count = 0;
    std::uint32_t max_width = UINT32_MAX;  ///< Pixels.
    std::uint32_t max_height = UINT32_MAX; ///< Rows.
    /// An importer takes the planes in several buffers (VK_FORMAT_FEATURE_DISJOINT_BIT).
    bool disjoint = true;
    std::uint32_t width_granularity = 1;  ///< Pixels: the width must be a multiple of this.
    std::uint32_t height_granularity = 1; ///< Rows: the height must be a multiple of this.

    [[nodiscard]] bool operator==(const FormatSupport&) const noexcept = default;
};

/// What an exporter can do, known before the first request and fixed for its life.
struct ExporterCaps {
    /// Which one it is: "udmabuf", "dma-heap system", "dumb vkms", "gbm virtio_gpu".
    std::string name;
    /// The device whose memory it is: equal texts mean the same device, whichever of its nodes was
    /// opened ("/devices/platform/vkms", as in sysfs). Empty: of no device.
    std::string device = {};
    /// The largest buffer in bytes that it will be asked for; UINT64_MAX where no limit is known.
    std::uint64_t max_size = UINT64_MAX;
    /// Where that limit comes from, in words.
    std::string max_size_source = {};
    /// Buffers are rounded up to a multiple of this many bytes.
    std::uint64_t granularity = 0;
    /// New buffers are promised to be zero. Where this is false they may hold anything.
    bool zeroed = false;
    /// `CpuMap` maps its buffers.
    bool cpu_mappable = false;
    CpuCaching cpu_caching = CpuCaching::unknown;
    /// It gives buffers of plain bytes.
    bool gives_bytes = true;
    /// It asks the driver for the layout; otherwise sluice lays frames out LINEAR.
    bool lays_out_frames = false;
    MemoryKind memory = MemoryKind::unknown;
    /// The frames it can be asked for, in its own order of preference. A driver may still refuse a
    /// size. DRM_FORMAT_MOD_INVALID is the layout that a driver keeps to itself.
    std::vector<FormatSupport> formats = {};
    /// Its driver may make modifiers that `formats` does not list, since nothing lets it: ask for
    /// those that the importers take, and see.
    bool unlisted_modifiers = false;
};

/// What an importer takes. What it leaves at its default, it does not care about.
struct ImporterCaps {
    std::string name;        ///< "cpu", "kms vkms Virtual-1".
    std::string device = {}; ///< As `ExporterCaps::device`.
    std::vector<FormatSupport> formats = {};
    std::uint32_t min_width = 0;  ///< Pixels.
    std::uint32_t min_height = 0; ///< Rows.
    /// Bytes; 1 for one that takes any. 0: it does not say, and gets `default_stride_alignment`
    /// where sluice lays out.
    std::uint32_t stride_alignment = 0;
    std::uint32_t offset_alignment = 0; ///< Bytes, for each plane's offset.
    /// Rows: as `FrameSpec::height_alignment`, what must be there beyond the image's. The next two
    /// are beyond these, as `FrameSpec::slack` and `FrameSpec::size_alignment`.
    std::uint32_t height_alignment = 0;
    std::uint32_t slack = 0;             ///< Bytes behind the last row of a LINEAR frame.
    std::uint32_t size_alignment = 0;    ///< Bytes: a LINEAR frame's buffer reaches to a multiple.
    std::uint64_t min_size = 0;          ///< Bytes that the buffer must have at least.
    std::uint64_t max_size = UINT64_MAX; ///< Bytes of the largest buffer that it takes.
    std::vector<MemoryKind> memory = {}; ///< The kinds that it can use; empty: any.
    bool foreign = true;                 ///< It imports buffers that another device made, or none.
    /// It reaches the pixels through `CpuMap`, as the CPU does, and software that plays a device.
    bool maps = false;
    Snooping snooping = Snooping::unknown; ///< Where it maps, this does not matter.
};

/// The CPU as an importer, by way of `CpuMap` and `CpuAccess`: every format, LINEAR, of any size.
[[nodiscard]] SLUICE_API ImporterCaps cpu_caps() noexcept;

} // namespace sluice
