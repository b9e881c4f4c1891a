// What the expanded form of latent attention reads of one sequence: strided views of what its projections wrote.
#pragma once

#include <guild/core/view.hpp>
#include <guild/modules/batch.hpp>

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

  Index begin, count;
  DeviceView<Element, 2> query, key, rotary_key, values;
};

}  // namespace v1
}  // namespace guild
