// SPDX-License-Identifier: MIT
/// \file
/// What is known of the kernel's implicit-sync ioctls. Not installed.
#pragma once

namespace sluice::probe {

/// One ioctl's answer, kept for the whole process.
enum class Known : unsigned char { not_yet, present, absent };

[[nodiscard]] Known export_fence() noexcept;
[[nodiscard]] Known import_fence() noexcept;

/// Keeps what a real call or a probe has found.
void set_export_fence(bool present) noexcept;
void set_import_fence(bool present) noexcept;

/// Back to knowing nothing, for tests that change the kernel's answers.
void forget() noexcept;

} // namespace sluice::probe
