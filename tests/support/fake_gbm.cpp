// SPDX-License-Identifier: MIT
// The functions of gbm.h, linked in place of Mesa's. They hand out the fake's own objects.
#include <cassert>
#include <cerrno>

#include <drm_fourcc.h>
#include <gbm.h>

#include "support/fake_drm.hpp"

namespace {

sluice::test::FakeGbm* fake = nullptr;

} // namespace

struct gbm_device {};
struct gbm_bo {
    sluice::test::FakeGbm::Bo made;
};

namespace sluice::test {

FakeGbm::FakeGbm() {
    assert(fake == nullptr);
    fake = this;
    supports = [](std::uint32_t format, std::uint32_t) {
        return format == DRM_FORMAT_XRGB8888 || format == DRM_FORMAT_ARGB8888;
    };
    plane_count = [](std::uint32_t) { return 1; };
    create = [](Bo& bo) {
        bo.modifier = DRM_FORMAT_MOD_LINEAR;
        bo.planes = {{.handle = 1, .offset = 0, .stride = bo.width * 4}};
        return 0;
    };
}

FakeGbm::~FakeGbm() {
    EXPECT_FALSE(alive) << "the device was left behind";
    EXPECT_EQ(bos, 0) << "buffer objects were left behind";
    fake = nullptr;
}

} // namespace sluice::test

namespace {

gbm_bo* make(std::uint32_t width, std::uint32_t height, std::uint32_t format, std::uint32_t usage,
             bool with_modifiers, std::vector<std::uint64_t> offered = {}) {
    sluice::test::FakeGbm::Bo bo{.width = width,
                                 .height = height,
                                 .format = format,
                                 .usage = usage,
                                 .with_modifiers = with_modifiers,
                                 .offered = std::move(offered)};
    const int error = fake->create(bo);
    fake->made.push_back(bo);
    if (error != 0) {
        if (error != sluice::test::FakeGbm::leaves_errno)
            errno = error;
        return nullptr;
    }
    ++fake->bos;
    return new gbm_bo{bo};
}

} // namespace

extern "C" {

gbm_device* gbm_create_device(int) {
    assert(fake);
    if (!fake->opens) {
        errno = ENOSYS;
        return nullptr;
    }
    fake->alive = true;
    return new gbm_device;
}

void gbm_device_destroy(gbm_device* device) {
    fake->alive = false;
    delete device;
}

int gbm_device_is_format_supported(gbm_device*, uint32_t format, uint32_t usage) {
    return fake->supports(format, usage) ? 1 : 0;
}

int gbm_device_get_format_modifier_plane_count(gbm_device*, uint32_t format, uint64_t) {
    return fake->plane_count(format);
}

gbm_bo* gbm_bo_create(gbm_device*, uint32_t width, uint32_t height, uint32_t format,
                      uint32_t usage) {
    return make(width, height, format, usage, false);
}

gbm_bo* gbm_bo_create_with_modifiers2(gbm_device*, uint32_t width, uint32_t height, uint32_t format,
                                      const uint64_t* modifiers, unsigned int count,
                                      uint32_t usage) {
    return make(width, height, format, usage, true, {modifiers, modifiers + count});
}

void gbm_bo_destroy(gbm_bo* bo) {
    --fake->bos;
    delete bo;
    if (fake->destroy_errno != 0)
        errno = fake->destroy_errno;
}

uint64_t gbm_bo_get_modifier(gbm_bo* bo) {
    return bo->made.modifier;
}

int gbm_bo_get_plane_count(gbm_bo* bo) {
    return static_cast<int>(bo->made.planes.size());
}

gbm_bo_handle gbm_bo_get_handle_for_plane(gbm_bo* bo, int plane) {
    return {.u32 = bo->made.planes.at(static_cast<size_t>(plane)).handle};
}

gbm_bo_handle gbm_bo_get_handle(gbm_bo* bo) {
    return gbm_bo_get_handle_for_plane(bo, 0);
}

uint32_t gbm_bo_get_offset(gbm_bo* bo, int plane) {
    return bo->made.planes.at(static_cast<size_t>(plane)).offset;
}

uint32_t gbm_bo_get_stride_for_plane(gbm_bo* bo, int plane) {
    return bo->made.planes.at(static_cast<size_t>(plane)).stride;
}
}
