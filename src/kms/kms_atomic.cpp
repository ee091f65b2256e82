// SPDX-License-Identifier: MIT
#include <cerrno>

#include <drm.h>

#include "core/sys.hpp"
#include "kms/kms_state.hpp"

namespace sluice {

void KmsAtomicRequest::clear() noexcept {
    objects_.clear();
    counts_.clear();
    properties_.clear();
    values_.clear();
}

void KmsAtomicRequest::add(std::uint32_t object, std::uint32_t property, std::uint64_t value) {
    if (objects_.empty() || objects_.back() != object) {
        objects_.push_back(object);
        counts_.push_back(0);
    }
    ++counts_.back();
    properties_.push_back(property);
    values_.push_back(value);
}

void KmsAtomicRequest::copy_to(drmModeAtomicReq& request) const {
    std::size_t next = 0;
    for (std::size_t i = 0; i < objects_.size(); ++i)
        for (std::uint32_t j = 0; j < counts_[i]; ++j, ++next)
            drmModeAtomicAddProperty(&request, objects_[i], properties_[next], values_[next]);
}

int KmsAtomicRequest::commit(int fd, std::uint32_t flags) noexcept {
    const auto address = [](const auto& list) {
        return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(list.data()));
    };
    // drmModeAtomicCommit would copy and sort these on the heap for every frame.
    drm_mode_atomic request{.flags = flags,
                            .count_objs = static_cast<__u32>(objects_.size()),
                            .objs_ptr = address(objects_),
                            .count_props_ptr = address(counts_),
                            .props_ptr = address(properties_),
                            .prop_values_ptr = address(values_),
                            .reserved = 0,
                            .user_data = 0};
    return sys::ioctl(fd, DRM_IOCTL_MODE_ATOMIC, &request) == 0 ? 0 : errno;
}

} // namespace sluice
