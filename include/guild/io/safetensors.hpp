// The safetensors format: 8 bytes of header length, a JSON header, then the tensors' bytes without holes.
// Source: the README and code of the reference implementation, github.com/huggingface/safetensors (v0.8); where the
// reference is lenient (unknown fields, duplicate names, leading white space) this reader is not.
#pragma once

#include <jansson.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/types.hpp>
#include <guild/io/file.hpp>
#include <guild/io/other_formats.hpp>
#include <guild/io/printable.hpp>
#include <guild/io/safetensors_parser.hpp>
#include <guild/io/tensor_info.hpp>

namespace guild {
inline namespace v1 {

/// Parses the JSON header of a file of `file_size` bytes whose first 8 bytes say `header_bytes`. Pure: it reads no
/// file. Throws `Error` with an st_ code that names the file, the tensor and the byte.
[[nodiscard]] inline SafetensorsHeader parse_safetensors_header(std::string_view header_json,
                                                                std::uint64_t header_bytes, std::uint64_t file_size,
                                                                const std::string& path,
                                                                const SafetensorsRules& rules = {}) {
  if (file_size < 8)
    detail::refuse(ErrorCode::st_header_too_small,
                   {"has ", file_size,
                    " bytes, a safetensors file has at least 8. The download is incomplete; fetch the file again"},
                   detail::At{path, {}, 0});
  if (header_bytes > rules.max_header_bytes)
    detail::refuse(ErrorCode::st_header_too_large,
                   {"says that its header has ", header_bytes, " bytes, expected at most ", rules.max_header_bytes,
                    ". It is damaged or not a safetensors file"},
                   detail::At{path, {}, 0});
  if (header_bytes > file_size - 8 || header_json.size() != header_bytes)
    detail::refuse(ErrorCode::st_header_length,
                   {"says that its header has ", header_bytes, " bytes, but only ",
                    header_bytes > file_size - 8 ? file_size - 8 : header_json.size(),
                    " bytes follow. The download is incomplete; fetch the file again"},
                   detail::At{path, {}, 0});
  return detail::SafetensorsParser(header_json, file_size, path, rules).parse();
}

/// Reads and checks the header of an open file.
[[nodiscard]] inline SafetensorsHeader read_safetensors_header(const File& file, const SafetensorsRules& rules = {}) {
  std::array<char, 64> head{};
  const auto got = static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), head.size()));
  file.read_at(0, head.data(), got);
  std::uint64_t header_bytes = 0;
  for (std::size_t i = 8; i-- > 0;) header_bytes = header_bytes << 8 | static_cast<unsigned char>(head[i]);
  const bool fits = got >= 8 && header_bytes <= rules.max_header_bytes && header_bytes <= file.size() - 8;
  // A file that could be safetensors is never called anything else: a length may look like another format's magic.
  if (got >= 8 && !(fits && (header_bytes == 0 || head[8] == '{')))
    detail::refuse_other_formats({head.data(), got}, file.path());
  std::string json;
  if (fits) {
    json.resize(static_cast<std::size_t>(header_bytes));
    file.read_at(8, json.data(), json.size());
  }
  return parse_safetensors_header(json, header_bytes, file.size(), file.path(), rules);
}

/// A tensor to be written: row-major, little-endian.
struct TensorSource {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  const void* data = nullptr;
};

/// Writes a file in the reference's layout (larger element types first, then by name; header padded to 8 bytes).
/// The file appears whole or not at all. Throws `op_argument` for a source that cannot be written, or `AtomicFile`'s
/// codes.
inline void write_safetensors(const std::string& path, std::span<const TensorSource> tensors,
                              const std::map<std::string, std::string>& metadata = {}) {
  const auto rank = [](DType type) {
    const auto* found = std::find_if(std::begin(detail::stored_types), std::end(detail::stored_types),
                                     [&](const detail::StoredType& stored) { return stored.dtype == type; });
    return found - std::begin(detail::stored_types);
  };
  std::vector<const TensorSource*> order;
  order.reserve(tensors.size());
  for (const TensorSource& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [&](const TensorSource* a, const TensorSource* b) {
    return std::pair(-rank(a->dtype), std::string_view(a->name)) <
           std::pair(-rank(b->dtype), std::string_view(b->name));
  });
  const auto quoted = [](const std::string& text) {
    const std::unique_ptr<json_t, void (*)(json_t*)> json(json_stringn(text.data(), text.size()), json_decref);
    const std::unique_ptr<char, void (*)(void*)> dumped(json ? json_dumps(json.get(), JSON_ENCODE_ANY) : nullptr,
                                                        std::free);
    if (!dumped) detail::refuse(ErrorCode::op_argument, "is not valid UTF-8", printable(text));
    return std::string(dumped.get());
  };
  std::string header = "{";
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) header += quoted(key) + ":" + quoted(value) + ",";
    header.back() = '}';
    header += ",";
  }
  std::vector<std::size_t> sizes;
  std::uint64_t offset = 0;
  for (const TensorSource* tensor : order) {
    std::optional<std::uint64_t> bytes = static_cast<std::uint64_t>(bits(tensor->dtype) / 8);
    for (const std::int64_t dimension : tensor->shape)
      if (bytes)
        bytes = dimension < 0 ? std::nullopt : detail::checked_multiply(*bytes, static_cast<std::uint64_t>(dimension));
    if (!bytes || bits(tensor->dtype) < 8 || (tensor->data == nullptr && *bytes != 0))
      detail::refuse(ErrorCode::op_argument,
                     {"cannot be written: type ", name(tensor->dtype), ", shape ", detail::shape_text(tensor->shape),
                      (tensor->data == nullptr ? ", no data" : "")},
                     detail::At{path, tensor->name});
    header += quoted(tensor->name) + ":{\"dtype\":\"" + std::string(name(tensor->dtype)) +
              "\",\"shape\":" + detail::shape_text(tensor->shape) + ",\"data_offsets\":[" + std::to_string(offset) +
              "," + std::to_string(offset + *bytes) + "]},";
    sizes.push_back(static_cast<std::size_t>(*bytes));
    offset += *bytes;
  }
  if (header.back() == ',')
    header.back() = '}';
  else
    header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');
  // What this writer makes, this reader must take: names, duplicates and limits are checked before a byte is written.
  (void)parse_safetensors_header(header, header.size(), 8 + header.size() + offset, path);
  std::array<char, 8> length{};
  for (std::size_t i = 0; i < 8; ++i)
    length[i] = static_cast<char>(static_cast<unsigned char>(header.size() >> (8 * i)));
  AtomicFile file(path);
  file.write(length.data(), length.size());
  file.write(header);
  for (std::size_t i = 0; i < order.size(); ++i) file.write(order[i]->data, sizes[i]);
  file.commit();
}

}  // namespace v1
}  // namespace guild
