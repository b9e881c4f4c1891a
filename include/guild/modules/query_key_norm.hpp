// Norms of queries and keys before their rotation: of each head (arXiv 2010.04245, 2505.09388), or of all heads of a
// token together (arXiv 2409.02060). Shapes: T tokens, H heads, G key heads, D dimensions of a head.
#pragma once

#include <guild/core/config.hpp>
#include <guild/modules/by_head.hpp>
#include <guild/modules/norm.hpp>

namespace guild {
inline namespace v1 {

/// As `Config` says; nothing without its query_key_norm.
template <class S, const GqaConfig& Config>
struct QueryKeyNorm {
  static constexpr bool exists = Config.query_key_norm, of_rows = Config.norm_span == NormSpan::row;
  static constexpr Index width = Config.head_dim;
  static constexpr Index query_width = of_rows ? Config.heads * width : width;
  static constexpr Index key_width = of_rows ? Config.key_heads * width : width;
  using Query = RmsNorm<query_width, S::config.norm.gain>;
  using Key = RmsNorm<key_width, S::config.norm.gain>;

  template <class Store>
  struct Weights {
    typename Query::template Weights<Store> query;
    typename Key::template Weights<Store> key;
  };

  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    if constexpr (exists) {
      Query::visit(visitor, path / "query_norm", weights.query...);
      Key::visit(visitor, path / "key_norm", weights.key...);
    }
  }

  /// query [T, H * D] and key [T, G * D] of what the projections gave.
  template <class Device, class Store, class Real>
  static void forward(Device& device, const Weights<Store>& weights, DeviceView<Real, 2> projected_query,
                      DeviceView<Real, 2> projected_key, DeviceView<Real, 2> query, DeviceView<Real, 2> key) {
    constexpr double epsilon = S::config.norm.epsilon;
    Query::forward(device, weights.query, by_head<query_width>(projected_query), by_head<query_width>(query), epsilon);
    Key::forward(device, weights.key, by_head<key_width>(projected_key), by_head<key_width>(key), epsilon);
  }

  /// dquery and dkey, the gradients of what forward gave, become those of what it took.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(Device& device, const Weights<Store>& weights, DeviceView<Real, 2> projected_query,
                       DeviceView<Real, 2> projected_key, DeviceView<Real, 2> dquery, DeviceView<Real, 2> dkey,
                       Weights<Gradients>& gradients) {
    constexpr double epsilon = S::config.norm.epsilon;
    const auto query = by_head<query_width>(dquery);
    const auto key = by_head<key_width>(dkey);
    Query::backward(device, weights.query, by_head<query_width>(projected_query), query, query, gradients.query,
                    epsilon);
    Key::backward(device, weights.key, by_head<key_width>(projected_key), key, key, gradients.key, epsilon);
  }
};

}  // namespace v1
}  // namespace guild
