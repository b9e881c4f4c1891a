#!/usr/bin/env python3
"""Writes tests/fixtures/compressor/model.safetensors: the compressors of DeepSeek-V4's two kinds of compressing layers
with random weights, their input x and the rows that transformers makes of it, named csa.rows and hca.rows. Other tensors
are named as the module's paths. Rows have position w * ratio, and their last R columns turn. Before it writes, a forward
of its own in float64, which shares no code with transformers, must agree with it."""
import os

import numpy as np
import torch
from safetensors.torch import save_file
from transformers.models.deepseek_v4.configuration_deepseek_v4 import DeepseekV4Config
from transformers.models.deepseek_v4.modeling_deepseek_v4 import DeepseekV4CSACompressor, DeepseekV4HCACompressor

HIDDEN, D, R, T, EPS, BASE = 16, 8, 4, 61, 1e-6, 160000.0
RATIOS = {"csa": 4, "hca": 8}
torch.manual_seed(9)
rope = {"rope_type": "default", "rope_theta": BASE, "partial_rotary_factor": R / D}
config = DeepseekV4Config(
    hidden_size=HIDDEN, num_attention_heads=2, num_key_value_heads=1, head_dim=D, q_lora_rank=4, rms_norm_eps=EPS,
    num_hidden_layers=2, layer_types=["compressed_sparse_attention", "heavily_compressed_attention"],
    compress_rates={"compressed_sparse_attention": RATIOS["csa"], "heavily_compressed_attention": RATIOS["hca"]},
    mlp_layer_types=["moe", "moe"], qk_rope_head_dim=R, partial_rotary_factor=R / D, index_head_dim=D, index_n_heads=1,
    index_topk=2, vocab_size=32, rope_parameters={"main": dict(rope, rope_theta=10000.0), "compress": rope})
x = torch.randn(1, T, HIDDEN)
positions = torch.arange(T)[None]


def own(w, ratio):  # float64, one row after the other
    h = x[0].double().numpy()
    values, gates = h @ w["kv_proj.weight"].T, h @ w["gate_proj.weight"].T
    overlaps, rows = values.shape[1] == 2 * D, []
    for row in range(T // ratio):
        parts = [(row, D if overlaps else 0)] + ([(row - 1, 0)] if overlaps and row > 0 else [])
        v = np.concatenate([values[i * ratio:(i + 1) * ratio, c:c + D] for i, c in parts])
        z = np.concatenate([(gates[i * ratio:(i + 1) * ratio] + w["position_bias"])[:, c:c + D] for i, c in parts])
        a = np.exp(z - z.max(0))
        y = (a * v).sum(0) / a.sum(0)
        y = y / np.sqrt((y * y).mean() + EPS) * w["kv_norm.weight"]
        pairs = (y[D - R::2] + 1j * y[D - R + 1::2]) * np.exp(1j * row * ratio * BASE ** (-np.arange(0, R, 2) / R))
        y[D - R::2], y[D - R + 1::2] = pairs.real, pairs.imag
        rows.append(y)
    return np.stack(rows)


names = {"kv_proj.weight": "key_value.weight", "gate_proj.weight": "gate.weight", "position_bias": "position_bias",
         "kv_norm.weight": "norm.weight"}
tensors = {"x": x[0]}
for kind, compressor in {"csa": DeepseekV4CSACompressor, "hca": DeepseekV4HCACompressor}.items():
    layer = compressor(config).eval()
    for name, weight in layer.named_parameters():
        wide = 2 * weight.shape[-1] ** -0.5 if name.endswith("proj.weight") else 0.7
        weight.data = (1.0 if "norm" in name else 0.0) + wide * torch.randn(weight.shape)
    with torch.no_grad():
        rows = layer(x, torch.randn(1, T, 4), positions, None, 0)[0][0, 0]
    mine = own({name: layer.get_parameter(name).detach().double().numpy() for name in names}, RATIOS[kind])
    error = np.abs(mine - rows.numpy()).max()
    print(kind, tuple(rows.shape), "transformers against float64:", error)
    assert mine.shape == rows.shape and error < 1e-5
    tensors[kind + ".rows"] = rows
    tensors |= {kind + "." + to: layer.get_parameter(name).data for name, to in names.items()}
folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "compressor")
os.makedirs(folder, exist_ok=True)
save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, os.path.join(folder, "model.safetensors"))
