"""Bad input and bad circumstances of a run: one clear sentence, nothing half written. No kernel."""

import errno
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from runner_bed import Bed

from latentpapers import cli, config, notebook, storage
from latentpapers.errors import Corrupt, Missing, StorageFull, UnknownName, UserError
from latentpapers.runner import plan, supervise


@pytest.fixture
def bed(tmp_path, monkeypatch):
    made = Bed(tmp_path / "checkout")
    monkeypatch.setenv("LATENTPAPERS_ROOT", str(made.root))
    for name in (
        "LATENTPAPERS_OUT",
        "LATENTPAPERS_JOB",
        "LATENTPAPERS_NEEDS",
        "LATENTPAPERS_RUN_ID",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(plan, "LIBRARY", made.root / "lib" / "latentpapers")
    monkeypatch.setitem(sys.modules, "latentpapers.papers.avae", made.room())
    return made


@pytest.fixture
def metric(monkeypatch):
    from latentpapers import ledger

    monkeypatch.setattr(
        ledger, "metrics", lambda: {"toy_value": type("M", (), {"direction": "higher"})}
    )
    monkeypatch.setattr(
        ledger, "load", lambda paper: type("L", (), {"ids": lambda self: ["table_1"]})()
    )


SCALE = config.Scale("quick", 100, None, "drawn 8 px", "cpu")


def record(run, value=1.0, **more):
    given = {"interval": "none: exact", "n": 1, "scale": SCALE} | more
    place = [given.pop("id", "table_1"), "ours", "value", given.pop("metric", "toy_value")]
    return run.record(*place, value, **given)


# --- opening a run --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "options", "kind", "says"),
    [
        (("avea", "2_training"), {}, UnknownName, "unknown paper 'avea'; known: avae"),
        (
            ("avae", "2_training"),
            {"preset": "fast"},
            UnknownName,
            "unknown preset 'fast'; known: cpu, gpu",
        ),
        (("avae", "2_training"), {"overrides": {"loop.step": 1}}, UnknownName, "'loop.step'"),
        (("avae", "2_training"), {"overrides": {"loop": 1}}, UserError, "names a group"),
        (("avae", "2_training"), {"overrides": {"loop.steps": 1.5}}, UserError, "must be int"),
        (("avae", "2_training"), {"seed": "0"}, UserError, "'seed' must be int"),
        (("avae", "2_training"), {"device": "gpu"}, UnknownName, "unknown device 'gpu'"),
    ],
)
def test_begin_refuses_in_one_sentence(bed, words, options, kind, says):
    with pytest.raises(kind, match=says) as error:
        notebook.begin(*words, **options)
    assert "\n" not in str(error.value)
    assert not (bed.root / "results").exists()


def test_a_gpu_asked_for_by_name_must_exist(monkeypatch):
    torch = type(sys)("torch")
    torch.cuda = SimpleNamespace(is_available=lambda: False)
    monkeypatch.setitem(sys.modules, "torch", torch)
    with pytest.raises(UserError, match="no such GPU; use device=auto"):
        notebook.pick_device("cuda", "quick")
    assert notebook.pick_device("auto", "gpu") == ("cpu", "cpu")


def test_the_second_gpu_must_exist_too(monkeypatch):
    one = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_name": lambda i: "X",
    }
    torch = type(sys)("torch")
    torch.cuda = type("C", (), {k: staticmethod(v) for k, v in one.items()})
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert notebook.pick_device("auto", "gpu") == ("cuda", "X")
    with pytest.raises(UserError, match="cuda:1"):
        notebook.pick_device("cuda:1", "gpu")


def test_begin_prints_at_most_twelve_lines_and_no_path(bed, capsys):
    notebook.begin("avae", "2_training")
    said = capsys.readouterr().out
    assert len(said.splitlines()) <= 12
    assert str(bed.root) not in said
    assert "quick · cpu · seed 0" in said
    assert "steps=3" in said


def test_begin_outside_the_runner_withdraws_an_earlier_record(bed):
    run = notebook.begin("avae", "2_training")
    stale = run.out / "record.0123456789ab.json"
    stale.write_text("{}")
    (run.out / "checkpoints").mkdir()
    notebook.begin("avae", "2_training")
    assert not stale.exists()
    assert not (run.out / "checkpoints").exists()


# --- recording ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "more", "says"),
    [
        (float("nan"), {}, "not a finite number"),
        (1.0, {"lo": float("-inf"), "hi": 2.0}, "not a finite number"),
        (1.0, {"interval": ""}, "none: <reason>"),
        (1.0, {"interval": "bootstrap"}, "none: <reason>"),
        (1.0, {"lo": 2.0, "hi": 1.0, "interval": "bootstrap"}, "upside down"),
        (1.0, {"metric": "fid"}, "unknown metric 'fid'; known: toy_value"),
        (1.0, {"id": "table_9"}, "unknown table, figure or measure of avae: 'table_9'"),
    ],
)
def test_a_bad_number_is_refused(bed, metric, value, more, says):
    run = notebook.begin("avae", "3_tables")
    with pytest.raises(UserError, match=says):
        record(run, value, **more)
    assert run.rows == []


def test_the_same_number_twice_is_refused(bed, metric):
    run = notebook.begin("avae", "3_tables")
    assert record(run, 2) == 2.0
    with pytest.raises(UserError, match="recorded twice"):
        record(run, 3)


def test_an_override_that_nothing_read_is_an_error_at_the_end(bed, metric):
    run = notebook.begin("avae", "2_training", overrides={"loop.steps": 2, "loop.rate": 0.1})
    assert run.config.loop.steps == 2
    with pytest.raises(UserError, match=r"override 'loop\.rate' was never read"):
        run.finish()
    assert run.config.loop.rate == 0.1
    run.finish()
    assert json.loads((run.out / "imports.json").read_text())["unread"] == []


def test_a_number_over_seeds_is_read_back_with_its_interval(bed, metric):
    run = notebook.begin("avae", "3_tables")
    record(run, 1.0, lo=0.5, hi=1.5, interval="bootstrap")
    assert run.value("table_1", "ours", "value") == (1.0, 0.5, 1.5)
    record(run, 3.0, seed=1)
    value, lo, hi = run.value("table_1", "ours", "value")
    assert (value, lo < 1.0, hi > 3.0) == (2.0, True, True)  # t over two seeds is wide
    with pytest.raises(UserError, match="theirs / value names 0 recorded numbers"):
        run.value("table_1", "theirs", "value")


def test_a_folder_that_the_reader_chose_loses_our_files_alone(bed, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    (mine / "rows.jsonl").write_text("{}")
    notebook.begin("avae", "2_training", out_dir=str(mine))
    assert (mine / "thesis.txt").read_text() == "years"
    assert not (mine / "rows.jsonl").exists()


# --- reading --------------------------------------------------------------------------------


def safetensors(tail=b"\0" * 4, head=None):
    head = head or {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + tail


def test_a_missing_checkpoint_names_the_command(bed):
    with pytest.raises(Missing, match="git checkout -- results/checkpoints"):
        notebook.begin("avae", "3_tables").checkpoint("ours")
    with pytest.raises(Missing, match="make reproduce PAPER=avae PRESET=gpu"):
        notebook.begin("avae", "3_tables", preset="gpu", device="cpu").checkpoint("ours")


@pytest.mark.parametrize(
    "content",
    [b"", b"not a checkpoint", safetensors(b"\0" * 3), safetensors(b"\0" * 5),
     safetensors(head={"w": 1})],
    ids=["empty", "foreign", "cut", "tail", "header"],
)  # fmt: skip
def test_a_corrupt_checkpoint_is_named(bed, content):
    file = bed.root / "results/checkpoints/avae/ours.safetensors"
    file.parent.mkdir(parents=True)
    run = notebook.begin("avae", "3_tables")
    file.write_bytes(safetensors())
    assert run.checkpoint("ours") == file
    file.write_bytes(content)
    with pytest.raises(Corrupt, match=r"checkpoints/avae/ours\.safetensors"):
        run.checkpoint("ours")


def test_a_shipped_checkpoint_may_be_one_of_several_seeds(bed):
    folder = bed.root / "results/checkpoints/avae"
    folder.mkdir(parents=True)
    for name in ("ours.safetensors", "ours_s1.safetensors"):
        (folder / name).write_bytes(safetensors())
    run = notebook.begin("avae", "3_tables")
    assert run.checkpoint("ours", seed=1).name == "ours_s1.safetensors"
    assert run.checkpoint("ours", seed=0).name == "ours.safetensors"
    (folder / "ours.safetensors").unlink()
    with pytest.raises(Missing, match=r"missing; what is shipped of it: SEEDS=1\.$"):
        run.checkpoint("ours", seed=2)


def test_a_network_outside_the_plan_is_not_read(bed, monkeypatch):
    file = bed.folder("2_training", "gpu", 1) / "checkpoints/ours.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(safetensors())
    run = notebook.begin("avae", "3_tables", preset="gpu", device="cpu")
    assert run.checkpoint("ours", seed=1) == file
    monkeypatch.setenv("LATENTPAPERS_NEEDS", "2_training/s0")
    assert run.training_seeds == (0,)
    with pytest.raises(Missing, match="seed 1, which is not in this plan"):
        run.checkpoint("ours", seed=1)


def test_rows_of_another_job_must_be_there_and_declared(bed, monkeypatch):
    with pytest.raises(Missing, match="make reproduce PAPER=avae PRESET=gpu"):
        notebook.begin("avae", "3_tables", preset="gpu", device="cpu").rows_of("2_training")
    job = bed.folder("2_training", "gpu")
    job.mkdir(parents=True)
    storage.write_jsonl(job / "rows.jsonl", [{"value": 1}])
    run = notebook.begin("avae", "3_tables", preset="gpu", device="cpu")
    assert run.rows_of("2_training") == [{"value": 1}]
    monkeypatch.setenv("LATENTPAPERS_NEEDS", "")  # the plan declared nothing
    with pytest.raises(Missing):
        run.rows_of("2_training")


# --- the file system ------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_full_or_read_only_disk_is_one_sentence_and_leaves_nothing(
    bed, metric, monkeypatch, number
):
    run = notebook.begin("avae", "2_training")
    record(run)
    before = sorted(p.name for p in run.out.iterdir())

    def full(self, content):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageFull, match=r"cannot write .*rows\.jsonl: .*LATENTPAPERS_OUT"):
        run.finish()
    assert sorted(p.name for p in run.out.iterdir()) == before


def test_a_file_in_place_of_the_results_folder_is_named(bed):
    (bed.root / "results").write_text("not a folder")
    with (
        pytest.raises(UserError, match="a file is in its place"),
        supervise.claimed(bed.folder("2_training"), "job"),
    ):
        pass


# --- the command line -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["plan", "--paper", "avea"], "unknown paper 'avea'"),
        (["plan", "--preset", "fast"], "unknown preset 'fast'"),
        (["plan", "--set", "steps"], "FIELD=VALUE"),
        (
            ["plan", "--paper", "avae", "--set", "loop.stepz=1"],
            "unknown parameter of avae: 'loop.stepz'",
        ),
        (["plan", "--paper", "avae", "--budget", "much"], "invalid float value"),
        (["plan", "--seeds", "one"], "no list of whole numbers"),
        (["run", "--jobs", "0"], "'0' is no whole number from 1 on"),
        (["scrub", "nowhere.ipynb"], "no notebook nowhere.ipynb"),
        (["job", "--paper", "avae", "--notebook", "9_more"], "unknown job of avae in quick"),
        (
            ["refresh", "--paper", "avae", "--set", "loop.steps=1"],
            "cannot become a committed result",
        ),
        (["collect", "--paper", "avae"], "has not run; see `make plan`"),
    ],
)
def test_the_command_line_says_what_is_wrong(bed, capsys, words, says):
    try:
        status = cli.main(words)
    except SystemExit as stop:  # argparse
        status = stop.code
    said = capsys.readouterr().err
    assert status == 2
    assert says in said
    assert "Traceback" not in said


def test_a_missing_package_is_one_sentence_and_a_missing_module_of_ours_is_not(
    bed, monkeypatch, capsys
):
    def lacking(name):
        def jobs(request):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        return jobs

    monkeypatch.setattr(plan, "jobs", lacking("pydantic"))
    assert cli.main(["job", "--paper", "avae", "--notebook", "2_training"]) == 2
    said = capsys.readouterr().err
    assert "package 'pydantic' is not installed for" in said
    assert "make setup" in said
    monkeypatch.setattr(plan, "jobs", lacking("latentpapers.gone"))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["job", "--paper", "avae", "--notebook", "2_training"])


def test_an_unexpected_error_keeps_its_traceback(bed, monkeypatch):
    monkeypatch.setattr(plan, "jobs", lambda request: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["job", "--paper", "avae", "--notebook", "2_training"])


def test_a_request_survives_the_command_line(bed):
    asked = plan.Request("gpu", (), (0, 1), {"loop.rate": 0.25, "data": "a b", "n": None}, "cpu",
                         "wide", 2.0)  # fmt: skip
    assert cli.request_from(asked.arguments()) == asked


# --- supervision ----------------------------------------------------------------------------


@pytest.fixture
def sleeper():
    started = []

    def start(*words, **env):
        code = "import time; print('runs', flush=True); time.sleep(60)"
        command = [sys.executable, "-c", code, *words]
        process = subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.PIPE)
        started.append(process)
        process.stdout.readline()  # a process just born has no environment to read yet
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def note(folder, pid, supervisor, job="quick/avae/2_training/s0"):
    folder.mkdir(parents=True)
    text = {"pid": supervise.identity(pid), "supervisor": supervisor, "job": job}
    (folder / "pid.json").write_text(json.dumps(text))


def test_a_job_is_claimed_once(tmp_path):
    code = (
        "from latentpapers.runner import supervise\nimport sys, pathlib\n"
        "with supervise.claimed(pathlib.Path(sys.argv[1]), 'j'): pass"
    )
    with supervise.claimed(tmp_path / "job", "j"):
        env = os.environ | {"LATENTPAPERS_ROOT": str(Path(__file__).parent.parent)}
        env |= {"PYTHONPATH": str(Path(cli.__file__).parent.parent)}
        patch = "import latentpapers.runner.supervise as s; f = s._locked\n"
        patch += "s._locked = lambda h, patience=0: f(h, 0.2)\n"
        other = subprocess.run(
            [sys.executable, "-c", patch + code, str(tmp_path / "job")], env=env,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "is being run by another command" in other.stderr
    with supervise.claimed(tmp_path / "job", "j"):
        pass
    assert not (tmp_path / "job" / "pid.json").exists()


def test_an_identity_outlives_a_corrected_clock(sleeper, monkeypatch):
    process = sleeper()
    before = supervise.identity(process.pid)
    real = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: real(self) + 1.0)
    assert supervise.identity(process.pid) == before
    assert supervise.alive(before)
    assert supervise.identity() != before


def test_an_orphan_is_ended(tmp_path, sleeper):
    orphan = sleeper(LATENTPAPERS_JOB="quick/avae/2_training/s0")
    dead = supervise.identity(orphan.pid).rsplit(":", 1)[0] + ":1.00"  # a reused process number
    note(tmp_path / "job", orphan.pid, dead)
    assert supervise.end_orphan(tmp_path / "job")
    assert not psutil.pid_exists(orphan.pid)


@pytest.mark.parametrize("case", ["supervised", "foreign", "reused", "other host"])
def test_what_is_no_orphan_of_ours_is_left_alone(tmp_path, sleeper, case):
    marker = {} if case == "foreign" else {"LATENTPAPERS_JOB": "quick/avae/2_training/s0"}
    process = sleeper(**marker)
    dead = supervise.identity(process.pid).rsplit(":", 1)[0] + ":1.00"
    note(tmp_path / "job", process.pid, supervise.identity() if case == "supervised" else dead)
    if case in ("reused", "other host"):
        old = supervise.identity(process.pid)
        new = old.rsplit(":", 1)[0] + ":2.00" if case == "reused" else f"far-{old}"
        text = (tmp_path / "job/pid.json").read_text().replace(f'"pid": "{old}"', f'"pid": "{new}"')
        (tmp_path / "job/pid.json").write_text(text)
    assert not supervise.end_orphan(tmp_path / "job")
    assert process.poll() is None
