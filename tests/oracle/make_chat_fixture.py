"""Conversations with the tokens that are learned, frozen for tests/training/chat_dataset_test.cpp.

`python make_chat_fixture.py` renders each conversation with Jinja as transformers sets it up, tokenizes the text with
Hugging Face tokenizers (checkpoints/mini-r1) and finds the assistant's tokens by the offsets of their characters: from
where the text leaves the prompt that add_generation_prompt gives, to the end of the turn. Nothing of this is how the
library does it, which compares tokens. Writes tests/fixtures/training/chat.json: a list of
{template, assistant, messages, tokens, targets} with target -1 where nothing is learned.
"""
import json
import os
import pathlib

import tokenizers
from transformers.utils.chat_template_utils import _compile_jinja_template

HERE = pathlib.Path(__file__).resolve().parent
TEMPLATES = HERE.parent / "fixtures" / "templates"
MINI = HERE.parent.parent / "checkpoints" / "mini-r1"
OUT = HERE.parent / "fixtures" / "training" / "chat.json"
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
TOKENS = {"bos_token": BOS, "eos_token": EOS, "pad_token": EOS}
TOKENIZER = tokenizers.Tokenizer.from_file(str(MINI / "tokenizer.json"))
EOS_ID = TOKENIZER.token_to_id(EOS)


def u(t): return {"role": "user", "content": t}
def a(t): return {"role": "assistant", "content": t}
def s(t): return {"role": "system", "content": t}
def t(t): return {"role": "tool", "content": t}
def calls(*c): return {"role": "assistant", "content": None, "tool_calls": [
    {"type": "function", "function": {"name": n, "arguments": x}} for n, x in c]}


RENDERED = [
    [u("What is 17 * 23?"), a("391")],
    [u("What is 17 * 23?"), a("<think>\n17 * 20 = 340, 17 * 3 = 51.\n</think>\n\nThe answer is 391.")],
    [u("Hi"), a("Hello!"), u("Bye"), a("See you.")],
    [u("Hi"), a("<think>\nThey greet.\n</think>\n\nHello!"), u("Again"), a("<think>\nAgain.\n</think>\n\nHello again!"), u("?"), a("!")],
    [s("Be brief."), u("Hi"), a("Yes."), u("More"), a("No.\n")],
    [u("Hi"), a("Hello!"), u("unanswered")],
    [u("Hi"), a("")],
    [u("Hi"), a(" leading space"), u("Hi"), a("\nleading line")],
    [u("one"), u("two in a row"), a("both")],
    [u("你好，世界 👩‍👩‍👧"), a("Grüße aus Köln, 123456 × 7\n\n")],
]
TOOLS = [
    [u("Weather?"), calls(("get_weather", '{"city": "A"}')), t('{"t": 21}'), a("It is 21 degrees."), u("Thanks"), a("Welcome.")],
    [u("q"), calls(("w", "{}"), ("v", "{}")), t("1"), t("2"), a("Both fine.")],
]
GENERATED = [
    [u("What is 17 * 23?"), a("<think>\n17 * 20 = 340, 17 * 3 = 51.\n</think>\n\nThe answer is 391.")],
    [u("What is 2 + 2?"), a("2 + 2 = 4.\n</think>\n\n4")],
    [u("Hi"), a("<think>\nThey greet.\n</think>\n\nHello!"), u("And 6 * 7?"), a("<think>\n6 * 7 = 42\n</think>\n\n**42**")],
    [s("Be brief."), u("Hi"), a("Yes."), u("More"), a("No.")],
    [u("Hi"), a("<think>no line end</think>ok")],
    [u("Hi"), {"role": "assistant", "content": "391", "reasoning_content": "17 * 23 = 391"}],
]


def encode(text):
    return TOKENIZER.encode(text, add_special_tokens=False)


def render(template, messages, generation):
    return template.render(messages=messages, add_generation_prompt=generation, tools=None, documents=None, **TOKENS)


def rendered(template, messages):
    whole = render(template, messages, False)
    spans = []
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        begin = len(os.path.commonprefix([whole, render(template, messages[:turn], True)]))
        upto = render(template, messages[:turn + 1], False)
        assert whole.startswith(upto) and whole.startswith(render(template, messages[:turn], False))
        spans.append((begin, len(upto)))
    encoding = encode(whole)
    # "<|Assistant|><" is common to "<|Assistant|><think>" and an answer that begins with a control token: half a token
    # within the prompt is not in it.
    learned = [any(begin < end <= stop for begin, stop in spans) for _, end in encoding.offsets]
    last = max(i for i, x in enumerate(learned) if x)
    return {"tokens": encoding.ids[:last],
            "targets": [encoding.ids[i + 1] if learned[i + 1] else -1 for i in range(last)]}


def generated(template, messages):
    prompt = render(template, messages[:-1], True)
    assert prompt.endswith("<think>\n") or "think>" not in prompt
    answer = messages[-1]["content"]
    if "reasoning_content" in messages[-1]:
        answer = "<think>\n" + messages[-1]["reasoning_content"] + "\n</think>\n\n" + answer
    if prompt.endswith("<think>\n"):
        if answer.startswith("<think>"):
            answer = answer.removeprefix("<think>").removeprefix("\n")
        elif "</think>" not in answer:
            answer = "\n</think>\n\n" + answer
    prompt, answer = encode(prompt).ids, encode(answer).ids + [EOS_ID]
    ids = prompt + answer
    return {"tokens": ids[:-1], "targets": [-1] * (len(prompt) - 1) + answer}


def main():
    mini = json.loads((MINI / "tokenizer_config.json").read_text(encoding="utf-8"))["chat_template"]
    rows = []
    for name in ("mini-r1", "r1_first.jinja", "r1_joined.jinja", "v2_lite.jinja"):
        source = mini if name == "mini-r1" else (TEMPLATES / name).read_text(encoding="utf-8")
        template = _compile_jinja_template(source)
        for messages in RENDERED + TOOLS:
            if name == "v2_lite.jinja" and (messages in TOOLS or any("<think>" in m["content"] for m in messages)):
                continue  # shows no tools, and thinking as it is: text to the library, control tokens to transformers
            rows.append({"template": name, "assistant": "as_rendered", "messages": messages, **rendered(template, messages)})
        for messages in GENERATED:
            if name == "v2_lite.jinja" and (any("think>" in m["content"] for m in messages[:-1])
                                            or messages[-1]["content"].startswith("2 + 2")):
                continue  # a closing tag without an opening one is text
            rows.append({"template": name, "assistant": "as_generated", "messages": messages, **generated(template, messages)})
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("[\n" + ",\n".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) for r in rows) + "\n]\n", encoding="utf-8")
    print(len(rows), "rows,", sum(len(r["tokens"]) for r in rows), "tokens,", sum(x >= 0 for r in rows for x in r["targets"]), "learned")


if __name__ == "__main__":
    main()
