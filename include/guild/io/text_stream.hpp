// Generated tokens to text while they come: whole characters only, and nothing of a stop string.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/tokenizer.hpp>
#include <guild/io/utf8.hpp>

namespace guild {
inline namespace v1 {

/// Bytes in any pieces to valid UTF-8: all that comes out, joined, equals `utf8_lossy` of all that went in.
class Utf8Stream {
 public:
  /// The characters that are complete now. The start of one that is not stays inside, at most 3 bytes.
  [[nodiscard]] std::string push(std::string_view bytes) {
    held_ += bytes;
    std::string out;
    std::size_t at = 0;
    while (at < held_.size()) {
      const std::string_view rest = std::string_view(held_).substr(at);
      const std::size_t fault = std::min(utf8_fault(rest), rest.size());
      out += rest.substr(0, fault);
      at += fault;
      if (at == held_.size()) break;
      const Utf8Char bad = utf8_next(held_, at);
      if (bad.kind == Utf8Char::Kind::cut) break;
      out += replacement_character;
      at += bad.length;
    }
    held_.erase(0, at);
    return out;
  }
  /// At the end: U+FFFD if a character was begun and never finished.
  [[nodiscard]] std::string flush() {
    if (std::exchange(held_, {}).empty()) return {};
    return std::string(replacement_character);
  }

 private:
  std::string held_;
};

/// Watches a stream for stop strings. What could be the beginning of one is held back until it is known; the first that
/// is complete ends the stream, and of those complete at the same byte the longest. How the text is cut into pieces
/// changes nothing.
class StopStrings {
 public:
  StopStrings() = default;
  /// Throws in_param for an empty stop string and in_utf8 for one that is not UTF-8.
  explicit StopStrings(const std::vector<std::string>& stops) {
    for (const std::string& text : stops) {
      if (text.empty()) detail::refuse(ErrorCode::in_param, "a stop string is empty; leave it out", "stop");
      if (const std::size_t fault = utf8_fault(text); fault != std::string_view::npos)
        detail::refuse(ErrorCode::in_utf8, "a stop string is not valid UTF-8",
                       detail::At{{}, "stop", static_cast<std::int64_t>(fault)});
      stops_.push_back({text, borders(text), 0});
    }
  }

  /// The text that is certainly before any stop string. Nothing after `stopped()`.
  [[nodiscard]] std::string push(std::string_view text) {
    if (stopped()) return {};
    if (stops_.empty()) return std::string(text);
    for (std::size_t i = 0; i < text.size(); ++i) {
      held_ += text[i];
      for (Stop& stop : stops_) {
        stop.matched = advance(stop, text[i]);
        if (stop.matched == stop.text.size() && stop.text.size() > found_.size()) found_ = stop.text;
      }
      if (!stopped()) continue;
      held_.resize(held_.size() - found_.size());
      return std::exchange(held_, {});
    }
    std::size_t keep = 0;
    for (const Stop& stop : stops_) keep = std::max(keep, stop.matched);
    std::string out = held_.substr(0, held_.size() - keep);
    held_.erase(0, out.size());
    return out;
  }
  /// At the end: what was held back after all.
  [[nodiscard]] std::string flush() { return std::exchange(held_, {}); }

  [[nodiscard]] bool stopped() const noexcept { return !found_.empty(); }
  /// The stop string that ended the stream, or an empty text.
  [[nodiscard]] const std::string& found() const noexcept { return found_; }

 private:
  struct Stop {
    std::string text;
    std::vector<std::size_t> border;  // of each prefix: the longest proper prefix that is a suffix of it too
    std::size_t matched;              // bytes of `text` that the stream ends with
  };
  static std::vector<std::size_t> borders(const std::string& text) {
    std::vector<std::size_t> border(text.size(), 0);
    for (std::size_t i = 1, k = 0; i < text.size(); ++i) {
      while (k > 0 && text[i] != text[k]) k = border[k - 1];
      if (text[i] == text[k]) ++k;
      border[i] = k;
    }
    return border;
  }
  static std::size_t advance(const Stop& stop, char byte) {
    std::size_t k = stop.matched;
    while (k > 0 && (k == stop.text.size() || stop.text[k] != byte)) k = stop.border[k - 1];
    return stop.text[k] == byte ? k + 1 : 0;
  }

  std::vector<Stop> stops_;
  std::string held_, found_;
};

/// Token ids in, text out. The tokenizer must outlive the stream.
class TextStream {
 public:
  explicit TextStream(const Tokenizer& tokenizer, const std::vector<std::string>& stops = {},
                      DecodeOptions options = {})
      : tokenizer_(&tokenizer), stops_(stops), options_(options) {}

  /// The text that this token completes, often a little less or more than the token's own. Throws tk_id.
  [[nodiscard]] std::string push(int id) {
    const std::string_view bytes = tokenizer_->bytes(id);
    if (options_.special_tokens == SpecialTokens::skip && tokenizer_->is_special(id)) return {};
    return stops_.push(characters_.push(bytes));
  }
  /// At the end of generation: what is left, with U+FFFD for a character that was cut.
  [[nodiscard]] std::string flush() {
    std::string out = stops_.push(characters_.flush());
    return out += stops_.flush();
  }
  /// A stop string has come; further tokens give no text.
  [[nodiscard]] bool stopped() const noexcept { return stops_.stopped(); }
  [[nodiscard]] const std::string& stop_string() const noexcept { return stops_.found(); }

 private:
  const Tokenizer* tokenizer_;
  Utf8Stream characters_;
  StopStrings stops_;
  DecodeOptions options_;
};

}  // namespace v1
}  // namespace guild
