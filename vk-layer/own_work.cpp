// SPDX-License-Identifier: MIT
#include "own_work.hpp"

#include <algorithm>
#include <mutex>

namespace sluice::layer {

namespace {

// All that follows, and what each device has.
constinit std::mutex lock;
constinit std::uint64_t all_submissions = 0;
constinit OwnWork* first = nullptr;

} // namespace

OwnWork::OwnWork() noexcept {
    const std::scoped_lock held(lock);
    next_ = first;
    if (next_ != nullptr)
        next_->before_ = this;
    first = this;
}

OwnWork::~OwnWork() {
    const std::scoped_lock held(lock);
    (before_ != nullptr ? before_->next_ : first) = next_;
    if (next_ != nullptr)
        next_->before_ = before_;
}

void OwnWork::submits() noexcept {
    const std::scoped_lock held(lock);
    last_ = ++all_submissions;
}

void OwnWork::submits_late() noexcept {
    const std::scoped_lock held(lock);
    late_ = true;
}

void OwnWork::settled(std::uint64_t submissions) noexcept {
    const std::scoped_lock held(lock);
    settled_ = std::max(settled_, submissions);
}

std::uint64_t OwnWork::submissions() noexcept {
    const std::scoped_lock held(lock);
    return all_submissions;
}

OwnWork::Since OwnWork::since(std::uint64_t idle, std::uint64_t own) const noexcept {
    const std::scoped_lock held(lock);
    Since found{.submissions = all_submissions, .none = true};
    for (const OwnWork* each = first; each != nullptr; each = each->next_) {
        const std::uint64_t done = std::max({idle, each->settled_, each == this ? own : 0});
        found.none = found.none && !each->late_ && each->last_ <= done;
    }
    return found;
}

} // namespace sluice::layer
