"""The five papers as five uses of one machine: given, encoder, latent space, generator, judge.

What a paper adds stands in colour; what two papers share is joined by a dotted line. The pictures
at the end of the rows are the caller's, from shipped networks.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latentpapers.errors import UnknownName
from latentpapers.report import diagram, figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STAGES = ("given", "encoder", "latent space", "generator", "judge")


@dataclass(frozen=True)
class Use:
    """How a paper uses the machine: a text a stage (empty: unused), and the stages it adds to."""

    title: str
    texts: tuple[str, str, str, str, str]
    adds: tuple[int, ...]


USES = {
    "lag": Use("LAG", (
        "tiny image $y$", "", "noise $z$ around\na centre $z = 0$",
        "$G(y, z)$:\nmany answers", "distances live in\nthe critic's code $P$"), (2, 4)),
    "lsrgan": Use("LSRGAN", (
        "small image $z$", "$L$ codes $G(z)$\nand the truth",
        "the small image\nitself", "$G(z)$, ESRGAN", "relativistic critic\n+ features"), (1,)),
    "lrc_i2i": Use("LRC-I2I", (
        "image + tiny\ntarget", "features of the\nsource (PONO)", "the tiny target\n(SPAdaIN)",
        "one decoder,\nany target", "sees the rounded\ndifference"), (1, 2)),
    "diamond": Use("Diamond", (
        "a trained GAN,\na start $z_0$", "inversion by\ndescent: $z_1$",
        "great circle to\na protoimage", "unchanged",
        "unchanged; its\nscore is a compass"), (1, 2)),
    "avae": Use("AVAE", (
        "image $x$", "variational:\n$q(z|x)$", "normal, tied to\nthe data", "decoder $G(z)$",
        "an auto-encoder\nwith a controller"), (4,)),
}  # fmt: skip
# (stage, paper, paper): what both rest on.
SHARED = ((4, "lag", "lrc_i2i"),)
_LEFT, _ROW, _TOP, _PICTURE = 78, 82, 34, 74
_BOX = (126, 58)


def draw(pictures: Mapping[str, Any] | None = None, *, width: int = figures.WIDTH) -> "Figure":
    """The map: a row a paper, a column a stage, what the paper adds in its colour.

    Args:
        pictures: paper -> image (C, H, W), float in [-1, 1] or uint8, shown at the end of its row;
            a paper without one gets an empty frame.
        width: in pixels, at most 900.

    Raises:
        UnknownName: a picture of no paper; UserError: values out of range.
    """
    pictures = dict(pictures or {})
    for name in pictures:
        if name not in USES:
            raise UnknownName("paper", name, USES)
    height = _TOP + _ROW * len(USES) + 26
    with figures.house():
        fig = figures._canvas_figure(width, height)
        axes = fig.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        columns = _columns(width)
        for x, stage in zip(columns, STAGES, strict=True):
            _text(axes, x, 16, stage, weight="bold", size=10)
        for x, y in _joints(columns):
            axes.plot(x, y, ":", color=diagram.LOSS)
        for i, (paper, use) in enumerate(USES.items()):
            _row(axes, _TOP + _ROW * (i + 0.5), use, figures.PALETTE[i], columns)
            _picture(axes, _TOP + _ROW * (i + 0.5), width, pictures.get(paper))
        note = "in colour: what the paper adds · dotted: LAG's rounded difference map judges both"
        _text(axes, 8, height - 12, note, size=8.5, ha="left", color=figures.GREY)
    return fig


def _columns(width: int) -> list[float]:
    step = (width - _LEFT - _PICTURE - 16) / len(STAGES)
    return [_LEFT + step * (i + 0.5) for i in range(len(STAGES))]


def _joints(columns: list[float]) -> list[tuple[list[float], list[float]]]:
    """The dotted lines between the boxes of two papers, along their right sides."""
    names, out = list(USES), []
    for stage, a, b in SHARED:
        x = columns[stage] + _BOX[0] / 2
        ends = [_TOP + _ROW * (names.index(p) + 0.5) for p in (a, b)]
        out.append(([x, x + 7, x + 7, x], [ends[0], ends[0], ends[1], ends[1]]))
    return out


def _row(axes: "Axes", y: float, use: Use, colour: str, columns: list[float]) -> None:
    from matplotlib.patches import FancyBboxPatch

    _text(axes, 8, y, use.title, weight="bold", size=10, ha="left", color=colour)
    used = [i for i, text in enumerate(use.texts) if text]
    for a, b in itertools.pairwise(used):
        ends = ((columns[a] + _BOX[0] / 2, y), (columns[b] - _BOX[0] / 2, y))
        arrow = {"arrowstyle": "-|>", "color": figures.GREY, "lw": 1.0, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", xy=ends[1], xytext=ends[0], arrowprops=arrow)
    for i in used:
        adds = i in use.adds
        box = FancyBboxPatch(
            (columns[i] - _BOX[0] / 2, y - _BOX[1] / 2), *_BOX,
            boxstyle="round,pad=0,rounding_size=7", linewidth=1.6 if adds else 0.8,
            facecolor=f"{colour}26" if adds else "#f4f4f4",
            edgecolor=colour if adds else "#c8c8c8", zorder=2,
        )  # fmt: skip
        axes.add_patch(box)
        _text(axes, columns[i], y, use.texts[i], size=8.5, zorder=3, linespacing=1.35)


def _picture(axes: "Axes", y: float, width: int, image: Any) -> None:
    side = _PICTURE
    left, top = width - side - 8, y - side / 2
    if image is None:
        _text(axes, left + side / 2, y, "not run\nyet", size=8.5, color=figures.GREY)
        return
    pixels = figures.tiles(figures.array(image)[None], "the picture")[0]
    corners = (left, left + side, top + side, top)
    axes.imshow(pixels, extent=corners, interpolation="nearest", aspect="auto", zorder=2)


def _text(axes: "Axes", x: float, y: float, text: str, **style: Any) -> None:
    style = {"ha": "center", "va": "center", "color": figures.INK} | style
    axes.text(x, y, text, **style)
