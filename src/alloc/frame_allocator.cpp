// SPDX-License-Identifier: MIT
#include <sluice/frame_allocator.hpp>

#include <chrono>
#include <cstring>
#include <utility>

#include "alloc/alloc.hpp"
#include <sluice/cpu_access.hpp>
#include <sluice/format.hpp>

namespace sluice {

namespace {

using namespace std::chrono_literals;

constexpr const char* operation = "FrameAllocator::allocate";
constexpr auto clear_timeout = 5s;

Result<void> clear(const DmaBuf& buffer) {
    auto map = CpuMap::map(buffer, Access::write);
    if (!map)
        return tl::unexpected(std::move(map.error()));
    auto access = CpuAccess::begin(*map, Access::write, deadline_in(clear_timeout));
    if (!access)
        return tl::unexpected(std::move(access.error()));
    const auto bytes = access->bytes();
    std::memset(bytes.data(), 0, bytes.size());
    return access->end();
}

/// Makes what was chosen, cleared where that is part of it.
Result<Frame> make(const Exporter& exporter, const FrameChoice& choice) {
    auto frame = exporter.allocate_frame(choice.spec);
    if (!frame || !choice.clear)
        return frame;
    for (const DmaBuf& buffer : frame->buffers())
        if (auto cleared = clear(buffer); !cleared) {
            cleared.error().problem =
                "its buffer is not zero and cannot be cleared: " + cleared.error().problem;
            return tl::unexpected(std::move(cleared.error()));
        }
    return frame;
}

} // namespace

FrameAllocator::FrameAllocator(std::vector<std::shared_ptr<const Exporter>> exporters) noexcept
    : exporters_(std::move(exporters)) {
    std::erase(exporters_, nullptr);
}

Result<FrameAllocation> FrameAllocator::allocate(std::span<const ImporterUse> importers,
                                                 const FrameRequest& request) const noexcept {
    std::vector<const ExporterCaps*> caps;
    for (const auto& exporter : exporters_)
        caps.push_back(&exporter->caps());
    auto choices = negotiate(caps, importers, request);
    if (!choices) {
        choices.error().error.operation = operation;
        return tl::unexpected(std::move(choices.error().error));
    }
    std::string reasons;
    Error failure{.code = Errc::failed,
                  .operation = operation,
                  .object = {},
                  .problem = {},
                  .remedy = "Change what stands in the way, or offer another exporter"};
    for (FrameChoice& choice : *choices) {
        const auto& exporter = exporters_[choice.exporter];
        auto frame = make(*exporter, choice);
        if (frame)
            return FrameAllocation{.frame = std::move(*frame),
                                   .exporter = exporter,
                                   .choice = std::move(choice),
                                   .passed_over = std::move(reasons)};
        const Error& error = frame.error();
        const bool first = reasons.empty();
        if (first)
            failure.object = alloc::describe(choice.spec);
        reasons += (first ? "" : "; ") + exporter->caps().name + ": " + error.problem;
        failure.code = first || failure.code == error.code ? error.code : Errc::unsupported;
        failure.sys_errno = first || failure.sys_errno == error.sys_errno ? error.sys_errno : 0;
    }
    failure.problem = "no exporter makes it: " + reasons;
    return tl::unexpected(std::move(failure));
}

} // namespace sluice
