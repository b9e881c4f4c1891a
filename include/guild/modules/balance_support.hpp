// Which losses that balance experts a router has, and so a model.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>

#include <guild/core/refuse.hpp>
#include <guild/modules/fwd.hpp>
#include <guild/ops/route/balance.hpp>

namespace guild {
inline namespace v1 {

/// A router says which losses of BalanceOptions are defined for it: `static constexpr BalanceSupport balance`. One that
/// says nothing has none, so that no loss is asked for that nobody computes.
struct BalanceSupport {
  bool importance = true;
  bool load = true;
  bool auxiliary = true;
  bool sequence = true;
  bool router_z = true;
  bool entropy = true;
  friend constexpr bool operator==(const BalanceSupport&, const BalanceSupport&) = default;

  /// Those that shape logits, for routers whose choice balances itself or is none.
  static constexpr BalanceSupport of_logits() { return {false, false, false, false, true, true}; }
  static constexpr BalanceSupport none() { return {false, false, false, false, false, false}; }

  friend constexpr BalanceSupport operator|(const BalanceSupport& a, const BalanceSupport& b) {
    return {a.importance || b.importance, a.load || b.load,         a.auxiliary || b.auxiliary,
            a.sequence || b.sequence,     a.router_z || b.router_z, a.entropy || b.entropy};
  }
  /// The options without the losses that are not defined.
  [[nodiscard]] constexpr BalanceOptions only(BalanceOptions options) const {
    const auto keep = [](bool has, double& coefficient) { coefficient = has ? coefficient : 0.0; };
    keep(importance, options.importance), keep(load, options.load), keep(auxiliary, options.auxiliary);
    keep(sequence, options.sequence), keep(router_z, options.router_z), keep(entropy, options.entropy);
    return options;
  }
};

namespace detail {

template <class Router>
inline constexpr BalanceSupport router_balance = BalanceSupport::none();
template <class Router>
requires requires { Router::balance; }
inline constexpr BalanceSupport router_balance<Router> = Router::balance;

/// Stands for the routers of a layer or stack of one's own, which nobody can ask: they are taken to have all losses.
struct OwnLayer {
  static constexpr BalanceSupport balance{};
};

/// The routers of a layer, or of all layers of a stack: f(std::type_identity<Router>{}) for each.
template <class Layer>
struct RoutersOf {
  template <class F>
  static constexpr void each(F&& f) {
    if constexpr (requires { typename Layer::FeedForward::Router; })
      f(std::type_identity<typename Layer::FeedForward::Router>{});
    else if constexpr (!requires { typename Layer::FeedForward; })
      f(std::type_identity<OwnLayer>{});
  }
};
template <class Layer, int Count>
struct RoutersOf<Segment<Layer, Count>> {
  template <class F>
  static constexpr void each(F&& f) {
    if constexpr (Count > 0) RoutersOf<Layer>::each(f);
  }
};
template <class... Parts>
struct RoutersOf<Stack<Parts...>> {
  template <class F>
  static constexpr void each(F&& f) {
    (RoutersOf<Parts>::each(f), ...);
  }
};
template <class Pattern, int Times>
struct RoutersOf<Repeat<Pattern, Times>> : RoutersOf<Pattern> {};
template <class Part>
struct RoutersOf<Recompute<Part>> : RoutersOf<Part> {};
template <class Layers, class Merging, class Inflation>
struct RoutersOf<MergeSpan<Layers, Merging, Inflation>> : RoutersOf<Layers> {};
template <class Layers, class Matching, class Inflation>
struct RoutersOf<MatchSpan<Layers, Matching, Inflation>> : RoutersOf<Layers> {};
template <class Layers, class S, Index M>
struct RoutersOf<LearnedSlots<Layers, S, M>> : RoutersOf<Layers> {};
template <class S, class Layers, const HyperConfig& Config>
struct RoutersOf<Streams<S, Layers, Config>> : RoutersOf<Layers> {};

/// What any router of the layers has.
template <class Layers>
inline constexpr BalanceSupport balance_support = [] {
  BalanceSupport sum = BalanceSupport::none();
  RoutersOf<Layers>::each([&]<class Router>(std::type_identity<Router>) { sum = sum | router_balance<Router>; });
  return sum;
}();
template <class Layers>
inline constexpr bool has_routers = [] {
  bool any = false;
  RoutersOf<Layers>::each([&](auto) { any = true; });
  return any;
}();

/// The name of a class as a message says it: without namespaces and arguments.
template <class T>
constexpr std::string_view bare_name() {
  std::string_view name = __PRETTY_FUNCTION__;
  name.remove_prefix(name.find("T = ") + 4);
  name = name.substr(0, name.find_first_of("<;]"));
  return name.substr(name.rfind(':') + 1);
}
/// "TopKRouter, HashRouter", each once.
template <class Layers>
[[gnu::noinline]] std::string router_names() {
  std::string names;
  RoutersOf<Layers>::each([&]<class Router>(std::type_identity<Router>) {
    std::string name = " ";
    name += bare_name<Router>();
    name += ',';
    if (names.find(name) == std::string::npos) names += name;
  });
  return names.substr(1, names.size() - 2);
}

/// Throws op_argument for a loss that no router of these layers has; of layers without routers nothing is asked.
template <class Layers>
void require_balance(const BalanceOptions& options) {
  if constexpr (!has_routers<Layers>) return;
  constexpr BalanceSupport has = balance_support<Layers>;
  const auto require = [](double coefficient, bool defined, const char* key) {
    if (coefficient != 0.0 && !defined)
      refuse(ErrorCode::op_argument,
             {"is ", coefficient, ", but this loss is not defined for ", router_names<Layers>(),
              "; the coefficient must be 0"},
             key);
  };
  require(options.importance, has.importance, "BalanceOptions::importance");
  require(options.load, has.load, "BalanceOptions::load");
  require(options.auxiliary, has.auxiliary, "BalanceOptions::auxiliary");
  require(options.sequence, has.sequence, "BalanceOptions::sequence");
  require(options.router_z, has.router_z, "BalanceOptions::router_z");
  require(options.entropy, has.entropy, "BalanceOptions::entropy");
}

}  // namespace detail

}  // namespace v1
}  // namespace guild
