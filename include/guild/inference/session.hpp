// One sequence being decoded: its cache, its copy of the device, and the logits after its last token.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <guild/core/buffer.hpp>
#include <guild/core/refuse.hpp>
#include <guild/device/staged.hpp>
#include <guild/inference/language_model.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/routing_counter.hpp>

namespace guild {
inline namespace v1 {

/// Used by one thread at a time; many sessions share one model. If `append` throws, the session holds what it held.
template <class LanguageModelType>
class Session {
 public:
  using Model = typename LanguageModelType::Model;
  static_assert(Model::mask == AttentionMask::causal,
                "Session: it decodes token by token, but the Spec's mask is AttentionMask::bidirectional");

  /// `context`: the most tokens this session will hold; 0: as many as the model knows positions for.
  explicit Session(LanguageModelType model, Index context = 0)
      : model_(std::move(model)),
        device_(model_.device().fork()),
        context_(context > 0 ? std::min<Index>(context, Model::config.context) : Model::config.context),
        logits_(Buffer<float>::uninitialized(Model::config.vocab)) {
    cache_.mtp = decltype(cache_.mtp)(model_.weights().mtp.size());
  }

  /// Appends tokens and computes the logits of the one to follow. Long texts run in parts of `prefill_rows` rows, which
  /// bounds scratch memory. Throws in_context, in_token, in_empty. A session that throws is as before, or empty where a
  /// later part failed and its caches are rings, which do not go back over several parts.
  void append(std::span<const std::int32_t> tokens) {
    if (tokens.empty()) detail::refuse(ErrorCode::in_empty, "no tokens to append; give the model at least one");
    // A span of this session's own tokens, perhaps of some that were rewound, would not survive their growth.
    if (std::less_equal<>()(tokens_.data(), tokens.data()) &&
        std::less<>()(tokens.data(), tokens_.data() + tokens_.capacity()))
      return append(std::vector<std::int32_t>(tokens.begin(), tokens.end()));
    const auto count = static_cast<Index>(tokens.size());
    if (count > context_ - length())
      detail::refuse(ErrorCode::in_context, {length() + count, " tokens do not fit the context of ", context_,
                                             "; shorten the prompt or open the session with a larger context"});
    for (const std::int32_t token : tokens)
      if (token < 0 || token >= Model::config.vocab)
        detail::refuse(ErrorCode::in_token, {"token id ", token, " is not in the vocabulary of ", Model::config.vocab});
    reserve(length() + count);
    const auto before = cache_.mark();
    const Index held = length();
    try {
      for (Index begin = 0; begin < count; begin += prefill_rows)
        run(tokens.subspan(static_cast<std::size_t>(begin),
                           static_cast<std::size_t>(std::min(prefill_rows, count - begin))),
            begin + prefill_rows >= count);
    } catch (...) {
      if (tokens_.empty() || cache_.length() == held || held >= cache_.oldest()) {
        cache_.rewind(before);
      } else {  // rings have gone on too far: the session begins anew
        cache_.rewind(cache_.mark(0));
        tokens_.clear();
      }
      throw;
    }
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  }
  void append(std::int32_t token) { append(std::span<const std::int32_t>(&token, 1)); }

  /// Makes room for `tokens` tokens in all, so that appending up to there allocates nothing. Throws dev_memory.
  void reserve(Index tokens) {
    if (tokens <= reserved()) return;
    const Index rounded = std::min(context_, std::max({tokens, 2 * reserved(), Index{64}}));
    tokens_.reserve(static_cast<std::size_t>(rounded));
    cache_.reserve(rounded);
  }

  /// Forgets all but the first `length` tokens: 0, or at least `oldest()`.
  void rewind(Index length) {
    if (length < 0 || length > this->length() || (length > 0 && length < oldest()))
      detail::refuse(ErrorCode::op_argument, {"cannot rewind to ", length, " of ", this->length(), " tokens"});
    cache_.rewind(cache_.mark(length));
    tokens_.resize(static_cast<std::size_t>(length));
  }

  [[nodiscard]] Index length() const { return cache_.length(); }
  /// Tokens that there is room for.
  [[nodiscard]] Index reserved() const { return cache_.reserved(); }
  /// The fewest tokens but 0 to which the session can be rewound: 0 for caches that keep all.
  [[nodiscard]] Index oldest() const { return cache_.oldest(); }
  [[nodiscard]] Index context() const { return context_; }
  [[nodiscard]] std::span<const std::int32_t> tokens() const { return tokens_; }
  /// [vocab], valid after `append` until the next one.
  [[nodiscard]] View<const float> logits() const { return logits_.view(); }
  [[nodiscard]] const LanguageModelType& model() const { return model_; }

  /// Counts from now on what routers do, from 0: on the device, a row kernel a layer. Throws dev_memory.
  void count_routing() {
    const auto prediction_layers = static_cast<int>(model_.weights().mtp.size());
    counter_ = RoutingCounter<Device>(device_, Model::config.layers + prediction_layers, Model::routed_experts);
  }
  /// What routers did since `count_routing` was called: of all tokens that were computed, those that were rewound and
  /// those of an `append` that threw included. Throws op_argument if it was not.
  [[nodiscard]] RoutingStatistics routing() {
    if (!counter_.counts())
      detail::refuse(ErrorCode::op_argument, "routing is not counted; call count_routing before you append", "Session");
    return counter_.read(device_);
  }

 private:
  using Device = typename LanguageModelType::Device;
  static constexpr Index prefill_rows = 512;

  void run(std::span<const std::int32_t> tokens, bool last) {
    auto scratch = device_.scratch();
    const auto rows = static_cast<Index>(tokens.size());
    Staged<Device, std::int32_t> positions(device_, rows);
    for (Index i = 0; i < rows; ++i) positions.add(static_cast<std::int32_t>(length() + i));
    const Chunk chunk{0, 0, rows, length()};
    const auto states = scratch.template take<float>(rows, Model::config.hidden);
    typename Model::Cache* cache = &cache_;
    const Batch batch{{tokens.data(), rows}, {positions.ready().data(), rows}, {&chunk, 1}};
    Model::forward(Pass{.device = device_, .batch = batch, .counts = counter_.view()}, model_.weights(), {&cache, 1},
                   states);
    if (last)
      Model::logits(device_, model_.weights(), states.middle_rows(rows - 1, 1), logits_.view(1, Model::config.vocab));
  }

  LanguageModelType model_;
  Device device_;
  Index context_;
  typename Model::Cache cache_;
  std::vector<std::int32_t> tokens_;
  Buffer<float> logits_;
  RoutingCounter<Device> counter_;
};

}  // namespace v1
}  // namespace guild
