"""What is generated from ledgers, results and imports is current, and links lead both ways."""

import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest

from latentpapers import ledger, paths
from latentpapers.ledger import completeness
from latentpapers.ledger.implements import scan, section
from latentpapers.papers import BUILT
from latentpapers.report import atlas, floors, gallery, links, pages, sources, summary
from latentpapers.runner import reproduce

ROOT = paths.root()
DERIVATIONS = [p for p in BUILT if completeness.notebook_path(p, "1_derivation").is_file()]


def cells(paper: str, name: str = "1_derivation") -> list[dict]:
    file = completeness.notebook_path(paper, name)
    return [c for c in json.loads(file.read_text())["cells"] if c["cell_type"] == "markdown"]


# --- equation -> function -> section -----------------------------------------------------------


@pytest.mark.parametrize("paper", DERIVATIONS)
def test_each_equation_of_a_derivation_links_to_its_function(paper):
    found = {
        (anchor, target)
        for cell in cells(paper)
        for text in ["".join(cell["source"])]
        for anchor in re.findall(r'<a id="([^"]+)"', text)
        for target in links.linked(text)
    }
    done = [e for e in ledger.load(paper).equations.equations if e.implements]
    assert done
    for e in (e for e in done if e.status == "done"):
        module, _, name = e.implements.partition(":")
        path = f"lib/{module.replace('.', '/')}.py"
        assert (ROOT / path).is_file()
        assert gallery.source_line(e.implements) is not None
        place = (path, f"{module.removeprefix('latentpapers.')}.{name}")
        assert (e.anchor.partition("#")[2], place) in found, f"{paper} eq {e.id}: make words"


@pytest.mark.parametrize("paper", DERIVATIONS)
def test_each_function_of_an_equation_names_its_section(paper):
    for (owner, eq), item in scan().items():
        if owner == paper:
            e = next(e for e in ledger.load(paper).equations.equations if e.id == eq)
            assert section(paper, eq) == (e.anchor or "").replace("#", ".ipynb#"), item.target
            assert completeness.has_anchor(paper, e.anchor)


def test_the_section_stands_in_the_docstring():
    from latentpapers.losses import energy

    assert energy.energy.__doc__.startswith("L_d, L_g, L_v")
    assert "notebooks/avae/1_derivation.ipynb#eq-7" in energy.energy.__doc__
    assert "Derived in" not in (energy.energy_per_image.__doc__ or "")


def test_a_shown_source_links_to_its_file_and_its_equation():
    from latentpapers.losses import energy
    from latentpapers.notebook import show_source

    text = show_source(energy.energy).data
    for target in re.findall(r"\]\((\.\./[^)#]+)", text.split("```")[0]):
        assert (ROOT / "notebooks" / "avae" / target).resolve().is_file(), target
    assert "../avae/1_derivation.ipynb#eq-7" in text


def test_links_are_made_once_and_follow_the_ledger():
    notebook = {"cells": [{"cell_type": "markdown", "source": ['<a id="eq-7"></a>\n', "words"]},
                          {"cell_type": "markdown", "source": ["no anchor"]}]}  # fmt: skip
    once = links.with_links(notebook, "avae", "1_derivation")
    assert links.with_links(once, "avae", "1_derivation") == once
    text = "".join(once["cells"][0]["source"])
    assert text.startswith('<a id="eq-7"></a>\nwords\n')
    assert "`losses.energy.energy`" in text
    assert once["cells"][1] == notebook["cells"][1]
    gone = links.with_links(once, "avae", "5_explore")  # no equation has its anchor there
    assert "".join(gone["cells"][0]["source"]) == '<a id="eq-7"></a>\nwords'


# --- generated pages ---------------------------------------------------------------------------


@pytest.mark.parametrize("paper", BUILT)
def test_verdicts_and_links_in_notebooks_are_current(paper):
    for file in sorted((ROOT / "notebooks" / paper).glob("*.ipynb")):
        notebook = json.loads(file.read_text())
        now = reproduce.current_words(notebook, paper, file.stem)
        assert now == notebook, f"{paper}/{file.stem}: make words"


def test_generated_pages_are_current():
    assert pages.stale() == [], "make words"
    assert floors.is_current(), "make words"
    assert summary.readme_is_current(ROOT / "README.md", reproduce.costs()), "make words"


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A checkout whose generated files may be damaged."""
    for name in ("pyproject.toml", "README.md", pages.RESULTS, *(pages.GAPS, floors.PICTURE)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "docs" / "architecture.md", tmp_path / "docs")
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks",
                    ignore=shutil.ignore_patterns("*.ipynb"))  # fmt: skip
    for file in (ROOT / "results").glob("*/*/*.json*"):
        target = tmp_path / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    monkeypatch.setenv("LATENTPAPERS_ROOT", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", [pages.GAPS, pages.RESULTS])
def test_a_changed_page_is_stale_and_is_written_anew(copy, name):
    pages.write()
    (copy / name).write_text((copy / name).read_text().replace("not", "certainly", 1))
    assert pages.stale() == [name]
    assert pages.write() == [name]
    assert pages.stale() == []


def test_a_changed_picture_of_the_floors_is_stale(copy):
    floors.write()
    assert floors.is_current()
    (copy / floors.PICTURE).write_text(floors.svg().replace("papers", "letters", 1))
    assert not floors.is_current()
    assert floors.write()


def test_every_claim_stands_in_the_results_page_and_every_gap_is_named():
    page, gaps = pages.results(), pages.gaps()
    for paper in sources.papers():
        for judged in sources.judged(paper):
            assert f"`{judged.claim.id}`" in page
            open_ = judged.kind in ("failed", "untestable", "undecided", "todo")
            assert (f"`{judged.claim.id}`" in gaps) == open_, judged.claim.id


def test_what_has_not_run_stands_with_its_command():
    for _, preset, command in pages.unrun():
        assert f"`{command}`" in pages.gaps()
        assert preset == "quick" or f"PRESET={preset}" in command
    assert "make reproduce PRESET=gpu" in (ROOT / "README.md").read_text() or not pages.unrun()


# --- the picture of the floors -----------------------------------------------------------------


def test_the_floors_show_every_room_of_the_page():
    table = floors.floors()
    assert [name.split()[0] for name, _ in table] == ["5", "4", "3", "2", "1", "0"]
    picture = floors.svg()
    for _, rooms in table:
        assert rooms
        assert all(f">{room}</text>" in picture for room in rooms)


def test_the_floors_show_imports_that_exist_and_no_others():
    pairs = floors.imports()
    assert ("report", "ledger") in pairs
    assert ("ledger", "report") not in pairs
    rank = {room: i for i, (_, rooms) in enumerate(floors.floors()) for room in rooms}
    assert all(rank[a] <= rank[b] for a, b in pairs if a in rank and b in rank)


# --- the map, README ---------------------------------------------------------------------------


def test_the_map_has_a_row_a_paper_and_takes_pictures():
    import matplotlib as mpl
    import numpy as np

    from latentpapers.errors import UnknownName

    mpl.use("Agg")
    assert tuple(atlas.USES) == ledger.PAPERS
    fig = atlas.draw({"lag": np.zeros((3, 8, 8), np.uint8)})
    texts = [t.get_text() for t in fig.axes[0].texts]
    assert texts.count("not run\nyet") == len(ledger.PAPERS) - 1
    assert len(fig.axes[0].images) == 1
    with pytest.raises(UnknownName):
        atlas.draw({"nobody": np.zeros((3, 8, 8), np.uint8)})


DOCUMENTS = ["README.md", "CONTRIBUTING.md", "NOTATION.md", "docs/architecture.md",
             pages.RESULTS, pages.GAPS]  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_and_pictures_of_the_documents_exist(name):
    text = (ROOT / name).read_text()
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for target in targets:
        if not target.startswith(("http:", "https:", "#")):
            file = (ROOT / name).parent / unquote(target.split("#")[0])
            assert file.exists(), f"{name}: {target}"


def test_every_picture_of_the_readme_has_a_scale_label_and_a_text():
    text = (ROOT / "README.md").read_text()
    shown = re.findall(r'<img src="([^"]+)"[^>]*alt="([^"]+)"', text)
    assert len(shown) >= 4
    for source, alt in shown:
        facts = json.loads(Path(ROOT / source).with_suffix(".json").read_text())
        assert facts["label"] in text
        assert facts["caption"] == alt
