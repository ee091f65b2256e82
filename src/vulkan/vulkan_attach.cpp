// SPDX-License-Identifier: MIT
// Frames of other exporters as VkImages: VK_EXT_external_memory_dma_buf and
// VK_EXT_image_drm_format_modifier, the explicit create info.
#include <sluice/vulkan_image.hpp>

#include <algorithm>
#include <array>
#include <optional>
#include <string>

#include <drm_fourcc.h>

#include "frame/frame_use.hpp"
#include "frame/linear_layout.hpp"
#include "vulkan/vulkan_device_state.hpp"
#include "vulkan/vulkan_error.hpp"
#include "vulkan/vulkan_image_state.hpp"
#include <sluice/format.hpp>
#include <sluice/vulkan_format.hpp>

namespace sluice {

namespace {

constexpr const char* operation = "VulkanDevice::attach";

/// What is attached: the frame as a whole, or one plane as an image of its own.
struct Subject {
    const VulkanDriver& device;
    const Frame& frame;
    VkFormat format = VK_FORMAT_UNDEFINED;
    VkFormat srgb = VK_FORMAT_UNDEFINED; // for views of it
    VkComponentMapping components = {};
    VkExtent2D extent = {};
    std::uint32_t first_plane = 0;
    std::uint32_t plane_count = 0;
    VkImageUsageFlags usage = 0;

    [[nodiscard]] const FramePlane& plane(std::uint32_t index) const noexcept {
        return frame.layout().planes[first_plane + index];
    }
    [[nodiscard]] const DmaBuf& buffer(std::uint32_t index) const noexcept {
        return frame.buffer(first_plane + index);
    }
    [[nodiscard]] bool disjoint() const noexcept {
        for (std::uint32_t i = 1; i < plane_count; ++i)
            if (plane(i).buffer != plane(0).buffer)
                return true;
        return false;
    }
    [[nodiscard]] VulkanImageKind kind() const noexcept {
        return {.format = format,
                .usage = usage,
                .flags = disjoint() ? VkImageCreateFlags{VK_IMAGE_CREATE_DISJOINT_BIT} : 0,
                .srgb = srgb};
    }
    [[nodiscard]] std::string text() const {
        return describe(frame.layout()) +
               (plane_count == frame.layout().plane_count
                    ? std::string()
                    : ", plane " + std::to_string(first_plane)) +
               " on " + device.name;
    }
};

tl::unexpected<Error> refuse(const Subject& subject, Errc code, std::string problem,
                             std::string remedy) {
    return tl::unexpected(Error{.code = code,
                                .operation = operation,
                                .object = subject.text(),
                                .problem = std::move(problem),
                                .remedy = std::move(remedy)});
}

/// What only reads; all other uses may write, also storage that a shader reads alone.
constexpr VkImageUsageFlags reading = VK_IMAGE_USAGE_TRANSFER_SRC_BIT | VK_IMAGE_USAGE_SAMPLED_BIT |
                                      VK_IMAGE_USAGE_INPUT_ATTACHMENT_BIT;

/// Planes that lie on each other, which no driver need be asked about.
Result<void> check_planes(const Subject& subject) {
    if (subject.plane_count == 1)
        return {};
    const auto both = overlapping_planes(subject.frame.layout());
    if (!both)
        return {};
    const auto& planes = subject.frame.layout().planes;
    return refuse(subject, Errc::invalid_argument,
                  "plane " + std::to_string(both->second) + " at offset " +
                      std::to_string(planes[both->second].offset) + " overlaps plane " +
                      std::to_string(both->first) + " at offset " +
                      std::to_string(planes[both->first].offset),
                  "Pass the offsets that the exporter tells");
}

/// What the driver says of the frame's modifier, where it takes the frame.
Result<VulkanModifierCaps> check_modifier(const Subject& subject) {
    const std::uint64_t wanted = subject.frame.layout().modifier;
    if (!subject.device.caps.modifiers && subject.disjoint())
        return refuse(subject, Errc::unsupported,
                      "the planes lie in several buffers, which takes "
                      "VK_EXT_image_drm_format_modifier",
                      "Enable it, or attach the planes one by one (VulkanAttachInfo::view)");
    const auto modifiers = subject.device.image_caps->modifiers(subject.device, subject.kind());
    if (!modifiers)
        return tl::unexpected(failed_vk(modifiers.error(), operation, subject.text(),
                                        "the driver could not be asked for its limits",
                                        "Free memory and try again"));
    const auto found = std::ranges::find(*modifiers, wanted, &VulkanModifierCaps::modifier);
    if (found == modifiers->end())
        return refuse(subject, Errc::unsupported,
                      "the driver does not take modifier " + modifier_name(wanted) +
                          " for this format; it takes " + modifier_names(*modifiers),
                      modifiers->empty()
                          ? "Attach the planes one by one (VulkanAttachInfo::view), or use another "
                            "format"
                          : "Allocate the frame with one of these");
    if (found->plane_count != subject.plane_count)
        return refuse(subject, Errc::unsupported,
                      "the frame has " + std::to_string(subject.plane_count) +
                          " memory planes, and modifier " + modifier_name(wanted) + " has " +
                          std::to_string(found->plane_count) + " on this driver",
                      "Pass every plane that the exporter tells of");
    if (const char* use = missing_use(subject.usage, found->features))
        return refuse(subject, Errc::unsupported,
                      "modifier " + modifier_name(wanted) + " lacks " + use + " for this format",
                      "Leave that use out, or allocate the frame with another modifier");
    if (subject.disjoint() && !found->disjoint)
        return refuse(subject, Errc::unsupported,
                      "the planes lie in several buffers, which the driver does not take for this "
                      "format",
                      "Attach the planes one by one (VulkanAttachInfo::view), or have them in one "
                      "buffer");
    const VkExtent2D most = found->max_extent;
    if (most.width == 0)
        return refuse(subject, Errc::unsupported,
                      subject.srgb == VK_FORMAT_UNDEFINED
                          ? "the driver has no such image for this usage"
                          : "the driver has no such image with sRGB views for this usage",
                      "Ask for less usage, or attach the planes one by one "
                      "(VulkanAttachInfo::view)");
    if (!found->importable)
        return refuse(subject, Errc::unsupported, "the driver does not import it as a dma-buf",
                      "Have the GPU export the frame (VulkanDevice::export_image)");
    if (subject.extent.width > most.width || subject.extent.height > most.height)
        return refuse(subject, Errc::unsupported,
                      "the driver's limit is " + std::to_string(most.width) + "x" +
                          std::to_string(most.height),
                      "Use a smaller frame");
    return *found;
}

VkResult create_image(const Subject& subject, VkImage& image) {
    std::array<VkSubresourceLayout, max_planes> layouts{};
    for (std::uint32_t i = 0; i < subject.plane_count; ++i)
        layouts[i] = {.offset = subject.plane(i).offset, .rowPitch = subject.plane(i).stride};
    const VkImageDrmFormatModifierExplicitCreateInfoEXT layout{
        .sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_EXPLICIT_CREATE_INFO_EXT,
        .pNext = nullptr,
        .drmFormatModifier = subject.frame.layout().modifier,
        .drmFormatModifierPlaneCount = subject.plane_count,
        .pPlaneLayouts = layouts.data()};
    return create_image(subject.device,
                        {.format = subject.format,
                         .extent = subject.extent,
                         .usage = subject.usage,
                         .flags = subject.kind().flags,
                         .srgb = subject.srgb,
                         .layout = subject.device.caps.modifiers ? &layout : nullptr},
                        image);
}

/// Without modifiers the driver's own LINEAR layout must be the frame's. \returns the offset of the
/// image in its buffer, or why they are not alike.
Result<VkDeviceSize> check_layout(const Subject& subject, VkImage image) {
    VkDeviceSize start = 0;
    for (std::uint32_t i = 0; i < subject.plane_count; ++i) {
        const VkImageSubresource plane{
            .aspectMask = VkImageAspectFlags{plane_aspect(subject.device, i, subject.plane_count)},
            .mipLevel = 0,
            .arrayLayer = 0};
        VkSubresourceLayout where{};
        subject.device.vk.GetImageSubresourceLayout(subject.device.info.device, image, &plane,
                                                    &where);
        const FramePlane& ours = subject.plane(i);
        if (i == 0 && ours.offset >= where.offset)
            start = ours.offset - where.offset;
        if (ours.stride == where.rowPitch && ours.offset == start + where.offset)
            continue;
        const std::string asked =
            std::to_string(where.rowPitch) + " and offset " + std::to_string(start + where.offset);
        return refuse(subject, Errc::unsupported,
                      "without VK_EXT_image_drm_format_modifier the driver has one LINEAR layout, "
                      "of stride " +
                          asked + " for plane " + std::to_string(i),
                      "Enable the extension, or allocate the frame with stride " + asked);
    }
    return start;
}

Result<void> import_and_bind(const Subject& subject, VulkanImageHandles& image,
                             bool dedicated_only) {
    VkDeviceSize start = 0; // with modifiers all offsets are the layout's
    if (!subject.device.caps.modifiers) {
        const auto found = check_layout(subject, image.image);
        if (!found)
            return tl::unexpected(found.error());
        start = *found;
    }
    const bool disjoint = subject.disjoint();
    const std::uint32_t count = disjoint ? subject.plane_count : 1;
    std::array<VkBindImagePlaneMemoryInfo, max_planes> planes{};
    std::array<VkBindImageMemoryInfo, max_planes> binds{};
    for (std::uint32_t i = 0; i < count; ++i) {
        VulkanMemoryNeeds needs =
            image_needs(subject.device, image.image, disjoint ? std::optional(i) : std::nullopt);
        needs.dedicated_required = needs.dedicated_required || (dedicated_only && !disjoint);
        needs.dedicated = needs.dedicated || needs.dedicated_required;
        if (start % std::max<VkDeviceSize>(needs.requirements.alignment, 1) != 0)
            return refuse(subject, Errc::unsupported,
                          "the frame begins at byte " + std::to_string(start) +
                              " of its buffer, and the driver wants a multiple of " +
                              std::to_string(needs.requirements.alignment),
                          "Enable VK_EXT_image_drm_format_modifier, or move the frame");
        // Memory for one image alone has its size, and the image lies at its beginning:
        // VUID-VkMemoryDedicatedAllocateInfo-image-02964, -VkBindImageMemoryInfo-memory-02628.
        if (start != 0 && needs.dedicated_required)
            return refuse(subject, Errc::unsupported,
                          "it begins at byte " + std::to_string(start) +
                              " of its buffer, and the driver wants the buffer for it alone",
                          "Enable VK_EXT_image_drm_format_modifier, or put it at the beginning of "
                          "a buffer of its own");
        needs.dedicated = needs.dedicated && start == 0;
        needs.requirements.size += start;
        auto memory = import_memory(subject.device, needs, subject.buffer(i),
                                    {operation, [&subject] { return subject.text(); }});
        if (!memory)
            return tl::unexpected(std::move(memory.error()));
        image.memories[i] = *memory;
        planes[i] = {.sType = VK_STRUCTURE_TYPE_BIND_IMAGE_PLANE_MEMORY_INFO,
                     .pNext = nullptr,
                     .planeAspect = plane_aspect(subject.device, i, count)};
        binds[i] = {.sType = VK_STRUCTURE_TYPE_BIND_IMAGE_MEMORY_INFO,
                    .pNext = disjoint ? &planes[i] : nullptr,
                    .image = image.image,
                    .memory = memory->handle,
                    .memoryOffset = start};
    }
    const VkResult result =
        subject.device.vk.BindImageMemory2(subject.device.info.device, count, binds.data());
    if (result != VK_SUCCESS)
        return tl::unexpected(failed_vk(result, operation, subject.text(),
                                        "the memory could not be bound",
                                        "Free device memory and try again"));
    return {};
}

/// What \p info asks for of \p frame, as far as the format tells.
Result<Subject> subject_of(const VulkanDriver& device, const Frame& frame,
                           const VulkanAttachInfo& info) {
    const FrameLayout& layout = frame.layout();
    Subject subject{.device = device,
                    .frame = frame,
                    .extent = {layout.width, layout.height},
                    .plane_count = layout.plane_count,
                    .usage = info.usage};
    if (info.usage == 0)
        return refuse(subject, Errc::invalid_argument, "it has no usage",
                      "Say what the GPU will do with the image");
    if (layout.modifier == DRM_FORMAT_MOD_INVALID)
        return refuse(subject, Errc::unsupported,
                      "modifier INVALID does not tell the GPU how the pixels lie",
                      "Allocate the frame with a modifier; LINEAR is 0");
    const VulkanFormatInfo* format = find_vulkan_format(layout.format);
    if (format == nullptr)
        return refuse(subject, Errc::unsupported, "Vulkan has no format with its bytes",
                      "Use one of vulkan_formats()");
    if (const char* use = misplaced_use(*format, info.usage, info.view))
        return refuse(subject, Errc::unsupported, misplaced_problem(use), misplaced_remedy);
    if (info.view) {
        if (*info.view >= format->view_count)
            return refuse(subject, Errc::invalid_argument,
                          "there is no view " + std::to_string(*info.view) + ", the format has " +
                              std::to_string(format->view_count),
                          "Count the views from 0");
        if (info.srgb_views)
            return refuse(subject, Errc::invalid_argument, "a part of a frame has no sRGB views",
                          "Attach the frame as a whole, or leave sRGB views out");
        if (layout.modifier != DRM_FORMAT_MOD_LINEAR && !view_is_whole(*format))
            return refuse(subject, Errc::unsupported,
                          "how the pixels lie with modifier " + modifier_name(layout.modifier) +
                              " depends on their size and on the other planes, which a view "
                              "changes",
                          "Attach the frame as a whole, or allocate it LINEAR");
        const VulkanPlaneView& view = format->views[*info.view];
        const auto texels = [](std::uint32_t pixels, std::uint32_t size) {
            return pixels / size + (pixels % size != 0 ? 1 : 0);
        };
        subject.format = view.format;
        subject.components = view.components;
        subject.extent = {texels(layout.width, view.texel_width),
                          texels(layout.height, view.texel_height)};
        subject.first_plane = view.plane;
        subject.plane_count = 1;
        return subject;
    }
    if (format->format == VK_FORMAT_UNDEFINED)
        return refuse(subject, Errc::unsupported,
                      "Vulkan has no format for all of its planes together",
                      "Attach the planes one by one (VulkanAttachInfo::view)");
    // VUID-VkImageCreateInfo-format-04712 and -04713.
    if (layout.width % format->chroma.width != 0 || layout.height % format->chroma.height != 0)
        return refuse(subject, Errc::unsupported,
                      "its size is no multiple of " + std::to_string(format->chroma.width) + "x" +
                          std::to_string(format->chroma.height) +
                          ", which Vulkan asks of this format",
                      "Attach the planes one by one (VulkanAttachInfo::view)");
    subject.format = format->format;
    subject.components = whole_components(layout.format);
    if (auto apart = check_planes(subject); !apart)
        return tl::unexpected(std::move(apart.error()));
    if (info.srgb_views) {
        auto srgb = srgb_views_of(*format, info.usage, operation, subject.text());
        if (!srgb)
            return tl::unexpected(std::move(srgb.error()));
        subject.srgb = *srgb;
    }
    return subject;
}

Result<void> attach_subject(const Subject& subject, VulkanImageHandles& image) {
    for (std::uint32_t i = 0; i < subject.plane_count; ++i)
        if (subject.device.strict && (i == 0 || subject.disjoint()))
            if (auto same = check_identity(subject.buffer(i),
                                           {operation, [&subject] { return subject.text(); }});
                !same)
                return same;
    auto caps = check_modifier(subject);
    if (!caps)
        return tl::unexpected(std::move(caps.error()));
    const VkResult result = create_image(subject, image.image);
    if (result != VK_SUCCESS) {
        Error error = failed_vk(result, operation, subject.text(), "vkCreateImage failed",
                                "Allocate the frame with the stride and offsets that the driver "
                                "wants, or have the GPU export it");
        if (result == VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT)
            error.code = Errc::unsupported;
        return tl::unexpected(std::move(error));
    }
    return import_and_bind(subject, image, caps->dedicated_only);
}

} // namespace

Result<std::shared_ptr<const VulkanImage::State>>
VulkanDevice::State::attach(const Frame& frame, const VulkanAttachInfo& info,
                            VulkanAttachmentCache::Lookup lookup) {
    const VulkanAttachmentKey key{.kind = VulkanAttachmentKey::Kind::image,
                                  .part = info.view.value_or(VulkanAttachmentKey::whole),
                                  .usage = info.usage,
                                  .srgb_views = info.srgb_views};
    if (frame.revoked())
        return tl::unexpected(FrameUse::refusal(frame, operation));
    if (auto may = check_mode(*driver, frame, (info.usage & ~reading) != 0, operation); !may)
        return tl::unexpected(std::move(may.error()));
    if (auto known = attachments.find(frame, key, lookup)) {
        if (known->frame != frame) { // a new one of the same buffers
            // Revoked meanwhile it must not be watched too late.
            if (auto used = FrameUse::begin(frame, operation); !used)
                return tl::unexpected(std::move(used.error()));
            FrameUse::watch(frame, watcher);
            FrameUse::end(frame);
        }
        return std::static_pointer_cast<const VulkanImage::State>(std::move(known));
    }
    auto subject = subject_of(*driver, frame, info);
    if (!subject)
        return tl::unexpected(std::move(subject.error()));
    if (auto used = FrameUse::begin(frame, operation); !used)
        return tl::unexpected(std::move(used.error()));
    VulkanImageHandles handles(driver);
    auto made = attach_subject(*subject, handles);
    if (made)
        FrameUse::watch(frame, watcher);
    std::shared_ptr<const VulkanAttachment::State> attached;
    if (made)
        attached = attachments.insert(key, std::make_shared<const VulkanImage::State>(
                                               std::move(handles),
                                               VulkanImageViewing{.format = subject->format,
                                                                  .srgb = subject->srgb,
                                                                  .components = subject->components,
                                                                  .usage = subject->usage},
                                               frame));
    FrameUse::end(frame);
    if (!made)
        return tl::unexpected(std::move(made.error()));
    return std::static_pointer_cast<const VulkanImage::State>(std::move(attached));
}

Result<VulkanImage> VulkanDevice::attach(const Frame& frame,
                                         const VulkanAttachInfo& info) const noexcept {
    auto attached = state_->attach(frame, info, VulkanAttachmentCache::Lookup::of_a_new_call);
    if (!attached)
        return tl::unexpected(std::move(attached.error()));
    return VulkanImage(std::move(*attached), frame);
}

} // namespace sluice
