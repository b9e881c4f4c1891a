"""Gemma 3's text models in float64 numpy, from the formulas of arXiv 2503.19786: what they have besides
family_forward.py.

Layers of a window see the last `sliding_window` tokens, their own among them, and turn by a base of their own, without
scaling; norms multiply by 1 + weight and stand before and behind attention and feed-forward; softmax scale
query_pre_attn_scalar^-0.5; GELU in its tanh form; rows of the embedding times sqrt(hidden).
"""
import math

import numpy as np

import family_forward
import moe_forward
from reference_forward import rms_norm


def model_of(config: dict, weights: dict):
    """The model of a family's file."""
    if config["model_type"] in moe_forward.TYPES:
        return moe_forward.Moe(config, weights)
    return (Gemma3 if config["model_type"] == "gemma3_text" else family_forward.Model)(config, weights)


class Gemma3(family_forward.Model):
    def __init__(self, config: dict, weights: dict):
        rope = config.get("rope_parameters")
        if rope:
            full, sliding = rope["full_attention"], rope["sliding_attention"]
        else:
            full = {"rope_theta": config["rope_theta"], "rope_type": "default"} | (config["rope_scaling"] or {})
            sliding = {"rope_theta": config["rope_local_base_freq"]}
        super().__init__(config | {"rope_parameters": full}, weights)
        self.full = self.frequencies
        self.sliding = float(sliding["rope_theta"]) ** (-np.arange(0, self.head_dim, 2) / self.head_dim)
        pattern = config.get("sliding_window_pattern", 6)
        self.kinds = config.get("layer_types") or [
            "full_attention" if (i + 1) % pattern == 0 else "sliding_attention"
            for i in range(config["num_hidden_layers"])
        ]
        self.scalar = config["query_pre_attn_scalar"]
        self.embedding_scale = math.sqrt(config["hidden_size"])

    def norm(self, x, name):
        return rms_norm(x, 1 + self.w[name], self.epsilon)

    def head_norm(self, x, name):
        return self.norm(x, name)

    def mlp(self, x, gate, up, down):
        z = x @ gate.T
        gelu = 0.5 * z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
        return (gelu * (x @ up.T)) @ down.T

    def heads_of(self, x, prefix, kind, heads):  # the softmax scale is that of head_dim: queries make up for it
        right = math.sqrt(self.head_dim / self.scalar) if kind == "q" else 1
        return super().heads_of(x, prefix, kind, heads) * right

    def block(self, x, layer):
        prefix = f"model.layers.{layer}."
        self.frequencies = self.full if self.kinds[layer] == "full_attention" else self.sliding
        out = self.attention(self.norm(x, prefix + "input_layernorm.weight"), prefix + "self_attn.")
        x = x + self.post_norm(out, prefix + "post_attention_layernorm.weight")
        normed = self.norm(x, prefix + "pre_feedforward_layernorm.weight")
        out = self.mlp(normed, *(self.w[f"{prefix}mlp.{n}_proj.weight"] for n in ("gate", "up", "down")))
        return x + self.post_norm(out, prefix + "post_feedforward_layernorm.weight")

    def post_norm(self, x, name):
        return self.norm(x, name)

    def forward(self, tokens) -> dict:
        self.margin, self.choices = np.full(len(tokens), np.inf), {}
        table, hidden = self.w["model.embed_tokens.weight"], []
        x = table[np.asarray(tokens)] * self.embedding_scale
        for layer in range(self.c["num_hidden_layers"]):
            x = self.block(x, layer)
            hidden.append(x)
        normed = self.norm(x, "model.norm.weight")
        head = table if self.c.get("tie_word_embeddings", True) else self.w["lm_head.weight"]
        return {"logits": normed @ head.T, "hidden": hidden, "norm": normed}
