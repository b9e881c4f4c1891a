// A rule of translation between our paths and the names of a file, for a whole path at once.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <guild/core/view.hpp>

namespace guild::inline v1 {

/// Which rows of a fused tensor are ours: `parts` matrices of as many rows share it, and ours is number `part`. They
/// stand one under the other, or their rows take turns.
struct FusedRows {
  Index parts = 1;
  Index part = 0;
  bool in_turn = false;

  /// Row r of ours is row first(rows) + r * step() of the tensor, if ours has `rows` rows.
  [[nodiscard]] constexpr Index first(Index rows) const { return in_turn ? part : part * rows; }
  [[nodiscard]] constexpr Index step() const { return in_turn ? parts : 1; }
};

/// Both names in steps with dots between them; a star stands for a number, the same on both sides.
struct NameRule {
  std::string_view ours;
  std::string_view published;
  FusedRows rows{};
};

/// A stack of experts as one tensor [experts, parts * rows, cols] of a file.
struct FusedTensor {
  std::string name;
  FusedRows rows;
};

/// The published name of our `path`; nothing if the rule is for other paths.
[[nodiscard]] inline std::optional<std::string> translate(const NameRule& rule, std::string_view path) {
  const auto step_of = [](std::string_view& names) {
    const std::size_t dot = names.find('.');
    const std::string_view step = names.substr(0, dot);
    names = dot == std::string_view::npos ? std::string_view() : names.substr(dot + 1);
    return step;
  };
  std::vector<std::string_view> numbers;
  for (std::string_view ours = rule.ours; !ours.empty() || !path.empty();) {
    const std::string_view wanted = step_of(ours), step = step_of(path);
    const bool number = wanted == "*" && step.find_first_not_of("0123456789") == std::string_view::npos;
    if (step.empty() || (step != wanted && !number)) return std::nullopt;
    if (number) numbers.push_back(step);
  }
  std::string name;
  auto next = numbers.begin();
  for (const char c : rule.published) c == '*' ? name.append(*next++) : name.append(1, c);
  return name;
}

}  // namespace guild::inline v1
