// SPDX-License-Identifier: MIT
/// \file
/// What the exporters on a DRM device share. Not installed.
#pragma once

#include <cstdint>
#include <string>

#include <sluice/dma_buf.hpp>
#include <sluice/error.hpp>

namespace sluice::alloc {

/// The name of the driver behind \p fd, or an empty text where that is no DRM device.
[[nodiscard]] std::string drm_driver(int fd) noexcept;

/// Shares a GEM handle as a dma-buf that may be mapped for writing (DRM_RDWR; the mode of a
/// buffer's first export is that of all later ones). The handle stays the caller's.
[[nodiscard]] Result<DmaBuf> export_handle(int fd, std::uint32_t handle, const char* operation,
                                           const std::string& object) noexcept;

} // namespace sluice::alloc
