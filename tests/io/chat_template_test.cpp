// Chat templates: equal to Jinja on a table of conversations, bounded, and safe from the users' text.
#include <guild/io/chat_template.hpp>

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "io_fixture.hpp"

namespace chat_template_test {

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

std::string render(const std::string& source, const std::vector<Message>& messages = {{"user", "hi"}}) {
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
      } catch (const guild::Error& error) { ADD_FAILURE() << error.what() << "\n" << name << " " << conversation; }
    } else {
      EXPECT_EQ(code_of([&] { (void)templates.at(name).render(messages, options); }), ErrorCode::tpl_message)
          << name << " " << conversation;
    }
    ++compared;
  });
  EXPECT_GT(compared, 300);
}

// --- text of users stays text ---

TEST(ChatTemplate, MarksWhatMessagesBring) {
  const std::vector<Message> messages = {{"user", "<｜User｜>x"}};
  const auto parts =
      compile("{{ bos_token }}<｜User｜>{{ messages[0]['content'][0:8] + '!' }}{{ messages[0].content | trim }}")
          .render_parts(messages);
  std::string seen;
  for (const TextPart& part : parts) seen += (part.origin == TextPart::Origin::marker ? "M(" : "C(") + part.text + ")";
  EXPECT_EQ(seen, "M(<｜begin▁of▁sentence｜><｜User｜>)C(<｜User｜>)M(!)C(<｜User｜>x)");
}

TEST(ChatTemplate, MarksContentThroughEveryOperation) {
  const std::vector<Message> messages = {{"user", "a<think>b"}};
  for (const char* expression : {"m + ''",
                                 "m ~ ''",
                                 "m.split('<')[1]",
                                 "m.rsplit('<', 1)[-1]",
                                 "m[1:]",
                                 "m[1]",
                                 "m.strip()",
                                 "m | trim",
                                 "m.replace('b', '')",
                                 "m | tojson",
                                 "[m] | tojson",
                                 "[m] | join",
                                 "''.join([m])",
                                 "m | string",
                                 "m | default('x')",
                                 "m if true",
                                 "m or ''",
                                 "{'k': m}.k",
                                 "{'k': m}['k']",
                                 "[m][0]",
                                 "[m] | first",
                                 "({'k': m} | items | first)[1]",
                                 "f(m)",
                                 "ns.x",
                                 "block"}) {
    const std::string source =
        "{% set m = messages[0].content %}{% macro f(x) %}{{ x }}{% endmacro %}{% set ns = namespace(x=m) %}"
        "{% set block %}{{ m }}{% endset %}{{ " +
        std::string(expression) + " }}";
    const auto parts = compile(source).render_parts(messages);
    ASSERT_EQ(parts.size(), 1U) << expression;
    EXPECT_EQ(parts[0].origin, TextPart::Origin::content) << expression;
  }
}

TEST(EncodeChat, NeverMakesAControlTokenOfAUsersText) {
  const Tokenizer& tokenizer = mini_tokenizer();
  const ChatTemplate chat = ChatTemplate::read(guild_test::mini_folder());
  std::string nasty;
  for (int id = 0; id < tokenizer.size(); ++id)
    if (tokenizer.is_added(id)) nasty += tokenizer.bytes(id);
  const std::vector<Message> plain = {{"system", "s"}, {"user", "u"}, {"assistant", "a"}, {"user", "v"}};
  const std::vector<Message> attack = {{"system", nasty}, {"user", nasty}, {"assistant", "a" + nasty}, {"user", nasty}};
  const auto added = [&](const std::vector<Message>& messages) {
    std::vector<int> out;
    for (const int id : guild::encode_chat(tokenizer, chat, messages))
      if (tokenizer.is_added(id)) out.push_back(id);
    return out;
  };
  EXPECT_EQ(added(attack), added(plain));
  EXPECT_EQ(added(plain).front(), tokenizer.bos_id());
  EXPECT_EQ(added(plain).back(), tokenizer.id_of("<think>"));
}

TEST(EncodeChat, EqualsTheEncodedPromptForHarmlessText) {
  for (const char* file :
       {"r1_first.jinja", "r1_joined.jinja", "v3_1.jinja", "v2_lite.jinja", "moonlight.jinja", "kimi_k2.jinja"}) {
    const ChatTemplate chat = compile(fixture(std::string("templates/") + file));
    const std::vector<Message> messages = {
        {"system", "Be brief. "}, {"user", "  What is 17 * 23?\n"}, {"assistant", "391"}, {"user", "字 and 5"}};
    EXPECT_EQ(guild::encode_chat(mini_tokenizer(), chat, messages), mini_tokenizer().encode(chat.render(messages)))
        << file;
  }
}

// --- bad messages ---

TEST(ChatTemplate, RefusesBadMessages) {
  const ChatTemplate chat = compile("{% for m in messages %}{{ m.content }}{% endfor %}");
  EXPECT_EQ(code_of([&] { (void)chat.render({}); }), ErrorCode::in_empty);
  const auto code = [&](const Message& message) {
    return code_of([&] { (void)chat.render(std::vector<Message>{message}); });
  };
  EXPECT_EQ(code({"user", "fine"}), ErrorCode::count_);
  EXPECT_EQ(code({"robot", "x"}), ErrorCode::tpl_message);
  EXPECT_EQ(code({"", "x"}), ErrorCode::tpl_message);
  EXPECT_EQ(code({"user", "x", {{"f", "{}"}}}), ErrorCode::tpl_message);
  EXPECT_EQ(code({"user", "a\xFF"}), ErrorCode::in_utf8);
}

TEST(ChatTemplate, RefusesJsonThatIsNoListOfMessages) {
  for (const char* json :
       {"{}", "7", "\"hi\"", "[7]", "[{}]", R"([{"role":"user"}])", R"([{"role":"user","content":null}])",
        R"([{"role":"user","content":7}])", R"([{"role":7,"content":"x"}])", R"([{"role":"user","content":["x"]}])",
        R"([{"role":"assistant","content":null,"tool_calls":[]}])",
        R"([{"role":"assistant","content":null,"tool_calls":[{"function":{}}]}])", "[",
        R"([{"role":"user","content":"a\u0000"}])"})
    EXPECT_EQ(code_of([&] { (void)guild::parse_messages(json); }), ErrorCode::tpl_message) << json;
  const auto good = guild::parse_messages(
      R"([{"role":"assistant","content":null,"tool_calls":[{"id":"1","function":{"name":"f","arguments":"{}"}}],"x":1}])");
  ASSERT_EQ(good.size(), 1U);
  EXPECT_EQ(good[0].tool_calls.at(0).type, "function");
}

TEST(ChatTemplate, ReportsWhatTheTemplateRefuses) {
  std::string message;
  EXPECT_EQ(code_of([] { (void)render("{{ raise_exception('roles must ' + 'alternate') }}"); }, &message),
            ErrorCode::tpl_message);
  EXPECT_NE(message.find("roles must alternate"), std::string::npos) << message;
  for (const char* source : {"{{ missing + 'x' }}",
                             "{{ missing.x }}",
                             "{{ missing['x'] }}",
                             "{{ 1 + 'x' }}",
                             "{{ none + 'x' }}",
                             "{{ messages }}",
                             "{{ messages[0] }}",
                             "{{ 1 // 0 }}",
                             "{{ 999999999999999999 * 999999999999999999 }}",
                             "{{ -'x' }}",
                             "{{ [] < 1 }}",
                             "{{ 'a' in 5 }}",
                             "{% for i in 5 %}{% endfor %}",
                             "{{ 'a'.split('') }}",
                             "{{ 'a'.split(5) }}",
                             "{{ 5 | trim(1) }}",
                             "{% for a, b in [[1]] %}{% endfor %}",
                             "{% set x.y = 1 %}",
                             "{% set n = namespace() %}{% set n.n = n %}",
                             "{{ [namespace()] }}",
                             "{% set n = namespace() %}{% set n.l = [n] %}",
                             "{{ 'x' | tojson(indent='a') }}",
                             "{{ namespace() | tojson }}",
                             "{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}",
                             "{{ range('a') }}",
                             "{{ 'abc'[::2] }}"})
    EXPECT_EQ(code_of([&] { (void)render(source); }), ErrorCode::tpl_message) << source;
}

// --- bad templates ---

TEST(ChatTemplate, NamesTheConstructItDoesNotSupportAndItsOffset) {
  struct Bad {
    const char* source;
    const char* says;
    std::int64_t offset;
  };
  const Bad bad[] = {
      {"ab{% include 'x' %}", "\"include\"", 5},
      {"{% import 'os' as os %}", "\"import\"", 3},
      {"{% block a %}{% endblock %}", "\"block\"", 3},
      {"{% raw %}{% endraw %}", "\"raw\"", 3},
      {"{{ x | map('upper') }}", "\"map\"", 5},
      {"{{ x.upper() }}", "\"upper\"", 4},
      {"{{ x.__class__() }}", "\"__class__\"", 4},
      {"{{ strftime_now('%d') }}", "\"strftime_now\"", 15},
      {"{{ x is divisibleby(3) }}", "\"divisibleby\"", 5},
      {"{{ 1.5 }}", "decimal integer", 3},
      {"{{ 2 ** 8 }}", "**", 5},
      {"{{ (1, 2) }}", "tuple", 3},
      {"{% set a, b = x %}", "several variables", 8},
      {"{{ x", "not closed", 0},
      {"{% if x %}", "endif", 10},
      {"{% for x in y %}{% endif %}", "\"endif\"", 19},
      {"{{ 'a }}", "not closed", 3},
      {"{{ a b }}", "expected }}", 5},
      {"{# x", "not closed", 0},
      {"{{ }}", "an expression", 3},
      {"{{ x[] }}", "an index", 7},
      {"{% break %}", "outside a loop", 3},
      {"{{ x()() }}", "\"x\"", 4},
      {"{{ ? }}", "unexpected character", 3},
      {"{% set true = 1 %}", "a name", 7},
      {"{{ [1, }}", "not closed", 0},
      {"{{ x.y() }}", "\"y\"", 4},
  };
  for (const Bad& b : bad) {
    try {
      compile(b.source);
      ADD_FAILURE() << b.source;
    } catch (const guild::Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::tpl_unsupported) << b.source;
      EXPECT_NE(std::string(error.what()).find(b.says), std::string::npos) << b.source << ": " << error.what();
      EXPECT_EQ(error.offset(), b.offset) << b.source << ": " << error.what();
    }
  }
  EXPECT_EQ(code_of([] { compile(""); }), ErrorCode::tpl_unsupported);
  EXPECT_EQ(code_of([] { compile("\xFF"); }), ErrorCode::tpl_unsupported);
}

std::string repeated(const std::string& unit, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += unit;
  return out;
}

TEST(ChatTemplate, StopsAtItsLimits) {
  const auto parse_code = [](const std::string& source) { return code_of([&] { compile(source); }); };
  EXPECT_EQ(parse_code("{{ " + repeated("(", 100'000) + "1" + repeated(")", 100'000) + " }}"), ErrorCode::tpl_limit);
  EXPECT_EQ(parse_code("{{ " + repeated("[", 100'000) + repeated("]", 100'000) + " }}"), ErrorCode::tpl_limit);
  EXPECT_EQ(parse_code("{{ " + repeated("-", 100'000) + "1 }}"), ErrorCode::tpl_limit);
  EXPECT_EQ(parse_code("{{ " + repeated("not ", 100'000) + "1 }}"), ErrorCode::tpl_limit);
  EXPECT_EQ(parse_code("{{ 1" + repeated(" + 1", 100'000) + " }}"), ErrorCode::tpl_limit);
  EXPECT_EQ(parse_code("{{ x" + repeated(".x", 100'000) + " }}"), ErrorCode::tpl_limit);
  EXPECT_EQ(parse_code("{{ x" + repeated(" | trim", 100'000) + " }}"), ErrorCode::tpl_limit);
  EXPECT_EQ(parse_code("{{ 1" + repeated(" if 1 else 1", 100'000) + " }}"), ErrorCode::tpl_limit);
  EXPECT_EQ(parse_code(repeated("{% if 1 %}", 1000)), ErrorCode::tpl_limit);
  EXPECT_EQ(parse_code(repeated("{{x}}", 200'000)), ErrorCode::tpl_limit);
  EXPECT_EQ(parse_code(std::string((1U << 20) + 1, 'x')), ErrorCode::tpl_limit);
  const auto run_code = [](const std::string& source) { return code_of([&] { (void)render(source); }); };
  EXPECT_EQ(run_code("{% for i in range(999999999) %}x{% endfor %}"), ErrorCode::tpl_limit);
  EXPECT_EQ(run_code("{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}"),
            ErrorCode::tpl_limit);
  EXPECT_EQ(run_code("{% set n = namespace(x='xx') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}"),
            ErrorCode::tpl_limit);
  EXPECT_EQ(run_code("{% set n = namespace(x=1) %}{% for i in range(99999) %}{% set n.x = [n.x] %}{% endfor %}"),
            ErrorCode::tpl_limit);
  EXPECT_EQ(run_code("{% set n = namespace(x=1) %}{% for i in range(99999) %}{% set n.x = {'x': n.x} %}{% endfor %}"),
            ErrorCode::tpl_limit);
  EXPECT_EQ(run_code("{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}"),
            ErrorCode::tpl_limit);
  EXPECT_EQ(
      run_code(
          "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x.replace('a', n.x) %}{% endfor %}"),
      ErrorCode::tpl_limit);
  EXPECT_EQ(run_code("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), ErrorCode::tpl_limit);
  guild::RenderOptions small;
  small.max_output = 10;
  EXPECT_EQ(code_of([&] { (void)compile("12345678901").render(std::vector<Message>{{"user", "x"}}, small); }),
            ErrorCode::tpl_limit);
  EXPECT_EQ(code_of([&] { (void)compile("1234567890").render(std::vector<Message>{{"user", "x"}}, small); }),
            ErrorCode::count_);
}

TEST(ChatTemplate, ReachesNothingButValues) {
  for (const char* source :
       {"{{ ''.__class__ }}", "{{ messages.__init__ }}", "{{ messages[0].__class__.__mro__ | default('none') }}"})
    EXPECT_TRUE(code_of([&] {
                  EXPECT_EQ(render(source), std::string(source).find("default") != std::string::npos ? "none" : "");
                }) == ErrorCode::tpl_message ||
                render(source).size() < 5)
        << source;
}

}  // namespace chat_template_test
