// SPDX-License-Identifier: MIT
#include <sluice/cpu_access.hpp>

#include <cerrno>
#include <string>

#include <linux/dma-buf.h>

#include "core/cpu_map_state.hpp"
#include "core/dma_buf_text.hpp"
#include "core/sys.hpp"

namespace sluice {

namespace {

/// One edge of the bracket. \returns 0 or the errno.
int sync(const DmaBuf& buffer, Access access, __u64 edge) noexcept {
    dma_buf_sync request{.flags = static_cast<__u64>(access) | edge};
    return sys::ioctl(buffer.fd(), DMA_BUF_IOCTL_SYNC, &request) == 0 ? 0 : errno;
}

} // namespace

CpuAccess::CpuAccess(std::shared_ptr<const CpuMap::State> map, Access access) noexcept
    : map_(std::move(map)), access_(access) {}

Result<CpuAccess> CpuAccess::begin(const CpuMap& map, Access access, Deadline deadline) noexcept {
    constexpr const char* operation = "CpuAccess::begin";
    const auto& state = map.state_;
    if (!state)
        return tl::unexpected(Error{.code = Errc::invalid_argument,
                                    .operation = operation,
                                    .object = "CpuMap",
                                    .problem = "the mapping was moved away",
                                    .remedy = "Begin on the mapping that it was moved to"});
    const DmaBuf& buffer = state->buffer;
    if (writes(access) && !writes(state->access))
        return tl::unexpected(Error{.code = Errc::invalid_argument,
                                    .operation = operation,
                                    .object = describe(buffer),
                                    .problem = "the mapping was made for access read, not " +
                                               std::string(to_string(access)),
                                    .remedy = "Map the buffer for writing"});
    if (auto idle = buffer.wait(access, deadline); !idle) {
        idle.error().operation = operation;
        return tl::unexpected(std::move(idle.error()));
    }
    if (const int error = sync(buffer, access, DMA_BUF_SYNC_START); error != 0)
        return tl::unexpected(sys::failed_call(error, operation, describe(buffer),
                                               "the kernel did not open the bracket (START)",
                                               "Do not touch the bytes; try again or give up"));
    return CpuAccess(state, access);
}

std::span<std::byte> CpuAccess::bytes() const noexcept {
    if (!map_)
        return {};
    return {static_cast<std::byte*>(map_->address), static_cast<std::size_t>(map_->buffer.size())};
}

Result<void> CpuAccess::end() noexcept {
    if (!map_)
        return {};
    const auto map = std::move(map_); // ended from here on, whatever the kernel says
    if (const int error = sync(map->buffer, access_, DMA_BUF_SYNC_END); error != 0)
        return tl::unexpected(
            sys::failed_call(error, "CpuAccess::end", describe(map->buffer),
                             "the kernel did not close the bracket (END)",
                             "Take what was written as not visible to devices; write it again"));
    return {};
}

CpuAccess::CpuAccess(CpuAccess&& other) noexcept
    : map_(std::move(other.map_)), access_(other.access_) {}

CpuAccess& CpuAccess::operator=(CpuAccess&& other) noexcept {
    if (this != &other) {
        (void)end();
        map_ = std::move(other.map_);
        access_ = other.access_;
    }
    return *this;
}

CpuAccess::~CpuAccess() {
    (void)end();
}

} // namespace sluice
