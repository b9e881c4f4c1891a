// A conversation: messages that take turns, over one session whose cache is kept from turn to turn.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <guild/core/refuse.hpp>
#include <guild/inference/generation.hpp>
#include <guild/io/chat_template.hpp>

namespace guild {
inline namespace v1 {

/// Each turn renders all messages anew; what the cache already holds of the result is not computed again.
template <class LanguageModelType>
class Conversation {
 public:
  explicit Conversation(LanguageModelType model, std::string system = {}, Index context = 0)
      : session_(std::move(model), context), system_(std::move(system)) {
    clear();
  }

  /// Adds a user's message and starts the answer. Iterate over the result, then call `remember` to make it part of the
  /// conversation. If this throws, the conversation is as before. The result works on this conversation: neither move
  /// nor destroy it, nor ask again, before you are done with the result.
  [[nodiscard]] Generation<LanguageModelType> ask(std::string message, const GenerateOptions& options = {}) & {
    if (message.empty()) detail::refuse(ErrorCode::in_empty, "the message is empty; write at least one character");
    std::vector<Message> messages = messages_;
    messages.push_back({.role = "user", .content = std::move(message)});
    const auto parts = session_.model().chat_template().render_parts(messages, {.add_generation_prompt = true});
    std::vector<std::int32_t> prompt = session_.model().tokenizer().encode(parts);
    if (prompt.empty()) detail::refuse(ErrorCode::in_empty, "the chat template rendered no text");
    if (static_cast<Index>(prompt.size()) >= session_.context())
      detail::refuse(ErrorCode::in_context, {"the conversation has ", prompt.size(), " tokens, the context holds ",
                                             session_.context(), "; clear it or start with a larger one"});
    // Keep what the cache shares with the prompt; at least the last token is computed, for its logits.
    const auto cached = session_.tokens();
    std::size_t common = 0;
    while (common < cached.size() && common + 1 < prompt.size() && cached[common] == prompt[common]) ++common;
    if (static_cast<Index>(common) < session_.oldest()) common = 0;
    session_.rewind(static_cast<Index>(common));
    prompt.erase(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(common));
    Generation<LanguageModelType> generation(session_, std::move(prompt), options, think_after(parts));
    messages_ = std::move(messages);
    return generation;
  }

  /// Records the assistant's answer (without its thinking, which the published templates drop too).
  void remember(std::string answer) { messages_.push_back({.role = "assistant", .content = std::move(answer)}); }

  /// Forgets all turns; the system message stays.
  void clear() {
    messages_.clear();
    if (!system_.empty()) messages_.push_back({.role = "system", .content = system_});
    session_.rewind(0);
  }

  [[nodiscard]] const std::vector<Message>& messages() const { return messages_; }
  [[nodiscard]] const Session<LanguageModelType>& session() const { return session_; }

 private:
  Session<LanguageModelType> session_;
  std::string system_;
  std::vector<Message> messages_;
};

}  // namespace v1
}  // namespace guild
