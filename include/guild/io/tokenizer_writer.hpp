// tokenizer.json and tokenizer_config.json, written so that guild and Hugging Face tokenizers read the same from them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/bpe_vocabulary.hpp>
#include <guild/io/file.hpp>
#include <guild/io/json_writer.hpp>
#include <guild/io/tokenizer.hpp>
#include <guild/io/tokenizer_config.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

inline void write_added_tokens(JsonWriter& w, const BpeVocabulary& vocabulary) {
  w.key("added_tokens").begin_array();
  const auto write = [&](const std::vector<NamedToken>& tokens, std::size_t id) {
    for (const NamedToken& token : tokens) {
      w.begin_object().member("id", id++).member("content", token.text).member("single_word", false);
      w.member("lstrip", false).member("rstrip", false).member("normalized", false).member("special", token.special);
      w.end_object();
    }
  };
  write(vocabulary.first, 0);
  write(vocabulary.last, vocabulary.first.size() + vocabulary.tokens.size());
  w.end_array();
}

inline void write_byte_level(JsonWriter& w, bool add_prefix_space, bool use_regex) {
  w.begin_object().member("type", "ByteLevel").member("add_prefix_space", add_prefix_space);
  w.member("trim_offsets", true).member("use_regex", use_regex).end_object();
}

inline void write_pre_tokenizer(JsonWriter& w, const SplitRules& splits) {
  const bool gpt2 = splits.last == SplitRules::Last::gpt2;
  const bool digits = splits.digits == SplitRules::Digits::one_by_one;
  w.key("pre_tokenizer");
  if (splits.patterns.empty() && !digits) return write_byte_level(w, false, gpt2);
  w.begin_object().member("type", "Sequence").key("pretokenizers").begin_array();
  for (const std::string& pattern : splits.patterns) {
    w.begin_object().member("type", "Split");
    w.key("pattern").begin_object().member("Regex", pattern).end_object();
    w.member("behavior", "Isolated").member("invert", false).end_object();
  }
  if (digits) w.begin_object().member("type", "Digits").member("individual_digits", true).end_object();
  write_byte_level(w, false, gpt2);
  w.end_array().end_object();
}

inline void write_bpe(JsonWriter& w, const BpeVocabulary& vocabulary) {
  w.key("model").begin_object().member("type", "BPE").member("dropout", nullptr).member("unk_token", nullptr);
  w.member("continuing_subword_prefix", nullptr).member("end_of_word_suffix", nullptr).member("fuse_unk", false);
  w.member("byte_fallback", false).member("ignore_merges", false).key("vocab").begin_object();
  std::size_t id = 0;
  for (const NamedToken& token : vocabulary.first) w.member(token.text, id++);
  std::vector<std::string> symbols;
  for (const std::string& token : vocabulary.tokens) w.member(symbols.emplace_back(spelled(token)), id++);
  w.end_object().key("merges").begin_array();
  const auto symbol = [&](std::int32_t part) -> const std::string& {
    const auto i = static_cast<std::size_t>(part) - vocabulary.first.size();
    if (i >= symbols.size())
      refuse(ErrorCode::tk_merge, {"a merge names the id ", part, ", which is not one of `tokens`"});
    return symbols[i];
  };
  for (const BpeVocabulary::Merge& merge : vocabulary.merges)
    w.begin_array().value(symbol(merge.left)).value(symbol(merge.right)).end_array();
  w.end_array().end_object();
}

}  // namespace detail

/// The text of tokenizer.json, laid out as Hugging Face tokenizers lays it out. Throws in_utf8 and in_param for named
/// tokens or patterns that JSON cannot hold, in_param for a named token that is in `tokens` too, tk_merge for
/// a merge of ids that are not in `tokens`; what else a vocabulary
/// can get wrong shows when it is read.
[[nodiscard]] inline std::string tokenizer_json(const BpeVocabulary& vocabulary) {
  JsonWriter w;
  w.begin_object().member("version", "1.0").member("truncation", nullptr).member("padding", nullptr);
  detail::write_added_tokens(w, vocabulary);
  w.member("normalizer", nullptr);
  detail::write_pre_tokenizer(w, vocabulary.splits);
  w.member("post_processor", nullptr).key("decoder");
  detail::write_byte_level(w, true, true);  // neither has a meaning in a decoder
  detail::write_bpe(w, vocabulary);
  w.end_object();
  return w.take();
}

/// The text of tokenizer_config.json. bos and eos must be named (they may be the same token); pad, unk and the chat
/// template are left out where they are empty. Throws tk_special.
[[nodiscard]] inline std::string tokenizer_config_json(const TokenizerConfig& config) {
  for (const auto& [key, value] : {std::pair{"bos_token", &config.bos_token}, {"eos_token", &config.eos_token}})
    if (value->empty())
      detail::refuse(
          ErrorCode::tk_special,
          "this token is not named. A prompt cannot be begun or ended without it; name one of the vocabulary's "
          "special tokens, the same for both if there is only one",
          detail::At{config.path, key});
  JsonWriter w;
  w.begin_object().member("tokenizer_class", "PreTrainedTokenizerFast").member("clean_up_tokenization_spaces", false);
  for (const auto& [key, value] : {std::pair{"bos_token", &config.bos_token},
                                   {"eos_token", &config.eos_token},
                                   {"pad_token", &config.pad_token},
                                   {"unk_token", &config.unk_token},
                                   {"chat_template", &config.chat_template}})
    if (!value->empty()) w.member(key, *value);
  w.end_object();
  return w.take();
}

/// Writes both files into a folder that exists, each whole or not at all, and gives the tokenizer that reading them
/// gives. Nothing is written if they could not be read again: throws tk_* (tk_special: bos, eos or pad is no token),
/// in_utf8, in_param, io_*.
inline Tokenizer write_tokenizer(const std::string& folder, const BpeVocabulary& vocabulary,
                                 const TokenizerConfig& config) {
  const std::string path = path_in(folder, "tokenizer.json");
  const std::string json = tokenizer_json(vocabulary), config_json = tokenizer_config_json(config);
  Tokenizer tokenizer = Tokenizer::parse(json, config_json, path);
  AtomicFile file(path), config_file(path_in(folder, "tokenizer_config.json"));
  file.write(json);
  config_file.write(config_json);
  file.commit();
  config_file.commit();
  return tokenizer;
}

}  // namespace v1
}  // namespace guild
