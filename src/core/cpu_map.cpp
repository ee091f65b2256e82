// SPDX-License-Identifier: MIT
#include <sluice/cpu_map.hpp>

#include <cerrno>
#include <limits>
#include <string>

#include <sys/mman.h>

#include "core/cpu_map_state.hpp"
#include "core/dma_buf_text.hpp"
#include "core/sys.hpp"

namespace sluice {

CpuMap::State::~State() {
    munmap(address, buffer.size());
}

CpuMap::CpuMap(std::shared_ptr<const State> state) noexcept : state_(std::move(state)) {}

Result<CpuMap> CpuMap::map(const DmaBuf& buffer, Access access) noexcept {
    if (buffer.size() == 0 || buffer.size() > std::numeric_limits<std::size_t>::max())
        return tl::unexpected(Error{.code = Errc::unsupported,
                                    .operation = "CpuMap::map",
                                    .object = describe(buffer),
                                    .problem = "its size cannot be mapped in this process",
                                    .remedy = "Use a buffer that fits the address space"});
    auto copy = buffer.duplicate();
    if (!copy)
        return tl::unexpected(std::move(copy.error()));
    const int protection = writes(access) ? PROT_READ | PROT_WRITE : PROT_READ;
    void* address = mmap(nullptr, buffer.size(), protection, MAP_SHARED, buffer.fd(), 0);
    if (address == MAP_FAILED) {
        const int error = errno;
        Error failure = sys::failed_call(
            error, "CpuMap::map", describe(buffer),
            "the kernel gave no mapping for access " + std::string(to_string(access)),
            error == EACCES ? "Map it for reading, or have the exporter give the fd out read-write"
                            : "Use an exporter whose buffers the CPU can map");
        if (error == EINVAL || error == ENODEV)
            failure.code = Errc::unsupported;
        return tl::unexpected(std::move(failure));
    }
    return CpuMap(std::make_shared<const State>(std::move(*copy), address, access));
}

std::uint64_t CpuMap::size() const noexcept {
    return state_ ? state_->buffer.size() : 0;
}

} // namespace sluice
