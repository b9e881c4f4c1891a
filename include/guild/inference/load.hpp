// From a Hugging Face folder to a model that is ready to run.
#pragma once

#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include <guild/checkpoint/load_weights.hpp>
#include <guild/inference/language_model.hpp>
#include <guild/io/config.hpp>
#include <guild/io/generation_config.hpp>

namespace guild {
inline namespace v1 {

/// Reads tokenizer.json, tokenizer_config.json, and where they exist a chat template and generation_config.json.
/// Throws tk_vocab_size if the tokenizer has ids beyond the vocabulary.
[[nodiscard]] inline ModelText read_model_text(const std::string& folder, PublishedConfig config, int vocab) {
  Tokenizer tokenizer = Tokenizer::read(folder);
  tokenizer.require_vocab_size(vocab);
  std::optional<ChatTemplate> chat_template = ChatTemplate::read_if_any(folder);
  GenerationDefaults defaults = read_generation_config(folder);
  return {std::move(config), std::move(tokenizer), std::move(chat_template), std::move(defaults)};
}

/// Loads a Hugging Face folder as published: config.json, safetensors (one file or shards with their index),
/// tokenizer.json, tokenizer_config.json, and where they exist a chat template and generation_config.json.
/// Throws `Error` and leaves nothing behind.
template <class Model, class Device>
[[nodiscard]] LanguageModel<Model, Device> load(const Device& device, const std::string& folder,
                                                const LoadOptions& options = {}) {
  static_assert(std::is_same_v<typename Device::Memory, HostMemory>,
                "load: weights are loaded into host memory so far; load for guild::Cpu");
  using Spec = typename Model::Spec;
  auto config = read_config<typename Spec::Family>(folder);
  check_config<Spec>(config);
  check_scale_blocks(config);
  ModelText text = read_model_text(folder, std::move(config), Model::config.vocab);
  const Checkpoint checkpoint = Checkpoint::open(folder, options.checkpoint);
  text.warnings = checkpoint.warnings();
  LoadOptions told = options;
  told.warn = [&](const std::string& what) {
    text.warnings.push_back(what);
    if (options.warn) options.warn(what);
  };
  auto weights = load_weights<Model>(checkpoint, told);
  return {device, std::move(weights), std::move(text)};
}

}  // namespace v1
}  // namespace guild
