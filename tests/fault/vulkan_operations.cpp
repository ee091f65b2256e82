// SPDX-License-Identifier: MIT
// The operations of a Vulkan device over real buffers and fences. The driver is made of function
// pointers, and refuses nothing: what fails is the kernel.
#include "fault/operation.hpp"

#include <array>
#include <memory>
#include <optional>

#include <drm_fourcc.h>
#include <fcntl.h>

#include <sluice/vulkan_access.hpp>
#include <sluice/vulkan_buffer.hpp>
#include <sluice/vulkan_image.hpp>

#include "support/fake_vulkan.hpp"
#include "support/sw_sync.hpp"
#include "support/udmabuf.hpp"

namespace sluice::test {

namespace {

using namespace std::chrono_literals;

Deadline far() {
    return deadline_in(20s);
}

/// A driver's function whose own calls are none of the operation's.
template <typename Tag, typename Function> struct Aside;
template <typename Tag, typename R, typename... A> struct Aside<Tag, R(VKAPI_PTR*)(A...)> {
    static inline PFN_vkVoidFunction real = nullptr;
    static R VKAPI_CALL call(A... arguments) {
        const boundary::Aside aside;
        return reinterpret_cast<R(VKAPI_PTR*)(A...)>(real)(arguments...);
    }
    static PFN_vkVoidFunction before(PFN_vkVoidFunction function) {
        real = function;
        return reinterpret_cast<PFN_vkVoidFunction>(&call);
    }
};

PFN_vkGetDeviceProcAddr real_get = nullptr;

PFN_vkVoidFunction VKAPI_CALL get_device_proc_addr(VkDevice device, const char* name) {
    const PFN_vkVoidFunction found = real_get(device, name);
#define ASIDE(function)                                                                            \
    if (found != nullptr && name == std::string_view("vk" #function))                              \
        return Aside<struct Tag##function, PFN_vk##function>::before(found);
    ASIDE(AllocateMemory)
    ASIDE(GetMemoryFdKHR)
    ASIDE(GetMemoryFdPropertiesKHR)
    ASIDE(GetSemaphoreFdKHR)
    ASIDE(ImportSemaphoreFdKHR)
#undef ASIDE
    return found;
}

PFN_vkVoidFunction VKAPI_CALL get_instance_proc_addr(VkInstance instance, const char* name) {
    const PFN_vkVoidFunction found = FakeVulkan::get_instance_proc_addr(instance, name);
    if (name != std::string_view("vkGetDeviceProcAddr"))
        return found;
    real_get = reinterpret_cast<PFN_vkGetDeviceProcAddr>(found);
    return reinterpret_cast<PFN_vkVoidFunction>(&get_device_proc_addr);
}

/// A device, a frame, and fences: whoever used the frame before is still at it.
struct GpuScene {
    SwSync before; // whose first fence is in the frame
    SwSync gpu;    // whose first fence is that of each submission
    FakeVulkan driver;
    VulkanDevice device = wrap();
    Frame frame = make();
    std::optional<VulkanImage> image; // once attached

    GpuScene() {
        driver.gives_sync_file = [this] {
            return std::move(*UniqueFd::duplicate(gpu.fence(1).fd()));
        };
        driver.gives_dma_buf = [](VkDeviceSize size) {
            return std::move(*UniqueFd::duplicate(udmabuf(size).fd()));
        };
        driver.memory_size = 4096;
    }

    VulkanDevice wrap() {
        VulkanDeviceInfo info = driver.application();
        info.get_instance_proc_addr = get_instance_proc_addr;
        auto wrapped = VulkanDevice::wrap(info);
        EXPECT_TRUE(wrapped) << wrapped.error().message();
        return std::move(*wrapped);
    }
    static Frame make() {
        auto made = Frame::create({.width = 16,
                                   .height = 16,
                                   .format = DRM_FORMAT_XRGB8888,
                                   .planes = {FramePlane{.stride = 64}}},
                                  udmabuf(4096));
        EXPECT_TRUE(made) << made.error().message();
        return std::move(*made);
    }

    /// The application's own submission for \p access.
    void submit(const VulkanAccess& access) const {
        const auto function = reinterpret_cast<PFN_vkQueueSubmit>(
            FakeVulkan::get_instance_proc_addr(device.info().instance, "vkQueueSubmit"));
        const auto waits = access.wait_semaphores();
        constexpr std::array<VkPipelineStageFlags, 2> stages{VK_PIPELINE_STAGE_TRANSFER_BIT,
                                                             VK_PIPELINE_STAGE_TRANSFER_BIT};
        const VkSemaphore signal = access.signal_semaphore();
        const VkSubmitInfo info{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                                .waitSemaphoreCount = static_cast<std::uint32_t>(waits.size()),
                                .pWaitSemaphores = waits.data(),
                                .pWaitDstStageMask = stages.data(),
                                .signalSemaphoreCount = 1,
                                .pSignalSemaphores = &signal};
        EXPECT_EQ(function(device.info().queue, 1, &info, VK_NULL_HANDLE), VK_SUCCESS);
    }

    /// Whether whoever comes next finds the GPU's fence in the frame, or the GPU done.
    [[nodiscard]] bool left() const {
        const auto fence = frame.buffer().export_fence(Access::read);
        EXPECT_TRUE(fence) << fence.error().message();
        const auto pending = [&] { return fence->status()->state == FenceState::pending; };
        if (!pending()) // the kernel takes no fence: the GPU was waited for
            return gpu.fence(1).status()->state == FenceState::signalled;
        before.advance(1);
        const bool left = pending();
        gpu.advance(1);
        return left && !pending();
    }
};

std::shared_ptr<GpuScene> scene() {
    return std::make_shared<GpuScene>();
}

/// The same with the frame attached and in use. Both timelines move on while the operation sleeps.
std::shared_ptr<GpuScene> busy_scene() {
    auto my = scene();
    auto attached = my->device.attach(my->frame, {.usage = VK_IMAGE_USAGE_TRANSFER_DST_BIT});
    EXPECT_TRUE(attached) << attached.error().message();
    my->image = *attached;
    EXPECT_TRUE(my->frame.buffer().import_fence(my->before.fence(1), Access::write));
    boundary::before_sleep([weak = std::weak_ptr(my)] { // there is one driver at a time
        if (const auto alive = weak.lock()) {
            alive->before.advance(1);
            alive->gpu.advance(1);
        }
    });
    return my;
}

} // namespace

std::vector<Operation> vulkan_operations() {
    return {
        {"VulkanDevice::attach",
         [] {
             auto my = scene();
             return attempt(
                 [=] {
                     return my->device.attach(my->frame, {.usage = VK_IMAGE_USAGE_SAMPLED_BIT});
                 },
                 [](auto& image) { return image.has_value(); });
         }},
        {"VulkanDevice::attach, which the driver refuses",
         [] {
             auto my = scene();
             return attempt(
                 [=] {
                     my->driver.fail("vkAllocateMemory", VK_ERROR_INVALID_EXTERNAL_HANDLE);
                     return my->device.attach(my->frame, {.usage = VK_IMAGE_USAGE_SAMPLED_BIT});
                 },
                 [=](auto& image) {
                     if (image || image.error().vk_result == VK_SUCCESS)
                         return false;
                     image.error().vk_result = VK_SUCCESS; // it was asked for
                     return image.error().code == Errc::wrong_object;
                 });
         }},
        {"VulkanDevice::attach_buffer",
         [] {
             auto my = scene();
             return attempt(
                 [=] {
                     return my->device.attach_buffer(my->frame.buffer(),
                                                     VK_BUFFER_USAGE_TRANSFER_SRC_BIT);
                 },
                 [](auto& buffer) { return buffer && buffer->size() == 4096; });
         }},
        {"VulkanDevice::export_image",
         [] {
             auto my = scene();
             return attempt(
                 [=] {
                     return my->device.export_image({.width = 16,
                                                     .height = 16,
                                                     .format = DRM_FORMAT_XRGB8888,
                                                     .usage = VK_IMAGE_USAGE_TRANSFER_DST_BIT});
                 },
                 [](auto& image) { return image && image->frame().buffer().size() == 4096; });
         }},
        {"VulkanDevice::export_buffer",
         [] {
             auto my = scene();
             return attempt(
                 [=] {
                     return my->device.export_buffer({.width = 16,
                                                      .height = 16,
                                                      .format = DRM_FORMAT_XRGB8888,
                                                      .usage = VK_BUFFER_USAGE_TRANSFER_DST_BIT});
                 },
                 [](auto& buffer) { return buffer && buffer->frame().buffer().size() == 4096; });
         }},
        {"VulkanDevice::begin_access and end",
         [] {
             auto my = busy_scene();
             return attempt(
                 [=]() -> Result<void> {
                     const std::array uses{
                         VulkanUse{.attachment = &*my->image, .access = Access::write}};
                     auto access = my->device.begin_access(uses, far());
                     if (!access)
                         return tl::unexpected(std::move(access.error()));
                     my->submit(*access);
                     return access->end(far());
                 },
                 [=](auto& result) { return result && my->left(); });
         }},
        {"VulkanDevice::submit",
         [] {
             auto my = busy_scene();
             return attempt(
                 [=] {
                     constexpr VkCommandBuffer recorded = nullptr;
                     const std::array uses{
                         VulkanUse{.attachment = &*my->image, .access = Access::write}};
                     return my->device.submit(
                         {.command_buffers = {&recorded, 1}, .uses = uses, .patience = 20s});
                 },
                 [=](auto& fence) { return fence && my->left(); });
         }},
    };
}

} // namespace sluice::test
