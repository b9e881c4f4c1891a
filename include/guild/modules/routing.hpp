// What a router answers: the experts of each token and their weights; and whether it chose them itself.
#pragma once

#include <cstdint>

#include <guild/core/view.hpp>
#include <guild/ops/route/route.hpp>

namespace guild {
inline namespace v1 {

/// Views of T tokens and K choices each. A router that drops writes ~e for a choice of expert e that finds no room: the
/// token gets nothing there, the weights of its other choices stay as they are, and the choice can be given again.
/// `no_expert` is a choice that was none.
template <class Real>
struct Routing {
  DeviceView<std::int32_t, 2> experts;  ///< [T, K]; written if the choice is made here, read if it was given
  DeviceView<Real, 2> weights;          ///< [T, K]; always written
  Choice choice = Choice::made;
  DeviceView<const std::int32_t, 2> counted{};  ///< those of the choices that balancing losses count; no data: all
  DeviceView<Real> shift{};  ///< [experts] or no data: stands in for the selection bias of a router that heeds it

  [[nodiscard]] DeviceView<const std::int32_t, 2> balanced() const {
    return counted.data != nullptr ? counted : experts;
  }
};

/// Capacities may differ: what keeps something for backward trains.
enum class Phase : std::uint8_t { inference, training };

namespace detail {

/// The choices of a token: `Router::choices`, or else `top_k`.
template <class Router>
constexpr Index choices_of(Index top_k) {
  if constexpr (requires { Router::choices; })
    return Router::choices;
  else
    return top_k;
}

/// How many experts that give their input a router chooses among.
template <class Router>
inline constexpr Index identities_of = 0;
template <class Router>
requires requires { Router::identities; }
inline constexpr Index identities_of<Router> = Router::identities;

/// A bound of the slots that `tokens` need: `Router::slots(pass, tokens, phase)`, or else one for each choice.
template <class Router, class Pass>
Index slots_of(const Pass& pass, Index tokens, Index choices, Phase phase) {
  if constexpr (requires { Router::slots(pass, tokens, phase); })
    return Router::slots(pass, tokens, phase);
  else
    return tokens * choices;
}

}  // namespace detail

/// The experts of a layer, on their way through a training pass. Without data the layer keeps its choice to itself.
struct LayerChoice {
  DeviceView<std::int32_t, 2> experts{};
  Choice choice = Choice::made;
};

}  // namespace v1
}  // namespace guild
