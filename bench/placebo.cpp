// SPDX-License-Identifier: MIT
#include "placebo.hpp"

#include <drm_fourcc.h>
#include <libplacebo/vulkan.h>

namespace bench {

struct Placebo::Objects {
    Objects() = default;
    Objects(const Objects&) = delete;
    Objects& operator=(const Objects&) = delete;
    ~Objects() {
        pl_vulkan_destroy(&vulkan);
        pl_log_destroy(&log);
    }

    pl_log log = nullptr;
    pl_vulkan vulkan = nullptr;
    pl_fmt format = nullptr;
};

std::unique_ptr<Placebo> Placebo::create(PFN_vkGetInstanceProcAddr get, VkInstance instance,
                                         VkPhysicalDevice device, std::string& problem) {
    std::unique_ptr<Placebo> placebo(new Placebo);
    placebo->objects_ = std::make_unique<Objects>();
    Objects& objects = *placebo->objects_;
    const pl_log_params quiet{};
    objects.log = pl_log_create(PL_API_VER, &quiet);
    pl_vulkan_params params = pl_vulkan_default_params;
    params.instance = instance;
    params.get_proc_addr = get;
    params.device = device;
    params.allow_software = true;
    objects.vulkan = pl_vulkan_create(objects.log, &params);
    if (objects.vulkan == nullptr) {
        problem = "it makes no device here";
        return nullptr;
    }
    objects.format = pl_find_fourcc(objects.vulkan->gpu, DRM_FORMAT_ARGB8888);
    if (objects.format == nullptr || !pl_fmt_has_modifier(objects.format, DRM_FORMAT_MOD_LINEAR)) {
        problem = "it imports only with VK_EXT_image_drm_format_modifier, which this driver lacks";
        return nullptr;
    }
    return placebo;
}

Placebo::~Placebo() = default;

bool Placebo::import(int fd, std::uint64_t size, std::uint32_t width, std::uint32_t height,
                     std::uint32_t stride) const noexcept {
    pl_tex_params params{};
    params.w = static_cast<int>(width);
    params.h = static_cast<int>(height);
    params.format = objects_->format;
    params.sampleable = true;
    params.import_handle = PL_HANDLE_DMA_BUF;
    params.shared_mem.handle.fd = fd;
    params.shared_mem.size = size;
    params.shared_mem.drm_format_mod = DRM_FORMAT_MOD_LINEAR;
    params.shared_mem.stride_w = stride / static_cast<std::uint32_t>(objects_->format->texel_size);
    pl_tex texture = pl_tex_create(objects_->vulkan->gpu, &params);
    if (texture == nullptr)
        return false;
    pl_tex_destroy(objects_->vulkan->gpu, &texture);
    return true;
}

} // namespace bench
