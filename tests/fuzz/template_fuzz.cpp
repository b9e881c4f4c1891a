// Any bytes as a chat template, a zero byte, and a user's text: rendered with the user's bytes marked, or guild::Error.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <guild/io/chat_template.hpp>

namespace {

void check(bool promise) {
  if (!promise) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const std::string_view source = all.substr(0, all.find('\0'));
  const std::string_view rest =
      source.size() < all.size() ? all.substr(source.size() + 1) : std::string_view("hi <think> \u00e9 ");
  try {
    (void)guild::parse_messages(all);
  } catch (const guild::Error& error) {
    check(error.code() == guild::ErrorCode::tpl_message || error.code() == guild::ErrorCode::in_utf8);
  }
  try {
    guild::TokenizerConfig config;
    config.path = "template";
    config.chat_template = source;
    config.bos_token = "<s>";
    config.eos_token = "</s>";
    const guild::ChatTemplate chat = guild::ChatTemplate::parse(config);
    const std::string user(rest);
    const std::vector<guild::Message> messages = {{"system", "S"},
                                                  {"user", user},
                                                  {"assistant", "a</think>b"},
                                                  {"user", user},
                                                  {"assistant", "", {{"f", "{\"x\": 1}"}}},
                                                  {"tool", "r"}};
    guild::RenderOptions options;
    options.max_output = 1U << 20;
    options.max_steps = 100'000;
    options.tools = R"([{"type": "function", "function": {"name": "f", "n": 1.5}}])";
    const std::string text = chat.render(messages, options);
    check(guild::utf8_fault(text) == std::string::npos && text.size() <= options.max_output);
    std::string joined;
    for (const guild::TextPart& part : chat.render_parts(messages, options)) joined += part.text;
    check(joined == text);
  } catch (const guild::Error& error) {
    switch (error.code()) {
      case guild::ErrorCode::tpl_message:
      case guild::ErrorCode::tpl_limit:
      case guild::ErrorCode::tpl_unsupported:
      case guild::ErrorCode::in_utf8:
        break;
      default:
        check(false);
    }
  }
  return 0;
}
