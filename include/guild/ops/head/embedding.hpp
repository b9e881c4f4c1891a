// Token ids to rows of the embedding table.
#pragma once

#include <guild/core/buffer.hpp>
#include <guild/core/refuse.hpp>
#include <guild/ops/common/fault.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/head/rows/embedding.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

namespace detail {

/// Throws in_token if an id is not a row of a table of `rows` rows. Devices that flag faults do it in `raise_faults`; a
/// bad id gives a row of NaN until then.
template <class Device>
void refuse_unknown_ids(Device&, View<const std::int32_t> ids, Index rows) {
  static_assert(computes_in_host_memory<Device>,
                "embed: the host cannot read this device's memory, and the device flags no faults; see "
                "guild/ops/common/fault.hpp");
  for (Index t = 0; t < ids.size; ++t)
    if (ids[t] < 0 || ids[t] >= rows)
      refuse(ErrorCode::in_token,
             {"token ", t, " of the batch has id ", ids[t], ", expected from 0 to ", rows - 1,
              "; use the tokenizer of this model"},
             "embed: ids");
}
template <FlagsFaults Device>
void refuse_unknown_ids(Device& device, View<const std::int32_t> ids, Index rows) {
  flag_outside(device, Fault::unknown_id, ids, 0, rows);
}

}  // namespace detail

/// y[t, :] = scale * table[ids[t], :] for a table [vocab, D] of any stored type, y [T, D]. Throws op_shape, wt_dtype,
/// in_token.
template <class Device, class Real>
void embed(Device& device, const WeightView& table, DeviceView<const std::int32_t> ids, DeviceView<Real, 2> y,
           double scale = 1.0) {
  detail::require_size(ids, y.rows, "embed: ids");
  detail::require_shape(y, y.rows, table.cols, "embed: y");
  if (!has_codec(table.format))
    detail::refuse(
        ErrorCode::wt_dtype,
        {"the table is stored as ", describe(table.format), ", which has no codec; see guild/core/codec.hpp"},
        "embed: table");
  detail::refuse_unknown_ids(device, ids, table.rows);
  for_each_row(device, y.rows, y.cols, EmbeddingRow<Real>{table, ids, y, static_cast<Real>(scale)});
}

/// The gradient of `embed`: dtable[ids[t], :] += scale * dy[t, :], for each row of the table in the order of the
/// tokens. ids [T], dy [T, D], dtable [vocab, D]. Throws op_shape, in_token.
template <class Device, class Real>
void embedding_backward(Device& device, DeviceView<const std::int32_t> ids,
                        DeviceView<const std::type_identity_t<Real>, 2> dy, DeviceView<Real, 2> dtable,
                        double scale = 1.0) {
  detail::require_size(ids, dy.rows, "embedding_backward: ids");
  detail::require_shape(dy, dy.rows, dtable.cols, "embedding_backward: dy");
  detail::require_shape(dtable, dtable.rows, dtable.cols, "embedding_backward: dtable");
  detail::refuse_unknown_ids(device, ids, dtable.rows);
  constexpr Index block = EmbeddingGradient<Real>::block;
  for_each_row(device, (dtable.cols + block - 1) / block, ids.size * block,
               EmbeddingGradient<Real>{ids, dy, dtable, static_cast<Real>(scale)});
}

}  // namespace v1
}  // namespace guild
