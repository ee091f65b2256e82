// SPDX-License-Identifier: MIT
#include "vulkan/vulkan_attachment_cache.hpp"

#include <algorithm>
#include <span>

#include "frame/frame_use.hpp"

namespace sluice {

namespace {

std::uint64_t hash_of(const Frame& frame, const VulkanAttachmentKey& key) noexcept {
    // What differs between the attachments that a process has: buffers, parts of one, ways to use
    // them. The rest is compared.
    std::uint64_t hash = frame.buffers()[0].inode();
    hash = hash * 0x9e3779b97f4a7c15 + frame.layout().planes[0].offset;
    hash = hash * 0x9e3779b97f4a7c15 + key.part;
    hash = hash * 0x9e3779b97f4a7c15 + key.usage + static_cast<unsigned>(key.kind);
    return hash ^ (hash >> 32);
}

/// Whether an attachment of \p a serves for \p b.
bool alike(const Frame& a, const Frame& b) noexcept {
    return a == b ||
           (a.layout() == b.layout() && std::ranges::equal(a.buffers(), b.buffers(), same_buffer));
}

bool share_a_buffer(const Frame& a, const Frame& b) noexcept {
    return std::ranges::any_of(a.buffers(), [&b](const DmaBuf& one) {
        return std::ranges::any_of(b.buffers(),
                                   [&one](const DmaBuf& other) { return same_buffer(one, other); });
    });
}

/// Whether nobody but the cache holds it, and nobody but attachments its frame.
bool idle(const VulkanAttachmentCache::State& state) noexcept {
    return state.use_count() == 1 && !FrameUse::held(state->frame);
}

} // namespace

VulkanAttachmentCache::Entry* VulkanAttachmentCache::look_up(std::uint64_t hash, const Frame& frame,
                                                             const VulkanAttachmentKey& key) {
    const auto [first, last] = by_hash_.equal_range(hash);
    for (auto each = first; each != last; ++each)
        if (each->second->key == key && alike(each->second->state->frame, frame))
            return &*each->second;
    return nullptr;
}

VulkanAttachmentCache::State
VulkanAttachmentCache::find(const Frame& frame, const VulkanAttachmentKey& key, Lookup lookup) {
    const std::uint64_t hash = hash_of(frame, key);
    Dropped dropped;
    const std::scoped_lock held(lock_);
    if (lookup == Lookup::of_a_new_call)
        ++calls_;
    Entry* entry = look_up(hash, frame, key);
    if (entry != nullptr)
        entry->last_use = calls_;
    State found = entry == nullptr ? nullptr : entry->state;
    // A look at others costs more than finding this one: now and then will do.
    if (lookup == Lookup::of_a_new_call && calls_ % 8 == 0)
        sweep(dropped);
    return found;
}

VulkanAttachmentCache::State VulkanAttachmentCache::insert(const VulkanAttachmentKey& key,
                                                           State made) {
    const std::uint64_t hash = hash_of(made->frame, key);
    Dropped dropped;
    const std::scoped_lock held(lock_);
    if (const Entry* other = look_up(hash, made->frame, key))
        return other->state;
    entries_.push_back({.hash = hash, .key = key, .state = made, .last_use = calls_});
    by_hash_.emplace(hash, std::prev(entries_.end()));
    // Two for each that comes, so that they cannot pile up.
    sweep(dropped);
    sweep(dropped);
    return made;
}

void VulkanAttachmentCache::drop(const Frame& frame) {
    Dropped dropped;
    const std::scoped_lock held(lock_);
    for (auto each = entries_.begin(); each != entries_.end();)
        each = share_a_buffer(each->state->frame, frame) ? erase(each, dropped) : std::next(each);
}

void VulkanAttachmentCache::drop_idle() {
    Dropped dropped;
    const std::scoped_lock held(lock_);
    for (auto each = entries_.begin(); each != entries_.end();)
        each = idle(each->state) ? erase(each, dropped) : std::next(each);
}

VulkanAttachmentCache::Entries::iterator VulkanAttachmentCache::erase(Entries::iterator entry,
                                                                      Dropped& dropped) {
    const auto [first, last] = by_hash_.equal_range(entry->hash);
    by_hash_.erase(
        std::find_if(first, last, [entry](const auto& each) { return each.second == entry; }));
    dropped.push_back(std::move(entry->state));
    if (hand_ == entry)
        ++hand_;
    return entries_.erase(entry);
}

void VulkanAttachmentCache::sweep(Dropped& dropped) {
    if (hand_ == entries_.end())
        hand_ = entries_.begin();
    if (hand_ == entries_.end())
        return;
    const auto entry = hand_++;
    if (calls_ - entry->last_use > patience_ && idle(entry->state))
        (void)erase(entry, dropped);
}

} // namespace sluice
