// Declares the public types of models/, for headers that only name them. Written by tests/rules/update_umbrella.sh.
#pragma once

#include <guild/core/fwd.hpp>

namespace guild {
inline namespace v1 {

// guild/models/deepseek_family.hpp
struct DeepSeekFamily;
struct DeepSeekNames;

// guild/models/deepseek_r1.hpp
struct DeepSeekR1Spec;

// guild/models/deepseek_r1_extended.hpp
struct DeepSeekR1ExtendedFamily;
struct DeepSeekR1ExtendedNames;
struct DeepSeekR1ExtendedSpec;
struct LayerSpan;
template <class Base> struct DeepSeekR1ExtendedDefaults;

// guild/models/deepseek_v2_lite.hpp
struct DeepSeekV2LiteSpec;

// guild/models/deepseek_v32.hpp
struct DeepSeekV32Defaults;
struct DeepSeekV32Spec;

// guild/models/deepseek_v32_family.hpp
struct DeepSeekV32Family;
struct DeepSeekV32Names;

// guild/models/deepseek_v4.hpp
struct DeepSeekV4Defaults;
struct DeepSeekV4FlashSpec;
struct DeepSeekV4ProSpec;

// guild/models/deepseek_v4_family.hpp
struct DeepSeekV4Family;

// guild/models/deepseek_v4_names.hpp
struct DeepSeekV4Names;

// guild/models/dots1.hpp
struct Dots1Defaults;
struct DotsLlm1Spec;

// guild/models/dots1_family.hpp
struct Dots1Family;

// guild/models/gemma3.hpp
struct Gemma3Defaults;
struct Gemma3_1BSpec;

// guild/models/gemma3_family.hpp
struct Gemma3Family;
struct Gemma3Names;

// guild/models/glm4_moe.hpp
struct Glm45AirSpec;
struct Glm45Spec;
struct Glm4MoeDefaults;

// guild/models/glm4_moe_family.hpp
struct Glm4MoeFamily;
struct Glm4MoeNames;

// guild/models/glm5.hpp
struct Glm5Defaults;
struct Glm5Spec;

// guild/models/glm5_family.hpp
struct GlmMoeDsaFamily;

// guild/models/gpt_oss.hpp
struct GptOss120BSpec;
struct GptOss20BSpec;
struct GptOssDefaults;

// guild/models/gpt_oss_family.hpp
struct GptOssFamily;
struct GptOssNames;

// guild/models/kimi_k2.hpp
struct KimiK2Spec;

// guild/models/llama.hpp
struct Llama31_8BSpec;
struct LlamaDefaults;
struct Qwen3_8BSpec;
struct R1DistillQwen1_5BSpec;
struct R1DistillQwen7BSpec;

// guild/models/llama_family.hpp
struct LlamaFamily;
struct LlamaNames;

// guild/models/longcat_flash.hpp
struct LongcatFlashDefaults;
struct LongcatFlashSpec;

// guild/models/longcat_flash_family.hpp
struct LongcatFlashFamily;
struct LongcatFlashNames;

// guild/models/mini_r1.hpp
struct MiniR1Spec;

// guild/models/mixtral.hpp
struct Mixtral8x7BSpec;
struct MixtralDefaults;

// guild/models/mixtral_family.hpp
struct MixtralFamily;
struct MixtralNames;

// guild/models/moonlight.hpp
struct MoonlightSpec;

// guild/models/name_rule.hpp
struct FusedRows;
struct FusedTensor;
struct NameRule;

// guild/models/olmoe.hpp
struct Olmoe1B_7BSpec;
struct OlmoeDefaults;

// guild/models/olmoe_family.hpp
struct OlmoeFamily;
struct OlmoeNames;

// guild/models/qwen2_moe.hpp
struct Qwen1_5Moe_A2_7BSpec;
struct Qwen2MoeDefaults;
struct Qwen2_57B_A14BSpec;

// guild/models/qwen2_moe_family.hpp
struct Qwen2MoeFamily;
struct Qwen2MoeNames;

// guild/models/qwen3_moe.hpp
struct Qwen3MoeDefaults;
struct Qwen3_235B_A22BSpec;
struct Qwen3_30B_A3BSpec;

// guild/models/qwen3_moe_family.hpp
struct Qwen3MoeFamily;
struct Qwen3MoeNames;

// guild/models/spec.hpp
struct SpecBase;
struct SpecDefaults;

// guild/models/transformer.hpp
template <class S> struct Transformer;

}  // namespace v1
}  // namespace guild
