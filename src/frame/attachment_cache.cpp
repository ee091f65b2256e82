// SPDX-License-Identifier: MIT
#include "frame/attachment_cache.hpp"

namespace sluice {

bool alike(const Frame& a, const Frame& b) noexcept {
    return a == b ||
           (a.layout() == b.layout() && std::ranges::equal(a.buffers(), b.buffers(), same_buffer));
}

bool share_a_buffer(const Frame& a, const Frame& b) noexcept {
    return std::ranges::any_of(a.buffers(), [&b](const DmaBuf& one) {
        return std::ranges::any_of(b.buffers(),
                                   [&one](const DmaBuf& other) { return same_buffer(one, other); });
    });
}

std::uint64_t hash_of(const Frame& frame) noexcept {
    // The rest is compared.
    return mix(frame.buffers()[0].inode(), frame.layout().planes[0].offset);
}

} // namespace sluice
