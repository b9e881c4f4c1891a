// How files of a family name the tensors of our paths: rules, read in both directions.
//
//   struct Names {
//     static constexpr NameRule rules[] = {{"layers.*.mixer", "model.layers.*.self_attn"},
//                                          {"layers.*.mixer.output", "model.layers.*.self_attn.o_proj"}, ...};
//     static constexpr std::string_view scale_suffix = "_scale_inv";  // f8_e4m3 matrix X has its scales in
//     X_scale_inv;
//                                                                 // ".scale": X.weight has them in X.scale
//     static constexpr std::string_view extensions[] = {"layers.*.merging"};  // parts that files need not have; may be
//                                                                             // left out
//     static constexpr std::string_view skipped[] = {"mtp."};  // tensors that begin so may be there; may be left out
//   };
//
// A rule is for the beginning of a path, in whole steps. Of all rules that a path begins with the longest holds, and
// what follows is kept: layers.3.mixer.output.weight is model.layers.3.self_attn.o_proj.weight. So one rule names a
// module with its weight, bias and scales; a rule down to the last step names a tensor alone; and what a module of
// your own adds keeps its own name behind that of the part it belongs to: layers.3.mixer.taps is
// model.layers.3.self_attn.taps. A path that begins as no rule does has no name, which is an error.
// Rules for the same beginning are spellings of one name: files are read in any and written in the first. What most
// families share is in guild/models/common_names.hpp.
#pragma once

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/path.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>

namespace guild {
inline namespace v1 {

/// Which rows of a fused tensor are ours: `parts` matrices of as many rows share it, and ours is number `part`. They
/// stand one under the other, or their rows take turns. A tensor that is `transposed` has columns in their place: it
/// holds [inputs, outputs].
struct FusedRows {
  Index parts = 1;
  Index part = 0;
  bool in_turn = false;
  bool transposed = false;

  /// Row r of ours is row first(rows) + r * step() of the tensor, if ours has `rows` rows.
  [[nodiscard]] constexpr Index first(Index rows) const { return in_turn ? part : part * rows; }
  [[nodiscard]] constexpr Index step() const { return in_turn ? parts : 1; }
};

/// Both names in steps with dots between them; a star stands for a number, the first star for the same on both sides,
/// and so on. A rule whose path is that of a whole stack (layers.*.feed_forward.experts.gate.weight, no number of an
/// expert) says which tensor may hold all of its matrices, and where; so does one whose path is that of all biases of a
/// stack (layers.*.feed_forward.experts.gate.bias).
struct NameRule {
  std::string_view ours;
  std::string_view published;
  FusedRows rows{};
};

/// What `Names` of a Spec is: a table of rules and nothing else.
template <class T>
concept NameTable = requires {
  T::rules[0].ours;
  T::scale_suffix.size();
};

/// A stack of experts as one tensor of a file: [experts, parts * rows, cols], or [experts, cols, parts * rows] where it
/// is transposed; of their biases [experts, parts * rows].
struct FusedTensor {
  std::string name;
  FusedRows rows;
};

namespace detail {

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// The length of that beginning of `name` which the steps of a rule stand for; 0 if it begins otherwise.
constexpr std::size_t matched(std::string_view steps, std::string_view name) {
  std::size_t at = 0;
  for (;;) {
    const std::size_t star = steps.find('*');
    const std::string_view literal = steps.substr(0, star);
    if (!name.substr(at).starts_with(literal)) return 0;
    at += literal.size();
    if (star == std::string_view::npos) break;
    const std::size_t number = at;
    while (at < name.size() && is_digit(name[at])) ++at;
    if (at == number) return 0;
    steps.remove_prefix(star + 1);
  }
  return at == name.size() || name[at] == '.' ? at : 0;
}

/// `name`, whose beginning matches `from`, with `to` in its place.
inline std::string renamed(std::string_view from, std::string_view to, std::string_view name) {
  std::string out;
  std::size_t star = 0, at = 0;  // in `from` and `name`, side by side
  for (const char c : to) {
    if (c != '*') {
      out += c;
      continue;
    }
    for (; from[star] != '*'; ++star) ++at;
    for (++star; at < name.size() && is_digit(name[at]); ++at) out += name[at];
  }
  return out.append(name.substr(matched(from, name)));
}

/// The rules of a table, which is checked when it is compiled.
template <class Names>
constexpr std::span<const NameRule> rules_of() {
  static_assert(NameTable<Names>, "Names: needs `static constexpr NameRule rules[]` and a `scale_suffix`");
  if constexpr (NameTable<Names>) {
    constexpr bool sound = std::ranges::all_of(Names::rules, [](const NameRule& rule) {
      return !rule.ours.empty() && !rule.published.empty() &&
             std::ranges::count(rule.ours, '*') == std::ranges::count(rule.published, '*');
    });
    static_assert(sound, "Names: a rule needs a name on both sides, with as many stars in both");
    return Names::rules;
  }
}

/// The rules that hold for `name`: those for its longest beginning, of `length` characters.
struct Longest {
  std::size_t length = 0;
  std::vector<const NameRule*> rules{};

  Longest(std::span<const NameRule> all, std::string_view NameRule::*side, std::string_view name) {
    for (const NameRule& rule : all) {
      const std::size_t here = matched(rule.*side, name);
      if (here == 0 || here < length) continue;
      if (here > length) rules.clear();
      length = here;
      rules.push_back(&rule);
    }
  }
};

}  // namespace detail

/// The spellings of a tensor's name in files, the one that is written first. Throws op_argument if the path begins as
/// no rule does.
template <class Names>
[[nodiscard]] std::vector<std::string> published_names(const Path& path) {
  const std::string ours = path.str();
  const detail::Longest longest(detail::rules_of<Names>(), &NameRule::ours, ours);
  if (longest.rules.empty())
    detail::refuse(ErrorCode::op_argument,
                   {"the model's names have no rule for \"", ours, "\"; add one to Spec::Names"}, ours);
  std::vector<std::string> names;
  for (const NameRule* rule : longest.rules) names.push_back(detail::renamed(rule->ours, rule->published, ours));
  return names;
}

/// The name of a tensor in the files that are written.
template <class Names>
[[nodiscard]] std::string published_name(const Path& path) {
  return published_names<Names>(path).front();
}

/// The tensor that may hold all of a stack; nothing if no rule is for the stack's whole path. Files without it hold
/// each expert's matrix under its own name, as this library writes them.
template <class Names>
[[nodiscard]] std::optional<FusedTensor> fused_name(const Path& stack) {
  const std::string ours = stack.str();
  for (const NameRule& rule : detail::rules_of<Names>())
    if (detail::matched(rule.ours, ours) == ours.size())
      return FusedTensor{detail::renamed(rule.ours, rule.published, ours), rule.rows};
  return std::nullopt;
}

/// The name of the part of `Names::extensions` that the tensor belongs to; empty if it belongs to none. Files of the
/// model that is extended do not have the part.
template <class Names>
[[nodiscard]] std::string extension_of(const Path& path) {
  if constexpr (requires { Names::extensions; }) {
    const std::string ours = path.str();
    for (const std::string_view part : Names::extensions) {
      const std::size_t length = detail::matched(part, ours);
      if (length == 0) continue;
      std::string name = published_name<Names>(path);
      const std::string_view rest = std::string_view(ours).substr(length);
      if (name.ends_with(rest)) name.resize(name.size() - rest.size());
      return name;
    }
  }
  return {};
}

/// The way back: the path whose name this is, the paths of all parts of a fused tensor, or none for names that no path
/// has, such as those of other families.
template <class Names>
[[nodiscard]] std::vector<std::string> our_paths(std::string_view published) {
  constexpr std::span<const NameRule> rules = detail::rules_of<Names>();
  std::vector<std::string> paths;
  const detail::Longest longest(rules, &NameRule::published, published);
  for (const NameRule* rule : longest.rules) {
    std::string ours = detail::renamed(rule->published, rule->ours, published);
    const bool leads_here = std::ranges::count(detail::Longest(rules, &NameRule::ours, ours).rules, rule) > 0;
    if (leads_here) paths.push_back(std::move(ours));
  }
  return paths;
}

}  // namespace v1
}  // namespace guild
