"""Plants known mistakes of training and says how far each moves the values frozen in tests/fixtures/training.

`python training_sensitivity.py` (a minute, one thread).  For gradients: the largest |change| of any tensor over that
tensor's largest gradient; for steps: the largest relative change of a final norm and the largest change of a loss.
A fixture that does not notice a mistake fails.
"""
import json
import math
import types

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as ds

import make_training_fixture as made
from make_training_fixture import IGNORED, LAMBDA, OUT, Subject, in_float64

NOTICED = 1e-3  # a test's tolerance should be well below


def subject(name):
    c = made.config_json("r1" if name == "r1_steps" else name)
    with in_float64():
        return Subject(c, load_file(OUT / name / "model.safetensors"), torch.float64)


def unflattened(t, prefix=""):
    out, at = [], 0
    for n in t[prefix + "lengths"].tolist():
        out.append((t[prefix + "tokens"][at : at + n].tolist(), t[prefix + "targets"][at : at + n].tolist()))
        at += n
    return out


def gradient_error(s, name, objective, loss=None):
    """Of the gradients with the mistake planted in s (or in `loss(s, batch)`) against the frozen ones."""
    batch = unflattened(load_file(OUT / name / f"expected_{objective}.safetensors"))
    wanted = load_file(OUT / name / f"gradients_{objective}.safetensors")
    s.zero()
    with in_float64():
        if loss is None:
            s.run(batch, objective)
        else:
            loss(s, batch).backward()
    found = s.gradients()
    return max(((found[n] - w).abs().max() / w.abs().max()).item() for n, w in wanted.items())


def replaced(s, kind, make):
    """s, with the forward of every module of that kind made by make(module, its old forward)."""
    for _, top in s.modules:
        for module in top.modules():
            if isinstance(module, kind):
                module.forward = types.MethodType(make(module, module.forward), module)
    return s


def norm_without_mean_term(module, old):
    inverse = lambda self, x: torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
    return lambda self, x: self.weight * (x * inverse(self, x).detach())


def gates(how):
    def make(module, old):
        def forward(self, x):
            x = x.reshape(-1, x.shape[-1])
            with torch.no_grad():
                logits, _, chosen = old(x)
            scores = F.linear(x, self.weight).sigmoid()
            if how == "biased":
                scores = scores + self.e_score_correction_bias
            w = scores.gather(1, chosen)
            total = w.sum(-1, keepdim=True)
            w = w / (total.detach() if how == "normaliser detached" else total) * self.routed_scaling_factor
            return logits, w.detach() if how == "detached" else w, chosen

        return forward

    return make


def shared_key_of_one_head(module, old):
    """The rotary key's gradient from one head only."""
    def forward(self, kv_nope, k_rot):
        keys, values = old(kv_nope, k_rot)
        keys = keys.clone()
        rest = k_rot.detach().expand(-1, keys.shape[1] - 1, -1, -1)
        keys[:, 1:, :, self.qk_nope_head_dim :] = rest
        return keys, values

    return forward


def totals(divide):
    def loss(s, batch):
        parts = [(s.sums(t, y, "causal")[0], sum(v != IGNORED for v in y), len(t)) for t, y in batch]
        return divide(parts)

    return loss


def mtp_loss(scale=LAMBDA, state=lambda h: h, embedding=lambda e: e, head=lambda h: h, second=lambda y: y[1:]):
    def loss(s, batch):
        first, other, count, second_count, main = 0.0, 0.0, 0, 0, s.main
        for tokens, targets in batch:
            ids, wanted = torch.tensor(tokens)[None], torch.tensor(targets)
            states = main.model(ids, use_cache=False).last_hidden_state
            entropy = lambda l, t: F.cross_entropy(l, t.long(), ignore_index=IGNORED, reduction="sum")
            first, count = first + entropy(main.lm_head(states)[0], wanted), count + (wanted != IGNORED).sum()
            if len(tokens) > 1:
                seen = types.SimpleNamespace(
                    model=types.SimpleNamespace(embed_tokens=lambda i: embedding(main.model.embed_tokens(i)),
                                                rotary_emb=main.model.rotary_emb),
                    lm_head=lambda x: F.linear(x, head(main.lm_head.weight)))
                rows = second(wanted)
                rows = F.pad(rows, (0, len(tokens) - 1 - len(rows)), value=IGNORED)[: len(tokens) - 1]
                other = other + entropy(s.mtp(seen, state(states[:, :-1]), ids[:, 1:]), rows)
                second_count = second_count + (rows != IGNORED).sum()
        return first / count + scale * other / second_count

    return loss


def tied_head_only(s):
    old = s.main.model.embed_tokens.forward
    s.main.model.embed_tokens.forward = lambda ids: old(ids).detach()
    return s


def latent_epsilon(s):
    for _, top in s.modules:
        for name, module in top.named_modules():
            if name.endswith("kv_a_layernorm"):
                module.variance_epsilon = 1e-4
    return s


def no_score_gradient_scale(module, old):
    """Softmax scale without YaRN's mscale squared."""
    def forward(self, *args, **kwargs):
        return old(*args, **kwargs)

    module.scaling = module.qk_head_dim ** -0.5
    return forward


def gradients():
    plain = lambda parts: sum(p[0] for p in parts)
    count, rows = (lambda parts: sum(p[1] for p in parts)), (lambda parts: sum(p[2] for p in parts))
    own_mean = lambda parts: sum(p[0] / p[1] for p in parts) / len(parts)
    r1, mtp, other, tied = "r1", "r1_mtp", "r1_no_q_lora", "dense_tied"
    yield r1, "causal", "nothing", subject(r1), totals(lambda p: plain(p) / count(p))
    yield mtp, "mtp", "nothing", subject(mtp), mtp_loss()
    yield r1, "causal", "divided by all rows", subject(r1), totals(lambda p: plain(p) / rows(p))
    yield r1, "causal", "mean of the sequences' means", subject(r1), totals(own_mean)
    yield r1, "causal", "norm without the mean's gradient", replaced(subject(r1), ds.DeepseekV3RMSNorm,
                                                                    norm_without_mean_term), None
    for how in ("detached", "normaliser detached", "biased"):
        yield r1, "causal", "gates " + how, replaced(subject(r1), ds.DeepseekV3TopkRouter, gates(how)), None
    shared = subject(r1)
    for module in shared.main.modules():
        if isinstance(module, ds.DeepseekV3Attention):
            module.expand_kv = types.MethodType(shared_key_of_one_head(module, module.expand_kv), module)
    yield r1, "causal", "rotary key's gradient from one head", shared, None
    yield other, "causal", "softmax scale without mscale", replaced(subject(other), ds.DeepseekV3Attention,
                                                                    no_score_gradient_scale), None
    yield other, "causal", "another epsilon in the latents' norms", latent_epsilon(subject(other)), None
    yield other, "masked", "causal attention", subject(other), totals(lambda p: plain(p) / count(p))
    yield tied, "causal", "tied: nothing from the embedding", tied_head_only(subject(tied)), None
    yield mtp, "mtp", "lambda 1", subject(mtp), mtp_loss(scale=1.0)
    yield mtp, "mtp", "nothing into the main model's states", subject(mtp), mtp_loss(state=lambda h: h.detach())
    yield mtp, "mtp", "nothing into the embedding", subject(mtp), mtp_loss(embedding=lambda e: e.detach())
    yield mtp, "mtp", "nothing into the head", subject(mtp), mtp_loss(head=lambda h: h.detach())
    yield mtp, "mtp", "target is the next token", subject(mtp), mtp_loss(second=lambda y: y)


def train(s, batches, clip, gamma, *, warm_up=made.WARM_UP, eps=made.EPSILON, decay_vectors=0.0, decoupled=True,
          correct=True, sign=1.0, clip_each=False, epsilon_inside=False):
    """The frozen steps written out, with switches for mistakes."""
    params = [p for _, _, p in s.parameters()]
    m, v, losses = [torch.zeros_like(p) for p in params], [torch.zeros_like(p) for p in params], []
    for step, batch in enumerate(batches):
        s.zero()
        with in_float64():
            losses.append(s.run(batch, "causal")[0])
        norm = math.sqrt(sum(p.grad.pow(2).sum().item() for p in params))
        rate = made.RATE * min(1.0, (step + 1) / warm_up if warm_up else 1.0)
        with torch.no_grad():
            for p, a, b in zip(params, m, v):
                g = p.grad * min(1.0, clip / (p.grad.norm().item() if clip_each else norm))
                decay = made.DECAY if p.dim() > 1 else decay_vectors
                if decoupled:
                    p.mul_(1 - rate * decay)
                else:
                    g = g + decay * p
                a.lerp_(g, 1 - made.BETAS[0])
                b.mul_(made.BETAS[1]).addcmul_(g, g, value=1 - made.BETAS[1])
                c1, c2 = (1 - x ** (step + 1) if correct else 1.0 for x in made.BETAS)
                root = (b / c2 + eps).sqrt() if epsilon_inside else (b / c2).sqrt() + eps
                p.sub_(rate * (a / c1) / root)
            for layer, router in s.routers.items():
                load = torch.bincount(torch.cat(s.chosen[layer]).view(-1).long(), minlength=8).double()
                router.e_score_correction_bias += sign * gamma * torch.sign(load.mean() - load)
    return losses, {n: w.pow(2).sum().sqrt().item() for n, w in s.named().items()}


STEP_MISTAKES = {
    "nothing": ("plain", {}),
    "no warm-up": ("plain", {"warm_up": 0}),
    "decay of vectors too": ("plain", {"decay_vectors": made.DECAY}),
    "decay inside the gradient": ("plain", {"decoupled": False}),
    "no bias correction": ("plain", {"correct": False}),
    "epsilon inside the root": ("plain", {"epsilon_inside": True}),
    "clipping tensor by tensor": ("plain", {"clip_each": True}),
    "no clipping": ("balanced", {"clip": 1e9}),
    "bias the other way": ("balanced", {"sign": -1.0}),
    "no balancing": ("balanced", {"gamma": 0.0}),
}


def main():
    torch.set_num_threads(1)
    failed = []
    for name, objective, mistake, s, loss in gradients():
        error = gradient_error(s, name, objective, loss)
        print(f"{name:14}{objective:8}{mistake:40}{error:.1e}", flush=True)
        if (mistake == "nothing") != (error < NOTICED):
            failed.append((name, mistake))

    expected = json.loads((OUT / "r1_steps" / "expected.json").read_text())
    stored = load_file(OUT / "r1_steps" / "batches.safetensors")
    batches = [unflattened(stored, f"step.{i}.") for i in range(made.STEPS)]
    for mistake, (kind, changes) in STEP_MISTAKES.items():
        losses, norms = train(subject("r1_steps"), batches, **(made.RUNS[kind] | changes))
        loss_error = max(abs(a - b) for a, b in zip(losses, expected[kind]["loss"]))
        norm_error = max(abs(norms[n] - w) / w for n, w in expected[kind]["final_norms"].items())
        print(f"{'r1_steps':14}{kind:10}{mistake:38}norm {norm_error:.1e} loss {loss_error:.1e}", flush=True)
        if (mistake == "nothing") != (max(norm_error, loss_error) < 1e-5):
            failed.append((kind, mistake))
    assert not failed, failed


if __name__ == "__main__":
    main()
