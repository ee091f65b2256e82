// SPDX-License-Identifier: MIT
/// \file
/// KMS objects' properties by name. Not installed.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include <xf86drmMode.h>

namespace sluice {

/// One object's properties.
class KmsProperties {
public:
    struct Property {
        std::uint32_t id = 0; // 0: the object has no such property
        std::uint64_t value = 0;
        const drmModePropertyRes* definition = nullptr; // goes with the KmsProperties

        explicit operator bool() const noexcept { return id != 0; }
        /// Whether it can have the value that the kernel calls \p name.
        [[nodiscard]] bool offers(std::string_view name) const noexcept;
        /// That value; 0 where it cannot.
        [[nodiscard]] std::uint64_t value_of(std::string_view name) const noexcept;
        /// Whether it cannot be set.
        [[nodiscard]] bool is_fixed() const noexcept;
    };

    [[nodiscard]] Property find(std::string_view name) const noexcept;

private:
    friend class KmsPropertyReader;
    std::vector<std::pair<std::shared_ptr<const drmModePropertyRes>, std::uint64_t>> all_;
};

/// Reads them; objects share most definitions, which are asked for once.
class KmsPropertyReader {
public:
    explicit KmsPropertyReader(int fd) noexcept : fd_(fd) {}

    /// \param type DRM_MODE_OBJECT_*. \returns none of an object that is not there.
    [[nodiscard]] KmsProperties read(std::uint32_t object, std::uint32_t type);

private:
    int fd_;
    std::map<std::uint32_t, std::shared_ptr<const drmModePropertyRes>> definitions_;
};

} // namespace sluice
