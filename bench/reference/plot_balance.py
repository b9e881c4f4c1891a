#!/usr/bin/env python3
"""Draws what balance_study_bench logged: bits a byte against load, one dot a run, one ring for each policy's mean.

plot_balance.py OUT.svg FILE [STEPS]: FILE holds lines of the bench; STEPS chooses among runs of several lengths.
"""
import json
import sys

COLOURS = ["#5e5c64", "#1a5fb4", "#26a269", "#c01c28", "#e66100", "#813d9c", "#986a44", "#0d7377"]
LEFT, RIGHT, TOP, BOTTOM = 60, 440, 40, 320


def main():
    target, name, *steps = sys.argv[1:]
    arms = {}
    for line in open(name, encoding="utf-8"):
        run = json.loads(line)
        if not steps or run["steps"] == int(steps[0]):
            arms.setdefault(run["arm"], []).append((run["load"], run["bits"]))
    points = [point for runs in arms.values() for point in runs]
    most = max(load for load, _ in points) * 1.05
    low, high = min(bits for _, bits in points), max(bits for _, bits in points)
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)

    def place(load, bits):
        return (LEFT + (load - 1) / (most - 1) * (RIGHT - LEFT), BOTTOM - (bits - low) / (high - low) * (BOTTOM - TOP))

    out = []
    for load in range(1, int(most) + 1):
        x, _ = place(load, low)
        out.append(f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{TOP}' y2='{BOTTOM}' stroke='#ddd'/>"
                   f"<text x='{x:.1f}' y='{BOTTOM + 16}' text-anchor='middle'>{load}</text>")
    tenth = next(t for t in (0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / t <= 8)
    bits = tenth * (int(low / tenth) + 1)
    while bits <= high:
        _, y = place(1, bits)
        out.append(f"<line x1='{LEFT}' x2='{RIGHT}' y1='{y:.1f}' y2='{y:.1f}' stroke='#ddd'/>"
                   f"<text x='{LEFT - 6}' y='{y + 4:.1f}' text-anchor='end'>{bits:.2f}</text>")
        bits += tenth
    for i, (arm, runs) in enumerate(arms.items()):
        colour = COLOURS[i % len(COLOURS)]
        for point in runs:
            x, y = place(*point)
            out.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour}'/>")
        x, y = place(*(sum(values) / len(runs) for values in zip(*runs)))
        out.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='8' fill='none' stroke='{colour}' stroke-width='2'/>"
                   f"<circle cx='{RIGHT + 24}' cy='{TOP + 20 * i + 8}' r='6' fill='none' stroke='{colour}' "
                   f"stroke-width='2'/><text x='{RIGHT + 38}' y='{TOP + 20 * i + 12}'>{arm}</text>")
    with open(target, "w", encoding="utf-8") as file:
        file.write("<svg xmlns='http://www.w3.org/2000/svg' width='560' height='360' font-family='sans-serif' "
                   "font-size='12'>\n<rect width='560' height='360' fill='white'/>\n"
                   f"<text x='{LEFT}' y='24' font-size='14'>bits a byte, and the busiest expert's load over the mean"
                   "</text>\n" + "\n".join(out) + "\n</svg>\n")


main()
