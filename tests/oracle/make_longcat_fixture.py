#!/usr/bin/env python3
"""Makes tests/fixtures/models/{longcat,longcat_v5}: a tiny random LongCat-Flash as published (no matrices of experts
that give their input; a prediction layer that nobody reads), and the same as transformers 5 saves it. Expected values
come from transformers in float32; the forward below (float64, from the report's formulas, arXiv 2509.01322) must agree
within 1e-5 or nothing is written. How tokens are chosen: see make_family_fixtures.py. The same bytes every time."""
import json
import shutil
import tempfile
import pathlib

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from make_family_fixtures import CONFIGS, choose_sequence, expect, finish
from make_model_fixtures import OUT, as_float64, write_folder
from reference_forward import rms_norm, silu, softmax

CONFIG = {
    "architectures": ["LongcatFlashForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "attention_method": "MLA", "bos_token_id": 0, "eos_token_id": 1, "expert_ffn_hidden_size": 7,
    "ffn_hidden_size": 13, "head_dim": 4, "hidden_size": 24, "kv_lora_rank": 10, "max_position_embeddings": 128,
    "mla_scale_kv_lora": True, "mla_scale_q_lora": True, "model_type": "longcat_flash", "moe_topk": 3,
    "n_routed_experts": 5, "num_attention_heads": 3, "num_layers": 2, "q_lora_rank": 14, "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4, "rms_norm_eps": 1e-05, "rope_theta": 100.0, "routed_scaling_factor": 1.5,
    "router_bias": False, "torch_dtype": "float32", "transformers_version": "4.57.0", "use_cache": True,
    "v_head_dim": 5, "vocab_size": 64, "zero_expert_num": 3, "zero_expert_type": "identity",
}
LENGTHS = (14, 6)


def shapes(c: dict) -> dict:
    hidden, heads, experts = c["hidden_size"], c["num_attention_heads"], c["n_routed_experts"]
    nope, rope, value = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
    q, kv, inner, width = c["q_lora_rank"], c["kv_lora_rank"], c["ffn_hidden_size"], c["expert_ffn_hidden_size"]
    out = {"model.embed_tokens.weight": (c["vocab_size"], hidden)}
    for layer in range(c["num_layers"]):
        p = f"model.layers.{layer}."
        for i in "01":
            a = f"{p}self_attn.{i}."
            out |= {f"{p}input_layernorm.{i}.weight": (hidden,), f"{p}post_attention_layernorm.{i}.weight": (hidden,)}
            out |= {a + "q_a_proj.weight": (q, hidden), a + "q_a_layernorm.weight": (q,)}
            out |= {a + "q_b_proj.weight": (heads * (nope + rope), q)}
            out |= {a + "kv_a_proj_with_mqa.weight": (kv + rope, hidden), a + "kv_a_layernorm.weight": (kv,)}
            out |= {a + "kv_b_proj.weight": (heads * (nope + value), kv), a + "o_proj.weight": (hidden, heads * value)}
            m = f"{p}mlps.{i}."
            out |= {m + "gate_proj.weight": (inner, hidden), m + "up_proj.weight": (inner, hidden)}
            out |= {m + "down_proj.weight": (hidden, inner)}
        targets = experts + c["zero_expert_num"]
        out |= {p + "mlp.router.classifier.weight": (targets, hidden)}
        out |= {p + "mlp.router.e_score_correction_bias": (targets,)}
        for e in range(experts):
            m = f"{p}mlp.experts.{e}."
            out |= {m + "gate_proj.weight": (width, hidden), m + "up_proj.weight": (width, hidden)}
            out |= {m + "down_proj.weight": (hidden, width)}
    out |= {"model.mtp.layers.0.eh_proj.weight": (2, 3)}  # of a prediction layer: nobody reads it
    return out | {"model.norm.weight": (hidden,), "lm_head.weight": (c["vocab_size"], hidden)}


def random_weights(c: dict, seed: int) -> dict:
    random, weights = np.random.default_rng(seed), {}
    for name, shape in shapes(c).items():
        if name.endswith("correction_bias"):
            w = 0.1 * random.standard_normal(shape)
        elif len(shape) == 1:
            w = 1 + 0.3 * random.standard_normal(shape)
        elif "embed_tokens" in name:
            w = 0.8 * random.standard_normal(shape)
        else:
            w = random.standard_normal(shape) * (1.6 if "classifier" in name else 1.1) * shape[1] ** -0.5
        weights[name] = torch.from_numpy(w.astype(np.float32))
    return weights


class Model:
    """In float64, from the formulas."""

    def __init__(self, config: dict, weights: dict):
        self.c, self.w, self.experts = config, weights, config["n_routed_experts"] + config["zero_expert_num"]
        self.margin, self.choices = np.inf, {}
        rope = config.get("rope_parameters") or {"rope_theta": config["rope_theta"]}
        self.frequencies = rope["rope_theta"] ** (-np.arange(0, config["qk_rope_head_dim"], 2) / config["qk_rope_head_dim"])

    def rotate(self, x):  # [T, heads, R]: neighbours are a pair
        turns = np.exp(1j * np.arange(len(x))[:, None] * self.frequencies)[:, None]
        z = (x[..., ::2] + 1j * x[..., 1::2]) * turns
        return np.stack([z.real, z.imag], -1).reshape(x.shape)

    def attention(self, x, p):
        c, w, T, H = self.c, self.w, len(x), self.c["num_attention_heads"]
        nope, value, kv = c["qk_nope_head_dim"], c["v_head_dim"], c["kv_lora_rank"]
        latent = rms_norm(x @ w[p + "q_a_proj.weight"].T, w[p + "q_a_layernorm.weight"], 1e-6)
        q = (latent @ w[p + "q_b_proj.weight"].T).reshape(T, H, -1) * (c["hidden_size"] / c["q_lora_rank"]) ** 0.5
        both = x @ w[p + "kv_a_proj_with_mqa.weight"].T
        keys = rms_norm(both[:, :kv], w[p + "kv_a_layernorm.weight"], 1e-6) * (c["hidden_size"] / kv) ** 0.5
        keys = (keys @ w[p + "kv_b_proj.weight"].T).reshape(T, H, nope + value)
        turned = self.rotate(both[:, None, kv:])[:, 0]
        scores = np.einsum("thn,shn->hts", q[..., :nope], keys[..., :nope])
        scores = (scores + np.einsum("thr,sr->hts", self.rotate(q[..., nope:]), turned)) * q.shape[-1] ** -0.5
        share = softmax(np.where(np.tril(np.ones((T, T), bool)), scores, -np.inf))
        return np.einsum("hts,shv->thv", share, keys[..., nope:]).reshape(T, -1) @ w[p + "o_proj.weight"].T

    def mlp(self, x, p):
        gate, up, down = (self.w[f"{p}{n}_proj.weight"].T for n in ("gate", "up", "down"))
        return (silu(x @ gate) * (x @ up)) @ down

    def moe(self, x, p, layer):
        scores = softmax(x @ self.w[p + "router.classifier.weight"].T)
        choice = scores + self.w[p + "router.e_score_correction_bias"]
        order, k = np.argsort(-choice, -1), self.c["moe_topk"]
        best = np.take_along_axis(choice, order, -1)
        self.margin = np.minimum(self.margin, (best[:, k - 1] - best[:, k]).min())
        self.choices[layer], out = np.sort(order[:, :k], -1), np.zeros_like(x)
        for t, chosen in enumerate(order[:, :k]):
            for e in chosen:
                y = x[t] if e >= self.c["n_routed_experts"] else self.mlp(x[t], f"{p}experts.{e}.")
                out[t] += self.c["routed_scaling_factor"] * scores[t, e] * y
        return out

    def forward(self, tokens) -> dict:
        self.margin, self.choices, hidden = np.inf, {}, []
        norm = lambda x, name: rms_norm(x, self.w[name + ".weight"], self.c["rms_norm_eps"])
        x = self.w["model.embed_tokens.weight"][np.asarray(tokens)]
        for layer in range(self.c["num_layers"]):
            p = f"model.layers.{layer}."
            for i in (0, 1):
                x = x + self.attention(norm(x, f"{p}input_layernorm.{i}"), f"{p}self_attn.{i}.")
                u = norm(x, f"{p}post_attention_layernorm.{i}")
                if i == 0:
                    s = self.moe(u, p + "mlp.", layer)
                x = x + self.mlp(u, f"{p}mlps.{i}.")
            x = x + s
            hidden.append(x)
        return {"logits": norm(x, "model.norm") @ self.w["lm_head.weight"].T, "hidden": hidden}


def load(config: dict, tensors: dict):
    """transformers wants gate and up of experts that have none."""
    shape = tensors["model.layers.0.mlp.experts.0.gate_proj.weight"].shape
    more = {f"model.layers.{l}.mlp.experts.{config['n_routed_experts'] + e}.{kind}_proj.weight": torch.zeros(shape)
            for l in range(config["num_layers"]) for e in range(config["zero_expert_num"]) for kind in ("gate", "up")}
    with tempfile.TemporaryDirectory() as temporary:
        write_folder(pathlib.Path(temporary) / "whole", config, tensors | more, 1)
        model, info = AutoModelForCausalLM.from_pretrained(
            pathlib.Path(temporary) / "whole", dtype=torch.float32, attn_implementation="eager",
            experts_implementation="eager", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    return model.eval()


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tensors = random_weights(CONFIG, 4100)
    exact = Model(CONFIG, as_float64(tensors))
    random = np.random.default_rng(4600)
    sequences = [choose_sequence(exact, n, random)[0] for n in LENGTHS]
    model = load(CONFIG, tensors)
    expected, report = expect(model, exact, sequences, LENGTHS)
    folder, twin = OUT / "longcat", OUT / "longcat_v5"
    write_folder(folder, CONFIG, tensors, 1)
    finish("longcat", folder, expected, report)

    shutil.rmtree(twin, ignore_errors=True)
    twin.mkdir()
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        for name in ("config.json", "model.safetensors"):
            shutil.copyfile(pathlib.Path(temporary) / name, twin / name)
    saved = load_file(twin / "model.safetensors")
    assert all(torch.equal(saved[n], t) for n, t in tensors.items() if not n.startswith("model.mtp."))
    print("more than published:", sorted(saved.keys() - tensors.keys())[:3])
    save_file(expected, twin / "expected.safetensors")
    shutil.copyfile(twin / "config.json", CONFIGS / "longcat_flash_v5.json")


if __name__ == "__main__":
    main()
