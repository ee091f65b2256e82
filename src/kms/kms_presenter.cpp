// SPDX-License-Identifier: MIT
#include <sluice/kms_presenter.hpp>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>
#include <vector>

#include <sys/epoll.h>

#include "core/fence_list.hpp"
#include "core/log.hpp"
#include "core/sys.hpp"
#include "kms/kms_state.hpp"

namespace sluice {

namespace {

using std::to_string;
using Event = KmsPresentEvent;
using Kind = KmsPresentEvent::Kind;

constexpr std::uint32_t most_waiting = 256;

/// A commit that waits for its turn, with what it borrowed. The memory stays when it is reused.
class Waiting {
public:
    /// \returns nothing, or `no_resources`.
    [[nodiscard]] Result<void> take(const KmsCommit& commit, const KmsPresentInfo& about,
                                    Deadline now) {
        clear();
        info = about;
        handed_in = now;
        commit_ = commit;
        if (commit.framebuffer != nullptr)
            framebuffers_.push_back(*commit.framebuffer);
        for (const KmsLayer& each : commit.layers)
            framebuffers_.push_back(*each.framebuffer);
        if (commit.writeback != nullptr)
            framebuffers_.push_back(*commit.writeback);
        if (auto copied = copy(commit.in_fence); !copied)
            return copied;
        for (const KmsLayer& each : commit.layers)
            if (auto copied = copy(each.in_fence); !copied)
                return copied;
        layers_.assign(commit.layers.begin(), commit.layers.end());
        point_at_own();
        return {};
    }

    void clear() noexcept {
        commit_ = {};
        layers_.clear();
        framebuffers_.clear();
        fences_.clear();
    }

    [[nodiscard]] const KmsCommit& commit() const noexcept { return commit_; }

    KmsPresentInfo info;
    Deadline handed_in;

private:
    [[nodiscard]] Result<void> copy(const SyncFile* fence) {
        if (fence == nullptr)
            return {};
        auto copy = fence->duplicate();
        if (!copy)
            return tl::unexpected(std::move(copy.error()));
        fences_.push_back(std::move(*copy));
        return {};
    }

    void point_at_own() noexcept {
        auto framebuffer = framebuffers_.begin();
        auto fence = fences_.begin();
        const auto next = [](auto& from, const auto*& pointer) {
            if (pointer != nullptr)
                pointer = &*from++;
        };
        next(framebuffer, commit_.framebuffer);
        next(fence, commit_.in_fence);
        for (KmsLayer& each : layers_) {
            next(framebuffer, each.framebuffer);
            next(fence, each.in_fence);
        }
        next(framebuffer, commit_.writeback);
        commit_.layers = layers_;
    }

    KmsCommit commit_;
    std::vector<KmsLayer> layers_;
    std::vector<KmsFramebuffer> framebuffers_; // in the order in which the commit names them
    std::vector<SyncFile> fences_;
};

/// A commit that the card has taken.
struct Flight {
    KmsPresentInfo info;
    Deadline handed_in;
    KmsFlip flip;
    bool shown = false; // and what is left is to write the capture
};

/// The fences of \p commit that somebody still has to signal, the first of them, or null.
const SyncFile* first_pending(const KmsCommit& commit) {
    const auto pending = [](const SyncFile* fence) {
        return fence != nullptr && fence->fd() >= 0 && sys::poll_now(fence->fd(), POLLIN) == 0;
    };
    if (pending(commit.in_fence))
        return commit.in_fence;
    for (const KmsLayer& each : commit.layers)
        if (pending(each.in_fence))
            return each.in_fence;
    return nullptr;
}

Error gone(const char* operation, const char* object) {
    return Error{.code = Errc::wrong_object,
                 .operation = operation,
                 .object = object,
                 .problem = "the object was moved from",
                 .remedy = "Use the one that it was moved to"};
}

/// Whether \p error is about the card and not about the commit, so that it may be taken later.
bool may_pass(const Error& error) noexcept {
    return error.code == Errc::not_master || error.code == Errc::device_lost ||
           error.code == Errc::no_resources ||
           (error.code == Errc::busy && error.sys_errno == EBUSY);
}

} // namespace

struct KmsPresenter::State {
    State(KmsOutput::State& shows_on, const KmsPresenterInfo& how)
        : output(shows_on), newest_wins(how.mode == KmsPresentMode::mailbox),
          room(newest_wins ? 2 : how.queue_length), places(room + 1),
          most_events(std::max<std::size_t>(64, 3 * places.size())),
          card_may_wait(std::ranges::all_of(output.planes, [](const KmsOutputPlane& each) {
              return each.controls.in_fence_fd != 0;
          })) {
        events.reserve(most_events);
        if (output.mode.refresh_mhz != 0)
            period = std::chrono::nanoseconds(1'000'000'000'000 / output.mode.refresh_mhz);
    }

    [[nodiscard]] Result<void> present(const KmsCommit& commit, const KmsPresentInfo& info,
                                       Deadline deadline);
    [[nodiscard]] Result<void> dispatch(const char* operation);
    [[nodiscard]] Result<void> wait(Deadline deadline);
    [[nodiscard]] Result<void> finish(Deadline deadline);
    [[nodiscard]] Result<std::shared_ptr<const SyncFile>> capture(const KmsFramebuffer& into);
    [[nodiscard]] Result<int> event_loop_fd();
    [[nodiscard]] std::optional<Event> next_event();
    [[nodiscard]] std::size_t pending() const noexcept {
        return count + (flight && !flight->shown ? 1 : 0);
    }

private:
    [[nodiscard]] Error error(const char* operation, Errc code, std::string problem,
                              std::string remedy) const;
    [[nodiscard]] Result<void> check(const KmsCommit& commit, const char* operation) const;
    [[nodiscard]] bool full() const noexcept {
        return !newest_wins && count >= room && (flight || count > 0);
    }

    /// Takes note of a flip that is done, so that there is no flight.
    [[nodiscard]] Result<void> land(const char* operation);
    [[nodiscard]] std::uint32_t missed(const Flight& of, Deadline shown) const;
    /// Commits. \returns whether it did; else the commit has to wait for a fence of its own.
    [[nodiscard]] Result<bool> start(const KmsCommit& commit, const KmsPresentInfo& info,
                                     Deadline handed_in, const char* operation);
    /// Commits what waits longest, if its turn has come.
    [[nodiscard]] Result<void> start_next(const char* operation);
    /// Lands, and starts what is next.
    [[nodiscard]] Result<void> advance(const char* operation);
    [[nodiscard]] Result<void> hand_in(const KmsCommit& commit, const KmsPresentInfo& info,
                                       Deadline deadline, const char* operation);
    [[nodiscard]] Result<void> queue(const KmsCommit& commit, const KmsPresentInfo& info,
                                     Deadline now);
    [[nodiscard]] Waiting& waiting(std::size_t number) noexcept {
        return places[(first + number) % places.size()];
    }
    void drop_first() noexcept;
    void tell_dropped(std::size_t how_many);
    /// Drops what a newer one has overtaken, where the newest wins.
    void drop_overtaken();

    /// One of the fences of \p commit that are pending where the card waits for none, or null.
    [[nodiscard]] const SyncFile* own_fence(const KmsCommit& commit) const;
    /// Whether commits wait here for their in-fences.
    [[nodiscard]] bool waits_here() const noexcept {
        return !card_may_wait ||
               output.device->in_fences.load(std::memory_order_relaxed) == KmsInFences::refused;
    }
    /// What has to be signalled before anything can go on; null: nothing.
    [[nodiscard]] const SyncFile* obstacle() const;
    [[nodiscard]] Result<void> await(Deadline deadline, const char* operation) const;
    /// Has the fd for event loops, if there is one, watch the obstacle.
    [[nodiscard]] Result<void> watch(const char* operation);
    /// Before a fence goes that may be watched.
    void unwatch() noexcept;
    void tell(Event&& event);

    KmsOutput::State& output;
    bool newest_wins;
    std::chrono::nanoseconds period{}; // of the refresh; 0: not known

    std::size_t room;                 // how many may wait; see drop_overtaken()
    std::vector<Waiting> places;      // one more, to be filled before another is dropped
    std::size_t first = 0, count = 0; // of those that wait

    std::optional<Flight> flight;
    std::optional<std::uint64_t> on_screen; // which commit
    Deadline shown_at;                      // when the last was; the clock's start before the first

    std::size_t most_events;
    std::vector<Event> events; // a ring
    std::size_t oldest = 0, unread = 0;

    bool card_may_wait; // for in-fences, as far as its planes say
    UniqueFd loop;      // an epoll, once somebody has asked
    int watched = -1;
};

Error KmsPresenter::State::error(const char* operation, Errc code, std::string problem,
                                 std::string remedy) const {
    return {.code = code,
            .operation = operation,
            .object = output.name + " of " + describe(*output.device->file),
            .problem = std::move(problem),
            .remedy = std::move(remedy)};
}

void KmsPresenter::State::tell(Event&& event) {
    if (unread == most_events) {
        oldest = (oldest + 1) % most_events;
        --unread;
    }
    const std::size_t at = (oldest + unread++) % most_events;
    if (at == events.size())
        events.push_back(std::move(event));
    else
        events[at] = std::move(event);
}

std::optional<Event> KmsPresenter::State::next_event() {
    if (unread == 0)
        return std::nullopt;
    Event& event = events[oldest];
    oldest = (oldest + 1) % most_events;
    --unread;
    return std::move(event);
}

Result<void> KmsPresenter::State::check(const KmsCommit& commit, const char* operation) const {
    const auto moved_from = [](const SyncFile* fence) { return fence && !fence->valid(); };
    if ((commit.framebuffer == nullptr) == commit.layers.empty() ||
        std::ranges::find(commit.layers, nullptr, &KmsLayer::framebuffer) != commit.layers.end())
        return tl::unexpected(error(operation, Errc::invalid_argument,
                                    "there is nothing to show, or a layer shows nothing",
                                    "Give a framebuffer, or layers that each have one"));
    if (moved_from(commit.in_fence) ||
        std::ranges::any_of(commit.layers, moved_from, &KmsLayer::in_fence))
        return tl::unexpected(error(operation, Errc::wrong_object, "an in_fence was moved from",
                                    "Give the one that it was moved to"));
    return sys::success();
}

// ---- Flips --------------------------------------------------------------------------------------

std::uint32_t KmsPresenter::State::missed(const Flight& of, Deadline shown) const {
    if (period == period.zero())
        return 0;
    const Deadline from =
        std::max(of.info.due.value_or(std::max(of.handed_in, shown_at)), Deadline());
    if (from >= shown)
        return 0;
    // The first refresh after that is in time. Clocks are a little off.
    const auto late = std::max((shown - from - period / 8) / period, std::int64_t{0});
    return static_cast<std::uint32_t>(std::min(late, std::int64_t{UINT32_MAX}));
}

Result<void> KmsPresenter::State::land(const char* operation) {
    const auto ask = [&](const SyncFile& fence, FenceList& list) -> Result<bool> {
        const int errnum = list.read(fence.fd());
        if (errnum == 0)
            return !list.any_pending();
        Error failure = error(operation, sys::code_of_wrong_object(errnum),
                              "the fence of commit " + to_string(flight->info.id) + ", " +
                                  sys::describe_fd(fence.fd()) +
                                  ", does not tell its state: " + sys::errno_text(errnum),
                              "Leave fds that are not yours open");
        failure.sys_errno = errnum;
        return tl::unexpected(std::move(failure));
    };
    FenceList list;
    if (!flight->shown) {
        const auto done = ask(*flight->flip.out_fence, list);
        if (!done)
            return tl::unexpected(done.error());
        if (!*done)
            return sys::success();
        // One that failed is over too, as where the card has gone.
        const Deadline when(std::chrono::nanoseconds(list.fences().front().timestamp_ns));
        tell({.kind = Kind::shown,
              .id = flight->info.id,
              .time = when,
              .missed = missed(*flight, when),
              .fence = nullptr,
              .writeback_fence = flight->flip.writeback_fence,
              .error = std::nullopt});
        flight->shown = true;
        shown_at = when;
        on_screen = flight->info.id;
    }
    unwatch();
    if (flight->flip.writeback_fence) {
        const auto done = ask(*flight->flip.writeback_fence, list);
        if (!done)
            return tl::unexpected(done.error());
        if (!*done)
            return sys::success();
    }
    flight.reset();
    return sys::success();
}

Result<bool> KmsPresenter::State::start(const KmsCommit& commit, const KmsPresentInfo& info,
                                        Deadline handed_in, const char* operation) {
    KmsCommit wanted = commit;
    wanted.patience = {}; // it waits here, where nobody is blocked
    for (;;) {
        if (own_fence(commit) != nullptr)
            return false;
        const bool known = waits_here();
        auto flip = output.commit(wanted, operation);
        if (flip) {
            if (const auto id = std::exchange(on_screen, std::nullopt))
                tell({.kind = Kind::left,
                      .id = *id,
                      .time = {},
                      .missed = 0,
                      .fence = flip->out_fence,
                      .writeback_fence = nullptr,
                      .error = std::nullopt});
            flight = Flight{.info = info, .handed_in = handed_in, .flip = std::move(*flip)};
            return true;
        }
        // Where the card has just been found to wait for no fence, that was the reason.
        if (known == waits_here())
            return tl::unexpected(std::move(flip.error()));
    }
}

Result<void> KmsPresenter::State::start_next(const char* operation) {
    if (flight || count == 0)
        return sys::success();
    unwatch(); // what is waited for may be another fence by now
    while (count > 0 && !flight) {
        drop_overtaken();
        const Waiting& next = places[first];
        auto started = start(next.commit(), next.info, next.handed_in, operation);
        if (!started) {
            if (may_pass(started.error()))
                return tl::unexpected(std::move(started.error()));
            tell({.kind = Kind::refused,
                  .id = next.info.id,
                  .time = {},
                  .missed = 0,
                  .fence = nullptr,
                  .writeback_fence = nullptr,
                  .error = std::move(started.error())});
        } else if (!*started) {
            break;
        }
        drop_first();
    }
    return sys::success();
}

Result<void> KmsPresenter::State::advance(const char* operation) {
    if (flight)
        if (auto landed = land(operation); !landed)
            return landed;
    return start_next(operation);
}

// ---- Waiting ------------------------------------------------------------------------------------

const SyncFile* KmsPresenter::State::own_fence(const KmsCommit& commit) const {
    return waits_here() ? first_pending(commit) : nullptr;
}

const SyncFile* KmsPresenter::State::obstacle() const {
    if (flight)
        return flight->shown ? flight->flip.writeback_fence.get() : flight->flip.out_fence.get();
    return count > 0 ? own_fence(places[first].commit()) : nullptr;
}

Result<void> KmsPresenter::State::await(Deadline deadline, const char* operation) const {
    const SyncFile* fence = obstacle();
    if (fence == nullptr)
        return sys::success();
    const int ready = sys::poll_until(fence->fd(), POLLIN, deadline);
    if (ready > 0)
        return sys::success();
    const std::string id = to_string(flight ? flight->info.id : places[first].info.id);
    if (ready < 0)
        return tl::unexpected(sys::failed_call(errno, operation, output.name,
                                               "the fence of commit " + id + " cannot be polled",
                                               "Leave fds that are not yours open"));
    return tl::unexpected(
        error(operation, Errc::timed_out,
              !flight         ? "the in-fence of commit " + id + " was still pending"
              : flight->shown ? "the capture of commit " + id + " was still to be written"
                              : "commit " + id + " had not reached the screen",
              "Allow more time, or find out why the work behind its fences does not finish"));
}

void KmsPresenter::State::unwatch() noexcept {
    if (const int fd = std::exchange(watched, -1); fd >= 0)
        epoll_ctl(loop.get(), EPOLL_CTL_DEL, fd, nullptr);
}

Result<void> KmsPresenter::State::watch(const char* operation) {
    if (!loop || watched >= 0)
        return sys::success();
    const SyncFile* fence = obstacle();
    if (fence == nullptr)
        return sys::success();
    epoll_event event{.events = EPOLLIN, .data = {}};
    if (epoll_ctl(loop.get(), EPOLL_CTL_ADD, fence->fd(), &event) != 0)
        return tl::unexpected(sys::failed_call(
            errno, operation, output.name, "epoll does not watch the next flip's fence",
            "See /proc/sys/fs/epoll/max_user_watches; call dispatch() without waiting for fd()"));
    watched = fence->fd();
    return sys::success();
}

Result<int> KmsPresenter::State::event_loop_fd() {
    constexpr const char* operation = "KmsPresenter::fd";
    if (!loop) {
        loop = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
        if (!loop)
            return tl::unexpected(
                sys::failed_call(errno, operation, output.name, "epoll_create1 failed",
                                 "Close fds that are no longer used, or raise RLIMIT_NOFILE"));
    }
    if (auto watching = watch(operation); !watching)
        return tl::unexpected(std::move(watching.error()));
    return loop.get();
}

// ---- What is asked of it ------------------------------------------------------------------------

void KmsPresenter::State::drop_first() noexcept {
    places[first].clear();
    first = (first + 1) % places.size();
    --count;
}

void KmsPresenter::State::tell_dropped(std::size_t how_many) {
    for (; how_many > 0; --how_many) {
        tell({.kind = Kind::dropped,
              .id = places[first].info.id,
              .time = {},
              .missed = 0,
              .fence = nullptr,
              .writeback_fence = nullptr,
              .error = std::nullopt});
        unwatch();
        drop_first();
    }
}

// Where commits wait here for their fences, a stream of new ones must not keep each from the
// screen: the oldest stays until a newer one is ready, and of those after it the newest.
void KmsPresenter::State::drop_overtaken() {
    if (!newest_wins)
        return;
    std::size_t ready = count;
    while (ready > 0 && own_fence(waiting(ready - 1).commit()) != nullptr)
        --ready;
    if (ready > 0)
        tell_dropped(ready - 1);
    if (count <= room)
        return;
    std::swap(waiting(0), waiting(1)); // what they point at stays where it is
    tell_dropped(1);
}

Result<void> KmsPresenter::State::queue(const KmsCommit& commit, const KmsPresentInfo& info,
                                        Deadline now) {
    Waiting& place = waiting(count);
    if (auto taken = place.take(commit, info, now); !taken) {
        place.clear();
        return taken;
    }
    ++count;
    drop_overtaken();
    return sys::success();
}

Result<void> KmsPresenter::State::hand_in(const KmsCommit& commit, const KmsPresentInfo& info,
                                          Deadline deadline, const char* operation) {
    const Deadline now = Deadline::clock::now();
    bool advanced = false;
    for (; full(); advanced = true) {
        if (auto awaited = await(deadline, operation); !awaited)
            return awaited;
        if (auto done = advance(operation); !done)
            return done;
    }
    if (!advanced) { // whether it can be committed at once
        if (flight)
            if (auto landed = land(operation); !landed)
                return landed;
        if (!newest_wins)
            if (auto started = start_next(operation); !started)
                return started;
    }
    if (!flight && (count == 0 || newest_wins)) {
        auto started = start(commit, info, now, operation);
        if (started && *started) {
            tell_dropped(count);
            return sys::success();
        }
        // Then it is the turn of what waits.
        if (started || !may_pass(started.error()))
            if (auto next = start_next(operation); !next && started)
                return next;
        if (!started)
            return tl::unexpected(std::move(started.error()));
    }
    auto queued = queue(commit, info, now);
    if (!queued)
        queued.error().operation = operation;
    return queued;
}

Result<void> KmsPresenter::State::present(const KmsCommit& commit, const KmsPresentInfo& info,
                                          Deadline deadline) {
    constexpr const char* operation = "KmsPresenter::present";
    if (auto good = check(commit, operation); !good)
        return good;
    auto done = hand_in(commit, info, deadline, operation);
    // Whatever became of this one, others may be under way. What is taken is no failure.
    if (auto watching = watch(operation); !watching)
        log(watching.error());
    return done;
}

Result<std::shared_ptr<const SyncFile>> KmsPresenter::State::capture(const KmsFramebuffer& into) {
    constexpr const char* operation = "KmsPresenter::capture";
    if (auto done = dispatch(operation); !done)
        return tl::unexpected(std::move(done.error()));
    if (flight || count > 0)
        return tl::unexpected(error(operation, Errc::busy, "a commit is on its way to the screen",
                                    "Wait for it (finish), or have a commit ask for the capture"));
    auto fence = output.capture(into, operation);
    if (!fence)
        return fence;
    flight = Flight{.info = {.id = on_screen.value_or(0), .due = {}},
                    .handed_in = {},
                    .flip = {.out_fence = nullptr, .writeback_fence = *fence},
                    .shown = true};
    if (auto watching = watch(operation); !watching)
        log(watching.error());
    return fence;
}

Result<void> KmsPresenter::State::dispatch(const char* operation) {
    auto done = advance(operation);
    auto watching = watch(operation);
    return done ? watching : done;
}

Result<void> KmsPresenter::State::wait(Deadline deadline) {
    constexpr const char* operation = "KmsPresenter::wait";
    if (unread > 0)
        return dispatch(operation);
    if (!flight && count == 0)
        return tl::unexpected(error(operation, Errc::invalid_argument,
                                    "nothing is on its way to the screen",
                                    "Present something first"));
    while (unread == 0 && (flight || count > 0)) {
        if (auto awaited = await(deadline, operation); !awaited)
            return awaited;
        if (auto done = dispatch(operation); !done)
            return done;
    }
    return sys::success();
}

Result<void> KmsPresenter::State::finish(Deadline deadline) {
    constexpr const char* operation = "KmsPresenter::finish";
    while (pending() > 0) {
        if (auto awaited = await(deadline, operation); !awaited)
            return awaited;
        if (auto done = dispatch(operation); !done)
            return done;
    }
    return sys::success();
}

// ---- The door -----------------------------------------------------------------------------------

KmsPresenter::KmsPresenter(KmsOutput&& output, std::unique_ptr<State> state) noexcept
    : output_(std::move(output)), state_(std::move(state)) {}
KmsPresenter::KmsPresenter(KmsPresenter&&) noexcept = default;
KmsPresenter& KmsPresenter::operator=(KmsPresenter&&) noexcept = default;
KmsPresenter::~KmsPresenter() = default;

Result<KmsPresenter> KmsPresenter::create(KmsOutput&& output,
                                          const KmsPresenterInfo& info) noexcept {
    KmsOutput::State* shows_on = KmsOutput::State::of(output);
    if (shows_on == nullptr)
        return tl::unexpected(gone("KmsPresenter::create", "no output"));
    if (info.queue_length > most_waiting)
        return tl::unexpected(Error{.code = Errc::invalid_argument,
                                    .operation = "KmsPresenter::create",
                                    .object = output.name(),
                                    .problem = "a queue of " + to_string(info.queue_length) +
                                               " commits is more than " + to_string(most_waiting),
                                    .remedy = "Give 1 or 2, which is some hundredths of a second"});
    return KmsPresenter(std::move(output), std::make_unique<State>(*shows_on, info));
}

Result<void> KmsPresenter::present(const KmsCommit& commit, const KmsPresentInfo& info,
                                   Deadline deadline) noexcept {
    if (!state_)
        return tl::unexpected(gone("KmsPresenter::present", "no presenter"));
    return state_->present(commit, info, deadline);
}

Result<void> KmsPresenter::dispatch() noexcept {
    if (!state_)
        return tl::unexpected(gone("KmsPresenter::dispatch", "no presenter"));
    return state_->dispatch("KmsPresenter::dispatch");
}

Result<void> KmsPresenter::wait(Deadline deadline) noexcept {
    if (!state_)
        return tl::unexpected(gone("KmsPresenter::wait", "no presenter"));
    return state_->wait(deadline);
}

Result<void> KmsPresenter::finish(Deadline deadline) noexcept {
    if (!state_)
        return tl::unexpected(gone("KmsPresenter::finish", "no presenter"));
    return state_->finish(deadline);
}

std::optional<KmsPresentEvent> KmsPresenter::event() noexcept {
    return state_ ? state_->next_event() : std::nullopt;
}

Result<int> KmsPresenter::fd() noexcept {
    if (!state_)
        return tl::unexpected(gone("KmsPresenter::fd", "no presenter"));
    return state_->event_loop_fd();
}

Result<std::shared_ptr<const SyncFile>> KmsPresenter::capture(const KmsFramebuffer& into) noexcept {
    if (!state_)
        return tl::unexpected(gone("KmsPresenter::capture", "no presenter"));
    return state_->capture(into);
}

KmsOutput KmsPresenter::release() && noexcept {
    state_.reset();
    return std::move(output_);
}

std::size_t KmsPresenter::pending() const noexcept {
    return state_ ? state_->pending() : 0;
}

} // namespace sluice
