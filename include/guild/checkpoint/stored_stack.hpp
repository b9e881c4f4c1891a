// Where a checkpoint holds a stack of experts: one fused tensor, or a tensor for each expert.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <guild/checkpoint/stored_tensor.hpp>
#include <guild/models/name_rule.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// The bytes of one matrix within tensors of files.
struct StoredPiece {
  StoredTensor tensor;
  std::uint64_t begin = 0;  ///< of row 0, in bytes from the tensor's begin
  std::uint64_t row_bytes = 0;
  std::uint64_t row_step = 0;     ///< bytes from a row to the next; row_bytes where they lie together
  std::uint64_t scale_begin = 0;  ///< in bytes from the begin of the scales' tensor
  std::uint64_t scale_bytes = 0;
  std::uint64_t scale_row_bytes = 0;  ///< of one row of blocks, where these take turns
  std::uint64_t scale_row_step = 0;   ///< bytes from such a row to the next; 0: they lie together

  [[nodiscard]] bool contiguous() const { return row_step == row_bytes; }
};

/// A stack as found; tensors without `elements` are not there.
struct FoundStack {
  StackShape shape;
  std::vector<StoredTensor> tensors;        ///< the fused one, or one for each matrix
  std::vector<std::string> names;           ///< theirs
  std::optional<FusedRows> fused{};         ///< which rows of the fused tensor; nothing if they are apart
  std::optional<std::string> fused_name{};  ///< what the tensor would be called that is not there

  [[nodiscard]] bool absent() const {
    return std::none_of(tensors.begin(), tensors.end(), [](const auto& tensor) { return tensor.elements != nullptr; });
  }
  [[nodiscard]] const Format& format() const { return tensors[0].format; }
  /// Rows of blocks in the scales of one matrix, and blocks in a row.
  [[nodiscard]] Index blocks_down() const { return (shape.rows + format().block_rows - 1) / format().block_rows; }
  [[nodiscard]] Index blocks_across() const {
    return format().scaled() ? (shape.cols + format().block_cols - 1) / format().block_cols : 0;
  }
  [[nodiscard]] Index matrix_bytes() const { return shape.rows * shape.cols * bits(format().element) / 8; }
  [[nodiscard]] Index scale_bytes() const {
    return format().scaled() ? blocks_down() * blocks_across() * bits(format().scale) / 8 : 0;
  }
  /// True if products can read the elements of the fused tensor where they lie in the file.
  [[nodiscard]] bool fused_in_place() const {
    return fused && !fused->in_turn && !fused->transposed && is_aligned(*tensors[0].elements);
  }
  [[nodiscard]] bool transposed() const { return fused && fused->transposed; }

  [[nodiscard]] StoredPiece piece(Index e) const {
    const auto unsigned_of = [](Index value) { return static_cast<std::uint64_t>(value); };
    StoredPiece piece;
    piece.tensor = tensors[fused ? 0 : static_cast<std::size_t>(e)];
    piece.row_bytes = unsigned_of(matrix_bytes() / shape.rows);
    piece.row_step = piece.row_bytes;
    piece.scale_bytes = unsigned_of(scale_bytes());
    if (fused) {
      piece.begin =
          unsigned_of(e * fused->parts * matrix_bytes()) + unsigned_of(fused->first(shape.rows)) * piece.row_bytes;
      piece.row_step *= unsigned_of(fused->step());
      piece.scale_begin = unsigned_of((e * fused->parts + fused->part) * scale_bytes());
      if (fused->in_turn && format().scaled()) {  // blocks of one row
        piece.scale_row_bytes = unsigned_of(scale_bytes() / shape.rows);
        piece.scale_row_step = piece.scale_row_bytes * unsigned_of(fused->step());
        piece.scale_begin = unsigned_of(e * fused->parts * scale_bytes()) +
                            unsigned_of(fused->first(shape.rows)) * piece.scale_row_bytes;
      }
    }
    return piece;
  }
};

/// Finds the stack of a path: fused if the file has it so, else matrix by matrix. Throws as TensorFinder, and wt_dtype
/// if the matrices differ in their format.
template <class Names>
[[nodiscard]] FoundStack find_stack(const TensorFinder& finder, const Path& path, StackShape shape) {
  FoundStack found{shape, {}, {}};
  if (const std::optional<FusedTensor> fused = fused_name<Names>(path)) {
    const StoredTensor tensor = finder.find_fused(fused->name, shape, fused->rows);
    if (tensor.elements != nullptr) return {shape, {tensor}, {fused->name}, fused->rows};
    FusedRows rows = fused->rows;
    rows.transposed = false;
    const StoredTensor blocks = finder.find_blocks(fused->name, shape, rows);
    if (blocks.elements != nullptr) return {shape, {blocks}, {blocks.elements->name}, rows};
    found.fused_name = fused->name;
  }
  for (Index e = 0; e < shape.count; ++e)
    found.names.push_back(with_matrix_path(path, e, [&](const Path& matrix) { return finder.name_of<Names>(matrix); }));
  const StoredTensor* first = nullptr;
  found.tensors.reserve(found.names.size());
  for (const std::string& name : found.names) {
    const StoredTensor& tensor = found.tensors.emplace_back(finder.find(name, shape.matrix()));
    if (tensor.elements == nullptr) continue;
    if (first == nullptr) first = &tensor;
    finder.require_same_format(tensor, *first);
  }
  return found;
}

/// Columns [first, first + count) of one matrix, whose elements have Size bytes, from as many lines of the transposed
/// tensor: row r of the matrix is column fused.first + r * fused.step of a line.
template <std::size_t Size>
void copy_lines(const FoundStack& found, const std::byte* lines, Index first, Index count, std::byte* to) {
  constexpr auto size = static_cast<Index>(Size);
  const Index rows = found.shape.rows, line = found.fused->parts * rows * size;
  for (Index r = 0; r < rows; ++r) {
    const std::byte* from = lines + (found.fused->first(rows) + r * found.fused->step()) * size;
    std::byte* out = to + (r * found.shape.cols + first) * size;
    for (Index c = 0; c < count; ++c) std::memcpy(out + c * size, from + c * line, Size);
  }
}

/// Where a checkpoint holds a vector: alone [size], or equal ones (of all experts, of all places in a window) in one
/// tensor [count, parts * size of one], whose rows say which part of them is ours.
struct FoundVector {
  std::string name;
  std::vector<std::int64_t> shape;
  FusedRows rows{};
};

template <class Names>
[[nodiscard]] FoundVector find_vector(const TensorFinder& finder, const Path& path, const VectorShape& shape) {
  if (shape.role == TensorRole::table) return {finder.name_of<Names>(path), {shape.count, shape.size / shape.count}};
  const std::optional<FusedTensor> fused = shape.count > 1 ? fused_name<Names>(path) : std::nullopt;
  if (!fused) return {finder.name_of<Names>(path), {shape.size}};
  return {fused->rows.parts == 1 ? finder.name_of<Names>(path) : fused->name,
          {shape.count, fused->rows.parts * (shape.size / shape.count)},
          fused->rows};
}

/// The whole numbers of a TensorRole::table as floats, from integers as a file stores them. `fail(i, value)` is called
/// for one that floats do not hold.
template <class Integer, class Fail>
void whole_numbers(const std::byte* stored, Index count, float* to, Fail&& fail) {
  for (Index i = 0; i < count; ++i) {
    Integer value;
    std::memcpy(&value, stored + i * Index{sizeof(Integer)}, sizeof value);
    if (value < 0 || value >= Integer{1 << 24}) fail(i, std::int64_t{value});
    to[i] = static_cast<float>(value);
  }
}

}  // namespace detail
}  // namespace v1
}  // namespace guild
