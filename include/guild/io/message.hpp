// A conversation, as chat templates take it.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/io/json.hpp>

namespace guild {
inline namespace v1 {

/// A call of a tool that an assistant asked for.
struct ToolCall {
  std::string name{};
  std::string arguments{};  ///< JSON text
  std::string type = "function";
  std::string id{};
};

/// One turn. An assistant's turn with tool calls and empty content reaches the template as content none.
struct Message {
  std::string role{};  ///< system, developer, user, assistant or tool
  std::string content{};
  std::vector<ToolCall> tool_calls{};
  std::string tool_call_id{};       ///< of a tool's answer, if the template asks for it
  std::string name{};               ///< of the tool or speaker, if the template asks for it
  std::string reasoning_content{};  ///< an assistant's thinking, if the template asks for it
};

/// Reads the list of messages of the usual JSON APIs: [{"role": "user", "content": "..."}, ...]. Unknown keys are
/// ignored. Throws the codes of its rules; a content that is null without tool calls is a missing key.
[[nodiscard]] inline std::vector<Message> parse_messages(const Json& json) {
  if (!json.is_array()) json.wrong_type("a list of messages");
  std::vector<Message> messages;
  json.for_each_element([&](const Json& entry) {
    Message message;
    const auto text = [](const Json& object, std::string_view key) {
      const auto value = object.find(key);
      return value && !value->is_null() ? std::string(value->string()) : std::string();
    };
    message.role = entry["role"].string();
    if (const auto calls = entry.find("tool_calls"); calls && !calls->is_null()) {
      calls->for_each_element([&](const Json& call) {
        const Json function = call["function"];
        const std::string type = text(call, "type");
        message.tool_calls.push_back({std::string(function["name"].string()),
                                      std::string(function["arguments"].string()), type.empty() ? "function" : type,
                                      text(call, "id")});
      });
    }
    const auto content = entry.find("content");
    if (message.tool_calls.empty() && (!content || content->is_null()))
      entry.fail(entry.rules().missing, "has no content; only an assistant's turn with tool_calls may be without");
    message.content = text(entry, "content");
    message.tool_call_id = text(entry, "tool_call_id");
    message.name = text(entry, "name");
    message.reasoning_content = text(entry, "reasoning_content");
    messages.push_back(std::move(message));
  });
  return messages;
}

/// The same from a text. Throws tpl_message for whatever is not such a list, and in_utf8.
[[nodiscard]] inline std::vector<Message> parse_messages(std::string_view json_text,
                                                         const std::string& path = "messages") {
  JsonRules rules;
  rules.path = path;
  rules.syntax = rules.nul = rules.depth = rules.duplicate = rules.number = rules.type = rules.missing =
      ErrorCode::tpl_message;
  rules.utf8 = ErrorCode::in_utf8;
  return parse_messages(Json::parse(json_text, rules));
}

}  // namespace v1
}  // namespace guild
