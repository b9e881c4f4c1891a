#!/usr/bin/env python3
"""Draws what gate_bench printed: the mean bias of far keys on copied and on recalled tokens, head by head.

plot_gates.py OUT.svg FILE... : FILES hold lines of gate_bench; arms with a far bias are drawn side by side. Prints for
each arm the least difference between recall and copy over the heads of its last layer.
"""
import json
import sys

COLOURS = {"copy": "#c64600", "recall": "#1a5fb4"}


def bars(arm, left, low, high, out):
    top, bottom, width = 60, 250, 14
    scale = (bottom - top) / (high - low)
    gates = arm["gates"]
    layers = sorted({g["layer"] for g in gates})
    heads = len(gates[0]["mean"])
    out.append(f"<text x='{left}' y='40' font-size='15'>{arm['title']}</text>")
    zero = top + high * scale
    x = left
    for layer in layers:
        for head in range(heads):
            for gate in (g for g in gates if g["layer"] == layer):
                value = gate["mean"][head]
                y, tall = (zero - value * scale, value * scale) if value > 0 else (zero, -value * scale)
                out.append(f"<rect x='{x}' y='{y:.1f}' width='{width}' height='{tall:.1f}' "
                           f"fill='{COLOURS[gate['task']]}'/>")
                x += width + 1
            out.append(f"<text x='{x - width - 1}' y='268' text-anchor='middle'>{head}</text>")
            x += 12
        out.append(f"<text x='{x - heads * 21 - 10}' y='286' text-anchor='middle'>layer {layer}</text>")
        x += 16
    out.append(f"<line x1='{left}' x2='{x - 16}' y1='{zero:.1f}' y2='{zero:.1f}' stroke='#333'/>")
    for value in range(int(low), int(high) + 1, 2):
        y = zero - value * scale
        out.append(f"<text x='{left - 6}' y='{y + 4:.1f}' text-anchor='end'>{value}</text>")
    return x


def main():
    target, *files = sys.argv[1:]
    arms = [json.loads(line) for name in files for line in open(name, encoding="utf-8")]
    arms = [arm for arm in arms if arm["arm"] in ("far_bias", "constant")]
    titles = {"far_bias": "a bias for each head and token", "constant": "a bias for each head alone"}
    values = [v for arm in arms for gate in arm["gates"] for v in gate["mean"]]
    low, high = min(values + [0]) - 0.3, max(values + [0]) + 0.3
    out, x = [], 50
    for arm in arms:
        arm["title"] = f"{titles[arm['arm']]} (seed {arm['seed']})"
        x = bars(arm, x, low, high, out) + 40
        last = max(gate["layer"] for gate in arm["gates"])
        of_task = {gate["task"]: gate["mean"] for gate in arm["gates"] if gate["layer"] == last}
        margins = [r - c for r, c in zip(of_task["recall"], of_task["copy"])]
        print(f"{arm['arm']} seed {arm['seed']}: recall - copy in layer {last}: "
              + ", ".join(f"{m:.2f}" for m in margins) + f"; least {min(margins):.2f}, "
              f"mean {sum(margins) / len(margins):.2f}")
    key = "".join(f"<rect x='{60 + 130 * i}' y='8' width='12' height='12' fill='{colour}'/>"
                  f"<text x='{78 + 130 * i}' y='19'>tokens of {task}</text>"
                  for i, (task, colour) in enumerate(COLOURS.items()))
    with open(target, "w", encoding="utf-8") as file:
        file.write(f"<svg xmlns='http://www.w3.org/2000/svg' width='{x}' height='300' font-family='sans-serif' "
                   f"font-size='12'>\n<rect width='{x}' height='300' fill='white'/>\n" + key + "\n"
                   + "\n".join(out) + "\n</svg>\n")


main()
