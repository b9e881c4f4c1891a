// Masked language modelling: tokens are hidden and the model restores them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include <guild/core/error.hpp>
#include <guild/core/random.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>
#include <guild/training/shuffle.hpp>
#include <guild/training/training_batch.hpp>

namespace guild {
inline namespace v1 {

/// The shares of BERT (Devlin et al., arXiv 1810.04805, section 3.1 and appendix A.1).
struct MaskOptions {
  std::int32_t mask_token = -1;  ///< must be set
  std::int32_t vocab = 0;        ///< random tokens are drawn below it; must be set
  double picked = 0.15;          ///< of each sequence's tokens
  double masked = 0.80;          ///< of the picked become the mask token
  double random = 0.10;          ///< of the picked become a random token; the rest stay as they are
  /// Tokens that are neither picked nor drawn, such as [=](int id) { return tokenizer.is_special(id); }.
  std::function<bool(std::int32_t)> special{};
};

/// Hides tokens of each sequence of a batch: of its n tokens that are not special round(picked * n), at least one, are
/// picked; their targets are the tokens as they were, all other targets are ignored. (seed, draw) decides everything;
/// count `draw` up with the batches, so that a text is never hidden twice in the same way. Throws in_param.
inline void mask_tokens(TrainingBatch& batch, const MaskOptions& options, std::uint64_t seed, std::uint64_t draw) {
  const auto bad = [](const std::string& message, const char* key) {
    detail::refuse(ErrorCode::in_param, message, detail::At{{}, key});
  };
  if (options.vocab < 1) bad("is " + std::to_string(options.vocab) + ", expected the vocabulary size", "vocab");
  if (options.mask_token < 0 || options.mask_token >= options.vocab)
    bad("is " + std::to_string(options.mask_token) + ", expected a token below " + std::to_string(options.vocab),
        "mask_token");
  const auto share = [](double value) { return value >= 0 && value <= 1; };
  if (!share(options.picked) || !share(options.masked) || !share(options.random) ||
      options.masked + options.random > 1 + 1e-9)
    bad("shares must lie in 0..1, masked and random together too", "picked, masked, random");

  const auto special = [&](std::int32_t token) {
    return token == options.mask_token || (options.special && options.special(token));
  };
  Random random(derive_seed(seed, 0x6D61736B), draw);
  const auto other_token = [&](std::int32_t token) {  // a vocabulary of special tokens only leaves it as it is
    for (int attempt = 0; attempt < 64; ++attempt) {
      const auto drawn = static_cast<std::int32_t>(random.uniform() * options.vocab);
      if (!special(drawn)) return drawn;
    }
    return token;
  };
  std::fill(batch.targets.begin(), batch.targets.end(), TrainingBatch::ignored);
  for (const Chunk& chunk : batch.chunks) {
    std::int32_t* tokens = batch.tokens.data() + chunk.begin;
    const Index eligible = chunk.count - static_cast<Index>(std::count_if(tokens, tokens + chunk.count, special));
    Index wanted = static_cast<Index>(std::llround(options.picked * static_cast<double>(eligible)));
    if (options.picked > 0 && eligible > 0) wanted = std::max(wanted, Index{1});
    // Selection sampling (Knuth, The Art of Computer Programming 2, 3.4.2, algorithm S): every choice of `wanted`
    // tokens is equally likely, in one pass and without memory.
    Index left = eligible;
    for (Index i = 0; i < chunk.count && wanted > 0; ++i) {
      if (special(tokens[i])) continue;
      if (random.uniform() * static_cast<double>(left--) >= static_cast<double>(wanted)) continue;
      --wanted;
      batch.targets[static_cast<std::size_t>(chunk.begin + i)] = tokens[i];
      const double fate = random.uniform();
      if (fate < options.masked) {
        tokens[i] = options.mask_token;
      } else if (fate < options.masked + options.random) {
        tokens[i] = other_token(tokens[i]);
      }
    }
  }
}

}  // namespace v1
}  // namespace guild
