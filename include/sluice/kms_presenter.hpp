// SPDX-License-Identifier: MIT
/// \file
/// The loop that an application wants of a screen: hand in frames, have each flipped at the
/// display's pace, and be told when it was seen and when it may be drawn into again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include <sluice/deadline.hpp>
#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/kms_commit.hpp>
#include <sluice/kms_output.hpp>
#include <sluice/sync_file.hpp>

namespace sluice {

/// How frames follow one another, in Vulkan's words (VkPresentModeKHR).
enum class KmsPresentMode : std::uint8_t {
    fifo,    ///< Each is shown, in the order in which they were handed in.
    mailbox, ///< The newest is shown: those that still wait are dropped for it.
};

/// How to present.
struct KmsPresenterInfo {
    KmsPresentMode mode = KmsPresentMode::fifo;
    /// How many commits may wait beside the one that is on its way to the screen, with `fifo`; 0
    /// gives the shortest latency, 256 is the most.
    std::uint32_t queue_length = 1;
};

/// What goes with a commit that is handed in.
struct KmsPresentInfo {
    /// The caller's own number of it; the events name it.
    std::uint64_t id = 0;
    /// When it should be seen. Nothing waits for that: it is what `KmsPresentEvent::missed` is
    /// counted from. Default: the refresh after the one that the commit before was shown with, or
    /// the first after it was handed in, whichever is later.
    std::optional<Deadline> due;
};

/// What became of a commit that was handed in. Each is `shown` and, once the next one is on its
/// way, `left`, so that the last one never is; or it is `dropped` or `refused`.
struct KmsPresentEvent {
    enum class Kind : std::uint8_t {
        shown,   ///< It is on the screen, or was meant to be where the card has gone since.
        left,    ///< Its frames may be written once `fence` has signalled, but for those that a
                 ///< later commit shows again.
        dropped, ///< A newer one took its place. Its frames may be written.
        refused, ///< The card or `KmsOutput::commit` did not take it, as `error` says; its frames
                 ///< may be written.
    };
    Kind kind = Kind::shown;
    std::uint64_t id = 0; ///< As `KmsPresentInfo::id`.
    /// Of `shown`: when the screen began to show it, as the card tells (CLOCK_MONOTONIC).
    Deadline time;
    /// Of `shown`: by how many refreshes it came later than it was due; see `KmsPresentInfo::due`.
    /// 0 where the mode tells no rate.
    std::uint32_t missed = 0;
    /// Of `left`: the out-fence of the commit that replaces it. Never null there.
    std::shared_ptr<const SyncFile> fence;
    /// Of `shown`, where it asked for a capture: signals once that is written.
    std::shared_ptr<const SyncFile> writeback_fence;
    std::optional<Error> error; ///< Of `refused`.
};

/// Shows commits one after the other, each as soon as the one before is on the screen.
///
/// It has no thread: whoever calls `present`, `dispatch` or `wait` moves it on. So in a loop of its
/// own an application calls `present` with a deadline, which blocks where too many wait; with an
/// event loop it watches `fd()` and calls `dispatch()`; and asks `event()` after each.
///
/// A frame is kept alive from when it is handed in until it has left the screen. One whose owner
/// revokes it before it is on its way is `refused`. Destroying the presenter destroys the output;
/// what waits is shown no more.
///
/// While the display is another's (`not_master`), what waits stays, and goes on with the first
/// `dispatch` or `present` after drmSetMaster, but for commits that may not set the mode
/// (`KmsCommit::may_set_mode`), which are `refused`. Who presents nothing meanwhile calls
/// `reroute()` once it is back.
///
/// Threads: one object belongs to one thread at a time. One that was moved from has no events, and
/// refuses everything with `wrong_object`.
class SLUICE_API KmsPresenter {
public:
    /// \param output taken over on success. It must not be committed to by other means.
    /// \returns the presenter, or `wrong_object`: the output was moved from; or `invalid_argument`:
    ///   too long a queue.
    [[nodiscard]] static Result<KmsPresenter> create(KmsOutput&& output,
                                                     const KmsPresenterInfo& info = {}) noexcept;

    /// Hands in what the screen is to show next. Nothing under way: it is committed at once. Else
    /// it waits for its turn, with copies of its fences (one system call for each), and `dispatch`,
    /// `wait` or the next `present` commits it.
    ///
    /// Where the card does not wait for in-fences by itself (`KmsDevice::takes_in_fences`), a
    /// commit waits here for its own, `KmsCommit::patience` notwithstanding, so that no call
    /// blocks on it.
    /// \param commit borrowed for the call. With `KmsCommit::writeback` the next commit comes once
    ///   the capture is written.
    /// \param deadline how long to wait for room, with `fifo`; `mailbox` never waits.
    /// \returns nothing, and the commit is taken; or, and it is not,
    ///   - `timed_out`: no room at the deadline;
    ///   - as `KmsOutput::commit` where it was to be committed at once;
    ///   - `not_master`, `busy`, `device_lost`, `no_resources`: the card cannot be committed to
    ///   now,
    ///     also by what waits, which stays;
    ///   - `invalid_argument`, `wrong_object`: nothing to show, or a fence that was moved from;
    ///   - `no_resources`: no fd left for a copy of a fence.
    [[nodiscard]] Result<void> present(const KmsCommit& commit, const KmsPresentInfo& info,
                                       Deadline deadline) noexcept;

    /// Takes note of what has reached the screen, and commits what waits. Never blocks.
    /// \returns nothing, or `not_master`, `busy`, `device_lost` or `no_resources` as
    ///   `KmsOutput::commit`: what waits stays, and `fd()` does not tell when it may go on, so call
    ///   it again, for `busy` a refresh later; or `wrong_object`: a fence's fd was closed behind
    ///   our back.
    [[nodiscard]] Result<void> dispatch() noexcept;

    /// Waits until something has become of a commit, and dispatches; at once where an event is
    /// there to be asked for.
    /// \returns nothing, or `timed_out`; or `invalid_argument`: nothing is under way; or as
    ///   `dispatch`.
    [[nodiscard]] Result<void> wait(Deadline deadline) noexcept;

    /// Waits until all that was handed in is on the screen.
    /// \returns nothing, also where nothing was, or as `wait`.
    [[nodiscard]] Result<void> finish(Deadline deadline) noexcept;

    /// The next event, in the order in which things happened; nothing where there is none. 64 or
    /// more are kept, and all that one call makes: where nobody asks, the oldest go.
    [[nodiscard]] std::optional<KmsPresentEvent> event() noexcept;

    /// A fd for an event loop, readable (POLLIN) when `dispatch` has something to do. It stays the
    /// presenter's, and the same. From the first call on, each flip costs two system calls more
    /// (epoll_ctl).
    /// \returns it, or `no_resources`: no fd left.
    [[nodiscard]] Result<int> fd() noexcept;

    /// How many commits were handed in and are not on the screen yet.
    [[nodiscard]] std::size_t pending() const noexcept;

    /// Captures what the screen shows, as `KmsOutput::capture`; the next commit comes once it is
    /// written. \returns its fence, or as there, or `busy`: a commit is on its way.
    [[nodiscard]] Result<std::shared_ptr<const SyncFile>>
    capture(const KmsFramebuffer& into) noexcept;

    /// As `KmsOutput::reroute`: after somebody else may have changed the screen.
    void reroute() noexcept { output_.reroute(); }

    /// The output: its size, name, formats and planes; `KmsOutput::test` and `assign` may be asked
    /// at any time.
    [[nodiscard]] const KmsOutput& output() const noexcept { return output_; }

    /// Gives the output back, which goes on showing what it shows. What waits is shown no more, and
    /// the presenter is as if it were moved from.
    [[nodiscard]] KmsOutput release() && noexcept;

    KmsPresenter(KmsPresenter&&) noexcept;
    KmsPresenter& operator=(KmsPresenter&&) noexcept;
    ~KmsPresenter();

    struct State; ///< Not part of the API.

private:
    KmsPresenter(KmsOutput&& output, std::unique_ptr<State> state) noexcept;

    KmsOutput output_;
    std::unique_ptr<State> state_;
};

} // namespace sluice
