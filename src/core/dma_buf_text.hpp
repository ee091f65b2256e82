// SPDX-License-Identifier: MIT
/// \file
/// A buffer as an Error's object. Not installed.
#pragma once

#include <string>

#include <sluice/dma_buf.hpp>

namespace sluice {

/// "buffer ino 17, 4096 bytes, fd 7 ('/dmabuf:cam-0')".
[[nodiscard]] std::string describe(const DmaBuf& buffer);

/// What \p operation says to a buffer that was moved from: `wrong_object`.
[[nodiscard]] Error moved_from(const char* operation);

} // namespace sluice
