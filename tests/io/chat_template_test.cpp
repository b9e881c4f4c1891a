// Chat templates: equal to Jinja on a table of conversations, bounded, and safe from the users' text.
#include <guild/io/chat_template.hpp>

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "io_fixture.hpp"

namespace {

using guild::ChatTemplate;
using guild::ErrorCode;
using guild::Message;
using guild::TextPart;
using guild::Tokenizer;
using guild_test::code_of;
using guild_test::fixture;
using guild_test::mini_tokenizer;

ChatTemplate compile(const std::string& source) {
  guild::TokenizerConfig config;
  config.path = "tokenizer_config.json";
  config.chat_template = source;
  config.bos_token = "<｜begin▁of▁sentence｜>";
  config.eos_token = "<｜end▁of▁sentence｜>";
  config.pad_token = "<｜▁pad▁｜>";
  return ChatTemplate::parse(config);
}

[[maybe_unused]] std::string render(const std::string& source, const std::vector<Message>& messages = {{"user", "hi"}}) {
  return compile(source).render(messages);
}

TEST(ChatTemplate, EqualsJinjaOnEveryConversationOfTheTable) {
  guild::JsonRules rules;
  rules.path = "rendered.json";
  const guild::Json rows = guild::Json::parse(fixture("templates/rendered.json"), rules);
  std::map<std::string, ChatTemplate> templates;
  int compared = 0;
  rows.for_each_element([&](const guild::Json& row) {
    const std::string name(row["template"].string());
    if (!templates.contains(name))
      templates.emplace(name, name.ends_with(".jinja") ? compile(fixture("templates/" + name))
                                                       : ChatTemplate::read(GUILD_SOURCE_DIR "/checkpoints/" + name));
    const std::string conversation = guild_test::dump(row["messages"]);
    guild::RenderOptions options;
    const guild::Json given = row["options"];
    options.add_generation_prompt = given["add_generation_prompt"].boolean();
    if (const auto thinking = given.find("thinking")) options.switches.emplace_back("thinking", thinking->boolean());
    if (const auto tools = given.find("tools")) options.tools = guild_test::dump(*tools);
    const std::vector<Message> messages = guild::parse_messages(conversation);
    if (const auto text = row.find("text")) {
      try {
        EXPECT_EQ(templates.at(name).render(messages, options), text->string()) << name << " " << conversation;
      } catch (const guild::Error& error) {
        ADD_FAILURE() << error.what() << "\n" << name << " " << conversation;
      }
    } else {
      EXPECT_EQ(code_of([&] { (void)templates.at(name).render(messages, options); }), ErrorCode::tpl_message) << name << " " << conversation;
    }
    ++compared;
  });
  EXPECT_GT(compared, 300);
}

}  // namespace
