"""Writes the trained miniature in the published layout, in bf16 and in fp8.

`python export_mini.py WORK_DIR CHECKPOINTS_DIR` reads WORK_DIR/state.pt, mtp.pt and tok and writes
CHECKPOINTS_DIR/mini-r1 and CHECKPOINTS_DIR/mini-r1-fp8, then loads the former with transformers and
compares its logits with those of the trained weights rounded to bf16.
"""
import json
import pathlib
import re
import shutil
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, DeepseekV3ForCausalLM
from transformers.modeling_layers import MtpModel

import mini
from train_mtp import logits_of

SHARDS = 3
FP8 = re.compile(r"(?<!eh)_proj(_with_mqa)?\.weight$")  # attention, dense, routed and shared experts
FP8_MAX = 448.0


def with_mtp(state: dict, mtp: dict) -> dict:
    """The main model's weights and those of the prediction layer under their published names."""
    prefix = f"model.layers.{mini.CONFIG['num_hidden_layers']}."
    name = lambda n: n.removeprefix("mtp_block.") if n.startswith("mtp_block.") else n.replace("post_norm.", "shared_head.norm.")
    return state | {prefix + name(n): w for n, w in mtp.items()} | {
        prefix + "embed_tokens.weight": state["model.embed_tokens.weight"],
        prefix + "shared_head.head.weight": state["lm_head.weight"]}


def rounded(state: dict) -> dict:
    return {n: w if n.endswith("e_score_correction_bias") else w.to(torch.bfloat16).float() for n, w in state.items()}


def published(state: dict) -> dict:
    """Names and tensors as published: the experts one by one, bf16, the selection bias in f32."""
    out = {}
    for name, w in state.items():
        if name.endswith("mlp.experts.gate_up_proj"):
            base = name.removesuffix("gate_up_proj")
            for e, both in enumerate(w):
                gate, up = both.chunk(2, dim=0)
                out[f"{base}{e}.gate_proj.weight"], out[f"{base}{e}.up_proj.weight"] = gate, up
        elif name.endswith("mlp.experts.down_proj"):
            base = name.removesuffix("down_proj")
            for e, down in enumerate(w):
                out[f"{base}{e}.down_proj.weight"] = down
        else:
            out[name] = w
    return {n: w.detach().clone().contiguous().to(torch.float32 if n.endswith("e_score_correction_bias") else torch.bfloat16)
            for n, w in out.items()}


def quantised(w: torch.Tensor):
    """(e4m3 values, scale of each 128 x 128 block); value = e4m3 * scale."""
    r, c = w.shape
    nr, nc = -(-r // 128), -(-c // 128)
    padded = torch.zeros(nr * 128, nc * 128)
    padded[:r, :c] = w.float()
    blocks = padded.view(nr, 128, nc, 128)
    scale = blocks.abs().amax(dim=(1, 3)).clamp_min(1e-12) / FP8_MAX
    q = (blocks / scale[:, None, :, None]).view_as(padded)[:r, :c]
    return q.contiguous().to(torch.float8_e4m3fn), scale


def in_fp8(tensors: dict) -> dict:
    out = {}
    for n, w in tensors.items():
        if FP8.search(n):
            out[n], out[n + "_scale_inv"] = quantised(w)
        else:
            out[n] = w
    return out


def order(name: str):
    """Embedding, layers in order, norm, head; numbers by value."""
    first = 0 if "embed" in name else 1 if "layers" in name else 2
    return [first] + [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in name.split(".")]


def write(tensors: dict, folder: pathlib.Path, config: dict, tok: pathlib.Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    names = sorted(tensors, key=order)
    size = {n: t.numel() * t.element_size() for n, t in tensors.items()}
    total, done, shards = sum(size.values()), 0, [{} for _ in range(SHARDS)]
    for n in names:
        shards[min(SHARDS - 1, done * SHARDS // total)][n] = tensors[n]
        done += size[n]
    where = {}
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{SHARDS:05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        (folder / file).chmod(0o644)
        where |= {n: file for n in shard}
    dump = lambda file, what: (folder / file).write_text(json.dumps(what, indent=2) + "\n")
    dump("model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where})
    dump("config.json", config)
    dump("generation_config.json", {"_from_model_config": True, "bos_token_id": 0, "eos_token_id": 1,
                                    "do_sample": True, "temperature": 0.6, "top_p": 0.95,
                                    "transformers_version": "4.39.3"})
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tok / file, folder / file)


def config_json(fp8: bool) -> dict:
    c = mini.CONFIG | {
        "architectures": ["DeepseekV3ForCausalLM"],
        "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config",
                     "AutoModel": "modeling_deepseek.DeepseekV3Model",
                     "AutoModelForCausalLM": "modeling_deepseek.DeepseekV3ForCausalLM"},
        "aux_loss_alpha": 0.001, "ep_size": 1, "model_type": "deepseek_v3", "moe_layer_freq": 1,
        "rope_scaling": mini.ROPE_SCALING, "rope_theta": mini.ROPE_THETA, "scoring_func": "sigmoid",
        "seq_aux": True, "topk_method": "noaux_tc", "torch_dtype": "bfloat16",
        "transformers_version": "4.46.3"}
    if fp8:
        c["quantization_config"] = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                                    "weight_block_size": [128, 128]}
    return dict(sorted(c.items()))


def main(work: str, checkpoints: str) -> None:
    work, checkpoints = pathlib.Path(work), pathlib.Path(checkpoints)
    trained, mtp_state = torch.load(work / "state.pt"), torch.load(work / "mtp.pt")
    state = trained["average"]
    tensors = published(with_mtp(state, mtp_state))
    write(tensors, checkpoints / "mini-r1", config_json(False), work / "tok")
    write(in_fp8(tensors), checkpoints / "mini-r1-fp8", config_json(True), work / "tok")

    model = DeepseekV3ForCausalLM(mini.config()).eval()
    model.load_state_dict(rounded(state))
    mtp = MtpModel(model, 1).eval()
    mtp.layers[0].load_state_dict(rounded(mtp_state))
    loaded = AutoModelForCausalLM.from_pretrained(checkpoints / "mini-r1", dtype=torch.float32).eval()
    loaded_mtp = MtpModel.from_pretrained(loaded).eval()
    ids = torch.randint(3, 1500, (2, 60), generator=torch.Generator().manual_seed(3))
    both = lambda main, layer: (main(ids).logits, logits_of(layer, main.model(ids).last_hidden_state, ids))
    with torch.no_grad():
        diff = max((a - b).abs().max().item() for a, b in zip(both(model, mtp), both(loaded, loaded_mtp)))
    bias = torch.cat([w for n, w in tensors.items() if n.endswith("e_score_correction_bias")])
    print(f"step {trained['step']}; {len(tensors)} tensors, {sum(t.numel() for t in tensors.values())} values; "
          f"selection bias {bias.min():.3f} .. {bias.max():.3f}; largest logit difference after loading {diff:g}")
    assert diff == 0 and torch.equal(model.model.rotary_emb.inv_freq, loaded.model.rotary_emb.inv_freq)
    assert bias.min() < 0 < bias.max()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
