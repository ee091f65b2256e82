// SPDX-License-Identifier: MIT
// Apart from the driver, which also serves in front of a real kernel.
#include "support/fake_vulkan.hpp"

#include <array>
#include <cerrno>
#include <span>

#include <linux/sync_file.h>

#include "support/scripted_sync_file.hpp"

namespace sluice::test {

void fake_sync_files(ScriptedLibc& libc) {
    libc.ioctl = [](int fd, unsigned long request, void* argument) {
        if (request != SYNC_IOC_FILE_INFO)
            return ScriptedLibc::real_ioctl(fd, request, argument);
        const auto status = read_fake_status(fd);
        return status ? answer_file_info(argument, std::array{*status}) : -1;
    };
    libc.ppoll = [](pollfd* fds, nfds_t count, const timespec*) {
        int ready = 0;
        for (pollfd& each : std::span(fds, count)) {
            const auto status = each.fd < 0 ? 0 : read_fake_status(each.fd);
            if (!status)
                each.revents = errno == EBADF ? short{POLLNVAL} : each.events;
            else
                each.revents = *status == 0 ? short{0} : short{POLLIN};
            ready += each.revents != 0 ? 1 : 0;
        }
        return ready;
    };
}

} // namespace sluice::test
