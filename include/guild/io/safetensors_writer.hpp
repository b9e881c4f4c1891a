// Writing safetensors piece by piece: a tensor need not be in memory as a whole, nor in the type it is written in.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/types.hpp>
#include <guild/io/atomic_folder.hpp>
#include <guild/io/json_writer.hpp>
#include <guild/io/safetensors.hpp>
#include <guild/io/tensor_info.hpp>

namespace guild {
inline namespace v1 {

struct SafetensorsWriteOptions {
  std::string name = "model";  ///< of the files: `name.safetensors`, or shards and `name.safetensors.index.json`
  std::uint64_t max_shard_bytes = 5'000'000'000;  ///< of tensors in a file; one that is larger has a file of its own
};

/// Collects tensors, then writes them into a folder: one file, or several and their index.
class SafetensorsWriter {
 public:
  /// Takes the next bytes of a tensor.
  using Sink = std::function<void(const void* bytes, std::size_t count)>;
  /// Hands all bytes of one tensor, row-major and little-endian, to the sink, in as many pieces as it likes.
  using Source = std::function<void(const Sink& sink)>;

  /// Adds a tensor whose bytes `source` will produce while the file is written. Throws op_argument for a shape or type
  /// that cannot be written, or a name that is there already.
  void add(std::string name, DType dtype, std::vector<std::int64_t> shape, Source source) {
    std::optional<std::uint64_t> bytes = static_cast<std::uint64_t>(bits(dtype) / 8);
    for (const std::int64_t dimension : shape)
      if (bytes)
        bytes = dimension < 0 ? std::nullopt : detail::checked_multiply(*bytes, static_cast<std::uint64_t>(dimension));
    if (!bytes || bits(dtype) < 8 || !source)  // F4 is read only, other types have no bits
      detail::refuse(ErrorCode::op_argument,
                     {"cannot be written: type ", guild::name(dtype), ", shape ", detail::shape_text(shape),
                      (source ? "" : ", no source")},
                     name);
    if (!names_.insert(name).second) detail::refuse(ErrorCode::op_argument, "is added twice", name);
    tensors_.push_back({std::move(name), dtype, std::move(shape), *bytes, std::move(source)});
  }
  /// Adds a tensor that is in memory, and stays there until `write` is done.
  void add(const TensorSource& tensor) {
    const std::size_t index = tensors_.size();
    add(tensor.name, tensor.dtype, tensor.shape, [](const Sink&) {});
    const std::uint64_t bytes = tensors_[index].bytes;
    if (tensor.data == nullptr && bytes > 0)
      detail::refuse(ErrorCode::op_argument, "cannot be written: it has no data", tensor.name);
    tensors_[index].source = [data = tensor.data, bytes](const Sink& sink) {
      sink(data, static_cast<std::size_t>(bytes));
    };
  }

  /// Of all tensors so far.
  [[nodiscard]] std::uint64_t total_bytes() const {
    std::uint64_t total = 0;
    for (const Tensor& tensor : tensors_) total += tensor.bytes;
    return total;
  }

  /// Writes all tensors. Shards are filled in the order of `add`; within a file larger element types come first, then
  /// names in order, as the reference implementation does, so that every tensor is aligned to its element size. Throws
  /// op_argument (a source that gives too few or too many bytes), st_* (too many tensors), in_utf8 (a name), io_write,
  /// io_no_space, and whatever a source throws.
  void write(AtomicFolder& folder, const SafetensorsWriteOptions& options = {}) {
    const auto shards = split(options.max_shard_bytes);
    if (shards.size() == 1) {
      write_file(folder, options.name + ".safetensors", shards.front());
      return;
    }
    std::map<std::string_view, std::string> places;
    for (std::size_t i = 0; i < shards.size(); ++i) {
      const std::string file =
          options.name + "-" + five_digits(i + 1) + "-of-" + five_digits(shards.size()) + ".safetensors";
      for (const Tensor* tensor : shards[i]) places.emplace(tensor->name, file);
    }
    for (std::size_t i = 0; i < shards.size(); ++i) write_file(folder, places.at(shards[i].front()->name), shards[i]);
    JsonWriter index;
    index.begin_object().key("metadata").begin_object().member("total_size", total_bytes()).end_object();
    index.key("weight_map").begin_object();
    for (const auto& [name, file] : places) index.member(name, file);
    folder.write(options.name + ".safetensors.index.json", index.end_object().end_object().take());
  }

 private:
  struct Tensor {
    std::string name;
    DType dtype;
    std::vector<std::int64_t> shape;
    std::uint64_t bytes;
    Source source;
  };
  using Shard = std::vector<const Tensor*>;

  static std::string five_digits(std::size_t number) {
    const std::string digits = std::to_string(number);
    return std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0') + digits;
  }
  static std::ptrdiff_t rank(DType type) {
    return std::find_if(std::begin(detail::stored_types), std::end(detail::stored_types),
                        [&](const detail::StoredType& stored) { return stored.dtype == type; }) -
           std::begin(detail::stored_types);
  }

  [[nodiscard]] std::vector<Shard> split(std::uint64_t max_bytes) const {
    std::vector<Shard> shards(1);
    std::uint64_t used = 0;
    for (const Tensor& tensor : tensors_) {
      if (!shards.back().empty() && (used > max_bytes || tensor.bytes > max_bytes - used)) {
        shards.emplace_back();
        used = 0;
      }
      shards.back().push_back(&tensor);
      used += tensor.bytes;
    }
    for (Shard& shard : shards)
      std::sort(shard.begin(), shard.end(), [](const Tensor* a, const Tensor* b) {
        return std::pair(-rank(a->dtype), std::string_view(a->name)) <
               std::pair(-rank(b->dtype), std::string_view(b->name));
      });
    return shards;
  }

  static std::string header(const Shard& shard, std::uint64_t& data_bytes) {
    JsonWriter writer(JsonLayout{-1});
    writer.begin_object().key("__metadata__").begin_object().member("format", "pt").end_object();
    data_bytes = 0;
    for (const Tensor* tensor : shard) {
      writer.key(tensor->name).begin_object().member("dtype", guild::name(tensor->dtype)).key("shape").begin_array();
      for (const std::int64_t dimension : tensor->shape) writer.value(dimension);
      writer.end_array().key("data_offsets").begin_array().value(data_bytes);
      writer.value(data_bytes += tensor->bytes).end_array().end_object();
    }
    std::string text = writer.end_object().take();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    return text;
  }

  static void write_file(AtomicFolder& folder, const std::string& name, const Shard& shard) {
    std::uint64_t data_bytes = 0;
    const std::string text = header(shard, data_bytes);
    // What this writer makes, this reader must take: names and limits are checked before a byte is written.
    (void)parse_safetensors_header(text, text.size(), 8 + text.size() + data_bytes, path_in(folder.path(), name));
    std::array<char, 8> length{};
    for (std::size_t i = 0; i < 8; ++i)
      length[i] = static_cast<char>(static_cast<unsigned char>(text.size() >> (8 * i)));
    DurableFile file = folder.create(name);
    file.write(length.data(), length.size());
    file.write(text);
    for (const Tensor* tensor : shard) {
      std::uint64_t given = 0;
      const auto wrong_size = [&](const std::string& what) {
        detail::refuse(ErrorCode::op_argument,
                       {"its source gave ", what, " the ", tensor->bytes, " bytes of its shape ",
                        detail::shape_text(tensor->shape)},
                       detail::At{path_in(folder.path(), name), tensor->name});
      };
      tensor->source([&](const void* bytes, std::size_t count) {
        if (count > tensor->bytes - given) wrong_size("more than");
        file.write(bytes, count);
        given += count;
      });
      if (given != tensor->bytes) wrong_size(std::to_string(given) + " of");
    }
    folder.keep(std::move(file));
  }

  std::vector<Tensor> tensors_;
  std::set<std::string> names_;
};

}  // namespace v1
}  // namespace guild
