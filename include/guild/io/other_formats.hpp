// What people put where weights should be: recognised by the first bytes, refused by name.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/printable.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// What a file is that cannot be safetensors, by its first bytes.
inline void refuse_other_formats(std::string_view head, const std::string& path) {
  const auto refuse = [&](ErrorCode code, const std::string& message) {
    detail::refuse(code, message, At{path, {}, 0});
  };
  using namespace std::string_view_literals;
  const auto begins = [&](std::string_view magic) { return head.starts_with(magic); };
  const std::string expected = ", expected a safetensors file. ";
  if (begins("version https://git-lfs"))
    refuse(ErrorCode::io_lfs_pointer,
           "is a Git LFS pointer, not the file it stands for. Run `git lfs pull` in its folder, "
           "or download the file itself");
  if (begins("GGUF"))
    refuse(ErrorCode::io_is_gguf, "is a GGUF file" + expected + "Download the model's original safetensors folder");
  if (begins("PK\3\4") || begins("PK\5\6") || (begins("\x80") && head.size() > 1 && head[1] >= 2 && head[1] <= 5))
    refuse(ErrorCode::io_pickle_refused, "is a Python pickle or zip (PyTorch .bin or .pt)" + expected +
                                             "Pickles can run code and are never read; save the model as safetensors");
  if (begins("\x1f\x8b") || begins("\x28\xb5\x2f\xfd") ||
      begins("\xfd"
             "7zXZ\0"sv) ||
      begins("BZh"))
    refuse(ErrorCode::io_compressed, "is compressed (gzip, zstd, xz or bzip2)" + expected + "Decompress it first");
  if (begins("\x93NUMPY") || begins("\x89HDF"))
    refuse(ErrorCode::io_not_safetensors, "is a NumPy or HDF5 file" + expected + "Convert the model to safetensors");
  std::string_view text = head;
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  const auto is_text = [](char c) { return (c >= ' ' && c <= '~') || c == '\n' || c == '\r' || c == '\t'; };
  if (!std::all_of(text.begin(), text.end(), is_text)) return;
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  const char c = first == std::string_view::npos ? ' ' : text[first];
  refuse(ErrorCode::io_not_safetensors,
         std::string(c == '<'               ? "is an HTML or XML page"
                     : c == '{' || c == '[' ? "is a JSON text"
                                            : "is a text") +
             expected + "It begins \"" + printable(text, 40) +
             "\": perhaps an error page was saved instead of the file; download it again");
}

}  // namespace detail
}  // namespace v1
}  // namespace guild
