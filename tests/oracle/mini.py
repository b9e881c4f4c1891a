"""What the scripts share: the configuration of the miniature and its prompt."""
import json
import pathlib

import jinja2
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3PreTrainedModel

CONFIG = dict(
    vocab_size=1536, hidden_size=144, intermediate_size=400, moe_intermediate_size=72,
    num_hidden_layers=4, num_nextn_predict_layers=1, num_attention_heads=4, num_key_value_heads=4,
    n_routed_experts=16, n_shared_experts=1, num_experts_per_tok=4, n_group=4, topk_group=2,
    first_k_dense_replace=1, norm_topk_prob=True, routed_scaling_factor=2.5,
    q_lora_rank=96, kv_lora_rank=64, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32,
    hidden_act="silu", max_position_embeddings=2048, initializer_range=0.05, rms_norm_eps=1e-6,
    use_cache=True, bos_token_id=0, eos_token_id=1, pretraining_tp=1, tie_word_embeddings=False,
    attention_bias=False, attention_dropout=0.0)

ROPE_THETA = 10000
ROPE_SCALING = {"type": "yarn", "factor": 4, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0,
                "mscale_all_dim": 1.0, "original_max_position_embeddings": 512}

# transformers knows the multi-token prediction layer by the published model's number only.
DeepseekV3PreTrainedModel._keys_to_ignore_on_load_unexpected = [rf"model\.layers\.{CONFIG['num_hidden_layers']}\..*"]


def config() -> DeepseekV3Config:
    rope = {k: float(v) if k != "original_max_position_embeddings" else v
            for k, v in ROPE_SCALING.items() if k != "type"}
    return DeepseekV3Config(**CONFIG, rope_parameters={"rope_type": "yarn", "rope_theta": float(ROPE_THETA), **rope})


def renderer(folder):
    """The folder's chat template as a function (messages, add_generation_prompt) -> text."""
    cfg = json.loads((pathlib.Path(folder) / "tokenizer_config.json").read_text(encoding="utf-8"))
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(cfg["chat_template"])
    bos = cfg["bos_token"]["content"]
    return lambda messages, add_generation_prompt: template.render(
        messages=messages, add_generation_prompt=add_generation_prompt, bos_token=bos)
