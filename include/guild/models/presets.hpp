// The models in the box, as types.
#pragma once

#include <guild/models/deepseek_r1.hpp>
#include <guild/models/deepseek_r1_extended.hpp>
#include <guild/models/deepseek_v2_lite.hpp>
#include <guild/models/deepseek_v32.hpp>
#include <guild/models/deepseek_v4.hpp>
#include <guild/models/dots1.hpp>
#include <guild/models/gemma3.hpp>
#include <guild/models/glm4_moe.hpp>
#include <guild/models/glm5.hpp>
#include <guild/models/gpt_oss.hpp>
#include <guild/models/kimi_k2.hpp>
#include <guild/models/llama.hpp>
#include <guild/models/longcat_flash.hpp>
#include <guild/models/mini_r1.hpp>
#include <guild/models/mixtral.hpp>
#include <guild/models/moonlight.hpp>
#include <guild/models/olmoe.hpp>
#include <guild/models/qwen2_moe.hpp>
#include <guild/models/qwen3_moe.hpp>
#include <guild/models/transformer.hpp>

namespace guild {
inline namespace v1 {

using DeepSeekR1 = Transformer<DeepSeekR1Spec>;
using DeepSeekV3 = DeepSeekR1;  ///< the same numbers
using DeepSeekR1Extended = Transformer<DeepSeekR1ExtendedSpec>;
using DeepSeekV2Lite = Transformer<DeepSeekV2LiteSpec>;
using Moonlight = Transformer<MoonlightSpec>;
using KimiK2 = Transformer<KimiK2Spec>;
using MiniR1 = Transformer<MiniR1Spec>;
using Llama31_8B = Transformer<Llama31_8BSpec>;
using R1DistillLlama8B = Llama31_8B;  ///< the same numbers
using R1DistillQwen1_5B = Transformer<R1DistillQwen1_5BSpec>;
using R1DistillQwen7B = Transformer<R1DistillQwen7BSpec>;
using Qwen3_8B = Transformer<Qwen3_8BSpec>;
using Mixtral8x7B = Transformer<Mixtral8x7BSpec>;
using Qwen3_30B_A3B = Transformer<Qwen3_30B_A3BSpec>;
using Qwen3_235B_A22B = Transformer<Qwen3_235B_A22BSpec>;
using Qwen1_5Moe_A2_7B = Transformer<Qwen1_5Moe_A2_7BSpec>;
using Qwen2_57B_A14B = Transformer<Qwen2_57B_A14BSpec>;
using Olmoe1B_7B = Transformer<Olmoe1B_7BSpec>;
using Glm45 = Transformer<Glm45Spec>;
using Glm45Air = Transformer<Glm45AirSpec>;
using DotsLlm1 = Transformer<DotsLlm1Spec>;
using Gemma3_1B = Transformer<Gemma3_1BSpec>;
using GptOss20B = Transformer<GptOss20BSpec>;
using GptOss120B = Transformer<GptOss120BSpec>;
using DeepSeekV32 = Transformer<DeepSeekV32Spec>;
using DeepSeekV4Flash = Transformer<DeepSeekV4FlashSpec>;
using DeepSeekV4Pro = Transformer<DeepSeekV4ProSpec>;
using Glm5 = Transformer<Glm5Spec>;
using LongcatFlash = Transformer<LongcatFlashSpec>;

}  // namespace v1
}  // namespace guild
