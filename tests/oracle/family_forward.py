"""Llama, Qwen2, Qwen3, Mixtral, Qwen3-MoE and GPT-OSS in float64 numpy, written from the papers' formulas and not from anybody's code.

It reads config.json (published spelling or that of transformers 5) and the safetensors, nothing else.
`python reference_forward.py FOLDER...` runs it for the folders of these families.

Conventions (T tokens, H heads, K key heads): H / K neighbouring heads share a key head; rotary pairs are (i, i + d/2)
of the whole head; q and k norms (Qwen3) are per head, before the rotation, with rms_norm_eps; softmax scale d^-0.5;
the weights of a token's experts are those of a softmax over all; Mixtral, and Qwen3-MoE with norm_topk_prob, divide the
chosen ones by their sum, and so does GPT-OSS, whose softmax is over the chosen logits.
"""
import math

import numpy as np

from reference_forward import rms_norm, silu, softmax


def rope_settings(config: dict) -> dict:
    """{"rope_theta": ..., "rope_type": ..., ...} of either spelling."""
    if config.get("rope_parameters"):
        return config["rope_parameters"]
    scaling = config.get("rope_scaling") or {}
    return {"rope_theta": config["rope_theta"], "rope_type": scaling.get("type", "default")} | scaling


def llama3_frequencies(plain: np.ndarray, rope: dict) -> np.ndarray:
    """Wavelengths above L / low_freq_factor are stretched by `factor`, those below L / high_freq_factor stay, between
    them a ramp in rotations per L tokens blends both (L is the original context)."""
    low, high, original = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
    rotations = original * plain / (2 * math.pi)
    keep = np.clip((rotations - low) / (high - low), 0, 1)
    return plain * keep + plain / rope["factor"] * (1 - keep)


def yarn_frequencies(plain: np.ndarray, rope: dict) -> np.ndarray:
    """Pairs that turn more than beta_fast times in the original context stay, those below beta_slow are stretched, over
    the pairs between a ramp (arXiv 2309.00071); its ends are whole pairs unless `truncate` is false."""
    width, original, base = 2 * len(plain), rope["original_max_position_embeddings"], float(rope["rope_theta"])

    def pair_of(rotations):
        return width * math.log(original / (2 * math.pi * rotations)) / (2 * math.log(base))

    low, high = pair_of(rope.get("beta_fast") or 32), pair_of(rope.get("beta_slow") or 1)
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    stretched = np.clip((np.arange(len(plain)) - low) / (high - low), 0, 1)
    return plain * (1 - stretched) + plain / rope["factor"] * stretched


# Source: OCP Microscaling Formats 1.0, table 5: the values of e2m1 in the order of their bits
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])


def from_mxfp4(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """[..., out, in] of blocks [..., out, in / 32, 16], two values in a byte with the lower half first, and scales."""
    bytes_ = blocks.astype(np.uint8)
    values = E2M1[np.stack([bytes_ & 15, bytes_ >> 4], axis=-1)].reshape(*blocks.shape[:-1], 32)
    values = values * 2.0 ** (scales.astype(np.float64)[..., None] - 127)
    return values.reshape(*blocks.shape[:-2], -1)


class Model:
    """One model. `config` is config.json, `weights` have the names of the file."""

    def __init__(self, config: dict, weights: dict):
        self.c, self.w = config, dict(weights)
        for name in [name for name in weights if name.endswith("_blocks")]:  # files of floats have them transposed
            whole = name.removesuffix("_blocks")
            self.w[whole] = from_mxfp4(weights[name], weights[whole + "_scales"]).swapaxes(-1, -2)
        self.margin = np.inf  # per token: the smallest distance of a chosen expert's logit to one that is not so far
        self.choices = {}  # layer -> [T, top_k] chosen experts, ascending
        self.heads, self.key_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.head_dim = config.get("head_dim") or config["hidden_size"] // self.heads
        self.epsilon = config["rms_norm_eps"]
        self.experts = config.get("num_local_experts") or config.get("num_experts")
        rope = rope_settings(config)
        self.plain = float(rope["rope_theta"]) ** (-np.arange(0, self.head_dim, 2) / self.head_dim)
        kinds = {"default": lambda plain, _: plain, "llama3": llama3_frequencies, "yarn": yarn_frequencies,
                 "linear": lambda plain, rope: plain / rope["factor"]}
        self.frequencies = kinds[rope["rope_type"]](self.plain, rope)
        self.magnitude = 0.1 * math.log(rope["factor"]) + 1 if rope["rope_type"] == "yarn" else 1.0
        assert not rope.get("mscale_all_dim") and not rope.get("attention_factor"), rope
        assert not config.get("use_sliding_window")  # without it the numbers beside it mean nothing

    def linear(self, x, name):
        out = x @ self.w[name + ".weight"].T
        return out + self.w[name + ".bias"] if name + ".bias" in self.w else out

    def rotate(self, x):
        """x [heads, T, d]: pair (i, i + d/2) is a complex number, turned by position * frequency."""
        half = self.head_dim // 2
        turns = self.magnitude * np.exp(1j * np.arange(x.shape[1])[:, None] * self.frequencies)
        z = (x[..., :half] + 1j * x[..., half:]) * turns
        return np.concatenate([z.real, z.imag], axis=-1)

    def heads_of(self, x, prefix, kind, heads):
        """[heads, T, d] of one projection."""
        out = self.linear(x, f"{prefix}{kind}_proj").reshape(len(x), heads, self.head_dim)
        if kind != "v":
            out = self.head_norm(out, f"{prefix}{kind}_norm.weight")
        return out.swapaxes(0, 1)

    def head_norm(self, x, name):
        return rms_norm(x, self.w[name], self.epsilon) if name in self.w else x

    def key_head_of(self):
        return np.arange(self.heads) // (self.heads // self.key_heads)

    def mask(self, tokens):
        return np.tril(np.ones((tokens, tokens), bool))

    def window(self, layer):
        """Keys that a token of the layer sees, its own among them; None: all."""
        if self.c["model_type"] != "gpt_oss" or self.c["layer_types"][layer] == "full_attention":
            return None
        return self.c["sliding_window"]

    def softmax_of(self, scores, prefix):
        """Over the keys and, where the layer has them, a sink of each head, which has no value."""
        if prefix + "sinks" not in self.w:
            return softmax(scores)
        sinks = np.broadcast_to(self.w[prefix + "sinks"][:, None, None], (*scores.shape[:2], 1))
        return softmax(np.concatenate([scores, sinks], axis=-1))[..., :-1]

    def attention(self, x, prefix):
        q = self.rotate(self.heads_of(x, prefix, "q", self.heads))
        k = self.rotate(self.heads_of(x, prefix, "k", self.key_heads))[self.key_head_of()]
        v = self.heads_of(x, prefix, "v", self.key_heads)[self.key_head_of()]
        seen, window = self.mask(len(x)), self.window(int(prefix.split(".")[2]))
        if window is not None:
            seen = seen & ~np.tril(np.ones_like(seen), -window)
        scores = np.where(seen, q @ k.swapaxes(1, 2) * self.head_dim**-0.5, -np.inf)
        out = self.softmax_of(scores, prefix) @ v
        return self.linear(out.swapaxes(0, 1).reshape(len(x), -1), prefix + "o_proj")

    def mlp(self, x, gate, up, down):
        return (silu(x @ gate.T) * (x @ up.T)) @ down.T

    def expert(self, prefix, expert):
        """(gate, up, down) of one expert, whether it has files' matrices of its own or rows of a fused one."""
        fused = prefix + "experts.gate_up_proj"
        if fused in self.w:
            gate, up = np.split(self.w[fused][expert], 2)
            return gate, up, self.w[prefix + "experts.down_proj"][expert]
        names = ("w1", "w3", "w2") if self.c["model_type"] == "mixtral" else ("gate_proj", "up_proj", "down_proj")
        return tuple(self.w[f"{prefix}experts.{expert}.{name}.weight"] for name in names)

    def chosen_weights(self, logits, chosen):
        weights = np.take_along_axis(softmax(logits), chosen, axis=-1)
        normalised = self.c["model_type"] in ("mixtral", "gpt_oss") or self.c.get("norm_topk_prob", False)
        return weights / weights.sum(axis=-1, keepdims=True) if normalised else weights

    def joined(self, gate, up):
        """GPT-OSS' gate."""
        limit, alpha = self.c.get("swiglu_limit", 7.0), self.c.get("swiglu_alpha", 1.702)
        gate, up = np.minimum(gate, limit), np.clip(up, -limit, limit)
        return gate / (1 + np.exp(-alpha * gate)) * (up + 1)

    def expert_output(self, x, prefix, expert):
        if self.c["model_type"] != "gpt_oss":
            return self.mlp(x, *self.expert(prefix, expert))
        w = {name: self.w[f"{prefix}experts.{name}"][expert] for name in
             ("gate_up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias")}
        both = x @ w["gate_up_proj"] + w["gate_up_proj_bias"]
        return self.joined(both[..., ::2], both[..., 1::2]) @ w["down_proj"] + w["down_proj_bias"]

    def moe(self, x, prefix, layer):
        router = prefix + ("router" if self.c["model_type"] == "gpt_oss" else "gate")
        logits, top = self.linear(x, router), self.c["num_experts_per_tok"]
        order = np.argsort(-logits, axis=-1, kind="stable")
        ordered = np.take_along_axis(logits, order, axis=-1)
        self.margin = np.minimum(self.margin, ordered[:, top - 1] - ordered[:, top])
        self.choices[layer] = np.sort(order[:, :top], axis=-1)
        weights, out = self.chosen_weights(logits, order[:, :top]), np.zeros_like(x)
        for token, (experts, factors) in enumerate(zip(order[:, :top], weights)):
            for expert, factor in zip(experts, factors):
                out[token] += factor * self.expert_output(x[token], prefix, expert)
        return out

    def block(self, x, layer):
        prefix, w = f"model.layers.{layer}.", self.w
        x = x + self.attention(rms_norm(x, w[prefix + "input_layernorm.weight"], self.epsilon), prefix + "self_attn.")
        normed = rms_norm(x, w[prefix + "post_attention_layernorm.weight"], self.epsilon)
        for name in ("block_sparse_moe.", "mlp."):  # as published, as transformers 5 calls it
            if prefix + name + "gate.weight" in w or prefix + name + "router.weight" in w:
                return x + self.moe(normed, prefix + name, layer)
        return x + self.mlp(normed, *(w[f"{prefix}mlp.{n}_proj.weight"] for n in ("gate", "up", "down")))

    def forward(self, tokens) -> dict:
        """{"logits": [T, vocab], "hidden": [output of each layer [T, hidden]], "norm": [T, hidden]}"""
        self.margin, self.choices = np.full(len(tokens), np.inf), {}
        x, hidden = self.w["model.embed_tokens.weight"][np.asarray(tokens)], []
        for layer in range(self.c["num_hidden_layers"]):
            x = self.block(x, layer)
            hidden.append(x)
        normed = rms_norm(x, self.w["model.norm.weight"], self.epsilon)
        head = "model.embed_tokens.weight" if self.c["tie_word_embeddings"] else "lm_head.weight"
        return {"logits": normed @ self.w[head].T, "hidden": hidden, "norm": normed}
