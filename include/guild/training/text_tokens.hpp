// Long texts to tokens, a piece at a time, cut where the tokenizer cuts as well.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/file.hpp>
#include <guild/io/tokenizer.hpp>
#include <guild/io/utf8.hpp>
#include <guild/training/token_array.hpp>

namespace guild {
inline namespace v1 {

/// How a text becomes tokens.
struct TextOptions {
  EncodeOptions encode{.added_tokens = AddedTokens::text};  ///< a text cannot spell a control token unless you say so
  std::size_t piece = std::size_t{4} << 20;                 ///< bytes that are encoded at once
  /// Called after each piece with the bytes done and the bytes in all; false stops with io_cancelled.
  std::function<bool(std::int64_t done, std::int64_t total)> progress{};
};

namespace detail {

/// Where to cut a text so that both parts give the tokens that the whole gives: after a single line end between
/// characters that are no white space. Every published pre-tokenizer splits there, with or without the rest of the text
/// in view. (Of several line ends in a row GPT-2's keeps the last for itself, but only if it sees what follows.)
/// Returns the last such place, or 0 if there is none.
[[nodiscard]] inline std::size_t last_safe_cut(std::string_view text) {
  const auto visible = [&](std::size_t at) {
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) --at;
    const Utf8Char c = utf8_next(text, at);
    return c.kind == Utf8Char::Kind::valid && !is_white_space(c.code);
  };
  for (std::size_t end = text.rfind('\n'); end != std::string_view::npos && end > 0; end = text.rfind('\n', end - 1))
    if (end + 1 < text.size() && visible(end - 1) && visible(end + 1)) return end + 1;
  return 0;
}

/// The last place between two characters that is worth a cut when there is no safe one: after a line end, before a
/// space, or else between any two characters. 0 for a text within one character.
[[nodiscard]] inline std::size_t last_forced_cut(std::string_view text) {
  if (const std::size_t line = text.rfind('\n'); line != std::string_view::npos && line + 1 < text.size())
    return line + 1;
  if (const std::size_t space = text.rfind(' '); space != std::string_view::npos && space > 0) return space;
  for (std::size_t at = text.size(); at-- > 0;)
    if ((static_cast<unsigned char>(text[at]) & 0xC0U) != 0x80U) return at;
  return 0;
}

}  // namespace detail

/// Appends the tokens of texts to a TokenArray.
class TextEncoder {
 public:
  /// A piece without a safe cut grows up to this many times before it is cut at a line end, a space or anywhere. Such a
  /// cut may split one token in two.
  static constexpr std::size_t max_growth = 16;

  /// The tokenizer must outlive the encoder.
  explicit TextEncoder(const Tokenizer& tokenizer, TextOptions options = {})
      : tokenizer_(tokenizer), options_(std::move(options)) {
    options_.piece = std::clamp(options_.piece, std::size_t{16}, Tokenizer::max_text / max_growth);
  }

  /// The tokens of a text are those of `tokenizer.encode(text)`, long texts cut at safe places. Throws in_utf8 (naming
  /// the byte) and tk_limit.
  void encode(std::string_view text, TokenArray& out) const {
    feed(text.size(), {}, out, [&](std::size_t at, char* to, std::size_t bytes) { text.copy(to, bytes, at); });
  }
  /// The same for a file, which is read piece by piece. Throws io_* too.
  void encode_file(const std::string& path, TokenArray& out) const {
    const File file = File::open(path);
    feed(file.size(), path, out, [&](std::size_t at, char* to, std::size_t bytes) { file.read_at(at, to, bytes); });
  }

 private:
  template <class Read>
  void feed(std::uint64_t total, const std::string& path, TokenArray& out, const Read& read) const {
    std::string held;  // bytes from `done` on
    std::uint64_t done = 0;
    std::size_t want = options_.piece;
    while (done < total) {
      const std::size_t had = held.size();
      held.resize(static_cast<std::size_t>(std::min<std::uint64_t>(want, total - done)));
      if (held.size() > had) read(static_cast<std::size_t>(done) + had, held.data() + had, held.size() - had);
      const bool last = done + held.size() == total;
      std::size_t cut = last ? held.size() : detail::last_safe_cut(held);
      if (cut == 0 && want < options_.piece * max_growth) {
        want *= 2;
        continue;
      }
      if (cut == 0) cut = detail::last_forced_cut(held);
      if (cut == 0) cut = held.size();
      append(std::string_view(held).substr(0, cut), path, static_cast<std::int64_t>(done), out);
      held.erase(0, cut);
      done += cut;
      want = options_.piece;
      if (options_.progress && !options_.progress(static_cast<std::int64_t>(done), static_cast<std::int64_t>(total)))
        detail::refuse(ErrorCode::io_cancelled, "cancelled by the caller while it was tokenized", detail::At{path});
    }
  }
  void append(std::string_view text, const std::string& path, std::int64_t at, TokenArray& out) const {
    try {
      out.append(tokenizer_.encode(text, options_.encode));
    } catch (const Error& error) {
      const std::int64_t offset = error.offset() < 0 ? at : at + error.offset();
      detail::refuse(error.code(), error.message(),
                     detail::At{path.empty() ? error.path() : path, error.key(), offset});
    }
  }

  const Tokenizer& tokenizer_;
  TextOptions options_;
};

}  // namespace v1
}  // namespace guild
