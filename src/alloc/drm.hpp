// SPDX-License-Identifier: MIT
/// \file
/// What the exporters on a DRM device share. Not installed.
#pragma once

#include <cstdint>
#include <string>

#include <sluice/dma_buf.hpp>
#include <sluice/error.hpp>
#include <sluice/unique_fd.hpp>

namespace sluice::alloc {

/// A DRM device to make buffers on, and the name of its driver.
struct DrmDevice {
    UniqueFd fd;
    std::string driver;
};

/// A duplicate of \p fd, if a DRM driver answers it.
/// \param node what to open instead of what is no DRM device, for the remedy.
/// \returns the device, or
///   - `wrong_object`: no DRM device;
///   - `no_resources`, `no_permission`: as the system says.
[[nodiscard]] Result<DrmDevice> wrap_device(int fd, const char* operation,
                                            const char* node) noexcept;

/// Shares a GEM handle as a dma-buf that may be mapped for writing (DRM_RDWR; the mode of a
/// buffer's first export is that of all later ones). The handle stays the caller's.
[[nodiscard]] Result<DmaBuf> export_handle(int fd, std::uint32_t handle, const char* operation,
                                           const std::string& object) noexcept;

} // namespace sluice::alloc
