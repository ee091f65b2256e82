// SPDX-License-Identifier: MIT
/// \file
/// What a plane's IN_FORMATS blob says. Not installed.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include <sluice/kms_resources.hpp>

namespace sluice {

/// Reads \p blob, a struct drm_format_modifier_blob with its tables (drm/drm_mode.h), format by
/// format in the blob's order. \returns nothing where a table or a format reaches past its end, or
/// the version is not 1.
[[nodiscard]] std::optional<std::vector<KmsFormat>>
parse_in_formats(std::span<const std::byte> blob);

} // namespace sluice
