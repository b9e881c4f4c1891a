// Declares the public types of inference/, for headers that only name them. Written by tests/rules/update_umbrella.sh.
#pragma once

#include <guild/core/fwd.hpp>

namespace guild {
inline namespace v1 {

// guild/inference/bare_model.hpp
template <class ModelType, class DeviceType, class WeightsType> class BareModel;

// guild/inference/conversation.hpp
template <class LanguageModelType> class Conversation;

// guild/inference/generation.hpp
enum class FinishReason : std::uint8_t;
struct GenerateOptions;
struct GenerationStats;
template <class LanguageModelType> class Generation;

// guild/inference/language_model.hpp
struct ModelText;
template <class ModelType, class DeviceType> class LanguageModel;

// guild/inference/sampling.hpp
class Sampler;
struct SamplingOptions;

// guild/inference/session.hpp
template <class LanguageModelType> class Session;

}  // namespace v1
}  // namespace guild
