// SPDX-License-Identifier: MIT
#include "kms/kms_properties.hpp"

#include <algorithm>
#include <span>

#include "kms/drm_ptr.hpp"

namespace sluice {

bool KmsProperties::Property::offers(std::string_view name) const noexcept {
    return definition != nullptr &&
           std::ranges::any_of(
               std::span(definition->enums, static_cast<std::size_t>(definition->count_enums)),
               [name](const drm_mode_property_enum& each) { return each.name == name; });
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
