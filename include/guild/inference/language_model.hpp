// A model with all that belongs to it: weights, tokenizer, chat template, and the device it runs on.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <guild/core/weight.hpp>
#include <guild/io/chat_template.hpp>
#include <guild/io/config.hpp>
#include <guild/io/generation_config.hpp>
#include <guild/io/tokenizer.hpp>

namespace guild {
inline namespace v1 {

/// Constant after loading: any number of threads may use one, each with its own `Session`. Copies share everything.
template <class ModelType, class DeviceType>
class LanguageModel {
 public:
  using Model = ModelType;
  using Device = DeviceType;
  using Weights = typename Model::template Weights<AsStored<typename Device::Memory>>;

  LanguageModel(const Device& device, Weights weights, PublishedConfig config, Tokenizer tokenizer,
                std::optional<ChatTemplate> chat_template, GenerationDefaults defaults)
      : shared_(std::make_shared<const Shared>(device, std::move(weights), std::move(config), std::move(tokenizer),
                                               std::move(chat_template), std::move(defaults))) {
    tokenizer_fits();
  }

  [[nodiscard]] const Device& device() const { return shared_->device; }
  [[nodiscard]] const Weights& weights() const { return shared_->weights; }
  [[nodiscard]] const PublishedConfig& config() const { return shared_->config; }
  [[nodiscard]] const Tokenizer& tokenizer() const { return shared_->tokenizer; }
  /// Throws tpl_unsupported if the folder has none (base models): such a model still completes texts.
  [[nodiscard]] const ChatTemplate& chat_template() const {
    if (!shared_->chat_template)
      throw Error(ErrorCode::tpl_unsupported,
                  "there is no chat template in the folder; use `complete`, or add the published one",
                  {config().path, "chat_template", -1});
    return *shared_->chat_template;
  }
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
    Shared(const Device& v, Weights w, PublishedConfig c, Tokenizer t, std::optional<ChatTemplate> p,
           GenerationDefaults d)
        : device(v.fork()),  // built in place: devices need not be movable
          weights(std::move(w)),
          config(std::move(c)),
          tokenizer(std::move(t)),
          chat_template(std::move(p)),
          defaults(std::move(d)) {}
    Device device;
    Weights weights;
    PublishedConfig config;
    Tokenizer tokenizer;
    std::optional<ChatTemplate> chat_template;
    GenerationDefaults defaults;
  };
  void tokenizer_fits() const { tokenizer().require_vocab_size(Model::config.vocab); }

  std::shared_ptr<const Shared> shared_;
};

}  // namespace v1
}  // namespace guild
