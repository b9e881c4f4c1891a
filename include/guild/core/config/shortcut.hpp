// Layers of two halves, with experts beside the second one.
#pragma once

#include <optional>

#include <guild/core/config/field.hpp>

namespace guild {
inline namespace v1 {

/// Each layer has two attentions and two dense networks; the experts read what the first network reads, and join behind
/// the second (LongCat-Flash, arXiv 2509.01322, section 2.2). There are no numbers to it.
struct ShortcutConfig {
  friend constexpr bool operator==(const ShortcutConfig&, const ShortcutConfig&) = default;

  static constexpr ConfigPart part = {"ShortcutConfig", "shortcut"};

  template <class F, class... C>
  static constexpr void fields(F&&, C&...) {}

  [[nodiscard]] constexpr std::optional<ConfigProblem> problem() const { return std::nullopt; }
};

}  // namespace v1
}  // namespace guild
