// A router that balances a batch while it chooses: top-k of a matrix in which every expert has the same share.
#pragma once

#include <type_traits>
#include <utility>

#include <guild/modules/router.hpp>
#include <guild/ops/route/sinkhorn.hpp>

namespace guild {
inline namespace v1 {

/// In training (in passes that keep what backward needs) experts are those of the matrix that Sinkhorn's iteration
/// makes of the batch's logits, at inference the top_k largest logits; weights are the scores of the logits in both, as
/// in Megatron-LM's sinkhorn_load_balancing: sigmoid for one expert, or else softmax over all. A token's experts depend
/// on the other tokens of its batch, later ones too, in training alone. Of the losses of balance it has those that
/// shape logits: others are refused.
template <class S>
struct SinkhornRouter : TopKRouter<S> {
  using Base = TopKRouter<S>;
  static constexpr TopKConfig config = S::routing;
  static_assert(config.scoring == (config.top_k == 1 ? Scoring::sigmoid : Scoring::softmax) &&
                    config.selection == Selection::greedy && !config.normalize,
                "SinkhornRouter: routing must say greedy, normalize = false, and sigmoid for top_k 1 or else softmax");
  static constexpr bool choose_by_logits = false;                         ///< alone
  static constexpr BalanceSupport balance = BalanceSupport::of_logits();  ///< the choice balances itself

  /// x [T, hidden]; experts and weights [T, top_k], in descending order of choice, ties to the lower index.
  template <class Device, class Weights, class Real>
  static void forward(const Pass<Device>& pass, const Weights& weights, DeviceView<const Real, 2> x,
                      const Routing<std::type_identity_t<Real>>& routing,
                      typename Base::template Saved<Real>* keep = nullptr) {
    auto room = pass.room(keep);
    const auto logits = Base::logits(pass, weights, x, room, keep);
    auto given = routing;
    if (keep != nullptr && routing.choice == Choice::made) {
      const auto balanced = room.template take<Real>(logits.rows, logits.cols);
      sinkhorn_logits(pass.device, SinkhornOptions{}, logits, balanced);
      constexpr TopKConfig choosing = [] {
        TopKConfig c = config;
        c.scoring = Scoring::softmax;  // in the order of the matrix; sigmoids of large logits are all 1
        return c;
      }();
      route(pass.device, choosing, balanced, routing.shift, routing.experts, routing.weights);
      given.choice = Choice::given;
    }
    Base::choose(pass, weights, logits, given);
  }

  /// As TopKRouter's, of the losses that there are.
  template <class Device, class... Rest>
  static void backward(const Pass<Device>& pass, Rest&&... rest) {
    Pass<Device> shaping = pass;
    shaping.balance = balance.only(pass.balance);
    Base::backward(shaping, std::forward<Rest>(rest)...);
  }
};

}  // namespace v1
}  // namespace guild
