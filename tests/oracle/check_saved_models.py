"""Loads models that save_models.cpp saved with Hugging Face transformers and compares their logits with the frozen ones
of tests/fixtures/models, which the library's own forward pass is held to. Also reads every file with the reference
safetensors, and checks the manifests with the program xxhsum where it is installed.

    python tests/oracle/check_saved_models.py OUT
"""

import json
import pathlib
import shutil
import subprocess
import sys

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

out = pathlib.Path(sys.argv[1])
fixtures = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "models"
torch.set_num_threads(1)

# Keys of config.json that transformers gives other names, or does not keep.
unkept = {"architectures", "torch_dtype", "rope_scaling", "rope_theta", "topk_method", "scoring_func"}
failures = 0
for folder in sorted(p for p in out.iterdir() if p.is_dir() and not p.name.startswith(".")):
    said = json.loads((folder / "config.json").read_text())
    config = AutoConfig.from_pretrained(folder)
    for key, value in said.items():
        if key not in unkept and hasattr(config, key) and getattr(config, key) != value:
            print(f"{folder.name}: {key} is {value!r}, transformers has {getattr(config, key)!r}")
            failures += 1

    original, saved = {}, {}
    for tensors, source in ((original, fixtures / folder.name), (saved, folder)):
        for file in sorted(source.glob("model*.safetensors")):
            tensors.update(load_file(file))
            with safe_open(file, "pt") as opened:
                assert tensors is original or opened.metadata() == {"format": "pt"}
    original = {name: tensor for name, tensor in original.items() if not name.startswith("mtp.")}  # not read
    if original.keys() != saved.keys():
        print(f"{folder.name}: names differ: {sorted(original.keys() ^ saved.keys())[:5]}")
        failures += 1
    for name in original.keys() & saved.keys():
        if not torch.equal(original[name].float(), saved[name].float()):
            print(f"{folder.name}: {name} differs")
            failures += 1

    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, experts_implementation="eager", attn_implementation="eager", output_loading_info=True
    )
    assert not info["missing_keys"], info
    worst = 0.0
    expected = load_file(fixtures / folder.name / "expected.safetensors")
    with torch.no_grad():
        for i in (0, 1):
            tokens = expected[f"tokens_{i}"].long()[None]
            logits, wanted = model(tokens).logits[0], expected[f"logits_{i}"]
            worst = max(worst, ((logits - wanted).abs().amax(-1) / wanted.abs().amax(-1)).max().item())
    print(f"{folder.name}: {type(model).__name__}, {len(saved)} tensors, logits within {worst:.1e}")
    failures += worst > 1e-5

    if shutil.which("xxhsum"):
        for name, entry in json.loads((folder / "manifest.json").read_text())["files"].items():
            said = subprocess.run(["xxhsum", "-H2", folder / name], capture_output=True, text=True, check=True).stdout
            if (folder / name).stat().st_size != entry["bytes"] or said.split()[0] != entry["checksum"]:
                print(f"{folder.name}: {name} is not what its manifest says")
                failures += 1
sys.exit(failures > 0)
