// SPDX-License-Identifier: MIT
/// \file
/// A DRM card, wrapped: puts frames on screens with real fences, and captures what they show.
///
/// Sources: drm/drm_mode.h and the kernel's "Kernel Mode Setting (KMS)", "Explicit Fencing
/// Properties" and "Writeback Connectors".
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <sluice/dma_buf.hpp>
#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/frame.hpp>
#include <sluice/sync_file.hpp>
#include <sluice/unique_fd.hpp>

namespace sluice {

class KmsOutput;

/// A card that the machine has.
struct KmsCard {
    std::string path;   ///< "/dev/dri/card0"
    std::string driver; ///< "vkms"; empty where the card could not be opened.
};

/// Every card of the machine, in the order of its numbers; empty where there is none.
[[nodiscard]] SLUICE_API std::vector<KmsCard> kms_cards() noexcept;

/// A frame as a card's framebuffer. A handle: copies mean the same one. The framebuffer goes with
/// its last holder, and a screen that shows it is one.
class SLUICE_API KmsFramebuffer {
public:
    [[nodiscard]] std::uint32_t id() const noexcept;
    [[nodiscard]] const Frame& frame() const noexcept;

    // Copies only, so that no handle is ever empty.
    KmsFramebuffer(const KmsFramebuffer&) noexcept = default;
    KmsFramebuffer& operator=(const KmsFramebuffer&) noexcept = default;
    ~KmsFramebuffer() = default;

    struct State; ///< Not part of the API.

private:
    friend class KmsDevice;
    friend class KmsOutput;
    explicit KmsFramebuffer(std::shared_ptr<const State> state) noexcept;

    std::shared_ptr<const State> state_;
};

/// Which output to find.
struct KmsOutputInfo {
    std::uint32_t width = 0; ///< Pixels of the mode to set; 0 takes the connector's preferred mode.
    std::uint32_t height = 0; ///< Rows of the mode to set.
    bool writeback = false;   ///< Ask for a writeback connector on the same CRTC.
};

/// A handle on a wrapped DRM card; copies mean the same one.
///
/// Threads: any thread may attach frames. GEM handles are shared by everyone who holds the same
/// open file: an application that imports the same buffer into it by itself must not do so while
/// `attach` runs.
class SLUICE_API KmsDevice {
public:
    /// Wraps the card behind \p fd (a primary node or a DRM lease), which stays the caller's;
    /// sluice keeps a duplicate. Universal planes, atomic and writeback are switched on for the
    /// open file. \returns the card, or
    ///   - `wrong_object`: closed, or not a DRM card;
    ///   - `unsupported`: no atomic modesetting, or no PRIME import;
    ///   - `no_resources`: no fd left.
    [[nodiscard]] static Result<KmsDevice> wrap(int fd) noexcept;

    /// Opens the card at \p path and wraps it.
    /// \returns also `no_permission` or `failed` where it cannot be opened.
    [[nodiscard]] static Result<KmsDevice> open(const std::string& path) noexcept;

    /// The driver's name: "vkms".
    [[nodiscard]] const std::string& driver() const noexcept;

    /// Whether the display is ours (drmIsMaster); without it nothing can be shown.
    [[nodiscard]] bool is_master() const noexcept;

    /// Tries whether the card imports buffers like \p sample, which another device made, or none:
    /// DRM_CAP_PRIME does not tell. For `ImporterCaps::foreign`. A buffer of one page tells nothing
    /// of cards that need contiguous memory.
    /// \returns whether it does, or
    ///   - `no_resources`, `failed`: it could not be tried; see `Error::sys_errno`.
    [[nodiscard]] Result<bool> imports(const DmaBuf& sample) const noexcept;

    /// Imports \p frame and makes it a framebuffer. The pixels stay where they are.
    /// \returns the framebuffer, or
    ///   - `unsupported`: the card takes no foreign buffers, or not this format or modifier;
    ///   - `revoked`: the frame's owner has taken it back;
    ///   - `invalid_argument`: the card refuses the size or stride; see its limits in the message;
    ///   - `no_resources`: no memory or handle left.
    [[nodiscard]] Result<KmsFramebuffer> attach(const Frame& frame) const noexcept;

    /// Finds a connected connector with a mode of the size asked for, a CRTC that drives it, that
    /// CRTC's primary plane and, if asked for, a writeback connector that the same CRTC feeds.
    /// Nothing on the screen changes until the first commit.
    /// \returns the output, or `unsupported`: the message says what is missing.
    [[nodiscard]] Result<KmsOutput> find_output(const KmsOutputInfo& info) const noexcept;

    // Copies only, so that no handle is ever empty.
    KmsDevice(const KmsDevice&) noexcept = default;
    KmsDevice& operator=(const KmsDevice&) noexcept = default;
    ~KmsDevice() = default;

    struct State; ///< Not part of the API.

private:
    explicit KmsDevice(std::shared_ptr<const State> state) noexcept;

    std::shared_ptr<const State> state_;
};

} // namespace sluice
