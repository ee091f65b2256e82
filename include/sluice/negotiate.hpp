// SPDX-License-Identifier: MIT
/// \file
/// Who can make a frame that everybody can use, and if nobody can, why not; before anything is
/// allocated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <sluice/caps.hpp>
#include <sluice/coherency.hpp>
#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/frame_spec.hpp>

namespace sluice {

/// An importer, and all that it will do with the frame.
struct ImporterUse {
    const ImporterCaps* caps = nullptr; ///< Borrowed for the call. Required.
    Uses uses = Uses::none;
};

/// The most importers of one frame.
inline constexpr std::size_t max_importers = 16;

/// A frame to find a maker for.
struct FrameRequest {
    std::uint32_t width = 0;                 ///< Pixels.
    std::uint32_t height = 0;                ///< Rows.
    std::vector<std::uint32_t> formats = {}; ///< DRM_FORMAT_* that will do, the best first.
    bool zeroed = false;                     ///< It must start out zero, padding and all.
    /// Refuse where nobody can say that everyone sees what the others wrote.
    bool known_coherent = false;
    std::string name = {}; ///< As `FrameSpec::name`.
};

/// "unknown", "always", "bracketed" or "incoherent".
[[nodiscard]] SLUICE_API std::string_view to_string(Coherency coherency) noexcept;

/// One way to make the frame.
struct FrameChoice {
    std::size_t exporter = 0; ///< Which of the exporters.
    /// What to ask it for. `FrameSpec::modifiers` are all that everybody takes, in the exporter's
    /// order and LINEAR last: the driver chooses among them.
    FrameSpec spec = {};
    /// The exporter promises no zeros and the request wants them: clear the frame before its first
    /// use.
    bool clear = false;
    Coherency coherency = Coherency::unknown;
    std::string coherency_why = {}; ///< In words, with who is responsible.
    /// One sentence: what this is, and what puts it before the next choice.
    std::string why = {};
};

/// What kind of demand it is that cannot be met.
enum class Requirement : std::uint8_t {
    formats,        ///< The request's formats.
    size,           ///< The request's width and height, and the bytes that they come to.
    zeroed,         ///< The request's wish for zeros.
    coherency,      ///< That everyone sees what the others wrote.
    exporters,      ///< What the exporters at hand make.
    takes,          ///< What an importer takes at all.
    takes_for_uses, ///< What an importer takes for what it is to do.
    takes_at_size,  ///< What an importer takes for that and in this size.
    max_size,       ///< An importer's limit in bytes.
    memory,         ///< The kinds of memory that an importer can use.
    own_device,     ///< That an importer takes its own device's buffers only.
    made_for_uses,  ///< That the buffer was made for what an importer is to do.
    cpu_mapping,    ///< That an importer must map the buffer.
    alignment,      ///< An importer's alignments.
};

/// One of the requirements that cannot all hold.
struct Conflict {
    Requirement requirement = Requirement::formats;
    /// Whose it is, of the importers; nothing where it is the request's or the exporters'.
    std::optional<std::size_t> importer = {};
    std::string text = {}; ///< "kms vkms Virtual-1 takes only LINEAR XR24/AR24".
};

/// Why there is no choice.
struct NoChoice {
    /// For people: `unsupported` with the conflicts, or `invalid_argument` for a request that makes
    /// no sense.
    Error error = {};
    /// A smallest set of requirements that cannot hold together: without any one of them the rest
    /// can, and no set with fewer members is to blame. Empty with `invalid_argument`.
    std::vector<Conflict> conflicts = {};
};

/// Finds who can make a frame that all \p importers can use as they are going to, without a copy.
///
/// Everything that is chosen holds for everybody: format and modifier with all uses at once, the
/// size, least common multiples of the alignments, the largest padding, memory that each can use. A
/// device takes what it made itself, whatever it says of memory. DRM_FORMAT_MOD_INVALID, the layout
/// that a driver has not told, is a choice only where exporter and importers are all the same
/// device and all list it, and nothing with a name is left. Without importers the frame is LINEAR.
///
/// The best comes first; of two choices the better one is that
///   1. whose format comes first in the request;
///   2. of which it is known that everyone sees what the others wrote (`Coherency`);
///   3. whose memory the CPU reads through its caches, where it reads;
///   4. that leaves the devices other layouts than LINEAR, or at least no unnamed one;
///   5. that is made by the device of the pickiest importer (the fewest layouts at this size), then
///      by that of any importer;
///   6. that comes zeroed, where that is wished for;
///   7. whose exporter is listed first.
///
/// Everything is found out before the first allocation, but an exporter's driver may still refuse:
/// go on with the next choice then, as `FrameAllocator` does.
///
/// \param exporters borrowed for the call, none null.
/// \returns the choices, at least one, the best first; or
///   - `invalid_argument`: no pixels, no format, a null pointer, or more than `max_importers`;
///   - `unsupported`: nobody makes such a frame; `NoChoice::conflicts` says whose requirements
///     stand against each other. Drop one of these importers (and let it have a copy), or offer
///     another exporter.
/// Threads: any.
[[nodiscard]] SLUICE_API tl::expected<std::vector<FrameChoice>, NoChoice>
negotiate(std::span<const ExporterCaps* const> exporters, std::span<const ImporterUse> importers,
          const FrameRequest& request) noexcept;

} // namespace sluice
