// A stack of layers as a module of its own, numbered from 0: what helpers for modules take.
#pragma once

#include <guild/modules/layer_stack.hpp>

namespace guild_test {

template <guild::LayerStack Layers, guild::Index First = 0>
struct WholeStack : Layers {
  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const guild::Path& path, W&... weights) {
    Layers::visit(visitor, path, First, weights...);
  }
};

}  // namespace guild_test
