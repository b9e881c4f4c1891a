// What the configs of parts have in common: how a field is called in files and in C++, and how a broken rule is told.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string_view>

#include <guild/core/error.hpp>

namespace guild {
inline namespace v1 {

/// What it means that a file does not have a key, or has a null.
enum class Absent : std::uint8_t {
  refused,       ///< there is no safe default
  as_default,    ///< the value that the model's family documents
  null_is_none,  ///< the key must be there, and a null means none: the default
  null_alone,    ///< the same, and only a null means none
};

/// A field of a part's config: its key in config.json (`rope_scaling.factor`; empty: files do not have it) and its
/// member in C++ (`rope.factor`).
struct ConfigField {
  std::string_view key;
  std::string_view member;
  Absent absent = Absent::refused;
};

/// How a part's config is called: its type, and the member of a Spec that usually holds it.
struct ConfigPart {
  std::string_view type;
  std::string_view member;
};

/// The first rule that a config breaks.
struct ConfigProblem {
  ErrorCode code;    ///< cf_range, cf_limit, cf_moe or cf_rope
  const char* key;   ///< the published key
  const char* rule;  ///< a sentence: what must hold
  double found;      ///< the value that breaks it
};

namespace detail {

struct ConfigRange {
  const char* key;
  const char* rule;
  std::int64_t value, low, high;
};

constexpr bool is_finite(double x) {
  return x >= std::numeric_limits<double>::lowest() && x <= std::numeric_limits<double>::max();
}

constexpr std::optional<ConfigProblem> problem_of(std::span<const ConfigRange> ranges) {
  for (const ConfigRange& r : ranges) {
    if (r.value < r.low) return ConfigProblem{ErrorCode::cf_range, r.key, r.rule, static_cast<double>(r.value)};
    if (r.value > r.high) return ConfigProblem{ErrorCode::cf_limit, r.key, r.rule, static_cast<double>(r.value)};
  }
  return std::nullopt;
}

}  // namespace detail
}  // namespace v1
}  // namespace guild
