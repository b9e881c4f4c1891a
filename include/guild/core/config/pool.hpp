// Which tokens a pooled row is made of.
#pragma once

#include <cstdint>

namespace guild {
inline namespace v1 {

/// Whether a pooled row is made of the tokens of its own window alone, or of those of the window before it too.
enum class PoolWindows : std::uint8_t { apart, overlapping };

}  // namespace v1
}  // namespace guild
