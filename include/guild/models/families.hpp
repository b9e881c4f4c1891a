// The families of models whose files this library reads.
#pragma once

#include <tuple>

#include <guild/models/deepseek_family.hpp>
#include <guild/models/deepseek_v32_family.hpp>
#include <guild/models/deepseek_v4_family.hpp>
#include <guild/models/dots1_family.hpp>
#include <guild/models/gemma3_family.hpp>
#include <guild/models/glm4_moe_family.hpp>
#include <guild/models/glm5_family.hpp>
#include <guild/models/gpt_oss_family.hpp>
#include <guild/models/llama_family.hpp>
#include <guild/models/longcat_flash_family.hpp>
#include <guild/models/mixtral_family.hpp>
#include <guild/models/olmoe_family.hpp>
#include <guild/models/qwen2_moe_family.hpp>
#include <guild/models/qwen3_moe_family.hpp>

namespace guild {
inline namespace v1 {

/// For programs that take any of them: `with_config<Families>(json, path, f)`.
using Families = std::tuple<DeepSeekFamily, LlamaFamily, MixtralFamily, Qwen3MoeFamily, Gemma3Family, GptOssFamily,
                            DeepSeekV32Family, GlmMoeDsaFamily, DeepSeekV4Family, Qwen2MoeFamily, OlmoeFamily,
                            Glm4MoeFamily, Dots1Family, LongcatFlashFamily>;

}  // namespace v1
}  // namespace guild
