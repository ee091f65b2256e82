// SPDX-License-Identifier: MIT
/// \file
/// Attachments by the buffers that they are of, so that a pool of buffers is imported once. Not
/// installed.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "vulkan/vulkan_attachment_state.hpp"

namespace sluice {

/// What tells one attachment of a frame from another.
struct VulkanAttachmentKey {
    enum class Kind : std::uint8_t { image, buffer };
    static constexpr std::uint32_t whole = UINT32_MAX;

    Kind kind = Kind::image;
    std::uint32_t part = whole; // the view of an image, or the frame's buffer
    std::uint32_t usage = 0;
    bool srgb_views = false;

    [[nodiscard]] bool operator==(const VulkanAttachmentKey&) const noexcept = default;
};

/// Finds the attachment of a frame, or of another frame of the same buffers and layout: a peer may
/// send the same buffer with a new fd each time.
///
/// An attachment stays for as long as somebody holds its frame or itself. One that nobody holds
/// stays for a number of further calls, in case its buffers come back.
///
/// Threads: any.
class VulkanAttachmentCache {
public:
    using State = std::shared_ptr<const VulkanAttachment::State>;
    /// Whether a lookup counts as a call: the first of a caller that needs several does.
    enum class Lookup : bool { of_a_new_call, of_the_same_call };

    /// \param patience the calls that an attachment stays for once nobody holds it.
    explicit VulkanAttachmentCache(std::uint32_t patience) noexcept : patience_(patience) {}
    VulkanAttachmentCache(const VulkanAttachmentCache&) = delete;
    VulkanAttachmentCache& operator=(const VulkanAttachmentCache&) = delete;

    /// \returns the attachment, or null.
    [[nodiscard]] State find(const Frame& frame, const VulkanAttachmentKey& key,
                             Lookup lookup = Lookup::of_a_new_call);
    /// \returns \p made, or the one that another thread has put in meanwhile.
    [[nodiscard]] State insert(const VulkanAttachmentKey& key, State made);
    /// Drops whatever lies in one of the frame's buffers.
    void drop(const Frame& frame);
    /// Drops what nobody holds.
    void drop_idle();

private:
    struct Entry {
        std::uint64_t hash;
        VulkanAttachmentKey key;
        State state;
        std::uint64_t last_use; // the number of the call
    };
    using Entries = std::list<Entry>;
    using Dropped = std::vector<State>; // destroyed without the lock

    [[nodiscard]] Entry* look_up(std::uint64_t hash, const Frame& frame,
                                 const VulkanAttachmentKey& key);
    [[nodiscard]] Entries::iterator erase(Entries::iterator entry, Dropped& dropped);
    void sweep(Dropped& dropped);

    const std::uint32_t patience_;
    std::mutex lock_;
    std::uint64_t calls_ = 0;
    Entries entries_;
    Entries::iterator hand_ = entries_.end(); // where the sweep goes on
    std::unordered_multimap<std::uint64_t, Entries::iterator> by_hash_;
};

} // namespace sluice
