// The numbers of a model: a small config for each of its parts, side by side.
#pragma once

#include <concepts>
#include <optional>
#include <tuple>
#include <type_traits>

#include <guild/core/config/attention.hpp>
#include <guild/core/config/compression.hpp>
#include <guild/core/config/feed_forward.hpp>
#include <guild/core/config/field.hpp>
#include <guild/core/config/hyper.hpp>
#include <guild/core/config/indexer.hpp>
#include <guild/core/config/shortcut.hpp>
#include <guild/core/config/trunk.hpp>
#include <guild/core/config/window.hpp>

namespace guild {
inline namespace v1 {

/// A part's config: a value with a list of its fields, and rules that it may break.
template <class C>
concept PartConfig = std::regular<C> && requires(const C& config) {
  { C::part } -> std::convertible_to<ConfigPart>;
  C::fields([](const ConfigField&, const auto&) {}, config);
  { config.problem() } -> std::same_as<std::optional<ConfigProblem>>;
};

/// All numbers of a model as one value: `std::get<MlaConfig>(config)`.
template <PartConfig... Parts>
using ModelConfig = std::tuple<Parts...>;

/// The numbers of a Spec as one value: its members that `S::parts` lists.
template <class S>
inline constexpr auto config_of = S::template parts<S>();

namespace detail {
template <class Part, class Config>
inline constexpr bool has_part = false;
template <class Part, class... Parts>
inline constexpr bool has_part<Part, std::tuple<Parts...>> = (std::is_same_v<Part, Parts> || ...);
}  // namespace detail

/// The part of a model, or `otherwise` if it has none such.
template <class Part, class... Parts>
[[nodiscard]] constexpr Part part_or(const std::tuple<Parts...>& config, const Part& otherwise) {
  if constexpr (detail::has_part<Part, std::tuple<Parts...>>)
    return std::get<Part>(config);
  else
    return otherwise;
}

/// How many attentions, with a dense network or experts behind each, a layer has.
template <class... Parts>
[[nodiscard]] constexpr int layer_halves(const std::tuple<Parts...>&) {
  return detail::has_part<ShortcutConfig, std::tuple<Parts...>> ? 2 : 1;
}

/// How many layers have experts; the others are dense.
template <class... Parts>
[[nodiscard]] constexpr int expert_layers(const std::tuple<Parts...>& config) {
  if (part_or(config, TopKConfig{.experts = 0}).experts == 0) return 0;
  const int layers = std::get<TrunkConfig>(config).layers;
  return layers - part_or(config, DenseConfig{.layers = 0}).dense_layers(layers);
}

/// Calls `f(ConfigField, value...)` for every field of every part in the order of declaration, with the value in each
/// of the configs. Values are int, double, bool, a list or a set of layers, or an enumeration with a `name`.
template <class F, class First, class... Rest>
constexpr void for_each_config_field(F&& f, First& first, Rest&... rest) {
  const auto fields_of = [&]<class Part>(Part& part, auto&... others) {
    std::remove_const_t<Part>::fields(f, part, others...);
  };
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    const auto at = [&]<std::size_t J>(std::integral_constant<std::size_t, J>) {
      fields_of(std::get<J>(first), std::get<J>(rest)...);
    };
    (at(std::integral_constant<std::size_t, I>{}), ...);
  }
  (std::make_index_sequence<std::tuple_size_v<std::remove_const_t<First>>>{});
}

/// The same model, with the numbers that mean nothing for it at their defaults: without experts the rest of their parts
/// is not looked at, and all layers are dense; without scaling of positions its numbers are not. Configs that describe
/// the same model become equal.
template <class... Parts>
[[nodiscard]] constexpr std::tuple<Parts...> canonical(std::tuple<Parts...> config) {
  const auto of_part = [](auto& part) {
    if constexpr (requires { part.rope; }) part.rope = part.rope.canonical();
    if constexpr (requires { part.canonical(); }) part = part.canonical();
  };
  (of_part(std::get<Parts>(config)), ...);
  if (part_or(config, TopKConfig{.experts = 0}).experts != 0) return config;
  if constexpr (detail::has_part<TopKConfig, std::tuple<Parts...>>)
    std::get<TopKConfig>(config) = TopKConfig{.experts = 0};
  if constexpr (detail::has_part<ExpertConfig, std::tuple<Parts...>>) std::get<ExpertConfig>(config) = ExpertConfig{};
  if constexpr (detail::has_part<DenseConfig, std::tuple<Parts...>>)
    std::get<DenseConfig>(config).layers = std::get<TrunkConfig>(config).layers,
    std::get<DenseConfig>(config).others = {};
  return config;
}

// Canary: some compiler pairs (nvcc 13 with a clang 14 host) zero the defaults of skipped designated fields.
static_assert(
    TrunkConfig{.vocab = 7}.norm.epsilon == 1e-6 && MlaConfig{.rope = {.base = 7.0}}.rope.beta_fast == 32.0,
    "this compiler drops default member initialisers in designated initialisation; use another host compiler");

}  // namespace v1
}  // namespace guild
