// SPDX-License-Identifier: MIT
#include "support/fake_vulkan.hpp"

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

#include <drm_fourcc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gtest/gtest.h>

namespace sluice::test {

namespace {

FakeVulkan* current = nullptr;

FakeVulkan& driver() {
    // A call that comes after the driver has gone cannot be told to gtest any more.
    if (current == nullptr)
        std::abort();
    return *current;
}

// Handles of objects that are only named. The first physical device is followed by the others.
constexpr std::uint64_t first_physical_device = 0x100;
constexpr std::uint64_t the_queue = 0x200;
constexpr std::uint64_t nonsense = 0xdead;

// Handles are pointers or, on 32-bit machines, some of them numbers.
template <typename Handle> std::uint64_t number(Handle handle) {
    if constexpr (std::is_pointer_v<Handle>)
        return reinterpret_cast<std::uintptr_t>(handle);
    else
        return handle;
}

template <typename Handle> Handle handle(std::uint64_t of) {
    if constexpr (std::is_pointer_v<Handle>)
        return reinterpret_cast<Handle>(static_cast<std::uintptr_t>(of)); // NOLINT(*-int-to-ptr)
    else
        return of;
}

/// The structure of \p type in the chain that starts at \p next, or null.
template <typename T> const T* chained(const void* next, VkStructureType type) {
    for (auto* each = static_cast<const VkBaseInStructure*>(next); each; each = each->pNext)
        if (each->sType == type)
            return reinterpret_cast<const T*>(each);
    return nullptr;
}

template <typename T> T* chained(void* next, VkStructureType type) {
    return const_cast<T*>(chained<T>(static_cast<const void*>(next), type));
}

std::vector<std::string> texts(std::uint32_t count, const char* const* list) {
    return {list, list + count};
}

template <typename Handle> VkResult failed(VkResult result, Handle* into) {
    if (driver().failures_leave_nonsense)
        *into = handle<Handle>(nonsense);
    return result;
}

/// Vulkan's way to hand out a list: its length alone, or as much of it as there is room for.
template <typename T> VkResult list_out(const std::vector<T>& all, std::uint32_t* count, T* into) {
    if (into == nullptr) {
        *count = static_cast<std::uint32_t>(all.size());
        return VK_SUCCESS;
    }
    *count = std::min(*count, static_cast<std::uint32_t>(all.size()));
    std::copy_n(all.begin(), *count, into);
    return *count < all.size() ? VK_INCOMPLETE : VK_SUCCESS;
}

template <std::size_t N> void copy_text(char (&into)[N], const std::string& text) { // NOLINT
    std::copy_n(text.begin(), std::min(N - 1, text.size()), into);
}

int read_end_of_a_pipe() {
    std::array<int, 2> ends{-1, -1};
    EXPECT_EQ(pipe(ends.data()), 0);
    close(ends[1]);
    return ends[0];
}

std::string words(std::uint64_t of) {
    std::array<char, 32> text{};
    (void)std::snprintf(text.data(), text.size(), "0x%llx", static_cast<unsigned long long>(of));
    return text.data();
}

} // namespace

UniqueFd fake_sync_file(int status) {
    UniqueFd fd(memfd_create("sync_file", MFD_CLOEXEC));
    EXPECT_TRUE(write_fake_status(fd.get(), status));
    return fd;
}

void set_fake_status(int fd, int status) {
    EXPECT_TRUE(write_fake_status(fd, status));
}

namespace {

std::vector<VkFormat> view_formats(const void* chain) {
    const auto* list = chained<VkImageFormatListCreateInfo>(
        chain, VK_STRUCTURE_TYPE_IMAGE_FORMAT_LIST_CREATE_INFO);
    return list == nullptr ? std::vector<VkFormat>{}
                           : std::vector<VkFormat>(list->pViewFormats,
                                                   list->pViewFormats + list->viewFormatCount);
}

const auto& modifiers_of(const FakePhysicalDevice& device, VkFormat format) {
    const auto own = device.modifiers_of.find(format);
    return own == device.modifiers_of.end() ? device.modifiers : own->second;
}

} // namespace

// The functions, named as Vulkan's without the prefix.
struct FakeVulkan::Functions {
    // NOLINTBEGIN(readability-non-const-parameter): the signatures are Vulkan's.

    static VkResult VKAPI_CALL CreateInstance(const VkInstanceCreateInfo* info,
                                              const VkAllocationCallbacks*, VkInstance* instance) {
        auto& fake = driver();
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS)
            return failed(result, instance);
        fake.instances.push_back(
            {.api_version = info->pApplicationInfo->apiVersion,
             .application = info->pApplicationInfo->pApplicationName,
             .layers = texts(info->enabledLayerCount, info->ppEnabledLayerNames),
             .extensions = texts(info->enabledExtensionCount, info->ppEnabledExtensionNames)});
        fake.instance_ = fake.add({.kind = "instance"});
        *instance = handle<VkInstance>(fake.instance_);
        return VK_SUCCESS;
    }

    static void VKAPI_CALL DestroyInstance(VkInstance instance, const VkAllocationCallbacks*) {
        driver().destroy("instance", number(instance), __func__);
    }

    static VkResult VKAPI_CALL EnumeratePhysicalDevices(VkInstance instance, std::uint32_t* count,
                                                        VkPhysicalDevice* into) {
        auto& fake = driver();
        fake.use("instance", number(instance), __func__);
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS)
            return result;
        std::vector<VkPhysicalDevice> all;
        for (std::size_t each = 0; each < fake.devices.size(); ++each)
            all.push_back(handle<VkPhysicalDevice>(first_physical_device + each));
        return list_out(all, count, into);
    }

    static VkResult VKAPI_CALL EnumerateDeviceExtensionProperties(VkPhysicalDevice device,
                                                                  const char*, std::uint32_t* count,
                                                                  VkExtensionProperties* into) {
        auto& fake = driver();
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS)
            return result;
        std::vector<VkExtensionProperties> all;
        for (const std::string& name : fake.physical(device).extensions)
            copy_text(all.emplace_back().extensionName, name);
        return list_out(all, count, into);
    }

    static void VKAPI_CALL GetPhysicalDeviceProperties(VkPhysicalDevice device,
                                                       VkPhysicalDeviceProperties* into) {
        (void)driver().call(__func__);
        const auto& physical = driver().physical(device);
        *into = {};
        into->apiVersion = physical.api_version;
        into->deviceType = physical.type;
        copy_text(into->deviceName, physical.name);
    }

    static void VKAPI_CALL GetPhysicalDeviceProperties2(VkPhysicalDevice device,
                                                        VkPhysicalDeviceProperties2* into) {
        (void)driver().call(__func__);
        const auto& physical = driver().physical(device);
        auto* limits = chained<VkPhysicalDeviceMaintenance4Properties>(
            into->pNext, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_PROPERTIES);
        EXPECT_TRUE(limits == nullptr || physical.api_version >= VK_API_VERSION_1_3);
        if (limits)
            limits->maxBufferSize = physical.max_buffer_size;
    }

    static void VKAPI_CALL GetPhysicalDeviceExternalBufferProperties(
        VkPhysicalDevice device, const VkPhysicalDeviceExternalBufferInfo* info,
        VkExternalBufferProperties* into) {
        (void)driver().call(__func__);
        EXPECT_NE(info->usage, 0U);
        EXPECT_EQ(info->handleType, VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT);
        into->externalMemoryProperties.externalMemoryFeatures =
            driver().physical(device).buffer_features;
    }

    static void VKAPI_CALL GetPhysicalDeviceQueueFamilyProperties(VkPhysicalDevice device,
                                                                  std::uint32_t* count,
                                                                  VkQueueFamilyProperties* into) {
        (void)driver().call(__func__);
        std::vector<VkQueueFamilyProperties> all;
        for (const VkQueueFlags flags : driver().physical(device).queue_families)
            all.push_back({.queueFlags = flags, .queueCount = 1});
        (void)list_out(all, count, into);
    }

    static void VKAPI_CALL GetPhysicalDeviceMemoryProperties(
        VkPhysicalDevice device, VkPhysicalDeviceMemoryProperties* into) {
        (void)driver().call(__func__);
        *into = {};
        for (const VkMemoryPropertyFlags flags : driver().physical(device).memory_types)
            into->memoryTypes[into->memoryTypeCount++].propertyFlags = flags;
        into->memoryHeapCount = 1;
        into->memoryHeaps[0].size = driver().physical(device).heap_size;
    }

    static void VKAPI_CALL GetPhysicalDeviceExternalSemaphoreProperties(
        VkPhysicalDevice device, const VkPhysicalDeviceExternalSemaphoreInfo* info,
        VkExternalSemaphoreProperties* into) {
        (void)driver().call(__func__);
        if (info->handleType == VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT)
            into->externalSemaphoreFeatures = driver().physical(device).semaphore_features;
    }

    static VkResult VKAPI_CALL GetPhysicalDeviceImageFormatProperties2(
        VkPhysicalDevice device, const VkPhysicalDeviceImageFormatInfo2* info,
        VkImageFormatProperties2* into) {
        auto& fake = driver();
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS)
            return result;
        const auto* external = chained<VkPhysicalDeviceExternalImageFormatInfo>(
            info->pNext, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_IMAGE_FORMAT_INFO);
        const auto* modifier = chained<VkPhysicalDeviceImageDrmFormatModifierInfoEXT>(
            info->pNext, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_DRM_FORMAT_MODIFIER_INFO_EXT);
        auto* can = chained<VkExternalImageFormatProperties>(
            into->pNext, VK_STRUCTURE_TYPE_EXTERNAL_IMAGE_FORMAT_PROPERTIES);
        const auto& modifiers = modifiers_of(fake.physical(device), info->format);
        const auto& takes_usage = fake.physical(device).takes_usage;
        EXPECT_TRUE((info->flags & VK_IMAGE_CREATE_MUTABLE_FORMAT_BIT) == 0 ||
                    info->tiling == VK_IMAGE_TILING_LINEAR || !view_formats(info->pNext).empty())
            << "VUID 02313";
        const bool known = fake.physical(device).formats.contains(info->format) &&
                           (!takes_usage || takes_usage(info->usage));
        if (!known || info->usage == 0 || info->type != VK_IMAGE_TYPE_2D ||
            (info->tiling != VK_IMAGE_TILING_LINEAR &&
             (info->tiling != VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT || !modifier ||
              std::ranges::find(modifiers, modifier->drmFormatModifier,
                                &VkDrmFormatModifierPropertiesEXT::drmFormatModifier) ==
                  modifiers.end())) ||
            !external || !can ||
            external->handleType != VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT)
            return VK_ERROR_FORMAT_NOT_SUPPORTED;
        const auto& physical = fake.physical(device);
        into->imageFormatProperties.maxExtent = {physical.max_extent.width,
                                                 physical.max_extent.height, 1};
        can->externalMemoryProperties.externalMemoryFeatures = physical.memory_features;
        return VK_SUCCESS;
    }

    static void VKAPI_CALL GetPhysicalDeviceFormatProperties2(VkPhysicalDevice device,
                                                              VkFormat format,
                                                              VkFormatProperties2* into) {
        auto& fake = driver();
        (void)fake.call(__func__);
        fake.asked_formats.insert(format);
        const auto& physical = fake.physical(device);
        const auto may = [&](const char* extension) {
            return physical.api_version >= VK_API_VERSION_1_3 ||
                   std::ranges::find(physical.extensions, extension) != physical.extensions.end();
        };
        if (format == VK_FORMAT_A4R4G4B4_UNORM_PACK16 ||
            format == VK_FORMAT_A4B4G4R4_UNORM_PACK16) {
            EXPECT_TRUE(may(VK_EXT_4444_FORMATS_EXTENSION_NAME)) << format;
        }
        if (format >= VK_FORMAT_G8_B8R8_2PLANE_444_UNORM &&
            format <= VK_FORMAT_G16_B16R16_2PLANE_444_UNORM) {
            EXPECT_TRUE(may(VK_EXT_YCBCR_2PLANE_444_FORMATS_EXTENSION_NAME)) << format;
        }
        auto* list = chained<VkDrmFormatModifierPropertiesListEXT>(
            into->pNext, VK_STRUCTURE_TYPE_DRM_FORMAT_MODIFIER_PROPERTIES_LIST_EXT);
        into->formatProperties.linearTilingFeatures = ~VkFormatFeatureFlags{0};
        if (list == nullptr)
            return;
        (void)list_out(modifiers_of(physical, format), &list->drmFormatModifierCount,
                       list->pDrmFormatModifierProperties);
        auto* list_2 = chained<VkDrmFormatModifierPropertiesList2EXT>(
            into->pNext, VK_STRUCTURE_TYPE_DRM_FORMAT_MODIFIER_PROPERTIES_LIST_2_EXT);
        EXPECT_EQ(list_2 != nullptr, may(VK_KHR_FORMAT_FEATURE_FLAGS_2_EXTENSION_NAME));
        if (list_2 && !physical.modifiers_2.empty())
            (void)list_out(physical.modifiers_2, &list_2->drmFormatModifierCount,
                           list_2->pDrmFormatModifierProperties);
    }

    static VkResult VKAPI_CALL CreateDevice(VkPhysicalDevice physical,
                                            const VkDeviceCreateInfo* info,
                                            const VkAllocationCallbacks*, VkDevice* device) {
        auto& fake = driver();
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS)
            return failed(result, device);
        const auto& on = fake.physical(physical);
        const auto extensions = texts(info->enabledExtensionCount, info->ppEnabledExtensionNames);
        for (const std::string& each : extensions)
            if (std::ranges::find(on.extensions, each) == on.extensions.end())
                return failed(VK_ERROR_EXTENSION_NOT_PRESENT, device);
        EXPECT_EQ(info->queueCreateInfoCount, 1U);
        EXPECT_LT(info->pQueueCreateInfos->queueFamilyIndex, on.queue_families.size());
        fake.created_devices.push_back(
            {.physical_device = on.name, .extensions = extensions, .features = info->pNext});
        *device = handle<VkDevice>(fake.add({.kind = "device",
                                             .parent = fake.instance_,
                                             .type = info->pQueueCreateInfos->queueFamilyIndex}));
        return VK_SUCCESS;
    }

    static void VKAPI_CALL DestroyDevice(VkDevice device, const VkAllocationCallbacks*) {
        driver().destroy("device", number(device), __func__);
    }

    static void VKAPI_CALL GetDeviceQueue(VkDevice device, std::uint32_t family,
                                          std::uint32_t index, VkQueue* queue) {
        EXPECT_EQ(driver().use("device", number(device), __func__).type, family);
        EXPECT_EQ(index, 0U);
        *queue = handle<VkQueue>(the_queue);
    }

    static VkResult VKAPI_CALL CreateImage(VkDevice device, const VkImageCreateInfo* info,
                                           const VkAllocationCallbacks*, VkImage* image) {
        auto& fake = driver();
        fake.use("device", number(device), __func__);
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS)
            return failed(result, image);
        const auto* external = chained<VkExternalMemoryImageCreateInfo>(
            info->pNext, VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO);
        const auto* list = chained<VkImageDrmFormatModifierListCreateInfoEXT>(
            info->pNext, VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_LIST_CREATE_INFO_EXT);
        const auto* layout = chained<VkImageDrmFormatModifierExplicitCreateInfoEXT>(
            info->pNext, VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_EXPLICIT_CREATE_INFO_EXT);
        FakeImageRequest request{.info = *info,
                                 .handle_types = external ? external->handleTypes : 0,
                                 .modifiers = {},
                                 .planes = {},
                                 .view_formats = view_formats(info->pNext)};
        const bool is_mutable = (info->flags & VK_IMAGE_CREATE_MUTABLE_FORMAT_BIT) != 0;
        EXPECT_TRUE(!is_mutable || info->tiling == VK_IMAGE_TILING_LINEAR ||
                    !request.view_formats.empty())
            << "VUID 02353";
        if (layout) {
            request.modifiers = {layout->drmFormatModifier};
            request.planes.assign(layout->pPlaneLayouts,
                                  layout->pPlaneLayouts + layout->drmFormatModifierPlaneCount);
            for (const VkSubresourceLayout& plane : request.planes)
                EXPECT_EQ(plane.size, 0U) << "VUID 02267";
        }
        if (list)
            request.modifiers.assign(list->pDrmFormatModifiers,
                                     list->pDrmFormatModifiers + list->drmFormatModifierCount);
        EXPECT_EQ(list != nullptr || layout != nullptr,
                  info->tiling == VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT)
            << "VUID 02261";
        fake.images.push_back(request);
        const auto round_up = [](VkDeviceSize value, VkDeviceSize to) {
            return (value + to - 1) / to * to;
        };
        const VkDeviceSize stride =
            layout ? request.planes[0].rowPitch
                   : fake.row_pitch.value_or(round_up(VkDeviceSize{info->extent.width} * 4, 64));
        const VkDeviceSize bytes =
            fake.offset + stride * round_up(info->extent.height, fake.rows_round_to);
        *image = handle<VkImage>(
            fake.add({.kind = "image",
                      .parent = number(device),
                      .size = fake.memory_size.value_or(
                          round_up(bytes + fake.bytes_behind, fake.size_rounds_to)),
                      .stride = stride,
                      .told = request.planes,
                      .planes = layout ? layout->drmFormatModifierPlaneCount : 1,
                      .disjoint = (info->flags & VK_IMAGE_CREATE_DISJOINT_BIT) != 0,
                      .modifier = list ? fake.takes_modifier.value_or(request.modifiers.back()) : 0,
                      .linear = info->tiling == VK_IMAGE_TILING_LINEAR,
                      .view_formats = is_mutable ? request.view_formats
                                                 : std::vector<VkFormat>{info->format}}));
        return VK_SUCCESS;
    }

    static VkResult VKAPI_CALL CreateImageView(VkDevice device, const VkImageViewCreateInfo* info,
                                               const VkAllocationCallbacks*, VkImageView* view) {
        auto& fake = driver();
        fake.use("device", number(device), __func__);
        const auto& formats = fake.use("image", number(info->image), __func__).view_formats;
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS)
            return failed(result, view);
        EXPECT_TRUE(formats.empty() || std::ranges::find(formats, info->format) != formats.end())
            << "VUID 01019 and 01585";
        const auto* own = chained<VkImageViewUsageCreateInfo>(
            info->pNext, VK_STRUCTURE_TYPE_IMAGE_VIEW_USAGE_CREATE_INFO);
        const auto* converted = chained<VkSamplerYcbcrConversionInfo>(
            info->pNext, VK_STRUCTURE_TYPE_SAMPLER_YCBCR_CONVERSION_INFO);
        if (converted)
            fake.use("conversion", number(converted->conversion), __func__);
        fake.views.push_back({.info = *info,
                              .conversion = converted ? converted->conversion : VK_NULL_HANDLE,
                              .usage = own ? own->usage : 0});
        *view = handle<VkImageView>(fake.add({.kind = "view", .parent = number(info->image)}));
        return VK_SUCCESS;
    }

    static void VKAPI_CALL DestroyImageView(VkDevice device, VkImageView view,
                                            const VkAllocationCallbacks*) {
        driver().use("device", number(device), __func__);
        driver().destroy("view", number(view), __func__);
    }

    static VkResult VKAPI_CALL CreateSamplerYcbcrConversion(
        VkDevice device, const VkSamplerYcbcrConversionCreateInfo* info,
        const VkAllocationCallbacks*, VkSamplerYcbcrConversion* conversion) {
        auto& fake = driver();
        fake.use("device", number(device), __func__);
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS)
            return failed(result, conversion);
        VkFormatFeatureFlags potential = 0;
        for (const auto& each : modifiers_of(fake.devices[0], info->format))
            potential |= each.drmFormatModifierTilingFeatures;
        EXPECT_NE(potential & (VK_FORMAT_FEATURE_MIDPOINT_CHROMA_SAMPLES_BIT |
                               VK_FORMAT_FEATURE_COSITED_CHROMA_SAMPLES_BIT),
                  0U)
            << "VUID 01650";
        fake.conversions.push_back(*info);
        *conversion = handle<VkSamplerYcbcrConversion>(
            fake.add({.kind = "conversion", .parent = number(device)}));
        return VK_SUCCESS;
    }

    static void VKAPI_CALL DestroySamplerYcbcrConversion(VkDevice device,
                                                         VkSamplerYcbcrConversion conversion,
                                                         const VkAllocationCallbacks*) {
        driver().use("device", number(device), __func__);
        driver().destroy("conversion", number(conversion), __func__);
    }

    static void VKAPI_CALL DestroyImage(VkDevice device, VkImage image,
                                        const VkAllocationCallbacks*) {
        driver().use("device", number(device), __func__);
        if (driver().on_destroy_image)
            driver().on_destroy_image();
        driver().destroy("image", number(image), __func__);
    }

    static void VKAPI_CALL GetImageMemoryRequirements2(VkDevice device,
                                                       const VkImageMemoryRequirementsInfo2* info,
                                                       VkMemoryRequirements2* into) {
        auto& fake = driver();
        (void)fake.call(__func__);
        fake.use("device", number(device), __func__);
        EXPECT_EQ(chained<VkImagePlaneMemoryRequirementsInfo>(
                      info->pNext, VK_STRUCTURE_TYPE_IMAGE_PLANE_MEMORY_REQUIREMENTS_INFO) !=
                      nullptr,
                  fake.use("image", number(info->image), __func__).disjoint)
            << "VUID 01589 and 01590";
        into->memoryRequirements = {.size = fake.use("image", number(info->image), __func__).size,
                                    .alignment = 4096,
                                    .memoryTypeBits = fake.memory_type_bits};
        if (auto* dedicated = chained<VkMemoryDedicatedRequirements>(
                into->pNext, VK_STRUCTURE_TYPE_MEMORY_DEDICATED_REQUIREMENTS)) {
            dedicated->requiresDedicatedAllocation = fake.requires_dedicated ? VK_TRUE : VK_FALSE;
            dedicated->prefersDedicatedAllocation = fake.prefers_dedicated ? VK_TRUE : VK_FALSE;
        }
    }

    static void VKAPI_CALL GetImageSubresourceLayout(VkDevice device, VkImage image,
                                                     const VkImageSubresource* of,
                                                     VkSubresourceLayout* into) {
        auto& fake = driver();
        (void)fake.call(__func__);
        fake.use("device", number(device), __func__);
        const Object& object = fake.use("image", number(image), __func__);
        constexpr std::array<VkImageAspectFlags, 4> planes{
            VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT, VK_IMAGE_ASPECT_MEMORY_PLANE_1_BIT_EXT,
            VK_IMAGE_ASPECT_MEMORY_PLANE_2_BIT_EXT, VK_IMAGE_ASPECT_MEMORY_PLANE_3_BIT_EXT};
        constexpr std::array<VkImageAspectFlags, 4> linear_planes{VK_IMAGE_ASPECT_PLANE_0_BIT,
                                                                  VK_IMAGE_ASPECT_PLANE_1_BIT,
                                                                  VK_IMAGE_ASPECT_PLANE_2_BIT, 0};
        const auto& names = object.linear ? linear_planes : planes;
        const auto plane = object.linear && of->aspectMask == VK_IMAGE_ASPECT_COLOR_BIT
                               ? 0
                               : static_cast<std::size_t>(std::ranges::find(names, of->aspectMask) -
                                                          names.begin());
        if (plane < object.told.size()) {
            *into = object.told[plane];
            return;
        }
        ASSERT_LE(plane, fake.further_planes.size())
            << "an image with a modifier has memory planes, VUID 02271; one without, the format's";
        *into = plane == 0 ? VkSubresourceLayout{.offset = fake.offset,
                                                 .size = object.size,
                                                 .rowPitch = object.stride}
                           : fake.further_planes[plane - 1];
    }

    static VkResult VKAPI_CALL GetImageDrmFormatModifierPropertiesEXT(
        VkDevice device, VkImage image, VkImageDrmFormatModifierPropertiesEXT* into) {
        auto& fake = driver();
        fake.use("device", number(device), __func__);
        const Object& object = fake.use("image", number(image), __func__);
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS)
            return result;
        into->drmFormatModifier = object.modifier;
        return VK_SUCCESS;
    }

    static VkResult VKAPI_CALL AllocateMemory(VkDevice device, const VkMemoryAllocateInfo* info,
                                              const VkAllocationCallbacks*,
                                              VkDeviceMemory* memory) {
        auto& fake = driver();
        fake.use("device", number(device), __func__);
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS) {
            const auto* refused = chained<VkImportMemoryFdInfoKHR>(
                info->pNext, VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR);
            if (refused && fake.failed_import_closes) {
                EXPECT_EQ(close(refused->fd), 0);
            }
            return failed(result, memory);
        }
        EXPECT_LT(info->memoryTypeIndex, fake.devices[0].memory_types.size());
        const auto* exported = chained<VkExportMemoryAllocateInfo>(
            info->pNext, VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO);
        const auto* alone = chained<VkMemoryDedicatedAllocateInfo>(
            info->pNext, VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO);
        const auto* import = chained<VkImportMemoryFdInfoKHR>(
            info->pNext, VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR);
        const auto* flags = chained<VkMemoryAllocateFlagsInfo>(
            info->pNext, VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO);
        EXPECT_LE(info->allocationSize, fake.devices[0].heap_size) << "VUID 01713";
        EXPECT_TRUE(alone == nullptr ||
                    (alone->image == VK_NULL_HANDLE) != (alone->buffer == VK_NULL_HANDLE))
            << "VUID 01432";
        if (alone && alone->image != VK_NULL_HANDLE) {
            EXPECT_EQ(info->allocationSize, fake.use("image", number(alone->image), __func__).size)
                << "VUID 02964";
        }
        const ino_t imported = import ? inode_of(import->fd) : 0;
        if (import) {
            EXPECT_EQ(import->handleType, VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT);
            EXPECT_NE(imported, 0U) << "the fd is closed";
            EXPECT_EQ(close(import->fd), 0);
        }
        fake.allocations.push_back({.size = info->allocationSize,
                                    .memory_type = info->memoryTypeIndex,
                                    .handle_types = exported ? exported->handleTypes : 0,
                                    .dedicated = alone != nullptr,
                                    .imported = imported,
                                    .flags = flags ? flags->flags : 0});
        *memory = handle<VkDeviceMemory>(
            fake.add({.kind = "memory",
                      .parent = number(device),
                      .exportable = exported != nullptr,
                      .size = info->allocationSize,
                      .type = info->memoryTypeIndex,
                      .owner = alone ? number(alone->image) + number(alone->buffer) : 0}));
        return VK_SUCCESS;
    }

    static void VKAPI_CALL FreeMemory(VkDevice device, VkDeviceMemory memory,
                                      const VkAllocationCallbacks*) {
        driver().use("device", number(device), __func__);
        driver().destroy("memory", number(memory), __func__);
    }

    static VkResult VKAPI_CALL CreateBuffer(VkDevice device, const VkBufferCreateInfo* info,
                                            const VkAllocationCallbacks*, VkBuffer* buffer) {
        auto& fake = driver();
        fake.use("device", number(device), __func__);
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS)
            return failed(result, buffer);
        EXPECT_NE(info->size, 0U) << "VUID 00912";
        EXPECT_LE(info->size, fake.devices[0].max_buffer_size) << "VUID 06409";
        const auto* external = chained<VkExternalMemoryBufferCreateInfo>(
            info->pNext, VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO);
        fake.buffers.push_back(
            {.info = *info, .handle_types = external ? external->handleTypes : 0});
        *buffer = handle<VkBuffer>(fake.add({.kind = "buffer",
                                             .parent = number(device),
                                             .size = fake.memory_size.value_or(info->size)}));
        return VK_SUCCESS;
    }

    static void VKAPI_CALL DestroyBuffer(VkDevice device, VkBuffer buffer,
                                         const VkAllocationCallbacks*) {
        driver().use("device", number(device), __func__);
        driver().destroy("buffer", number(buffer), __func__);
    }

    static void VKAPI_CALL GetBufferMemoryRequirements2(VkDevice device,
                                                        const VkBufferMemoryRequirementsInfo2* info,
                                                        VkMemoryRequirements2* into) {
        auto& fake = driver();
        (void)fake.call(__func__);
        fake.use("device", number(device), __func__);
        into->memoryRequirements = {.size = fake.use("buffer", number(info->buffer), __func__).size,
                                    .alignment = 256,
                                    .memoryTypeBits = fake.memory_type_bits};
        auto* dedicated = chained<VkMemoryDedicatedRequirements>(
            into->pNext, VK_STRUCTURE_TYPE_MEMORY_DEDICATED_REQUIREMENTS);
        ASSERT_NE(dedicated, nullptr);
        dedicated->requiresDedicatedAllocation = fake.requires_dedicated ? VK_TRUE : VK_FALSE;
        dedicated->prefersDedicatedAllocation = fake.prefers_dedicated ? VK_TRUE : VK_FALSE;
    }

    static VkResult VKAPI_CALL BindBufferMemory(VkDevice device, VkBuffer buffer,
                                                VkDeviceMemory memory, VkDeviceSize at) {
        auto& fake = driver();
        fake.use("device", number(device), __func__);
        Object& what = fake.use("buffer", number(buffer), __func__);
        const Object& where = fake.use("memory", number(memory), __func__);
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS)
            return result;
        EXPECT_EQ(at, 0U);
        EXPECT_EQ(what.memory, 0U) << "a buffer is bound once";
        EXPECT_LE(what.size, where.size);
        EXPECT_NE(fake.memory_type_bits & (1U << where.type), 0U) << "memory type " << where.type;
        EXPECT_TRUE(where.owner == 0 || where.owner == number(buffer)) << "dedicated to another";
        what.memory = number(memory);
        return VK_SUCCESS;
    }

    static VkResult VKAPI_CALL BindImageMemory2(VkDevice device, std::uint32_t count,
                                                const VkBindImageMemoryInfo* infos) {
        auto& fake = driver();
        fake.use("device", number(device), __func__);
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS)
            return result;
        for (std::uint32_t each = 0; each < count; ++each) {
            Object& what = fake.use("image", number(infos[each].image), __func__);
            const Object& where = fake.use("memory", number(infos[each].memory), __func__);
            EXPECT_EQ(what.disjoint ? what.planes : 1, count);
            EXPECT_TRUE(what.linear || infos[each].memoryOffset == 0)
                << "the layout has the offsets";
            EXPECT_TRUE(each > 0 || what.memory == 0) << "an image is bound once";
            EXPECT_NE(fake.memory_type_bits & (1U << where.type), 0U)
                << "memory type " << where.type;
            EXPECT_LE(infos[each].memoryOffset + what.size, where.size);
            EXPECT_TRUE(where.owner == 0 || where.owner == number(infos[each].image));
            EXPECT_TRUE(where.owner == 0 || infos[each].memoryOffset == 0) << "VUID 02628";
            EXPECT_TRUE(where.owner != 0 || what.disjoint || !fake.requires_dedicated)
                << "VUID 01445";
            what.memory = number(infos[each].memory);
        }
        return VK_SUCCESS;
    }

    static VkResult VKAPI_CALL GetMemoryFdPropertiesKHR(VkDevice device,
                                                        VkExternalMemoryHandleTypeFlagBits type,
                                                        int fd, VkMemoryFdPropertiesKHR* into) {
        auto& fake = driver();
        fake.use("device", number(device), __func__);
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS)
            return result;
        EXPECT_EQ(type, VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT);
        EXPECT_NE(inode_of(fd), 0U) << "the fd is closed";
        const auto own = fake.fd_memory_type_bits_of.find(inode_of(fd));
        into->memoryTypeBits =
            own == fake.fd_memory_type_bits_of.end() ? fake.fd_memory_type_bits : own->second;
        return VK_SUCCESS;
    }

    static VkResult VKAPI_CALL GetMemoryFdKHR(VkDevice device, const VkMemoryGetFdInfoKHR* info,
                                              int* fd) {
        auto& fake = driver();
        fake.use("device", number(device), __func__);
        const Object& memory = fake.use("memory", number(info->memory), __func__);
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS)
            return result;
        EXPECT_EQ(info->handleType, VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT);
        if (fake.memory_fd == Gives::a_pipe) {
            *fd = read_end_of_a_pipe();
        } else if (fake.memory_fd == Gives::no_fd || !memory.exportable) {
            *fd = -1; // as lavapipe does with memory that was not made for it
        } else if (fake.gives_dma_buf) {
            *fd = fake.gives_dma_buf(memory.size).release();
        } else {
            *fd = memfd_create("vulkan memory", 0);
            EXPECT_EQ(ftruncate(*fd, static_cast<off_t>(memory.size)), 0);
        }
        return VK_SUCCESS;
    }

    static VkResult VKAPI_CALL CreateFence(VkDevice device, const VkFenceCreateInfo* info,
                                           const VkAllocationCallbacks*, VkFence* fence) {
        auto& fake = driver();
        fake.use("device", number(device), __func__);
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS)
            return failed(result, fence);
        *fence = handle<VkFence>(
            fake.add({.kind = "fence",
                      .parent = number(device),
                      .signalled = (info->flags & VK_FENCE_CREATE_SIGNALED_BIT) != 0}));
        return VK_SUCCESS;
    }

    static void VKAPI_CALL DestroyFence(VkDevice device, VkFence fence,
                                        const VkAllocationCallbacks*) {
        driver().use("device", number(device), __func__);
        driver().destroy("fence", number(fence), __func__);
    }

    static VkResult VKAPI_CALL GetFenceStatus(VkDevice device, VkFence fence) {
        auto& fake = driver();
        fake.use("device", number(device), __func__);
        const Object& object = fake.use("fence", number(fence), __func__);
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS)
            return result;
        return object.signalled ? VK_SUCCESS : VK_NOT_READY;
    }

    static VkResult VKAPI_CALL ResetFences(VkDevice device, std::uint32_t count,
                                           const VkFence* fences) {
        auto& fake = driver();
        fake.use("device", number(device), __func__);
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS)
            return result;
        for (std::uint32_t each = 0; each < count; ++each) {
            Object& fence = fake.use("fence", number(fences[each]), __func__);
            EXPECT_FALSE(fence.in_use) << "vkResetFences of a fence that the GPU will signal";
            fence.signalled = false;
        }
        return VK_SUCCESS;
    }

    static VkResult VKAPI_CALL WaitForFences(VkDevice device, std::uint32_t count,
                                             const VkFence* fences, VkBool32,
                                             std::uint64_t timeout) {
        auto& fake = driver();
        fake.use("device", number(device), __func__);
        fake.wait_timeouts.push_back(timeout);
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS)
            return result;
        fake.finish();
        for (std::uint32_t each = 0; each < count; ++each)
            EXPECT_TRUE(fake.use("fence", number(fences[each]), __func__).signalled)
                << "nothing will ever signal it";
        return VK_SUCCESS;
    }

    static VkResult VKAPI_CALL CreateSemaphore(VkDevice device, const VkSemaphoreCreateInfo* info,
                                               const VkAllocationCallbacks*,
                                               VkSemaphore* semaphore) {
        auto& fake = driver();
        fake.use("device", number(device), __func__);
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS)
            return failed(result, semaphore);
        const auto* exported = chained<VkExportSemaphoreCreateInfo>(
            info->pNext, VK_STRUCTURE_TYPE_EXPORT_SEMAPHORE_CREATE_INFO);
        *semaphore = handle<VkSemaphore>(fake.add(
            {.kind = "semaphore",
             .parent = number(device),
             .exportable = exported && exported->handleTypes ==
                                           VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT}));
        return VK_SUCCESS;
    }

    static void VKAPI_CALL DestroySemaphore(VkDevice device, VkSemaphore semaphore,
                                            const VkAllocationCallbacks*) {
        driver().use("device", number(device), __func__);
        driver().destroy("semaphore", number(semaphore), __func__);
    }

    static VkResult VKAPI_CALL ImportSemaphoreFdKHR(VkDevice device,
                                                    const VkImportSemaphoreFdInfoKHR* info) {
        auto& fake = driver();
        fake.use("device", number(device), __func__);
        Object& semaphore = fake.use("semaphore", number(info->semaphore), __func__);
        EXPECT_FALSE(semaphore.in_use) << "vkImportSemaphoreFdKHR while the GPU waits for it";
        EXPECT_EQ(info->handleType, VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT);
        EXPECT_EQ(info->flags,
                  static_cast<VkSemaphoreImportFlags>(VK_SEMAPHORE_IMPORT_TEMPORARY_BIT))
            << "SYNC_FD has no other";
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS) {
            if (fake.failed_import_closes) {
                EXPECT_EQ(close(info->fd), 0);
                if (fake.after_failed_import_closed)
                    fake.after_failed_import_closed(info->fd);
            }
            return result;
        }
        semaphore.signalled = true; // as far as submitting is concerned: there is a payload
        semaphore.imported = inode_of(info->fd);
        EXPECT_EQ(close(info->fd), 0);
        return VK_SUCCESS;
    }

    static VkResult VKAPI_CALL GetSemaphoreFdKHR(VkDevice device,
                                                 const VkSemaphoreGetFdInfoKHR* info, int* fd) {
        auto& fake = driver();
        fake.use("device", number(device), __func__);
        Object& semaphore = fake.use("semaphore", number(info->semaphore), __func__);
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS)
            return result;
        EXPECT_EQ(info->handleType, VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT);
        EXPECT_TRUE(semaphore.exportable);
        EXPECT_TRUE(semaphore.signalled) << "a semaphore without a signal pending hangs lavapipe";
        semaphore.signalled = false; // "Copy transference has the same effects as a wait"
        switch (fake.semaphore_fd) {
        case Gives::what_was_asked_for:
            *fd = (fake.gives_sync_file ? fake.gives_sync_file()
                                        : fake_sync_file(fake.exported_fence_status))
                      .release();
            break;
        case Gives::no_fd:
            *fd = -1;
            break;
        case Gives::a_pipe:
            *fd = read_end_of_a_pipe();
            break;
        }
        return VK_SUCCESS;
    }

    static VkResult VKAPI_CALL QueueSubmit(VkQueue queue, std::uint32_t count,
                                           const VkSubmitInfo* submits, VkFence fence) {
        auto& fake = driver();
        EXPECT_EQ(number(queue), the_queue);
        EXPECT_LE(count, 1U);
        if (fence != VK_NULL_HANDLE) {
            const Object& done = fake.use("fence", number(fence), __func__);
            EXPECT_FALSE(done.in_use || done.signalled) << "vkQueueSubmit with a fence not reset";
        }
        if (const VkResult result = fake.call(__func__); result != VK_SUCCESS)
            return result;

        constexpr VkSubmitInfo nothing{};
        const VkSubmitInfo& submit = count == 0 ? nothing : submits[0];
        const auto* values = chained<VkTimelineSemaphoreSubmitInfo>(
            submit.pNext, VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO);
        FakeSubmission record{
            .command_buffers = {submit.pCommandBuffers,
                                submit.pCommandBuffers + submit.commandBufferCount},
            .waits_for = {},
            .wait_stages = {submit.pWaitDstStageMask,
                            submit.pWaitDstStageMask + submit.waitSemaphoreCount},
            .done = fence,
            .waits_for_values = {},
            .signals_values = {}};
        std::vector<std::uint64_t> unfinished;
        if (fence != VK_NULL_HANDLE)
            unfinished.push_back(number(fence));
        for (std::uint32_t each = 0; each < submit.waitSemaphoreCount; ++each) {
            const std::uint64_t wait = number(submit.pWaitSemaphores[each]);
            Object& semaphore = fake.use("semaphore", wait, __func__);
            if (semaphore.timeline) {
                EXPECT_LT(each, values ? values->waitSemaphoreValueCount : 0);
                record.waits_for_values.push_back(values->pWaitSemaphoreValues[each]);
                continue;
            }
            EXPECT_FALSE(semaphore.in_use) << "another submission waits for it";
            EXPECT_TRUE(semaphore.signalled) << "nothing will ever signal it";
            semaphore.signalled = false;
            record.waits_for.push_back(std::exchange(semaphore.imported, 0));
            unfinished.push_back(wait);
        }
        for (std::uint32_t each = 0; each < submit.signalSemaphoreCount; ++each) {
            const std::uint64_t signal = number(submit.pSignalSemaphores[each]);
            Object& semaphore = fake.use("semaphore", signal, __func__);
            if (semaphore.timeline) {
                EXPECT_LT(each, values ? values->signalSemaphoreValueCount : 0);
                record.signals_values.push_back(values->pSignalSemaphoreValues[each]);
                continue;
            }
            EXPECT_FALSE(semaphore.in_use || semaphore.signalled) << "it is signalled already";
            semaphore.signalled = true;
            unfinished.push_back(signal);
        }
        for (const std::uint64_t each : unfinished)
            fake.objects_[each].in_use = true;
        fake.submissions.push_back(std::move(record));
        fake.unfinished_.push_back(std::move(unfinished));
        if (fake.finishes_at_once)
            fake.finish();
        return VK_SUCCESS;
    }

    // NOLINTEND(readability-non-const-parameter)

    static PFN_vkVoidFunction VKAPI_CALL GetDeviceProcAddr(VkDevice device, const char* name) {
        driver().use("device", number(device), __func__);
        return find(name, of_device);
    }

    /// By which kind of handle a function is found.
    enum Level : std::uint8_t { of_nothing, of_instance, of_device };

    static PFN_vkVoidFunction find(const std::string& name, Level level);
};

PFN_vkVoidFunction FakeVulkan::Functions::find(const std::string& name, Level level) {
    struct Entry {
        Level level;
        PFN_vkVoidFunction function;
    };
// The inner cast is where the compiler compares the signature with Vulkan's.
#define ENTRY(level, name)                                                                         \
    {                                                                                              \
        "vk" #name, {                                                                              \
            level, reinterpret_cast<PFN_vkVoidFunction>(static_cast<PFN_vk##name>(name))           \
        }                                                                                          \
    }
    static const std::map<std::string, Entry> all{
        ENTRY(of_nothing, CreateInstance),
        ENTRY(of_instance, CreateDevice),
        ENTRY(of_instance, DestroyInstance),
        ENTRY(of_instance, EnumerateDeviceExtensionProperties),
        ENTRY(of_instance, EnumeratePhysicalDevices),
        ENTRY(of_instance, GetDeviceProcAddr),
        ENTRY(of_instance, GetPhysicalDeviceExternalBufferProperties),
        ENTRY(of_instance, GetPhysicalDeviceExternalSemaphoreProperties),
        ENTRY(of_instance, GetPhysicalDeviceFormatProperties2),
        ENTRY(of_instance, GetPhysicalDeviceImageFormatProperties2),
        ENTRY(of_instance, GetPhysicalDeviceMemoryProperties),
        ENTRY(of_instance, GetPhysicalDeviceProperties),
        ENTRY(of_instance, GetPhysicalDeviceProperties2),
        ENTRY(of_instance, GetPhysicalDeviceQueueFamilyProperties),
        ENTRY(of_device, AllocateMemory),
        ENTRY(of_device, BindBufferMemory),
        ENTRY(of_device, BindImageMemory2),
        ENTRY(of_device, CreateBuffer),
        ENTRY(of_device, CreateFence),
        ENTRY(of_device, CreateImage),
        ENTRY(of_device, CreateImageView),
        ENTRY(of_device, CreateSamplerYcbcrConversion),
        ENTRY(of_device, CreateSemaphore),
        ENTRY(of_device, DestroyBuffer),
        ENTRY(of_device, DestroyDevice),
        ENTRY(of_device, DestroyFence),
        ENTRY(of_device, DestroyImage),
        ENTRY(of_device, DestroyImageView),
        ENTRY(of_device, DestroySamplerYcbcrConversion),
        ENTRY(of_device, DestroySemaphore),
        ENTRY(of_device, FreeMemory),
        ENTRY(of_device, GetBufferMemoryRequirements2),
        ENTRY(of_device, GetDeviceQueue),
        ENTRY(of_device, GetFenceStatus),
        ENTRY(of_device, GetImageDrmFormatModifierPropertiesEXT),
        ENTRY(of_device, GetImageMemoryRequirements2),
        ENTRY(of_device, GetImageSubresourceLayout),
        ENTRY(of_device, GetMemoryFdKHR),
        ENTRY(of_device, GetMemoryFdPropertiesKHR),
        ENTRY(of_device, GetSemaphoreFdKHR),
        ENTRY(of_device, ImportSemaphoreFdKHR),
        ENTRY(of_device, QueueSubmit),
        ENTRY(of_device, ResetFences),
        ENTRY(of_device, WaitForFences),
    };
#undef ENTRY
    driver().looked_up.insert(name);
    const auto found = all.find(name);
    if (found == all.end() || driver().lacks.contains(name))
        return nullptr;
    // vkGetInstanceProcAddr finds a device's functions too; of a null instance, its creation alone.
    const Level of = found->second.level;
    const bool may = level == of_instance ? of != of_nothing : of == level;
    return may ? found->second.function : nullptr;
}

FakeVulkan::FakeVulkan() {
    assert(current == nullptr);
    current = this;
}

FakeVulkan::~FakeVulkan() {
    current = nullptr;
    if (forgiven_)
        return;
    for (const auto& [number, object] : objects_)
        if (!object.of_application)
            ADD_FAILURE() << object.kind << " " << words(number) << " was never destroyed";
}

void FakeVulkan::fail(const std::string& function, VkResult result, int nth) {
    failures_[function][calls(function) + nth] = result;
}

void FakeVulkan::finish(std::size_t count) {
    for (; count > 0 && !unfinished_.empty(); --count) {
        for (const std::uint64_t each : unfinished_.front())
            if (const auto found = objects_.find(each); found != objects_.end()) {
                found->second.in_use = false;
                found->second.signalled = found->second.signalled || found->second.kind == "fence";
            }
        unfinished_.erase(unfinished_.begin());
    }
}

int FakeVulkan::calls(const std::string& function) const {
    const auto found = calls_.find(function);
    return found == calls_.end() ? 0 : found->second;
}

std::multiset<std::string> FakeVulkan::living() const {
    std::multiset<std::string> kinds;
    for (const auto& [number, object] : objects_)
        if (!object.of_application)
            kinds.insert(object.kind);
    return kinds;
}

PFN_vkVoidFunction FakeVulkan::get_instance_proc_addr(VkInstance instance, const char* name) {
    if (instance == VK_NULL_HANDLE)
        return Functions::find(name, Functions::of_nothing);
    driver().use("instance", number(instance), "vkGetInstanceProcAddr");
    return Functions::find(name, Functions::of_instance);
}

VulkanDeviceInfo FakeVulkan::application() {
    const std::uint64_t instance = add({.kind = "instance", .of_application = true});
    const std::uint64_t device =
        add({.kind = "device", .parent = instance, .of_application = true});
    return {.get_instance_proc_addr = get_instance_proc_addr,
            .instance = handle<VkInstance>(instance),
            .physical_device = handle<VkPhysicalDevice>(first_physical_device),
            .device = handle<VkDevice>(device),
            .queue = handle<VkQueue>(the_queue),
            .queue_family = 1};
}

VkSemaphore FakeVulkan::timeline(VkDevice device) {
    return handle<VkSemaphore>(add(
        {.kind = "semaphore", .parent = number(device), .of_application = true, .timeline = true}));
}

VkResult FakeVulkan::call(const char* function) {
    const std::string name = std::string("vk") + function;
    const int now = ++calls_[name];
    auto& planned = failures_[name];
    const auto found = planned.find(now);
    if (found == planned.end())
        return VK_SUCCESS;
    // A lost device has no work in flight: what it had may be destroyed.
    if (found->second == VK_ERROR_DEVICE_LOST)
        finish();
    return found->second;
}

std::uint64_t FakeVulkan::add(Object object) {
    last_ += 0x10; // a number is never used again, so a dead handle is always known as one
    objects_[last_] = std::move(object);
    return last_;
}

FakeVulkan::Object& FakeVulkan::use(const char* kind, std::uint64_t number, const char* function) {
    const auto found = objects_.find(number);
    if (found != objects_.end() && found->second.kind == kind)
        return found->second;
    ADD_FAILURE() << "vk" << function << ": there is no living " << kind << " " << words(number);
    return nothing_ = {};
}

void FakeVulkan::destroy(const char* kind, std::uint64_t number, const char* function) {
    (void)call(function);
    if (number == 0) // Vulkan ignores it
        return;
    const Object& object = use(kind, number, function);
    if (&object == &nothing_)
        return;
    EXPECT_FALSE(object.of_application) << "vk" << function << " of the application's " << kind;
    EXPECT_FALSE(object.in_use) << "vk" << function << " while the GPU uses the " << kind;
    for (const auto& [child, each] : objects_)
        EXPECT_NE(each.parent, number)
            << "vk" << function << " before its " << each.kind << " " << words(child);
    objects_.erase(number);
    destroyed.emplace_back(kind);
}

const FakePhysicalDevice& FakeVulkan::physical(VkPhysicalDevice device) const {
    return devices.at(number(device) - first_physical_device);
}

} // namespace sluice::test
