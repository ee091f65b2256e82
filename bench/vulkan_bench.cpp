// SPDX-License-Identifier: MIT
/// \file
/// What the Vulkan part does beside the Vulkan and system calls that do the same.
///
/// Where the kernel has no dma-bufs, memfds stand for them: lavapipe imports those, and the rows
/// about fences are left out.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <drm_fourcc.h>
#include <sys/resource.h>
#include <vulkan/vulkan.h>

#include <sluice/format.hpp>
#include <sluice/vulkan_access.hpp>
#include <sluice/vulkan_format.hpp>
#include <sluice/vulkan_image.hpp>

#include "by_hand.hpp"
#include "copy_path.hpp"
#include "kernel_objects.hpp"
#include "memfds.hpp"
#include "placebo.hpp"
#include "side_by_side.hpp"
#include "vulkan_app.hpp"
#include "vulkan_by_hand.hpp"

namespace {

using bench::left_out;
using bench::SideBySide;
using sluice::Access;
using sluice::Deadline;
using sluice::DmaBuf;
using sluice::Frame;
using sluice::FrameLayout;
using sluice::VulkanDevice;
using sluice::VulkanImage;

constexpr double import_goal = 1.10;
constexpr double cached_goal = 1.0 / 50; // of a fresh import
constexpr double new_fd_goal = 1.0 / 4;  // of a fresh import
constexpr double flat_goal = 1.10;
constexpr std::ptrdiff_t heap_goal = 1024; // bytes for each live buffer

constexpr VkImageUsageFlags usage = VK_IMAGE_USAGE_SAMPLED_BIT | VK_IMAGE_USAGE_TRANSFER_DST_BIT;
constexpr std::uint32_t page = 4096;
constexpr VkExtent2D small{.width = 64, .height = 16}; // a page

/// Later than any row.
const Deadline later = bench::Clock::now() + std::chrono::hours(24);

/// Whether buffers are dma-bufs, with fences in them.
bool real_buffers = false;

std::optional<DmaBuf> make_buffer(std::uint64_t size) {
    return real_buffers ? bench::udmabuf(size) : bench::memfd(size);
}

FrameLayout layout_of(VkExtent2D size) {
    FrameLayout layout{.width = size.width, .height = size.height, .format = DRM_FORMAT_ARGB8888};
    layout.planes[0].stride = size.width * 4;
    return layout;
}

std::uint64_t bytes_of(VkExtent2D size) {
    return (std::uint64_t{size.width} * size.height * 4 + page - 1) / page * page;
}

std::optional<Frame> make_frame(VkExtent2D size) {
    auto buffer = make_buffer(bytes_of(size));
    if (!buffer)
        return std::nullopt;
    auto frame = Frame::create(layout_of(size), std::move(*buffer));
    return frame ? std::optional(std::move(*frame)) : std::nullopt;
}

by_hand::ImageLayout by_hand_layout(VkExtent2D size) {
    return {.format = sluice::find_vulkan_format(DRM_FORMAT_ARGB8888)->format,
            .usage = usage,
            .width = size.width,
            .height = size.height,
            .stride = size.width * 4,
            .size = bytes_of(size)};
}

/// \returns whether a fd that came in was imported by hand and let go.
bool import_by_hand(const by_hand::Vulkan& vulkan, int fd, const by_hand::ImageLayout& layout) {
    by_hand::Identity identity{};
    const int copy = by_hand::adopt(fd, identity);
    if (copy < 0)
        return false;
    const sluice::UniqueFd owner(int{copy});
    by_hand::Image image{};
    if (by_hand::import_image(vulkan, copy, layout, image) != 0)
        return false;
    by_hand::destroy(vulkan, image);
    return true;
}

/// \returns whether a fd that came in was attached.
bool attach_fd(const VulkanDevice& device, int fd, const FrameLayout& layout) {
    auto buffer = DmaBuf::from_borrowed_fd(fd);
    if (!buffer)
        return false;
    auto frame = Frame::create(layout, std::move(*buffer));
    return frame && device.attach(*frame, {.usage = usage});
}

/// A command buffer that takes \p image over and gives it back.
VkCommandBuffer record(const bench::VulkanApp& app, const VulkanImage& image) {
    VkCommandBuffer commands = app.commands();
    const VkCommandBufferBeginInfo begin{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                         .pNext = nullptr,
                                         .flags = VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT,
                                         .pInheritanceInfo = nullptr};
    vkBeginCommandBuffer(commands, &begin);
    const auto acquire = image.acquire_barrier(
        sluice::Contents::keep, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL, VK_ACCESS_TRANSFER_WRITE_BIT);
    vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_TRANSFER_BIT,
                         0, 0, nullptr, 0, nullptr, 1, &acquire);
    const auto release =
        image.release_barrier(VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL, VK_ACCESS_TRANSFER_WRITE_BIT);
    vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_TRANSFER_BIT,
                         VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, 0, 0, nullptr, 0, nullptr, 1,
                         &release);
    vkEndCommandBuffer(commands);
    return commands;
}

/// Two buffers in turns, for a device that remembers the last one only.
struct Strangers {
    int fds[2];
    std::size_t calls = 0;

    int next() { return fds[calls++ % 2]; }
};

/// \param forgetful keeps no attachment that nobody holds for longer than until the next.
void add_imports(SideBySide& rows, const VulkanDevice& device, const VulkanDevice& forgetful,
                 const by_hand::Vulkan& vulkan, const Frame& frame, Strangers strangers) {
    const int fd = frame.buffer().fd();
    const FrameLayout layout = frame.layout();
    const auto raw = by_hand_layout({layout.width, layout.height});
    rows.add(
        {.name = "attach, known frame; import by hand", .goal = cached_goal},
        [&device, &frame] { return bool(device.attach(frame, {.usage = usage})); },
        [&vulkan, fd, raw] {
            by_hand::Image image{};
            if (by_hand::import_image(vulkan, fd, raw, image) != 0)
                return false;
            by_hand::destroy(vulkan, image);
            return true;
        });
    rows.add(
        {.name = "attach, new fd of a known buffer; import", .goal = new_fd_goal},
        [&device, fd, layout] { return attach_fd(device, fd, layout); },
        [&vulkan, fd, raw] { return import_by_hand(vulkan, fd, raw); });
    rows.add(
        {.name = "attach, unknown buffer; import", .goal = import_goal},
        [&forgetful, strangers, layout]() mutable {
            return attach_fd(forgetful, strangers.next(), layout);
        },
        [&vulkan, strangers, raw]() mutable {
            return import_by_hand(vulkan, strangers.next(), raw);
        });
}

/// \returns whether none is missing that should be there.
bool add_placebo(SideBySide& rows, const bench::VulkanApp& app, const VulkanDevice& forgetful,
                 const FrameLayout& layout, Strangers strangers,
                 std::unique_ptr<bench::Placebo>& placebo) {
#if defined(SLUICE_BENCH_PLACEBO)
    std::string problem;
    placebo = bench::Placebo::create(app.info().get_instance_proc_addr, app.info().instance,
                                     app.info().physical_device, problem);
    if (placebo == nullptr)
        return left_out("libplacebo", problem.c_str());
    const auto raw = by_hand_layout({layout.width, layout.height});
    rows.add(
        {.name = "attach, unknown buffer; libplacebo", .goal = import_goal, .counted = false},
        [&forgetful, strangers, layout]() mutable {
            return attach_fd(forgetful, strangers.next(), layout);
        },
        [&placebo, strangers, raw]() mutable {
            return placebo->import(strangers.next(), raw.size, raw.width, raw.height, raw.stride);
        });
    return true;
#else
    (void)rows, (void)app, (void)forgetful, (void)layout, (void)strangers, (void)placebo;
    return left_out("libplacebo", "it is not installed (libplacebo-dev)");
#endif
}

/// One access, with the submission between that the application makes.
bool submit_by_parts(const VulkanDevice& device, const VulkanImage& image,
                     VkCommandBuffer commands) {
    const sluice::VulkanUse use{.attachment = &image, .access = Access::write};
    auto access = device.begin_access({&use, 1}, later);
    if (!access)
        return false;
    constexpr VkPipelineStageFlags everything = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    const auto waits = access->wait_semaphores(); // one buffer has one fence
    const VkSemaphore signal = access->signal_semaphore();
    const VkSubmitInfo submission{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                                  .pNext = nullptr,
                                  .waitSemaphoreCount = static_cast<std::uint32_t>(waits.size()),
                                  .pWaitSemaphores = waits.data(),
                                  .pWaitDstStageMask = &everything,
                                  .commandBufferCount = 1,
                                  .pCommandBuffers = &commands,
                                  .signalSemaphoreCount = 1,
                                  .pSignalSemaphores = &signal};
    return vkQueueSubmit(device.info().queue, 1, &submission, VK_NULL_HANDLE) == VK_SUCCESS &&
           access->end(later);
}

/// An image to record work for, and the work.
struct Target {
    Frame frame;
    VulkanImage image;
    VkCommandBuffer commands;
};

std::optional<Target> make_target(const bench::VulkanApp& app, const VulkanDevice& device,
                                  VkExtent2D size) {
    auto frame = make_frame(size);
    if (!frame)
        return std::nullopt;
    auto image = device.attach(*frame, {.usage = usage});
    if (!image) {
        std::puts(image.error().message().c_str());
        return std::nullopt;
    }
    VkCommandBuffer commands = record(app, *image);
    return Target{.frame = std::move(*frame), .image = std::move(*image), .commands = commands};
}

/// Everything that a frame costs: the attachment is found, its fences are waited for on the GPU,
/// work is submitted, its fence is left.
bool cycle(const VulkanDevice& device, const Frame& frame, VkCommandBuffer commands) {
    const auto image = device.attach(frame, {.usage = usage});
    if (!image)
        return false;
    const sluice::VulkanUse use{.attachment = &*image, .access = Access::write};
    return bool(device.submit({.command_buffers = {&commands, 1}, .uses = {&use, 1}}));
}

struct Size {
    const char* name;
    VkExtent2D pixels;
};
constexpr Size sizes[] = {
    {"256x256", {256, 256}}, {"1280x720", {1280, 720}}, {"3840x2160", {3840, 2160}}};

/// \param targets one for each of `sizes`. \param paths are kept there, for the rows.
bool add_sizes(SideBySide& rows, const bench::VulkanApp& app, const VulkanDevice& device,
               const std::vector<Target>& targets,
               std::vector<std::unique_ptr<bench::CopyPath>>& paths) {
    const Target& first = targets.front();
    for (std::size_t i = 1; i < targets.size(); ++i)
        rows.add(
            {.name = std::string("a frame of ") + sizes[i].name + "; of " + sizes[0].name,
             .goal = flat_goal,
             .counted = false},
            [&device, &of = targets[i]] { return cycle(device, of.frame, of.commands); },
            [&device, &first] { return cycle(device, first.frame, first.commands); });
    for (std::size_t i = 0; i < targets.size(); ++i) {
        const Target& of = targets[i];
        paths.push_back(bench::CopyPath::create(app, of.frame.buffer(), of.image.format(),
                                                sizes[i].pixels, real_buffers));
        if (paths.back() == nullptr)
            return left_out("the copy path", "there is no memory for it");
        rows.add(
            {.name = std::string("a frame of ") + sizes[i].name + "; copied",
             .slowness = 8,
             .counted = false},
            [&device, &of] { return cycle(device, of.frame, of.commands); },
            [&path = *paths.back()] { return path.frame(); });
    }
    return true;
}

/// Frames that live at the same time, each with its attachment.
class Live {
public:
    Live(const VulkanDevice& device, std::size_t count) {
        frames_.reserve(count);
        for (std::size_t i = 0; i < count; ++i) {
            auto frame = make_frame(small);
            if (!frame || !device.attach(*frame, {.usage = usage}))
                return;
            frames_.push_back(std::move(*frame));
        }
        whole_ = true;
    }

    [[nodiscard]] bool whole() const { return whole_; }
    [[nodiscard]] const Frame& next() {
        at_ = at_ + 1 == frames_.size() ? 0 : at_ + 1;
        return frames_[at_];
    }

private:
    std::vector<Frame> frames_;
    std::size_t at_ = 0;
    bool whole_ = false;
};

/// As many fds as may be, or as the rows need where root may have more.
void allow_fds() {
    rlimit files{};
    getrlimit(RLIMIT_NOFILE, &files);
    const rlimit wanted{.rlim_cur = 16384, .rlim_max = std::max<rlim_t>(files.rlim_max, 16384)};
    if (setrlimit(RLIMIT_NOFILE, &wanted) == 0)
        return;
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

constexpr std::size_t live_counts[] = {1, 64, 4096};

/// \param live is kept there, for the rows. \returns whether none is missing.
bool add_live(SideBySide& rows, const VulkanDevice& device, VkCommandBuffer commands,
              std::vector<Live>& live) {
    live.reserve(std::size(live_counts));
    for (const std::size_t count : live_counts) {
        live.emplace_back(device, count);
        if (!live.back().whole()) {
            live.pop_back();
            return left_out("many live buffers", "there are not so many (ulimit -n, memory)");
        }
        if (count == 1)
            continue;
        const std::string among = ", of " + std::to_string(count) + " that live; of 1";
        rows.add(
            {.name = "attach" + among},
            [&device, &many = live.back()] {
                return bool(device.attach(many.next(), {.usage = usage}));
            },
            [&device, &one = live.front()] {
                return bool(device.attach(one.next(), {.usage = usage}));
            });
        rows.add(
            {.name = "a frame" + among, .goal = flat_goal, .counted = false},
            [&device, &many = live.back(), commands] {
                return cycle(device, many.next(), commands);
            },
            [&device, &one = live.front(), commands] {
                return cycle(device, one.next(), commands);
            });
    }
    return true;
}

/// Prints what memory of ours a live buffer takes: with its frame and its attachment.
/// \returns whether it keeps to the goal.
bool report_heap(const VulkanDevice& device) {
    constexpr std::ptrdiff_t count = 1024;
    const std::ptrdiff_t before = sluice::test::live_bytes();
    const Live live(device, count);
    const std::ptrdiff_t each = (sluice::test::live_bytes() - before) / count;
    std::printf("heap for each live buffer, its frame and its attachment: %td bytes (goal: <= %td "
                "%s)\n",
                each, heap_goal, live.whole() && each <= heap_goal ? "met" : "MISSED");
    return live.whole() && each <= heap_goal;
}

} // namespace

int main(int argc, char** argv) {
    bench::Options options;
    if (const int status = bench::parse(argc, argv, "sluice_vulkan_bench", options); status >= 0)
        return status;
    bench::stay_on_this_cpu(); // the driver's threads too
    allow_fds();

    const bench::VulkanApp app;
    if (!app.problem().empty())
        return left_out("everything", app.problem().c_str()) ? 0 : 1;
    real_buffers = bool(bench::udmabuf(page));
    if (!real_buffers)
        bench::let_memfds_pass();
    std::printf("%s, %s\n", app.name().c_str(),
                real_buffers ? "buffers of udmabuf" : "memfds stand for dma-bufs, without fences");

    auto device = VulkanDevice::wrap(app.info());
    sluice::VulkanDeviceInfo at_once = app.info();
    at_once.idle_attachments = 0;
    auto forgetful = VulkanDevice::wrap(at_once);
    if (!device || !forgetful) {
        std::puts(device.error().message().c_str());
        return 1;
    }
    const by_hand::Vulkan vulkan(app.info().get_instance_proc_addr, app.info().instance,
                                 app.info().device, app.info().queue, device->caps().modifiers);
    std::vector<Target> targets;
    for (const Size& each : sizes)
        if (auto target = make_target(app, *device, each.pixels))
            targets.push_back(std::move(*target));
    if (targets.size() != std::size(sizes))
        return left_out("everything", "the driver does not take the frames") ? 0 : 1;
    const Target& target = targets.front();

    SideBySide rows(options);
    bool complete = true;
    const auto one = make_buffer(bytes_of(sizes[0].pixels));
    const auto other = make_buffer(bytes_of(sizes[0].pixels));
    if (!one || !other)
        return left_out("everything", "there is no memory for buffers") ? 0 : 1;
    const Strangers strangers{.fds = {one->fd(), other->fd()}};
    add_imports(rows, *device, *forgetful, vulkan, target.frame, strangers);
    std::unique_ptr<bench::Placebo> placebo;
    complete =
        add_placebo(rows, app, *forgetful, target.frame.layout(), strangers, placebo) && complete;
    by_hand::Submitter submitter(vulkan);
    if (real_buffers && device->caps().imports_fences && device->caps().exports_fences)
        rows.add(
            {.name = "begin, vkQueueSubmit, end", .goal = bench::hot_path_goal, .counted = false},
            [&device, &target] { return submit_by_parts(*device, target.image, target.commands); },
            [&submitter, &target] {
                return submitter.submit(target.frame.buffer().fd(), target.commands) == 0;
            });
    else
        complete =
            left_out("begin and end", "the driver or the buffers have no fences") && complete;
    std::vector<std::unique_ptr<bench::CopyPath>> paths;
    complete = add_sizes(rows, app, *device, targets, paths) && complete;
    std::vector<Live> live;
    complete = add_live(rows, *device, target.commands, live) && complete;

    const bool small_enough = report_heap(*device);
    const int status = rows.run(argv[0], complete);
    vkDeviceWaitIdle(app.info().device);
    return status != 0 ? status : options.check && !small_enough ? 1 : 0;
}
