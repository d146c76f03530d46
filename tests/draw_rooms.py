"""Draw docs/architecture.svg from the import rules in test_architecture.py: `.venv/bin/python tests/draw_rooms.py`.

Rooms stand in layers, each above what it imports (Sugiyama's method: long arrows bend through free places of the layers
between, which are ordered for few crossings). Arrows are the transitive reduction: none where a longer path leads.
"""

import ast
import re
import textwrap
from html import escape
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.optimize import isotonic_regression

from test_architecture import ROOMS, ROOT, SOURCE, WAYS

PICTURE = ROOT / "docs" / "architecture.svg"
BOX, HEIGHT, LINE = 168, 64, 15  # pixels of a box, and of a line of text in it
BEND, GAP = 4, 18  # pixels for an arrow that passes a layer; between neighbours
LAYER = 128  # from the top of one layer to that of the next
MARGIN = 24
SWEEPS = 40
STRAIGHT = 4  # weight of each end of a link that is a bend: long arrows stay straight
TINTS = {"way": ("#fdf0d9", "#c98a1b"), "room": ("#eef3fb", "#5b7db1"), "ground": ("#f3f3f3", "#9a9a9a")}

LEGEND = (
    "An arrow: imports from.",
    "Imports that a longer path implies",
    "have no arrow.",
    "Amber: the four ways of a configuration;",
    "none imports another.",
)

Node = tuple[str, ...]  # (room,), or (from, to, layer) where a long arrow bends


def source_of(room: str) -> Path:
    """The file whose docstring says what a room is."""
    package = SOURCE / room / "__init__.py"
    return package if package.exists() else SOURCE / f"{room}.py"


def description(room: str) -> str:
    """What the first line of the docstring says behind the room's name."""
    line = (ast.get_docstring(ast.parse(source_of(room).read_text())) or "").splitlines()[0]
    line = line.partition(": ")[2] or line
    return re.split(r"; |\. |\.$", line)[0]


def reduced() -> dict[str, list[str]]:
    """Imports that no longer path stands for."""
    below: dict[str, set[str]] = {}
    for room in reversed(ROOMS):  # from the bottom up
        below[room] = ROOMS[room].union(*(below[other] for other in ROOMS[room]))
    return {
        room: sorted(other for other in others if not any(other in below[middle] for middle in others))
        for room, others in ROOMS.items()
    }


def is_ground(room: str) -> bool:
    """Whether every room stands on it: a single file but for the two at the top, or a room that imports nothing."""
    return room not in ("app", "command") and (not source_of(room).name.startswith("__") or not ROOMS[room])


def layers_of(arrows: dict[str, list[str]]) -> tuple[list[list[Node]], list[list[Node]]]:
    """Layers from the top, in the order of ROOMS, and each arrow as the nodes that it passes."""
    height: dict[str, int] = {}
    for room in reversed(arrows):
        height[room] = 1 + max((height[other] for other in arrows[room]), default=-1)
    top = max(height.values())
    layers: list[list[Node]] = [[] for _ in range(top + 1)]
    for room in arrows:
        layers[top - height[room]].append((room,))
    paths = []
    for room, others in arrows.items():
        for other in others:
            bends: list[Node] = [(room, other, str(at)) for at in range(height[room] - 1, height[other], -1)]
            for bend in bends:
                layers[top - int(bend[2])].append(bend)
            paths.append([(room,), *bends, (other,)])
    return layers, paths


def crossings(layers: list[list[Node]], links: list[tuple[Node, Node]]) -> int:
    place = {node: at for layer in layers for at, node in enumerate(layer)}
    depth = {node: at for at, layer in enumerate(layers) for node in layer}
    ends = [(depth[a], place[a], place[b]) for a, b in links]
    return sum(
        one[0] == other[0] and (one[1] - other[1]) * (one[2] - other[2]) < 0
        for at, one in enumerate(ends)
        for other in ends[:at]
    )


def ordered(layers: list[list[Node]], links: list[tuple[Node, Node]]) -> list[list[Node]]:
    """Each layer by the mean place of its neighbours, then by swaps, for as few crossings as that finds."""
    layers = [list(layer) for layer in layers]
    best = [list(layer) for layer in layers]
    for sweep in range(SWEEPS):
        downward = sweep % 2 == 0
        for at in range(1, len(layers)) if downward else range(len(layers) - 2, -1, -1):
            beside = layers[at - 1 if downward else at + 1]
            place = {node: spot for spot, node in enumerate(beside)}
            mean = {}
            for own, node in enumerate(layers[at]):
                near = [place[end] for link in links if node in link for end in link if end in place]
                mean[node] = sum(near) / len(near) if near else own
            layers[at].sort(key=lambda node: (mean[node], node))
        if crossings(layers, links) < crossings(best, links):
            best = [list(layer) for layer in layers]
    improved = True
    while improved:
        improved = False
        for layer in best:
            for at in range(len(layer) - 1):
                before = crossings(best, links)
                layer[at], layer[at + 1] = layer[at + 1], layer[at]
                if crossings(best, links) < before:
                    improved = True
                else:
                    layer[at], layer[at + 1] = layer[at + 1], layer[at]
    return best


def width(node: Node) -> int:
    return BOX if len(node) == 1 else BEND


def columns(layers: list[list[Node]], links: list[tuple[Node, Node]]) -> dict[Node, int]:
    """The middle of each node: near its neighbours, and clear of those beside it."""
    x = {node: float(at) for layer in layers for at, node in enumerate(layer)}
    for _ in range(SWEEPS):
        for layer in [*layers, *reversed(layers)]:
            wanted = []
            for node in layer:
                near = [b if a == node else a for a, b in links if node in (a, b)] or [node]
                weights = [STRAIGHT ** ((len(node) > 1) + (len(other) > 1)) for other in near]
                wanted.append(np.average([x[other] for other in near], weights=weights))
            apart = [0.0, *np.cumsum([(width(a) + width(b)) / 2 + GAP for a, b in pairwise(layer)])]
            placed = isotonic_regression(np.subtract(wanted, apart)).x + apart
            x.update(zip(layer, map(float, placed), strict=True))
    left = min(x[node] - width(node) / 2 for node in x)
    return {node: round(MARGIN + at - left) for node, at in x.items()}


def box(room: str, x: int, y: int, kind: str) -> str:
    """A room around (x, top y): its name, and its description in at most two lines."""
    fill, edge = TINTS[kind]
    lines = textwrap.wrap(description(room), 24, max_lines=2, placeholder=" ...")
    texts = [f'<text x="{x}" y="{y + 20}" class="name">{room}</text>']
    for at, line in enumerate(lines):
        texts.append(f'<text x="{x}" y="{y + 38 + LINE * at}" class="about">{escape(line)}</text>')
    shape = f'<rect x="{x - BOX // 2}" y="{y}" width="{BOX}" height="{HEIGHT}" rx="7" fill="{fill}" stroke="{edge}"/>'
    return "\n".join([shape, *texts])


def curve(points: list[tuple[int, int]]) -> str:
    """An arrow through points, vertical at each."""
    (x, y), path = points[0], f"M{points[0][0]} {points[0][1]}"
    for to_x, to_y in points[1:]:
        middle = (y + to_y) // 2
        path += f" C{x} {middle} {to_x} {middle} {to_x} {to_y}"
        x, y = to_x, to_y
    return f'<path d="{path}" class="arrow"/>'


def port(at: int, count: int) -> int:
    """Where one of several arrows meets a box, from its middle."""
    return round((at - (count - 1) / 2) * min(26, (BOX - 30) / count))


def house(arrows: dict[str, list[str]]) -> tuple[list[str], int, int]:
    """Rooms in layers, with arrows; width and height."""
    layers, paths = layers_of(arrows)
    links = [link for path in paths for link in pairwise(path)]
    layers = ordered(layers, links)
    x = columns(layers, links)
    top = {node: MARGIN + LAYER * at for at, layer in enumerate(layers) for node in layer}
    leaving = {room: sorted((p for p in paths if p[0] == (room,)), key=lambda p: x[p[1]]) for room in arrows}
    coming = {room: sorted((p for p in paths if p[-1] == (room,)), key=lambda p: x[p[-2]]) for room in arrows}
    parts = []
    for path in paths:
        first, last = path[0], path[-1]
        out, into = leaving[first[0]], coming[last[0]]
        points = [(x[first] + port(out.index(path), len(out)), top[first] + HEIGHT)]
        for bend in path[1:-1]:
            points += [(x[bend], top[bend]), (x[bend], top[bend] + HEIGHT)]
        points.append((x[last] + port(into.index(path), len(into)), top[last] - 2))
        parts.append(curve(points))
    parts += [box(room, x[room,], top[room,], "way" if room in WAYS else "room") for room in arrows]
    return parts, max(x[room,] for room in arrows) + BOX // 2 + MARGIN, MARGIN + LAYER * len(layers)


def ground(arrows: dict[str, list[str]], y: int, wide: int) -> tuple[list[str], int]:
    """What every room stands on: one chain of imports per row, then the rest; and where the rows end."""
    rows: list[list[str]] = []
    for room in arrows:
        row = next((row for row in rows if room in arrows[row[-1]]), None)
        if row is None:
            rows.append([room])
        else:
            row.append(room)
    chains = [row for row in rows if len(row) > 1]
    for row in rows:
        if len(row) == 1:
            min(chains, key=len).extend(row)
    step = (wide - 2 * MARGIN) // max(map(len, chains))
    place = {
        room: (MARGIN + step // 2 + step * at, y + 40 + line * (HEIGHT + GAP))
        for line, row in enumerate(chains)
        for at, room in enumerate(row)
    }
    parts = []
    for room, others in arrows.items():
        for other in others:
            (x, top), (to_x, to_top) = place[room], place[other]
            start, end = f"{x + BOX // 2} {top + HEIGHT // 2}", f"{to_x - BOX // 2 - 2} {to_top + HEIGHT // 2}"
            parts.append(f'<path d="M{start} L{end}" class="arrow"/>')
    parts += [box(room, *place[room], "ground") for room in arrows]
    return parts, max(top for _, top in place.values()) + HEIGHT + GAP


def draw() -> str:
    """The picture, as SVG."""
    arrows = reduced()
    upper = {room: [other for other in others if not is_ground(other)] for room, others in arrows.items()}
    parts, wide, high = house({room: others for room, others in upper.items() if not is_ground(room)})
    lower, bottom = ground({room: others for room, others in arrows.items() if is_ground(room)}, high, wide)
    band = (
        f'<rect x="{MARGIN // 2}" y="{high}" width="{wide - MARGIN}" height="{bottom - high}" rx="9" class="band"/>'
        f'\n<text x="{MARGIN + GAP}" y="{high + 26}" class="title">what every room stands on</text>'
    )
    legend = [
        f'<text x="{MARGIN}" y="{MARGIN + 16 + 20 * at}" class="title">{line}</text>' for at, line in enumerate(LEGEND)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {bottom + MARGIN}" width="{wide}" '
            f'height="{bottom + MARGIN}" font-family="DejaVu Sans, Verdana, Helvetica, sans-serif">',
            "<style>.name { font-size: 15px; font-weight: bold; text-anchor: middle }",
            ".about { font-size: 12px; text-anchor: middle; fill: #444 }",
            ".title { font-size: 13px; font-style: italic; fill: #555 }",
            ".arrow { fill: none; stroke: #7d8590; stroke-width: 1.4; marker-end: url(#head) }",
            ".band { fill: #fafafa; stroke: #cccccc; stroke-dasharray: 5 4 }</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#7d8590"/></marker></defs>',
            f'<rect width="{wide}" height="{bottom + MARGIN}" fill="white"/>',
            *legend,
            band,
            *lower,
            *parts,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(PICTURE)
