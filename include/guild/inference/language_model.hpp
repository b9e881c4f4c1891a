// A model with all that belongs to it: weights, tokenizer, chat template, and the device it runs on.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <guild/inference/load_weights.hpp>
#include <guild/io/chat_template.hpp>
#include <guild/io/config.hpp>
#include <guild/io/generation_config.hpp>
#include <guild/io/tokenizer.hpp>

namespace guild::inline v1 {

/// Constant after loading: any number of threads may use one, each with its own `Session`. Copies share everything.
template <class ModelType, class DeviceType>
class LanguageModel {
 public:
  using Model = ModelType;
  using Device = DeviceType;
  using Weights = typename Model::template Weights<Published>;

  LanguageModel(const Device& device, Weights weights, PublishedConfig config, Tokenizer tokenizer,
                ChatTemplate chat_template, GenerationDefaults defaults)
      : device_(device), shared_(std::make_shared<const Shared>(std::move(weights), std::move(config), std::move(tokenizer),
                                                          std::move(chat_template), std::move(defaults))) {
    tokenizer_fits();
  }

  [[nodiscard]] const Device& device() const { return device_; }
  [[nodiscard]] const Weights& weights() const { return shared_->weights; }
  [[nodiscard]] const PublishedConfig& config() const { return shared_->config; }
  [[nodiscard]] const Tokenizer& tokenizer() const { return shared_->tokenizer; }
  [[nodiscard]] const ChatTemplate& chat_template() const { return shared_->chat_template; }
  [[nodiscard]] const GenerationDefaults& defaults() const { return shared_->defaults; }

  /// Tokens that end generation: those of generation_config.json, else of config.json, else the tokenizer's.
  [[nodiscard]] std::vector<int> stop_tokens() const {
    if (!defaults().eos.empty()) return defaults().eos;
    if (!config().eos.empty()) return config().eos;
    return {tokenizer().eos_id()};
  }
  /// For each row of the vocabulary whether it has a token.
  [[nodiscard]] std::vector<bool> allowed_tokens() const {
    std::vector<bool> allowed(static_cast<std::size_t>(Model::config.vocab), false);
    for (int id = 0; id < Model::config.vocab; ++id) allowed[static_cast<std::size_t>(id)] = tokenizer().has_token(id);
    return allowed;
  }

 private:
  struct Shared {
    Shared(Weights w, PublishedConfig c, Tokenizer t, ChatTemplate p, GenerationDefaults d)
        : weights(std::move(w)), config(std::move(c)), tokenizer(std::move(t)), chat_template(std::move(p)),
          defaults(std::move(d)) {}
    Weights weights;
    PublishedConfig config;
    Tokenizer tokenizer;
    ChatTemplate chat_template;
    GenerationDefaults defaults;
  };
  void tokenizer_fits() const { tokenizer().require_vocab_size(Model::config.vocab); }

  Device device_;
  std::shared_ptr<const Shared> shared_;
};

/// Loads a Hugging Face folder as published: config.json, safetensors (one file or shards with their index),
/// tokenizer.json, tokenizer_config.json, generation_config.json. Throws `Error` and leaves nothing behind.
template <class Model, class Device>
[[nodiscard]] LanguageModel<Model, Device> load(const Device& device, const std::string& folder,
                                                const LoadOptions& options = {}) {
  PublishedConfig config = read_config(folder);
  check_config<typename Model::Spec>(config);
  Tokenizer tokenizer = Tokenizer::read(folder);
  tokenizer.require_vocab_size(Model::config.vocab);
  ChatTemplate chat_template = ChatTemplate::read(folder);
  GenerationDefaults defaults = read_generation_config(folder);
  const Checkpoint checkpoint = Checkpoint::open(folder, options.checkpoint);
  return {device, load_weights<Model>(checkpoint, options), std::move(config), std::move(tokenizer),
          std::move(chat_template), std::move(defaults)};
}

}  // namespace guild::inline v1
