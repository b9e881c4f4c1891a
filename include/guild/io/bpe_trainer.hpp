// From plain text to a tokenizer: a byte-level BPE vocabulary, trained as Hugging Face tokenizers trains it.
//
//     BpeVocabulary vocabulary = train_bpe_from_files({.vocab_size = 8192, .first = {{"<s>"}, {"</s>"}}},
//     {"corpus.txt"}); Tokenizer tokenizer = write_tokenizer("folder", vocabulary, {.bos_token = "<s>", .eos_token =
//     "</s>"});
//
// The result depends only on how often each piece occurs: the order of texts and files does not matter, nor does the
// number of calls that brought them. Where a text ends matters, because a piece ends there. Nothing is drawn at random.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/bpe_merges.hpp>
#include <guild/io/bpe_vocabulary.hpp>
#include <guild/io/file.hpp>
#include <guild/io/tokenizer.hpp>
#include <guild/io/tokenizer_file.hpp>
#include <guild/io/tokenizer_writer.hpp>
#include <guild/io/utf8.hpp>

namespace guild {
inline namespace v1 {

/// How far the training of a vocabulary has come.
struct BpeProgress {
  enum class Stage : std::uint8_t { counting, merging };
  Stage stage = Stage::counting;
  std::int64_t done = 0;   ///< counting: bytes of text; merging: tokens, bytes and named ones included
  std::int64_t total = 0;  ///< counting: 0 if not known
};

struct BpeTrainerOptions {
  int vocab_size = 0;               ///< all ids: named tokens, 256 bytes, merges; fewer if the text runs out of pairs
  std::vector<NamedToken> first{};  ///< ids from 0, such as bos, eos, pad
  std::vector<NamedToken> last{};   ///< ids after the merges
  SplitRules splits = SplitRules::deepseek_v3();
  std::int64_t min_frequency = 0;   ///< a pair that occurs less often is not merged
  std::size_t max_token_bytes = 0;  ///< no longer token is made; 0: as long as a tokenizer.json may have (32 KiB).
                                    ///< Hugging Face's `max_token_length` is one more
  InvalidUtf8 invalid_utf8 = InvalidUtf8::error;
  std::function<bool(const BpeProgress&)> progress{};  ///< called often; returning false stops with io_cancelled
};

/// Counts the pieces of any number of texts, then merges.
///
/// Named tokens are not looked for in the texts: leave them out there. A merge that would spell one is not made, so
/// that text of users never becomes a control token. Memory grows with the number of different pieces.
class BpeTrainer {
 public:
  /// Texts longer than this are read from files in parts; `add` refuses them.
  static constexpr std::size_t max_text = Tokenizer::max_text;

  /// Throws tk_vocab_size (too small for the bytes and named tokens, or too large), tk_added (named twice, a byte's
  /// symbol, empty), in_param, in_utf8 (named tokens and patterns), tk_regex, tk_unsupported, tk_limit (patterns).
  explicit BpeTrainer(BpeTrainerOptions options) : options_(std::move(options)) {
    check_named();
    const auto named = static_cast<std::int64_t>(options_.first.size() + options_.last.size());
    if (options_.vocab_size < 256 + named || options_.vocab_size > TokenizerFile::max_ids)
      detail::refuse(ErrorCode::tk_vocab_size,
                     {"is ", options_.vocab_size, ", expected at least ", 256 + named, " (256 bytes and ", named,
                      " named tokens) and at most ", TokenizerFile::max_ids},
                     "vocab_size");
    if (options_.min_frequency < 0)
      detail::refuse(ErrorCode::in_param, "is negative, expected 0 or more", "min_frequency");
    if (options_.max_token_bytes == 1)
      detail::refuse(ErrorCode::in_param,
                     "is 1, expected 0 (no limit) or at least 2. For no merges, use byte_vocabulary",
                     "max_token_bytes");
    // Reading the beginning of the later file finds now what would be wrong with it then.
    BpeVocabulary bytes = byte_vocabulary(options_.first, options_.last);
    bytes.splits = options_.splits;
    splitter_ = TokenizerFile::parse(tokenizer_json(bytes), "the options of the trainer").splitter;
  }

  /// Counts one text. Throws in_utf8 (nothing is counted then), in_param (too long), tk_limit (hostile split pattern),
  /// io_cancelled.
  void add(std::string_view text) { add(text, {}); }

  /// Counts a file as one text. One beyond 4 MiB is read in parts that end where a line ends and no white space
  /// follows: with the DeepSeek rules no piece goes across that, with others it can be cut there. Throws io_* and what
  /// `add` throws.
  void add_file(const std::string& path) {
    const File file = File::open(path);
    std::string text;
    for (std::uint64_t read = 0; read < file.size();) {
      const std::uint64_t begin = read - text.size();  // of the text, in the file
      const auto more = static_cast<std::size_t>(std::min<std::uint64_t>(part_, file.size() - read));
      text.resize(text.size() + more);
      file.read_at(read, text.data() + text.size() - more, more);
      read += more;
      const std::size_t end = read == file.size() ? text.size() : end_of_part(text);
      add(std::string_view(text).substr(0, end), {path, {}, static_cast<std::int64_t>(begin)});
      text.erase(0, end);
    }
  }

  /// What progress gives as the total while texts are counted.
  void expect(std::int64_t bytes) { expected_ = bytes; }

  /// The vocabulary of what was counted so far. Throws in_empty if that is nothing, io_cancelled.
  [[nodiscard]] BpeVocabulary train() const {
    if (pieces_.empty())
      detail::refuse(ErrorCode::in_empty, "there is no text to train on. Check the files, or use byte_vocabulary");
    const std::size_t named = options_.first.size() + options_.last.size();
    const std::size_t longest = TokenizerFile::max_token / 2;  // a byte's symbol has up to two bytes
    detail::MergeLearner learner(
        {.tokens = static_cast<std::size_t>(options_.vocab_size) - named,
         .min_frequency = options_.min_frequency,
         .max_token_bytes = options_.max_token_bytes == 0 ? longest : std::min(options_.max_token_bytes, longest)},
        forbidden());
    for (const auto& [piece, count] : pieces_) learner.add(piece, count);
    learner.learn([&](std::size_t tokens) {
      report(BpeProgress::Stage::merging, static_cast<std::int64_t>(tokens + named), options_.vocab_size);
    });
    BpeVocabulary vocabulary{options_.splits, options_.first, learner.tokens(), {}, options_.last};
    const auto offset = static_cast<std::int32_t>(options_.first.size());
    for (const auto& [left, right] : learner.merges()) vocabulary.merges.push_back({left + offset, right + offset});
    return vocabulary;
  }

 private:
  static constexpr std::size_t part_ = std::size_t{4} << 20;     // bytes of a file at a time
  static constexpr std::int64_t often_ = std::int64_t{1} << 20;  // bytes between two reports

  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const noexcept { return std::hash<std::string_view>{}(text); }
  };

  void check_named() const {
    std::unordered_set<std::string_view> seen;
    for (const auto* list : {&options_.first, &options_.last})
      for (const NamedToken& token : *list) {
        if (!seen.insert(token.text).second)
          detail::refuse(ErrorCode::tk_added, "is named twice, expected once", token.text);
        if (const auto bytes = byte_level_decode(token.text); bytes && bytes->size() == 1)
          detail::refuse(ErrorCode::tk_added, "is the symbol of a byte, which text needs; choose a longer text",
                         token.text);
      }
  }
  [[nodiscard]] std::unordered_set<std::string> forbidden() const {
    std::unordered_set<std::string> out;
    for (const auto* list : {&options_.first, &options_.last})
      for (const NamedToken& token : *list)
        if (auto bytes = byte_level_decode(token.text)) out.insert(std::move(*bytes));
    return out;
  }

  void add(std::string_view text, const Where& where) {
    if (text.size() > max_text)
      detail::refuse(ErrorCode::in_param, {"the text has ", text.size(), " bytes, at most ", max_text,
                                           " are taken at once. Cut it, or use add_file"});
    const std::size_t fault = utf8_fault(text);
    std::string replaced;
    if (fault != std::string_view::npos) {
      if (options_.invalid_utf8 == InvalidUtf8::error)
        detail::refuse(
            ErrorCode::in_utf8, "the text is not valid UTF-8 here. Convert it, or choose InvalidUtf8::replace",
            detail::At{where.path, {}, std::max<std::int64_t>(where.offset, 0) + static_cast<std::int64_t>(fault)});
      text = replaced = utf8_lossy(text);
    }
    splitter_.for_each_piece(text, scratch_, [&](std::string_view piece) {
      if (const auto at = pieces_.find(piece); at != pieces_.end()) {
        ++at->second;
      } else {
        pieces_.emplace(piece, 1);
      }
    });
    done_ += static_cast<std::int64_t>(text.size());
    if (done_ < report_at_) return;
    report_at_ = done_ + often_;
    report(BpeProgress::Stage::counting, done_, expected_);
  }
  void report(BpeProgress::Stage stage, std::int64_t done, std::int64_t total) const {
    if (options_.progress && !options_.progress({stage, done, total}))
      detail::refuse(ErrorCode::io_cancelled, "training the tokenizer was stopped by the progress callback");
  }

  // Behind the last line feed that no white space follows; or else the last line feed, or else the last character.
  static std::size_t end_of_part(std::string_view text) {
    const auto white = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
    for (std::size_t i = text.size() - 1; i > 0; --i)
      if (text[i - 1] == '\n' && !white(text[i])) return i;
    if (const std::size_t feed = text.rfind('\n'); feed != std::string_view::npos) return feed + 1;
    std::size_t end = text.size() - 1;
    while (end > 0 && text.size() - end < 4 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;
    return end > 0 ? end : text.size();
  }

  BpeTrainerOptions options_;
  PreTokenizer splitter_{};
  Regex::Scratch scratch_{};
  std::unordered_map<std::string, std::int64_t, Hash, std::equal_to<>> pieces_{};
  std::int64_t done_ = 0, expected_ = 0, report_at_ = often_;
};

/// Trains on a range of texts, each of which converts to std::string_view.
template <class Texts>
[[nodiscard]] BpeVocabulary train_bpe(BpeTrainerOptions options, const Texts& texts) {
  BpeTrainer trainer(std::move(options));
  for (const auto& text : texts) trainer.add(std::string_view(text));
  return trainer.train();
}

/// Trains on files of UTF-8 text.
[[nodiscard]] inline BpeVocabulary train_bpe_from_files(BpeTrainerOptions options,
                                                        const std::vector<std::string>& paths) {
  BpeTrainer trainer(std::move(options));
  std::int64_t bytes = 0;
  for (const std::string& path : paths) bytes += static_cast<std::int64_t>(File::open(path).size());
  trainer.expect(bytes);
  for (const std::string& path : paths) trainer.add_file(path);
  return trainer.train();
}

}  // namespace v1
}  // namespace guild
