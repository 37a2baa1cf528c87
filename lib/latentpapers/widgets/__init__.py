"""Interactive views that read well without a kernel too.

A cell shows the widget (only where a front end may be alive) and, always, the static strip: one
picture with at least five parameter values. Committed notebooks therefore hold a picture and
neither widget state nor stderr.
"""

import io
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from latentpapers.errors import UserError

if TYPE_CHECKING:
    import ipywidgets
    from matplotlib.figure import Figure

MIN_VALUES = 5
"""Fewest parameter values that a static strip shows."""
ROOM = (720, 320)
"""Width and height in pixels that a live picture may take."""
Draw = Callable[..., Any]


def live() -> bool:
    """Whether a front end may be looking: an IPython kernel that no batch run started."""
    if os.environ.get("LATENTPAPERS_BATCH") == "1":
        return False
    import sys

    shell = sys.modules.get("IPython")
    current = shell.get_ipython() if shell else None
    return current is not None and getattr(current, "kernel", None) is not None


def png(picture: Any, *, large: bool = False) -> bytes:
    """PNG bytes of what a `draw` function returned; a figure is closed.

    Args:
        picture: a matplotlib figure, or an image (C, H, W) or images (N, C, H, W), float in
            [-1, 1] or uint8.
        large: enlarge images further, by whole pixels, while they fit into `ROOM`.

    Raises:
        UserError: anything else, or values out of range.
    """
    from latentpapers.report import figures

    if hasattr(picture, "savefig"):
        import matplotlib.pyplot as plt

        content = figures.png_bytes(picture)
        plt.close(picture)
        return content
    row = _row(picture)
    fits = min(ROOM[0] // row.shape[1], ROOM[1] // row.shape[0]) if large else 1
    return _encoded(row.repeat(max(1, fits), 0).repeat(max(1, fits), 1))


def _row(picture: Any) -> Any:
    """Images side by side as uint8 (H, W, 3), enlarged by whole pixels to at least 96 rows."""
    import numpy as np

    from latentpapers.report import figures

    pixels = figures.array(picture)
    tiles = figures.tiles(pixels[None] if pixels.ndim == 3 else pixels, "the drawn image")
    zoom = max(1, -(-96 // tiles.shape[1]))
    wide = np.concatenate(list(tiles), axis=1).repeat(zoom, 0).repeat(zoom, 1)
    return wide


def _encoded(pixels: Any) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


class Debounced:
    """Calls `function` with the latest arguments, `delay` seconds after the last request.

    While a slider moves, only its resting place is drawn. In a running event loop the call comes
    back to that loop's thread; elsewhere a timer thread makes it.
    """

    def __init__(self, function: Callable[..., None], delay: float) -> None:
        self.function, self.delay = function, delay
        self._pending: Any = None

    def __call__(self, *args: Any) -> None:
        self.cancel()
        if self.delay <= 0:
            self.function(*args)
            return
        import asyncio

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._pending = threading.Timer(self.delay, self.function, args)
            self._pending.daemon = True
            self._pending.start()
        else:
            self._pending = loop.call_later(self.delay, self.function, *args)

    def cancel(self) -> None:
        """Drops a call that has not been made yet."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None


def slider_view(draw: Draw, *, delay: float = 0.15, **ranges: Any) -> "ipywidgets.VBox":
    """Sliders above a picture that is replaced in place, so that nothing flickers.

    Args:
        draw: called with one keyword a range; returns what `png` takes.
        delay: seconds of rest before the picture is drawn anew; 0 draws at once.
        ranges: name -> (low, high), (low, high, step), (low, high, step, start), a list of
            choices, or (list, first choice). Whole numbers give a slider of whole numbers.

    Returns:
        A box whose children are the sliders, the picture and a line for errors; attributes
        `sliders` (by name), `picture`, `message` and `redraw()`.

    Raises:
        UserError: no range, or one that is no range; and whatever the first drawing raises.
    """
    import ipywidgets as w

    if not ranges:
        raise UserError("slider_view needs at least one range, for example sigma=(0, 1).")
    sliders = {name: _control(name, given) for name, given in ranges.items()}
    picture = w.Image(format="png", value=png(draw(**_values(sliders)), large=True))
    picture.layout = w.Layout(align_self="flex-start", max_width="100%")  # never stretched
    message = w.HTML(value="")

    def redraw() -> None:
        # An exception inside a callback would vanish in the log: it is shown below the picture.
        try:
            picture.value = png(draw(**_values(sliders)), large=True)
            message.value = ""
        except Exception as error:
            message.value = _red(error)

    later = Debounced(redraw, delay)
    for slider in sliders.values():
        slider.observe(lambda _change: later(), names="value")
    box = w.VBox([*sliders.values(), picture, message])
    box.sliders, box.picture, box.message, box.redraw = sliders, picture, message, redraw
    return box


def with_upload(
    view: "ipywidgets.VBox", use: Callable[[bytes], None], *, label: str = "your picture"
) -> "ipywidgets.VBox":
    """A button above a `slider_view` that hands a file of the reader's to `use`, then draws anew.

    The file goes to the kernel and nowhere else. What `use` raises is shown below the picture,
    which stays as it was.

    Args:
        view: what `slider_view` returned.
        use: called with the content of the chosen file.
        label: on the button.

    Returns:
        A box with attributes `button` and `view`.
    """
    import ipywidgets as w

    button = w.FileUpload(accept="image/*", description=label)

    def chosen(change: Mapping[str, Any]) -> None:
        try:
            for file in change["new"]:
                use(bytes(file["content"]))
        except Exception as error:  # as in slider_view: nobody reads a kernel's log
            view.message.value = _red(error)
        else:
            view.redraw()

    button.observe(chosen, names="value")
    box = w.VBox([button, view])
    box.button, box.view = button, view
    return box


def _values(sliders: Mapping[str, Any]) -> dict[str, Any]:
    return {name: slider.value for name, slider in sliders.items()}


def _red(error: Exception) -> str:
    import html

    return f'<span style="color:#c1121f">{html.escape(f"{type(error).__name__}: {error}")}</span>'


def _is_choice(given: Any) -> bool:
    return isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], list)


def _control(name: str, given: Any) -> Any:
    import ipywidgets as w

    style: dict[str, Any] = {"description": name.replace("_", " "), "continuous_update": False}
    style["style"] = {"description_width": "initial"}
    choices, chosen = given if _is_choice(given) else (given, None)
    if isinstance(choices, list):
        if not choices or (chosen is not None and chosen not in choices):
            raise UserError(f"range {name!r} has no choice {chosen!r}.")
        first = choices[0] if chosen is None else chosen
        return w.SelectionSlider(options=choices, value=first, **style)
    if not isinstance(given, tuple) or not 2 <= len(given) <= 4 or not given[0] < given[1]:
        raise UserError(
            f"range {name!r} must be (low, high[, step[, start]]) or a list, not {given!r}."
        )
    whole = all(isinstance(v, int) for v in given)
    low, high, *rest = given
    step = rest[0] if rest else (1 if whole else (high - low) / 20)
    start = rest[1] if len(rest) > 1 else low
    kind = w.IntSlider if whole else w.FloatSlider
    return kind(value=start, min=low, max=high, step=step, **style)


def static_strip(
    draw: Draw,
    name: str,
    values: Sequence[Any],
    *,
    fixed: Mapping[str, Any] | None = None,
    width: int = 880,
) -> "Figure":
    """The pictures of `draw` at several values of one parameter, side by side.

    Args:
        draw: as in `slider_view`.
        name: the parameter that varies; printed over each picture.
        values: at least five.
        fixed: the other parameters.
        width: of the whole figure in pixels.

    Raises:
        UserError: fewer than five values, or values out of range in a drawn image.
    """
    from latentpapers.report import figures

    if len(values) < MIN_VALUES:
        raise UserError(f"a static strip needs at least {MIN_VALUES} values, not {len(values)}.")
    pictures = [_pixels(draw(**{name: v}, **(fixed or {}))) for v in values]
    titles = [f"{name.replace('_', ' ')} = {_short(v)}" for v in values]
    return figures.panels(pictures, titles, width=width)


def _pixels(picture: Any) -> Any:
    """uint8 (H, W, 3) of what a `draw` function returned."""
    import numpy as np
    from PIL import Image

    if hasattr(picture, "savefig"):
        return np.asarray(Image.open(io.BytesIO(png(picture))).convert("RGB"))
    return _row(picture)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def show(
    draw: Draw,
    name: str,
    values: Sequence[Any],
    *,
    fixed: Mapping[str, Any] | None = None,
    **ranges: Any,
) -> "Figure":
    """What a widget cell calls: the sliders where a front end may be alive, and the static strip.

    Args:
        draw, name, values, fixed: as in `static_strip`.
        ranges: as in `slider_view`; a parameter in `fixed` without a range keeps its value, and a
            list starts at its value in `fixed`.

    Returns:
        The strip's figure; the cell ends with `plt.show()`.
    """
    if live():
        from IPython.display import display

        given = dict(fixed or {})
        held = {k: v for k, v in given.items() if k not in ranges}
        ranges = {k: (v, given[k]) if isinstance(v, list) and k in given else v
                  for k, v in ranges.items()}  # fmt: skip
        display(slider_view(lambda **now: draw(**held, **now), **ranges))
    return static_strip(draw, name, values, fixed=fixed)
