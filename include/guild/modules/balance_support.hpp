// Which losses that balance experts a router has, and so a model.
#pragma once

#include <guild/core/refuse.hpp>
#include <guild/modules/fwd.hpp>
#include <guild/ops/route/balance.hpp>

namespace guild {
inline namespace v1 {

/// A router says which losses of BalanceOptions are defined for it: `static constexpr BalanceSupport balance`. One that
/// says nothing has all of them.
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
inline constexpr BalanceSupport router_balance{};
template <class Router>
requires requires { Router::balance; }
inline constexpr BalanceSupport router_balance<Router> = Router::balance;

/// Of a layer, or of any router of a stack; layers and stacks of one's own are taken to have all.
template <class Layer>
inline constexpr BalanceSupport balance_support{};
template <class Layer>
requires requires { typename Layer::FeedForward; }
inline constexpr BalanceSupport balance_support<Layer> = [] {
  if constexpr (requires { typename Layer::FeedForward::Router; })
    return router_balance<typename Layer::FeedForward::Router>;
  else
    return BalanceSupport::none();
}();
template <class Layer, int Count>
inline constexpr BalanceSupport balance_support<Segment<Layer, Count>> = Count > 0 ? balance_support<Layer>
                                                                                   : BalanceSupport::none();
template <class... Parts>
inline constexpr BalanceSupport balance_support<Stack<Parts...>> = (BalanceSupport::none() | ... |
                                                                    balance_support<Parts>);
template <class Pattern, int Times>
inline constexpr BalanceSupport balance_support<Repeat<Pattern, Times>> = balance_support<Pattern>;
template <class Part>
inline constexpr BalanceSupport balance_support<Recompute<Part>> = balance_support<Part>;
template <class Layers, class Merging, class Inflation>
inline constexpr BalanceSupport balance_support<MergeSpan<Layers, Merging, Inflation>> = balance_support<Layers>;
template <class Layers, class Matching, class Inflation>
inline constexpr BalanceSupport balance_support<MatchSpan<Layers, Matching, Inflation>> = balance_support<Layers>;
template <class Layers, class S, Index M>
inline constexpr BalanceSupport balance_support<LearnedSlots<Layers, S, M>> = balance_support<Layers>;
template <class S, class Layers, const HyperConfig& Config>
inline constexpr BalanceSupport balance_support<Streams<S, Layers, Config>> = balance_support<Layers>;

/// Throws op_argument for a loss that no router of these layers has; of layers without routers nothing is asked.
template <class Layers>
void require_balance(const BalanceOptions& options) {
  constexpr BalanceSupport has = balance_support<Layers>;
  if constexpr (has == BalanceSupport::none()) return;
  const auto require = [](double coefficient, bool defined, const char* key) {
    if (coefficient != 0.0 && !defined)
      refuse(ErrorCode::op_argument,
             {"is ", coefficient, ", but no router of the model has this loss; the coefficient must be 0"}, key);
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
