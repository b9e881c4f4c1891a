// A trained model as a Hugging Face folder, in the published layout.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <guild/checkpoint/fused_writer.hpp>
#include <guild/checkpoint/load_options.hpp>
#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/types.hpp>
#include <guild/core/weight.hpp>
#include <guild/io/atomic_folder.hpp>
#include <guild/io/config.hpp>
#include <guild/io/config_writer.hpp>
#include <guild/io/model_folder.hpp>
#include <guild/io/safetensors_writer.hpp>
#include <guild/models/name_rule.hpp>
#include <guild/modules/parameters.hpp>

namespace guild {
inline namespace v1 {

struct SaveOptions {
  /// Of the matrices: f32 (loading gives the same bits), bf16 or f16 (rounded to nearest, ties to even). Norms and
  /// selection biases are always f32: they are small, and the copies that mixed-precision training computes with have
  /// them in float too.
  DType dtype = DType::bf16;
  std::uint64_t max_shard_bytes = 5'000'000'000;
  /// A folder whose tokenizer.json, tokenizer_config.json, special_tokens_map.json, chat_template.jinja and
  /// generation_config.json are copied where they exist, and whose config.json gives the model type and special tokens
  /// that `config` leaves open. Usually the one the weights came from; it may be the one that is replaced.
  std::string companions{};
  ConfigWriteOptions config{};                      ///< its dtype is the one above, whatever it says
  std::function<bool(const Progress&)> progress{};  ///< called often; returning false stops with io_cancelled
};

namespace detail {

/// Hands a tensor of floats to a sink in the stored type, in pieces.
class ConvertedTensor {
 public:
  using Report = std::function<void(std::int64_t)>;

  ConvertedTensor(const float* values, Index size, DType dtype, Report report)
      : values_(values), size_(size), dtype_(dtype), report_(std::move(report)) {}

  void operator()(const SafetensorsWriter::Sink& sink) const {
    if (dtype_ == DType::bf16)
      convert<bf16>(sink);
    else if (dtype_ == DType::f16)
      convert<f16>(sink);
    else if (dtype_ == DType::i64)
      convert<std::int64_t>(sink);
    else
      for (Index i = 0; i < size_; i += piece) hand(sink, values_ + i, std::min(piece, size_ - i));
  }

 private:
  static constexpr Index piece = Index{1} << 18;

  template <class T>
  void hand(const SafetensorsWriter::Sink& sink, const T* values, Index count) const {
    const auto bytes = static_cast<std::size_t>(count) * sizeof(T);
    sink(values, bytes);
    report_(static_cast<std::int64_t>(bytes));
  }
  template <class T>
  void convert(const SafetensorsWriter::Sink& sink) const {
    std::vector<T> stored(static_cast<std::size_t>(std::min(piece, size_)));
    for (Index i = 0; i < size_; i += piece) {
      const Index count = std::min(piece, size_ - i);
      std::transform(values_ + i, values_ + i + count, stored.begin(), [](float value) { return T(value); });
      hand(sink, stored.data(), count);
    }
  }

  const float* values_;
  Index size_;
  DType dtype_;
  Report report_;
};

/// The tensor that `shared` ones are copies of: what is written is always the trained one, even if nobody refreshed the
/// copy.
template <class Model, class Weights>
const Buffer<float>* shared_source(const Weights& weights, const Path& path) {
  if constexpr (requires { weights.mtp; }) {
    const std::string_view owner = path.parent()->name();
    if (owner == "mtp_embedding" || (owner == "mtp_head" && Model::config.tied_embeddings))
      return &weights.embedding.weight.data;
    if (owner == "mtp_head") return &weights.head.weight.data;
  }
  return nullptr;
}

/// Visits a model and says what is written of it; what is to be fused is collected.
template <class Model, class Report>
struct TensorsToWrite {
  using Names = typename Model::Spec::Names;
  const typename Model::template Weights<Dense<float>>& weights;
  DType dtype;
  SafetensorsWriter& writer;
  FusedTensors& fused;
  const Report& report;

  [[gnu::noinline]] void operator()(const Path& path, const MatrixShape& shape, const DenseMatrix<float>& own) const {
    const Buffer<float>* source = shape.role == TensorRole::shared ? shared_source<Model>(weights, path) : nullptr;
    add(path, shape_of(shape), source != nullptr ? *source : own.data);
  }
  [[gnu::noinline]] void operator()(const Path& path, const VectorShape& shape, const DenseVector<float>& own) const {
    if (shape.role == TensorRole::table)
      return add(path, {2, shape.count, shape.size / shape.count}, own.data, DType::i64);
    const auto where = shape.count > 1 ? fused_name<Names>(path) : std::nullopt;
    if (!where) return add(path, shape_of(shape), own.data);
    require_allocated(path, shape_of(shape), own.data, "the tensor to be saved");
    fused.add(*where, own.data.data(), shape.count, shape.size / shape.count, 1, true);
  }
  /// Matrix by matrix, or all of them as a part of a tensor.
  [[gnu::noinline]] void operator()(const Path& path, const StackShape& shape, const DenseStack<float>& own) const {
    if constexpr (writes_fused<Names>) {
      if (const auto where = fused_name<Names>(path)) {
        require_allocated(path, {2, shape.count * shape.rows, shape.cols}, own.data, "the tensor to be saved");
        return fused.add(*where, own.data.data(), shape.count, shape.rows, shape.cols, false);
      }
    }
    const auto each = [this](const Path& one, const TensorShape& size, TensorRole, const Buffer<float>& data) {
      add(one, size, data);
    };
    TensorVisitor<decltype(each)>{each}(path, shape, own);
  }

 private:
  void add(const Path& path, const TensorShape& shape, const Buffer<float>& data) const {
    add(path, shape, data, shape.dimensions == 2 ? dtype : DType::f32);
  }
  void add(const Path& path, const TensorShape& shape, const Buffer<float>& data, DType type) const {
    require_allocated(path, shape, data, "the tensor to be saved");
    const bool matrix = shape.dimensions == 2;
    writer.add(published_name<Names>(path), type,
               matrix ? std::vector<std::int64_t>{shape.rows, shape.cols} : std::vector<std::int64_t>{shape.rows},
               ConvertedTensor(data.data(), data.size(), type, report));
  }
};

/// The numbers of config.json that SaveOptions leave open, from the config.json of the companions.
template <class Family>
ConfigWriteOptions completed(ConfigWriteOptions config, const SaveOptions& options) {
  config.dtype = options.dtype;
  if (options.companions.empty() || !ModelFolder(options.companions).exists("config.json")) return config;
  const PublishedConfig source = read_config<Family>(options.companions);
  if constexpr (!requires { Family::written_type; })
    if (config.model_type.empty()) config.model_type = source.model_type;
  if (!config.bos) config.bos = source.bos;
  if (config.eos.empty()) config.eos = source.eos;
  if (!config.pad) config.pad = source.pad;
  return config;
}

inline void copy_companions(AtomicFolder& folder, const std::string& source) {
  const ModelFolder from(source);
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
                           "generation_config.json"})
    if (from.exists(name)) folder.copy(from.path_of(name), name);
}

}  // namespace detail

/// Writes config.json, the weights and their companions into a folder that is being saved; commit it afterwards. The
/// prediction layers are written if `weights` have them. Throws op_shape (a tensor without memory), op_argument (a
/// dtype that is none), io_cancelled, io_open, and the codes of AtomicFolder.
template <class Model>
void save_model(AtomicFolder& folder, const typename Model::template Weights<Dense<float>>& weights,
                const SaveOptions& options = {}) {
  using Family = typename Model::Spec::Family;
  write_config<Family>(folder, config_of<typename Model::Spec>, detail::completed<Family>(options.config, options));
  std::int64_t done = 0, total = 0;
  const auto start = std::chrono::steady_clock::now();
  const auto report = [&](std::int64_t bytes) {
    done += bytes;
    if (!options.progress) return;
    const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const double left = done > 0 ? elapsed * static_cast<double>(total - done) / static_cast<double>(done) : 0.0;
    if (!options.progress({done, total, left}))
      detail::refuse(ErrorCode::io_cancelled, "saving was stopped by the progress callback", detail::At{folder.path()});
  };
  SafetensorsWriter writer;
  detail::FusedTensors fused;
  Model::visit(detail::TensorsToWrite<Model, decltype(report)>{weights, options.dtype, writer, fused, report}, Path{},
               weights);
  for (const auto& [name, tensor] : fused.ready()) {
    const DType dtype = tensor.vectors ? DType::f32 : options.dtype;
    writer.add(name, dtype, tensor.shape(), [&tensor, dtype, report](const SafetensorsWriter::Sink& sink) {
      tensor.for_each_line(
          [&](const float* values, Index count) { detail::ConvertedTensor(values, count, dtype, report)(sink); });
    });
  }
  total = static_cast<std::int64_t>(writer.total_bytes());
  writer.write(folder, {.max_shard_bytes = options.max_shard_bytes});
  if (!options.companions.empty()) detail::copy_companions(folder, options.companions);
}

/// Saves a folder of its own: whole or not at all, in place of an older one.
template <class Model>
void save_model(const std::string& path, const typename Model::template Weights<Dense<float>>& weights,
                const SaveOptions& options = {}) {
  AtomicFolder folder(path);
  save_model<Model>(folder, weights, options);
  folder.commit();
}

}  // namespace v1
}  // namespace guild
