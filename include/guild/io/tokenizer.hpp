// Text to token ids and back: tokenizer.json with a byte-level BPE, as published for DeepSeek-V2, V3 and R1.
//
// Encoding equals Hugging Face tokenizers with add_special_tokens=False: added tokens are found on the raw text, what
// is between them is normalized, the pre-tokenizer splits it, each piece's bytes are merged by rank. Nothing is added:
// the chat template writes the beginning-of-sentence token itself.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/added_tokens.hpp>
#include <guild/io/file.hpp>
#include <guild/io/normalizer.hpp>
#include <guild/io/piece_encoder.hpp>
#include <guild/io/text_part.hpp>
#include <guild/io/tokenizer_config.hpp>
#include <guild/io/tokenizer_file.hpp>
#include <guild/io/utf8.hpp>

namespace guild {
inline namespace v1 {

/// Which added tokens (`<think>`, `<｜User｜>`, ...) are recognised in a text.
enum class AddedTokens : std::uint8_t {
  parse,        ///< all of them: for text that you wrote, such as a rendered chat template
  not_special,  ///< only those without the mark "special" (transformers: split_special_tokens=True)
  text,         ///< none: for text of users; it can never become a control token
};

/// What to do with bytes that are not UTF-8.
enum class InvalidUtf8 : std::uint8_t {
  error,    ///< throw in_utf8 with the offset
  replace,  ///< encode U+FFFD for each fault (see utf8.hpp)
};

struct EncodeOptions {
  AddedTokens added_tokens = AddedTokens::parse;
  InvalidUtf8 invalid_utf8 = InvalidUtf8::error;
};

enum class SpecialTokens : std::uint8_t { keep, skip };

struct DecodeOptions {
  SpecialTokens special_tokens = SpecialTokens::keep;
};

/// A tokenizer. Constant after reading: any number of threads may use one at the same time.
class Tokenizer {
 public:
  /// Longest text of one `encode` call, in bytes.
  static constexpr std::size_t max_text = std::size_t{1} << 30;

  /// Reads tokenizer.json and tokenizer_config.json of a Hugging Face folder. Throws io_* and tk_*.
  static Tokenizer read(const std::string& folder) {
    const std::string path = path_in(folder, "tokenizer.json");
    const std::string config_path = path_in(folder, "tokenizer_config.json");
    return {TokenizerFile::parse(read_text(path, TokenizerFile::max_bytes), path),
            TokenizerConfig::parse(read_text(config_path, TokenizerConfig::max_bytes), config_path)};
  }
  /// Reads the texts of the two files; an empty `tokenizer_config_json` leaves bos, eos and pad unknown.
  static Tokenizer parse(std::string_view tokenizer_json, std::string_view tokenizer_config_json = {},
                         const std::string& path = "tokenizer.json") {
    TokenizerConfig config;
    if (!tokenizer_config_json.empty()) config = TokenizerConfig::parse(tokenizer_config_json, path);
    return {TokenizerFile::parse(tokenizer_json, path), std::move(config)};
  }

  /// The token ids of a text. Throws in_utf8, in_param (text too long), tk_limit (hostile split pattern).
  [[nodiscard]] std::vector<int> encode(std::string_view text, EncodeOptions options = {}) const {
    std::string replaced;
    text = checked(text, options.invalid_utf8, replaced);
    const TextRange all{0, text.size()};
    return encode_ranges(text,
                         options.added_tokens == AddedTokens::text ? std::span<const TextRange>{} : std::span(&all, 1),
                         options.added_tokens);
  }

  /// The token ids of the parts joined. Added tokens are recognised within each stretch of markers and never in, or
  /// across the edge of, content; everything else is split and merged as if the text were one.
  [[nodiscard]] std::vector<int> encode(std::span<const TextPart> parts,
                                        InvalidUtf8 invalid_utf8 = InvalidUtf8::error) const {
    std::string text, replaced;
    std::vector<TextRange> markers;
    for (const TextPart& part : parts) {
      const std::size_t begin = text.size();
      text += checked(part.text, invalid_utf8, replaced);
      if (part.origin != TextPart::Origin::marker) continue;
      if (!markers.empty() && markers.back().end == begin) {
        markers.back().end = text.size();
      } else {
        markers.push_back({begin, text.size()});
      }
    }
    return encode_ranges(checked_size(text), markers, AddedTokens::parse);
  }

  /// The text of ids. Bytes that do not make up whole characters come out as U+FFFD; to decode a stream, use
  /// TextStream. Throws tk_id for an id without a token.
  [[nodiscard]] std::string decode(std::span<const int> ids, DecodeOptions options = {}) const {
    std::string out;
    for (const int id : ids) {
      const std::string_view text = bytes(id);
      if (options.special_tokens == SpecialTokens::keep || !is_special(id)) out += text;
    }
    return utf8_lossy(out);
  }

  /// The bytes that one id stands for; possibly a part of a character. Throws tk_id.
  [[nodiscard]] std::string_view bytes(int id) const {
    if (!has_token(id))
      detail::refuse(
          ErrorCode::tk_id,
          {"the id ", id, " has no token; ids are 0..", size() - 1, (id >= 0 && id < size() ? " with gaps" : "")},
          detail::At{file_.path, {}});
    return file_.tokens.bytes(id);
  }

  /// One more than the largest id; gaps count.
  [[nodiscard]] int size() const noexcept { return file_.tokens.size(); }
  /// False for ids out of range and for gaps. A model may have more rows than `size()`: mask them too.
  [[nodiscard]] bool has_token(int id) const noexcept { return file_.tokens.has(id); }
  /// True for added tokens with the mark "special"; false for every other id, in range or not.
  [[nodiscard]] bool is_special(int id) const noexcept { return file_.tokens.is_special(id); }
  /// True for ids of `added_tokens`.
  [[nodiscard]] bool is_added(int id) const noexcept { return file_.tokens.is_added(id); }

  /// The id of an added token, by its text, or of the token with exactly these bytes.
  [[nodiscard]] std::optional<int> id_of(std::string_view text) const {
    std::optional<int> found;
    for (int id = size() - 1; id >= 0; --id)
      if (file_.tokens.bytes(id) == text && file_.tokens.has(id) &&
          (file_.tokens.is_added(id) || !found || !file_.tokens.is_added(*found)))
        found = id;
    return found;
  }

  /// Throws tk_special if tokenizer_config.json was not given or does not name the token.
  [[nodiscard]] int bos_id() const { return named(bos_, "bos_token"); }
  [[nodiscard]] int eos_id() const { return named(eos_, "eos_token"); }
  /// Padding is optional.
  [[nodiscard]] std::optional<int> pad_id() const noexcept { return pad_; }
  /// The texts of the tokens, for chat templates; empty if not named.
  [[nodiscard]] const TokenizerConfig& config() const noexcept { return config_; }

  /// Throws tk_vocab_size if an id does not fit a model with `vocab_size` rows.
  void require_vocab_size(int vocab_size) const {
    if (size() > vocab_size)
      detail::refuse(ErrorCode::tk_vocab_size,
                     {"the largest id is ", size() - 1, ", but the model has a vocab_size of ", vocab_size,
                      ". The tokenizer belongs to another model; take both from one folder"},
                     detail::At{file_.path, {}});
  }

 private:
  struct Hit {
    std::size_t begin = 0, end = 0;
    int id = -1;
  };

  Tokenizer(TokenizerFile file, TokenizerConfig config) : file_(std::move(file)), config_(std::move(config)) {
    int index = 0;
    for (const auto& [text, token] : file_.added) {
      const bool is_new =
          token.normalized ? second_.add(file_.normalizer.normalize(text), index) : first_.add(text, index);
      if (!is_new)
        detail::refuse(ErrorCode::tk_added, {"\"", text, "\" is the same as another one, once normalized"},
                       detail::At{file_.path, detail::text_of({"added_tokens[", index, "]"})});
      ++index;
    }
    bos_ = resolve(config_.bos_token, "bos_token");
    eos_ = resolve(config_.eos_token, "eos_token");
    pad_ = resolve(config_.pad_token, "pad_token");
  }

  [[nodiscard]] std::optional<int> resolve(const std::string& text, std::string_view key) const {
    if (text.empty()) return std::nullopt;
    const auto id = id_of(text);
    if (!id)
      detail::refuse(ErrorCode::tk_special,
                     {"names \"", text, "\", which is no token of ", file_.path, ". Take both files from one folder"},
                     detail::At{config_.path, key});
    return id;
  }
  [[nodiscard]] int named(std::optional<int> id, std::string_view key) const {
    if (!id)
      detail::refuse(ErrorCode::tk_special,
                     "is not known, because there was no tokenizer_config.json. Pass it to "
                     "Tokenizer::parse, or use Tokenizer::read",
                     detail::At{file_.path, key});
    return *id;
  }

  static std::string_view checked_size(std::string_view text) {
    if (text.size() > max_text)
      detail::refuse(ErrorCode::in_param,
                     {"the text has ", text.size(), " bytes, at most ", max_text, " are encoded at once"});
    return text;
  }
  static std::string_view checked(std::string_view text, InvalidUtf8 invalid, std::string& replaced) {
    checked_size(text);
    const std::size_t fault = utf8_fault(text);
    if (fault == std::string_view::npos) return text;
    if (invalid == InvalidUtf8::error)
      detail::refuse(ErrorCode::in_utf8,
                     "the text is not valid UTF-8 here. Convert it, "
                     "or choose InvalidUtf8::replace",
                     detail::At{{}, {}, static_cast<std::int64_t>(fault)});
    return replaced = utf8_lossy(text);
  }

  // `open`: where added tokens may be found, ascending, disjoint.
  [[nodiscard]] std::vector<int> encode_ranges(std::string_view text, std::span<const TextRange> open,
                                               AddedTokens mode) const {
    std::vector<int> out;
    out.reserve(text.size() / 4 + 8);
    std::deque<std::string> changed;  // by the normalizer; the encoder remembers pieces of them
    PieceEncoder encoder(file_, text.size(), out);
    // Tokens that are not normalized are found in the text as it came. What lies between two of them is normalized for
    // itself and then searched for the others.
    split(first_, text, open, mode, out, [&](std::string_view stretch, std::span<TextRange> ranges) {
      std::string normalized;
      stretch = file_.normalizer.normalize(stretch, ranges, normalized);
      if (!normalized.empty()) stretch = changed.emplace_back(std::move(normalized));
      split(second_, stretch, ranges, mode, out,
            [&](std::string_view rest, std::span<TextRange>) { encoder.encode(rest); });
    });
    return out;
  }

  // Appends the ids of the matcher's tokens in `open`. Calls between(stretch, ranges) for what is before, between and
  // after them; the ranges are what of `open` lies in the stretch, counted from its beginning.
  template <class F>
  void split(const TextMatcher& matcher, std::string_view text, std::span<const TextRange> open, AddedTokens mode,
             std::vector<int>& out, F&& between) const {
    std::vector<Hit> hits;
    for (const TextRange range : open) search(matcher, text, range, mode, hits);
    std::vector<TextRange> inside;
    std::size_t done = 0, next = 0;
    const auto stretch_to = [&](std::size_t end) {
      inside.clear();
      for (; next < open.size() && open[next].begin < end; ++next) {
        inside.push_back({std::max(open[next].begin, done) - done, std::min(open[next].end, end) - done});
        if (open[next].end > end) break;
      }
      between(text.substr(done, end - done), std::span(inside));
    };
    for (const Hit& hit : hits) {
      stretch_to(hit.begin);
      out.push_back(hit.id);
      done = hit.end;
    }
    stretch_to(text.size());
  }
  void search(const TextMatcher& matcher, std::string_view text, TextRange range, AddedTokens mode,
              std::vector<Hit>& hits) const {
    TextMatcher::Match match;
    std::size_t done = range.begin;
    for (std::size_t from = done; from < range.end && matcher.find(text, from, range.end, match); from = match.end) {
      const AddedToken& token = file_.added[static_cast<std::size_t>(match.value)].second;
      if (mode == AddedTokens::not_special && token.special) continue;
      const std::string_view inside = text.substr(0, range.end);
      if (token.left_strip) match.begin = white_before(inside, done, match.begin);
      if (token.right_strip) match.end = white_after(inside, match.end);
      hits.push_back({match.begin, match.end, token.id});
      done = match.end;
    }
  }

  TokenizerFile file_;
  TokenizerConfig config_;
  TextMatcher first_, second_;  // give an index into file_.added
  std::optional<int> bos_, eos_, pad_;
};

}  // namespace v1
}  // namespace guild
