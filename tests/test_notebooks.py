"""Every committed notebook keeps the template of docs/architecture.md; nothing is executed here."""

import ast
import json
import re
from pathlib import Path

import pytest

from latentpapers import paths
from latentpapers.papers import BUILT
from latentpapers.runner.parameters import parameters
from latentpapers.runner.scrub import scrub_file

NOTEBOOKS = sorted(
    p for p in (paths.root() / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts
)
SERIES = ("1_derivation", "2_training", "3_tables", "4_figures", "5_explore")
ORDER = ("title", "goals", "imports", "parameters", "setup", "provenance")


def source(cell: dict) -> str:
    return "".join(cell["source"])


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


@pytest.fixture(params=NOTEBOOKS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def notebook(request) -> tuple[Path, dict]:
    return request.param, json.loads(request.param.read_text())


def code(nb: dict) -> list[dict]:
    return [c for c in nb["cells"] if c["cell_type"] == "code"]


@pytest.mark.parametrize("paper", BUILT)
def test_a_built_paper_has_the_whole_series(paper):
    found = [p.stem for p in NOTEBOOKS if p.parent.name == paper]
    assert found == list(SERIES)


def test_fixed_cells_come_in_order(notebook):
    _, nb = notebook
    first = [tags(c)[0] for c in nb["cells"] if tags(c) and tags(c)[0] in ORDER]
    assert first == list(ORDER)
    assert tags(nb["cells"][-1]) == ["provenance"]
    assert "exercises" in {t for c in nb["cells"] for t in tags(c)}


def test_limits_of_size(notebook):
    path, nb = notebook
    most = 90 if path.stem == "1_derivation" else 40
    assert len(nb["cells"]) <= most
    assert path.stat().st_size <= 700_000
    for cell in code(nb):
        assert source(cell).count("\n") < 25, source(cell)
        assert not source(cell).rstrip().endswith(";")


def test_parameters_are_few_literals_that_a_later_cell_reads(notebook):
    path, nb = notebook
    assert 1 <= len(parameters(nb, path.name)) <= 8


def test_only_this_library_is_imported_from_this_project(notebook):
    _, nb = notebook
    for cell in code(nb):
        for node in ast.walk(ast.parse(source(cell))):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                assert not (node.module or "").startswith(("tests", "ci"))


def test_words_come_before_code(notebook):
    """At most four code cells in a row stand without a word between them."""
    _, nb = notebook
    run = 0
    for cell in nb["cells"][5:]:
        run = run + 1 if cell["cell_type"] == "code" else 0
        assert run <= 4, source(cell)


def test_solutions_are_folded_and_run(notebook):
    """Words in a closed fold; code whose source is folded and that holds or shows something."""
    _, nb = notebook
    exercises = [c for c in nb["cells"] if "exercises" in tags(c) and c["cell_type"] == "markdown"]
    assert any("<details><summary>" in source(c) for c in exercises)
    solutions = [c for c in code(nb) if "solution" in tags(c)]
    assert solutions, "no executed solution"
    for cell in solutions:
        assert cell["metadata"].get("jupyter", {}).get("source_hidden"), source(cell)
        assert cell["outputs"] or "assert" in source(cell), source(cell)


def test_outputs_are_committed_and_clean(notebook):
    path, nb = notebook
    assert any(c["outputs"] for c in code(nb)), "no outputs: make refresh"
    for cell in code(nb):
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr"
            text = "".join(output.get("text", []))
            assert text.count("\n") <= 15, text
    assert not scrub_file(path, verify=True), "run: python -m latentpapers scrub"


def test_there_is_a_check_and_it_prints_no_measured_digits(notebook):
    _, nb = notebook
    checked = [c for c in code(nb) if "nbval-check-output" in tags(c)]
    assert checked
    for cell in checked:
        for output in cell["outputs"]:
            text = "".join(output.get("text", []))
            # digits with four or more places come out of a computation, not out of a count
            assert not re.search(r"\d\.\d{4,}", text), text


def test_titles_show_a_picture_that_exists(notebook):
    path, nb = notebook
    shown = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", source(nb["cells"][0]))
    assert shown
    for target in shown:
        assert (path.parent / target).is_file(), target


def test_relative_links_resolve(notebook):
    path, nb = notebook
    for cell in nb["cells"]:
        if cell["cell_type"] != "markdown":
            continue
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?(?:\s+\"[^\"]*\")?\)", source(cell)):
            assert (path.parent / target).exists(), target
