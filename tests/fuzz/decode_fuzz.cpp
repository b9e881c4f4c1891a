// Any ids: refused, or decoded to valid UTF-8; and streaming, stop strings and thinking give the same text in any
// pieces.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <guild/io/text_stream.hpp>
#include <guild/io/think.hpp>
#include <guild/io/tokenizer.hpp>

namespace {

void check(bool promise) {
  if (!promise) __builtin_trap();
}

std::string thinking_and_answer(std::string_view text, std::size_t piece) {
  guild::ThinkParser parser(guild::ThinkParser::Start::thinking);
  std::string thinking, answer;
  const auto take = [&](const std::vector<guild::ThinkPiece>& pieces) {
    for (const auto& p : pieces) (p.kind == guild::ThinkPiece::Kind::thinking ? thinking : answer) += p.text;
  };
  for (std::size_t at = 0; at < text.size(); at += piece) take(parser.push(text.substr(at, piece)));
  take(parser.flush());
  return thinking + '\0' + answer;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const guild::Tokenizer tokenizer = guild::Tokenizer::read(GUILD_SOURCE_DIR "/checkpoints/mini-r1");
  std::vector<int> ids;
  bool all_known = true;
  for (std::size_t i = 0; i + 1 < size; i += 2) {
    const int id = static_cast<int>(data[i] | (data[i + 1] << 8)) - 1;
    all_known = all_known && tokenizer.has_token(id);
    ids.push_back(id);
  }
  std::string text;
  try {
    text = tokenizer.decode(ids);
    check(all_known && guild::utf8_fault(text) == std::string::npos);
  } catch (const guild::Error& error) {
    check(!all_known && error.code() == guild::ErrorCode::tk_id);
    return 0;
  }
  guild::TextStream stream(tokenizer);
  std::string streamed;
  for (const int id : ids) {
    const std::string piece = stream.push(id);
    check(guild::utf8_fault(piece) == std::string::npos);
    streamed += piece;
  }
  check(streamed + stream.flush() == text);
  check(thinking_and_answer(text, 1) == thinking_and_answer(text, std::max<std::size_t>(text.size(), 1)));
  if (text.size() < 4) return 0;
  const std::string stop = text.substr(text.size() / 2, 1 + text.size() % 5);
  if (guild::utf8_fault(stop) != std::string::npos) return 0;
  guild::StopStrings by_byte({stop, "</think>"}), whole({stop, "</think>"});
  std::string a;
  for (const char c : text) a += by_byte.push({&c, 1});
  a += by_byte.flush();
  std::string b = whole.push(text);
  b += whole.flush();
  check(a == b && by_byte.found() == whole.found() && whole.stopped() && a.find(stop) == std::string::npos);
  return 0;
}
