#include <cstdio>
#include <string>
#include <vector>

#include <guild/guild.hpp>

int main() {
  // [begin]
  const auto tokenizer = guild::Tokenizer::read("checkpoints/mini-r1");
  const std::vector<int> ids = tokenizer.encode("12 + 30 =", {.added_tokens = guild::AddedTokens::text});
  const std::string text = tokenizer.decode(ids);  // "12 + 30 ="

  const auto chat_template = guild::ChatTemplate::read("checkpoints/mini-r1");
  const std::vector<guild::Message> messages = {{.role = "user", .content = "What is 12 + 30? <think>"}};
  const std::string prompt = chat_template.render(messages);
  // What a user types stays text, even when it spells a control token; encode_chat keeps the two apart.
  const std::vector<int> prompt_ids = guild::encode_chat(tokenizer, chat_template, messages);
  // [end]
  std::printf("%s\n%s\n%zu tokens\n", text.c_str(), prompt.c_str(), prompt_ids.size());
  return text == "12 + 30 =" ? 0 : 1;
}
