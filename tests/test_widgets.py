"""Widgets without a browser: callbacks are driven by setting slider values."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from latentpapers import widgets
from latentpapers.errors import UserError
from latentpapers.report import figures
from latentpapers.widgets import painting

plt.switch_backend("Agg")  # now: pyplot asks IPython for hooks, which a test below fakes


def image(level, other=0.0):
    return np.full((3, 4, 4), np.float32(level + other))


def shown(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_moving_a_slider_replaces_the_picture_in_place():
    view = widgets.slider_view(image, delay=0, level=(-1.0, 1.0, 0.5))
    picture = view.picture
    assert (shown(picture.value) == 0).all()
    view.sliders["level"].value = 1.0
    assert view.picture is picture
    assert (shown(picture.value) == 255).all()
    assert not view.sliders["level"].continuous_update


def test_ranges_give_fitting_sliders():
    def draw(count, share, kind):
        return image(0)

    ranges = {"count": (1, 9, 2, 3), "share": (0.0, 1.0), "kind": ["a", "b"]}
    view = widgets.slider_view(draw, delay=0, **ranges)
    count, share, kind = view.sliders.values()
    assert (type(count).__name__, count.step, count.value) == ("IntSlider", 2, 3)
    assert (type(share).__name__, share.step) == ("FloatSlider", 0.05)
    assert kind.options == ("a", "b")


def test_a_list_starts_where_it_is_told_to():
    view = widgets.slider_view(lambda kind: image(0), delay=0, kind=(["a", "b"], "b"))
    assert view.sliders["kind"].value == "b"


@pytest.mark.parametrize("given", [(1, 0), (1,), 3, [], "ab", (0, 1, 2, 3, 4), (["a"], "b")])
def test_bad_ranges_are_refused(given):
    with pytest.raises(UserError, match="range 'level'"):
        widgets.slider_view(image, level=given)


def test_no_range_is_refused():
    with pytest.raises(UserError, match="at least one range"):
        widgets.slider_view(image)


def test_an_error_in_a_callback_is_shown_and_goes_away():
    view = widgets.slider_view(image, delay=0, level=(0.0, 2.0, 1.0))
    before = view.picture.value
    view.sliders["level"].value = 2.0
    assert "UserError" in view.message.value
    assert "lie in" in view.message.value
    assert view.picture.value == before
    view.sliders["level"].value = 1.0
    assert view.message.value == ""


def file(content):
    from datetime import UTC, datetime

    now = datetime(2000, 1, 1, tzinfo=UTC)
    return ({"name": "a.png", "type": "image/png", "size": len(content), "content": content,
             "last_modified": now},)  # fmt: skip


def test_an_uploaded_file_is_used_and_drawn():
    given = {"level": -1.0}
    view = widgets.slider_view(lambda other: image(given["level"], other), delay=0, other=(0, 1))
    box = widgets.with_upload(view, lambda content: given.update(level=float(content)))
    assert (shown(view.picture.value) == 0).all()
    box.button.value = file(b"1.0")
    assert (shown(view.picture.value) == 255).all()
    assert box.children == (box.button, view)


def test_an_uploaded_file_that_is_none_is_refused_in_words():
    view = widgets.slider_view(image, delay=0, level=(0.0, 1.0))
    box = widgets.with_upload(view, float)
    before = view.picture.value
    box.button.value = file(b"no number")
    assert "ValueError" in view.message.value
    assert view.picture.value == before
    box.button.value = file(b"1.0")
    assert view.message.value == ""


def test_only_the_last_of_many_requests_is_drawn_outside_a_loop():
    calls = []
    later = widgets.Debounced(calls.append, 0.05)
    for i in range(5):
        later(i)
    assert calls == []
    later._pending.join()
    assert calls == [4]


def test_only_the_last_of_many_requests_is_drawn_inside_a_loop():
    import asyncio

    calls = []

    async def move():
        done = asyncio.Event()
        later = widgets.Debounced(lambda i: (calls.append(i), done.set()), 0.01)
        for i in range(5):
            later(i)
        await asyncio.wait_for(done.wait(), 30)
        later(9)
        later.cancel()
        await asyncio.sleep(0.05)

    asyncio.run(move())
    assert calls == [4]


def test_figures_are_closed_after_drawing():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    content = widgets.png(figures.curves({"a": ([1, 2], [1, 2])}, x="x", y="y"))
    assert shown(content).shape[1] == 760
    assert plt.get_fignums() == before


def test_images_are_enlarged_by_whole_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 10, 10), dtype=np.uint8)
    wide = np.concatenate(list(pixels.transpose(0, 2, 3, 1)), axis=1)
    np.testing.assert_array_equal(shown(widgets.png(pixels)), wide.repeat(10, 0).repeat(10, 1))


def test_static_strip_shows_each_value():
    fig = widgets.static_strip(image, "level", [-1.0, -0.5, 0.0, 0.5, 1.0], fixed={"other": 0.0})
    texts = [t.get_text() for t in fig.texts]
    assert texts == [f"level = {v}" for v in ("-1", "-0.5", "0", "0.5", "1")]
    greys = [int(axes.images[0].get_array()[0, 0, 0]) for axes in fig.axes]
    assert greys == [0, 64, 128, 191, 255]
    assert round(fig.get_size_inches()[0] * figures.DPI) <= figures.WIDTH


def test_static_strip_of_figures_stays_legible():
    def draw(k):
        return figures.curves({"a": ([1, 2], [1, k])}, x="x", y="y", size=(380, 260))

    fig = widgets.static_strip(draw, "k", [1, 2, 3, 4, 5, 6])
    widths = {axes.images[0].get_array().shape[1] for axes in fig.axes}
    assert min(widths) >= 280
    assert len(fig.axes) == 6


def test_static_strip_needs_five_values():
    with pytest.raises(UserError, match="at least 5"):
        widgets.static_strip(image, "level", [0.0, 0.1, 0.2, 0.3])


@pytest.fixture
def kernel(monkeypatch):
    """Pretends that this process is a notebook kernel; collects what is displayed."""
    import IPython
    import IPython.display

    out = []
    shell = type("Shell", (), {"kernel": object()})()
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    monkeypatch.setattr(IPython.display, "display", out.append)
    monkeypatch.delenv("LATENTPAPERS_BATCH", raising=False)
    return out


VALUES = [-1.0, -0.5, 0.0, 0.5, 1.0]


def test_a_live_kernel_gets_widget_and_strip(kernel):
    fig = widgets.show(image, "level", VALUES, fixed={"other": 0.0}, level=(-1.0, 1.0))
    assert len(kernel) == 1
    assert kernel[0].sliders.keys() == {"level"}
    assert len(fig.axes) == 5


def test_a_live_list_starts_at_what_the_strip_holds(kernel):
    widgets.show(lambda level, other: image(level), "level", VALUES, fixed={"other": 3},
                 level=(-1.0, 1.0), other=[1, 3])  # fmt: skip
    assert kernel[0].sliders["other"].value == 3


def test_a_batch_run_gets_the_strip_alone(kernel, monkeypatch):
    monkeypatch.setenv("LATENTPAPERS_BATCH", "1")
    assert not widgets.live()
    assert len(widgets.show(image, "level", VALUES, level=(-1.0, 1.0)).axes) == 5
    assert kernel == []


def test_outside_a_kernel_nothing_is_live(monkeypatch):
    monkeypatch.delenv("LATENTPAPERS_BATCH", raising=False)
    assert not widgets.live()


def test_importing_widgets_is_light():
    import subprocess
    import sys

    heavy = "{'ipywidgets', 'matplotlib', 'torch', 'numpy'}"
    code = f"import sys, latentpapers.widgets; assert not {heavy} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- painting ----------------------------------------------------------------------------------


TINY = np.zeros((3, 4, 4), np.float32)


def twice(canvas):
    """Two images from a canvas: itself and its negative, enlarged."""
    large = canvas.repeat(2, 1).repeat(2, 2)
    return np.stack([large, -large])


def painted(**how):
    return painting.paint_view(twice, TINY, delay=0, **how)


def test_a_click_paints_one_pixel_and_the_picture_follows():
    view = painted(brush="#ff0000")
    before = shown(view.picture.value).copy()
    view.cells[1][2].click()
    np.testing.assert_array_equal(view.canvas.image[:, 1, 2], [1, -1, -1])
    assert view.cells[1][2].style.button_color == "#ff0000"
    assert view.cells[0][0].style.button_color == "#808080"
    after = shown(view.picture.value)
    changed = (before != after).any(2)
    zoom = after.shape[0] // 8
    expected = np.zeros((8, 16), bool)
    expected[2:4, 4:6] = expected[2:4, 12:14] = True
    np.testing.assert_array_equal(changed, expected.repeat(zoom, 0).repeat(zoom, 1))
    assert (TINY == 0).all()  # the caller's image is left alone


def test_undo_and_reset_bring_pixels_back():
    view = painted()
    first = view.picture.value
    view.cells[0][0].click()
    second = view.picture.value
    view.cells[3][3].click()
    view.undo.click()
    assert view.picture.value == second
    view.cells[2][2].click()
    view.reset.click()
    assert view.picture.value == first
    view.undo.click()
    assert view.picture.value == first
    assert {b.style.button_color for row in view.cells for b in row} == {"#808080"}


def test_picking_takes_a_colour_up_without_painting():
    view = painted(brush="#102030")
    view.cells[0][1].click()
    view.brush.value = "#ffffff"
    view.pick.value = True
    view.cells[0][1].click()
    assert view.brush.value == "#102030"
    assert not view.pick.value
    view.cells[3][0].click()
    assert view.canvas.colour(3, 0) == "#102030"


def test_what_goes_wrong_while_painting_is_shown_and_goes_away():
    def draw(canvas):
        return canvas * (2 if canvas.max() > 0.9 else 1)

    view = painting.paint_view(draw, TINY, delay=0, brush="#ffffff")
    view.cells[0][0].click()
    assert "UserError" in view.message.value
    view.undo.click()
    assert view.message.value == ""
    view.brush.value = "red"  # a name the picker allows and the canvas does not
    view.cells[0][0].click()
    assert "#rrggbb" in view.message.value
    assert (view.canvas.image == 0).all()


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4)), np.zeros((1, 4, 4)), np.zeros((3, 17, 17)), np.full((3, 2, 2), 1.1),
              np.full((3, 2, 2), np.nan)],
)  # fmt: skip
def test_a_canvas_refuses_other_images(image):
    with pytest.raises(UserError, match="canvas"):
        painting.Canvas(image)


@pytest.mark.parametrize("colour", ["red", "#fff", "#gg0000", "", 3])
def test_a_canvas_refuses_other_colours(colour):
    with pytest.raises(UserError, match="rrggbb"):
        painting.Canvas(TINY).paint(0, 0, colour)


def test_a_canvas_has_no_pixels_outside():
    with pytest.raises(UserError, match="none at"):
        painting.Canvas(TINY).paint(4, 0, "#000000")
    with pytest.raises(UserError, match="none at"):
        painting.Canvas(TINY).paint(0, -1, "#000000")


STROKES = [(f"stroke {k}", [(k, k, "#ffffff")]) for k in range(4)]


def test_a_paint_strip_adds_stroke_on_stroke():
    fig = painting.paint_strip(twice, TINY, STROKES, labels=("one", "two"))
    texts = {t.get_text() for t in fig.texts}
    assert {"target", "one", "two", "as given", "stroke 0", "stroke 3"} <= texts
    drawn = fig.axes[0].images[0].get_array()
    tile = drawn.shape[0] // 3
    whites = [(drawn[:tile, i * tile : (i + 1) * tile] == 255).all(2).sum() for i in range(5)]
    assert whites == sorted(whites)
    assert len(set(whites)) == 5


def test_a_paint_strip_needs_four_strokes():
    with pytest.raises(UserError, match="at least 4"):
        painting.paint_strip(twice, TINY, STROKES[:3])


def test_painting_shows_view_and_strip_where_somebody_looks(kernel, monkeypatch):
    painting.paint(twice, TINY, STROKES, delay=0)
    assert len(kernel) == 1
    assert len(kernel[0].cells) == 4
    monkeypatch.setenv("LATENTPAPERS_BATCH", "1")
    painting.paint(twice, TINY, STROKES)
    assert len(kernel) == 1
