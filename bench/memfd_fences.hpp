// SPDX-License-Identifier: MIT
/// \file
/// Fences for memfds that pass for dma-bufs (memfds.hpp), for kernels that have none.
///
/// Each request about fences is answered with one cheap system call, by eventfds that stand for
/// sync_files. Programs before the kernel are then compared as strictly as can be: real requests
/// cost more, and so hide more of what comes before them.
#pragma once

namespace bench {

/// From here on. \returns whether there are eventfds to be had.
[[nodiscard]] bool let_memfds_have_fences() noexcept;

/// What those who ask any buffer for its fence get from here on: one that is pending, or one that
/// has signalled.
void let_memfds_be_busy(bool busy) noexcept;

/// The next pending fence is a new one.
[[nodiscard]] bool renew_pending_fence() noexcept;
/// The pending fence signals.
void signal_pending_fence() noexcept;

/// One that has signalled, borrowed.
[[nodiscard]] int signalled_stand_in() noexcept;

/// Polls the sync_files of the driver that is made up (support/fake_sync_file.hpp) by their status.
/// Costs a system call for each fd that is ready.
void poll_made_up_sync_files() noexcept;

} // namespace bench
