"""Model diagrams that are read off the running model, never drawn by hand.

`trace` hooks the named parts, runs the caller's code once and records shapes, parameter counts and
which tensor flowed where. `draw` lays the result out. A functional step between parts (sampling a
code, adding two tensors) makes a new tensor that no hook sees; it is declared with
`graph.connect(a, b, label)`.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from latentpapers.errors import UnknownName, UserError
from latentpapers.report import figures

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import nn

Shape = tuple[int, ...]
Cell = str | Sequence[str] | None
LOSS = "#c1121f"
_FILL = {"encoder": "#dbe9f6", "decoder": "#fde6d2", "block": "#e8e8e8"}


@dataclass(frozen=True)
class Part:
    """A network: name, parameters and the shapes (per image) of its first call."""

    name: str
    params: int
    takes: tuple[Shape, ...]
    gives: tuple[Shape, ...]

    @property
    def kind(self) -> str:
        """`encoder` if it gives fewer numbers than it takes, `decoder` if more, else `block`."""
        takes, gives = (sum(map(math.prod, s)) for s in (self.takes[:1], self.gives[:1]))
        return "encoder" if gives < takes else "decoder" if gives > takes else "block"


@dataclass
class Graph:
    """What ran: parts, named values and the flow between them.

    Attributes:
        parts: by name.
        values: named tensors that the traced code returned, name -> shape per image.
        calls: `decoder`, `decoder#2`, … in the order of the calls -> part name.
        edges: (from, to, label) between values and calls.
        notes: free text nodes (a prior, a constant).
    """

    parts: dict[str, Part] = field(default_factory=dict)
    values: dict[str, Shape] = field(default_factory=dict)
    calls: dict[str, str] = field(default_factory=dict)
    edges: list[tuple[str, str, str]] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)

    def connect(self, a: str, b: str, label: str = "") -> "Graph":
        """Declares a functional step from `a` to `b` that no hook can see.

        Raises:
            UnknownName: neither a value, a part, a call nor a note.
        """
        for name in (a, b):
            self.require(name)
        self.edges.append((a, b, label))
        return self

    def note(self, name: str, text: str) -> "Graph":
        """Adds a text node, for example a prior."""
        self.notes[name] = text
        return self

    def require(self, name: str) -> None:
        """Raises UnknownName unless `name` is part of the graph."""
        if not any(name in group for group in (self.values, self.calls, self.parts, self.notes)):
            known = [*self.values, *self.calls, *self.notes]
            raise UnknownName("node of the diagram", name, known)


# --- tracing ---------------------------------------------------------------------------------


def trace(parts: "Mapping[str, nn.Module]", run: Callable[[], Any]) -> Graph:
    """Runs `run()` once, without gradients, and reads the graph from forward hooks.

    Args:
        parts: name -> module; a module may be called several times.
        run: runs the model; returns name -> tensor for the values to be drawn (or nothing).

    Returns:
        The graph. Flow is found by tensor identity, or by storage where a view (reshape, slice,
        transpose) lies between.

    Raises:
        UserError: a part that was never called, or a name used twice.
    """
    import torch

    calls: list[tuple[str, list[Any], list[Any]]] = []
    with torch.no_grad(), _hooked(parts, calls):
        named = run()
    named = dict(named) if isinstance(named, Mapping) else {}
    twice = set(named) & set(parts)
    if twice:
        raise UserError(f"{min(twice)!r} names both a part and a value; rename one.")
    missing = [name for name in parts if name not in {c[0] for c in calls}]
    if missing:
        raise UserError(f"part {missing[0]!r} was never called; call it inside run().")
    return _graph(parts, calls, named)


@contextlib.contextmanager
def _hooked(parts: "Mapping[str, nn.Module]", calls: list[Any]) -> Iterator[None]:
    """Appends (part, inputs, outputs) for each call; keeping the tensors keeps their ids unique."""

    def hook(name: str) -> Callable[..., None]:
        def record(_module: Any, args: Any, kwargs: Any, output: Any) -> None:
            calls.append((name, _tensors([args, kwargs]), _tensors(output)))

        return record

    handles = [m.register_forward_hook(hook(n), with_kwargs=True) for n, m in parts.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value: Any) -> list[Any]:
    if hasattr(value, "untyped_storage"):
        return [value]
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        # Dataclasses and distributions carry tensors as attributes.
        value = vars(value).values() if hasattr(value, "__dict__") else ()
    return [t for v in value for t in _tensors(v)]


def _graph(parts: Any, calls: list[Any], named: dict[str, Any]) -> Graph:
    graph = Graph(values={name: tuple(t.shape[1:]) for name, t in named.items()})
    for name, takes, gives in calls:
        if name not in graph.parts:
            shapes = [tuple(tuple(t.shape[1:]) for t in group) for group in (takes, gives)]
            params = sum(p.numel() for p in parts[name].parameters())
            graph.parts[name] = Part(name, params, *shapes)
    graph.calls = _call_names([c[0] for c in calls])
    records = list(zip(graph.calls, calls))
    for call, (_, takes, gives) in records:
        for tensor in takes:
            source = _value_of(tensor, named) or _giver(tensor, records, call)
            if source:
                graph.edges.append((source, call, ""))
        for tensor in gives:
            target = _value_of(tensor, named)
            if target:
                graph.edges.append((call, target, ""))
    graph.edges = list(dict.fromkeys(graph.edges))
    return graph


def _call_names(names: list[str]) -> dict[str, str]:
    out: dict[str, str] = {}
    for i, name in enumerate(names):
        count = names[: i + 1].count(name)
        out[name if count == 1 else f"{name}#{count}"] = name
    return out


def _same(a: Any, b: Any) -> bool:
    return a is b or (
        a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
        and a.numel() == b.numel()
        and a.storage_offset() == b.storage_offset()
        and a.untyped_storage().nbytes() > 0
    )


def _value_of(tensor: Any, named: dict[str, Any]) -> str | None:
    exact = next((n for n, t in named.items() if t is tensor), None)
    return exact or next((n for n, t in named.items() if _same(t, tensor)), None)


def _giver(tensor: Any, records: list[Any], before: str) -> str | None:
    """The latest earlier call that gave `tensor`."""
    found = None
    for call, (_, _, gives) in records:
        if call == before:
            break
        if any(_same(tensor, t) for t in gives):
            found = call
    return found


# --- drawing ---------------------------------------------------------------------------------

_ROW, _TOP, _VALUE_GAP = 176, 30, 56  # pixels


@dataclass(frozen=True)
class _Node:
    """One thing on the canvas; x, y in pixels from the upper left, w, h its size."""

    name: str
    x: float
    y: float
    w: float
    h: float
    copy: bool = False


def draw(
    graph: Graph,
    layout: Sequence[Sequence[Cell]],
    *,
    losses: Sequence[tuple[Any, ...]] = (),
    labels: Mapping[str, str] | None = None,
    title: str | None = None,
    width: int = figures.WIDTH,
) -> "Figure":
    """The diagram: parts as trapezoids that narrow or widen with the data, losses in red dots.

    Args:
        graph: from `trace`.
        layout: rows of cells from left to right. A cell is a value, a part (all its calls in one
            trapezoid), a single call (`decoder#2`), a note, several of them stacked, or None. A
            value may appear again in a later row; the copy gets a dashed outline.
        losses: (from, to, label) or (from, to, label, bend): red dotted bows between nodes; bend is
            the height in pixels, positive to the left of the way. (name, name, label) is a stub.
        labels: name -> text to show (TeX between dollars is set as a formula).
        title: a heading.
        width: in pixels, at most 900.

    Raises:
        UnknownName: a name in the layout or the losses that the graph does not have.
    """
    labels = dict(labels or {})
    for name in [n for row in layout for cell in row for n in _names(cell)]:
        graph.require(name)
    with figures.house():
        nodes, height = _place(graph, layout, width, labels, 74 if losses else 12)
        fig = figures._canvas_figure(width, height)
        axes = fig.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        for edge in dict.fromkeys(_drawn_edges(graph, nodes)):
            _arrow(axes, graph, *edge)
        for node in nodes:
            _draw_node(axes, graph, node, labels)
        for loss in losses:
            _loss(axes, nodes, loss)
        if title:
            axes.text(
                8, 16, title, size=11, weight="bold", ha="left", va="center", color=figures.INK
            )
    return fig


def _names(cell: Cell) -> list[str]:
    return [] if cell is None else [cell] if isinstance(cell, str) else list(cell)


def _place(
    graph: Graph,
    layout: Sequence[Sequence[Cell]],
    width: int,
    labels: Mapping[str, str],
    right: int,
) -> tuple[list[_Node], int]:
    """Columns share the width by what they hold; rows are as high as their tallest stack.

    `right` pixels at the right edge stay free for the bows of losses.
    """
    columns = [[row[j] for row in layout if j < len(row)] for j in range(max(map(len, layout)))]
    holds = [any(_is_part(graph, n) for cell in col for n in _names(cell)) for col in columns]
    share = [2.05 if part else 1.0 for part in holds]
    unit = (width - 12 - right) / sum(share)
    nodes: list[_Node] = []
    y: float = _TOP
    for row in layout:
        high = max(_ROW, max(len(_names(c)) for c in row) * _VALUE_GAP + 40)
        for j, cell in enumerate(row):
            x = 12 + unit * (sum(share[:j]) + share[j] / 2)
            nodes += _stack(
                graph, _names(cell), (x, y), (share[j] * unit - 22, high), labels, nodes
            )
        y += high + (26 if right > 12 and row is not layout[-1] else 0)
    return nodes, int(y)


def _stack(
    graph: Graph,
    names: list[str],
    at: tuple[float, float],
    room: tuple[float, float],
    labels: Mapping[str, str],
    before: list[_Node],
) -> list[_Node]:
    """The nodes of one cell: centred at x, spread over the height of its row."""
    out = []
    for k, name in enumerate(names):
        part = _is_part(graph, name)
        gap = room[1] / len(names) if part else _VALUE_GAP
        y = at[1] + room[1] / 2 + (k - (len(names) - 1) / 2) * gap
        text = labels.get(name, graph.notes.get(name, name))
        wide = room[0] if part else max(46, figures._text_size(text, 11)[0] + 14)
        high = room[1] / len(names) - 44 if part else 30
        out.append(_Node(name, at[0], y, wide, high, any(n.name == name for n in before)))
    return out


def _is_part(graph: Graph, name: str) -> bool:
    return name in graph.parts or name in graph.calls


def _drawn_edges(graph: Graph, nodes: list[_Node]) -> Iterator[tuple[_Node, _Node, str]]:
    for a, b, label in graph.edges:
        ends = [_shown_as(graph, nodes, name) for name in (a, b)]
        pairs = [(p, q) for p in ends[0] for q in ends[1] if not q.copy or _is_part(graph, a)]
        # Data flows to the right; only where no such pair is shown may an arrow go back.
        pairs = [pq for pq in pairs if pq[0].x < pq[1].x] or pairs
        if pairs:
            yield (*min(pairs, key=lambda pq: _distance(*pq)), label)


def _shown_as(graph: Graph, nodes: list[_Node], name: str) -> list[_Node]:
    """The nodes that stand for `name`: itself, or the trapezoid of the part it is a call of."""
    exact = [n for n in nodes if n.name == name]
    part = graph.calls.get(name)
    return exact or [n for n in nodes if n.name == part]


def _distance(a: _Node, b: _Node) -> float:
    return math.hypot(a.x - b.x, a.y - b.y)


def _draw_node(axes: "Axes", graph: Graph, node: _Node, labels: Mapping[str, str]) -> None:
    if _is_part(graph, node.name):
        _trapezoid(axes, graph, node, labels)
        return
    from matplotlib.patches import FancyBboxPatch

    value = node.name in graph.values
    text = labels.get(node.name, graph.notes.get(node.name, node.name))
    box = FancyBboxPatch(
        (node.x - node.w / 2, node.y - node.h / 2), node.w, node.h,
        boxstyle="round,pad=0,rounding_size=7", facecolor="white",
        edgecolor=figures.INK if value else figures.GREY,
        linewidth=1.1 if value else 0.8, linestyle=(0, (4, 2)) if node.copy else "-", zorder=3,
    )  # fmt: skip
    axes.add_patch(box)
    axes.text(node.x, node.y, text, size=11, ha="center", va="center", zorder=4)
    if value and not node.copy:
        below = node.y + node.h / 2 + 3
        style = {"size": 8, "color": figures.GREY, "zorder": 4, "bbox": _HALO}
        axes.text(
            node.x, below, shape_text(graph.values[node.name]), ha="center", va="top", **style
        )


_HALO = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}


def _trapezoid(axes: "Axes", graph: Graph, node: _Node, labels: Mapping[str, str]) -> None:
    """The sides' heights follow the logarithm of the numbers that go in and come out."""
    part = _part(graph, node.name)
    left, right = _sides(graph, node)
    half = node.w / 2
    corners = [
        (node.x - half, node.y - left),
        (node.x + half, node.y - right),
        (node.x + half, node.y + right),
        (node.x - half, node.y + left),
    ]
    from matplotlib.patches import Polygon

    fill = _FILL[part.kind]
    axes.add_patch(Polygon(corners, closed=True, facecolor=fill, edgecolor=figures.INK, zorder=3))
    name = labels.get(node.name, node.name)
    lines = [f"{shape_text(part.takes[0])} → {shape_text(part.gives[0])}", count_text(part.params)]
    axes.text(node.x, node.y - 17, name, size=10, weight="bold", ha="center", va="center", zorder=4)
    for i, line in enumerate(lines):
        y = node.y + 2 + 17 * i
        axes.text(node.x, y, line, size=8.5, ha="center", va="center", color=figures.INK, zorder=4)


def _part(graph: Graph, name: str) -> Part:
    return graph.parts[name if name in graph.parts else graph.calls[name]]


def _sides(graph: Graph, node: _Node) -> tuple[float, float]:
    """Half the height of the left and of the right side, in pixels."""
    part = _part(graph, node.name)
    ends = [s for p in graph.parts.values() for s in (p.takes[0], p.gives[0])]
    sizes = [math.log1p(math.prod(s)) for s in ends]
    low, high = min(sizes), max(sizes)

    def half(shape: Shape) -> float:
        share = (math.log1p(math.prod(shape)) - low) / (high - low) if high > low else 1.0
        return node.h / 2 * (0.42 + 0.58 * share)

    return half(part.takes[0]), half(part.gives[0])


def _anchor(axes: "Axes", graph: Graph, node: _Node, other: _Node) -> tuple[float, float]:
    """Where an arrow towards `other` meets the outline of `node`."""
    if abs(other.x - node.x) < 1:  # one column: from the bottom of one to the top of the other
        sides = _sides(graph, node) if _is_part(graph, node.name) else (node.h / 2, node.h / 2)
        return node.x, node.y + math.copysign(sum(sides) / 2, other.y - node.y)
    to_right = other.x > node.x
    x = node.x + (node.w / 2 if to_right else -node.w / 2)
    if not _is_part(graph, node.name):
        return x, node.y
    half = _sides(graph, node)[to_right] * 0.8
    return x, min(max(other.y, node.y - half), node.y + half)


def _arrow(axes: "Axes", graph: Graph, a: _Node, b: _Node, label: str) -> None:
    start, end = _anchor(axes, graph, a, b), _anchor(axes, graph, b, a)
    style = {"arrowstyle": "-|>", "color": figures.GREY, "shrinkA": 1, "shrinkB": 1, "lw": 1.2}
    axes.annotate("", xy=end, xytext=start, arrowprops=style, zorder=2)
    if label:
        x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 - 8
        text = {"size": 8.5, "color": figures.INK, "bbox": _HALO, "zorder": 5}
        axes.text(x, y, label, ha="center", va="bottom", **text)


def _loss(axes: "Axes", nodes: list[_Node], loss: tuple[Any, ...]) -> None:
    """A red dotted bow; a loss of one node with itself is a short stub upwards."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    a, b, label, *bend = loss
    start, end, middle, control = _bow(*_nearest(nodes, a, b), bend[0] if bend else None)
    codes = [Path.MOVETO, Path.CURVE3, Path.CURVE3]
    line = {"edgecolor": LOSS, "facecolor": "none", "linestyle": (0, (1.2, 2)), "linewidth": 2}
    axes.add_patch(PathPatch(Path([start, control, end], codes), zorder=3.5, **line))
    style = {"size": 11, "color": LOSS, "zorder": 6, "bbox": _HALO | {"pad": 1.5, "alpha": 1}}
    axes.text(*middle, label, ha="center", va="center", **style)


def _nearest(nodes: list[_Node], a: str, b: str) -> tuple[_Node, _Node]:
    pairs = [(p, q) for p in nodes if p.name == a for q in nodes if q.name == b]
    if not pairs:
        raise UserError(f"the loss from {a!r} to {b!r} has an end that the layout does not show.")
    return min(pairs, key=lambda pq: _distance(*pq))


Point = tuple[float, float]


def _bow(p: _Node, q: _Node, bend: float | None) -> tuple[Point, Point, Point, Point]:
    """Start, end, middle and control point of a quadratic curve between two outlines.

    `bend` is the bow's height in pixels, to the left of the way from p to q; None: to the right
    side of a column, above a row.
    """
    if p == q:
        top = (p.x, p.y - p.h / 2)
        tip = (p.x, top[1] - 26)
        return top, tip, (tip[0], tip[1] - 6), (p.x, top[1] - 13)
    column = abs(p.x - q.x) < 1
    if bend is None:
        reach = _distance(p, q)
        bend = min(reach / 3 + 6, 46) if column else max(36.0, min(reach / 13, 60))
        bend *= -1 if column and q.y < p.y else 1
    side = 1 if column and bend * (q.y - p.y) > 0 else -1
    start, end = (
        (n.x + side * n.w / 2, n.y)
        if column
        else (n.x, n.y - math.copysign(n.h / 2, bend * (q.x - p.x)))
        for n in (p, q)
    )
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy)
    normal = (dy / length, -dx / length)
    centre = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    control = (centre[0] + 2 * bend * normal[0], centre[1] + 2 * bend * normal[1])
    return start, end, (centre[0] + bend * normal[0], centre[1] + bend * normal[1]), control


# --- texts and tables ------------------------------------------------------------------------


def shape_text(shape: Shape) -> str:
    """`(3, 32, 32)` -> `3×32×32`; a single number a picture is `1`."""
    return "×".join(map(str, shape)) or "1"


def count_text(params: int) -> str:
    """`5707200` -> `5.71 M parameters`."""
    if params >= 1e6:
        return (
            f"{params / 1e6:.3g} M parameters"
            if params < 999.5e6
            else f"{params / 1e9:.3g} G parameters"
        )
    return f"{params / 1e3:.3g} k parameters" if params >= 1e4 else f"{params:,} parameters"


def layers(module: "nn.Module", example: Any) -> "pd.DataFrame":
    """Layer table: one line a leaf module call, in the order of the calls, and a total.

    Args:
        module: any network; its mode is left as it is, nothing is trained.
        example: its input, or a tuple of inputs.

    Returns:
        Columns `name, layer, output, params` (output per image; a layer called again counts 0).
    """
    import pandas as pd
    import torch

    lines: list[tuple[str, str, str, int]] = []
    names = {m: n for n, m in module.named_modules() if not list(m.children())}

    def record(layer: Any, _args: Any, output: Any) -> None:
        known = any(names[layer] == line[0] for line in lines)
        count = 0 if known else sum(p.numel() for p in layer.parameters())
        shapes = ", ".join(shape_text(tuple(t.shape[1:])) for t in _tensors(output))
        lines.append((names[layer] or "(self)", type(layer).__name__, shapes, count))

    handles = [m.register_forward_hook(record) for m in names]
    try:
        with torch.no_grad():
            module(*(example if isinstance(example, tuple) else (example,)))
    finally:
        for handle in handles:
            handle.remove()
    # Parameters that belong to no leaf (a learned constant) still count in the total.
    total = sum(p.numel() for p in module.parameters())
    rest = total - sum(line[3] for line in lines)
    if rest:
        lines.append(("(others)", "Parameter", "", rest))
    lines.append(("total", "", "", total))
    return pd.DataFrame(lines, columns=["name", "layer", "output", "params"])
