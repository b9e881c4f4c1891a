#include <guild/cpu.hpp>
#include <guild/inference/conversation.hpp>
#include <guild/inference/generation.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <iterator>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../support/scripted_model.hpp"

namespace generation_test {

using guild::ErrorCode;
using guild::FinishReason;
using guild::Index;
using guild::ThinkPiece;
using namespace guild_test;
using Session = guild::Session<ScriptLanguage>;
using Generation = guild::Generation<ScriptLanguage>;

std::string code_of(const std::function<void()>& call, std::string* message = nullptr) {
  try {
    call();
  } catch (const guild::Error& error) {
    if (message != nullptr) *message = error.what();
    return std::string(guild::name(error.code()));
  }
  return "no error";
}
std::string expected(ErrorCode code) { return std::string(guild::name(code)); }

/// All pieces joined: thinking in brackets.
std::string text_of(Generation& generation) {
  std::string out;
  auto kind = ThinkPiece::Kind::answer;
  for (const auto& piece : generation) {
    if (piece.kind != kind) out += piece.kind == ThinkPiece::Kind::thinking ? "[" : "]";
    kind = piece.kind;
    out += piece.text;
  }
  return out + (kind == ThinkPiece::Kind::thinking ? "]" : "");
}
std::string text_of(Generation&& generation) { return text_of(generation); }

TEST(Generation, SaysWhatTheModelSaysUntilAStopToken) {
  Script script;
  const auto model = script.says('a', {"Hello", ", ", "world"}).model();
  auto generation = guild::complete(model, "a");
  EXPECT_EQ(text_of(generation), "Hello, world");
  EXPECT_EQ(generation.finish_reason(), FinishReason::stop_token);
  EXPECT_EQ(generation.tokens(), (std::vector<std::int32_t>{303, 304, 305, Script::end_of_text}));
  EXPECT_EQ(generation.stats().prompt_tokens, 1);
  EXPECT_EQ(generation.stats().generated_tokens, 4);
  EXPECT_EQ(generation.next(), std::nullopt);  // stays at its end
}

TEST(Generation, IsARangeOfStringViews) {
  static_assert(std::input_iterator<Generation::Iterator>);
  static_assert(std::sentinel_for<Generation::Sentinel, Generation::Iterator>);
  Script script;
  const auto model = script.says('a', {"Hello", ", ", "world"}).model();
  std::string text;
  for (std::string_view piece : guild::complete(model, "a")) text += piece;
  EXPECT_EQ(text, "Hello, world");
}

TEST(Generation, StopsAtAStringAcrossTokens) {
  Script script;
  const auto model = script.says('a', {"one ST", "O", "P two"}).model();
  const auto run = [&](const std::vector<std::string>& stop) {
    auto generation = guild::complete(model, "a", {.stop = stop});
    const std::string text = text_of(generation);
    return std::pair(text, generation.finish_reason());
  };
  EXPECT_EQ(run({"STOP"}), std::pair(std::string("one "), FinishReason::stop_string));
  EXPECT_EQ(run({"nothing", "P t"}), std::pair(std::string("one STO"), FinishReason::stop_string));
  EXPECT_EQ(run({"STOPPED"}), std::pair(std::string("one STOP two"), FinishReason::stop_token));
  EXPECT_EQ(run({"two!"}), std::pair(std::string("one STOP two"), FinishReason::stop_token));  // held back, then shown
  EXPECT_EQ(code_of([&] { (void)run({""}); }), expected(ErrorCode::in_param));
}

TEST(Generation, ShowsWholeCharactersOnly) {
  Script script;
  script.says('a', {0xE2, 0x82, 0xAC, 0xF0, 0x9F, Script::end_of_text});  // the euro sign, and half an emoji
  const auto model = script.model();
  std::vector<std::string> pieces;
  for (std::string_view piece : guild::complete(model, "a")) pieces.emplace_back(piece);
  EXPECT_EQ(pieces, (std::vector<std::string>{"\xE2\x82\xAC", "\xEF\xBF\xBD"}));
}

TEST(Generation, StopsAfterMaxTokens) {
  Script script;
  const auto model = script.says('a', {"1", "2", "3", "4", "5"}).model();
  for (int limit = 1; limit <= 5; ++limit) {
    auto generation = guild::complete(model, "a", {.max_tokens = limit});
    EXPECT_EQ(text_of(generation), std::string("12345").substr(0, static_cast<std::size_t>(limit)));
    EXPECT_EQ(generation.finish_reason(), FinishReason::length);
    EXPECT_EQ(generation.stats().generated_tokens, limit);
  }
}

TEST(Generation, TellsThinkingFromAnswer) {
  Script script;
  const auto model = script.says('a', {"well", "</thi", "nk>", "yes", " it", " is"}).model();
  EXPECT_EQ(text_of(guild::complete(model, "<think>\na")),
            "well</think>yes it is");  // the prompt's tag is not at its end
  Script thinks;
  const int think = 302;
  thinks.says(think, {thinks.token("well"), thinks.token("</thi"), thinks.token("nk>"), thinks.token("yes"),
                      Script::end_of_text});
  const auto thinker = thinks.model();
  EXPECT_EQ(text_of(guild::generate(thinker, "b")), "[well]yes");  // the template opens the thinking
}

TEST(Generation, AMessageCannotOpenTheThinking) {
  Script script;
  script.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}";
  const auto model = script.says('>', {"an answer"}).model();
  EXPECT_EQ(text_of(guild::generate(model, "b<think>")), "an answer");
  guild::Conversation conversation(model);
  EXPECT_EQ(text_of(conversation.ask("b<think>")), "an answer");
}

TEST(Generation, MayBeLeftEarlyAndGoesOnLater) {
  Script script;
  const auto model = script.says('a', {"1", "2", "3", "4"}).model();
  auto generation = guild::complete(model, "a");
  for (const auto& piece : generation)
    if (piece.text == "2") break;
  EXPECT_EQ(generation.finish_reason(), FinishReason::running);
  EXPECT_EQ(generation.tokens().size(), 2U);
  EXPECT_EQ(text_of(generation), "34");
  Generation moved = guild::complete(model, "a");
  EXPECT_EQ(moved.next()->text, "1");
  Generation target = std::move(moved);  // it owns its session, wherever it lies
  EXPECT_EQ(text_of(target), "234");
}

TEST(Generation, RefusesAPromptThatDoesNotFitBeforeAnythingIsComputed) {
  Script script;
  const auto model = script.says('a', {"1", "2", "3", "4"}).model();
  Session session(model, 10);
  const std::vector<std::int32_t> before = {5, 6};
  session.append(before);
  const auto prompt = [](std::size_t size) { return std::vector<std::int32_t>(size, 97); };
  std::string message;
  // 2 tokens are there: 5 more and 3 new ones fill the context of 10 exactly; one more does not fit.
  EXPECT_EQ(text_of(Generation(session, prompt(5), {.max_tokens = 3})), "123");
  EXPECT_EQ(session.length(), 9);  // the last token drawn needs no place
  session.rewind(2);
  EXPECT_EQ(code_of([&] { Generation(session, prompt(6), {.max_tokens = 3}); }, &message),
            expected(ErrorCode::in_context));
  EXPECT_NE(message.find("8 prompt tokens and 3 new ones"), std::string::npos) << message;
  EXPECT_NE(message.find("context of 10"), std::string::npos) << message;
  EXPECT_EQ(code_of([&] { Generation(session, prompt(8), {}); }), expected(ErrorCode::in_context));
  EXPECT_EQ(session.length(), 2);
  // Without a limit the generation ends where the context does.
  Generation full(session, prompt(6), {});
  EXPECT_EQ(text_of(full), "12");
  EXPECT_EQ(full.finish_reason(), FinishReason::length);
}

TEST(Session, HoldsExactlyItsContext) {
  const auto model = Script().model();
  Session session(model, 8);
  const std::vector<std::int32_t> tokens(9, 65);
  const auto part = [&](std::size_t count) { return std::span(tokens).first(count); };
  std::string message;
  EXPECT_EQ(code_of([&] { session.append(part(9)); }, &message), expected(ErrorCode::in_context));
  EXPECT_NE(message.find("9 tokens do not fit the context of 8"), std::string::npos) << message;
  EXPECT_EQ(session.length(), 0);
  session.append(part(8));
  EXPECT_EQ(session.length(), 8);
  const std::vector<float> logits(session.logits().begin(), session.logits().end());
  EXPECT_EQ(code_of([&] { session.append(1); }), expected(ErrorCode::in_context));
  EXPECT_EQ(session.length(), 8);
  EXPECT_TRUE(std::equal(logits.begin(), logits.end(), session.logits().begin()));
  session.rewind(7);
  session.append(1);
  EXPECT_EQ(session.tokens().back(), 1);
  // No session is larger than the positions the model knows.
  EXPECT_EQ(Session(model, 1 << 20).context(), ScriptSpec::config.context);
  EXPECT_EQ(Session(model).context(), ScriptSpec::config.context);
}

TEST(Session, CountsWhatItsRoutersDoFromWhenItIsAsked) {
  const auto model = Script().model();
  Session session(model), other(model);
  session.append(std::vector<std::int32_t>{65, 66, 67});
  std::string message;
  EXPECT_EQ(code_of([&] { (void)session.routing(); }, &message), expected(ErrorCode::op_argument));
  EXPECT_NE(message.find("call count_routing"), std::string::npos) << message;
  session.count_routing();
  session.append(std::vector<std::int32_t>{68, 69});
  session.append(70);
  const guild::RoutingStatistics counted = session.routing();
  EXPECT_EQ(counted.layers(), 2);
  EXPECT_EQ(counted.tokens(0), 0.0) << "a dense layer";
  EXPECT_EQ(counted.tokens(1), 3.0);
  double served = 0.0;
  for (const double load : counted.load(1)) served += load;
  EXPECT_EQ(served, 6.0);
  EXPECT_GT(counted.importance(1)[0] + counted.importance(1)[1], 0.0);
  session.count_routing();
  EXPECT_EQ(session.routing().tokens(1), 0.0) << "it begins anew";
  session.append(71);
  session.append(72);
  other.append(std::vector<std::int32_t>{65, 66, 67, 68, 69, 70, 71, 72});
  for (int i = 0; i < ScriptSpec::config.vocab; ++i) ASSERT_NEAR(session.logits()[i], other.logits()[i], 1e-3);
}

TEST(Session, RefusesTokensThatAreNone) {
  Session session(Script().model());
  session.append(3);
  const std::vector<std::int32_t> high = {1, 352}, low = {-1}, none;
  EXPECT_EQ(code_of([&] { session.append(high); }), expected(ErrorCode::in_token));
  EXPECT_EQ(code_of([&] { session.append(low); }), expected(ErrorCode::in_token));
  EXPECT_EQ(code_of([&] { session.append(none); }), expected(ErrorCode::in_empty));
  EXPECT_EQ(code_of([&] { session.rewind(2); }), expected(ErrorCode::op_argument));
  EXPECT_EQ(code_of([&] { session.rewind(-1); }), expected(ErrorCode::op_argument));
  EXPECT_EQ(session.length(), 1);
}

TEST(Generation, RefusesEmptyAndInvalidPrompts) {
  const auto model = Script().model();
  EXPECT_EQ(code_of([&] { (void)guild::generate(model, ""); }), expected(ErrorCode::in_empty));
  EXPECT_EQ(code_of([&] { (void)guild::complete(model, ""); }), expected(ErrorCode::in_empty));
  for (const char* bad : {"a\xC0\x80", "\xED\xA0\x80", "\xF5", "cut \xE2\x82"}) {
    EXPECT_EQ(code_of([&] { (void)guild::generate(model, bad); }), expected(ErrorCode::in_utf8));
    EXPECT_EQ(code_of([&] { (void)guild::complete(model, bad); }), expected(ErrorCode::in_utf8));
    EXPECT_EQ(code_of([&] { (void)guild::generate(model, "fine", {.system = bad}); }), expected(ErrorCode::in_utf8));
    EXPECT_EQ(code_of([&] { (void)guild::complete(model, "fine", {.stop = {bad}}); }), expected(ErrorCode::in_utf8));
  }
}

TEST(Generation, RefusesParametersOutOfRange) {
  const auto model = Script().model();
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  const struct {
    const char* key;
    guild::GenerateOptions options;
  } rows[] = {{"temperature", {.temperature = -0.1f}},
              {"temperature", {.temperature = nan}},
              {"temperature", {.temperature = infinity}},
              {"top_p", {.top_p = 0.0f}},
              {"top_p", {.top_p = 1.1f}},
              {"top_p", {.top_p = nan}},
              {"top_p", {.top_p = -1.0f}},
              {"top_k", {.top_k = -1}},
              {"min_p", {.min_p = -0.1f}},
              {"min_p", {.min_p = 1.5f}},
              {"min_p", {.min_p = nan}},
              {"repetition_penalty", {.repetition_penalty = 0.0f}},
              {"repetition_penalty", {.repetition_penalty = nan}},
              {"repetition_penalty", {.repetition_penalty = infinity}},
              {"max_tokens", {.max_tokens = -1}}};
  for (const auto& row : rows) {
    std::string message;
    EXPECT_EQ(code_of([&] { (void)guild::complete(model, "a", row.options); }, &message), expected(ErrorCode::in_param))
        << row.key;
    EXPECT_NE(message.find(row.key), std::string::npos) << message;
    EXPECT_NE(message.find("expected"), std::string::npos) << message;
  }
}

TEST(Generation, TakesWhatIsNotSetFromTheCheckpoint) {
  guild::GenerationDefaults defaults;
  defaults.do_sample = true;
  defaults.temperature = 0.6f;
  defaults.top_p = 0.95f;
  defaults.top_k = 40;
  defaults.repetition_penalty = 1.25f;
  auto options = guild::sampling_options({.seed = 9}, defaults);
  EXPECT_EQ(options.temperature, 0.6f);
  EXPECT_EQ(options.top_p, 0.95f);
  EXPECT_EQ(options.top_k, 40);
  EXPECT_EQ(options.repetition_penalty, 1.25f);
  EXPECT_EQ(options.min_p, 0.0f);
  EXPECT_EQ(options.seed, 9U);
  options = guild::sampling_options(
      {.temperature = 0.0f, .top_k = 0, .top_p = 1.0f, .min_p = 0.1f, .repetition_penalty = 1.0f}, defaults);
  EXPECT_EQ(options.temperature, 0.0f);
  EXPECT_EQ(options.top_p, 1.0f);
  EXPECT_EQ(options.top_k, 0);
  EXPECT_EQ(options.repetition_penalty, 1.0f);
  EXPECT_EQ(options.min_p, 0.1f);
  defaults.do_sample = false;
  EXPECT_EQ(guild::sampling_options({}, defaults).temperature, 0.0f);
  defaults.do_sample = true;
  defaults.temperature.reset();
  EXPECT_EQ(guild::sampling_options({}, defaults).temperature, 1.0f);
}

TEST(Generation, StopsAtTheStopTokensOfTheCheckpoint) {
  Script script;
  script.says('a', {"1", "2", "3"});
  guild::GenerationDefaults defaults;
  defaults.eos = {script.token("3"), script.token("2")};
  auto generation = guild::complete(script.model(1, defaults), "a");
  EXPECT_EQ(text_of(generation), "1");
  EXPECT_EQ(generation.tokens().back(), script.token("2"));
}

TEST(Generation, NeverDrawsAnIdWithoutAToken) {
  Script script;
  script.says('a', {330, Script::end_of_text});  // the model wants 330, which is nothing
  const auto model = script.model();
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    auto generation =
        guild::complete(model, "a", {.temperature = seed == 0 ? 0.0f : 50.0f, .seed = seed, .max_tokens = 20});
    (void)text_of(generation);
    for (const std::int32_t token : generation.tokens()) EXPECT_TRUE(model.tokenizer().has_token(token)) << token;
  }
}

TEST(Generation, TheSameSeedGivesTheSameText) {
  const auto model = Script().model(4);
  const auto run = [&](std::uint64_t seed) {
    auto generation = guild::complete(model, "a", {.temperature = 5.0f, .seed = seed, .max_tokens = 30});
    (void)text_of(generation);
    return generation.tokens();
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_EQ(run(77), run(77));
  EXPECT_NE(run(1), run(2));
}

TEST(Generation, SaysSoWhenItsSessionWasUsedInBetween) {
  Script script;
  const auto model = script.says('a', {"1", "2", "3"}).model();
  Session session(model);
  Generation first(session, {97}, {}), second(session, {97}, {});
  EXPECT_EQ(first.next()->text, "1");
  EXPECT_EQ(code_of([&] { (void)second.next(); }), expected(ErrorCode::op_argument));
  EXPECT_EQ(first.next()->text, "2");
  session.rewind(0);
  EXPECT_EQ(code_of([&] { (void)first.next(); }), expected(ErrorCode::op_argument));
}

/// A model whose router fails: the logits of every token that is not 'a' are not finite.
TEST(Generation, AFailedStepLeavesTheSessionAsItWasAndMayBeTriedAgain) {
  Script script;
  script.says('a', {"1", "2"});
  const auto model = script.model();
  // The weights are shared and constant; only this test knows that the memory behind them is not.
  auto& router = std::get<1>(model.weights().layers.parts).layers[0].feed_forward.router.weight;
  auto* value = reinterpret_cast<float*>(const_cast<std::byte*>(router.data.data()));
  auto generation = guild::complete(model, "a");
  EXPECT_EQ(generation.next()->text, "1");
  const float saved = std::exchange(*value, std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(code_of([&] { (void)generation.next(); }), expected(ErrorCode::op_nonfinite));
  EXPECT_EQ(code_of([&] { (void)generation.next(); }), expected(ErrorCode::op_nonfinite));
  EXPECT_EQ(generation.tokens().size(), 1U);
  *value = saved;
  EXPECT_EQ(text_of(generation), "2");
  EXPECT_EQ(generation.stats().generated_tokens, 3);

  // Logits that are not finite: found by the sampler, after the token went into the session.
  auto* head = reinterpret_cast<float*>(const_cast<std::byte*>(model.weights().head.weight.data.data()));
  Session session(model);
  Generation again(session, {97}, {});
  const float head_saved = std::exchange(head[64 * 5], std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(code_of([&] { (void)again.next(); }), expected(ErrorCode::op_nonfinite));
  head[64 * 5] = head_saved;
  // The prompt is not fed twice; the logits of the failed step stand, so it fails again rather than go on with garbage.
  EXPECT_EQ(code_of([&] { (void)again.next(); }), expected(ErrorCode::op_nonfinite));
  EXPECT_EQ(again.tokens().size(), 0U);
  EXPECT_EQ(session.length(), 1);
}

using Conversation = guild::Conversation<ScriptLanguage>;
template <class C>
concept AsksTemporaries = requires(C (*make)()) { make().ask("x"); };
static_assert(!AsksTemporaries<Conversation>, "the answer of a temporary conversation would outlive it");

/// A template that writes roles as bytes: the whole conversation is the prompt.
Script talk() {
  Script script;
  script.chat_template =
      "{% for m in messages %}{{ m['role'][0] }}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}a{% endif "
      "%}";
  script.says('a', {"X", "Y"});
  return script;
}

TEST(Conversation, KeepsWhatTheCacheHasInCommonWithTheNextPrompt) {
  Script script = talk();
  const auto model = script.model();
  Conversation conversation(model, "sys");
  auto first = conversation.ask("hello");
  EXPECT_EQ(text_of(first), "XY");
  EXPECT_EQ(first.stats().prompt_tokens, 1 + 3 + 1 + 5 + 1);
  conversation.remember("XY");
  auto second = conversation.ask("bye");
  EXPECT_EQ(text_of(second), "XY");
  EXPECT_EQ(second.stats().prompt_tokens, 1 + 3 + 1);  // "ssysuhelloaXY" is there, "ubyea" is new
  ASSERT_EQ(conversation.messages().size(), 4U);
  EXPECT_EQ(conversation.messages()[3].content, "bye");
  conversation.clear();
  EXPECT_EQ(conversation.messages().size(), 1U);
  EXPECT_EQ(conversation.session().length(), 0);
}

TEST(Conversation, StaysAsItWasWhenAQuestionIsRefused) {
  const auto model = talk().model();
  Conversation conversation(model);
  (void)text_of(conversation.ask("hello"));
  conversation.remember("XY");
  const auto refuse = [&](ErrorCode code, const std::string& message, const guild::GenerateOptions& options = {}) {
    EXPECT_EQ(code_of([&] { (void)conversation.ask(message, options); }), expected(code));
    EXPECT_EQ(conversation.messages().size(), 2U);
  };
  refuse(ErrorCode::in_empty, "");
  refuse(ErrorCode::in_utf8, "\xFF");
  refuse(ErrorCode::in_context, std::string(60, 'x'));
  refuse(ErrorCode::in_context, "x", {.max_tokens = 60});
  refuse(ErrorCode::in_param, "x", {.temperature = -1.0f});
  EXPECT_EQ(text_of(conversation.ask("bye")), "XY");
}

// Then the cache holds all of the prompt, and more. The last token is computed again, for its logits.
TEST(Conversation, AsksTheSameQuestionTwice) {
  Script script = talk();
  script.chat_template = "{{ messages[-1]['content'] }}a";
  const auto model = script.model();
  Conversation conversation(model);
  EXPECT_EQ(text_of(conversation.ask("hello")), "XY");
  auto again = conversation.ask("hello");
  EXPECT_EQ(text_of(again), "XY");
  EXPECT_EQ(again.stats().prompt_tokens, 1);
}

TEST(Session, TakesItsOwnTokens) {
  Session session(Script().model());
  const std::vector<std::int32_t> tokens = {1, 2, 3, 4};
  session.append(tokens);
  session.append(session.tokens());
  EXPECT_EQ(std::vector<std::int32_t>(session.tokens().begin(), session.tokens().end()),
            (std::vector<std::int32_t>{1, 2, 3, 4, 1, 2, 3, 4}));
  const auto own = session.tokens();
  session.rewind(2);
  session.append(own.subspan(2, 6));  // what was rewound is still there until something takes its place
  EXPECT_EQ(session.length(), 8);
  EXPECT_EQ(std::vector<std::int32_t>(session.tokens().begin(), session.tokens().begin() + 8),
            (std::vector<std::int32_t>{1, 2, 3, 4, 1, 2, 3, 4}));
}

}  // namespace generation_test
