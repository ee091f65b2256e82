// SPDX-License-Identifier: MIT
/// \file
/// The fences that the kernel keeps of buffers, for memfds that pass for dma-bufs.
#pragma once

#include <cerrno>
#include <cstdint>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include <linux/dma-buf.h>
#include <linux/sync_file.h>

#include "support/fake_vulkan.hpp"
#include "support/scripted_libc.hpp"

namespace sluice::test {

/// What is asked of the buffers is answered from a script, and what is left there is noted down.
/// The code under test may ask from many threads; the test looks when they are done.
struct FakeReservations {
    struct Left {
        ino_t buffer;
        std::uint32_t flags; // DMA_BUF_SYNC_*
        ino_t fence;

        bool operator==(const Left&) const = default;
    };

    /// The status of the fence that the next user of a buffer gets; signalled where none is given.
    std::map<ino_t, int> status;
    int export_error = 0;
    int import_error = 0;

    std::vector<std::pair<ino_t, std::uint32_t>> asked; ///< Each export: buffer and flags.
    std::vector<ino_t> given;                           ///< The fence that each gave.
    std::vector<Left> left;

    /// Takes over what `fake_sync_files` has set up, and does the rest.
    void set_up(ScriptedLibc& libc) {
        libc.ioctl = [this, others = libc.ioctl](int fd, unsigned long request, void* argument) {
            if (request == DMA_BUF_IOCTL_EXPORT_SYNC_FILE)
                return give(fd, *static_cast<dma_buf_export_sync_file*>(argument));
            if (request == DMA_BUF_IOCTL_IMPORT_SYNC_FILE) {
                const auto& import = *static_cast<dma_buf_import_sync_file*>(argument);
                if (import_error == 0 && (import.flags & DMA_BUF_SYNC_RW) == 0)
                    return refuse(EINVAL);
                sync_file_info info{};
                if (others(import.fd, SYNC_IOC_FILE_INFO, &info) != 0)
                    return refuse(EINVAL); // it is no sync_file
                return take(fd, import);
            }
            return others(fd, request, argument);
        };
    }

private:
    static int refuse(int error) {
        errno = error;
        return -1;
    }
    int give(int fd, dma_buf_export_sync_file& request) {
        const std::lock_guard lock(mutex_);
        if (export_error != 0)
            return refuse(export_error);
        if ((request.flags & DMA_BUF_SYNC_RW) == 0)
            return refuse(EINVAL);
        const ino_t buffer = inode_of(fd);
        const auto found = status.find(buffer);
        asked.emplace_back(buffer, request.flags);
        request.fd = fake_sync_file(found == status.end() ? 1 : found->second).release();
        given.push_back(inode_of(request.fd));
        return 0;
    }
    int take(int fd, const dma_buf_import_sync_file& request) {
        const std::lock_guard lock(mutex_);
        if (import_error != 0)
            return refuse(import_error);
        left.push_back(
            {.buffer = inode_of(fd), .flags = request.flags, .fence = inode_of(request.fd)});
        return 0;
    }

    std::mutex mutex_;
};

} // namespace sluice::test
