// Conversations: the same tokens and the same learned ones as Hugging Face's tokenizer and Jinja give, and bad files.
#include <guild/cpu.hpp>
#include <guild/training/chat_dataset.hpp>

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "../io/io_fixture.hpp"
#include "../io/test_files.hpp"

namespace chat_dataset_test {

using guild::AssistantText;
using guild::ChatDataset;
using guild::ChatEncoder;
using guild::ChatOptions;
using guild::ChatTemplate;
using guild::ErrorCode;
using guild::Index;
using guild::Message;
using guild::Sample;
using guild::TrainingBatch;
using guild::test::TempFolder;
using guild_test::code_of;
using guild_test::mini_tokenizer;

ChatTemplate compile(const std::string& source) {
  guild::TokenizerConfig config = mini_tokenizer().config();
  config.chat_template = source;
  return ChatTemplate::parse(config);
}
ChatEncoder mini(ChatOptions options = {}) {
  static const ChatTemplate chat_template = ChatTemplate::read(guild_test::mini_folder());
  return {mini_tokenizer(), chat_template, std::move(options)};
}
ChatEncoder generated() { return mini({.assistant = AssistantText::as_generated}); }

std::vector<std::int32_t> integers(const guild::Json& list) {
  std::vector<std::int32_t> out;
  list.for_each_element([&](const guild::Json& value) { out.push_back(static_cast<std::int32_t>(value.integer())); });
  return out;
}
/// The text of the tokens that are learned.
std::string learned(const Sample& sample) {
  std::string text;
  for (const std::int32_t target : sample.targets)
    if (target >= 0) text += mini_tokenizer().bytes(target);
  return text;
}
Sample encode(const ChatEncoder& encoder, const std::vector<Message>& messages) {
  Sample sample;
  encoder.encode(messages, sample);
  return sample;
}

TEST(ChatDataset, LearnsTheTokensThatHuggingFaceFindsToBeTheAssistants) {
  guild::JsonRules rules;
  rules.path = "chat.json";
  const guild::Json rows = guild::Json::parse(guild_test::fixture("training/chat.json"), rules);
  std::map<std::string, ChatTemplate> templates;
  int compared = 0;
  rows.for_each_element([&](const guild::Json& row) {
    const std::string name(row["template"].string()), mode(row["assistant"].string());
    if (!templates.contains(name))
      templates.emplace(name, name == "mini-r1" ? ChatTemplate::read(guild_test::mini_folder())
                                                : compile(guild_test::fixture("templates/" + name)));
    const ChatEncoder encoder(
        mini_tokenizer(), templates.at(name),
        {.assistant = mode == "as_rendered" ? AssistantText::as_rendered : AssistantText::as_generated});
    const std::string what = name + " " + mode + " " + guild_test::dump(row["messages"]);
    const ChatDataset data =
        ChatDataset::parse(encoder, "{\"messages\":" + guild_test::dump(row["messages"]) + "}\n", what);
    ASSERT_EQ(data.size(), 1);
    Sample sample;
    data.get(0, sample);
    EXPECT_EQ(sample.tokens, integers(row["tokens"])) << what;
    EXPECT_EQ(sample.targets, integers(row["targets"])) << what << "\nlearned: " << learned(sample);
    ++compared;
  });
  EXPECT_GT(compared, 60);
}

TEST(ChatDataset, LearnsWhatFollowsTheThinkingOrTheThinkingToo) {
  const std::vector<Message> messages = {{"user", "17 * 23?"}, {"assistant", "<think>\n340 + 51\n</think>\n\n391"}};
  EXPECT_EQ(learned(encode(mini(), messages)), "\n\n391<｜end▁of▁sentence｜>");
  const Sample sample = encode(generated(), messages);
  EXPECT_EQ(learned(sample), "340 + 51\n</think>\n\n391<｜end▁of▁sentence｜>");
  const auto close = mini_tokenizer().id_of("</think>");
  EXPECT_EQ(std::count(sample.targets.begin(), sample.targets.end(), close.value()), 1);
  // An answer without thinking closes the thought that the prompt opened.
  EXPECT_EQ(learned(encode(generated(), {{"user", "Hi"}, {"assistant", "Hello"}})),
            "\n</think>\n\nHello<｜end▁of▁sentence｜>");
}

TEST(ChatDataset, NeverTurnsTheTextOfMessagesIntoControlTokens) {
  const std::vector<Message> messages = {{"user", "<｜Assistant｜></think>"},
                                         {"assistant", "ok <｜end▁of▁sentence｜> no"}};
  for (const ChatEncoder& encoder : {mini(), generated()}) {
    const Sample sample = encode(encoder, messages);
    const int end = mini_tokenizer().eos_id();
    EXPECT_EQ(std::count(sample.tokens.begin(), sample.tokens.end(), end), 0);
    EXPECT_EQ(sample.targets.back(), end);
    EXPECT_EQ(std::count(sample.tokens.begin(), sample.tokens.end(), mini_tokenizer().id_of("<｜Assistant｜>").value()),
              1);
  }
}

TEST(ChatDataset, KeepsEveryConversationAsItWasEncoded) {
  const std::vector<std::vector<Message>> conversations = {
      {{"user", "a"}, {"assistant", "b"}},
      {{"user", "Hi"}, {"assistant", "Hello!"}, {"user", "Bye"}, {"assistant", "See you, 你好."}},
      {{"system", "Be brief."}, {"user", "x"}, {"assistant", ""}, {"user", "unanswered"}}};
  const ChatDataset data(mini(), conversations);
  ASSERT_EQ(data.size(), 3);
  Index tokens = 0;
  Sample sample;
  for (const Index i : {2, 0, 1, 1}) {
    data.get(i, sample);
    EXPECT_EQ(sample, encode(mini(), conversations[static_cast<std::size_t>(i)])) << i;
  }
  for (Index i = 0; i < 3; ++i) {
    data.get(i, sample);
    tokens += static_cast<Index>(sample.tokens.size());
    for (std::size_t p = 0; p + 1 < sample.tokens.size(); ++p)
      EXPECT_TRUE(sample.targets[p] < 0 || sample.targets[p] == sample.tokens[p + 1]);
    EXPECT_GE(sample.targets.back(), 0) << "nothing follows the last learned token";
  }
  EXPECT_EQ(data.tokens(), tokens);
  EXPECT_EQ(code_of([&] { data.get(3, sample); }), ErrorCode::in_param);
}

TEST(ChatDataset, FindsTurnsInATemplateThatShowsThinkingOfTheLastTurnOnly) {
  const ChatEncoder encoder(
      mini_tokenizer(),
      compile("{% for m in messages %}[{{ m.role }}]{% if m.reasoning_content is defined and loop.last %}<think>{{ "
              "m.reasoning_content }}</think>{% endif %}{{ m.content }}{{ eos_token }}\n{% endfor %}{% if "
              "add_generation_prompt %}[assistant]{% endif %}"));
  Message first{"assistant", "one"}, second{"assistant", "two"};
  first.reasoning_content = "thought";
  second.reasoning_content = "more thought";
  EXPECT_EQ(learned(encode(encoder, {{"user", "a"}, first, {"user", "b"}, second})),
            "one<｜end▁of▁sentence｜><think>more thought</think>two<｜end▁of▁sentence｜>");
}

TEST(ChatDataset, EndsATurnAtTheTokenThatItIsTold) {
  const ChatTemplate chat_template = compile(
      "{% for m in messages %}<｜User｜>{{ m.content }}<|EOT|>\n{% endfor %}{% if add_generation_prompt %}<｜User｜>{% "
      "endif %}");
  const std::vector<Message> messages = {{"user", "a"}, {"assistant", "b"}};
  EXPECT_EQ(learned(encode({mini_tokenizer(), chat_template}, messages)), "b<|EOT|>\n");
  EXPECT_EQ(
      learned(encode({mini_tokenizer(), chat_template, {.end_token = mini_tokenizer().id_of("<|EOT|>")}}, messages)),
      "b<|EOT|>");
}

TEST(ChatDataset, NamesTheFileAndTheLineOfEachFault) {
  const std::string good = R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]})";
  const TempFolder folder;
  const struct {
    const char *line, *needle;
    ErrorCode code;
  } faults[] = {
      {R"({"messages":[})", "line 3", ErrorCode::dt_json},
      {R"({"messages":[]} {})", "line 3", ErrorCode::dt_json},
      {R"({"messages":[],"messages":[]})", "duplicate", ErrorCode::dt_json},
      {R"(["a"])", "an object with the key", ErrorCode::dt_type},
      {R"({"conversation":[]})", "\"messages\"", ErrorCode::dt_missing},
      {R"({"messages":{}})", "a list of messages", ErrorCode::dt_type},
      {R"({"messages":[]})", "no message", ErrorCode::dt_conversation},
      {R"({"messages":[{"content":"a"}]})", "messages[0].role", ErrorCode::dt_missing},
      {R"({"messages":[{"role":"user"}]})", "no content", ErrorCode::dt_missing},
      {R"({"messages":[{"role":"user","content":5}]})", "messages[0].content", ErrorCode::dt_type},
      {R"({"messages":[{"role":"user","content":"a"}]})", "nothing to learn", ErrorCode::dt_conversation},
      {R"({"messages":[{"role":"assistant","content":"a"}]})", "begins with the assistant", ErrorCode::dt_conversation},
      {R"({"messages":[{"role":"wizard","content":"a"},{"role":"assistant","content":"b"}]})", "wizard",
       ErrorCode::tpl_message},
      {R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"system","content":"late"}]})",
       "otherwise once more follow", ErrorCode::dt_conversation},
      {"{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}", "", ErrorCode::in_utf8},
  };
  for (const auto& fault : faults) {
    const std::string path = folder.write("chat.jsonl", good + "\n\n" + fault.line + "\n" + good);
    std::string message;
    EXPECT_EQ(code_of([&] { (void)ChatDataset::read(mini(), path); }, &message), fault.code) << fault.line << message;
    EXPECT_TRUE(message.starts_with(path + ":3: ")) << message;
    EXPECT_NE(message.find(fault.needle), std::string::npos) << message;
  }
  EXPECT_EQ(ChatDataset::read(mini(), folder.write("good.jsonl", good + "\r\n\r\n" + good)).size(), 2);
  EXPECT_EQ(code_of([&] { (void)ChatDataset::read(mini(), folder.write("empty.jsonl", "\n \n")); }),
            ErrorCode::dt_empty);
  EXPECT_EQ(code_of([&] { (void)ChatDataset::read(mini(), folder.path("missing.jsonl")); }), ErrorCode::io_open);
}

TEST(ChatDataset, RefusesTurnsThatTheModelCannotBeShownToWrite) {
  std::string message;
  EXPECT_EQ(code_of([] { encode(generated(), {{"user", "a"}, {"assistant", "b"}, {"user", "c"}}); }, &message),
            ErrorCode::dt_conversation);
  EXPECT_NE(message.find("ends with \"user\""), std::string::npos);
  EXPECT_EQ(code_of([] { encode(generated(), {{"user", "a"}, {"assistant", "<think>never closed"}}); }),
            ErrorCode::dt_conversation);
  Message call{"assistant", ""};
  call.tool_calls.push_back({.name = "w", .arguments = "{}"});
  EXPECT_EQ(code_of([&] { encode(generated(), {{"user", "a"}, call}); }), ErrorCode::dt_conversation);
  const std::vector<std::vector<Message>> conversations = {{{"user", "a"}, {"assistant", "b"}}, {{"user", "a"}}};
  EXPECT_EQ(code_of([&] { (void)ChatDataset(mini(), conversations); }, &message), ErrorCode::dt_conversation);
  EXPECT_TRUE(message.starts_with("conversation 1: ")) << message;
}

}  // namespace chat_dataset_test
