// The output projection and its loss in one, tile by tile: the logits of a whole batch never exist.
#pragma once

#include <algorithm>
#include <guild/core/weight.hpp>
#include <guild/device/staged.hpp>
#include <guild/device/transfer.hpp>
#include <guild/ops/common/scatter_rows.hpp>
#include <guild/ops/head/cross_entropy.hpp>
#include <guild/ops/linear/linear.hpp>
#include <span>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// Sums over the supervised tokens (those with a target) of a batch. The objective of cross_entropy_head is
/// scale * (loss + z_loss * z).
struct LossSums {
  double loss = 0.0;  ///< cross entropy in nats, without the scale
  double z = 0.0;     ///< (log sum exp of the logits)^2, without the coefficient
  Index count = 0;    ///< supervised tokens
  Index correct = 0;  ///< those whose target has the largest logit

  LossSums& operator+=(const LossSums& other) {
    loss += other.loss;
    z += other.z;
    count += other.count;
    correct += other.correct;
    return *this;
  }
  /// Loss per supervised token; 0 without any.
  [[nodiscard]] double mean_loss() const { return count > 0 ? loss / static_cast<double>(count) : 0.0; }
};

using HeadLossOptions = CrossEntropyOptions;

namespace detail {
/// Rows of logits held at a time: many where the vocabulary is small (8 MiB of float), so that each product is worth
/// its parallel region; else 256 if these are not above 64 MiB, as they are for published vocabularies.
inline constexpr Index head_tile_rows(Index vocab) {
  constexpr Index usual_logits = Index{1} << 21, most_logits = Index{1} << 24;
  const Index columns = std::max<Index>(vocab, 1);
  return std::clamp<Index>(usual_logits / columns, std::clamp<Index>(most_logits / columns, 32, 256), 1024);
}
}  // namespace detail

/// Cross entropy of states [T, D] under a head [V, D] with targets [T] (-1: ignored): logits = states head^T, for the
/// supervised rows only. Overwrites dstates [T, D] with the gradient of scale * (loss + z_loss * z), zeros for ignored
/// rows; adds to dhead [V, D]. Either may be an empty view; with both empty only the sums are computed, as evaluation
/// wants them. dstates may be the memory of states. At most 1024 rows of logits exist at a time, in the device's
/// scratch. Sums run in double in the order of the tokens; nothing depends on the number of threads. Throws op_shape,
/// in_token, before anything is written.
template <class Device, class Real>
LossSums cross_entropy_head(Device& device, const WeightView& head, DeviceView<const Real, 2> states,
                            DeviceView<const std::int32_t> targets, const HeadLossOptions& options,
                            DeviceView<std::type_identity_t<Real>, 2> dstates,
                            DeviceView<std::type_identity_t<Real>, 2> dhead) {
  detail::require_shape(states, states.rows, head.cols, "cross_entropy_head: states");
  detail::require_size(targets, states.rows, "cross_entropy_head: targets");
  const bool wants_states = dstates.data != nullptr, wants_head = dhead.data != nullptr;
  if (wants_states) detail::require_shape(dstates, states.rows, head.cols, "cross_entropy_head: dstates");
  if (wants_head) detail::require_shape(dhead, head.rows, head.cols, "cross_entropy_head: dhead");
  detail::refuse_unknown_targets(device, targets, head.rows);

  auto scratch = device.scratch();
  Staged<Device, std::int32_t> supervised(device, states.rows), supervised_targets(device, states.rows);
  {
    const Download targets_t(device, targets);  // data of a loader, which decide how much there is to do
    for (Index t = 0; t < states.rows; ++t)
      if (const std::int32_t target = targets_t.view()[t]; target >= 0 && target < head.rows) {
        supervised.add(static_cast<std::int32_t>(t));
        supervised_targets.add(target);
      }
  }
  const auto row_of = upload(device, supervised.ready(), scratch);
  const auto target_of = upload(device, supervised_targets.ready(), scratch);
  LossSums sums;
  sums.count = row_of.size;

  const Index most = std::min(detail::head_tile_rows(head.rows), sums.count);
  const auto logits_all = scratch.template take<Real>(most, head.rows);
  const auto dstates_all = scratch.template take<Real>(most, head.cols);
  const RowLosses losses_all{scratch.template take<double>(most), scratch.template take<double>(most),
                             scratch.template take<std::int32_t>(most)};
  for (Index begin = 0; begin < sums.count; begin += most) {
    const Index rows = std::min(most, sums.count - begin);
    const auto logits = logits_all.middle_rows(0, rows);
    const RowLosses losses{losses_all.loss.slice(0, rows), losses_all.log_sum_squared.slice(0, rows),
                           losses_all.correct.slice(0, rows)};
    const std::int32_t* const from = row_of.data + begin;
    const std::span<const std::int32_t> row = supervised.ready().subspan(static_cast<std::size_t>(begin));

    const BasicLinearJob<Real> forward{head, states, logits, from};
    linear(device, std::span<const BasicLinearJob<Real>>(&forward, 1));
    cross_entropy(device, logits, target_of.slice(begin, rows), options,
                  wants_states || wants_head ? LossWork::gradient : LossWork::value, losses);
    const Download loss(device, losses.loss), z(device, losses.log_sum_squared);
    const Download correct(device, losses.correct);
    for (Index n = 0; n < rows; ++n) {
      sums.loss += loss.view()[n];
      sums.z += z.view()[n];
      sums.correct += correct.view()[n];
    }
    if (wants_head) {
      const WeightGradientJob<Real> job{rows, logits, states, dhead, nullptr, from};
      weight_gradient(device, job);
    }
    if (wants_states) {  // last: it may overwrite the states of these rows
      const std::int32_t first = row.front(), last = row[static_cast<std::size_t>(rows) - 1];
      const bool in_place = last - first == rows - 1;
      const auto out = in_place ? dstates.middle_rows(first, rows) : dstates_all.middle_rows(0, rows);
      const BasicLinearJob<Real> back{head, logits, out, nullptr, Product::x_w};
      linear(device, std::span<const BasicLinearJob<Real>>(&back, 1));
      if (!in_place)
        scatter_rows(device, DeviceView<const Real, 2>(out), DeviceView<const std::int32_t>(from, rows), dstates);
    }
  }
  if (wants_states) zero_marked_rows(device, targets, dstates);
  return sums;
}

}  // namespace v1
}  // namespace guild
