"""Makes the folders v32* and glm5* of tests/fixtures/models: DeepSeek-V3.2 and GLM-5, tiny and random, and what
transformers computes with them; and tests/fixtures/configs/<family>_v5.json.

`python make_sparse_fixtures.py [NAME...]` (10 seconds, one thread; the same bytes every time) writes all folders or
those named. Expected values come from Hugging Face transformers in float32 with eager attention, loaded from the very
folder that is shipped; `sparse_forward.py` (float64, from the formulas) must agree within 1e-5 or nothing is written.
Logits of prediction layers, which transformers does not have for these models, are that script's.

Prompts are drawn as in make_family_fixtures.py; besides, no index score that is kept is nearer than 1e-4 of its row's
largest magnitude to one that is dropped. Eight index heads: with one or two, whole rows of scores are 0 and tie.
"""
import json
import pathlib
import shutil
import sys
import tempfile

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

import make_family_fixtures as family
import make_model_fixtures as common
import sparse_forward
from make_model_fixtures import OUT, as_float64, load_with_transformers, write_folder

CONFIGS, INDEX_MARGIN = family.CONFIGS, 1e-4

# The keys that the published file has.
V32 = {k: v for k, v in common.V3.items() if k not in ("auto_map", "aux_loss_alpha", "pretraining_tp", "seq_aux")} | {
    "architectures": ["DeepseekV32ForCausalLM"],
    "hidden_size": 28,
    "index_head_dim": 12,
    "index_n_heads": 8,
    "index_topk": 6,
    "intermediate_size": 37,
    "kv_lora_rank": 17,
    "moe_intermediate_size": 9,
    "max_position_embeddings": 64,
    "model_type": "deepseek_v32",
    "num_hidden_layers": 3,
    "rope_scaling": common.yarn(beta_fast=2, beta_slow=0.1, mscale=1.3, mscale_all_dim=0.6),
    "rope_theta": 100,
    "transformers_version": "4.44.2",
    "vocab_size": 61,
}
GLM5 = {k: v for k, v in V32.items() if k not in ("rope_scaling", "rope_theta", "torch_dtype")} | {
    "architectures": ["GlmMoeDsaForCausalLM"],
    "dtype": "float32",
    "head_dim": 8,
    "index_head_dim": 10,
    "indexer_rope_interleave": True,
    "indexer_types": ["full", "shared", "shared", "full", "shared"],
    "intermediate_size": 21,
    "model_type": "glm_moe_dsa",
    "hidden_size": 20,
    "moe_intermediate_size": 7,
    "n_group": 1,
    "n_routed_experts": 5,
    "num_attention_heads": 4,
    "num_hidden_layers": 5,
    "num_experts_per_tok": 2,
    "num_key_value_heads": 4,
    "qk_head_dim": 18,
    "rms_norm_eps": 0.001,
    "rope_interleave": True,
    "rope_parameters": {"rope_theta": 50, "rope_type": "default"},
    "topk_group": 1,
    "transformers_version": "5.0.2.dev0",
    "v_head_dim": 13,
    "vocab_size": 48,
}
FIXTURES = {
    "v32": V32 | {"_lengths": (21, 9), "_v5": "deepseek_v32_v5", "_fused": "v32_fused"},
    "v32_mtp": V32
    | {
        "n_group": 2,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 2,
        "num_nextn_predict_layers": 1,
        "topk_group": 1,
        "_lengths": (12, 5),
    },
    "v32_bf16": V32 | {"torch_dtype": "bfloat16", "_lengths": (13, 5)},
    "glm5": GLM5 | {"_lengths": (13, 5)},
    "glm5_full": {k: v for k, v in GLM5.items() if k != "indexer_types"}
    | {"num_hidden_layers": 3, "_lengths": (19, 8), "_v5": "glm_moe_dsa_v5"},
}
SEEDS = {"v32": 7100, "v32_bf16": 7101, "glm5": 7102, "glm5_full": 7103, "v32_mtp": 7104}


def shapes(c: dict) -> dict:
    out, kinds = common.shapes(c), sparse_forward.index_kinds(c)
    heads, dim = c["index_n_heads"], c["index_head_dim"]
    for layer, kind in enumerate(kinds):
        if kind == "shared":
            continue
        p = f"model.layers.{layer}.self_attn.indexer."
        out |= {p + "wq_b.weight": (heads * dim, c["q_lora_rank"]), p + "wk.weight": (dim, c["hidden_size"])}
        out |= {p + "k_norm.weight": (dim,), p + "k_norm.bias": (dim,)}
        out[p + "weights_proj.weight"] = (heads, c["hidden_size"])
    return out


def random_weights(c: dict, seed: int) -> dict:
    """float32, and much wider than a trained model's, so that a wrong term is seen in the logits."""
    random, weights = np.random.default_rng(seed), {}
    for name, shape in shapes(c).items():
        if name.endswith("e_score_correction_bias"):
            w = random.permutation(np.linspace(-0.3, 0.3, shape[0]))
        elif name.endswith("k_norm.bias"):
            w = 0.7 * random.standard_normal(shape)
        elif len(shape) == 1:
            w = 1 + 0.3 * random.standard_normal(shape)
        elif "embed_tokens" in name:
            w = 0.8 * random.standard_normal(shape)
        else:
            w = random.standard_normal(shape) * (1.6 if "mlp.gate." in name else 1.2) * shape[1] ** -0.5
            if ".q_a_proj." in name or "kv_a_proj_with_mqa" in name:  # GLM: the fixed epsilon of the latents' norms
                w[: c["kv_lora_rank"] if "kv_a" in name else None] *= 0.05 if c["model_type"] == "glm_moe_dsa" else 1
        weights[name] = torch.from_numpy(w.astype(np.float32))
    extra = f"model.layers.{c['num_hidden_layers']}."
    if extra + "embed_tokens.weight" in weights:  # published as copies
        weights[extra + "embed_tokens.weight"] = weights["model.embed_tokens.weight"].clone()
        weights[extra + "shared_head.head.weight"] = weights["lm_head.weight"].clone()
    return weights


def stored(config: dict, tensors: dict) -> dict:
    """As transformers saves them: routers and the weights of index heads in float32 whatever the rest is."""
    if config.get("torch_dtype") != "bfloat16":
        return tensors
    wide = ("mlp.gate.weight", "e_score_correction_bias", "indexer.weights_proj.weight")
    return {n: t if n.endswith(wide) else t.bfloat16() for n, t in tensors.items()}


class Chooser(sparse_forward.Model):
    """Its margin is small, too, where an index score is near another choice."""

    def forward(self, tokens) -> dict:
        out = super().forward(tokens)
        if self.c["num_nextn_predict_layers"] and len(tokens) > 1:
            self.forward_mtp(tokens, out["norm"])
            self.choices = {layer: c for layer, c in self.choices.items() if layer < self.c["num_hidden_layers"]}
        if self.index_margin < INDEX_MARGIN:
            self.margin = self.margin * 0
        return out


def make(name: str) -> dict:
    changes = FIXTURES[name]
    config = dict(sorted((k, v) for k, v in changes.items() if k[0] != "_"))
    seed = SEEDS[name]
    tensors = stored(config, random_weights(config | {"topk_method": "noaux_tc"}, seed))
    exact = Chooser(config, as_float64(tensors))
    random = np.random.default_rng(seed + 500)
    chosen = [family.choose_sequence(exact, n, random) for n in changes["_lengths"]]
    sequences = [tokens for tokens, _, _ in chosen]

    folder = OUT / name
    write_folder(folder, config, tensors, 1)
    model = load_with_transformers(folder, config, torch.float32)
    expected, report = family.expect(model, exact, sequences, changes["_lengths"])
    if config["num_nextn_predict_layers"]:  # transformers has no such layer of these models
        for i, tokens in enumerate(sequences):
            wanted = exact.forward_mtp(tokens, exact.forward(tokens)["norm"])
            expected[f"mtp_logits_{i}"] = torch.from_numpy(wanted).float()
    margins = [exact.index_margin for tokens in sequences if exact.forward(tokens)]
    report = {"seed": seed, "prompts_tried": [tried for _, _, tried in chosen], "index_margin": float(min(margins))} | report
    measured = family.finish(name, folder, expected, report)

    if "_v5" in changes:
        with tempfile.TemporaryDirectory() as temporary:
            family.save_as_transformers_does(model, pathlib.Path(temporary), fused=False)
            saved = load_file(pathlib.Path(temporary) / "model.safetensors")
            assert saved.keys() == tensors.keys() and all(torch.equal(saved[n], tensors[n]) for n in tensors)
            shutil.copyfile(pathlib.Path(temporary) / "config.json", CONFIGS / f"{changes['_v5']}.json")
    if "_fused" in changes:
        twin = OUT / changes["_fused"]
        shutil.rmtree(twin, ignore_errors=True)
        family.save_as_transformers_does(model, twin, fused=True)
        config = json.loads((twin / "config.json").read_text())
        exact = Chooser(config, as_float64(load_file(twin / "model.safetensors")))
        model = load_with_transformers(twin, config, torch.float32)
        again, report = family.expect(model, exact, sequences, changes["_lengths"])
        assert all(torch.equal(again[key], expected[key]) for key in expected)
        measured |= family.finish(twin.name, twin, again, report)
    return measured


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    path = OUT / "measured_sparse.json"
    measured = json.loads(path.read_text())["fixtures"] if path.exists() else {}
    for name in FIXTURES:
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            measured |= make(name)
    versions = {"transformers": transformers.__version__, "torch": torch.__version__, "numpy": np.__version__}
    path.write_text(json.dumps({"versions": versions, "fixtures": dict(sorted(measured.items()))}, indent=2) + "\n")


if __name__ == "__main__":
    main()
