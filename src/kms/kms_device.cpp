// SPDX-License-Identifier: MIT
#include <sluice/kms_device.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <string_view>

#include <fcntl.h>

#include "core/sys.hpp"
#include "kms/drm_ptr.hpp"
#include "kms/kms_state.hpp"
#include <sluice/format.hpp>

namespace sluice {

namespace {

std::string driver_of(int fd) {
    const DrmVersion version(drmGetVersion(fd));
    return version ? std::string(version->name, static_cast<std::size_t>(version->name_len))
                   : std::string();
}

} // namespace

std::string describe(const KmsDevice::State& device) {
    return device.driver + ", " + sys::describe_fd(device.fd.get());
}

std::vector<KmsCard> kms_cards() noexcept {
    constexpr std::string_view prefix = "card";
    std::vector<std::pair<unsigned long, KmsCard>> found;
    std::error_code error;
    for (std::filesystem::directory_iterator entry("/dev/dri", error), end; !error && entry != end;
         entry.increment(error)) {
        const std::string name = entry->path().filename();
        const std::string_view number =
            std::string_view(name).substr(std::min(prefix.size(), name.size()));
        if (!name.starts_with(prefix) || number.empty() || number.size() > 4 ||
            !std::ranges::all_of(number, [](char c) { return c >= '0' && c <= '9'; }))
            continue;
        const UniqueFd fd(::open(entry->path().c_str(), O_RDWR | O_CLOEXEC | O_NOCTTY));
        found.emplace_back(std::stoul(std::string(number)),
                           KmsCard{entry->path(), fd ? driver_of(fd.get()) : std::string()});
    }
    std::ranges::sort(found, {}, [](const auto& each) { return each.first; });
    std::vector<KmsCard> cards;
    cards.reserve(found.size());
    for (auto& [number, card] : found)
        cards.push_back(std::move(card));
    return cards;
}

KmsDevice::KmsDevice(std::shared_ptr<const State> state) noexcept : state_(std::move(state)) {}

Result<KmsDevice> KmsDevice::wrap(int fd) noexcept {
    constexpr const char* operation = "KmsDevice::wrap";
    auto copy = UniqueFd::duplicate(fd);
    if (!copy)
        return tl::unexpected(std::move(copy.error()));
    std::string driver = driver_of(copy->get());
    if (driver.empty())
        return tl::unexpected(Error{.code = Errc::wrong_object,
                                    .operation = operation,
                                    .object = sys::describe_fd(fd),
                                    .problem = "is not a DRM card",
                                    .remedy = "Open a /dev/dri/card* node, or pass a DRM lease"});
    const auto refuse = [&](std::string problem, std::string remedy) {
        return tl::unexpected(Error{.code = Errc::unsupported,
                                    .operation = operation,
                                    .object = driver + ", " + sys::describe_fd(fd),
                                    .problem = std::move(problem),
                                    .remedy = std::move(remedy)});
    };
    // Atomic implies universal planes.
    if (drmSetClientCap(copy->get(), DRM_CLIENT_CAP_ATOMIC, 1) != 0)
        return refuse("has no atomic modesetting: " + sys::errno_text(errno),
                      "Use a card with a display engine and an atomic driver");
    const bool writeback =
        drmSetClientCap(copy->get(), DRM_CLIENT_CAP_WRITEBACK_CONNECTORS, 1) == 0;
    std::uint64_t prime = 0;
    if (drmGetCap(copy->get(), DRM_CAP_PRIME, &prime) != 0 || (prime & DRM_PRIME_CAP_IMPORT) == 0)
        return refuse("imports no dma-bufs (DRM_CAP_PRIME)", "Use a card whose driver does");
    std::uint64_t modifiers = 0;
    if (drmGetCap(copy->get(), DRM_CAP_ADDFB2_MODIFIERS, &modifiers) != 0)
        modifiers = 0;
    return KmsDevice(std::make_shared<const State>(std::move(*copy), std::move(driver),
                                                   modifiers != 0, writeback));
}

Result<KmsDevice> KmsDevice::open(const std::string& path) noexcept {
    const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOCTTY));
    if (!fd)
        return tl::unexpected(
            sys::failed_call(errno, "KmsDevice::open", path, "cannot be opened",
                             "Pass a /dev/dri/card* node; its group is often 'video'"));
    return wrap(fd.get());
}

const std::string& KmsDevice::driver() const noexcept {
    return state_->driver;
}

bool KmsDevice::is_master() const noexcept {
    return drmIsMaster(state_->fd.get()) != 0;
}

} // namespace sluice
