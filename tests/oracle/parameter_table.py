"""Sizes of the published models, from a list of the tensors their files hold.

Written from the published weight names and shapes, without a look at include/guild/core/model_size.hpp.
Run: python3 tests/oracle/parameter_table.py > tests/fixtures/parameter_table.inc
"""
import json
import os

HERE = os.path.dirname(os.path.abspath(__file__))
CONFIGS = os.path.join(HERE, "..", "fixtures", "configs")


def attention(c, p):
    d, h = c["hidden_size"], c["num_attention_heads"]
    nope, rope, v, kv = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"], c["kv_lora_rank"]
    yield p + "input_layernorm.weight", (d,)
    yield p + "post_attention_layernorm.weight", (d,)
    if c["q_lora_rank"]:
        yield p + "self_attn.q_a_proj.weight", (c["q_lora_rank"], d)
        yield p + "self_attn.q_a_layernorm.weight", (c["q_lora_rank"],)
        yield p + "self_attn.q_b_proj.weight", (h * (nope + rope), c["q_lora_rank"])
    else:
        yield p + "self_attn.q_proj.weight", (h * (nope + rope), d)
    yield p + "self_attn.kv_a_proj_with_mqa.weight", (kv + rope, d)
    yield p + "self_attn.kv_a_layernorm.weight", (kv,)
    yield p + "self_attn.kv_b_proj.weight", (h * (nope + v), kv)
    yield p + "self_attn.o_proj.weight", (d, h * v)


def mlp(p, d, inner):
    yield p + "gate_proj.weight", (inner, d)
    yield p + "up_proj.weight", (inner, d)
    yield p + "down_proj.weight", (d, inner)


def experts(c, p):
    d, inner = c["hidden_size"], c["moe_intermediate_size"]
    yield p + "mlp.gate.weight", (c["n_routed_experts"], d)
    if c["topk_method"] == "noaux_tc":
        yield p + "mlp.gate.e_score_correction_bias", (c["n_routed_experts"],)
    for e in range(c["n_routed_experts"]):
        yield from mlp(p + "mlp.experts.%d." % e, d, inner)
    if c["n_shared_experts"]:
        yield from mlp(p + "mlp.shared_experts.", d, inner * c["n_shared_experts"])


def main_tensors(c):
    d = c["hidden_size"]
    yield "model.embed_tokens.weight", (c["vocab_size"], d)
    for i in range(c["num_hidden_layers"]):
        p = "model.layers.%d." % i
        yield from attention(c, p)
        if i < c["first_k_dense_replace"]:
            yield from mlp(p + "mlp.", d, c["intermediate_size"])
        else:
            yield from experts(c, p)
    yield "model.norm.weight", (d,)
    yield "lm_head.weight", (c["vocab_size"], d)


def mtp_tensors(c):
    d = c["hidden_size"]
    for i in range(c["num_hidden_layers"], c["num_hidden_layers"] + c.get("num_nextn_predict_layers", 0)):
        p = "model.layers.%d." % i
        yield from attention(c, p)
        yield from experts(c, p)
        yield p + "enorm.weight", (d,)
        yield p + "hnorm.weight", (d,)
        yield p + "eh_proj.weight", (d, 2 * d)
        yield p + "shared_head.norm.weight", (d,)
        yield p + "embed_tokens.weight", (c["vocab_size"], d)
        yield p + "shared_head.head.weight", (c["vocab_size"], d)


def is_copy(name):
    return name.startswith("model.layers.") and (name.endswith(".embed_tokens.weight") or name.endswith(".head.weight"))


def is_quantised(name):
    return name.endswith("_proj.weight") and "eh_proj" not in name or name.endswith("kv_a_proj_with_mqa.weight")


def elements(shape):
    n = 1
    for side in shape:
        n *= side
    return n


def stored_bytes(name, shape, kind):
    if name.endswith("e_score_correction_bias"):
        return 4 * elements(shape)
    if kind == "f32":
        return 4 * elements(shape)
    if kind == "fp8" and is_quantised(name):
        return elements(shape) + 4 * (-(-shape[0] // 128)) * (-(-shape[1] // 128))
    return 2 * elements(shape)


def is_active(c, name):
    """Whether one token, which chooses the first num_experts_per_tok experts, is multiplied with the tensor."""
    if ".experts." in name:
        return int(name.split(".experts.")[1].split(".")[0]) < c["num_experts_per_tok"]
    return name != "model.embed_tokens.weight"


def main():
    print("// Written by tests/oracle/parameter_table.py: do not edit.")
    print("// {spec, total, active, mtp, stored, bf16 bytes, fp8 bytes, f32 bytes, MTP fp8 bytes, fp8 bytes in the files}")
    for spec, file in (("DeepSeekR1Spec", "deepseek_r1"), ("DeepSeekV2LiteSpec", "deepseek_v2_lite"),
                       ("MoonlightSpec", "moonlight"), ("KimiK2Spec", "kimi_k2")):
        with open(os.path.join(CONFIGS, file + ".json")) as f:
            c = json.load(f)
        model, mtp = list(main_tensors(c)), list(mtp_tensors(c))
        own = [t for t in mtp if not is_copy(t[0])]
        numbers = [
            sum(elements(s) for _, s in model),
            sum(elements(s) for n, s in model if is_active(c, n)),
            sum(elements(s) for _, s in own),
            sum(elements(s) for _, s in model + mtp),
            sum(stored_bytes(n, s, "bf16") for n, s in model),
            sum(stored_bytes(n, s, "fp8") for n, s in model),
            sum(stored_bytes(n, s, "f32") for n, s in model),
            sum(stored_bytes(n, s, "fp8") for n, s in own),
            sum(stored_bytes(n, s, "fp8") for n, s in model + mtp),
        ]
        print("{guild::%s::config, %s}," % (spec, ", ".join(map(str, numbers))))


main()
