"""Figures in one house style, stored small, deterministic and with the data behind them.

Pictures are at most 900 px wide. Image grids are composed as one array and shown pixel by pixel,
so no resampling can invent seams between tiles. `matplotlib.pyplot` is imported inside functions.
"""

import contextlib
import io
import textwrap
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latentpapers import storage
from latentpapers.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_WIDTH = 900
"""Widest picture in pixels that is saved."""
WIDTH = 880
"""Widest figure that is drawn: the notebook backend pads each side by 10 px."""
MAX_PNG = 300_000
MAX_DATA = 150_000
DPI = 100
INK, GREY, PAPER = "#1a1a1a", "#6f6f6f", "#ffffff"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d00")
"""Okabe and Ito's colour-blind-safe colours, the strong ones first (yellow darkened for lines)."""
_MARKERS = "os^Dv<>P"
_DASHES = ("-", "--", "-.", ":")
_EMPTY = 244  # grey level of a panel without a picture
_SEAM = 2  # white pixels between tiles

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": True,
    "legend.facecolor": PAPER,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "figure.facecolor": PAPER,
    "figure.dpi": DPI,
    "savefig.dpi": "figure",
    "savefig.bbox": None,
    "svg.hashsalt": "latentpapers",
}


@contextlib.contextmanager
def house() -> Iterator[None]:
    """The house style as a matplotlib rc context; nothing outside the block changes."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()  # independent of the reader's own matplotlibrc; keeps the backend
        mpl.rcParams.update(STYLE)
        mpl.rcParams["axes.prop_cycle"] = mpl.cycler(color=PALETTE)
        yield


# --- images ----------------------------------------------------------------------------------


def array(value: Any) -> np.ndarray:
    """A tensor or array-like as a NumPy array on the CPU."""
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def as_bytes(images: Any, name: str = "images") -> np.ndarray:
    """Images as uint8.

    Args:
        images: uint8 of any value, or floats in [-1, 1] (beyond it by at most half a grey level,
            1/255, which is rounding).
        name: what the error calls them.

    Raises:
        UserError: NaN, values out of range, or another dtype.
    """
    pixels = array(images)
    if pixels.dtype == np.uint8:
        return pixels
    if not np.issubdtype(pixels.dtype, np.floating):
        raise UserError(f"{name} must be uint8 or float in [-1, 1], not {pixels.dtype}.")
    if not np.isfinite(pixels).all():
        raise UserError(f"{name} hold NaN or infinity; look for the first step that produced it.")
    low, high = (float(pixels.min()), float(pixels.max())) if pixels.size else (0.0, 0.0)
    if max(-low, high) > 1 + 1 / 255:
        raise UserError(
            f"{name} lie in [{low:.3g}, {high:.3g}]; scale or clamp them to [-1, 1] first."
        )
    return np.rint((np.clip(pixels.astype(np.float64), -1, 1) + 1) * 127.5).astype(np.uint8)


def tiles(images: Any, name: str = "images") -> np.ndarray:
    """Images (N, C, H, W), float in [-1, 1] or uint8, as uint8 (N, H, W, 3).

    Raises:
        UserError: another shape, dtype or value range.
    """
    pixels = as_bytes(images, name)
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or 0 in pixels.shape:
        raise UserError(f"{name} need shape (N, 1 or 3, H, W), not {tuple(pixels.shape)}.")
    rgb = np.repeat(pixels, 3, axis=1) if pixels.shape[1] == 1 else pixels
    return rgb.transpose(0, 2, 3, 1)


def grid(
    images: Any,
    *,
    columns: int | None = None,
    titles: Sequence[str] | None = None,
    row_labels: Sequence[str] | None = None,
    scale: int | None = None,
    title: str | None = None,
) -> "Figure":
    """A grid of images, row by row, each pixel a square of `scale` x `scale` screen pixels.

    Args:
        images: (N, C, H, W), C = 1 or 3; float in [-1, 1] or uint8.
        columns: images a row; None: about twice as wide as high.
        titles: one text a column.
        row_labels: one text a row.
        scale: whole-number zoom, or the largest below it that fits: a page made for 64 px must not
            end a long run at 128 px. None: the largest up to 8. A grid that does not fit at zoom 1
            is shrunk by area averaging.
        title: a heading over everything.

    Raises:
        UserError: wrong shape, dtype or value range, or labels that do not match the grid.
    """
    found = tiles(images)
    columns = columns or min(len(found), int(np.ceil(np.sqrt(2 * len(found)))))
    rows = [list(found[i : i + columns]) for i in range(0, len(found), columns)]
    labels = list(row_labels) if row_labels is not None else [""] * len(rows)
    _same_length("row_labels", labels, len(rows), "rows")
    _same_length("titles", titles, columns, "columns")
    return _mosaic(labels, rows, titles, scale, title)


def strips(
    rows: Sequence[tuple[str, Any]],
    *,
    titles: Sequence[str] | None = None,
    scale: int | None = None,
    title: str | None = None,
) -> "Figure":
    """Labelled rows of images under each other: methods, inputs or steps compared.

    Args:
        rows: (label, images) with images (N, C, H, W) as in `grid`, or a list of single images
            (C, H, W) and texts. A text in place of an image leaves that panel empty with the text
            as its reason; a text in place of `images` does so for the whole row. Smaller images
            (low resolution inputs) are enlarged to the largest by repeating pixels.
        titles: one text a column.
        scale, title: as in `grid`.

    Raises:
        UserError: no picture at all, or a wrong shape, dtype or value range.
    """
    cells = [_row_cells(label, images) for label, images in rows]
    sizes = [c.shape[:2] for row in cells for c in row if not isinstance(c, str)]
    if not sizes:
        raise UserError("strips need at least one row with images.")
    columns = max(len(row) for row in cells)
    _same_length("titles", titles, columns, "columns")
    height, width = max(s[0] for s in sizes), max(s[1] for s in sizes)
    full = [[_enlarged(c, height, width) for c in row] for row in cells]
    return _mosaic([label for label, _ in rows], full, titles, scale, title)


def panels(
    pictures: Sequence[np.ndarray], titles: Sequence[str], *, width: int = WIDTH
) -> "Figure":
    """Ready pictures (uint8, H x W x 3, of one size) side by side, in even rows.

    A picture is never enlarged, and shrunk at most to 280 px, so that small type stays legible; one
    that is three times as wide as high gets a row of its own where it needs it.
    """
    high, wide = pictures[0].shape[:2]
    if any(p.shape != pictures[0].shape for p in pictures):
        raise UserError("panels need pictures of one size.")
    least = wide if wide >= 3 * high else min(wide, 280)
    fits = max(1, min(len(pictures), (width + _SEAM) // (least + _SEAM)))
    columns = -(-len(pictures) // -(-len(pictures) // fits))
    cell_w = min(wide, (width - _SEAM * (columns - 1)) // columns)
    cell_h = max(1, round(high * cell_w / wide))
    heads = [textwrap.fill(t, max(8, cell_w // 7)) for t in titles]
    head = max(_text_size(t)[1] for t in heads) + 8
    rows = -(-len(pictures) // columns)
    with house():
        fig = _canvas_figure(_span(cell_w, columns), rows * (cell_h + head))
        for i, (picture, text) in enumerate(zip(pictures, heads, strict=True)):
            row, column = divmod(i, columns)
            box = _Box(fig, _at(column, cell_w), head + row * (cell_h + head))
            box.image(_resized(picture, cell_h, cell_w, smooth=True))
            box.text(cell_w / 2, -5, text, ha="center", va="bottom")
    return fig


def _same_length(name: str, given: Any, wanted: int, of: str) -> None:
    if given is not None and len(given) != wanted:
        raise UserError(f"{name} has {len(given)} entries for {wanted} {of}.")


def _row_cells(label: str, images: Any) -> list[Any]:
    if isinstance(images, str):
        return [images]
    if isinstance(images, list | tuple):
        return [i if isinstance(i, str) else tiles(array(i)[None], label)[0] for i in images]
    return list(tiles(images, label))


def _enlarged(tile: Any, height: int, width: int) -> Any:
    if isinstance(tile, str) or tile.shape[:2] == (height, width):
        return tile
    ys = np.arange(height) * tile.shape[0] // height
    xs = np.arange(width) * tile.shape[1] // width
    return tile[ys][:, xs]


def _mosaic(
    labels: Sequence[str],
    rows: list[list[Any]],
    titles: Sequence[str] | None,
    scale: int | None,
    title: str | None,
) -> "Figure":
    """The figure of all tiles: margins are measured from the texts, the rest is whole pixels."""
    wrapped = [textwrap.fill(text, 20) for text in labels]
    left = max((_text_size(t)[0] for t in wrapped if t), default=-8) + 8
    columns = max(len(row) for row in rows)
    tile = next(t for row in rows for t in row if not isinstance(t, str))
    zoom = _zoom(tile.shape[1], columns, WIDTH - left, scale)
    cell_h, cell_w = (max(1, int(s * zoom)) for s in tile.shape[:2])
    heads = [textwrap.fill(t, max(8, cell_w // 7)) for t in titles or []]
    head = max((_text_size(t)[1] for t in heads), default=-6) + 6
    top = head + (26 if title else 0)
    shape = (_span(cell_h, len(rows)), _span(cell_w, columns))
    with house():
        fig = _canvas_figure(max(left + shape[1], 260), top + shape[0])
        box = _Box(fig, left, top)
        box.image(_compose(rows, cell_h, cell_w, shape))
        for i, (row, label) in enumerate(zip(rows, wrapped)):
            if label:
                box.text(-8, _at(i, cell_h) + cell_h / 2, label, ha="right", va="center")
            _reasons(box, row, _at(i, cell_h), cell_h, cell_w, columns)
        for j, text in enumerate(heads):
            box.text(_at(j, cell_w) + cell_w / 2, -6, text, ha="center", va="bottom")
        if title:
            box.text(0, -top + 4, title, ha="left", va="top", size=11, weight="bold")
    return fig


def _span(cell: int, count: int) -> int:
    return cell * count + _SEAM * (count - 1)


def _at(index: int, cell: int) -> int:
    return index * (cell + _SEAM)


def _zoom(tile: int, columns: int, room: int, scale: int | None) -> float:
    if scale is not None and (scale < 1 or scale != int(scale)):
        raise UserError(f"scale must be a whole number from 1, not {scale!r}.")
    fits = (room - _SEAM * (columns - 1)) / (tile * columns)
    return min(scale or 8, int(fits)) if fits >= 1 else fits


def _compose(rows: list[list[Any]], high: int, wide: int, shape: tuple[int, int]) -> np.ndarray:
    canvas = np.full((*shape, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        y = _at(i, high)
        for j, tile in enumerate(row):
            x = _at(j, wide)
            whole_row = isinstance(tile, str) and len(row) == 1
            right = shape[1] if whole_row else x + wide
            fill = _EMPTY if isinstance(tile, str) else _resized(tile, high, wide)
            canvas[y : y + high, x:right] = fill
    return canvas


def _resized(tile: np.ndarray, high: int, wide: int, smooth: bool = False) -> np.ndarray:
    if high >= tile.shape[0]:
        factor = high // tile.shape[0]
        return tile.repeat(factor, 0).repeat(factor, 1)
    from PIL import Image

    how = Image.Resampling.LANCZOS if smooth else Image.Resampling.BOX
    return np.asarray(Image.fromarray(tile).resize((wide, high), how))


def _reasons(box: "_Box", row: list[Any], y: int, high: int, wide: int, columns: int) -> None:
    for j, tile in enumerate(row):
        if isinstance(tile, str):
            room = _span(wide, columns) if len(row) == 1 else wide
            text = textwrap.fill(tile, max(10, int(room / 6.2)))
            x = _at(j, wide) + room / 2
            box.text(x, y + high / 2, text, ha="center", va="center", size=8.5, color=GREY)


def _text_size(text: str, size: float = 9.5) -> tuple[int, int]:
    """Width and height in pixels that `text` takes, without a renderer; one that draws small
    letters rounds each to whole pixels, which adds up to an eighth."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family="DejaVu Sans", size=size)
    lines = text.split("\n")
    paths = [TextPath((0, 0), t, prop=font) for t in lines if t.strip()]
    wide = 1.12 * max((p.get_extents().width for p in paths), default=0.0)
    return int(np.ceil(wide * DPI / 72)) + 2, int(np.ceil(len(lines) * size * 1.25 * DPI / 72))


class _Box:
    """Places things by pixels, counted from the upper left corner of the picture area."""

    def __init__(self, fig: "Figure", left: int, top: int) -> None:
        self.fig, self.left, self.top = fig, left, top
        self.width, self.height = (round(s * DPI) for s in fig.get_size_inches())

    def image(self, canvas: np.ndarray) -> None:
        high, wide = canvas.shape[:2]
        place = (
            self.left / self.width,
            1 - (self.top + high) / self.height,
            wide / self.width,
            high / self.height,
        )
        axes = self.fig.add_axes(place)
        axes.imshow(canvas, interpolation="nearest", aspect="auto")
        axes.set_axis_off()

    def text(self, x: float, y: float, text: str, size: float = 9.5, **style: Any) -> None:
        x, y = (self.left + x) / self.width, 1 - (self.top + y) / self.height
        self.fig.text(x, y, text, size=size, **({"color": INK, "linespacing": 1.2} | style))


def _canvas_figure(width: int, height: int) -> "Figure":
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    fig = plt.figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    # An invisible frame: the notebook's backend crops to what is drawn, and a crop at a fraction
    # of a pixel would blur the grid.
    frame = Rectangle((0, 0), 1, 1, transform=fig.transFigure, fill=False, linewidth=0)
    frame.set_gid("frame")
    fig.add_artist(frame)
    return fig


# --- curves ----------------------------------------------------------------------------------


def curves(
    series: Mapping[str, Sequence[Any]],
    *,
    x: str,
    y: str,
    reference: Mapping[str, float] | None = None,
    title: str | None = None,
    log_x: bool = False,
    log_y: bool = False,
    size: tuple[int, int] = (760, 380),
) -> "Figure":
    """Lines with interval bands; told apart by colour, dash and (if short) marker.

    Args:
        series: label -> (x, y) or (x, y, lo, hi), one-dimensional and of one length. NaN leaves a
            gap.
        x, y: axis labels, with units.
        reference: label -> value, drawn as thin horizontal lines (a paper's number).
        title, log_x, log_y: as they say.
        size: width and height in pixels.

    Raises:
        UserError: lengths that differ, or an empty series.
    """
    with house():
        fig = _canvas_figure(*size)
        axes = fig.add_axes(_inset(size, title))
        for i, (label, values) in enumerate(series.items()):
            _line(axes, i, label, values)
        for i, (label, level) in enumerate((reference or {}).items()):
            style = (0, (1, 2 + 2 * i))
            axes.axhline(level, color=INK, linewidth=1.1, linestyle=style, label=label, zorder=1.5)
        axes.set(xlabel=x, ylabel=y, xscale="log" if log_x else "linear")
        axes.set_yscale("log" if log_y else "linear")
        axes.set_title(title or "", loc="left", weight="bold")
        if len(series) + len(reference or {}) > 1:
            axes.legend()
    return fig


def learning(rows: Sequence[Mapping[str, Any]], metric: str) -> np.ndarray:
    """A learning curve for `curves`: rows images seen in thousands, value, low, high.

    Args:
        rows: what a card keeps under `curve`.
        metric: its id; NaN where an interval has no ends.
    """
    found = np.array([row[metric] for row in rows], dtype=float)
    return np.vstack([[row["images"] / 1000 for row in rows], found.T])


def _inset(size: tuple[int, int], title: str | None) -> tuple[float, float, float, float]:
    left, right, low, high = 74, 16, 52, 34 if title else 14
    wide, tall = size
    return (left / wide, low / tall, 1 - (left + right) / wide, 1 - (low + high) / tall)


def _line(axes: Any, index: int, label: str, values: Sequence[Any]) -> None:
    xs, ys, *band = (array(v).astype(float) for v in values)
    if not len(xs) or any(v.shape != xs.shape or v.ndim != 1 for v in (ys, *band)):
        raise UserError(f"series {label!r} needs x, y (and lo, hi) of one length, at least 1.")
    color, dash = PALETTE[index % len(PALETTE)], _DASHES[index % len(_DASHES)]
    marker = _MARKERS[index % len(_MARKERS)] if len(xs) <= 25 else None
    axes.plot(xs, ys, label=label, color=color, linestyle=dash, marker=marker)
    if band:
        axes.fill_between(xs, *band, color=color, alpha=0.18, linewidth=0)


def intervals(
    points: Sequence[tuple[str, float, float | None, float | None]],
    *,
    x: str,
    reference: Mapping[str, float] | None = None,
    title: str | None = None,
    width: int = 760,
) -> "Figure":
    """One horizontal line a method: value, interval, and the paper's number as a hollow diamond.

    Args:
        points: (label, value, lo, hi), drawn from top to bottom; lo and hi None: no interval.
        x: axis label, with the unit.
        reference: label -> the paper's value for that method.
    """
    high = 44 + 30 * len(points) + (34 if title else 14)
    left = max(_text_size(p[0], 10.5)[0] for p in points) + 22
    with house():
        fig = _canvas_figure(width, high)
        low = 44 / high
        top = 1 - low - (30 if title else 10) / high
        axes = fig.add_axes((left / width, low, 1 - (left + 16) / width, top))
        for i, (label, value, lo, hi) in enumerate(points):
            if lo is not None and hi is not None:
                axes.plot([lo, hi], [i, i], color=PALETTE[0], linewidth=3, alpha=0.45)
            axes.plot(value, i, "o", color=PALETTE[0], markersize=6)
            if label in (reference or {}):
                style = {"markerfacecolor": "none", "markeredgewidth": 1.5, "markersize": 7}
                axes.plot((reference or {})[label], i, "D", color=PALETTE[1], **style)
        axes.set_yticks(range(len(points)), [p[0] for p in points])
        axes.set_ylim(len(points) - 0.5, -0.5)
        below = x + ("   (● ours, ◇ paper)" if reference else "")
        wide = _text_size(below, 10.5)[0] > width - left - 16  # then it begins below the names
        axes.set_xlabel(below, loc="right" if wide else "center")
        axes.set_title(title or "", loc="left", weight="bold")
        axes.grid(axis="y", visible=False)
    return fig


# --- saving ----------------------------------------------------------------------------------


def save(fig: "Figure", path: Path, *, footer: str, data: Mapping[str, Any]) -> None:
    """Writes `path` (.png, at most 900 px wide and 300 kB) and the data behind it (.npz beside it).

    The bytes depend on the figure and the data alone. A picture that is too big is reduced to 256
    colours, then drawn smaller. Both files are made before either is written.

    Args:
        fig: any matplotlib figure; it gets the footer too, so that a notebook shows it.
        path: ends with `.png`.
        footer: the scale label (`config.Scale.text()`), set in small grey type below the picture.
        data: name -> array. Arrays of shape (N, 1 or 3, H, W) in floats are images and stored as
            uint8; everything else is stored as given. Nothing is left out or thinned: that is the
            caller's choice.

    Raises:
        UserError: no footer, data over 150 kB compressed, object arrays, images out of range.
    """
    path = Path(path)
    if path.suffix != ".png":
        raise UserError(f"a figure is saved as .png, not {path.name!r}.")
    if not footer.strip():
        raise UserError(f"figure {path.stem!r} needs its scale label as footer.")
    numbers = npz_bytes(data, path.with_suffix(".npz").name)
    add_footer(fig, footer)
    picture = png_bytes(fig)
    storage.write_bytes(path.with_suffix(".npz"), numbers)
    storage.write_bytes(path, picture)


def add_footer(fig: "Figure", footer: str) -> None:
    """Adds (or replaces) the grey line below everything; the figure grows by its height."""
    size = 7.5
    wide, high = fig.get_size_inches() * DPI
    old = [t for t in fig.texts if t.get_gid() == "footer"]
    for text in old:
        _grow(fig, -float(text.get_url()))
        text.remove()
        high -= float(text.get_url())
    text = _wrapped(footer, max(30, int(wide / (size * 0.78))))
    extra = _text_size(text, size)[1] + 10
    _grow(fig, extra)
    # The text's url carries its height, so that replacing it can shrink the figure again.
    style = {"size": size, "color": GREY, "family": "DejaVu Sans", "linespacing": 1.2}
    line = fig.text(4 / wide, 4 / (high + extra), text, ha="left", va="bottom", **style)
    line.set_gid("footer")
    line.set_url(str(extra))


def _wrapped(footer: str, width: int) -> str:
    """`footer` broken after a separator where that is enough, else between words."""
    lines: list[str] = []
    for part in footer.split(" · "):
        if lines and len(lines[-1]) + 3 + len(part) <= width:
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return "\n".join(textwrap.fill(line, width) for line in lines)


def _grow(fig: "Figure", extra: float) -> None:
    """Adds `extra` pixels at the bottom; everything keeps its place and size in pixels."""
    wide, high = fig.get_size_inches() * DPI
    total = high + extra
    fig.set_layout_engine("none")
    for axes in fig.axes:
        p = axes.get_position()
        place = [p.x0, (p.y0 * high + extra) / total, p.width, p.height * high / total]
        axes.set_position(place, which="both")
    for text in fig.texts:
        text.set_y((text.get_position()[1] * high + extra) / total)
    fig.set_size_inches(wide / DPI, total / DPI)


def png_bytes(fig: "Figure", limit: int = MAX_PNG) -> bytes:
    """The figure as PNG without date or software entries, at most 900 px wide.

    Raises:
        UserError: if it stays over `limit` bytes although drawn 400 px wide.
    """
    return _fitting(fig, limit, _png, _spread, in_256_colours)


def inline_bytes(fig: "Figure", limit: int) -> tuple[str, bytes]:
    """The figure for a notebook's page, and its kind (`image/png` or `image/jpeg`).

    Where all its colours do not fit, the smaller of a palette and of JPEG: drawings stay sharp,
    photographs large.

    Raises:
        UserError: as `png_bytes`.
    """
    content = _fitting(fig, limit, _png, _smaller)
    return "image/jpeg" if content.startswith(b"\xff\xd8") else "image/png", content


def _fitting(fig: "Figure", limit: int, *encodings: Callable[[Any], bytes]) -> bytes:
    """The first encoding that fits, of the largest drawing that one of them makes fit."""
    wide, content = fig.get_size_inches()[0], b""
    dpi = min(float(DPI), MAX_WIDTH / wide)
    while dpi * wide >= min(400, wide * DPI) - 1:
        image = _render(fig, dpi)
        for encode in encodings:
            content = encode(image)
            if len(content) <= limit:
                return content
        dpi *= min(0.9, max(0.5, 0.97 * (limit / len(content)) ** 0.5))
    raise UserError(
        f"a figure does not fit in {limit // 1000} kB even 400 px wide; show fewer images."
    )


def _render(fig: "Figure", dpi: float) -> Any:
    from PIL import Image

    buffer = io.BytesIO()
    with house():
        fig.savefig(buffer, format="png", dpi=dpi, facecolor=PAPER, metadata={"Software": None})
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")


def _png(image: Any) -> bytes:
    return _encoded(image, format="PNG", optimize=True)


def in_256_colours(image: Any, *, spread: bool = False) -> bytes:
    """An RGB picture of Pillow as PNG with a palette; exact if it has no more colours.

    Else those furthest apart are chosen, on a ninth of the pixels, so that a rare colour is not
    taken for a common one. White, the paper, stays white.

    Args:
        spread: each pixel's error goes to its neighbours: smooth areas keep their colour on average
            and have no bands, but the file is larger.
    """
    import numpy as np
    from PIL import Image

    if image.getcolors(256):
        return _png(image.quantize(256))
    few = image.resize([max(1, n // 3) for n in image.size], Image.Resampling.NEAREST)
    colours = few.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1)
    table = np.reshape(colours.getpalette(), (-1, 3))
    table[table.min(1) > 245] = 255  # Pillow looks colours up four levels at a time
    colours.putpalette(table.flatten().tolist())
    how = Image.Dither.FLOYDSTEINBERG if spread else Image.Dither.NONE
    return _png(image.quantize(palette=colours, dither=how))


def _spread(image: Any) -> bytes:
    return in_256_colours(image, spread=True)


def _smaller(image: Any) -> bytes:
    jpeg = _encoded(image, format="JPEG", quality=85, optimize=True, progressive=True)
    return min(in_256_colours(image), jpeg, key=len)


def _encoded(image: Any, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **how)
    return buffer.getvalue()


def npz_bytes(data: Mapping[str, Any], name: str = "data", limit: int = MAX_DATA) -> bytes:
    """`data` as a compressed .npz whose bytes depend on the content alone.

    Raises:
        UserError: nothing to store, object arrays, or more than `limit` bytes.
    """
    if not data:
        raise UserError(f"{name}: a figure is stored with the data behind it; none was given.")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for key in sorted(data):
            # Without a fixed time the archive would differ from run to run.
            info = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            file.writestr(info, _npy(data[key], f"{name}: {key}"), compresslevel=9)
    if buffer.tell() > limit:
        raise UserError(
            f"{name} would take {buffer.tell() / 1000:.0f} kB, over the {limit // 1000} kB that a "
            "figure may bring; store fewer images, or the numbers that are drawn."
        )
    return buffer.getvalue()


def _npy(value: Any, name: str) -> bytes:
    values = array(value)
    if values.ndim == 4 and values.shape[1] in (1, 3) and np.issubdtype(values.dtype, np.floating):
        values = as_bytes(values, name)
    if values.dtype.hasobject:
        raise UserError(f"{name} is not a plain array; store numbers or text.")
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(values), allow_pickle=False)
    return buffer.getvalue()
