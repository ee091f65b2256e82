// SPDX-License-Identifier: MIT
#include <sluice/cpu_map.hpp>

#include <cerrno>
#include <cstdlib>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <sys/mman.h>

#include "core/cpu_map_state.hpp"
#include "core/dma_buf_text.hpp"
#include "core/sys.hpp"

namespace sluice {

namespace {

constexpr const char* operation = "CpuMap::map";

/// What is mapped in this process, so that a buffer is mapped once whoever asks. A mapping holds
/// its buffer, so no other buffer can have its inode while it is in here and alive.
template <typename State> struct Mappings {
    std::mutex lock; // held over the mapping of a new one, or two threads would both make it
    std::vector<State*> all;

    /// \returns it with one more holder, or null.
    [[nodiscard]] State* find(const DmaBuf& buffer, Access access, bool strict) noexcept {
        for (State* each : all)
            if (same_buffer(each->buffer, buffer) && each->strict.has_value() == strict &&
                (writes(each->access) || !writes(access)) && each->hold_if_alive())
                return each;
        return nullptr;
    }
};

/// Never destroyed: mappings may be made and dropped by other static objects' destructors.
template <typename State> Mappings<State>& mappings() {
    static auto& only = *new Mappings<State>;
    return only;
}

} // namespace

CpuMap::State::~State() {
    strict.reset(); // before another mapping can have the address
    munmap(address, buffer.size());
}

void CpuMap::State::destroy() noexcept {
    {
        auto& known = mappings<State>();
        const std::scoped_lock held(known.lock);
        std::erase(known.all, this);
    }
    delete this;
}

CpuMap::CpuMap(const CpuMap& other) noexcept : state_(other.state_) {
    if (state_ != nullptr)
        state_->hold();
}

CpuMap::~CpuMap() {
    if (state_ != nullptr)
        state_->drop();
}

Result<CpuMap> CpuMap::map(const DmaBuf& buffer, Access access, CpuMapMode mode) noexcept {
    if (buffer.fd() < 0)
        return tl::unexpected(moved_from(operation));
    if (buffer.size() == 0 || buffer.size() > std::numeric_limits<std::size_t>::max())
        return tl::unexpected(Error{.code = Errc::unsupported,
                                    .operation = operation,
                                    .object = describe(buffer),
                                    .problem = "its size cannot be mapped in this process",
                                    .remedy = "Use a buffer that fits the address space"});
    const bool strict = mode == CpuMapMode::strict ||
                        (mode == CpuMapMode::automatic && sys::strict_by_environment());

    auto& known = mappings<State>();
    const std::scoped_lock held(known.lock);
    // A fd that does not allow the access gets no mapping by way of another that does: mmap
    // refuses.
    const bool allowed = !writes(access) || buffer.mode() != Access::read;
    if (State* state = allowed ? known.find(buffer, access, strict) : nullptr)
        return CpuMap(state);

    // Looked at again, for what is mapped here is given to everyone who asks for this buffer: a fd
    // that was closed behind the DmaBuf's back may be another's.
    auto copy = DmaBuf::from_borrowed_fd(buffer.fd());
    if (copy && !same_buffer(*copy, buffer))
        return tl::unexpected(
            Error{.code = Errc::wrong_object,
                  .operation = operation,
                  .object = describe(buffer),
                  .problem = "the fd was closed behind its back: the number is buffer ino " +
                             std::to_string(copy->inode()) + "'s now",
                  .remedy = "Find who closes a fd that a DmaBuf owns"});
    if (!copy) {
        copy.error().operation = operation;
        return tl::unexpected(std::move(copy.error()));
    }
    const int protection = writes(access) ? PROT_READ | PROT_WRITE : PROT_READ;
    void* address = mmap(nullptr, buffer.size(), protection, MAP_SHARED, copy->fd(), 0);
    if (address == MAP_FAILED) {
        const int error = errno;
        Error failure = sys::failed_call(
            error, operation, describe(buffer),
            "the kernel gave no mapping for access " + std::string(to_string(access)),
            error == EACCES ? "Map it for reading, or have the exporter give the fd out read-write"
                            : "Use an exporter whose buffers the CPU can map");
        if (error == EINVAL || error == ENODEV)
            failure.code = Errc::unsupported;
        return tl::unexpected(std::move(failure));
    }
    auto state = std::make_unique<State>(std::move(*copy), address, access);
    if (strict) {
        state->strict.emplace(address, buffer.size(), describe(buffer));
        if (const int error = state->strict->error(); error != 0)
            return tl::unexpected(sys::failed_call(error, operation, describe(buffer),
                                                   "its pages cannot be protected",
                                                   "Map it without CpuMapMode::strict"));
    }
    known.all.push_back(state.get());
    return CpuMap(state.release());
}

std::uint64_t CpuMap::size() const noexcept {
    return state_ ? state_->buffer.size() : 0;
}

} // namespace sluice
