"""Makes the folders v4* of tests/fixtures/models: DeepSeek-V4, tiny and random, and what transformers computes with them;
and tests/fixtures/configs/deepseek_v4_v5.json.

`python make_v4_fixtures.py [NAME...]` (two minutes, one thread; the same bytes every time) writes all folders or those
named. Expected values come from Hugging Face transformers in float32 with eager attention, loaded from the very folder
that is shipped; `v4_forward.py` (float64, from the formulas) must agree within 1e-5, and transformers with itself when
it decodes from its cache, or nothing is written.

Prompts are drawn token by token: each token's choices of experts and pooled rows are clear (ROUTER_MARGIN; INDEX_MARGIN
of the largest index score), and so are those of the 24 tokens that greedy decoding adds. Eight index heads: with one or
two, whole rows of scores are 0 and tie.
"""
import json
import pathlib
import re
import shutil
import sys
import tempfile

import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

import make_family_fixtures as family
import reference_forward as reference
import v4_forward
from make_model_fixtures import OUT, as_float64, load_with_transformers, write_folder

CONFIGS, INDEX_MARGIN = family.CONFIGS, 1e-4
REDRAWN = 6  # tokens of a prompt whose continuation is not clear

# The keys that the published file has.
V4 = {
    "architectures": ["DeepseekV4ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "compress_ratios": [0, 0, 0],
    "compress_rope_theta": 60,
    "eos_token_id": 1,
    "hc_eps": 0.01,
    "hc_mult": 4,
    "hc_sinkhorn_iters": 3,
    "head_dim": 14,
    "hidden_act": "silu",
    "hidden_size": 20,
    "index_head_dim": 10,
    "index_n_heads": 8,
    "index_topk": 3,
    "initializer_range": 0.02,
    "max_position_embeddings": 128,
    "model_type": "deepseek_v4",
    "moe_intermediate_size": 7,
    "n_routed_experts": 5,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts_per_tok": 2,
    "num_hash_layers": 1,
    "num_hidden_layers": 3,
    "num_key_value_heads": 1,
    "num_nextn_predict_layers": 1,
    "o_groups": 2,
    "o_lora_rank": 6,
    "q_lora_rank": 11,
    "qk_rope_head_dim": 8,
    "rms_norm_eps": 0.001,
    "rope_scaling": {
        "beta_fast": 2,
        "beta_slow": 0.3,
        "factor": 4,
        "original_max_position_embeddings": 16,
        "type": "yarn",
    },
    "rope_theta": 40,
    "routed_scaling_factor": 1.5,
    "scoring_func": "sqrtsoftplus",
    "sliding_window": 8,
    "swiglu_limit": 1.25,
    "tie_word_embeddings": False,
    "topk_method": "noaux_tc",
    "torch_dtype": "float32",
    "transformers_version": "4.57.1",
    "use_cache": True,
    "vocab_size": 47,
}
# `_mtp`: a tensor of a prediction layer, which nobody reads. `_saved`: folders that transformers writes, and whether
# with its modules' names and fused experts.
FIXTURES = {
    "v4_sliding": V4 | {"_lengths": (17, 7), "_mtp": True, "_saved": {"v4_sliding_v5": False}},
    "v4": {k: v for k, v in V4.items() if k != "compress_ratios"}
    | {
        "compress_rate_csa": 4,
        "compress_rate_hca": 8,
        "layer_types": [{"w": v4_forward.SLIDING, "c": v4_forward.SPARSE, "h": v4_forward.HEAVY}[k] for k in "hcwch"],
        "num_hash_layers": 2,
        "num_hidden_layers": 5,
        "_lengths": (49, 21),
        "_saved": {"v4": True},
    },
    "v4_published": V4
    | {
        "compress_ratios": [128, 4, 0, 4, 0],
        "compress_rope_theta": 160000,
        "hc_eps": 1e-6,
        "hc_sinkhorn_iters": 20,
        "index_topk": 6,
        "max_position_embeddings": 512,
        "num_hidden_layers": 4,
        "rms_norm_eps": 1e-6,
        "rope_scaling": V4["rope_scaling"] | {"beta_slow": 0.05, "factor": 16, "original_max_position_embeddings": 64},
        "rope_theta": 10000,
        "_lengths": (243, 115),
        "_mtp": True,
        "_v5": "deepseek_v4_v5",
    },
    "v4_fp4": V4
    | {
        "expert_dtype": "fp4",
        "head_dim": 36,
        "hidden_size": 32,
        "moe_intermediate_size": 32,
        "quantization_config": {
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "quant_method": "fp8",
            "scale_fmt": "ue8m0",
            "weight_block_size": [128, 128],
        },
        "torch_dtype": "bfloat16",
        "_lengths": (13, 5),
        "_stored": True,
    },
}
SEEDS = {"v4_sliding": 7300, "v4": 7301, "v4_published": 7302, "v4_fp4": 7303}


def shapes(config: dict) -> dict:
    """Published name -> shape, in the order of the published files."""
    c = v4_forward.settings(config)
    hidden, width, streams, inner = c["hidden_size"], c["head_dim"], c["hc_mult"], c["moe_intermediate_size"]
    out = {"embed.weight": (c["vocab_size"], hidden)}

    def compressor(prefix, width, kind):
        series = 2 if kind == v4_forward.SPARSE else 1
        out[prefix + "ape"] = (c["compress_rates"][kind], series * width)
        out[prefix + "wkv.weight"] = out[prefix + "wgate.weight"] = (series * width, hidden)
        out[prefix + "norm.weight"] = (width,)

    def mlp(prefix):
        out[prefix + "w1.weight"] = out[prefix + "w3.weight"] = (inner, hidden)
        out[prefix + "w2.weight"] = (hidden, inner)

    for layer, kind in enumerate(c["layer_types"]):
        p = f"layers.{layer}."
        a, heads = p + "attn.", c["num_attention_heads"]
        out |= {a + "wq_a.weight": (c["q_lora_rank"], hidden), a + "q_norm.weight": (c["q_lora_rank"],)}
        out |= {a + "wq_b.weight": (heads * width, c["q_lora_rank"]), a + "wkv.weight": (width, hidden)}
        out |= {a + "kv_norm.weight": (width,), a + "attn_sink": (heads,)}
        out[a + "wo_a.weight"] = (c["o_groups"] * c["o_lora_rank"], heads * width // c["o_groups"])
        out[a + "wo_b.weight"] = (hidden, c["o_groups"] * c["o_lora_rank"])
        if kind != v4_forward.SLIDING:
            compressor(a + "compressor.", width, kind)
        if kind == v4_forward.SPARSE:
            out[a + "indexer.wq_b.weight"] = (c["index_n_heads"] * c["index_head_dim"], c["q_lora_rank"])
            out[a + "indexer.weights_proj.weight"] = (c["index_n_heads"], hidden)
            compressor(a + "indexer.compressor.", c["index_head_dim"], kind)
        out[p + "ffn.gate.weight"] = (c["n_routed_experts"], hidden)
        if layer < c["num_hash_layers"]:
            out[p + "ffn.gate.tid2eid"] = (c["vocab_size"], c["num_experts_per_tok"])
        else:
            out[p + "ffn.gate.bias"] = (c["n_routed_experts"],)
        for expert in range(c["n_routed_experts"]):
            mlp(f"{p}ffn.experts.{expert}.")
        mlp(p + "ffn.shared_experts.")
        out[p + "attn_norm.weight"] = out[p + "ffn_norm.weight"] = (hidden,)
        for part in ("attn", "ffn"):
            out[f"{p}hc_{part}_fn"] = ((2 + streams) * streams, streams * hidden)
            out |= {f"{p}hc_{part}_base": ((2 + streams) * streams,), f"{p}hc_{part}_scale": (3,)}
    out |= {"norm.weight": (hidden,), "head.weight": (c["vocab_size"], hidden)}
    return out | {"hc_head_fn": (streams, streams * hidden), "hc_head_base": (streams,), "hc_head_scale": (1,)}


def random_weights(config: dict, seed: int) -> dict:
    """float32, and much wider than a trained model's, so that a wrong term is seen in the logits."""
    random, weights = np.random.default_rng(seed), {}
    for name, shape in shapes(config).items():
        if name.endswith("tid2eid"):
            rows = [random.permutation(config["n_routed_experts"])[: shape[1]] for _ in range(shape[0])]
            weights[name] = torch.from_numpy(np.stack(rows).astype(np.int64))
            continue
        if name.endswith("gate.bias"):
            w = random.permutation(np.linspace(-0.3, 0.3, shape[0]))
        elif name.endswith(("_base", "attn_sink", "ape")):
            w = 0.8 * random.standard_normal(shape)
        elif len(shape) == 1:
            w = 1 + 0.3 * random.standard_normal(shape)
        elif name == "embed.weight":
            w = 0.8 * random.standard_normal(shape)
        else:
            w = random.standard_normal(shape) * (1.6 if "gate." in name else 1.2) * shape[1] ** -0.5
        weights[name] = torch.from_numpy(w.astype(np.float32))
    return weights


def stored(tensors: dict) -> dict:
    """As published: experts of 4 bits, other products in fp8, all scales powers of two; embedding, head and routers in
    bf16, the rest in float32."""
    out = {}
    for name, w in tensors.items():
        if ".experts." in name:
            bits, exponents = family.to_mxfp4(w.numpy())
            out[name] = torch.from_numpy(bits.reshape(len(w), -1).view(np.int8).copy())
            out[name.replace(".weight", ".scale")] = torch.from_numpy(exponents.copy()).view(torch.float8_e8m0fnu)
        elif re.search(r"attn\.w|shared_experts", name):
            rows, cols = (-(-n // 128) for n in w.shape)
            blocks = [[w[128 * r : 128 * r + 128, 128 * c : 128 * c + 128].abs().max() for c in range(cols)] for r in range(rows)]
            scale = torch.exp2(torch.ceil(torch.log2(torch.tensor(blocks) / 448)))
            wide = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)[: w.shape[0], : w.shape[1]]
            out[name] = (w / wide).to(torch.float8_e4m3fn)
            out[name.replace(".weight", ".scale")] = scale.to(torch.float8_e8m0fnu)
        else:
            out[name] = w.bfloat16() if name in ("embed.weight", "head.weight") or name.endswith("gate.weight") else w
    return out


def floats_of(tensors: dict) -> dict:
    """What transformers makes of them, or we where it takes other blocks than 128 x 128 (sides that 128 does not divide)."""
    ours, theirs = v4_forward.dequantised({n: t.double().numpy() for n, t in tensors.items()}), Fp8Dequantize(None)
    out = {}
    for name, w in ours.items():
        tensor = tensors[name]
        out[name] = torch.from_numpy(w).to(tensor.dtype if tensor.dtype == torch.int64 else torch.float32)
        scale = tensors.get(name.replace(".weight", ".scale")) if name.endswith(".weight") else None
        if scale is not None and (tensor.dtype == torch.int8 or scale.numel() == 1):
            assert torch.equal(theirs._dequantize_one(tensor, scale, torch.float32), out[name]), name
    return out


def is_clear(model) -> bool:
    return model.index_margin >= INDEX_MARGIN and np.min(model.margin) >= family.ROUTER_MARGIN


def choose_sequence(model, length: int, random) -> tuple:
    """(prompt and its greedy continuation, the smallest lead, tokens that were tried)"""
    tried, tokens = 0, []
    while True:
        while len(tokens) < length:
            tried += 1
            tokens.append(int(random.integers(2, model.c["vocab_size"])))
            model.forward(tokens)
            if not is_clear(model):
                tokens.pop()
        leads = []
        for _ in range(family.GREEDY):
            row = model.forward(tokens)["logits"][-1]
            leads.append(family.lead(row))
            if leads[-1] < family.GREEDY_MARGIN or not is_clear(model):
                break
            tokens.append(int(row.argmax()))
        else:
            model.forward(tokens)
            if is_clear(model) and len(set(tokens[length:])) >= family.DISTINCT:
                return tokens, min(leads), tried
        tokens = tokens[: max(length - REDRAWN, 0)]
        assert tried < 100 * length, "no prompt has a clear greedy continuation"


@torch.no_grad()
def decoding_error(model, tokens, length: int, wanted: torch.Tensor) -> float:
    """transformers against itself: the prompt, then token by token from its cache."""
    out = model(torch.tensor(tokens[:length])[None], use_cache=True)
    rows, cache = [out.logits[0]], out.cache if "cache" in out else out.past_key_values
    for token in tokens[length:]:
        rows.append(model(torch.tensor([[token]]), cache=cache, use_cache=True).logits[0])
    return reference.row_error(torch.cat(rows).numpy(), wanted.numpy())


def write(folder: pathlib.Path, sequences, lengths, report: dict) -> dict:
    """expected.safetensors of a folder that has its config and tensors."""
    config, tensors = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    exact = v4_forward.Model(config, as_float64(tensors))
    if "quantization_config" in config:  # transformers has no products of such weights on a CPU
        config = {k: v for k, v in config.items() if k not in ("quantization_config", "expert_dtype")}
        write_folder(folder.parent / "floats", config, floats_of(tensors), 1)
        model = load_with_transformers(folder.parent / "floats", config, torch.float32)
    else:
        model = load_with_transformers(folder, config, torch.float32)
    expected, found = family.expect(model, exact, sequences, lengths)
    report = report | {"index_margin": np.inf, "transformers_decoding": 0.0} | found
    for i, (tokens, length) in enumerate(zip(sequences, lengths)):
        exact.forward(tokens)
        error = decoding_error(model, tokens, length, expected[f"logits_{i}"])
        assert is_clear(exact) and error <= reference.ERROR_LIMIT, error
        report["index_margin"] = min(report["index_margin"], float(exact.index_margin))
        report["transformers_decoding"] = max(report["transformers_decoding"], error)
    report["index_margin"] = None if report["index_margin"] == np.inf else report["index_margin"]
    return expected, report


def make(name: str) -> dict:
    changes = FIXTURES[name]
    config = dict(sorted((k, v) for k, v in changes.items() if k[0] != "_"))
    tensors = random_weights(config, SEEDS[name])
    tensors = stored(tensors) if "_stored" in changes else tensors
    exact = v4_forward.Model(config, as_float64(tensors))
    ratio = exact.plain / exact.compress  # a pair that stays or nearly does, one that is blended, one that is stretched
    assert ratio.min() < 1.2 and ratio.max() > 3.9 and ((ratio > 1.1) & (ratio < 3.9)).any(), ratio
    random = np.random.default_rng(SEEDS[name] + 500)
    chosen = [choose_sequence(exact, n, random) for n in changes["_lengths"]]
    sequences = [tokens for tokens, _, _ in chosen]
    report = {"seed": SEEDS[name], "tokens_tried": [tried for _, _, tried in chosen]}

    extra = {"mtp.0.norm.weight": torch.ones(config["hidden_size"])} if "_mtp" in changes else {}
    saved, measured = changes.get("_saved", {}), {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) / name
        write_folder(folder, config, tensors | extra, 1)
        expected, report = write(folder, sequences, changes["_lengths"], report)
        if name not in saved:
            shutil.rmtree(OUT / name, ignore_errors=True)
            shutil.copytree(folder, OUT / name)
            measured |= family.finish(name, OUT / name, expected, report)
        if saved or "_v5" in changes:
            model = load_with_transformers(folder, config, torch.float32)
        if "_v5" in changes:
            family.save_as_transformers_does(model, pathlib.Path(temporary) / "v5", fused=False)
            shutil.copyfile(pathlib.Path(temporary) / "v5/config.json", CONFIGS / f"{changes['_v5']}.json")
    for twin, fused in saved.items():
        shutil.rmtree(OUT / twin, ignore_errors=True)
        family.save_as_transformers_does(model, OUT / twin, fused)
        again, of_twin = write(OUT / twin, sequences, changes["_lengths"], report)
        assert all(torch.equal(again[key], expected[key]) for key in expected)
        measured |= family.finish(twin, OUT / twin, again, of_twin)
    return measured


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    path = OUT / "measured_v4.json"
    measured = json.loads(path.read_text())["fixtures"] if path.exists() else {}
    for name in FIXTURES:
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            measured |= make(name)
    versions = {"transformers": transformers.__version__, "torch": torch.__version__, "numpy": np.__version__}
    path.write_text(json.dumps({"versions": versions, "fixtures": dict(sorted(measured.items()))}, indent=2) + "\n")


if __name__ == "__main__":
    main()
