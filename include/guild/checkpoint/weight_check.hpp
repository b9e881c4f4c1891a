// Whether a checkpoint holds the weights of a model: names, shapes and types, before anything is allocated.
#pragma once

#include <cstdint>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <guild/checkpoint/load_options.hpp>
#include <guild/checkpoint/stored_stack.hpp>
#include <guild/core/config.hpp>
#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/weight.hpp>
#include <guild/io/checkpoint.hpp>
#include <guild/io/config.hpp>
#include <guild/models/name_rule.hpp>
#include <guild/modules/module.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

/// The first pass: compares names, shapes and types of a model with a checkpoint, and counts bytes.
template <class Names>
class WeightCheck {
 public:
  WeightCheck(const Checkpoint& checkpoint, Residence residence)
      : checkpoint_(checkpoint), finder_(checkpoint, Names::scale_suffix), residence_(residence) {}

  template <class Tensor>
  [[gnu::noinline]] void operator()(const Path& path, MatrixShape shape, Tensor&) {
    const std::string name = finder_.name_of<Names>(path);
    const StoredTensor found = finder_.find(name, shape);
    if (begins_fresh(path, name, found.elements, shape.rows * shape.cols)) return;
    take(found, name);
  }

  template <class Tensor>
  [[gnu::noinline]] void operator()(const Path& path, StackShape shape, Tensor&) {
    const FoundStack found = find_stack<Names>(finder_, path, shape);
    if (found.absent()) return absent_.push_back(found);
    if (!found.fused) {
      for (std::size_t e = 0; e < found.names.size(); ++e) take(found.tensors[e], found.names[e]);
      return;
    }
    has_fused_ = true;
    // The parts of a fused tensor are walked one by one; each counts its share.
    const StoredTensor& tensor = found.tensors[0];
    used_.insert(tensor.elements->name);
    if (tensor.scales != nullptr) used_.insert(tensor.scales->name);
    const std::int64_t elements = shape.count * found.matrix_bytes(), scales = shape.count * found.scale_bytes();
    bytes_.all += elements + scales;
    bytes_.owned += (residence_ == Residence::mapped && found.fused_in_place() ? 0 : elements) + scales;
  }

  template <class Tensor>
  [[gnu::noinline]] void operator()(const Path& path, VectorShape shape, Tensor&) {
    const FoundVector found = find_vector<Names>(finder_, path, shape);
    const TensorInfo* info = checkpoint_.find(found.name);
    if (begins_fresh(path, found.name, info, shape.size)) return;
    const bool counted = info != nullptr && used_.contains(info->name);  // by another part of the same tensor
    if (counted || take(info, found.name) == nullptr) return;
    if (info->shape != found.shape)
      fail(ErrorCode::wt_shape, *info,
           {"has shape ", shape_list(info->shape), ", the model needs ", shape_list(found.shape)});
    if (shape.role == TensorRole::table) {
      if (info->dtype != DType::i64 && info->dtype != DType::i32)
        fail(ErrorCode::wt_dtype, *info, {"is stored as ", info->type_name, ", expected I64 or I32"});
    } else if (info->dtype != DType::f32 && info->dtype != DType::bf16 && info->dtype != DType::f16) {
      fail(ErrorCode::wt_dtype, *info, {"is stored as ", info->type_name, ", expected F32, BF16 or F16"});
    }
  }

  /// Call after the walk of a model. Unused prediction layers, matrices of experts that give their input, and the head
  /// of tied embeddings may be there.
  void finish(const TrunkConfig& trunk, const TopKConfig& routing, bool with_mtp) {
    note_absent_stacks();
    for (const auto& [part, extension] : extensions_)
      if (extension.there > 0)
        for (const std::string& name : extension.missing) note_missing(name);
    std::vector<std::string> skipped;
    const Path root, layers = root / "layers";
    for (int i = 0; !with_mtp && i < trunk.mtp_layers; ++i)
      skipped.push_back(published_name<Names>(layers / (trunk.layers + i)) + ".");
    for (int i = 0; routing.identities > 0 && i < trunk.layers; ++i) {
      const Path layer = layers / i, feed_forward = layer / "feed_forward", experts = feed_forward / "experts";
      for (int e = routing.experts; e < routing.over_all().experts; ++e) {
        const Path expert = experts / e;
        for (const char* part : {"gate", "up"}) skipped.push_back(published_name<Names>(expert / part) + ".");
      }
    }
    if constexpr (requires { Names::skipped; })
      skipped.insert(skipped.end(), std::begin(Names::skipped), std::end(Names::skipped));
    if (trunk.tied_embeddings) skipped.push_back(published_name<Names>(root / "head"));
    if (!missing_.empty())
      refuse(ErrorCode::wt_missing,
             {missing_count_,
              " tensors of the model are not in the "
              "checkpoint: ",
              join(missing_), (missing_count_ > missing_.size() ? ", ..." : ""),
              "; the folder is incomplete or holds another model"},
             At{folder(), missing_.front()});
    std::vector<std::string> extra;
    std::size_t count = 0;
    for (const TensorInfo& info : checkpoint_.tensors()) {
      if (used_.contains(info.name) || is_skipped(info.name, skipped)) continue;
      if (info.name.ends_with(Names::scale_suffix)) {
        std::string base = info.name.substr(0, info.name.size() - Names::scale_suffix.size());
        if (Names::scale_suffix.starts_with('.')) base += ".weight";
        const TensorInfo* matrix = checkpoint_.find(base);
        if (matrix != nullptr && matrix->dtype != DType::f8_e4m3 && matrix->dtype != DType::i8)
          fail(ErrorCode::wt_scale_orphan, info,
               {"scales \"", base, "\", which is stored as ", guild::name(matrix->dtype), "; only F8_E4M3 has scales"});
      }
      if (++count <= listed) extra.push_back(info.name);
    }
    if (!extra.empty())
      refuse(ErrorCode::wt_unexpected,
             {count, " tensors of the checkpoint are not in the model: ", join(extra),
              (count > extra.size() ? ", ..." : ""), "; ", place_of(extra.front()),
              "; the folder holds another model than config.json says"},
             At{folder(), extra.front()});
  }

  [[nodiscard]] WeightBytes bytes() const { return bytes_; }
  /// Which extensions are not in the checkpoint, as a sentence; empty if all are.
  [[nodiscard]] std::string fresh() const {
    std::vector<std::string> parts;
    std::size_t tensors = 0, count = 0;
    for (const auto& [part, extension] : extensions_) {
      if (extension.missing.empty()) continue;
      tensors += extension.missing.size();
      if (++count <= listed) parts.push_back(part);
    }
    if (count == 0) return {};
    return text_of({tensors, " tensors of extensions are not in ", folder(),
                    " and begin as those of a fresh model: ", join(parts), (count > parts.size() ? ", ..." : "")});
  }

 private:
  static constexpr std::size_t listed = 20;

  /// A part of a model that extends a published one: all of its tensors are there, or none.
  struct Extension {
    std::size_t there = 0;
    std::vector<std::string> missing{};
  };

  /// True for a tensor of an extension that is not there.
  bool begins_fresh(const Path& path, const std::string& name, const TensorInfo* info, Index elements) {
    const std::string part = extension_of<Names>(path);
    if (part.empty()) return false;
    Extension& extension = extensions_[part];
    if (info != nullptr) return ++extension.there, false;
    extension.missing.push_back(name);
    bytes_.owned += elements * std::int64_t{sizeof(float)};
    return true;
  }
  void take(const StoredTensor& found, const std::string& name) {
    take(found.elements, name);
    if (found.elements != nullptr && residence_ == Residence::mapped && is_aligned(*found.elements))
      bytes_.owned -= static_cast<std::int64_t>(found.elements->bytes);
    if (found.scales != nullptr) take(found.scales, name);
  }
  /// Counts a tensor that was found, or notes the name of one that was not.
  const TensorInfo* take(const TensorInfo* info, const std::string& name) {
    if (info == nullptr) {
      note_missing(name);
    } else {
      used_.insert(info->name);
      bytes_.all += static_cast<std::int64_t>(info->bytes);
      bytes_.owned += static_cast<std::int64_t>(info->bytes);
    }
    return info;
  }
  void note_missing(const std::string& name) {
    if (++missing_count_ <= listed) missing_.push_back(name);
  }
  /// Stacks that are missing altogether are called as the file would call them: fused if it fuses others.
  void note_absent_stacks() {
    std::set<std::string> fused;
    for (const FoundStack& stack : absent_) {
      if (has_fused_ && stack.fused_name) {
        if (fused.insert(*stack.fused_name).second) note_missing(*stack.fused_name);
      } else {
        for (const std::string& name : stack.names) note_missing(name);
      }
    }
  }
  /// Where a tensor that the model has not would belong in it, by its name.
  static std::string place_of(const std::string& name) {
    const std::vector<std::string> paths = our_paths<Names>(name);
    return paths.empty() ? "no part of the model has names like \"" + name + "\""
                         : "\"" + name + "\" would be " + join(paths) + " of the model";
  }
  static bool is_skipped(std::string_view name, const std::vector<std::string>& skipped) {
    for (const std::string& prefix : skipped)
      if (name.starts_with(prefix)) return true;
    return name.ends_with(".rotary_emb.inv_freq");  // derived values that old exporters wrote
  }
  [[noreturn]] void fail(ErrorCode code, const TensorInfo& info, ErrorText message) const {
    refuse(code, message, At{checkpoint_.file_path(info.file), info.name});
  }
  [[nodiscard]] std::string folder() const {
    const std::string path = checkpoint_.file_path(0);
    return path.substr(0, path.find_last_of('/'));
  }
  static std::string join(const std::vector<std::string>& names) {
    std::string out;
    for (const std::string& name : names) out += (out.empty() ? "" : ", ") + name;
    return out;
  }

  const Checkpoint& checkpoint_;
  TensorFinder finder_;
  std::set<std::string_view> used_;
  std::vector<FoundStack> absent_;
  std::map<std::string, Extension> extensions_;
  bool has_fused_ = requires { Names::fused_experts; };
  std::vector<std::string> missing_;
  std::size_t missing_count_ = 0;
  Residence residence_;
  WeightBytes bytes_;
};

/// Throws wt_* unless the checkpoint holds exactly the tensors that visit walks in `weights`, in any store, but for
/// whole extensions. Returns their bytes.
template <class Model, class Weights>
WeightBytes check_weights(const Checkpoint& checkpoint, const LoadOptions& options, Weights& weights) {
  using Names = typename Model::Spec::Names;
  WeightCheck<Names> check(checkpoint, options.residence);
  Model::visit(check, Path(), weights);
  check.finish(Model::config, part_or(config_of<typename Model::Spec>, TopKConfig{.experts = 0}), options.mtp);
  if (const std::string fresh = check.fresh(); options.warn && !fresh.empty()) options.warn(fresh);
  return check.bytes();
}

}  // namespace detail

/// Throws cf_quant when the file's fp8 weights share scales in other blocks than 128 x 128.
inline void check_scale_blocks(const PublishedConfig& config) {
  if (config.quantization && config.quantization->fp8 &&
      (config.quantization->block_rows != scale_block || config.quantization->block_cols != scale_block))
    detail::refuse(ErrorCode::cf_quant,
                   {"the blocks that share a scale are ", config.quantization->block_rows, " x ",
                    config.quantization->block_cols, "; only 128 x 128 is supported"},
                   detail::At{config.path, "quantization_config.weight_block_size"});
}

}  // namespace v1
}  // namespace guild
