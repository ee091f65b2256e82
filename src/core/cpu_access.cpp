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

// What goes wrong is told out of line, so that what goes right stays short.

[[gnu::cold, gnu::noinline]] Result<CpuAccess> refuse(std::string object, std::string problem,
                                                      std::string remedy) {
    return tl::unexpected(Error{.code = Errc::invalid_argument,
                                .operation = begin_operation,
                                .object = std::move(object),
                                .problem = std::move(problem),
                                .remedy = std::move(remedy)});
}

[[gnu::cold, gnu::noinline]] Result<CpuAccess> moved_away() {
    return tl::unexpected(Error{.code = Errc::wrong_object,
                                .operation = begin_operation,
                                .object = "CpuMap",
                                .problem = "the mapping was moved away",
                                .remedy = "Begin on the mapping that it was moved to"});
}

[[gnu::cold, gnu::noinline]] Result<void> not_opened(const DmaBuf& buffer, int error) {
    return tl::unexpected(sys::failed_call(error, begin_operation, describe(buffer),
                                           "the kernel did not open the bracket (START)",
                                           "Do not touch the bytes; try again or give up"));
}

[[gnu::cold, gnu::noinline]] Result<void> interrupted(const DmaBuf& buffer, int error) {
    return tl::unexpected(Error{.code = Errc::timed_out,
                                .operation = begin_operation,
                                .object = describe(buffer),
                                .problem = "START was interrupted (" + sys::errno_text(error) +
                                           ") until the deadline",
                                .remedy = "Allow more time",
                                .sys_errno = error});
}

[[gnu::cold, gnu::noinline]] Error not_closed(const DmaBuf& buffer, int error) {
    return sys::failed_call(error, "CpuAccess::end", describe(buffer),
                            "the kernel did not close the bracket (END)",
                            "Take what was written as not visible to devices; write it again");
}

[[gnu::cold, gnu::noinline]] Result<CpuAccess> made_to_read(const DmaBuf& buffer, Access access) {
    return refuse(describe(buffer),
                  "the mapping was made for access read, not " + std::string(to_string(access)),
                  "Map the buffer for writing");
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
            return sys::success();
        if (error != EINTR && error != EAGAIN)
            return not_opened(buffer, error);
        if (Deadline::clock::now() >= deadline)
            return interrupted(buffer, error);
    }
}

} // namespace

Result<CpuAccess> CpuAccess::begin(const CpuMap& map, Access access, Deadline deadline) noexcept {
    // What nearly every access is, in few steps: an idle buffer in a quick mapping.
    CpuMap::State* state = map.state_;
    if (state != nullptr && !state->strict && (!writes(access) || writes(state->access)) &&
        sys::poll_now(state->buffer.fd(), DmaBuf::poll_events(access)) > 0) {
        const int error = start(state->buffer, access);
        if (error == 0) {
            CpuAccess opened(access);
            state->hold();
            opened.maps_[0] = state;
            opened.count_ = 1;
            return opened;
        }
        if (error != EINTR && error != EAGAIN) {
            auto refused = not_opened(state->buffer, error);
            return tl::unexpected(std::move(refused.error()));
        }
    }
    return begin(std::span(&map, 1), access, deadline);
}

Result<CpuAccess> CpuAccess::begin(std::span<const CpuMap> maps, Access access,
                                   Deadline deadline) noexcept {
    if (maps.empty() || maps.size() > max_maps)
        return refuse(std::to_string(maps.size()) + " mappings",
                      "an access is over 1 to " + std::to_string(max_maps),
                      "Begin one access for each frame");
    for (const CpuMap& map : maps) {
        if (!map.state_)
            return moved_away();
        if (writes(access) && !writes(map.state_->access))
            return made_to_read(map.state_->buffer, access);
    }
    CpuAccess opened(access);
    for (const CpuMap& map : maps)
        if (auto added = opened.add(map, deadline); !added)
            return tl::unexpected(std::move(added.error())); // what is open is ended on the way out
    return opened;
}

/// Whether the bracket of \p map's buffer is open already.
bool CpuAccess::brackets(const CpuMap::State& map) const noexcept {
    for (std::size_t i = 0; i < count_; ++i)
        if (same_buffer(maps_[i]->buffer, map.buffer))
            return true;
    return false;
}

Result<void> CpuAccess::add(const CpuMap& map, Deadline deadline) noexcept {
    CpuMap::State& state = *map.state_;
    const bool bracketed = brackets(state);
    if (!bracketed)
        if (auto opened = open(state.buffer, access_, deadline); !opened)
            return opened;
    if (state.strict) {
        if (const int error = state.strict->open(writes(access_)); error != 0) {
            if (!bracketed)
                (void)stop(state.buffer, access_);
            return tl::unexpected(sys::failed_call(error, begin_operation, describe(state.buffer),
                                                   "its pages cannot be made accessible",
                                                   "Map it without CpuMapMode::strict"));
        }
    }
    state.hold();
    maps_[count_++] = &state;
    return sys::success();
}

std::span<std::byte> CpuAccess::bytes(std::size_t index) const noexcept {
    if (index >= count_)
        return {};
    const CpuMap::State& map = *maps_[index];
    return {static_cast<std::byte*>(map.address), static_cast<std::size_t>(map.buffer.size())};
}

Result<void> CpuAccess::end() noexcept {
    if (count_ != 1 || maps_[0]->strict)
        return end_all();
    CpuMap::State* map = maps_[0];
    const int error = stop(map->buffer, access_);
    if (error != 0)
        return end_refused(error);
    count_ = 0;
    map->drop();
    return sys::success();
}

/// The rest of end() where the one bracket was refused.
Result<void> CpuAccess::end_refused(int error) noexcept {
    CpuMap::State* map = maps_[0];
    count_ = 0; // ended, whatever the kernel says
    Result<void> refused = tl::unexpected(not_closed(map->buffer, error));
    map->drop();
    return refused;
}

/// end() for what is not one quick mapping.
Result<void> CpuAccess::end_all() noexcept {
    Result<void> ended;
    // From the last to the first, so that a buffer's bracket is closed with the mapping that opened
    // it; ended from here on, whatever the kernel says.
    while (count_ > 0) {
        CpuMap::State* map = maps_[--count_];
        int error = map->strict ? map->strict->close(writes(access_)) : 0;
        if (!brackets(*map))
            if (const int refused = stop(map->buffer, access_); refused != 0)
                error = refused;
        if (error != 0) {
            Error failure = not_closed(map->buffer, error);
            if (ended)
                ended = tl::unexpected(std::move(failure));
            else
                log(failure);
        }
        map->drop();
    }
    return ended;
}

void CpuAccess::end_and_log() noexcept {
    if (auto ended = end(); !ended)
        log(ended.error());
}

CpuAccess& CpuAccess::operator=(CpuAccess&& other) noexcept {
    if (this != &other) {
        if (count_ != 0)
            end_and_log();
        maps_ = other.maps_;
        count_ = std::exchange(other.count_, 0);
        access_ = other.access_;
    }
    return *this;
}

} // namespace sluice
