#!/usr/bin/env python3
"""Writes tests/fixtures/capacity: routers with capacity in float64, as their sources write them.
  orders.*  : which choices keep their room. `choice` is mesh's top_2_gating (transformer/moe.py), `position` and
              `probability` Megatron-LM's topk_softmax_with_capacity, `prioritized` Tutel's batch_prioritized_routing.
  counts.*  : capacities by the three rules of rounding.
  switch.*, gshard.* : one router each, its gates, what it drops, the auxiliary loss (Switch, arXiv 2101.03961, eq. 4;
              GShard, arXiv 2006.16668, algorithm 1: of first choices alone) and gradients by autograd. The second
              expert of GShard is always kept (a threshold near 0): what chance does to it has tests of its own.
  choosing.*: experts that choose tokens (arXiv 2202.09368, section 3.2), sequence by sequence.
Runs in a second and gives the same bytes every time."""
import math
import os

import torch
from safetensors.torch import save_file

torch.manual_seed(12)
out = {}


def one_hot(index, n):
    return torch.nn.functional.one_hot(index, n)


def cumulated(mask):  # 1, 2, ... down each column where the mask is set
    return torch.cumsum(mask, 0) * mask


# Orders.
T, K, E, C = 40, 2, 5, 11
gates = torch.softmax(2.0 * torch.randn(T, E, dtype=torch.float64), -1)
gates[7] = gates[3]  # ties go to the earlier token
gates[29] = gates[3]
weights, chosen = gates.topk(K)
masks = [one_hot(chosen[:, k], E) for k in range(K)]
both = masks[0] + masks[1]
first = cumulated(masks[0])
kept = {"position": (cumulated(both) * both <= C) & (both > 0)}
kept_1 = (first <= C) & (masks[0] > 0)
second = torch.cumsum(masks[1], 0) + kept_1.sum(0)
kept["choice"] = kept_1 | ((second <= C) & (masks[1] > 0))
masked = gates * both
mine = torch.zeros_like(both, dtype=torch.bool)
for e in range(E):  # topk by a stable sort
    order = torch.argsort(-masked[:, e], stable=True)[:C]
    mine[order, e] = both[order, e] > 0
kept["probability"] = mine
order = torch.argsort(-weights.max(1).values, stable=True)
back = torch.empty_like(order)
back[order] = torch.arange(T)
locations_1 = torch.cumsum(masks[0][order], 0)[back] - 1
locations_2 = torch.cumsum(masks[1][order], 0)[back] - 1 + masks[0].sum(0)
kept["prioritized"] = ((locations_1 < C) & (masks[0] > 0)) | ((locations_2 < C) & (masks[1] > 0))
out["orders.weights"], out["orders.chosen"] = weights, chosen
for name, mask in kept.items():
    out["orders." + name] = torch.where(mask.gather(1, chosen), chosen, ~chosen)
    print(name, "drops", int((~mask.gather(1, chosen)).sum()), "of", T * K)
assert len({tuple(out["orders." + n].flatten().tolist()) for n in kept}) == 4  # they differ

# Capacities.
rows, factors = [], []
for t, k, e, c in ((4096, 8, 64, 1.25), (1000, 2, 7, 1.0), (1000, 2, 7, 2.0), (37, 1, 8, 1.25), (5, 2, 16, 1.0),
                   (1, 2, 16, 1.5), (64, 4, 8, 0.3)):
    rows.append([t, k, e, math.ceil((t * k / e) * c), max(min(t, int(t * c / e)), 4), k * int(c * ((t + e - 1) // e))])
    factors.append(c)
out["counts.rules"], out["counts.factors"] = torch.tensor(rows), torch.tensor(factors, dtype=torch.float64)

# Routers.
T, H, E, ALPHA = 24, 6, 4, 0.05
for name, K, C in (("switch", 1, 7), ("gshard", 2, 12)):  # ceil(24 / 4 * 1.1), ceil(48 / 4 * 1.0)
    x = torch.randn(T, H).double().requires_grad_()  # floats: the fixture keeps all their bits
    w = torch.randn(E, H).double().requires_grad_()
    p = torch.softmax(x @ w.T, -1)
    top, chosen = p.topk(K)
    g = top if K == 1 else top / top.sum(-1, keepdim=True)
    masks = [one_hot(chosen[:, k], E) for k in range(K)]
    keep = [(cumulated(masks[0]) <= C) & (masks[0] > 0)]
    if K == 2:
        keep.append((torch.cumsum(masks[1], 0) + keep[0].sum(0) <= C) & (masks[1] > 0))
    keep = torch.stack([m.any(-1) for m in keep], 1)
    assert 0 < int((~keep).sum()) < T
    f = masks[0].double().mean(0)  # of all tokens, before anything is dropped
    loss = ALPHA * E * (f * p.mean(0)).sum()
    dweights = torch.randn(T, K).double()
    ((g * keep * dweights).sum() + loss).backward()
    margin = p.sort(-1, descending=True).values
    assert (margin[:, :K] - margin[:, 1:K + 1]).min() > 1e-4
    out |= {name + ".x": x, name + ".weight": w, name + ".chosen": torch.where(keep, chosen, ~chosen),
            name + ".weights": g, name + ".dweights": dweights * keep, name + ".loss": loss[None],
            name + ".dx": x.grad, name + ".dweight": w.grad}
    print(name, "drops", int((~keep).sum()), "loss", loss.item())

# Experts choose.
lengths, FACTOR = (10, 7), 2.0
x = torch.randn(sum(lengths), H).double().requires_grad_()
w = torch.randn(E, H).double().requires_grad_()
s = torch.softmax(x @ w.T, -1)
taken, begin = torch.zeros_like(s, dtype=torch.bool), 0
for n in lengths:
    capacity = int(n * FACTOR / E)
    part = s[begin:begin + n]
    taken[begin:begin + n].scatter_(0, part.topk(capacity, dim=0).indices, True)
    begin += n
dweights = torch.randn(s.shape).double() * taken
(s * dweights).sum().backward()
out |= {"choosing.x": x, "choosing.weight": w, "choosing.taken": taken.int(), "choosing.weights": s,
        "choosing.dweights": dweights, "choosing.dx": x.grad, "choosing.dweight": w.grad}
print("experts a token", taken.sum(1).tolist())

place = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "capacity")
os.makedirs(place, exist_ok=True)
save_file({n: (t.detach().float() if t.dtype.is_floating_point else t.int()).contiguous() for n, t in out.items()},
          os.path.join(place, "model.safetensors"))
