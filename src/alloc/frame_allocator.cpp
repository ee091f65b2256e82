// SPDX-License-Identifier: MIT
#include <sluice/frame_allocator.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <utility>

#include <drm_fourcc.h>

#include "alloc/alloc.hpp"
#include <sluice/cpu_access.hpp>
#include <sluice/format.hpp>

namespace sluice {

namespace {

using namespace std::chrono_literals;
using std::to_string;

constexpr const char* operation = "FrameAllocator::allocate";
constexpr auto clear_timeout = 5s;

std::string name_of(const FrameNeeds& needs) {
    return needs.who.empty() ? "somebody" : std::string(needs.who);
}

std::string modifier_names(std::span<const std::uint64_t> modifiers) {
    std::string text;
    for (const std::uint64_t each : modifiers)
        text += (text.empty() ? "" : " or ") + modifier_name(each);
    return text;
}

/// What everybody together needs, or who contradicts whom.
class Combined {
public:
    explicit Combined(const FrameRequest& request)
        : spec{.width = request.width,
               .height = request.height,
               .format = request.format,
               .name = request.name},
          needs_(request.needs) {
        combine("stride alignment", &FrameNeeds::stride_alignment, spec.stride_alignment,
                INT32_MAX);
        combine("height alignment", &FrameNeeds::height_alignment, spec.height_alignment,
                UINT32_MAX);
        combine("offset alignment", &FrameNeeds::offset_alignment, spec.offset_alignment,
                UINT32_MAX);
        combine_modifiers();
        for (const FrameNeeds& each : needs_) {
            spec.min_size = std::max(spec.min_size, each.min_size);
            cpu_access = cpu_access || each.cpu_access;
            says_stride = says_stride && each.stride_alignment != 0;
        }
        says_stride = says_stride && !needs_.empty();
    }

    FrameSpec spec;
    bool cpu_access = false;
    bool says_stride = true; ///< Everybody does.
    std::string contradiction;

private:
    void combine(const char* what, std::uint32_t FrameNeeds::*field, std::uint32_t& into,
                 std::uint64_t limit) {
        std::uint64_t all = 0;
        std::string who;
        for (const FrameNeeds& each : needs_) {
            if (each.*field == 0)
                continue;
            who += (who.empty() ? "" : ", ") + name_of(each) + " wants " + to_string(each.*field);
            const auto multiple = alloc::common_multiple(all, each.*field, limit);
            if (!multiple) {
                contradict(std::string(what) + ": " + who +
                           "; their least common multiple is above " + to_string(limit));
                return;
            }
            all = *multiple;
        }
        into = static_cast<std::uint32_t>(all);
    }

    void combine_modifiers() {
        if (std::ranges::all_of(needs_,
                                [](const FrameNeeds& each) { return each.modifiers.empty(); }))
            return; // LINEAR, as FrameSpec has it
        constexpr std::array<std::uint64_t, 1> linear{DRM_FORMAT_MOD_LINEAR};
        std::string who;
        for (const FrameNeeds& each : needs_) {
            const bool silent = each.modifiers.empty();
            const std::span<const std::uint64_t> taken = silent ? linear : each.modifiers;
            who += (who.empty() ? "" : ", ") + name_of(each) +
                   (silent ? " names none and takes " : " wants ") + modifier_names(taken);
            if (&each == needs_.data())
                spec.modifiers.assign(taken.begin(), taken.end());
            std::erase_if(spec.modifiers, [&](std::uint64_t modifier) {
                return std::ranges::find(taken, modifier) == taken.end();
            });
        }
        if (spec.modifiers.empty())
            contradict("modifiers: " + who + "; there is none that all take");
    }

    void contradict(const std::string& text) {
        if (!contradiction.empty())
            contradiction += "; ";
        contradiction += text;
    }

    std::span<const FrameNeeds> needs_;
};

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

/// Why \p exporter is not even asked, or an empty text.
std::string unfit(const ExporterCaps& caps, const Combined& all, bool zeroed) {
    if (all.cpu_access && !caps.cpu_mappable)
        return "the CPU cannot map its buffers, and somebody needs that";
    if (zeroed && !caps.zeroed && !caps.cpu_mappable)
        return "it does not promise zeroed buffers, and the CPU cannot map them to clear them";
    return {};
}

} // namespace

FrameAllocator::FrameAllocator(std::vector<std::shared_ptr<const Exporter>> exporters) noexcept
    : exporters_(std::move(exporters)) {
    std::erase(exporters_, nullptr);
}

Result<FrameAllocation> FrameAllocator::allocate(const FrameRequest& request) const noexcept {
    const auto refuse = [&](Errc code, std::string problem, std::string remedy) {
        return tl::unexpected(Error{.code = code,
                                    .operation = operation,
                                    .object = to_string(request.width) + "x" +
                                              to_string(request.height) + " " +
                                              format_name(request.format),
                                    .problem = std::move(problem),
                                    .remedy = std::move(remedy)});
    };
    Combined all(request);
    if (!all.contradiction.empty())
        return refuse(Errc::invalid_argument, all.contradiction,
                      "Let one of them go by way of a copy");
    if (all.cpu_access && !all.spec.modifiers.empty()) {
        std::erase_if(all.spec.modifiers,
                      [](std::uint64_t each) { return each != DRM_FORMAT_MOD_LINEAR; });
        if (all.spec.modifiers.empty())
            return refuse(Errc::invalid_argument,
                          "the CPU understands LINEAR alone, which is not among the modifiers that "
                          "all take",
                          "Let one of them go by way of a copy");
    }
    if (exporters_.empty())
        return refuse(Errc::unsupported, "there is no exporter to ask",
                      "Make the allocator with at least one");

    std::string reasons;
    Errc code = Errc::failed;
    bool first = true;
    int sys_errno = 0;
    const auto pass_over = [&](const ExporterCaps& caps, Errc why, const std::string& problem,
                               int error = 0) {
        reasons += (first ? "" : "; ") + caps.name + ": " + problem;
        code = first || code == why ? why : Errc::unsupported;
        sys_errno = first || sys_errno == error ? error : 0;
        first = false;
    };
    for (const auto& exporter : exporters_) {
        const ExporterCaps& caps = exporter->caps();
        if (const std::string problem = unfit(caps, all, request.zeroed); !problem.empty()) {
            pass_over(caps, Errc::unsupported, problem);
            continue;
        }
        FrameSpec spec = all.spec;
        if (!all.says_stride && !caps.lays_out_frames) {
            const auto stride =
                alloc::common_multiple(spec.stride_alignment, default_stride_alignment, INT32_MAX);
            spec.stride_alignment =
                static_cast<std::uint32_t>(stride.value_or(spec.stride_alignment));
        }
        auto frame = exporter->allocate_frame(spec);
        if (!frame) {
            pass_over(caps, frame.error().code, frame.error().problem, frame.error().sys_errno);
            continue;
        }
        const bool clears = request.zeroed && !caps.zeroed;
        Result<void> cleared;
        for (const DmaBuf& buffer : frame->buffers())
            if (clears && cleared)
                cleared = clear(buffer);
        if (!cleared) {
            pass_over(caps, cleared.error().code,
                      "its buffer is not zero and cannot be cleared: " + cleared.error().problem,
                      cleared.error().sys_errno);
            continue;
        }
        return FrameAllocation{.frame = std::move(*frame),
                               .exporter = exporter,
                               .cleared = clears,
                               .passed_over = std::move(reasons)};
    }
    auto refusal = refuse(code, "no exporter makes it: " + reasons,
                          "Change what stands in the way, or offer another exporter");
    refusal.value().sys_errno = sys_errno;
    return refusal;
}

} // namespace sluice
