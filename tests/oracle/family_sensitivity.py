"""What the fixtures of make_family_fixtures.py would notice: plants known mistakes into family_forward.py, one at a
time, and prints how far the logits of each fixture move. `python family_sensitivity.py` fails if a mistake is not seen
by the fixtures that are there for it: if it moves none of them by 1e-2, a hundred times what a test lets pass.
"""
import json
import sys

import numpy as np

import family_forward
import gemma_forward
import moe_forward
import reference_forward as reference
from fixture_sensitivity import MODELS, NOTICED

FOLDERS = ("llama", "llama_tied", "qwen2", "qwen3", "qwen3_tied", "mixtral", "mixtral_fused", "qwen3_moe", "qwen3_moe_fused",
           "qwen3_moe_plain")
OSS = ("gpt_oss", "gpt_oss_mxfp4")
MOES = ("qwen2_moe", "olmoe", "glm4_moe", "dots1")


class Interleaved(family_forward.Model):
    def rotate(self, x):
        half = self.head_dim // 2
        order = np.stack([np.arange(half), np.arange(half) + half], axis=1).reshape(-1)
        return super().rotate(x[..., np.argsort(order)])[..., order]


class KeyHeadsInTurn(family_forward.Model):
    def key_head_of(self):
        return np.arange(self.heads) % self.key_heads


class ScaleOfDerivedWidth(family_forward.Model):
    def heads_of(self, x, prefix, kind, heads):
        right = self.c["hidden_size"] / self.heads / self.head_dim
        return super().heads_of(x, prefix, kind, heads) * (right**-0.5 if kind == "q" else 1)


class NoHeadNorm(family_forward.Model):
    def head_norm(self, x, name):
        return x


class HeadNormOfRow(family_forward.Model):
    def head_norm(self, x, name):
        if name not in self.w:
            return x
        return x / np.sqrt((x * x).mean(axis=(1, 2), keepdims=True) + self.epsilon) * self.w[name]


class HeadNormEpsilon(family_forward.Model):
    def head_norm(self, x, name):
        return reference.rms_norm(x, self.w[name], 1e-6) if name in self.w else x


class HeadNormAfterRotation(family_forward.Model):  # queries are rotated first
    def attention(self, x, prefix):
        self.prefix, self.kind = prefix, "q"
        return super().attention(x, prefix)

    def head_norm(self, x, name):
        return x

    def rotate(self, x):
        name = f"{self.prefix}{self.kind}_norm.weight"
        self.kind = "k"
        return family_forward.Model.head_norm(self, super().rotate(x), name)


class Window(family_forward.Model):
    def mask(self, tokens):
        return super().mask(tokens) & ~np.tril(np.ones((tokens, tokens), bool), -(self.c.get("sliding_window") or 999))


class NotNormalised(family_forward.Model):
    def chosen_weights(self, logits, chosen):
        return np.take_along_axis(reference.softmax(logits), chosen, axis=-1)


class Normalised(family_forward.Model):
    def chosen_weights(self, logits, chosen):
        weights = super().chosen_weights(logits, chosen)
        return weights / weights.sum(axis=-1, keepdims=True)


class GateAndUpSwapped(family_forward.Model):
    def mlp(self, x, gate, up, down):
        return super().mlp(x, up, gate, down)


class NoSharedGate(moe_forward.Moe):
    def __init__(self, config, original):
        super().__init__(config, {n: w for n, w in original.items() if "shared_expert_gate" not in n})


class NoSharedExperts(moe_forward.Moe):
    def shared(self, x, prefix):
        return 0


class NormsOfHeads(moe_forward.Moe):
    def head_norm(self, x, name):
        weight = self.w[name].reshape(x.shape[1:])
        return reference.rms_norm(x, weight, self.epsilon)


class ChoiceByScores(moe_forward.Moe):
    def choice(self, logits, prefix):
        return logits


class MoeNormalised(moe_forward.Moe):
    normalised = True

    def __init__(self, config, original):
        super().__init__(config | {"norm_topk_prob": self.normalised}, original)


class MoeNotNormalised(MoeNormalised):
    normalised = False


class Unscaled(moe_forward.Moe):
    def __init__(self, config, original):
        super().__init__(config | {"routed_scaling_factor": 1}, original)


class SoftmaxScores(moe_forward.Moe):
    def scores(self, logits):
        return reference.softmax(logits)


def turning(share):
    class Changed(moe_forward.Moe):
        def __init__(self, config, original):
            super().__init__(config | {"partial_rotary_factor": share}, original)

    return Changed


class LastHalfTurns(moe_forward.Moe):
    def rotate(self, x):
        return np.roll(super().rotate(np.roll(x, self.turned, axis=-1)), -self.turned, axis=-1)


class NoOnePlus(gemma_forward.Gemma3):
    def norm(self, x, name):
        return reference.rms_norm(x, self.w[name], self.epsilon)


class NoPostNorms(gemma_forward.Gemma3):
    def post_norm(self, x, name):
        return x


class Silu(gemma_forward.Gemma3):
    def mlp(self, x, gate, up, down):
        return family_forward.Model.mlp(self, x, gate, up, down)


class PlainHeads(gemma_forward.Gemma3):
    def head_norm(self, x, name):
        return x


def swapped(first, second):
    """The weights of two names that end so change places."""

    class Changed(gemma_forward.Gemma3):
        def __init__(self, config, weights):
            other = {name: weights[name.replace(first, second)] for name in weights if first in name}
            other |= {name: weights[name.replace(second, first)] for name in weights if second in name}
            super().__init__(config, weights | other)

    return Changed


class SinksIgnored(family_forward.Model):
    def softmax_of(self, scores, prefix):
        return reference.softmax(scores)


class WindowOneLonger(family_forward.Model):
    def window(self, layer):
        found = super().window(layer)
        return found and found + 1


class WindowOfOtherLayers(family_forward.Model):
    def window(self, layer):
        return None if super().window(layer) else self.c["sliding_window"]


class WholePairs(family_forward.Model):
    def __init__(self, config, weights):
        super().__init__(config | {"rope_scaling": config["rope_scaling"] | {"truncate": True}}, weights)


class Gate(family_forward.Model):
    limit, alpha, offset = None, None, 1

    def joined(self, gate, up):
        right = {k: v for k, v in self.c.items()}
        self.c = right | ({"swiglu_limit": self.limit} if self.limit else {}) | (
            {"swiglu_alpha": self.alpha} if self.alpha else {})
        out = super().joined(gate, up)
        if self.offset == 0:
            limit = self.c["swiglu_limit"]
            up = np.clip(up, -limit, limit)
            out = np.where(up + 1 == 0, 0, out / np.where(up + 1 == 0, 1, up + 1) * up)
        self.c = right
        return out


class NoLimit(Gate):
    limit = 1e9


class PlainSilu(Gate):
    alpha = 1.0


class NoOffset(Gate):
    offset = 0


class HalvesOfGateAndUp(family_forward.Model):
    def expert_output(self, x, prefix, expert):
        w = {n: self.w[f"{prefix}experts.{n}"][expert] for n in
             ("gate_up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias")}
        gate, up = np.split(x @ w["gate_up_proj"] + w["gate_up_proj_bias"], 2, axis=-1)
        return self.joined(gate, up) @ w["down_proj"] + w["down_proj_bias"]


class HighHalfFirst(family_forward.Model):
    def __init__(self, config, original):
        def swapped(name, w):
            return (w.astype(int) >> 4 | (w.astype(int) & 15) << 4) if name.endswith("_blocks") else w

        super().__init__(config, {name: swapped(name, w) for name, w in original.items()})


def attribute(of=family_forward.Model, **changes):
    """The model after some of its derived numbers were changed; each change is a function of the model."""

    class Changed(of):
        def __init__(self, config, weights):
            super().__init__(config, weights)
            for name, change in changes.items():
                setattr(self, name, change(self))

    return Changed


def weights(change):
    """The model of other weights: `change(name, w)`."""

    class Changed(family_forward.Model):
        def __init__(self, config, original):
            super().__init__(config, {name: change(name, w) for name, w in original.items()})

    return Changed


def stretched(model, ramp):
    """The frequencies with another ramp between those that stay (1) and those that are divided (0)."""
    rope = family_forward.rope_settings(model.c)
    if rope["rope_type"] != "llama3":
        return model.plain
    rotations = rope["original_max_position_embeddings"] * model.plain / (2 * np.pi)
    keep = ramp(rotations, rope["low_freq_factor"], rope["high_freq_factor"])
    return model.plain * keep + model.plain / rope["factor"] * (1 - keep)


def zero_of(base, ending):
    class Changed(base):
        def __init__(self, config, original):
            super().__init__(config, {n: 0 * w if n.endswith(ending) else w for n, w in original.items()})

    return Changed


def zero(ending):
    return weights(lambda name, w: 0 * w if name.endswith(ending) else w)


def ones(ending):
    return weights(lambda name, w: np.ones_like(w) if name.endswith(ending) else w)


ALL, GEMMA = FOLDERS, ("gemma3",)


def gemma(**changes):
    return attribute(gemma_forward.Gemma3, **changes)


FAULTS = {  # what is wrong: the model, the fixtures that must notice
    "rotary pairs as neighbours": (Interleaved, ALL),
    "no rotation": (attribute(frequencies=lambda m: 0 * m.plain), ALL),
    "rope_theta ten times as large": (
        attribute(frequencies=lambda m: m.plain * 10 ** (-np.arange(0, m.head_dim, 2) / m.head_dim)), ALL),
    "rope scaling ignored": (attribute(frequencies=lambda m: m.plain), ("llama",)),
    "rope scaling: every pair divided": (
        attribute(frequencies=lambda m: stretched(m, lambda r, low, high: 0 * r)), ("llama",)),
    "rope scaling: no ramp, low_freq_factor alone": (
        attribute(frequencies=lambda m: stretched(m, lambda r, low, high: r > low)), ("llama",)),
    "rope scaling: no ramp, high_freq_factor alone": (
        attribute(frequencies=lambda m: stretched(m, lambda r, low, high: r > high)), ("llama",)),
    "rope scaling: ramp of wavelengths": (
        attribute(frequencies=lambda m: stretched(
            m, lambda r, low, high: np.clip((1 / low - 1 / r) / (1 / low - 1 / high), 0, 1))), ("llama",)),
    "key heads in turn": (KeyHeadsInTurn, ("llama", "qwen2", "qwen3", "qwen3_tied", "mixtral", "mixtral_fused")),
    "softmax scale of hidden / heads": (ScaleOfDerivedWidth, ("llama_tied", "qwen3", "qwen3_tied")),
    "no bias of queries": (zero("q_proj.bias"), ("qwen2",)),
    "no bias of keys": (zero("k_proj.bias"), ("qwen2",)),
    "no bias of values": (zero("v_proj.bias"), ("qwen2",)),
    "sliding_window without use_sliding_window": (Window, ("qwen2",)),
    "no q and k norm": (NoHeadNorm, ("qwen3", "qwen3_tied", "qwen3_moe", "qwen3_moe_plain")),
    "q and k norm of the whole row": (HeadNormOfRow, ("qwen3", "qwen3_tied")),
    "q and k norm after the rotation": (HeadNormAfterRotation, ("qwen3", "qwen3_tied")),
    "q and k norm with 1e-6": (HeadNormEpsilon, ("qwen3_tied",)),
    "no weight of q norm": (ones("q_norm.weight"), ("qwen3", "qwen3_tied")),
    "no weight of k norm": (ones("k_norm.weight"), ("qwen3", "qwen3_tied")),
    "no weight of the first norm": (ones("input_layernorm.weight"), ALL),
    "no weight of the second norm": (ones("post_attention_layernorm.weight"), ALL),
    "no weight of the last norm": (ones("model.norm.weight"), ALL),
    "rms_norm_eps 1e-6": (attribute(epsilon=lambda m: 1e-6), ("llama_tied", "qwen3_tied")),
    "gate and up swapped": (GateAndUpSwapped, ALL),
    "weights of experts not normalised": (NotNormalised, ("mixtral", "mixtral_fused", "qwen3_moe", "qwen3_moe_fused")),
    "weights of experts normalised": (Normalised, ("qwen3_moe_plain",)),
    "Gemma: window one longer": (gemma(width=lambda m: m.width + 1), GEMMA),
    "Gemma: window one shorter": (gemma(width=lambda m: m.width - 1), GEMMA),
    "Gemma: every layer sees all": (gemma(width=lambda m: 1000), GEMMA),
    "Gemma: every layer slides": (gemma(kinds=lambda m: ["sliding_attention"] * 7), GEMMA),
    "Gemma: the layer before is the full one": (gemma(kinds=lambda m: m.kinds[1:] + m.kinds[:1]), GEMMA),
    "Gemma: rope scaling ignored": (gemma(full=lambda m: m.plain), GEMMA),
    "Gemma: rope scaling of sliding layers too": (gemma(sliding=lambda m: m.sliding / 8), GEMMA),
    "Gemma: one rope_theta, that of full layers": (gemma(sliding=lambda m: m.full), GEMMA),
    "Gemma: one rope_theta, that of sliding layers": (gemma(full=lambda m: m.sliding), GEMMA),
    "Gemma: softmax scale of head_dim": (gemma(scalar=lambda m: m.head_dim), GEMMA),
    "Gemma: rows of the embedding not scaled": (gemma(embedding_scale=lambda m: 1), GEMMA),
    "Gemma: weights of norms without 1": (NoOnePlus, GEMMA),
    "Gemma: no norms behind": (NoPostNorms, GEMMA),
    "Gemma: no q and k norm": (PlainHeads, GEMMA),
    "Gemma: silu": (Silu, GEMMA),
    "Gemma: norms behind attention and before mlp swapped": (
        swapped("post_attention_layernorm", "pre_feedforward_layernorm"), GEMMA),
    "shared expert without its gate": (NoSharedGate, ("qwen2_moe",)),
    "no shared experts": (NoSharedExperts, ("qwen2_moe", "glm4_moe", "dots1")),
    "norms of heads, not of rows": (NormsOfHeads, ("olmoe",)),
    "experts chosen without the bias": (ChoiceByScores, ("glm4_moe", "dots1")),
    "weights of experts normalised (softmax)": (MoeNormalised, ("qwen2_moe", "olmoe")),
    "weights of experts not normalised (sigmoid)": (MoeNotNormalised, ("glm4_moe", "dots1")),
    "weights of experts not scaled": (Unscaled, ("glm4_moe", "dots1")),
    "scores of a softmax": (SoftmaxScores, ("glm4_moe", "dots1")),
    "all of a head turns": (turning(1), ("glm4_moe",)),
    "a third of a head turns": (turning(1 / 3), ("glm4_moe",)),
    "the last half of a head turns": (LastHalfTurns, ("glm4_moe",)),
    "no bias of queries (GLM)": (zero_of(moe_forward.Moe, "q_proj.bias"), ("qwen2_moe", "glm4_moe")),
    "sinks ignored": (SinksIgnored, OSS),
    "a window one key longer": (WindowOneLonger, OSS),
    "windows in the other layers": (WindowOfOtherLayers, OSS),
    "rope scaling: whole pairs": (WholePairs, OSS),
    "cos and sin without their factor": (attribute(magnitude=lambda m: 1.0), OSS),
    "no bias of the output": (zero("o_proj.bias"), OSS),
    "no bias of the router": (zero("router.bias"), OSS),
    "no biases of gate and up": (zero("gate_up_proj_bias"), OSS),
    "no bias of down": (zero("down_proj_bias"), OSS),
    "gates without limits": (NoLimit, OSS),
    "gates with alpha 1": (PlainSilu, OSS),
    "up without its offset": (NoOffset, OSS),
    "gate and up in halves": (HalvesOfGateAndUp, OSS),
    "weights of experts before normalising (GPT-OSS)": (NotNormalised, OSS),
    "the higher half of a byte first": (HighHalfFirst, ("gpt_oss_mxfp4",)),
}


def main() -> int:
    fixtures = {}
    for name in FOLDERS + GEMMA + OSS + MOES:
        folder = MODELS / name
        settings, tensors = json.loads((folder / "config.json").read_text()), reference.read_weights(folder)
        tokens = reference.read_safetensors(folder / "expected.safetensors", keep_integers=True)["tokens_0"]
        fixtures[name] = settings, tensors, tokens, gemma_forward.model_of(settings, tensors).forward(tokens)["logits"]
    missed = 0
    for fault, (broken, names) in FAULTS.items():
        errors = {}
        for name in names:
            settings, tensors, tokens, right = fixtures[name]
            errors[name] = reference.row_error(broken(settings, tensors).forward(tokens)["logits"], right)
        unseen = [name for name, error in errors.items() if error <= NOTICED]
        missed += len(unseen)
        print(f"{fault:46} {', '.join(f'{n} {e:.1e}' for n, e in errors.items())}{'  MISSED' if unseen else ''}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
