// From a checkpoint folder to the weights of a model: every tensor is checked before the first byte is allocated.
#pragma once

#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/weight.hpp>
#include <guild/inference/load_options.hpp>
#include <guild/inference/weight_check.hpp>
#include <guild/io/checkpoint.hpp>
#include <guild/modules/module.hpp>

namespace guild::inline v1 {

namespace detail {

/// The second pass: reads (or maps) every tensor.
template <class Names>
class WeightReader {
 public:
  WeightReader(const Checkpoint& checkpoint, const LoadOptions& options, std::int64_t total)
      : checkpoint_(checkpoint), finder_(checkpoint, Names::scale_suffix), options_(options), total_(total) {}

  void operator()(const Path& path, MatrixShape shape, StoredMatrix& matrix) {
    const StoredTensor found = finder_.find(Names::name(path), shape);
    const TensorInfo& info = *found.elements;
    matrix.format = found.format;
    matrix.rows = shape.rows;
    matrix.cols = shape.cols;
    matrix.data = bytes_of(info);
    if (found.scales != nullptr) {
      matrix.scales = Buffer<std::byte>::uninitialized(static_cast<Index>(found.scales->bytes));
      read(*found.scales, matrix.scales.data());
      check_scales(*found.scales, found.format.scale, matrix.scales);
    }
    if (options_.check_finite) check_finite(info, matrix.view());
  }

  void operator()(const Path& path, VectorShape shape, StoredVector& vector) {
    const TensorInfo& info = *checkpoint_.find(Names::name(path));
    StoredMatrix stored;
    stored.format = info.dtype;
    stored.rows = 1;
    stored.cols = shape.size;
    stored.data = Buffer<std::byte>::uninitialized(static_cast<Index>(info.bytes));
    read(info, stored.data.data());
    vector.data = Buffer<float>::uninitialized(shape.size);
    expand_row(stored.view(), 0, 0, shape.size, vector.data.data());
    check_finite(info, stored.view());  // always: norms and biases are small, and one NaN spoils all tokens
  }

 private:
  Buffer<std::byte> bytes_of(const TensorInfo& info) {
    const auto size = static_cast<Index>(info.bytes);
    if (options_.residence == Residence::mapped && is_aligned(info)) {
      const auto mapping = checkpoint_.map(info.file);
      report(size);
      return Buffer<std::byte>::share(mapping, reinterpret_cast<const std::byte*>(mapping->data()) + info.begin, size);
    }
    auto buffer = Buffer<std::byte>::uninitialized(size);
    read(info, buffer.data());
    return buffer;
  }
  void read(const TensorInfo& info, void* destination) {
    constexpr std::uint64_t piece = std::uint64_t{64} << 20;
    for (std::uint64_t offset = 0; offset < info.bytes; offset += piece) {
      const std::uint64_t size = std::min(piece, info.bytes - offset);
      checkpoint_.read(info, offset, static_cast<std::size_t>(size), static_cast<std::byte*>(destination) + offset);
      report(static_cast<std::int64_t>(size));
    }
  }
  void report(std::int64_t bytes) {
    done_ += bytes;
    if (!options_.progress) return;
    const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    const double left = done_ > 0 ? elapsed * static_cast<double>(total_ - done_) / static_cast<double>(done_) : 0.0;
    if (!options_.progress({done_, total_, left}))
      throw Error(ErrorCode::io_cancelled, "loading was stopped by the progress callback");
  }
  /// Scales of any type are checked as the floats they are worth.
  void check_scales(const TensorInfo& info, DType type, const Buffer<std::byte>& scales) const {
    const Index size = bits(type) / 8, count = scales.size() / size;
    const WeightView view{type, scales.data(), 1, count};
    for (Index i = 0; i < count; ++i) {
      float value = 0.0f;
      if (type == DType::f8_e8m0)
        value = static_cast<float>(fp8_e8m0{static_cast<std::uint8_t>(scales[i])});
      else
        expand_row(view, 0, i, 1, &value);
      if (!std::isfinite(value) || value < 0.0f)
        throw Error(ErrorCode::wt_scale_value,
                    "scale " + std::to_string(i) + " is " + std::to_string(value) +
                        ", expected a finite number, not negative; the shard is damaged, download it again",
                    {checkpoint_.file_path(info.file), info.name, static_cast<std::int64_t>(info.begin) + i * size});
    }
  }
  void check_finite(const TensorInfo& info, const WeightView& view) const {
    std::vector<float> row(static_cast<std::size_t>(view.cols));
    for (Index r = 0; r < view.rows; ++r) {
      expand_row(view, r, 0, view.cols, row.data());
      for (std::size_t c = 0; c < row.size(); ++c)
        if (!std::isfinite(row[c]))
          throw Error(ErrorCode::wt_nonfinite,
                      "element [" + std::to_string(r) + ", " + std::to_string(c) +
                          "] is NaN or infinite; the shard is damaged, download it again",
                      {checkpoint_.file_path(info.file), info.name, -1});
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
    throw Error(ErrorCode::cf_memory, std::to_string(bytes) +
                                          " bytes of the mapped weights must be owned all the same: norms, scales, and "
                                          "matrices that begin between two elements of their file; " +
                                          limit + "; write the file anew with aligned tensors, or allow more");
  if (budget > 0 && bytes > budget)
    throw Error(ErrorCode::cf_memory,
                "the weights need " + std::to_string(bytes) + " bytes, " + limit +
                    "; use a smaller model, or leave the weights in the file with Residence::mapped");
}

}  // namespace detail

/// Loads the weights of `Model` from an open checkpoint. Nothing is allocated before every name, shape and type fits.
/// Throws wt_*, cf_memory, io_*, dev_memory.
template <class Model>
[[nodiscard]] typename Model::template Weights<Published> load_weights(const Checkpoint& checkpoint,
                                                                       const LoadOptions& options = {}) {
  using Names = typename Model::Spec::Names;
  typename Model::template Weights<Published> weights;
  if (options.mtp) weights.mtp.resize(static_cast<std::size_t>(Model::config.mtp_layers));

  const detail::WeightBytes bytes = detail::check_weights<Model>(checkpoint, options, weights);
  detail::check_memory(options, bytes.owned);

  detail::WeightReader<Names> reader(checkpoint, options, bytes.all);
  Model::visit(reader, Path(), weights);
  return weights;
}

}  // namespace guild::inline v1
