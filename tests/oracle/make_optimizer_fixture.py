"""Freezes what torch's optimizers, clipping and schedulers make of given weights and gradients.

`python make_optimizer_fixture.py ../fixtures/optimizer/model.safetensors` writes `start.NAME` and `gradient.STEP.NAME`, and
for each case `CASE.weight.NAME` after 20 steps and the moments `CASE.first.NAME`, `CASE.second.NAME`:

- adamw: AdamW, matrices decay, vectors do not
- clipped: the same with clip_grad_norm_ to 1 and a LambdaLR of 5 steps of warm-up and half a cosine to 0.1 at step 20;
  also `clipped.norm` [20] and `clipped.rate` [20]
- muon: torch.optim.Muon with match_rms_adamw for the hidden matrices, AdamW for the rest
- spectral: the same with Muon's original scale, lr 0.02 and momentum 0.9

Everything runs in float64. torch's Muon rounds to bfloat16 inside; its source is taken with that one type replaced.
"""
import inspect
import math
import sys

import torch
import torch.optim._muon as muon_source
from safetensors.torch import save_file

STEPS = 20
SHAPES = {"embedding": (11, 6), "wide": (6, 10), "tall": (12, 5), "square": (9, 9), "large": (20, 33), "norm": (10,),
          "head": (7, 10)}
HIDDEN = ["wide", "tall", "square", "large"]
ADAMW = dict(lr=3e-3, betas=(0.9, 0.95), eps=1e-8)


def use_double_inside_muon():
    text = inspect.getsource(muon_source._zeropower_via_newtonschulz)
    assert text.count("torch.bfloat16") == 1
    exec(text.replace("torch.bfloat16", "torch.float64"), muon_source.__dict__)


def adamw(weights, names, **options):
    groups = [{"params": [weights[n] for n in names if weights[n].ndim == 2], "weight_decay": 0.1},
              {"params": [weights[n] for n in names if weights[n].ndim != 2], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, **options)


def run(case, start, gradients, make, out, clip=None, schedule=None):
    weights = {n: torch.nn.Parameter(w.double()) for n, w in start.items()}
    optimizers = make(weights)
    schedulers = [torch.optim.lr_scheduler.LambdaLR(o, schedule) for o in optimizers] if schedule else []
    norms, rates = [], []
    for step in range(STEPS):
        for name, weight in weights.items():
            weight.grad = gradients[step][name].double()
        if clip is not None:
            norms.append(float(torch.nn.utils.clip_grad_norm_(weights.values(), clip)))
        if schedule:
            rates.append(schedulers[0].get_last_lr()[0] / ADAMW["lr"])
        for optimizer in optimizers:
            optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    if norms:
        out[f"{case}.norm"] = torch.tensor(norms)
        out[f"{case}.rate"] = torch.tensor(rates)
    for optimizer in optimizers:
        for name, weight in weights.items():
            state = optimizer.state.get(weight)
            if state is None:
                continue
            out[f"{case}.weight.{name}"] = weight.detach().float()
            if "exp_avg" in state:
                out[f"{case}.first.{name}"] = state["exp_avg"].float()
                out[f"{case}.second.{name}"] = state["exp_avg_sq"].float()
            else:
                out[f"{case}.momentum.{name}"] = state["momentum_buffer"].float()


def main(path):
    torch.manual_seed(1)
    use_double_inside_muon()
    start = {n: torch.randn(s) * (0.3 if len(s) == 2 else 0.1) + (len(s) == 1) for n, s in SHAPES.items()}
    gradients = [{n: torch.randn(s) * 10 ** torch.empty(s).uniform_(-3, 0) for n, s in SHAPES.items()}
                 for _ in range(STEPS)]
    # some clipped steps, some not
    for step in range(0, STEPS, 3):
        gradients[step] = {n: g * 0.01 for n, g in gradients[step].items()}
    out = {f"start.{n}": w for n, w in start.items()}
    for step, of_step in enumerate(gradients):
        out |= {f"gradient.{step}.{n}": g for n, g in of_step.items()}

    rest = [n for n in SHAPES if n not in HIDDEN]
    run("adamw", start, gradients, lambda w: [adamw(w, list(SHAPES), **ADAMW)], out)
    run("clipped", start, gradients, lambda w: [adamw(w, list(SHAPES), **ADAMW)], out, clip=1.0,
        schedule=lambda s: (s + 1) / 5 if s < 5 else 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (s - 5) / 15)))
    for case, options in {
            "muon": dict(lr=2e-3, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
            "spectral": dict(lr=0.02, momentum=0.9, adjust_lr_fn="original")}.items():
        run(case, start, gradients, lambda w: [torch.optim.Muon([w[n] for n in HIDDEN], weight_decay=0.1, **options),
                                               adamw(w, rest, **ADAMW)], out)
    save_file({n: t.contiguous() for n, t in out.items()}, path)


main(sys.argv[1])
