// From a checkpoint folder to the weights of a model: every tensor is checked before the first byte is allocated.
#pragma once

#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <guild/checkpoint/fresh_tensor.hpp>
#include <guild/checkpoint/load_options.hpp>
#include <guild/checkpoint/stored_stack.hpp>
#include <guild/checkpoint/weight_check.hpp>
#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/weight.hpp>
#include <guild/io/checkpoint.hpp>
#include <guild/modules/module.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

/// The second pass: reads (or maps) every tensor; those that the first pass lets be missing begin fresh.
template <class Names>
class WeightReader {
 public:
  WeightReader(const Checkpoint& checkpoint, const LoadOptions& options, std::int64_t total)
      : checkpoint_(checkpoint), finder_(checkpoint, Names::scale_suffix), options_(options), total_(total) {}

  [[gnu::noinline]] void operator()(const Path& path, MatrixShape shape, StoredMatrix& matrix) {
    const StoredTensor found = finder_.find(finder_.name_of<Names>(path), shape);
    if (found.elements == nullptr) return make_fresh(path, shape, matrix);
    const TensorInfo& info = *found.elements;
    matrix.format = found.format;
    matrix.rows = shape.rows;
    matrix.cols = shape.cols;
    matrix.data = bytes_of(info);
    if (found.scales != nullptr) {
      matrix.scales = Buffer<std::byte>::uninitialized(static_cast<Index>(found.scales->bytes));
      read_scales({.tensor = found, .scale_bytes = found.scales->bytes}, matrix.scales.data());
    }
    if (options_.check_finite) check_finite(info, matrix.view());
  }

  [[gnu::noinline]] void operator()(const Path& path, StackShape shape, StoredStack& stack) {
    const FoundStack found = find_stack<Names>(finder_, path, shape);
    if (options_.residence == Residence::mapped && !found.fused) {
      std::vector<StoredMatrix> matrices(static_cast<std::size_t>(shape.count));
      for (std::size_t e = 0; e < matrices.size(); ++e)
        with_matrix_path(path, static_cast<Index>(e),
                         [&](const Path& matrix) { (*this)(matrix, shape.matrix(), matrices[e]); });
      stack = StoredStack(std::move(matrices));
    } else {
      stack = in_one_piece(found);
    }
  }

  /// Matrix e of a stack alone, in memory of its own.
  [[nodiscard]] StoredMatrix matrix_of(const FoundStack& found, Index e) {
    const StoredPiece piece = found.piece(e);
    StoredMatrix matrix{found.format(), found.shape.rows, found.shape.cols,
                        Buffer<std::byte>::uninitialized(found.matrix_bytes()),
                        Buffer<std::byte>::uninitialized(found.scale_bytes())};
    read_elements(found, e, matrix.data.data());
    read_scales(piece, matrix.scales.data());
    if (options_.check_finite) check_finite(found, e, matrix.view());
    return matrix;
  }
  [[nodiscard]] const TensorFinder& finder() const { return finder_; }

  [[gnu::noinline]] void operator()(const Path& path, VectorShape shape, StoredVector& vector) {
    const FoundVector found = find_vector<Names>(finder_, path, shape);
    const TensorInfo* const there = checkpoint_.find(found.name);
    if (there == nullptr) return make_fresh(path, shape, vector);
    const TensorInfo& info = *there;
    const Index parts = found.rows.parts;
    StoredMatrix stored{
        info.dtype, 1, parts * shape.size, Buffer<std::byte>::uninitialized(static_cast<Index>(info.bytes)), {}};
    fetch(info, 0, info.bytes, stored.data.data());
    report(static_cast<Index>(info.bytes) / parts);
    vector.data = Buffer<float>::uninitialized(shape.size);
    if (shape.role == TensorRole::table) return expand_table(info, stored.data.data(), vector);
    const Index size = shape.size / shape.count, first = found.rows.first(size), step = found.rows.step();
    if (parts == 1)
      expand_row(stored.view(), 0, 0, shape.size, vector.data.data());
    else
      for (Index i = 0; i < shape.size; ++i)
        expand_row(stored.view(), 0, i / size * parts * size + first + i % size * step, 1, vector.data.data() + i);
    check_finite(info, stored.view());  // always: norms and biases are small, and one NaN spoils all tokens
  }

 private:
  void expand_table(const TensorInfo& info, const std::byte* stored, StoredVector& to) const {
    const auto fail = [&](Index i, std::int64_t value) {
      refuse(ErrorCode::wt_dtype,
             {"element ", i, " of the table is ", value, ", expected a whole number from 0 to 16777215"},
             At{checkpoint_.file_path(info.file), info.name});
    };
    if (info.dtype == DType::i64)
      whole_numbers<std::int64_t>(stored, to.data.size(), to.data.data(), fail);
    else
      whole_numbers<std::int32_t>(stored, to.data.size(), to.data.data(), fail);
  }
  Buffer<std::byte> bytes_of(const TensorInfo& info) {
    const auto size = static_cast<Index>(info.bytes);
    if (options_.residence == Residence::mapped && is_aligned(info)) {
      report(size);
      return share(info, 0, size);
    }
    auto buffer = Buffer<std::byte>::uninitialized(size);
    read(info, buffer.data());
    return buffer;
  }
  /// Owned, or a fused tensor where it lies in the file.
  StoredStack in_one_piece(const FoundStack& found) {
    const StackShape& shape = found.shape;
    const Index bytes = found.matrix_bytes(), scale_bytes = found.scale_bytes();
    const bool in_place = options_.residence == Residence::mapped && found.fused_in_place();
    const Index step = in_place ? found.fused->parts * bytes : bytes;
    StoredMatrix all{found.format(),
                     shape.count * shape.rows,
                     shape.cols,
                     {},
                     Buffer<std::byte>::uninitialized(shape.count * scale_bytes)};
    if (in_place) {
      const TensorInfo& info = *found.tensors[0].elements;
      const auto begin = static_cast<Index>(found.piece(0).begin);
      all.data = share(info, begin, static_cast<Index>(info.bytes) - begin);
      report(shape.count * bytes);
    } else {
      all.data = Buffer<std::byte>::uninitialized(shape.count * bytes);
    }
    const WeightView first{found.format(), all.data.data(),   shape.rows,
                           shape.cols,     all.scales.data(), found.blocks_across()};
    const StackView where{first, shape.count, step, scale_bytes};
    for (Index e = 0; e < shape.count; ++e) {
      const StoredPiece piece = found.piece(e);
      if (!in_place) read_elements(found, e, all.data.data() + e * bytes);
      read_scales(piece, all.scales.data() + e * scale_bytes);
      if (options_.check_finite) check_finite(found, e, where[e]);
    }
    return {where, std::move(all)};
  }
  Buffer<std::byte> share(const TensorInfo& info, Index begin, Index size) {
    const auto mapping = checkpoint_.map(info.file);
    const auto* tensor = reinterpret_cast<const std::byte*>(mapping->data()) + info.begin;
    return Buffer<std::byte>::share(mapping, tensor + begin, size);
  }
  void read_elements(const FoundStack& found, Index e, std::byte* to) {
    if (found.transposed()) return read_transposed(found, e, to);
    read_rows(*found.piece(e).tensor.elements, found.piece(e), static_cast<std::uint64_t>(found.shape.rows), to);
  }
  void read_rows(const TensorInfo& info, const StoredPiece& piece, std::uint64_t rows, std::byte* to) {
    if (piece.contiguous()) return read(info, piece.begin, rows * piece.row_bytes, to);
    for (std::uint64_t r = 0; r < rows; ++r)
      read(info, piece.begin + r * piece.row_step, piece.row_bytes, to + r * piece.row_bytes);
  }
  /// Row r of ours is a column of matrix e in the tensor: some lines of it at a time, and from each what is ours.
  void read_transposed(const FoundStack& found, Index e, std::byte* to) {
    constexpr Index most_bytes = Index{1} << 20;
    const Index rows = found.shape.rows, cols = found.shape.cols, size = bits(found.format().element) / 8;
    const Index line = found.fused->parts * rows * size, most = std::clamp(most_bytes / line, Index{1}, cols);
    std::vector<std::byte> lines(static_cast<std::size_t>(most * line));
    for (Index first = 0; first < cols; first += most) {
      const Index count = std::min(most, cols - first);
      fetch(*found.tensors[0].elements, static_cast<std::uint64_t>((e * cols + first) * line),
            static_cast<std::uint64_t>(count * line), lines.data());
      if (size == 4)
        copy_lines<4>(found, lines.data(), first, count, to);
      else
        copy_lines<2>(found, lines.data(), first, count, to);
    }
    report(found.matrix_bytes());
  }
  void read_scales(const StoredPiece& piece, std::byte* to) {
    if (piece.tensor.scales == nullptr) return;
    const TensorInfo& info = *piece.tensor.scales;
    if (piece.scale_row_step == 0)
      read(info, piece.scale_begin, piece.scale_bytes, to);
    else
      read_rows(info, {{}, piece.scale_begin, piece.scale_row_bytes, piece.scale_row_step},
                piece.scale_bytes / piece.scale_row_bytes, to);
    check_scales(piece, to);
  }
  void read(const TensorInfo& info, void* destination) { read(info, 0, info.bytes, destination); }
  /// Reads without a report.
  void fetch(const TensorInfo& info, std::uint64_t begin, std::uint64_t bytes, std::byte* destination) const {
    checkpoint_.read(info, begin, static_cast<std::size_t>(bytes), destination);
  }
  void read(const TensorInfo& info, std::uint64_t begin, std::uint64_t bytes, void* destination) {
    constexpr std::uint64_t most = std::uint64_t{64} << 20;
    for (std::uint64_t offset = 0; offset < bytes; offset += most) {
      const std::uint64_t size = std::min(most, bytes - offset);
      fetch(info, begin + offset, size, static_cast<std::byte*>(destination) + offset);
      report(static_cast<std::int64_t>(size));
    }
  }
  void report(std::int64_t bytes) {
    done_ += bytes;
    if (!options_.progress) return;
    const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    const double left = done_ > 0 ? elapsed * static_cast<double>(total_ - done_) / static_cast<double>(done_) : 0.0;
    if (!options_.progress({done_, total_, left}))
      refuse(ErrorCode::io_cancelled, "loading was stopped by the progress callback");
  }
  /// Scales of any type are checked as the floats they are worth.
  void check_scales(const StoredPiece& piece, const std::byte* scales) const {
    const TensorInfo& info = *piece.tensor.scales;
    const DType type = piece.tensor.format.scale;
    const Index size = bits(type) / 8, count = static_cast<Index>(piece.scale_bytes) / size;
    const Index begin = static_cast<Index>(piece.scale_begin) / size;
    const Index row = piece.scale_row_step == 0 ? count : static_cast<Index>(piece.scale_row_bytes) / size;
    const Index step = piece.scale_row_step == 0 ? count : static_cast<Index>(piece.scale_row_step) / size;
    const WeightView view{type, scales, 1, count};
    for (Index i = 0; i < count; ++i) {
      const Index at = begin + i / row * step + i % row;  // in the tensor
      float value = 0.0f;
      if (type == DType::f8_e8m0)
        value = static_cast<float>(fp8_e8m0{static_cast<std::uint8_t>(scales[i])});
      else
        expand_row(view, 0, i, 1, &value);
      if (!std::isfinite(value) || value < 0.0f)
        refuse(ErrorCode::wt_scale_value,
               {"scale ", at, " is ", value,
                ", expected a finite number, not negative; the shard is damaged, download it again"},
               At{checkpoint_.file_path(info.file), info.name, static_cast<std::int64_t>(info.begin) + at * size});
    }
  }
  void check_finite(const FoundStack& found, Index e, const WeightView& view) const {
    if (found.fused)
      check_finite(*found.tensors[0].elements, view, std::to_string(e) + ", ", *found.fused);
    else
      check_finite(*found.tensors[static_cast<std::size_t>(e)].elements, view);
  }
  /// Row r of `view` is one of the tensor, or of its part that `prefix` names: which one `fused` says.
  void check_finite(const TensorInfo& info, const WeightView& view, const std::string& prefix = "",
                    const FusedRows& fused = {}) const {
    std::vector<float> row(static_cast<std::size_t>(view.cols));
    for (Index r = 0; r < view.rows; ++r) {
      expand_row(view, r, 0, view.cols, row.data());
      for (std::size_t c = 0; c < row.size(); ++c)
        if (!std::isfinite(row[c])) {
          const Index line = fused.first(view.rows) + r * fused.step(), column = static_cast<Index>(c);
          refuse(ErrorCode::wt_nonfinite,
                 {"element [", prefix, fused.transposed ? column : line, ", ", fused.transposed ? line : column,
                  "] is NaN or infinite; the shard is damaged, download it again"},
                 At{checkpoint_.file_path(info.file), info.name});
        }
    }
  }

  const Checkpoint& checkpoint_;
  TensorFinder finder_;
  const LoadOptions& options_;
  std::int64_t total_;
  std::int64_t done_ = 0;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Bytes of physical memory; -1 where the system does not say.
inline std::int64_t machine_memory() {
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0 ? std::int64_t{pages} * page : -1;
}

/// Throws cf_memory if weights of so many bytes are more than the options allow.
inline void check_memory(const LoadOptions& options, std::int64_t bytes) {
  const std::int64_t budget = options.memory_budget == 0 ? machine_memory() : options.memory_budget;
  const std::string limit =
      (options.memory_budget == 0 ? "the machine has " : "the budget is ") + std::to_string(budget);
  if (budget > 0 && bytes > budget && options.residence == Residence::mapped)
    refuse(ErrorCode::cf_memory, {bytes,
                                  " bytes of the mapped weights must be owned all the same: norms, scales, and "
                                  "matrices that begin between two elements of their file; ",
                                  limit, "; write the file anew with aligned tensors, or allow more"});
  if (budget > 0 && bytes > budget)
    refuse(ErrorCode::cf_memory, {"the weights need ", bytes, " bytes, ", limit,
                                  "; use a smaller model, or leave the weights in the file with Residence::mapped"});
}

}  // namespace detail

/// Loads the weights of `Model` from an open checkpoint. Nothing is allocated before every name, shape and type fits.
/// Throws wt_*, cf_memory, io_*, dev_memory.
template <class Model>
[[nodiscard]] typename Model::template Weights<Published> load_weights(const Checkpoint& checkpoint,
                                                                       const LoadOptions& options = {}) {
  using Names = typename Model::Spec::Names;
  typename Model::template Weights<Published> weights;
  if (options.mtp) weights.mtp = decltype(weights.mtp)(static_cast<std::size_t>(Model::config.mtp_layers));

  const detail::WeightBytes bytes = detail::check_weights<Model>(checkpoint, options, weights);
  detail::check_memory(options, bytes.owned);

  detail::WeightReader<Names> reader(checkpoint, options, bytes.all);
  Model::visit(reader, Path(), weights);
  return weights;
}

}  // namespace v1
}  // namespace guild
