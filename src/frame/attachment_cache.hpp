// SPDX-License-Identifier: MIT
/// \file
/// Attachments by the buffers that they are of, so that a pool of buffers is imported once. Not
/// installed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "frame/frame_use.hpp"

namespace sluice {

/// Whether an attachment of \p a serves for \p b: the same buffers, by identity, laid out alike.
[[nodiscard]] bool alike(const Frame& a, const Frame& b) noexcept;

/// Whether some buffer is in both.
[[nodiscard]] bool share_a_buffer(const Frame& a, const Frame& b) noexcept;

/// One number of what differs between the frames that a process has: buffers, and parts of them.
[[nodiscard]] std::uint64_t hash_of(const Frame& frame) noexcept;

/// \p hash with \p more in it.
[[nodiscard]] constexpr std::uint64_t mix(std::uint64_t hash, std::uint64_t more) noexcept {
    hash = hash * 0x9e3779b97f4a7c15 + more;
    return hash ^ (hash >> 32);
}

/// Finds the attachment of a frame, or of another frame of the same buffers and layout: a peer may
/// send the same buffer with a new fd each time.
///
/// An attachment stays for as long as somebody holds its frame or itself. One that nobody holds
/// stays for a number of further calls, in case its buffers come back.
///
/// \tparam Attachment has the `frame` that was attached. While it is held, its buffers' inodes name
///   no other buffer. Its constructor calls `FrameUse::attached`, its destructor `detached`.
/// \tparam Key what else tells one attachment of a frame from another: compared with ==, and
///   `hash()` gives a number of it.
///
/// Threads: any. Attachments that are dropped are destroyed without the lock.
template <typename Attachment, typename Key> class AttachmentCache {
public:
    using Pointer = std::shared_ptr<const Attachment>;
    /// Whether a lookup counts as a call: the first of a caller that needs several does.
    enum class Lookup : bool { of_a_new_call, of_the_same_call };

    /// \param patience the calls that an attachment stays for once nobody holds it.
    explicit AttachmentCache(std::uint32_t patience) noexcept : patience_(patience) {}
    AttachmentCache(const AttachmentCache&) = delete;
    AttachmentCache& operator=(const AttachmentCache&) = delete;
    ~AttachmentCache() = default;

    /// \returns the attachment, or null.
    [[nodiscard]] Pointer find(const Frame& frame, const Key& key,
                               Lookup lookup = Lookup::of_a_new_call) {
        const std::uint64_t hash = mix(hash_of(frame), key.hash());
        Pointer swept; // destroyed without the lock
        const std::scoped_lock held(lock_);
        if (lookup == Lookup::of_a_new_call)
            ++calls_;
        Entry* entry = look_up(hash, frame, key);
        if (entry != nullptr)
            entry->last_use = calls_;
        Pointer found = entry == nullptr ? nullptr : entry->attachment;
        // A look at others costs more than finding this one: now and then will do.
        if (lookup == Lookup::of_a_new_call && calls_ % 8 == 0)
            swept = sweep();
        return found;
    }

    /// \returns \p made, or the one that another thread has put in meanwhile.
    [[nodiscard]] Pointer insert(const Key& key, Pointer made) {
        const std::uint64_t hash = mix(hash_of(made->frame), key.hash());
        Pointer swept;
        Pointer swept_too;
        const std::scoped_lock held(lock_);
        if (const Entry* other = look_up(hash, made->frame, key))
            return other->attachment;
        entries_.push_back({.hash = hash, .key = key, .attachment = made, .last_use = calls_});
        by_hash_.emplace(hash, std::prev(entries_.end()));
        // Two for each that comes, so that they cannot pile up.
        swept = sweep();
        swept_too = sweep();
        return made;
    }

    /// Drops whatever lies in one of the frame's buffers.
    void drop(const Frame& frame) {
        drop_where([&](const Pointer& each) { return share_a_buffer(each->frame, frame); });
    }

    /// Drops what nobody holds.
    void drop_idle() {
        drop_where([](const Pointer& each) { return idle(each); });
    }

    /// Drops what \p unwanted says.
    template <typename Unwanted> void drop_where(Unwanted unwanted) {
        std::vector<Pointer> dropped;
        const std::scoped_lock held(lock_);
        for (auto each = entries_.begin(); each != entries_.end();) {
            if (unwanted(each->attachment))
                dropped.push_back(erase(each++));
            else
                ++each;
        }
    }

private:
    struct Entry {
        std::uint64_t hash;
        Key key;
        Pointer attachment;
        std::uint64_t last_use; // the number of the call
    };
    using Entries = std::list<Entry>;

    /// Whether nobody but the cache holds it, and nobody but attachments its frame.
    static bool idle(const Pointer& attachment) noexcept {
        return attachment.use_count() == 1 && !FrameUse::held(attachment->frame);
    }

    [[nodiscard]] Entry* look_up(std::uint64_t hash, const Frame& frame, const Key& key) {
        const auto [first, last] = by_hash_.equal_range(hash);
        for (auto each = first; each != last; ++each)
            if (each->second->key == key && alike(each->second->attachment->frame, frame))
                return &*each->second;
        return nullptr;
    }

    Pointer erase(typename Entries::iterator entry) {
        const auto [first, last] = by_hash_.equal_range(entry->hash);
        by_hash_.erase(
            std::find_if(first, last, [entry](const auto& each) { return each.second == entry; }));
        Pointer dropped = std::move(entry->attachment);
        if (hand_ == entry)
            ++hand_;
        entries_.erase(entry);
        return dropped;
    }

    /// Looks at one. \returns it where it goes.
    Pointer sweep() {
        if (hand_ == entries_.end())
            hand_ = entries_.begin();
        if (hand_ == entries_.end())
            return nullptr;
        const auto entry = hand_++;
        const bool goes = calls_ - entry->last_use > patience_ && idle(entry->attachment);
        return goes ? erase(entry) : nullptr;
    }

    const std::uint32_t patience_;
    std::mutex lock_;
    std::uint64_t calls_ = 0;
    Entries entries_;
    typename Entries::iterator hand_ = entries_.end(); // where the sweep goes on
    std::unordered_multimap<std::uint64_t, typename Entries::iterator> by_hash_;
};

} // namespace sluice
