"""Writes ../fixtures/merge_references/model.safetensors: published methods of merging tokens, computed in float64 from
their formulas, with the gradients that autograd finds. Random numbers are float32 and results are rounded to it.

    python make_merge_references_fixture.py ../fixtures/merge_references/model.safetensors

x [T, D] are the tokens and the loss is the sum of y * dy. The layers between are s(z) = z + z^2 / 2 of each number.
project and shift: the routers' matrices are W_k = project and W_q = project + shift, residual is H-Net's.
"""

import sys

import torch
from safetensors.torch import save_file

TOKENS, WIDTH, STRIDE = 26, 6, 3


def numbers(*shape, spread=1.0):
    """Of float32, so that what is written is what is computed with."""
    return (torch.randn(shape, dtype=torch.float32) * spread).double()


def layers(z):
    return z + z * z / 2


def boundary_probabilities(x, w_q, w_k):
    """H-Net, equation 4: q of a token and k of the next one."""
    q, k = x[:-1] @ w_q.T, x[1:] @ w_k.T
    cosine = (q * k).sum(-1) / (q.norm(dim=-1) * k.norm(dim=-1))
    return torch.cat([torch.ones(1, dtype=x.dtype), (1 - cosine) / 2])


def hnet(x, project, shift, residual):
    """Sections 2.2.1 and 2.2.2, and modules/dc.py, models/hnet.py of goombalab/hnet."""
    p = boundary_probabilities(x, project + shift, project)
    chosen = p > 0.5
    assert (p[1:] - 0.5).abs().min() > 1e-3 and 5 < chosen.sum() < TOKENS - 5
    inner, weight = layers(x[chosen]), p[chosen].clamp(1e-4, 1 - 1e-4)
    smoothed, past = [], torch.zeros(WIDTH, dtype=x.dtype)
    for one, share in zip(inner, weight):
        past = share * one + (1 - share) * past
        smoothed.append(past)
    confidence = torch.where(chosen, p, 1 - p)
    straight_through = 1 + confidence - confidence.detach()
    copied = torch.stack(smoothed)[chosen.cumsum(0) - 1]
    return copied * straight_through[:, None] + x @ residual.T


def dynamic_pooling(x, boundaries, null):
    """Matrices of shares, as the paper and shortening.py of PiotrNawrot/dynamic-pooling have them: a token is in the
    group of as many boundaries as there are before it, and reads that of those up to it, where group 0 is `null`."""
    groups = torch.arange(int(boundaries.sum()))
    before = boundaries.cumsum(0) - boundaries
    member = (before[:, None] == groups).double()
    z = torch.cat([null, (member / member.sum(0)).T @ x])
    reads = (boundaries.cumsum(0)[:, None] == torch.arange(len(z))).double()
    assert reads[:, 0].sum() == 0  # the first token is a boundary
    return x + reads @ layers(z)


def mean_of_strides(x):
    """The groups that end with tokens 0, STRIDE, 2 STRIDE, ..."""
    ends = range(0, TOKENS, STRIDE)
    z = torch.stack([x[max(0, end - STRIDE + 1):end + 1].mean(0) for end in ends])
    # Hourglass shifts tokens by STRIDE - 1 zeros: the first group alone is another.
    shifted = torch.cat([torch.zeros(STRIDE - 1, WIDTH, dtype=x.dtype), x])
    shifted = shifted[:len(z) * STRIDE].view(len(z), STRIDE, WIDTH).mean(1)
    assert (shifted[1:] - z[1:]).abs().max() < 1e-15
    return z


def hourglass(x):
    """Algorithm 1: average pooling, linear upsampling by repetition, and the residual."""
    return x + layers(mean_of_strides(x)).repeat_interleave(STRIDE, 0)[:TOKENS]


def copy_unmerge(x):
    """ToMe-SD: x + unmerge(f(merge(x))), f what the layers add, of the same groups as Hourglass."""
    z = mean_of_strides(x)
    return x + (layers(z) - z).repeat_interleave(STRIDE, 0)[:TOKENS]


def main(path):
    torch.manual_seed(12)
    x = numbers(TOKENS, WIDTH)
    for t in range(1, TOKENS):
        if t % 5 in (1, 2, 4):  # near the token before
            x[t] = (0.9 * x[t - 1] + 0.3 * x[t]).float().double()
    given = {"x": x, "project": numbers(WIDTH, WIDTH), "shift": numbers(WIDTH, WIDTH, spread=0.2),
             "residual": numbers(WIDTH, WIDTH, spread=0.5), "dy": numbers(TOKENS, WIDTH)}
    with torch.no_grad():
        boundaries = (boundary_probabilities(x, given["project"] + given["shift"], given["project"]) > 0.5).long()
    null = numbers(1, WIDTH)
    arms = {"hnet": (hnet, ("x", "project", "shift", "residual")),
            "dynamic": (lambda rows: dynamic_pooling(rows, boundaries, null), ("x",)),
            "hourglass": (hourglass, ("x",)), "copy": (copy_unmerge, ("x",))}
    out = dict(given)
    for name, (arm, reads) in arms.items():
        leaves = [given[one].clone().requires_grad_() for one in reads]
        y = arm(*leaves)
        (y * given["dy"]).sum().backward()
        out[f"{name}.y"] = y
        out |= {f"{name}.d{one}": leaf.grad for one, leaf in zip(reads, leaves)}
    save_file({name: tensor.detach().float().contiguous() for name, tensor in out.items()}, path)


if __name__ == "__main__":
    main(sys.argv[1])
