"""Widgets without a browser: callbacks are driven by setting slider values."""

import io

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from latentpapers import widgets
from latentpapers.errors import UserError
from latentpapers.report import figures

mpl.use("Agg")


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


@pytest.mark.parametrize("given", [(1, 0), (1,), 3, [], "ab", (0, 1, 2, 3, 4)])
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
