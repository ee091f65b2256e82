// SPDX-License-Identifier: MIT
/// \file
/// Each operation of the core beside the system calls that do the same (by_hand.hpp).
///
/// The first row is one function beside itself: what it is off 1 by is what this machine cannot
/// tell.
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include <sluice/buffer_lock.hpp>
#include <sluice/cpu_access.hpp>
#include <sluice/cpu_map.hpp>
#include <sluice/implicit_sync.hpp>

#include "by_hand.hpp"
#include "kernel_objects.hpp"
#include "side_by_side.hpp"

namespace {

using bench::Clock;
using bench::hot_path_goal;
using bench::left_out;
using bench::SideBySide;
using sluice::Access;
using sluice::CpuAccess;
using sluice::CpuMap;
using sluice::Deadline;
using sluice::DmaBuf;
using sluice::SyncFile;

constexpr std::uint64_t frame_size = std::uint64_t{1024} * 768 * 4;

constexpr std::uint32_t bits(Access access) noexcept {
    return static_cast<std::uint32_t>(access);
}

/// Later than any row. Finding the deadline is the program's business, and no part of a row.
const Deadline later = Clock::now() + std::chrono::hours(24);
const by_hand::Nanoseconds later_by_hand =
    std::chrono::nanoseconds(later.time_since_epoch()).count();

/// What a row gets of by_hand: a fd that it closes again.
bool closed(int fd) noexcept {
    if (fd < 0)
        return false;
    const sluice::UniqueFd owner(std::move(fd));
    return true;
}

void add_fences(SideBySide& rows, const DmaBuf& buffer, const SyncFile& fence,
                const std::string& how) {
    const int buffer_fd = buffer.fd();
    const int fence_fd = fence.fd();
    rows.add(
        {.name = "export_fence, " + how, .goal = hot_path_goal},
        [&buffer] { return bool(buffer.export_fence(Access::read_write)); },
        [=] { return closed(by_hand::export_fence(buffer_fd, bits(Access::read_write))); });
    rows.add(
        {.name = "import_fence, " + how, .goal = hot_path_goal},
        [&buffer, &fence] { return bool(buffer.import_fence(fence, Access::write)); },
        [=] { return by_hand::import_fence(buffer_fd, fence_fd, bits(Access::write)) == 0; });
    rows.add(
        {.name = "fence_before, " + how, .goal = hot_path_goal},
        [&buffer] { return bool(fence_before(buffer, Access::read_write)); },
        [=] { return closed(by_hand::fence_before(buffer_fd, bits(Access::read_write))); });
    rows.add(
        {.name = "fence_after, " + how, .goal = hot_path_goal},
        [&buffer, &fence] { return bool(fence_after(buffer, fence, Access::write, later)); },
        [=] {
            return by_hand::fence_after(buffer_fd, fence_fd, bits(Access::write), later_by_hand) ==
                   0;
        });
}

void add_waits(SideBySide& rows, const DmaBuf& buffer, const SyncFile& signalled) {
    const int buffer_fd = buffer.fd();
    const int fence_fd = signalled.fd();
    rows.add(
        {.name = "DmaBuf::wait, idle", .goal = hot_path_goal},
        [&buffer] { return bool(buffer.wait(Access::read_write, later)); },
        [=] { return by_hand::wait(buffer_fd, bits(Access::read_write), later_by_hand) == 0; });
    rows.add(
        {.name = "SyncFile::wait, signalled", .goal = hot_path_goal},
        [&signalled] { return bool(signalled.wait(later)); },
        [=] { return by_hand::fence_wait(fence_fd, later_by_hand) == 0; });
    rows.add(
        {.name = "SyncFile::status, signalled"},
        [&signalled] {
            const auto status = signalled.status();
            return status && status->state == sluice::FenceState::signalled;
        },
        [=] { return by_hand::fence_status(fence_fd) == 1; });
}

void add_access(SideBySide& rows, const DmaBuf& buffer, const CpuMap& map, const std::string& how) {
    for (const Access access : {Access::read, Access::read_write})
        rows.add(
            {.name = "begin + end, " + std::string(to_string(access)) + ", " + how,
             .goal = hot_path_goal},
            [&map, access] {
                auto opened = CpuAccess::begin(map, access, later);
                return opened && opened->end();
            },
            [fd = buffer.fd(), access] {
                return by_hand::begin_access(fd, bits(access), later_by_hand) == 0 &&
                       by_hand::end_access(fd, bits(access)) == 0;
            });
}

void add_handles(SideBySide& rows, const DmaBuf& buffer) {
    const int fd = buffer.fd();
    rows.add(
        {.name = "from_borrowed_fd"}, [fd] { return bool(DmaBuf::from_borrowed_fd(fd)); },
        [fd] {
            by_hand::Identity identity{};
            const bool adopted = closed(by_hand::adopt(fd, identity));
            benchmark::DoNotOptimize(identity);
            return adopted;
        });
    rows.add(
        {.name = "duplicate"}, [&buffer] { return bool(buffer.duplicate()); },
        [fd] { return closed(by_hand::duplicate(fd)); });
}

/// \p buffer is mapped by nobody else, or sluice would only find that mapping again.
void add_mapping(SideBySide& rows, const DmaBuf& buffer, const std::string& how) {
    rows.add(
        {.name = "CpuMap::map + unmap, " + how},
        [&buffer] { return bool(CpuMap::map(buffer, Access::read_write)); },
        [fd = buffer.fd(), size = static_cast<std::size_t>(buffer.size())] {
            by_hand::Mapping mapping{};
            if (by_hand::map(fd, size, mapping) != 0)
                return false;
            by_hand::unmap(mapping);
            return true;
        });
}

void add_lock(SideBySide& rows, const DmaBuf& buffer, std::mutex& mutex) {
    rows.add(
        {.name = "BufferLock; std::mutex"},
        [&buffer] { return bool(sluice::BufferLock::acquire(buffer, later)); },
        [&mutex] {
            const std::scoped_lock held(mutex);
            benchmark::ClobberMemory();
            return true;
        });
}

} // namespace

int main(int argc, char** argv) {
    bench::Options options;
    if (const int status = bench::parse(argc, argv, "sluice_core_bench", options); status >= 0)
        return status;
    bench::stay_on_this_cpu();
    unsetenv("SLUICE_STRICT"); // the checks of strict mappings are not for every frame

    // Each row needs its buffer in a state of its own.
    const auto udmabuf = bench::udmabuf(frame_size);
    const auto heap = bench::heap_buffer(frame_size);
    const DmaBuf* idle = udmabuf ? &*udmabuf : heap ? &*heap : nullptr;
    if (idle == nullptr)
        return left_out("everything", "neither /dev/udmabuf nor /dev/dma_heap/system gives buffers")
                   ? 0
                   : 1;
    const auto fenced = udmabuf ? bench::udmabuf(frame_size) : bench::heap_buffer(frame_size);
    const auto unmapped_udmabuf = bench::udmabuf(frame_size);
    const auto unmapped_heap = bench::heap_buffer(frame_size);
    const auto signalled = idle->export_fence(Access::read_write);
    if (!fenced || !signalled)
        return left_out("everything", "the kernel exports no fences from buffers (6.0 does)") ? 0
                                                                                              : 1;
    const auto one = bench::pending_fence();
    const auto two = bench::pending_fence();
    bool complete = true;

    SideBySide rows(options);
    std::mutex mutex;
    const int idle_fd = idle->fd();
    const auto wait_by_hand = [idle_fd] {
        return by_hand::wait(idle_fd, bits(Access::read_write), later_by_hand) == 0;
    };
    rows.add({.name = "(by hand beside itself)"}, wait_by_hand, wait_by_hand);
    add_fences(rows, *idle, *signalled, "signalled");
    if (one && two && fenced->import_fence(*one, Access::write)) {
        add_fences(rows, *fenced, *one, "pending");
        rows.add(
            {.name = "SyncFile::merge, two pending"},
            [&] { return bool(SyncFile::merge(*one, *two)); },
            [a = one->fd(), b = two->fd()] { return closed(by_hand::merge(a, b)); });
    } else {
        complete = left_out("pending fences", "there is no sw_sync in debugfs (it takes root)");
    }
    add_waits(rows, *idle, *signalled);
    std::vector<CpuMap> maps;
    maps.reserve(2); // the rows borrow them
    const auto add_exporter = [&](const auto& mapped, const auto& unmapped, const char* name) {
        auto map = mapped ? CpuMap::map(*mapped, Access::read_write)
                          : sluice::Result<CpuMap>(tl::unexpected(sluice::Error{}));
        if (!map || !unmapped) {
            complete = left_out(name, "it gives no buffers that the CPU can map") && complete;
            return;
        }
        maps.push_back(std::move(*map));
        add_access(rows, *mapped, maps.back(), name);
        add_mapping(rows, *unmapped, name);
    };
    add_exporter(udmabuf, unmapped_udmabuf, "udmabuf");
    add_exporter(heap, unmapped_heap, "dma-heap");
    add_handles(rows, *idle);
    add_lock(rows, *idle, mutex);

    return rows.run(argv[0], complete);
}
