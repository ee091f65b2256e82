// SPDX-License-Identifier: MIT
#include "alloc/drm.hpp"

#include <array>
#include <cerrno>
#include <cstring>

#include <drm.h>
#include <fcntl.h>

#include "core/sys.hpp"

namespace sluice::alloc {

std::string drm_driver(int fd) noexcept {
    std::array<char, 64> name{};
    drm_version version{};
    version.name = name.data();
    version.name_len = name.size() - 1;
    if (sys::ioctl(fd, DRM_IOCTL_VERSION, &version) != 0)
        return {};
    return name.data();
}

Result<DmaBuf> export_handle(int fd, std::uint32_t handle, const char* operation,
                             const std::string& object) noexcept {
    drm_prime_handle prime{.handle = handle, .flags = DRM_CLOEXEC | DRM_RDWR, .fd = -1};
    if (sys::ioctl(fd, DRM_IOCTL_PRIME_HANDLE_TO_FD, &prime) != 0) {
        const int error = errno;
        Error failure = sys::failed_call(
            error, operation, object,
            "the driver does not share its buffer (DRM_IOCTL_PRIME_HANDLE_TO_FD)",
            error == EMFILE || error == ENFILE ? "Close fds that are no longer used"
                                               : "Use another exporter and import its buffers");
        if (error == EINVAL || error == ENOSYS || error == EOPNOTSUPP)
            failure.code = Errc::unsupported;
        return tl::unexpected(std::move(failure));
    }
    return DmaBuf::from_fd(UniqueFd(std::move(prime.fd)));
}

} // namespace sluice::alloc
