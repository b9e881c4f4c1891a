"""DeepSeek-V4 in float64 numpy, written from the formulas: residual streams, attention whose one row per token is key and
value of all heads, and layers that also see rows pooled from windows of tokens. Reads config.json in both spellings and
the tensors' names in all three. `reference_forward.py` runs it.

Conventions (T tokens, m tokens of a window): pooled row w stands for the tokens up to (w + 1) m - 1, a token at p sees it
if w < (p + 1) // m, and it turns by the position w m. With m of the "compressed sparse" kind windows are 2 m tokens: the
first half of a token's channels counts for the window after its own, the second for its own; an index chooses index_topk
of the rows a token sees. Rotary pairs are neighbours, the last of a head; what attention takes is turned back. One
softmax, with a sink per head, covers both sets of rows.
"""
import re

import numpy as np

import reference_forward as reference
from family_forward import E2M1
from reference_forward import rms_norm, silu, softmax

SLIDING, SPARSE, HEAVY = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
RATIOS = {0: SLIDING, 4: SPARSE, 128: HEAVY}
# Names of transformers' modules, and those that it saves by default, as the published ones.
RENAMES = [
    (r"^model\.", ""), (r"^embed_tokens\.", "embed."), (r"^lm_head\.", "head."), (r"^hc_head\.hc_", "hc_head_"),
    (r"\.self_attn\.", ".attn."), (r"\.mlp\.", ".ffn."), (r"\.(attn|ffn)_hc\.", r".hc_\1_"),
    (r"\.input_layernorm\.", ".attn_norm."), (r"\.post_attention_layernorm\.", ".ffn_norm."), (r"\.sinks$", ".attn_sink"),
    (r"\.e_score_correction_bias$", ".bias"), (r"\.compressor\.indexer\.scorer\.weights_proj\.", ".indexer.weights_proj."),
    (r"\.compressor\.indexer\.q_b_proj\.", ".indexer.wq_b."), (r"\.compressor\.indexer\.", ".indexer.compressor."),
    (r"\.compressor\.kv_norm\.", ".compressor.norm."), (r"\.attn\.norm\.", ".attn.kv_norm."),
    (r"\.position_bias$", ".ape"), (r"\.q_a_proj\.", ".wq_a."), (r"\.q_b_proj\.", ".wq_b."), (r"\.kv_proj\.", ".wkv."),
    (r"(\.compressor)\.gate_proj\.", r"\1.wgate."), (r"\.o_([ab])_proj\.", r".wo_\1."), (r"\.q_a_norm\.", ".q_norm."),
    (r"(shared_experts)\.gate_proj\.", r"\1.w1."), (r"(shared_experts)\.down_proj\.", r"\1.w2."),
    (r"(shared_experts)\.up_proj\.", r"\1.w3."),
]


def published(name: str) -> str:
    for pattern, text in RENAMES:
        name = re.sub(pattern, text, name)
    return name


def dequantised(weights: dict) -> dict:
    """X.weight times X.scale: fp8 in blocks of 128 x 128, or two values of 4 bits in a byte (lower half first) in rows
    of 32."""
    out = {}
    for name, w in weights.items():
        if name.endswith(".scale") and name.removesuffix(".scale") + ".weight" in weights:
            continue
        scale = weights.get(name.removesuffix(".weight") + ".scale") if name.endswith(".weight") else None
        if scale is None:
            out[name] = w
        elif scale.shape == (-(-w.shape[0] // 128), -(-w.shape[1] // 128)):
            out[name] = w * np.repeat(np.repeat(scale, 128, axis=0), 128, axis=1)[: w.shape[0], : w.shape[1]]
        else:
            codes = w.astype(np.int64) & 255
            values = np.stack([E2M1[codes & 15], E2M1[codes >> 4]], axis=-1).reshape(len(w), -1)
            out[name] = values * np.repeat(scale, 32, axis=1)
    return out


def canonical(weights: dict) -> dict:
    """Published names, a matrix for each expert."""
    out = {}
    for name, w in dequantised(weights).items():
        name = published(name)
        if name.endswith("experts.gate_up_proj"):
            for e, both in enumerate(w):
                out |= {f"{name[:-12]}{e}.w{i}.weight": part for i, part in zip((1, 3), np.split(both, 2))}
        elif name.endswith("experts.down_proj"):
            out |= {f"{name[:-9]}{e}.w2.weight": down for e, down in enumerate(w)}
        else:
            out[name] = w
    return out


def settings(config: dict) -> dict:
    """The config with the keys of transformers, whichever spelling it is in."""
    c, layers = dict(config), config["num_hidden_layers"]
    if "compress_ratios" in c:
        c["layer_types"] = [RATIOS[ratio] for ratio in c["compress_ratios"][:layers]]
    rates = dict(c.get("compress_rates") or {SPARSE: 4, HEAVY: 128})
    rates |= {kind: c[key] for kind, key in ((SPARSE, "compress_rate_csa"), (HEAVY, "compress_rate_hca")) if key in c}
    c["compress_rates"] = rates
    if "mlp_layer_types" in c:
        c["num_hash_layers"] = c["mlp_layer_types"].count("hash_moe")
    c.setdefault("qk_rope_head_dim", int(c["head_dim"] * c.get("partial_rotary_factor", 1 / 8)))
    ropes = c.get("rope_parameters")
    if ropes:
        c["rope_theta"], c["compress_rope_theta"] = ropes["main"]["rope_theta"], ropes["compress"]["rope_theta"]
        c["rope_scaling"] = ropes["compress"]
    kind = (c.get("rope_scaling") or {}).get("rope_type", (c.get("rope_scaling") or {}).get("type", "default"))
    c["rope_scaling"] = None if kind == "default" else c["rope_scaling"]
    return c


class Model:
    """The attributes that stand here are what `v4_sensitivity.py` changes."""

    sinks = turns_back = overlaps = pools_by_channel = uses_position_bias = index_gates = head_norm = True
    pooled_rope = index_rope = True
    softmax_scores = transposed_comb = False
    seen_shift = row_shift = 0  # of the visibility of pooled rows, and of their position in tokens
    post_gain = 2

    def __init__(self, config: dict, weights: dict):
        self.c, self.w = settings(config), canonical(weights)
        self.experts, self.top_k = self.c["n_routed_experts"], self.c.get("index_topk")
        self.margin, self.choices = np.inf, {}
        self.index_margin = np.inf  # smallest gap between a kept and a dropped row, of the largest of its token
        dim = self.c["qk_rope_head_dim"]
        powers = -np.arange(0, dim, 2) / dim
        self.main = float(self.c["rope_theta"]) ** powers
        self.plain = self.compress = float(self.c["compress_rope_theta"]) ** powers
        yarn = self.c["rope_scaling"]
        if yarn:
            def correction(rotations):
                turns = yarn["original_max_position_embeddings"] / (2 * np.pi * rotations)
                return dim * np.log(turns) / (2 * np.log(self.c["compress_rope_theta"]))

            low = max(np.floor(correction(yarn.get("beta_fast") or 32)), 0)
            high = min(np.ceil(correction(yarn.get("beta_slow") or 1)), dim - 1)
            ramp = np.clip((np.arange(dim // 2) - low) / ((high - low) or 0.001), 0, 1)
            self.compress = self.plain * (1 - ramp) + self.plain / yarn["factor"] * ramp

    def linear(self, x, name):
        return x @ self.w[name + ".weight"].T

    def norm(self, x, name):
        return rms_norm(x, self.w[name + ".weight"], self.c["rms_norm_eps"])

    def rotate(self, x, positions, frequencies, sign=1):
        """x [..., T, D]: its last pairs of neighbours turn."""
        width = 2 * len(frequencies)
        last = x[..., -width:]
        z = (last[..., 0::2] + 1j * last[..., 1::2]) * np.exp(sign * 1j * positions[:, None] * frequencies)
        last = np.stack([z.real, z.imag], axis=-1).reshape(last.shape)
        return np.concatenate([x[..., :-width], last], axis=-1)

    def pooled(self, x, prefix, kind, rotate=True):
        """[T // m, D], normalised and turned."""
        m, overlaps = self.c["compress_rates"][kind], kind == SPARSE
        rows = len(x) // m
        kv, gate = (self.linear(x, prefix + name)[: rows * m] for name in ("wkv", "wgate"))
        kv, gate = (a.reshape(rows, m, a.shape[-1]) for a in (kv, gate))
        if self.uses_position_bias:
            gate = gate + self.w[prefix + "ape"]
        if rows == 0:
            return np.zeros((0, len(self.w[prefix + "norm.weight"])))
        if overlaps:
            dim = kv.shape[-1] // 2
            before = lambda a, fill: np.concatenate([np.full((1, m, dim), fill), a[:-1, :, :dim]])
            outside = before(gate, -np.inf) if self.overlaps else np.full((rows, m, dim), -np.inf)
            kv = np.concatenate([before(kv, 0.0), kv[..., dim:]], axis=1)
            gate = np.concatenate([outside, gate[..., dim:]], axis=1)
        shares = softmax(gate.swapaxes(1, 2)).swapaxes(1, 2)
        if not self.pools_by_channel:
            shares = shares.mean(axis=-1, keepdims=True)
        out = self.norm((kv * shares).sum(axis=1), prefix + "norm")
        return self.rotate(out, np.arange(rows) * m + self.row_shift, self.compress) if rotate else out

    def seen_rows(self, tokens, m, rows):
        """[T, rows], true where a token sees a row."""
        return np.arange(rows) < ((np.arange(tokens)[:, None] + 1 + self.seen_shift) // m)

    def chosen(self, x, latent, prefix, positions, seen):
        """`seen`, of each token the best alone."""
        heads, dim = self.c["index_n_heads"], self.c["index_head_dim"]
        keys = self.pooled(x, prefix + "compressor.", SPARSE, self.index_rope)
        q = self.linear(latent, prefix + "wq_b").reshape(len(x), heads, dim).swapaxes(0, 1)
        q = self.rotate(q, positions, self.compress) if self.index_rope else q
        products = q @ keys.T * dim**-0.5
        products = np.maximum(products, 0) if self.index_gates else products
        scores = np.einsum("th,hts->ts", self.linear(x, prefix + "weights_proj") * heads**-0.5, products)
        out = np.zeros_like(seen)
        for t in range(len(x)):
            visible = np.flatnonzero(seen[t])
            order = visible[np.argsort(-scores[t, visible], kind="stable")]
            out[t, order[: self.top_k]] = True
            if len(order) > self.top_k:
                kept, dropped = scores[t, order[self.top_k - 1 : self.top_k + 1]]
                self.index_margin = min(self.index_margin, (kept - dropped) / np.abs(scores[t, visible]).max())
        return out

    def attention(self, x, prefix, kind, positions):
        c = self.c
        tokens, heads, dim = len(x), c["num_attention_heads"], c["head_dim"]
        frequencies = self.main if kind == SLIDING else self.compress
        latent = self.norm(self.linear(x, prefix + "wq_a"), prefix + "q_norm")
        q = self.linear(latent, prefix + "wq_b").reshape(tokens, heads, dim).swapaxes(0, 1)
        q = rms_norm(q, 1.0, c["rms_norm_eps"]) if self.head_norm else q
        q = self.rotate(q, positions, frequencies)
        rows = self.rotate(self.norm(self.linear(x, prefix + "wkv"), prefix + "kv_norm"), positions, frequencies)
        distance = positions[:, None] - positions
        seen = (distance >= 0) & (distance < c["sliding_window"])
        if kind != SLIDING:
            pooled = self.pooled(x, prefix + "compressor.", kind, self.pooled_rope)
            visible = self.seen_rows(tokens, c["compress_rates"][kind], len(pooled))
            if kind == SPARSE:
                visible = self.chosen(x, latent, prefix + "indexer.", positions, visible)
            rows, seen = np.concatenate([rows, pooled]), np.concatenate([seen, visible], axis=1)
        scores = np.where(seen, q @ rows.T * dim**-0.5, -np.inf)
        sink = np.broadcast_to(self.w[prefix + "attn_sink"][:, None, None], (heads, tokens, 1))
        shares = softmax(np.concatenate([scores, sink], axis=-1))[..., :-1] if self.sinks else softmax(scores)
        out = shares @ rows
        out = self.rotate(out, positions, frequencies, -1) if self.turns_back else out
        groups = out.swapaxes(0, 1).reshape(tokens, c["o_groups"], -1)
        down = self.w[prefix + "wo_a.weight"].reshape(c["o_groups"], c["o_lora_rank"], -1)
        return self.linear(np.einsum("tgi,goi->tgo", groups, down).reshape(tokens, -1), prefix + "wo_b")

    def mlp(self, x, prefix):
        limit = self.c["swiglu_limit"]
        gate, up = self.linear(x, prefix + "w1"), self.linear(x, prefix + "w3")
        return self.linear(silu(np.minimum(gate, limit)) * np.clip(up, -limit, limit), prefix + "w2")

    def moe(self, x, prefix, layer, tokens):
        c, top_k = self.c, self.c["num_experts_per_tok"]
        logits = self.linear(x, prefix + "gate")
        scores = softmax(logits) if self.softmax_scores else np.sqrt(np.logaddexp(0, logits))
        if layer < c["num_hash_layers"]:
            chosen = self.w[prefix + "gate.tid2eid"][tokens].astype(int)
        else:
            choice = scores + self.w[prefix + "gate.bias"]
            order = np.argsort(-choice, axis=-1, kind="stable")
            chosen = order[:, :top_k]
            ordered = np.take_along_axis(choice, order, axis=-1)
            self.margin = np.minimum(self.margin, ordered[:, top_k - 1] - ordered[:, top_k])
        self.choices[layer] = np.sort(chosen, axis=-1)
        weights = np.take_along_axis(scores, chosen, axis=-1)
        weights = weights / (weights.sum(axis=-1, keepdims=True) + 1e-20) * c["routed_scaling_factor"]
        out = self.mlp(x, prefix + "shared_experts.")
        for expert in range(self.experts):
            token, place = np.nonzero(chosen == expert)
            if len(token):
                out[token] += weights[token, place, None] * self.mlp(x[token], f"{prefix}experts.{expert}.")
        return out

    def streamed(self, x, prefix, inner):
        """x [T, N, H] around a sub-layer."""
        n, epsilon = self.c["hc_mult"], self.c["hc_eps"]
        flat = rms_norm(x.reshape(len(x), -1), 1.0, self.c["rms_norm_eps"])
        raw = np.split(flat @ self.w[prefix + "fn"].T, [n, 2 * n], axis=-1)
        pre, post, comb = (part * scale + base for part, scale, base in zip(
            raw, self.w[prefix + "scale"], np.split(self.w[prefix + "base"], [n, 2 * n])))
        pre, post = 1 / (1 + np.exp(-pre)) + epsilon, self.post_gain / (1 + np.exp(-post))
        comb = softmax(comb.reshape(-1, n, n)) + epsilon
        comb = comb / (comb.sum(axis=-2, keepdims=True) + epsilon)
        for _ in range(self.c["hc_sinkhorn_iters"] - 1):
            comb = comb / (comb.sum(axis=-1, keepdims=True) + epsilon)
            comb = comb / (comb.sum(axis=-2, keepdims=True) + epsilon)
        out = inner(np.einsum("tn,tnh->th", pre, x))
        mixed = np.einsum("tji,tih->tjh" if self.transposed_comb else "tij,tih->tjh", comb, x)
        return post[:, :, None] * out[:, None] + mixed

    def forward(self, tokens) -> dict:
        """{"logits": [T, vocab], "hidden": [output of each layer [T, N, H]], "norm": [T, H]}"""
        tokens, c = np.asarray(tokens), self.c
        self.margin, self.choices, self.index_margin = np.full(len(tokens), np.inf), {}, np.inf
        positions = np.arange(len(tokens), dtype=np.float64)
        x = np.repeat(self.w["embed.weight"][tokens][:, None], c["hc_mult"], axis=1)
        hidden = []
        for layer, kind in enumerate(c["layer_types"]):
            p = f"layers.{layer}."
            x = self.streamed(x, p + "hc_attn_", lambda y: self.attention(
                self.norm(y, p + "attn_norm"), p + "attn.", kind, positions))
            x = self.streamed(x, p + "hc_ffn_", lambda y: self.moe(self.norm(y, p + "ffn_norm"), p + "ffn.", layer, tokens))
            hidden.append(x)
        flat = rms_norm(x.reshape(len(x), -1), 1.0, c["rms_norm_eps"]) @ self.w["hc_head_fn"].T
        pre = 1 / (1 + np.exp(-(flat * self.w["hc_head_scale"] + self.w["hc_head_base"]))) + c["hc_eps"]
        normed = self.norm(np.einsum("tn,tnh->th", pre, x), "norm")
        return {"logits": normed @ self.w["head.weight"].T, "hidden": hidden, "norm": normed}
