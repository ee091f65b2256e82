// SPDX-License-Identifier: MIT
/// \file
/// What the Vulkan layer adds to a submission, beside none and beside the same written by hand.
///
/// Most rows have no driver below the layer (quick_layer.hpp), since one would hide what is
/// measured; the others have lavapipe. Where the kernel has no dma-bufs, memfds stand for them, and
/// for their fences eventfds.
#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <dlfcn.h>
#include <malloc.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <vulkan/vk_layer.h>
#include <vulkan/vulkan.h>

#include <sluice/dma_buf.hpp>

#include "kernel_objects.hpp"
#include "layer/fake_icd.hpp"
#include "layer/hand_loader.hpp"
#include "layer_app.hpp"
#include "layer_by_hand.hpp"
#include "memfd_fences.hpp"
#include "memfds.hpp"
#include "quick_layer.hpp"
#include "side_by_side.hpp"
#include "support/allocations.hpp"

namespace {

using bench::LayerApp;
using bench::left_out;
using bench::SideBySide;
using sluice::Access;
using sluice::DmaBuf;
using sluice::SyncFile;
using sluice::test::FakeIcd;
using sluice::test::HandLoader;

constexpr const char* layer_name = "VK_LAYER_SLUICE_dma_buf";
constexpr double added_goal = 30;     // nanoseconds for each submission, where nothing is tracked
constexpr double by_hand_goal = 1.10; // of a submission with tracked buffers
constexpr std::ptrdiff_t heap_goal = 1024; // bytes for each tracked buffer
constexpr std::uint64_t page = 4096;
constexpr std::size_t buffer_counts[] = {1, 8, 64};
constexpr int lag = 16;

/// Whether buffers are dma-bufs, with fences in them.
bool real_buffers = false;
/// Whether the made-up driver or loader has had to complain.
bool complained = false;

void complain(const std::string& what) {
    std::puts(what.c_str());
    complained = true;
}

/// As many fds as may be, or as the rows need where root may have more.
void allow_fds() {
    rlimit files{};
    getrlimit(RLIMIT_NOFILE, &files);
    const rlimit wanted{.rlim_cur = 4096, .rlim_max = std::max<rlim_t>(files.rlim_max, 4096)};
    if (setrlimit(RLIMIT_NOFILE, &wanted) == 0)
        return;
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

/// Whether another processor plays this one: its nanoseconds are not what a goal is about.
bool is_emulated() {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);)
        if (line.starts_with("model name") && line.find("TCG") != std::string::npos)
            return true;
    return false;
}

std::optional<DmaBuf> make_buffer() {
    return real_buffers ? bench::udmabuf(page) : bench::memfd(page);
}

/// \returns whether there are buffers to measure with.
bool prepare_kernel() {
    real_buffers = bool(bench::udmabuf(page));
    if (real_buffers)
        return true;
    bench::let_memfds_pass();
    return bench::let_memfds_have_fences();
}

HandLoader::Negotiate find_layer() {
    void* module = dlopen(SLUICE_LAYER_MODULE, RTLD_NOW | RTLD_LOCAL); // stays
    void* found =
        module != nullptr ? dlsym(module, "vkNegotiateLoaderLayerInterfaceVersion") : nullptr;
    return reinterpret_cast<HandLoader::Negotiate>(found);
}

/// The layer's setting, for instances that are made from here on.
void set_sync(const char* mode) {
    setenv("VK_SLUICE_DMA_BUF_SYNC", mode, 1);
}

/// One submission by an application.
struct Submission {
    PFN_vkQueueSubmit submit;
    VkQueue queue;
    bool busy = false;
    int lag = 0;
    VkCommandBuffer commands = VK_NULL_HANDLE;
    PFN_vkQueueWaitIdle wait_idle = nullptr; // of a driver that does something

    void prepare() const {
        bench::let_memfds_be_busy(busy);
        (void)bench::quick::lag_behind(lag);
        if (wait_idle != nullptr)
            wait_idle(queue);
    }
    bool operator()() const {
        const VkSubmitInfo info{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                                .commandBufferCount = commands != VK_NULL_HANDLE ? 1U : 0U,
                                .pCommandBuffers = &commands};
        return submit(queue, 1, &info, VK_NULL_HANDLE) == VK_SUCCESS;
    }
};

/// The same with VkSubmitInfo2.
struct Submission2 {
    PFN_vkQueueSubmit2 submit;
    VkQueue queue;

    bool operator()() const {
        const VkSubmitInfo2 info{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2};
        return submit(queue, 1, &info, VK_NULL_HANDLE) == VK_SUCCESS;
    }
};

/// One by an application that has no layer and does what the layer does.
struct ByHand {
    by_hand::Bracketed* bracketed;
    Submission submission;

    void prepare() const { submission.prepare(); }
    bool operator()() const {
        const VkSubmitInfo info{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                                .commandBufferCount =
                                    submission.commands != VK_NULL_HANDLE ? 1U : 0U,
                                .pCommandBuffers = &submission.commands};
        return bracketed->submit({&info, 1}, VK_NULL_HANDLE) == 0;
    }
};

/// Buffers, and fences in them where those are to be had.
struct Buffers {
    std::vector<DmaBuf> all;
    std::vector<SyncFile> fences;

    [[nodiscard]] std::vector<int> fds(std::size_t count) const {
        std::vector<int> some;
        for (std::size_t i = 0; i < count; ++i)
            some.push_back(all[i].fd());
        return some;
    }
};

/// \param busy whether others are at work with them. \returns nothing where there are none.
std::optional<Buffers> make_buffers(std::size_t count, bool busy) {
    Buffers made;
    for (std::size_t i = 0; i < count; ++i) {
        auto buffer = make_buffer();
        if (!buffer)
            return std::nullopt;
        if (busy && real_buffers) {
            auto fence = bench::pending_fence();
            if (!fence || !buffer->import_fence(*fence, Access::write))
                return std::nullopt;
            made.fences.push_back(std::move(*fence));
        }
        made.all.push_back(std::move(*buffer));
    }
    return made;
}

/// Has the driver that is none give fences that have signalled. Of real ones, those of the first of
/// \p idle buffers.
bool give_a_signalled_fence(const Buffers& idle) {
    if (!real_buffers) {
        bench::quick::give(bench::signalled_stand_in());
        return true;
    }
    auto fence = idle.all[0].export_fence(Access::read_write);
    if (!fence)
        return false;
    static const SyncFile kept = std::move(*fence);
    bench::quick::give(kept.fd());
    return true;
}

/// The made-up driver, with the layer or without. Everything lives as long as the rows.
class Bench {
public:
    explicit Bench(SideBySide& rows) : rows_(rows) {}

    /// \returns whether none is missing that should be there.
    bool add_quick_rows();
    bool add_lavapipe_rows();

private:
    LayerApp* app(PFN_vkGetInstanceProcAddr get, const char* sync, const char* layer = nullptr) {
        set_sync(sync);
        return &apps_.emplace_back(get, layer);
    }
    bool add_bracketed(bool busy);
    bool add_recorded();
    by_hand::Bracketed* by_hand(const LayerApp& above, std::vector<int> fds) {
        return &by_hand_.emplace_back(above.vk, above.device, above.queue, std::move(fds),
                                      bench::quick::QueueSubmit, bench::quick::ImportSemaphoreFdKHR,
                                      bench::quick::GetSemaphoreFdKHR);
    }

    SideBySide& rows_;
    std::deque<Buffers> buffers_;
    std::deque<LayerApp> apps_;
    std::deque<by_hand::Bracketed> by_hand_;
};

bool Bench::add_bracketed(bool busy) {
    auto made = make_buffers(buffer_counts[2], busy);
    if (!made)
        return left_out(busy ? "pending fences" : "buffers", "the kernel has none (sw_sync, root)");
    const Buffers& buffers = buffers_.emplace_back(std::move(*made));
    for (const std::size_t count : buffer_counts) {
        LayerApp& above = *app(HandLoader::get_instance_proc_addr, "auto");
        const auto fds = buffers.fds(count);
        for (const int each : fds)
            if (!above.import(each))
                return left_out("a row", "a buffer is not taken");
        const std::string name = std::to_string(count) + (count == 1 ? " buffer, " : " buffers, ");
        by_hand::Bracketed* beside = by_hand(above, fds);
        const Submission layered{
            .submit = above.vk.QueueSubmit, .queue = above.queue, .busy = busy};
        rows_.add({.name = "submit, " + name + (busy ? "busy" : "idle"), .goal = by_hand_goal},
                  layered, ByHand{.bracketed = beside, .submission = layered});
        if (count > 1 || busy || real_buffers)
            continue;
        Submission late = layered;
        late.lag = lag;
        rows_.add({.name = "submit, 1 buffer, idle, " + std::to_string(lag) + " in flight",
                   .goal = by_hand_goal},
                  late, ByHand{.bracketed = by_hand(above, fds), .submission = late});
    }
    return true;
}

/// Many buffers of which the application says when it uses them.
bool Bench::add_recorded() {
    constexpr std::size_t count = 64;
    auto made = make_buffers(count, false);
    if (!made)
        return left_out("buffers", "the kernel has none");
    const Buffers& buffers = buffers_.emplace_back(std::move(*made));
    LayerApp& above = *app(HandLoader::get_instance_proc_addr, "auto");
    for (const int each : buffers.fds(count))
        if (!above.import(each))
            return left_out("a row", "a buffer is not taken");
    (void)above.record(above.imported);
    const Submission none{
        .submit = above.vk.QueueSubmit, .queue = above.queue, .commands = above.record({})};
    Submission below = none;
    below.submit = bench::quick::QueueSubmit;
    rows_.add({.name = "submit, 0 of 64 by barriers; no layer"}, none, below);
    Submission one = none;
    one.commands = above.record({above.imported.data(), 1});
    rows_.add({.name = "submit, 1 of 64 by barriers", .goal = by_hand_goal}, one,
              ByHand{.bracketed = by_hand(above, buffers.fds(1)), .submission = one});
    return true;
}

bool Bench::add_quick_rows() {
    LayerApp& off = *app(HandLoader::get_instance_proc_addr, "off");
    LayerApp& nothing = *app(HandLoader::get_instance_proc_addr, "auto");
    if (!off.problem().empty() || !nothing.problem().empty())
        return left_out("the driver that is none", (off.problem() + nothing.problem()).c_str());
    auto one = make_buffers(1, false);
    if (!one || !off.import(one->all[0].fd()))
        return left_out("everything", "there are no buffers");
    if (!give_a_signalled_fence(*one))
        return left_out("everything", "the kernel exports no fences from buffers (6.0 does)");
    buffers_.push_back(std::move(*one));

    const double added = is_emulated() ? bench::no_goal : added_goal;
    const Submission without{.submit = bench::quick::QueueSubmit, .queue = nothing.queue};
    rows_.add({.name = "(no layer beside itself)", .added = added}, without, without);
    rows_.add({.name = "submit, sync=off; no layer", .added = added},
              Submission{.submit = off.vk.QueueSubmit, .queue = off.queue}, without);
    rows_.add({.name = "submit, nothing tracked; no layer", .added = added},
              Submission{.submit = nothing.vk.QueueSubmit, .queue = nothing.queue}, without);
    rows_.add({.name = "submit2, nothing tracked; no layer", .added = added},
              Submission2{.submit = nothing.vk.QueueSubmit2, .queue = nothing.queue},
              Submission2{.submit = bench::quick::QueueSubmit2, .queue = nothing.queue});
    bool complete = add_bracketed(false);
    complete = add_bracketed(true) && complete;
    return add_recorded() && complete;
}

bool Bench::add_lavapipe_rows() {
    setenv("VK_LAYER_PATH", SLUICE_LAYER_MANIFESTS, 1);
    LayerApp& without = *app(vkGetInstanceProcAddr, "auto");
    LayerApp& off = *app(vkGetInstanceProcAddr, "off", layer_name);
    LayerApp& nothing = *app(vkGetInstanceProcAddr, "auto", layer_name);
    for (const LayerApp* each : {&without, &off, &nothing})
        if (!each->problem().empty())
            return left_out("a real driver", each->problem().c_str());
    std::printf("rows of a real driver: %s\n", without.name().c_str());
    const auto of = [](const LayerApp& each) {
        return Submission{
            .submit = each.vk.QueueSubmit, .queue = each.queue, .wait_idle = each.vk.QueueWaitIdle};
    };
    rows_.add({.name = "driver: submit, sync=off; no layer", .counted = false}, of(off),
              of(without));
    rows_.add({.name = "driver: submit, nothing tracked; no layer", .counted = false}, of(nothing),
              of(without));
    if (!real_buffers || without.vk.GetSemaphoreFdKHR == nullptr)
        return left_out("a real driver's submissions with buffers",
                        "the driver or the buffers have no fences");
    auto made = make_buffers(buffer_counts[2], false);
    if (!made)
        return left_out("buffers", "the kernel has none");
    const Buffers& buffers = buffers_.emplace_back(std::move(*made));
    for (const std::size_t count : buffer_counts) {
        LayerApp& above = *app(vkGetInstanceProcAddr, "auto", layer_name);
        for (const int each : buffers.fds(count))
            if (!above.import(each))
                return left_out("a row", "a buffer is not taken");
        by_hand::Bracketed& beside = by_hand_.emplace_back(
            without.vk, without.device, without.queue, buffers.fds(count), without.vk.QueueSubmit,
            without.vk.ImportSemaphoreFdKHR, without.vk.GetSemaphoreFdKHR);
        rows_.add({.name = "driver: submit, " + std::to_string(count) +
                           (count == 1 ? " buffer" : " buffers"),
                   .goal = by_hand_goal,
                   .counted = false},
                  of(above), ByHand{.bracketed = &beside, .submission = of(without)});
    }
    return true;
}

/// Prints what memory of ours a tracked buffer takes, with a VkBuffer in it.
/// \returns whether it keeps to the goal.
bool report_heap() {
    constexpr std::ptrdiff_t count = 256;
    const LayerApp app(HandLoader::get_instance_proc_addr);
    const sluice::test::DeviceFunctions below(
        reinterpret_cast<PFN_vkGetDeviceProcAddr>(
            FakeIcd::get_instance_proc_addr(app.instance, "vkGetDeviceProcAddr")),
        app.device);
    const auto buffers = make_buffers(count, false);
    const auto take = [&](const sluice::test::DeviceFunctions& with) -> std::ptrdiff_t {
        std::vector<LayerApp::Imported> made(count);
        const std::ptrdiff_t before = sluice::test::live_bytes();
        bool whole = true;
        for (std::size_t i = 0; i < made.size(); ++i)
            whole = whole && app.import(with, buffers->all[i].fd(), made[i]);
        const std::ptrdiff_t after = sluice::test::live_bytes();
        for (const auto& each : made)
            app.destroy(with, each);
        return whole ? after - before : -1;
    };
    if (!buffers)
        return false;
    (void)take(app.vk); // the tables have grown
    const std::ptrdiff_t driver = take(below);
    const std::ptrdiff_t both = take(app.vk);
    const std::ptrdiff_t each = (both - driver) / count;
    const bool met = driver >= 0 && both >= 0 && each <= heap_goal;
    std::printf("heap for each tracked buffer and a VkBuffer in it: %td bytes (goal: <= %td %s)\n",
                each, heap_goal, met ? "met" : "MISSED");
    return met;
}

// ---- Runs without rows --------------------------------------------------------------------------

struct Footprint {
    long fds = 0, pages = 0;
    std::ptrdiff_t blocks = 0, bytes = 0; // of operator new
    std::size_t heap = 0;                 // of malloc

    static Footprint now() {
        Footprint all;
        for (const auto& each : std::filesystem::directory_iterator("/proc/self/fd"))
            all.fds += each.path().empty() ? 0 : 1;
        std::ifstream status("/proc/self/statm");
        long whole = 0;
        status >> whole >> all.pages;
        all.blocks = sluice::test::live_allocations();
        all.bytes = sluice::test::live_bytes();
        all.heap = mallinfo2().uordblks;
        return all;
    }
    void print(long submissions) const {
        std::printf("%9ld submissions: %ld fds, %td blocks, %td bytes, heap %zu bytes, %ld pages\n",
                    submissions, fds, blocks, bytes, heap, pages);
        std::fflush(stdout);
    }
};

/// Submissions of all kinds, one after the other, with some in flight. \returns the exit status.
int run_long(const LayerApp& app, long count) {
    if (!app.problem().empty() || app.imported.size() < 2) {
        std::puts(app.problem().c_str());
        return 1;
    }
    VkCommandBuffer by_barriers = app.record({app.imported.data(), app.imported.size() / 2});
    // All that is in turns below is at the same point then.
    constexpr long round = 60;
    constexpr long steps = 20;
    if (count <= round) { // one look alone says nothing
        std::printf("a long run has more than %ld submissions\n", round);
        return 2;
    }
    const long step = (count / steps + round - 1) / round * round;
    constexpr long in_flight = 4;
    std::printf("%s\n", app.name().c_str());
    // The kernel joins small pages, with the holes between them, when it finds the time.
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    std::optional<Footprint> first;
    Footprint last;
    for (long i = 1; i <= (count + step - 1) / step * step; ++i) {
        const bool busy = !real_buffers && i % 2 == 0;
        if (busy && !bench::renew_pending_fence())
            return 1;
        bench::let_memfds_be_busy(busy);
        VkCommandBuffer commands = i % 3 == 0 ? by_barriers : VK_NULL_HANDLE;
        VkResult result = VK_SUCCESS;
        if (i % 5 == 0) {
            const VkCommandBufferSubmitInfo one{
                .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO, .commandBuffer = commands};
            const VkSubmitInfo2 info{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                                     .commandBufferInfoCount = commands != nullptr ? 1U : 0U,
                                     .pCommandBufferInfos = &one};
            result = app.vk.QueueSubmit2(app.queue, 1, &info, VK_NULL_HANDLE);
        } else {
            const VkSubmitInfo info{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                                    .commandBufferCount = commands != nullptr ? 1U : 0U,
                                    .pCommandBuffers = &commands};
            result = app.vk.QueueSubmit(app.queue, 1, &info, VK_NULL_HANDLE);
        }
        if (busy)
            bench::signal_pending_fence();
        if (result != VK_SUCCESS || (i % in_flight == 0 && app.vk.QueueWaitIdle(app.queue) != 0)) {
            std::printf("submission %ld failed\n", i);
            return 1;
        }
        if (i % step != 0)
            continue;
        app.vk.QueueWaitIdle(app.queue);
        last = Footprint::now();
        last.print(i);
        if (!first)
            first = last;
    }
    // What libc takes of the kernel it takes by the handful.
    constexpr long some_pages = 256;
    const bool flat = first && last.fds <= first->fds && last.blocks <= first->blocks &&
                      last.bytes <= first->bytes && last.heap <= first->heap + page &&
                      last.pages <= first->pages + some_pages;
    std::puts(flat ? "flat" : "IT GROWS");
    return flat && !complained ? 0 : 1;
}

struct Mode {
    enum class Kind : std::uint8_t { rows, submissions, long_run } kind = Kind::rows;
    std::string_view which;  // of submissions: none, off or auto; of a long run: fake or driver
    std::size_t tracked = 0; // buffers, of submissions
    long count = 0;
};

/// \returns whether \p text is a number above 0.
template <typename Number> bool read_number(std::string_view text, Number& into) {
    const auto read = std::from_chars(text.data(), text.data() + text.size(), into);
    return read.ec == std::errc() && read.ptr == text.data() + text.size() && into > 0;
}

/// \returns nothing where the arguments are wrong.
std::optional<Mode> read_mode(int argc, char** argv) {
    const std::string_view first = argc > 1 ? argv[1] : "";
    if (first != "--submissions" && first != "--long-run")
        return Mode();
    Mode mode{.kind = first == "--submissions" ? Mode::Kind::submissions : Mode::Kind::long_run,
              .which = argc > 2 ? argv[2] : ""};
    const std::string_view count = argc == 4 ? argv[3] : "";
    const bool known = mode.kind == Mode::Kind::submissions
                           ? mode.which == "none" || mode.which == "off" || mode.which == "auto" ||
                                 read_number(mode.which, mode.tracked)
                           : mode.which == "fake" || mode.which == "driver";
    if (!known || !read_number(count, mode.count)) {
        std::puts(
            "also: --submissions none|off|auto|BUFFERS COUNT, for valgrind to count their\n"
            "        instructions: without the layer, with sync=off, with nothing tracked, with\n"
            "        so many idle buffers tracked\n"
            "      --long-run fake|driver COUNT, to see that fds and memory stay flat over\n"
            "        more than 60 submissions: on the driver that is made up, or on the first\n"
            "        real one");
        return std::nullopt;
    }
    return mode;
}

/// For valgrind, which counts the instructions of all of it. \returns the exit status.
int submit_only(const Mode& mode) {
    const bool none = mode.which == "none";
    set_sync(mode.which == "off" ? "off" : "auto");
    LayerApp app(HandLoader::get_instance_proc_addr);
    const auto buffers = make_buffers(std::max(mode.tracked, std::size_t{1}), false);
    if (!app.problem().empty() || !buffers || !give_a_signalled_fence(*buffers))
        return 1;
    for (std::size_t i = 0; i < mode.tracked; ++i)
        if (!app.import(buffers->all[i].fd()))
            return 1;
    const Submission submission{.submit = none ? bench::quick::QueueSubmit : app.vk.QueueSubmit,
                                .queue = app.queue};
    submission.prepare();
    for (long i = 0; i < mode.count; ++i)
        if (!submission())
            return 1;
    return 0;
}

int run_long(const Mode& mode) {
    constexpr std::size_t count = 8;
    set_sync("auto");
    setenv("VK_LAYER_PATH", SLUICE_LAYER_MANIFESTS, 1);
    const bool fake = mode.which == "fake";
    if (fake && !real_buffers)
        bench::poll_made_up_sync_files();
    const auto buffers = make_buffers(count, false);
    LayerApp app(fake ? HandLoader::get_instance_proc_addr : vkGetInstanceProcAddr,
                 fake ? nullptr : layer_name);
    if (!buffers || !app.problem().empty()) {
        std::puts(buffers ? app.problem().c_str() : "there are no buffers");
        return 1;
    }
    for (const DmaBuf& each : buffers->all)
        if (!app.import(each.fd()))
            return 1;
    return run_long(app, mode.count);
}

} // namespace

int main(int argc, char** argv) {
    const auto mode = read_mode(argc, argv);
    if (!mode)
        return 2;
    bench::Options options;
    if (mode->kind == Mode::Kind::rows)
        if (const int status = bench::parse(argc, argv, "sluice_layer_bench", options); status >= 0)
            return status;
    bench::stay_on_this_cpu(); // the driver's threads too
    allow_fds();
    const auto layer = find_layer();
    if (layer == nullptr) {
        std::printf("%s is not to be had\n", SLUICE_LAYER_MODULE);
        return 1;
    }
    if (!prepare_kernel())
        return left_out("everything", "there are no buffers") ? 0 : 1;

    FakeIcd icd(complain);
    icd.keeps_submissions = false;
    std::vector<HandLoader::Negotiate> layers{layer};
    if (mode->kind != Mode::Kind::long_run)
        layers.push_back(bench::quick::negotiate);
    HandLoader loader(icd, layers, complain);
    if (mode->kind == Mode::Kind::long_run)
        return run_long(*mode);
    if (mode->kind == Mode::Kind::submissions)
        return submit_only(*mode);

    std::printf("%s\n", real_buffers ? "buffers of udmabuf, fences of sw_sync"
                                     : "memfds stand for dma-bufs, eventfds for their fences");
    const bool small_enough = report_heap();
    SideBySide rows(options);
    Bench all(rows);
    bool complete = all.add_quick_rows();
    complete = all.add_lavapipe_rows() && complete;
    const int status = rows.run(argv[0], complete);
    return status != 0 ? status : complained || (options.check && !small_enough) ? 1 : 0;
}
