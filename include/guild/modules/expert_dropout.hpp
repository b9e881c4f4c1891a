// Expert dropout: more of it inside of experts than elsewhere, for models that are fine-tuned on little data.
#pragma once

#include <guild/modules/pass.hpp>
#include <guild/ops/experts/assignment.hpp>
#include <guild/ops/experts/dropout.hpp>

namespace guild {
inline namespace v1 {

/// Dropout of what goes into the last product of routed experts, `S::experts.dropout` (Switch Transformer, arXiv
/// 2101.03961, section 2.4, "expert dropout": 0.4 in experts, 0.1 elsewhere). In passes with noise alone, which are
/// those of training; what is kept is divided by 1 - dropout, so evaluation and decoding need nothing. An element is
/// dropped by its place (seed, layer, token, expert, column), the same in backward and in layers that are computed
/// again, and no mask is kept. ExpertPool and UngatedExpertPool call it, and a pool of one's own may. Shared experts
/// have none: they are the dense part of a layer.
template <class S>
struct ExpertDropout {
  static constexpr double probability = S::experts.dropout;
  static_assert(probability >= 0.0 && probability < 1.0, "ExpertDropout: experts.dropout must be in [0, 1)");

  /// Of h [S, hidden of an expert]; of its gradient just the same.
  template <class Device, class Real>
  static void apply(const Pass<Device>& pass, const Assignment& assignment, DeviceView<Real, 2> h) {
    if constexpr (probability > 0.0)
      if (pass.noise.on)
        drop_slots(pass.device, pass.noise.draws(pass.layer, NoisePurpose::expert_hidden), probability,
                   assignment.offsets, assignment.token, h);
  }
};

}  // namespace v1
}  // namespace guild
