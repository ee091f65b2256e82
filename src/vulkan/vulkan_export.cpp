// SPDX-License-Identifier: MIT
// Images in memory of Vulkan's own as frames: VK_EXT_image_drm_format_modifier, the list create
// info, of whose modifiers the driver takes one.
#include <sluice/vulkan_image.hpp>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <drm_fourcc.h>

#include "frame/linear_layout.hpp"
#include "frame/linear_plan.hpp"
#include "frame/multiples.hpp"
#include "frame/spec_fit.hpp"
#include "vulkan/vulkan_device_state.hpp"
#include "vulkan/vulkan_error.hpp"
#include "vulkan/vulkan_image_state.hpp"
#include <sluice/format.hpp>
#include <sluice/vulkan_format.hpp>

namespace sluice {

namespace {

constexpr const char* operation = "VulkanDevice::export_image";
constexpr std::array<std::uint64_t, 1> linear{DRM_FORMAT_MOD_LINEAR};

/// What is to be made.
struct Order {
    std::shared_ptr<const VulkanDriver> driver;
    const FrameSpec& spec;
    VkImageUsageFlags usage = 0;
    VkFormat srgb = VK_FORMAT_UNDEFINED; // for views of it

    [[nodiscard]] std::span<const std::uint64_t> modifiers() const {
        return spec.modifiers.empty() ? std::span<const std::uint64_t>(linear)
                                      : std::span<const std::uint64_t>(spec.modifiers);
    }
    [[nodiscard]] std::string text() const {
        std::string names;
        for (const std::uint64_t each : modifiers())
            names += (names.empty() ? "" : " or ") + modifier_name(each);
        return std::to_string(spec.width) + "x" + std::to_string(spec.height) + " " +
               format_name(spec.format) + " " + names + " on " + driver->name;
    }
};

tl::unexpected<Error> refuse(const Order& order, Errc code, std::string problem,
                             std::string remedy) {
    return tl::unexpected(Error{.code = code,
                                .operation = operation,
                                .object = order.text(),
                                .problem = std::move(problem),
                                .remedy = std::move(remedy)});
}

tl::unexpected<Error> refuse_vk(const Order& order, VkResult result, std::string_view problem,
                                std::string remedy) {
    return tl::unexpected(failed_vk(result, operation, order.text(), problem, std::move(remedy)));
}

/// The VkFormat to use, or what is wrong with the order that no driver need be asked for.
Result<VkFormat> format_of(const Order& order) {
    const FrameSpec& spec = order.spec;
    const VulkanFormatInfo* format = find_vulkan_format(spec.format);
    if (format == nullptr)
        return refuse(order, Errc::unsupported, "Vulkan has no format with its bytes",
                      "Use one of vulkan_formats(), such as XR24, AR24, XB24 or AB24");
    if (format->format == VK_FORMAT_UNDEFINED)
        return refuse(order, Errc::unsupported,
                      "Vulkan has no format for all of its planes together",
                      "Use one of vulkan_formats() with a format of its own");
    if (spec.width == 0 || spec.height == 0 || order.usage == 0)
        return refuse(order, Errc::invalid_argument, "it has no pixels, or no usage",
                      "Give a width, a height and what the GPU will do with the image");
    // VUID-VkImageCreateInfo-format-04712 and -04713.
    if (spec.width % format->chroma.width != 0 || spec.height % format->chroma.height != 0)
        return refuse(order, Errc::unsupported,
                      "its size is no multiple of " + std::to_string(format->chroma.width) + "x" +
                          std::to_string(format->chroma.height) +
                          ", which Vulkan asks of this format",
                      "Round the size up");
    if (const char* use = misplaced_use(*format, order.usage))
        return refuse(order, Errc::unsupported, misplaced_problem(use), misplaced_remedy);
    for (const std::uint64_t each : order.modifiers())
        if (each == DRM_FORMAT_MOD_INVALID)
            return refuse(order, Errc::invalid_argument, "modifier INVALID names no layout",
                          "Name modifiers that VulkanDevice::support tells of; LINEAR is 0");
    // The driver lays it out; what is asked of that is checked as for everybody.
    if (auto plan = plan_linear(spec, std::max(spec.stride_alignment, 1U)); !plan)
        return refuse(order, plan.error().code, std::move(plan.error().problem),
                      std::move(plan.error().remedy));
    return format->format;
}

/// Why \p modifiers, what the driver says, do not let it make an image of \p modifier; empty where
/// they do.
std::string problem_with(const Order& order, std::span<const VulkanModifierCaps> modifiers,
                         std::uint64_t modifier) {
    const auto found = std::ranges::find(modifiers, modifier, &VulkanModifierCaps::modifier);
    if (found == modifiers.end())
        return "the driver does not have it for this format; it has " + modifier_names(modifiers);
    if (const char* use = missing_use(order.usage, found->features))
        return std::string("it lacks ") + use + " for this format";
    const VkExtent2D most = found->max_extent;
    if (most.width == 0)
        return order.srgb == VK_FORMAT_UNDEFINED
                   ? "the driver has no such image for this usage"
                   : "the driver has no such image with sRGB views for this usage";
    if (!found->exportable)
        return "the driver does not export it as a dma-buf";
    if (order.spec.width > most.width || order.spec.height > most.height)
        return "the driver's limit is " + std::to_string(most.width) + "x" +
               std::to_string(most.height);
    if (found->plane_count > max_planes)
        return "it has " + std::to_string(found->plane_count) + " memory planes, and a frame has " +
               std::to_string(max_planes) + " at most";
    return {};
}

/// What the driver says of those of the modifiers in \p order that will do.
Result<std::vector<VulkanModifierCaps>> choices(const Order& order, VkFormat format) {
    const auto modifiers = order.driver->image_caps->modifiers(
        *order.driver, {.format = format, .usage = order.usage, .srgb = order.srgb});
    if (!modifiers)
        return refuse_vk(order, modifiers.error(), "the driver could not be asked for its limits",
                         "Free memory and try again");
    std::vector<VulkanModifierCaps> will_do;
    std::string problems;
    for (const std::uint64_t each : order.modifiers()) {
        const std::string problem = problem_with(order, *modifiers, each);
        if (problem.empty())
            will_do.push_back(*std::ranges::find(*modifiers, each, &VulkanModifierCaps::modifier));
        else
            problems += (problems.empty() ? "" : "; ") + modifier_name(each) + ": " + problem;
    }
    if (will_do.empty())
        return refuse(order, Errc::unsupported, std::move(problems),
                      "Ask for another format, modifier, usage or size, or use another device "
                      "(lavapipe exports only where /dev/udmabuf opens)");
    return will_do;
}

/// An image without memory yet, and where its planes lie.
struct Made {
    VulkanImageHandles image;
    VulkanModifierCaps taken;
    FrameLayout layout;
};

/// vkCreateImage with \p layout, the create info that tells its modifier.
VkResult create(const Order& order, VkFormat format, const void* layout, VkImage& image) {
    return create_image(*order.driver,
                        {.format = format,
                         .extent = {order.spec.width, order.spec.height},
                         .usage = order.usage,
                         .srgb = order.srgb,
                         .layout = layout},
                        image);
}

/// Which of \p choices the driver took for \p image.
Result<VulkanModifierCaps> taken_of(const Order& order, VkImage image,
                                    std::span<const VulkanModifierCaps> choices) {
    const VulkanDriver& driver = *order.driver;
    if (!driver.caps.modifiers)
        return choices[0]; // LINEAR, the only one there is
    VkImageDrmFormatModifierPropertiesEXT taken{};
    taken.sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_PROPERTIES_EXT;
    const VkResult result =
        driver.vk.GetImageDrmFormatModifierPropertiesEXT(driver.info.device, image, &taken);
    if (result != VK_SUCCESS)
        return refuse_vk(order, result, "the driver does not tell the modifier that it took",
                         "Free memory and try again");
    const auto found =
        std::ranges::find(choices, taken.drmFormatModifier, &VulkanModifierCaps::modifier);
    if (found == choices.end())
        return refuse(order, Errc::failed,
                      "the driver took modifier " + modifier_name(taken.drmFormatModifier) +
                          ", which was not among those to choose from",
                      "Ask for one modifier alone");
    return *found;
}

/// Where the driver has put the planes.
Result<FrameLayout> layout_of(const Order& order, const VulkanModifierCaps& taken, VkImage image) {
    const VulkanDriver& driver = *order.driver;
    FrameLayout layout{.width = order.spec.width,
                       .height = order.spec.height,
                       .format = order.spec.format,
                       .modifier = taken.modifier,
                       .plane_count = taken.plane_count};
    for (std::uint32_t i = 0; i < taken.plane_count; ++i) {
        const VkImageSubresource plane{
            .aspectMask = VkImageAspectFlags{plane_aspect(driver, i, taken.plane_count)},
            .mipLevel = 0,
            .arrayLayer = 0};
        VkSubresourceLayout where{};
        driver.vk.GetImageSubresourceLayout(driver.info.device, image, &plane, &where);
        if (where.offset > UINT32_MAX || where.rowPitch > UINT32_MAX)
            return refuse(order, Errc::unsupported,
                          "the driver lays plane " + std::to_string(i) + " out at offset " +
                              std::to_string(where.offset) + " with a stride of " +
                              std::to_string(where.rowPitch) + " bytes, above 32 bits",
                          "Ask for a smaller image");
        layout.planes[i] = {.offset = static_cast<std::uint32_t>(where.offset),
                            .stride = static_cast<std::uint32_t>(where.rowPitch)};
    }
    if (const auto both = overlapping_planes(layout))
        return refuse(order, Errc::unsupported,
                      "the driver says that planes " + std::to_string(both->first) + " and " +
                          std::to_string(both->second) + " lie at offsets " +
                          std::to_string(layout.planes[both->first].offset) + " and " +
                          std::to_string(layout.planes[both->second].offset) +
                          ", where they overlap",
                      "Enable VK_EXT_image_drm_format_modifier, or use another format");
    return layout;
}

/// Lets the driver choose among \p choices, and lay the image out.
Result<Made> make(const Order& order, VkFormat format,
                  std::span<const VulkanModifierCaps> choices) {
    std::vector<std::uint64_t> modifiers(choices.size());
    std::ranges::transform(choices, modifiers.begin(), &VulkanModifierCaps::modifier);
    const VkImageDrmFormatModifierListCreateInfoEXT list{
        .sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_LIST_CREATE_INFO_EXT,
        .pNext = nullptr,
        .drmFormatModifierCount = static_cast<std::uint32_t>(modifiers.size()),
        .pDrmFormatModifiers = modifiers.data()};
    VulkanImageHandles image(order.driver);
    const VkResult result =
        create(order, format, order.driver->caps.modifiers ? &list : nullptr, image.image);
    if (result != VK_SUCCESS)
        return refuse_vk(order, result, "vkCreateImage failed", "Ask for a smaller image");
    auto taken = taken_of(order, image.image, choices);
    if (!taken)
        return tl::unexpected(std::move(taken.error()));
    auto layout = layout_of(order, *taken, image.image);
    if (!layout)
        return tl::unexpected(std::move(layout.error()));
    return Made{.image = std::move(image), .taken = *taken, .layout = *layout};
}

/// The driver's \p own LINEAR layout made to fit what is asked for, with what the driver seems to
/// align strides and offsets to kept. Nothing where that leads out of 32 bits.
std::optional<FrameLayout> shaped(const FrameLayout& own, const FrameSpec& spec) {
    const FormatInfo& format = *find_format(spec.format);
    if (own.plane_count != format.plane_count)
        return std::nullopt;
    const auto drivers = [](std::uint32_t number, std::uint32_t most) {
        return number == 0 ? most : std::min(number & (~number + 1), most); // its lowest bit
    };
    const std::uint64_t rows = *round_up(spec.height, spec.height_alignment);
    FrameLayout layout = own;
    std::uint64_t end = 0;
    for (std::uint32_t i = 0; i < own.plane_count; ++i) {
        FramePlane& plane = layout.planes[i];
        const auto stride_step =
            common_multiple(spec.stride_alignment, drivers(plane.stride, 256), INT32_MAX);
        const auto offset_step =
            common_multiple(spec.offset_alignment, drivers(plane.offset, 4096), UINT32_MAX);
        if (!stride_step || !offset_step)
            return std::nullopt;
        const std::uint64_t stride = *round_up(plane.stride, *stride_step);
        const std::uint64_t offset =
            *round_up(std::max<std::uint64_t>(plane.offset, end), *offset_step);
        if (stride > INT32_MAX || offset > UINT32_MAX)
            return std::nullopt;
        plane.stride = static_cast<std::uint32_t>(stride);
        plane.offset = static_cast<std::uint32_t>(offset);
        end = offset + stride * format.planes[i].rows(rows);
    }
    return layout;
}

/// Tells the driver where to put the planes, LINEAR. \returns the image, or nothing where the
/// driver does not take \p layout.
Result<std::optional<Made>> make_shaped(const Order& order, VkFormat format,
                                        const VulkanModifierCaps& caps, const FrameLayout& layout) {
    std::array<VkSubresourceLayout, max_planes> planes{};
    for (std::uint32_t i = 0; i < layout.plane_count; ++i)
        planes[i] = {.offset = layout.planes[i].offset, .rowPitch = layout.planes[i].stride};
    const VkImageDrmFormatModifierExplicitCreateInfoEXT told{
        .sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_EXPLICIT_CREATE_INFO_EXT,
        .pNext = nullptr,
        .drmFormatModifier = layout.modifier,
        .drmFormatModifierPlaneCount = layout.plane_count,
        .pPlaneLayouts = planes.data()};
    VulkanImageHandles image(order.driver);
    const VkResult result = create(order, format, &told, image.image);
    if (result == VK_ERROR_OUT_OF_HOST_MEMORY || result == VK_ERROR_OUT_OF_DEVICE_MEMORY)
        return refuse_vk(order, result, "vkCreateImage failed", "Ask for a smaller image");
    if (result != VK_SUCCESS)
        return std::nullopt;
    auto own = layout_of(order, caps, image.image);
    if (!own)
        return tl::unexpected(std::move(own.error()));
    if (!misfit(*own, order.spec).empty())
        return std::nullopt;
    return Made{.image = std::move(image), .taken = caps, .layout = *own};
}

/// The image as it is asked for. Strides and offsets cannot be told to a driver that chooses, so it
/// is offered fewer modifiers where those do not fit, and told all where it is LINEAR.
Result<Made> make_fitting(const Order& order, VkFormat format,
                          std::vector<VulkanModifierCaps> choices) {
    std::string problems;
    while (!choices.empty()) {
        auto made = make(order, format, choices);
        if (!made)
            return made;
        std::string problem = misfit(made->layout, order.spec);
        if (problem.empty())
            return made;
        const VulkanModifierCaps taken = made->taken;
        if (taken.modifier == DRM_FORMAT_MOD_LINEAR && order.driver->caps.modifiers) {
            if (const auto layout = shaped(made->layout, order.spec)) {
                auto told = make_shaped(order, format, taken, *layout);
                if (!told)
                    return tl::unexpected(std::move(told.error()));
                if (*told)
                    return std::move(**told);
                problem += ", and it takes no stride of " +
                           std::to_string(layout->planes[0].stride) + " from others";
            }
        }
        problems += (problems.empty() ? "" : "; ") + modifier_name(taken.modifier) +
                    ": the driver's " + problem;
        std::erase_if(choices, [&](const VulkanModifierCaps& each) {
            return each.modifier == taken.modifier;
        });
    }
    return refuse(order, Errc::unsupported, std::move(problems),
                  "Ask for smaller alignments, or use another exporter");
}

Result<DmaBuf> allocate_and_bind(const Order& order, Made& made) {
    const VulkanDriver& driver = *order.driver;
    const VulkanMemoryPurpose purpose{operation, [&order] { return order.text(); }};
    VulkanMemoryNeeds needs = image_needs(driver, made.image.image);
    const bool alone = needs.dedicated_required || made.taken.dedicated_only;
    needs.dedicated = needs.dedicated || alone;
    const FrameSpec& spec = order.spec;
    const std::uint64_t wanted = std::max(
        pads(spec) && made.layout.modifier == DRM_FORMAT_MOD_LINEAR ? padded_size(made.layout, spec)
                                                                    : 0,
        spec.min_size);
    // Memory of its own has the image's size (VUID-VkMemoryDedicatedAllocateInfo-image-02964).
    if (wanted > needs.requirements.size && !alone) {
        needs.requirements.size = wanted;
        needs.dedicated = false;
    }
    auto memory = allocate_exportable(driver, needs, purpose);
    if (!memory)
        return tl::unexpected(std::move(memory.error()));
    made.image.memories[0] = *memory;
    const VkBindImageMemoryInfo bind{.sType = VK_STRUCTURE_TYPE_BIND_IMAGE_MEMORY_INFO,
                                     .pNext = nullptr,
                                     .image = made.image.image,
                                     .memory = memory->handle,
                                     .memoryOffset = 0};
    const VkResult result = driver.vk.BindImageMemory2(driver.info.device, 1, &bind);
    if (result != VK_SUCCESS)
        return refuse_vk(order, result, "the memory could not be bound",
                         "Free device memory and try again");
    auto buffer = export_memory(driver, memory->handle, purpose);
    if (buffer && buffer->size() < wanted)
        return refuse(order, Errc::unsupported,
                      "the driver gives the image " + std::to_string(buffer->size()) +
                          " bytes, and " + std::to_string(wanted) + " are needed",
                      "Use another exporter, or an importer that needs no padding");
    return buffer;
}

} // namespace

Result<VulkanImage> VulkanDevice::export_image(const FrameSpec& spec, VkImageUsageFlags usage,
                                               bool srgb_views) const noexcept {
    Order order{.driver = state_->driver, .spec = spec, .usage = usage};
    auto format = format_of(order);
    if (!format)
        return tl::unexpected(std::move(format.error()));
    if (srgb_views) {
        auto srgb = srgb_views_of(*find_vulkan_format(spec.format), usage, operation, order.text());
        if (!srgb)
            return tl::unexpected(std::move(srgb.error()));
        order.srgb = *srgb;
    }
    auto will_do = choices(order, *format);
    if (!will_do)
        return tl::unexpected(std::move(will_do.error()));
    auto made = make_fitting(order, *format, std::move(*will_do));
    if (!made)
        return tl::unexpected(std::move(made.error()));
    auto buffer = allocate_and_bind(order, *made);
    if (!buffer)
        return tl::unexpected(std::move(buffer.error()));
    if (!spec.name.empty())
        (void)buffer->set_name(spec.name);
    auto frame = Frame::create(made->layout, std::move(*buffer));
    if (!frame)
        return tl::unexpected(std::move(frame.error()));
    return VulkanImage(std::make_shared<const VulkanImage::State>(
                           std::move(made->image),
                           VulkanImageViewing{.format = *format,
                                              .srgb = order.srgb,
                                              .components = whole_components(spec.format),
                                              .usage = usage},
                           *frame),
                       *frame);
}

Result<VulkanImage> VulkanDevice::export_image(const VulkanImageInfo& info) const noexcept {
    return export_image(FrameSpec{.width = info.width,
                                  .height = info.height,
                                  .format = info.format,
                                  .modifiers = {info.modifiers.begin(), info.modifiers.end()}},
                        info.usage, info.srgb_views);
}

} // namespace sluice
