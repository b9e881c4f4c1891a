"""What the fixtures of make_v4_fixtures.py would notice: plants known mistakes into v4_forward.py, one at a time, and
prints how far the logits of each fixture move. `python v4_sensitivity.py` fails if a mistake is not seen by the fixtures
that are there for it: if it moves none of them by 1e-2, a hundred times what a test lets pass.
"""
import json
import sys

import numpy as np

import reference_forward as reference
import v4_forward
from fixture_sensitivity import MODELS, NOTICED

COMPRESSING, ALL = ("v4", "v4_published"), ("v4_sliding", "v4", "v4_published")
FEW_ROUNDS = ("v4_sliding", "v4")  # and a large epsilon


def changed(attributes=None, config=None, weights=None):
    """The model after some of its attributes, keys of its config or tensors were changed: each change is a function."""

    class Changed(v4_forward.Model):
        def __init__(self, settings, tensors):
            super().__init__(settings, tensors)
            self.c |= {key: change(self.c[key]) for key, change in (config or {}).items()}
            for name, change in (attributes or {}).items():
                setattr(self, name, change(self))
            for end, change in (weights or {}).items():
                self.w |= {name: change(w) for name, w in self.w.items() if name.endswith(end)}

    return Changed


class Halves(v4_forward.Model):
    def rotate(self, x, positions, frequencies, sign=1):
        width, half = 2 * len(frequencies), len(frequencies)
        order = np.stack([np.arange(half), np.arange(half) + half], axis=1).reshape(-1) + x.shape[-1] - width
        order = np.concatenate([np.arange(x.shape[-1] - width), order])
        return super().rotate(x[..., order], positions, frequencies, sign)[..., np.argsort(order)]


class FirstTurn(v4_forward.Model):
    def rotate(self, x, positions, frequencies, sign=1):
        width = 2 * len(frequencies)
        out = super().rotate(np.concatenate([x[..., width:], x[..., :width]], axis=-1), positions, frequencies, sign)
        return np.concatenate([out[..., -width:], out[..., :-width]], axis=-1)


class Stretched(v4_forward.Model):
    """cos and sin times what yarn says otherwise."""

    def rotate(self, x, positions, frequencies, sign=1):
        out = super().rotate(x, positions, frequencies, sign)
        if frequencies is self.compress:
            out[..., -2 * len(frequencies) :] *= reference.yarn_m(self.c["rope_scaling"]["factor"], 1.0)
        return out


class UnlimitedShared(v4_forward.Model):
    def mlp(self, x, prefix):
        limit = self.c["swiglu_limit"]
        self.c["swiglu_limit"] = np.inf if "shared" in prefix else limit
        out = super().mlp(x, prefix)
        self.c["swiglu_limit"] = limit
        return out


class HashedChoose(v4_forward.Model):
    def __init__(self, config, weights):
        super().__init__(config, weights)
        for layer in range(self.c["num_hash_layers"]):
            self.w[f"layers.{layer}.ffn.gate.bias"] = np.zeros(self.experts)
        self.c["num_hash_layers"] = 0


class SeriesSwapped(v4_forward.Model):
    """The first half of a token's channels for its own window, the second for the window after."""

    def __init__(self, config, weights):
        super().__init__(config, weights)
        for name, w in self.w.items():
            rows = len(self.w.get(name.rsplit("compressor.", 1)[0] + "compressor.norm.weight", ()))
            if "compressor." in name and name.endswith(("wkv.weight", "wgate.weight")) and len(w) == 2 * rows:
                self.w[name] = np.roll(w, rows, axis=0)
            elif name.endswith("compressor.ape") and w.shape[1] == 2 * rows:
                self.w[name] = np.roll(w, rows, axis=1)


class HigherHalfFirst(v4_forward.Model):
    """Of a byte of two values."""

    def __init__(self, config, weights):
        super().__init__(config, weights)
        for name in (name for name in self.w if ".experts." in name):
            self.w[name] = self.w[name].reshape(len(self.w[name]), -1, 2)[..., ::-1].reshape(len(self.w[name]), -1)


FAULTS = {  # what is wrong: the model, the fixtures that must notice
    "no sinks": (changed({"sinks": lambda m: False}), ALL),
    "output not turned back": (changed({"turns_back": lambda m: False}), ALL),
    "heads of queries not normalised": (changed({"head_norm": lambda m: False}), ALL),
    "pairs in halves": (Halves, ALL),
    "the first values of a head turn": (FirstTurn, ALL),
    "window one longer": (changed(config={"sliding_window": lambda n: n + 1}), ALL),
    "window one shorter": (changed(config={"sliding_window": lambda n: n - 1}), ALL),
    "sliding layers turn as the others": (changed({"main": lambda m: m.compress}), ALL),
    "compressing layers turn as sliding ones": (changed({"compress": lambda m: m.main}), COMPRESSING),
    "no yarn": (changed({"compress": lambda m: m.plain}), COMPRESSING),
    "cos and sin times yarn's factor": (Stretched, COMPRESSING),
    "pooled rows without positions": (changed({"pooled_rope": lambda m: False}), COMPRESSING),
    "pooled rows at the end of their windows": (changed({"row_shift": lambda m: 3}), COMPRESSING),
    "pooled rows seen a token early": (changed({"seen_shift": lambda m: 1}), COMPRESSING),
    "pooled rows seen a token late": (changed({"seen_shift": lambda m: -1}), COMPRESSING),
    "windows do not overlap": (changed({"overlaps": lambda m: False}), COMPRESSING),
    "the two series of a token swapped": (SeriesSwapped, COMPRESSING),
    "no bias of places in a window": (changed({"uses_position_bias": lambda m: False}), COMPRESSING),
    "channels of a pooled row share gates": (changed({"pools_by_channel": lambda m: False}), COMPRESSING),
    "pooled rows' norm without weight": (changed(weights={"compressor.norm.weight": np.ones_like}), COMPRESSING),
    "index without positions": (changed({"index_rope": lambda m: False}), COMPRESSING),
    "index products without relu": (changed({"index_gates": lambda m: False}), COMPRESSING),
    "index heads weighted alike": (changed(weights={"weights_proj.weight": np.ones_like}), COMPRESSING),
    "one row more": (changed({"top_k": lambda m: m.top_k + 1}), COMPRESSING),
    "one row less": (changed({"top_k": lambda m: m.top_k - 1}), COMPRESSING),
    "all rows seen": (changed({"top_k": lambda m: 1000}), COMPRESSING),
    "matrix of streams transposed": (changed({"transposed_comb": lambda m: True}), ALL),
    "streams written with half the weight": (changed({"post_gain": lambda m: 1}), ALL),
    "one Sinkhorn round less": (changed(config={"hc_sinkhorn_iters": lambda n: n - 1}), FEW_ROUNDS),
    "one Sinkhorn round more": (changed(config={"hc_sinkhorn_iters": lambda n: n + 1}), FEW_ROUNDS),
    "no epsilon of streams": (changed(config={"hc_eps": lambda e: 0.0}), FEW_ROUNDS),
    "scores by softmax": (changed({"softmax_scores": lambda m: True}), ALL),
    "routed experts not scaled": (changed(config={"routed_scaling_factor": lambda s: 1.0}), ALL),
    "no limits": (changed(config={"swiglu_limit": lambda s: np.inf}), ALL),
    "the shared expert without limits": (UnlimitedShared, ALL),
    "hash layers choose by scores": (HashedChoose, ALL),
    "no selection bias": (changed(weights={"gate.bias": np.zeros_like}), ALL),
    "the higher half of a byte first": (HigherHalfFirst, ("v4_fp4",)),
}


def main() -> int:
    fixtures = {}
    for name in (*ALL, "v4_fp4"):
        folder = MODELS / name
        settings, tensors = json.loads((folder / "config.json").read_text()), reference.read_weights(folder)
        tokens = reference.read_safetensors(folder / "expected.safetensors", keep_integers=True)["tokens_0"]
        fixtures[name] = settings, tensors, tokens, v4_forward.Model(settings, tensors).forward(tokens)["logits"]

    missed = 0
    for fault, (broken, names) in FAULTS.items():
        errors = {}
        for name in names:
            settings, tensors, tokens, right = fixtures[name]
            errors[name] = reference.row_error(broken(settings, tensors).forward(tokens)["logits"], right)
        unseen = [name for name, error in errors.items() if not error > NOTICED]
        missed += len(unseen)
        print(f"{fault:42} {', '.join(f'{n} {e:.1e}' for n, e in errors.items())}{'  MISSED' if unseen else ''}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
