"""Writes the fixtures in tests/fixtures/safetensors with the reference implementation.

reference.safetensors   every type guild computes with; element i of every tensor is i (BOOL: i is odd)
all_types.safetensors   types guild only lists
listing.txt             what the reference reads back: file, name, type, shape; one line each

    python tests/oracle/make_safetensors_fixture.py
"""

import json
import pathlib
import struct

import torch
from safetensors.torch import save_file

folder = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "safetensors"
folder.mkdir(parents=True, exist_ok=True)


def count(dtype, *shape):
    size = 1
    for dimension in shape:
        size *= dimension
    return torch.arange(size).reshape(shape).to(dtype)


reference = {
    "model.layers.0.self_attn.q_a_proj.weight": count(torch.bfloat16, 3, 5),
    "model.layers.0.self_attn.q_a_proj.weight_scale_inv": count(torch.float32, 1, 1),
    "model.embed_tokens.weight": count(torch.float16, 4, 2),
    "a.f64": count(torch.float64, 2),
    "a.i64": count(torch.int64, 2, 1, 2),
    "a.i32": count(torch.int32, 3),
    "a.i16": count(torch.int16, 3),
    "a.i8": count(torch.int8, 3),
    "a.u8": count(torch.uint8, 3),
    "a.u16": count(torch.uint16, 3),
    "a.u32": count(torch.uint32, 3),
    "a.u64": count(torch.uint64, 3),
    "a.f8": count(torch.float8_e4m3fn, 7),
    "a.bool": torch.tensor([False, True, False]),
    "scalar": count(torch.float32),
    "empty": torch.zeros(0, 3),
    'quote " backslash \\ 注意': count(torch.float32, 2),
}
save_file(reference, folder / "reference.safetensors", metadata={"format": 'pt "quoted"\n'})

all_types = {
    "e5m2": count(torch.float8_e5m2, 3),
    "e8m0": torch.ones(5).to(torch.float8_e8m0fnu),
    "e4m3fnuz": count(torch.float8_e4m3fnuz, 2),
    "e5m2fnuz": count(torch.float8_e5m2fnuz, 2),
    "complex": torch.zeros(2, dtype=torch.complex64),
}
save_file(all_types, folder / "all_types.safetensors")

with open(folder / "listing.txt", "w", encoding="utf-8") as out:
    for name in ("reference.safetensors", "all_types.safetensors"):
        raw = (folder / name).read_bytes()
        header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
        for tensor in sorted(header):
            if tensor != "__metadata__":
                entry = header[tensor]
                shape = ",".join(map(str, entry["shape"]))
                out.write(f"{name}\t{tensor}\t{entry['dtype']}\t[{shape}]\n")
