// SPDX-License-Identifier: MIT
/// \file
/// The kernel's answers to udmabuf and dma-heap, given with memfds on any machine.
#pragma once

#include <atomic>
#include <cerrno>
#include <map>
#include <string>
#include <utility>

#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <linux/udmabuf.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "support/memfd.hpp"
#include "support/scripted_libc.hpp"

namespace sluice::test {

/// A libc in which the device files open and allocate. Buffers are memfds. Other paths are asked of
/// `files`, and then of the real kernel.
struct FakeKernel {
    FakeKernel() {
        libc.memfds_are_dma_bufs();
        libc.open = [this](const char* path, int flags) { return open(path, flags); };
        libc.ioctl = [this](int fd, unsigned long request, void* argument) {
            return ioctl(fd, request, argument);
        };
    }

    ScriptedLibc libc;
    /// What stands in the files that the code reads, and the errno of those that do not open.
    std::map<std::string, std::string> files{
        {"/sys/module/udmabuf/parameters/size_limit_mb", "64\n"},
        {"/proc/meminfo", "MemTotal:        8000000 kB\nMemAvailable:    1000000 kB\n"},
    };
    std::map<std::string, int> refused_paths;
    /// The errno with which allocations fail; 0 lets them succeed.
    int refused_allocation = 0;
    /// What is handed out passes for a dma-buf, or not.
    bool gives_dma_bufs = true;
    std::string last_name;
    udmabuf_create last_udmabuf{};
    dma_heap_allocation_data last_heap{};
    std::atomic<int> allocations = 0;
    /// Several threads allocate: what was asked last is nobody's business then.
    bool concurrent = false;

private:
    int open(const std::string& path, int flags) {
        if (const auto refused = refused_paths.find(path); refused != refused_paths.end()) {
            errno = refused->second;
            return -1;
        }
        if (const auto file = files.find(path); file != files.end()) {
            UniqueFd text(memfd_create("file", MFD_CLOEXEC));
            if (write(text.get(), file->second.data(), file->second.size()) < 0)
                return -1;
            lseek(text.get(), 0, SEEK_SET);
            return text.release();
        }
        if (path == "/dev/udmabuf" || path.starts_with("/dev/dma_heap/"))
            return ScriptedLibc::real_open("/dev/null", flags);
        return ScriptedLibc::real_open(path.c_str(), flags);
    }

    int give(std::uint64_t size) {
        if (refused_allocation != 0) {
            errno = refused_allocation;
            return -1;
        }
        ++allocations;
        if (!gives_dma_bufs)
            return eventfd(0, EFD_CLOEXEC);
        return memfd(size).release();
    }

    int ioctl(int fd, unsigned long request, void* argument) {
        switch (request) {
        case UDMABUF_CREATE:
            if (!concurrent)
                last_udmabuf = *static_cast<udmabuf_create*>(argument);
            return give(static_cast<udmabuf_create*>(argument)->size);
        case DMA_HEAP_IOCTL_ALLOC: {
            auto* asked = static_cast<dma_heap_allocation_data*>(argument);
            if (!concurrent)
                last_heap = *asked;
            const int given = give(asked->len);
            asked->fd = static_cast<__u32>(given);
            return given < 0 ? -1 : 0;
        }
        case DMA_BUF_SET_NAME_B:
            if (!concurrent)
                last_name = static_cast<const char*>(argument);
            errno = EINVAL; // naming may fail, and nobody minds
            return -1;
        default:
            return ScriptedLibc::real_ioctl(fd, request, argument);
        }
    }
};

} // namespace sluice::test
