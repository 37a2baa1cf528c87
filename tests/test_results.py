"""What is committed under results/ is consistent, complete and within its size."""

import json
import re
import subprocess
from fnmatch import fnmatch

import pytest

from latentpapers import ledger, models, paths
from latentpapers.papers import BUILT
from latentpapers.report import stamp, summary
from latentpapers.runner import reproduce

RESULTS = paths.root() / "results"
MIB = 2**20
FOLDERS = sorted(p.parent for p in RESULTS.glob("*/*/manifest.json"))


def test_there_are_results():
    assert (RESULTS / "quick" / "avae" / "metrics.jsonl").is_file()


def test_results_agree_with_their_manifest_tables_and_verdicts():
    assert stamp.inconsistent(RESULTS) == []


def test_readme_is_generated_from_them():
    assert summary.readme_is_current(paths.root() / "README.md", reproduce.costs())


def test_titles_show_the_current_verdicts():
    for paper in BUILT:
        for path in sorted((paths.root() / "notebooks" / paper).glob("*.ipynb")):
            notebook = json.loads(path.read_text())
            current = summary.with_verdicts(notebook, paper)
            assert current == notebook, f"{paper}/{path.stem}: make refresh"


@pytest.mark.parametrize(
    "folder", [p for p in FOLDERS if p.name in BUILT], ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_every_figure_and_table_of_a_built_paper_is_there(folder):
    book = ledger.load(folder.name)
    figures = {f.id for f in book.figures.figures if f.status == "done"}
    if folder.parent.name == "cpu":  # it commits the plots of tables alone
        figures = set()
    assert figures <= {p.stem for p in (folder / "figures").glob("*.png")}
    tables = {t.id for t in book.values.tables if t.status == "done"}
    assert tables <= {p.stem for p in (folder / "tables").glob("*.md")}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_number_has_a_scale_and_an_interval_or_its_reason(folder):
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert row["scale"]["preset"] == folder.parent.name
        assert row["interval"]
        if row["lo"] is None:
            assert row["interval"].startswith("none: "), row
        else:
            assert row["lo"] <= row["value"] <= row["hi"], row


@pytest.mark.parametrize("name", models.names())
def test_shipped_checkpoints_load_and_say_what_they_are(name):
    model = models.load(name)
    # a run that ships its measures or its curve alone
    curve = name.startswith("avae/ablation_p_textbook") and model.card.get("history")
    assert model.parts or model.card.keys() & {"critic_weight", "measures"} or curve
    assert {"title", "config", "seed", "images"} <= model.card.keys()
    assert (paths.checkpoints() / f"{name}.safetensors").stat().st_size <= 6 * MIB


# the paragraph of NOTICE that a network's training data comes under, where its name differs
_NOTICED = {"cats": "cats-generated", "cifar10-jpeg": "CIFAR-10"}


@pytest.mark.parametrize("name", models.names())
def test_notice_names_every_shipped_network_under_its_data(name):
    stem = name.rsplit("_s", 1)[0] if name[-1].isdigit() else name
    data = models.load(name).card["config"].get("data")
    notice = (paths.root() / "NOTICE").read_text()
    head = rf"^{re.escape(_NOTICED.get(data, str(data)))} (?:.*\n)(?:\S.*\n)*"  # texts are indented
    said = re.search(head, notice, re.M)
    assert said, f"NOTICE has no paragraph on {data}"
    patterns = re.findall(r"\b\w+/[\w*]+", said[0])
    assert any(fnmatch(stem, pattern) for pattern in patterns), f"NOTICE, {data}: {name}"


def test_the_repository_stays_light():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=paths.root(), capture_output=True, text=True, check=True
    ).stdout.split("\0")
    sizes = {f: (paths.root() / f).stat().st_size for f in listed if (paths.root() / f).is_file()}

    def total(prefix: str) -> int:
        return sum(s for f, s in sizes.items() if f.startswith(prefix))

    assert total("") <= 60 * MIB
    assert total("results/checkpoints/") <= 30 * MIB
    assert total("results/") - total("results/checkpoints/") <= 20 * MIB
    assert total("notebooks/") <= 10 * MIB
    for name, size in sizes.items():
        if "/figures/" in name and name.startswith("results/"):
            assert size <= (300_000 if name.endswith(".png") else 150_000), name


NUMBER = r"[+-]?\d[\d,]*(?:\.\d+)?"
STATED = re.compile(rf"({NUMBER})\D{{0,40}}?\[({NUMBER}), ({NUMBER})\]")


def stated(text):
    """The `value [lo, hi]` of a text, as written."""
    return STATED.findall(text)


def measured(paper):
    """Every value with its interval in a paper's committed rows and notebook outputs."""
    found = []
    for path in RESULTS.glob(f"*/{paper}/metrics.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        found += [tuple(row[k] for k in ("value", "lo", "hi")) for row in rows]
    for path in (paths.root() / "notebooks" / paper).glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        printed = json.dumps([cell["outputs"] for cell in cells if cell["cell_type"] == "code"])
        found += [tuple(float(x.replace(",", "")) for x in three) for three in stated(printed)]
    return [three for three in found if None not in three]


def is_measured(three, known):
    def agrees(written, value):
        # half a unit of the last written digit: what rounding can change
        half = 0.5 * 10.0 ** -len(written.partition(".")[2])
        return abs(float(written.replace(",", "")) - value) <= half * (1 + 1e-9)

    return any(all(map(agrees, three, row)) for row in known)


def effects():
    for paper in BUILT:
        for erratum in ledger.load(paper).errata.errata:
            if erratum.effect and stated(erratum.effect.text):
                yield pytest.param(paper, erratum.effect.text, id=erratum.id)


@pytest.mark.parametrize(("paper", "text"), list(effects()))
def test_numbers_of_an_erratums_effect_were_measured(paper, text):
    """Those that stand there with an interval; a bare number is somebody's to read again."""
    known = measured(paper)
    assert [three for three in stated(text) if not is_measured(three, known)] == []


def test_a_number_that_nobody_measured_is_found():
    known = measured("lrc_i2i")
    (three,) = stated("its diversity by +0.100 levels [0.088, 0.112]")
    assert is_measured(three, known)
    assert not any(
        is_measured(w, known) for w in stated("+0.100 [0.088, 0.113], +0.101 [0.088, 0.112]")
    )
