// Conversations as training data: JSON Lines of messages, learned from where the assistant speaks.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>
#include <guild/io/json.hpp>
#include <guild/io/jsonl.hpp>
#include <guild/io/message.hpp>
#include <guild/training/chat_encoder.hpp>
#include <guild/training/dataset.hpp>
#include <guild/training/token_array.hpp>

namespace guild {
inline namespace v1 {

/// One sample for each conversation. All are tokenized when the set is made, so that a faulty line is found before the
/// training and not in its middle; then only their tokens are kept.
class ChatDataset {
 public:
  /// Lines of {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}; other keys
  /// are ignored, as are blank lines. Errors name `path:line`. Throws io_*, dt_json, dt_type, dt_missing,
  /// dt_conversation, tpl_* and in_utf8; dt_empty for a file without conversations.
  static ChatDataset read(const ChatEncoder& encoder, const std::string& path) {
    return from_lines(encoder, path, [&](const auto& add) { JsonLines{}.read(path, rules(), add); });
  }
  /// The same for the text of such a file; `name` stands for the path in messages.
  static ChatDataset parse(const ChatEncoder& encoder, std::string_view json_lines, const std::string& name = "lines") {
    return from_lines(encoder, name, [&](const auto& add) { JsonLines{}.parse(json_lines, name, rules(), add); });
  }
  /// Conversations in memory. Errors name `conversation N`, from 0.
  ChatDataset(const ChatEncoder& encoder, std::span<const std::vector<Message>> conversations)
      : ChatDataset(encoder.tokenizer().size() - 1) {
    Sample sample;
    for (std::size_t i = 0; i < conversations.size(); ++i)
      add(encoder, conversations[i], "conversation " + std::to_string(i), sample);
    finish("conversations");
  }

  [[nodiscard]] Index size() const { return static_cast<Index>(begins_.size()) - 1; }
  /// Tokens of all samples.
  [[nodiscard]] Index tokens() const { return tokens_.size() - size(); }

  void get(Index i, Sample& out) const {
    detail::check_sample_index(i, size());
    const auto at = static_cast<std::size_t>(i);
    const Index begin = begins_[at], count = begins_[at + 1] - begin - 1;
    out.tokens.resize(static_cast<std::size_t>(count));
    tokens_.copy(begin, out.tokens);
    out.targets.assign(static_cast<std::size_t>(count), TrainingBatch::ignored);
    for (Index s = spans_begin_[at]; s < spans_begin_[at + 1]; ++s) {
      const Span& span = spans_[static_cast<std::size_t>(s)];
      tokens_.copy(begin + span.begin + 1, std::span(out.targets).subspan(span.begin, span.count));
    }
  }

 private:
  struct Span {  // positions of a sample that have a target
    std::uint32_t begin = 0, count = 0;
  };

  explicit ChatDataset(std::int32_t largest) : tokens_(largest) {}

  static JsonRules rules() {
    JsonRules rules;
    rules.syntax = rules.nul = rules.depth = rules.duplicate = rules.number = ErrorCode::dt_json;
    rules.utf8 = ErrorCode::in_utf8;
    rules.type = ErrorCode::dt_type;
    rules.missing = ErrorCode::dt_missing;
    return rules;
  }
  template <class EachLine>
  static ChatDataset from_lines(const ChatEncoder& encoder, const std::string& name, const EachLine& each_line) {
    ChatDataset data(encoder.tokenizer().size() - 1);
    Sample sample;
    each_line([&](const Json& line, const LinePlace&) {
      if (!line.is_object()) line.wrong_type("an object with the key \"messages\"");
      data.add(encoder, parse_messages(line["messages"]), line.rules().path, sample);
    });
    data.finish(name);
    return data;
  }

  void add(const ChatEncoder& encoder, std::span<const Message> messages, const std::string& name, Sample& sample) {
    try {
      encoder.encode(messages, sample);
    } catch (const Error& error) {
      detail::refuse(error.code(), error.message(), detail::At{name, error.path() + error.key(), error.offset()});
    }
    const std::size_t count = sample.tokens.size();
    for (std::size_t i = 0; i < count; ++i) {
      if (sample.targets[i] == TrainingBatch::ignored) continue;
      if (i == 0 || sample.targets[i - 1] == TrainingBatch::ignored)
        spans_.push_back({static_cast<std::uint32_t>(i), 0});
      ++spans_.back().count;
    }
    tokens_.append(sample.tokens);  // and the last target, so that each target is the token after
    tokens_.append(sample.targets.back());
    begins_.push_back(tokens_.size());
    spans_begin_.push_back(static_cast<Index>(spans_.size()));
  }
  void finish(const std::string& name) {
    if (size() == 0)
      detail::refuse(ErrorCode::dt_empty, "there is no conversation; write one a line", detail::At{name});
    tokens_.shrink_to_fit();
  }

  TokenArray tokens_;  // of sample i: begins_[i]..begins_[i + 1]
  std::vector<Index> begins_{0}, spans_begin_{0};
  std::vector<Span> spans_;
};

}  // namespace v1
}  // namespace guild
