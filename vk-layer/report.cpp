// SPDX-License-Identifier: MIT
#include "report.hpp"

#include <cstdio>

namespace sluice::layer {

void warn(std::string_view what) noexcept {
    std::fprintf(stderr, "VK_LAYER_SLUICE_dma_buf: %.*s\n", static_cast<int>(what.size()),
                 what.data());
}

void Report::once(Trouble trouble, std::string_view why) noexcept {
    if (told_[static_cast<std::size_t>(trouble)].exchange(true, std::memory_order_relaxed))
        return;
    warn(why);
}

} // namespace sluice::layer
