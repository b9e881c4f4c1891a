#!/usr/bin/env python3
"""Writes tests/fixtures/shared_kv/model.safetensors: one sliding attention layer of DeepSeek-V4 with random weights, its
input x and what transformers makes of it, y. Tensors are named as the module's paths. Before it writes, a forward of its
own in float64, which shares no code with transformers, must agree with it."""
import os

import numpy as np
import torch
from safetensors.torch import save_file
from transformers.models.deepseek_v4.configuration_deepseek_v4 import DeepseekV4Config
from transformers.models.deepseek_v4.modeling_deepseek_v4 import DeepseekV4Attention, DeepseekV4RotaryEmbedding

H, D, R, Q, O, K, HIDDEN, WINDOW, T, EPS = 6, 12, 8, 20, 3, 7, 24, 9, 40, 1e-6
torch.manual_seed(5)
rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": R / D}
config = DeepseekV4Config(
    hidden_size=HIDDEN, num_attention_heads=H, num_key_value_heads=1, head_dim=D, q_lora_rank=Q, o_groups=O,
    o_lora_rank=K, sliding_window=WINDOW, rms_norm_eps=EPS, num_hidden_layers=1, layer_types=["sliding_attention"],
    mlp_layer_types=["moe"], qk_rope_head_dim=R, partial_rotary_factor=R / D, vocab_size=32,
    rope_parameters={"main": rope, "compress": dict(rope, rope_theta=160000.0)})
config._attn_implementation = "eager"
layer = DeepseekV4Attention(config, 0).eval()
for name, weight in layer.named_parameters():
    wide = weight.shape[-1] ** -0.5 if weight.dim() > 1 else 0.2
    weight.data = (0.0 if weight.dim() > 1 or name == "sinks" else 1.0) + wide * torch.randn(weight.shape)
x = torch.randn(1, T, HIDDEN)
positions = torch.arange(T)[None]
distance = torch.arange(T)[:, None] - torch.arange(T)[None]
seen = (distance >= 0) & (distance < WINDOW)
mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None]
turn = DeepseekV4RotaryEmbedding(config)
with torch.no_grad():
    y = layer(x, {"main": turn(x, positions, layer_type="main")}, positions, mask)[0][0]

w = {name: weight.detach().double().numpy() for name, weight in layer.named_parameters()}
rms = lambda v: v / np.sqrt((v * v).mean(-1, keepdims=True) + EPS)
angles = np.arange(T)[:, None] * 10000.0 ** (-np.arange(0, R, 2) / R)


def turned(v, sign):  # [T, heads, D]: pairs of the last R as complex numbers
    pairs = (v[..., D - R::2] + 1j * v[..., D - R + 1::2]) * np.exp(1j * sign * angles)[:, None]
    out = v.copy()
    out[..., D - R::2], out[..., D - R + 1::2] = pairs.real, pairs.imag
    return out


h = x[0].double().numpy()
q = turned(rms((rms(h @ w["q_a_proj.weight"].T) * w["q_a_norm.weight"] @ w["q_b_proj.weight"].T).reshape(T, H, D)), 1)
kv = turned((rms(h @ w["kv_proj.weight"].T) * w["kv_norm.weight"])[:, None], 1)[:, 0]
scores = np.exp(np.einsum("thd,sd->hts", q, kv) / np.sqrt(D)) * seen.numpy()
share = scores / (scores.sum(-1, keepdims=True) + np.exp(w["sinks"])[:, None, None])
out = turned(np.einsum("hts,sd->thd", share, kv), -1).reshape(T, O, -1)
mine = np.einsum("tgi,gri->tgr", out, w["o_a_proj.weight"].reshape(O, K, -1)).reshape(T, -1) @ w["o_b_proj.weight"].T
error = np.abs(mine - y.numpy()).max() / np.abs(mine).max()
print("transformers against float64:", error)
assert error < 1e-5

names = {"q_a_proj": "query_down", "q_a_norm": "query_norm", "q_b_proj": "query_up", "kv_proj": "key_value",
         "kv_norm": "key_value_norm", "o_a_proj": "output_down", "o_b_proj": "output"}
tensors = {"sinks": layer.sinks.data, "x": x[0], "y": y}
tensors |= {to + ".weight": layer.get_parameter(name + ".weight").data for name, to in names.items()}
folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "shared_kv")
os.makedirs(folder, exist_ok=True)
save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, os.path.join(folder, "model.safetensors"))
