"""Makes tests/fixtures/models: tiny random models in the published layout, and what transformers computes with them.

`python make_model_fixtures.py [NAME...]` writes all folders (or those named) beside this script's repository. Every
expected value comes from Hugging Face transformers in float32 on one CPU thread, loaded from the very folder that is
shipped; `reference_forward.py` (float64, written from the formulas) must agree within 1e-5 or nothing is written.
The exception is fp8, where the expected values are the float64 ones of the dequantised weights.

The tokens are chosen one by one so that no choice of groups or experts is near a tie: a library with other rounding
makes the same choices.
"""
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

import reference_forward as reference

OUT = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "models"
FP8 = re.compile(r"_proj(_with_mqa)?\.weight$")  # attention, dense, routed and shared experts; not eh_proj
FP8_MAX = 448.0

V3 = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "auto_map": {
        "AutoConfig": "configuration_deepseek.DeepseekV3Config",
        "AutoModel": "modeling_deepseek.DeepseekV3Model",
        "AutoModelForCausalLM": "modeling_deepseek.DeepseekV3ForCausalLM",
    },
    "aux_loss_alpha": 0.001,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "ep_size": 1,
    "first_k_dense_replace": 1,
    "hidden_act": "silu",
    "hidden_size": 40,
    "initializer_range": 0.02,
    "intermediate_size": 52,
    "kv_lora_rank": 20,
    "max_position_embeddings": 64,
    "model_type": "deepseek_v3",
    "moe_intermediate_size": 11,
    "moe_layer_freq": 1,
    "n_group": 4,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 3,
    "num_experts_per_tok": 3,
    "num_hidden_layers": 2,
    "num_key_value_heads": 3,
    "num_nextn_predict_layers": 0,
    "pretraining_tp": 1,
    "q_lora_rank": 18,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 8,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "seq_aux": True,
    "tie_word_embeddings": False,
    "topk_group": 2,
    "topk_method": "noaux_tc",
    "torch_dtype": "float32",
    "transformers_version": "4.46.3",
    "use_cache": True,
    "v_head_dim": 9,
    "vocab_size": 101,
}
V2 = {k: v for k, v in V3.items() if k not in ("ep_size", "num_nextn_predict_layers")} | {
    "architectures": ["DeepseekV2ForCausalLM"],
    "auto_map": {k: v.replace("V3", "V2") for k, v in V3["auto_map"].items()},
    "model_type": "deepseek_v2",
    "scoring_func": "softmax",
    "topk_method": "greedy",
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": False,
    "q_lora_rank": None,
    "n_shared_experts": 2,
    "transformers_version": "4.33.1",
}
# Only transformers' V2 class wants this: hidden_size a multiple of num_attention_heads, an even kv_lora_rank.
V2_SMALL = {"_v2": True, "hidden_size": 27, "intermediate_size": 37, "vocab_size": 67, "kv_lora_rank": 18}


def yarn(**changes) -> dict:
    return {
        "type": "yarn",
        "factor": 4,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 16,
    } | changes


SMALL = {"hidden_size": 28, "intermediate_size": 37, "vocab_size": 67, "kv_lora_rank": 17}
# Only what differs from V3 above. `_...` entries steer this script and are not written.
FIXTURES = {
    "v3_base": {"num_hidden_layers": 3, "_hidden": True},
    "v3_base_bf16": {"num_hidden_layers": 3, "_dtype": "bfloat16", "_like": "v3_base"},
    "v3_base_f16": {"num_hidden_layers": 3, "_dtype": "float16", "_like": "v3_base"},
    "v3_sharded": {"num_hidden_layers": 3, "_dtype": "bfloat16", "_like": "v3_base", "_shards": 2},
    "v3_no_q_lora": SMALL | {"q_lora_rank": None},
    "v3_negative_bias": SMALL | {"_bias": (-1.4, 0.3), "_zero_fill_must_differ": True},
    "v3_yarn": SMALL | {"qk_rope_head_dim": 12, "rope_scaling": yarn(), "_lengths": (61, 7)},
    "v3_yarn_0707": SMALL
    | {
        "qk_rope_head_dim": 16,
        "rope_theta": 100,
        "rope_scaling": yarn(beta_fast=1, beta_slow=0.2, mscale=0.707, mscale_all_dim=0.707),
        "first_k_dense_replace": 2,
        "_lengths": (61, 7),
        "_ramp": 3,
    },
    "v3_yarn_ratio": SMALL
    | {
        "qk_rope_head_dim": 16,
        "rope_theta": 100,
        "rope_scaling": yarn(beta_fast=2, beta_slow=0.1, mscale=1.3, mscale_all_dim=0.6),
        "first_k_dense_replace": 2,
        "_lengths": (61, 7),
        "_ramp": 3,
    },
    "v3_top_k_over_groups": SMALL | {"n_routed_experts": 12, "num_experts_per_tok": 5},
    "v3_two_shared": SMALL | {"n_shared_experts": 2},
    "v3_dense_only": SMALL | {"first_k_dense_replace": 2},
    "v3_moe_only_tied": SMALL
    | {"first_k_dense_replace": 0, "tie_word_embeddings": True, "rms_norm_eps": 1e-4, "_latent_gain": 0.03},
    "v3_no_norm_topk": SMALL | {"norm_topk_prob": False, "routed_scaling_factor": 1.7},
    "v3_mtp": SMALL | {"num_nextn_predict_layers": 1},
    "v3_fp8": {
        "hidden_size": 144,
        "intermediate_size": 136,
        "kv_lora_rank": 132,
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "qk_nope_head_dim": 18,
        "v_head_dim": 16,
        "q_lora_rank": 40,
        "moe_intermediate_size": 16,
        "n_routed_experts": 4,
        "n_group": 2,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "vocab_size": 48,
        "_dtype": "bfloat16",
        "_fp8": True,
    },
    "moonlight": SMALL
    | {
        "q_lora_rank": None,
        "n_group": 1,
        "topk_group": 1,
        "n_shared_experts": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 50000.0,
        "routed_scaling_factor": 2.446,
        "_latent_gain": 0.03,
    },
    "v2_lite": V2_SMALL
    | {
        "rope_scaling": yarn(factor=40, mscale=0.707, mscale_all_dim=0.707),
        "_lengths": (61, 7),
    },
    "v2_grouped": V2_SMALL
    | {
        "q_lora_rank": 18,
        "topk_method": "group_limited_greedy",
        "n_group": 4,
        "topk_group": 2,
        "routed_scaling_factor": 16.0,
    },
}


def config_of(name: str) -> dict:
    changes = FIXTURES[name]
    config = (V2 if changes.get("_v2") else V3) | {k: v for k, v in changes.items() if k[0] != "_"}
    config["torch_dtype"] = changes.get("_dtype", "float32")
    if changes.get("_fp8"):
        config["quantization_config"] = {
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "quant_method": "fp8",
            "weight_block_size": [128, 128],
        }
    return dict(sorted(config.items()))


def shapes(c: dict) -> dict:
    """Published name -> shape, in the order of the published files."""
    hidden, heads, rank, rope = (
        c[k] for k in ("hidden_size", "num_attention_heads", "kv_lora_rank", "qk_rope_head_dim")
    )
    query, value, nope = c["qk_nope_head_dim"] + rope, c["v_head_dim"], c["qk_nope_head_dim"]
    out = {"model.embed_tokens.weight": (c["vocab_size"], hidden)}

    def mlp(prefix, inner):
        out[prefix + "gate_proj.weight"] = out[prefix + "up_proj.weight"] = (inner, hidden)
        out[prefix + "down_proj.weight"] = (hidden, inner)

    main_layers = c["num_hidden_layers"]
    for layer in range(main_layers + c.get("num_nextn_predict_layers", 0)):
        p = f"model.layers.{layer}."
        if layer >= main_layers:
            out[p + "embed_tokens.weight"] = (c["vocab_size"], hidden)
            out[p + "enorm.weight"] = out[p + "hnorm.weight"] = (hidden,)
            out[p + "eh_proj.weight"] = (hidden, 2 * hidden)
        out[p + "input_layernorm.weight"] = (hidden,)
        a = p + "self_attn."
        if c["q_lora_rank"]:
            out[a + "q_a_proj.weight"] = (c["q_lora_rank"], hidden)
            out[a + "q_a_layernorm.weight"] = (c["q_lora_rank"],)
            out[a + "q_b_proj.weight"] = (heads * query, c["q_lora_rank"])
        else:
            out[a + "q_proj.weight"] = (heads * query, hidden)
        out[a + "kv_a_proj_with_mqa.weight"] = (rank + rope, hidden)
        out[a + "kv_a_layernorm.weight"] = (rank,)
        out[a + "kv_b_proj.weight"] = (heads * (nope + value), rank)
        out[a + "o_proj.weight"] = (hidden, heads * value)
        out[p + "post_attention_layernorm.weight"] = (hidden,)
        if layer < c["first_k_dense_replace"]:
            mlp(p + "mlp.", c["intermediate_size"])
        else:
            out[p + "mlp.gate.weight"] = (c["n_routed_experts"], hidden)
            if c["topk_method"] == "noaux_tc":
                out[p + "mlp.gate.e_score_correction_bias"] = (c["n_routed_experts"],)
            for expert in range(c["n_routed_experts"]):
                mlp(f"{p}mlp.experts.{expert}.", c["moe_intermediate_size"])
            mlp(p + "mlp.shared_experts.", c["moe_intermediate_size"] * c["n_shared_experts"])
        if layer >= main_layers:
            out[p + "shared_head.norm.weight"] = (hidden,)
            out[p + "shared_head.head.weight"] = (c["vocab_size"], hidden)
    out["model.norm.weight"] = (hidden,)
    if not c["tie_word_embeddings"]:
        out["lm_head.weight"] = (c["vocab_size"], hidden)
    return out


def random_weights(c: dict, changes: dict, seed: int) -> dict:
    """float32. Much wider than a trained model's, so that a wrong term is seen in the logits."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes(c).items():
        if name.endswith(("layers.%d.embed_tokens.weight" % c["num_hidden_layers"], "shared_head.head.weight")):
            w = weights["model.embed_tokens.weight"] if "embed" in name else None  # published as copies
        elif "e_score_correction_bias" in name:
            middle, spread = changes.get("_bias", (0.0, 0.3))
            w = random.permutation(np.linspace(middle - spread, middle + spread, shape[0]))
        elif len(shape) == 1:
            w = 1 + 0.3 * random.standard_normal(shape)
        else:
            gain = 0.8 if "embed" in name else 1.2
            if "mlp.gate." in name:
                gain = 1.6
            w = random.standard_normal(shape) * gain * (1.0 if "embed" in name else shape[1] ** -0.5)
            if ".q_a_proj." in name:
                w *= changes.get("_latent_gain", 1.0)
            if "kv_a_proj_with_mqa" in name:
                w[: c["kv_lora_rank"]] *= changes.get("_latent_gain", 1.0)
        weights[name] = w
    for name in weights:
        if weights[name] is None:
            weights[name] = weights["lm_head.weight"]
    return {n: torch.from_numpy(np.ascontiguousarray(w, dtype=np.float32).copy()) for n, w in weights.items()}


def quantised(w: torch.Tensor):
    """(e4m3 values, scale of each 128 x 128 block); value = e4m3 * scale."""
    rows, cols = w.shape
    scale = torch.empty(-(-rows // 128), -(-cols // 128))
    out = torch.empty(rows, cols, dtype=torch.float8_e4m3fn)
    for r in range(scale.shape[0]):
        for k in range(scale.shape[1]):
            block = (slice(128 * r, 128 * r + 128), slice(128 * k, 128 * k + 128))
            scale[r, k] = w[block].abs().max() / FP8_MAX
            out[block] = (w[block] / scale[r, k]).to(torch.float8_e4m3fn)
    return out, scale


def stored(weights: dict, dtype: torch.dtype, fp8: bool) -> dict:
    """As the published files store them: the selection bias in f32 whatever the rest is."""
    out = {}
    for name, w in weights.items():
        if fp8 and FP8.search(name) and "eh_proj" not in name:
            out[name], out[name + "_scale_inv"] = quantised(w)
        else:
            out[name] = w if "e_score_correction_bias" in name else w.to(dtype)
    return out


def as_float64(tensors: dict) -> dict:
    return reference.dequantised({n: t.to(torch.float64).numpy() for n, t in tensors.items()})


def write_folder(folder: pathlib.Path, config: dict, tensors: dict, shards: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    size = {n: t.numel() * t.element_size() for n, t in tensors.items()}
    total, done, parts = sum(size.values()), 0, [{} for _ in range(shards)]
    for name, tensor in tensors.items():  # cuts an expert in two
        parts[(done + size[name]) * shards // (total + 1)][name] = tensor
        done += size[name]
    where = {}
    for i, part in enumerate(parts):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        where |= {name: file for name in part}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def load_with_transformers(folder: pathlib.Path, config: dict, dtype: torch.dtype):
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        attn_implementation="eager",
        experts_implementation="eager",
        output_loading_info=True,
        trust_remote_code=False,
    )
    extra = f"model.layers.{config['num_hidden_layers']}."
    unexpected = [n for n in info["unexpected_keys"] if not n.startswith(extra)]
    assert not info["missing_keys"] and not unexpected and not info["mismatched_keys"], info
    assert type(model).__name__ == config["architectures"][0]
    return model.eval()


@torch.no_grad()
def run_transformers(model, tokens) -> dict:
    """Logits, the output of every layer, the state after the last norm, and the chosen experts of each layer."""
    hidden, norms, experts, hooks = {}, [], {}, []
    for i, layer in enumerate(model.model.layers):
        hooks.append(layer.register_forward_hook(lambda _, __, out, i=i: hidden.__setitem__(i, out[0])))
        router = getattr(layer.mlp, "gate", getattr(layer.mlp, "router", None))
        if router is not None:
            hooks.append(
                router.register_forward_hook(
                    lambda _, __, out, i=i: experts.__setitem__(i, out[2].sort(dim=-1).values.to(torch.int32))
                )
            )
    hooks.append(model.model.norm.register_forward_hook(lambda _, __, out: norms.append(out[0])))
    logits = model(torch.tensor(tokens)[None].long(), use_cache=False).logits[0]
    for hook in hooks:
        hook.remove()
    return {
        "logits": logits.float().contiguous(),
        "hidden": {i: h.contiguous() for i, h in hidden.items()},
        "norm": norms[0].contiguous(),
        "experts": {i: e.contiguous() for i, e in experts.items()},
    }


@torch.no_grad()
def run_transformers_mtp(model, folder, config, tokens, norm) -> torch.Tensor:
    """transformers' own layer for multi-token prediction. It looks for layer 61, so it is told which layer it is; it
    gives row i the position i + 1, which relative positions do not notice."""
    from transformers.cache_utils import MtpCache
    from transformers.modeling_layers import MtpModel

    model._keys_to_ignore_on_load_unexpected = [rf"model\.layers\.{config['num_hidden_layers']}\."]
    mtp = MtpModel.from_pretrained(model).eval()
    ids = torch.tensor(tokens)[None].long()
    positions = torch.arange(1, ids.shape[1])[None]
    state = mtp.forward_layer(0, norm[None, :-1], positions, MtpCache(config=mtp.config), input_ids=ids[:, 1:])
    return model.lm_head(state)[0].contiguous()


def choose_tokens(model: reference.Model, length: int, margin: float, random) -> list:
    """Token after token, the first at random that leaves every choice of the routers further than `margin` from
    another one. Attention looks back only, so earlier tokens keep theirs."""
    tokens, mtp = [], model.c.get("num_nextn_predict_layers", 0)
    for _ in range(length):
        best = None
        for candidate in random.permutation(model.c["vocab_size"]):
            trial = tokens + [int(candidate)]
            out = model.forward(trial)
            if mtp and len(trial) > 1:
                model.forward_mtp(trial, out["norm"])
            found = model.margin.min()
            if best is None or found > best[0]:
                best = (found, int(candidate))
            if found > margin:
                break
        assert best[0] > 0.3 * margin, f"no token leaves a margin of {margin}, best {best[0]}"
        tokens.append(best[1])
    return tokens


def make(name: str) -> dict:
    changes, config = FIXTURES[name], config_of(name)
    dtype = getattr(torch, changes.get("_dtype", "float32"))
    like = changes.get("_like", name)
    seed = 1000 + list(FIXTURES).index(like)
    tensors = stored(random_weights(config, changes, seed), dtype, changes.get("_fp8", False))
    exact = reference.Model(config, as_float64(tensors))
    if "_ramp" in changes:
        assert ((exact.ramp > 0) & (exact.ramp < 1)).sum() >= changes["_ramp"], exact.ramp

    # Tokens are chosen with the f32 weights, so that the variants of v3_base have the same ones.
    chooser = exact if like == name else reference.Model(config, as_float64(random_weights(config, changes, seed)))
    random = np.random.default_rng(seed + 500)
    sequences = [choose_tokens(chooser, n, 0.02, random) for n in changes.get("_lengths", (19, 8))]

    folder = OUT / name
    write_folder(folder, config, tensors, changes.get("_shards", 1))
    with tempfile.TemporaryDirectory() as temporary:
        source = folder
        if changes.get("_fp8"):  # transformers gets the dequantised weights, rounded to f32
            source = pathlib.Path(temporary)
            plain = {n: torch.from_numpy(np.ascontiguousarray(w)).float() for n, w in as_float64(tensors).items()}
            write_folder(source, {k: v for k, v in config.items() if k != "quantization_config"}, plain, 1)
        model = load_with_transformers(source, config, torch.float32)

        expected, report = {}, {"seed": seed, "margin": np.inf, "transformers_to_float64": 0.0, "zero_fill_changes": 0}
        for i, tokens in enumerate(sequences):
            found, wanted = run_transformers(model, tokens), exact.forward(tokens)
            report["margin"] = min(report["margin"], float(exact.margin.min()))
            report["zero_fill_changes"] += exact.flipped
            errors = [reference.row_error(found["logits"].numpy(), wanted["logits"])]
            errors += [reference.row_error(found["hidden"][l].numpy(), h) for l, h in enumerate(wanted["hidden"])]
            for layer, chosen in exact.choices.items():
                assert (found["experts"][layer].numpy() == chosen).all(), (name, "choice of experts", layer)
                expected[f"experts_{i}.{layer}"] = found["experts"][layer]
            expected[f"tokens_{i}"] = torch.tensor(tokens, dtype=torch.int32)
            expected[f"logits_{i}"] = (
                torch.from_numpy(wanted["logits"]).float() if changes.get("_fp8") else found["logits"]
            )
            if changes.get("_hidden") and i == 0:
                expected |= {f"hidden_0.{layer}": h for layer, h in found["hidden"].items()}
                expected["hidden_0.norm"] = found["norm"]
            if config.get("num_nextn_predict_layers"):
                logits = run_transformers_mtp(model, source, config, tokens, found["norm"])
                errors.append(reference.row_error(logits.numpy(), exact.forward_mtp(tokens, wanted["norm"])))
                report["margin"] = min(report["margin"], float(exact.margin.min()))
                expected[f"mtp_logits_{i}"] = logits
            report["transformers_to_float64"] = max(report["transformers_to_float64"], *errors)
        assert report["transformers_to_float64"] <= reference.ERROR_LIMIT, (name, report)
        if changes.get("_zero_fill_must_differ"):
            exact.mask_value = 0.0
            zero = [reference.row_error(exact.forward(t)["logits"], expected[f"logits_{i}"].numpy())
                    for i, t in enumerate(sequences)]
            exact.mask_value = -np.inf
            decisions = sum(map(len, sequences)) * len(exact.choices)
            report["zero_fill_decisions"], report["zero_fill_difference"] = decisions, max(zero)
            assert report["zero_fill_changes"] > decisions / 2, report
        if dtype != torch.float32 and not changes.get("_fp8"):  # the same weights, computed in their own type
            low = load_with_transformers(source, config, dtype)
            report["low_precision_difference"], report["low_precision_other_choices"] = 0.0, 0
            for i, tokens in enumerate(sequences):
                out = run_transformers(low, tokens)
                expected[f"logits_{changes['_dtype']}_{i}"] = out["logits"]
                same = torch.stack([(out["experts"][l] == expected[f"experts_{i}.{l}"]).all(-1) for l in out["experts"]])
                report["low_precision_other_choices"] += int((~same).sum())
                error = reference.row_error(out["logits"].numpy(), expected[f"logits_{i}"].numpy())
                report["low_precision_difference"] = max(report["low_precision_difference"], error)
    save_file(expected, folder / "expected.safetensors")
    report = {k: None if v == np.inf else v for k, v in report.items()}
    report["bytes"] = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{name:22} {report}", flush=True)
    return report


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    measured_path = OUT / "measured.json"
    measured = json.loads(measured_path.read_text())["fixtures"] if measured_path.exists() else {}
    for name in FIXTURES:
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            measured[name] = make(name)
    versions = {"transformers": transformers.__version__, "torch": torch.__version__, "numpy": np.__version__}
    text = json.dumps({"versions": versions, "fixtures": {n: measured[n] for n in FIXTURES if n in measured}}, indent=2)
    measured_path.write_text(text + "\n")


if __name__ == "__main__":
    main()
