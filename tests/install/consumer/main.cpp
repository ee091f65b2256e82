// SPDX-License-Identifier: MIT
// A program as a user would write it, built against the installed tree.
#include <cstdio>

#include <sluice/dma_buf.hpp>
#include <sluice/frame.hpp>
#include <sluice/version.hpp>

int main() {
    const auto buffer = sluice::DmaBuf::from_borrowed_fd(0);
    if (buffer)
        return 1;
    std::printf("sluice %s: %s\n", SLUICE_VERSION, buffer.error().message().c_str());
    return buffer.error().code == sluice::Errc::wrong_object ? 0 : 1;
}
