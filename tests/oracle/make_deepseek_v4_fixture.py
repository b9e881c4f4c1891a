"""Writes ../fixtures/deepseek_v4/model.safetensors: hyper-connections and routers of transformers' DeepSeek-V4 modules
(5.24) on random numbers, with the gradients that autograd finds for them, all in float64 (the modules' casts to float32
are taken away) and rounded to float32 when written.

    python make_deepseek_v4_fixture.py ../fixtures/deepseek_v4/model.safetensors

stream.*: x [5, 4 * 6] are 4 streams of 6 values; one sub-layer, out = collapsed inner^T; y the streams behind it; z
what the head makes of y. The loss is the sum of z * dz. router.*: x [5, 6], 8 experts, 3 of them chosen; the loss is the sum
of weights * dweights. Experts of top.* are sorted, for torch's order is not defined.
"""

import sys

import torch
from safetensors.torch import save_file
from transformers.models.deepseek_v4.configuration_deepseek_v4 import DeepseekV4Config
from transformers.models.deepseek_v4.modeling_deepseek_v4 import (
    DeepseekV4HashRouter, DeepseekV4HyperConnection, DeepseekV4HyperHead, DeepseekV4TopKRouter)

TOKENS, HIDDEN, STREAMS, EXPERTS, CHOSEN, VOCAB = 5, 6, 4, 8, 3, 11


def numbers(*shape, spread=1.0):
    """Of float32, so that what is written is what is computed with."""
    return (torch.randn(shape, dtype=torch.float32) * spread).double()


def leaf(tensor):
    return torch.nn.Parameter(tensor.clone())


def streams(config, out):
    block, head = DeepseekV4HyperConnection(config).double(), DeepseekV4HyperHead(config).double()
    count = (2 + STREAMS) * STREAMS
    block.fn, block.base = leaf(numbers(count, STREAMS * HIDDEN, spread=0.5)), leaf(numbers(count))
    block.scale = leaf(numbers(3).abs() + 0.5)
    head.hc_fn, head.hc_base = leaf(numbers(STREAMS, STREAMS * HIDDEN, spread=0.5)), leaf(numbers(STREAMS))
    head.hc_scale = leaf(numbers(1).abs() + 0.5)
    x, inner, dz = leaf(numbers(TOKENS, STREAMS * HIDDEN)), leaf(numbers(HIDDEN, HIDDEN)), numbers(TOKENS, HIDDEN)
    parts = {"x": x, "inner": inner, "fn": block.fn, "base": block.base, "scale": block.scale,
             "head_fn": head.hc_fn, "head_base": head.hc_base, "head_scale": head.hc_scale}
    residual = x.view(1, TOKENS, STREAMS, HIDDEN)
    post, comb, collapsed = block(residual)
    # the decoder layer's own line
    y = post.unsqueeze(-1) * (collapsed @ inner.T).unsqueeze(-2) + torch.matmul(comb.transpose(-1, -2), residual)
    z = head(y)[0]
    (z * dz).sum().backward()
    out |= {f"stream.{name}": tensor.detach() for name, tensor in parts.items()}
    out |= {f"stream.d{name}": tensor.grad for name, tensor in parts.items()}
    out |= {"stream.post": post[0], "stream.comb": comb[0].reshape(TOKENS, -1), "stream.collapsed": collapsed[0],
            "stream.y": y.reshape(TOKENS, -1), "stream.z": z, "stream.dz": dz}


def routers(config, out):
    top, table = DeepseekV4TopKRouter(config).double(), DeepseekV4HashRouter(config).double()
    x, weight = numbers(TOKENS, HIDDEN, spread=2.0), numbers(EXPERTS, HIDDEN)
    dweights, tokens = numbers(TOKENS, CHOSEN), torch.randint(VOCAB, (TOKENS,))
    top.e_score_correction_bias = numbers(EXPERTS, spread=0.3)
    table.tid2eid = torch.stack([torch.randperm(EXPERTS)[:CHOSEN] for _ in range(VOCAB)])
    out |= {"router.x": x, "router.weight": weight, "router.dweights": dweights, "router.tokens": tokens,
            "router.selection_bias": top.e_score_correction_bias, "router.tid2eid": table.tid2eid}
    for name, router in (("top", top), ("hash", table)):
        router.weight, of_x = leaf(weight), leaf(x)
        _, weights, indices = router(of_x, tokens) if name == "hash" else router(of_x)
        if name == "top":
            indices, order = indices.sort(dim=-1)
            weights = weights.gather(1, order)
        (weights * dweights).sum().backward()
        out |= {f"{name}.weights": weights, f"{name}.experts": indices, f"{name}.dx": of_x.grad,
                f"{name}.dweight": router.weight.grad}


def main(path):
    torch.manual_seed(4)
    torch.Tensor.float = lambda self: self.double() if self.dtype == torch.float32 else self
    config = DeepseekV4Config(hidden_size=HIDDEN, n_routed_experts=EXPERTS, num_experts_per_tok=CHOSEN,
                              vocab_size=VOCAB, num_hidden_layers=1)
    out = {}
    streams(config, out)
    routers(config, out)
    plain = torch.Tensor.to
    save_file({name: plain(tensor.detach(), torch.int32 if tensor.dtype == torch.int64 else torch.float32).contiguous()
               for name, tensor in out.items()}, path)


main(sys.argv[1])
