// A conversation to the prompt text that a model was trained on, by the chat template (Jinja) of its own folder.
//
// The template comes from the file and is never guessed or replaced. It is run by a small interpreter of the part of
// Jinja that published templates use, with trim_blocks and lstrip_blocks as Hugging Face sets them. Rendering keeps
// track of what the template wrote and what came with a message, so that no user can write a control token (see
// `encode_chat`).
#pragma once

#include <algorithm>
#include <array>
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
#include <guild/io/file.hpp>
#include <guild/io/json.hpp>
#include <guild/io/message.hpp>
#include <guild/io/template_evaluator.hpp>
#include <guild/io/template_parser.hpp>
#include <guild/io/template_value.hpp>
#include <guild/io/text_part.hpp>
#include <guild/io/tokenizer.hpp>
#include <guild/io/tokenizer_config.hpp>
#include <guild/io/utf8.hpp>

namespace guild {
inline namespace v1 {

struct RenderOptions {
  bool add_generation_prompt = true;  ///< end with what opens the assistant's turn
  std::string tools{};                ///< a JSON list of tool descriptions, or empty: none
  /// Switches that some templates ask for, such as {"thinking", true}.
  std::vector<std::pair<std::string, bool>> switches{};
  std::size_t max_output = std::size_t{16} << 20;  ///< bytes
  std::size_t max_steps = 4'000'000;  ///< constructs of the template that are run, plus one for each 64 bytes moved
};

/// A chat template. Constant after reading: any number of threads may use one at the same time.
class ChatTemplate {
 public:
  /// Reads `chat_template` of tokenizer_config.json in a folder, or chat_template.jinja where newer folders keep it.
  /// Throws io_*, tk_* and tpl_unsupported.
  static ChatTemplate read(const std::string& folder) {
    const std::string path = path_in(folder, "tokenizer_config.json");
    TokenizerConfig config = TokenizerConfig::parse(read_text(path, TokenizerConfig::max_bytes), path);
    if (config.chat_template.empty()) {
      config.path = path_in(folder, "chat_template.jinja");
      config.chat_template = read_text(config.path, detail::TemplateParser::max_source);
    }
    return parse(config);
  }
  /// The same, or nothing for a folder without a template, as base models are published.
  static std::optional<ChatTemplate> read_if_any(const std::string& folder) {
    const std::string path = path_in(folder, "tokenizer_config.json");
    const TokenizerConfig config = TokenizerConfig::parse(read_text(path, TokenizerConfig::max_bytes), path);
    if (!config.chat_template.empty()) return parse(config);
    try {
      return read(folder);
    } catch (const Error& error) {
      if (error.code() == ErrorCode::io_open && error.path() == path_in(folder, "chat_template.jinja"))
        return std::nullopt;
      throw;
    }
  }
  /// Throws tpl_unsupported (naming the construct and its offset in the template) and tpl_limit.
  static ChatTemplate parse(const TokenizerConfig& config) {
    if (config.chat_template.empty())
      detail::refuse(ErrorCode::tpl_unsupported,
                     "there is no chat template. Render the prompt "
                     "yourself, or add the published one",
                     detail::At{config.path, "chat_template"});
    if (const std::size_t fault = utf8_fault(config.chat_template); fault != std::string::npos)
      detail::refuse(ErrorCode::tpl_unsupported, "the template is not valid UTF-8",
                     detail::At{config.path, "chat_template", static_cast<std::int64_t>(fault)});
    ChatTemplate result;
    result.path_ = config.path;
    result.tree_ =
        std::make_shared<const detail::TemplateTree>(detail::TemplateParser::parse(config.chat_template, config.path));
    for (const auto& [name, token] : {std::pair{"bos_token", &config.bos_token},
                                      {"eos_token", &config.eos_token},
                                      {"pad_token", &config.pad_token},
                                      {"unk_token", &config.unk_token}})
      if (!token->empty()) result.tokens_.set(name, detail::TemplateValue::marker(*token));
    return result;
  }

  /// The prompt as one text. The template writes the beginning-of-sentence token itself: do not add another.
  /// Throws in_empty (no message), in_utf8, tpl_message (a role that does not exist, or what the template refuses) and
  /// tpl_limit.
  [[nodiscard]] std::string render(std::span<const Message> messages, const RenderOptions& options = {}) const {
    return run(messages, options).text();
  }
  /// The same, cut where text of the template and text of messages meet. For `encode_chat`.
  [[nodiscard]] std::vector<TextPart> render_parts(std::span<const Message> messages,
                                                   const RenderOptions& options = {}) const {
    return run(messages, options).parts();
  }

 private:
  [[nodiscard]] detail::MarkedText run(std::span<const Message> messages, const RenderOptions& options) const {
    detail::TemplateDict variables = tokens_;
    variables.set("messages", list_of(messages));
    variables.set("add_generation_prompt", options.add_generation_prompt);
    variables.set("tools",
                  options.tools.empty() ? detail::TemplateValue(detail::TemplateNone{}) : tools_of(options.tools));
    variables.set("documents", detail::TemplateNone{});
    for (const auto& [name, value] : options.switches) variables.set(name, value);
    const detail::TemplateBudget budget{options.max_output, options.max_steps};
    return detail::TemplateEvaluator(*tree_, path_, budget, std::move(variables)).run();
  }

  static detail::TemplateValue tools_of(const std::string& text) {
    JsonRules rules;
    rules.path = "tools";
    rules.syntax = rules.nul = rules.depth = rules.duplicate = rules.number = rules.type = rules.missing =
        ErrorCode::tpl_message;
    rules.utf8 = ErrorCode::in_utf8;
    const Json json = Json::parse(text, rules);
    if (!json.is_array()) json.wrong_type("a list of tools");
    return detail::TemplateValue::from_json(json);
  }
  static detail::TemplateValue list_of(std::span<const Message> messages) {
    if (messages.empty())
      detail::refuse(ErrorCode::in_empty, "there is no message; a prompt needs at least one",
                     detail::At{"messages", {}});
    detail::TemplateList list;
    for (std::size_t i = 0; i < messages.size(); ++i)
      list.items.emplace_back(dict_of(messages[i], detail::text_of({"[", i, "]"})));
    return list;
  }
  static detail::TemplateDict dict_of(const Message& message, const std::string& where) {
    static constexpr std::array<std::string_view, 5> roles = {"system", "developer", "user", "assistant", "tool"};
    if (std::find(roles.begin(), roles.end(), message.role) == roles.end())
      detail::refuse(ErrorCode::tpl_message,
                     {"is \"", utf8_lossy(message.role), "\", expected system, developer, user, assistant or tool"},
                     detail::At{"messages", where + ".role"});
    if (!message.tool_calls.empty() && message.role != "assistant")
      detail::refuse(ErrorCode::tpl_message, "only the assistant calls tools",
                     detail::At{"messages", where + ".tool_calls"});
    const auto text = [&](const std::string& value, std::string_view key) {
      if (const std::size_t fault = utf8_fault(value); fault != std::string::npos)
        detail::refuse(ErrorCode::in_utf8, "is not valid UTF-8. Convert it, or pass utf8_lossy of it",
                       detail::At{"messages", where + "." + std::string(key), static_cast<std::int64_t>(fault)});
      return detail::TemplateValue::content(value);
    };
    detail::TemplateDict dict;
    dict.set("role", text(message.role, "role"));
    if (message.content.empty() && !message.tool_calls.empty()) {
      dict.set("content", detail::TemplateNone{});
    } else {
      dict.set("content", text(message.content, "content"));
    }
    if (!message.tool_calls.empty()) {
      detail::TemplateList calls;
      for (const ToolCall& call : message.tool_calls) {
        detail::TemplateDict function, entry;
        function.set("name", text(call.name, "tool_calls"));
        function.set("arguments", text(call.arguments, "tool_calls"));
        if (!call.id.empty()) entry.set("id", text(call.id, "tool_calls"));
        entry.set("type", text(call.type, "tool_calls"));
        entry.set("function", std::move(function));
        calls.items.emplace_back(std::move(entry));
      }
      dict.set("tool_calls", std::move(calls));
    }
    for (const auto& [key, value] : {std::pair{"tool_call_id", &message.tool_call_id},
                                     {"name", &message.name},
                                     {"reasoning_content", &message.reasoning_content}})
      if (!value->empty()) dict.set(key, text(*value, key));
    return dict;
  }

  std::string path_;
  std::shared_ptr<const detail::TemplateTree> tree_;
  detail::TemplateDict tokens_;
};

/// The token ids of a conversation. Markers that the template writes become control tokens; whatever a message spells
/// stays text, `<｜User｜>` and `</think>` included.
[[nodiscard]] inline std::vector<int> encode_chat(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                                  std::span<const Message> messages,
                                                  const RenderOptions& options = {}) {
  return tokenizer.encode(chat_template.render_parts(messages, options));
}

}  // namespace v1
}  // namespace guild
