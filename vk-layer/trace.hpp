// SPDX-License-Identifier: MIT
/// \file
/// What happens to dma-bufs, told to a file that Chrome and Perfetto read. docs/layer.md says what
/// it shows.
///
/// Who submits puts records of a fixed size into a ring, and a thread of ours writes: no lock, no
/// allocation once warm, and no system calls but duplicates of two fences at most, from which that
/// thread learns when they were done: the submission's own, and one that it waits for alone.
/// Everything is off where there is no `Trace`, and costs one branch then.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include <sys/types.h>
#include <vulkan/vulkan.h>

#include <sluice/access.hpp>
#include <sluice/deadline.hpp>
#include <sluice/dma_buf.hpp>
#include <sluice/sync_file.hpp>
#include <sluice/unique_fd.hpp>

#include "trace_ring.hpp"

namespace sluice::layer {

class DeviceTrace;
class TraceWriter;

/// One thing that has happened; each kind uses the fields that it needs.
struct TraceRecord {
    enum class Kind : std::uint8_t {
        imported,
        exported,
        queue,      ///< It is there: `name`.
        call,       ///< A submission that no buffer takes part in, whole: `at` to `until`.
        submission, ///< One with buffers begins.
        wait,       ///< It waits for `fence` of `buffer`.
        left,       ///< Its fence is in `buffer`.
        deferred,   ///< Its fence cannot be had yet.
        done,       ///< `fence` is its own. Comes after what is `left`.
        returned,   ///< The application has its thread back.
    };

    Kind kind = Kind::call;
    Access access = Access::read;
    std::uint32_t queue = 0;
    std::uint64_t submission = 0;
    Deadline at;
    Deadline until;
    std::uint64_t buffer = 0; // its inode
    std::uint64_t size = 0;   // of the buffer; of a submission, its batches
    const char* function = nullptr;
    SyncFile fence = SyncFile::signalled();
    bool followed = true;                    // false where there is a fence, and it is not here
    std::array<char, 32> name{}, exporter{}; // NUL-terminated
};

/// One file that is written. It is never destroyed: the application may submit until the end.
///
/// Threads: any.
class Trace {
public:
    struct Options {
        std::size_t records = 8192;           ///< Room for those that are still to be written.
        std::chrono::milliseconds period{20}; ///< How often they are.
        int fences = 256;                     ///< How many are followed at a time, one fd each.
    };

    /// The trace to \p file for as long as the result is held, null where \p file is empty, cannot
    /// be written, or was given up for lack of memory, which is told. All who ask for one file in a
    /// process share one trace, and who asks again writes on; with the \p options of who was first.
    /// What is still unwritten when the last one lets go, or the program ends, is written then.
    [[nodiscard]] static std::shared_ptr<Trace> start(const std::string& file,
                                                      const Options& options) noexcept;
    [[nodiscard]] static std::shared_ptr<Trace> start(const std::string& file) noexcept {
        return start(file, Options());
    }

    Trace(const std::string& file, const Options& options);
    Trace(const Trace&) = delete;
    Trace& operator=(const Trace&) = delete;
    ~Trace();

    /// Takes \p record over, or counts it where there is no room. \returns whether it took it.
    bool put(TraceRecord& record) noexcept;
    /// Whoever gets true has \p fence followed; without, too many are.
    [[nodiscard]] bool may_follow_one_more() noexcept;
    void follows_one_less() noexcept { followed_.fetch_sub(1, std::memory_order_relaxed); }
    [[nodiscard]] std::uint32_t next_queue() noexcept { return ++queues_; }
    [[nodiscard]] std::uint32_t next_device() noexcept { return ++devices_; }
    [[nodiscard]] std::uint64_t next_submission() noexcept {
        return submissions_.fetch_add(1, std::memory_order_relaxed) + 1;
    }

    /// At the program's end.
    static void finish_all() noexcept;

private:
    [[nodiscard]] static Trace* enter(const std::string& file, const Options& options);
    bool begin();
    void finish() noexcept;
    void leave() noexcept;
    void run() noexcept;
    void write_all(bool last) noexcept;

    const Options options_;
    const pid_t owner_;
    std::unique_ptr<TraceWriter> writer_; // the thread's while that runs; null once it gave up
    TraceRing<TraceRecord> ring_;
    std::atomic<std::uint64_t> dropped_ = 0;
    std::atomic<int> followed_ = 0;
    std::atomic<std::uint32_t> queues_ = 0, devices_ = 0;
    std::atomic<std::uint64_t> submissions_ = 0;

    // Under the lock of all traces.
    std::size_t users_ = 0;
    bool running_ = false;
    std::thread thread_;

    std::mutex lock_;
    std::condition_variable wake_;
    bool stop_ = false;
};

/// What one submission leaves for others, until it is done. Threads: any, one at a time.
class SubmissionTrace {
public:
    SubmissionTrace() = default;

    /// Its fence is in \p buffer.
    void left_in(const DmaBuf& buffer, Access access) noexcept {
        if (trace_ != nullptr)
            put_left(buffer, access);
    }
    /// It comes there later.
    void deferred() noexcept {
        if (trace_ != nullptr)
            put_deferred();
    }
    /// \p fence, borrowed, is the one that was left. Costs a duplicate of its fd.
    void done_by(const SyncFile& fence) noexcept {
        if (trace_ != nullptr)
            put_done(fence);
    }

private:
    friend class QueueTrace;
    SubmissionTrace(Trace* trace, std::uint64_t id) noexcept : trace_(trace), id_(id) {}
    void put_left(const DmaBuf& buffer, Access access) noexcept;
    void put_deferred() noexcept;
    void put_done(const SyncFile& fence) noexcept;

    Trace* trace_ = nullptr;
    std::uint64_t id_ = 0;
};

/// One queue's part. Threads: as Vulkan asks of a queue, one at a time.
class QueueTrace {
public:
    /// Lasts as long as a call that submits.
    class Call {
    public:
        explicit Call(QueueTrace* queue) noexcept : queue_(queue) {}
        Call(const Call&) = delete;
        Call& operator=(const Call&) = delete;
        ~Call() {
            if (queue_ != nullptr)
                queue_->returns();
        }

    private:
        QueueTrace* queue_;
    };

    QueueTrace() = default;

    template <typename Info> [[nodiscard]] Call call(std::span<const Info> infos) noexcept {
        if (trace_ == nullptr)
            return Call(nullptr);
        begins(std::is_same_v<Info, VkSubmitInfo>    ? "vkQueueSubmit"
               : std::is_same_v<Info, VkSubmitInfo2> ? "vkQueueSubmit2"
                                                     : "vkQueueBindSparse",
               infos.size());
        return Call(this);
    }
    /// Of the call that goes on, which has buffers.
    [[nodiscard]] SubmissionTrace submission() noexcept {
        return trace_ == nullptr ? SubmissionTrace() : put_submission();
    }
    /// \p fence has come out of \p buffer.
    void asked(const DmaBuf& buffer, Access access, const SyncFile& fence) {
        if (trace_ != nullptr)
            asked_.push_back({.fd = fence.fd(), .buffer = buffer.inode(), .access = access});
    }
    /// The submission waits for those of \p fences, about which we were `asked`, and takes them
    /// over. One that was moved from had the number \p alone, which is the driver's by now, and \p
    /// copy is another fd of it, of which this costs a duplicate.
    void waits(std::span<SyncFile> fences, int alone, const UniqueFd& copy) noexcept {
        if (trace_ != nullptr)
            put_waits(fences, alone, copy);
    }

private:
    friend class DeviceTrace;
    struct Asked {
        int fd;
        std::uint64_t buffer;
        Access access;
    };

    QueueTrace(Trace* trace, std::uint32_t number) noexcept : trace_(trace), number_(number) {}
    void begins(const char* function, std::size_t batches) noexcept;
    void returns() noexcept;
    [[nodiscard]] SubmissionTrace put_submission() noexcept;
    void put_waits(std::span<SyncFile> fences, int alone, const UniqueFd& copy) noexcept;

    Trace* trace_ = nullptr;
    std::uint32_t number_ = 0;

    // Of the call that goes on.
    const char* function_ = nullptr;
    std::size_t batches_ = 0;
    Deadline begin_;
    std::optional<std::uint64_t> submission_; // 0 for one that there was no room for
    std::vector<Asked> asked_;
};

/// One device's part. Threads: any.
class DeviceTrace {
public:
    DeviceTrace() = default;
    /// \param trace null for none.
    explicit DeviceTrace(Trace* trace) noexcept
        : trace_(trace), number_(trace != nullptr ? trace->next_device() : 0) {}

    /// The application imports \p buffer, where there is one.
    void imported(const std::optional<DmaBuf>& buffer) noexcept {
        if (trace_ != nullptr && buffer)
            put_buffer(TraceRecord::Kind::imported, *buffer);
    }
    /// It was given \p fd, borrowed.
    void exported(int fd) noexcept {
        if (trace_ != nullptr)
            put_exported(fd);
    }
    [[nodiscard]] QueueTrace queue(std::uint32_t family, std::uint32_t index) noexcept {
        return trace_ == nullptr ? QueueTrace() : put_queue(family, index);
    }

private:
    void put_buffer(TraceRecord::Kind kind, const DmaBuf& buffer) noexcept;
    void put_exported(int fd) noexcept;
    [[nodiscard]] QueueTrace put_queue(std::uint32_t family, std::uint32_t index) noexcept;

    Trace* trace_ = nullptr;
    std::uint32_t number_ = 0;
};

} // namespace sluice::layer
