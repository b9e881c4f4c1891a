// tokenizer.json, read and checked: the parts a Tokenizer is made of.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/added_tokens.hpp>
#include <guild/io/bpe.hpp>
#include <guild/io/byte_level.hpp>
#include <guild/io/json.hpp>
#include <guild/io/normalizer.hpp>
#include <guild/io/pretokenizer.hpp>
#include <guild/io/symbol_table.hpp>

namespace guild {
inline namespace v1 {

/// The bytes and marks of each id. Ids may have gaps.
class TokenTable {
 public:
  [[nodiscard]] int size() const noexcept { return static_cast<int>(entries_.size()); }
  [[nodiscard]] bool has(int id) const noexcept { return in_range(id) && entry(id).present; }
  [[nodiscard]] bool is_added(int id) const noexcept { return in_range(id) && entry(id).added; }
  [[nodiscard]] bool is_special(int id) const noexcept { return in_range(id) && entry(id).special; }
  [[nodiscard]] std::string_view bytes(int id) const {
    return std::string_view(bytes_).substr(entry(id).begin, entry(id).length);
  }

  void set(int id, std::string_view bytes) {
    if (!in_range(id)) entries_.resize(static_cast<std::size_t>(id) + 1);
    Entry& e = entries_[static_cast<std::size_t>(id)];
    e.begin = static_cast<std::uint32_t>(bytes_.size());
    e.length = static_cast<std::uint32_t>(bytes.size());
    e.present = true;
    bytes_ += bytes;
  }
  void mark(int id, bool special) {
    entries_[static_cast<std::size_t>(id)].added = true;
    entries_[static_cast<std::size_t>(id)].special = special;
  }

 private:
  struct Entry {
    std::uint32_t begin = 0, length = 0;
    bool present = false, added = false, special = false;
  };
  [[nodiscard]] bool in_range(int id) const noexcept { return id >= 0 && id < size(); }
  [[nodiscard]] const Entry& entry(int id) const { return entries_[static_cast<std::size_t>(id)]; }

  std::string bytes_;
  std::vector<Entry> entries_;
};

/// A checked tokenizer.json. Read: version 1.0, a BPE model with all 256 byte symbols, the normalizers of Normalizer,
/// the pre-tokenizers of PreTokenizer, the ByteLevel decoder. Refused with tk_unsupported: everything that would change
/// the tokens otherwise. Not used: `truncation`, `padding` (options of a call) and `post_processor` (adds tokens that
/// the chat template writes).
struct TokenizerFile {
  static constexpr std::uint64_t max_bytes = std::uint64_t{512} << 20;
  static constexpr std::size_t max_token = 65536;  ///< bytes of one token's text
  static constexpr std::size_t max_added_token = 4096;
  static constexpr int max_ids = 1 << 22;

  std::string path{};
  TokenTable tokens{};
  MergeTable merges{};
  std::array<std::int32_t, 256> byte_ids{};
  Normalizer normalizer{};
  PreTokenizer splitter{};
  std::vector<std::pair<std::string, AddedToken>> added{};
  bool ignore_merges = false;  ///< a piece that is a token as a whole is not merged from its bytes
  std::unordered_map<std::string, int> whole_pieces{};  ///< bytes of the tokens, only if ignore_merges

  static TokenizerFile parse(std::string_view text, const std::string& path) {
    JsonRules rules;
    rules.path = path;
    rules.syntax = rules.utf8 = rules.nul = rules.depth = rules.duplicate = ErrorCode::tk_json;
    rules.number = ErrorCode::tk_id;
    rules.type = ErrorCode::tk_type;
    rules.missing = ErrorCode::tk_missing;
    if (text.size() > max_bytes)
      detail::refuse(ErrorCode::tk_limit, {"has ", text.size(), " bytes, at most ", max_bytes, " are read"},
                     detail::At{path, {}});
    const Json json = Json::parse(text, rules);
    if (!json.is_object()) json.wrong_type("an object");
    TokenizerFile file;
    file.path = path;
    if (const auto version = json.find("version"); !version || !version->is_string() || version->string() != "1.0")
      detail::refuse(
          ErrorCode::tk_version,
          {"is ",
           (version && version->is_string() ? "\"" + std::string(version->string()) + "\"" : std::string("missing")),
           ", only \"1.0\" is supported"},
          detail::At{path, "version"});
    if (const auto steps = json.find("normalizer")) file.normalizer = Normalizer::parse(*steps);
    file.check_decoder(json);
    const Json model = json["model"];
    check_model(model);
    file.splitter = PreTokenizer::parse(json["pre_tokenizer"]);
    SymbolTable symbols(model["vocab"].size());  // spelled as in the file, which outlives it
    file.read_vocabulary(model, symbols);
    if (const auto entries = json.find("added_tokens"); entries && !entries->is_null())
      file.read_added_tokens(*entries, symbols);
    file.read_merges(model["merges"], symbols);
    return file;
  }

 private:
  void check_decoder(const Json& json) const {
    const auto decoder = json.find("decoder");
    const std::string type(decoder && decoder->is_object() ? (*decoder)["type"].string() : "none");
    if (type != "ByteLevel")
      detail::refuse(ErrorCode::tk_unsupported, {"the decoder is \"", type, "\", only ByteLevel is supported"},
                     detail::At{path, "decoder"});
  }
  static void check_model(const Json& model) {
    const std::string_view type = model["type"].string();
    if (type != "BPE") model.fail(ErrorCode::tk_unsupported, {"the model is \"", type, "\", only BPE is supported"});
    if (const auto dropout = model.find("dropout"); dropout && !dropout->is_null() && dropout->number() != 0.0)
      dropout->fail(ErrorCode::tk_unsupported, "merges are dropped at random; only null is supported");
    for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (const auto affix = model.find(key); affix && !affix->is_null() && !affix->string().empty())
        affix->fail(ErrorCode::tk_unsupported, "is set; only null is supported");
  }
  static int checked_id(const Json& json) {
    const std::int64_t id = json.integer();
    if (id < 0 || id >= max_ids) json.fail(ErrorCode::tk_id, {"the id is ", id, ", ids must be 0..", max_ids - 1});
    return static_cast<int>(id);
  }

  void read_vocabulary(const Json& model, SymbolTable& symbols) {
    const auto ignore = model.find("ignore_merges");
    ignore_merges = ignore && !ignore->is_null() && ignore->boolean();
    const Json vocabulary = model["vocab"];
    vocabulary.for_each_member([&](std::string_view key, const Json& value) {
      if (key.size() > max_token)
        vocabulary.fail(ErrorCode::tk_limit,
                        {"a token has a text of ", key.size(), " bytes, at most ", max_token, " are read"});
      const int id = checked_id(value);
      const auto spelled = byte_level_decode(key);
      if (tokens.has(id))
        value.fail(ErrorCode::tk_duplicate_id, {"the id ", id, " belongs to \"", tokens.bytes(id), "\" already"});
      tokens.set(id, spelled ? std::string_view(*spelled) : key);
      symbols.add(key, id);
    });
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const std::string symbol = byte_symbol(static_cast<std::uint8_t>(byte));
      byte_ids[byte] = symbols.find(symbol);
      if (byte_ids[byte] < 0)
        vocabulary.fail(ErrorCode::tk_alphabet,
                        {"has no token \"", symbol, "\" for the byte ", byte, ", so not every text could be encoded"});
    }
    if (ignore_merges)
      symbols.for_each([&](std::string_view key, int id) {
        if (auto spelled = byte_level_decode(key)) whole_pieces.emplace(std::move(*spelled), id);
      });
  }

  void read_added_tokens(const Json& entries, const SymbolTable& symbols) {
    SymbolTable seen(entries.size());
    entries.for_each_element([&](const Json& entry) {
      const Json content = entry["content"];
      const std::string_view text = content.string();
      if (text.empty()) content.fail(ErrorCode::tk_added, "the added token is empty; it would match everywhere");
      if (text.size() > max_added_token)
        content.fail(ErrorCode::tk_limit,
                     {"the added token has ", text.size(), " bytes, at most ", max_added_token, " are read"});
      const auto flag = [&](std::string_view key) {
        const auto value = entry.find(key);
        return value && value->boolean();
      };
      if (flag("single_word")) entry["single_word"].fail(ErrorCode::tk_unsupported, "is true; only false is supported");
      AddedToken token;
      token.id = checked_id(entry["id"]);
      token.special = flag("special");
      token.left_strip = flag("lstrip");
      token.right_strip = flag("rstrip");
      token.normalized = flag("normalized");
      check_added(entry, text, token, symbols);
      if (seen.find(text) >= 0) entry.fail(ErrorCode::tk_added, {"\"", text, "\" is listed twice"});
      seen.add(text, token.id);
      tokens.set(token.id, text);
      tokens.mark(token.id, token.special);
      added.emplace_back(text, token);
    });
    std::erase_if(whole_pieces, [&](const auto& piece) { return tokens.is_added(piece.second); });
  }
  // The same text must have the same id in both lists, and the same id the same text.
  void check_added(const Json& entry, std::string_view text, const AddedToken& token,
                   const SymbolTable& symbols) const {
    const std::string what = "\"" + std::string(text) + "\" has the id " + std::to_string(token.id);
    const int in_vocabulary = symbols.find(text);
    if (in_vocabulary >= 0 && in_vocabulary != token.id)
      entry.fail(ErrorCode::tk_added, {what, ", but ", in_vocabulary, " in model.vocab"});
    if (in_vocabulary >= 0) {
      for (const std::int32_t id : byte_ids)
        if (id == token.id && token.special) entry.fail(ErrorCode::tk_added, {what, ", which stands for a byte"});
    } else if (tokens.is_added(token.id)) {
      entry.fail(ErrorCode::tk_duplicate_id,
                 {what, ", which belongs to the added token \"", tokens.bytes(token.id), "\" already"});
    } else if (tokens.has(token.id)) {
      entry.fail(ErrorCode::tk_added, {what, ", which belongs to another token in model.vocab"});
    }
  }

  void read_merges(const Json& list, const SymbolTable& symbols) {
    merges = MergeTable(list.size());
    std::string joined;
    std::uint32_t rank = 0;
    list.for_each_element([&](const Json& merge) {
      const auto [left, right] = parts(merge);
      if (left == "#version:") return;  // a header line that old files carry over from merges.txt
      joined.assign(left).append(right);
      std::array<std::int32_t, 3> ids{};
      for (std::size_t i = 0; i < 3; ++i) {
        const std::string_view symbol = i == 0 ? left : i == 1 ? right : std::string_view(joined);
        ids[i] = symbols.find(symbol);
        if (ids[i] < 0) merge.fail(ErrorCode::tk_merge, {"names \"", symbol, "\", which is not in model.vocab"});
      }
      // Otherwise text of a user could become a control token.
      if (tokens.is_special(ids[2]))
        merge.fail(ErrorCode::tk_merge, {"makes the special token \"", joined, "\" out of ordinary text"});
      merges.set(ids[0], ids[1], {rank++, ids[2]});
    });
  }
  // "a b" or ["a", "b"].
  static std::pair<std::string_view, std::string_view> parts(const Json& merge) {
    if (merge.is_array()) {
      if (merge.size() != 2) merge.fail(ErrorCode::tk_merge, {"has ", merge.size(), " parts, expected 2"});
      return {merge[0].string(), merge[1].string()};
    }
    const std::string_view text = merge.string();
    const std::size_t space = text.find(' ');
    if (space == std::string_view::npos || space == 0 || space + 1 == text.size() ||
        text.find(' ', space + 1) != std::string_view::npos)
      merge.fail(ErrorCode::tk_merge, {"is \"", text, "\", expected two parts with one space between"});
    return {text.substr(0, space), text.substr(space + 1)};
  }
};

}  // namespace v1
}  // namespace guild
