// SPDX-License-Identifier: MIT
#include "emulate.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <unistd.h>

#include <sluice/dma_buf.hpp>
#include <sluice/udmabuf.hpp>

#include "chain.hpp"
#include "chain_copy.hpp"
#include "cpu_brackets.hpp"
#include "dispatch.hpp"
#include "registry.hpp"
#include "report.hpp"
#include "settings.hpp"
#include "timelines.hpp"

namespace sluice::layer {

namespace {

constexpr auto dma_buf = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT;
constexpr auto host_memory = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT;
constexpr std::uint64_t linear_modifier = 0; // DRM_FORMAT_MOD_LINEAR

// ---- What is below ------------------------------------------------------------------------------

// clang-format off
#define SLUICE_EMULATE_INSTANCE_FUNCTIONS(each) \
    each(DestroyInstance) \
    each(EnumerateDeviceExtensionProperties) \
    each(GetPhysicalDeviceProperties) \
    each(GetPhysicalDeviceProperties2) \
    each(GetPhysicalDeviceProperties2KHR) \
    each(GetPhysicalDeviceFormatProperties2) \
    each(GetPhysicalDeviceFormatProperties2KHR) \
    each(GetPhysicalDeviceImageFormatProperties2) \
    each(GetPhysicalDeviceImageFormatProperties2KHR) \
    each(GetPhysicalDeviceExternalBufferProperties) \
    each(GetPhysicalDeviceExternalBufferPropertiesKHR)

#define SLUICE_EMULATE_DEVICE_FUNCTIONS(each) \
    each(AllocateMemory) \
    each(BindImageMemory) \
    each(BindImageMemory2) \
    each(BindImageMemory2KHR) \
    each(CreateBuffer) \
    each(CreateFence) \
    each(CreateImage) \
    each(CreateSemaphore) \
    each(DestroyDevice) \
    each(DestroyFence) \
    each(DestroyImage) \
    each(DestroySemaphore) \
    each(FreeMemory) \
    each(GetDeviceBufferMemoryRequirements) \
    each(GetDeviceBufferMemoryRequirementsKHR) \
    each(GetDeviceImageMemoryRequirements) \
    each(GetDeviceImageMemoryRequirementsKHR) \
    each(GetFenceStatus) \
    each(GetImageDrmFormatModifierPropertiesEXT) \
    each(GetImageMemoryRequirements) \
    each(GetImageMemoryRequirements2) \
    each(GetImageMemoryRequirements2KHR) \
    each(GetImageSubresourceLayout) \
    each(GetMemoryFdKHR) \
    each(GetMemoryFdPropertiesKHR) \
    each(GetMemoryHostPointerPropertiesEXT) \
    each(QueueSubmit) \
    each(QueueSubmit2) \
    each(QueueSubmit2KHR) \
    each(ResetFences) \
    each(WaitForFences)
// clang-format on

#define SLUICE_EMULATE_DECLARE(name) PFN_vk##name name = nullptr;
struct InstanceBelow {
    SLUICE_EMULATE_INSTANCE_FUNCTIONS(SLUICE_EMULATE_DECLARE)
};
struct DeviceBelow {
    SLUICE_EMULATE_DEVICE_FUNCTIONS(SLUICE_EMULATE_DECLARE)
};
#undef SLUICE_EMULATE_DECLARE

/// One of Vulkan's own functions, or the extension's that it was before.
template <typename Function> Function either(Function core, Function extension) noexcept {
    return core != nullptr ? core : extension;
}

// ---- What is emulated ---------------------------------------------------------------------------

/// The extensions that there may be because of us, by their bit in `Offer::adds`.
constexpr std::array extensions{
    VkExtensionProperties{VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME,
                          VK_EXT_EXTERNAL_MEMORY_DMA_BUF_SPEC_VERSION},
    VkExtensionProperties{VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
                          VK_KHR_EXTERNAL_MEMORY_FD_SPEC_VERSION},
    VkExtensionProperties{VK_EXT_QUEUE_FAMILY_FOREIGN_EXTENSION_NAME,
                          VK_EXT_QUEUE_FAMILY_FOREIGN_SPEC_VERSION},
    VkExtensionProperties{VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_EXTENSION_NAME,
                          VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_SPEC_VERSION},
};
enum : unsigned {
    with_dma_buf = 1U << 0U,
    with_memory_fd = 1U << 1U,
    with_foreign = 1U << 2U,
    with_modifiers = 1U << 3U,
};

/// What we do for one physical device.
struct Offer {
    unsigned adds = 0;        // 0: nothing at all
    VkDeviceSize granule = 1; // the driver takes mappings at, and of, multiples of it
    std::shared_ptr<const UdmabufExporter> exporter; // null: import alone
};

struct EmulatedInstance {
    PFN_vkGetInstanceProcAddr next = nullptr;
    InstanceBelow below;
    std::mutex lock; // never held across a call of the driver's
    std::unordered_map<VkPhysicalDevice, std::shared_ptr<const Offer>> offers;
};

struct EmulatedDevice {
    EmulatedDevice(VkDevice device, PFN_vkGetDeviceProcAddr get, const Offer& offer,
                   unsigned enabled)
        : handle(device), next(get), granule(offer.granule), exporter(offer.exporter),
          adds(enabled) {
        vk.load(next, handle);
#define SLUICE_EMULATE_LOAD(name)                                                                  \
    below.name = reinterpret_cast<PFN_vk##name>(next(handle, "vk" #name));
        SLUICE_EMULATE_DEVICE_FUNCTIONS(SLUICE_EMULATE_LOAD)
#undef SLUICE_EMULATE_LOAD
        timelines.emplace(handle, vk.GetSemaphoreCounterValueKHR != nullptr
                                      ? vk.GetSemaphoreCounterValueKHR
                                      : vk.GetSemaphoreCounterValue);
        brackets.emplace(handle, FenceFunctions{.CreateFence = below.CreateFence,
                                                .DestroyFence = below.DestroyFence,
                                                .ResetFences = below.ResetFences,
                                                .GetFenceStatus = below.GetFenceStatus,
                                                .WaitForFences = below.WaitForFences,
                                                .QueueSubmit = below.QueueSubmit});
    }

    VkDevice handle;
    PFN_vkGetDeviceProcAddr next;
    VkDeviceSize granule;
    std::shared_ptr<const UdmabufExporter> exporter;
    unsigned adds; // the extensions that the application has enabled and the driver lacks
    DeviceFunctions vk;
    DeviceBelow below;
    std::optional<Timelines> timelines;
    Registry<CpuBrackets::Queue> queues;
    std::optional<CpuBrackets> brackets; // before the queues go

    std::atomic<bool> active = false; // there are mapped buffers
    std::shared_mutex lock;           // never held across a call of the driver's
    std::unordered_map<VkDeviceMemory, MappedBufferPtr> memories;
    std::vector<MappedBufferPtr> buffers;             // those of the memories, each once
    std::unordered_map<VkImage, VkDeviceSize> images; // with a modifier: where in their memory
};

// Never destroyed: applications may do that to their instances in destructors of their own.
Registry<EmulatedInstance>& emulated_instances() {
    static auto& all = *new Registry<EmulatedInstance>;
    return all;
}

Registry<EmulatedDevice>& emulated_devices() {
    static auto& all = *new Registry<EmulatedDevice>;
    return all;
}

EmulatedInstance& instance_of(VkPhysicalDevice physical) noexcept {
    return *emulated_instances().find(key_of(physical));
}

template <typename Handle> EmulatedDevice& device_of(Handle dispatchable) noexcept {
    return *emulated_devices().find(key_of(dispatchable));
}

/// What a call comes to, also where there is no memory for it.
template <typename What> VkResult guarded(What what) noexcept {
    try {
        return what();
    } catch (const std::bad_alloc&) {
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    }
}

VkDeviceSize round_up(VkDeviceSize value, VkDeviceSize to) noexcept {
    return (value + to - 1) / to * to;
}

// ---- Which devices ------------------------------------------------------------------------------

VkResult extensions_below(const EmulatedInstance& of, VkPhysicalDevice physical,
                          std::vector<VkExtensionProperties>& all) {
    std::uint32_t count = 0;
    VkResult result = VK_INCOMPLETE;
    while (result == VK_INCOMPLETE) {
        result = of.below.EnumerateDeviceExtensionProperties(physical, nullptr, &count, nullptr);
        if (result != VK_SUCCESS)
            return result;
        all.resize(count);
        result = of.below.EnumerateDeviceExtensionProperties(physical, nullptr, &count, all.data());
        all.resize(count);
    }
    return result;
}

bool lists(std::span<const VkExtensionProperties> all, std::string_view name) noexcept {
    return std::ranges::any_of(all, [&](const auto& each) { return name == each.extensionName; });
}

Offer make_offer(const EmulatedInstance& of, VkPhysicalDevice physical) {
    VkPhysicalDeviceProperties about{};
    of.below.GetPhysicalDeviceProperties(physical, &about);
    const auto refuse = [&](const std::string& why) {
        warn("emulate: \"" + std::string(about.deviceName) + "\" " + why + ": left as it is");
        return Offer();
    };
    if (about.deviceType != VK_PHYSICAL_DEVICE_TYPE_CPU)
        return refuse("does not run on the CPU (VK_PHYSICAL_DEVICE_TYPE_CPU)");
    std::vector<VkExtensionProperties> all;
    if (extensions_below(of, physical, all) != VK_SUCCESS)
        return refuse("does not list its extensions");
    if (lists(all, VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME))
        return {}; // there is nothing to do
    if (!lists(all, VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME))
        return refuse("has no VK_EXT_external_memory_host");
    const auto ask =
        either(of.below.GetPhysicalDeviceProperties2, of.below.GetPhysicalDeviceProperties2KHR);
    if (ask == nullptr)
        return refuse(
            "cannot be asked for its properties, which takes an instance of Vulkan 1.1 or "
            "VK_KHR_get_physical_device_properties2");
    VkPhysicalDeviceExternalMemoryHostPropertiesEXT host{};
    host.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT;
    VkPhysicalDeviceProperties2 more{};
    more.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
    more.pNext = &host;
    ask(physical, &more);
    const auto page = static_cast<VkDeviceSize>(sysconf(_SC_PAGESIZE));
    const VkDeviceSize granule = std::max<VkDeviceSize>(host.minImportedHostPointerAlignment, 1);
    if (page % granule != 0) // mappings are made of pages
        return refuse("takes memory at multiples of " + std::to_string(granule) +
                      " bytes only, and a page has " + std::to_string(page));
    Offer offer{.adds = 0, .granule = granule, .exporter = nullptr};
    for (std::size_t i = 0; i < extensions.size(); ++i)
        if (!lists(all, extensions[i].extensionName))
            offer.adds |= 1U << i;
    if (auto exporter = UdmabufExporter::open())
        offer.exporter = std::move(*exporter);
    return offer;
}

std::shared_ptr<const Offer> offer_of(EmulatedInstance& of, VkPhysicalDevice physical) {
    {
        const std::scoped_lock held(of.lock);
        if (const auto found = of.offers.find(physical); found != of.offers.end())
            return found->second;
    }
    auto made = std::make_shared<const Offer>(make_offer(of, physical));
    const std::scoped_lock held(of.lock);
    return of.offers.try_emplace(physical, std::move(made)).first->second;
}

/// The same; null where there is no memory for it.
std::shared_ptr<const Offer> offer_if_possible(EmulatedInstance& of,
                                               VkPhysicalDevice physical) noexcept {
    try {
        return offer_of(of, physical);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

VKAPI_ATTR VkResult VKAPI_CALL EnumerateDeviceExtensionProperties(VkPhysicalDevice physical,
                                                                  const char* layer,
                                                                  std::uint32_t* count,
                                                                  VkExtensionProperties* into) {
    return guarded([&] {
        EmulatedInstance& of = instance_of(physical);
        const bool ours = layer != nullptr && layer == layer_name;
        const auto offer = offer_of(of, physical);
        if (!ours && (layer != nullptr || offer->adds == 0))
            return of.below.EnumerateDeviceExtensionProperties(physical, layer, count, into);
        std::vector<VkExtensionProperties> all;
        if (!ours)
            if (const VkResult result = extensions_below(of, physical, all); result != VK_SUCCESS)
                return result;
        for (std::size_t i = 0; i < extensions.size(); ++i)
            if ((offer->adds >> i & 1U) != 0)
                all.push_back(extensions[i]);
        const auto size = static_cast<std::uint32_t>(all.size());
        if (into == nullptr) {
            *count = size;
            return VK_SUCCESS;
        }
        *count = std::min(*count, size);
        std::copy_n(all.begin(), *count, into);
        return *count < size ? VK_INCOMPLETE : VK_SUCCESS;
    });
}

// ---- What the device can do ---------------------------------------------------------------------

/// What we can do with dma-bufs where the driver below can do \p host with memory of the host's.
VkExternalMemoryProperties as_dma_buf(const Offer& offer,
                                      const VkExternalMemoryProperties& host) noexcept {
    if ((host.externalMemoryFeatures & VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT) == 0)
        return {};
    const VkExternalMemoryFeatureFlags exports =
        offer.exporter ? VkFlags{VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT} : 0;
    return {.externalMemoryFeatures = host.externalMemoryFeatures | exports,
            .exportFromImportedHandleTypes = dma_buf,
            .compatibleHandleTypes = dma_buf};
}

VKAPI_ATTR void VKAPI_CALL GetPhysicalDeviceExternalBufferProperties(
    VkPhysicalDevice physical, const VkPhysicalDeviceExternalBufferInfo* info,
    VkExternalBufferProperties* into) {
    EmulatedInstance& of = instance_of(physical);
    const auto ask = either(of.below.GetPhysicalDeviceExternalBufferProperties,
                            of.below.GetPhysicalDeviceExternalBufferPropertiesKHR);
    const auto offer = offer_if_possible(of, physical);
    if (!offer || (offer->adds & with_dma_buf) == 0 || info->handleType != dma_buf)
        return ask(physical, info, into);
    VkPhysicalDeviceExternalBufferInfo host = *info;
    host.handleType = host_memory;
    ask(physical, &host, into);
    into->externalMemoryProperties = as_dma_buf(*offer, into->externalMemoryProperties);
}

/// The formats of which each plane is laid out on its own.
constexpr bool has_planes(VkFormat format) noexcept {
    const auto within = [=](VkFormat first, VkFormat last) {
        return format >= first && format <= last;
    };
    return within(VK_FORMAT_G8_B8_R8_3PLANE_420_UNORM, VK_FORMAT_G8_B8_R8_3PLANE_444_UNORM) ||
           within(VK_FORMAT_G10X6_B10X6_R10X6_3PLANE_420_UNORM_3PACK16,
                  VK_FORMAT_G10X6_B10X6_R10X6_3PLANE_444_UNORM_3PACK16) ||
           within(VK_FORMAT_G12X4_B12X4_R12X4_3PLANE_420_UNORM_3PACK16,
                  VK_FORMAT_G12X4_B12X4_R12X4_3PLANE_444_UNORM_3PACK16) ||
           within(VK_FORMAT_G16_B16_R16_3PLANE_420_UNORM, VK_FORMAT_G16_B16_R16_3PLANE_444_UNORM) ||
           within(VK_FORMAT_G8_B8R8_2PLANE_444_UNORM, VK_FORMAT_G16_B16R16_2PLANE_444_UNORM);
}

/// Vulkan's way to hand out a list of at most one.
template <typename T> void one_out(std::optional<T> one, std::uint32_t& count, T* into) noexcept {
    const std::uint32_t size = one ? 1 : 0;
    if (into != nullptr) {
        count = std::min(count, size);
        if (count == 1)
            *into = *one;
    } else {
        count = size;
    }
}

VKAPI_ATTR void VKAPI_CALL GetPhysicalDeviceFormatProperties2(VkPhysicalDevice physical,
                                                              VkFormat format,
                                                              VkFormatProperties2* into) {
    EmulatedInstance& of = instance_of(physical);
    const auto ask = either(of.below.GetPhysicalDeviceFormatProperties2,
                            of.below.GetPhysicalDeviceFormatProperties2KHR);
    ask(physical, format, into);
    const auto offer = offer_if_possible(of, physical);
    if (!offer || (offer->adds & with_modifiers) == 0)
        return;
    // A driver that knows the longer structure says more there.
    VkFormatProperties3 more{};
    more.sType = VK_STRUCTURE_TYPE_FORMAT_PROPERTIES_3;
    VkFormatProperties2 linear{};
    linear.sType = VK_STRUCTURE_TYPE_FORMAT_PROPERTIES_2;
    linear.pNext = &more;
    ask(physical, format, &linear);
    const VkFormatFeatureFlags features = linear.formatProperties.linearTilingFeatures;
    const VkFormatFeatureFlags2 features2 = more.linearTilingFeatures | features;
    const bool any = features2 != 0 && !has_planes(format);
    for (auto* each = static_cast<VkBaseOutStructure*>(into->pNext); each != nullptr;
         each = each->pNext)
        if (each->sType == VK_STRUCTURE_TYPE_DRM_FORMAT_MODIFIER_PROPERTIES_LIST_EXT) {
            auto* list = reinterpret_cast<VkDrmFormatModifierPropertiesListEXT*>(each);
            one_out(
                any ? std::optional(VkDrmFormatModifierPropertiesEXT{linear_modifier, 1, features})
                    : std::nullopt,
                list->drmFormatModifierCount, list->pDrmFormatModifierProperties);
        } else if (each->sType == VK_STRUCTURE_TYPE_DRM_FORMAT_MODIFIER_PROPERTIES_LIST_2_EXT) {
            auto* list = reinterpret_cast<VkDrmFormatModifierPropertiesList2EXT*>(each);
            one_out(any ? std::optional(
                              VkDrmFormatModifierProperties2EXT{linear_modifier, 1, features2})
                        : std::nullopt,
                    list->drmFormatModifierCount, list->pDrmFormatModifierProperties);
        }
}

/// Where a driver below would be given a chain that is not whole.
void tell_of_loss(const ChainCopy& chain) noexcept {
    static std::atomic<bool> told = false;
    if (chain.lost() != VK_STRUCTURE_TYPE_MAX_ENUM && !told.exchange(true))
        warn("emulate: a structure of type " + std::to_string(chain.lost()) +
             " does not reach the driver: put it behind those about external memory and modifiers");
}

VkResult image_properties(EmulatedInstance& of, VkPhysicalDevice physical,
                          const VkPhysicalDeviceImageFormatInfo2& info,
                          VkImageFormatProperties2& into) {
    const auto ask = either(of.below.GetPhysicalDeviceImageFormatProperties2,
                            of.below.GetPhysicalDeviceImageFormatProperties2KHR);
    const auto offer = offer_of(of, physical);
    const auto* external = find_in<VkPhysicalDeviceExternalImageFormatInfo>(
        info.pNext, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_IMAGE_FORMAT_INFO);
    const bool shared =
        (offer->adds & with_dma_buf) != 0 && external != nullptr && external->handleType == dma_buf;
    const bool tiled = (offer->adds & with_modifiers) != 0 &&
                       info.tiling == VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT;
    if (!shared && !tiled)
        return ask(physical, &info, &into);
    if (tiled) {
        const auto* modifier = find_in<VkPhysicalDeviceImageDrmFormatModifierInfoEXT>(
            info.pNext, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_DRM_FORMAT_MODIFIER_INFO_EXT);
        if (modifier == nullptr || modifier->drmFormatModifier != linear_modifier ||
            info.type != VK_IMAGE_TYPE_2D || has_planes(info.format))
            return VK_ERROR_FORMAT_NOT_SUPPORTED;
    } else if (info.tiling != VK_IMAGE_TILING_LINEAR) {
        return VK_ERROR_FORMAT_NOT_SUPPORTED; // nobody else would know how the pixels lie
    }
    constexpr std::array without{
        VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_IMAGE_FORMAT_INFO,
        VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_DRM_FORMAT_MODIFIER_INFO_EXT};
    ChainCopy chain(info.pNext, without);
    tell_of_loss(chain);
    VkPhysicalDeviceExternalImageFormatInfo host{};
    if (external != nullptr) {
        host = *external;
        if (shared)
            host.handleType = host_memory;
        chain.prepend(host);
    }
    VkPhysicalDeviceImageFormatInfo2 copy = info;
    copy.pNext = chain.head();
    copy.tiling = VK_IMAGE_TILING_LINEAR;
    if (const VkResult result = ask(physical, &copy, &into); result != VK_SUCCESS)
        return result;
    if (tiled) {
        VkImageFormatProperties& limits = into.imageFormatProperties;
        limits.maxMipLevels = 1;
        limits.maxArrayLayers = 1;
        limits.sampleCounts = VK_SAMPLE_COUNT_1_BIT;
    }
    for (auto* each = static_cast<VkBaseOutStructure*>(into.pNext); shared && each != nullptr;
         each = each->pNext)
        if (each->sType == VK_STRUCTURE_TYPE_EXTERNAL_IMAGE_FORMAT_PROPERTIES) {
            auto& can =
                reinterpret_cast<VkExternalImageFormatProperties*>(each)->externalMemoryProperties;
            can = as_dma_buf(*offer, can);
            if (can.externalMemoryFeatures == 0)
                return VK_ERROR_FORMAT_NOT_SUPPORTED;
        }
    return VK_SUCCESS;
}

VKAPI_ATTR VkResult VKAPI_CALL GetPhysicalDeviceImageFormatProperties2(
    VkPhysicalDevice physical, const VkPhysicalDeviceImageFormatInfo2* info,
    VkImageFormatProperties2* into) {
    return guarded([&] { return image_properties(instance_of(physical), physical, *info, *into); });
}

// ---- Memory -------------------------------------------------------------------------------------

/// The mapping of \p buffer, the same for whoever imports it; null where the kernel gives none.
MappedBufferPtr mapping_of(EmulatedDevice& of, DmaBuf&& buffer) {
    {
        const std::shared_lock held(of.lock);
        for (const MappedBufferPtr& each : of.buffers)
            if (same_buffer(each->buffer(), buffer))
                return each;
    }
    return MappedBuffer::map(std::move(buffer));
}

VKAPI_ATTR void VKAPI_CALL FreeMemory(VkDevice device, VkDeviceMemory memory,
                                      const VkAllocationCallbacks* allocator);

/// Allocates the \p buffer's mapping instead of what \p info asks for.
VkResult allocate_mapped(EmulatedDevice& of, const VkMemoryAllocateInfo& info, DmaBuf&& buffer,
                         const VkAllocationCallbacks* allocator, VkDeviceMemory* memory) {
    const MappedBufferPtr mapped = mapping_of(of, std::move(buffer));
    if (!mapped)
        return errno == ENOMEM ? VK_ERROR_OUT_OF_HOST_MEMORY : VK_ERROR_INVALID_EXTERNAL_HANDLE;
    std::vector<VkStructureType> without{VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR,
                                         VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO};
    // One image's own memory begins where the image does (VUID-VkBindImageMemoryInfo-memory-02628).
    const auto* alone = find_in<VkMemoryDedicatedAllocateInfo>(
        info.pNext, VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO);
    if (alone != nullptr && alone->image != VK_NULL_HANDLE) {
        const std::shared_lock held(of.lock);
        if (const auto found = of.images.find(alone->image);
            found != of.images.end() && found->second != 0)
            without.push_back(VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO);
    }
    ChainCopy chain(info.pNext, without);
    tell_of_loss(chain);
    VkImportMemoryHostPointerInfoEXT import{
        .sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT,
        .pNext = nullptr,
        .handleType = host_memory,
        .pHostPointer = mapped->address()};
    chain.prepend(import);
    VkMemoryAllocateInfo copy = info;
    copy.pNext = chain.head();
    copy.allocationSize = round_up(info.allocationSize, of.granule);
    const VkResult result = of.below.AllocateMemory(of.handle, &copy, allocator, memory);
    if (result != VK_SUCCESS)
        return result;
    try {
        const std::scoped_lock held(of.lock);
        if (std::ranges::find(of.buffers, mapped) == of.buffers.end())
            of.buffers.push_back(mapped);
        of.memories[*memory] = mapped;
        of.active.store(true, std::memory_order_release);
    } catch (const std::bad_alloc&) {
        FreeMemory(of.handle, *memory, allocator);
        throw;
    }
    return VK_SUCCESS;
}

VkResult import_memory(EmulatedDevice& of, const VkMemoryAllocateInfo& info, int fd,
                       const VkAllocationCallbacks* allocator, VkDeviceMemory* memory) {
    auto buffer = DmaBuf::from_borrowed_fd(fd);
    if (!buffer || buffer->mode() == Access::read || info.allocationSize > buffer->size())
        return VK_ERROR_INVALID_EXTERNAL_HANDLE;
    const VkResult result = allocate_mapped(of, info, std::move(*buffer), allocator, memory);
    if (result == VK_SUCCESS)
        UniqueFd(std::move(fd)).reset(); // it is Vulkan's now, and we have our own
    return result;
}

VKAPI_ATTR VkResult VKAPI_CALL AllocateMemory(VkDevice device, const VkMemoryAllocateInfo* info,
                                              const VkAllocationCallbacks* allocator,
                                              VkDeviceMemory* memory) {
    EmulatedDevice& of = device_of(device);
    return guarded([&] {
        const auto* import = find_in<VkImportMemoryFdInfoKHR>(
            info->pNext, VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR);
        if (import != nullptr && import->handleType == dma_buf)
            return import_memory(of, *info, import->fd, allocator, memory);
        const auto* as = find_in<VkExportMemoryAllocateInfo>(
            info->pNext, VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO);
        if (as == nullptr || (as->handleTypes & dma_buf) == 0)
            return of.below.AllocateMemory(device, info, allocator, memory);
        if (!of.exporter)
            return VK_ERROR_FEATURE_NOT_PRESENT;
        auto buffer = of.exporter->allocate({.size = info->allocationSize, .name = {}});
        if (!buffer)
            return VK_ERROR_OUT_OF_DEVICE_MEMORY;
        return allocate_mapped(of, *info, std::move(*buffer), allocator, memory);
    });
}

VKAPI_ATTR void VKAPI_CALL FreeMemory(VkDevice device, VkDeviceMemory memory,
                                      const VkAllocationCallbacks* allocator) {
    EmulatedDevice& of = device_of(device);
    MappedBufferPtr mapped; // until the driver has let go of it
    if (of.active.load(std::memory_order_acquire)) {
        const std::scoped_lock held(of.lock);
        if (const auto found = of.memories.find(memory); found != of.memories.end()) {
            mapped = std::move(found->second);
            of.memories.erase(found);
            if (std::ranges::none_of(of.memories,
                                     [&](const auto& each) { return each.second == mapped; }))
                std::erase(of.buffers, mapped);
            of.active.store(!of.memories.empty(), std::memory_order_release);
        }
    }
    of.below.FreeMemory(device, memory, allocator);
}

VKAPI_ATTR VkResult VKAPI_CALL GetMemoryFdKHR(VkDevice device, const VkMemoryGetFdInfoKHR* info,
                                              int* fd) {
    EmulatedDevice& of = device_of(device);
    if (info->handleType != dma_buf)
        return of.below.GetMemoryFdKHR != nullptr ? of.below.GetMemoryFdKHR(device, info, fd)
                                                  : VK_ERROR_INVALID_EXTERNAL_HANDLE;
    MappedBufferPtr mapped;
    {
        const std::shared_lock held(of.lock);
        if (const auto found = of.memories.find(info->memory); found != of.memories.end())
            mapped = found->second;
    }
    if (!mapped)
        return VK_ERROR_INVALID_EXTERNAL_HANDLE;
    auto copy = UniqueFd::duplicate(mapped->buffer().fd());
    if (!copy)
        return VK_ERROR_TOO_MANY_OBJECTS;
    *fd = copy->release();
    return VK_SUCCESS;
}

VKAPI_ATTR VkResult VKAPI_CALL GetMemoryFdPropertiesKHR(VkDevice device,
                                                        VkExternalMemoryHandleTypeFlagBits type,
                                                        int fd, VkMemoryFdPropertiesKHR* into) {
    EmulatedDevice& of = device_of(device);
    if (type != dma_buf)
        return of.below.GetMemoryFdPropertiesKHR != nullptr
                   ? of.below.GetMemoryFdPropertiesKHR(device, type, fd, into)
                   : VK_ERROR_INVALID_EXTERNAL_HANDLE;
    return guarded([&] {
        auto buffer = DmaBuf::from_borrowed_fd(fd);
        if (!buffer || buffer->mode() == Access::read)
            return VK_ERROR_INVALID_EXTERNAL_HANDLE;
        const MappedBufferPtr mapped = mapping_of(of, std::move(*buffer));
        if (!mapped)
            return errno == ENOMEM ? VK_ERROR_OUT_OF_HOST_MEMORY : VK_ERROR_INVALID_EXTERNAL_HANDLE;
        VkMemoryHostPointerPropertiesEXT host{};
        host.sType = VK_STRUCTURE_TYPE_MEMORY_HOST_POINTER_PROPERTIES_EXT;
        const VkResult result = of.below.GetMemoryHostPointerPropertiesEXT(
            device, host_memory, mapped->address(), &host);
        if (result == VK_SUCCESS)
            into->memoryTypeBits = host.memoryTypeBits;
        return result;
    });
}

// ---- Buffers and images -------------------------------------------------------------------------

/// The types below of what is to be shared by \p types.
VkExternalMemoryHandleTypeFlags below_of(VkExternalMemoryHandleTypeFlags types) noexcept {
    return (types & dma_buf) != 0 ? (types & ~VkFlags{dma_buf}) | host_memory : types;
}

/// What the driver is given instead of a VkBufferCreateInfo. It lives as long as that does.
class BufferBelow {
public:
    explicit BufferBelow(const VkBufferCreateInfo& info) : info_(info) {
        const auto* external = find_in<VkExternalMemoryBufferCreateInfo>(
            info.pNext, VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO);
        if (external == nullptr || (external->handleTypes & dma_buf) == 0)
            return;
        constexpr std::array without{VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO};
        chain_.emplace(info.pNext, without);
        tell_of_loss(*chain_);
        external_ = *external;
        external_.handleTypes = below_of(external->handleTypes);
        chain_->prepend(external_);
        info_.pNext = chain_->head();
    }
    BufferBelow(const BufferBelow&) = delete;
    BufferBelow& operator=(const BufferBelow&) = delete;

    [[nodiscard]] const VkBufferCreateInfo& info() const noexcept { return info_; }

private:
    VkBufferCreateInfo info_;
    std::optional<ChainCopy> chain_;
    VkExternalMemoryBufferCreateInfo external_{};
};

/// The same of a VkImageCreateInfo.
class ImageBelow {
public:
    ImageBelow(const EmulatedDevice& of, const VkImageCreateInfo& info) : info_(info) {
        const auto* external = find_in<VkExternalMemoryImageCreateInfo>(
            info.pNext, VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO);
        const bool shared = external != nullptr && (external->handleTypes & dma_buf) != 0;
        tiled_ = (of.adds & with_modifiers) != 0 &&
                 info.tiling == VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT;
        if (!shared && !tiled_)
            return;
        if (tiled_)
            read_modifier(info.pNext);
        constexpr std::array without{
            VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO,
            VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_LIST_CREATE_INFO_EXT,
            VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_EXPLICIT_CREATE_INFO_EXT};
        chain_.emplace(info.pNext, tiled_ ? std::span<const VkStructureType>(without)
                                          : std::span(without).first(1));
        tell_of_loss(*chain_);
        if (external != nullptr) {
            external_ = *external;
            external_.handleTypes = below_of(external->handleTypes);
            chain_->prepend(external_);
        }
        info_.pNext = chain_->head();
        if (tiled_)
            info_.tiling = VK_IMAGE_TILING_LINEAR;
    }
    ImageBelow(const ImageBelow&) = delete;
    ImageBelow& operator=(const ImageBelow&) = delete;

    [[nodiscard]] const VkImageCreateInfo& info() const noexcept { return info_; }
    /// Whether a modifier is asked for, which is ours to emulate.
    [[nodiscard]] bool tiled() const noexcept { return tiled_; }
    /// Why there can be no such image, or VK_SUCCESS.
    [[nodiscard]] VkResult wrong() const noexcept { return wrong_; }
    /// The layout that is asked for, if one is.
    [[nodiscard]] const VkSubresourceLayout* layout() const noexcept { return layout_; }

private:
    void read_modifier(const void* next) noexcept {
        const auto* list = find_in<VkImageDrmFormatModifierListCreateInfoEXT>(
            next, VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_LIST_CREATE_INFO_EXT);
        const auto* whole = find_in<VkImageDrmFormatModifierExplicitCreateInfoEXT>(
            next, VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_EXPLICIT_CREATE_INFO_EXT);
        if (whole != nullptr) {
            if (whole->drmFormatModifier != linear_modifier ||
                whole->drmFormatModifierPlaneCount != 1)
                wrong_ = VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT;
            else
                layout_ = whole->pPlaneLayouts;
        } else if (list == nullptr || std::ranges::count(std::span(list->pDrmFormatModifiers,
                                                                   list->drmFormatModifierCount),
                                                         linear_modifier) == 0) {
            wrong_ = VK_ERROR_FORMAT_NOT_SUPPORTED;
        }
    }

    VkImageCreateInfo info_;
    bool tiled_ = false;
    VkResult wrong_ = VK_SUCCESS;
    const VkSubresourceLayout* layout_ = nullptr;
    std::optional<ChainCopy> chain_;
    VkExternalMemoryImageCreateInfo external_{};
};

VKAPI_ATTR VkResult VKAPI_CALL CreateBuffer(VkDevice device, const VkBufferCreateInfo* info,
                                            const VkAllocationCallbacks* allocator,
                                            VkBuffer* buffer) {
    EmulatedDevice& of = device_of(device);
    return guarded([&] {
        const BufferBelow below(*info);
        return of.below.CreateBuffer(device, &below.info(), allocator, buffer);
    });
}

/// Where \p image has to begin in its memory for \p asked to be its layout, or nothing where it
/// cannot be.
std::optional<VkDeviceSize> place(const EmulatedDevice& of, VkImage image,
                                  const VkSubresourceLayout& asked) {
    const VkImageSubresource whole{
        .aspectMask = VK_IMAGE_ASPECT_COLOR_BIT, .mipLevel = 0, .arrayLayer = 0};
    VkSubresourceLayout has{};
    of.below.GetImageSubresourceLayout(of.handle, image, &whole, &has);
    VkMemoryRequirements needs{};
    of.below.GetImageMemoryRequirements(of.handle, image, &needs);
    const VkDeviceSize start = asked.offset - has.offset;
    if (asked.rowPitch == has.rowPitch && asked.offset >= has.offset &&
        start % std::max<VkDeviceSize>(needs.alignment, 1) == 0)
        return start;
    static std::atomic<bool> told = false;
    if (!told.exchange(true))
        warn("emulate: an image of pitch " + std::to_string(asked.rowPitch) + " at offset " +
             std::to_string(asked.offset) + " is refused: the driver has pitch " +
             std::to_string(has.rowPitch) + ", and offsets that are " + std::to_string(has.offset) +
             " more than a multiple of " + std::to_string(needs.alignment));
    return std::nullopt;
}

VKAPI_ATTR VkResult VKAPI_CALL CreateImage(VkDevice device, const VkImageCreateInfo* info,
                                           const VkAllocationCallbacks* allocator, VkImage* image) {
    EmulatedDevice& of = device_of(device);
    return guarded([&] {
        const ImageBelow below(of, *info);
        if (below.wrong() != VK_SUCCESS)
            return below.wrong();
        VkImage made = VK_NULL_HANDLE;
        const VkResult result = of.below.CreateImage(device, &below.info(), allocator, &made);
        if (result != VK_SUCCESS || !below.tiled()) {
            *image = made;
            return result;
        }
        std::optional<VkDeviceSize> start = 0;
        if (below.layout() != nullptr)
            start = place(of, made, *below.layout());
        if (!start) {
            of.below.DestroyImage(device, made, allocator);
            return VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT;
        }
        try {
            const std::scoped_lock held(of.lock);
            of.images[made] = *start;
        } catch (const std::bad_alloc&) {
            of.below.DestroyImage(device, made, allocator);
            throw;
        }
        *image = made;
        return VK_SUCCESS;
    });
}

VKAPI_ATTR void VKAPI_CALL DestroyImage(VkDevice device, VkImage image,
                                        const VkAllocationCallbacks* allocator) {
    EmulatedDevice& of = device_of(device);
    {
        const std::scoped_lock held(of.lock);
        of.images.erase(image);
    }
    of.below.DestroyImage(device, image, allocator);
}

/// Where \p image begins in its memory, if it is one with a modifier of ours.
std::optional<VkDeviceSize> start_of(EmulatedDevice& of, VkImage image) {
    const std::shared_lock held(of.lock);
    const auto found = of.images.find(image);
    return found != of.images.end() ? std::optional(found->second) : std::nullopt;
}

VKAPI_ATTR void VKAPI_CALL GetImageMemoryRequirements(VkDevice device, VkImage image,
                                                      VkMemoryRequirements* into) {
    EmulatedDevice& of = device_of(device);
    of.below.GetImageMemoryRequirements(device, image, into);
    into->size += start_of(of, image).value_or(0);
}

template <auto Function>
VKAPI_ATTR void VKAPI_CALL image_requirements_2(VkDevice device,
                                                const VkImageMemoryRequirementsInfo2* info,
                                                VkMemoryRequirements2* into) {
    EmulatedDevice& of = device_of(device);
    (of.below.*Function)(device, info, into);
    into->memoryRequirements.size += start_of(of, info->image).value_or(0);
}
constexpr auto GetImageMemoryRequirements2 =
    image_requirements_2<&DeviceBelow::GetImageMemoryRequirements2>;
constexpr auto GetImageMemoryRequirements2KHR =
    image_requirements_2<&DeviceBelow::GetImageMemoryRequirements2KHR>;

template <auto Function>
VKAPI_ATTR void VKAPI_CALL requirements_of_image(VkDevice device,
                                                 const VkDeviceImageMemoryRequirements* info,
                                                 VkMemoryRequirements2* into) {
    EmulatedDevice& of = device_of(device);
    std::optional<ImageBelow> below;
    VkImageCreateInfo plain = *info->pCreateInfo;
    VkDeviceImageMemoryRequirements copy = *info;
    if (guarded([&] {
            below.emplace(of, plain);
            return VK_SUCCESS;
        }) == VK_SUCCESS) {
        copy.pCreateInfo = &below->info();
    } else { // no memory for its chain: what the driver would need for one without
        plain.pNext = nullptr;
        if (plain.tiling == VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT)
            plain.tiling = VK_IMAGE_TILING_LINEAR;
        copy.pCreateInfo = &plain;
    }
    (of.below.*Function)(device, &copy, into);
    if (below && below->layout() != nullptr)
        into->memoryRequirements.size += below->layout()->offset;
}
constexpr auto GetDeviceImageMemoryRequirements =
    requirements_of_image<&DeviceBelow::GetDeviceImageMemoryRequirements>;
constexpr auto GetDeviceImageMemoryRequirementsKHR =
    requirements_of_image<&DeviceBelow::GetDeviceImageMemoryRequirementsKHR>;

template <auto Function>
VKAPI_ATTR void VKAPI_CALL requirements_of_buffer(VkDevice device,
                                                  const VkDeviceBufferMemoryRequirements* info,
                                                  VkMemoryRequirements2* into) {
    EmulatedDevice& of = device_of(device);
    std::optional<BufferBelow> below;
    VkBufferCreateInfo plain = *info->pCreateInfo;
    VkDeviceBufferMemoryRequirements copy = *info;
    if (guarded([&] {
            below.emplace(plain);
            return VK_SUCCESS;
        }) == VK_SUCCESS) {
        copy.pCreateInfo = &below->info();
    } else { // as of images
        plain.pNext = nullptr;
        copy.pCreateInfo = &plain;
    }
    (of.below.*Function)(device, &copy, into);
}
constexpr auto GetDeviceBufferMemoryRequirements =
    requirements_of_buffer<&DeviceBelow::GetDeviceBufferMemoryRequirements>;
constexpr auto GetDeviceBufferMemoryRequirementsKHR =
    requirements_of_buffer<&DeviceBelow::GetDeviceBufferMemoryRequirementsKHR>;

VKAPI_ATTR VkResult VKAPI_CALL BindImageMemory(VkDevice device, VkImage image,
                                               VkDeviceMemory memory, VkDeviceSize offset) {
    EmulatedDevice& of = device_of(device);
    return of.below.BindImageMemory(device, image, memory,
                                    offset + start_of(of, image).value_or(0));
}

template <auto Function>
VKAPI_ATTR VkResult VKAPI_CALL bind_images(VkDevice device, std::uint32_t count,
                                           const VkBindImageMemoryInfo* infos) {
    EmulatedDevice& of = device_of(device);
    return guarded([&] {
        std::vector<VkBindImageMemoryInfo> all(infos, infos + count);
        for (VkBindImageMemoryInfo& each : all)
            each.memoryOffset += start_of(of, each.image).value_or(0);
        return (of.below.*Function)(device, count, all.data());
    });
}
constexpr auto BindImageMemory2 = bind_images<&DeviceBelow::BindImageMemory2>;
constexpr auto BindImageMemory2KHR = bind_images<&DeviceBelow::BindImageMemory2KHR>;

VKAPI_ATTR void VKAPI_CALL GetImageSubresourceLayout(VkDevice device, VkImage image,
                                                     const VkImageSubresource* of_it,
                                                     VkSubresourceLayout* into) {
    EmulatedDevice& of = device_of(device);
    const auto start = start_of(of, image);
    VkImageSubresource below = *of_it;
    if (start)
        below.aspectMask = VK_IMAGE_ASPECT_COLOR_BIT; // its only plane
    of.below.GetImageSubresourceLayout(device, image, &below, into);
    into->offset += start.value_or(0);
}

VKAPI_ATTR VkResult VKAPI_CALL GetImageDrmFormatModifierPropertiesEXT(
    VkDevice, VkImage, VkImageDrmFormatModifierPropertiesEXT* into) {
    into->drmFormatModifier = linear_modifier; // there is no other
    return VK_SUCCESS;
}

// ---- Semaphores and submissions -----------------------------------------------------------------

VKAPI_ATTR VkResult VKAPI_CALL CreateSemaphore(VkDevice device, const VkSemaphoreCreateInfo* info,
                                               const VkAllocationCallbacks* allocator,
                                               VkSemaphore* semaphore) {
    EmulatedDevice& of = device_of(device);
    const VkResult result = of.below.CreateSemaphore(device, info, allocator, semaphore);
    if (result == VK_SUCCESS)
        (void)guarded([&] { // one that is not known is waited for a while
            of.timelines->created(*semaphore, *info);
            return VK_SUCCESS;
        });
    return result;
}

VKAPI_ATTR void VKAPI_CALL DestroySemaphore(VkDevice device, VkSemaphore semaphore,
                                            const VkAllocationCallbacks* allocator) {
    EmulatedDevice& of = device_of(device);
    of.timelines->destroyed(semaphore);
    of.below.DestroySemaphore(device, semaphore, allocator);
}

bool executes(const VkSubmitInfo& info) noexcept {
    return info.commandBufferCount != 0;
}

bool executes(const VkSubmitInfo2& info) noexcept {
    return info.commandBufferInfoCount != 0;
}

/// \p what is called with each timeline's value that \p info waits for, until it says yes.
/// \returns whether it did.
template <typename What> bool any_wait(const VkSubmitInfo& info, What what) {
    const auto* values = find_in<VkTimelineSemaphoreSubmitInfo>(
        info.pNext, VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO);
    if (values == nullptr)
        return false;
    for (std::uint32_t i = 0;
         i < std::min(info.waitSemaphoreCount, values->waitSemaphoreValueCount); ++i)
        if (what(info.pWaitSemaphores[i], values->pWaitSemaphoreValues[i]))
            return true;
    return false;
}

template <typename What> bool any_wait(const VkSubmitInfo2& info, What what) {
    return std::ranges::any_of(
        std::span(info.pWaitSemaphoreInfos, info.waitSemaphoreInfoCount),
        [&](const VkSemaphoreSubmitInfo& each) { return what(each.semaphore, each.value); });
}

/// Whether it brings \p semaphore to \p value.
bool signals(const VkSubmitInfo& info, VkSemaphore semaphore, std::uint64_t value) noexcept {
    const auto* values = find_in<VkTimelineSemaphoreSubmitInfo>(
        info.pNext, VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO);
    if (values == nullptr)
        return false;
    for (std::uint32_t i = 0;
         i < std::min(info.signalSemaphoreCount, values->signalSemaphoreValueCount); ++i)
        if (info.pSignalSemaphores[i] == semaphore && values->pSignalSemaphoreValues[i] >= value)
            return true;
    return false;
}

bool signals(const VkSubmitInfo2& info, VkSemaphore semaphore, std::uint64_t value) noexcept {
    return std::ranges::any_of(std::span(info.pSignalSemaphoreInfos, info.signalSemaphoreInfoCount),
                               [&](const VkSemaphoreSubmitInfo& each) {
                                   return each.semaphore == semaphore && each.value >= value;
                               });
}

/// Whether one of \p infos waits for a value of a timeline semaphore that has not been reached, and
/// that none before it signals: who waits so stops those behind it too.
template <typename Info>
bool wait_for_more(const Timelines& timelines, std::span<const Info> infos) {
    for (std::size_t i = 0; i < infos.size(); ++i)
        if (any_wait(infos[i], [&](VkSemaphore semaphore, std::uint64_t value) {
                return !timelines.is_on_its_way(
                           timelines.wait_of({.semaphore = semaphore, .value = value})) &&
                       std::ranges::none_of(infos.first(i), [&](const Info& before) {
                           return signals(before, semaphore, value);
                       });
            }))
            return true;
    return false;
}

CpuBrackets::Queue* queue_of(EmulatedDevice& of, VkQueue handle) {
    if (CpuBrackets::Queue* known = of.queues.find(handle))
        return known;
    auto made = std::make_unique<CpuBrackets::Queue>();
    made->handle = handle;
    return of.queues.add(handle, std::move(made));
}

/// \p down submits \p infos to the driver.
template <typename Info, typename Down>
VkResult submit(EmulatedDevice& of, VkQueue handle, std::span<const Info> infos,
                Down down) noexcept {
    if (!of.active.load(std::memory_order_acquire) ||
        std::ranges::none_of(infos, [](const Info& each) { return executes(each); }))
        return down();
    // Where there is no room for ours, the application's work is done all the same.
    CpuBrackets::Queue* queue = nullptr;
    if (guarded([&] {
            queue = queue_of(of, handle);
            const std::shared_lock held(of.lock);
            if (queue != nullptr)
                queue->buffers.assign(of.buffers.begin(), of.buffers.end());
            return VK_SUCCESS;
        }) != VK_SUCCESS ||
        queue == nullptr)
        return down();
    of.brackets->begin(*queue);
    // Timelines hears of no signals here: for it a value is on its way once it has been reached.
    const bool slow = of.timelines->any() && wait_for_more(*of.timelines, infos);
    const VkResult result = down();
    if (result == VK_SUCCESS)
        of.brackets->end_when_done(*queue, slow);
    else
        of.brackets->end(*queue);
    return result;
}

VKAPI_ATTR VkResult VKAPI_CALL QueueSubmit(VkQueue queue, std::uint32_t count,
                                           const VkSubmitInfo* infos, VkFence fence) {
    EmulatedDevice& of = device_of(queue);
    return submit(of, queue, std::span(infos, count),
                  [&] { return of.below.QueueSubmit(queue, count, infos, fence); });
}

template <auto Function>
VKAPI_ATTR VkResult VKAPI_CALL submit_2(VkQueue queue, std::uint32_t count,
                                        const VkSubmitInfo2* infos, VkFence fence) {
    EmulatedDevice& of = device_of(queue);
    return submit(of, queue, std::span(infos, count),
                  [&] { return (of.below.*Function)(queue, count, infos, fence); });
}
constexpr auto QueueSubmit2 = submit_2<&DeviceBelow::QueueSubmit2>;
constexpr auto QueueSubmit2KHR = submit_2<&DeviceBelow::QueueSubmit2KHR>;

// ---- What is found ------------------------------------------------------------------------------

VKAPI_ATTR void VKAPI_CALL DestroyDevice(VkDevice device, const VkAllocationCallbacks* allocator) {
    const auto gone = emulated_devices().remove(key_of(device));
    gone->brackets.reset();
    gone->below.DestroyDevice(device, allocator);
}

VKAPI_ATTR void VKAPI_CALL DestroyInstance(VkInstance instance,
                                           const VkAllocationCallbacks* allocator) {
    const auto gone = emulated_instances().remove(key_of(instance));
    gone->below.DestroyInstance(instance, allocator);
}

struct Entry {
    std::string_view name;
    PFN_vkVoidFunction function;
    unsigned with = 0; // the extension that it is also there with, without the driver
};

#define SLUICE_EMULATE_ENTRY(name) "vk" #name, reinterpret_cast<PFN_vkVoidFunction>(+(name))

const Entry* find(std::span<const Entry> entries, std::string_view name) noexcept {
    const auto found = std::ranges::find(entries, name, &Entry::name);
    return found != entries.end() ? &*found : nullptr;
}

VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL GetDeviceProcAddr(VkDevice device, const char* name) {
    static const Entry entries[] = {
        {"vkGetDeviceProcAddr", reinterpret_cast<PFN_vkVoidFunction>(&GetDeviceProcAddr)},
        {SLUICE_EMULATE_ENTRY(AllocateMemory)},
        {SLUICE_EMULATE_ENTRY(BindImageMemory)},
        {SLUICE_EMULATE_ENTRY(BindImageMemory2)},
        {SLUICE_EMULATE_ENTRY(BindImageMemory2KHR)},
        {SLUICE_EMULATE_ENTRY(CreateBuffer)},
        {SLUICE_EMULATE_ENTRY(CreateImage)},
        {SLUICE_EMULATE_ENTRY(CreateSemaphore)},
        {SLUICE_EMULATE_ENTRY(DestroyDevice)},
        {SLUICE_EMULATE_ENTRY(DestroyImage)},
        {SLUICE_EMULATE_ENTRY(DestroySemaphore)},
        {SLUICE_EMULATE_ENTRY(FreeMemory)},
        {SLUICE_EMULATE_ENTRY(GetDeviceBufferMemoryRequirements)},
        {SLUICE_EMULATE_ENTRY(GetDeviceBufferMemoryRequirementsKHR)},
        {SLUICE_EMULATE_ENTRY(GetDeviceImageMemoryRequirements)},
        {SLUICE_EMULATE_ENTRY(GetDeviceImageMemoryRequirementsKHR)},
        {SLUICE_EMULATE_ENTRY(GetImageDrmFormatModifierPropertiesEXT), with_modifiers},
        {SLUICE_EMULATE_ENTRY(GetImageMemoryRequirements)},
        {SLUICE_EMULATE_ENTRY(GetImageMemoryRequirements2)},
        {SLUICE_EMULATE_ENTRY(GetImageMemoryRequirements2KHR)},
        {SLUICE_EMULATE_ENTRY(GetImageSubresourceLayout)},
        {SLUICE_EMULATE_ENTRY(GetMemoryFdKHR), with_memory_fd},
        {SLUICE_EMULATE_ENTRY(GetMemoryFdPropertiesKHR), with_memory_fd},
        {SLUICE_EMULATE_ENTRY(QueueSubmit)},
        {SLUICE_EMULATE_ENTRY(QueueSubmit2)},
        {SLUICE_EMULATE_ENTRY(QueueSubmit2KHR)},
    };
    const EmulatedDevice& of = device_of(device);
    const auto below = of.next(device, name);
    const Entry* ours = find(entries, name);
    if (ours == nullptr)
        return below;
    if ((of.adds & ours->with) != 0)
        return ours->function;
    // The driver has its own modifiers, then.
    return below != nullptr && ours->with != with_modifiers ? ours->function : below;
}

VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL GetInstanceProcAddr(VkInstance instance,
                                                             const char* name) {
    constexpr auto GetPhysicalDeviceExternalBufferPropertiesKHR =
        &GetPhysicalDeviceExternalBufferProperties;
    constexpr auto GetPhysicalDeviceFormatProperties2KHR = &GetPhysicalDeviceFormatProperties2;
    constexpr auto GetPhysicalDeviceImageFormatProperties2KHR =
        &GetPhysicalDeviceImageFormatProperties2;
    static const Entry entries[] = {
        {SLUICE_EMULATE_ENTRY(DestroyInstance)},
        {SLUICE_EMULATE_ENTRY(EnumerateDeviceExtensionProperties)},
        {SLUICE_EMULATE_ENTRY(GetPhysicalDeviceExternalBufferProperties)},
        {SLUICE_EMULATE_ENTRY(GetPhysicalDeviceExternalBufferPropertiesKHR)},
        {SLUICE_EMULATE_ENTRY(GetPhysicalDeviceFormatProperties2)},
        {SLUICE_EMULATE_ENTRY(GetPhysicalDeviceFormatProperties2KHR)},
        {SLUICE_EMULATE_ENTRY(GetPhysicalDeviceImageFormatProperties2)},
        {SLUICE_EMULATE_ENTRY(GetPhysicalDeviceImageFormatProperties2KHR)},
    };
    const auto below = emulated_instances().find(key_of(instance))->next(instance, name);
    if (below == nullptr)
        return nullptr;
    const Entry* ours = find(entries, name);
    return ours != nullptr ? ours->function : below;
}

#undef SLUICE_EMULATE_ENTRY

} // namespace

PFN_vkGetInstanceProcAddr emulate(VkInstance instance, PFN_vkGetInstanceProcAddr next) {
    auto made = std::make_unique<EmulatedInstance>();
    made->next = next;
#define SLUICE_EMULATE_LOAD(name)                                                                  \
    made->below.name = reinterpret_cast<PFN_vk##name>(next(instance, "vk" #name));
    SLUICE_EMULATE_INSTANCE_FUNCTIONS(SLUICE_EMULATE_LOAD)
#undef SLUICE_EMULATE_LOAD
    if (emulated_instances().add(key_of(instance), std::move(made)) != nullptr)
        return &GetInstanceProcAddr;
    warn("emulate: there are too many instances: one more is left as it is");
    return next;
}

VkResult create_emulating(PFN_vkCreateDevice create, VkPhysicalDevice physical,
                          const VkDeviceCreateInfo& info, const VkAllocationCallbacks* allocator,
                          VkDevice* device, PFN_vkGetDeviceProcAddr& next) {
    EmulatedInstance* of = emulated_instances().find(key_of(physical));
    const auto offer = of != nullptr ? offer_of(*of, physical) : std::make_shared<const Offer>();
    unsigned enabled = 0;
    std::vector<const char*> names;
    for (const char* each : std::span(info.ppEnabledExtensionNames, info.enabledExtensionCount)) {
        const auto known = std::ranges::find_if(extensions, [&](const auto& extension) {
            return std::string_view(each) == extension.extensionName;
        });
        const auto bit = 1U << static_cast<unsigned>(known - extensions.begin());
        if (known != extensions.end() && (offer->adds & bit) != 0)
            enabled |= bit;
        else
            names.push_back(each);
    }
    if (enabled == 0)
        return create(physical, &info, allocator, device);
    const std::string_view host = VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME;
    if (std::ranges::none_of(names, [&](const char* each) { return host == each; }))
        names.push_back(VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME);
    VkDeviceCreateInfo below = info;
    below.enabledExtensionCount = static_cast<std::uint32_t>(names.size());
    below.ppEnabledExtensionNames = names.data();
    // Where the handle goes the Khronos loader has left something for its end of the chain.
    const VkResult result = create(physical, &below, allocator, device);
    if (result != VK_SUCCESS)
        return result;
    const VkResult kept = guarded([&] {
        auto emulated = std::make_unique<EmulatedDevice>(*device, next, *offer, enabled);
        return emulated_devices().add(key_of(*device), std::move(emulated)) != nullptr
                   ? VK_SUCCESS
                   : VK_ERROR_INITIALIZATION_FAILED;
    });
    if (kept != VK_SUCCESS) {
        reinterpret_cast<PFN_vkDestroyDevice>(next(*device, "vkDestroyDevice"))(*device, allocator);
        return kept;
    }
    next = &GetDeviceProcAddr;
    return VK_SUCCESS;
}

} // namespace sluice::layer
