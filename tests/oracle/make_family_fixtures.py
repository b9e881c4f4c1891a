"""Makes the folders of tests/fixtures/models that are no DeepSeek: Llama, Qwen2, Qwen3, Mixtral, Qwen3-MoE, GPT-OSS,
Gemma 3, Qwen2-MoE, OLMoE, GLM-4.5, dots1, tiny and random, and what transformers computes with them; and tests/fixtures/configs/<family>_v5.json.

`python make_family_fixtures.py [NAME...]` (20 seconds, one thread; the same bytes every time) writes all folders or
those named. Every expected value comes from Hugging Face transformers in float32 with eager attention, loaded from the
very folder that is shipped; `family_forward.py` or `gemma_forward.py` (float64, from the formulas) must agree within 1e-5 or nothing is
written.

A sequence is a random prompt and 24 tokens that greedy decoding adds. A prompt is drawn again until, at each of these
24, the best logit leads the second by 1 % of the row's largest magnitude, and no token of either part has a router
logit of a chosen expert nearer than 0.005 to one that is not: other rounding makes the same choices.
"""
import json
import pathlib
import shutil
import sys
import tempfile

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

import family_forward
import gemma_forward
import reference_forward as reference
from make_model_fixtures import OUT, as_float64, load_with_transformers, run_transformers, write_folder

CONFIGS = OUT.parent / "configs"
GREEDY, GREEDY_MARGIN, ROUTER_MARGIN = 24, 0.01, 0.005
DISTINCT = 10  # a continuation that repeats a few tokens would test little

# The keys that published files of the family have, in the published spelling; numbers are our own.
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "hidden_act": "silu",
    "hidden_size": 36,
    "initializer_range": 0.02,
    "intermediate_size": 23,
    "max_position_embeddings": 256,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 6,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
        "rope_type": "llama3",
    },
    "rope_theta": 20.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.43.0.dev0",
    "use_cache": True,
    "vocab_size": 67,
}
QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "hidden_act": "silu",
    "hidden_size": 48,
    "initializer_range": 0.02,
    "intermediate_size": 29,
    "max_position_embeddings": 128,
    "max_window_layers": 1,
    "model_type": "qwen2",
    "num_attention_heads": 6,
    "num_hidden_layers": 3,
    "num_key_value_heads": 3,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000,
    "sliding_window": 8,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.44.0",
    "use_cache": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 71,
}
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "head_dim": 8,
    "hidden_act": "silu",
    "hidden_size": 30,
    "initializer_range": 0.02,
    "intermediate_size": 19,
    "max_position_embeddings": 128,
    "max_window_layers": 3,
    "model_type": "qwen3",
    "num_attention_heads": 6,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 69,
}
MIXTRAL = {
    "architectures": ["MixtralForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "hidden_act": "silu",
    "hidden_size": 24,
    "initializer_range": 0.02,
    "intermediate_size": 7,
    "max_position_embeddings": 128,
    "model_type": "mixtral",
    "num_attention_heads": 6,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "num_local_experts": 5,
    "output_router_logits": False,
    "rms_norm_eps": 1e-05,
    "rope_theta": 100.0,
    "router_aux_loss_coef": 0.02,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.36.0.dev0",
    "use_cache": True,
    "vocab_size": 64,
}
QWEN3_MOE = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "decoder_sparse_step": 1,
    "eos_token_id": 1,
    "head_dim": 6,
    "hidden_act": "silu",
    "hidden_size": 22,
    "initializer_range": 0.02,
    "intermediate_size": 13,
    "max_position_embeddings": 128,
    "max_window_layers": 3,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 7,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts": 6,
    "num_experts_per_tok": 3,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "output_router_logits": False,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000.0,
    "router_aux_loss_coef": 0.001,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 62,
}
GEMMA3 = {
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "cache_implementation": "hybrid",
    "eos_token_id": 1,
    "final_logit_softcapping": None,
    "head_dim": 10,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 28,
    "initializer_range": 0.02,
    "intermediate_size": 21,
    "max_position_embeddings": 128,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_hidden_layers": 7,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 23,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 20.0,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "rope_theta": 100.0,
    "sliding_window": 8,
    "sliding_window_pattern": 6,
    "torch_dtype": "float32",
    "transformers_version": "4.50.0.dev0",
    "use_cache": True,
    "vocab_size": 66,
}
GPT_OSS = {
    "architectures": ["GptOssForCausalLM"],
    "attention_bias": True,
    "attention_dropout": 0.0,
    "eos_token_id": 1,
    "experts_per_token": 2,
    "head_dim": 8,
    "hidden_act": "silu",
    "hidden_size": 22,
    "initial_context_length": 32,
    "initializer_range": 0.02,
    "intermediate_size": 9,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    "max_position_embeddings": 128,
    "model_type": "gpt_oss",
    "num_attention_heads": 4,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 5,
    "output_router_logits": False,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "beta_fast": 4.0,
        "beta_slow": 0.5,
        "factor": 8.0,
        "original_max_position_embeddings": 32,
        "rope_type": "yarn",
        "truncate": False,
    },
    "rope_theta": 40,
    "router_aux_loss_coef": 0.9,
    "sliding_window": 8,
    "swiglu_limit": 1.25,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.55.0.dev0",
    "use_cache": True,
    "vocab_size": 63,
}
QWEN2_MOE = {
    "architectures": ["Qwen2MoeForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "decoder_sparse_step": 2,
    "eos_token_id": 1,
    "hidden_act": "silu",
    "hidden_size": 24,
    "initializer_range": 0.02,
    "intermediate_size": 19,
    "max_position_embeddings": 128,
    "max_window_layers": 2,
    "mlp_only_layers": [1],
    "model_type": "qwen2_moe",
    "moe_intermediate_size": 7,
    "norm_topk_prob": False,
    "num_attention_heads": 4,
    "num_experts": 6,
    "num_experts_per_tok": 3,
    "num_hidden_layers": 6,
    "num_key_value_heads": 2,
    "output_router_logits": False,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000.0,
    "router_aux_loss_coef": 0.001,
    "shared_expert_intermediate_size": 10,
    "sliding_window": 8,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.39.0.dev0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 61,
}
OLMOE = {
    "architectures": ["OlmoeForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "clip_qkv": None,
    "eos_token_id": 1,
    "hidden_act": "silu",
    "hidden_size": 24,
    "initializer_range": 0.02,
    "intermediate_size": 7,
    "max_position_embeddings": 128,
    "model_type": "olmoe",
    "norm_topk_prob": False,
    "num_attention_heads": 4,
    "num_experts": 6,
    "num_experts_per_tok": 3,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "output_router_logits": False,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 1000.0,
    "router_aux_loss_coef": 0.01,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.45.0.dev0",
    "use_cache": True,
    "vocab_size": 59,
}
GLM4_MOE = {
    "architectures": ["Glm4MoeForCausalLM"],
    "attention_bias": True,
    "attention_dropout": 0.0,
    "eos_token_id": 1,
    "first_k_dense_replace": 1,
    "head_dim": 12,
    "hidden_act": "silu",
    "hidden_size": 22,
    "initializer_range": 0.02,
    "intermediate_size": 17,
    "max_position_embeddings": 128,
    "model_type": "glm4_moe",
    "moe_intermediate_size": 7,
    "n_group": 1,
    "n_routed_experts": 6,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "num_nextn_predict_layers": 1,
    "pad_token_id": 0,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 1000,
    "routed_scaling_factor": 2.5,
    "tie_word_embeddings": False,
    "topk_group": 1,
    "torch_dtype": "float32",
    "transformers_version": "4.54.0",
    "use_cache": True,
    "use_qk_norm": True,
    "vocab_size": 58,
}
DOTS1 = {
    "architectures": ["Dots1ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": None,
    "eos_token_id": 1,
    "first_k_dense_replace": 1,
    "head_dim": 6,
    "hidden_act": "silu",
    "hidden_size": 22,
    "initializer_range": 0.02,
    "intermediate_size": 17,
    "max_position_embeddings": 128,
    "max_window_layers": 3,
    "model_type": "dots1",
    "moe_intermediate_size": 5,
    "n_group": 1,
    "n_routed_experts": 7,
    "n_shared_experts": 2,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts_per_tok": 3,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 1000,
    "routed_scaling_factor": 2.5,
    "scoring_func": "noaux_tc",
    "sliding_window": None,
    "tie_word_embeddings": False,
    "topk_group": 1,
    "torch_dtype": "float32",
    "transformers_version": "4.46.3",
    "use_cache": True,
    "vocab_size": 57,
}
MXFP4 = {"modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens",
                                    "lm_head"], "quant_method": "mxfp4"}
# `_...` entries steer this script and are not written. `_v5` names the config of tests/fixtures/configs.
FIXTURES = {
    "llama": LLAMA | {"_lengths": (37, 9), "_v5": "llama_v5"},
    "llama_tied": LLAMA
    | {
        "head_dim": 8,
        "hidden_size": 28,
        "intermediate_size": 19,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "rms_norm_eps": 0.01,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "vocab_size": 65,
        "_lengths": (11, 4),
        "_embedding_gain": 0.3,
    },
    "qwen2": QWEN2 | {"_lengths": (17, 7), "_v5": "qwen2_v5"},
    "qwen3": QWEN3 | {"_lengths": (17, 7), "_v5": "qwen3_v5"},
    "qwen3_tied": QWEN3
    | {
        "head_dim": 10,
        "hidden_size": 28,
        "intermediate_size": 17,
        "num_attention_heads": 4,
        "rms_norm_eps": 0.003,
        "tie_word_embeddings": True,
        "vocab_size": 65,
        "_lengths": (13, 5),
        "_embedding_gain": 0.3,
        "_head_gain": 0.15,
    },
    "mixtral": MIXTRAL | {"_lengths": (15, 6), "_v5": "mixtral_v5", "_fused": "mixtral_fused"},
    "qwen3_moe": QWEN3_MOE | {"_lengths": (14, 6), "_v5": "qwen3_moe_v5", "_fused": "qwen3_moe_fused"},
    "qwen3_moe_plain": {k: v for k, v in QWEN3_MOE.items() if k != "norm_topk_prob"}
    | {
        "hidden_size": 20,
        "num_experts": 5,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 2,
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
        "vocab_size": 61,
        "_lengths": (12, 5),
        "_embedding_gain": 0.3,
    },
    "gpt_oss": GPT_OSS | {"_lengths": (21, 9), "_v5": "gpt_oss_v5", "_bias_gain": 0.25, "_embedding_gain": 1.2},
    "gpt_oss_mxfp4": GPT_OSS
    | {
        "hidden_size": 32,
        "intermediate_size": 64,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "num_hidden_layers": 3,
        "num_local_experts": 4,
        "quantization_config": MXFP4,
        "_lengths": (13, 5),
        "_mxfp4": True,
        "_bias_gain": 0.25,
        "_embedding_gain": 1.2,
    },
    "gemma3": GEMMA3 | {"_lengths": (39, 13), "_v5": "gemma3_v5", "_embedding_gain": 0.1},
    "qwen2_moe": QWEN2_MOE | {"_lengths": (17, 7), "_v5": "qwen2_moe_v5", "_fused": "qwen2_moe_fused"},
    "olmoe": OLMOE | {"_lengths": (15, 6), "_v5": "olmoe_v5", "_fused": "olmoe_fused"},
    "glm4_moe": GLM4_MOE | {"_lengths": (14, 6), "_v5": "glm4_moe_v5", "_fused": "glm4_moe_fused"},
    "dots1": DOTS1 | {"_lengths": (13, 5), "_v5": "dots1_v5", "_fused": "dots1_fused"},
}


def is_sparse(c: dict, layer: int) -> bool:
    """Of the families of moe_forward.py."""
    if c["model_type"] in ("glm4_moe", "dots1"):
        return layer >= c["first_k_dense_replace"]
    if c["model_type"] == "qwen2_moe":
        return layer not in c["mlp_only_layers"] and (layer + 1) % c["decoder_sparse_step"] == 0
    return c["model_type"] == "olmoe"


def moe_shapes(c: dict, p: str) -> dict:
    """Router, experts and shared experts of those families."""
    hidden, count = c["hidden_size"], c.get("num_experts") or c["n_routed_experts"]
    width = c.get("moe_intermediate_size") or c["intermediate_size"]
    networks = {f"experts.{expert}": width for expert in range(count)}
    out = {p + "gate.weight": (count, hidden)}
    if c["model_type"] in ("glm4_moe", "dots1"):
        out[p + "gate.e_score_correction_bias"] = (count,)
        networks["shared_experts"] = c["n_shared_experts"] * width
    if c["model_type"] == "qwen2_moe":
        out[p + "shared_expert_gate.weight"] = (1, hidden)
        networks["shared_expert"] = c["shared_expert_intermediate_size"]
    for name, inner in networks.items():
        out |= {f"{p}{name}.gate_proj.weight": (inner, hidden), f"{p}{name}.up_proj.weight": (inner, hidden)}
        out |= {f"{p}{name}.down_proj.weight": (hidden, inner)}
    return out


def shapes(c: dict) -> dict:
    """Published name -> shape, in the order of the published files."""
    hidden, inner, dim = c["hidden_size"], c["intermediate_size"], c.get("head_dim")
    dim = dim or hidden // c["num_attention_heads"]
    out = {"model.embed_tokens.weight": (c["vocab_size"], hidden)}
    for layer in range(c["num_hidden_layers"] + c.get("num_nextn_predict_layers", 0)):
        p = f"model.layers.{layer}."
        out[p + "input_layernorm.weight"] = (hidden,)
        for kind in "qkv":
            rows = dim * (c["num_attention_heads"] if kind == "q" else c["num_key_value_heads"])
            out[f"{p}self_attn.{kind}_proj.weight"] = (rows, hidden)
            if c["model_type"] in ("qwen2", "gpt_oss", "qwen2_moe", "glm4_moe"):
                out[f"{p}self_attn.{kind}_proj.bias"] = (rows,)
        if c["model_type"].startswith("qwen3") or c["model_type"] == "gemma3_text":
            out[p + "self_attn.q_norm.weight"] = out[p + "self_attn.k_norm.weight"] = (dim,)
        if c["model_type"] == "dots1" or c.get("use_qk_norm"):
            out[p + "self_attn.q_norm.weight"] = out[p + "self_attn.k_norm.weight"] = (dim,)
        if c["model_type"] == "olmoe":
            out[p + "self_attn.q_norm.weight"] = (dim * c["num_attention_heads"],)
            out[p + "self_attn.k_norm.weight"] = (dim * c["num_key_value_heads"],)
        out[p + "self_attn.o_proj.weight"] = (hidden, dim * c["num_attention_heads"])
        if c["model_type"] == "gpt_oss":
            out[p + "self_attn.o_proj.bias"] = (hidden,)
            out[p + "self_attn.sinks"] = (c["num_attention_heads"],)
        out[p + "post_attention_layernorm.weight"] = (hidden,)
        if c["model_type"] == "gemma3_text":
            out[p + "pre_feedforward_layernorm.weight"] = out[p + "post_feedforward_layernorm.weight"] = (hidden,)
        if c["model_type"] == "mixtral":
            out[p + "block_sparse_moe.gate.weight"] = (c["num_local_experts"], hidden)
            for expert in range(c["num_local_experts"]):
                e = f"{p}block_sparse_moe.experts.{expert}."
                out |= {e + "w1.weight": (inner, hidden), e + "w2.weight": (hidden, inner)}
                out |= {e + "w3.weight": (inner, hidden)}
        elif c["model_type"] == "gpt_oss":
            experts, e = c["num_local_experts"], p + "mlp.experts."
            out |= {p + "mlp.router.weight": (experts, hidden), p + "mlp.router.bias": (experts,)}
            out |= {e + "gate_up_proj": (experts, hidden, 2 * inner), e + "gate_up_proj_bias": (experts, 2 * inner)}
            out |= {e + "down_proj": (experts, inner, hidden), e + "down_proj_bias": (experts, hidden)}
        elif c["model_type"] == "qwen3_moe":
            out[p + "mlp.gate.weight"] = (c["num_experts"], hidden)
            for expert in range(c["num_experts"]):
                e, width = f"{p}mlp.experts.{expert}.", c["moe_intermediate_size"]
                out |= {e + "gate_proj.weight": (width, hidden), e + "up_proj.weight": (width, hidden)}
                out |= {e + "down_proj.weight": (hidden, width)}
        elif is_sparse(c, layer):
            out |= moe_shapes(c, p + "mlp.")
        else:
            out[p + "mlp.gate_proj.weight"] = out[p + "mlp.up_proj.weight"] = (inner, hidden)
            out[p + "mlp.down_proj.weight"] = (hidden, inner)
        if layer >= c["num_hidden_layers"]:  # a prediction layer
            out |= {p + "embed_tokens.weight": (c["vocab_size"], hidden), p + "enorm.weight": (hidden,)}
            out |= {p + "hnorm.weight": (hidden,), p + "eh_proj.weight": (hidden, 2 * hidden)}
            out |= {p + "shared_head.norm.weight": (hidden,), p + "shared_head.head.weight": (c["vocab_size"], hidden)}
    out["model.norm.weight"] = (hidden,)
    if not c.get("tie_word_embeddings", c["model_type"] == "gemma3_text"):
        out["lm_head.weight"] = (c["vocab_size"], hidden)
    return out


def random_weights(c: dict, changes: dict, seed: int) -> dict:
    """float32. Much wider than a trained model's, so that a wrong term is seen in the logits."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes(c).items():
        if name.endswith(".e_score_correction_bias"):
            w = 0.1 * random.standard_normal(shape)
        elif name.endswith(".bias") or name.endswith("_bias") or name.endswith(".sinks"):
            w = changes.get("_bias_gain", 0.7) * random.standard_normal(shape)
        elif len(shape) == 1:
            w = (0 if c["model_type"] == "gemma3_text" else 1) + 0.3 * random.standard_normal(shape)
        elif "embed_tokens" in name:
            w = changes.get("_embedding_gain", 0.8) * random.standard_normal(shape)
        else:
            gain = 1.6 if "moe.gate." in name or "mlp.gate." in name or ".router." in name else 1.2
            gain *= changes.get("_head_gain", 1.0) if ".q_proj." in name or ".k_proj." in name else 1.0
            w = random.standard_normal(shape) * gain * shape[1] ** -0.5
        weights[name] = torch.from_numpy(w.astype(np.float32))
    return weights


def to_mxfp4(weight: np.ndarray) -> tuple:
    """(blocks, scales) U8 of [experts, out, in]: 32 neighbours of a row share a power of two, as large as the largest of
    them needs (OCP Microscaling Formats 1.0, section 6.3); every value is rounded to the nearest of e2m1."""
    values = weight.reshape(*weight.shape[:-1], -1, 32).astype(np.float64)
    exponents = np.floor(np.log2(np.abs(values).max(axis=-1))) - 2
    scaled = values / 2.0 ** exponents[..., None]
    bits = np.abs(scaled[..., None] - family_forward.E2M1).argmin(axis=-1).astype(np.uint8)
    return bits[..., ::2] | bits[..., 1::2] << 4, (exponents + 127).astype(np.uint8)


def with_mxfp4_experts(tensors: dict) -> dict:
    """The experts as published: [experts, outputs, inputs] in blocks."""
    out = {}
    for name, tensor in tensors.items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            out[name] = tensor
            continue
        blocks, scales = to_mxfp4(tensor.numpy().swapaxes(1, 2))
        out |= {name + "_blocks": torch.from_numpy(blocks.copy("C")), name + "_scales": torch.from_numpy(scales.copy("C"))}
    return out


def lead(row: np.ndarray) -> float:
    """How far the best logit is before the second, relative to the row's largest magnitude."""
    second, best = np.sort(row)[-2:]
    return float((best - second) / np.abs(row).max())


def choose_sequence(model, length: int, random) -> tuple:
    """(prompt and its greedy continuation, the smallest lead, prompts that were tried)"""
    for attempt in range(1, 2000):
        tokens, leads = random.integers(2, model.c["vocab_size"], length).tolist(), []
        for _ in range(GREEDY):
            row = model.forward(tokens)["logits"][-1]
            leads.append(lead(row))
            if leads[-1] < GREEDY_MARGIN or np.min(model.margin) < ROUTER_MARGIN:
                break
            tokens.append(int(row.argmax()))
        else:
            model.forward(tokens)
            if np.min(model.margin) >= ROUTER_MARGIN and len(set(tokens[length:])) >= DISTINCT:
                return tokens, min(leads), attempt
    raise AssertionError("no prompt has a clear greedy continuation")



def load_dequantised(config: dict, tensors: dict):
    """transformers' model of floats that its own function for MXFP4 makes: its quantizer needs one more package."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    floats = {n: t for n, t in tensors.items() if not n.endswith(("_blocks", "_scales"))}
    for name in [n.removesuffix("_blocks") for n in tensors if n.endswith("_blocks")]:
        blocks, scales = tensors[name + "_blocks"], tensors[name + "_scales"]
        floats[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).contiguous()
    plain = {k: v for k, v in config.items() if k != "quantization_config"}
    with tempfile.TemporaryDirectory() as temporary:
        write_folder(pathlib.Path(temporary) / "floats", plain, floats, 1)
        return load_with_transformers(pathlib.Path(temporary) / "floats", plain, torch.float32)


def save_as_transformers_does(model, folder: pathlib.Path, fused: bool) -> None:
    """config.json and model.safetensors of save_pretrained; `fused` keeps the experts as transformers computes them."""
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary, save_original_format=not fused)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "model.safetensors"):
            shutil.copyfile(pathlib.Path(temporary) / name, folder / name)


def expect(model, exact, sequences, lengths) -> tuple:
    """(expected.safetensors' tensors, what was measured): transformers against float64."""
    expected = {}
    report = {"transformers_to_float64": 0.0, "greedy_lead": np.inf, "router_margin": np.inf}
    loads = {}
    for i, (tokens, length) in enumerate(zip(sequences, lengths)):
        found, wanted = run_transformers(model, tokens), exact.forward(tokens)
        errors = [reference.row_error(found["logits"].numpy(), wanted["logits"])]
        errors += [reference.row_error(found["hidden"][l].numpy(), h) for l, h in enumerate(wanted["hidden"])]
        assert found["experts"].keys() == exact.choices.keys()
        for layer, chosen in exact.choices.items():
            assert (found["experts"][layer].numpy() == chosen).all(), ("choice of experts", layer)
            expected[f"experts_{i}.{layer}"] = found["experts"][layer]
            loads[layer] = loads.get(layer, 0) + np.bincount(chosen.reshape(-1), minlength=exact.experts)
        assert found["logits"][length - 1 : -1].argmax(dim=-1).tolist() == tokens[length:], "greedy continuation"
        expected[f"tokens_{i}"] = torch.tensor(tokens, dtype=torch.int32)
        expected[f"greedy_{i}"] = torch.tensor(tokens[length:], dtype=torch.int32)
        expected[f"logits_{i}"] = found["logits"]
        report["transformers_to_float64"] = max(report["transformers_to_float64"], *errors)
        report["greedy_lead"] = min(report["greedy_lead"], *map(lead, wanted["logits"][length - 1 : -1]))
        report["router_margin"] = min(report["router_margin"], float(np.min(exact.margin)))
    report["largest_logit"] = max(float(expected[f"logits_{i}"].abs().max()) for i in (0, 1))
    report["rows_of_experts"] = {layer: rows.tolist() for layer, rows in loads.items()}
    assert report["transformers_to_float64"] <= reference.ERROR_LIMIT, report
    assert report["greedy_lead"] >= GREEDY_MARGIN and report["router_margin"] >= ROUTER_MARGIN, report
    assert all(min(rows) > 0 for rows in report["rows_of_experts"].values()), report
    return expected, {k: None if v == np.inf else v for k, v in report.items()}


def finish(name: str, folder: pathlib.Path, expected: dict, report: dict) -> dict:
    save_file(expected, folder / "expected.safetensors")
    report["bytes"] = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{name:14} {report}", flush=True)
    return {name: report}


def make(name: str) -> dict:
    changes = FIXTURES[name]
    config = dict(sorted((k, v) for k, v in changes.items() if k[0] != "_"))
    seed = 3000 + list(FIXTURES).index(name)
    tensors = random_weights(config, changes, seed)
    if changes.get("_mxfp4"):
        tensors = with_mxfp4_experts(tensors)
    exact = gemma_forward.model_of(config, as_float64(tensors))
    if (config.get("rope_scaling") or {}).get("rope_type") == "yarn":
        ratio = exact.plain / exact.frequencies  # of yarn a pair that stays or nearly does, and one that is stretched
        assert ratio.min() < 1.5 and ratio.max() > 4 and ((ratio > 1.1) & (ratio < 7)).any(), ratio
    elif (config.get("rope_scaling") or {}).get("rope_type") == "llama3":  # a pair that stays, one that is blended, one that is stretched
        ratio = exact.plain / exact.frequencies
        assert (ratio == 1).any() and (ratio == 8).any() and ((ratio > 1.05) & (ratio < 7.6)).any(), ratio
    random = np.random.default_rng(seed + 500)
    chosen = [choose_sequence(exact, n, random) for n in changes["_lengths"]]
    sequences = [tokens for tokens, _, _ in chosen]

    folder = OUT / name
    write_folder(folder, config, tensors, 1)
    if changes.get("_mxfp4"):
        model = load_dequantised(config, tensors)
    else:
        model = load_with_transformers(folder, config, torch.float32)
    expected, report = expect(model, exact, sequences, changes["_lengths"])
    report = {"seed": seed, "prompts_tried": [tried for _, _, tried in chosen]} | report
    measured = finish(name, folder, expected, report)

    if "_v5" in changes:
        with tempfile.TemporaryDirectory() as temporary:
            save_as_transformers_does(model, pathlib.Path(temporary), fused=False)
            saved = load_file(pathlib.Path(temporary) / "model.safetensors")
            prediction = f"model.layers.{config['num_hidden_layers']}."  # which transformers does not save
            kept = {n: t for n, t in tensors.items() if not n.startswith(prediction)}
            assert saved.keys() == kept.keys() and all(torch.equal(saved[n], kept[n]) for n in kept)
            shutil.copyfile(pathlib.Path(temporary) / "config.json", CONFIGS / f"{changes['_v5']}.json")
    if "_fused" in changes:
        twin = OUT / changes["_fused"]
        shutil.rmtree(twin, ignore_errors=True)
        save_as_transformers_does(model, twin, fused=True)
        config = json.loads((twin / "config.json").read_text())
        exact = gemma_forward.model_of(config, as_float64(load_file(twin / "model.safetensors")))
        model = load_with_transformers(twin, config, torch.float32)
        again, report = expect(model, exact, sequences, changes["_lengths"])
        assert all(torch.equal(again[key], expected[key]) for key in expected)
        measured |= finish(twin.name, twin, again, report)
    return measured


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    measured_path = OUT / "measured_families.json"
    measured = json.loads(measured_path.read_text())["fixtures"] if measured_path.exists() else {}
    for name in FIXTURES:
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            measured |= make(name)
    versions = {"transformers": transformers.__version__, "torch": torch.__version__, "numpy": np.__version__}
    text = json.dumps({"versions": versions, "fixtures": dict(sorted(measured.items()))}, indent=2)
    measured_path.write_text(text + "\n")


if __name__ == "__main__":
    main()
