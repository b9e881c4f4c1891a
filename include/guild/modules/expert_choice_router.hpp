// Experts choose their tokens, and not tokens their experts (Zhou et al., arXiv 2202.09368).
#pragma once

#include <cstdint>
#include <type_traits>

#include <guild/core/config.hpp>
#include <guild/core/config/capacity.hpp>
#include <guild/device/staged.hpp>
#include <guild/device/transfer.hpp>
#include <guild/modules/router.hpp>
#include <guild/ops/route/choose_tokens.hpp>

namespace guild {
inline namespace v1 {

/// Each expert takes the C tokens of a sequence whose scores are largest, C = int(T c / E) of T tokens, at least 1,
/// with c = `S::capacity.factor`: the experts that a token has in the mean (published: 2). A token may have none, or
/// all E; its weights are its scores (of a softmax over experts as published, section 3.2), without normalising.
/// Experts choose within each sequence, so that what it gets does not depend on its batch, in training and at inference
/// alike. Load is balanced by construction: of the balancing losses those of logits are left.
///
/// Who is chosen depends on the tokens that follow: for bidirectional models (masked ones, encoders), whose Spec says
/// so, and their passes; causal ones are refused. Gives E choices a token, `no_expert` for the experts that did not
/// take it; routing.top_k is not read.
template <class S>
struct ExpertChoiceRouter : TopKRouter<S> {
  using Base = TopKRouter<S>;
  static constexpr Index choices = Base::config.experts;
  static constexpr double factor = S::capacity.factor;
  static constexpr bool choose_by_logits = false, heeds_shift = false;  // tokens do not choose
  static constexpr BalanceSupport balance = BalanceSupport::of_logits();
  static_assert(S::mask == AttentionMask::bidirectional,
                "ExpertChoiceRouter: experts that choose tokens look at those that follow, so no causal model has "
                "them; say mask = AttentionMask::bidirectional in the Spec, or take a router that chooses experts");
  static_assert(factor > 0.0, "ExpertChoiceRouter: the capacity factor must be above 0");
  static_assert(S::routing.selection == Selection::greedy && !S::routing.normalize,
                "ExpertChoiceRouter: routing must have greedy selection and no normalising: experts choose, and a "
                "token's weights are its scores");

  static_assert(S::routing.identities == 0, "ExpertChoiceRouter: experts that give their input choose no tokens");

  /// The tokens that each expert takes of a sequence.
  static constexpr Index tokens_of_expert(Index length) {
    const auto most = static_cast<Index>(static_cast<double>(length) * factor / static_cast<double>(choices));
    return most > length ? length : most < 1 && length > 0 ? 1 : most;
  }
  template <class Device>
  static Index slots(const Pass<Device>& pass, Index, Phase) {
    Index sum = 0;
    for (const Chunk& chunk : pass.batch.chunks) sum += choices * tokens_of_expert(chunk.count);
    return sum;
  }

  /// x [T, hidden], the rows of the pass's batch; experts and weights [T, E]. Throws op_argument for a causal pass,
  /// op_shape for a batch whose sequences do not make up the rows.
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const typename Base::template Weights<Store>& weights,
                      DeviceView<const Real, 2> x, const Routing<std::type_identity_t<Real>>& routing,
                      typename Base::template Saved<std::type_identity_t<Real>>* keep = nullptr) {
    Device& device = pass.device;
    if (pass.mask == AttentionMask::causal)
      detail::refuse(ErrorCode::op_argument,
                     "experts that choose tokens look at those that follow; take a router that chooses experts, or "
                     "AttentionMask::bidirectional",
                     "ExpertChoiceRouter");
    auto room = pass.room(keep);
    const auto logits = room.template keep<Real>(x.rows, choices);
    if (keep != nullptr) keep->logits = logits;
    linear(device, weights.weight.view(), x, logits);
    if constexpr (Base::config.bias) add_bias(device, weights.bias.view(), logits);
    const auto all = room.template take<std::int32_t>(x.rows, choices);
    count_up(device, all);
    route(device, of_all, logits, {}, all, routing.weights, Choice::given);
    if (routing.choice == Choice::made) choose(pass, x.rows, routing);
  }

  /// As TopKRouter's.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const typename Base::template Weights<Store>& weights,
                       DeviceView<const std::type_identity_t<Real>, 2> x,
                       const typename Base::template Saved<std::type_identity_t<Real>>& saved,
                       const Routing<std::type_identity_t<Real>>& routing,
                       DeviceView<std::type_identity_t<Real>, 2> dweights, DeviceView<Real, 2> dx,
                       typename Base::template Weights<Gradients>& gradients) {
    Pass<Device> balanced = pass;
    balanced.balance = balance.only(pass.balance);
    Base::backward(balanced, weights, x, saved, routing, dweights, dx, gradients);
  }

 private:
  /// All scores are weights.
  static constexpr TopKConfig of_all = [] {
    TopKConfig config = Base::config;
    config.top_k = config.experts;
    return config;
  }();

  template <class Device, class Real>
  static void choose(const Pass<Device>& pass, Index rows, const Routing<Real>& routing) {
    Device& device = pass.device;
    const Index groups = pass.batch.chunk_count() * choices;
    Staged<Device, std::int32_t> offsets(device, groups + 1), most(device, groups);
    Index begin = 0;
    offsets.add(0);
    for (const Chunk& chunk : pass.batch.chunks)
      for (Index e = 0; e < choices; ++e) {
        begin += chunk.count;
        offsets.add(static_cast<std::int32_t>(begin));
        most.add(static_cast<std::int32_t>(tokens_of_expert(chunk.count)));
      }
    if (begin != rows * choices)
      detail::refuse(ErrorCode::op_shape,
                     {"experts choose among the ", begin / choices, " tokens of the pass's sequences, but there are ",
                      rows, " rows"},
                     "ExpertChoiceRouter");
    auto scratch = device.scratch();
    choose_tokens(device, upload(device, offsets.ready(), scratch), upload(device, most.ready(), scratch),
                  DeviceView<const Real, 2>(routing.weights), routing.experts);
  }
};

}  // namespace v1
}  // namespace guild
