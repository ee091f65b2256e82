// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <sys/mman.h>
#include <unistd.h>

#include <sluice/unique_fd.hpp>

namespace sluice::test {

/// Anonymous memory of \p size bytes behind a fd.
inline UniqueFd memfd(std::uint64_t size) {
    UniqueFd fd(memfd_create("sluice-test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (fd && ftruncate(fd.get(), static_cast<off_t>(size)) != 0)
        fd.reset();
    return fd;
}

} // namespace sluice::test
