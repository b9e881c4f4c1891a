// What every front door does first: compare shapes, and say which argument does not fit and what would.
#pragma once

#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>
#include <string>

namespace guild {
inline namespace v1 {
namespace detail {

inline std::string shape_text(Index rows, Index cols) {
  return std::string("[").append(std::to_string(rows)).append(", ").append(std::to_string(cols)).append("]");
}

/// Throws op_shape unless `view` is [rows, cols] with rows that do not overlap. `what` is "operation: argument".
template <class T>
void require_shape(DeviceView<T, 2> view, Index rows, Index cols, const char* what) {
  if (view.rows != rows || view.cols != cols)
    refuse(ErrorCode::op_shape,
           {"the shape is ", shape_text(view.rows, view.cols), ", expected ", shape_text(rows, cols),
            "; pass views of one batch and one model"},
           what);
  if (rows > 1 && view.pitch < cols)
    refuse(ErrorCode::op_shape,
           {"the row pitch is ", view.pitch, ", less than the ", cols, " columns; rows must not overlap"}, what);
  if (view.data == nullptr && rows > 0 && cols > 0)
    refuse(ErrorCode::op_argument, "the view has no data; allocate it first", what);
}

/// Throws op_shape unless `view` has `size` elements.
template <class T>
void require_size(DeviceView<T> view, Index size, const char* what) {
  if (view.size != size)
    refuse(ErrorCode::op_shape,
           {"the size is ", view.size, ", expected ", size, "; pass views of one batch and one model"}, what);
  if (view.data == nullptr && size > 0) refuse(ErrorCode::op_argument, "the view has no data; allocate it first", what);
}

/// Throws op_argument with `message` unless `holds`.
inline void require(bool holds, const char* message, const char* what) {
  if (!holds) refuse(ErrorCode::op_argument, message, what);
}

}  // namespace detail
}  // namespace v1
}  // namespace guild
