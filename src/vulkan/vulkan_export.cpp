// SPDX-License-Identifier: MIT
// Images in memory of Vulkan's own as frames: VK_EXT_image_drm_format_modifier, the list create
// info, of whose modifiers the driver takes one.
#include <sluice/vulkan_image.hpp>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <drm_fourcc.h>

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
    const VulkanDriver& driver;
    const VulkanImageInfo& info;
    std::span<const std::uint64_t> modifiers;

    [[nodiscard]] std::string text() const {
        std::string names;
        for (const std::uint64_t each : modifiers)
            names += (names.empty() ? "" : " or ") + modifier_name(each);
        return std::to_string(info.width) + "x" + std::to_string(info.height) + " " +
               format_name(info.format) + " " + names + " on " + driver.name;
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
    const VulkanImageInfo& info = order.info;
    const VulkanFormatInfo* format = find_vulkan_format(info.format);
    if (format == nullptr)
        return refuse(order, Errc::unsupported, "Vulkan has no format with its bytes",
                      "Use one of vulkan_formats(), such as XR24, AR24, XB24 or AB24");
    if (format->format == VK_FORMAT_UNDEFINED)
        return refuse(order, Errc::unsupported,
                      "Vulkan has no format for all of its planes together",
                      "Use one of vulkan_formats() with a format of its own");
    if (info.width == 0 || info.height == 0 || info.usage == 0)
        return refuse(order, Errc::invalid_argument, "it has no pixels, or no usage",
                      "Give a width, a height and what the GPU will do with the image");
    // VUID-VkImageCreateInfo-format-04712 and -04713.
    if (info.width % format->chroma.width != 0 || info.height % format->chroma.height != 0)
        return refuse(order, Errc::unsupported,
                      "its size is no multiple of " + std::to_string(format->chroma.width) + "x" +
                          std::to_string(format->chroma.height) +
                          ", which Vulkan asks of this format",
                      "Round the size up");
    if (const char* use = misplaced_use(*format, info.usage))
        return refuse(order, Errc::unsupported, misplaced_problem(use), misplaced_remedy);
    for (const std::uint64_t each : order.modifiers)
        if (each == DRM_FORMAT_MOD_INVALID)
            return refuse(order, Errc::invalid_argument, "modifier INVALID names no layout",
                          "Name modifiers that VulkanDevice::support tells of; LINEAR is 0");
    return format->format;
}

/// Why \p modifiers, what the driver says, do not let it make an image of \p modifier; empty where
/// they do.
std::string problem_with(const Order& order, std::span<const VulkanModifierCaps> modifiers,
                         std::uint64_t modifier) {
    const auto found = std::ranges::find(modifiers, modifier, &VulkanModifierCaps::modifier);
    if (found == modifiers.end())
        return "the driver does not have it for this format; it has " + modifier_names(modifiers);
    if (const char* use = missing_use(order.info.usage, found->features))
        return std::string("it lacks ") + use + " for this format";
    const VkExtent2D most = found->max_extent;
    if (most.width == 0)
        return "the driver has no such image for this usage";
    if (!found->exportable)
        return "the driver does not export it as a dma-buf";
    if (order.info.width > most.width || order.info.height > most.height)
        return "the driver's limit is " + std::to_string(most.width) + "x" +
               std::to_string(most.height);
    if (found->plane_count > max_planes)
        return "it has " + std::to_string(found->plane_count) + " memory planes, and a frame has " +
               std::to_string(max_planes) + " at most";
    return {};
}

/// What the driver says of those of the modifiers in \p order that will do.
Result<std::vector<VulkanModifierCaps>> choices(const Order& order, VkFormat format) {
    const auto modifiers = order.driver.image_caps->modifiers(
        order.driver, {.format = format, .usage = order.info.usage});
    if (!modifiers)
        return refuse_vk(order, modifiers.error(), "the driver could not be asked for its limits",
                         "Free memory and try again");
    std::vector<VulkanModifierCaps> will_do;
    std::string problems;
    for (const std::uint64_t each : order.modifiers) {
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

/// Creates the image. \returns which of \p choices the driver took.
Result<VulkanModifierCaps> create(const Order& order, VkFormat format,
                                  std::span<const VulkanModifierCaps> choices, VkImage& image) {
    std::vector<std::uint64_t> modifiers(choices.size());
    std::ranges::transform(choices, modifiers.begin(), &VulkanModifierCaps::modifier);
    const VkImageDrmFormatModifierListCreateInfoEXT list{
        .sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_LIST_CREATE_INFO_EXT,
        .pNext = nullptr,
        .drmFormatModifierCount = static_cast<std::uint32_t>(modifiers.size()),
        .pDrmFormatModifiers = modifiers.data()};
    VkResult result = create_image(order.driver,
                                   {.format = format,
                                    .extent = {order.info.width, order.info.height},
                                    .usage = order.info.usage,
                                    .layout = order.driver.caps.modifiers ? &list : nullptr},
                                   image);
    if (result != VK_SUCCESS)
        return refuse_vk(order, result, "vkCreateImage failed", "Ask for a smaller image");
    if (!order.driver.caps.modifiers)
        return choices[0]; // LINEAR, the only one there is
    VkImageDrmFormatModifierPropertiesEXT taken{};
    taken.sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_PROPERTIES_EXT;
    result = order.driver.vk.GetImageDrmFormatModifierPropertiesEXT(order.driver.info.device, image,
                                                                    &taken);
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
    FrameLayout layout{.width = order.info.width,
                       .height = order.info.height,
                       .format = order.info.format,
                       .modifier = taken.modifier,
                       .plane_count = taken.plane_count};
    for (std::uint32_t i = 0; i < taken.plane_count; ++i) {
        const VkImageSubresource plane{
            .aspectMask = VkImageAspectFlags{plane_aspect(order.driver, i, taken.plane_count)},
            .mipLevel = 0,
            .arrayLayer = 0};
        VkSubresourceLayout where{};
        order.driver.vk.GetImageSubresourceLayout(order.driver.info.device, image, &plane, &where);
        if (where.offset > UINT32_MAX || where.rowPitch > UINT32_MAX)
            return refuse(order, Errc::unsupported,
                          "the driver lays plane " + std::to_string(i) + " out at offset " +
                              std::to_string(where.offset) + " with a stride of " +
                              std::to_string(where.rowPitch) + " bytes, above 32 bits",
                          "Ask for a smaller image");
        layout.planes[i] = {.offset = static_cast<std::uint32_t>(where.offset),
                            .stride = static_cast<std::uint32_t>(where.rowPitch)};
    }
    return layout;
}

Result<DmaBuf> allocate_and_bind(const Order& order, VulkanImageHandles& image,
                                 bool dedicated_only) {
    const VulkanMemoryPurpose purpose{operation, [&order] { return order.text(); }};
    VulkanMemoryNeeds needs = image_needs(order.driver, image.image);
    needs.dedicated = needs.dedicated || dedicated_only;
    auto memory = allocate_exportable(order.driver, needs, purpose);
    if (!memory)
        return tl::unexpected(std::move(memory.error()));
    image.memories[0] = *memory;
    const VkBindImageMemoryInfo bind{.sType = VK_STRUCTURE_TYPE_BIND_IMAGE_MEMORY_INFO,
                                     .pNext = nullptr,
                                     .image = image.image,
                                     .memory = memory->handle,
                                     .memoryOffset = 0};
    const VkResult result = order.driver.vk.BindImageMemory2(order.driver.info.device, 1, &bind);
    if (result != VK_SUCCESS)
        return refuse_vk(order, result, "the memory could not be bound",
                         "Free device memory and try again");
    return export_memory(order.driver, memory->handle, purpose);
}

} // namespace

Result<VulkanImage> VulkanDevice::export_image(const VulkanImageInfo& info) const noexcept {
    const Order order{.driver = *state_->driver,
                      .info = info,
                      .modifiers = info.modifiers.empty() ? linear : info.modifiers};
    auto format = format_of(order);
    if (!format)
        return tl::unexpected(std::move(format.error()));
    auto will_do = choices(order, *format);
    if (!will_do)
        return tl::unexpected(std::move(will_do.error()));
    VulkanImageHandles image(state_->driver);
    auto taken = create(order, *format, *will_do, image.image);
    if (!taken)
        return tl::unexpected(std::move(taken.error()));
    auto buffer = allocate_and_bind(order, image, taken->dedicated_only);
    if (!buffer)
        return tl::unexpected(std::move(buffer.error()));
    auto layout = layout_of(order, *taken, image.image);
    if (!layout)
        return tl::unexpected(std::move(layout.error()));
    auto frame = Frame::create(*layout, std::move(*buffer));
    if (!frame)
        return tl::unexpected(std::move(frame.error()));
    return VulkanImage(std::make_shared<const VulkanImage::State>(
                           std::move(image), *format, whole_components(info.format), *frame),
                       *frame);
}

} // namespace sluice
