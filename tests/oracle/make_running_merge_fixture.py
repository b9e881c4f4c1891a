#!/usr/bin/env python3
"""Writes tests/fixtures/running_merge/model.safetensors: one layer of latent attention whose keys are merged in the
cache, with random weights, the input x, what comes of it, y, and the gradients of sum(dy * y) (d.x, d.latent_down.weight
...). All of it in float64 by PyTorch, token by token, as the definition says: each token attends to a list of its own,
the mean of each group before its own and the mean of its own so far, each with the logarithm of how many tokens it is
of added to its scores and turned by the position of the last of them. Tensors are named as the module's paths."""
import math
import os
from fractions import Fraction

import torch
from safetensors.torch import save_file

HIDDEN, H, Q, C, N, R, V, T, EPS = 24, 3, 10, 8, 6, 4, 5, 61, 1e-6
NUM, DEN, BURST, LONGEST, THRESHOLD = 1, 2, 3, 5, 0.2
torch.set_default_dtype(torch.float64)
torch.manual_seed(12)
shapes = {"query_down.weight": (Q, HIDDEN), "query_norm.weight": (Q,), "query_up.weight": (H * (N + R), Q),
          "latent_down.weight": (C + R, HIDDEN), "latent_norm.weight": (C,), "latent_up.weight": (H * (N + V), C),
          "sinks": (H,), "output.weight": (HIDDEN, H * V)}
w = {}
for name, shape in shapes.items():
    wide = 1.5 * shape[-1] ** -0.5 if len(shape) > 1 else 0.3
    values = (1.0 if "norm" in name else 0.0) + wide * torch.randn(shape)
    w[name] = values.float().double().requires_grad_()
rows = [torch.randn(HIDDEN)]
for t in range(1, T):  # stretches of tokens that are much alike, and others
    share = 0.15 if torch.rand(1) < 0.6 else 1.0
    rows.append((1 - share) * rows[-1] + share * torch.randn(HIDDEN))
x = torch.stack(rows).float().double().requires_grad_()
dy = torch.randn(T, HIDDEN).float().double()


def norm(v, weight):
    return v / torch.sqrt((v * v).mean() + EPS) * weight


def turned(v, position):  # pairs of neighbours
    angle = position * 10000.0 ** (-torch.arange(0, R, 2) / R)
    out = torch.empty_like(v)
    out[..., ::2] = v[..., ::2] * torch.cos(angle) - v[..., 1::2] * torch.sin(angle)
    out[..., 1::2] = v[..., ::2] * torch.sin(angle) + v[..., 1::2] * torch.cos(angle)
    return out


down = x @ w["latent_down.weight"].T
latents = torch.stack([norm(one, w["latent_norm.weight"]) for one in down[:, :C]])
keys = down[:, C:]
novelty = [1.0] + [(1 - torch.nn.functional.cosine_similarity(latents[t], latents[t - 1], 0).item()) / 2
                   for t in range(1, T)]
groups, bucket = [], Fraction(BURST)
for t in range(T):
    bucket = Fraction(BURST) if t == 0 else min(bucket + Fraction(NUM, DEN), Fraction(BURST))
    wanted = t == 0 or novelty[t] >= THRESHOLD or len(groups[-1]) == LONGEST
    if wanted and bucket >= 1:
        bucket -= 1
        groups.append([t])
    else:
        groups[-1].append(t)

y = []
for t in range(T):
    seen = [[i for i in group if i <= t] for group in groups if group[0] <= t]
    assert all(len(part) == len(group) or t in group for part, group in zip(seen, groups))
    latent = torch.stack([latents[part].mean(0) for part in seen])
    rotary = torch.stack([turned(keys[part].mean(0), part[-1]) for part in seen])
    query = (w["query_up.weight"] @ norm(w["query_down.weight"] @ x[t], w["query_norm.weight"])).reshape(H, N + R)
    up = (latent @ w["latent_up.weight"].T).reshape(len(seen), H, N + V)
    scores = torch.einsum("hn,shn->hs", query[:, :N], up[..., :N]) + turned(query[:, N:], t) @ rotary.T
    scores = scores / math.sqrt(N + R) + torch.log(torch.tensor([float(len(part)) for part in seen]))
    share = torch.softmax(torch.cat([scores, w["sinks"][:, None]], 1), 1)[:, :-1]
    y.append(w["output.weight"] @ torch.einsum("hs,shv->hv", share, up[..., N:]).reshape(-1))
y = torch.stack(y)
(y * dy).sum().backward()
gap = min(abs(p - THRESHOLD) for p in novelty)
refused = sum(novelty[t] >= THRESHOLD for group in groups for t in group[1:])
print(len(groups), "groups of", T, "tokens, the longest", max(map(len, groups)), "- wishes refused:", refused,
      "- closest to the threshold:", gap)
assert gap > 1e-3 and refused > 0 and len(groups) < 0.7 * T and max(map(len, groups)) == LONGEST
tensors = {**w, "x": x, "y": y, "dy": dy, "d.x": x.grad} | {"d." + name: value.grad for name, value in w.items()}
begins = torch.tensor([group[0] for group in groups], dtype=torch.int32)
folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "running_merge")
os.makedirs(folder, exist_ok=True)
save_file({name: tensor.detach().float().contiguous() for name, tensor in tensors.items()} | {"begins": begins},
          os.path.join(folder, "model.safetensors"))
