// SPDX-License-Identifier: MIT
#include "bridge.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <new>
#include <optional>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include <sluice/buffer_lock.hpp>
#include <sluice/implicit_sync.hpp>

#include "chain.hpp"
#include "core/sync_file_adopt.hpp"
#include "core/sys.hpp"

namespace sluice::layer {

namespace {

using namespace std::chrono_literals;

constexpr auto lock_patience = 1s; // others hold a buffer for as long as they submit
constexpr auto cpu_patience = 10s;
constexpr std::string_view no_memory_for_timelines =
    "no memory to follow a submission's timeline semaphores: fences that depend on them may come "
    "late";
constexpr std::string_view no_driver_fences =
    "the driver has no semaphores of SYNC_FD: buffers are not synchronised. Set sync_on_cpu to "
    "have them waited for on the CPU";
constexpr std::string_view no_kernel_fences =
    "this kernel neither gives nor takes buffers' fences (6.0 does): buffers are not synchronised. "
    "Set sync_on_cpu to have them waited for on the CPU";
constexpr std::size_t most_lost = 64; // semaphores of which a queue has no news, before we give up

// ---- The three kinds of submission, alike -------------------------------------------------------

/// Those whose semaphores' values are in a structure of their own.
template <typename Info> struct WithValuesApart {
    template <typename With> static void waits(const Info& info, With with) {
        const auto* values = values_of(info);
        for (std::uint32_t i = 0; i < info.waitSemaphoreCount; ++i)
            with(SemaphoreAt{.semaphore = info.pWaitSemaphores[i],
                             .value = values != nullptr && i < values->waitSemaphoreValueCount
                                          ? values->pWaitSemaphoreValues[i]
                                          : 0});
    }
    template <typename With> static void signals(const Info& info, With with) {
        const auto* values = values_of(info);
        for (std::uint32_t i = 0; i < info.signalSemaphoreCount; ++i)
            with(SemaphoreAt{.semaphore = info.pSignalSemaphores[i],
                             .value = values != nullptr && i < values->signalSemaphoreValueCount
                                          ? values->pSignalSemaphoreValues[i]
                                          : 0});
    }

private:
    static const VkTimelineSemaphoreSubmitInfo* values_of(const Info& info) {
        return find_in<VkTimelineSemaphoreSubmitInfo>(
            info.pNext, VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO);
    }
};

template <typename Info> struct Kind;

template <> struct Kind<VkSubmitInfo> : WithValuesApart<VkSubmitInfo> {
    static VkResult down(const DeviceFunctions& vk, const Queue& queue,
                         std::span<const VkSubmitInfo> infos, VkFence fence) {
        return vk.QueueSubmit(queue.handle, static_cast<std::uint32_t>(infos.size()), infos.data(),
                              fence);
    }
    static std::vector<VkSubmitInfo>& room(Queue& queue) { return queue.infos; }
    template <typename With> static void commands(const VkSubmitInfo& info, With with) {
        for (VkCommandBuffer each : std::span(info.pCommandBuffers, info.commandBufferCount))
            with(each);
    }
    static VkSubmitInfo wait(const Bracket& bracket, Bracket::Infos&) {
        static constexpr VkPipelineStageFlags everything = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
        return {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                .waitSemaphoreCount = 1,
                .pWaitSemaphores = &bracket.wait,
                .pWaitDstStageMask = &everything};
    }
    static VkSubmitInfo signal(const Bracket& bracket, Bracket::Infos&) {
        return {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                .signalSemaphoreCount = 1,
                .pSignalSemaphores = &bracket.signal};
    }
};

template <> struct Kind<VkSubmitInfo2> {
    static VkResult down(const DeviceFunctions&, const Queue& queue,
                         std::span<const VkSubmitInfo2> infos, VkFence fence) {
        return queue.submit_2(queue.handle, static_cast<std::uint32_t>(infos.size()), infos.data(),
                              fence);
    }
    static std::vector<VkSubmitInfo2>& room(Queue& queue) { return queue.infos2; }
    template <typename With> static void commands(const VkSubmitInfo2& info, With with) {
        for (const auto& each : std::span(info.pCommandBufferInfos, info.commandBufferInfoCount))
            with(each.commandBuffer);
    }
    template <typename With> static void waits(const VkSubmitInfo2& info, With with) {
        for (const auto& each : std::span(info.pWaitSemaphoreInfos, info.waitSemaphoreInfoCount))
            with(SemaphoreAt{.semaphore = each.semaphore, .value = each.value});
    }
    template <typename With> static void signals(const VkSubmitInfo2& info, With with) {
        for (const auto& each :
             std::span(info.pSignalSemaphoreInfos, info.signalSemaphoreInfoCount))
            with(SemaphoreAt{.semaphore = each.semaphore, .value = each.value});
    }
    static VkSubmitInfo2 wait(const Bracket& bracket, Bracket::Infos& infos) {
        infos.wait = everything(bracket.wait);
        return {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                .waitSemaphoreInfoCount = 1,
                .pWaitSemaphoreInfos = &infos.wait};
    }
    static VkSubmitInfo2 signal(const Bracket& bracket, Bracket::Infos& infos) {
        infos.signal = everything(bracket.signal);
        return {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                .signalSemaphoreInfoCount = 1,
                .pSignalSemaphoreInfos = &infos.signal};
    }

private:
    static VkSemaphoreSubmitInfo everything(VkSemaphore semaphore) {
        return {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
                .semaphore = semaphore,
                .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT};
    }
};

template <> struct Kind<VkBindSparseInfo> : WithValuesApart<VkBindSparseInfo> {
    static VkResult down(const DeviceFunctions& vk, const Queue& queue,
                         std::span<const VkBindSparseInfo> infos, VkFence fence) {
        return vk.QueueBindSparse(queue.handle, static_cast<std::uint32_t>(infos.size()),
                                  infos.data(), fence);
    }
    static std::vector<VkBindSparseInfo>& room(Queue& queue) { return queue.binds; }
    template <typename With> static void commands(const VkBindSparseInfo&, With) {}
    static VkBindSparseInfo wait(const Bracket& bracket, Bracket::Infos&) {
        return {.sType = VK_STRUCTURE_TYPE_BIND_SPARSE_INFO,
                .waitSemaphoreCount = 1,
                .pWaitSemaphores = &bracket.wait};
    }
    static VkBindSparseInfo signal(const Bracket& bracket, Bracket::Infos&) {
        return {.sType = VK_STRUCTURE_TYPE_BIND_SPARSE_INFO,
                .signalSemaphoreCount = 1,
                .pSignalSemaphores = &bracket.signal};
    }
};

/// Makes \p kept another fd of \p fence. What it was before is closed by the same call.
bool keep_another(UniqueFd& kept, const SyncFile& fence) {
    if (kept && dup3(fence.fd(), kept.get(), O_CLOEXEC) >= 0)
        return true;
    auto copy = UniqueFd::duplicate(fence.fd());
    if (copy)
        kept = std::move(*copy);
    return copy.has_value();
}

/// What both accesses together are.
Access both(Access a, Access b) noexcept {
    return static_cast<Access>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}

} // namespace

Bridge::Bridge(VkDevice device, const DeviceFunctions& functions, FenceSupport fences,
               bool emulates, const Tracker& tracker, const Recorder& recorder,
               Timelines& timelines, const Settings& settings, Report& report) noexcept
    : device_(device), vk_(functions), tracker_(tracker), recorder_(recorder),
      timelines_(timelines), mode_(settings.sync), on_cpu_(settings.sync_on_cpu),
      emulates_(emulates), validates_(settings.validate), report_(report),
      able_(fences.takes && fences.gives && functions.ImportSemaphoreFdKHR != nullptr &&
            functions.GetSemaphoreFdKHR != nullptr) {}

// ---- Who takes part -----------------------------------------------------------------------------

void Bridge::take_part(std::vector<Part>& parts, const Use& use) const {
    SharedMemoryPtr memory = use.memory.lock();
    if (memory == nullptr || memory->buffer() == nullptr)
        return; // nobody else has it
    auto part = std::ranges::find(parts, memory, &Part::memory);
    if (part == parts.end())
        part = parts.insert(parts.end(), Part{.memory = std::move(memory)});
    if (use.acquires) {
        part->waits_as = part->waits ? both(part->waits_as, use.access) : use.access;
        part->waits = true;
    }
    if (use.releases) {
        part->signals_as = part->signals ? both(part->signals_as, use.access) : use.access;
        part->signals = true;
    }
}

/// \returns whether any does.
template <typename Info> bool Bridge::collect(Queue& queue, std::span<const Info> infos) const {
    queue.parts.clear();
    if (mode_ != Settings::Sync::all)
        for (const Info& info : infos)
            Kind<Info>::commands(info, [&](VkCommandBuffer commands) {
                recorder_.for_each_use(commands,
                                       [&](const Use& use) { take_part(queue.parts, use); });
            });
    if (mode_ != Settings::Sync::ownership)
        tracker_.for_each([&](const SharedMemoryPtr& memory, bool once) {
            if (mode_ != Settings::Sync::all &&
                memory->has_barriers.load(std::memory_order_relaxed))
                return;
            // No command buffer has brought these.
            if (!once && std::ranges::find(queue.parts, memory, &Part::memory) != queue.parts.end())
                return;
            queue.parts.push_back({.memory = memory,
                                   .waits_as = Access::read_write,
                                   .signals_as = Access::read_write,
                                   .waits = true,
                                   .signals = true});
        });
    queue.buffers.clear();
    for (const Part& each : queue.parts)
        queue.buffers.push_back(each.memory->buffer());
    return !queue.parts.empty();
}

// ---- Semaphores ---------------------------------------------------------------------------------

bool Bridge::make_semaphore(VkSemaphore& semaphore, bool exportable) {
    if (semaphore != VK_NULL_HANDLE)
        return true;
    const VkExportSemaphoreCreateInfo as_sync_fd{
        .sType = VK_STRUCTURE_TYPE_EXPORT_SEMAPHORE_CREATE_INFO,
        .pNext = nullptr,
        .handleTypes = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT};
    const VkSemaphoreCreateInfo info{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
                                     .pNext = exportable ? &as_sync_fd : nullptr,
                                     .flags = 0};
    VkSemaphore made = VK_NULL_HANDLE; // what a call that fails leaves there is no handle
    if (vk_.CreateSemaphore(device_, &info, nullptr, &made) != VK_SUCCESS) {
        report_.once(Trouble::semaphore, "vkCreateSemaphore failed: a submission goes on without "
                                         "the fences of its buffers");
        return false;
    }
    semaphore = made;
    return true;
}

/// The bracket that comes next, which may be in use; null where there is none.
Bracket* Bridge::oldest_bracket(Queue& queue) {
    auto& ring = queue.brackets;
    while (!ring.empty()) {
        const auto at = ring.begin() + static_cast<std::ptrdiff_t>(queue.oldest);
        Bracket& oldest = **at;
        if (!oldest.in_use || !oldest.handed.load(std::memory_order_acquire) || !oldest.lost)
            return &oldest;
        queue.lost.push_back(std::move(*at));
        ring.erase(at);
        queue.oldest = ring.empty() ? 0 : queue.oldest % ring.size();
    }
    return nullptr;
}

Bracket& Bridge::take_bracket(Queue& queue, Bracket* free) {
    auto& ring = queue.brackets;
    if (free != nullptr) {
        free->done = SyncFile::signalled();
        free->in_use = false;
        free->handed.store(false, std::memory_order_relaxed);
    } else {
        auto made = std::make_unique<Bracket>();
        free = made.get();
        ring.insert(ring.begin() + static_cast<std::ptrdiff_t>(queue.oldest), std::move(made));
    }
    queue.oldest = (queue.oldest + 1) % ring.size();
    return *free;
}

/// Submissions of a queue end in their order, or so that waiting for the oldest costs little.
Bracket* Bridge::take_fences(Queue& queue) {
    queue.fences.clear();
    queue.polls.clear();
    for (const Part& part : queue.parts) {
        if (!part.waits)
            continue;
        auto fence = part.memory->buffer()->export_fence(part.waits_as);
        if (!fence) {
            report_.once(Trouble::export_fence, fence.error());
            continue;
        }
        if (fence->fd() < 0)
            continue;
        queue.trace.asked(*part.memory->buffer(), part.waits_as, *fence);
        queue.polls.push_back({.fd = fence->fd(), .events = POLLIN, .revents = 0});
        queue.fences.push_back(std::move(*fence));
    }
    Bracket* oldest = oldest_bracket(queue);
    bool free = oldest != nullptr && !oldest->in_use;
    if (oldest != nullptr && oldest->in_use && oldest->handed.load(std::memory_order_acquire)) {
        free = oldest->done.fd() < 0;
        if (!free)
            queue.polls.push_back({.fd = oldest->done.fd(), .events = POLLIN, .revents = 0});
    }
    if (queue.polls.empty())
        return free ? oldest : nullptr;
    if (sys::poll_now(std::span(queue.polls)) < 0) // to wait for what is done does no harm
        return free ? oldest : nullptr;
    if (queue.polls.size() > queue.fences.size())
        free = queue.polls.back().revents != 0;
    // What is done need not be waited for.
    std::size_t pending = 0;
    for (std::size_t i = 0; i < queue.fences.size(); ++i)
        if (queue.polls[i].revents == 0 && pending++ != i)
            queue.fences[pending - 1] = std::move(queue.fences[i]);
    queue.fences.erase(queue.fences.begin() + static_cast<std::ptrdiff_t>(pending),
                       queue.fences.end());
    return free ? oldest : nullptr;
}

bool Bridge::fill_wait(Queue& queue, Bracket& bracket) {
    if (queue.fences.empty())
        return false;
    SyncFile fence = std::move(queue.fences.front());
    if (queue.fences.size() > 1) {
        queue.fences.front() = std::move(fence);
        auto merged = SyncFile::merge(queue.fences);
        if (!merged) {
            report_.once(Trouble::merge, merged.error());
            // One that has failed meanwhile does not free us of the others.
            const Deadline patience = deadline_in(cpu_patience);
            for (const SyncFile& each : queue.fences)
                if (auto waited = each.wait(patience); !waited)
                    report_.once(Trouble::wait_on_cpu, waited.error());
            return false;
        }
        fence = std::move(*merged);
        if (fence.fd() < 0)
            return false;
    }
    if (!make_semaphore(bracket.wait, false))
        return false;
    // The driver's once it has taken it. A second fd tells what is on that number if it has not.
    if (!keep_another(queue.given, fence)) {
        report_.once(Trouble::semaphore, "no fd is left for the fences of a submission's buffers");
        return false;
    }
    const int number = SyncFileAdopt::give_up(std::move(fence)).release();
    const VkImportSemaphoreFdInfoKHR import{.sType = VK_STRUCTURE_TYPE_IMPORT_SEMAPHORE_FD_INFO_KHR,
                                            .pNext = nullptr,
                                            .semaphore = bracket.wait,
                                            .flags = VK_SEMAPHORE_IMPORT_TEMPORARY_BIT,
                                            .handleType =
                                                VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT,
                                            .fd = number};
    if (vk_.ImportSemaphoreFdKHR(device_, &import) == VK_SUCCESS) {
        queue.trace.waits(queue.fences, number, queue.given);
        return true;
    }
    sys::take_back(import.fd, queue.given.get());
    report_.once(Trouble::semaphore, "the driver takes no SYNC_FD into a semaphore: a submission "
                                     "goes on without the fences of its buffers");
    return false;
}

void Bridge::hand_over(Bracket& bracket, std::span<const Part> parts) {
    const VkSemaphoreGetFdInfoKHR get{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_GET_FD_INFO_KHR,
                                      .pNext = nullptr,
                                      .semaphore = bracket.signal,
                                      .handleType = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT};
    int fd = -1;
    if (vk_.GetSemaphoreFdKHR(device_, &get, &fd) != VK_SUCCESS) {
        report_.once(Trouble::hand_over, "vkGetSemaphoreFdKHR failed: who uses the buffers of a "
                                         "submission next does not wait for it");
        bracket.lost = true;
        bracket.trace.done_by(SyncFile::signalled()); // nobody can tell when
        bracket.handed.store(true, std::memory_order_release);
        return;
    }
    // -1 stands for one that has signalled.
    SyncFile fence = fd < 0 ? SyncFile::signalled() : SyncFileAdopt::adopt(UniqueFd(std::move(fd)));
    for (const Part& part : parts)
        if (part.signals) {
            if (auto left = part.memory->buffer()->import_fence(fence, part.signals_as); !left)
                report_.once(Trouble::import_fence, left.error());
            else
                bracket.trace.left_in(*part.memory->buffer(), part.signals_as);
        }
    bracket.trace.done_by(fence);
    bracket.done = std::move(fence);
    bracket.handed.store(true, std::memory_order_release);
}

// ---- On the CPU ---------------------------------------------------------------------------------

bool Bridge::make_fence(VkFence& fence) {
    if (fence != VK_NULL_HANDLE)
        return vk_.ResetFences(device_, 1, &fence) == VK_SUCCESS;
    const VkFenceCreateInfo info{
        .sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO, .pNext = nullptr, .flags = 0};
    VkFence made = VK_NULL_HANDLE;
    if (vk_.CreateFence(device_, &info, nullptr, &made) != VK_SUCCESS)
        return false;
    fence = made;
    return true;
}

void Bridge::wait_until_idle(Queue& queue) {
    if (!make_fence(queue.idle) ||
        vk_.QueueSubmit(queue.handle, 0, nullptr, queue.idle) != VK_SUCCESS) {
        report_.once(Trouble::wait_on_cpu, "a submission cannot be waited for: who uses its "
                                           "buffers next does not wait for it");
        return;
    }
    const auto patience = std::chrono::nanoseconds(cpu_patience).count();
    if (vk_.WaitForFences(device_, 1, &queue.idle, VK_TRUE, static_cast<std::uint64_t>(patience)) ==
        VK_SUCCESS)
        return;
    report_.once(Trouble::wait_on_cpu, "a submission was not done within 10 s: who uses its "
                                       "buffers next does not wait for it");
    queue.lost_fences.push_back(std::exchange(queue.idle, VK_NULL_HANDLE));
}

/// Where the driver has no fences to exchange, nobody but us can wait: first for the buffers, then
/// for what was submitted, so that there is nothing left to wait for.
template <typename Info>
VkResult Bridge::run_on_cpu(Queue& queue, std::span<const Info> infos, VkFence fence) {
    queue.lost_fences.reserve(queue.lost_fences.size() + 1); // before it is too late to go on
    const Deadline patience = deadline_in(cpu_patience);
    for (const Part& each : queue.parts)
        if (each.waits)
            if (auto waited = each.memory->buffer()->wait(each.waits_as, patience); !waited)
                report_.once(Trouble::wait_on_cpu, waited.error());
    plan(queue, infos, nullptr);
    const VkResult result = Kind<Info>::down(vk_, queue, infos, fence);
    const bool on_its_way = settle(queue, result);
    if (result != VK_SUCCESS || std::ranges::none_of(queue.parts, &Part::signals))
        return result;
    if (on_its_way)
        wait_until_idle(queue);
    else
        report_.once(Trouble::deferred,
                     "a submission waits for a timeline semaphore's value that is still to be "
                     "submitted, and cannot be waited for: who uses its buffers next does not "
                     "wait for it");
    return result;
}

// ---- Submissions --------------------------------------------------------------------------------

/// Whether fences come out of buffers and go into them. Asked once; who cannot be asked is tried.
bool Bridge::kernel_is_able(const DmaBuf& any) {
    Kernel known = kernel_.load(std::memory_order_relaxed);
    if (known == Kernel::unknown) {
        const auto caps = implicit_sync_caps(any);
        known = !caps || (caps->export_fence && caps->import_fence) ? Kernel::able : Kernel::unable;
        kernel_.store(known, std::memory_order_relaxed);
    }
    return known == Kernel::able;
}

template <typename Info>
VkResult Bridge::as_it_is(Queue& queue, std::span<const Info> infos, VkFence fence) {
    if (!timelines_.any() || (mode_ == Settings::Sync::off && !validates_))
        return Kind<Info>::down(vk_, queue, infos, fence);
    try {
        plan(queue, infos, nullptr);
    } catch (const std::bad_alloc&) {
        queue.plan.signals.clear();
        queue.plan.later.clear();
        report_.once(Trouble::no_memory, no_memory_for_timelines);
    }
    const VkResult result = Kind<Info>::down(vk_, queue, infos, fence);
    settle(queue, result);
    return result;
}

/// Whether \p signals are all that \p wait needs.
bool are_enough(std::span<const SemaphoreAt> signals, const SemaphoreAt& wait) {
    return std::ranges::any_of(signals, [&](const SemaphoreAt& each) {
        return each.semaphore == wait.semaphore && each.value >= wait.value;
    });
}

/// Finds which of a submission's batches are on their way, and what it has to wait for before all
/// of it is. All memory that this needs is taken here.
template <typename Info>
void Bridge::plan(Queue& queue, std::span<const Info> infos, Bracket* bracket) {
    Plan& plan = queue.plan;
    plan.signals.clear();
    plan.later.clear();
    if (!timelines_.any())
        return;
    const auto defer = [&] {
        if (plan.later.empty())
            plan.later.push_back({.bracket = bracket,
                                  .parts = bracket != nullptr ? queue.parts : std::vector<Part>(),
                                  .waits = {},
                                  .signals = {}});
    };
    // What comes later on a queue depends on what came before. Only who submits to it, as here,
    // defers anything of it.
    if (is_behind()) {
        const std::scoped_lock held(queue.lock);
        if (!queue.deferred.empty())
            defer();
    }
    for (const Info& info : infos) {
        Kind<Info>::waits(info, [&](const SemaphoreAt& at) {
            if (are_enough(plan.signals, at) ||
                (!plan.later.empty() && are_enough(plan.later.front().signals, at)))
                return;
            const OpenWait wait = timelines_.wait_of(at);
            if (!timelines_.is_on_its_way(wait)) {
                defer();
                plan.later.front().waits.push_back(wait);
            }
        });
        Kind<Info>::signals(info, [&](const SemaphoreAt& at) {
            (plan.later.empty() ? plan.signals : plan.later.front().signals).push_back(at);
        });
    }
}

/// What was planned has come to \p result. \returns whether it is on its way: its fence may be had.
bool Bridge::settle(Queue& queue, VkResult result) noexcept {
    Plan& plan = queue.plan;
    if (result != VK_SUCCESS)
        return false;
    for (const SemaphoreAt& at : plan.signals)
        timelines_.signalled(at);
    if (plan.later.empty())
        return true;
    if (Bracket* bracket = plan.later.front().bracket; bracket != nullptr)
        bracket->trace.deferred();
    const std::scoped_lock held(queue.lock);
    queue.deferred.splice(queue.deferred.end(), plan.later);
    deferred_.fetch_add(1, std::memory_order_relaxed);
    return false;
}

template <typename Info>
VkResult Bridge::run(Queue& queue, std::span<const Info> infos, VkFence fence) {
    using Of = Kind<Info>;
    const auto traced = queue.trace.call(infos);
    if (!tracker_.active() || mode_ == Settings::Sync::off)
        return as_it_is(queue, infos, fence);

    // Who frees the memory must find nobody else holding its buffer, or its fences.
    const struct Forget {
        Queue& of;
        ~Forget() {
            of.parts.clear();
            of.fences.clear();
        }
    } forget{queue};
    std::optional<BufferLock> lock;
    Bracket* bracket = nullptr;
    Bracket::Infos own{};
    std::vector<Info>& room = Of::room(queue);
    bool signals = false;
    try {
        if (!collect(queue, infos))
            return as_it_is(queue, infos, fence);
        const bool able = able_ && kernel_is_able(*queue.buffers.front());
        if (!able && !on_cpu_) {
            if (!emulates_)
                report_.once(Trouble::no_sync_fd, able_ ? no_kernel_fences : no_driver_fences);
            return as_it_is(queue, infos, fence);
        }
        // Others that submit with the same buffers come before or after, not in between.
        if (auto taken = BufferLock::acquire(queue.buffers, deadline_in(lock_patience)))
            lock = std::move(*taken);
        else
            report_.once(Trouble::lock, taken.error());
        if (!able)
            return run_on_cpu(queue, infos, fence);
        if (queue.lost.size() >= most_lost) {
            report_.once(Trouble::given_up, "the driver has given no fence for many submissions of "
                                            "a queue: its buffers are not synchronised any more");
            return as_it_is(queue, infos, fence);
        }
        room.reserve(infos.size() + 2);
        bracket = &take_bracket(queue, take_fences(queue));
        bracket->trace = queue.trace.submission();
        const bool waits = fill_wait(queue, *bracket);
        // Where it waits it signals too: that tells when the semaphores may be used again.
        signals = (waits || std::ranges::any_of(queue.parts, &Part::signals)) &&
                  make_semaphore(bracket->signal, true);
        plan(queue, infos, signals ? bracket : nullptr);
        room.clear();
        if (waits)
            room.push_back(Of::wait(*bracket, own));
        room.insert(room.end(), infos.begin(), infos.end());
        if (signals)
            room.push_back(Of::signal(*bracket, own));
        bracket->in_use = waits || signals;
    } catch (const std::bad_alloc&) {
        report_.once(Trouble::no_memory, "no memory for the fences of a submission's buffers: it "
                                         "goes on without them");
        return as_it_is(queue, infos, fence);
    }

    const VkResult result = Of::down(vk_, queue, std::span<const Info>(room), fence);
    const bool on_its_way = settle(queue, result);
    if (result == VK_ERROR_OUT_OF_HOST_MEMORY || result == VK_ERROR_OUT_OF_DEVICE_MEMORY) {
        // Nothing was done, to the semaphores either. Perhaps it was for what we have added.
        bracket->in_use = false;
        return room.size() == infos.size() ? result : as_it_is(queue, infos, fence);
    }
    if (result != VK_SUCCESS || !signals) {
        // Nobody knows what is in the semaphores, or when they are free.
        bracket->lost = bracket->in_use;
        bracket->handed.store(true, std::memory_order_release);
        return result;
    }
    if (on_its_way)
        hand_over(*bracket, queue.parts);
    else
        report_.once(Trouble::deferred,
                     "a submission waits for a timeline semaphore's value that is still to be "
                     "submitted: its fence comes into the buffers once that is");
    return result;
}

VkResult Bridge::submit(Queue& queue, std::span<const VkSubmitInfo> infos, VkFence fence) {
    return run(queue, infos, fence);
}

VkResult Bridge::submit(Queue& queue, std::span<const VkSubmitInfo2> infos, VkFence fence,
                        PFN_vkQueueSubmit2 function) {
    queue.submit_2 = function;
    return run(queue, infos, fence);
}

VkResult Bridge::bind_sparse(Queue& queue, std::span<const VkBindSparseInfo> infos, VkFence fence) {
    return run(queue, infos, fence);
}

bool Bridge::catch_up(Queue& queue) {
    std::unique_lock held(queue.lock);
    queue.look_again = true;
    if (queue.looking)
        return false; // who looks does it
    queue.looking = true;
    bool any = false;
    while (std::exchange(queue.look_again, false) && !queue.deferred.empty()) {
        Deferred& next = queue.deferred.front(); // which only who looks takes away
        held.unlock();
        std::erase_if(next.waits,
                      [&](const OpenWait& wait) { return timelines_.is_on_its_way(wait); });
        const bool ready = next.waits.empty();
        if (ready) {
            if (next.bracket != nullptr)
                hand_over(*next.bracket, next.parts);
            for (const SemaphoreAt& at : next.signals)
                timelines_.signalled(at);
        }
        held.lock();
        if (ready) {
            queue.deferred.pop_front();
            deferred_.fetch_sub(1, std::memory_order_release);
            queue.look_again = any = true;
        }
    }
    queue.looking = false;
    return any;
}

void Bridge::destroy(Queue& queue) noexcept {
    // The application knows of the end of its own batches, not of ours.
    const auto in_use = [](const auto& each) { return each->in_use; };
    if (std::ranges::any_of(queue.brackets, in_use) || std::ranges::any_of(queue.lost, in_use))
        (void)vk_.QueueWaitIdle(queue.handle);
    for (const auto* all : {&queue.brackets, &queue.lost})
        for (const auto& each : *all)
            for (VkSemaphore semaphore : {each->wait, each->signal})
                if (semaphore != VK_NULL_HANDLE)
                    vk_.DestroySemaphore(device_, semaphore, nullptr);
    for (VkFence each : queue.lost_fences)
        vk_.DestroyFence(device_, each, nullptr);
    if (queue.idle != VK_NULL_HANDLE)
        vk_.DestroyFence(device_, queue.idle, nullptr);
}

} // namespace sluice::layer
