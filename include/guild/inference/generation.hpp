// Text, piece by piece, while the model writes it.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/refuse.hpp>
#include <guild/inference/sampling.hpp>
#include <guild/inference/session.hpp>
#include <guild/io/text_part.hpp>
#include <guild/io/text_stream.hpp>
#include <guild/io/think.hpp>

namespace guild {
inline namespace v1 {

/// What is not set comes from the checkpoint's generation_config.json, else from SamplingOptions.
struct GenerateOptions {
  std::optional<float> temperature{};
  std::optional<int> top_k{};
  std::optional<float> top_p{};
  std::optional<float> min_p{};
  std::optional<float> repetition_penalty{};
  std::uint64_t seed = 0;
  int max_tokens = 0;  ///< 0: what the checkpoint suggests, else until the model stops or its context is full
  std::vector<std::string> stop{};  ///< texts that end the generation; they are not part of it
  std::string system{};             ///< the system message of `generate`
};

/// The options completed by what the checkpoint suggests.
[[nodiscard]] inline SamplingOptions sampling_options(const GenerateOptions& options,
                                                      const GenerationDefaults& defaults) {
  SamplingOptions out;
  const float suggested = defaults.do_sample ? defaults.temperature.value_or(1.0f) : 0.0f;
  out.temperature = options.temperature.value_or(suggested);
  out.top_k = options.top_k.value_or(defaults.top_k.value_or(out.top_k));
  out.top_p = options.top_p.value_or(defaults.top_p.value_or(out.top_p));
  out.min_p = options.min_p.value_or(out.min_p);
  out.repetition_penalty =
      options.repetition_penalty.value_or(defaults.repetition_penalty.value_or(out.repetition_penalty));
  out.seed = options.seed;
  return out;
}

enum class FinishReason : std::uint8_t { running, stop_token, stop_string, length };

struct GenerationStats {
  Index prompt_tokens = 0;     ///< computed, without those found in the cache
  Index generated_tokens = 0;  ///< drawn, with the one that ended the text
  double prompt_seconds = 0;   ///< until the first token was drawn
  double decode_seconds = 0;   ///< after it
};

/// A range of text pieces: whole UTF-8 characters, thinking and answer apart, tags left out. Each step of the iterator
/// runs the model until there is something to show; leaving the loop early is fine, and `next` or another loop goes on.
/// A piece lives until the iterator moves on: copy its text to keep it.
template <class LanguageModelType>
class Generation {
 public:
  using SessionType = Session<LanguageModelType>;

  /// Continues `session` with `prompt` (token ids). The session must outlive the generation.
  Generation(SessionType& session, std::vector<std::int32_t> prompt, const GenerateOptions& options,
             ThinkParser think = ThinkParser(ThinkParser::Start::answer))
      : session_(&session),
        prompt_(std::move(prompt)),
        think_(std::move(think)),
        sampler_(sampling_options(options, session.model().defaults()), session.model().allowed_tokens()),
        text_(session.model().tokenizer(), options.stop, {SpecialTokens::skip}),
        stop_tokens_(session.model().stop_tokens()) {
    if (options.max_tokens < 0)
      detail::refuse(ErrorCode::in_param, {"is ", options.max_tokens, ", expected 0 (no limit) or more"}, "max_tokens");
    if (prompt_.empty()) detail::refuse(ErrorCode::in_empty, "the prompt has no tokens; write at least one");
    const Index room = session.context() - session.length() - static_cast<Index>(prompt_.size());
    if (room < std::max(options.max_tokens, 1))
      detail::refuse(ErrorCode::in_context,
                     {session.length() + static_cast<Index>(prompt_.size()), " prompt tokens and ",
                      std::max(options.max_tokens, 1), " new ones do not fit the context of ", session.context()});
    const Index suggested = session.model().defaults().max_new_tokens.value_or(0);
    limit_ = options.max_tokens > 0 ? options.max_tokens : suggested > 0 ? std::min(suggested, room) : room;
    length_ = session.length();
    if (options.max_tokens > 0) {
      session.reserve(session.context() - room + options.max_tokens);
      tokens_.reserve(static_cast<std::size_t>(options.max_tokens));
    }
    for (const std::int32_t token : session.tokens()) sampler_.observe(token);
    for (const std::int32_t token : prompt_) sampler_.observe(token);
  }
  /// Owns its session.
  Generation(std::unique_ptr<SessionType> session, std::vector<std::int32_t> prompt, const GenerateOptions& options,
             ThinkParser think)
      : Generation(*session, std::move(prompt), options, std::move(think)) {
    owned_ = std::move(session);
  }

  /// The next piece, or nothing at the end. If this throws an Error, no token was drawn: calling it again tries again.
  [[nodiscard]] std::optional<ThinkPiece> next() {
    while (ready_.empty() && reason_ == FinishReason::running) step();
    if (ready_.empty()) return std::nullopt;
    ThinkPiece piece = std::move(ready_.front());
    ready_.pop_front();
    return piece;
  }

  /// What the range yields: converts to std::string_view, and knows whether it is thinking or answer.
  struct Piece : ThinkPiece {
    operator std::string_view() const { return text; }
  };
  struct Sentinel {};
  class Iterator {
   public:
    using value_type = Piece;
    using difference_type = std::ptrdiff_t;
    explicit Iterator(Generation& generation) : generation_(&generation) { ++*this; }
    const Piece& operator*() const { return piece_; }
    const Piece* operator->() const { return &piece_; }
    Iterator& operator++() {
      auto next = generation_->next();
      done_ = !next.has_value();
      if (next) piece_ = Piece{std::move(*next)};
      return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const Iterator& it, Sentinel) { return it.done_; }

   private:
    Generation* generation_;
    Piece piece_{};
    bool done_ = false;
  };
  [[nodiscard]] Iterator begin() { return Iterator(*this); }
  [[nodiscard]] Sentinel end() const { return {}; }

  [[nodiscard]] FinishReason finish_reason() const { return reason_; }
  [[nodiscard]] const GenerationStats& stats() const { return stats_; }
  /// The tokens drawn so far, with the stop token if one came.
  [[nodiscard]] const std::vector<std::int32_t>& tokens() const { return tokens_; }

 private:
  void step() {
    const auto start = std::chrono::steady_clock::now();
    const bool first = tokens_.empty();
    if (session_->length() != length_)
      detail::refuse(ErrorCode::op_argument,
                     {"the session holds ", session_->length(), " tokens, not the ", length_,
                      " that this generation left there; finish one generation before the next"});
    if (!fed_) {
      if (first)
        session_->append(prompt_);
      else
        session_->append(tokens_.back());
      fed_ = true;
      length_ = session_->length();
    }
    if (tokens_.size() == tokens_.capacity()) tokens_.reserve(2 * tokens_.size() + 64);  // before the draw: see `next`
    const int token = sampler_.sample(session_->logits());
    sampler_.observe(token);
    tokens_.push_back(token);
    fed_ = false;
    if (first) stats_.prompt_tokens = static_cast<Index>(prompt_.size());
    ++stats_.generated_tokens;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    (first ? stats_.prompt_seconds : stats_.decode_seconds) += seconds;

    for (const int stop : stop_tokens_)
      if (token == stop) return finish(FinishReason::stop_token);
    show(text_.push(token));
    if (text_.stopped()) return finish(FinishReason::stop_string);
    if (stats_.generated_tokens >= limit_) return finish(FinishReason::length);
  }
  void show(const std::string& text) {
    if (text.empty()) return;
    for (ThinkPiece& piece : think_.push(text)) ready_.push_back(std::move(piece));
  }
  void finish(FinishReason reason) {
    if (reason != FinishReason::stop_string) show(text_.flush());
    for (ThinkPiece& piece : think_.flush()) ready_.push_back(std::move(piece));
    reason_ = reason;
  }

  std::unique_ptr<SessionType> owned_;
  SessionType* session_;
  std::vector<std::int32_t> prompt_;
  ThinkParser think_;
  Sampler sampler_;
  TextStream text_;
  std::vector<int> stop_tokens_;
  Index limit_ = 0;
  std::vector<std::int32_t> tokens_;
  Index length_ = 0;  // tokens of the session when this last ran
  bool fed_ = false;  // the session holds the prompt and all of tokens_, and its logits are those of the next one
  std::deque<ThinkPiece> ready_;
  FinishReason reason_ = FinishReason::running;
  GenerationStats stats_;
};

/// Begins inside the thinking if the prompt ends with a `<think>` that the template wrote; one in a message is text.
[[nodiscard]] inline ThinkParser think_after(std::span<const TextPart> prompt) {
  const bool written = !prompt.empty() && prompt.back().origin == TextPart::Origin::marker;
  return written ? ThinkParser::after(prompt.back().text) : ThinkParser(ThinkParser::Start::answer);
}

/// The model's answer to one user message, through its chat template.
///   for (std::string_view piece : guild::generate(model, "What is 17 * 23?", {.temperature = 0.6f})) ...
template <class Model, class Device>
[[nodiscard]] Generation<LanguageModel<Model, Device>> generate(const LanguageModel<Model, Device>& model,
                                                                std::string_view message,
                                                                const GenerateOptions& options = {}) {
  using Language = LanguageModel<Model, Device>;
  if (message.empty()) detail::refuse(ErrorCode::in_empty, "the message is empty; write at least one character");
  std::vector<Message> messages;
  if (!options.system.empty()) messages.push_back({.role = "system", .content = options.system});
  messages.push_back({.role = "user", .content = std::string(message)});
  const auto parts = model.chat_template().render_parts(messages, {.add_generation_prompt = true});
  return Generation<Language>(std::make_unique<Session<Language>>(model), model.tokenizer().encode(parts), options,
                              think_after(parts));
}

/// Continues a text as it stands, without a chat template: no token is added in front of it.
template <class Model, class Device>
[[nodiscard]] Generation<LanguageModel<Model, Device>> complete(const LanguageModel<Model, Device>& model,
                                                                std::string_view text,
                                                                const GenerateOptions& options = {}) {
  using Language = LanguageModel<Model, Device>;
  return Generation<Language>(std::make_unique<Session<Language>>(model), model.tokenizer().encode(text), options,
                              ThinkParser::after(text));
}

}  // namespace v1
}  // namespace guild
