// From a checkpoint folder to the weights of a model: every tensor is checked before the first byte is allocated.
#pragma once

#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/weight.hpp>
#include <guild/inference/load_options.hpp>
#include <guild/io/checkpoint.hpp>
#include <guild/modules/module.hpp>

namespace guild::inline v1 {

namespace detail {

/// The first pass: compares names, shapes and types of a model with a checkpoint, and counts bytes.
template <class Names>
class WeightCheck {
 public:
  explicit WeightCheck(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  template <class Tensor>
  void operator()(const Path& path, MatrixShape shape, Tensor&) {
    const std::string name = Names::name(path);
    const TensorInfo* info = find(name);
    if (info == nullptr) return;
    if (info->shape.size() != 2 || info->shape[0] != shape.rows || info->shape[1] != shape.cols) {
      const bool transposed = info->shape.size() == 2 && info->shape[0] == shape.cols && info->shape[1] == shape.rows;
      fail(ErrorCode::wt_shape, *info,
           "has shape " + text(info->shape) + ", the model needs " + text({shape.rows, shape.cols}) +
               (transposed ? ": it is transposed; weights are stored [outputs, inputs]" : ""));
    }
    if (info->dtype == DType::f8_e4m3) return check_scale(*info, shape);
    if (info->dtype != DType::f32 && info->dtype != DType::bf16 && info->dtype != DType::f16)
      fail(ErrorCode::wt_dtype, *info,
           "is stored as " + std::string(guild::name(info->dtype)) +
               ", expected F32, BF16, F16 or F8_E4M3; convert the checkpoint to one of them");
  }

  template <class Tensor>
  void operator()(const Path& path, VectorShape shape, Tensor&) {
    const TensorInfo* info = find(Names::name(path));
    if (info == nullptr) return;
    if (info->shape.size() != 1 || info->shape[0] != shape.size)
      fail(ErrorCode::wt_shape, *info, "has shape " + text(info->shape) + ", the model needs " + text({shape.size}));
    if (info->dtype != DType::f32 && info->dtype != DType::bf16 && info->dtype != DType::f16)
      fail(ErrorCode::wt_dtype, *info,
           "is stored as " + std::string(guild::name(info->dtype)) + ", expected F32, BF16 or F16");
  }

  /// Call after the walk. Tensors whose name starts with one of `skipped` may be there unused.
  void finish(const std::vector<std::string>& skipped) const {
    if (!missing_.empty())
      throw Error(ErrorCode::wt_missing,
                  std::to_string(missing_count_) +
                      " tensors of the model are not in the "
                      "checkpoint: " +
                      join(missing_) + (missing_count_ > missing_.size() ? ", ..." : "") +
                      "; the folder is incomplete or holds another model",
                  {folder(), missing_.front(), -1});
    std::vector<std::string> extra;
    std::size_t count = 0;
    for (const TensorInfo& info : checkpoint_.tensors()) {
      if (used_.contains(info.name) || is_skipped(info.name, skipped)) continue;
      if (info.name.ends_with(Names::scale_suffix)) {
        const std::string base = info.name.substr(0, info.name.size() - Names::scale_suffix.size());
        const TensorInfo* matrix = checkpoint_.find(base);
        if (matrix != nullptr && matrix->dtype != DType::f8_e4m3)
          fail(ErrorCode::wt_scale_orphan, info,
               "scales \"" + base + "\", which is stored as " + std::string(guild::name(matrix->dtype)) +
                   "; only F8_E4M3 has scales");
      }
      if (++count <= listed) extra.push_back(info.name);
    }
    if (!extra.empty())
      throw Error(ErrorCode::wt_unexpected,
                  std::to_string(count) + " tensors of the checkpoint are not in the model: " + join(extra) +
                      (count > extra.size() ? ", ..." : "") + "; the folder holds another model than config.json says",
                  {folder(), extra.front(), -1});
  }

  [[nodiscard]] std::int64_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t listed = 20;

  const TensorInfo* find(const std::string& name) {
    const TensorInfo* info = checkpoint_.find(name);
    if (info == nullptr) {
      if (++missing_count_ <= listed) missing_.push_back(name);
    } else {
      used_.insert(info->name);
      bytes_ += static_cast<std::int64_t>(info->bytes);
    }
    return info;
  }
  void check_scale(const TensorInfo& info, MatrixShape shape) {
    const std::string name = info.name + std::string(Names::scale_suffix);
    const TensorInfo* scale = checkpoint_.find(name);
    if (scale == nullptr)
      fail(
          ErrorCode::wt_scale_missing, info,
          "is stored as F8_E4M3, but \"" + name +
              "\" is not in the checkpoint; without its scales the weight has no value. Download the checkpoint again");
    const std::int64_t rows = (shape.rows + scale_block - 1) / scale_block,
                       cols = (shape.cols + scale_block - 1) / scale_block;
    if (scale->shape.size() != 2 || scale->shape[0] != rows || scale->shape[1] != cols)
      fail(ErrorCode::wt_scale_shape, *scale,
           "has shape " + text(scale->shape) + ", expected " + text({rows, cols}) +
               ": one scale for each block of 128 x 128");
    if (scale->dtype != DType::f32)
      fail(ErrorCode::wt_dtype, *scale, "is stored as " + std::string(guild::name(scale->dtype)) + ", expected F32");
    used_.insert(scale->name);
    bytes_ += static_cast<std::int64_t>(scale->bytes);
  }
  static bool is_skipped(std::string_view name, const std::vector<std::string>& skipped) {
    for (const std::string& prefix : skipped)
      if (name.starts_with(prefix)) return true;
    return name.ends_with(".rotary_emb.inv_freq");  // derived values that old exporters wrote
  }
  [[noreturn]] void fail(ErrorCode code, const TensorInfo& info, const std::string& message) const {
    throw Error(code, message, {checkpoint_.file_path(info.file), info.name, -1});
  }
  [[nodiscard]] std::string folder() const {
    const std::string path = checkpoint_.file_path(0);
    return path.substr(0, path.find_last_of('/'));
  }
  static std::string text(const std::vector<std::int64_t>& shape) {
    std::string out = "[";
    for (std::size_t i = 0; i < shape.size(); ++i) out += (i > 0 ? ", " : "") + std::to_string(shape[i]);
    return out + "]";
  }
  static std::string join(const std::vector<std::string>& names) {
    std::string out;
    for (const std::string& name : names) out += (out.empty() ? "" : ", ") + name;
    return out;
  }

  const Checkpoint& checkpoint_;
  std::set<std::string_view> used_;
  std::vector<std::string> missing_;
  std::size_t missing_count_ = 0;
  std::int64_t bytes_ = 0;
};

/// The second pass: reads (or maps) every tensor.
template <class Names>
class WeightReader {
 public:
  WeightReader(const Checkpoint& checkpoint, const LoadOptions& options, std::int64_t total)
      : checkpoint_(checkpoint), options_(options), total_(total) {}

  void operator()(const Path& path, MatrixShape shape, StoredMatrix& matrix) {
    const TensorInfo& info = *checkpoint_.find(Names::name(path));
    matrix.type = info.dtype;
    matrix.rows = shape.rows;
    matrix.cols = shape.cols;
    matrix.data = bytes_of(info);
    if (info.dtype == DType::f8_e4m3) {
      const TensorInfo& scale = *checkpoint_.find(info.name + std::string(Names::scale_suffix));
      matrix.scale = Buffer<float>::uninitialized(static_cast<Index>(scale.bytes / sizeof(float)));
      read(scale, matrix.scale.data());
      for (Index i = 0; i < matrix.scale.size(); ++i)
        if (!std::isfinite(matrix.scale[i]) || matrix.scale[i] < 0.0f)
          throw Error(ErrorCode::wt_scale_value,
                      "scale " + std::to_string(i) + " is " + std::to_string(matrix.scale[i]) +
                          ", expected a finite number, not negative; the shard is damaged, download it again",
                      {checkpoint_.file_path(scale.file), scale.name, static_cast<std::int64_t>(scale.begin) + i * 4});
    }
    if (options_.check_finite) check_finite(info, matrix.view());
  }

  void operator()(const Path& path, VectorShape shape, StoredVector& vector) {
    const TensorInfo& info = *checkpoint_.find(Names::name(path));
    StoredMatrix stored;
    stored.type = info.dtype;
    stored.rows = 1;
    stored.cols = shape.size;
    stored.data = Buffer<std::byte>::uninitialized(static_cast<Index>(info.bytes));
    read(info, stored.data.data());
    vector.data = Buffer<float>::uninitialized(shape.size);
    for (Index i = 0; i < shape.size; ++i) vector.data[i] = stored.view().at(0, i);
    check_finite(info, stored.view());  // always: norms and biases are small, and one NaN spoils all tokens
  }

 private:
  Buffer<std::byte> bytes_of(const TensorInfo& info) {
    const auto size = static_cast<Index>(info.bytes);
    const auto alignment = static_cast<std::uint64_t>(bits(info.dtype) / 8);
    if (options_.residence == Residence::mapped && info.begin % alignment == 0) {
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
  void check_finite(const TensorInfo& info, const WeightView& view) const {
    for (Index r = 0; r < view.rows; ++r)
      for (Index c = 0; c < view.cols; ++c)
        if (!std::isfinite(view.at(r, c)))
          throw Error(ErrorCode::wt_nonfinite,
                      "element [" + std::to_string(r) + ", " + std::to_string(c) +
                          "] is NaN or infinite; the shard is damaged, download it again",
                      {checkpoint_.file_path(info.file), info.name, -1});
  }

  const Checkpoint& checkpoint_;
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

}  // namespace detail

/// Loads the weights of `Model` from an open checkpoint. Nothing is allocated before every name, shape and type fits.
/// Throws wt_*, cf_memory, io_*, dev_memory.
template <class Model>
[[nodiscard]] typename Model::template Weights<Published> load_weights(const Checkpoint& checkpoint,
                                                                       const LoadOptions& options = {}) {
  using Names = typename Model::Spec::Names;
  typename Model::template Weights<Published> weights;
  if (options.mtp) weights.mtp.resize(static_cast<std::size_t>(Model::config.mtp_layers));

  detail::WeightCheck<Names> check(checkpoint);
  Model::visit(check, Path(), weights);
  std::vector<std::string> skipped;
  const Path root, layers = root / "layers";
  for (int i = 0; !options.mtp && i < Model::config.mtp_layers; ++i)
    skipped.push_back(Names::name(layers / (Model::config.layers + i)) + ".");
  if (Model::config.tied_embeddings) skipped.push_back(Names::name(root / "head"));
  check.finish(skipped);
  const std::int64_t budget = options.memory_budget == 0 ? detail::machine_memory() : options.memory_budget;
  if (budget > 0 && options.residence == Residence::owned && check.bytes() > budget)
    throw Error(ErrorCode::cf_memory,
                "the weights need " + std::to_string(check.bytes()) + " bytes, " +
                    (options.memory_budget == 0 ? "the machine has " : "the budget is ") + std::to_string(budget) +
                    "; use a smaller model, or leave the weights in the file with Residence::mapped");

  detail::WeightReader<Names> reader(checkpoint, options, check.bytes());
  Model::visit(reader, Path(), weights);
  return weights;
}

}  // namespace guild::inline v1
