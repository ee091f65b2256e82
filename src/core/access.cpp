// SPDX-License-Identifier: MIT
#include <sluice/access.hpp>

namespace sluice {

std::string_view to_string(Access access) noexcept {
    switch (access) {
    case Access::read:
        return "read";
    case Access::write:
        return "write";
    case Access::read_write:
        return "read_write";
    }
    return "?";
}

} // namespace sluice
