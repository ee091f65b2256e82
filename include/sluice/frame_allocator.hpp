// SPDX-License-Identifier: MIT
/// \file
/// Frames that everybody who will use them can use.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/exporter.hpp>
#include <sluice/frame.hpp>
#include <sluice/negotiate.hpp>

namespace sluice {

/// A frame, and how it came about.
struct FrameAllocation {
    Frame frame;
    std::shared_ptr<const Exporter> exporter; ///< Who made it.
    /// What was negotiated. `FrameChoice::clear` has been seen to. Of the modifiers the frame's
    /// layout has the one that the driver took.
    FrameChoice choice;
    std::string passed_over; ///< Better choices that failed, each with its reason; often empty.
};

/// Negotiates, and allocates the best choice that the driver does not refuse.
///
/// Threads: any number at once, like the exporters.
class SLUICE_API FrameAllocator {
public:
    /// \param exporters the best first, where `negotiate` finds nothing else to choose by.
    explicit FrameAllocator(std::vector<std::shared_ptr<const Exporter>> exporters) noexcept;

    /// Makes a frame that all \p importers can use. Where it must be zero and the exporter promises
    /// nothing, it is cleared by the CPU, which waits 5 s at most for whoever still holds the new
    /// buffer.
    /// \param request its `name` names the buffers.
    /// \returns the frame, or
    ///   - `invalid_argument`, `unsupported`: as `negotiate`, before anything was allocated;
    ///   - `unsupported`, `no_resources`, ...: all choices failed. The message has each one's
    ///     reason; the code is theirs where all agree, and `unsupported` otherwise.
    [[nodiscard]] Result<FrameAllocation> allocate(std::span<const ImporterUse> importers,
                                                   const FrameRequest& request) const noexcept;

    /// As they were given.
    [[nodiscard]] std::span<const std::shared_ptr<const Exporter>> exporters() const noexcept {
        return exporters_;
    }

private:
    std::vector<std::shared_ptr<const Exporter>> exporters_;
};

} // namespace sluice
