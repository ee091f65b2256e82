// SPDX-License-Identifier: MIT
#include <sluice/frame.hpp>

#include <algorithm>
#include <atomic>
#include <bit>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <drm_fourcc.h>

#include <poll.h>

#include "core/dma_buf_text.hpp"
#include "core/sys.hpp"
#include "frame/frame_use.hpp"
#include <sluice/format.hpp>

namespace sluice {

namespace {

using std::to_string;

struct Refusal {
    Errc code;
    std::string problem;
    std::string remedy;
};

/// "plane 1's stride of 64 bytes".
std::string stride_of(const FramePlane& plane, std::uint32_t index) {
    return "plane " + to_string(index) + "'s stride of " + to_string(plane.stride) + " bytes";
}

std::string planes(std::uint32_t count) {
    return to_string(count) + (count == 1 ? " plane" : " planes");
}

/// Why plane \p index of a LINEAR \p layout cannot lie in \p size bytes, or nothing.
std::optional<Refusal> refuse_linear_plane(const FrameLayout& layout, const FormatInfo& format,
                                           std::uint32_t index, std::uint64_t size) {
    constexpr const char* as_told = "Pass the stride in bytes, as the exporter tells it";
    const FramePlane& plane = layout.planes[index];
    // Factors of 32 bits: no 64-bit product below can wrap, and the sum of them stays below 2^64.
    const FormatPlane& block = format.planes[index];
    const std::uint64_t row = block.row_bytes(layout.width);
    if (plane.stride < row)
        return Refusal{Errc::invalid_argument,
                       stride_of(plane, index) + " is below its row of " +
                           to_string(row / block.block_bytes) +
                           (block.block_width == 1 ? " pixels x " : " blocks x ") +
                           to_string(block.block_bytes) + " bytes = " + to_string(row),
                       as_told};
    if (plane.stride > std::uint32_t{INT32_MAX})
        return Refusal{Errc::invalid_argument,
                       stride_of(plane, index) + " is above " + to_string(INT32_MAX), as_told};
    // Pixels that are no power of two are packed into rows that end on whole words.
    const std::uint32_t pixel = block.block_bytes / block.block_width;
    if (block.block_bytes % block.block_width == 0 && std::has_single_bit(pixel) &&
        plane.stride % pixel != 0)
        return Refusal{Errc::invalid_argument,
                       stride_of(plane, index) + " is no multiple of its " + to_string(pixel) +
                           " bytes a pixel",
                       as_told};
    const std::uint64_t end =
        plane.offset + std::uint64_t{plane.stride} * (block.rows(layout.height) - 1) + row;
    if (end > size)
        return Refusal{Errc::out_of_bounds,
                       "plane " + to_string(index) + " needs " + to_string(end) +
                           " bytes, the buffer holds " + to_string(size),
                       "Check offset, stride and height, or allocate a larger buffer"};
    return std::nullopt;
}

/// Why \p layout, its plane_count filled in, cannot lie in \p buffers, or nothing.
std::optional<Refusal> refuse(const FrameLayout& layout, const FormatInfo& format,
                              std::span<const DmaBuf> buffers) {
    for (std::size_t i = 0; i < buffers.size(); ++i)
        if (buffers[i].fd() < 0)
            return Refusal{Errc::wrong_object, "buffer " + to_string(i) + " was moved from",
                           "Pass the one that it was moved to"};
    if (layout.width == 0 || layout.height == 0)
        return Refusal{Errc::invalid_argument,
                       "its size is " + to_string(layout.width) + "x" + to_string(layout.height),
                       "A frame has at least one pixel"};
    // Modifiers that are a layout of their own may add planes, and never take any away.
    const bool plain =
        layout.modifier == DRM_FORMAT_MOD_LINEAR || layout.modifier == DRM_FORMAT_MOD_INVALID;
    if (layout.plane_count < format.plane_count || layout.plane_count > max_planes ||
        (plain && layout.plane_count != format.plane_count))
        return Refusal{Errc::invalid_argument,
                       "it has " + planes(layout.plane_count) + ", and " +
                           format_name(layout.format) + " has " + planes(format.plane_count) +
                           (plain ? "" : ", up to " + to_string(max_planes) + " with a modifier's"),
                       "Pass every plane that the exporter tells of"};
    for (std::uint32_t i = 0; i < max_planes; ++i) {
        const FramePlane& plane = layout.planes[i];
        if (i >= layout.plane_count) {
            if (plane.offset != 0 || plane.stride != 0 || plane.buffer != 0)
                return Refusal{Errc::invalid_argument,
                               "plane " + to_string(i) + " has offset " + to_string(plane.offset) +
                                   " and stride " + to_string(plane.stride) + ", and " +
                                   format_name(layout.format) + " has " +
                                   planes(layout.plane_count),
                               "Leave the planes that are not there zero"};
            continue;
        }
        if (plane.buffer >= buffers.size())
            return Refusal{Errc::invalid_argument,
                           "plane " + to_string(i) + " lies in buffer " + to_string(plane.buffer) +
                               ", and there are " + to_string(buffers.size()),
                           "Count the buffers from 0, in the order in which they are passed"};
        const std::uint64_t size = buffers[plane.buffer].size();
        if (layout.modifier == DRM_FORMAT_MOD_LINEAR) {
            if (auto refusal = refuse_linear_plane(layout, format, i, size))
                return refusal;
        } else if (plane.offset >= size) {
            return Refusal{Errc::out_of_bounds,
                           "plane " + to_string(i) + " begins at byte " + to_string(plane.offset) +
                               ", the buffer holds " + to_string(size),
                           "Check the offset, or allocate a larger buffer"};
        } else if (plane.stride > std::uint32_t{INT32_MAX}) {
            return Refusal{Errc::invalid_argument,
                           stride_of(plane, i) + " is above " + to_string(INT32_MAX),
                           "Pass the stride in bytes, as the exporter tells it"};
        }
    }
    for (std::uint32_t i = 0; i < buffers.size(); ++i) {
        const auto in_use = std::span(layout.planes).first(layout.plane_count);
        if (std::ranges::find(in_use, i, &FramePlane::buffer) == in_use.end())
            return Refusal{Errc::invalid_argument, "no plane lies in buffer " + to_string(i),
                           "Pass only buffers that hold a plane"};
    }
    return std::nullopt;
}

/// What was passed, as an Error's object.
std::string describe(const FrameLayout& layout, std::span<const DmaBuf> buffers) {
    std::string text = sluice::describe(layout) + " in ";
    for (const DmaBuf& buffer : buffers)
        text += (&buffer == buffers.data() ? "" : " and ") + sluice::describe(buffer);
    return buffers.empty() ? text + "no buffer" : text;
}

/// Waits until no fence is in \p buffer. Work that failed has ended too, but others may have left
/// fences by then: they are waited for as well.
Result<void> wait_for_the_end(const DmaBuf& buffer, Deadline deadline) {
    for (;;) {
        auto idle = buffer.wait(Access::read_write, deadline);
        if (idle || idle.error().code != Errc::fence_failed)
            return idle;
        if (Deadline::clock::now() < deadline)
            continue;
        idle.error().code = Errc::timed_out;
        idle.error().remedy = "Allow more time";
        return idle;
    }
}

} // namespace

struct Frame::State {
    FrameLayout layout;
    std::vector<DmaBuf> buffers;

    std::mutex lock;
    std::condition_variable unused;
    unsigned uses = 0;
    std::atomic<bool> revoked = false; // set under the lock
    std::vector<std::weak_ptr<FrameWatcher>> watchers;
    struct Leaving {
        std::uint64_t user;
        std::shared_ptr<const SyncFile> fence;
    };
    std::vector<Leaving> leaving; // accesses that end by themselves; one for each user

    std::atomic<long> attachments = 0;
};

Frame::Frame(std::shared_ptr<State> state) noexcept : state_(std::move(state)) {}

Result<Frame> Frame::create(const FrameLayout& asked, std::span<DmaBuf> buffers) noexcept {
    FrameLayout layout = asked;
    const FormatInfo* format = find_format(layout.format);
    std::optional<Refusal> refusal;
    if (format == nullptr) {
        refusal =
            Refusal{Errc::unsupported, format_name(layout.format) + " is not a format it knows",
                    "Use one of the " + to_string(formats().size()) + " that formats() lists"};
    } else {
        if (layout.plane_count == 0)
            layout.plane_count = format->plane_count;
        refusal = refuse(layout, *format, buffers);
    }
    if (refusal)
        return tl::unexpected(Error{.code = refusal->code,
                                    .operation = "Frame::create",
                                    .object = describe(asked, buffers),
                                    .problem = std::move(refusal->problem),
                                    .remedy = std::move(refusal->remedy)});

    // One buffer may come as several fds. Every one is in use, so there are four at most.
    auto state = std::make_shared<State>();
    state->buffers.reserve(buffers.size());
    std::array<std::uint32_t, max_planes> place{};
    for (std::size_t i = 0; i < buffers.size(); ++i) {
        auto known = std::ranges::find_if(
            state->buffers, [&](const DmaBuf& each) { return same_buffer(each, buffers[i]); });
        place[i] = static_cast<std::uint32_t>(known - state->buffers.begin());
        if (known == state->buffers.end())
            state->buffers.push_back(std::move(buffers[i]));
        else
            DmaBuf(std::move(buffers[i])); // taken over, and not needed
    }
    for (FramePlane& plane : std::span(layout.planes).first(layout.plane_count))
        plane.buffer = place[plane.buffer];
    state->layout = layout;
    return Frame(std::move(state));
}

Result<Frame> Frame::create(const FrameLayout& layout, std::vector<DmaBuf>&& buffers) noexcept {
    auto frame = create(layout, std::span(buffers));
    if (frame)
        buffers.clear();
    return frame;
}

Result<Frame> Frame::create(const FrameLayout& layout, DmaBuf&& buffer) noexcept {
    return create(layout, std::span(&buffer, 1));
}

std::span<const DmaBuf> Frame::buffers() const noexcept {
    return state_->buffers;
}

Result<void> Frame::revoke(Deadline deadline) const noexcept {
    constexpr const char* operation = "Frame::revoke";
    {
        std::unique_lock held(state_->lock);
        state_->revoked = true;
        if (!state_->unused.wait_until(held, deadline, [this] { return state_->uses == 0; }))
            return tl::unexpected(
                Error{.code = Errc::timed_out,
                      .operation = operation,
                      .object = describe(layout(), buffers()),
                      .problem = to_string(state_->uses) +
                                 (state_->uses == 1 ? " access was" : " accesses were") +
                                 " still open at the deadline",
                      .remedy = "End the accesses, have screens show another frame, and revoke "
                                "again"});
    }
    if (auto left = FrameUse::wait_for_leaving(*this, deadline); !left) {
        left.error().operation = operation;
        return left;
    }
    for (const DmaBuf& each : buffers())
        if (auto idle = wait_for_the_end(each, deadline); !idle) {
            idle.error().operation = operation;
            return idle;
        }
    std::vector<std::weak_ptr<FrameWatcher>> watchers;
    {
        const std::scoped_lock held(state_->lock);
        watchers = std::exchange(state_->watchers, {});
    }
    for (const auto& each : watchers)
        if (const auto watcher = each.lock())
            watcher->revoked(*this);
    return {};
}

bool Frame::revoked() const noexcept {
    return state_->revoked;
}

Result<void> FrameUse::begin(const Frame& frame, std::string_view operation) {
    {
        const std::scoped_lock held(frame.state_->lock);
        if (!frame.state_->revoked) {
            ++frame.state_->uses;
            return {};
        }
    }
    return tl::unexpected(refusal(frame, operation));
}

Error FrameUse::refusal(const Frame& frame, std::string_view operation) {
    return Error{.code = Errc::revoked,
                 .operation = std::string(operation),
                 .object = describe(frame.layout(), frame.buffers()),
                 .problem = "its owner has taken the frame back",
                 .remedy = "Drop it, and use the one that replaced it"};
}

void FrameUse::attached(const Frame& frame) noexcept {
    frame.state_->attachments.fetch_add(1, std::memory_order_relaxed);
}

void FrameUse::detached(const Frame& frame) noexcept {
    frame.state_->attachments.fetch_sub(1, std::memory_order_relaxed);
}

bool FrameUse::held(const Frame& frame) noexcept {
    return frame.state_.use_count() > frame.state_->attachments.load(std::memory_order_relaxed);
}

void FrameUse::watch(const Frame& frame, const std::weak_ptr<FrameWatcher>& watcher) {
    const std::scoped_lock held(frame.state_->lock);
    auto& all = frame.state_->watchers;
    const bool known = std::ranges::any_of(all, [&](const auto& each) {
        return !each.owner_before(watcher) && !watcher.owner_before(each);
    });
    if (!known)
        all.push_back(watcher);
}

void FrameUse::end(const Frame& frame) noexcept {
    const std::shared_ptr<Frame::State> state = frame.state_; // whoever waits may drop the rest
    bool last = false;
    {
        const std::scoped_lock held(state->lock);
        last = --state->uses == 0 && state->revoked;
    }
    if (last)
        state->unused.notify_all();
}

void FrameUse::end_after(const Frame& frame, std::uint64_t user,
                         std::shared_ptr<const SyncFile> fence) noexcept {
    {
        const std::scoped_lock held(frame.state_->lock);
        auto& all = frame.state_->leaving;
        const auto before = std::ranges::find(all, user, &Frame::State::Leaving::user);
        if (before != all.end())
            std::swap(before->fence, fence); // the old one goes without the lock
        else {                               // users come and go: those of old need not be kept
            std::erase_if(all, [](const Frame::State::Leaving& each) {
                return sys::poll_now(each.fence->fd(), POLLIN) != 0;
            });
            all.push_back({.user = user, .fence = std::move(fence)});
        }
    }
    end(frame);
}

Result<void> FrameUse::wait_for_leaving(const Frame& frame, Deadline deadline) {
    std::vector<std::shared_ptr<const SyncFile>> fences;
    {
        const std::scoped_lock held(frame.state_->lock);
        for (const auto& each : frame.state_->leaving)
            fences.push_back(each.fence);
    }
    for (const auto& each : fences)
        if (auto left = each->wait(deadline); !left && left.error().code != Errc::fence_failed) {
            left.error().object = describe(frame.layout(), frame.buffers());
            left.error().problem = "it was still on its way off a screen at the deadline";
            left.error().remedy = "Allow more time";
            return left;
        }
    return {};
}

const FrameLayout& Frame::layout() const noexcept {
    return state_->layout;
}

const DmaBuf& Frame::buffer(std::uint32_t plane) const noexcept {
    return state_->buffers[state_->layout.planes[plane].buffer];
}

std::string describe(const FrameLayout& layout) noexcept {
    const FormatInfo* format = find_format(layout.format);
    std::string text = to_string(layout.width) + "x" + to_string(layout.height) + " " +
                       (format ? std::string(format->name) : format_name(layout.format)) + " " +
                       modifier_name(layout.modifier);
    std::uint32_t count = layout.plane_count;
    if (count == 0)
        count = format ? format->plane_count : 1;
    for (std::uint32_t i = 0; i < std::min(count, max_planes); ++i) {
        const FramePlane& plane = layout.planes[i];
        text += (i == 0 ? ", stride " : "; stride ") + to_string(plane.stride) + ", offset " +
                to_string(plane.offset);
        if (plane.buffer != 0)
            text += " in buffer " + to_string(plane.buffer);
    }
    return text;
}

} // namespace sluice
