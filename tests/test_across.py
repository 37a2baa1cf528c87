"""What notebooks that belong to no single paper say of themselves: what they need and read."""

import json
from collections import Counter

import pytest

from latentpapers import paths
from latentpapers.errors import UserError
from latentpapers.report import sources, summary
from latentpapers.runner import reproduce
from latentpapers.runner.plan import Plan, Request, declared, jobs, notebook_path, notebooks

GROUP = "across"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with two small notebooks of the group `across` and one committed result."""
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'bed'\n")
    (tmp_path / "requirements.lock").write_text("numpy==2\n")
    (tmp_path / "results/quick/lag").mkdir(parents=True)
    (tmp_path / "results/quick/lag/claims.json").write_text("[]")
    monkeypatch.setenv("LATENTPAPERS_ROOT", str(tmp_path))
    monkeypatch.delenv("LATENTPAPERS_OUT", raising=False)

    def write(name: str, **own: list[str]) -> None:
        cell = {"cell_type": "code", "metadata": {}, "source": "x = 1", "outputs": []}
        meta = {"latentpapers": own} if own else {}
        file = tmp_path / "notebooks" / GROUP / f"{name}.ipynb"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"cells": [cell], "metadata": meta}))

    write("1_first")
    write("2_second", needs=["1_first"], reads=["results/*/*/claims.json"])
    return tmp_path, write


def plan() -> Plan:
    return Plan(jobs(Request(papers=(GROUP,))))


def fingerprints() -> dict[str, str]:
    now = plan()
    return {job.name: now.fingerprint(job) for job in now.jobs}


def test_a_needed_notebook_runs_first_and_decides_the_fingerprint(checkout):
    first, second = plan().jobs
    assert second.needs == ("1_first/s0",)
    assert plan().needed(second) == [first]
    before = fingerprints()
    file = notebook_path(GROUP, "1_first")
    file.write_text(file.read_text().replace("x = 1", "x = 2"))
    after = fingerprints()
    assert [n for n in after if after[n] != before[n]] == ["1_first/s0", "2_second/s0"]


def test_what_a_report_reads_decides_its_fingerprint_alone(checkout):
    root, _ = checkout
    before = fingerprints()
    (root / "results/quick/lag/other.json").write_text("{}")
    assert fingerprints() == before  # the control: nobody said that this is read
    (root / "results/quick/lag/claims.json").write_text('[{"claim": "lag-c1"}]')
    after = fingerprints()
    assert [n for n in after if after[n] != before[n]] == ["2_second/s0"]


@pytest.mark.parametrize("other", ["1_frist", "3_third", "2_second"])
def test_a_need_that_no_earlier_notebook_fills_is_refused(checkout, other):
    _, write = checkout
    write("3_third")
    write("2_second", needs=[other])
    with pytest.raises(UserError, match="no notebook before it"):
        plan()


@pytest.mark.parametrize("changed", [True, False])
def test_a_refresh_runs_a_report_again_over_what_it_replaced(checkout, monkeypatch, changed):
    root, _ = checkout
    ran: list[list[str]] = []

    def run(made, request, workers):
        ran.append([job.name for job in made.pending()])
        for job in made.pending():
            job.folder.mkdir(parents=True, exist_ok=True)
            made.record(job).write_text("{}")

    def compare(request, *, refresh, skip):
        assert refresh
        assert not skip
        (root / "results/quick/lag/claims.json").write_text('["new"]' if changed else "[]")
        return 0

    monkeypatch.setattr(reproduce.local, "run", run)
    monkeypatch.setattr(reproduce, "compare", compare)
    monkeypatch.setattr(reproduce, "refresh_words", list)
    asked = Request(papers=(GROUP,))
    assert reproduce.reproduce(asked, snakemake=False, refresh=True) == 0
    assert ran == [["1_first/s0", "2_second/s0"], *[["2_second/s0"]] * changed]


def test_the_committed_report_counts_the_current_verdicts():
    page = json.loads((paths.root() / "notebooks/across/4_matrix_and_claims.ipynb").read_text())
    outputs = [o for c in page["cells"] for o in c.get("outputs", [])]
    text = "".join(line for o in outputs for line in o.get("data", {}).get("text/markdown", []))
    for paper in sources.papers():
        kinds = Counter(judged.kind for judged in sources.judged(paper))
        counts = [kinds[kind] or "–" for kind in summary._KINDS]
        line = " | ".join(map(str, [paper, *counts, sum(kinds.values())]))
        assert f"| {line} |" in text, f"{paper}: `make refresh PAPER=across`"


def test_the_committed_notebooks_declare_what_exists():
    for name in notebooks(GROUP):
        for pattern in declared(GROUP, name, "reads"):
            assert list(paths.root().glob(pattern)), (name, pattern)
    whole = Plan(jobs(Request(papers=(GROUP,))))
    assert {job.notebook for job in whole.jobs} == set(notebooks(GROUP))
    matrix = next(j for j in whole.jobs if j.notebook == "4_matrix_and_claims")
    assert {j.notebook for j in whole.needed(matrix)} == {"2_borrowed_walks", "3_borrowed_losses"}
