#!/usr/bin/env python3
"""Writes tests/fixtures/shared_kv/{near,pooled,chosen}: one attention layer of DeepSeek-V4 each, of a sliding window
alone, with pooled rows, and with overlapping pooled rows that an index chooses; random weights, the input x and what
transformers makes of it, y. Tensors are named as the module's paths. Before it writes, a forward of its own in float64,
which shares no code with transformers, must agree with it, and scores of an index must not lie close to each other."""
import os

import numpy as np
import torch
from safetensors.torch import save_file
from transformers.models.deepseek_v4.configuration_deepseek_v4 import DeepseekV4Config
from transformers.models.deepseek_v4.modeling_deepseek_v4 import DeepseekV4Attention, DeepseekV4RotaryEmbedding

H, D, R, Q, O, K, HIDDEN, WINDOW, EPS = 6, 12, 8, 20, 3, 7, 24, 9, 1e-6
INDEX_HEADS, INDEX_DIM, TOP_K = 8, 10, 4
RATES = {"heavily_compressed_attention": 5, "compressed_sparse_attention": 4}
NAMES = {"q_a_proj": "query_down", "q_a_norm": "query_norm", "q_b_proj": "query_up", "kv_proj": "key_value",
         "kv_norm": "key_value_norm", "o_a_proj": "output_down", "o_b_proj": "output",
         "compressor.kv_proj": "compressor.key_value", "compressor.gate_proj": "compressor.gate",
         "compressor.kv_norm": "compressor.norm", "compressor.indexer.kv_proj": "indexer.compressor.key_value",
         "compressor.indexer.gate_proj": "indexer.compressor.gate", "compressor.indexer.kv_norm":
         "indexer.compressor.norm", "compressor.indexer.q_b_proj": "indexer.query",
         "compressor.indexer.scorer.weights_proj": "indexer.head_weights"}


def rms(v):
    return v / np.sqrt((v * v).mean(-1, keepdims=True) + EPS)


def turned(v, angles, sign=1):  # [T, heads, any]: pairs of the last R as complex numbers
    first = v.shape[-1] - R
    pairs = (v[..., first::2] + 1j * v[..., first + 1::2]) * np.exp(1j * sign * angles)[:, None]
    out = v.copy()
    out[..., first::2], out[..., first + 1::2] = pairs.real, pairs.imag
    return out


def softmax(v, axis):
    e = np.exp(v - v.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def pool(w, at, h, rate, overlaps, angles_of):
    """Rows pooled of `rate` tokens each, and of the first half of columns of the `rate` before if they overlap."""
    kv, gate, bias = h @ w[at + "kv_proj.weight"].T, h @ w[at + "gate_proj.weight"].T, w[at + "position_bias"]
    width, rows = w[at + "kv_norm.weight"].size, []
    for i in range(len(h) // rate):
        own = slice(i * rate, (i + 1) * rate)
        values, gates = kv[own, -width:], (gate[own] + bias)[:, -width:]
        if overlaps and i > 0:
            before = slice((i - 1) * rate, i * rate)
            values = np.concatenate([kv[before, :width], values])
            gates = np.concatenate([(gate[before] + bias)[:, :width], gates])
        rows.append(rms((softmax(gates, 0) * values).sum(0)) * w[at + "kv_norm.weight"])
    return turned(np.array(rows)[:, None], angles_of(np.arange(len(rows)) * rate))[:, 0]


def forward(w, kind, x):
    T = len(x)
    base = 10000.0 if kind == "sliding_attention" else 160000.0
    angles_of = lambda positions: positions[:, None] * base ** (-np.arange(0, R, 2) / R)
    t, angles = np.arange(T), angles_of(np.arange(T))
    latent = rms(x @ w["q_a_proj.weight"].T) * w["q_a_norm.weight"]
    q = turned(rms((latent @ w["q_b_proj.weight"].T).reshape(T, H, D)), angles)
    rows = turned((rms(x @ w["kv_proj.weight"].T) * w["kv_norm.weight"])[:, None], angles)[:, 0]
    seen = (t[:, None] >= t) & (t[:, None] - t < WINDOW)
    gap = np.inf
    if kind != "sliding_attention":
        rate, chooses = RATES[kind], kind == "compressed_sparse_attention"
        pooled = pool(w, "compressor.", x, rate, chooses, angles_of)
        visible = np.arange(len(pooled)) < ((t + 1) // rate)[:, None]
        if chooses:
            at = "compressor.indexer."
            keys = pool(w, at, x, rate, True, angles_of)
            iq = turned((latent @ w[at + "q_b_proj.weight"].T).reshape(T, INDEX_HEADS, INDEX_DIM), angles)
            products = np.maximum(np.einsum("thd,sd->ths", iq, keys), 0) / np.sqrt(INDEX_DIM)
            scores = np.einsum("th,ths->ts", x @ w[at + "scorer.weights_proj.weight"].T, products) / np.sqrt(INDEX_HEADS)
            scores = np.where(visible, scores, -np.inf)
            order = np.sort(scores, -1)[:, ::-1]
            limited = visible.sum(-1) > TOP_K
            gap = (order[limited, TOP_K - 1] - order[limited, TOP_K]).min()
            visible = visible & (scores >= order[:, TOP_K - 1:TOP_K])
        rows, seen = np.concatenate([rows, pooled]), np.concatenate([seen, visible], 1)
    scores = np.exp(np.einsum("thd,sd->hts", q, rows) / np.sqrt(D)) * seen
    share = scores / (scores.sum(-1, keepdims=True) + np.exp(w["sinks"])[:, None, None])
    out = turned(np.einsum("hts,sd->thd", share, rows), angles, -1).reshape(T, O, -1)
    out = np.einsum("tgi,gri->tgr", out, w["o_a_proj.weight"].reshape(O, K, -1)).reshape(T, -1)
    return out @ w["o_b_proj.weight"].T, gap


for folder, kind, T, seed in (("near", "sliding_attention", 40, 5), ("pooled", "heavily_compressed_attention", 61, 6),
                              ("chosen", "compressed_sparse_attention", 61, 8)):
    torch.manual_seed(seed)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": R / D}
    config = DeepseekV4Config(
        hidden_size=HIDDEN, num_attention_heads=H, num_key_value_heads=1, head_dim=D, q_lora_rank=Q, o_groups=O,
        o_lora_rank=K, sliding_window=WINDOW, rms_norm_eps=EPS, num_hidden_layers=1, layer_types=[kind],
        mlp_layer_types=["moe"], qk_rope_head_dim=R, partial_rotary_factor=R / D, vocab_size=32,
        compress_rates=dict(RATES), index_n_heads=INDEX_HEADS, index_head_dim=INDEX_DIM, index_topk=TOP_K,
        rope_parameters={"main": rope, "compress": dict(rope, rope_theta=160000.0)})
    config._attn_implementation = "eager"
    layer = DeepseekV4Attention(config, 0).eval()
    for name, weight in layer.named_parameters():
        wide = weight.shape[-1] ** -0.5 if weight.dim() > 1 else 0.2
        if name.endswith("position_bias"):
            wide = 1.0
        weight.data = (0.0 if weight.dim() > 1 or name == "sinks" else 1.0) + wide * torch.randn(weight.shape)
    x = torch.randn(1, T, HIDDEN)
    positions = torch.arange(T)[None]
    distance = torch.arange(T)[:, None] - torch.arange(T)[None]
    mask = torch.where((distance >= 0) & (distance < WINDOW), 0.0, torch.finfo(torch.float32).min)[None, None]
    turn = DeepseekV4RotaryEmbedding(config)
    if folder == "chosen":  # the index turns INDEX_DIM wide heads by the same R
        assert R < INDEX_DIM
    with torch.no_grad():
        turns = {name: turn(x, positions, layer_type=name) for name in ("main", "compress")}
        y = layer(x, turns, positions, mask)[0][0]
    mine, gap = forward({n: p.detach().double().numpy() for n, p in layer.named_parameters()}, kind, x[0].double().numpy())
    error = np.abs(mine - y.numpy()).max() / np.abs(mine).max()
    print(folder, "transformers against float64:", error, "closest scores:", gap)
    assert error < 1e-5 and gap > 1e-4

    tensors = {name.replace("compressor.indexer", "indexer.compressor"): weight.data
               for name, weight in layer.named_parameters() if not name.endswith(".weight")}
    tensors |= {NAMES[name.removesuffix(".weight")] + ".weight": weight.data
                for name, weight in layer.named_parameters() if name.endswith(".weight")}
    tensors |= {"x": x[0], "y": y}
    place = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "shared_kv", folder)
    os.makedirs(place, exist_ok=True)
    save_file({n: t.contiguous() for n, t in tensors.items()}, os.path.join(place, "model.safetensors"))
