// The Switch Transformer's router: one expert for a token, of limited capacity.
#pragma once

#include <guild/core/config.hpp>
#include <guild/modules/capped.hpp>
#include <guild/modules/router.hpp>

namespace guild {
inline namespace v1 {

/// The most probable expert, weighed by its probability (Fedus et al., arXiv 2101.03961, section 2.1), with
/// `S::capacity`: published are `.rounding = CapacityRounding::down` and a factor of 1.25 in training, 2 at evaluation.
/// The auxiliary loss, `BalanceOptions::auxiliary` = 0.01, is E sum_i f_i P_i (eq. 4), f_i of all tokens, those that
/// are dropped included.
template <class S>
struct SwitchRouter : Capped<TopKRouter<S>, S::capacity> {
  static_assert(
      S::routing.top_k == 1 && S::routing.scoring == Scoring::softmax && S::routing.selection == Selection::greedy &&
          !S::routing.normalize,
      "SwitchRouter: routing must have top_k 1, softmax scores, greedy selection and no normalising: the gate "
      "of the one expert is its probability");
};

}  // namespace v1
}  // namespace guild
