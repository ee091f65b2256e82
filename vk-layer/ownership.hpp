// SPDX-License-Identifier: MIT
/// \file
/// Who owns the contents of shared memory, by what the application records and submits: for
/// `validate`. It says nothing where it cannot be sure.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include <vulkan/vulkan.h>

#include "messages.hpp"
#include "tracker.hpp"

namespace sluice::layer {

/// What a command does to an image or buffer in shared memory.
struct Event {
    enum class Kind : std::uint8_t {
        acquire, ///< A barrier takes it from others.
        release, ///< A barrier hands it over.
        read,    ///< The contents are needed.
        write,   ///< They are written.
        discard, ///< They are given up: a layout transition from VK_IMAGE_LAYOUT_UNDEFINED.
    };
    Kind kind = Kind::read;
    Object on;
    bool whole = true;       ///< All of the image or buffer, as far as barriers tell.
    bool to_be_read = false; ///< Of a discard: the new layout allows nothing but reading.
    Behind behind;
};

/// A mistake that has been found.
struct Finding {
    Mistake mistake;
    Object on;
    SharedMemoryPtr memory;
};

/// Threads: any, as far as Vulkan allows them on one command buffer or pool.
///
/// What Vulkan allows is not told: whoever needs no old contents may use a resource without an
/// acquire, which leaves them undefined (Resource Sharing Mode). So it is a *read* that must come
/// after an acquire, after a write of one's own, or before the first release of memory that was
/// allocated here. Where writes cannot be seen there is no knowing, and nothing is told: memory
/// that was mapped, and memory behind images or buffers whose usage allows writes that are not
/// transfers.
class Ownership {
public:
    using Events = std::vector<Event>;
    using Recorded = std::vector<std::shared_ptr<const Events>>;

    // Command buffers, as the Recorder has them.

    void allocated(VkCommandPool pool, std::span<const VkCommandBuffer> all);
    void freed(std::span<const VkCommandBuffer> all);
    void pool_destroyed(VkCommandPool pool);
    void pool_reset(VkCommandPool pool);
    void reset(VkCommandBuffer commands);
    void executes(VkCommandBuffer primary, std::span<const VkCommandBuffer> others);
    void record(VkCommandBuffer commands, Event&& event);

    // Memory.

    /// \p memory is there from now on; it belongs to others at first where it was \p imported.
    void allocated(const SharedMemoryPtr& memory, bool imported);
    /// It may be written where nobody sees it.
    void written_unseen(const SharedMemoryPtr& memory);
    void destroyed(Object resource);

    /// What \p commands will do, as they are now: they may be recorded anew as soon as they are
    /// submitted.
    void collect(VkCommandBuffer commands, Recorded& into) const;
    /// They are submitted now.
    [[nodiscard]] std::vector<Finding> submit(const Recorded& all);
    /// Nobody knows when, or whether, they are done: what they use is not looked at any more.
    void ignore(const Recorded& all);
    /// Nothing is known any more, nor kept.
    void forget() noexcept;

private:
    /// An image or buffer that somebody here uses.
    struct Held {
        Object by;
        bool acquired = false;   // by a barrier
        bool undefined = false;  // the contents were given up, and not written since
        bool to_be_read = false; // though they are meant to be read
    };
    struct State {
        std::weak_ptr<SharedMemory> of; // keeps the address from being another's
        bool in_hand = false;           // by somebody who is not in `held`
        bool unseen = false;            // writes may have gone unseen
        bool ignored = false;           // nothing is known any more
        bool told = false;              // to an application without barriers
        std::vector<Held> held;

        [[nodiscard]] Held* find(Object by);
        [[nodiscard]] bool others(Object than) const;
    };
    struct Recording {
        VkCommandPool pool = VK_NULL_HANDLE;
        std::shared_ptr<Events> events = std::make_shared<Events>();
    };

    /// \returns whether \p event is a mistake.
    static bool read(const State& state, const Held* held, const Event& event);
    static bool apply(State& state, const Event& event);

    mutable std::mutex lock_;
    std::unordered_map<VkCommandBuffer, Recording> recordings_;
    std::unordered_map<const SharedMemory*, State> states_;
};

} // namespace sluice::layer
