// Texts as one long row of tokens, cut into windows: the data of pre-training.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>
#include <guild/io/tokenizer.hpp>
#include <guild/training/dataset.hpp>
#include <guild/training/text_tokens.hpp>
#include <guild/training/token_array.hpp>

namespace guild {
inline namespace v1 {

/// How a row of tokens is cut.
struct TokenStreamOptions {
  Index length = 512;                       ///< tokens of a window; each window reads one more, the last target
  std::optional<std::int32_t> separator{};  ///< put after each document, such as tokenizer.eos_id(); none: just joined
  TextOptions text{};
};

/// N tokens as ceil((N - 1) / length) windows: window i learns tokens i * length + 1 .. (i + 1) * length from those
/// before them in the window, the last window what is left. So every token but the first is a target exactly once.
/// Windows do not stop at documents; the separator tells the model where one ends.
class TokenStream {
 public:
  /// A row that exists already. Throws in_param for a length below 1, dt_empty for fewer than two tokens.
  TokenStream(TokenArray tokens, Index length) : length_(length) {
    if (length < 1) detail::refuse(ErrorCode::in_param, {"is ", length, ", expected at least 1 token"}, "length");
    tokens.shrink_to_fit();
    end_ = tokens.size();
    tokens_ = std::make_shared<const TokenArray>(std::move(tokens));
    check_size("the data");
  }
  TokenStream(std::span<const std::int32_t> tokens, Index length) : TokenStream(array_of(tokens), length) {}

  /// Text files, one document each, read and tokenized piece by piece. Throws io_*, in_utf8 (naming file and byte) and
  /// dt_empty.
  static TokenStream read(const Tokenizer& tokenizer, std::span<const std::string> paths,
                          const TokenStreamOptions& options = {}) {
    return build(tokenizer, options, [&](const TextEncoder& encoder, TokenArray& tokens, const auto& separate) {
      for (const std::string& path : paths) {
        encoder.encode_file(path, tokens);
        separate();
      }
    });
  }
  static TokenStream read(const Tokenizer& tokenizer, const std::string& path, const TokenStreamOptions& options = {}) {
    return read(tokenizer, std::span(&path, 1), options);
  }
  /// Documents in memory.
  static TokenStream encode(const Tokenizer& tokenizer, std::span<const std::string> documents,
                            const TokenStreamOptions& options = {}) {
    return build(tokenizer, options, [&](const TextEncoder& encoder, TokenArray& tokens, const auto& separate) {
      for (const std::string& document : documents) {
        encoder.encode(document, tokens);
        separate();
      }
    });
  }

  [[nodiscard]] Index size() const { return (end_ - begin_ - 1 + length_ - 1) / length_; }
  /// Tokens of the row, or of this part of it.
  [[nodiscard]] Index tokens() const { return end_ - begin_; }
  [[nodiscard]] Index length() const { return length_; }
  /// Token i of the row, or of this part of it.
  [[nodiscard]] std::int32_t token(Index i) const { return (*tokens_)[begin_ + i]; }

  /// Window i. Allocates nothing once `out` has held a whole window.
  void get(Index i, Sample& out) const {
    detail::check_sample_index(i, size());
    const Index first = begin_ + i * length_, count = std::min(length_, end_ - 1 - first);
    out.tokens.resize(static_cast<std::size_t>(count));
    out.targets.resize(static_cast<std::size_t>(count));
    tokens_->copy(first, out.tokens);
    tokens_->copy(first + 1, out.targets);
  }

  /// All but the last `share` of the tokens. The two parts hold every token once and share their memory.
  /// Throws in_param unless 0 < share < 1, dt_empty if a part would have fewer than two tokens.
  [[nodiscard]] TokenStream train_part(double share) const { return part(begin_, cut(share), "the training part"); }
  /// The last `share` of the tokens: text that train_part never shows.
  [[nodiscard]] TokenStream validation_part(double share) const {
    return part(cut(share), end_, "the validation part");
  }

 private:
  static TokenArray array_of(std::span<const std::int32_t> tokens) {
    TokenArray array;
    array.append(tokens);
    return array;
  }
  template <class Fill>
  static TokenStream build(const Tokenizer& tokenizer, const TokenStreamOptions& options, const Fill& fill) {
    TokenArray tokens(tokenizer.size() - 1);
    const TextEncoder encoder(tokenizer, options.text);
    fill(encoder, tokens, [&] {
      if (options.separator) tokens.append(*options.separator);
    });
    return {std::move(tokens), options.length};
  }
  void check_size(const std::string& what) const {
    if (end_ - begin_ < 2)
      detail::refuse(ErrorCode::dt_empty,
                     {what, " has ", end_ - begin_, " tokens, expected at least 2: one to read and one to predict"});
  }
  [[nodiscard]] Index cut(double share) const {
    if (!(share > 0 && share < 1))
      detail::refuse(ErrorCode::in_param, {"is ", share, ", expected a share between 0 and 1"}, "share");
    return end_ - static_cast<Index>(std::llround(static_cast<double>(end_ - begin_) * share));
  }
  [[nodiscard]] TokenStream part(Index begin, Index end, const std::string& what) const {
    TokenStream result = *this;
    result.begin_ = begin;
    result.end_ = end;
    result.check_size(what);
    return result;
  }

  std::shared_ptr<const TokenArray> tokens_;
  Index begin_ = 0, end_ = 0, length_ = 0;
};

}  // namespace v1
}  // namespace guild
