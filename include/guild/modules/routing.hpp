// What a router answers: the experts of each token and their weights; and whether it chose them itself.
#pragma once

#include <cstdint>

#include <guild/core/view.hpp>
#include <guild/ops/route/route.hpp>

namespace guild {
inline namespace v1 {

/// Views of T tokens and K experts each.
template <class Real>
struct Routing {
  DeviceView<std::int32_t, 2> experts;  ///< [T, K]; written if the choice is made here, read if it was given
  DeviceView<Real, 2> weights;          ///< [T, K]; always written
  Choice choice = Choice::made;
  DeviceView<Real> shift{};  ///< [experts] or no data: stands in for the selection bias of a router that heeds it
};

/// The experts of a layer, on their way through a training pass. Without data the layer keeps its choice to itself.
struct LayerChoice {
  DeviceView<std::int32_t, 2> experts{};
  Choice choice = Choice::made;
};

}  // namespace v1
}  // namespace guild
