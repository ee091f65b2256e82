// SPDX-License-Identifier: MIT
#include "report.hpp"

#include <cstdio>

namespace sluice::layer {

void Report::once(Trouble trouble, std::string_view why) noexcept {
    if (told_[static_cast<std::size_t>(trouble)].exchange(true, std::memory_order_relaxed))
        return;
    std::fprintf(stderr, "VK_LAYER_SLUICE_dma_buf: %.*s\n", static_cast<int>(why.size()),
                 why.data());
}

} // namespace sluice::layer
