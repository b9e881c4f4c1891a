// What the expanded form of latent attention reads of one sequence: strided views of what its projections wrote.
#pragma once

#include <cstdint>

#include <guild/core/view.hpp>
#include <guild/modules/batch.hpp>
#include <guild/modules/gates.hpp>
#include <guild/ops/attention/job.hpp>

namespace guild {
inline namespace v1 {

/// Of a chunk, or the gradients of it: each head's keys and values lie side by side. `Attention` is an Mla.
template <class Attention, class Element>
struct LatentParts {
  static constexpr Index stride = Attention::nope + Attention::value, width = Attention::heads * stride;

  LatentParts(const Chunk& chunk, DeviceView<Element, 2> all_queries, DeviceView<Element, 2> rotary_keys,
              DeviceView<Element, 2> keys_values)
      : begin(chunk.begin),
        count(chunk.count),
        query(rows(all_queries)),
        key(rows(keys_values).middle_cols(0, width - Attention::value)),
        rotary_key(rows(rotary_keys)),
        values(rows(keys_values).middle_cols(Attention::nope, width - Attention::nope)) {}
  template <class Any>
  DeviceView<Any, 2> rows(DeviceView<Any, 2> all) const {
    return all.middle_rows(begin, count);
  }
  /// Of views that may have no data.
  template <class Any>
  DeviceView<Any, 2> some(DeviceView<Any, 2> all) const {
    return all.data != nullptr ? rows(all) : DeviceView<Any, 2>{};
  }

  /// What a branch of attention computes of these parts.
  template <class Real>
  [[nodiscard]] BasicExpandedAttentionJob<Real> job(const AttentionBranch<Real>& branch, DeviceView<const Real> sinks,
                                                    DeviceView<const std::uint32_t, 2> chosen) const {
    return {.q = query,
            .k_nope = key,
            .k_rope = rotary_key,
            .v = values,
            .out = rows(branch.out),
            .key_head_stride = stride,
            .value_head_stride = stride,
            .lse = some(branch.lse),
            .sinks = sinks,
            .far_bias = some(branch.far_bias),
            .chosen = chosen,
            .key_bias = some(branch.key_bias)};
  }
  /// The same on the way back, to `gradient`.
  template <class Real>
  [[nodiscard]] ExpandedAttentionGradientJob<Real> gradient_job(const AttentionBranch<Real>& branch,
                                                                const LatentParts<Attention, Real>& gradient,
                                                                DeviceView<const Real> sinks,
                                                                DeviceView<Real, 2> dsinks,
                                                                DeviceView<const std::uint32_t, 2> chosen) const {
    return {.q = query,
            .k_nope = key,
            .k_rope = rotary_key,
            .v = values,
            .out = rows(branch.out),
            .lse = rows(branch.lse),
            .dout = rows(branch.dout),
            .dq = gradient.query,
            .dk_nope = gradient.key,
            .dk_rope = gradient.rotary_key,
            .dv = gradient.values,
            .key_head_stride = stride,
            .value_head_stride = stride,
            .sinks = sinks,
            .dsinks = rows(dsinks),
            .far_bias = some(branch.far_bias),
            .dfar_bias = some(branch.dfar_bias),
            .chosen = chosen,
            .key_bias = some(branch.key_bias)};
  }

  Index begin, count;
  DeviceView<Element, 2> query, key, rotary_key, values;
};

}  // namespace v1
}  // namespace guild
