// SPDX-License-Identifier: MIT
/// \file
/// The other end of set_log(). Not installed.
#pragma once

#include <sluice/error.hpp>

namespace sluice {

/// Reports \p error where it cannot be returned.
void log(const Error& error) noexcept;

} // namespace sluice
