// SPDX-License-Identifier: MIT
#include <sluice/buffer_lock.hpp>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/dma_buf_text.hpp"

namespace sluice {

namespace {

struct Held {
    std::uint64_t inode;
    std::uint64_t holder;
    std::thread::id thread;
};

/// The buffers that are held in this process. Few at a time, so a list that is looked through.
struct Table {
    std::mutex lock;
    std::condition_variable released;
    std::vector<Held> held;
    std::uint64_t last_holder = 0;
    unsigned waiting = 0;

    [[nodiscard]] const Held* find(const DmaBuf& buffer) const {
        const auto found = std::ranges::find(held, buffer.inode(), &Held::inode);
        return found == held.end() ? nullptr : &*found;
    }
};

/// Never destroyed: other static objects may let their buffers go after it would have been.
Table& table() {
    static Table& only = *new Table;
    return only;
}

} // namespace

Result<BufferLock> BufferLock::acquire(std::span<const DmaBuf* const> buffers,
                                       Deadline deadline) noexcept {
    constexpr const char* operation = "BufferLock::acquire";
    for (const DmaBuf* buffer : buffers)
        if (buffer->fd() < 0)
            return tl::unexpected(moved_from(operation));
    Table& all = table();
    std::unique_lock guard(all.lock);
    const auto self = std::this_thread::get_id();
    for (;;) {
        const DmaBuf* taken = nullptr;
        for (const DmaBuf* buffer : buffers) {
            const Held* by = all.find(*buffer);
            if (by == nullptr)
                continue;
            if (by->thread == self)
                return tl::unexpected(
                    Error{.code = Errc::busy,
                          .operation = operation,
                          .object = describe(*buffer),
                          .problem = "this thread holds it already",
                          .remedy = "Release that lock first, or take all buffers in one lock"});
            taken = buffer;
        }
        if (taken == nullptr)
            break;
        if (Deadline::clock::now() >= deadline)
            return tl::unexpected(
                Error{.code = Errc::timed_out,
                      .operation = operation,
                      .object = describe(*taken),
                      .problem = "another thread still held it at the deadline",
                      .remedy = "Allow more time; hold locks over export, submit and import only"});
        ++all.waiting;
        all.released.wait_until(guard, deadline);
        --all.waiting;
    }
    const std::uint64_t holder = ++all.last_holder;
    for (const DmaBuf* buffer : buffers)
        all.held.push_back({.inode = buffer->inode(), .holder = holder, .thread = self});
    return BufferLock(holder);
}

Result<BufferLock> BufferLock::acquire(const DmaBuf& buffer, Deadline deadline) noexcept {
    const std::array one{&buffer};
    return acquire(one, deadline);
}

void BufferLock::release() noexcept {
    if (holder_ == 0)
        return;
    Table& all = table();
    bool wake = false;
    {
        const std::scoped_lock guard(all.lock);
        std::erase_if(all.held, [this](const Held& each) { return each.holder == holder_; });
        wake = all.waiting > 0;
    }
    holder_ = 0;
    if (wake)
        all.released.notify_all();
}

} // namespace sluice
