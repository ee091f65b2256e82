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
    default:
        return "command " + std::to_string(command);
    }
}

} // namespace sluice::test
