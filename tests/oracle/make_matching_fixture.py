#!/usr/bin/env python3
"""Writes tests/fixtures/matching/model.safetensors: what the papers' formulas make of a random sequence, in float64,
with the gradients that torch's autograd finds. Written from the papers alone: ToMe (arXiv 2210.09461, section 3), PiToMe
(arXiv 2405.16148, equation 4), local merging (arXiv 2405.17951, k = 1), PatchMerger (arXiv 2202.12015, equation 1), Soft
MoE (arXiv 2308.00951, equations 1 to 3). Layers double their rows: what they add to a slot is the slot. Inputs: x,
masses, tokens, dy, and weights; results of each case: into, slots, mass, y, dx, and the gradients of its weights."""
import os

import torch
from safetensors.torch import save_file

N, D, A, B, M, EPS = 13, 10, 4, 3, 5, 1e-6
PROTECTED = {3, 7}
torch.manual_seed(4)


def rounded(*shape, scale=1.0):
    return (scale * torch.randn(*shape)).float().double()


x, dy = rounded(N, D), rounded(N, D)
masses = torch.tensor([1 + (5 * t) % 3 for t in range(N)]).double()
tokens = torch.tensor([(3 * t) % 10 if t % 4 else 1 for t in range(N)])
weights = {"gate_down": rounded(A, D, scale=0.3), "gate_up": rounded(D, A, scale=0.3),
           "detail_down": rounded(B, D, scale=0.3), "detail_up": rounded(D, B, scale=0.3)}
phi = rounded(M, D, scale=0.5)


def cosine(a, b):
    return float(x[a] @ x[b] / (x[a].norm() * x[b].norm()))


def tome(a, b, r):  # a draws its edge to the most similar of b; the r most similar edges merge
    edges = []
    for t in a:
        best = max(b, key=lambda u: (cosine(t, u), -u))
        edges.append((-cosine(t, best), t, best))
    return {t: u for _, t, u in sorted(edges)[:r]}


def free_tokens(protected):
    return [t for t in range(N) if int(tokens[t]) not in protected]


def bipartite(share, parity, protected):
    free = free_tokens(protected)
    return tome(free[parity::2], free[1 - parity::2], min(int(N * share), len(free) // 2))


def energy(share, protected, margin=0.5, alpha=1.0):
    free = free_tokens(protected)

    def f(c):
        return c if c >= margin else alpha * (float(torch.exp(torch.tensor(c - margin).double())) - 1)

    scores = {t: sum(f(cosine(t, u)) for u in free if u != t) / (len(free) - 1) for t in free}
    r = min(int(N * share), len(free) // 2)
    redundant = sorted(free, key=lambda t: (-scores[t], t))[:2 * r]
    return tome(redundant[0::2], redundant[1::2], r)


def neighbours(share, parity, protected):
    free = free_tokens(protected)[parity:]
    pairs = sorted((-cosine(free[i], free[i + 1]), i) for i in range(0, len(free) - 1, 2))
    pairs = pairs[:min(int(N * share), len(free) // 2)]
    return {free[i]: free[i + 1] for _, i in pairs}  # the first of a pair goes to the second


def matched(merge):
    xs = x.clone().requires_grad_()
    w = {name: one.clone().requires_grad_() for name, one in weights.items()}
    groups = {}
    for t in range(N):
        groups.setdefault(merge.get(t, t), []).append(t)
    groups = sorted(groups.values())
    slots = [sum(masses[t] * xs[t] for t in g) / sum(masses[t] for t in g) for g in groups]
    y = [None] * N
    for g, z in zip(groups, slots):
        for t in g:
            if len(g) == 1:
                y[t] = 2 * xs[t]
                continue
            r = xs[t] - z  # unmerged: every token of a group gets what was added to its slot
            y[t] = (xs[t] + (1 + torch.tanh(w["gate_up"] @ (w["gate_down"] @ r))) * z
                    + w["detail_up"] @ torch.nn.functional.silu(w["detail_down"] @ r))
    y = torch.stack(y)
    (y * dy).sum().backward()
    into = torch.tensor([merge.get(t, t) for t in range(N)], dtype=torch.int32)
    mass = torch.stack([sum(masses[t] for t in g) for g in groups])
    out = {"into": into, "slots": torch.stack(slots), "mass": mass, "y": y, "dx": xs.grad}
    return out | {"d" + name: one.grad for name, one in w.items()}


def soft_slots():
    xs, p = x.clone().requires_grad_(), phi.clone().requires_grad_()
    normed = xs / torch.sqrt((xs * xs).mean(1, keepdim=True) + EPS)
    logits = normed @ p.T
    dispatch = torch.softmax(logits + masses.log()[:, None], 0)
    slots = dispatch.T @ xs
    y = xs + torch.softmax(logits, 1) @ slots
    (y * dy).sum().backward()
    return {"slots": slots, "y": y, "dx": xs.grad, "dphi": p.grad}


cases = {"tome_third": matched(bipartite(1 / 3, 0, PROTECTED)), "tome_half": matched(bipartite(1 / 2, 1, set())),
         "energy_quarter": matched(energy(1 / 4, PROTECTED)), "neighbours": matched(neighbours(1 / 4, 0, PROTECTED)),
         "odd_neighbours": matched(neighbours(1 / 3, 1, set())), "soft": soft_slots()}
tensors = {"x": x, "dy": dy, "masses": masses, "tokens": tokens.int(), "phi": phi} | weights
for case, values in cases.items():
    print(case, values["into"].tolist() if "into" in values else "", len(values["slots"]), "slots")
    tensors |= {case + "." + name: value for name, value in values.items()}
folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "matching")
os.makedirs(folder, exist_ok=True)
save_file({name: (t if t.dtype == torch.int32 else t.float()).detach().contiguous() for name, t in tensors.items()},
          os.path.join(folder, "model.safetensors"))
