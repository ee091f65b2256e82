// SPDX-License-Identifier: MIT
/// \file
/// The events that a trace is made of, and the file that they are in. Not installed.
///
/// Source: "Trace Event Format" (Chrome), its JSON array format, and what Perfetto reads of it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <poll.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <sluice/access.hpp>
#include <sluice/deadline.hpp>
#include <sluice/sync_file.hpp>
#include <sluice/unique_fd.hpp>

#include "trace.hpp"

namespace sluice::layer {

/// A JSON array of events in a file. What is in the file at any time is whole events, and lacks the
/// closing bracket at most, which readers of traces do without: so it can be read whatever the
/// program comes to.
///
/// Threads: one at a time.
class TraceFile {
public:
    explicit TraceFile(std::string path) : path_(std::move(path)) {}

    enum class Opened : std::uint8_t { no, fresh, again };
    /// Begins the file anew; `again` where it is as this object has closed it, and goes on. Where
    /// another process writes to it just now, it is `PATH.PID` instead. A failure is told, once.
    Opened open();

    /// One more event, an object.
    void add(std::string_view event);
    /// Writes what was added. What goes wrong is told, and nothing is written from then on.
    void flush() noexcept;
    void close() noexcept;

private:
    [[nodiscard]] Opened open(const std::string& path, bool& busy);
    [[nodiscard]] bool is_ours() noexcept;
    /// \param error an errno, or 0.
    void give_up(int error, std::string_view why) noexcept;

    const std::string path_;
    std::string name_; // the one that was opened
    UniqueFd fd_;
    struct stat is_ {}; // the open file; once closed, as it was left
    std::string text_;
    off_t end_ = 0;     // of the last event that is written
    bool first_ = true; // the next one is
    bool told_ = false; // that it cannot be written
    bool closed_ = false;
};

/// Puts records together to events. Where it throws std::bad_alloc, nothing but `end_file` is left
/// to be called.
///
/// Threads: one at a time.
class TraceWriter {
public:
    /// \param followed how many fences are; one less for each that is let go of here.
    TraceWriter(const std::string& path, std::atomic<int>& followed)
        : file_(path), followed_(followed) {}

    [[nodiscard]] TraceFile::Opened open();
    void take(TraceRecord&& record);
    /// Sees which fences have signalled.
    void look();
    /// Brings it all into the file; \p dropped records are missing by now.
    void flush(std::uint64_t dropped);
    /// Ends what goes on, and the file.
    void close();
    /// The file alone.
    void end_file() noexcept { file_.close(); }

private:
    /// A row of slices that do not overlap but by nesting, as Perfetto wants them.
    struct Lane {
        std::uint32_t thread = 0;
        bool open = false;
        Deadline free_from = Deadline::min();
    };
    /// A queue or a buffer: one lane, and more where slices overlap.
    struct Track {
        std::string name;
        std::uint64_t order = 0;
        std::deque<Lane> lanes; // which stay where they are
    };
    /// That a fence is in a buffer.
    struct Hold {
        Lane* lane = nullptr;
        Access access = Access::read;
        Deadline begin;
        std::optional<Deadline> end;
    };
    struct Buffer {
        Track track;
        std::list<Hold> holds;      // which stay where they are
        std::uint64_t last_use = 0; // a count of all uses
    };
    struct Queue {
        Track track;
        std::uint64_t current = 0; // the submission whose call goes on
    };
    struct Submission {
        std::uint64_t id = 0;
        Queue* queue = nullptr;
        Lane* lane = nullptr;
        Deadline begin, returned;
        bool call_goes_on = true;

        bool waited = false, wait_told = false; // its slice has begun, and ended
        std::size_t waits = 0;                  // those that go on
        Deadline wait_begin, wait_end;
        std::uint64_t waited_longest_for = 0; // a buffer

        bool deferred = false;
        bool runs = false; // until its own fence
        std::optional<Deadline> done;
        std::vector<Hold*> holds;
        bool unfinished = false; // when the trace ended
    };
    /// A fence that is still to signal.
    struct Watch {
        SyncFile fence;
        std::uint64_t submission = 0;
        Lane* lane = nullptr; // of the buffer that is waited for; null for a submission's own fence
        std::uint64_t buffer = 0;
        Deadline begin;
    };
    /// What a fence says of itself.
    struct Look {
        std::string about; // members of a JSON object
        /// The same: who signals it. The kernel forgets that when it has signalled.
        std::string whose;
        bool pending = false;
        std::optional<Deadline> end;
    };

    void event(char phase, std::string_view name, std::string_view category, std::uint32_t thread,
               Deadline at, std::string_view members);
    void name(std::uint32_t thread, std::string_view what, std::string_view text);
    void name_track(Track& track, std::string text);
    void name_lane(const Track& track, std::size_t index);
    std::uint32_t next_thread();
    Lane& first_lane(Track& track);
    Lane& take_lane(Track& track, Deadline begin);
    void begin_slice(Lane& lane, std::string_view name, std::string_view category, Deadline at,
                     std::string_view members);
    void end_slice(Lane& lane, std::string_view name, std::string_view category, Deadline at,
                   std::string_view members);

    Queue& queue_of(std::uint32_t number);
    Buffer& buffer_of(std::uint64_t inode);
    void forget_a_buffer();
    void give_up_a_hand_over();
    Submission* submission_of(std::uint64_t id);

    void take_buffer(const TraceRecord& record);
    void take_call(const TraceRecord& record);
    void take_submission(const TraceRecord& record);
    void take_wait(TraceRecord&& record);
    void take_left(const TraceRecord& record);
    void take_done(TraceRecord&& record);
    void connect(const Buffer& buffer, const Submission& to, Access access, Deadline at);

    void let_go(SyncFile& fence) noexcept;
    static Look look_at(const SyncFile& fence);
    static Look look_at(const TraceRecord& record);
    void follow(Watch&& watch, const Look& look);
    void ended(Watch& watch, const Look& look);
    void end_holds(Submission& of, Deadline at, std::string_view members);
    void end_if_over(Submission& of);

    TraceFile file_;
    std::atomic<int>& followed_;
    pid_t process_ = 0;
    std::uint32_t threads_ = 0; // whose numbers are taken
    std::uint64_t flows_ = 0;
    std::uint64_t uses_ = 0; // of buffers
    std::uint64_t dropped_ = 0;
    std::map<std::uint32_t, Queue> queues_;
    std::map<std::uint64_t, Buffer> buffers_;
    std::unordered_map<std::uint64_t, Submission> submissions_;
    std::vector<Watch> watches_;
    std::vector<pollfd> polls_;
};

} // namespace sluice::layer
