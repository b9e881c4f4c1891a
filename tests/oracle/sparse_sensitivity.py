"""What the fixtures of make_sparse_fixtures.py would notice: plants known mistakes into sparse_forward.py, one at a
time, and prints how far the logits of each fixture move. `python sparse_sensitivity.py` fails if a mistake is not seen
by the fixtures that are there for it: if it moves none of them by 1e-2, a hundred times what a test lets pass. Two
changes are no mistakes and must move nothing: index scores without H^-1/2, a positive factor that no choice depends on,
and another rule for equal scores, of which fixtures have none.
"""
import json
import sys

import numpy as np

import reference_forward as reference
import sparse_forward
from fixture_sensitivity import MODELS, NOTICED

V32, GLM5 = ("v32", "v32_bf16", "v32_fused", "v32_mtp"), ("glm5", "glm5_full")
ALL = V32 + GLM5


def attribute(**changes):
    """The model after some of its attributes were changed; each change is a function of the model."""

    class Changed(sparse_forward.Model):
        def __init__(self, config, weights):
            super().__init__(config, weights)
            for name, change in changes.items():
                setattr(self, name, change(self))

    return Changed


class PositionsIgnored(sparse_forward.Model):
    def turned(self, x, positions):
        return x


class LastValuesTurn(sparse_forward.Model):
    def turned(self, x, positions):
        return super().turned(x[..., ::-1], positions)[..., ::-1]


class NoRotaryGain(sparse_forward.Model):
    def turned(self, x, positions):
        gain, self.rotary_gain = self.rotary_gain, 1.0
        out = super().turned(x, positions)
        self.rotary_gain = gain
        return out


class RmsNormOfKey(sparse_forward.Model):
    def index_key(self, x, prefix):
        k = reference.rms_norm(self.linear(x, prefix + "wk"), self.w[prefix + "k_norm.weight"], 1e-6)
        return k + self.w[prefix + "k_norm.bias"]


class KeyNotNormalised(sparse_forward.Model):
    def index_key(self, x, prefix):
        return self.linear(x, prefix + "wk")


class QueriesBeforeTheNorm(sparse_forward.Model):
    def index_scores(self, x, latent, prefix, positions):
        return super().index_scores(x, self.linear(x, prefix.replace("indexer.", "q_a_proj")), prefix, positions)


class MaskedAfterTheChoice(sparse_forward.Model):
    causal_before_choice = False

    def chosen(self, scores):
        seen = super().chosen(scores)
        return seen | (np.eye(len(seen), dtype=bool) & ~seen.any(axis=1, keepdims=True))  # a token that keeps none


class HeadsAlike(sparse_forward.Model):
    def __init__(self, config, weights):
        ones = {n: np.ones_like(w) for n, w in weights.items() if n.endswith("weights_proj.weight")}
        super().__init__(config, weights | ones)


class SharedSeesAll(sparse_forward.Model):
    def attention(self, x, prefix, positions):
        if self.kinds[int(prefix.split(".")[2])] == "shared":
            self.seen = np.tril(np.ones((len(x), len(x)), bool))
        return super().attention(x, prefix, positions)


class SharedSeesTheFirst(sparse_forward.Model):
    def attention(self, x, prefix, positions):
        layer = int(prefix.split(".")[2])
        if self.kinds[layer] == "shared":
            self.seen = self.first
        out = super().attention(x, prefix, positions)
        if layer == 0:
            self.first = self.seen
        return out


class EpsilonOfLatents(sparse_forward.Model):
    def forward(self, tokens):
        reference.LATENT_EPSILON = self.c["rms_norm_eps"]
        out = super().forward(tokens)
        reference.LATENT_EPSILON = 1e-6
        return out


FAULTS = {  # what is wrong: the model, the fixtures that must notice
    "index pairs as attention does, or the other way": (attribute(index_halves=lambda m: not m.index_halves), ALL),
    "index without positions": (PositionsIgnored, ALL),
    "the last values of index heads turn": (LastValuesTurn, ALL),
    "index without the factor of cos and sin": (NoRotaryGain, V32),
    "no bias of the key's norm": (attribute(index_bias=lambda m: False), ALL),
    "key's norm without its mean": (RmsNormOfKey, ALL),
    "key not normalised": (KeyNotNormalised, ALL),
    "index queries from the latent before its norm": (QueriesBeforeTheNorm, ALL),
    "index products without relu": (attribute(index_gates=lambda m: False), ALL),
    "index heads weighted alike": (HeadsAlike, ALL),
    "keys behind a token masked after the choice": (MaskedAfterTheChoice, ALL),
    "one key more": (attribute(top_k=lambda m: m.top_k + 1), ALL),
    "one key less": (attribute(top_k=lambda m: m.top_k - 1), ALL),
    "all keys seen": (attribute(top_k=lambda m: 1000), ALL),
    "shared layers see all keys": (SharedSeesAll, ("glm5",)),
    "shared layers see the first choice": (SharedSeesTheFirst, ("glm5",)),
    "norms of latents with rms_norm_eps": (EpsilonOfLatents, GLM5),
}
SAME = {  # what is no mistake
    "index scores without H^-1/2": attribute(index_head_scale=lambda m: False),
    "of equal scores the earliest": attribute(later_wins=lambda m: False),
}


def main() -> int:
    fixtures = {}
    for name in ALL:
        folder = MODELS / name
        settings, tensors = json.loads((folder / "config.json").read_text()), reference.read_weights(folder)
        tokens = reference.read_safetensors(folder / "expected.safetensors", keep_integers=True)["tokens_0"]
        fixtures[name] = settings, tensors, tokens, sparse_forward.Model(settings, tensors).forward(tokens)["logits"]

    def moved(model, names):
        errors = {}
        for name in (n for n in names if n in ALL):
            settings, tensors, tokens, right = fixtures[name]
            errors[name] = reference.row_error(model(settings, tensors).forward(tokens)["logits"], right)
        return errors

    missed = 0
    for fault, (broken, names) in FAULTS.items():
        errors = moved(broken, names)
        unseen = [name for name, error in errors.items() if not error > NOTICED]
        missed += len(unseen)
        print(f"{fault:48} {', '.join(f'{n} {e:.1e}' for n, e in errors.items())}{'  MISSED' if unseen else ''}")
    for change, model in SAME.items():
        errors = moved(model, ALL)
        missed += max(errors.values(), default=0.0) > 1e-12
        print(f"{change:48} moves {max(errors.values(), default=0.0):.1e}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
