"""Cells of LAG's notebooks that a batch run cannot reach: a picture of the reader's own."""

import io
import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

import latentpapers as lp
from latentpapers import paths
from latentpapers.errors import UserError


def cell(word: str) -> str:
    """The one code cell of 5_explore that holds a word."""
    found = json.loads((paths.root() / "notebooks" / "lag" / "5_explore.ipynb").read_text())
    sources = ["".join(c["source"]) for c in found["cells"] if c["cell_type"] == "code"]
    (one,) = [s for s in sources if word in s]
    return one


@pytest.fixture(scope="module")
def page():
    """The page as a reader has it before a file is chosen: its names, and what it displayed."""
    shown = []
    names = {"picture": "", "seed": 0, "preset": "quick", "device": "cpu", "out_dir": ""}
    exec(cell("import matplotlib"), names)
    names |= {"lag": lp.papers.lag, "figures": lp.report.figures, "display": shown.append}
    names |= {"nets": {8: lp.models.load("lag/faces_x8_s0")}, "run": type("Run", (), {"seed": 0})}
    live, lp.widgets.live = lp.widgets.live, lambda: True
    try:
        for word in ("def use", "def answers"):
            exec(cell(word), names)
    finally:
        lp.widgets.live = live
        plt.close("all")
    return names, shown[-1]


def encoded(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="PNG")
    return buffer.getvalue()


def choose(box, content: bytes) -> None:
    """What ipywidgets 8 sends from the browser."""
    sent = {"name": "me.png", "type": "image/png", "size": len(content),
            "content": memoryview(content), "last_modified": 0}  # fmt: skip
    box.button.set_state({"value": [sent]})


def test_an_uploaded_picture_becomes_number_0_and_nothing_else_changes(page):
    names, box = page
    before = names["pixels"].clone()
    values = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    slider = box.view.sliders["image"]
    slider.value = 5
    choose(box, encoded(values))
    assert slider.value == 0  # the picture is shown at once
    middle = torch.tensor(values[:, 16:80].copy()).permute(2, 0, 1)[None]
    expected = lp.data.resize(middle, 32)  # an area average: 2 x 2 pixels
    assert torch.equal(names["pixels"][:1], expected)
    assert torch.equal(names["pixels"][1:], before[1:])
    drawn = names["answers"](image=0, factor=8)
    torch.testing.assert_close(drawn[:1], lp.data.to_float(expected))


def test_what_is_no_picture_is_refused_in_words_and_changes_nothing(page):
    names, box = page
    before = names["pixels"].clone()
    choose(box, b"no picture")
    assert "cannot read an image" in box.view.message.value
    assert torch.equal(names["pixels"], before)
    for wrong in (paths.root() / "there-is-none.png", paths.root()):
        with pytest.raises(UserError, match="cannot read"):
            names["use"](wrong)


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (700, 31)])
def test_a_picture_of_any_size_is_taken(page, size):
    names, _ = page
    names["use"](encoded(np.full((*size, 3), 200, np.uint8)))
    assert names["pixels"][0].unique().tolist() == [200]


def test_all_pictures_can_be_chosen(page):
    names, _ = page
    assert len(names["pixels"]) == 37
    assert names["sliders"]["image"][1] == 36
