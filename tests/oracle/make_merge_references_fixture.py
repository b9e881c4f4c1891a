"""Writes ../fixtures/merge_references/model.safetensors: published methods of merging tokens, computed in float64 from
their formulas, with the gradients that autograd finds. Random numbers are float32 and results are rounded to it.

    python make_merge_references_fixture.py ../fixtures/merge_references/model.safetensors

x [T, D] are the tokens and the loss is the sum of y * dy. The layers between are z + z^2 / 2 of each number, and a
quarter of the sum of the slots before.
The routers' matrices are W_k = 1 + project and W_q = 1 + shift, residual is H-Net's.
"""

import sys

import torch
from safetensors.torch import save_file

TOKENS, WIDTH, STRIDE, WINDOW, QUOTA = 26, 6, 3, 8, 3


def numbers(*shape, spread=1.0):
    """Of float32, so that what is written is what is computed with."""
    return (torch.randn(shape, dtype=torch.float32) * spread).double()


def layers(z):
    return z + z * z / 2 + (z.cumsum(0) - z) / 4


def rows_compared(x, project, shift):
    """q and k."""
    return x + x @ shift.T, x + x @ project.T


def boundary_probabilities(x, project, shift):
    """H-Net, equation 4: q of a token and k of the next one."""
    q, k = rows_compared(x, project, shift)
    q, k = q[:-1], k[1:]
    cosine = (q * k).sum(-1) / (q.norm(dim=-1) * k.norm(dim=-1))
    return torch.cat([torch.ones(1, dtype=x.dtype), (1 - cosine) / 2])


def hnet(x, project, shift, residual):
    """Sections 2.2.1 and 2.2.2, and modules/dc.py, models/hnet.py of goombalab/hnet."""
    p = boundary_probabilities(x, project, shift)
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
    group of as many boundaries as there are before it, and reads that of those up to it, where group 0 is `null`,
    whose slot is left out of the layers here."""
    groups = torch.arange(int(boundaries.sum()))
    before = boundaries.cumsum(0) - boundaries
    member = (before[:, None] == groups).double()
    z = (member / member.sum(0)).T @ x
    reads = (boundaries.cumsum(0)[:, None] == torch.arange(len(z) + 1)).double()
    assert reads[:, 0].sum() == 0  # the first token is a boundary
    return x + reads @ torch.cat([null, layers(z)])


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


def bipartite_groups(earlier, later, quota):
    """ToMe's matching of even with odd tokens within a band of 1 (local merging with k = 1): groups of a window."""
    a, b = (rows[offset::2] / rows[offset::2].norm(dim=-1, keepdim=True) for rows, offset in ((earlier, 0), (later, 1)))
    scores = a @ b.T
    index = torch.arange(len(a))
    scores = scores.masked_fill((index[:, None] - index).abs() >= 1, -torch.inf)
    best, to = scores.max(dim=-1)
    chosen = best.argsort(descending=True)[:quota]
    groups = {2 * j + 1: [2 * j + 1] for j in range(len(b))}  # by the token of B
    for i in range(len(a)):
        if i in chosen:
            groups[2 * int(to[i]) + 1].append(2 * i)
        else:
            groups[2 * i] = [2 * i]
    return sorted(sorted(group) for group in groups.values())


def tome(x, project, shift):
    """Merged within complete windows; a token reads the last slot of the windows that are complete with it."""
    earlier, later = rows_compared(x.detach(), project, shift)
    y, last, slots = [], None, x[:0]
    for begin in range(0, TOKENS, WINDOW):
        window = slice(begin, begin + WINDOW)
        whole = begin + WINDOW <= TOKENS
        y += list(x[window][:-1 if whole else None] + (0 if last is None else last))
        if whole:
            groups = bipartite_groups(earlier[window], later[window], QUOTA)
            assert len(groups) == WINDOW - QUOTA and sum(groups, []) == list(range(WINDOW))
            slots = torch.cat([slots, torch.stack([x[window][group].mean(0) for group in groups])])
            last = (layers(slots) - slots)[-1]
            y.append(x[begin + WINDOW - 1] + last)
    return torch.stack(y)


def main(path):
    torch.manual_seed(12)
    x = numbers(TOKENS, WIDTH)
    for t in range(1, TOKENS):
        if t % 5 in (1, 2, 4):  # near the token before
            x[t] = (0.9 * x[t - 1] + 0.3 * x[t]).float().double()
    given = {"x": x, "project": numbers(WIDTH, WIDTH, spread=0.3), "shift": numbers(WIDTH, WIDTH, spread=0.3),
             "residual": numbers(WIDTH, WIDTH, spread=0.5), "dy": numbers(TOKENS, WIDTH)}
    with torch.no_grad():
        boundaries = (boundary_probabilities(x, given["project"], given["shift"]) > 0.5).long()
    null = numbers(1, WIDTH)
    arms = {"hnet": (hnet, ("x", "project", "shift", "residual")),
            "dynamic": (lambda rows: dynamic_pooling(rows, boundaries, null), ("x",)),
            "hourglass": (hourglass, ("x",)), "copy": (copy_unmerge, ("x",)),
            "tome": (lambda rows: tome(rows, given["project"], given["shift"]), ("x",))}
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
