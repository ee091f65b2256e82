// SPDX-License-Identifier: MIT
#include "kms/kms_properties.hpp"

#include <algorithm>
#include <span>

#include "kms/drm_ptr.hpp"

namespace sluice {

namespace {

std::span<const drm_mode_property_enum> enums_of(const drmModePropertyRes* definition) noexcept {
    return definition == nullptr
               ? std::span<const drm_mode_property_enum>()
               : std::span<const drm_mode_property_enum>(
                     definition->enums, static_cast<std::size_t>(definition->count_enums));
}

} // namespace

bool KmsProperties::Property::offers(std::string_view name) const noexcept {
    return std::ranges::any_of(enums_of(definition), [name](const drm_mode_property_enum& each) {
        return each.name == name;
    });
}

std::uint64_t KmsProperties::Property::value_of(std::string_view name) const noexcept {
    for (const drm_mode_property_enum& each : enums_of(definition))
        if (each.name == name)
            return each.value;
    return 0;
}

bool KmsProperties::Property::is_fixed() const noexcept {
    return definition != nullptr && (definition->flags & DRM_MODE_PROP_IMMUTABLE) != 0;
}

KmsProperties::Property KmsProperties::find(std::string_view name) const noexcept {
    for (const auto& [definition, value] : all_)
        if (definition->name == name)
            return {.id = definition->prop_id, .value = value, .definition = definition.get()};
    return {};
}

KmsProperties KmsPropertyReader::read(std::uint32_t object, std::uint32_t type) {
    KmsProperties properties;
    const DrmObjectProperties all(drmModeObjectGetProperties(fd_, object, type));
    for (std::uint32_t i = 0; all && i < all->count_props; ++i) {
        auto& definition = definitions_[all->props[i]];
        if (!definition)
            definition = DrmProperty(drmModeGetProperty(fd_, all->props[i]));
        if (definition)
            properties.all_.emplace_back(definition, all->prop_values[i]);
    }
    return properties;
}

} // namespace sluice
