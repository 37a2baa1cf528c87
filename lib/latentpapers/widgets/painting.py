"""Painting on a tiny image, pixel by pixel, while a picture made from it follows.

The canvas is a grid of buttons, one a pixel, so that nothing beyond ipywidgets is needed. As with
every widget here, the cell that shows it shows a static strip too: the canvas after each of at
least four strokes above what is drawn from it.
"""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from latentpapers import widgets
from latentpapers.errors import UserError

if TYPE_CHECKING:
    import ipywidgets
    import numpy as np
    from matplotlib.figure import Figure

Stroke = tuple[str, Sequence[tuple[int, int, str]]]
"""A title and the pixels that it paints: (row, column, colour)."""
MAX_SIDE = 16
"""Most pixels a side: beyond it the buttons are too many for a browser."""
_HEX = re.compile(r"#[0-9a-fA-F]{6}")


class Canvas:
    """A small image (3, L, L) on [-1, 1] that is painted on; pixels not painted stay as given.

    Args:
        image: anything that becomes such a float array.

    Raises:
        UserError: another shape, more than `MAX_SIDE` pixels a side, or values out of range.
    """

    def __init__(self, image: Any) -> None:
        from latentpapers.report import figures

        given = figures.array(image).astype("float32")
        if given.ndim != 3 or given.shape[0] != 3 or max(given.shape[1:]) > MAX_SIDE:
            raise UserError(
                f"a canvas is an image (3, L, L) with L at most {MAX_SIDE}, not {given.shape}."
            )
        if not (abs(given) <= 1).all():  # NaN too
            raise UserError("a canvas holds values in [-1, 1].")
        self.start = given.copy()
        self.image: np.ndarray = given.copy()
        self._before: list[np.ndarray] = []

    def paint(self, row: int, column: int, colour: str) -> None:
        """Sets one pixel to `#rrggbb`.

        Raises:
            UserError: no such pixel, or no such colour.
        """
        high, wide = self.image.shape[1:]
        if not (0 <= row < high and 0 <= column < wide):
            raise UserError(f"the canvas has {high} x {wide} pixels, none at ({row}, {column}).")
        levels = _levels(colour)
        self._before.append(self.image.copy())
        self.image[:, row, column] = [level / 127.5 - 1 for level in levels]

    def colour(self, row: int, column: int) -> str:
        """A pixel's colour as `#rrggbb`."""
        levels = ((self.image[:, row, column] + 1) * 127.5).round().astype(int)
        return "#" + "".join(f"{level:02x}" for level in levels)

    def undo(self) -> None:
        """Takes the last painted pixel back; without one nothing happens."""
        if self._before:
            self.image = self._before.pop()

    def reset(self) -> None:
        """Back to the image as it was given."""
        self.image, self._before = self.start.copy(), []


Draw = Callable[["np.ndarray"], Any]
"""Takes the canvas (3, L, L), returns images (3, H, W) or (N, 3, H, W) as `widgets.png` does."""


def _levels(colour: str) -> list[int]:
    if not isinstance(colour, str) or not _HEX.fullmatch(colour):
        raise UserError(f"a colour is written #rrggbb, not {colour!r}.")
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def paint_view(
    draw: Draw, image: Any, *, delay: float = 0.1, brush: str = "#c1121f", cell: int = 26
) -> "ipywidgets.VBox":
    """A canvas of buttons beside the picture that is drawn from it.

    Args:
        draw: makes the picture from the canvas.
        image: what the canvas starts from, (3, L, L) on [-1, 1].
        delay: seconds of rest before the picture is drawn anew; 0 draws at once.
        brush: the first colour, `#rrggbb`.
        cell: pixels a side of a button.

    Returns:
        A box with attributes `canvas`, `cells` (rows of buttons), `brush`, `pick` (a click takes
        the pixel's colour up instead of painting), `undo`, `reset`, `picture` and `message`.

    Raises:
        UserError: as `Canvas`, a colour that is none; and whatever the first drawing raises.
    """
    import ipywidgets as w

    canvas = Canvas(image)
    _levels(brush)
    tools = w.ColorPicker(value=brush, concise=True, layout=w.Layout(width="40px"))
    pick = w.ToggleButton(value=False, description="pick colour", layout=w.Layout(width="100px"))
    undo, reset = (
        w.Button(description=text, layout=w.Layout(width="70px")) for text in ("undo", "reset")
    )
    side = f"{cell}px"
    cells = [
        [w.Button(layout=w.Layout(width=side, height=side, margin="0", padding="0")) for _ in row]
        for row in canvas.image[0]
    ]
    picture = w.Image(format="png", value=widgets.png(draw(canvas.image.copy())))
    picture.layout = w.Layout(align_self="flex-start", margin="0 0 0 12px")  # never stretched
    message = w.HTML(value="")
    box = w.VBox(
        [
            w.HBox([tools, pick, undo, reset]),
            w.HBox([w.VBox([w.HBox(row) for row in cells]), picture]),
            message,
        ]
    )
    box.canvas, box.cells, box.brush, box.pick = canvas, cells, tools, pick
    box.undo, box.reset, box.picture, box.message = undo, reset, picture, message
    _connect(box, draw, delay)
    return box


def _connect(box: Any, draw: Draw, delay: float) -> None:
    """Clicks paint at once; the picture follows after `delay` seconds of rest."""
    canvas = box.canvas

    def redraw() -> None:
        # as in slider_view: an exception in a callback would vanish in the log
        try:
            box.picture.value, box.message.value = widgets.png(draw(canvas.image.copy())), ""
        except Exception as error:
            box.message.value = widgets._red(error)

    later = widgets.Debounced(redraw, delay)

    def changed() -> None:
        for i, row in enumerate(box.cells):
            for j, button in enumerate(row):
                button.style.button_color = canvas.colour(i, j)
        later()

    def clicked(row: int, column: int) -> None:
        if box.pick.value:
            box.brush.value, box.pick.value = canvas.colour(row, column), False
            return
        try:
            canvas.paint(row, column, box.brush.value)
        except UserError as error:  # a colour's name, typed into the picker
            box.message.value = widgets._red(error)
            return
        changed()

    for i, row in enumerate(box.cells):
        for j, button in enumerate(row):
            button.style.button_color = canvas.colour(i, j)
            button.on_click(lambda _button, i=i, j=j: clicked(i, j))
    box.undo.on_click(lambda _button: (canvas.undo(), changed()))
    box.reset.on_click(lambda _button: (canvas.reset(), changed()))


def paint_strip(
    draw: Draw, image: Any, strokes: Sequence[Stroke], *, labels: Sequence[str] = ()
) -> "Figure":
    """The canvas after each stroke above what is drawn from it, from left to right.

    Args:
        draw, image: as in `paint_view`; `draw` returns images here, one a row of the strip.
        strokes: at least four; each is painted on top of those before it.
        labels: one text a drawn image.

    Raises:
        UserError: fewer than four strokes, pixels or colours that are none.
    """
    from latentpapers.report import figures

    least = widgets.MIN_VALUES - 1
    if len(strokes) < least:
        raise UserError(f"a static strip needs at least {least} strokes, not {len(strokes)}.")
    canvas = Canvas(image)
    states = [canvas.image.copy()]
    for _, pixels in strokes:
        for row, column, colour in pixels:
            canvas.paint(row, column, colour)
        states.append(canvas.image.copy())
    drawn = [figures.array(draw(state.copy())) for state in states]
    drawn = [d[None] if d.ndim == 3 else d for d in drawn]
    names = [*labels, *[""] * len(drawn[0])][: len(drawn[0])]
    rows = [("target", states)]
    rows += [(name, [d[i] for d in drawn]) for i, name in enumerate(names)]
    return figures.strips(rows, titles=["as given", *[title for title, _ in strokes]])


def paint(
    draw: Draw, image: Any, strokes: Sequence[Stroke], *, labels: Sequence[str] = (), **how: Any
) -> "Figure":
    """What a cell calls: the view where a front end may be alive, and the static strip.

    Args:
        draw, image, strokes, labels: as in `paint_strip`.
        how: as in `paint_view`.

    Returns:
        The strip's figure; the cell ends with `plt.show()`.
    """
    if widgets.live():
        from IPython.display import display

        display(paint_view(draw, image, **how))
    return paint_strip(draw, image, strokes, labels=labels)
