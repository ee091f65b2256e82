// SPDX-License-Identifier: MIT
/// \file
/// The open file behind a wrapped card, and what belongs to it rather than to a fd. Not installed.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include <sluice/error.hpp>
#include <sluice/unique_fd.hpp>

namespace sluice {

/// An open file of a card ("open file description" in open(2)): its duplicates share it, and with
/// it the GEM handles and the framebuffers.
///
/// Threads: any.
class KmsFile {
public:
    /// \p fd stays the caller's. \returns the file that is wrapped already where \p fd is a
    /// duplicate of it, as far as kcmp(2) is allowed to tell, or a new one; or `wrong_object`: no
    /// DRM card, or `no_resources`, in the name of \p operation.
    [[nodiscard]] static Result<std::shared_ptr<KmsFile>> of(int fd, const char* operation);

    KmsFile(UniqueFd&& fd, std::string driver) noexcept
        : fd_(std::move(fd)), driver_(std::move(driver)) {}
    KmsFile(const KmsFile&) = delete;
    KmsFile& operator=(const KmsFile&) = delete;
    ~KmsFile() = default;

    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    [[nodiscard]] const std::string& driver() const noexcept { return driver_; }

    /// Imports a dma-buf and counts its handle: the kernel gives one handle for one buffer however
    /// often it is imported, and a single close ends it. `release` is due.
    /// \returns 0 or an errno.
    [[nodiscard]] int import(int dma_buf, std::uint32_t& handle);
    /// Counts a handle that the kernel has just made. `release` is due.
    void adopt(std::uint32_t handle);
    /// Closes the handle with its last release.
    void release(std::uint32_t handle) noexcept;

    /// Lets go of a framebuffer; planes that show it go on (CLOSEFB, kernel 6.8). An older kernel
    /// turns such planes off, as `remove_framebuffer` does.
    void close_framebuffer(std::uint32_t id) noexcept;
    /// Lets go of a framebuffer, takes it off every screen, and waits for that (RMFB).
    void remove_framebuffer(std::uint32_t id) noexcept;

private:
    UniqueFd fd_;
    std::string driver_;
    std::mutex handles_lock_; // from an import to its count, and from the last release to the close
    std::unordered_map<std::uint32_t, unsigned> handles_;
    std::atomic<bool> closes_framebuffers_ = true; // until the kernel says otherwise
};

/// "vkms, fd 5 ('/dev/dri/card2')".
[[nodiscard]] std::string describe(const KmsFile& file);

/// The name of the driver behind \p fd; empty where it is none of DRM's.
[[nodiscard]] std::string kms_driver_of(int fd);

} // namespace sluice
