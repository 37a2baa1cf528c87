"""Cells of AVAE's notebooks that a batch run cannot reach: the upload, the published protocol.

The cells' own source is run, with what a reader's browser sends, or with the network that a machine
without the weights lacks.
"""

import io
import json
from datetime import UTC, datetime
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

import latentpapers as lp
from latentpapers import paths
from latentpapers.data import drawn_faces
from latentpapers.metrics import cifar_classifier, digits_classifier
from latentpapers.papers import avae

plt.switch_backend("Agg")


def cells(notebook: str, *ids: str) -> list[str]:
    found = json.loads((paths.root() / "notebooks" / "avae" / f"{notebook}.ipynb").read_text())
    by_id = {c["id"]: "".join(c["source"]) for c in found["cells"]}
    return [by_id[i] for i in ids]


# --- the upload of 5_explore -----------------------------------------------------------------


@pytest.fixture(scope="module")
def page():
    """The page as a reader has it before a file is chosen: its names, and what it displayed."""
    shown = []
    faces = lp.models.load("avae/faces_avae_s0")
    names = {"lp": lp, "torch": torch, "plt": plt, "faces": faces, "display": shown.append}
    exec(cells("5_explore", "3031bd4e")[0], names)
    live, lp.widgets.live = lp.widgets.live, lambda: True
    try:
        for source in cells("5_explore", "ffbefb2e", "4b84201b"):
            exec(source, names)
    finally:
        lp.widgets.live = live
        plt.close("all")
    return names, shown[-1]


def choose(box, content: bytes, name: str = "me.png") -> None:
    """What ipywidgets 8 sends from the browser: a list of dicts, the content as a memoryview."""
    sent = {"name": name, "type": "image/png", "size": len(content),
            "content": memoryview(content), "last_modified": 0}  # fmt: skip
    box.button.set_state({"value": [sent]})


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind)
    return buffer.getvalue()


def pattern(width: int, height: int, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def test_the_browsers_form_of_a_file_is_the_one_that_is_sent_here(page):
    _, box = page
    choose(box, encoded(pattern(80, 70)))
    (file,) = box.button.value
    assert bytes(file["content"]) == encoded(pattern(80, 70))
    assert file["last_modified"] == datetime(1970, 1, 1, tzinfo=UTC)


def test_a_chosen_picture_is_the_one_that_is_looked_at(page):
    names, box = page
    before = box.view.picture.value
    choose(box, encoded(pattern(90, 70)))
    assert box.view.message.value == ""
    assert box.view.picture.value != before
    picture = names["chosen"]["picture"]
    sent = np.asarray(pattern(90, 70)).transpose(2, 0, 1)
    assert torch.equal(lp.data.to_bytes(picture[None])[0], torch.tensor(sent))
    drawn = np.asarray(Image.open(io.BytesIO(box.view.picture.value)))
    assert drawn.shape[1] == 3 * drawn.shape[0]  # window, recovered, reproduced


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "L"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "1"), ("JPEG", "CMYK"), ("WEBP", "RGB")],
)
def test_every_kind_of_picture_is_taken(page, kind, mode):
    names, box = page
    choose(box, encoded(pattern(64, 64, mode), kind))
    assert box.view.message.value == ""
    assert names["chosen"]["picture"].shape == (3, 64, 64)


def test_a_transparent_picture_lies_on_white(page):
    names, box = page
    choose(box, encoded(Image.new("RGBA", (20, 20), (255, 0, 0, 0))))
    assert bool((names["chosen"]["picture"] == 1).all())


@pytest.mark.parametrize(("width", "height"), [(6000, 4000), (1, 1), (3, 400)])
def test_huge_and_tiny_pictures_are_taken(page, width, height):
    names, box = page
    choose(box, encoded(Image.new("RGB", (width, height), "teal"), "PNG"))
    assert box.view.message.value == ""
    assert max(names["chosen"]["picture"].shape[1:]) <= 1024
    for slider, value in (("zoom", 6.0), ("across", 1.0), ("down", 0.0), ("zoom", 1.0)):
        before = box.view.sliders[slider].value
        box.view.sliders[slider].value = value
        box.view.redraw()
        assert box.view.message.value == "", (slider, value)
        box.view.sliders[slider].value = before


BAD = {
    "a text": b"Dear reader, this is no picture.",
    "nothing": b"",
    "a cut picture": encoded(pattern(64, 64))[:2000],
    "too many pixels": encoded(Image.new("1", (20_000, 6_000))),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_answered_in_one_sentence(page, what):
    names, box = page
    choose(box, encoded(pattern(50, 50)))
    before, kept = box.view.picture.value, names["chosen"]["picture"]
    choose(box, BAD[what], "notes.txt")
    said = box.view.message.value
    assert "cannot read an image" in said
    assert "replace it" in said
    assert not any(word in said for word in ("Traceback", "BytesIO", "0x", "\n"))
    assert len(said) < 300
    assert box.view.picture.value == before  # the last good picture stays
    assert torch.equal(names["chosen"]["picture"], kept)
    choose(box, encoded(pattern(50, 50)))
    assert box.view.message.value == ""


# --- the published score of 3_tables ---------------------------------------------------------

PUBLISHED = "5b0e7f12"


class Notebook(SimpleNamespace):
    """A run of a GPU preset that keeps what it records."""

    def checkpoint(self, name, seed=None):
        return paths.checkpoints() / "avae" / f"{name}_s0.safetensors"  # one stands for all seeds

    def record(self, *place, **rest):
        self.rows.append((place, rest))


def run_cell(monkeypatch, *, there: bool, shipped: bool):
    """The cell with the Inception replaced by 12 channels' means: (rows, images it was shown)."""
    seen, run = [], Notebook(preset="gpu", device="cpu", device_name="cpu", seed=0, rows=[])
    run.shipped = shipped

    def extract(pixels, network, *, layer, device):
        assert (network, layer, device) == ("inception_tf2015", "logits_unbiased", "cpu")
        assert pixels.dtype == torch.uint8
        assert pixels.shape[1:] == (3, 32, 32)
        seen.append(pixels)
        return torch.nn.functional.adaptive_avg_pool2d(pixels.float(), 2).flatten(1) / 10

    real = torch.randint(256, (600, 3, 32, 32), dtype=torch.uint8)
    trained = (("began", 0), ("began", 1), ("began_lsm", 0), ("avae", 0))
    names = {"lp": lp, "torch": torch, "avae": avae, "run": run,
             "coloured": dict.fromkeys(trained, 0)}  # fmt: skip
    exec(cells("3_tables", "3edee0d4")[0], names)
    monkeypatch.setattr(names["features"], "extract", extract)
    monkeypatch.setattr(lp.weights, "available", lambda name: there)
    monkeypatch.setattr(lp.data, "load", lambda *a, **k: SimpleNamespace(pixels=real))
    blocks = avae.batches
    monkeypatch.setattr(avae, "batches", lambda model, n, seed: blocks(model, n // 100, seed))
    names["jpeg"] = lp.config.Scale("gpu", 0, None, "cifar10-jpeg 32 px", "cpu", ())
    exec(cells("3_tables", PUBLISHED)[0], names)
    return run.rows, seen


def test_the_published_score_is_taken_where_its_weights_are(monkeypatch):
    rows, seen = run_cell(monkeypatch, there=True, shipped=False)
    titles = [avae.METHODS[m].title for m in ("began", "began", "began_lsm", "avae")]
    columns = {"IS CIFAR-10": "is_tf2015_50k_s10", "IS CIFAR-10, unbiased": "is_tf2015_infinity"}
    assert [place[:4] for place, _ in rows] == [
        ("table_1", title, column, metric)
        for title in [*titles, "Real Images"]
        for column, metric in columns.items()
    ]
    paper = {(c.row, c.column, c.metric) for t in lp.ledger.load("avae").values.tables
             for c in t.cells}  # fmt: skip
    assert {place[1:4] for place, _ in rows[::2]} <= paper  # beside the paper's own numbers
    assert [len(x) for x in seen] == [500, 500, 500, 500, 600]
    assert [rest["seed"] for _, rest in rows] == [0, 0, 1, 1, 0, 0, 0, 0, None, None]
    assert not torch.equal(seen[0], seen[1])  # each seed draws its own images
    assert all(rest["scale"].standin == ("cifar10-jpeg",) for _, rest in rows)
    for place, rest in rows:
        _, _, _, metric, value, low, high = place
        assert metric in lp.ledger.metrics()
        assert rest["interval"]
        assert low <= value <= high
        assert 1 <= value <= 12  # twelve outputs


@pytest.mark.parametrize(("there", "shipped"), [(False, False), (True, True), (False, True)])
def test_it_is_not_taken_elsewhere(monkeypatch, there, shipped):
    assert run_cell(monkeypatch, there=there, shipped=shipped) == ([], [])


# --- the judges on a device --------------------------------------------------------------------


@pytest.mark.parametrize(("name", "channels"), [("digitsnet", 1), ("cifarnet", 3)])
def test_a_judge_on_a_device_says_what_the_metrics_say(name, channels):
    x = torch.rand(130, channels, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = avae.judge(name)(x)
    if name == "digitsnet":
        assert torch.equal(found.softmax(1), digits_classifier.probabilities(x))
    else:
        assert torch.equal(found, cifar_classifier.logits(x))
    assert not torch.equal(found, avae.judge(name)(-x))  # control: other images
    with pytest.raises(lp.errors.UserError, match="takes"):
        avae.judge(name)(x[:, :, 1:])


# --- Figure 8 on photographs, which have no judge ------------------------------------------------

LISTED = ("5_o_Clock_Shadow", *avae.measuring._CELEBA.values(), "No_Beard", "Young")


def faces(names, n=512):
    """A stand-in for `lp.data.load`: n random images with attributes of these names."""
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (n, 3, 16, 16), generator=g, dtype=torch.uint8)
    has = torch.rand(n, len(names), generator=g) < 0.5
    return SimpleNamespace(name="celeba", pixels=pixels, attributes=has, attribute_names=names)


def test_celebas_attributes_under_the_drawn_faces_names():
    found = faces(LISTED)
    has = avae.attributes_of(found)
    assert set(has) <= set(drawn_faces.ATTRIBUTES)
    assert torch.equal(has["glasses"], found.attributes[:, LISTED.index("Eyeglasses")])
    assert torch.equal(has["beard"], ~found.attributes[:, LISTED.index("No_Beard")])
    drawn = faces(drawn_faces.ATTRIBUTES)
    assert list(avae.attributes_of(drawn)) == list(drawn_faces.ATTRIBUTES)
    assert torch.equal(avae.attributes_of(drawn)["bald"], drawn.attributes[:, 0])
    drawn.attributes = None
    with pytest.raises(lp.errors.UserError, match="has no attributes"):
        avae.attributes_of(drawn)


FIGURE_8 = ("ddb7b792", "b279a8c3", "015b3ce1", "388ae44f", "c22bcec4", "895b354a")


def figure_8(monkeypatch, data, loaded):
    """The cells of Figure 8 with a tiny untrained network of a data set; what they recorded."""
    job = avae.Training("avae", data, 16, 512, 4, 5, 1)
    nets = {n: net.eval().requires_grad_(False) for n, net in avae.Networks(job, 0).all.items()}
    model = lp.models.Model(nets, {"config": lp.config.as_dict(job), "images": 1, "budget": 0.1})
    kept, drawn, asked = [], [], SimpleNamespace(n_images=8, examples=4, more=1)
    run = SimpleNamespace(preset="paper", device="cpu", device_name="cpu", seed=0, config=asked,
                          shipped=False, figure=lambda *a: drawn.append(a[0]),
                          record=lambda *place, **rest: kept.append(place[:3]))  # fmt: skip
    names = {"run": run, "nets": {"attributes_avae": model},
             "scales": {"attributes_avae": avae.scale_of(model, "paper", "cpu", (0,))}}  # fmt: skip
    monkeypatch.setattr(lp.data, "load", lambda *a, n, **k: loaded)
    exec(cells("4_figures", "69d118dd")[0], names)
    monkeypatch.setattr(lp, "begin", lambda *a, **k: run)
    exec("preset = 'paper'; seed = 0; device = out_dir = ''; overrides = {}", names)
    exec(cells("4_figures", "d8cca7e4")[0], names)
    images = cells("4_figures", "d6afdcc6")[0]
    exec(images[images.index("def resampled") :], names)
    names["real_images"] = lambda name, split, n: lp.data.to_float(loaded.pixels)
    names["small_drawn"] = avae.sample(model, 512, 0)
    for source in cells("4_figures", *FIGURE_8):
        exec(source, names)
    plt.close("all")
    return names, drawn, kept


def test_figure_8_is_drawn_of_photographs_and_nothing_is_judged(monkeypatch):
    names, drawn, kept = figure_8(monkeypatch, "celeba", faces(LISTED))
    assert names["wanted"] == ["bald", "black_hair", "pale_skin", "glasses", "beard"]
    assert (drawn, kept) == (["fig_8"], [])


def test_control_drawn_faces_are_judged(monkeypatch):
    names, drawn, kept = figure_8(monkeypatch, "drawn-faces", faces(drawn_faces.ATTRIBUTES))
    assert names["wanted"][-1] == "long_hair"
    assert drawn == ["fig_8"]
    assert {"hit rate gain", "lean to the majority"} <= {column for _, _, column in kept}


def test_no_claim_asks_a_judge_about_photographs():
    book = lp.ledger.load("avae").claims.claims
    columns = {"hit rate gain", "leak", "lean to the majority"}
    asked = [c for c in book if any(getattr(r, "ref", None) and r.ref.column in columns
                                    for r in c.rules.values())]  # fmt: skip
    assert len(asked) == 3
    assert all("paper" not in c.rules for c in asked)


# --- labels and blocks -----------------------------------------------------------------------


def test_a_figure_of_two_data_sets_names_both():
    def scale(data, images, seed):
        return lp.config.Scale("quick", images, 0.01, data, "cpu", (seed,), (data,))

    found = avae.joint_scale([scale("digits", 9, 1), scale("cifar", 7, 0), scale("digits", 9, 0)])
    assert (found.data, found.images, found.seeds) == ("digits and cifar", 7, (0, 1))
    assert found.standin == ("digits", "cifar")
    assert avae.joint_scale([scale("digits", 9, 1)]) == scale("digits", 9, 1)


def test_samples_in_blocks_are_the_samples():
    model = lp.models.load("avae/ablation_avae_s0")
    parts = [*avae.batches(model, 7, 1, block=3)]
    assert [len(p) for p in parts] == [3, 3, 1]
    assert torch.equal(torch.cat(parts), avae.sample(model, 7, 1, block=3))
    assert not torch.equal(torch.cat(parts), avae.sample(model, 7, 2, block=3))
