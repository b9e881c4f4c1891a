"""Llama, Qwen2, Qwen3, Mixtral and Qwen3-MoE in float64 numpy, written from the papers' formulas and not from anybody's code.

It reads config.json (published spelling or that of transformers 5) and the safetensors, nothing else.
`python reference_forward.py FOLDER...` runs it for the folders of these families.

Conventions (T tokens, H heads, K key heads): H / K neighbouring heads share a key head; rotary pairs are (i, i + d/2)
of the whole head; q and k norms (Qwen3) are per head, before the rotation, with rms_norm_eps; softmax scale d^-0.5;
the weights of a token's experts are those of a softmax over all; Mixtral, and Qwen3-MoE with norm_topk_prob, divide the
chosen ones by their sum.
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


class Model:
    """One model. `config` is config.json, `weights` have the names of the file."""

    def __init__(self, config: dict, weights: dict):
        self.c, self.w = config, weights
        self.margin = np.inf  # per token: the smallest distance of a chosen expert's logit to one that is not so far
        self.choices = {}  # layer -> [T, top_k] chosen experts, ascending
        self.heads, self.key_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.head_dim = config.get("head_dim") or config["hidden_size"] // self.heads
        self.epsilon = config["rms_norm_eps"]
        self.experts = config.get("num_local_experts") or config.get("num_experts")
        rope = rope_settings(config)
        self.plain = float(rope["rope_theta"]) ** (-np.arange(0, self.head_dim, 2) / self.head_dim)
        assert rope["rope_type"] in ("default", "llama3", "linear"), rope
        self.frequencies = llama3_frequencies(self.plain, rope) if rope["rope_type"] == "llama3" else self.plain
        if rope["rope_type"] == "linear":
            self.frequencies = self.plain / rope["factor"]
        assert not config.get("use_sliding_window")  # without it the numbers beside it mean nothing

    def linear(self, x, name):
        out = x @ self.w[name + ".weight"].T
        return out + self.w[name + ".bias"] if name + ".bias" in self.w else out

    def rotate(self, x):
        """x [heads, T, d]: pair (i, i + d/2) is a complex number, turned by position * frequency."""
        half = self.head_dim // 2
        z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * np.arange(x.shape[1])[:, None] * self.frequencies)
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

    def attention(self, x, prefix):
        q = self.rotate(self.heads_of(x, prefix, "q", self.heads))
        k = self.rotate(self.heads_of(x, prefix, "k", self.key_heads))[self.key_head_of()]
        v = self.heads_of(x, prefix, "v", self.key_heads)[self.key_head_of()]
        scores = np.where(self.mask(len(x)), q @ k.swapaxes(1, 2) * self.head_dim**-0.5, -np.inf)
        out = softmax(scores) @ v
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
        normalised = self.c["model_type"] == "mixtral" or self.c.get("norm_topk_prob", False)
        return weights / weights.sum(axis=-1, keepdims=True) if normalised else weights

    def moe(self, x, prefix, layer):
        logits, top = self.linear(x, prefix + "gate"), self.c["num_experts_per_tok"]
        order = np.argsort(-logits, axis=-1, kind="stable")
        ordered = np.take_along_axis(logits, order, axis=-1)
        self.margin = np.minimum(self.margin, ordered[:, top - 1] - ordered[:, top])
        self.choices[layer] = np.sort(order[:, :top], axis=-1)
        weights, out = self.chosen_weights(logits, order[:, :top]), np.zeros_like(x)
        for token, (experts, factors) in enumerate(zip(order[:, :top], weights)):
            for expert, factor in zip(experts, factors):
                out[token] += factor * self.mlp(x[token], *self.expert(prefix, expert))
        return out

    def block(self, x, layer):
        prefix, w = f"model.layers.{layer}.", self.w
        x = x + self.attention(rms_norm(x, w[prefix + "input_layernorm.weight"], self.epsilon), prefix + "self_attn.")
        normed = rms_norm(x, w[prefix + "post_attention_layernorm.weight"], self.epsilon)
        for name in ("block_sparse_moe.", "mlp."):  # as published, as transformers 5 calls it
            if prefix + name + "gate.weight" in w:
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
