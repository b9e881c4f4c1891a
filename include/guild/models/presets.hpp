// The models in the box, as types.
#pragma once

#include <guild/models/deepseek_r1_spec.hpp>
#include <guild/models/deepseek_v2_lite_spec.hpp>
#include <guild/models/kimi_k2_spec.hpp>
#include <guild/models/mini_r1_spec.hpp>
#include <guild/models/moonlight_spec.hpp>
#include <guild/models/transformer.hpp>

namespace guild::inline v1 {

using DeepSeekR1 = Transformer<DeepSeekR1Spec>;
using DeepSeekV3 = DeepSeekR1;  ///< the same numbers
using DeepSeekV2Lite = Transformer<DeepSeekV2LiteSpec>;
using Moonlight = Transformer<MoonlightSpec>;
using KimiK2 = Transformer<KimiK2Spec>;
using MiniR1 = Transformer<MiniR1Spec>;

}  // namespace guild::inline v1
