// SPDX-License-Identifier: MIT
#include "trace_writer.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <new>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "core/sys.hpp"
#include "report.hpp"

namespace sluice::layer {

namespace {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;

// More than any application has at a time: older ones are those of which we missed the end.
constexpr std::size_t most_buffers = 1024, most_submissions = 1024;

constexpr std::string_view end_of_array = "\n]\n";

// The slices' names, which an event that ends one repeats.
constexpr std::string_view submission_name = "submission", wait_name = "wait",
                           held_name = "fence pending";
constexpr std::string_view submit = "submission", wait = "wait", hand_over = "hand-over",
                           buffers = "buffer";

/// As JSON has it. Bytes beyond ASCII, which need not be UTF-8, are taken for Latin-1.
std::string quoted(std::string_view text) {
    std::string result = "\"";
    for (const char each : text) {
        const auto byte = static_cast<unsigned char>(each);
        if (each == '"' || each == '\\') {
            result += '\\';
            result += each;
        } else if (byte < 0x20 || byte >= 0x7f) {
            std::array<char, 8> escape{};
            std::snprintf(escape.data(), escape.size(), "\\u%04x", byte);
            result += escape.data();
        } else {
            result += each;
        }
    }
    return result + '"';
}

/// In microseconds, which is what traces count in.
std::string microseconds(nanoseconds time) {
    std::array<char, 32> text{};
    const long long count = std::max(time, 0ns).count();
    std::snprintf(text.data(), text.size(), "%lld.%03lld", count / 1000, count % 1000);
    return text.data();
}

/// The members of a JSON object.
class Members {
public:
    Members& number(std::string_view key, std::uint64_t value) {
        return add(key, std::to_string(value));
    }
    Members& time(std::string_view key, nanoseconds value) { return add(key, microseconds(value)); }
    Members& text(std::string_view key, std::string_view value) { return add(key, quoted(value)); }
    Members& truth(std::string_view key) { return add(key, "true"); }
    Members& all(std::string_view members) {
        if (!members.empty())
            (text_ += text_.empty() ? "" : ",") += members;
        return *this;
    }
    operator std::string_view() const { return text_; }
    [[nodiscard]] std::string take() { return std::move(text_); }

private:
    Members& add(std::string_view key, const std::string& value) {
        return all(quoted(key) + ":" + value);
    }
    std::string text_;
};

/// The program, as it was started.
std::string_view program() {
    return program_invocation_short_name;
}

bool same_file(const struct stat& a, const struct stat& b) noexcept {
    return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/// Whether nobody has written to it in between.
bool untouched(const struct stat& a, const struct stat& b) noexcept {
    return same_file(a, b) && a.st_size == b.st_size && a.st_mtim.tv_sec == b.st_mtim.tv_sec &&
           a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

} // namespace

// ---- The file -----------------------------------------------------------------------------------

TraceFile::Opened TraceFile::open(const std::string& path, bool& busy) {
    // Not to wait for a FIFO's other end.
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0666));
    struct stat status {};
    if (!fd || fstat(fd.get(), &status) != 0) {
        give_up(errno, {});
        return Opened::no;
    }
    if (!S_ISREG(status.st_mode)) {
        give_up(0, "is no regular file");
        return Opened::no;
    }
    // A lock of this process, which a child does not inherit. Where a filesystem has no locks, who
    // comes last wins.
    struct flock whole {};
    whole.l_type = F_WRLCK;
    whole.l_whence = SEEK_SET;
    if (fcntl(fd.get(), F_SETLK, &whole) != 0 && (errno == EAGAIN || errno == EACCES)) {
        busy = true;
        return Opened::no;
    }
    name_ = path;
    const bool again = closed_ && untouched(status, is_);
    if (!again) {
        end_ = 0;
        first_ = true;
    }
    if (ftruncate(fd.get(), end_) != 0) {
        give_up(errno, {});
        return Opened::no;
    }
    closed_ = false;
    is_ = status;
    fd_ = std::move(fd);
    if (!again)
        text_ = "[";
    return again ? Opened::again : Opened::fresh;
}

TraceFile::Opened TraceFile::open() {
    bool busy = false;
    // Where it was the last time, which is the other name if somebody had taken the first.
    struct stat status {};
    const bool go_on = closed_ && stat(name_.c_str(), &status) == 0 && untouched(status, is_);
    const Opened opened = open(go_on ? std::string(name_) : path_, busy);
    if (!busy)
        return opened;
    busy = false;
    const Opened own = open(path_ + "." + std::to_string(getpid()), busy);
    if (busy)
        give_up(0, "another process writes to it");
    return own;
}

void TraceFile::give_up(int error, std::string_view why) noexcept {
    if (std::exchange(told_, true))
        return;
    try {
        warn("the trace is not written to " + quoted(path_) + ": " +
             (error != 0 ? sys::errno_text(error) : std::string()) + std::string(why));
    } catch (const std::bad_alloc&) {
        warn("a trace is not written, and there is no memory for why");
    }
}

void TraceFile::add(std::string_view event) {
    text_.reserve(text_.size() + event.size() + 2); // all of it, or nothing
    text_ += std::exchange(first_, false) ? "\n" : ",\n";
    text_ += event;
}

/// An application may close all fds that it does not know, and have the number for something else.
bool TraceFile::is_ours() noexcept {
    struct stat status {};
    if (!fd_ || (fstat(fd_.get(), &status) == 0 && same_file(status, is_)))
        return static_cast<bool>(fd_);
    give_up(0, "somebody has closed its fd");
    (void)fd_.release();
    return false;
}

void TraceFile::flush() noexcept {
    const std::string text = std::exchange(text_, {});
    if (text.empty() || !is_ours())
        return;
    std::size_t written = 0;
    while (written < text.size()) {
        const ssize_t now = pwrite(fd_.get(), text.data() + written, text.size() - written,
                                   end_ + static_cast<off_t>(written));
        if (now < 0 && errno == EINTR)
            continue;
        if (now <= 0) {
            give_up(errno, "; it ends there");
            // No half event, and room for the end of what has begun.
            if (const auto whole = text.rfind(",\n", written); whole != std::string::npos)
                end_ += static_cast<off_t>(whole);
            if (ftruncate(fd_.get(), end_) == 0 && end_ > 0)
                (void)pwrite(fd_.get(), end_of_array.data(), end_of_array.size(), end_);
            fd_ = UniqueFd();
            return;
        }
        written += static_cast<std::size_t>(now);
    }
    end_ += static_cast<off_t>(written);
}

void TraceFile::close() noexcept {
    flush();
    if (!is_ours())
        return;
    (void)pwrite(fd_.get(), end_of_array.data(), end_of_array.size(), end_);
    closed_ = fstat(fd_.get(), &is_) == 0;
    fd_ = UniqueFd();
}

// ---- Events -------------------------------------------------------------------------------------

void TraceWriter::event(char phase, std::string_view name, std::string_view category,
                        std::uint32_t thread, Deadline at, std::string_view members) {
    file_.add(std::string(R"({"ph":")") + phase + R"(","name":)" + quoted(name) + R"(,"cat":)" +
              quoted(category) + R"(,"pid":)" + std::to_string(process_) + R"(,"tid":)" +
              std::to_string(thread) + R"(,"ts":)" + microseconds(at.time_since_epoch()) +
              (phase == 'i' ? R"(,"s":"t")" : "") +
              (phase == 's' || phase == 'f' ? "," + std::string(members)
                                            : R"(,"args":{)" + std::string(members) + "}") +
              "}");
}

void TraceWriter::name(std::uint32_t thread, std::string_view what, std::string_view text) {
    file_.add(R"({"ph":"M","name":)" + quoted(what) + R"(,"pid":)" + std::to_string(process_) +
              R"(,"tid":)" + std::to_string(thread) + R"(,"args":{)" + std::string(text) + "}}");
}

void TraceWriter::name_lane(const Track& track, std::size_t index) {
    const std::uint32_t thread = track.lanes[index].thread;
    const std::string number = index == 0 ? "" : " (" + std::to_string(index + 1) + ")";
    name(thread, "thread_name", Members().text("name", track.name + number));
    name(thread, "thread_sort_index", Members().number("sort_index", track.order));
}

void TraceWriter::name_track(Track& track, std::string text) {
    if (track.name == text)
        return;
    track.name = std::move(text);
    for (std::size_t i = 0; i < track.lanes.size(); ++i)
        name_lane(track, i);
}

TraceWriter::Lane& TraceWriter::first_lane(Track& track) {
    if (track.lanes.empty()) {
        track.lanes.push_back({.thread = next_thread()});
        name_lane(track, 0);
    }
    return track.lanes.front();
}

/// The process's own is not a track.
std::uint32_t TraceWriter::next_thread() {
    if (++threads_ == static_cast<std::uint32_t>(process_))
        ++threads_;
    return threads_;
}

TraceWriter::Lane& TraceWriter::take_lane(Track& track, Deadline begin) {
    first_lane(track);
    const auto free = [&] {
        return std::ranges::find_if(
            track.lanes, [&](const Lane& each) { return !each.open && each.free_from <= begin; });
    };
    auto found = free();
    if (found == track.lanes.end()) {
        look(); // what is there may be over by now
        found = free();
    }
    if (found != track.lanes.end())
        return *found;
    track.lanes.push_back({.thread = next_thread()});
    name_lane(track, track.lanes.size() - 1);
    return track.lanes.back();
}

void TraceWriter::begin_slice(Lane& lane, std::string_view name, std::string_view category,
                              Deadline at, std::string_view members) {
    event('B', name, category, lane.thread, at, members);
    lane.open = true;
}

void TraceWriter::end_slice(Lane& lane, std::string_view name, std::string_view category,
                            Deadline at, std::string_view members) {
    event('E', name, category, lane.thread, at, members);
    lane.open = false;
    lane.free_from = at;
}

// ---- Records ------------------------------------------------------------------------------------

TraceFile::Opened TraceWriter::open() {
    process_ = getpid();
    const TraceFile::Opened opened = file_.open();
    if (opened == TraceFile::Opened::fresh) {
        queues_.clear();
        buffers_.clear();
        threads_ = 0;
        name(static_cast<std::uint32_t>(process_), "process_name",
             Members().text("name", program()));
    }
    return opened;
}

TraceWriter::Queue& TraceWriter::queue_of(std::uint32_t number) {
    Queue& queue = queues_[number];
    if (queue.track.name.empty()) // the record that names it was dropped
        queue.track = {.name = "queue #" + std::to_string(number), .order = number, .lanes = {}};
    return queue;
}

TraceWriter::Buffer& TraceWriter::buffer_of(std::uint64_t inode) {
    if (buffers_.size() >= most_buffers && !buffers_.contains(inode))
        forget_a_buffer();
    Buffer& buffer = buffers_[inode];
    buffer.last_use = ++uses_;
    if (buffer.track.name.empty())
        buffer.track = {.name = "buffer " + std::to_string(inode),
                        .order = (std::uint64_t{1} << 20U) + threads_, // below the queues
                        .lanes = {}};
    return buffer;
}

/// The one that has not been used for longest. Should it come again, it has a further row.
void TraceWriter::forget_a_buffer() {
    auto oldest = buffers_.end();
    for (auto each = buffers_.begin(); each != buffers_.end(); ++each) {
        const Buffer& buffer = each->second;
        if (std::ranges::any_of(buffer.track.lanes, &Lane::open) ||
            !std::ranges::all_of(buffer.holds,
                                 [](const Hold& hold) { return hold.end.has_value(); }))
            continue;
        if (oldest == buffers_.end() || buffer.last_use < oldest->second.last_use)
            oldest = each;
    }
    if (oldest != buffers_.end())
        buffers_.erase(oldest);
}

/// The oldest that is deferred: what was told of its fence has been dropped, if anything was.
void TraceWriter::give_up_a_hand_over() {
    Submission* oldest = nullptr;
    for (auto& [id, each] : submissions_)
        if (each.deferred && !each.call_goes_on && each.waits == 0 &&
            (oldest == nullptr || id < oldest->id))
            oldest = &each;
    if (oldest == nullptr)
        return;
    oldest->deferred = false;
    oldest->unfinished = true;
    end_if_over(*oldest);
}

TraceWriter::Submission* TraceWriter::submission_of(std::uint64_t id) {
    const auto found = submissions_.find(id);
    return found != submissions_.end() ? &found->second : nullptr;
}

void TraceWriter::take_buffer(const TraceRecord& record) {
    Buffer& buffer = buffer_of(record.buffer);
    const std::string_view name = record.name.data(), exporter = record.exporter.data();
    std::string title = "buffer " + std::to_string(record.buffer);
    Members members;
    members.number("inode", record.buffer).number("size", record.size);
    if (!name.empty()) {
        title += " " + std::string(name);
        members.text("name", name);
    }
    if (!exporter.empty()) {
        title += " (" + std::string(exporter) + ")";
        members.text("exporter", exporter);
    }
    name_track(buffer.track, std::move(title));
    event('i', record.kind == TraceRecord::Kind::imported ? "import" : "export", buffers,
          first_lane(buffer.track).thread, record.at, members);
}

void TraceWriter::take_call(const TraceRecord& record) {
    event('i', submission_name, submit, first_lane(queue_of(record.queue).track).thread, record.at,
          Members()
              .text("function", record.function)
              .number("batches", record.size)
              .time("call_us", record.until - record.at));
}

void TraceWriter::take_submission(const TraceRecord& record) {
    Queue& queue = queue_of(record.queue);
    // Where the record of its return was dropped.
    if (Submission* before = submission_of(queue.current);
        before != nullptr && before->call_goes_on) {
        before->call_goes_on = false;
        before->returned = record.at;
        end_if_over(*before);
    }
    queue.current = record.submission;
    if (submissions_.size() >= most_submissions)
        give_up_a_hand_over();
    Submission& made = submissions_[record.submission];
    made.id = record.submission;
    made.queue = &queue;
    made.begin = made.returned = record.at;
    made.lane = &take_lane(queue.track, record.at);
    begin_slice(*made.lane, submission_name, submit, record.at,
                Members()
                    .number("submission", record.submission)
                    .text("function", record.function)
                    .number("batches", record.size));
}

void TraceWriter::connect(const Buffer& buffer, const Submission& to, Access access, Deadline at) {
    for (const Hold& each : buffer.holds) {
        if (each.begin > at || (each.end && *each.end <= at) ||
            (!writes(access) && !writes(each.access)))
            continue;
        // An arrow's ends are bound to the slices that they lie in.
        const std::string id = Members().number("id", ++flows_).take();
        event('s', hand_over, hand_over, each.lane->thread, each.begin + 1ns, id);
        event('f', hand_over, hand_over, to.lane->thread, at + 1ns, id + R"(,"bp":"e")");
    }
}

void TraceWriter::take_wait(TraceRecord&& record) {
    Submission* of = submission_of(record.submission);
    if (of == nullptr) {
        let_go(record.fence);
        return;
    }
    if (!of->waited)
        event('B', wait_name, wait, of->lane->thread, record.at, {});
    of->waited = true;
    ++of->waits;
    of->wait_begin = record.at;
    Buffer& buffer = buffer_of(record.buffer);
    connect(buffer, *of, record.access, record.at);
    Lane& lane = take_lane(buffer.track, record.at);
    const Look look = look_at(record);
    begin_slice(lane, wait_name, wait, record.at,
                Members()
                    .text("queue", of->queue->track.name)
                    .number("submission", of->id)
                    .text("access", to_string(record.access))
                    .all(look.whose));
    follow({.fence = std::move(record.fence),
            .submission = of->id,
            .lane = &lane,
            .buffer = record.buffer,
            .begin = record.at},
           look);
}

void TraceWriter::take_left(const TraceRecord& record) {
    if (submission_of(record.submission) == nullptr)
        return;
    Buffer& buffer = buffer_of(record.buffer);
    // A wait for one of those that are over may still be among the records to come.
    std::erase_if(buffer.holds,
                  [&](const Hold& each) { return each.end && *each.end < record.at - 1s; });
    Lane& lane = take_lane(buffer.track, record.at);
    Submission* of = submission_of(record.submission); // which may have ended there
    if (of == nullptr)
        return;
    begin_slice(lane, held_name, hand_over, record.at,
                Members()
                    .text("queue", of->queue->track.name)
                    .number("submission", of->id)
                    .text("access", to_string(record.access)));
    buffer.holds.push_back(
        {.lane = &lane, .access = record.access, .begin = record.at, .end = std::nullopt});
    of->holds.push_back(&buffer.holds.back());
}

void TraceWriter::take_done(TraceRecord&& record) {
    Submission* of = submission_of(record.submission);
    if (of == nullptr) {
        let_go(record.fence);
        return;
    }
    of->deferred = false;
    of->runs = true;
    const Look look = look_at(record);
    follow({.fence = std::move(record.fence),
            .submission = of->id,
            .lane = nullptr,
            .buffer = 0,
            .begin = record.at},
           look);
}

void TraceWriter::take(TraceRecord&& record) {
    using Kind = TraceRecord::Kind;
    switch (record.kind) {
    case Kind::imported:
    case Kind::exported:
        return take_buffer(record);
    case Kind::queue:
        return name_track(queue_of(record.queue).track, record.name.data());
    case Kind::call:
        return take_call(record);
    case Kind::submission:
        return take_submission(record);
    case Kind::wait:
        return take_wait(std::move(record));
    case Kind::left:
        return take_left(record);
    case Kind::done:
        return take_done(std::move(record));
    case Kind::deferred:
        if (Submission* of = submission_of(record.submission)) {
            of->deferred = true;
            event('i', "deferred", hand_over, of->lane->thread, record.at, {});
        }
        return;
    case Kind::returned:
        if (Submission* of = submission_of(record.submission)) {
            of->call_goes_on = false;
            of->returned = record.at;
            end_if_over(*of);
        }
        return;
    }
}

// ---- Fences -------------------------------------------------------------------------------------

void TraceWriter::let_go(SyncFile& fence) noexcept {
    if (fence.fd() >= 0)
        followed_.fetch_sub(1, std::memory_order_relaxed);
    fence = SyncFile::signalled();
}

TraceWriter::Look TraceWriter::look_at(const SyncFile& fence) {
    const auto infos = fence.fences();
    if (!infos)
        return {.about = Members().text("fence", "lost").take()};
    Look look;
    int error = 0;
    const FenceInfo* named = nullptr;
    for (const FenceInfo& each : *infos) {
        const bool pending = each.status.state == FenceState::pending;
        if (named == nullptr || (pending && named->status.state != FenceState::pending))
            named = &each;
        look.pending = look.pending || pending;
        if (each.status.state == FenceState::failed)
            error = each.status.error;
        if (!pending)
            look.end = std::max(look.end.value_or(each.signalled_at), each.signalled_at);
    }
    Members whose, about;
    if (named != nullptr)
        whose.text("driver", named->driver)
            .text("timeline", named->timeline)
            .number("fences", infos->size());
    if (error != 0)
        about.number("error", static_cast<std::uint64_t>(error));
    look.whose = whose.take();
    look.about = about.take();
    return look;
}

TraceWriter::Look TraceWriter::look_at(const TraceRecord& record) {
    if (record.followed)
        return look_at(record.fence);
    return {.about = Members().text("fence", "not followed: too many are pending").take()};
}

void TraceWriter::follow(Watch&& watch, const Look& look) {
    watches_.push_back(std::move(watch));
    if (look.pending)
        return;
    Watch ended_already = std::move(watches_.back());
    watches_.pop_back();
    ended(ended_already, look);
}

void TraceWriter::look() {
    polls_.clear();
    for (const Watch& each : watches_)
        polls_.push_back({.fd = each.fence.fd(), .events = POLLIN, .revents = 0});
    if (polls_.empty() || sys::poll_now(std::span(polls_)) <= 0)
        return;
    std::vector<Watch> over;
    std::size_t kept = 0;
    for (std::size_t i = 0; i < watches_.size(); ++i)
        if (polls_[i].revents != 0)
            over.push_back(std::move(watches_[i]));
        else if (kept++ != i)
            watches_[kept - 1] = std::move(watches_[i]);
    watches_.erase(watches_.begin() + static_cast<std::ptrdiff_t>(kept), watches_.end());
    for (Watch& each : over)
        ended(each, look_at(each.fence));
}

void TraceWriter::ended(Watch& watch, const Look& look) {
    // A driver that tells no time of its fence's leaves us with when we looked.
    const bool told = watch.fence.fd() < 0 || (look.end && *look.end > Deadline());
    const Deadline end =
        std::max(watch.begin, told ? look.end.value_or(watch.begin) : Deadline::clock::now());
    let_go(watch.fence);
    Submission* of = submission_of(watch.submission);
    if (watch.lane != nullptr) {
        end_slice(*watch.lane, wait_name, wait, end,
                  Members().time("stall_us", end - watch.begin).all(look.about));
        if (of == nullptr)
            return;
        --of->waits;
        if (end >= of->wait_end) {
            of->wait_end = end;
            of->waited_longest_for = watch.buffer;
        }
    } else if (of != nullptr) {
        of->runs = false;
        of->done = end;
        end_holds(*of, end, look.about);
    }
    if (of != nullptr)
        end_if_over(*of);
}

void TraceWriter::end_holds(Submission& of, Deadline at, std::string_view members) {
    for (Hold* each : of.holds) {
        each->end = std::max(each->begin, at);
        end_slice(*each->lane, held_name, hand_over, *each->end, members);
    }
    of.holds.clear();
}

void TraceWriter::end_if_over(Submission& of) {
    if (of.call_goes_on || of.waits != 0)
        return;
    if (of.waited && !of.wait_told) {
        event('E', wait_name, wait, of.lane->thread, of.wait_end,
              Members()
                  .time("stall_us", of.wait_end - of.wait_begin)
                  .number("longest_for", of.waited_longest_for));
        of.wait_told = true;
    }
    if (of.deferred || of.runs)
        return;
    const Deadline end = std::max(of.done.value_or(of.returned), of.wait_end);
    end_holds(of, end, {}); // whose fence nobody told us
    Members members;
    members.time("call_us", of.returned - of.begin);
    if (of.unfinished)
        members.truth("unfinished");
    end_slice(*of.lane, submission_name, submit, std::max(end, of.begin), members);
    if (of.queue->current == of.id)
        of.queue->current = 0;
    submissions_.erase(of.id);
}

// ---- All of it ----------------------------------------------------------------------------------

void TraceWriter::flush(std::uint64_t dropped) {
    if (dropped != dropped_)
        event('C', "dropped records", submit, static_cast<std::uint32_t>(process_),
              Deadline::clock::now(), Members().number("records", dropped));
    dropped_ = dropped;
    file_.flush();
}

void TraceWriter::close() {
    const Deadline now = Deadline::clock::now();
    for (auto& [id, each] : submissions_)
        each.unfinished = true;
    std::vector<Watch> pending = std::exchange(watches_, {});
    for (Watch& each : pending)
        ended(each, {.about = Members().truth("unfinished").take(), .pending = true, .end = now});
    std::vector<std::uint64_t> left;
    for (const auto& [id, each] : submissions_)
        left.push_back(id);
    for (const std::uint64_t id : left)
        if (Submission* of = submission_of(id)) {
            of->call_goes_on = of->deferred = of->runs = false;
            of->waits = 0;
            if (!of->done)
                of->done = now;
            end_if_over(*of);
        }
    file_.close();
}

} // namespace sluice::layer
