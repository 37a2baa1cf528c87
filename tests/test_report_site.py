"""Gallery, README parts and stamps, on a checkout of their own with made-up results."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from latentpapers import ledger, paths, storage
from latentpapers.errors import UserError
from latentpapers.ledger import verdicts
from latentpapers.report import figures, gallery, mathml, sources, stamp, summary, tables

SCALE = {
    "preset": "gpu", "images": 512000, "budget": 0.03, "data": "digits 32 px",
    "device": "H200", "seeds": [0], "standin": ["digitsnet"],
}  # fmt: skip


def row(id, name, column, value, **more):
    base = {
        "paper": "avae", "id": id, "row": name, "column": column, "metric": "is_digitsnet_n5000",
        "value": value, "lo": value - 0.06, "hi": value + 0.06, "n": 5000, "unit": "", "seed": 0,
        "interval": "bootstrap over images, 95 %", "direction": "higher", "scale": SCALE,
    }  # fmt: skip
    return base | more


def notebook():
    def cell(kind, source, **more):
        return {
            "cell_type": kind,
            "metadata": {},
            "source": source,
            "id": kind,
            **more,
        }

    output = {"name": "stdout", "output_type": "stream", "text": "closed form  pass\n"}
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "W"}
    display = {"output_type": "display_data", "metadata": {}, "data": widget}
    tex = (
        "# A derivation\n\n![](../../results/gpu/avae/figures/fig_1.png) [l](ledger/errata.yaml)\n"
        "\nEnergy $\\mathcal{L}$:\n\n$$L_d = \\lVert x - x' \\rVert_1 \\tag{7}$$\n"
    )
    code = {"execution_count": 1, "outputs": [output, display]}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [cell("markdown", tex), cell("code", "print('closed form  pass')", **code)]
    meta = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": meta, "nbformat": 4, "nbformat_minor": 5}


def made_up_results(folder: Path, book) -> None:
    """What `collect` would write for avae, small."""
    cell = book.table("table_1").cells[0]
    rows = [
        row("table_1", cell.row, "IS digits", 7.912),
        row("table_1", "our ablation", "IS digits", 5.2),
        row("training", "ours", "M_global", 0.1, metric="is_digitsnet_n5000"),
    ]
    storage.write_jsonl(folder / "metrics.jsonl", rows)
    for suffix, content in tables.build(book, "table_1", rows).items():
        storage.write_bytes(folder / "tables" / f"table_1{suffix}", content)
    noise = np.random.default_rng(0).integers(0, 256, (8, 3, 16, 16), dtype=np.uint8)
    target = folder / "figures" / f"{book.figures.figures[0].id}.png"
    figures.save(figures.grid(noise), target, footer="gpu · made up", data={"images": noise})
    facts = {"caption": "Eight pictures of noise.", "scale": SCALE, "label": "gpu · made up"}
    storage.write_json(target.with_suffix(".json"), facts)
    found = [v.as_dict() for v in verdicts.decide_all(rows, "gpu", book)]
    storage.write_json(folder / "claims.json", found)
    write_manifest(folder)


def write_manifest(folder: Path) -> None:
    listed = [p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"]
    files = {p.relative_to(folder).as_posix(): storage.sha256_file(p) for p in listed}
    library = {"seeds.py": storage.sha256_file(Path(storage.__file__).with_name("seeds.py"))}
    job = {
        "fingerprint": "0123456789ab", "code": "c" * 64, "library": library, "config": "d" * 64,
        "data": {"digits": "e" * 64}, "versions": {"torch": "2.15.0"}, "device": "H200", "seed": 0,
    }  # fmt: skip
    manifest = {"paper": folder.name, "preset": "gpu", "files": files, "commit": "1a2b3c4"}
    storage.write_json(folder / "manifest.json", manifest | {"jobs": {"3_tables/s0": job}})


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout with the real ledgers, one notebook and made-up gpu results of avae."""
    root = tmp_path_factory.mktemp("checkout")
    real = paths.root()
    shutil.copy(real / "pyproject.toml", root)
    shutil.copytree(real / "docs" / "gallery", root / "docs" / "gallery")
    for paper in ledger.papers():
        shutil.copytree(
            real / "notebooks" / paper / "ledger", root / "notebooks" / paper / "ledger"
        )
    for name in ("avae/1_derivation", "across/one_task", "start_here"):
        storage.write_json(root / "notebooks" / f"{name}.ipynb", notebook())
    across = root / "results" / "gpu" / "across"
    storage.write_jsonl(across / "metrics.jsonl", [row("one_task", "ours", "score", 1.0)])
    write_manifest(across)
    made_up_results(root / "results" / "gpu" / "avae", ledger.load("avae"))
    return root


@pytest.fixture(autouse=True)
def _inside(checkout, monkeypatch):
    monkeypatch.setenv("LATENTPAPERS_ROOT", str(checkout))
    monkeypatch.delenv("LATENTPAPERS_OUT", raising=False)


@pytest.fixture(scope="module")
def site(checkout, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATENTPAPERS_ROOT", str(checkout))
        patch.delenv("LATENTPAPERS_OUT", raising=False)
        return gallery.build(tmp_path_factory.mktemp("site") / "gallery").parent


@pytest.fixture
def results(checkout, tmp_path):
    """A copy of the results that a test may damage."""
    shutil.copytree(checkout / "results", tmp_path / "results")
    return tmp_path / "results"


# --- gallery ---------------------------------------------------------------------------------


def test_gallery_shows_front_page_and_every_paper(site):
    front = (site / "index.html").read_text()
    for paper in ledger.papers():
        assert (site / paper / "index.html").is_file()
        assert f"{paper}/index.html" in front
    assert "chip-untestable" in front
    assert "chip-todo" in front
    assert "start_here.html" in front
    assert "1.000 [0.940, 1.060]" in (site / "across" / "results_gpu.html").read_text()
    assert (site / "across" / "one_task.html").is_file()


def test_results_page_carries_numbers_scale_caption_and_provenance(site):
    page = (site / "avae" / "results_gpu.html").read_text()
    for text in ("7.912 [7.852, 7.972]", "512,000 images seen", "0123456789ab", "1a2b3c4"):
        assert text in page
    assert "Eight pictures of noise." in page
    assert "not comparable with any printed number" in page
    assert "no imported file changed since" in page


def test_notebooks_render_with_output_and_equation_number(site):
    page = (site / "avae" / "1_derivation.html").read_text()
    assert "closed form  pass" in page
    assert re.search(r'<span class="eqno">\(7\)</span>', page)
    assert "<math" in page
    assert "widget-view" not in page
    (picture,) = re.findall(r'<img[^>]*src="([^"]+fig_1[^"]*)"', page)
    assert (site / "avae" / picture).is_file()
    assert 'href="errata.html"' in page.split("<article")[1]


def test_equation_links_to_the_line_of_its_function(site):
    done = [e for e in ledger.load("avae").equations.equations if e.implements]
    line = gallery.source_line(done[0].implements)
    module = done[0].implements.partition(":")[0]
    assert f"source/{module}.html#L-{line}" in (site / "avae" / "equations.html").read_text()
    assert f'id="L-{line}"' in (site / "source" / f"{module}.html").read_text()


def test_claims_page_has_a_row_a_claim_and_filters_of_its_own(site):
    page = (site / "claims.html").read_text()
    for paper in ledger.papers():
        for claim in ledger.load(paper).claims.claims:
            assert page.count(f'<tr id="{claim.id}" data-paper="{paper}"') == 1
    for name in ("paper", "kind", "preset", "about", "text"):
        assert f'id="filter-{name}"' in page
    assert 'src="http' not in page


def test_measured_errata_stand_together_and_first(site):
    page = (site / "errata_measured.html").read_text()
    for paper in ledger.papers():
        for entry in ledger.load(paper).errata.errata:
            assert (f">{entry.id}<" in page) == (entry.effect is not None), entry.id
    own = (site / "avae" / "errata.html").read_text()
    assert r"Printed: e_t = \eta L_d" not in own  # a formula, not its source
    assert own.count("<math") >= 4  # as printed and as corrected, of two errata
    measured = [e.effect is not None for e in ledger.load("avae").errata.errata]
    seen = re.findall(r'<section id="(avae-e\d+)', own)
    assert len(seen) == len(measured)
    assert own.count("measured effect</span>") == sum(measured)


def test_tables_and_figures_carry_verdicts_and_the_way_to_their_provenance(site):
    page = (site / "avae" / "results_gpu.html").read_text()
    book = ledger.load("avae")
    found = {r["claim"]: r for r in (v.as_dict() for v in verdicts.decide_all([], "gpu", book))}
    about = [
        c for c in book.claims.claims if c.rules.get("gpu") and "table_1" in str(c.rules["gpu"])
    ]
    assert about
    assert found.keys() >= {c.id for c in about}
    table = page.split('<section id="table-1"')[1].split("</section>")[0]
    assert all(c.id in table for c in about)
    assert 'href="#provenance"' in table
    assert '<section id="provenance"' in page


def test_links_of_a_notebook_lead_to_pages_or_become_words(checkout):
    from latentpapers.report import myst

    folder = checkout / "notebooks" / "avae"

    def moved(text):
        return myst.relinked(text, folder, "avae", lambda module, name: 7)

    place = 'source/latentpapers.losses.energy.html#L-7" title="L1">`losses.energy.energy`</a>'
    (checkout / "lib" / "latentpapers" / "losses").mkdir(parents=True, exist_ok=True)
    (checkout / "lib" / "latentpapers" / "losses" / "energy.py").write_text("")
    link = '[`losses.energy.energy`](../../lib/latentpapers/losses/energy.py "L1")'
    assert moved(link) == f'<a href="../{place}'
    assert moved("[d](1_derivation.ipynb#eq-5)") == '<a href="1_derivation.html#eq-5">d</a>'
    assert moved("[c](ledger/claims.yaml)") == '<a href="index.html">c</a>'
    assert moved("[p](../../pyproject.toml)") == "p"  # no page of its own
    for kept in (
        "![x](1_derivation.ipynb)",
        "[x](https://example.org)",
        "[x](#eq-1)",
        "[x](no.md)",
    ):
        assert moved(kept) == kept


def test_source_line_agrees_with_inspect():
    import inspect

    wanted = inspect.getsourcelines(storage.replacing.__wrapped__)[1]
    # The decorator's line comes first for inspect, the def's for a reader.
    assert gallery.source_line("latentpapers.storage:replacing") == wanted + 1
    assert gallery.source_line("latentpapers.storage:absent") is None


FOREIGN = re.compile(
    r"""<(?:script|img|iframe|source)[^>]*\ssrc=["'](?:https?:)?//|"""
    r"""<link[^>]*\shref=["'](?:https?:)?//|"""
    r"""url\(\s*["']?(?:https?:)?//|@import\s+["'](?:https?:)?//"""
)


def test_nothing_is_loaded_from_another_host(site):
    files = [p for p in site.rglob("*") if p.suffix in (".html", ".css", ".js")]
    assert len(files) > 20
    assert [p.name for p in files if FOREIGN.search(p.read_text())] == []


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/x.js">',
        '<link rel="stylesheet" href="//fonts.example/a.css">',
        "@font-face { src: url(https://fonts.example/a.woff2) }",
    ],
)
def test_the_search_for_foreign_hosts_finds_them(text):
    assert FOREIGN.search(text)


def test_no_path_of_the_machine_is_in_the_site(site, checkout):
    for path in site.rglob("*"):
        if path.suffix in (".html", ".js"):
            assert str(checkout.parent) not in path.read_text(), path.name


def test_gallery_is_deterministic_and_replaces_an_old_one(site, tmp_path):
    shutil.copytree(site, tmp_path / "g")
    (tmp_path / "g" / "stale.html").write_text("old page")
    again = gallery.build(tmp_path / "g").parent
    assert contents(again) == contents(site)
    assert [p.name for p in tmp_path.iterdir()] == ["g"]


def contents(folder):
    return {
        p.relative_to(folder).as_posix(): storage.sha256_file(p)
        for p in folder.rglob("*")
        if p.is_file()
    }


@pytest.mark.parametrize("below", ["", "gallery", "deep/gallery"])
def test_gallery_names_a_file_in_its_way(tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file is a file; name an empty or new folder"):
        gallery.build(tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "mine"


def test_gallery_refuses_a_folder_that_is_none(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="no gallery"):
        gallery.build(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_escaping_keeps_formulas_and_code_only():
    assert gallery.esc("BEGAN* $x_1$ `a_b` <i>") == r"BEGAN\* $x_1$ `a_b` \<i\>"


# --- formulas --------------------------------------------------------------------------------


def test_every_equation_of_every_ledger_converts():
    for paper in ledger.papers():
        for equation in ledger.load(paper).equations.equations:
            assert mathml.to_mathml(equation.latex, display=True).startswith("<math")


def test_unknown_commands_are_refused_and_shown_as_source():
    with pytest.raises(mathml.Unconvertible):
        mathml.to_mathml(r"\notacommand{x}")
    assert r"\notacommand" in mathml.block(r"\notacommand{x}")


def test_tags_become_numbers():
    assert mathml.split_tags(r"a \tag{3} b \tag{4'}") == ("a  b ", ["3", "4'"])
    assert "(3)" in mathml.block(r"a \tag{3}")
    assert "eqno" not in mathml.block("a")


def test_environments_and_limits():
    assert "<mtable" in mathml.to_mathml(r"\begin{align*}a&=b\\c&=d\end{align*}", display=True)
    assert "munder" in mathml.to_mathml(r"\max_x f", display=True)


# --- stamps ----------------------------------------------------------------------------------


def test_untouched_results_are_consistent(results):
    assert stamp.inconsistent(results) == []
    assert stamp.inconsistent(results / "gpu" / "avae") == []


def test_changed_missing_and_unlisted_files_are_found(results):
    folder = results / "gpu" / "avae"
    figure = next(folder.glob("figures/*.npz"))
    figure.write_bytes(figure.read_bytes() + b"x")
    (folder / "claims.json").unlink()
    (folder / "extra.txt").write_text("x")
    (folder / "runs").mkdir()
    (folder / "runs" / "rows.jsonl").write_text("ignored")
    problems = "\n".join(stamp.inconsistent(results))
    assert f"figures/{figure.name} differs from its hash" in problems
    assert "claims.json is in the manifest but not on disk" in problems
    assert "extra.txt is not in the manifest" in problems
    assert len(problems.splitlines()) == 3


def test_a_table_that_differs_from_its_rows_is_found_although_the_hashes_agree(results):
    folder = results / "gpu" / "avae"
    table = folder / "tables" / "table_1.md"
    table.write_text(table.read_text().replace("7.912", "9.912"))
    write_manifest(folder)
    assert stamp.inconsistent(results) == [
        "gpu/avae/tables/table_1.md differs from a rebuild from metrics.jsonl."
    ]


def test_a_verdict_that_differs_from_its_rows_is_found(results):
    folder = results / "gpu" / "avae"
    entries = json.loads((folder / "claims.json").read_text())
    entries[0]["verdict"] = "reproduced (by hand)"
    storage.write_json(folder / "claims.json", entries)
    write_manifest(folder)
    (problem,) = stamp.inconsistent(results)
    assert f"{entries[0]['claim']} differs from a rebuild" in problem


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_text("{")])
def test_a_missing_or_broken_manifest_is_a_problem_not_a_crash(results, damage):
    damage(results / "gpu" / "avae" / "manifest.json")
    assert len(stamp.inconsistent(results)) == 1


def test_age_counts_changed_files():
    now = storage.sha256_file(Path(storage.__file__))
    job = {"library": {"storage.py": now, "seeds.py": "0" * 64, "gone.py": "1" * 64}}
    text = stamp.age({"commit": "abc1234", "jobs": {"a": job, "b": {"library": {}}}})
    assert text == "made at commit abc1234; 2 imported files changed since (gone.py, seeds.py)"
    assert "no imported file changed" in stamp.age({"commit": None, "jobs": {}})


# --- README ----------------------------------------------------------------------------------

COSTS = {"quick": {"where": "2 CPU cores", "cost": "118 s"}, "gpu": {"cost": "600 s"}}


def test_readme_is_rewritten_between_its_markers(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Head\n\n{summary.BEGIN}\nstale words\n{summary.END}\ntail\n")
    assert not summary.readme_is_current(readme, COSTS)
    assert summary.update_readme(readme, COSTS)
    text = readme.read_text()
    assert text.startswith("# Head\n")
    assert text.endswith(f"{summary.END}\ntail\n")
    assert "| `quick` | 2 CPU cores | 118 s |" in text
    assert "stale words" not in text
    assert summary.readme_is_current(readme, COSTS)
    assert not summary.update_readme(readme, COSTS)
    readme.write_text(text.replace("118 s", "90 s"))
    assert not summary.readme_is_current(readme, COSTS)


def test_readme_without_markers_is_refused_and_untouched(tmp_path):
    readme = tmp_path / "README.md"
    for text in ("none", f"{summary.END} {summary.BEGIN}", summary.BEGIN * 2 + summary.END):
        readme.write_text(text)
        with pytest.raises(UserError, match="needs the lines"):
            summary.update_readme(readme)
        assert readme.read_text() == text


def test_counts_add_up_to_the_ledger():
    lines = summary.counts_table().splitlines()[2:]
    for line, paper in zip(lines, ledger.papers(), strict=True):
        counts = [int(n) for n in re.findall(r"\b\d+\b", line.split("|", 4)[4])]
        assert sum(counts) == len(ledger.load(paper).claims.claims)


def test_claims_table_lists_every_claim():
    text = summary.claims_table()
    for paper in ledger.papers():
        assert all(f"`{c.id}`" in text for c in ledger.load(paper).claims.claims)


def test_the_preset_nearest_to_the_paper_that_decides_wins(results):
    claim = ledger.load("avae").claims.claims[0].id

    def judge(preset, verdict):
        folder = results / preset / "avae"
        storage.write_jsonl(folder / "metrics.jsonl", [])
        entry = {"claim": claim, "verdict": verdict, "suffixes": ["single run"], "sentence": "s"}
        storage.write_json(folder / "claims.json", [entry])
        return next(j for j in sources.judged("avae", results) if j.claim.id == claim)

    assert judge("gpu", "undecided").preset == "gpu"
    assert judge("quick", "not reproduced").preset == "quick"
    found = judge("paper", "reproduced")
    assert (found.preset, found.kind, found.text) == ("paper", "held", "reproduced (single run)")


def test_more_images_of_the_same_networks_replace_the_small_sample(results):
    """An undecided large sample must not hide behind a lucky small one; one without evidence
    (a claim about a derivation, which cpu does not run) leaves the small one as it is."""
    claim = ledger.load("avae").claims.claims[0].id

    def judge(preset, verdict, evidence):
        folder = results / preset / "avae"
        storage.write_jsonl(folder / "metrics.jsonl", [])
        entry = {"claim": claim, "verdict": verdict, "sentence": "s", "evidence": evidence}
        storage.write_json(folder / "claims.json", [entry])
        return next(j for j in sources.judged("avae", results) if j.claim.id == claim)

    shutil.rmtree(results / "gpu" / "avae", ignore_errors=True)
    assert judge("quick", "reproduced at reduced scale", [{}]).preset == "quick"
    assert judge("cpu", "undecided", []).preset == "quick"
    found = judge("cpu", "undecided", [{}])
    assert (found.preset, found.verdict) == ("cpu", "undecided")


def test_natural_order_of_ids():
    ids = ["fig_10", "fig_A1", "fig_2"]
    assert sorted(ids, key=sources.natural) == ["fig_2", "fig_10", "fig_A1"]
