// Choosing the next token from logits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/random.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>

namespace guild {
inline namespace v1 {

/// How the next token is drawn. The filters apply in this order: repetition penalty, temperature, top-k, top-p, min-p
/// (the order of Hugging Face transformers).
struct SamplingOptions {
  float temperature = 0.0f;         ///< 0: the most likely token (greedy)
  int top_k = 0;                    ///< only the k most likely; 0: all
  float top_p = 1.0f;               ///< only the most likely whose probabilities reach p together (arXiv 1904.09751)
  float min_p = 0.0f;               ///< only those at least p times as likely as the best (arXiv 2407.01082)
  float repetition_penalty = 1.0f;  ///< > 1: logits of tokens seen before shrink (arXiv 1909.05858)
  std::uint64_t seed = 0;           ///< same seed, same draws
};

/// Throws in_param for a value out of range.
inline void check(const SamplingOptions& options) {
  const auto bad = [](const char* key, double value, const char* expected) {
    detail::refuse(ErrorCode::in_param, {"is ", value, ", expected ", expected}, key);
  };
  if (!(options.temperature >= 0.0f) || !std::isfinite(options.temperature))
    bad("temperature", options.temperature, "a finite number from 0");
  if (options.top_k < 0) bad("top_k", options.top_k, "0 (all) or more");
  if (!(options.top_p > 0.0f && options.top_p <= 1.0f)) bad("top_p", options.top_p, "a number in (0, 1]");
  if (!(options.min_p >= 0.0f && options.min_p <= 1.0f)) bad("min_p", options.min_p, "a number in [0, 1]");
  if (!(options.repetition_penalty > 0.0f) || !std::isfinite(options.repetition_penalty))
    bad("repetition_penalty", options.repetition_penalty, "a finite number above 0");
}

/// Draws tokens. Remembers the random state and which tokens were seen; nothing is allocated after construction.
class Sampler {
 public:
  /// `allowed[id]` is false for rows of the vocabulary without a token: they are never chosen.
  Sampler(const SamplingOptions& options, std::vector<bool> allowed)
      : options_(options), allowed_(std::move(allowed)), seen_(allowed_.size(), false), random_(options.seed) {
    check(options);
    candidates_.reserve(allowed_.size());
  }

  /// Marks a token as seen, for the repetition penalty: each of the prompt, and each that was drawn.
  void observe(int token) {
    if (token >= 0 && static_cast<std::size_t>(token) < seen_.size()) seen_[static_cast<std::size_t>(token)] = true;
  }

  /// The next token from logits [vocab]. Throws op_nonfinite if the logits hold a NaN, or +infinity, or no finite
  /// value.
  [[nodiscard]] int sample(View<const float> logits) {
    if (logits.size != static_cast<Index>(allowed_.size()))
      detail::refuse(ErrorCode::op_shape,
                     {"the sampler was made for ", allowed_.size(), " tokens, the logits hold ", logits.size});
    candidates_.clear();
    for (Index i = 0; i < logits.size; ++i) {
      if (std::isnan(logits[i])) detail::refuse(ErrorCode::op_nonfinite, {"logit ", i, " is NaN; check the weights"});
      const auto id = static_cast<std::size_t>(i);
      if (allowed_[id]) candidates_.push_back({penalized(logits[i], seen_[id]), static_cast<int>(i)});
    }
    const auto best = std::min_element(candidates_.begin(), candidates_.end(), better);
    if (best == candidates_.end() || (!std::isfinite(best->logit) && !(best->logit > 0.0f)))
      detail::refuse(ErrorCode::op_nonfinite, "no token has a finite logit; check the weights");
    if (!std::isfinite(best->logit))
      detail::refuse(ErrorCode::op_nonfinite, {"the logit of token ", best->token, " is infinite; check the weights"});
    if (options_.temperature == 0.0f) return best->token;
    return draw(best->logit);
  }

 private:
  struct Candidate {
    float logit;
    int token;
  };

  // Strictly better: a higher logit, or the lower id on ties.
  static bool better(const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
  }
  static bool worse(const Candidate& a, const Candidate& b) { return better(b, a); }

  [[nodiscard]] float penalized(float logit, bool seen) const {
    if (!seen || options_.repetition_penalty == 1.0f) return logit;
    return logit > 0.0f ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
  }

  [[nodiscard]] int draw(float best) {
    if (options_.top_k > 0 && static_cast<std::size_t>(options_.top_k) < candidates_.size()) {
      std::nth_element(candidates_.begin(), candidates_.begin() + options_.top_k, candidates_.end(), better);
      candidates_.resize(static_cast<std::size_t>(options_.top_k));
    }
    const auto weight = [&](const Candidate& c) {
      return std::exp((static_cast<double>(c.logit) - static_cast<double>(best)) /
                      static_cast<double>(options_.temperature));
    };
    double total = 0.0;
    for (const Candidate& c : candidates_) total += weight(c);
    // The nucleus: the likeliest first until their sum reaches top_p; a heap gives them without sorting the rest.
    auto kept = candidates_.end();
    if (options_.top_p < 1.0f) {
      const double wanted = static_cast<double>(options_.top_p) * total;
      std::make_heap(candidates_.begin(), candidates_.end(), worse);
      double sum = 0.0;
      auto rest = candidates_.end();
      while (rest != candidates_.begin() && sum < wanted) {
        std::pop_heap(candidates_.begin(), rest, worse);
        --rest;
        sum += weight(*rest);
      }
      std::rotate(candidates_.begin(), rest, candidates_.end());
      kept = candidates_.begin() + (candidates_.end() - rest);
      total = sum;
    }
    if (options_.min_p > 0.0f) {
      const double least = static_cast<double>(options_.min_p);  // relative to the best, whose weight is 1
      kept = std::remove_if(candidates_.begin(), kept, [&](const Candidate& c) { return weight(c) < least; });
      total = 0.0;
      for (auto c = candidates_.begin(); c != kept; ++c) total += weight(*c);
    }
    double left = random_.uniform() * total;
    for (auto c = candidates_.begin(); c != kept; ++c) {
      left -= weight(*c);
      if (left < 0.0) return c->token;
    }
    // Rounding may leave a crumb: it belongs to the last candidate with any weight.
    for (auto c = kept; c != candidates_.begin();)
      if (weight(*--c) > 0.0) return c->token;
    return candidates_.front().token;
  }

  SamplingOptions options_;
  std::vector<bool> allowed_;
  std::vector<bool> seen_;
  Random random_;
  std::vector<Candidate> candidates_;
};

}  // namespace v1
}  // namespace guild
