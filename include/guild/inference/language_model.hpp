// A model with all that belongs to it: weights, tokenizer, chat template, and the device it runs on.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <guild/core/refuse.hpp>
#include <guild/core/weight.hpp>
#include <guild/io/chat_template.hpp>
#include <guild/io/config.hpp>
#include <guild/io/generation_config.hpp>
#include <guild/io/tokenizer.hpp>

namespace guild {
inline namespace v1 {

/// What a language model knows besides its weights: the files of its folder that are about text.
struct ModelText {
  PublishedConfig config;
  Tokenizer tokenizer;
  std::optional<ChatTemplate> chat_template;
  GenerationDefaults defaults;
  std::vector<std::string> warnings{};  ///< what was odd about the folder, but harmless

  /// Throws tpl_unsupported if there is none.
  [[nodiscard]] const ChatTemplate& require_chat_template() const {
    if (!chat_template)
      detail::refuse(ErrorCode::tpl_unsupported,
                     "there is no chat template in the folder; use `complete`, or add the published one",
                     detail::At{config.path, "chat_template"});
    return *chat_template;
  }
  /// Tokens that end generation: those of generation_config.json, else of config.json, else the tokenizer's.
  [[nodiscard]] std::vector<int> stop_tokens() const {
    if (!defaults.eos.empty()) return defaults.eos;
    if (!config.eos.empty()) return config.eos;
    return {tokenizer.eos_id()};
  }
  /// For each row of a vocabulary whether it has a token.
  [[nodiscard]] std::vector<bool> allowed_tokens(int vocab) const {
    std::vector<bool> allowed(static_cast<std::size_t>(vocab), false);
    for (int id = 0; id < vocab; ++id) allowed[static_cast<std::size_t>(id)] = tokenizer.has_token(id);
    return allowed;
  }
};

/// Constant after loading: any number of threads may use one, each with its own `Session`. Copies share everything.
template <class ModelType, class DeviceType>
class LanguageModel {
 public:
  using Model = ModelType;
  using Device = DeviceType;
  using Weights = typename Model::template Weights<AsStored<typename Device::Memory>>;

  /// Throws tk_vocab_size if the tokenizer has ids beyond the model's vocabulary.
  LanguageModel(const Device& device, Weights weights, ModelText text)
      : shared_(std::make_shared<const Shared>(device, std::move(weights), std::move(text))) {
    tokenizer().require_vocab_size(Model::config.vocab);
  }

  [[nodiscard]] const Device& device() const { return shared_->device; }
  [[nodiscard]] const Weights& weights() const { return shared_->weights; }
  [[nodiscard]] const PublishedConfig& config() const { return shared_->text.config; }
  [[nodiscard]] const Tokenizer& tokenizer() const { return shared_->text.tokenizer; }
  /// Throws tpl_unsupported if the folder has none (base models): such a model still completes texts.
  [[nodiscard]] const ChatTemplate& chat_template() const { return shared_->text.require_chat_template(); }
  [[nodiscard]] const GenerationDefaults& defaults() const { return shared_->text.defaults; }
  /// What was odd about the folder, but harmless, a sentence each: see CheckpointOptions::strict_index and
  /// LoadOptions::warn.
  [[nodiscard]] const std::vector<std::string>& warnings() const { return shared_->text.warnings; }
  /// Tokens that end generation.
  [[nodiscard]] std::vector<int> stop_tokens() const { return shared_->text.stop_tokens(); }
  /// For each row of the vocabulary whether it has a token.
  [[nodiscard]] std::vector<bool> allowed_tokens() const { return shared_->text.allowed_tokens(Model::config.vocab); }

 private:
  struct Shared {
    Shared(const Device& v, Weights w, ModelText t)
        : device(v.fork()),  // built in place: devices need not be movable
          weights(std::move(w)),
          text(std::move(t)) {}
    Device device;
    Weights weights;
    ModelText text;
  };

  std::shared_ptr<const Shared> shared_;
};

}  // namespace v1
}  // namespace guild
