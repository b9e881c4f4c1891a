"""DeepSeek-V3.2 and GLM-5 in float64 numpy, written from the formulas: latent attention over the keys that an index
chooses. Reads config.json in both spellings and the published names of tensors. `reference_forward.py` runs it.

Conventions (T tokens, H index heads of I values): index queries come from the normalised latent of attention's queries,
the index key is a LayerNorm (1e-6, weight and bias) of a projection of the layer's input; the first qk_rope_head_dim
values of both turn by attention's frequencies, in halves (V3.2) or neighbours (GLM-5); score of key s for token t is the
sum over heads of w[t, h] H^-0.5 relu(q[t, h] . k[s] I^-0.5); keys behind t are out of the choice before the index_topk
best are taken, of equal scores the latest. A layer that shares has no index and sees what the last choice was.
"""
import numpy as np

import reference_forward as reference


def settings(config: dict) -> dict:
    """The config with the keys that the published files have, whichever spelling it is in."""
    c = dict(config)
    rope = dict(c.get("rope_parameters") or c.get("rope_scaling") or {})
    c.setdefault("rope_theta", rope.pop("rope_theta", 10000.0))
    rope.pop("rope_theta", None)
    c["rope_scaling"] = None if rope.get("rope_type", rope.get("type", "default")) == "default" else rope
    c.setdefault("n_routed_experts", c.get("num_local_experts"))
    if "mlp_layer_types" in c:
        c["first_k_dense_replace"] = c["mlp_layer_types"].index("sparse")
    c["scoring_func"], c["topk_method"] = "sigmoid", "noaux_tc"  # transformers' files do not say so
    return c


def index_kinds(c: dict) -> list:
    """"full" or "shared" for each layer."""
    layers = c["num_hidden_layers"] + c.get("num_nextn_predict_layers", 0)
    if c.get("indexer_types"):
        return c["indexer_types"]
    if c.get("index_topk_pattern"):
        return [{"F": "full", "S": "shared"}[kind] for kind in c["index_topk_pattern"]]
    every, offset = max(c.get("index_topk_freq", 1), 1), c.get("index_skip_topk_offset", 2)
    return ["full" if max(i - offset + 1, 0) % every == 0 else "shared" for i in range(layers)]


class Model(reference.Model):
    index_bias = True  # of the key's norm
    causal_before_choice = True
    index_head_scale = True
    index_gates = True
    later_wins = True

    def __init__(self, config: dict, weights: dict):
        super().__init__(settings(config), self.single_experts(weights))
        self.index_halves = config["model_type"] == "deepseek_v32"
        self.kinds = index_kinds(self.c)
        self.top_k = self.c["index_topk"]
        self.experts = self.c["n_routed_experts"]
        self.plain = float(self.c["rope_theta"]) ** (
            -np.arange(0, self.c["qk_rope_head_dim"], 2) / self.c["qk_rope_head_dim"])
        self.index_margin, self.seen = np.inf, None  # smallest gap between a kept and a dropped key, of the row's largest

    @staticmethod
    def single_experts(weights: dict) -> dict:
        """Fused experts as one matrix each."""
        out = {}
        for name, w in weights.items():
            if name.endswith("experts.gate_up_proj"):
                for e, both in enumerate(w):
                    gate, up = np.split(both, 2)
                    prefix = name.removesuffix("gate_up_proj")
                    out |= {f"{prefix}{e}.gate_proj.weight": gate, f"{prefix}{e}.up_proj.weight": up}
            elif name.endswith("experts.down_proj"):
                out |= {f"{name.removesuffix('down_proj')}{e}.down_proj.weight": down for e, down in enumerate(w)}
            else:
                out[name] = w
        return out

    def turned(self, x, positions):
        """x [..., T, I]: its first values turn."""
        width = self.c["qk_rope_head_dim"]
        first = x[..., :width]
        if self.index_halves:
            z = first[..., : width // 2] + 1j * first[..., width // 2 :]
            z = z * self.rotary_gain * np.exp(1j * positions[:, None] * self.frequencies)
            first = np.concatenate([z.real, z.imag], axis=-1)
        else:
            first = self.rotate(first, positions)
        return np.concatenate([first, x[..., width:]], axis=-1)

    def index_key(self, x, prefix):
        k = self.linear(x, prefix + "wk")
        k = k - k.mean(axis=-1, keepdims=True)
        k = k / np.sqrt((k * k).mean(axis=-1, keepdims=True) + 1e-6) * self.w[prefix + "k_norm.weight"]
        return k + self.w[prefix + "k_norm.bias"] if self.index_bias else k

    def index_scores(self, x, latent, prefix, positions):
        """[T, T], row t for token t."""
        heads, dim = self.c["index_n_heads"], self.c["index_head_dim"]
        q = self.linear(latent, prefix + "wq_b").reshape(len(x), heads, dim).swapaxes(0, 1)
        products = self.turned(q, positions) @ self.turned(self.index_key(x, prefix), positions).T * dim**-0.5
        products = np.maximum(products, 0) if self.index_gates else products
        weights = self.linear(x, prefix + "weights_proj") * (heads**-0.5 if self.index_head_scale else 1)
        return np.einsum("th,hts->ts", weights, products)

    def chosen(self, scores):
        """[T, T], true where token t sees key s."""
        tokens = len(scores)
        causal = np.tril(np.ones((tokens, tokens), bool))
        candidates = np.where(causal, scores, -np.inf) if self.causal_before_choice else scores
        order = candidates[:, ::-1] if self.later_wins else candidates
        best = np.argsort(-order, axis=-1, kind="stable")[:, : self.top_k]
        seen = np.zeros_like(causal)
        np.put_along_axis(seen, tokens - 1 - best if self.later_wins else best, True, axis=-1)
        for t in range(self.top_k, tokens):  # tokens that must drop a key
            row = -np.sort(-scores[t, : t + 1])
            gap = (row[self.top_k - 1] - row[self.top_k]) / np.abs(row).max()
            self.index_margin = min(self.index_margin, gap)
        return seen & causal

    def attention(self, x, prefix, positions):
        c, w = self.c, self.w
        tokens, heads = x.shape[0], c["num_attention_heads"]
        nope, rope, rank, value = (
            c[k] for k in ("qk_nope_head_dim", "qk_rope_head_dim", "kv_lora_rank", "v_head_dim"))
        latent = self.linear(x, prefix + "q_a_proj")
        latent = reference.rms_norm(latent, w[prefix + "q_a_layernorm.weight"], reference.LATENT_EPSILON)
        if self.kinds[int(prefix.split(".")[2])] == "full":
            self.seen = self.chosen(self.index_scores(x, latent, prefix + "indexer.", positions))
        q = self.linear(latent, prefix + "q_b_proj").reshape(tokens, heads, nope + rope).swapaxes(0, 1)
        compressed = self.linear(x, prefix + "kv_a_proj_with_mqa")
        latent = compressed[:, :rank]
        latent = reference.rms_norm(latent, w[prefix + "kv_a_layernorm.weight"], reference.LATENT_EPSILON)
        kv = self.linear(latent, prefix + "kv_b_proj").reshape(tokens, heads, nope + value).swapaxes(0, 1)
        k_rope = self.rotate(compressed[:, rank:], positions)
        scores = q[..., :nope] @ kv[..., :nope].swapaxes(1, 2) + self.rotate(q[..., nope:], positions) @ k_rope.T
        scores = np.where(self.seen, scores * self.softmax_scale, -np.inf)
        out = reference.softmax(scores) @ kv[..., nope:]
        return self.linear(out.swapaxes(0, 1).reshape(tokens, heads * value), prefix + "o_proj")

    def forward(self, tokens) -> dict:
        self.index_margin = np.inf
        return super().forward(tokens)
