// SPDX-License-Identifier: MIT
#include <sluice/cpu_access.hpp>

#include <algorithm>
#include <cerrno>
#include <string>

#include <linux/dma-buf.h>

#include "core/cpu_map_state.hpp"
#include "core/dma_buf_text.hpp"
#include "core/log.hpp"
#include "core/sys.hpp"

namespace sluice {

namespace {

constexpr const char* begin_operation = "CpuAccess::begin";

/// Opens the bracket. \returns 0 or the errno, EINTR and EAGAIN too.
int start(const DmaBuf& buffer, Access access) noexcept {
    dma_buf_sync request{.flags = static_cast<__u64>(access) | DMA_BUF_SYNC_START};
    return ::ioctl(buffer.fd(), DMA_BUF_IOCTL_SYNC, &request) == 0 ? 0 : errno;
}

/// Closes it; there is no giving up, so interruptions are restarted without end.
int stop(const DmaBuf& buffer, Access access) noexcept {
    dma_buf_sync request{.flags = static_cast<__u64>(access) | DMA_BUF_SYNC_END};
    return sys::ioctl(buffer.fd(), DMA_BUF_IOCTL_SYNC, &request) == 0 ? 0 : errno;
}

Error refuse(std::string object, std::string problem, std::string remedy) {
    return Error{.code = Errc::invalid_argument,
                 .operation = begin_operation,
                 .object = std::move(object),
                 .problem = std::move(problem),
                 .remedy = std::move(remedy)};
}

/// Waits until \p deadline, then opens the bracket.
Result<void> open(const DmaBuf& buffer, Access access, Deadline deadline) {
    for (;;) {
        if (auto idle = buffer.wait(access, deadline); !idle) {
            idle.error().operation = begin_operation;
            return idle;
        }
        const int error = start(buffer, access);
        if (error == 0)
            return {};
        if (error != EINTR && error != EAGAIN)
            return tl::unexpected(sys::failed_call(error, begin_operation, describe(buffer),
                                                   "the kernel did not open the bracket (START)",
                                                   "Do not touch the bytes; try again or give up"));
        if (Deadline::clock::now() >= deadline)
            return tl::unexpected(Error{.code = Errc::timed_out,
                                        .operation = begin_operation,
                                        .object = describe(buffer),
                                        .problem = "START was interrupted (" +
                                                   sys::errno_text(error) + ") until the deadline",
                                        .remedy = "Allow more time",
                                        .sys_errno = error});
    }
}

} // namespace

Result<CpuAccess> CpuAccess::begin(const CpuMap& map, Access access, Deadline deadline) noexcept {
    return begin(std::span(&map, 1), access, deadline);
}

Result<CpuAccess> CpuAccess::begin(std::span<const CpuMap> maps, Access access,
                                   Deadline deadline) noexcept {
    if (maps.empty() || maps.size() > max_maps)
        return tl::unexpected(refuse(std::to_string(maps.size()) + " mappings",
                                     "an access is over 1 to " + std::to_string(max_maps),
                                     "Begin one access for each frame"));
    for (const CpuMap& map : maps) {
        if (!map.state_)
            return tl::unexpected(refuse("CpuMap", "the mapping was moved away",
                                         "Begin on the mapping that it was moved to"));
        if (writes(access) && !writes(map.state_->access))
            return tl::unexpected(refuse(describe(map.state_->buffer),
                                         "the mapping was made for access read, not " +
                                             std::string(to_string(access)),
                                         "Map the buffer for writing"));
    }
    CpuAccess opened(access);
    for (const CpuMap& map : maps)
        if (auto added = opened.add(map, deadline); !added)
            return tl::unexpected(std::move(added.error())); // what is open is ended on the way out
    return opened;
}

Result<void> CpuAccess::add(const CpuMap& map, Deadline deadline) noexcept {
    const auto free = std::ranges::find(maps_, nullptr);
    const bool bracketed = std::any_of(maps_.begin(), free, [&](const auto& open) {
        return same_buffer(open->buffer, map.state_->buffer);
    });
    if (!bracketed)
        if (auto opened = open(map.state_->buffer, access_, deadline); !opened)
            return opened;
    if (auto& strict = map.state_->strict) {
        if (const int error = strict->open(writes(access_)); error != 0) {
            Error failure = sys::failed_call(error, begin_operation, describe(map.state_->buffer),
                                             "its pages cannot be made accessible",
                                             "Map it without CpuMapMode::strict");
            if (!bracketed)
                (void)stop(map.state_->buffer, access_);
            return tl::unexpected(std::move(failure));
        }
    }
    *free = map.state_;
    return {};
}

std::span<std::byte> CpuAccess::bytes(std::size_t index) const noexcept {
    if (index >= maps_.size() || !maps_[index])
        return {};
    const CpuMap::State& map = *maps_[index];
    return {static_cast<std::byte*>(map.address), static_cast<std::size_t>(map.buffer.size())};
}

Result<void> CpuAccess::end() noexcept {
    const Maps maps = std::move(maps_); // ended from here on, whatever the kernel says
    Result<void> ended;
    for (auto map = maps.begin(); map != maps.end() && *map; ++map) {
        const DmaBuf& buffer = (*map)->buffer;
        int error = (*map)->strict ? (*map)->strict->close(writes(access_)) : 0;
        const bool bracketed = std::any_of(
            maps.begin(), map, [&](const auto& open) { return same_buffer(open->buffer, buffer); });
        if (!bracketed)
            if (const int refused = stop(buffer, access_); refused != 0)
                error = refused;
        if (error == 0)
            continue;
        Error failure = sys::failed_call(
            error, "CpuAccess::end", describe(buffer), "the kernel did not close the bracket (END)",
            "Take what was written as not visible to devices; write it again");
        if (ended)
            ended = tl::unexpected(std::move(failure));
        else
            log(failure);
    }
    return ended;
}

CpuAccess::CpuAccess(CpuAccess&& other) noexcept
    : maps_(std::move(other.maps_)), access_(other.access_) {}

CpuAccess& CpuAccess::operator=(CpuAccess&& other) noexcept {
    if (this != &other) {
        if (auto ended = end(); !ended)
            log(ended.error());
        maps_ = std::move(other.maps_);
        access_ = other.access_;
    }
    return *this;
}

CpuAccess::~CpuAccess() {
    if (auto ended = end(); !ended)
        log(ended.error());
}

} // namespace sluice
