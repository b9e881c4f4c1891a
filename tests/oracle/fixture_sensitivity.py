"""What the fixtures would notice: plants known mistakes into reference_forward.py, one at a time, and prints how far
the logits of each fixture move. `python fixture_sensitivity.py` fails if a mistake moves no fixture by 1e-2, a hundred
times what a test lets pass.
"""
import json
import pathlib
import sys

import numpy as np

import reference_forward as reference

MODELS = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "models"
FOLDERS = sorted(
    p.parent for p in MODELS.glob("*/config.json") if "kv_lora_rank" in (c := json.loads(p.read_text())) and "index_topk" not in c
)
NOTICED = 1e-2


class Halves(reference.Model):
    def rotate(self, x, positions):
        half = x.shape[-1] // 2
        order = np.stack([np.arange(half), np.arange(half) + half], axis=1).reshape(-1)
        return super().rotate(x[..., order], positions)[..., np.argsort(order)]


class RotaryFirst(reference.Model):
    def __init__(self, config, weights):
        heads, nope = config["num_attention_heads"], config["qk_nope_head_dim"]
        changed = dict(weights)
        for name, w in weights.items():  # the rows of a query head as [rope, nope]
            if name.endswith(("q_proj.weight", "q_b_proj.weight")):
                changed[name] = np.roll(w.reshape(heads, -1, w.shape[1]), -nope, axis=1).reshape(w.shape)
        super().__init__(config, changed)


class GroupByBest(reference.Model):
    def choose(self, scores, choice, mask_value):
        c = self.c
        if c["topk_method"] == "noaux_tc":
            self.c = c | {"topk_method": "group_limited_greedy"}
        out = super().choose(scores, choice, mask_value)
        self.c = c
        return out


class GroupBySum(reference.Model):
    def choose(self, scores, choice, mask_value):
        c = self.c
        if c["topk_method"] == "group_limited_greedy":
            self.c = c | {"topk_method": "noaux_tc"}
        out = super().choose(scores, choice, mask_value)
        self.c = c
        return out


class BiasedWeights(reference.Model):
    def choose(self, scores, choice, mask_value):
        out = super().choose(scores, choice, mask_value)
        scores[:] = choice
        return out


class LatentEpsilon(reference.Model):
    def forward(self, tokens):
        keep, reference.LATENT_EPSILON = reference.LATENT_EPSILON, self.c["rms_norm_eps"]
        out = super().forward(tokens)
        reference.LATENT_EPSILON = keep
        return out


class OneSharedExpert(reference.Model):
    def mlp(self, x, prefix):
        if not prefix.endswith("shared_experts."):
            return super().mlp(x, prefix)
        inner, w = self.c["moe_intermediate_size"], self.w
        gate, up = (x @ w[prefix + n + "_proj.weight"][:inner].T for n in ("gate", "up"))
        return (reference.silu(gate) * up) @ w[prefix + "down_proj.weight"][:, :inner].T


def attribute(**changes):
    """The model after some of its derived numbers were changed; each change is a function of the model."""

    class Changed(reference.Model):
        def __init__(self, config, weights):
            super().__init__(config, weights)
            for name, change in changes.items():
                setattr(self, name, change(self))

    return Changed


def config(**changes):
    """The model of another config.json."""

    class Changed(reference.Model):
        def __init__(self, original, weights):
            super().__init__(original | {k: v for k, v in changes.items() if k in original}, weights)

    return Changed


def yarn(model):
    return model.c.get("rope_scaling")


def softmax_scale_with(key):
    def scale(model):
        plain = (model.c["qk_nope_head_dim"] + model.c["qk_rope_head_dim"]) ** -0.5
        return plain * (reference.yarn_m(yarn(model)["factor"], yarn(model)[key]) ** 2 if key and yarn(model) else 1)

    return scale


def plain_frequencies(model):
    dim = model.c["qk_rope_head_dim"]
    return float(model.c["rope_theta"]) ** (-np.arange(0, dim, 2) / dim)


FAULTS = {
    "rotary pairs as two halves": Halves,
    "rotary part first in a query head": RotaryFirst,
    "YaRN: no interpolation": attribute(frequencies=plain_frequencies),
    "YaRN: every pair interpolated": attribute(
        frequencies=lambda m: plain_frequencies(m) / (yarn(m)["factor"] if yarn(m) else 1)
    ),
    "YaRN: softmax scale without m squared": attribute(softmax_scale=softmax_scale_with(None)),
    "YaRN: softmax scale from mscale": attribute(softmax_scale=softmax_scale_with("mscale")),
    "YaRN: cos and sin without the ratio": attribute(rotary_gain=lambda m: 1.0),
    "YaRN: cos and sin times m": attribute(
        rotary_gain=lambda m: reference.yarn_m(yarn(m)["factor"], 1) if yarn(m) else 1.0
    ),
    "softmax scale of the nope part": attribute(
        softmax_scale=lambda m: m.softmax_scale
        * ((m.c["qk_nope_head_dim"] + m.c["qk_rope_head_dim"]) / m.c["qk_nope_head_dim"]) ** 0.5
    ),
    "latent norms with rms_norm_eps": LatentEpsilon,
    "masked groups as 0.0": attribute(mask_value=lambda m: 0.0),
    "no groups": config(n_group=1, topk_group=1),
    "noaux_tc: group by its best expert": GroupByBest,
    "group_limited_greedy: group by two best": GroupBySum,
    "weights with the selection bias": BiasedWeights,
    "weights not normalised": config(norm_topk_prob=False),
    "weights always normalised": config(norm_topk_prob=True),
    "no routed_scaling_factor": config(routed_scaling_factor=1.0),
    "one of several shared experts": OneSharedExpert,
    "no shared experts": config(n_shared_experts=0),
}


def logits_of(model, tokens, mtp: bool):
    out = model.forward(tokens)
    return model.forward_mtp(tokens, out["norm"]) if mtp else out["logits"]


def fp8_faults(folder):
    """Name -> weights, with the scales used in a wrong way."""
    raw = reference.read_safetensors(folder / "model.safetensors")

    def with_scales(change):
        return reference.dequantised({n: change(w) if n.endswith("_scale_inv") else w for n, w in raw.items()})

    yield "fp8: divided by the scale", with_scales(lambda s: 1 / s)
    yield "fp8: scale of the first row block for all", with_scales(lambda s: np.broadcast_to(s[:1], s.shape))
    yield "fp8: scale of the first column block for all", with_scales(lambda s: np.broadcast_to(s[:, :1], s.shape))


def main() -> int:
    noticed = {}
    for folder in FOLDERS:
        settings = json.loads((folder / "config.json").read_text())
        weights = reference.read_weights(folder)
        tokens = reference.read_safetensors(folder / "expected.safetensors", keep_integers=True)["tokens_0"]
        mtp = bool(settings.get("num_nextn_predict_layers"))
        right = logits_of(reference.Model(settings, weights), tokens, mtp)

        def note(fault, model):
            try:
                wrong = logits_of(model, tokens, mtp)
            except KeyError:  # another kind of layer: the tensors are not there
                return
            noticed.setdefault(fault, {})[folder.name] = reference.row_error(wrong, right)

        for fault, broken in FAULTS.items():
            note(fault, broken(settings, weights))
        if mtp:
            name = f"model.layers.{settings['num_hidden_layers']}.eh_proj.weight"
            swapped = weights | {name: np.roll(weights[name], settings["hidden_size"], axis=1)}
            note("MTP: hidden state first", reference.Model(settings, swapped))
            good = reference.Model(settings, weights)
            wrong = good.forward_mtp(tokens, good.forward(tokens)["hidden"][-1])
            noticed.setdefault("MTP: state before the last norm", {})[folder.name] = reference.row_error(wrong, right)
        if "quantization_config" in settings:
            for fault, wrong in fp8_faults(folder):
                note(fault, reference.Model(settings, wrong))

    missed = 0
    for fault, errors in noticed.items():
        best = sorted(errors, key=errors.get, reverse=True)
        seen = [n for n in best if errors[n] > NOTICED]
        missed += not seen
        print(f"{fault:44} {errors[best[0]]:.1e}  in {len(seen):2}: {', '.join(seen[:4])}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
