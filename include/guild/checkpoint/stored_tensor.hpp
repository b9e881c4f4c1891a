// Where a checkpoint holds a matrix: the tensor with its elements, the one with its scales, and the format they make.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/format.hpp>
#include <guild/core/path.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/checkpoint.hpp>
#include <guild/models/name_rule.hpp>
#include <guild/modules/module.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

inline std::string shape_list(const std::vector<std::int64_t>& shape) {
  std::string out = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) out += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

/// True if the elements can be read where they lie in the file; if not they are copied, mapped or not.
[[nodiscard]] inline bool is_aligned(const TensorInfo& info) {
  const int bytes = bits(info.dtype) / 8;
  return bytes <= 1 || info.begin % static_cast<std::uint64_t>(bytes) == 0;
}

/// Bytes of weights: all of them, and those that are in memory of the process after loading.
struct WeightBytes {
  std::int64_t all = 0;
  std::int64_t owned = 0;
};

/// A matrix as found; without `elements` it is not there.
struct StoredTensor {
  Format format;
  const TensorInfo* elements = nullptr;
  const TensorInfo* scales = nullptr;
};

/// Names that files add to a matrix's own for its parts: MXFP4 in the layout of compressed-tensors.
inline constexpr std::string_view packed_suffix = "_packed", packed_scale_suffix = "_scale";
/// The same to a fused tensor's: MXFP4 in the layout of GPT-OSS.
inline constexpr std::string_view blocks_suffix = "_blocks", block_scales_suffix = "_scales";

/// The name of the scales of an f8_e4m3 matrix: `suffix` follows its own, or is a step in place of the last.
[[nodiscard]] inline std::string scales_name(std::string_view name, std::string_view suffix) {
  if (suffix.starts_with('.')) name = name.substr(0, name.rfind('.'));
  return std::string(name).append(suffix);
}

class TensorFinder {
 public:
  /// `scale_suffix` makes the names of scales, see scales_name.
  TensorFinder(const Checkpoint& checkpoint, std::string_view scale_suffix)
      : checkpoint_(checkpoint), scale_suffix_(scale_suffix) {}

  /// The name of a matrix or vector: of several spellings the one that is there, or else the first.
  template <class Names>
  [[nodiscard]] std::string name_of(const Path& path) const {
    const std::vector<std::string> names = published_names<Names>(path);
    for (const std::string& name : names)
      if (names.size() > 1 && has(name)) return name;
    return names.front();
  }

  /// Finds a matrix and checks shapes and types. Throws wt_shape, wt_dtype, wt_scale_missing, wt_scale_shape.
  [[nodiscard]] StoredTensor find(const std::string& name, MatrixShape shape) const {
    StoredTensor found;
    found.elements = checkpoint_.find(name);
    if (found.elements == nullptr) {
      found.elements = checkpoint_.find(name + std::string(packed_suffix));
      if (found.elements != nullptr) find_packed(found, shape, name + std::string(packed_scale_suffix));
      return found;
    }
    if (found.elements->dtype == DType::i8 && scale_suffix_.starts_with('.')) {
      find_packed(found, shape, scales_name(name, scale_suffix_));
      return found;
    }
    check_elements(*found.elements, {shape.rows, shape.cols});
    found.format = found.elements->dtype;
    if (found.format.scaled()) find_scales(found, scales_of(name), grid(found.format, shape));
    return found;
  }

  /// Finds a stack in a fused tensor [count, parts * rows, cols], or transposed, and checks the same. The parts have
  /// their scales apart, as they have before they are fused: [count, parts * ceil(rows / 128), ceil(cols / 128)].
  [[nodiscard]] StoredTensor find_fused(const std::string& name, StackShape shape, const FusedRows& rows) const {
    StoredTensor found;
    found.elements = checkpoint_.find(name);
    if (found.elements == nullptr) return found;
    const Index fused = rows.parts * shape.rows;
    if (rows.transposed)
      check_elements(*found.elements, {shape.count, shape.cols, fused});
    else
      check_elements(*found.elements, {shape.count, fused, shape.cols});
    found.format = found.elements->dtype;
    if (!found.format.scaled()) return found;
    if (rows.in_turn || rows.transposed)
      fail(ErrorCode::wt_dtype, *found.elements,
           "is stored as F8_E4M3, whose blocks of 128 rows would belong to several matrices; store it as BF16");
    const std::vector<std::int64_t> one = grid(found.format, shape.matrix());
    find_scales(found, scales_of(name), {shape.count, rows.parts * one[0], one[1]});
    return found;
  }

  /// Finds a stack in blocks of MXFP4: elements [count, parts * rows, cols / 32, 16], two in a byte, and scales [count,
  /// parts * rows, cols / 32]. They are never transposed.
  [[nodiscard]] StoredTensor find_blocks(const std::string& name, StackShape shape, const FusedRows& rows) const {
    StoredTensor found;
    found.elements = checkpoint_.find(name + std::string(blocks_suffix));
    if (found.elements == nullptr) return found;
    const TensorInfo& info = *found.elements;
    found.format = mxfp4;
    if (shape.cols % mxfp4.block_cols != 0)
      fail(ErrorCode::wt_shape, info,
           {"is stored as MXFP4, whose rows are whole blocks of 32, but the model's have ", shape.cols, " elements"});
    if (info.dtype != DType::u8)
      fail(ErrorCode::wt_dtype, info, {"is stored as ", info.type_name, ", expected U8: two MXFP4 values in a byte"});
    const std::int64_t fused = rows.parts * shape.rows, across = shape.cols / mxfp4.block_cols;
    const std::vector<std::int64_t> wanted = {shape.count, fused, across, mxfp4.block_cols / 2};
    if (info.shape != wanted)
      fail(ErrorCode::wt_shape, info,
           {"has shape ", shape_list(info.shape), ", expected ", shape_list(wanted),
            ": blocks of 32 MXFP4 values, two in a byte"});
    find_mxfp4_scales(found, name + std::string(block_scales_suffix));
    check_grid(found, {shape.count, fused, across});
    return found;
  }

  /// Throws wt_dtype if two matrices of one stack differ in their format.
  void require_same_format(const StoredTensor& found, const StoredTensor& first) const {
    if (found.format != first.format)
      fail(ErrorCode::wt_dtype, *found.elements,
           {"is stored as ", describe(found.format), ", but \"", first.elements->name, "\" as ", describe(first.format),
            "; the experts of a layer share one format"});
  }

 private:
  [[nodiscard]] bool has(const std::string& name) const {
    const std::string packed = name + std::string(packed_suffix);
    return checkpoint_.find(name) != nullptr || checkpoint_.find(packed) != nullptr;
  }
  /// transformers saves scales that are a step of their own as others are saved.
  [[nodiscard]] std::string scales_of(const std::string& name) const {
    const std::string other = name + "_scale_inv";
    return checkpoint_.find(other) != nullptr ? other : scales_name(name, scale_suffix_);
  }
  static std::vector<std::int64_t> grid(const Format& format, MatrixShape shape) {
    return {(shape.rows + format.block_rows - 1) / format.block_rows,
            (shape.cols + format.block_cols - 1) / format.block_cols};
  }
  void check_elements(const TensorInfo& info, const std::vector<std::int64_t>& wanted) const {
    if (info.shape != wanted) {
      std::vector<std::int64_t> transposed = wanted;
      std::swap(transposed[wanted.size() - 1], transposed[wanted.size() - 2]);
      fail(ErrorCode::wt_shape, info,
           {"has shape ", shape_list(info.shape), ", the model needs ", shape_list(wanted),
            (info.shape == transposed ? ": it is transposed; weights are stored [outputs, inputs]" : "")});
    }
    if (info.dtype != DType::f32 && info.dtype != DType::bf16 && info.dtype != DType::f16 &&
        info.dtype != DType::f8_e4m3)
      fail(ErrorCode::wt_dtype, info,
           {"is stored as ", info.type_name,
            ", expected F32, BF16, F16 or F8_E4M3; convert the checkpoint to one of them"});
  }
  void find_scales(StoredTensor& found, const std::string& name, const std::vector<std::int64_t>& wanted) const {
    found.scales = checkpoint_.find(name);
    if (found.scales == nullptr)
      fail(ErrorCode::wt_scale_missing, *found.elements,
           {"is stored as F8_E4M3, but \"", name,
            "\" is not in the checkpoint; without its scales the weight has no value. Download the checkpoint "
            "again"});
    DType type = found.scales->dtype;
    if (type == DType::u8) type = DType::f8_e8m0;  // files whose scale_fmt is ue8m0 spell it so too
    if (type != DType::f32 && type != DType::bf16 && type != DType::f16 && type != DType::f8_e8m0)
      fail(ErrorCode::wt_dtype, *found.scales,
           {"is stored as ", found.scales->type_name, ", expected F32, BF16, F16 or F8_E8M0"});
    found.format = {DType::f8_e4m3, type, scale_block, scale_block};
    check_grid(found, wanted);
  }
  void find_packed(StoredTensor& found, MatrixShape shape, const std::string& scales) const {
    const TensorInfo& info = *found.elements;
    found.format = mxfp4;
    if (shape.cols % mxfp4.block_cols != 0)
      fail(ErrorCode::wt_shape, info,
           {"is packed as MXFP4, whose rows are whole blocks of 32, but the model's have ", shape.cols, " elements"});
    if (info.dtype != DType::u8 && info.dtype != DType::i8)
      fail(ErrorCode::wt_dtype, info, {"is stored as ", info.type_name, ", expected U8: two MXFP4 values in a byte"});
    if (info.shape.size() != 2 || info.shape[0] != shape.rows || info.shape[1] != shape.cols / 2)
      fail(ErrorCode::wt_shape, info,
           {"has shape ", shape_list(info.shape), ", expected ", shape_list({shape.rows, shape.cols / 2}),
            ": two MXFP4 values in a byte"});
    find_mxfp4_scales(found, scales);
    check_grid(found, grid(found.format, shape));
  }
  void find_mxfp4_scales(StoredTensor& found, const std::string& name) const {
    found.scales = checkpoint_.find(name);
    if (found.scales == nullptr)
      fail(ErrorCode::wt_scale_missing, *found.elements,
           {"is packed as MXFP4, but \"", name,
            "\" is not in the checkpoint; without its scales the weight has "
            "no value. Download the checkpoint again"});
    if (found.scales->dtype != DType::u8 && found.scales->dtype != DType::f8_e8m0)
      fail(ErrorCode::wt_dtype, *found.scales, {"is stored as ", found.scales->type_name, ", expected U8 or F8_E8M0"});
  }
  void check_grid(const StoredTensor& found, const std::vector<std::int64_t>& wanted) const {
    const Format& f = found.format;
    if (found.scales->shape != wanted)
      fail(ErrorCode::wt_scale_shape, *found.scales,
           {"has shape ", shape_list(found.scales->shape), ", expected ", shape_list(wanted),
            ": one scale for each block of ", f.block_rows, " x ", f.block_cols});
  }
  [[noreturn]] void fail(ErrorCode code, const TensorInfo& info, ErrorText message) const {
    refuse(code, message, At{checkpoint_.file_path(info.file), info.name});
  }

  const Checkpoint& checkpoint_;
  std::string_view scale_suffix_;
};

}  // namespace detail
}  // namespace v1
}  // namespace guild
