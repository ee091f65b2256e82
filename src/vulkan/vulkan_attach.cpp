// SPDX-License-Identifier: MIT
// Frames of other exporters as VkImages: VK_EXT_external_memory_dma_buf and
// VK_EXT_image_drm_format_modifier, the explicit create info.
#include <sluice/vulkan_image.hpp>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include <drm_fourcc.h>

#include "core/dma_buf_text.hpp"
#include "core/sys.hpp"
#include "frame/frame_use.hpp"
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

/// What the driver can do with images of one modifier.
std::vector<VkDrmFormatModifierPropertiesEXT> modifiers_of(const Subject& subject) {
    const auto& vk = subject.device.vk;
    VkDrmFormatModifierPropertiesListEXT list{};
    list.sType = VK_STRUCTURE_TYPE_DRM_FORMAT_MODIFIER_PROPERTIES_LIST_EXT;
    VkFormatProperties2 properties{};
    properties.sType = VK_STRUCTURE_TYPE_FORMAT_PROPERTIES_2;
    properties.pNext = &list;
    vk.GetPhysicalDeviceFormatProperties2(subject.device.info.physical_device, subject.format,
                                          &properties);
    std::vector<VkDrmFormatModifierPropertiesEXT> modifiers(list.drmFormatModifierCount);
    list.pDrmFormatModifierProperties = modifiers.data();
    vk.GetPhysicalDeviceFormatProperties2(subject.device.info.physical_device, subject.format,
                                          &properties);
    modifiers.resize(std::min<std::size_t>(modifiers.size(), list.drmFormatModifierCount));
    return modifiers;
}

/// The first use in \p usage that the driver's \p features have not, or null.
const char* missing_use(VkImageUsageFlags usage, VkFormatFeatureFlags features) {
    struct Use {
        VkImageUsageFlags usage;
        VkFormatFeatureFlags feature;
        const char* name;
    };
    constexpr std::array uses{
        Use{VK_IMAGE_USAGE_SAMPLED_BIT, VK_FORMAT_FEATURE_SAMPLED_IMAGE_BIT, "SAMPLED"},
        Use{VK_IMAGE_USAGE_STORAGE_BIT, VK_FORMAT_FEATURE_STORAGE_IMAGE_BIT, "STORAGE"},
        Use{VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT, VK_FORMAT_FEATURE_COLOR_ATTACHMENT_BIT,
            "COLOR_ATTACHMENT"},
        Use{VK_IMAGE_USAGE_TRANSFER_SRC_BIT, VK_FORMAT_FEATURE_TRANSFER_SRC_BIT, "TRANSFER_SRC"},
        Use{VK_IMAGE_USAGE_TRANSFER_DST_BIT, VK_FORMAT_FEATURE_TRANSFER_DST_BIT, "TRANSFER_DST"},
    };
    for (const Use& each : uses)
        if ((usage & each.usage) != 0 && (features & each.feature) == 0)
            return each.name;
    return nullptr;
}

/// Whether the driver lists the frame's modifier for the format and the uses.
Result<void> check_modifier(const Subject& subject) {
    const std::uint64_t wanted = subject.frame.layout().modifier;
    const auto modifiers = modifiers_of(subject);
    const auto found =
        std::ranges::find(modifiers, wanted, &VkDrmFormatModifierPropertiesEXT::drmFormatModifier);
    if (found == modifiers.end()) {
        std::string known;
        for (const auto& each : modifiers)
            known += (known.empty() ? "" : ", ") + modifier_name(each.drmFormatModifier);
        return refuse(subject, Errc::unsupported,
                      "the driver does not take modifier " + modifier_name(wanted) +
                          " for this format; it takes " + (known.empty() ? "none" : known),
                      known.empty() ? "Attach the planes one by one (VulkanAttachInfo::view), or "
                                      "use another format"
                                    : "Allocate the frame with one of these");
    }
    if (found->drmFormatModifierPlaneCount != subject.plane_count)
        return refuse(subject, Errc::unsupported,
                      "the frame has " + std::to_string(subject.plane_count) +
                          " memory planes, and modifier " + modifier_name(wanted) + " has " +
                          std::to_string(found->drmFormatModifierPlaneCount) + " on this driver",
                      "Pass every plane that the exporter tells of");
    if (const char* use = missing_use(subject.usage, found->drmFormatModifierTilingFeatures))
        return refuse(subject, Errc::unsupported,
                      "modifier " + modifier_name(wanted) + " lacks " + use + " for this format",
                      "Leave that use out, or allocate the frame with another modifier");
    if (subject.disjoint() &&
        (found->drmFormatModifierTilingFeatures & VK_FORMAT_FEATURE_DISJOINT_BIT) == 0)
        return refuse(subject, Errc::unsupported,
                      "the planes lie in several buffers, which the driver does not take for this "
                      "format",
                      "Attach the planes one by one (VulkanAttachInfo::view), or have them in one "
                      "buffer");
    return {};
}

/// Whether the driver imports such an image. \returns whether it has to have memory of its own.
Result<bool> check_import(const Subject& subject, VkImageCreateFlags flags) {
    const VkPhysicalDeviceExternalImageFormatInfo external{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_IMAGE_FORMAT_INFO,
        .pNext = nullptr,
        .handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
    const VkPhysicalDeviceImageDrmFormatModifierInfoEXT modifier{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_DRM_FORMAT_MODIFIER_INFO_EXT,
        .pNext = &external,
        .drmFormatModifier = subject.frame.layout().modifier,
        .sharingMode = VK_SHARING_MODE_EXCLUSIVE,
        .queueFamilyIndexCount = 0,
        .pQueueFamilyIndices = nullptr};
    const VkPhysicalDeviceImageFormatInfo2 asked{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_FORMAT_INFO_2,
        .pNext = &modifier,
        .format = subject.format,
        .type = VK_IMAGE_TYPE_2D,
        .tiling = VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT,
        .usage = subject.usage,
        .flags = flags};
    VkExternalImageFormatProperties can{};
    can.sType = VK_STRUCTURE_TYPE_EXTERNAL_IMAGE_FORMAT_PROPERTIES;
    VkImageFormatProperties2 answer{};
    answer.sType = VK_STRUCTURE_TYPE_IMAGE_FORMAT_PROPERTIES_2;
    answer.pNext = &can;
    const VkResult result = subject.device.vk.GetPhysicalDeviceImageFormatProperties2(
        subject.device.info.physical_device, &asked, &answer);
    if (result == VK_ERROR_FORMAT_NOT_SUPPORTED) {
        Error error = failed_vk(result, operation, subject.text(),
                                "the driver has no such image for this usage",
                                "Ask for less usage, or attach the planes one by one "
                                "(VulkanAttachInfo::view)");
        error.code = Errc::unsupported;
        return tl::unexpected(std::move(error));
    }
    if (result != VK_SUCCESS)
        return tl::unexpected(failed_vk(result, operation, subject.text(),
                                        "the driver could not be asked for its limits",
                                        "Free memory and try again"));
    const VkExternalMemoryFeatureFlags features =
        can.externalMemoryProperties.externalMemoryFeatures;
    const VkExtent3D most = answer.imageFormatProperties.maxExtent;
    if ((features & VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT) == 0)
        return refuse(subject, Errc::unsupported, "the driver does not import it as a dma-buf",
                      "Have the GPU export the frame (VulkanDevice::export_image)");
    if (subject.extent.width > most.width || subject.extent.height > most.height)
        return refuse(subject, Errc::unsupported,
                      "the driver's limit is " + std::to_string(most.width) + "x" +
                          std::to_string(most.height),
                      "Use a smaller frame");
    return (features & VK_EXTERNAL_MEMORY_FEATURE_DEDICATED_ONLY_BIT) != 0;
}

VkResult create_image(const Subject& subject, VkImageCreateFlags flags, VkImage& image) {
    std::array<VkSubresourceLayout, max_planes> layouts{};
    for (std::uint32_t i = 0; i < subject.plane_count; ++i)
        layouts[i] = {.offset = subject.plane(i).offset, .rowPitch = subject.plane(i).stride};
    const VkExternalMemoryImageCreateInfo external{
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO,
        .pNext = nullptr,
        .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
    const VkImageDrmFormatModifierExplicitCreateInfoEXT layout{
        .sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_EXPLICIT_CREATE_INFO_EXT,
        .pNext = &external,
        .drmFormatModifier = subject.frame.layout().modifier,
        .drmFormatModifierPlaneCount = subject.plane_count,
        .pPlaneLayouts = layouts.data()};
    const VkImageCreateInfo create{.sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO,
                                   .pNext = &layout,
                                   .flags = flags,
                                   .imageType = VK_IMAGE_TYPE_2D,
                                   .format = subject.format,
                                   .extent = {subject.extent.width, subject.extent.height, 1},
                                   .mipLevels = 1,
                                   .arrayLayers = 1,
                                   .samples = VK_SAMPLE_COUNT_1_BIT,
                                   .tiling = VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT,
                                   .usage = subject.usage,
                                   .sharingMode = VK_SHARING_MODE_EXCLUSIVE,
                                   .queueFamilyIndexCount = 0,
                                   .pQueueFamilyIndices = nullptr,
                                   .initialLayout = VK_IMAGE_LAYOUT_UNDEFINED};
    // What a call that failed leaves in its handle is no handle.
    VkImage created = VK_NULL_HANDLE;
    const VkResult result =
        subject.device.vk.CreateImage(subject.device.info.device, &create, nullptr, &created);
    if (result == VK_SUCCESS)
        image = created;
    return result;
}

constexpr std::array memory_planes{
    VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT, VK_IMAGE_ASPECT_MEMORY_PLANE_1_BIT_EXT,
    VK_IMAGE_ASPECT_MEMORY_PLANE_2_BIT_EXT, VK_IMAGE_ASPECT_MEMORY_PLANE_3_BIT_EXT};

/// Imports the memory of plane \p index, or of all planes where they are not disjoint.
Result<VkDeviceMemory> import_memory(const Subject& subject, VkImage image, std::uint32_t index,
                                     bool disjoint, bool dedicated_only) {
    const auto& vk = subject.device.vk;
    const VkDevice device = subject.device.info.device;
    const DmaBuf& buffer = subject.buffer(index);

    const VkImagePlaneMemoryRequirementsInfo plane{
        .sType = VK_STRUCTURE_TYPE_IMAGE_PLANE_MEMORY_REQUIREMENTS_INFO,
        .pNext = nullptr,
        .planeAspect = memory_planes[index]};
    const VkImageMemoryRequirementsInfo2 of{.sType =
                                                VK_STRUCTURE_TYPE_IMAGE_MEMORY_REQUIREMENTS_INFO_2,
                                            .pNext = disjoint ? &plane : nullptr,
                                            .image = image};
    VkMemoryDedicatedRequirements wants{};
    wants.sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_REQUIREMENTS;
    VkMemoryRequirements2 needs{};
    needs.sType = VK_STRUCTURE_TYPE_MEMORY_REQUIREMENTS_2;
    needs.pNext = disjoint ? nullptr : &wants; // disjoint planes cannot have memory of their own
    vk.GetImageMemoryRequirements2(device, &of, &needs);
    const VkDeviceSize size = needs.memoryRequirements.size;
    if (size > buffer.size())
        return refuse(subject, Errc::out_of_bounds,
                      "the driver needs " + std::to_string(size) + " bytes, " + describe(buffer) +
                          ", holds " + std::to_string(buffer.size()),
                      "Allocate " + std::to_string(size - buffer.size()) +
                          " bytes more: drivers may read past the last row");

    VkMemoryFdPropertiesKHR may{};
    may.sType = VK_STRUCTURE_TYPE_MEMORY_FD_PROPERTIES_KHR;
    constexpr auto dma_buf = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT;
    VkResult result = vk.GetMemoryFdPropertiesKHR(device, dma_buf, buffer.fd(), &may);
    if (result != VK_SUCCESS) {
        Error error =
            failed_vk(result, operation, subject.text(),
                      "the driver cannot use " + describe(buffer) + " (vkGetMemoryFdPropertiesKHR)",
                      "Allocate the frame with another exporter");
        if (result == VK_ERROR_INVALID_EXTERNAL_HANDLE)
            error.code = Errc::wrong_object;
        return tl::unexpected(std::move(error));
    }
    const std::uint32_t allowed = needs.memoryRequirements.memoryTypeBits & may.memoryTypeBits;
    const std::uint32_t type = memory_type(subject.device, allowed);
    if (type == VK_MAX_MEMORY_TYPES)
        return refuse(subject, Errc::unsupported,
                      "no memory type is right for both the image and " + describe(buffer),
                      "Allocate the frame with another exporter, or have the GPU export it");

    // The driver takes the fd where the import succeeds, so it gets a duplicate.
    auto copy = UniqueFd::duplicate(buffer.fd());
    if (!copy) {
        copy.error().operation = operation;
        return tl::unexpected(std::move(copy.error()));
    }
    const bool dedicated =
        !disjoint && (dedicated_only || wants.requiresDedicatedAllocation == VK_TRUE ||
                      wants.prefersDedicatedAllocation == VK_TRUE);
    const VkMemoryDedicatedAllocateInfo alone{.sType =
                                                  VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO,
                                              .pNext = nullptr,
                                              .image = image,
                                              .buffer = VK_NULL_HANDLE};
    const VkImportMemoryFdInfoKHR import{.sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR,
                                         .pNext = dedicated ? &alone : nullptr,
                                         .handleType = dma_buf,
                                         .fd = copy->release()};
    const VkMemoryAllocateInfo allocate{.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                        .pNext = &import,
                                        .allocationSize = size,
                                        .memoryTypeIndex = type};
    VkDeviceMemory memory = VK_NULL_HANDLE;
    result = vk.AllocateMemory(device, &allocate, nullptr, &memory);
    if (result == VK_SUCCESS)
        return memory;
    sys::take_back(import.fd, buffer.fd());
    Error error = failed_vk(result, operation, subject.text(),
                            "the driver did not import " + describe(buffer),
                            "Allocate the frame with another exporter, and with its fd read-write: "
                            "some drivers map it");
    if (result == VK_ERROR_INVALID_EXTERNAL_HANDLE)
        error.code = Errc::wrong_object;
    return tl::unexpected(std::move(error));
}

Result<void> import_and_bind(const Subject& subject, VulkanImageHandles& image,
                             bool dedicated_only) {
    const bool disjoint = subject.disjoint();
    const std::uint32_t count = disjoint ? subject.plane_count : 1;
    std::array<VkBindImagePlaneMemoryInfo, max_planes> planes{};
    std::array<VkBindImageMemoryInfo, max_planes> binds{};
    for (std::uint32_t i = 0; i < count; ++i) {
        auto memory = import_memory(subject, image.image, i, disjoint, dedicated_only);
        if (!memory)
            return tl::unexpected(std::move(memory.error()));
        image.memories[i] = *memory;
        planes[i] = {.sType = VK_STRUCTURE_TYPE_BIND_IMAGE_PLANE_MEMORY_INFO,
                     .pNext = nullptr,
                     .planeAspect = memory_planes[i]};
        binds[i] = {.sType = VK_STRUCTURE_TYPE_BIND_IMAGE_MEMORY_INFO,
                    .pNext = disjoint ? &planes[i] : nullptr,
                    .image = image.image,
                    .memory = *memory,
                    .memoryOffset = 0}; // the planes' offsets are the layout's
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
    if (info.view) {
        if (*info.view >= format->view_count)
            return refuse(subject, Errc::invalid_argument,
                          "there is no view " + std::to_string(*info.view) + ", the format has " +
                              std::to_string(format->view_count),
                          "Count the views from 0");
        if (layout.modifier != DRM_FORMAT_MOD_LINEAR && layout.plane_count != 1)
            return refuse(subject, Errc::unsupported,
                          "a plane of modifier " + modifier_name(layout.modifier) +
                              " means nothing without the others",
                          "Attach the frame as a whole");
        const VulkanPlaneView& view = format->views[*info.view];
        const auto texels = [](std::uint32_t pixels, std::uint32_t size) {
            return pixels / size + (pixels % size != 0 ? 1 : 0);
        };
        subject.format = view.format;
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
    return subject;
}

Result<void> attach_subject(const Subject& subject, VulkanImageHandles& image) {
    if (auto listed = check_modifier(subject); !listed)
        return tl::unexpected(std::move(listed.error()));
    const VkImageCreateFlags flags = subject.disjoint() ? VK_IMAGE_CREATE_DISJOINT_BIT : 0;
    auto dedicated_only = check_import(subject, flags);
    if (!dedicated_only)
        return tl::unexpected(std::move(dedicated_only.error()));
    const VkResult result = create_image(subject, flags, image.image);
    if (result != VK_SUCCESS) {
        Error error = failed_vk(result, operation, subject.text(), "vkCreateImage failed",
                                "Allocate the frame with the stride and offsets that the driver "
                                "wants, or have the GPU export it");
        if (result == VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT)
            error.code = Errc::unsupported;
        return tl::unexpected(std::move(error));
    }
    return import_and_bind(subject, image, *dedicated_only);
}

} // namespace

Result<VulkanImage> VulkanDevice::attach(const Frame& frame,
                                         const VulkanAttachInfo& info) const noexcept {
    const VulkanAttachmentKey key{.kind = VulkanAttachmentKey::Kind::image,
                                  .part = info.view.value_or(VulkanAttachmentKey::whole),
                                  .usage = info.usage};
    if (frame.revoked())
        return tl::unexpected(FrameUse::refusal(frame, operation));
    if (auto known = state_->attachments.find(frame, key)) {
        if (known->frame != frame) // a new one of the same buffers
            FrameUse::watch(frame, state_->weak_from_this());
        return VulkanImage(std::static_pointer_cast<const VulkanImage::State>(std::move(known)),
                           frame);
    }
    auto subject = subject_of(*state_->driver, frame, info);
    if (!subject)
        return tl::unexpected(std::move(subject.error()));
    if (auto used = FrameUse::begin(frame, operation); !used)
        return tl::unexpected(std::move(used.error()));
    VulkanImageHandles handles(state_->driver);
    auto made = attach_subject(*subject, handles);
    if (made)
        FrameUse::watch(frame, state_->weak_from_this());
    std::shared_ptr<const VulkanAttachment::State> state;
    if (made)
        state = state_->attachments.insert(key, std::make_shared<const VulkanImage::State>(
                                                    std::move(handles), subject->format, frame));
    FrameUse::end(frame);
    if (!made)
        return tl::unexpected(std::move(made.error()));
    return VulkanImage(std::static_pointer_cast<const VulkanImage::State>(std::move(state)), frame);
}

} // namespace sluice
