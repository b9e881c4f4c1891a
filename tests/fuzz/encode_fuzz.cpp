// Any bytes as text: refused as not UTF-8, or encoded to ids that give the same text back.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <guild/io/tokenizer.hpp>

namespace {

void check(bool promise) {
  if (!promise) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const guild::Tokenizer tokenizer = guild::Tokenizer::read(GUILD_SOURCE_DIR "/checkpoints/mini-r1");
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string valid = guild::utf8_lossy(text);
  check(guild::utf8_fault(valid) == std::string::npos);
  const std::vector<int> ids = tokenizer.encode(text, {.invalid_utf8 = guild::InvalidUtf8::replace});
  check(tokenizer.decode(ids) == valid);
  check(tokenizer.encode(valid) == ids);
  const std::vector<int> plain = tokenizer.encode(valid, {.added_tokens = guild::AddedTokens::text});
  for (const int id : plain) check(!tokenizer.is_added(id));
  check(tokenizer.decode(plain) == valid);
  // However content is cut into parts, it is the same text.
  std::vector<guild::TextPart> parts;
  for (std::size_t at = 0; at < valid.size();) {
    std::size_t end = at + 1 + (static_cast<unsigned char>(valid[at]) % 7U);
    while (end < valid.size() && (static_cast<unsigned char>(valid[end]) & 0xC0U) == 0x80U) ++end;
    parts.push_back({valid.substr(at, end - at), guild::TextPart::Origin::content});
    at = end;
  }
  check(tokenizer.encode(parts) == plain);
  for (guild::TextPart& part : parts) part.origin = guild::TextPart::Origin::marker;
  check(tokenizer.encode(parts) == ids);
  // The same of a tokenizer that normalizes, which gives the normalized text back.
  static const guild::Tokenizer qwen =
      guild::Tokenizer::read(GUILD_SOURCE_DIR "/tests/fixtures/tokenizer/distill_qwen");
  static const auto form_c = guild::Normalizer::parse(guild::Json::parse(R"({"type":"NFC"})", {}));
  check(qwen.encode(parts) == qwen.encode(valid));
  for (guild::TextPart& part : parts) part.origin = guild::TextPart::Origin::content;
  const std::string composed = form_c.normalize(valid);
  const std::vector<int> normal = qwen.encode(valid, {.added_tokens = guild::AddedTokens::text});
  check(qwen.encode(parts) == normal && qwen.decode(normal) == composed);
  check(qwen.encode(composed, {.added_tokens = guild::AddedTokens::text}) == normal);
  for (std::size_t i = 0; i < parts.size(); i += 2) parts[i].origin = guild::TextPart::Origin::marker;
  for (const int id : qwen.encode(parts)) check(qwen.has_token(id));
  try {
    check(tokenizer.encode(text) == ids && valid == text);
  } catch (const guild::Error& error) {
    check(error.code() == guild::ErrorCode::in_utf8 && valid != text && error.offset() >= 0);
  }
  return 0;
}
