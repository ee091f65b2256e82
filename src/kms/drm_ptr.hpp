// SPDX-License-Identifier: MIT
/// \file
/// libdrm's own allocations, freed by their own functions. Not installed.
#pragma once

#include <memory>

#include <xf86drm.h>
#include <xf86drmMode.h>

namespace sluice {

template <auto Free> struct DrmFree {
    template <typename T> void operator()(T* object) const noexcept { Free(object); }
};

template <typename T, auto Free> using DrmPtr = std::unique_ptr<T, DrmFree<Free>>;

using DrmVersion = DrmPtr<drmVersion, drmFreeVersion>;
using DrmResources = DrmPtr<drmModeRes, drmModeFreeResources>;
using DrmConnector = DrmPtr<drmModeConnector, drmModeFreeConnector>;
using DrmEncoder = DrmPtr<drmModeEncoder, drmModeFreeEncoder>;
using DrmPlaneResources = DrmPtr<drmModePlaneRes, drmModeFreePlaneResources>;
using DrmPlane = DrmPtr<drmModePlane, drmModeFreePlane>;
using DrmObjectProperties = DrmPtr<drmModeObjectProperties, drmModeFreeObjectProperties>;
using DrmProperty = DrmPtr<drmModePropertyRes, drmModeFreeProperty>;
using DrmBlob = DrmPtr<drmModePropertyBlobRes, drmModeFreePropertyBlob>;
using DrmFramebuffer = DrmPtr<drmModeFB2, drmModeFreeFB2>;

} // namespace sluice
