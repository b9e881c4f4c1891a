// Small text files, such as config.json, read whole.
#pragma once

#include <cstdint>
#include <string>

#include <guild/core/error.hpp>
#include <guild/io/file.hpp>

namespace guild::inline v1 {

/// The bytes of a regular file. Throws as File does, and `too_large` if it has more than `limit` bytes.
[[nodiscard]] inline std::string read_text_file(const std::string& path, std::uint64_t limit, ErrorCode too_large) {
  const File file = File::open(path);
  if (file.size() > limit)
    throw Error(too_large, "has " + std::to_string(file.size()) + " bytes, expected at most " + std::to_string(limit) +
        ". Check that this is the right file", {path, {}, -1});
  std::string text(static_cast<std::size_t>(file.size()), '\0');
  file.read_at(0, text.data(), text.size());
  return text;
}

}  // namespace guild::inline v1
