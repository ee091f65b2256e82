// SPDX-License-Identifier: MIT
/// \file
/// Where errors go that no return value can carry.
#pragma once

#include <sluice/error.hpp>
#include <sluice/export.hpp>

namespace sluice {

/// Is told of an error in a place that returns nothing: a destructor, a move assignment.
/// \param error borrowed for the call. \param user what `set_log` was given.
/// It runs on the thread that met the error, with no lock of sluice's held: it may call sluice.
using LogFunction = void (*)(const Error& error, void* user) noexcept;

/// Sends such errors to \p function from now on, for the whole process; null drops them. Until the
/// first call they go to stderr, one line each.
///
/// Threads: any. A call of the function before that has begun on another thread may still be
/// running: keep \p user alive for as long as other threads use sluice.
SLUICE_API void set_log(LogFunction function, void* user) noexcept;

} // namespace sluice
