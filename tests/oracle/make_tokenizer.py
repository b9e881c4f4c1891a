"""Byte-level BPE in the layout of the published DeepSeek-V3/R1 tokenizer, trained on a little text.

`python make_tokenizer.py OUT_DIR` writes tokenizer.json and tokenizer_config.json (with the chat
template in it, as published).  Digits are kept out of the training text, so that no merge contains
one and every digit is a token of its own.
"""
import glob
import json
import pathlib
import random
import re
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import arithmetic

TOKENS = 1530  # all ids, added tokens included

BEFORE = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"]
# (text, special, normalized) in the published order
AFTER = ([(f"<｜place▁holder▁no▁{i}｜>", True, False) for i in range(4)]
         + [("<think>", False, False), ("</think>", False, False)]
         + [(f"<｜fim▁{w}｜>", False, True) for w in ("hole", "begin", "end")]
         + [("<｜User｜>", False, True), ("<｜Assistant｜>", False, True), ("<|EOT|>", True, True)]
         + [(f"<｜tool▁{w}｜>", False, True) for w in (
             "calls▁begin", "calls▁end", "call▁begin", "call▁end", "outputs▁begin", "outputs▁end",
             "output▁begin", "output▁end", "sep")])

SPLITS = [
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
]

# System text without a mark after BOS; thinking of earlier assistant turns dropped; tool calls and
# outputs between their marks; the prompt for an answer opens the thinking.
CHAT_TEMPLATE = """\
{%- if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif -%}
{%- set ns = namespace(system='', in_tool=false) -%}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{%- if ns.system -%}{%- set ns.system = ns.system + '\\n\\n' + message['content'] -%}
{%- else -%}{%- set ns.system = message['content'] -%}{%- endif -%}
{%- endif -%}
{%- endfor -%}
{{ bos_token }}{{ ns.system }}
{%- for message in messages -%}
{%- if ns.in_tool and message['role'] != 'tool' -%}
{{ '<｜tool▁outputs▁end｜>' }}
{%- endif -%}
{%- if message['role'] == 'user' -%}
{%- set ns.in_tool = false -%}
{{ '<｜User｜>' + message['content'] }}
{%- elif message['role'] == 'assistant' and message['tool_calls'] is defined and message['tool_calls'] is not none -%}
{%- set ns.in_tool = false -%}
{{ '<｜Assistant｜>' }}
{%- if message['content'] is defined and message['content'] is not none -%}{{ message['content'] }}{%- endif -%}
{%- for tool in message['tool_calls'] -%}
{%- if loop.first -%}{{ '<｜tool▁calls▁begin｜>' }}{%- else -%}{{ '\\n' }}{%- endif -%}
{{ '<｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + '\\n```json\\n' + tool['function']['arguments'] + '\\n```<｜tool▁call▁end｜>' }}
{%- endfor -%}
{{ '<｜tool▁calls▁end｜><｜end▁of▁sentence｜>' }}
{%- elif message['role'] == 'assistant' -%}
{%- set content = message['content'] -%}
{%- if '</think>' in content -%}{%- set content = content.split('</think>')[-1] -%}{%- endif -%}
{%- if ns.in_tool -%}{{ content + '<｜end▁of▁sentence｜>' }}
{%- else -%}{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{%- endif -%}
{%- set ns.in_tool = false -%}
{%- elif message['role'] == 'tool' -%}
{%- if not ns.in_tool -%}{{ '<｜tool▁outputs▁begin｜>' }}{%- else -%}{{ '\\n' }}{%- endif -%}
{%- set ns.in_tool = true -%}
{{ '<｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>' }}
{%- endif -%}
{%- endfor -%}
{%- if ns.in_tool -%}{{ '<｜tool▁outputs▁end｜>' }}{%- endif -%}
{%- if add_generation_prompt and not ns.in_tool -%}{{ '<｜Assistant｜><think>\\n' }}{%- endif -%}
"""


def corpus():
    rng = random.Random(7)
    for _ in range(8000):
        for m in arithmetic.conversation(rng):
            yield re.sub(r"\d+|</?think>", " ", m["content"])
    for f in sorted({pathlib.Path(f).resolve() for f in glob.glob("/usr/share/common-licenses/*")}):
        yield re.sub(r"\d+", "", f.read_text(encoding="utf-8", errors="ignore"))[:30000]
    for _ in range(30):
        yield "Grüße aus Köln, déjà vu à l'école; ¿qué pasa? 你好，世界。こんにちは。 Привет, мир! “quoted” — naïve café €\n\n"


def make() -> Tokenizer:
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.Sequence([])
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r), "isolated") for r in SPLITS]
        + [pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=TOKENS - len(AFTER), special_tokens=BEFORE,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tok.add_tokens([AddedToken(t, special=s, normalized=n) for t, s, n in AFTER])
    tok.post_processor = processors.ByteLevel(add_prefix_space=True, trim_offsets=False, use_regex=True)
    return tok


def main(out: str) -> None:
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    tok = make()
    assert tok.get_vocab_size() == TOKENS and [tok.token_to_id(t) for t in BEFORE] == [0, 1, 2]
    assert not any(re.search(r".\d|\d.", t) for t in json.loads(tok.to_str())["model"]["vocab"])
    tok.save(str(out / "tokenizer.json"))
    special = lambda t: {"__type": "AddedToken", "content": t, "lstrip": False, "normalized": True,
                         "rstrip": False, "single_word": False}
    (out / "tokenizer_config.json").write_text(json.dumps({
        "add_bos_token": True, "add_eos_token": False,
        "bos_token": special(BEFORE[0]), "clean_up_tokenization_spaces": False,
        "eos_token": special(BEFORE[1]), "legacy": True, "model_max_length": 2048,
        "pad_token": special(BEFORE[1]), "sp_model_kwargs": {}, "unk_token": None,
        "tokenizer_class": "LlamaTokenizerFast", "chat_template": CHAT_TEMPLATE,
    }, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
