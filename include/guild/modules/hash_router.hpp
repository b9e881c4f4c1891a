// A router that does not choose: a table says which experts serve a token id (hash layers, arXiv 2106.04426).
#pragma once

#include <type_traits>

#include <guild/core/config.hpp>
#include <guild/modules/balance_support.hpp>
#include <guild/modules/linear.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/linear/linear.hpp>
#include <guild/ops/route/look_up.hpp>
#include <guild/ops/route/route.hpp>

namespace guild {
inline namespace v1 {

/// The experts of a token are those of its id in a table [vocab, top_k]; their weights come of scores as in TopKRouter,
/// so the router's matrix learns all the same. As the first layers of DeepSeek-V4:
///
///   Stack<Segment<Block<S, Mixer<S>, Moe<S, HashRouter<S>>>, 3>, Segment<Block<S, Mixer<S>, Moe<S>>, 40>>
///
/// The pass's tokens are the ids, a row of x each. Fresh tables are all expert 0: see `deal_experts`.
template <class S>
struct HashRouter {
  static constexpr TopKConfig config = S::routing;
  static constexpr Index vocab = S::config.vocab;
  static constexpr BalanceSupport balance = BalanceSupport::of_logits();

  template <class Store>
  struct Weights {
    typename Store::Matrix weight;  ///< [experts, hidden]
    typename Store::Vector table;   ///< [vocab * top_k]: experts of each token id, whole numbers
  };

  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    visitor(path / "weight", MatrixShape{config.experts, S::config.hidden}, weights.weight...);
    visitor(path / "table",
            VectorShape{.size = vocab * config.top_k, .role = TensorRole::table, .first = 0.0f, .count = vocab},
            weights.table...);
  }

  template <class Real>
  struct Saved {
    DeviceView<Real, 2> logits;  ///< [T, experts]
  };

  /// x [T, hidden]; experts and weights [T, top_k], in the order of the table. Throws in_token for a token outside of
  /// the table, op_argument for an expert of the table that does not exist.
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights, DeviceView<const Real, 2> x,
                      const Routing<std::type_identity_t<Real>>& routing,
                      Saved<std::type_identity_t<Real>>* keep = nullptr) {
    auto room = pass.room(keep);
    const auto logits = room.template keep<Real>(x.rows, config.experts);
    if (keep != nullptr) keep->logits = logits;
    linear(pass.device, weights.weight.view(), x, logits);
    if (routing.choice == Choice::made)
      look_up_experts(pass.device, weights.table.view(), pass.batch.tokens, routing.experts);
    route(pass.device, config, logits, {}, routing.experts, routing.weights, Choice::given);
  }

  /// Gradients through the weights of the experts, and of the losses that shape logits. Those that balance experts are
  /// not defined: nothing learned would change who serves whom. In a model that has them the other routers are asked.
  /// dx [T, hidden] is overwritten.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights,
                       DeviceView<const std::type_identity_t<Real>, 2> x,
                       const Saved<std::type_identity_t<Real>>& saved,
                       const Routing<std::type_identity_t<Real>>& routing,
                       DeviceView<std::type_identity_t<Real>, 2> dweights, DeviceView<Real, 2> dx,
                       Weights<Gradients>& gradients) {
    auto scratch = pass.device.scratch();
    const auto dlogits = scratch.template take<Real>(x.rows, config.experts);
    route_backward(pass.device, config, saved.logits, routing.experts, routing.weights, dweights, dlogits);
    balance_losses(pass.device, config, balance.only(pass.balance), DeviceView<const Real, 2>(saved.logits),
                   routing.experts, pass.sequence_offsets, pass.balance_scale, dlogits, pass.counts.terms(pass.layer));
    const WeightGradientJob<Real> job{x.rows, dlogits, x, gradients.weight.matrix()};
    weight_gradient(pass.device, job);
    input_gradient(pass.device, weights.weight.view(), dlogits, dx);
  }

  /// Fills a table in host memory so that each token has different experts and each expert as many tokens as another,
  /// give or take one: token t has the experts t * top_k, t * top_k + 1, ... counted around.
  template <class Table>
  static void deal_experts(Table& table) {
    Index i = 0;
    for (auto& expert : table.data.view())
      expert = static_cast<std::remove_cvref_t<decltype(expert)>>(i++ % config.experts);
  }
};

}  // namespace v1
}  // namespace guild
