// SPDX-License-Identifier: MIT
/// \file
/// DRM nodes by their driver's name, and what is left open in them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include <drm.h>
#include <drm_mode.h>
#include <fcntl.h>
#include <sys/ioctl.h>

#include <gtest/gtest.h>

#include <sluice/unique_fd.hpp>

namespace sluice::test {

/// Opens the node of \p driver whose name starts with \p prefix; nothing where there is none.
inline UniqueFd open_drm(std::string_view driver, std::string_view prefix = "card") {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator("/dev/dri", error)) {
        if (!entry.path().filename().string().starts_with(prefix))
            continue;
        UniqueFd fd(open(entry.path().c_str(), O_RDWR | O_CLOEXEC));
        char name[64] = {};
        drm_version version{};
        version.name = name;
        version.name_len = sizeof name - 1;
        if (fd && ioctl(fd.get(), DRM_IOCTL_VERSION, &version) == 0 && name == driver)
            return fd;
    }
    return {};
}

/// The lowest GEM handle that is free: the kernel gives it to the next object. 1 where nothing is
/// open in \p fd.
inline std::uint32_t lowest_free_handle(int fd) {
    drm_mode_create_dumb create{};
    create.width = create.height = 16;
    create.bpp = 32;
    EXPECT_EQ(ioctl(fd, DRM_IOCTL_MODE_CREATE_DUMB, &create), 0);
    drm_mode_destroy_dumb destroy{.handle = create.handle};
    EXPECT_EQ(ioctl(fd, DRM_IOCTL_MODE_DESTROY_DUMB, &destroy), 0);
    return create.handle;
}

} // namespace sluice::test
