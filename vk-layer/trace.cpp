// SPDX-License-Identifier: MIT
#include "trace.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <new>
#include <string_view>
#include <system_error>
#include <utility>

#include <pthread.h>
#include <unistd.h>

#include "core/sync_file_adopt.hpp"
#include "immortal.hpp"
#include "quiet_thread.hpp"
#include "report.hpp"
#include "trace_writer.hpp"

namespace sluice::layer {

namespace {

/// All that there ever were, by their files. Never destroyed: an application may submit while the
/// program ends.
struct Traces {
    std::mutex lock;
    std::map<std::string, std::unique_ptr<Trace>> all;
};

Traces& traces() noexcept {
    static Immortal<Traces> all;
    return all.value;
}

/// Sees to what an application leaves that ends without destroying its instance, and to children,
/// which have none of the threads that may hold the lock.
struct Process {
    Process() noexcept {
        pthread_atfork([] { traces().lock.lock(); }, [] { traces().lock.unlock(); },
                       [] { traces().lock.unlock(); });
    }
    ~Process() { Trace::finish_all(); }
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;
};
const Process process;

void copy(std::string_view text, std::array<char, 32>& into) noexcept {
    const std::size_t length = std::min(text.size(), into.size() - 1);
    std::copy_n(text.data(), length, into.data());
    into[length] = '\0';
}

} // namespace

// ---- The file's user ----------------------------------------------------------------------------

Trace::Trace(const std::string& file, const Options& options)
    : options_(options), owner_(getpid()), writer_(std::make_unique<TraceWriter>(file, followed_)),
      ring_(options.records) {}

Trace::~Trace() = default;

std::shared_ptr<Trace> Trace::start(const std::string& file, const Options& options) noexcept {
    try {
        // Without the lock, which who leaves takes: he does where there is no memory for the
        // pointer.
        if (Trace* const trace = file.empty() ? nullptr : enter(file, options); trace != nullptr)
            return {trace, [](Trace* each) { each->leave(); }};
    } catch (const std::bad_alloc&) {
        warn("no trace is written: there is no memory for it");
    }
    return nullptr;
}

/// Makes the caller one of its users, where there is one.
Trace* Trace::enter(const std::string& file, const Options& options) {
    std::error_code error;
    auto path = std::filesystem::weakly_canonical(std::filesystem::absolute(file, error), error);
    Traces& known = traces();
    const std::scoped_lock held(known.lock);
    auto& trace = known.all[error ? file : path.string()];
    // A child does not have its parent's thread: what was the parent's stays as it is.
    if (trace && trace->owner_ != getpid())
        (void)trace.release();
    if (!trace)
        trace = std::make_unique<Trace>(error ? file : path.string(), options);
    if (!trace->running_ && !trace->begin())
        return nullptr;
    ++trace->users_;
    return trace.get();
}

bool Trace::begin() {
    if (!writer_)
        return false;
    TraceFile::Opened opened = TraceFile::Opened::no;
    try {
        opened = writer_->open();
    } catch (const std::bad_alloc&) {
        writer_->end_file();
        throw;
    }
    if (opened == TraceFile::Opened::no)
        return false;
    if (opened == TraceFile::Opened::fresh)
        queues_ = devices_ = 0;
    stop_ = false;
    thread_ = quiet_thread([this] { run(); });
    running_ = thread_.joinable();
    if (!running_) {
        warn("no trace is written: no thread can be started for it");
        writer_->end_file();
    }
    return running_;
}

void Trace::finish() noexcept {
    {
        const std::scoped_lock held(lock_);
        stop_ = true;
    }
    wake_.notify_one();
    thread_.join();
    running_ = false;
}

void Trace::leave() noexcept {
    const std::scoped_lock held(traces().lock);
    if (--users_ == 0 && running_ && owner_ == getpid())
        finish();
}

void Trace::finish_all() noexcept {
    Traces& known = traces();
    const std::scoped_lock held(known.lock);
    for (const auto& [file, trace] : known.all)
        if (trace && trace->running_ && trace->owner_ == getpid())
            trace->finish();
}

// ---- The thread that writes ---------------------------------------------------------------------

void Trace::run() noexcept {
    pthread_setname_np(pthread_self(), "sluice-trace");
    std::unique_lock held(lock_);
    while (!stop_) {
        held.unlock();
        write_all(false);
        held.lock();
        wake_.wait_for(held, options_.period, [this] { return stop_; });
    }
    held.unlock();
    write_all(true);
}

void Trace::write_all(bool last) noexcept {
    TraceRecord record;
    try {
        while (ring_.pop(record))
            if (writer_)
                writer_->take(std::move(record));
        if (!writer_)
            return;
        writer_->look();
        writer_->flush(dropped_.load(std::memory_order_relaxed));
        if (last)
            writer_->close();
    } catch (const std::bad_alloc&) {
        warn("a trace ends early: there is no memory for it");
        writer_->end_file();
        writer_.reset();
    }
}

// ---- Those who tell -----------------------------------------------------------------------------

bool Trace::put(TraceRecord& record) noexcept {
    if (ring_.push(record))
        return true;
    if (record.fence.fd() >= 0)
        follows_one_less();
    dropped_.fetch_add(1, std::memory_order_relaxed);
    return false;
}

bool Trace::may_follow_one_more() noexcept {
    if (followed_.fetch_add(1, std::memory_order_relaxed) < options_.fences)
        return true;
    followed_.fetch_sub(1, std::memory_order_relaxed);
    return false;
}

void SubmissionTrace::put_left(const DmaBuf& buffer, Access access) noexcept {
    TraceRecord record;
    record.kind = TraceRecord::Kind::left;
    record.access = access;
    record.submission = id_;
    record.at = Deadline::clock::now();
    record.buffer = buffer.inode();
    trace_->put(record);
}

void SubmissionTrace::put_deferred() noexcept {
    TraceRecord record;
    record.kind = TraceRecord::Kind::deferred;
    record.submission = id_;
    record.at = Deadline::clock::now();
    trace_->put(record);
}

void SubmissionTrace::put_done(const SyncFile& fence) noexcept {
    TraceRecord record;
    record.kind = TraceRecord::Kind::done;
    record.submission = id_;
    record.at = Deadline::clock::now();
    if (fence.fd() >= 0) {
        record.followed = trace_->may_follow_one_more();
        if (record.followed) {
            if (auto copy = fence.duplicate()) {
                record.fence = std::move(*copy);
            } else {
                record.followed = false;
                trace_->follows_one_less();
            }
        }
    }
    trace_->put(record);
}

void QueueTrace::begins(const char* function, std::size_t batches) noexcept {
    function_ = function;
    batches_ = batches;
    begin_ = Deadline::clock::now();
    submission_.reset();
    asked_.clear();
}

void QueueTrace::returns() noexcept {
    if (submission_ == 0U)
        return;
    TraceRecord record;
    record.kind = submission_ ? TraceRecord::Kind::returned : TraceRecord::Kind::call;
    record.queue = number_;
    record.submission = submission_.value_or(0);
    record.at = record.until = Deadline::clock::now();
    if (!submission_) {
        record.at = begin_;
        record.size = batches_;
        record.function = function_;
    }
    trace_->put(record);
}

SubmissionTrace QueueTrace::put_submission() noexcept {
    TraceRecord record;
    record.kind = TraceRecord::Kind::submission;
    record.queue = number_;
    record.submission = trace_->next_submission();
    record.at = begin_;
    record.size = batches_;
    record.function = function_;
    const std::uint64_t id = record.submission;
    if (!trace_->put(record)) {
        submission_ = 0;
        return {};
    }
    submission_ = id;
    return {trace_, id};
}

void QueueTrace::put_waits(std::span<SyncFile> fences, int alone, const UniqueFd& copy) noexcept {
    if (submission_.value_or(0) == 0)
        return;
    const Deadline now = Deadline::clock::now();
    for (SyncFile& each : fences) {
        const bool here = each.fd() >= 0;
        const auto asked = std::ranges::find(asked_, here ? each.fd() : alone, &Asked::fd);
        if (asked == asked_.end())
            continue;
        TraceRecord record;
        record.kind = TraceRecord::Kind::wait;
        record.access = asked->access;
        record.submission = *submission_;
        record.at = now;
        record.buffer = asked->buffer;
        record.followed = trace_->may_follow_one_more();
        if (record.followed && here) {
            record.fence = std::move(each);
        } else if (record.followed) {
            auto fence = UniqueFd::duplicate(copy.get());
            if (fence) {
                record.fence = SyncFileAdopt::adopt(std::move(*fence));
            } else {
                trace_->follows_one_less();
                record.followed = false;
            }
        }
        trace_->put(record);
    }
}

void DeviceTrace::put_buffer(TraceRecord::Kind kind, const DmaBuf& buffer) noexcept {
    TraceRecord record;
    record.kind = kind;
    record.at = Deadline::clock::now();
    record.buffer = buffer.inode();
    record.size = buffer.size();
    if (const auto info = buffer.info()) {
        copy(info->name, record.name);
        copy(info->exporter, record.exporter);
    }
    trace_->put(record);
}

void DeviceTrace::put_exported(int fd) noexcept {
    if (const auto buffer = DmaBuf::from_borrowed_fd(fd))
        put_buffer(TraceRecord::Kind::exported, *buffer);
}

QueueTrace DeviceTrace::put_queue(std::uint32_t family, std::uint32_t index) noexcept {
    TraceRecord record;
    record.kind = TraceRecord::Kind::queue;
    record.queue = trace_->next_queue();
    const std::uint32_t number = record.queue;
    std::array<char, 32> device{};
    if (number_ > 1)
        std::snprintf(device.data(), device.size(), "device %u, ", number_);
    std::snprintf(record.name.data(), record.name.size(), "%.18squeue %u.%u", device.data(), family,
                  index);
    trace_->put(record);
    return {trace_, number};
}

} // namespace sluice::layer
