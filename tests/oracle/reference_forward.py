"""The whole forward pass in float64 numpy, written from the papers' formulas and not from anybody's code.

`python reference_forward.py FOLDER...` runs every folder of tests/fixtures/models on its own tokens and prints how far
the frozen logits are from these; it fails when one is further than 1e-5 of its row's largest magnitude. This file has
DeepSeek V2 and V3; `sparse_forward.py` has DeepSeek-V3.2 and GLM-5, `v4_forward.py` DeepSeek-V4, `gemma_forward.py`
Gemma 3, `family_forward.py` the other families.

Conventions (T tokens, H heads): rotary pairs are neighbours (2i, 2i+1); experts outside the kept groups are out of
the choice (minus infinity); the norms of the query and key-value latents use 1e-6 whatever rms_norm_eps says; the
softmax scale is (nope + rope)^-0.5 * m(factor, mscale_all_dim)^2; cos and sin carry m(mscale) / m(mscale_all_dim).
"""
import json
import math
import pathlib
import struct
import sys

import numpy as np

LATENT_EPSILON = 1e-6  # published code gives the two latent norms no epsilon, so they have the class default
ERROR_LIMIT = 1e-5


def e4m3_table() -> np.ndarray:
    """Value of each of the 256 codes of F8_E4M3 (no infinities, 0x7f and 0xff are NaN)."""
    code = np.arange(256)
    sign, exponent, mantissa = 1.0 - 2.0 * (code >> 7), (code >> 3) & 15, code & 7
    value = np.where(exponent == 0, mantissa / 8.0 * 2.0**-6, (1 + mantissa / 8.0) * 2.0 ** (exponent - 7.0))
    return sign * np.where((code & 127) == 127, np.nan, value)


def decode(dtype: str, raw: bytes) -> np.ndarray:
    if dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    if dtype == "F8_E4M3":
        return e4m3_table()[np.frombuffer(raw, np.uint8)]
    if dtype == "F8_E8M0":
        return 2.0 ** (np.frombuffer(raw, np.uint8) - 127.0)
    return np.frombuffer(raw, {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8", "I8": "u1", "U8": "u1"}[dtype]).astype(np.float64)


def read_safetensors(path: pathlib.Path, keep_integers: bool = False) -> dict:
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    out = {}
    for name, info in json.loads(data[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + o for o in info["data_offsets"])
        raw = data[begin:end]
        values = np.frombuffer(raw, "<i4") if info["dtype"] == "I32" and keep_integers else decode(info["dtype"], raw)
        out[name] = values.reshape(info["shape"])
    return out


def read_weights(folder: pathlib.Path) -> dict:
    """All tensors of all shards as float64; fp8 blocks are multiplied by their `weight_scale_inv`."""
    weights = {}
    for file in sorted(folder.glob("model*.safetensors")):
        weights |= read_safetensors(file)
    return dequantised(weights)


def dequantised(weights: dict) -> dict:
    out = {}
    for name, w in weights.items():
        if name.endswith("_scale_inv"):
            continue
        scale = weights.get(name + "_scale_inv")
        if scale is not None:
            w = w * np.repeat(np.repeat(scale, 128, axis=0), 128, axis=1)[: w.shape[0], : w.shape[1]]
        out[name] = w
    return out


def silu(x):
    return x / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def rms_norm(x, weight, epsilon):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon) * weight


def yarn_m(factor: float, mscale: float) -> float:
    return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0


class Model:
    """One model of the DeepSeek V2/V3 family. `config` is config.json, `weights` have the published names."""

    def __init__(self, config: dict, weights: dict):
        self.c, self.w = config, weights
        self.margin = np.inf  # per token: the smallest distance to another choice of groups or experts so far
        self.choices = {}  # layer -> [T, top_k] chosen experts, ascending
        self.mask_value = -np.inf  # 0.0 is what transformers used to fill in
        self.flipped = 0  # choices that a mask of 0.0 would change

        dim, base = config["qk_rope_head_dim"], float(config["rope_theta"])
        self.frequencies = base ** (-np.arange(0, dim, 2) / dim)
        self.rotary_gain = 1.0
        self.softmax_scale = (config["qk_nope_head_dim"] + dim) ** -0.5
        yarn = config.get("rope_scaling")
        if yarn:
            factor = yarn["factor"]

            def correction(rotations):
                return (
                    dim
                    * math.log(yarn["original_max_position_embeddings"] / (2 * math.pi * rotations))
                    / (2 * math.log(base))
                )

            low = max(math.floor(correction(yarn["beta_fast"])), 0)
            high = min(math.ceil(correction(yarn["beta_slow"])), dim - 1)
            ramp = np.clip((np.arange(dim // 2) - low) / ((high - low) or 0.001), 0, 1)
            self.ramp = ramp
            self.frequencies = self.frequencies * (1 - ramp) + self.frequencies / factor * ramp
            all_dim = yarn_m(factor, yarn["mscale_all_dim"])
            self.rotary_gain = yarn_m(factor, yarn["mscale"]) / all_dim
            self.softmax_scale *= all_dim**2

    def linear(self, x, name):
        return x @ self.w[name + ".weight"].T

    def rotate(self, x, positions):
        """x [..., T, rope_dim]: each pair (2i, 2i+1) is a complex number, turned by position * frequency."""
        z = x[..., 0::2] + 1j * x[..., 1::2]
        z = z * self.rotary_gain * np.exp(1j * positions[:, None] * self.frequencies)
        return np.stack([z.real, z.imag], axis=-1).reshape(x.shape)

    def attention(self, x, prefix, positions):
        c, w = self.c, self.w
        tokens, heads = x.shape[0], c["num_attention_heads"]
        nope, rope, rank, value = (
            c[k] for k in ("qk_nope_head_dim", "qk_rope_head_dim", "kv_lora_rank", "v_head_dim")
        )
        if c["q_lora_rank"]:
            latent = rms_norm(self.linear(x, prefix + "q_a_proj"), w[prefix + "q_a_layernorm.weight"], LATENT_EPSILON)
            q = self.linear(latent, prefix + "q_b_proj")
        else:
            q = self.linear(x, prefix + "q_proj")
        q = q.reshape(tokens, heads, nope + rope).swapaxes(0, 1)  # [H, T, nope + rope]
        compressed = self.linear(x, prefix + "kv_a_proj_with_mqa")
        latent = rms_norm(compressed[:, :rank], w[prefix + "kv_a_layernorm.weight"], LATENT_EPSILON)
        kv = self.linear(latent, prefix + "kv_b_proj").reshape(tokens, heads, nope + value).swapaxes(0, 1)
        k_rope = self.rotate(compressed[:, rank:], positions)  # one for all heads
        scores = q[..., :nope] @ kv[..., :nope].swapaxes(1, 2) + self.rotate(q[..., nope:], positions) @ k_rope.T
        scores = scores * self.softmax_scale
        scores = np.where(np.tril(np.ones((tokens, tokens), bool)), scores, -np.inf)
        out = softmax(scores) @ kv[..., nope:]
        return self.linear(out.swapaxes(0, 1).reshape(tokens, heads * value), prefix + "o_proj")

    def mlp(self, x, prefix):
        return self.linear(
            silu(self.linear(x, prefix + "gate_proj")) * self.linear(x, prefix + "up_proj"), prefix + "down_proj"
        )

    def keep_margin(self, values, kept, relative):
        """Distance between the last value that is kept and the first that is not, for each token."""
        ordered = -np.sort(-values, axis=-1)
        if kept >= ordered.shape[-1]:
            return
        gap = ordered[:, kept - 1] - ordered[:, kept]
        if relative:
            gap = gap / ordered[:, kept - 1]
        self.margin = np.minimum(self.margin, gap)

    def choose(self, scores, choice, mask_value):
        """[T, top_k] experts, best first, ties to the lower index."""
        c = self.c
        groups, softmaxed = c["n_group"] or 1, c["scoring_func"] == "softmax"
        if c["topk_method"] != "greedy" and groups > 1:
            grouped = -np.sort(-choice.reshape(len(choice), groups, -1), axis=-1)
            group_score = grouped[..., 0] if c["topk_method"] == "group_limited_greedy" else grouped[..., :2].sum(-1)
            kept = np.argsort(-group_score, axis=-1, kind="stable")[:, : c["topk_group"]]
            outside = np.ones_like(group_score, bool)
            np.put_along_axis(outside, kept, False, axis=-1)
            choice = np.where(np.repeat(outside, choice.shape[1] // groups, axis=1), mask_value, choice)
            self.keep_margin(group_score, c["topk_group"], softmaxed)
        self.keep_margin(choice, c["num_experts_per_tok"], softmaxed)
        return np.argsort(-choice, axis=-1, kind="stable")[:, : c["num_experts_per_tok"]]

    def moe(self, x, prefix, layer):
        c, w = self.c, self.w
        logits = self.linear(x, prefix + "gate")
        scores = softmax(logits) if c["scoring_func"] == "softmax" else 1 / (1 + np.exp(-logits))
        choice = scores + w[prefix + "gate.e_score_correction_bias"] if c["topk_method"] == "noaux_tc" else scores
        if c["topk_method"] == "noaux_tc":
            before, self.margin = self.margin, np.inf
            zero = np.sort(self.choose(scores, choice, 0.0), axis=-1)
            self.margin = before
        chosen = self.choose(scores, choice, self.mask_value)
        self.choices[layer] = np.sort(chosen, axis=-1)
        if c["topk_method"] == "noaux_tc":
            self.flipped += int((zero != self.choices[layer]).any(axis=-1).sum())
        weights = np.take_along_axis(scores, chosen, axis=-1)
        if c["norm_topk_prob"]:
            weights = weights / (weights.sum(axis=-1, keepdims=True) + 1e-20)
        weights = weights * c["routed_scaling_factor"]
        out = np.zeros_like(x)
        for token, (experts, factors) in enumerate(zip(chosen, weights)):
            for expert, factor in zip(experts, factors):
                out[token] += factor * self.mlp(x[token], f"{prefix}experts.{expert}.")
        return out + self.mlp(x, prefix + "shared_experts.") if c["n_shared_experts"] else out

    def block(self, x, layer, positions):
        prefix, epsilon = f"model.layers.{layer}.", self.c["rms_norm_eps"]
        normed = rms_norm(x, self.w[prefix + "input_layernorm.weight"], epsilon)
        x = x + self.attention(normed, prefix + "self_attn.", positions)
        normed = rms_norm(x, self.w[prefix + "post_attention_layernorm.weight"], epsilon)
        if layer < self.c["first_k_dense_replace"]:
            return x + self.mlp(normed, prefix + "mlp.")
        return x + self.moe(normed, prefix + "mlp.", layer)

    def forward(self, tokens) -> dict:
        """{"logits": [T, vocab], "hidden": [output of each layer [T, hidden]], "norm": [T, hidden]}"""
        tokens = np.asarray(tokens)
        self.margin, self.choices, self.flipped = np.full(len(tokens), np.inf), {}, 0
        positions = np.arange(len(tokens), dtype=np.float64)
        x, hidden = self.w["model.embed_tokens.weight"][tokens], []
        for layer in range(self.c["num_hidden_layers"]):
            x = self.block(x, layer, positions)
            hidden.append(x)
        normed = rms_norm(x, self.w["model.norm.weight"], self.c["rms_norm_eps"])
        head = "model.embed_tokens.weight" if self.c["tie_word_embeddings"] else "lm_head.weight"
        return {"logits": normed @ self.w[head].T, "hidden": hidden, "norm": normed}

    def forward_mtp(self, tokens, norm) -> np.ndarray:
        """Logits [T - 1, vocab] of the extra layer: row i joins the main state of token i and the embedding of token
        i + 1, and predicts token i + 2. `norm` is `forward(tokens)["norm"]`."""
        layer, tokens, epsilon = self.c["num_hidden_layers"], np.asarray(tokens), self.c["rms_norm_eps"]
        prefix = f"model.layers.{layer}."
        embedding = rms_norm(
            self.w[prefix + "embed_tokens.weight"][tokens[1:]], self.w[prefix + "enorm.weight"], epsilon
        )
        state = rms_norm(norm[:-1], self.w[prefix + "hnorm.weight"], epsilon)
        x = self.linear(np.concatenate([embedding, state], axis=-1), prefix + "eh_proj")
        margin, self.margin = self.margin, np.full(len(tokens) - 1, np.inf)
        x = self.block(x, layer, np.arange(len(tokens) - 1, dtype=np.float64))
        self.margin = np.minimum(margin, np.append(self.margin, np.inf))
        x = rms_norm(x, self.w[prefix + "shared_head.norm.weight"], epsilon)
        return self.linear(x, prefix + "shared_head.head")


def row_error(found, wanted) -> float:
    """Largest difference in a row, relative to the largest magnitude of that row; the worst row."""
    return float((np.abs(found - wanted).max(axis=-1) / np.abs(wanted).max(axis=-1)).max())


def main() -> int:
    import gemma_forward  # the other families; these stand on the functions above
    import sparse_forward
    import v4_forward

    def class_of(config):
        if config["model_type"] == "deepseek_v4":
            return v4_forward.Model
        if "index_topk" in config:
            return sparse_forward.Model
        return Model if "kv_lora_rank" in config else gemma_forward.model_of

    worst = 0.0
    for folder in map(pathlib.Path, sys.argv[1:]):
        config, weights = json.loads((folder / "config.json").read_text()), read_weights(folder)
        model = class_of(config)(config, weights)
        expected = read_safetensors(folder / "expected.safetensors", keep_integers=True)
        errors = []
        for i in (0, 1):
            out = model.forward(expected[f"tokens_{i}"])
            errors.append(row_error(expected[f"logits_{i}"], out["logits"]))
            for layer, chosen in model.choices.items():
                assert (expected[f"experts_{i}.{layer}"] == chosen).all(), (folder, "experts", layer)
            if i == 0 and "hidden_0.0" in expected:
                errors += [row_error(expected[f"hidden_0.{l}"], h) for l, h in enumerate(out["hidden"])]
                errors.append(row_error(expected["hidden_0.norm"], out["norm"]))
            if f"mtp_logits_{i}" in expected:
                errors.append(
                    row_error(expected[f"mtp_logits_{i}"], model.forward_mtp(expected[f"tokens_{i}"], out["norm"]))
                )
        print(f"{folder.name:22} largest relative difference {max(errors):.1e}")
        worst = max(worst, *errors)
    print(f"worst {worst:.1e}, limit {ERROR_LIMIT:.0e}")
    return 0 if worst <= ERROR_LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
