// Choosing experts: from router logits to indices and weights.
#pragma once

#include <cstdint>
#include <guild/core/buffer.hpp>
#include <guild/core/refuse.hpp>
#include <guild/ops/common/fault.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/route/rows/route.hpp>
#include <string>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// A choice of experts is made once. Whoever computes a layer again (recomputation, a later update of the policy that
/// drew the tokens, a test) gives the router the experts of the first time: ties, noise and changed weights then cannot
/// choose others, and the gradient is that of what happened.
enum class Choice : std::uint8_t { made, given };

namespace detail {

/// Throws op_nonfinite if a row could not be routed because one of its logits was NaN or infinite; devices that flag
/// faults do it in `raise_faults`.
template <class Device>
void refuse_unrouted(Device&, View<const std::int32_t, 2> indices) {
  static_assert(computes_in_host_memory<Device>,
                "route: the host cannot read this device's memory, and the device flags no faults; see "
                "guild/ops/common/fault.hpp");
  for (Index t = 0; t < indices.rows && indices.cols > 0; ++t)
    if (indices(t, 0) < 0)
      refuse(ErrorCode::op_nonfinite,
             {"a router logit of token ", t,
              " of the batch is NaN or "
              "infinite, expected finite logits; check the weights and the layers before this one"},
             "route: logits");
}

template <FlagsFaults Device>
void refuse_unrouted(Device& device, View<const std::int32_t, 2> indices) {
  if (indices.cols > 0) flag_outside(device, Fault::nonfinite_logit, indices.middle_cols(0, 1), 0, Index{1} << 32);
}

/// Throws op_argument for a given choice of an expert that does not exist.
template <class Device>
void refuse_unknown_experts(Device&, View<const std::int32_t, 2> indices, Index experts) {
  static_assert(computes_in_host_memory<Device>,
                "route: the host cannot read this device's memory, and the device flags no faults; see "
                "guild/ops/common/fault.hpp");
  for (Index t = 0; t < indices.rows; ++t)
    for (const std::int32_t e : indices.row(t))
      if (e < -1 || e >= experts)
        refuse(ErrorCode::op_argument,
               {"expert ", e, " was given for token ", t, ", expected from 0 to ", experts - 1,
                "; give the choices of this model"},
               "route: indices");
}
template <FlagsFaults Device>
void refuse_unknown_experts(Device& device, View<const std::int32_t, 2> indices, Index experts) {
  flag_outside(device, Fault::unknown_expert, indices, -1, experts);
}

}  // namespace detail

/// Chooses `config.top_k` of E experts for each token (DeepSeek-V3 report, eq. 12-16; DeepSeek-V2 report, eq. 20-24).
///   score   = sigmoid(logit), softmax over all E logits, or sqrt(log(1 + exp(logit)))
///   choice  = score + bias (bias [E], or an empty view)
///   groups  : E / groups consecutive experts each; noaux_tc ranks a group by the sum of its two best choices,
///             group_limited_greedy by its best; experts outside the best top_groups are masked with -infinity;
///             greedy has no groups
///   indices : the top_k best choices, best first [T, K]
///   weights : score (without the bias), divided by (their sum + 1e-20) if `normalize`, then times `scale` [T, K]
/// Ties of experts and of groups go to the lower index. Computed in the element type of `weights` (float or double).
/// The scale is applied whether or not weights were normalised: so does the published code of DeepSeek-V3. That of
/// DeepSeek-V2 leaves it out after normalising, and transformers' V2 router never normalises; no published V2 model
/// asks for it, so all of them agree on every published model. With Choice::given the indices are read, and weights are
/// all that is computed: the bits are those of the call that chose them. Throws op_shape, op_argument, and op_nonfinite
/// for logits that are NaN or infinite.
template <class Device, class Real>
void route(Device& device, const TopKConfig& config, DeviceView<const std::type_identity_t<Real>, 2> logits,
           DeviceView<const std::type_identity_t<Real>> bias, DeviceView<std::int32_t, 2> indices,
           DeviceView<Real, 2> weights, Choice made_or_given = Choice::made) {
  const Index tokens = logits.rows;
  detail::require(config.experts >= 1 && config.top_k >= 1 && config.top_k <= config.experts,
                  "top_k must be from 1 to the number of experts", "route: config");
  detail::require(config.groups >= 1 && config.experts % config.groups == 0 && config.top_groups >= 1 &&
                      config.top_groups <= config.groups,
                  "groups must divide experts, and top_groups be from 1 to groups", "route: config");
  detail::require(config.selection == Selection::greedy ||
                      config.top_k <= Index{config.experts / config.groups} * config.top_groups,
                  "top_k must not exceed the experts of the chosen groups", "route: config");
  detail::require(config.selection != Selection::noaux_tc || config.groups == 1 || config.experts / config.groups >= 2,
                  "noaux_tc needs two experts in a group", "route: config");
  detail::require_shape(logits, tokens, config.experts, "route: logits");
  if (bias.size != 0) detail::require_size(bias, config.experts, "route: bias");
  detail::require_shape(indices, tokens, config.top_k, "route: indices");
  detail::require_shape(weights, tokens, config.top_k, "route: weights");
  if (bias.size == 0) bias.data = nullptr;

  auto scratch = device.scratch();
  const View work = scratch.template take<Real>(tokens, Index{config.experts} + config.groups);
  for_each_row(device, tokens, Index{config.experts} * (config.top_k + 8),
               RouterRow<Real>{config, logits, bias, work, indices, weights, made_or_given == Choice::given});
  if (made_or_given == Choice::given)
    detail::refuse_unknown_experts(device, View<const std::int32_t, 2>(indices), config.experts);
  detail::refuse_unrouted(device, View<const std::int32_t, 2>(indices));
}

/// Overwrites dlogits [T, E] with the gradient through the chosen weights of `route`: logits [T, E] as it took them,
/// indices, weights_tk and dweights_tk [T, K]. Which experts are chosen, and so the selection bias, has no gradient.
/// With softmax scores all logits get one, with others only those of the chosen experts. dlogits must not be
/// logits. `top_k` is that of the indices: those of another choice than the config's are legal. Throws op_shape.
template <class Device, class Real>
void route_backward(Device& device, const TopKConfig& config, DeviceView<const std::type_identity_t<Real>, 2> logits,
                    DeviceView<const std::int32_t, 2> indices,
                    DeviceView<const std::type_identity_t<Real>, 2> weights_tk,
                    DeviceView<const std::type_identity_t<Real>, 2> dweights_tk, DeviceView<Real, 2> dlogits) {
  detail::require_shape(logits, dlogits.rows, dlogits.cols, "route_backward: logits");
  detail::require_shape(indices, dlogits.rows, indices.cols, "route_backward: indices");
  detail::require_shape(weights_tk, dlogits.rows, indices.cols, "route_backward: weights_tk");
  detail::require_shape(dweights_tk, dlogits.rows, indices.cols, "route_backward: dweights_tk");
  detail::require_shape(dlogits, dlogits.rows, dlogits.cols, "route_backward: dlogits");
  for_each_row(device, dlogits.rows, 8 * (dlogits.cols + 4 * indices.cols),
               RouteBackwardRow<Real>{config, logits, indices, weights_tk, dweights_tk, dlogits});
}

}  // namespace v1
}  // namespace guild
