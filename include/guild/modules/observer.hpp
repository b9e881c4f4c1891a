// Watching a forward pass: hidden states and routing, layer by layer.
#pragma once

#include <cstdint>

#include <guild/core/view.hpp>

namespace guild {
inline namespace v1 {

/// Derive from it, replace what you want to watch, and hang it into a Pass. It sees passes in float.
class Observer {
 public:
  /// After layer `layer`: the residual stream x [T, hidden].
  virtual void on_layer(int layer, View<const float, 2> x) {
    (void)layer;
    (void)x;
  }
  /// After the router of layer `layer`: chosen experts and their weights, [T, choices] each. A choice below 0 serves
  /// nobody: ~e was of expert e and found no room.
  virtual void on_routing(int layer, View<const std::int32_t, 2> experts, View<const float, 2> weights) {
    (void)layer;
    (void)experts;
    (void)weights;
  }
  /// After the gate of layer `layer`'s attention: biases of far keys, or shares of its branches, [T, values] (see
  /// guild/modules/gates.hpp).
  virtual void on_gate(int layer, View<const float, 2> values) {
    (void)layer;
    (void)values;
  }

 protected:
  Observer() = default;
  Observer(const Observer&) = default;
  Observer& operator=(const Observer&) = default;
  ~Observer() = default;
};

}  // namespace v1
}  // namespace guild
