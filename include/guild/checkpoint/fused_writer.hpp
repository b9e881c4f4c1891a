// Experts written as one tensor, for families whose files have them so: the way back of stored_stack.hpp.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>
#include <guild/models/name_rule.hpp>
#include <guild/modules/module.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// True if files of these names hold experts fused, written ones too.
template <class Names>
inline constexpr bool writes_fused = requires {
  Names::fused_experts;
};

/// What becomes one tensor: equal matrices [rows, cols] of `count` experts, or vectors [rows] (cols 1), of each part.
struct FusedToWrite {
  FusedRows layout{};                 ///< its part means nothing
  std::vector<const float*> parts{};  ///< [layout.parts]
  Index count = 0, rows = 0, cols = 1;
  bool vectors = false;

  [[nodiscard]] std::vector<std::int64_t> shape() const {
    const Index all = layout.parts * rows;
    if (vectors) return {count, all};
    return layout.transposed ? std::vector<std::int64_t>{count, cols, all}
                             : std::vector<std::int64_t>{count, all, cols};
  }
  /// Calls f(values, how many) for each expert's line after line, as the tensor has them.
  template <class F>
  void for_each_line(F&& f) const {
    const Index all = layout.parts * rows;
    const bool across = vectors || layout.transposed;  // a line goes across all rows
    std::vector<float> line(static_cast<std::size_t>(across ? all : cols));
    for (Index e = 0; e < count; ++e)
      for (Index n = 0; n < (across ? cols : all); ++n) {
        for (Index i = 0; i < static_cast<Index>(line.size()); ++i) {
          const Index at = across ? i : n, column = across ? n : i;
          const Index part = layout.in_turn ? at % layout.parts : at / rows;
          const Index row = layout.in_turn ? at / layout.parts : at % rows;
          line[static_cast<std::size_t>(i)] = parts[static_cast<std::size_t>(part)][(e * rows + row) * cols + column];
        }
        f(static_cast<const float*>(line.data()), static_cast<Index>(line.size()));
      }
  }
};

/// The fused tensors of a model by their names, as its parts come.
class FusedTensors {
 public:
  void add(const FusedTensor& where, const float* values, Index count, Index rows, Index cols, bool vectors) {
    FusedToWrite& tensor = tensors_[where.name];
    tensor.layout = where.rows;
    tensor.parts.resize(static_cast<std::size_t>(where.rows.parts));
    tensor.parts[static_cast<std::size_t>(where.rows.part)] = values;
    tensor.count = count, tensor.rows = rows, tensor.cols = cols, tensor.vectors = vectors;
  }
  /// Throws op_argument if a tensor lacks a part.
  [[nodiscard]] const std::map<std::string, FusedToWrite>& ready() const {
    for (const auto& [name, tensor] : tensors_)
      for (const float* part : tensor.parts)
        if (part == nullptr)
          refuse(ErrorCode::op_argument, {"the model has not all parts of this tensor; see Spec::Names"}, name);
    return tensors_;
  }

 private:
  std::map<std::string, FusedToWrite> tensors_;
};

}  // namespace detail
}  // namespace v1
}  // namespace guild
