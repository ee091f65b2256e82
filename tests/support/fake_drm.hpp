// SPDX-License-Identifier: MIT
/// \file
/// A DRM device made of memfds, and Mesa's GBM on top of it: any machine has one.
#pragma once

#include <cerrno>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <drm.h>
#include <drm_mode.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <sys/eventfd.h>

#include <gtest/gtest.h>

#include "support/memfd.hpp"
#include "support/scripted_libc.hpp"

struct gbm_bo;
struct gbm_device;

namespace sluice::test {

/// What a GBM driver answers. The functions of gbm.h that the library calls are defined in
/// fake_gbm.cpp and ask the one object there is.
struct FakeGbm {
    FakeGbm();
    ~FakeGbm();
    FakeGbm(const FakeGbm&) = delete;
    FakeGbm& operator=(const FakeGbm&) = delete;

    struct Plane {
        std::uint32_t handle = 1, offset = 0, stride = 0;
    };
    struct Bo {
        std::uint32_t width = 0, height = 0, format = 0, usage = 0;
        bool with_modifiers = false;
        std::vector<std::uint64_t> offered = {}; ///< With modifiers: the list.
        std::uint64_t modifier = 0;
        std::vector<Plane> planes;
    };

    static constexpr int leaves_errno = -1; ///< For `create`: a failure that sets none.

    bool opens = true;
    bool alive = false;    // between gbm_create_device and gbm_device_destroy
    int bos = 0;           // alive
    int destroy_errno = 0; // what destroying one leaves in errno
    std::vector<Bo> made;
    /// Whether a format is supported for a usage; none means XR24 and AR24, LINEAR.
    std::function<bool(std::uint32_t format, std::uint32_t usage)> supports;
    /// The planes that a format has, or -1.
    std::function<int(std::uint32_t format)> plane_count;
    /// Fills in what the driver makes, or returns an errno.
    std::function<int(Bo& bo)> create;
};

/// The ioctls of a DRM device behind /dev/null.
struct FakeDrm {
    FakeDrm() {
        libc.memfds_are_dma_bufs();
        libc.ioctl = [this](int fd, unsigned long request, void* argument) {
            const int error = answer(request, argument);
            if (error < 0)
                return ScriptedLibc::real_ioctl(fd, request, argument);
            errno = error;
            return error == 0 ? 0 : -1;
        };
    }

    ScriptedLibc libc;
    UniqueFd card{ScriptedLibc::real_open("/dev/null", O_RDWR | O_CLOEXEC)};
    std::string driver = "fake";
    std::uint64_t dumb_cap = 1;
    int cap_error = 0;    // of DRM_CAP_DUMB_BUFFER
    int create_error = 0; // of CREATE_DUMB
    int export_error = 0; // of PRIME_HANDLE_TO_FD
    bool only_32_bpp = false;
    bool exports_dma_bufs = true;
    std::uint64_t missing_bytes = 0; // by which exported buffers are too small
    /// The driver's pitch for a row of so many bytes.
    std::function<std::uint32_t(std::uint32_t row)> pitch = [](std::uint32_t row) { return row; };
    std::map<std::uint32_t, std::uint64_t> handles; // open ones, with their sizes
    std::vector<drm_mode_create_dumb> created;
    std::uint32_t export_flags = 0;
    std::string last_name;

    /// A handle that somebody else's driver made.
    void add_handle(std::uint32_t handle, std::uint64_t size) { handles[handle] = size; }

private:
    /// \returns an errno, 0, or -1 for what is not DRM's.
    int answer(unsigned long request, void* argument) {
        switch (request) {
        case DRM_IOCTL_VERSION: {
            auto* version = static_cast<drm_version*>(argument);
            if (driver.empty())
                return ENOTTY;
            driver.copy(version->name, version->name_len);
            version->name_len = driver.size();
            return 0;
        }
        case DRM_IOCTL_GET_CAP:
            EXPECT_EQ(static_cast<drm_get_cap*>(argument)->capability,
                      static_cast<__u64>(DRM_CAP_DUMB_BUFFER));
            static_cast<drm_get_cap*>(argument)->value = dumb_cap;
            return cap_error;
        case DRM_IOCTL_MODE_CREATE_DUMB:
            return create(*static_cast<drm_mode_create_dumb*>(argument));
        case DRM_IOCTL_MODE_DESTROY_DUMB:
            return handles.erase(static_cast<drm_mode_destroy_dumb*>(argument)->handle) == 1
                       ? 0
                       : (ADD_FAILURE() << "a handle was closed twice", EINVAL);
        case DRM_IOCTL_PRIME_HANDLE_TO_FD: {
            auto* prime = static_cast<drm_prime_handle*>(argument);
            export_flags = prime->flags;
            if (export_error != 0)
                return export_error;
            if (!handles.contains(prime->handle))
                return ENOENT;
            prime->fd = exports_dma_bufs ? memfd(handles[prime->handle] - missing_bytes).release()
                                         : eventfd(0, EFD_CLOEXEC);
            return 0;
        }
        case DMA_BUF_SET_NAME_B:
            last_name = static_cast<const char*>(argument);
            return EINVAL;
        default:
            return -1;
        }
    }

    int create(drm_mode_create_dumb& request) {
        created.push_back(request);
        if (create_error != 0)
            return create_error;
        if (only_32_bpp && request.bpp != 32)
            return EINVAL;
        EXPECT_EQ(std::uint64_t{request.width} * request.bpp % 8, 0U);
        request.pitch = pitch(request.width * request.bpp / 8);
        request.size = (std::uint64_t{request.pitch} * request.height + 4095) / 4096 * 4096;
        request.handle = ++last_handle_;
        handles[request.handle] = request.size;
        return 0;
    }

    std::uint32_t last_handle_ = 100;
};

} // namespace sluice::test
