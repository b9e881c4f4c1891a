#!/usr/bin/env python3
"""Writes tests/fixtures/routers/model.safetensors: routers with noise, computed by torch in float64 from the formulas of
their sources, gradients by autograd. Random numbers are guild's counters, drawn here a second time in Python: Philox
4x32-10 of (column, row, layer, purpose) under the seed. Shared: x, dweights, weight, noise_weight.

noisy.*: noisy_top_k_gating and _prob_in_top_k of tensor2tensor (utils/expert_utils.py), with w * CV^2 of importance and
load (arXiv 1701.06538, eq. 6-11)."""
import math
import os

import numpy as np
import torch
from safetensors.torch import save_file

T, HIDDEN, E, K, SEED, LAYER = 7, 6, 8, 3, 0x123456789ABCDEF, 3
torch.manual_seed(5)


def words(counter, key):
    c, k = list(counter), [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return [(w + 0.5) / 2**32 for w in c]


def draws(rows, cols, purpose, f):
    return torch.tensor([[f(words((c, r, LAYER, purpose), SEED)) for c in range(cols)] for r in range(rows)]).double()


def normal(u):
    return math.sqrt(-2 * math.log(u[0])) * math.cos(2 * math.pi * u[1])


def single(*shape):  # float64 whose values floats hold
    return torch.randn(*shape).double()


def cv_squared(v):
    return v.var(unbiased=False) / (v.mean() ** 2 + 1e-10)


x, dweights = single(T, HIDDEN), single(T, K)
weight, noise_weight = 0.5 * single(E, HIDDEN), 0.5 * single(E, HIDDEN)
out = {"x": x, "dweights": dweights, "weight": weight, "noise_weight": noise_weight}


def leaf(*tensors):
    return [t.clone().requires_grad_() for t in tensors]


h, wg, wn = leaf(x, weight, noise_weight)
clean = h @ wg.T
deviation = torch.nn.functional.softplus(h @ wn.T) + 1e-2
noisy = clean + draws(T, E, 1, normal) * deviation
top, chosen = torch.topk(noisy, K + 1, dim=1)
gates_tk = torch.softmax(top[:, :K], dim=1)
gates = torch.zeros(T, E).double().scatter(1, chosen[:, :K], gates_tk)
inside = noisy > top[:, K:K + 1]
threshold = torch.where(inside, top[:, K:K + 1], top[:, K - 1:K])
load = torch.distributions.Normal(0.0, 1.0).cdf((clean - threshold) / deviation).sum(0)
terms = torch.stack([0.1 * cv_squared(gates.sum(0)), 0.2 * cv_squared(load)])
((gates_tk * dweights).sum() + terms.sum()).backward()
out.update({"noisy.experts": chosen[:, :K].int(), "noisy.weights": gates_tk, "noisy.terms": terms, "noisy.dx": h.grad,
            "noisy.dweight": wg.grad, "noisy.dnoise_weight": wn.grad})

folder = os.path.join(os.path.dirname(__file__), "..", "fixtures", "routers")
os.makedirs(folder, exist_ok=True)
save_file({name: (t if t.dtype == torch.int32 else t.detach().float()).contiguous() for name, t in out.items()},
          os.path.join(folder, "model.safetensors"))
