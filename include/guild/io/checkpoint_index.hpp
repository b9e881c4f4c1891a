// The shard index of a published model: which file holds which tensor.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/json.hpp>
#include <guild/io/other_formats.hpp>
#include <guild/io/printable.hpp>

namespace guild {
inline namespace v1 {

/// The shard index: which file holds which tensor.
struct CheckpointIndex {
  std::vector<std::string> files;                    ///< names of the shards, sorted
  std::vector<std::pair<std::string, int>> tensors;  ///< name and index into `files`, sorted by name
  std::optional<std::uint64_t> total_size;           ///< sum of all tensors' bytes, if the index says it
};

namespace detail {
/// A whole number of bytes; some writers spell it as a real number.
[[nodiscard]] inline std::uint64_t byte_count(const Json& json) {
  const double value = json.number();
  if (!(value >= 0 && value < 0x1p63) || value != std::floor(value)) json.wrong_type("a whole number of bytes");
  return json.is_integer() ? static_cast<std::uint64_t>(json.integer()) : static_cast<std::uint64_t>(value);
}

[[nodiscard]] inline CheckpointIndex read_index(std::string_view text, const std::string& path) {
  if (text.starts_with("version https://git-lfs")) refuse_other_formats(text, path);
  const Json json = Json::parse(text, {.path = path,
                                       .max_depth = 8,
                                       .syntax = ErrorCode::ix_json,
                                       .utf8 = ErrorCode::ix_json,
                                       .nul = ErrorCode::ix_path,
                                       .depth = ErrorCode::ix_json,
                                       .duplicate = ErrorCode::ix_duplicate,
                                       .number = ErrorCode::ix_json,
                                       .type = ErrorCode::ix_type,
                                       .missing = ErrorCode::ix_missing_field});
  CheckpointIndex index;
  const Json map = json["weight_map"];
  index.tensors.reserve(map.size());
  std::map<std::string, int, std::less<>> numbers;
  map.for_each_member([&](std::string_view tensor, const Json& value) {
    const std::string_view file = value.string();
    const bool plain = !file.empty() && file.size() <= 255 && file != "." && file != ".." &&
                       file.find_first_of("/\\") == std::string_view::npos &&
                       unprintable(file) == std::string_view::npos;
    if (!plain)
      refuse(ErrorCode::ix_path,
             {"is in shard \"", printable(file),
              "\", expected the plain name of a file in the same "
              "folder. Do not load this checkpoint from an untrusted source"},
             At{path, tensor});
    auto found = numbers.find(file);
    if (found == numbers.end()) found = numbers.emplace(file, 0).first;
    index.tensors.emplace_back(tensor, 0);
  });
  if (index.tensors.empty())
    refuse(ErrorCode::ix_missing_field, "lists no tensor. Download the index again", At{path, "weight_map"});
  for (auto& [file, number] : numbers) {
    number = static_cast<int>(index.files.size());
    index.files.push_back(file);
  }
  std::size_t i = 0;
  map.for_each_member(
      [&](std::string_view, const Json& value) { index.tensors[i++].second = numbers.find(value.string())->second; });
  std::sort(index.tensors.begin(), index.tensors.end());
  if (const auto metadata = json.find("metadata"); metadata && !metadata->is_null())
    if (const auto total = metadata->find("total_size"); total && !total->is_null())
      index.total_size = byte_count(*total);
  return index;
}
}  // namespace detail

/// Parses the text of model.safetensors.index.json. Pure. Throws `Error` with an ix_ code, or `io_lfs_pointer`.
[[nodiscard]] inline CheckpointIndex parse_checkpoint_index(std::string_view text, const std::string& path) {
  try {
    return detail::read_index(text, path);
  } catch (const Error& error) {  // keys and the JSON library's messages may quote the file: make them printable
    detail::refuse(error.code(), {printable(error.message(), 400)},
                   detail::At{path, printable(error.key()), error.offset()});
  }
}

}  // namespace v1
}  // namespace guild
