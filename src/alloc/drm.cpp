// SPDX-License-Identifier: MIT
#include "alloc/drm.hpp"

#include <array>
#include <cerrno>
#include <utility>

#include <drm.h>
#include <fcntl.h>

#include "core/sys.hpp"

namespace sluice::alloc {

Result<DrmDevice> wrap_device(int fd, const char* operation, const char* node) noexcept {
    auto copy = UniqueFd::duplicate(fd);
    if (!copy)
        return tl::unexpected(std::move(copy.error()));
    std::array<char, 64> name{};
    drm_version version{};
    version.name = name.data();
    version.name_len = name.size() - 1;
    const int error = sys::ioctl(copy->get(), DRM_IOCTL_VERSION, &version) != 0 ? errno : 0;
    if (error != 0 || name.front() == '\0')
        return tl::unexpected(Error{.code = sys::code_of_wrong_object(error),
                                    .operation = operation,
                                    .object = sys::describe_fd(fd),
                                    .problem = "is not a DRM device",
                                    .remedy = std::string("Open a ") + node + " node",
                                    .sys_errno = error});
    return DrmDevice{std::move(*copy), name.data()};
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
