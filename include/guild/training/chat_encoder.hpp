// A conversation as a sample: its tokens, and which of them the assistant wrote.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/chat_template.hpp>
#include <guild/io/message.hpp>
#include <guild/io/text_part.hpp>
#include <guild/io/think.hpp>
#include <guild/io/tokenizer.hpp>
#include <guild/training/dataset.hpp>

namespace guild {
inline namespace v1 {

/// Which tokens an assistant's turn is.
enum class AssistantText : std::uint8_t {
  /// What the chat template shows of the finished conversation; every assistant's turn is learned. Published templates
  /// drop thinking from it: R1's shows only what follows the last `</think>`, so that is all that is learned.
  as_rendered,
  /// What the model has to write after the template's prompt: thinking, `</think>`, answer, end token. The conversation
  /// must end with the assistant's turn, and only that turn is learned; earlier ones are history as the template shows
  /// it. This is how thinking is taught. The thinking is `reasoning_content`, or stands in the content up to the first
  /// `</think>`; without any, a prompt that opens `<think>` is answered with an empty thought.
  as_generated,
};

struct ChatOptions {
  AssistantText assistant = AssistantText::as_rendered;
  std::optional<std::int32_t> end_token{};  ///< ends a turn; none: the tokenizer's end of sequence
  RenderOptions render{};                   ///< tools and switches of the template
};

/// Conversations to samples, by a folder's own tokenizer and chat template. What messages spell never becomes a control
/// token, with the one exception of the thinking tags in AssistantText::as_generated. Copies share the tokenizer; any
/// number of threads may use one at the same time.
class ChatEncoder {
 public:
  /// Throws tk_special if the end of sequence is needed and not known.
  ChatEncoder(Tokenizer tokenizer, ChatTemplate chat_template, ChatOptions options = {})
      : tokenizer_(std::make_shared<const Tokenizer>(std::move(tokenizer))),
        template_(std::move(chat_template)),
        options_(std::move(options)),
        end_token_(options_.end_token ? *options_.end_token : tokenizer_->eos_id()) {}
  /// Reads both from the folder of a model.
  static ChatEncoder read(const std::string& folder, ChatOptions options = {}) {
    return {Tokenizer::read(folder), ChatTemplate::read(folder), std::move(options)};
  }

  /// Overwrites `out`. Targets are the assistant's tokens up to and with the end token; the sample ends with the last
  /// of them. Throws dt_conversation (no message, no assistant's turn, nothing before it), tpl_* and in_utf8.
  void encode(std::span<const Message> messages, Sample& out) const {
    if (messages.empty()) bad("there is no message; a conversation needs a question and an answer");
    if (std::none_of(messages.begin(), messages.end(), by_assistant))
      bad("no message has the role \"assistant\"; there is nothing to learn");
    if (by_assistant(messages.front())) bad("begins with the assistant; put the message that it answers before it");
    if (options_.assistant == AssistantText::as_generated) {
      encode_generated(messages, out);
    } else {
      encode_rendered(messages, out);
    }
  }

  [[nodiscard]] const Tokenizer& tokenizer() const { return *tokenizer_; }
  [[nodiscard]] const ChatTemplate& chat_template() const { return template_; }

 private:
  using Tokens = std::vector<int>;
  struct Rendered {
    std::string text{};
    Tokens tokens{};
  };
  enum class Prompt : std::uint8_t { none, generation };

  [[noreturn]] static void bad(const std::string& message) { detail::refuse(ErrorCode::dt_conversation, message); }
  static bool by_assistant(const Message& message) { return message.role == "assistant"; }

  [[nodiscard]] Rendered render(std::span<const Message> messages, Prompt prompt) const {
    RenderOptions options = options_.render;
    options.add_generation_prompt = prompt == Prompt::generation;
    const std::vector<TextPart> parts = template_.render_parts(messages, options);
    Rendered result{{}, tokenizer_->encode(parts)};
    for (const TextPart& part : parts) result.text += part.text;
    return result;
  }
  static std::size_t common_prefix(const Tokens& a, const Tokens& b) {
    return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
  }

  // A turn begins where the whole leaves the prompt for it, and ends with its end token.
  void encode_rendered(std::span<const Message> messages, Sample& out) const {
    const Rendered whole = render(messages, Prompt::none);
    out.tokens.assign(whole.tokens.begin(), whole.tokens.end());
    out.targets.assign(whole.tokens.size(), TrainingBatch::ignored);
    std::size_t last = 0;
    for (std::size_t turn = 1; turn < messages.size(); ++turn) {
      if (!by_assistant(messages[turn])) continue;
      const auto before = messages.first(turn);
      if (!whole.text.starts_with(render(before, Prompt::none).text))
        bad("the chat template shows the messages before message " + std::to_string(turn) +
            " otherwise once more follow, so its turn cannot be found. Use AssistantText::as_generated");
      const std::size_t begin = common_prefix(render(before, Prompt::generation).tokens, whole.tokens);
      const std::size_t end = end_of_turn(messages, turn, begin, whole);
      if (end <= begin) bad("message " + std::to_string(turn) + " leaves no token of its own in the rendered text");
      for (std::size_t i = begin; i < end; ++i) out.targets[i - 1] = out.tokens[i];
      last = end;
    }
    out.tokens.resize(last - 1);
    out.targets.resize(last - 1);
  }
  // One past the turn's end token; a template that writes none ends the turn where the next message begins.
  [[nodiscard]] std::size_t end_of_turn(std::span<const Message> messages, std::size_t turn, std::size_t begin,
                                        const Rendered& whole) const {
    const auto first = whole.tokens.begin() + static_cast<std::ptrdiff_t>(begin);
    const bool final = turn + 1 == messages.size();
    const Rendered upto = final ? Rendered{} : render(messages.first(turn + 1), Prompt::none);
    if (!final && !whole.text.starts_with(upto.text)) {  // such as thinking that is shown in the last turn only
      const auto found = std::find(first, whole.tokens.end(), end_token_);
      if (found == whole.tokens.end())
        bad("message " + std::to_string(turn) +
            " does not end with the end token in the rendered text. Name the token "
            "that ends a turn in ChatOptions::end_token");
      return static_cast<std::size_t>(found - whole.tokens.begin()) + 1;
    }
    std::size_t end = final ? whole.tokens.size() : common_prefix(upto.tokens, whole.tokens);
    for (std::size_t i = end; i > begin; --i)
      if (whole.tokens[i - 1] == end_token_) return i;
    return end;
  }

  void encode_generated(std::span<const Message> messages, Sample& out) const {
    const Message& answer = messages.back();
    if (!by_assistant(answer))
      bad("ends with \"" + answer.role +
          "\"; AssistantText::as_generated learns the last turn,"
          " which must be the assistant's");
    if (!answer.tool_calls.empty())
      bad("the last turn calls tools, which only the template can write. Use AssistantText::as_rendered");
    const Rendered prompt = render(messages.first(messages.size() - 1), Prompt::generation);
    const Tokens written = tokenizer_->encode(answer_parts(answer, prompt.text));
    out.tokens.assign(prompt.tokens.begin(), prompt.tokens.end());
    out.tokens.insert(out.tokens.end(), written.begin(), written.end());
    out.targets.assign(out.tokens.size(), TrainingBatch::ignored);
    const std::size_t first = prompt.tokens.size() - 1;
    std::copy(written.begin(), written.end(), out.targets.begin() + static_cast<std::ptrdiff_t>(first));
    out.targets.back() = end_token_;
  }
  // The turn after the prompt; the thinking tags are markers, the rest is content.
  static std::vector<TextPart> answer_parts(const Message& answer, std::string_view prompt) {
    static constexpr std::string_view open = "<think>", close = "</think>";
    std::string text = answer.content;
    if (!answer.reasoning_content.empty())
      text = std::string(open) + "\n" + answer.reasoning_content + "\n" + std::string(close) + "\n\n" + answer.content;
    const bool opened = ThinkParser::after(prompt).kind() == ThinkPiece::Kind::thinking;
    std::vector<TextPart> parts;
    std::string_view rest = text;
    const bool opens = rest.starts_with(open);
    if (opens) rest.remove_prefix(open.size());
    if (opened) {  // the prompt's "<think>" and the white space after it are written already
      const std::string_view blank = prompt.substr(prompt.rfind(open) + open.size());
      if (opens && rest.starts_with(blank)) rest.remove_prefix(blank.size());
    } else if (opens) {
      parts.push_back({std::string(open), TextPart::Origin::marker});
    }
    const std::size_t end = opened || opens ? rest.find(close) : std::string_view::npos;
    if (end != std::string_view::npos) {
      parts.push_back({std::string(rest.substr(0, end)), TextPart::Origin::content});
      rest.remove_prefix(end + close.size());
      parts.push_back({std::string(close), TextPart::Origin::marker});
    } else if (opens) {
      bad("the last turn opens <think> and never closes it; write </think> where the answer begins");
    } else if (opened) {
      parts.push_back({"\n", TextPart::Origin::content});
      parts.push_back({std::string(close), TextPart::Origin::marker});
      parts.push_back({"\n\n", TextPart::Origin::content});
    }
    parts.push_back({std::string(rest), TextPart::Origin::content});
    return parts;
  }

  std::shared_ptr<const Tokenizer> tokenizer_;
  ChatTemplate template_;
  ChatOptions options_;
  std::int32_t end_token_;
};

}  // namespace v1
}  // namespace guild
