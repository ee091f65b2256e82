// SPDX-License-Identifier: MIT
/// \file
/// The requests that the library makes of the kernel, by name.
#pragma once

#include <cstdint>
#include <string>

#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/sync_file.h>
#include <sys/ioctl.h>

namespace sluice::test {

/// SYNC_IOC_SET_DEADLINE, which older linux/sync_file.h lack.
struct SetDeadline {
    std::uint64_t deadline_ns;
    std::uint64_t pad;
};
inline constexpr unsigned long set_deadline_request = _IOW(SYNC_IOC_MAGIC, 5, SetDeadline);

/// F_DUPFD_QUERY, which older linux/fcntl.h lack.
inline constexpr int dupfd_query_command = 1027;

// DRM's, in its headers only where libdrm's are. Sizes as on 64 bits.
inline constexpr unsigned long version_request = _IOC(_IOC_READ | _IOC_WRITE, 'd', 0x00, 64);
inline constexpr unsigned long get_cap_request = _IOC(_IOC_READ | _IOC_WRITE, 'd', 0x0c, 16);
inline constexpr unsigned long gem_close_request = _IOW('d', 0x09, std::uint64_t);
inline constexpr unsigned long destroy_dumb_request = _IOWR('d', 0xb4, std::uint32_t);
inline constexpr unsigned long syncobj_destroy_request = _IOWR('d', 0xc0, std::uint64_t);

inline std::string request_name(unsigned long request) {
    switch (request) {
    case DMA_BUF_IOCTL_SYNC:
        return "DMA_BUF_IOCTL_SYNC";
    case DMA_BUF_SET_NAME_A:
    case DMA_BUF_SET_NAME_B:
        return "DMA_BUF_SET_NAME";
    case DMA_BUF_IOCTL_EXPORT_SYNC_FILE:
        return "DMA_BUF_IOCTL_EXPORT_SYNC_FILE";
    case DMA_BUF_IOCTL_IMPORT_SYNC_FILE:
        return "DMA_BUF_IOCTL_IMPORT_SYNC_FILE";
    case SYNC_IOC_MERGE:
        return "SYNC_IOC_MERGE";
    case SYNC_IOC_FILE_INFO:
        return "SYNC_IOC_FILE_INFO";
    case set_deadline_request:
        return "SYNC_IOC_SET_DEADLINE";
    case version_request:
        return "DRM_IOCTL_VERSION";
    case get_cap_request:
        return "DRM_IOCTL_GET_CAP";
    case gem_close_request:
        return "DRM_IOCTL_GEM_CLOSE";
    case destroy_dumb_request:
        return "DRM_IOCTL_MODE_DESTROY_DUMB";
    case syncobj_destroy_request:
        return "DRM_IOCTL_SYNCOBJ_DESTROY";
    default:
        return "request " + std::to_string(request);
    }
}

inline std::string command_name(int command) {
    switch (command) {
    case F_DUPFD_CLOEXEC:
        return "F_DUPFD_CLOEXEC";
    case F_GETFL:
        return "F_GETFL";
    case F_SETFD:
        return "F_SETFD";
    case dupfd_query_command:
        return "F_DUPFD_QUERY";
    default:
        return "command " + std::to_string(command);
    }
}

} // namespace sluice::test
