// SPDX-License-Identifier: MIT
#include <sluice/frame_map.hpp>

#include <string>
#include <utility>
#include <vector>

#include <drm_fourcc.h>

#include "frame/frame_use.hpp"

namespace sluice {

struct FrameMap::State {
    Frame frame;
    std::vector<CpuMap> maps; // of the frame's buffers, in their order
};

FrameMap::FrameMap(std::shared_ptr<const State> state) noexcept : state_(std::move(state)) {}

Result<FrameMap> FrameMap::map(const Frame& frame, Access access, CpuMapMode mode) noexcept {
    constexpr const char* operation = "FrameMap::map";
    if (frame.layout().modifier != DRM_FORMAT_MOD_LINEAR)
        return tl::unexpected(
            Error{.code = Errc::unsupported,
                  .operation = operation,
                  .object = describe(frame.layout()),
                  .problem = "modifier " + modifier_name(frame.layout().modifier) +
                             " is a layout for devices only",
                  .remedy = "Allocate the frame LINEAR, or have the GPU copy it to one that is"});
    if (auto used = FrameUse::begin(frame, operation); !used)
        return tl::unexpected(std::move(used.error()));
    auto state = std::make_shared<State>(State{frame, {}});
    Result<void> mapped;
    for (const DmaBuf& buffer : frame.buffers()) {
        auto map = CpuMap::map(buffer, access, mode);
        if (!map) {
            mapped = tl::unexpected(std::move(map.error()));
            break;
        }
        state->maps.push_back(std::move(*map));
    }
    FrameUse::end(frame);
    if (!mapped)
        return tl::unexpected(std::move(mapped.error()));
    return FrameMap(std::move(state));
}

const Frame& FrameMap::frame() const noexcept {
    return state_->frame;
}

FrameAccess::FrameAccess(std::shared_ptr<const FrameMap::State> map, CpuAccess&& access) noexcept
    : map_(std::move(map)), access_(std::move(access)) {}

Result<FrameAccess> FrameAccess::begin(const FrameMap& map, Access access,
                                       Deadline deadline) noexcept {
    constexpr const char* operation = "FrameAccess::begin";
    const Frame& frame = map.state_->frame;
    if (auto used = FrameUse::begin(frame, operation); !used)
        return tl::unexpected(std::move(used.error()));
    auto opened = CpuAccess::begin(map.state_->maps, access, deadline);
    if (!opened) {
        FrameUse::end(frame);
        return tl::unexpected(std::move(opened.error()));
    }
    return FrameAccess(map.state_, std::move(*opened));
}

FramePlaneBytes FrameAccess::plane(std::size_t index) const noexcept {
    if (!map_ || index >= map_->frame.layout().plane_count)
        return {};
    const FrameLayout& layout = map_->frame.layout();
    const FramePlane& plane = layout.planes[index];
    const FormatPlane& block = find_format(layout.format)->planes[index];
    return {.first = access_.bytes(plane.buffer).data() + plane.offset,
            .row_bytes = static_cast<std::size_t>(block.row_bytes(layout.width)),
            .stride = plane.stride,
            .rows = static_cast<std::size_t>(block.rows(layout.height))};
}

Result<void> FrameAccess::end() noexcept {
    if (!map_)
        return {};
    const auto map = std::move(map_);
    auto ended = access_.end();
    FrameUse::end(map->frame);
    return ended;
}

FrameAccess::FrameAccess(FrameAccess&& other) noexcept
    : map_(std::move(other.map_)), access_(std::move(other.access_)) {}

FrameAccess& FrameAccess::operator=(FrameAccess&& other) noexcept {
    if (this != &other) {
        const auto map = std::exchange(map_, std::move(other.map_));
        access_ = std::move(other.access_); // ends what was open, and logs where that fails
        if (map)
            FrameUse::end(map->frame);
    }
    return *this;
}

FrameAccess::~FrameAccess() {
    if (!map_)
        return;
    { const CpuAccess ending(std::move(access_)); } // logs where it cannot end
    FrameUse::end(map_->frame);
}

} // namespace sluice
