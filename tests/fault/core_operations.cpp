// SPDX-License-Identifier: MIT
// The operations of core on real buffers and fences.
#include "fault/operation.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include <fcntl.h>
#include <linux/dma-heap.h>
#include <sys/ioctl.h>

#include <sluice/buffer_lock.hpp>
#include <sluice/cpu_access.hpp>
#include <sluice/cpu_map.hpp>
#include <sluice/dma_buf.hpp>
#include <sluice/implicit_sync.hpp>
#include <sluice/sync_file.hpp>
#include <sluice/unique_fd.hpp>

#include "core/probe.hpp"
#include "support/memfd.hpp"
#include "support/sw_sync.hpp"
#include "support/udmabuf.hpp"

namespace sluice::test {

namespace {

using namespace std::chrono_literals;

/// Never reached where all is well.
Deadline far() {
    return deadline_in(20s);
}

Deadline passed() {
    return Deadline{};
}

DmaBuf heap_buffer(std::uint64_t size) {
    const UniqueFd heap(open("/dev/dma_heap/system", O_RDWR | O_CLOEXEC));
    dma_heap_allocation_data request{
        .len = size, .fd = 0, .fd_flags = O_RDWR | O_CLOEXEC, .heap_flags = 0};
    EXPECT_EQ(ioctl(heap.get(), DMA_HEAP_IOCTL_ALLOC, &request), 0);
    return std::move(*DmaBuf::from_fd(UniqueFd(static_cast<int>(request.fd))));
}

/// A second fd of the same file, where a fd goes with the operation.
UniqueFd again(int fd) {
    return std::move(*UniqueFd::duplicate(fd));
}

FenceState state_of(const SyncFile& fence) {
    return fence.status()->state;
}

FenceState state_of(const DmaBuf& buffer, Access access) {
    return state_of(*buffer.export_fence(access));
}

template <typename T> bool refused(const Result<T>& result, Errc code) {
    return !result && result.error().code == code;
}

/// A buffer, and fences that the operation may wait for.
struct Scene {
    SwSync timeline;
    SwSync other;
    DmaBuf buffer = udmabuf(4096);
    SyncFile pending = timeline.fence(1);
    SyncFile later = other.fence(1);

    static SyncFile signalled() {
        const SwSync timeline;
        SyncFile fence = timeline.fence(1);
        timeline.advance(1);
        return fence;
    }
    static SyncFile failed() {
        SwSync timeline;
        SyncFile fence = timeline.fence(1);
        timeline.close();
        return fence;
    }
};

/// Fences in the buffer, and time that passes for the timeline while the operation sleeps.
std::shared_ptr<Scene> busy_scene(Access access = Access::write) {
    auto my = std::make_shared<Scene>();
    EXPECT_TRUE(my->buffer.import_fence(my->pending, access));
    boundary::before_sleep([my] { my->timeline.advance(1); });
    return my;
}

/// The same, but the work fails.
std::shared_ptr<Scene> doomed_scene() {
    auto my = busy_scene();
    boundary::before_sleep([my] { my->timeline.close(); });
    return my;
}

std::vector<Operation> fd_operations() {
    return {
        {"UniqueFd::duplicate",
         [] {
             auto my = std::make_shared<UniqueFd>(memfd(4096));
             return attempt([=] { return my->duplicate(); },
                            [=](auto& copy) {
                                return copy && *copy && copy->get() != my->get() &&
                                       (fcntl(copy->get(), F_GETFD) & FD_CLOEXEC) != 0;
                            });
         }},
        {"UniqueFd::duplicate of a closed fd",
         [] {
             return attempt([] { return UniqueFd::duplicate(1000); },
                            [](auto& copy) {
                                return refused(copy, Errc::wrong_object) &&
                                       copy.error().sys_errno == EBADF;
                            });
         }},
        {"UniqueFd::reset",
         [] {
             auto my = std::make_shared<UniqueFd>(memfd(4096));
             return attempt(
                 [=]() -> Result<int> {
                     errno = 0;
                     my->reset();
                     return errno;
                 },
                 [=](auto& error) { return *error == 0 && !*my; });
         }},
    };
}

std::vector<Operation> buffer_operations() {
    return {
        {"DmaBuf::from_fd",
         [] {
             struct My {
                 DmaBuf buffer = udmabuf(8192);
                 UniqueFd fd = again(buffer.fd());
             };
             auto my = std::make_shared<My>();
             return attempt([=] { return DmaBuf::from_fd(std::move(my->fd)); },
                            [=](auto& made) {
                                if (!made)
                                    return false;
                                my->fd = again(made->fd()); // for the next attempt
                                return made->size() == 8192 && same_buffer(*made, my->buffer);
                            });
         }},
        {"DmaBuf::from_fd of a memfd",
         [] {
             auto my = std::make_shared<UniqueFd>(memfd(4096));
             return attempt([=] { return DmaBuf::from_fd(std::move(*my)); },
                            [=](auto& made) {
                                return refused(made, Errc::wrong_object) &&
                                       made.error().sys_errno == 0 && *my;
                            });
         }},
        {"DmaBuf::from_borrowed_fd",
         [] {
             auto my = std::make_shared<Scene>();
             return attempt([=] { return DmaBuf::from_borrowed_fd(my->buffer.fd()); },
                            [=](auto& made) { return made && same_buffer(*made, my->buffer); });
         }},
        {"DmaBuf::duplicate",
         [] {
             auto my = std::make_shared<Scene>();
             return attempt([=] { return my->buffer.duplicate(); },
                            [=](auto& made) {
                                return made && same_buffer(*made, my->buffer) &&
                                       made->fd() != my->buffer.fd();
                            });
         }},
        {"DmaBuf::set_name",
         [] {
             auto my = std::make_shared<Scene>();
             return attempt(
                 [=] { return my->buffer.set_name("frame-0"); },
                 [=](auto& named) { return named && my->buffer.info()->name == "frame-0"; });
         }},
        {"DmaBuf::info",
         [] {
             auto my = std::make_shared<Scene>();
             EXPECT_TRUE(my->buffer.set_name("frame-0"));
             return attempt([=] { return my->buffer.info(); },
                            [](auto& info) {
                                return info && info->name == "frame-0" &&
                                       info->exporter == "udmabuf" && info->references > 0;
                            });
         }},
        {"DmaBuf::export_fence of an idle buffer",
         [] {
             auto my = std::make_shared<Scene>();
             return attempt(
                 [=] { return my->buffer.export_fence(Access::read_write); },
                 [](auto& fence) { return fence && state_of(*fence) == FenceState::signalled; });
         }},
        {"DmaBuf::export_fence of a busy buffer",
         [] {
             auto my = busy_scene();
             return attempt(
                 [=] { return my->buffer.export_fence(Access::read); },
                 [](auto& fence) { return fence && state_of(*fence) == FenceState::pending; });
         }},
        {"DmaBuf::import_fence to write",
         [] {
             auto my = std::make_shared<Scene>();
             return attempt([=] { return my->buffer.import_fence(my->pending, Access::write); },
                            [=](auto& imported) {
                                return imported &&
                                       state_of(my->buffer, Access::read) == FenceState::pending;
                            });
         }},
        {"DmaBuf::import_fence to read",
         [] {
             auto my = std::make_shared<Scene>();
             return attempt([=] { return my->buffer.import_fence(my->pending, Access::read); },
                            [=](auto& imported) {
                                return imported &&
                                       state_of(my->buffer, Access::read) ==
                                           FenceState::signalled &&
                                       state_of(my->buffer, Access::write) == FenceState::pending;
                            });
         }},
        {"DmaBuf::import_fence of none",
         [] {
             auto my = std::make_shared<Scene>();
             return attempt(
                 [=] { return my->buffer.import_fence(SyncFile::signalled(), Access::write); },
                 [](auto& imported) { return imported.has_value(); });
         }},
        {"DmaBuf::idle",
         [] {
             auto my = busy_scene(Access::read);
             return attempt([=] { return my->buffer.idle(Access::write); },
                            [](auto& idle) { return idle && !*idle; });
         }},
        {"DmaBuf::wait for an idle buffer",
         [] {
             auto my = std::make_shared<Scene>();
             return attempt([=] { return my->buffer.wait(Access::read_write, far()); },
                            [](auto& waited) { return waited.has_value(); });
         }},
        {"DmaBuf::wait until work is done",
         [] {
             auto my = busy_scene();
             return attempt([=] { return my->buffer.wait(Access::read, far()); },
                            [=](auto& waited) {
                                return waited && state_of(my->pending) == FenceState::signalled;
                            });
         }},
        {"DmaBuf::wait until readers are done",
         [] {
             auto my = busy_scene(Access::read);
             return attempt([=] { return my->buffer.wait(Access::write, far()); },
                            [=](auto& waited) {
                                return waited && state_of(my->pending) == FenceState::signalled;
                            });
         }},
        {"DmaBuf::wait with its deadline passed",
         [] {
             auto my = busy_scene();
             return attempt([=] { return my->buffer.wait(Access::read, passed()); },
                            [](auto& waited) { return refused(waited, Errc::timed_out); });
         }},
        {"DmaBuf::wait for work that fails",
         [] {
             auto my = doomed_scene();
             return attempt([=] { return my->buffer.wait(Access::read, far()); },
                            [=, tried = false](auto& waited) mutable {
                                // The kernel tells it to who waits meanwhile, and only where it
                                // gives out fences.
                                const bool untold = injected(ENOTTY) || tried;
                                tried = true;
                                return state_of(my->pending) == FenceState::failed &&
                                       ((refused(waited, Errc::fence_failed) &&
                                         waited.error().sys_errno == ENOENT) ||
                                        (waited && untold));
                            });
         }},
        {"DmaBuf::wait on a kernel that exports no fences",
         [] {
             auto my = busy_scene();
             probe::set_export_fence(false);
             return attempt([=] { return my->buffer.wait(Access::read, far()); },
                            [=](auto& waited) {
                                return waited && state_of(my->pending) == FenceState::signalled;
                            });
         }},
    };
}

std::vector<Operation> fence_operations() {
    return {
        {"SyncFile::from_fd",
         [] {
             struct My {
                 SyncFile fence = Scene::signalled();
                 UniqueFd fd = again(fence.fd());
             };
             auto my = std::make_shared<My>();
             return attempt([=] { return SyncFile::from_fd(std::move(my->fd)); },
                            [=](auto& made) {
                                if (!made)
                                    return false;
                                my->fd = again(made->fd()); // for the next attempt
                                return state_of(*made) == FenceState::signalled;
                            });
         }},
        {"SyncFile::from_fd of a buffer",
         [] {
             struct My {
                 DmaBuf buffer = udmabuf(4096);
                 UniqueFd fd = again(buffer.fd());
             };
             auto my = std::make_shared<My>();
             return attempt([=] { return SyncFile::from_fd(std::move(my->fd)); },
                            [=](auto& made) {
                                return refused(made, Errc::wrong_object) &&
                                       made.error().sys_errno == ENOTTY && my->fd;
                            });
         }},
        {"SyncFile::duplicate",
         [] {
             auto my = std::make_shared<Scene>();
             return attempt([=] { return my->pending.duplicate(); },
                            [=](auto& copy) {
                                my->timeline.advance(1);
                                return copy && copy->fd() != my->pending.fd() &&
                                       state_of(*copy) == FenceState::signalled;
                            });
         }},
        {"SyncFile::status of a pending fence",
         [] {
             auto my = std::make_shared<Scene>();
             return attempt(
                 [=] { return my->pending.status(); },
                 [](auto& status) { return status && status->state == FenceState::pending; });
         }},
        {"SyncFile::status of a signalled fence",
         [] {
             auto my = std::make_shared<SyncFile>(Scene::signalled());
             return attempt(
                 [=] { return my->status(); },
                 [](auto& status) { return status && status->state == FenceState::signalled; });
         }},
        {"SyncFile::status of a failed fence",
         [] {
             auto my = std::make_shared<SyncFile>(Scene::failed());
             return attempt([=] { return my->status(); },
                            [](auto& status) {
                                return status && status->state == FenceState::failed &&
                                       status->error == ENOENT;
                            });
         }},
        {"SyncFile::fences of a merged fence",
         [] {
             struct My : Scene {
                 SyncFile merged = std::move(*SyncFile::merge(pending, later));
             };
             auto my = std::make_shared<My>();
             return attempt([=] { return my->merged.fences(); },
                            [](auto& fences) {
                                return fences && fences->size() == 2 &&
                                       std::ranges::all_of(*fences, [](const FenceInfo& fence) {
                                           return fence.driver == "sw_sync" &&
                                                  fence.status.state == FenceState::pending;
                                       });
                            });
         }},
        {"SyncFile::status of twelve merged fences",
         [] {
             struct My {
                 std::array<SwSync, 12> timelines;
                 std::vector<SyncFile> fences;
                 SyncFile merged = SyncFile::signalled();
             };
             auto my = std::make_shared<My>();
             for (const SwSync& timeline : my->timelines)
                 my->fences.push_back(timeline.fence(1));
             my->merged = std::move(*SyncFile::merge(my->fences));
             my->timelines.back().close();
             for (std::size_t i = 0; i + 1 < my->timelines.size(); ++i)
                 my->timelines[i].advance(1);
             return attempt(
                 [=] { return my->merged.status(); },
                 [](auto& status) { return status && status->state == FenceState::failed; });
         }},
        {"SyncFile::merge of two",
         [] {
             auto my = std::make_shared<Scene>();
             return attempt([=] { return SyncFile::merge(my->pending, my->later); },
                            [=](auto& merged) {
                                return merged && state_of(*merged) == FenceState::pending &&
                                       merged->fences()->size() == 2;
                            });
         }},
        {"SyncFile::merge of three",
         [] {
             struct My {
                 std::array<SwSync, 3> timelines;
                 std::array<SyncFile, 3> fences = {timelines[0].fence(1), timelines[1].fence(1),
                                                   timelines[2].fence(1)};
             };
             auto my = std::make_shared<My>();
             return attempt([=] { return SyncFile::merge(my->fences); },
                            [](auto& merged) { return merged && merged->fences()->size() == 3; });
         }},
        {"SyncFile::merge of a signalled and a pending one",
         [] {
             struct My {
                 SwSync timeline;
                 std::array<SyncFile, 2> fences = {Scene::signalled(), timeline.fence(1)};
             };
             auto my = std::make_shared<My>();
             return attempt(
                 [=] { return SyncFile::merge(my->fences); },
                 [](auto& merged) { return merged && state_of(*merged) == FenceState::pending; });
         }},
        {"SyncFile::merge of signalled ones",
         [] {
             struct My {
                 SyncFile a = Scene::signalled();
                 SyncFile b = Scene::signalled();
             };
             auto my = std::make_shared<My>();
             return attempt([=] { return SyncFile::merge(my->a, my->b); },
                            [](auto& merged) { return merged && merged->fd() < 0; });
         }},
        {"SyncFile::merge of one",
         [] {
             auto my = std::make_shared<Scene>();
             return attempt([=] { return SyncFile::merge(std::span(&my->pending, 1)); },
                            [](auto& merged) {
                                return merged && merged->fd() >= 0 &&
                                       state_of(*merged) == FenceState::pending;
                            });
         }},
        {"SyncFile::merge with a failed one",
         [] {
             struct My {
                 SwSync timeline;
                 SyncFile a = timeline.fence(1);
                 SyncFile b = Scene::failed();
             };
             auto my = std::make_shared<My>();
             return attempt([=] { return SyncFile::merge(my->a, my->b); },
                            [](auto& merged) {
                                return refused(merged, Errc::fence_failed) &&
                                       merged.error().sys_errno == ENOENT;
                            });
         }},
        {"SyncFile::wait for a signalled fence",
         [] {
             auto my = std::make_shared<SyncFile>(Scene::signalled());
             return attempt([=] { return my->wait(far()); },
                            [](auto& waited) { return waited.has_value(); });
         }},
        {"SyncFile::wait until it signals",
         [] {
             auto my = busy_scene();
             return attempt([=] { return my->pending.wait(far()); },
                            [=](auto& waited) {
                                return waited && state_of(my->pending) == FenceState::signalled;
                            });
         }},
        {"SyncFile::wait until it fails",
         [] {
             auto my = doomed_scene();
             return attempt([=] { return my->pending.wait(far()); },
                            [](auto& waited) {
                                return refused(waited, Errc::fence_failed) &&
                                       waited.error().sys_errno == ENOENT;
                            });
         }},
        {"SyncFile::wait with its deadline passed",
         [] {
             auto my = std::make_shared<Scene>();
             return attempt([=] { return my->pending.wait(passed()); },
                            [](auto& waited) { return refused(waited, Errc::timed_out); });
         }},
        {"SyncFile::hint_deadline",
         [] {
             auto my = std::make_shared<Scene>();
             return attempt([=] { return my->pending.hint_deadline(far()); },
                            [](auto& hinted) { return hinted.has_value(); });
         }},
    };
}

std::vector<Operation> implicit_sync_operations() {
    return {
        {"implicit_sync_caps",
         [] {
             auto my = std::make_shared<Scene>();
             return attempt([=] { return implicit_sync_caps(my->buffer); },
                            [](auto& caps) {
                                return caps && ((caps->export_fence && caps->import_fence) ||
                                                injected(ENOTTY));
                            });
         }},
        {"fence_before",
         [] {
             auto my = busy_scene();
             return attempt([=] { return fence_before(my->buffer, Access::read); },
                            [](auto& fence) {
                                return fence &&
                                       (fence->sync_file() == nullptr) ==
                                           (probe::export_fence() == probe::Known::absent) &&
                                       refused(fence->wait(passed()), Errc::timed_out);
                            });
         }},
        {"fence_before on a kernel that exports no fences",
         [] {
             auto my = busy_scene();
             probe::set_export_fence(false);
             return attempt([=] { return fence_before(my->buffer, Access::read); },
                            [](auto& fence) {
                                return fence && fence->sync_file() == nullptr &&
                                       refused(fence->wait(passed()), Errc::timed_out);
                            });
         }},
        {"ImplicitFence::wait",
         [] {
             auto my = busy_scene();
             auto fence = std::make_shared<ImplicitFence>(*fence_before(my->buffer, Access::read));
             return attempt([=] { return fence->wait(far()); },
                            [=](auto& waited) {
                                return waited && state_of(my->pending) == FenceState::signalled;
                            });
         }},
        {"ImplicitFence::wait on a kernel that exports no fences",
         [] {
             auto my = busy_scene();
             probe::set_export_fence(false);
             auto fence = std::make_shared<ImplicitFence>(*fence_before(my->buffer, Access::read));
             return attempt([=] { return fence->wait(far()); },
                            [=](auto& waited) {
                                return waited && state_of(my->pending) == FenceState::signalled;
                            });
         }},
        {"fence_after",
         [] {
             auto my = std::make_shared<Scene>();
             boundary::before_sleep([my] { my->timeline.advance(1); });
             return attempt(
                 [=] { return fence_after(my->buffer, my->pending, Access::write, far()); },
                 [=](auto& after) {
                     return after &&
                            (state_of(my->pending) == FenceState::signalled) ==
                                (probe::import_fence() == probe::Known::absent) &&
                            state_of(my->buffer, Access::read) == state_of(my->pending);
                 });
         }},
        {"fence_after on a kernel that imports no fences",
         [] {
             auto my = std::make_shared<Scene>();
             boundary::before_sleep([my] { my->timeline.advance(1); });
             probe::set_import_fence(false);
             return attempt(
                 [=] { return fence_after(my->buffer, my->pending, Access::write, far()); },
                 [=](auto& after) {
                     return after && state_of(my->pending) == FenceState::signalled;
                 });
         }},
    };
}

std::vector<Operation> lock_operations() {
    return {
        {"BufferLock::acquire of two",
         [] {
             struct My {
                 DmaBuf a = udmabuf(4096);
                 DmaBuf b = udmabuf(4096);
             };
             auto my = std::make_shared<My>();
             return attempt(
                 [=]() -> Result<void> {
                     const std::array both{&my->a, &my->b};
                     auto lock = BufferLock::acquire(both, passed());
                     if (!lock)
                         return tl::unexpected(lock.error());
                     return {};
                 },
                 [](auto& locked) { return locked.has_value(); });
         }},
        {"BufferLock::acquire of one that is held",
         [] {
             auto my = std::make_shared<Scene>();
             return attempt(
                 [=] {
                     auto first = BufferLock::acquire(my->buffer, passed());
                     return BufferLock::acquire(my->buffer, far());
                 },
                 [](auto& locked) { return refused(locked, Errc::busy); });
         }},
    };
}

/// Up to four buffers and their mappings: a frame's planes.
struct Planes {
    Planes(std::size_t count, Access access, CpuMapMode mode, DmaBuf (*make)(std::uint64_t)) {
        for (std::size_t i = 0; i < count; ++i) {
            buffers.push_back(make(4096));
            maps.push_back(std::move(*CpuMap::map(buffers.back(), access, mode)));
        }
    }

    std::vector<DmaBuf> buffers;
    std::vector<CpuMap> maps;
    std::optional<CpuAccess> open;
};

std::shared_ptr<Planes> planes(std::size_t count, Access access,
                               CpuMapMode mode = CpuMapMode::quick,
                               DmaBuf (*make)(std::uint64_t) = udmabuf) {
    return std::make_shared<Planes>(count, access, mode, make);
}

/// Writes and reads each plane through \p access, and ends it.
bool usable(Result<CpuAccess>& access, const Planes& planes) {
    if (!access)
        return false;
    for (std::size_t i = 0; i < planes.maps.size(); ++i) {
        const auto bytes = access->bytes(i);
        if (bytes.size() != 4096)
            return false;
        bytes[i] = std::byte{42};
        if (bytes[i] != std::byte{42})
            return false;
    }
    return access->end().has_value() && access->bytes().empty();
}

Result<void> logged_or_nothing() {
    auto errors = take_logged();
    if (errors.empty())
        return {};
    return tl::unexpected(std::move(errors.front()));
}

Attempt begin_and_use(const std::shared_ptr<Planes>& my) {
    return attempt([=] { return CpuAccess::begin(my->maps, Access::read_write, far()); },
                   [=](auto& access) { return usable(access, *my); });
}

/// An access that was begun, and is ended by what \p end does.
template <typename End> Attempt end_by(const std::shared_ptr<Planes>& my, End end) {
    my->open = std::move(*CpuAccess::begin(my->maps, Access::write, far()));
    return attempt([=] { return end(*my); },
                   [=](auto& ended) { return ended && (!my->open || my->open->bytes().empty()); });
}

std::vector<Operation> map_operations() {
    return {
        {"CpuMap::map",
         [] {
             auto my = std::make_shared<Scene>();
             return attempt(
                 [=] { return CpuMap::map(my->buffer, Access::read_write, CpuMapMode::quick); },
                 [](auto& map) { return map && map->size() == 4096; });
         }},
        {"CpuMap::map to read, strictly",
         [] {
             auto my = std::make_shared<Scene>();
             return attempt(
                 [=] { return CpuMap::map(my->buffer, Access::read, CpuMapMode::strict); },
                 [](auto& map) {
                     return map && map->size() == 4096 &&
                            CpuAccess::begin(*map, Access::read, far())->bytes()[0] == std::byte{0};
                 });
         }},
        {"CpuMap::map of what is mapped",
         [] {
             auto my = planes(1, Access::write);
             return attempt(
                 [=] { return CpuMap::map(my->buffers[0], Access::read, CpuMapMode::quick); },
                 [=](auto& map) { return map && *map == my->maps[0]; });
         }},
        {"the last CpuMap dropped",
         [] {
             auto my = planes(1, Access::write);
             return attempt(
                 [=]() -> Result<void> {
                     my->maps.clear();
                     return {};
                 },
                 [](auto&) { return true; });
         }},
        {"CpuMap::map of a heap's buffer",
         [] {
             auto my = std::make_shared<DmaBuf>(heap_buffer(4096));
             return attempt([=] { return CpuMap::map(*my, Access::read_write, CpuMapMode::quick); },
                            [](auto& map) { return map && map->size() == 4096; });
         },
         true},
    };
}

std::vector<Operation> access_operations() {
    return {
        {"CpuAccess::begin", [] { return begin_and_use(planes(1, Access::read_write)); }},
        {"CpuAccess::begin, strictly",
         [] { return begin_and_use(planes(1, Access::read_write, CpuMapMode::strict)); }},
        {"CpuAccess::begin over four planes",
         [] { return begin_and_use(planes(4, Access::read_write)); }},
        {"CpuAccess::begin over three planes, strictly",
         [] { return begin_and_use(planes(3, Access::read_write, CpuMapMode::strict)); }},
        {"CpuAccess::begin over two planes in one buffer",
         [] {
             auto my = planes(1, Access::read_write, CpuMapMode::strict);
             my->maps.push_back(my->maps[0]);
             return begin_and_use(my);
         }},
        {"CpuAccess::begin over a heap's buffers",
         [] {
             return begin_and_use(planes(2, Access::read_write, CpuMapMode::quick, heap_buffer));
         },
         true},
        {"CpuAccess::begin once work is done",
         [] {
             struct My : Planes {
                 My() : Planes(2, Access::read_write, CpuMapMode::quick, udmabuf) {
                     EXPECT_TRUE(buffers[1].import_fence(timeline.fence(1), Access::write));
                 }
                 SwSync timeline;
             };
             auto my = std::make_shared<My>();
             boundary::before_sleep([my] { my->timeline.advance(1); });
             return begin_and_use(my);
         }},
        {"CpuAccess::begin with its deadline passed",
         [] {
             struct My : Planes {
                 My() : Planes(2, Access::read_write, CpuMapMode::quick, udmabuf) {
                     EXPECT_TRUE(buffers[1].import_fence(timeline.fence(1), Access::write));
                 }
                 SwSync timeline;
             };
             auto my = std::make_shared<My>();
             return attempt([=] { return CpuAccess::begin(my->maps, Access::write, passed()); },
                            [](auto& access) { return refused(access, Errc::timed_out); });
         }},
        {"CpuAccess::begin to write what was mapped to read",
         [] {
             auto my = planes(1, Access::read);
             return attempt([=] { return CpuAccess::begin(my->maps, Access::write, far()); },
                            [](auto& access) { return refused(access, Errc::invalid_argument); });
         }},
        {"CpuAccess::end",
         [] {
             return end_by(planes(1, Access::write), [](Planes& my) { return my.open->end(); });
         }},
        {"CpuAccess::end of four planes, strictly",
         [] {
             return end_by(planes(4, Access::write, CpuMapMode::strict),
                           [](Planes& my) { return my.open->end(); });
         }},
        {"an access dropped",
         [] {
             return end_by(planes(2, Access::write), [](Planes& my) {
                 my.open.reset();
                 return logged_or_nothing();
             });
         }},
        {"an access assigned to",
         [] {
             auto my = planes(1, Access::write);
             auto other = planes(1, Access::write);
             other->open = std::move(*CpuAccess::begin(other->maps, Access::write, far()));
             return end_by(my, [=](Planes& planes) {
                 if (!planes.open || !other->open)
                     return Result<void>();
                 *planes.open = std::move(*other->open);
                 planes.open.reset();
                 return logged_or_nothing();
             });
         }},
    };
}

} // namespace

std::vector<Operation> core_operations() {
    std::vector<Operation> all;
    for (auto* table :
         {fd_operations, buffer_operations, fence_operations, implicit_sync_operations,
          lock_operations, map_operations, access_operations})
        for (Operation& operation : table())
            all.push_back(std::move(operation));
    return all;
}

} // namespace sluice::test
