// SPDX-License-Identifier: MIT
//
// From the GPU to the screen to the CPU, without a copy.
//
// The GPU renders a moving picture into exported dma-bufs. The display scans the same memory out,
// held back by the GPU's own fence. A writeback connector captures what the screen shows, and the
// CPU compares the capture with what was rendered, byte for byte.
#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <drm_fourcc.h>
#include <getopt.h>
#include <png.h>
#include <vulkan/vulkan.h>

#include <sluice/cpu_access.hpp>
#include <sluice/cpu_map.hpp>
#include <sluice/kms_device.hpp>
#include <sluice/kms_output.hpp>
#include <sluice/vulkan_context.hpp>
#include <sluice/vulkan_image.hpp>

namespace {

using namespace std::chrono_literals;
using sluice::Access;
using sluice::deadline_in;

constexpr std::uint32_t format = DRM_FORMAT_XRGB8888;
constexpr std::uint32_t bytes_per_pixel = 4;
constexpr auto patience = 5s; // for one frame; a slow emulator needs most of a second

constexpr std::uint32_t vertex_spirv[] = {
#include "picture.vert.inc"
};
constexpr std::uint32_t fragment_spirv[] = {
#include "picture.frag.inc"
};

[[noreturn]] void die(const std::string& why) {
    std::fflush(stdout);
    std::fprintf(stderr, "gpu_to_scanout: %s\n", why.c_str());
    std::exit(EXIT_FAILURE);
}

template <typename T> T must(sluice::Result<T> result) {
    if (!result)
        die(result.error().message());
    if constexpr (!std::is_void_v<T>)
        return std::move(*result);
}

void must(VkResult result, const char* what) {
    if (result != VK_SUCCESS)
        die(std::string(what) + ": VkResult " + std::to_string(result));
}

// ---- The devices ----------------------------------------------------------------------------

struct Devices {
    sluice::VulkanContext gpu;
    sluice::KmsDevice card;
    sluice::KmsOutput output;
};

/// A GPU whose images the card at \p path can show and capture, or why there is none.
sluice::Result<Devices> find_devices(const std::string& path, sluice::KmsOutputInfo wanted,
                                     std::optional<VkPhysicalDeviceType> type) {
    auto card = sluice::KmsDevice::open(path);
    if (!card)
        return tl::unexpected(card.error());
    auto output = card->find_output(wanted);
    if (!output)
        return tl::unexpected(output.error());
    const VkPhysicalDeviceVulkan13Features features{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES,
        .pNext = nullptr,
        .dynamicRendering = VK_TRUE};
    auto gpu = sluice::VulkanContext::create({.get_instance_proc_addr = vkGetInstanceProcAddr,
                                              .application_name = "gpu_to_scanout",
                                              .api_version = VK_API_VERSION_1_3,
                                              .device_features = &features,
                                              .type = type});
    if (!gpu)
        return tl::unexpected(gpu.error());
    // Whether the card can show what this GPU makes is found out by trying.
    auto trial = gpu->device().export_image({.width = output->width(),
                                             .height = output->height(),
                                             .format = format,
                                             .usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT});
    if (!trial)
        return tl::unexpected(trial.error());
    auto framebuffer = card->attach(trial->frame());
    if (!framebuffer)
        return tl::unexpected(framebuffer.error());
    if (auto good = output->test({.framebuffer = &*framebuffer, .writeback = &*framebuffer}); !good)
        return tl::unexpected(good.error());
    return Devices{std::move(*gpu), std::move(*card), std::move(*output)};
}

/// The first pair that works: a real GPU before a CPU driver, the cards in their order.
std::optional<Devices> find_devices(const std::string& only_card, sluice::KmsOutputInfo wanted) {
    const auto cards = sluice::kms_cards();
    if (cards.empty())
        std::printf("no display: this machine has no /dev/dri/card*\n");
    for (const std::optional<VkPhysicalDeviceType> type :
         {std::optional<VkPhysicalDeviceType>(), std::optional(VK_PHYSICAL_DEVICE_TYPE_CPU)}) {
        for (const auto& card : cards) {
            if (!only_card.empty() && card.path != only_card)
                continue;
            auto devices = find_devices(card.path, wanted, type);
            if (devices)
                return std::move(*devices);
            std::printf("not %s (%s)%s: %s\n", card.path.c_str(), card.driver.c_str(),
                        type ? " with a CPU driver" : "", devices.error().message().c_str());
        }
    }
    return std::nullopt;
}

// ---- The picture ------------------------------------------------------------------------------

/// What the fragment shader is told; the layout is the shader's.
struct Push {
    std::uint32_t width, height, frame;
};

/// The pipeline that draws the moving picture: an application's own Vulkan code.
class Picture {
public:
    Picture(const sluice::VulkanDevice& gpu, VkFormat colour) : device_(gpu.info().device) {
        const VkPushConstantRange push{VK_SHADER_STAGE_FRAGMENT_BIT, 0, sizeof(Push)};
        const VkPipelineLayoutCreateInfo layout{.sType =
                                                    VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                                .pushConstantRangeCount = 1,
                                                .pPushConstantRanges = &push};
        must(vkCreatePipelineLayout(device_, &layout, nullptr, &layout_), "pipeline layout");
        const VkCommandPoolCreateInfo pool{.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                           .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
                                           .queueFamilyIndex = gpu.info().queue_family};
        must(vkCreateCommandPool(device_, &pool, nullptr, &pool_), "command pool");
        create_pipeline(colour);
    }
    Picture(const Picture&) = delete;
    Picture& operator=(const Picture&) = delete;
    ~Picture() {
        vkDestroyCommandPool(device_, pool_, nullptr);
        vkDestroyPipeline(device_, pipeline_, nullptr);
        vkDestroyPipelineLayout(device_, layout_, nullptr);
    }

    VkCommandBuffer command_buffer() const {
        const VkCommandBufferAllocateInfo allocate{
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
            .commandPool = pool_,
            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
            .commandBufferCount = 1};
        VkCommandBuffer commands = VK_NULL_HANDLE;
        must(vkAllocateCommandBuffers(device_, &allocate, &commands), "command buffer");
        return commands;
    }

    /// Records: take the image over, draw frame number \p number, give the image away.
    void record(VkCommandBuffer commands, const sluice::VulkanImage& image, VkImageView view,
                std::uint32_t number) const {
        constexpr auto layout = VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL;
        constexpr auto access = VK_ACCESS_COLOR_ATTACHMENT_WRITE_BIT;
        constexpr auto stage = VK_PIPELINE_STAGE_COLOR_ATTACHMENT_OUTPUT_BIT;
        const auto& frame = image.frame().layout();
        const VkRect2D area{{0, 0}, {frame.width, frame.height}};
        const VkViewport viewport{
            0, 0, static_cast<float>(frame.width), static_cast<float>(frame.height), 0.0F, 1.0F};
        const VkCommandBufferBeginInfo begin{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                             .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
        must(vkBeginCommandBuffer(commands, &begin), "begin");

        const auto acquire = image.acquire_barrier(sluice::Contents::discard, layout, access);
        vkCmdPipelineBarrier(commands, stage, stage, 0, 0, nullptr, 0, nullptr, 1, &acquire);
        const VkRenderingAttachmentInfo target{.sType = VK_STRUCTURE_TYPE_RENDERING_ATTACHMENT_INFO,
                                               .imageView = view,
                                               .imageLayout = layout,
                                               .loadOp = VK_ATTACHMENT_LOAD_OP_DONT_CARE,
                                               .storeOp = VK_ATTACHMENT_STORE_OP_STORE};
        const VkRenderingInfo rendering{.sType = VK_STRUCTURE_TYPE_RENDERING_INFO,
                                        .renderArea = area,
                                        .layerCount = 1,
                                        .colorAttachmentCount = 1,
                                        .pColorAttachments = &target};
        vkCmdBeginRendering(commands, &rendering);
        vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, pipeline_);
        vkCmdSetViewport(commands, 0, 1, &viewport);
        vkCmdSetScissor(commands, 0, 1, &area);
        const Push push{frame.width, frame.height, number};
        vkCmdPushConstants(commands, layout_, VK_SHADER_STAGE_FRAGMENT_BIT, 0, sizeof push, &push);
        vkCmdDraw(commands, 3, 1, 0, 0);
        vkCmdEndRendering(commands);
        const auto release = image.release_barrier(layout, access);
        vkCmdPipelineBarrier(commands, stage, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, 0, 0, nullptr,
                             0, nullptr, 1, &release);
        must(vkEndCommandBuffer(commands), "end");
    }

private:
    template <std::size_t N> VkShaderModule shader(const std::uint32_t (&words)[N]) const {
        const VkShaderModuleCreateInfo create{.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                              .codeSize = sizeof words,
                                              .pCode = words};
        VkShaderModule module = VK_NULL_HANDLE;
        must(vkCreateShaderModule(device_, &create, nullptr, &module), "shader");
        return module;
    }

    void create_pipeline(VkFormat colour) {
        const VkShaderModule vertex = shader(vertex_spirv);
        const VkShaderModule fragment = shader(fragment_spirv);
        const std::array stages{VkPipelineShaderStageCreateInfo{
                                    .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                                    .stage = VK_SHADER_STAGE_VERTEX_BIT,
                                    .module = vertex,
                                    .pName = "main"},
                                VkPipelineShaderStageCreateInfo{
                                    .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                                    .stage = VK_SHADER_STAGE_FRAGMENT_BIT,
                                    .module = fragment,
                                    .pName = "main"}};
        const VkPipelineVertexInputStateCreateInfo no_vertices{
            .sType = VK_STRUCTURE_TYPE_PIPELINE_VERTEX_INPUT_STATE_CREATE_INFO};
        const VkPipelineInputAssemblyStateCreateInfo triangles{
            .sType = VK_STRUCTURE_TYPE_PIPELINE_INPUT_ASSEMBLY_STATE_CREATE_INFO,
            .topology = VK_PRIMITIVE_TOPOLOGY_TRIANGLE_LIST};
        const VkPipelineViewportStateCreateInfo one_viewport{
            .sType = VK_STRUCTURE_TYPE_PIPELINE_VIEWPORT_STATE_CREATE_INFO,
            .viewportCount = 1,
            .scissorCount = 1};
        const VkPipelineRasterizationStateCreateInfo rasterize{
            .sType = VK_STRUCTURE_TYPE_PIPELINE_RASTERIZATION_STATE_CREATE_INFO,
            .polygonMode = VK_POLYGON_MODE_FILL,
            .cullMode = VK_CULL_MODE_NONE,
            .lineWidth = 1.0F};
        const VkPipelineMultisampleStateCreateInfo one_sample{
            .sType = VK_STRUCTURE_TYPE_PIPELINE_MULTISAMPLE_STATE_CREATE_INFO,
            .rasterizationSamples = VK_SAMPLE_COUNT_1_BIT};
        const VkPipelineColorBlendAttachmentState all_channels{
            .colorWriteMask = VK_COLOR_COMPONENT_R_BIT | VK_COLOR_COMPONENT_G_BIT |
                              VK_COLOR_COMPONENT_B_BIT | VK_COLOR_COMPONENT_A_BIT};
        const VkPipelineColorBlendStateCreateInfo no_blending{
            .sType = VK_STRUCTURE_TYPE_PIPELINE_COLOR_BLEND_STATE_CREATE_INFO,
            .attachmentCount = 1,
            .pAttachments = &all_channels};
        const std::array changing{VK_DYNAMIC_STATE_VIEWPORT, VK_DYNAMIC_STATE_SCISSOR};
        const VkPipelineDynamicStateCreateInfo dynamic{
            .sType = VK_STRUCTURE_TYPE_PIPELINE_DYNAMIC_STATE_CREATE_INFO,
            .dynamicStateCount = changing.size(),
            .pDynamicStates = changing.data()};
        const VkPipelineRenderingCreateInfo target{
            .sType = VK_STRUCTURE_TYPE_PIPELINE_RENDERING_CREATE_INFO,
            .colorAttachmentCount = 1,
            .pColorAttachmentFormats = &colour};
        const VkGraphicsPipelineCreateInfo create{
            .sType = VK_STRUCTURE_TYPE_GRAPHICS_PIPELINE_CREATE_INFO,
            .pNext = &target,
            .stageCount = stages.size(),
            .pStages = stages.data(),
            .pVertexInputState = &no_vertices,
            .pInputAssemblyState = &triangles,
            .pViewportState = &one_viewport,
            .pRasterizationState = &rasterize,
            .pMultisampleState = &one_sample,
            .pColorBlendState = &no_blending,
            .pDynamicState = &dynamic,
            .layout = layout_};
        must(vkCreateGraphicsPipelines(device_, VK_NULL_HANDLE, 1, &create, nullptr, &pipeline_),
             "pipeline");
        vkDestroyShaderModule(device_, fragment, nullptr);
        vkDestroyShaderModule(device_, vertex, nullptr);
    }

    VkDevice device_;
    VkPipelineLayout layout_ = VK_NULL_HANDLE;
    VkCommandPool pool_ = VK_NULL_HANDLE;
    VkPipeline pipeline_ = VK_NULL_HANDLE;
};

// ---- The frames -------------------------------------------------------------------------------

/// One buffer in everyone's currency: the GPU's image, the card's framebuffer, the CPU's mapping.
struct Target {
    Target(const Devices& devices, VkImageUsageFlags usage)
        : image(must(devices.gpu.device().export_image({.width = devices.output.width(),
                                                        .height = devices.output.height(),
                                                        .format = format,
                                                        .usage = usage}))),
          framebuffer(must(devices.card.attach(image.frame()))),
          map(must(sluice::CpuMap::map(image.frame().buffer(), Access::read))) {}

    sluice::VulkanImage image;
    sluice::KmsFramebuffer framebuffer;
    sluice::CpuMap map;
};

/// A target that frames are rendered into.
struct Slot {
    Slot(const Devices& devices, const Picture& picture)
        : target(devices, VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT), commands(picture.command_buffer()),
          view(must(target.image.unswizzled_view())) {}

    Target target;
    VkCommandBuffer commands;
    VkImageView view; // the image's
    // When the screen no longer shows it.
    std::shared_ptr<const sluice::SyncFile> free =
        std::make_shared<sluice::SyncFile>(sluice::SyncFile::signalled());
};

struct Verdict {
    std::uint64_t wrong_pixels = 0;
    std::uint32_t x = 0, y = 0; // the first wrong one
    std::uint32_t frame = 0;    // the number that the captured pixels show
};

/// The frame number that the shader draws as sixteen black and white blocks of 16 x 16 pixels.
std::uint32_t read_number(const std::byte* pixels) {
    constexpr std::size_t block = 16;
    std::uint32_t number = 0;
    for (unsigned bit = 0; bit < 16; ++bit) // blue, in the middle of the block's first row
        number |=
            std::to_integer<std::uint32_t>(pixels[(bit * block + block / 2) * bytes_per_pixel] >> 7)
            << bit;
    return number;
}

/// Compares what was rendered with what the screen showed, every byte of every pixel.
Verdict compare(const Target& rendered, const Target& captured) {
    const auto a =
        must(sluice::CpuAccess::begin(rendered.map, Access::read, deadline_in(patience)));
    const auto b =
        must(sluice::CpuAccess::begin(captured.map, Access::read, deadline_in(patience)));
    const auto& at = rendered.image.frame().layout();
    const auto& bt = captured.image.frame().layout();
    Verdict verdict;
    for (std::uint32_t y = 0; y < at.height; ++y) {
        const std::byte* row_a =
            a.bytes().data() + at.planes[0].offset + std::size_t{y} * at.planes[0].stride;
        const std::byte* row_b =
            b.bytes().data() + bt.planes[0].offset + std::size_t{y} * bt.planes[0].stride;
        if (y == 0)
            verdict.frame = read_number(row_b);
        if (std::memcmp(row_a, row_b, std::size_t{at.width} * bytes_per_pixel) == 0)
            continue;
        for (std::uint32_t x = 0; x < at.width; ++x) {
            const std::size_t pixel = std::size_t{x} * bytes_per_pixel;
            if (std::memcmp(row_a + pixel, row_b + pixel, bytes_per_pixel) == 0)
                continue;
            if (verdict.wrong_pixels++ == 0) {
                verdict.x = x;
                verdict.y = y;
            }
        }
    }
    return verdict;
}

void write_png(const Target& picture, const std::string& path) {
    const auto access =
        must(sluice::CpuAccess::begin(picture.map, Access::read, deadline_in(patience)));
    const auto& layout = picture.image.frame().layout();
    png_image png{};
    png.version = PNG_IMAGE_VERSION;
    png.width = layout.width;
    png.height = layout.height;
    png.format = PNG_FORMAT_BGRA; // XR24 in memory: blue, green, red, and 0xff
    if (png_image_write_to_file(&png, path.c_str(), 0,
                                access.bytes().data() + layout.planes[0].offset,
                                static_cast<png_int_32>(layout.planes[0].stride), nullptr) == 0)
        die(path + ": " + png.message);
}

struct Summary {
    std::uint32_t frames = 0;
    std::uint32_t mismatches = 0;
    std::uint32_t missed_fences = 0;
    std::uint64_t bytes_copied = 0;
};

bool is_signalled(const sluice::SyncFile& fence) {
    return must(fence.status()).state == sluice::FenceState::signalled;
}

double milliseconds(std::chrono::steady_clock::duration time) {
    return std::chrono::duration<double, std::milli>(time).count();
}

Summary run(Devices& devices, std::uint32_t frames, const std::string& png) {
    const sluice::VulkanDevice& gpu = devices.gpu.device();
    const Picture picture(gpu, sluice::vulkan_format(format));
    std::vector<std::unique_ptr<Slot>> slots; // one on the screen, one to come, one to draw into
    for (int i = 0; i < 3; ++i)
        slots.push_back(std::make_unique<Slot>(devices, picture));
    const Target capture(devices, VK_IMAGE_USAGE_TRANSFER_DST_BIT);

    Summary summary;
    for (std::uint32_t number = 0; number < frames; ++number) {
        Slot& slot = *slots[number % slots.size()];
        const sluice::DmaBuf& buffer = slot.target.image.frame().buffer();
        const auto start = std::chrono::steady_clock::now();

        // Render, once the screen has let go of the buffer. Nobody waits here: the GPU does.
        picture.record(slot.commands, slot.target.image, slot.view, number);
        const auto rendered = must(gpu.submit(
            {.command_buffers = {&slot.commands, 1}, .wait_fences = {slot.free.get(), 1}}));
        must(buffer.import_fence(rendered, Access::write)); // for the CPU's access below
        const auto submitted = std::chrono::steady_clock::now();

        // Show and capture, once the GPU is done. Nobody waits here either: the card does.
        auto flip = must(devices.output.commit({.framebuffer = &slot.target.framebuffer,
                                                .in_fence = &rendered,
                                                .writeback = &capture.framebuffer}));

        // Now this program waits, since it wants to look.
        bool missed = !flip.out_fence->wait(deadline_in(patience)) || !is_signalled(rendered);
        const auto flipped = std::chrono::steady_clock::now();
        missed = missed || !flip.writeback_fence->wait(deadline_in(patience));
        const auto captured = std::chrono::steady_clock::now();

        // What the kernel says is on the screen is the memory that was rendered into, or a copy.
        if (!same_buffer(must(devices.output.on_screen()), buffer))
            summary.bytes_copied += buffer.size();
        const Verdict verdict = compare(slot.target, capture);
        const bool matched = !missed && verdict.wrong_pixels == 0 && verdict.frame == number;

        std::printf(
            "frame %3u  ino %-4llu rendered %6.1f ms  flipped %6.1f ms  captured %6.1f ms  ",
            number, static_cast<unsigned long long>(buffer.inode()),
            milliseconds(submitted - start), milliseconds(flipped - submitted),
            milliseconds(captured - flipped));
        if (missed)
            std::printf("MISSED FENCE\n");
        else if (matched)
            std::printf("matched\n");
        else
            std::printf("MISMATCH: %llu pixels, the first at %u,%u; the screen shows frame %u\n",
                        static_cast<unsigned long long>(verdict.wrong_pixels), verdict.x, verdict.y,
                        verdict.frame);
        std::fflush(stdout);
        ++summary.frames;
        summary.missed_fences += missed ? 1 : 0;
        summary.mismatches += matched ? 0 : 1;
        if (missed)
            break; // what the devices do with the buffers is no longer known

        // The frame before this one has left the screen when this one's out-fence signals.
        slots[(number + slots.size() - 1) % slots.size()]->free = flip.out_fence;
    }
    if (!png.empty() && summary.missed_fences == 0)
        write_png(capture, png);
    must(vkDeviceWaitIdle(gpu.info().device), "wait idle");
    return summary;
}

constexpr const char* usage = R"(usage: gpu_to_scanout [options]
Renders on the GPU, shows the same memory on a screen, captures the screen, compares on the CPU.
  --frames N      how many frames (default 24)
  --png FILE      write what the screen showed last
  --card PATH     use this card (default: the first with a writeback connector)
  --mode WxH      use this mode (default: the screen's preferred one)
  --probe         only say which devices would be used
Exits with 0 if every frame matched, 1 if not, 2 for bad arguments, 3 if no devices will do.
)";

struct Options {
    std::uint32_t frames = 24;
    std::string png, card;
    sluice::KmsOutputInfo output{.width = 0, .height = 0, .writeback = true};
    bool probe = false;
};

/// The whole of \p text as a number above 0, or 0.
std::uint32_t number_of(std::string_view text) {
    std::uint32_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    return error == std::errc() && end == text.data() + text.size() ? number : 0;
}

std::optional<Options> parse(int count, char** arguments) {
    constexpr std::uint32_t most_frames = 65536; // what the drawn frame number can tell apart
    const std::array<option, 7> known{{{"frames", required_argument, nullptr, 'f'},
                                       {"png", required_argument, nullptr, 'p'},
                                       {"card", required_argument, nullptr, 'c'},
                                       {"mode", required_argument, nullptr, 'm'},
                                       {"probe", no_argument, nullptr, 'P'},
                                       {"help", no_argument, nullptr, 'h'},
                                       {nullptr, 0, nullptr, 0}}};
    Options options;
    for (int each = 0; (each = getopt_long(count, arguments, "", known.data(), nullptr)) != -1;) {
        const std::string_view value = optarg ? optarg : "";
        switch (each) {
        case 'f':
            options.frames = number_of(value);
            if (options.frames == 0 || options.frames > most_frames)
                return std::nullopt;
            break;
        case 'p':
            options.png = value;
            break;
        case 'c':
            options.card = value;
            break;
        case 'm': {
            const std::size_t x = value.find('x');
            options.output.width = number_of(value.substr(0, x));
            options.output.height = x == value.npos ? 0 : number_of(value.substr(x + 1));
            if (options.output.width == 0 || options.output.height == 0)
                return std::nullopt;
            break;
        }
        case 'P':
            options.probe = true;
            break;
        case 'h':
            std::fputs(usage, stdout);
            std::exit(EXIT_SUCCESS);
        default:
            return std::nullopt;
        }
    }
    return optind == count ? std::optional(options) : std::nullopt;
}

} // namespace

int main(int count, char** arguments) {
    const auto options = parse(count, arguments);
    if (!options) {
        std::fputs(usage, stderr);
        return 2;
    }
    auto devices = find_devices(options->card, options->output);
    if (!devices) {
        std::printf("no pair of a GPU and a card here can do it\n");
        return 3;
    }
    std::printf("GPU:    %s\n", devices->gpu.why().c_str());
    std::printf("card:   %s, %s: imports the GPU's buffers and captures its screen\n",
                devices->card.driver().c_str(), devices->output.name().c_str());
    std::printf("mode:   %ux%u at %.2f Hz\n", devices->output.width(), devices->output.height(),
                devices->output.refresh_mhz() / 1000.0);
    if (options->probe)
        return EXIT_SUCCESS;

    const Summary summary = run(*devices, options->frames, options->png);
    std::printf(
        "%u frames, %u mismatches, %u missed fences; bytes copied by the CPU or GPU between "
        "render and scanout: %llu\n",
        summary.frames, summary.mismatches, summary.missed_fences,
        static_cast<unsigned long long>(summary.bytes_copied));
    const bool good = summary.frames == options->frames && summary.mismatches == 0 &&
                      summary.missed_fences == 0 && summary.bytes_copied == 0;
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
