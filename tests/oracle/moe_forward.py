"""Qwen2-MoE, OLMoE, GLM-4.5 and dots1 in float64 numpy, from the formulas: what they have besides family_forward.py.

Qwen2-MoE: a shared expert times sigmoid(w . x); a layer i is dense where mlp_only_layers names it or decoder_sparse_step
does not divide i + 1. OLMoE: one norm over the queries of all heads, one over their keys. GLM-4.5: the first half of each
head turns. GLM-4.5 and dots1: sigmoid scores, experts chosen by score + bias, chosen scores divided by their sum where
norm_topk_prob says so, times routed_scaling_factor; the first first_k_dense_replace layers are dense.
"""
import numpy as np

import family_forward
from reference_forward import rms_norm

TYPES = ("qwen2_moe", "olmoe", "glm4_moe", "dots1")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class Moe(family_forward.Model):
    def __init__(self, config: dict, weights: dict):
        super().__init__(config | {"use_sliding_window": False}, weights)
        self.experts = self.experts or config["n_routed_experts"]
        rope = family_forward.rope_settings(config)
        assert rope["rope_type"] == "default", rope
        share = rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1
        self.turned = int(self.head_dim * share)
        self.frequencies = self.plain = float(rope["rope_theta"]) ** (-np.arange(0, self.turned, 2) / self.turned)
        self.kinds = None

    def rotate(self, x):
        half = self.turned // 2
        z = (x[..., :half] + 1j * x[..., half : 2 * half]) * np.exp(
            1j * np.arange(x.shape[1])[:, None] * self.frequencies
        )
        return np.concatenate([z.real, z.imag, x[..., self.turned :]], axis=-1)

    def head_norm(self, x, name):
        if self.c["model_type"] != "olmoe":
            return super().head_norm(x, name)
        return rms_norm(x.reshape(len(x), -1), self.w[name], self.epsilon).reshape(x.shape)

    def scores(self, logits):
        return sigmoid(logits) if self.c["model_type"] in ("glm4_moe", "dots1") else family_forward.softmax(logits)

    def choice(self, logits, prefix):
        """What experts are ordered by."""
        bias = self.w.get(prefix + "gate.e_score_correction_bias")
        return logits if bias is None else self.scores(logits) + bias

    def shared(self, x, prefix):
        for name in ("shared_expert.", "shared_experts."):
            if prefix + name + "up_proj.weight" in self.w:
                out = self.mlp(x, *(self.w[f"{prefix}{name}{n}_proj.weight"] for n in ("gate", "up", "down")))
                gate = self.w.get(prefix + "shared_expert_gate.weight")
                return out if gate is None else sigmoid(x @ gate.T) * out
        return 0

    def moe(self, x, prefix, layer):
        logits, top = x @ self.w[prefix + "gate.weight"].T, self.c["num_experts_per_tok"]
        choice = self.choice(logits, prefix)
        order = np.argsort(-choice, axis=-1, kind="stable")
        ordered = np.take_along_axis(choice, order, axis=-1)
        self.margin = np.minimum(self.margin, ordered[:, top - 1] - ordered[:, top])
        self.choices[layer] = np.sort(order[:, :top], axis=-1)
        weights = np.take_along_axis(self.scores(logits), order[:, :top], axis=-1)
        if self.c.get("norm_topk_prob", False):
            weights = weights / weights.sum(axis=-1, keepdims=True)
        weights = weights * self.c.get("routed_scaling_factor", 1)
        out = np.zeros_like(x)
        for token, (experts, factors) in enumerate(zip(order[:, :top], weights)):
            for expert, factor in zip(experts, factors):
                out[token] += factor * self.mlp(x[token], *self.expert(prefix, expert))
        return out + self.shared(x, prefix)
