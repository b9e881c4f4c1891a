// The split of a text into the pieces within which tokens are merged, as `pre_tokenizer` of tokenizer.json asks.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/io/json.hpp>
#include <guild/io/regex.hpp>

namespace guild {
inline namespace v1 {

/// A sequence of splits that ends in ByteLevel. Every match of a split is a piece and so is every gap between matches;
/// the next split sees each piece as a text of its own, so that its lookaheads end where the piece ends.
///
/// Read: `Split` with behavior Isolated, `Digits`, `ByteLevel` (last, add_prefix_space false), `Sequence` of these.
/// Everything else is refused with tk_unsupported, because another split silently gives other tokens.
class PreTokenizer {
 public:
  static constexpr std::size_t max_splits = 16;

  /// Reads the value of the key `pre_tokenizer`.
  static PreTokenizer parse(const Json& json) {
    PreTokenizer result;
    if (json.is_null())
      json.fail(ErrorCode::tk_unsupported, "there is no pre-tokenizer; guild needs one with ByteLevel");
    result.add(json, 0);
    if (!result.byte_level_)
      json.fail(ErrorCode::tk_unsupported, "there is no ByteLevel step; guild reads byte-level tokenizers only");
    return result;
  }

  /// Calls f(std::string_view piece) for each piece of valid UTF-8 text, in order, none empty.
  template <class F>
  void for_each_piece(std::string_view text, Regex::Scratch& scratch, F&& f) const {
    split(0, text, scratch, f);
  }

 private:
  // What a ByteLevel step with use_regex splits by (GPT-2).
  static constexpr std::string_view gpt2_pattern_ =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

  void add(const Json& json, int depth) {
    const std::string_view type = json["type"].string();
    if (byte_level_) json.fail(ErrorCode::tk_unsupported, "a step after ByteLevel; ByteLevel must be the last one");
    if (splits_.size() >= max_splits) json.fail(ErrorCode::tk_limit, "more than 16 splits");
    if (type == "Sequence") {
      if (depth > 4) json.fail(ErrorCode::tk_limit, "sequences nested deeper than 4");
      json["pretokenizers"].for_each_element([&](const Json& step) { add(step, depth + 1); });
    } else if (type == "Split") {
      add_split(json);
    } else if (type == "Digits") {
      const bool individual = json["individual_digits"].boolean();
      splits_.emplace_back(individual ? R"(\p{N})" : R"(\p{N}+)", Regex::Syntax::pattern,
                           Where{json.rules().path, json.where(), -1});
    } else if (type == "ByteLevel") {
      if (json["add_prefix_space"].boolean())
        json.fail(ErrorCode::tk_unsupported, "add_prefix_space is true; only false is supported");
      const auto use_regex = json.find("use_regex");
      if (!use_regex || use_regex->boolean())
        splits_.emplace_back(gpt2_pattern_, Regex::Syntax::pattern, Where{json.rules().path, json.where(), -1});
      byte_level_ = true;
    } else {
      json.fail(
          ErrorCode::tk_unsupported,
          {"the pre-tokenizer \"", type,
           "\" is not supported (Sequence, Split, Digits and ByteLevel are); another one would give other tokens"});
    }
  }
  void add_split(const Json& json) {
    const std::string_view behavior = json["behavior"].string();
    if (behavior != "Isolated")
      json.fail(ErrorCode::tk_unsupported, {"Split with behavior \"", behavior, "\"; only Isolated is supported"});
    if (const auto invert = json.find("invert"); invert && invert->boolean())
      json.fail(ErrorCode::tk_unsupported, "Split with invert true; only false is supported");
    const Json pattern = json["pattern"];
    const auto regex = pattern.find("Regex");
    const Json text = regex ? *regex : pattern["String"];
    splits_.emplace_back(text.string(), regex ? Regex::Syntax::pattern : Regex::Syntax::literal,
                         Where{json.rules().path, text.where(), -1});
  }

  template <class F>
  void split(std::size_t step, std::string_view text, Regex::Scratch& scratch, F& f) const {
    if (text.empty()) return;
    if (step == splits_.size()) {
      f(text);
      return;
    }
    std::size_t done = 0;
    Regex::Match match;
    while (done < text.size() && splits_[step].find(text, done, scratch, match)) {
      split(step + 1, text.substr(done, match.begin - done), scratch, f);
      split(step + 1, text.substr(match.begin, match.end - match.begin), scratch, f);
      done = match.end;
    }
    split(step + 1, text.substr(done), scratch, f);
  }

  std::vector<Regex> splits_;
  bool byte_level_ = false;
};

}  // namespace v1
}  // namespace guild
