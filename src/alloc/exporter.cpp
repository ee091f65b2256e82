// SPDX-License-Identifier: MIT
#include <sluice/exporter.hpp>

#include <algorithm>
#include <array>

#include <drm_fourcc.h>
#include <fcntl.h>
#include <unistd.h>

#include "alloc/alloc.hpp"
#include "frame/multiples.hpp"
#include <sluice/format.hpp>

namespace sluice {

namespace alloc {

namespace {

using std::to_string;

constexpr const char* operation = "Exporter::allocate_frame";

} // namespace

std::uint64_t page_size() noexcept {
    return static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

std::optional<std::string> read_text(const char* path) noexcept {
    const UniqueFd file(::open(path, O_RDONLY | O_CLOEXEC));
    std::string text;
    std::array<char, 4096> part{};
    for (;;) {
        const ssize_t got = file ? read(file.get(), part.data(), part.size()) : -1;
        if (got < 0)
            return std::nullopt;
        if (got == 0)
            return text;
        text.append(part.data(), static_cast<std::size_t>(got));
    }
}

Error refusal(Errc code, const char* failed, const ExporterCaps& caps, std::string problem,
              std::string remedy) {
    return Error{.code = code,
                 .operation = failed,
                 .object = caps.name,
                 .problem = std::move(problem),
                 .remedy = std::move(remedy)};
}

std::string describe(const BufferRequest& request) {
    std::string text = to_string(request.size) + " bytes";
    if (!request.name.empty())
        text += " '" + std::string(request.name) + "'";
    return text;
}

std::string describe(const FrameSpec& spec) {
    return to_string(spec.width) + "x" + to_string(spec.height) + " " + format_name(spec.format);
}

Result<std::uint64_t> checked_size(const ExporterCaps& caps, const char* failed,
                                   const BufferRequest& request) noexcept {
    if (request.size == 0)
        return tl::unexpected(refusal(Errc::invalid_argument, failed, caps, "asked for 0 bytes",
                                      "Ask for at least one byte"));
    const auto whole = round_up(request.size, caps.granularity);
    if (!whole || *whole > caps.max_size)
        return tl::unexpected(refusal(Errc::unsupported, failed, caps,
                                      "asked for " + describe(request) + ", and its limit is " +
                                          to_string(caps.max_size) + " bytes (" +
                                          caps.max_size_source + ")",
                                      "Ask for less, raise the limit, or use another exporter"));
    return *whole;
}

Result<LinearPlan> plan_linear(const FrameSpec& spec, const ExporterCaps& caps,
                               std::uint32_t stride_alignment) noexcept {
    auto plan = sluice::plan_linear(spec, stride_alignment);
    if (!plan)
        return tl::unexpected(refusal(plan.error().code, operation, caps,
                                      describe(spec) + ": " + plan.error().problem,
                                      std::move(plan.error().remedy)));
    if (!spec.modifiers.empty() &&
        std::ranges::find(spec.modifiers, DRM_FORMAT_MOD_LINEAR) == spec.modifiers.end()) {
        std::string wanted;
        for (const std::uint64_t each : spec.modifiers)
            wanted += (wanted.empty() ? "" : ", ") + modifier_name(each);
        return tl::unexpected(refusal(
            Errc::unsupported, operation, caps,
            describe(spec) + ": it makes LINEAR frames, and the modifiers asked for are " + wanted,
            "Let LINEAR be one of them"));
    }
    return plan;
}

std::vector<FormatSupport> linear_formats() {
    std::vector<FormatSupport> all;
    for (const FormatInfo& each : sluice::formats())
        all.push_back({.format = each.fourcc, .modifier = DRM_FORMAT_MOD_LINEAR});
    return all;
}

} // namespace alloc

Exporter::Exporter(ExporterCaps caps) noexcept : caps_(std::move(caps)) {}

Exporter::~Exporter() = default;

Result<Frame> Exporter::allocate_frame(const FrameSpec& spec) const noexcept {
    auto plan = alloc::plan_linear(
        spec, caps_, spec.stride_alignment != 0 ? spec.stride_alignment : default_stride_alignment);
    if (!plan)
        return tl::unexpected(std::move(plan.error()));
    auto buffer = allocate({.size = plan->size, .name = spec.name});
    if (!buffer)
        return tl::unexpected(std::move(buffer.error()));
    return Frame::create(plan->layout, std::move(*buffer));
}

} // namespace sluice
