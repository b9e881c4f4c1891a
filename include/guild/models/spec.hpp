// What every Spec inherits: the type choices a custom model may replace.
#pragma once

#include <guild/core/config.hpp>

namespace guild::inline v1 {

/// Base of all Specs. A Spec adds `static constexpr ModelConfig config`.
struct SpecDefaults {};

}  // namespace guild::inline v1
