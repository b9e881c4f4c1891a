// A tokenizer.json of 256 bytes and a few merges, of which tests can replace any part.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <guild/io/byte_level.hpp>

namespace guild_test {

/// The parts of the file, as JSON text.
struct TinyTokenizer {
  std::string version = R"("1.0")";
  std::string added = R"([{"id":300,"content":"<s>","special":true},{"id":301,"content":"</s>","special":true},)"
                      R"({"id":302,"content":"<think>","special":false,"normalized":true}])";
  std::string normalizer = "null";
  std::string pre_tokenizer =
      R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\p{N}{1,3}"},"behavior":"Isolated",)"
      R"("invert":false},{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}]})";
  std::string decoder = R"({"type":"ByteLevel"})";
  std::string model_type = R"("BPE")";
  std::string model_extra{};  ///< such as "ignore_merges":true,
  std::vector<std::string> vocab = {R"("ab":256)", R"("bc":257)",
                                    R"("abc":258)"};  ///< after the bytes, which are 0..255
  std::string merges = R"(["a b",["b","c"],"ab c"])";
  int left_out = -1;  ///< a byte without a symbol

  [[nodiscard]] std::string json() const {
    std::string entries;
    for (int byte = 0; byte < 256; ++byte) {
      if (byte == left_out) continue;
      const std::string symbol = guild::byte_symbol(static_cast<std::uint8_t>(byte));
      entries.append("\"").append(symbol == "\"" || symbol == "\\" ? "\\" : "").append(symbol);
      entries.append("\":").append(std::to_string(byte)).append(",");
    }
    for (const std::string& entry : vocab) entries += entry + ",";
    entries.pop_back();
    return "{\"version\":" + version + ",\"truncation\":null,\"padding\":null,\"added_tokens\":" + added +
           ",\"normalizer\":" + normalizer + ",\"pre_tokenizer\":" + pre_tokenizer +
           ",\"post_processor\":null,\"decoder\":" + decoder + ",\"model\":{\"type\":" + model_type + "," +
           model_extra + "\"vocab\":{" + entries + "},\"merges\":" + merges + "}}";
  }
};

inline constexpr std::string_view tiny_config =
    R"({"bos_token":"<s>","eos_token":{"content":"</s>"},"model_max_length":1000000000000000019884624838656})";

}  // namespace guild_test
