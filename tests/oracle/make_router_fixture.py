#!/usr/bin/env python3
"""Writes tests/fixtures/routers/model.safetensors: routers with noise, computed by torch in float64 from the formulas
of their sources, gradients by autograd. Random numbers are guild's counters, drawn here a second time in Python: Philox
4x32-10 of (column, row, layer, purpose) under the seed. Shared: x, dweights, weight, noise_weight.

noisy.*: noisy_top_k_gating and _prob_in_top_k of tensor2tensor (utils/expert_utils.py), with w * CV^2 of importance and
load (arXiv 1701.06538, eq. 6-11).
jitter.*: softmax top-k, normalised, of x * U[0.9, 1.1] (Switch Transformer).
buffering.*: counts of experts and the states after them, by a loop of its own over the rule.
sinkhorn1.*, sinkhorn3.*: for one expert and three, by sinkhorn and sinkhorn_load_balancing of Megatron-LM.
dropout.*, dropout_ungated.*: experts of 5 inner units with dropout 0.4 (Switch Transformer, section 2.4), y and gradients.
gumbel.*: chosen by logits + Gumbel noise, gates of the logits, normalised (DeepSpeed moe/sharded_moe.py, RSample)."""
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



def plain(name, h, wg, choice):
    gates = torch.softmax(choice, dim=1)
    chosen = torch.topk(gates, K, dim=1).indices
    own = torch.softmax(h @ wg.T, dim=1).gather(1, chosen)
    weights = own / own.sum(1, keepdim=True)
    (weights * dweights).sum().backward()
    out.update({name + ".experts": chosen.int(), name + ".weights": weights, name + ".dweight": wg.grad})


h, wg = leaf(x, weight)
shaken = h * draws(T, HIDDEN, 3, lambda u: 1 + 0.1 * (2 * u[0] - 1))
plain("jitter", shaken, wg, shaken @ wg.T)
out["jitter.dx"] = h.grad
h, wg = leaf(x, weight)
plain("gumbel", h, wg, h @ wg.T + draws(T, E, 2, lambda u: -math.log(-math.log(u[0]))))
out["gumbel.dx"] = h.grad



def sinkhorn(cost, tol=0.0001):  # Megatron-LM, core/transformer/moe/moe_utils.py, in float64
    cost = torch.exp(cost)
    d0, d1, eps, error = torch.ones(cost.size(0)).double(), torch.ones(cost.size(1)).double(), 1e-8, 1e9
    d1_old, rounds = d1, 0
    while error > tol:
        d0 = (1 / d0.size(0)) * 1 / (torch.sum(d1 * cost, 1) + eps)
        d1 = (1 / d1.size(0)) * 1 / (torch.sum(d0.unsqueeze(1) * cost, 0) + eps)
        error, d1_old, rounds = torch.mean(torch.abs(d1_old - d1)), d1, rounds + 1
    print("sinkhorn:", rounds, "rounds")
    return d1 * cost * d0.unsqueeze(1)


many = 24
skewed = single(many, HIDDEN) + 0.8 * weight[2]  # most tokens would go to expert 2
out["sinkhorn.x"] = skewed
for k in (1, K):
    h, wg = leaf(skewed, weight)
    logits = h @ wg.T
    matrix = sinkhorn(logits.detach())
    chosen = torch.topk(matrix, k, dim=1).indices
    scores = (torch.sigmoid(logits) if k == 1 else torch.softmax(logits, dim=1)).gather(1, chosen)
    dw = single(many, k)
    (scores * dw).sum().backward()
    name = f"sinkhorn{k}."
    out.update({name + "matrix": matrix, name + "experts": chosen.int(), name + "weights": scores, name + "dx": h.grad,
                name + "dweight": wg.grad, name + "dweights": dw})

# Expert buffering as docs/training.md says it, step by step over random counts with a favourite that moves.
E_B, K_B, GROUPS, SLACK, DECAY, MOST, STEPS = 16, 2, 2, 0.4, 0.7, 4, 60
random = np.random.default_rng(3)
average, blocked, counts, states = np.full(E_B, K_B / E_B), np.zeros(E_B, int), [], []
for step in range(STEPS):
    weights = random.random(E_B) * np.where(blocked > 0, 0, 1)
    weights[(step // 12 * 5 + np.arange(3)) % E_B] *= 8
    count = np.floor(100 * weights / weights.sum())
    average = DECAY * average + (1 - DECAY) * K_B * count / count.sum()
    mean, fresh = K_B / E_B, set()
    for e in np.flatnonzero(blocked):
        if average[e] < (1 + SLACK / 2) * mean or blocked[e] >= MOST:
            blocked[e], fresh = 0, fresh | {e}
        else:
            blocked[e] += 1
    for e in np.argsort(-average):
        group = e // (E_B // GROUPS) * (E_B // GROUPS)
        open_ones = (blocked[group:group + E_B // GROUPS] == 0).sum()
        if blocked[e] == 0 and e not in fresh and average[e] > (1 + SLACK) * mean and open_ones > K_B + 1:
            blocked[e] = 1
    counts.append(count)
    states.append(np.concatenate([average - mean, blocked]))
out["buffering.counts"], out["buffering.states"] = torch.tensor(np.array(counts)), torch.tensor(np.array(states))

# Expert dropout: inner units of (token, expert) by draws of row token * E + expert; silu(gate) * up, or relu(up)^2.
F_D, P_D = 5, 0.4
ways = {"gate": 0.7 * single(E, F_D, HIDDEN), "up": 0.7 * single(E, F_D, HIDDEN), "down": 0.7 * single(E, HIDDEN, F_D)}
dy = single(T, HIDDEN)
out.update({"dropout.dy": dy, **{"dropout." + name: w for name, w in ways.items()}})
mask = draws(T * E, F_D, 6, lambda u: 0.0 if u[0] < P_D else 1 / (1 - P_D)).view(T, E, F_D)
for name in ("dropout", "dropout_ungated"):
    h, wg, gate, up, down = leaf(x, weight, *ways.values())
    top, chosen = torch.topk(h @ wg.T, K, dim=1)
    gates = torch.zeros(T, E).double().scatter(1, chosen, torch.softmax(top, dim=1))
    inner = torch.einsum("efh,th->tef", up, h)
    if name == "dropout":
        inner = torch.nn.functional.silu(torch.einsum("efh,th->tef", gate, h)) * inner
    else:
        inner = torch.relu(inner) ** 2
    y = torch.einsum("te,tef,ehf->th", gates, inner * mask, down)
    (y * dy).sum().backward()
    out.update({name + ".y": y, name + ".dx": h.grad, name + ".drouter": wg.grad, name + ".dup": up.grad,
                name + ".ddown": down.grad})
    if name == "dropout":
        out["dropout.dgate"] = gate.grad

folder = os.path.join(os.path.dirname(__file__), "..", "fixtures", "routers")
os.makedirs(folder, exist_ok=True)
save_file({name: (t if t.dtype == torch.int32 else t.detach().float()).contiguous() for name, t in out.items()},
          os.path.join(folder, "model.safetensors"))
