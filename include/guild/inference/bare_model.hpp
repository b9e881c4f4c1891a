// Decoding in numbers alone: a session of a model that has no tokenizer, and its likeliest tokens.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <guild/inference/sampling.hpp>
#include <guild/inference/session.hpp>

namespace guild {
inline namespace v1 {

/// Stands for a LanguageModel in a Session: no text, and weights of any store, such as those of a trainer. Device and
/// weights must outlive it.
template <class ModelType, class DeviceType, class WeightsType>
class BareModel {
 public:
  using Model = ModelType;
  using Device = DeviceType;
  using Weights = WeightsType;

  BareModel(const Device& device, const Weights& weights) : device_(&device), weights_(&weights) {}
  [[nodiscard]] const Device& device() const { return *device_; }
  [[nodiscard]] const Weights& weights() const { return *weights_; }

 private:
  const Device* device_;
  const Weights* weights_;
};

/// `auto session = guild::session_of<Model>(device, weights);` Both must outlive it; `context` as Session's.
template <class Model, class Device, class Weights>
[[nodiscard]] Session<BareModel<Model, Device, Weights>> session_of(const Device& device, const Weights& weights,
                                                                    Index context = 0) {
  return Session<BareModel<Model, Device, Weights>>({device, weights}, context);
}

/// Appends `prompt` to the session, then goes on with the likeliest token `count` times, ties to the lower id. The last
/// one is not appended. Throws as Session::append, and op_nonfinite as Sampler::sample.
template <class LanguageModelType>
[[nodiscard]] std::vector<std::int32_t> greedy_tokens(Session<LanguageModelType>& session,
                                                      std::span<const std::int32_t> prompt, Index count) {
  Sampler likeliest({}, std::vector<bool>(static_cast<std::size_t>(session.logits().size), true));
  std::vector<std::int32_t> said;
  for (Index i = 0; i < count; ++i) {
    session.append(i == 0 ? prompt : std::span<const std::int32_t>(&said.back(), 1));
    said.push_back(likeliest.sample(session.logits()));
  }
  return said;
}

}  // namespace v1
}  // namespace guild
