// SPDX-License-Identifier: MIT
/// \file
/// What has been found out about the kernel, for the whole process. Not installed.
#pragma once

#include <cstdint>

namespace sluice::probe {

/// One ioctl's answer.
enum class Known : unsigned char { not_yet, present, absent };

[[nodiscard]] Known export_fence() noexcept;
[[nodiscard]] Known import_fence() noexcept;

/// Keeps what a real call or a probe has found.
void set_export_fence(bool present) noexcept;
void set_import_fence(bool present) noexcept;

/// The number of the filesystem that dma-bufs are in (st_dev), 0 while none has been seen. The
/// kernel mounts it once, for as long as it runs, so what has this number is a dma-buf.
[[nodiscard]] std::uint64_t dma_buf_device() noexcept;
void set_dma_buf_device(std::uint64_t number) noexcept;

/// Back to knowing nothing, for tests that change the kernel's answers.
void forget() noexcept;

} // namespace sluice::probe
