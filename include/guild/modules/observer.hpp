// Watching a forward pass: hidden states and routing, layer by layer.
#pragma once

#include <cstdint>

#include <guild/core/view.hpp>

namespace guild::inline v1 {

/// The observer that sees nothing and costs nothing. Derive from it and replace what you want to watch.
struct NoObserver {
  /// After layer `layer`: the residual stream x [T, hidden].
  void on_layer(int layer, View<const float, 2> x) const { (void)layer; (void)x; }
  /// After the router of layer `layer`: chosen experts and their weights, [T, top_k] each.
  void on_routing(int layer, View<const std::int32_t, 2> experts, View<const float, 2> weights) const {
    (void)layer; (void)experts; (void)weights;
  }
};

}  // namespace guild::inline v1
