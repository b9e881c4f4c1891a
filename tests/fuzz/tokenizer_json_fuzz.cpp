// Any bytes as tokenizer.json and as tokenizer_config.json: a tokenizer that keeps its promises, or guild::Error.
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
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const guild::TokenizerConfig config = guild::TokenizerConfig::parse(text);
    check(!config.bos_token.empty() && !config.eos_token.empty());
  } catch (const guild::Error& error) { check(!error.message().empty()); }
  try {
    const guild::Tokenizer tokenizer = guild::Tokenizer::parse(text);
    const std::string sample = "Hello <think> 1234  字\n\t'll é\u180e\u200b😀";
    try {
      const std::vector<int> ids = tokenizer.encode(sample, {.added_tokens = guild::AddedTokens::text});
      for (const int id : ids) check(tokenizer.has_token(id) && !tokenizer.is_special(id));
      check(tokenizer.decode(ids) == sample);
      for (const int id : tokenizer.encode(sample + "e\u0301 a\u0301\u0323")) check(tokenizer.has_token(id));
    } catch (const guild::Error& error) {
      check(error.code() == guild::ErrorCode::tk_limit);  // a split pattern without end
    }
  } catch (const guild::Error& error) { check(!error.message().empty() && error.path() == "tokenizer.json"); }
  return 0;
}
