"""Figures, tables and diagrams: what is drawn, what is refused, and that bytes repeat."""

import io
import zipfile
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import uniform_filter
from torch import nn

from latentpapers.errors import StorageFull, UnknownName, UserError
from latentpapers.report import diagram, figures, tables

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _closed():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def noise(n=6, c=3, size=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, c, size, size), dtype=np.uint8)


def pixels(fig):
    return np.asarray(Image.open(io.BytesIO(figures.png_bytes(fig))))


# --- images ----------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1, 5])
def test_grid_shows_every_pixel_as_a_square_of_its_colour(channels, scale):
    images = noise(c=channels)
    shown = pixels(figures.grid(images, columns=3, scale=scale))
    cell, seam = 8 * scale, figures._SEAM
    rgb = np.broadcast_to(images.transpose(0, 2, 3, 1), (6, 8, 8, 3))
    for k, image in enumerate(rgb):
        y, x = (k // 3) * (cell + seam), (k % 3) * (cell + seam)
        found = shown[y : y + cell, x : x + cell]
        np.testing.assert_array_equal(found, image.repeat(scale, 0).repeat(scale, 1))
    assert (shown[cell : cell + seam, : 3 * cell] == 255).all()


def test_notebook_backend_shows_the_same_pixels():
    """The inline backend saves with bbox_inches='tight'; the picture must survive that crop."""
    images = noise()
    fig = figures.grid(images, columns=3, scale=5, row_labels=["first", "second"], title="A")
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", bbox_inches="tight")
    shown = np.asarray(Image.open(buffer).convert("RGB"))
    wanted = images[0].transpose(1, 2, 0).repeat(5, 0).repeat(5, 1)
    windows = np.lib.stride_tricks.sliding_window_view(shown, (40, 40, 3))[:, :, 0]
    assert (windows == wanted).all(axis=(2, 3, 4)).sum() == 1
    assert shown.shape[1] <= figures.MAX_WIDTH


def test_floats_are_mapped_to_grey_levels():
    levels = torch.tensor([-1.0, 1.0, 0.0, -1 - 1e-3, 1 + 1e-3])
    assert figures.as_bytes(levels).tolist() == [0, 255, 128, 0, 255]
    every = np.arange(256, dtype=np.uint8)
    assert (figures.as_bytes(every.astype(np.float32) / 127.5 - 1) == every).all()


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (np.full((1, 3, 4, 4), 1.02), "lie in"),
        (np.full((1, 3, 4, 4), -1.5), "lie in"),
        (np.full((1, 3, 4, 4), np.nan), "NaN"),
        (np.full((1, 3, 4, 4), np.inf), "NaN or infinity"),
        (np.zeros((1, 3, 4, 4), int), "uint8 or float"),
        (np.zeros((3, 4, 4)), "shape"),
        (np.zeros((1, 2, 4, 4)), "shape"),
        (np.zeros((0, 3, 4, 4)), "shape"),
    ],
)
def test_wrong_images_are_refused_with_one_sentence(images, reason):
    with pytest.raises(UserError, match=reason) as error:
        figures.grid(images)
    assert str(error.value).count(". ") == 0


def test_labels_must_match_the_grid():
    with pytest.raises(UserError, match="row_labels has 1 entries for 2 rows"):
        figures.grid(noise(), columns=3, row_labels=["a"])
    with pytest.raises(UserError, match="titles has 2 entries for 3 columns"):
        figures.grid(noise(), columns=3, titles=["a", "b"])
    for scale in (0, 1.5):
        with pytest.raises(UserError, match="scale"):
            figures.grid(noise(), columns=3, scale=scale)


def test_a_grid_wider_than_the_page_is_shrunk_by_averaging():
    flat = np.full((10, 3, 200, 200), 77, np.uint8)
    shown = pixels(figures.grid(flat, columns=10))
    assert shown.shape[1] <= figures.WIDTH
    assert set(np.unique(shown)) == {77, 255}


def test_strips_enlarge_small_inputs_and_explain_empty_panels():
    high, low = noise(3, size=16), noise(3, size=4)
    rows = [("HR", high), ("LR", low), ("none", "no weights here"), ("part", [high[0], "diverged"])]
    fig = figures.strips(rows)
    texts = {t.get_text().replace("\n", " ") for t in fig.texts}
    assert {"HR", "LR", "none", "part", "no weights here", "diverged"} <= texts
    (axes,) = fig.axes
    canvas = axes.images[0].get_array()
    zoom = (canvas.shape[0] - 3 * figures._SEAM) // 4 // 16
    tile = canvas[_cell(1, zoom) : _cell(1, zoom) + 16 * zoom, : 16 * zoom]
    np.testing.assert_array_equal(
        tile, low[0].transpose(1, 2, 0).repeat(4 * zoom, 0).repeat(4 * zoom, 1)
    )


def _cell(index, zoom):
    return index * (16 * zoom + figures._SEAM)


def test_strips_without_any_picture_are_refused():
    with pytest.raises(UserError, match="at least one row"):
        figures.strips([("a", "reason")])


# --- curves ----------------------------------------------------------------------------------


def test_curves_hold_the_numbers_they_were_given():
    x = np.arange(5.0)
    fig = figures.curves({"a": (x, x**2, x**2 - 1, x**2 + 1)}, x="x", y="y", reference={"p": 4.0})
    line, level = fig.axes[0].lines
    np.testing.assert_array_equal(line.get_ydata(), x**2)
    assert set(level.get_ydata()) == {4.0}
    band = fig.axes[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == -1
    assert band[:, 1].max() == 17


def test_series_are_told_apart_without_colour():
    x = np.arange(40.0)
    fig = figures.curves({str(i): (x, x + i) for i in range(4)}, x="x", y="y")
    assert len({line.get_linestyle() for line in fig.axes[0].lines}) == 4


def test_uneven_or_empty_series_are_refused():
    for values in (([1, 2], [1]), ([], []), ([1, 2], [1, 2], [0, 0], [1])):
        with pytest.raises(UserError, match="one length"):
            figures.curves({"a": values}, x="x", y="y")


@pytest.mark.parametrize("words", [2, 14])
def test_the_label_below_intervals_is_never_cut(words):
    names = [("a method with a long name, of which there are some", 1.0, 0.5, 1.5)]
    fig = figures.intervals(names, x="words " * words)
    fig.canvas.draw()
    box = fig.axes[0].xaxis.label.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= fig.bbox.x1


def test_intervals_draw_value_interval_and_the_papers_number():
    fig = figures.intervals(
        [("a", 2.0, 1.5, 2.5), ("b", 1.0, None, None)], x="IS", reference={"a": 3}
    )
    drawn = [tuple(np.ravel(line.get_xdata())) for line in fig.axes[0].lines]
    assert drawn == [(1.5, 2.5), (2.0,), (3,), (1.0,)]


def test_the_house_style_leaves_the_readers_settings_alone():
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 31.0}):
        figures.curves({"a": ([1, 2], [1, 2])}, x="x", y="y")
        assert mpl.rcParams["font.size"] == 31.0
    assert dict(mpl.rcParams) == before


# --- saving ----------------------------------------------------------------------------------


def saved(path, footer="gpu · 1 image", data=None):
    fig = figures.grid(noise(), columns=3, scale=5)
    figures.save(fig, path, footer=footer, data=data or {"images": noise() / 127.5 - 1})
    return fig


def test_saved_bytes_depend_on_the_content_alone(tmp_path):
    saved(tmp_path / "a.png")
    with mpl.rc_context({"font.size": 30, "savefig.bbox": "tight", "savefig.dpi": 37}):
        saved(tmp_path / "b.png")
    for kind in ("png", "npz"):
        same = [(tmp_path / f"{name}.{kind}").read_bytes() for name in "ab"]
        assert same[0] == same[1]
    saved(tmp_path / "c.png", footer="gpu · 2 images")
    assert (tmp_path / "c.png").read_bytes() != (tmp_path / "a.png").read_bytes()


def test_the_picture_carries_footer_but_no_dates_or_program(tmp_path):
    fig = saved(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").info == {}
    assert [t.get_text() for t in fig.texts] == ["gpu · 1 image"]
    plain = pixels(figures.grid(noise(), columns=3, scale=5))
    stored = np.asarray(Image.open(tmp_path / "a.png"))
    assert stored.shape[0] > plain.shape[0]
    np.testing.assert_array_equal(stored[: plain.shape[0]], plain)
    assert (stored[plain.shape[0] :] < 200).any()


def test_a_second_save_replaces_the_footer(tmp_path):
    fig = saved(tmp_path / "a.png")
    first = (tmp_path / "a.png").read_bytes()
    long = " · ".join(["a long label"] * 12)
    figures.save(fig, tmp_path / "b.png", footer=long, data={"x": [1]})
    figures.save(fig, tmp_path / "a.png", footer="gpu · 1 image", data={"x": [1]})
    assert (tmp_path / "a.png").read_bytes() == first
    assert long.count("long") == 12


def test_data_comes_back_without_pickle_and_images_as_bytes(tmp_path):
    images = noise() / 127.5 - 1
    saved(tmp_path / "a.png", data={"images": images, "steps": [1, 2], "names": ["a", "b"]})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as data:
        np.testing.assert_array_equal(data["images"], noise())
        assert data["images"].dtype == np.uint8
        assert data["steps"].tolist() == [1, 2]
        assert data["names"].tolist() == ["a", "b"]
    with zipfile.ZipFile(tmp_path / "a.npz") as file:
        assert {i.date_time for i in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"x": noise(80, size=32)}, "over the 150 kB"),
        ({"x": np.array([object()])}, "plain array"),
        ({"x": np.full((1, 3, 4, 4), 3.0)}, "lie in"),
        ({}, "none was given"),
    ],
)
def test_bad_data_is_refused_and_nothing_is_written(tmp_path, data, reason):
    fig = figures.grid(noise())
    with pytest.raises(UserError, match=reason):
        figures.save(fig, tmp_path / "a.png", footer="gpu", data=data)
    assert list(tmp_path.iterdir()) == []


def test_a_scale_that_does_not_fit_is_the_largest_that_does():
    images = noise(8, size=100)
    asked = pixels(figures.grid(images, columns=4, scale=6))
    np.testing.assert_array_equal(asked, pixels(figures.grid(images, columns=4, scale=2)))
    assert asked.shape != pixels(figures.grid(images, columns=4, scale=1)).shape  # control
    shrunk = pixels(figures.grid(noise(20, size=100), columns=20, scale=1))
    assert shrunk.shape[1] <= figures.WIDTH


def test_a_figure_needs_its_scale_and_a_png_name(tmp_path):
    for name, footer in (("a.png", " "), ("a.pdf", "gpu")):
        with pytest.raises(UserError):
            figures.save(figures.grid(noise()), tmp_path / name, footer=footer, data={"x": [1]})
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_gives_one_sentence(tmp_path, monkeypatch):
    import os

    def full(*_args, **_kwargs):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("tempfile.mkstemp", full)
    with pytest.raises(StorageFull):
        saved(tmp_path / "a.png")


def test_heavy_pictures_are_made_to_fit():
    heavy = figures.grid(noise(16, size=50), columns=4, scale=2)
    content = figures.png_bytes(heavy, limit=80_000)
    assert len(content) <= 80_000
    assert Image.open(io.BytesIO(content)).width >= 399
    assert len(content) < len(figures.png_bytes(heavy)) <= figures.MAX_PNG
    with pytest.raises(UserError, match="does not fit"):
        figures.png_bytes(heavy, limit=1000)


def test_a_palette_keeps_the_colours_of_photographs():
    """Mean colour of 7 x 7 pixels, what one sees; the usual palette by boxes is the control."""
    from skimage import data as photographs

    sheet = Image.new("RGB", (514, 256), "white")
    for i, name in enumerate(("coffee", "chelsea")):
        sheet.paste(Image.fromarray(getattr(photographs, name)()).resize((256, 256)), (258 * i, 0))
    truth = np.asarray(sheet).astype(float)

    def errors(content):
        """(999 of 1,000, mean) largest error of a colour."""
        gap = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) - truth
        seen = np.abs(np.stack([uniform_filter(gap[..., c], 7) for c in range(3)])).max(0)
        return np.quantile(seen, 0.999), seen.mean()

    usual = figures._encoded(sheet.quantize(256), format="PNG", optimize=True)
    spread, flat = figures._spread(sheet), figures.in_256_colours(sheet)
    assert errors(spread)[0] < errors(flat)[0] < 0.6 * errors(usual)[0]
    assert errors(spread)[1] < 0.5 * errors(usual)[1]
    assert len(flat) < len(usual) < len(spread) < 1.4 * len(usual)


def test_paper_stays_white_in_a_palette():
    """Highlights that are nearly white would tint it."""
    rng = np.random.default_rng(0)
    sheet = np.full((200, 300, 3), 255, np.uint8)
    sheet[20:180, 20:180] = rng.integers(0, 256, (160, 160, 3))
    sheet[60:160, 60:160] = (250, 254, 254)
    for encode in (figures._spread, figures.in_256_colours):
        seen = np.asarray(Image.open(io.BytesIO(encode(Image.fromarray(sheet)))).convert("RGB"))
        assert (seen[:, 200:] == 255).all()


def test_few_colours_stay_as_they_are():
    few = np.random.default_rng(0).integers(0, 6, (60, 60, 3), dtype=np.uint8) * 50  # 216
    for encode in (figures._spread, figures.in_256_colours):
        kept = Image.open(io.BytesIO(encode(Image.fromarray(few))))
        assert (np.asarray(kept.convert("RGB")) == few).all()


def test_a_figure_that_is_too_wide_is_drawn_smaller():
    import matplotlib.pyplot as plt

    fig = plt.figure(figsize=(20, 3))
    assert Image.open(io.BytesIO(figures.png_bytes(fig))).width == figures.MAX_WIDTH


def test_importing_figures_loads_no_pyplot():
    import subprocess
    import sys

    heavy = "{'matplotlib', 'torch'}"
    code = f"import sys, latentpapers.report.figures; assert not {heavy} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- tables ----------------------------------------------------------------------------------

SCALE = {
    "preset": "gpu", "images": 1000, "budget": 0.5, "data": "digits 32 px", "device": "cpu",
    "seeds": [0], "standin": [],
}  # fmt: skip


def cell(row, column, metric, value, source="own"):
    text = "-" if value is None else f"{value:.2f}"
    return SimpleNamespace(
        row=row, column=column, metric=metric, direction="higher", value=value, printed=text,
        dataset="d", source=source, note=None,
    )  # fmt: skip


def book():
    cells = [
        cell("ours", "IS", "is_n50000", 6.80),
        cell("BEGAN", "IS", "is_n50000", 5.62, "quoted"),
    ]
    table = SimpleNamespace(caption="Inception score", cells=[*cells, cell("VAE", "IS", "m", None)])
    return SimpleNamespace(table=lambda _id: table)


def row(name, column="IS", metric="is_n50000", value=6.7, lo=6.6, hi=6.9, **more):
    base = {
        "paper": "p", "id": "table_1", "row": name, "column": column, "metric": metric,
        "value": value, "lo": lo, "hi": hi, "interval": "bootstrap", "n": 5000, "unit": "",
        "direction": "higher", "seed": 0, "scale": SCALE,
    }  # fmt: skip
    return base | more


def line(df, name, column="IS"):
    (found,) = df[(df.row == name) & (df.column == column)].to_dict("records")
    return found


def test_ours_stands_beside_the_papers_number_of_the_same_protocol():
    df = tables.compare(book(), "table_1", [row("ours")])
    found = line(df, "ours")
    assert (found["ours"], found["paper"], found["n"]) == ("6.70 [6.60, 6.90]", "6.80", "5,000")
    assert found["note"] == "paper's value inside our interval; reduced scale"
    assert line(df, "BEGAN")["paper"] == "5.62 (quoted)"
    assert line(df, "BEGAN")["note"] == "quoted by the paper, not run by us"
    assert list(df.row) == ["ours", "BEGAN", "VAE"]


def test_an_empty_cell_has_its_reason():
    def why(metric, value, source="own"):
        one = cell("a", "c", metric, value, source)
        book = SimpleNamespace(table=lambda _id: SimpleNamespace(caption="", cells=[one]))
        return line(tables.compare(book, "table_1", []), "a", "c")["note"]

    assert why("fid_tf2015_n10000", 12.09) == (
        "not run in this preset; needs TF Inception-2015 weights"
    )
    assert why("psnr_y_b4_u8", 25.0) == "not run in this preset"  # control: needs nothing
    assert why("fid_tf2015_n10000", 12.09, "quoted") == "quoted by the paper, not run by us"
    assert why("fid_tf2015_n10000", None) == "no number in the paper, none of ours"


def test_another_protocol_never_shares_a_line_with_a_printed_number():
    for column in ("IS digits", "IS"):
        rows = [row("ours", column, "is_digitsnet_n5000", 7.9, 7.8, 8.0)]
        df = tables.compare(book(), "table_1", rows)
        mine = df[df.ours != tables.NOTHING]
        assert list(mine.paper) == [tables.NOTHING]
        assert (df[df.paper == "6.80"].ours == tables.NOTHING).all()
        assert "not comparable" in tables.caption(book(), "table_1", rows)
    assert "not comparable" not in tables.caption(book(), "table_1", [row("ours")])


def test_a_caption_names_each_foreign_metric_once():
    columns = {"IS digits": "is_digitsnet_n5000", "IS letters": "is_digitsnet_n5000", "FD": "fd"}
    rows = [row("ours", c, m, 7.9, 7.8, 8.0) for c, m in columns.items()]
    text = tables.caption(book(), "table_1", rows)
    assert text.endswith("IS digits, IS letters (is_digitsnet_n5000); FD (fd).")


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"value": 6.9, "lo": 6.85, "hi": 7.0}, "0.1000 better than the paper; reduced scale"),
        ({"value": 6.5, "lo": 6.4, "hi": 6.6}, "0.3000 worse than the paper; reduced scale"),
        ({"value": 6.5, "lo": 6.4, "hi": 6.6, "direction": "lower"}, "0.3000 better than"),
        ({"value": 6.5, "lo": 6.4, "hi": 6.6, "direction": "none"}, "0.3000 below the paper"),
        ({"scale": SCALE | {"preset": "paper"}}, "paper's value inside our interval"),
        ({"scale": SCALE | {"standin": ["net"]}}, "not comparable, stand-in: net"),
    ],
)
def test_notes_say_how_to_read_the_two_numbers(more, text):
    found = line(tables.compare(book(), "table_1", [row("ours", **more)]), "ours")["note"]
    assert text in found
    assert ("reduced" in found) == (more.get("scale", SCALE)["preset"] != "paper")
    # a stand-in's number is never said to be on one side of a printed one
    compared = any(word in found for word in ("better", "worse", "below", "inside"))
    assert compared == ("stand-in" not in found)


@pytest.mark.parametrize(
    ("value", "lo", "hi", "unit", "text"),
    [
        (7.912, 7.8534, 7.9711, "", "7.912 [7.853, 7.971]"),
        (6.1, 6.05, 6.3, "", "6.10 [6.05, 6.30]"),
        (26.28, 20.0, 33.0, "dB", "26.3 [20.0, 33.0] dB"),
        (123456, 110000, 130000, "", "123,456 [110,000, 130,000]"),
        (2e-9, 1e-9, 3e-9, "", "2e-09 [1e-09, 3e-09]"),
        (0.0, 0.0, 0.0, "", "0 [0, 0]"),
        (5.5, None, None, "", "5.500 (no interval: one image)"),
    ],
)
def test_digits_follow_the_interval(value, lo, hi, unit, text):
    interval = "none: one image" if lo is None else "t"
    given = {"value": value, "lo": lo, "hi": hi, "unit": unit, "interval": interval}
    assert tables.number(given) == text


def test_the_pooled_row_is_shown_and_unpooled_seeds_are_refused():
    seeds = [row("ours", seed=0), row("ours", value=6.8, seed=1)]
    pooled = row("ours", value=6.75, lo=6.5, hi=7.0, n=2, seed=None)
    assert line(tables.compare(book(), "table_1", [*seeds, pooled]), "ours")["n"] == "2"
    with pytest.raises(UserError, match="no pooled row"):
        tables.compare(book(), "table_1", seeds)
    with pytest.raises(UserError, match="two different numbers"):
        tables.compare(book(), "table_1", [row("ours"), row("ours", value=6.71)])


def test_other_tables_rows_are_ignored():
    assert (tables.compare(book(), "table_1", [row("ours", id="table_2")]).ours == "—").all()


def test_written_tables_agree_with_build_and_repeat(tmp_path):
    import csv

    rows = [row("ours"), row("BEGAN* | x", scale=SCALE | {"seeds": [0, 1]})]
    df = tables.compare(book(), "table_1", rows)
    tables.write(df, tmp_path / "table_1", tables.caption(book(), "table_1", rows), "")
    built = tables.build(book(), "table_1", rows)
    assert (tmp_path / "table_1.csv").read_bytes() == built[".csv"]
    with (tmp_path / "table_1.csv").open() as file:
        assert [r["ours"] for r in csv.DictReader(file)] == list(df.ours)
    text = built[".md"].decode()
    assert "BEGAN\\* \\| x" in text
    assert text.count("*a: gpu") == text.count("*b: gpu") == 1
    width = {line.replace("\\|", "").count("|") for line in text.splitlines() if line[:1] == "|"}
    assert width == {len(tables.COLUMNS) + 1}


def test_html_is_escaped_and_needs_nothing_from_outside():
    df = tables.compare(book(), "table_1", [row("<b>ours</b>")])
    text = tables.to_html(df, "caption <i>", "gpu")
    assert "<b>ours" not in text
    assert "caption &lt;i&gt;" in text
    assert "http" not in text
    assert text == tables.View(df, "caption <i>", "gpu")._repr_html_()


# --- diagrams --------------------------------------------------------------------------------


class Pair(nn.Module):
    """Encoder with two heads."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, 2, 1)
        self.heads = nn.ModuleList(nn.Linear(64, 5) for _ in range(2))

    def forward(self, x):
        h = self.body(x).flatten(1)
        return {"mean": self.heads[0](h), "log_var": self.heads[1](h)}


def parts():
    return {
        "encoder": Pair(),
        "decoder": nn.Sequential(nn.Linear(5, 192), nn.Unflatten(1, (3, 8, 8))),
    }


def traced():
    nets = parts()

    def run():
        x, z_g = torch.zeros(2, 3, 8, 8), torch.zeros(2, 5)
        out = nets["encoder"](x)
        z_v = out["mean"] + out["log_var"]
        x_v, x_g = nets["decoder"](z_v), nets["decoder"](z_g)
        return {"x": x, "z_v": z_v, "z_g": z_g, "x_v": x_v, "x_g": x_g}

    return nets, diagram.trace(nets, run)


def test_trace_reads_shapes_counts_and_flow():
    nets, graph = traced()
    encoder = graph.parts["encoder"]
    assert (encoder.takes, encoder.gives) == (((3, 8, 8),), ((5,), (5,)))
    assert encoder.params == (3 * 9 * 4 + 4) + 2 * (64 * 5 + 5)
    assert (encoder.kind, graph.parts["decoder"].kind) == ("encoder", "decoder")
    assert graph.calls == {"encoder": "encoder", "decoder": "decoder", "decoder#2": "decoder"}
    assert set(graph.edges) == {
        ("x", "encoder", ""), ("z_v", "decoder", ""), ("decoder", "x_v", ""),
        ("z_g", "decoder#2", ""), ("decoder#2", "x_g", ""),
    }  # fmt: skip
    assert all(not m._forward_hooks for m in nets.values())


def test_flow_survives_views_and_goes_from_part_to_part():
    a, b = nn.Linear(4, 6), nn.Linear(3, 3)
    graph = diagram.trace({"a": a, "b": b}, lambda: b(a(torch.zeros(2, 4)).view(4, 3)))
    assert graph.edges == [("a", "b", "")]
    cut = diagram.trace({"a": a, "b": b}, lambda: b(a(torch.zeros(2, 4))[:, :3] * 1))
    assert cut.edges == []
    assert cut.connect("a", "b", "slice").edges == [("a", "b", "slice")]


def test_trace_refuses_silent_parts_and_unknown_names():
    nets, graph = traced()
    with pytest.raises(UserError, match="never called"):
        diagram.trace(nets, lambda: None)
    with pytest.raises(UserError, match="both a part and a value"):
        diagram.trace({"b": nn.Linear(2, 2)}, lambda: {"b": nn.Identity()(torch.zeros(1))})
    for call in (lambda: graph.connect("x", "nowhere"), lambda: diagram.draw(graph, [["nowhere"]])):
        with pytest.raises(UnknownName):
            call()
    with pytest.raises(UserError, match="layout does not show"):
        diagram.draw(graph, [["x"]], losses=[("x", "x_v", "L")])


def test_drawn_trapezoids_narrow_and_widen_and_losses_are_red_dots():
    from matplotlib.colors import same_color
    from matplotlib.patches import PathPatch, Polygon

    _, graph = traced()
    graph.connect("encoder", "z_v", "sample")
    layout = [["x", "encoder", ("z_v", "z_g"), "decoder", ("x_v", "x_g")]]
    fig = diagram.draw(graph, layout, losses=[("x", "x_v", "$L_n$"), ("z_v", "z_v", "$L_e$")])
    shapes = [p.get_xy() for p in fig.axes[0].patches if isinstance(p, Polygon)]
    (left, right), (low, high) = [
        (xy[3, 1] - xy[0, 1], xy[2, 1] - xy[1, 1]) for xy in shapes
    ]  # fmt: skip
    assert left > right
    assert low < high
    bows = [p for p in fig.axes[0].patches if type(p) is PathPatch]
    assert len(bows) == 2
    assert all(same_color(p.get_edgecolor(), diagram.LOSS) for p in bows)
    assert all(p.get_linestyle() not in ("-", "solid") for p in bows)
    texts = {t.get_text() for t in fig.axes[0].texts}
    assert {"3×8×8 → 5", "5 → 3×8×8", "762 parameters", "sample", "$L_n$", "$L_e$"} <= texts
    inside(fig)


def inside(fig):
    """No text leaves the picture: it would be cut off."""
    renderer = fig.canvas.get_renderer()
    wide, high = fig.canvas.get_width_height()
    for text in fig.axes[0].texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= wide, text
        assert box.y1 <= high, text


def test_arrows_join_what_the_graph_joins():
    _, graph = traced()
    layout = [["x", "encoder", ("z_v", "z_g"), "decoder", ("x_v", "x_g")]]
    arrows = diagram.draw(graph, layout).axes[0].texts
    assert sum(getattr(t, "arrow_patch", None) is not None for t in arrows) == len(graph.edges)


def test_arrows_within_a_column_run_from_bottom_to_top():
    _, graph = traced()
    rows = [["x"], ["encoder"]]
    arrow = next(
        t for t in diagram.draw(graph, rows).axes[0].texts if getattr(t, "arrow_patch", None)
    )
    (x0, y0), (x1, y1) = arrow.xyann, arrow.xy
    assert x0 == x1
    assert y0 < y1  # pixels count downwards
    across = diagram.draw(graph, [["x", "encoder"]]).axes[0].texts
    level = next(t for t in across if getattr(t, "arrow_patch", None))
    assert level.xyann[0] < level.xy[0]  # negative control: side by side it runs to the right


def test_layer_table_counts_every_parameter_once():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    df = diagram.layers(net, torch.zeros(1, 1, 4, 4))
    assert list(df.name) == ["0", "1", "2", "3", "total"]
    assert list(df.output) == ["2×2×2", "2×2×2", "8", "3", ""]
    assert list(df.params) == [20, 0, 0, 27, 47]
    shared = nn.Linear(3, 3)
    assert list(diagram.layers(nn.Sequential(shared, shared), torch.zeros(1, 3)).params) == [
        12,
        0,
        12,
    ]


@pytest.mark.parametrize(
    ("count", "text"),
    [(762, "762 parameters"), (12_345, "12.3 k parameters"), (5_707_200, "5.71 M parameters")],
)
def test_counts_read_well(count, text):
    assert diagram.count_text(count) == text


@pytest.mark.parametrize("dpi", [100, 72, 55])  # a notebook may draw a figure smaller
def test_no_label_of_a_strip_is_cut(dpi):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    labels = ["faces-dcgan improved", "PixelCNN", "(b) D(fakes)", "Nearest member P(X, y)"]
    fig = figures.strips([(label, np.zeros((6, 3, 32, 32), np.uint8)) for label in labels])
    fig.set_dpi(dpi)
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    left = [text.get_window_extent(canvas.get_renderer()).x0 for text in fig.texts]
    assert len(left) == len(labels)
    assert min(left) >= 0
