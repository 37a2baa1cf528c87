"""The plan, fingerprints, parameters, pooling, comparing, scrubbing: all without a kernel."""

import base64
import copy
import io
import json
import math
import sys

import numpy as np
import pytest
from runner_bed import PARAMETERS, Bed, cell, notebook

from latentpapers import config, papers
from latentpapers.errors import UnknownName, UserError
from latentpapers.runner import collect, plan, reproduce, scrub
from latentpapers.runner.closure import closure
from latentpapers.runner.parameters import injected, parameters
from latentpapers.runner.plan import Plan, Request, jobs, predicted
from latentpapers.runner.pool import order, pooled


@pytest.fixture
def bed(tmp_path, monkeypatch):
    made = Bed(tmp_path / "checkout")
    monkeypatch.setenv("LATENTPAPERS_ROOT", str(made.root))
    monkeypatch.delenv("LATENTPAPERS_OUT", raising=False)
    monkeypatch.setattr(plan, "LIBRARY", made.root / "lib" / "latentpapers")
    monkeypatch.setitem(sys.modules, "latentpapers.papers.avae", made.room())
    return made


# --- closure --------------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path):
    root = tmp_path / "latentpapers"
    files = {
        "__init__.py": "_FUNCTIONS = {'begin': 'notebook'}\ndef __getattr__(n): ...",
        "notebook.py": "def begin():\n    from latentpapers import lazy\n",
        "lazy.py": "from .losses.energy import e",
        "alone.py": "",
        "losses/__init__.py": "",
        "losses/energy.py": "from . import helper\n",
        "losses/helper.py": "",
        "losses/other.py": "import latentpapers.alone",
        "pkg/__init__.py": "def __getattr__(name): ...",
        "pkg/hidden.py": "",
        "pkg/room/__init__.py": "from latentpapers.pkg.room.step import Step",
        "pkg/room/step.py": "",
        "pkg/table.yaml": "a: 1",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import latentpapers as lp\nlp.alone.f()", {"alone.py"}),
        ("import latentpapers\nlatentpapers.losses.other.g", {"losses/__init__.py",
         "losses/other.py", "alone.py"}),
        ("from latentpapers import losses as L\nL.energy.e(1)", {"losses/__init__.py",
         "losses/energy.py", "losses/helper.py"}),
        ("import latentpapers as lp\nlp.begin()", {"notebook.py", "lazy.py", "losses/__init__.py",
         "losses/energy.py", "losses/helper.py"}),
        ("from latentpapers import pkg\npkg.anything", {"pkg/__init__.py", "pkg/hidden.py",
         "pkg/room/__init__.py", "pkg/room/step.py", "pkg/table.yaml"}),
        ("def f():\n    from latentpapers.losses import helper", {"losses/__init__.py",
         "losses/helper.py"}),
        ("import importlib\nimportlib.import_module('latentpapers.alone')", {"alone.py"}),
        ("import latentpapers as lp\nL, x = lp.losses, 1\nL.other.g()", {"losses/__init__.py",
         "losses/other.py", "alone.py"}),
        ("import numpy as lp\nlp.alone", set()),
    ],
)  # fmt: skip
def test_closure_follows_every_way_to_import(library, source, expected):
    found = closure([source], library=library)
    assert found - {"__init__.py"} == expected


def test_closure_names_a_cell_that_does_not_parse(library):
    with pytest.raises(UserError, match="line 1"):
        closure(["def ("], library=library)


# --- layout ---------------------------------------------------------------------------------


def test_quick_runs_every_notebook_once(bed):
    for name in ("1_derivation", "4_figures", "5_explore"):
        bed.write(name)
    found = [(j.notebook, j.seed, j.needs) for j in jobs(Request(papers=("avae",), seeds=(3,)))]
    names = ["1_derivation", "2_training", "3_tables", "4_figures", "5_explore"]
    assert found == [(name, 3, ()) for name in names]


def test_beyond_quick_seeds_multiply_training_and_readers_wait_for_it(bed):
    for name in ("1_derivation", "4_figures", "5_explore"):
        bed.write(name)
    found = {j.name: j.needs for j in jobs(Request("gpu", ("avae",), (0, 1)))}
    assert found == {
        "2_training/s0": (),
        "2_training/s1": (),
        "3_tables/s0": ("2_training/s0", "2_training/s1"),
        "4_figures/s0": ("2_training/s0",),
    }


def test_cpu_measures_shipped_networks_and_trains_nothing(bed):
    for name in ("1_derivation", "4_figures", "5_explore"):
        bed.write(name)
    found = {j.name: (j.needs, j.preset) for j in jobs(Request("cpu", ("avae",), (0, 1)))}
    assert found == {"3_tables/s0": ((), "cpu"), "4_figures/s0": ((), "cpu")}


def test_groups_without_a_ledger_run_in_quick_alone_unless_they_say_so(bed):
    across = bed.root / "notebooks" / "across"
    across.mkdir()
    page = notebook("claims")
    (across / "claims.ipynb").write_text(json.dumps(page))
    assert [j.id for j in jobs(Request(papers=("across",)))] == ["quick/across/claims/s0"]
    assert jobs(Request("gpu", ("across",))) == []
    page["metadata"]["latentpapers"] = {"presets": ["quick", "gpu"]}
    (across / "claims.ipynb").write_text(json.dumps(page))
    assert [j.id for j in jobs(Request("gpu", ("across",)))] == ["gpu/across/claims/s0"]


@pytest.mark.parametrize(
    ("request_", "kind", "words"),
    [
        (Request("fast"), UnknownName, "cpu, gpu, paper, quick"),
        (Request(papers=("vae",)), UnknownName, "unknown paper 'vae'; known: avae"),
        (Request(seeds=()), UserError, "SEEDS=0"),
        (Request(papers=("../avae",)), UnknownName, "unknown paper"),
        (Request(seeds=(0, -1)), UserError, "whole number from 0 on, not -1"),
        (Request(device="mps"), UnknownName, "unknown device 'mps'"),
        (Request(device="cuda:"), UnknownName, "unknown device 'cuda:'"),
        (Request(budget=float("nan")), UserError, "positive number, not nan"),
        (Request(budget=float("inf")), UserError, "positive number, not inf"),
        (Request(run_id="../../x"), UserError, "run id '../../x' cannot name a folder"),
        (Request(run_id="a b"), UserError, "letters, digits, - and _"),
        (Request(run_id="3_tables"), UserError, "no notebook's name"),
        (Request(run_id="collected"), UserError, "cannot name a folder of its own"),
    ],
)
def test_a_bad_request_is_one_sentence(bed, request_, kind, words):
    with pytest.raises(kind, match=words) as error:
        jobs(request_)
    assert "\n" not in str(error.value)


def test_a_broken_notebook_is_named(bed):
    bed.write("2_training").write_text("{")
    with pytest.raises(UserError, match=r"notebooks/avae/2_training\.ipynb is no notebook"):
        Plan(jobs(Request(papers=("avae",)))).pending()


def test_predictions_come_from_the_last_run_then_the_room_then_a_guess(bed):
    training, tables = jobs(Request("gpu", ("avae",)))
    assert predicted(training) == (7.0, 111)
    assert predicted(tables)[0] == 33
    assert predicted(jobs(Request("paper", ("avae",)))[1])[0] > 100
    training.folder.mkdir(parents=True)
    (training.folder / "runtime.json").write_text('{"seconds": 1.5, "memory_mb": 9}')
    assert predicted(training) == (1.5, 9)


# --- fingerprints ---------------------------------------------------------------------------


def prints(request_=Request(papers=("avae",))):  # noqa: B008  (frozen)
    whole = Plan(jobs(request_))
    return {job.name: whole.fingerprint(job) for job in whole.jobs}


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "moved"),
    [
        ("notebooks/avae/2_training.ipynb", "# 2_training", "# Training, in words", set()),
        ("notebooks/avae/2_training.ipynb", '"outputs": []',
         '"outputs": [{"output_type": "stream", "name": "stdout", "text": "x"}]', set()),
        ("notebooks/avae/2_training.ipynb", "run.config.loop.rate", "2 * run.config.loop.rate",
         {"2_training/s0"}),
        ("lib/latentpapers/papers/avae/presets.py", "steps: int = 3", "steps: int = 4",
         {"2_training/s0", "3_tables/s0"}),
        ("lib/latentpapers/check.py", "def close", "def  close", set()),
        ("lib/latentpapers/cli.py", "def main", "def  main", set()),
        ("lib/latentpapers/runner/execute.py", "def run", "def  run", set()),
        ("notebooks/avae/ledger/values.yaml", '"printed": "1.5"', '"printed": "1.50"',
         {"2_training/s0", "3_tables/s0"}),
        ("requirements.lock", "2", "3", {"2_training/s0", "3_tables/s0"}),
    ],
)  # fmt: skip
def test_the_fingerprint_moves_with_what_decides_the_result_and_nothing_else(
    bed, file, old, new, moved
):
    before = prints()
    edit(bed.root / file, old, new)
    after = prints()
    assert {name for name in before if before[name] != after[name]} == moved


def test_a_library_file_counts_once_a_cell_names_it(bed):
    bed.write("2_training", "lp.check.table(a='b')")
    before = prints()
    edit(bed.root / "lib/latentpapers/check.py", "def close", "def  close")
    assert prints()["2_training/s0"] != before["2_training/s0"]


def test_a_changed_training_changes_those_who_read_it(bed):
    request_ = Request("gpu", ("avae",), (0, 1))
    before = prints(request_)
    edit(bed.root / "notebooks/avae/2_training.ipynb", "rate *", "rate * 2 *")
    assert all(before[name] != new for name, new in prints(request_).items())


def test_seeds_and_overrides_are_part_of_the_fingerprint(bed):
    standard = prints()["2_training/s0"]
    assert prints(Request(papers=("avae",), seeds=(1,)))["2_training/s1"] != standard
    changed = Request(papers=("avae",), overrides={"loop.steps": 5})
    assert prints(changed)["2_training/s0"] != standard


def test_a_claim_does_not_train_anew_but_a_printed_value_does(bed):
    request_ = Request("gpu", ("avae",))
    before = prints(request_)
    edit(bed.root / "notebooks/avae/ledger/claims.yaml", "above one", "above 1")
    assert prints(request_)["2_training/s0"] == before["2_training/s0"]
    assert prints(request_)["3_tables/s0"] != before["3_tables/s0"]


def test_a_checkpoint_outlives_a_new_figure_but_not_new_training_code(bed):
    def key():
        whole = Plan(jobs(Request("gpu", ("avae",))))
        return whole.training_key(whole.jobs[0])

    before = key()
    edit(bed.root / "notebooks/avae/2_training.ipynb", "run.finish()", "run.finish()  # end")
    edit(bed.root / "lib/latentpapers/report/tables.py", "def compare", "def  compare")
    assert key() == before
    room = bed.root / "lib/latentpapers/papers/avae"
    edit(room / "scores.py", "sum(values)", "sum(values, 0)")
    edit(room / "__init__.py", "(7, 111)", "(8, 111)")
    assert key() == before
    edit(room / "presets.py", "rate: float = 0.5", "rate: float = 0.25")
    changed = key()
    assert changed != before
    # control: once a training cell uses it, it counts
    edit(bed.root / "notebooks/avae/2_training.ipynb", "+ seed / 4", "+ avae.mean([seed / 4])")
    changed = key()
    edit(room / "scores.py", "sum(values, 0)", "sum(values)")
    assert key() != changed


def test_a_shipped_checkpoint_counts_in_quick_alone(bed):
    before, gpu = prints(), prints(Request("gpu", ("avae",)))
    shipped = bed.root / "results/checkpoints/avae/ours.safetensors"
    shipped.parent.mkdir(parents=True)
    shipped.write_bytes(b"x")
    assert prints()["3_tables/s0"] != before["3_tables/s0"]
    assert prints(Request("gpu", ("avae",))) == gpu


def test_the_plan_says_why_a_job_runs_again(bed):
    whole = Plan(jobs(Request(papers=("avae",))))
    job = whole.jobs[0]
    assert whole.reason(job) == "never finished"
    job.folder.mkdir(parents=True)
    whole.record(job).write_text(json.dumps({"inputs": whole.inputs(job)}))
    assert whole.reason(job) == ""
    edit(bed.root / "requirements.lock", "2", "3")
    assert Plan(whole.jobs).reason(job) == "changed: requirements.lock"


# --- parameters -----------------------------------------------------------------------------


def test_parameters_reads_literals():
    found = parameters(notebook("2_training"))
    assert found == {
        "preset": "quick", "seed": 0, "device": "cpu", "data": "", "run_id": "", "overrides": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("a = 1 + 1", "name = literal"),
        ("import os", "name = literal"),
        ("a, b = 1, 2", "name = literal"),
        ("unused = 1", "no later cell reads parameter 'unused'"),
        ("\n".join(f"p{i} = {i}" for i in range(9)), "9 parameters; 8 are the limit"),
    ],
)
def test_a_bad_parameters_cell_is_refused(source, words):
    with pytest.raises(UserError, match=words):
        parameters(notebook("2_training", parameters=source))


@pytest.mark.parametrize("count", [0, 2])
def test_there_is_exactly_one_parameters_cell(count):
    page = {"cells": [cell("a = 1", "parameters")] * count + [cell("print(a)")]}
    with pytest.raises(UserError, match=f"has {count} cells"):
        parameters(page)


def test_only_what_differs_from_the_defaults_is_injected():
    page = notebook("2_training", "print(n)", parameters=PARAMETERS + "\nn = 4")
    asked = {"preset": "quick", "seed": 0, "device": "cpu"}
    assert injected(asked, {}, page) == {}
    assert injected(asked | {"seed": 2}, {}, page) == {"seed": 2}
    wanted = {"n": 5, "loop.steps": 9}
    assert injected(asked, wanted, page) == {"n": 5, "overrides": {"loop.steps": 9}}


@pytest.mark.parametrize(
    ("asked", "overrides", "kind", "words"),
    [
        ({"seed": "0"}, {}, UserError, "'seed' must be int, not str"),
        ({"seed": True}, {}, UserError, "'seed' must be int, not bool"),
        ({"sede": 1}, {}, UnknownName, "unknown parameter of nb: 'sede'"),
        ({}, {"data": 3}, UserError, "'data' must be str, not int"),
    ],
)
def test_wrong_names_and_types_are_refused(asked, overrides, kind, words):
    with pytest.raises(kind, match=words):
        injected(asked, overrides, notebook("2_training"), "nb")


@pytest.mark.parametrize(
    ("overrides", "kind", "words"),
    [
        (
            {"loop.step": 1},
            UnknownName,
            r"unknown parameter of avae: 'loop\.step'; known:.*loop\.steps",
        ),
        ({"loop.steps": "many"}, UserError, "must be int, not str"),
        ({"preset": "gpu"}, UnknownName, "unknown parameter of avae: 'preset'"),
    ],
)
def test_overrides_are_checked_before_any_kernel_starts(bed, overrides, kind, words):
    with pytest.raises(kind, match=words):
        jobs(Request(papers=("avae",), overrides=overrides))


@pytest.mark.parametrize("paper", papers.BUILT)
def test_the_gpu_preset_allows_its_notebooks_600_seconds_in_all(paper):
    """Training as its runs say; the plan is told the same. None has been measured yet."""
    room = papers.room(paper)
    training = sum(job.seconds or 0.0 for job in room.PRESETS["gpu"].training.values())
    assert set(room.ALLOWED) == {"gpu/2_training", "gpu/3_tables", "gpu/4_figures"}
    assert training <= room.ALLOWED["gpu/2_training"]
    assert sum(room.ALLOWED.values()) <= 600
    for job in jobs(Request("gpu", (paper,))):
        assert job.folder.exists() or predicted(job)[0] == room.ALLOWED[f"gpu/{job.notebook}"]


def test_a_budget_multiplies_the_time_limits(bed):
    longer = jobs(Request(papers=("avae",), budget=4.0))[0]
    assert json.loads(longer.overrides) == {"loop.seconds": 8.0, "loop.steps": 12}
    assert longer.run_id.startswith("o-")
    with pytest.raises(UserError, match="positive"):
        jobs(Request(papers=("avae",), budget=0.0))


@pytest.mark.parametrize("paper", papers.BUILT)
def test_a_budget_keeps_the_shape_of_every_training(paper):
    """Growth, fading and falling rates end after the same share of a longer run."""
    preset = papers.room(paper).PRESETS["gpu"]
    job = jobs(Request("gpu", (paper,), budget=4.0))[0]
    longer = config.resolve(preset, json.loads(job.overrides))
    for name, before in preset.training.items():
        after = longer.training[name]
        for field in ("seconds", "steps", "phase", "start_images", "hold_images", "fade_images",
                      "diversity_steps", "halve_every"):  # fmt: skip
            assert getattr(after, field, 0) == 4 * getattr(before, field, 0)
        falls = (getattr(job, "halve_at", ()) for job in (before, after))
        assert [4 * step for step in next(falls)] == [*next(falls)]
        same = ("width", "size", "images", "batch", "lr", "log_every")  # control: no other field
        assert all(getattr(after, f, 0) == getattr(before, f, 0) for f in same)
    shorter = jobs(Request("gpu", (paper,), budget=0.001))[0]  # whole numbers stay whole
    config.resolve(preset, json.loads(shorter.overrides))


def test_a_budget_passes_over_groups_that_a_preset_does_not_run(bed):
    across = bed.root / "notebooks" / "across"
    across.mkdir()
    (across / "claims.ipynb").write_text(json.dumps(notebook("claims")))
    longer = jobs(Request("gpu", budget=2.0))
    assert {job.paper for job in longer} == {"avae"}
    with pytest.raises(UserError, match="quick of across has no time limit"):
        jobs(Request("quick", ("across",), budget=2.0))


def test_a_plan_says_what_is_a_guess_and_refuses_to_be_empty(bed, capsys):
    across = bed.root / "notebooks" / "across"
    across.mkdir()
    (across / "claims.ipynb").write_text(json.dumps(notebook("claims")))
    with pytest.raises(UserError, match="preset gpu runs nothing of across"):
        reproduce.show(Request("gpu", ("across",)))
    with pytest.raises(UserError, match="preset gpu runs nothing of across"):
        reproduce.reproduce(Request("gpu", ("across",)))
    reproduce.show(Request(papers=("across",)))
    said = capsys.readouterr().out
    assert "~40 s" in said
    assert "1 of these have not run" in said
    job = jobs(Request(papers=("across",)))[0]
    job.folder.mkdir(parents=True)
    (job.folder / "runtime.json").write_text(json.dumps({"seconds": 7, "memory_mb": 90}))
    reproduce.show(Request(papers=("across",)))
    said = capsys.readouterr().out
    assert "~" not in said
    assert "7 s" in said


def test_a_notebook_without_overrides_runs_as_it_is(bed):
    bed.write("5_explore", parameters='preset = "quick"\nseed = 0\ndevice = "auto"\nn = 4')
    page = bed.root / "notebooks/avae/5_explore.ipynb"
    setup = "data=data,\\n               run_id=run_id, overrides=overrides"
    assert setup in page.read_text()
    page.write_text(page.read_text().replace(setup, "run_id=str(n)[:0]"))
    changed = {"loop.steps": 5, "n": 6}
    found = {j.notebook: json.loads(j.overrides)
             for j in jobs(Request(papers=("avae",), overrides=changed))}  # fmt: skip
    assert found == {"2_training": {"loop.steps": 5}, "3_tables": {"loop.steps": 5},
                     "5_explore": {"n": 6}}  # fmt: skip


def test_an_override_makes_a_variant_with_folders_of_its_own(bed):
    changed = Request(papers=("avae",), overrides={"loop.steps": 5})
    standard = {job.folder for job in jobs(Request(papers=("avae",)))}
    assert not standard & {job.folder for job in jobs(changed)}
    named = {j.folder.parent.parent.name for j in jobs(Request(papers=("avae",), run_id="wide"))}
    assert named == {"wide"}


# --- pooling and comparing ------------------------------------------------------------------


def row(value=1.0, seed=0, **more):
    base = {"paper": "avae", "id": "table_1", "row": "ours", "column": "value", "metric": "m",
            "value": value, "lo": None, "hi": None, "interval": "none: exact", "n": 1, "unit": "",
            "seed": seed, "scale": {"images": 100, "seeds": [seed]}}  # fmt: skip
    return base | more


def test_pooling_is_a_t_interval_over_seeds():
    *single, all_ = pooled([row(1.0, 0), row(2.0, 1), row(6.0, 2)])
    assert [r["seed"] for r in single] == [0, 1, 2]
    assert (all_["seed"], all_["n"], all_["value"]) == (None, 3, 3.0)
    assert all_["scale"]["seeds"] == [0, 1, 2]
    # Two degrees of freedom have a closed quantile, a sqrt(2 / (1 - a²)), a = 0.95; s = sqrt(7).
    half = 0.95 * math.sqrt(2 / (1 - 0.95**2)) * math.sqrt(7.0) / math.sqrt(3.0)
    assert all_["hi"] == pytest.approx(3.0 + half, rel=1e-12)  # float64
    assert all_["lo"] == pytest.approx(3.0 - half, rel=1e-12)
    normal = 1.959963984540054 * math.sqrt(7.0 / 3.0)
    assert all_["hi"] != pytest.approx(3.0 + normal, rel=0.5)  # negative control: a z interval


def test_pooling_again_changes_nothing_and_one_seed_is_not_pooled():
    rows = pooled([row(1.0, 0), row(2.0, 1)])
    assert pooled(rows) == rows
    assert pooled([row()]) == [row()]
    assert [r["seed"] for r in sorted(rows, key=order)] == [0, 1, None]


def test_a_pooled_row_says_the_least_that_any_training_has_seen():
    seen = [{"images": n, "budget": n / 1000, "seeds": [i]} for i, n in enumerate((90, 60, 80))]
    pool = pooled([row(float(i), i, scale=scale) for i, scale in enumerate(seen)])[-1]
    assert pool["scale"] == {"images": 60, "budget": 0.06, "seeds": [0, 1, 2]}


def lines(*rows):
    return {"metrics.jsonl": "".join(json.dumps(r) + "\n" for r in rows).encode()}


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        (row(), row(), "equal"),
        (row(1.0, lo=0.9, hi=1.1), row(1.05, lo=0.95, hi=1.15), "within"),
        (row(1.0, lo=0.9, hi=1.1), row(1.3, lo=0.95, hi=1.6), "within"),
        (row(1.0, lo=0.9, hi=1.1), row(1.3, lo=1.2, hi=1.4), "differ"),
        (row(1.0), row(1.00005), "within"),
        (row(4e-16), row(2e-15), "within"),  # nothing but rounding
        (row(4e-12), row(2e-11), "differ"),
        (row(1.0), row(1.001), "differ"),
        (row(1.0), row(1.00005, n=2), "differ"),
        (row(1.0), None, "differ"),
        (None, row(1.0), "differ"),
    ],
)
def test_numbers_are_compared_by_their_intervals(tmp_path, old, new, verdict):
    (tmp_path / "metrics.jsonl").write_bytes(lines(*filter(None, [old]))["metrics.jsonl"])
    result = collect.compare(tmp_path, lines(*filter(None, [new])))
    counts = {k: len(getattr(result, k)) for k in ("equal", "within", "differ")}
    assert counts == {"equal": 0, "within": 0, "differ": 0} | {verdict: 1}


def test_another_kind_of_cpu_is_told_and_its_rounding_is_no_failure(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(lines(row(1.0))["metrics.jsonl"])
    for kind, foreign in ((collect.processor(), False), ("abacus", True), (None, False)):
        (tmp_path / "manifest.json").write_text(json.dumps({"processor": kind}))
        result = collect.compare(tmp_path, lines(row(2.0)))
        found = {p: collect.Collected(p, "avae", result, None).red for p in ("quick", "gpu")}
        assert found == {"quick": not foreign, "gpu": False}
        assert ("another kind of CPU" in result.text()) is foreign
    same = collect.compare(tmp_path, lines(row(1.0)))
    assert "kind" not in same.text()


@pytest.mark.parametrize(
    "new", [None, row(1.0, n=2), row(1.0, unit="dB"), row(1.0, column="other")]
)
def test_control_no_cpu_excuses_a_row_that_went_or_is_of_another_setting(tmp_path, new):
    (tmp_path / "metrics.jsonl").write_bytes(lines(row(1.0))["metrics.jsonl"])
    (tmp_path / "manifest.json").write_text(json.dumps({"processor": "abacus"}))
    result = collect.compare(tmp_path, lines(*filter(None, [new])))
    assert collect.Collected("quick", "avae", result, None).red
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/fig_1.npz").write_bytes(npz(x=np.arange(4.0)))
    gone = collect.compare(tmp_path, lines(row(1.0)))
    assert collect.Collected("quick", "avae", gone, None).red


def test_the_kind_of_cpu_is_its_maker_and_what_sums(tmp_path):
    page = tmp_path / "cpuinfo"
    page.write_text("vendor_id\t: A\nmodel name\t: A 1\nflags\t\t: fpu sse avx2 avx fma\n\n" * 2)
    one = collect.processor(page)
    assert one.split()[1:] == ["A", "avx", "avx2", "fma"]
    page.write_text(page.read_text().replace("A 1", "A 2"))
    assert collect.processor(page) == one
    page.write_text(page.read_text().replace("avx2", "avx2 avx512f"))
    assert collect.processor(page) != one
    assert collect.processor(tmp_path / "none").split()[0]


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("new", "verdict"),
    [
        ({"x": np.arange(4.0)}, "equal"),
        ({"x": np.arange(4.0) + 1e-4}, "within"),
        ({"x": np.arange(4.0) + 0.1}, "differ"),
        ({"x": np.arange(4.0) * np.nan}, "differ"),
        ({"x": np.arange(5.0)}, "differ"),
        ({"y": np.arange(4.0)}, "differ"),
    ],
)
def test_figures_are_compared_by_the_data_behind_them(tmp_path, new, verdict):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/fig_1.npz").write_bytes(npz(x=np.arange(4.0)))
    result = collect.compare(tmp_path, lines() | {"figures/fig_1.npz": npz(**new)})
    assert getattr(result, verdict) == ["figures/fig_1.npz"]


# --- scrubbing ------------------------------------------------------------------------------


def dirty(root):
    page = notebook("2_training")
    page["metadata"] |= {"papermill": {"input_path": str(root)}, "widgets": {"state": {}}}
    one = page["cells"][1]
    one["execution_count"] = 7
    one["metadata"] |= {"execution": {"iopub.status.busy": "now"}, "tags": ["imports"]}
    one["outputs"] = [
        {"output_type": "stream", "name": "stdout", "text": f"{root}/lib/x.py at 0x7f00deadbeef\n"},
        {"output_type": "display_data", "metadata": {}, "data": {scrub.WIDGET: {"model_id": "1"}}},
        {"output_type": "execute_result", "metadata": {"a": 1}, "execution_count": 7,
         "data": {"text/plain": "/".join(["", "tmp", "ipykernel_12", "3456.py"])}},
    ]  # fmt: skip
    return page


def test_scrubbing_leaves_nothing_of_the_machine(bed):
    page = dirty(bed.root)
    before = copy.deepcopy(page)
    clean = scrub.scrubbed(page)
    assert page == before, "the input was changed"
    text = scrub.text(clean)
    for word in (str(bed.root), "papermill", "widget", "0x7f", "ipykernel_", "busy"):
        assert word not in text
    outputs = clean["cells"][1]["outputs"]
    assert outputs[0]["text"] == ["lib/x.py at 0x…\n"]
    assert len(outputs) == 2
    assert clean["cells"][1]["metadata"] == {"tags": ["imports"]}
    assert scrub.scrubbed(clean) == clean


def test_scrub_file_reports_and_mends(bed, tmp_path):
    file = tmp_path / "x.ipynb"
    file.write_text(json.dumps(dirty(bed.root)))
    assert scrub.scrub_file(file, verify=True)
    assert "papermill" in file.read_text()
    assert scrub.scrub_file(file)
    assert not scrub.scrub_file(file, verify=True)


def test_outputs_go_only_into_the_notebook_they_came_from(bed):
    source = notebook("2_training", "1 + 1")
    executed = copy.deepcopy(source)
    extra = cell("seed = 1", "injected-parameters")
    executed["cells"].insert(3, extra)
    executed["cells"][5]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "2"}]
    merged = scrub.as_committed(executed, source)
    assert len(merged["cells"]) == len(source["cells"])
    assert merged["cells"][4]["outputs"][0]["text"] == "2"
    reworded = copy.deepcopy(source)
    reworded["cells"][0]["source"] = "other words, a title cell say"
    merged = scrub.as_committed(executed, reworded)
    assert merged["cells"][4]["outputs"][0]["text"] == "2"
    assert "".join(merged["cells"][0]["source"]) == "other words, a title cell say"
    changed = next(c for c in executed["cells"][::-1] if c["cell_type"] == "code")
    changed["source"] = "something else"
    with pytest.raises(ValueError, match="other code"):
        scrub.as_committed(executed, source)


def test_diagrams_get_a_palette_and_clear_pictures_stay():
    from PIL import Image

    def output(pixels, mode):
        buffer = io.BytesIO()
        Image.fromarray(pixels, mode).save(buffer, format="PNG")
        return {"data": {"image/png": base64.b64encode(buffer.getvalue()).decode()}}

    def mode_of(found):
        return Image.open(io.BytesIO(base64.b64decode(found["data"]["image/png"]))).mode

    shades = np.random.default_rng(0).integers(0, 12, (64, 64, 1), dtype=np.uint8)
    diagram = np.concatenate([shades, 3 * shades, 255 - shades], 2)  # 12 colours
    assert mode_of(scrub._scrub_output(output(diagram, "RGB"))) == "P"
    found = scrub._scrub_output(output(diagram, "RGB"))["data"]["image/png"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(found))).convert("RGB"))
    assert (pixels == diagram).all()  # up to 256 colours nothing is lost
    clear = np.dstack([diagram, np.full((64, 64), 7, np.uint8)])
    assert mode_of(scrub._scrub_output(output(clear, "RGBA"))) == "RGBA"


@pytest.mark.parametrize(("preset", "kept"), [("cpu", {"table_1"}), ("gpu", {"fig_1", "table_1"})])
def test_cpu_commits_the_plots_of_tables_and_no_picture_sheets(bed, preset, kept):
    made = plan.Plan(jobs(Request(preset, ("avae",))))
    folder = next(j for j in made.jobs if j.notebook == "3_tables").folder / "figures"
    folder.mkdir(parents=True)
    for name in ("fig_1", "table_1"):
        for suffix in (".png", ".npz", ".json"):
            (folder / f"{name}{suffix}").write_bytes(b"x")
    pattern = collect.figures_kept(preset)
    found = collect._figures(made, pattern)
    assert {name.split("/")[1].split(".")[0] for name in found} == kept
    assert len(found) == 3 * len(kept)
