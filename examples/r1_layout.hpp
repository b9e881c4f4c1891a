// The named tokens and the chat template of a small model in the layout of DeepSeek-R1.
#pragma once

#include <fstream>
#include <string>

#include <guild/core/random.hpp>
#include <guild/io/bpe_trainer.hpp>
#include <guild/io/tokenizer_writer.hpp>

namespace r1_layout {

/// As R1's: thinking of earlier turns is dropped, and the prompt for an answer opens the thinking.
inline constexpr const char* chat_template =
    "{%- if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif -%}\n"
    "{%- set ns = namespace(system='') -%}\n"
    "{%- for message in messages -%}{%- if message['role'] == 'system' -%}\n"
    "{%- set ns.system = message['content'] -%}{%- endif -%}{%- endfor -%}\n"
    "{{ bos_token }}{{ ns.system }}\n"
    "{%- for message in messages -%}\n"
    "{%- if message['role'] == 'user' -%}{{ '<｜User｜>' + message['content'] }}\n"
    "{%- elif message['role'] == 'assistant' -%}{%- set content = message['content'] -%}\n"
    "{%- if '</think>' in content -%}{%- set content = content.split('</think>')[-1] -%}{%- endif -%}\n"
    "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{%- endif -%}{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{ '<｜Assistant｜><think>\\n' }}{%- endif -%}\n";

/// Trains a tokenizer of at most `size` ids on texts and writes it into a folder that exists. Every digit is a token.
template <class Texts>
guild::Tokenizer make_tokenizer(const std::string& folder, int size, const Texts& texts) {
  guild::BpeTrainerOptions options;
  options.vocab_size = size;
  options.splits = guild::SplitRules::single_digits();
  options.first = {{"<｜begin▁of▁sentence｜>"}, {"<｜end▁of▁sentence｜>"}, {"<｜▁pad▁｜>"}};
  options.last = {{"<think>", false}, {"</think>", false}, {"<｜User｜>", false}, {"<｜Assistant｜>", false}};
  guild::TokenizerConfig config;
  config.bos_token = options.first[0].text;
  config.eos_token = config.pad_token = options.first[1].text;
  config.chat_template = chat_template;
  std::ofstream(folder + "/generation_config.json")
      << R"({"bos_token_id": 0, "eos_token_id": 1, "do_sample": true, "temperature": 0.6, "top_p": 0.95})" << "\n";
  return guild::write_tokenizer(folder, guild::train_bpe(options, texts), config);
}

}  // namespace r1_layout
