// A language model that says what a test wants: each token is followed by the one that the script puts after it.
#pragma once

#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <guild/inference/language_model.hpp>

#include "../io/tiny_tokenizer.hpp"
#include "random_weights.hpp"

namespace guild_test {

/// Ids 0..255 are bytes, 300 `<s>`, 301 `</s>`, 302 `<think>`, from 303 the script's texts; the others have no token.
struct ScriptSpec : guild::SpecDefaults {
  using CacheElement = float;
  static constexpr guild::TrunkConfig config = {.vocab = 352, .hidden = 64, .layers = 2, .context = 64};
  static constexpr guild::MlaConfig attention = {
      .heads = 2, .query_rank = 0, .latent_rank = 16, .nope_dim = 8, .rope_dim = 8, .value_dim = 8};
  static constexpr guild::DenseConfig dense = {.hidden = 32, .layers = 1};
  static constexpr guild::TopKConfig routing = {.experts = 4, .top_k = 2, .groups = 1, .top_groups = 1};
  static constexpr guild::ExpertConfig experts = {.hidden = 16, .shared = 1};
};
using ScriptModel = guild::Transformer<ScriptSpec>;
using ScriptLanguage = guild::LanguageModel<ScriptModel, guild::Cpu>;

/// Collects the texts and their order, then makes the model. A token may have one successor.
class Script {
 public:
  static constexpr int end_of_text = 301;

  /// The token of this text.
  int token(const std::string& text) {
    if (text.size() == 1) return static_cast<unsigned char>(text[0]);  // a byte has its token
    const auto [found, added] = ids_.emplace(text, 303 + static_cast<int>(ids_.size()));
    if (added) texts_.push_back(text);
    return found->second;
  }
  /// `from` is followed by these tokens in turn.
  Script& says(int from, const std::vector<int>& tokens) {
    for (const int next : tokens) after_[std::exchange(from, next)] = next;
    return *this;
  }
  /// After the character `from` come tokens of these texts, then the end.
  Script& says(char from, const std::vector<std::string>& texts) {
    std::vector<int> tokens;
    for (const std::string& text : texts) tokens.push_back(token(text));
    tokens.push_back(end_of_text);
    return says(static_cast<int>(static_cast<unsigned char>(from)), tokens);
  }
  std::string chat_template =
      "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<think>{% endif %}";

  [[nodiscard]] ScriptLanguage model(int threads = 1, guild::GenerationDefaults defaults = {}) const {
    auto weights = random_model<ScriptModel>();
    ScriptModel::visit(Silence{}, guild::Path(), weights);
    auto* embedding = reinterpret_cast<float*>(weights.embedding.weight.data.data());
    auto* head = reinterpret_cast<float*>(weights.head.weight.data.data());
    constexpr Index hidden = ScriptSpec::config.hidden;
    for (Index i = 0; i < weights.embedding.weight.rows * hidden; ++i)
      embedding[i] = embedding[i] > 0.0f ? 1.0f : -1.0f;
    std::memset(weights.head.weight.data.data(), 0, static_cast<std::size_t>(weights.head.weight.data.size()));
    for (const auto& [token, next] : after_)
      std::memcpy(head + next * hidden, embedding + token * hidden, hidden * sizeof(float));

    TinyTokenizer file;
    file.added.pop_back();
    for (std::size_t i = 0; i < texts_.size(); ++i)
      file.added += ",{\"id\":" + std::to_string(303 + i) + ",\"content\":\"" + texts_[i] +
                    "\",\"special\":false,\"normalized\":true}";
    file.added += "]";
    guild::TokenizerConfig config;
    config.bos_token = "<s>";
    config.eos_token = "</s>";
    config.chat_template = chat_template;
    return {guild::Cpu({.threads = threads}),
            std::move(weights),
            {.config = {},
             .tokenizer = guild::Tokenizer::parse(file.json(), R"({"bos_token":"<s>","eos_token":"</s>"})"),
             .chat_template = guild::ChatTemplate::parse(config),
             .defaults = std::move(defaults)}};
  }

 private:
  /// Turns off all layers: what they add to the residual stream is zero.
  struct Silence {
    void operator()(const guild::Path& path, guild::MatrixShape, guild::StoredMatrix& matrix) const {
      const auto owner = path.parent()->name();
      if (owner == "output" || owner == "down")
        std::memset(matrix.data.data(), 0, static_cast<std::size_t>(matrix.data.size()));
    }
    void operator()(const guild::Path& path, guild::StackShape shape, guild::StoredStack& stack) const {
      for (guild::StoredMatrix& matrix : stack.pieces) (*this)(path, shape.matrix(), matrix);
    }
    void operator()(const guild::Path&, guild::VectorShape, guild::StoredVector&) const {}
  };

  std::map<std::string, int> ids_;
  std::vector<std::string> texts_;
  std::map<int, int> after_;
};

}  // namespace guild_test
