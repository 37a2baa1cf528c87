"""Whole jobs, with kernels: strictness, resume after kill -9, orphans, the comparison, refresh."""

import base64
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbclient import NotebookClient
from PIL import Image
from runner_bed import RECORD, Bed

from latentpapers.runner.kernels import manager

pytestmark = pytest.mark.kernel
RUN = ("run", "--paper", "avae")
JOB = ("job", "--paper", "avae", "--notebook", "2_training")


@pytest.fixture
def bed(tmp_path):
    return Bed(tmp_path / "checkout")


def git(bed, *words):
    own = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *own, *words], cwd=bed.root, capture_output=True, text=True,
                          check=True)  # fmt: skip
    return done.stdout.strip()


def commit(bed):
    (bed.root / ".gitignore").write_text("results/*/*/runs/\n__pycache__/\n.snakemake/\n")
    git(bed, "init", "-q")
    git(bed, "add", "-A")
    git(bed, "commit", "-q", "-m", "all")


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        time.sleep(0.05)


def kernels(bed):
    """Living kernels of this checkout."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("LATENTPAPERS_ROOT") == str(bed.root) and any(
                word.endswith("kernel.py") for word in process.cmdline()
            ):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def start(bed, *words, **env):
    """A command in a process group of its own, so that nothing but our signal reaches it."""
    return subprocess.Popen(
        bed.command(*words), env=bed.env | env, cwd=bed.root, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


# --- the comparison -------------------------------------------------------------------------


def test_a_fresh_clone_runs_everything_agrees_and_stays_clean(bed, tmp_path):
    first = bed.call(*RUN)
    assert first.returncode == 0, first.stderr
    assert "nothing is committed yet" in first.stdout
    results = bed.root / "results/quick/avae"
    claims = json.loads((results / "claims.json").read_text())
    assert [c["verdict"] for c in claims] == ["reproduced"]
    assert "1.500" in (results / "tables/table_1.md").read_text()
    commit(bed)

    again = bed.call(*RUN)
    assert "2 jobs, 0 to run" in again.stdout
    assert "2 bit-equal, 0 within interval, 0 differ" in again.stdout

    shutil.rmtree(results / "runs")  # what a clone does not have
    clone = bed.call(*RUN, "--jobs", "2")
    assert "2 jobs, 2 to run" in clone.stdout
    assert "2 bit-equal, 0 within interval, 0 differ" in clone.stdout
    assert clone.returncode == 0
    assert git(bed, "status", "--porcelain") == ""

    bed.write("3_tables", "value = 0.25 + run.config.loop.rate", RECORD.format(row="sum"))
    git(bed, "commit", "-q", "-am", "another number")
    moved = bed.call(*RUN)
    assert "2 jobs, 1 to run" in moved.stdout
    assert "1 bit-equal, 0 within interval, 1 differ" in moved.stdout
    assert "differs: table_1 / sum / value" in moved.stdout
    assert moved.returncode == 1
    assert git(bed, "status", "--porcelain") == ""
    assert (results / "runs/collected/metrics.jsonl").is_file()

    refreshed = bed.call("refresh", "--paper", "avae")
    assert refreshed.returncode == 0, refreshed.stderr
    changed = git(bed, "status", "--porcelain").splitlines()
    assert any("metrics.jsonl" in line for line in changed)


def test_refresh_puts_outputs_into_the_notebooks_and_leaves_their_sources(bed):
    before = json.loads((bed.root / "notebooks/avae/2_training.ipynb").read_text())
    assert bed.call("refresh", "--paper", "avae").returncode == 0
    text = (bed.root / "notebooks/avae/2_training.ipynb").read_text()
    after = json.loads(text)
    sources = [["".join(c["source"]) for c in n["cells"]] for n in (before, after)]
    assert sources[0] == sources[1]
    assert "recorded 1 number" in "".join(after["cells"][-1]["outputs"][0]["text"])
    assert str(bed.root) not in text
    assert bed.call("scrub", "--verify", "notebooks/avae/2_training.ipynb").returncode == 0
    again = bed.call("refresh", "--paper", "avae")
    assert "2 jobs, 0 to run" in again.stdout, "its own outputs made a notebook out of date"
    assert (bed.root / "notebooks/avae/2_training.ipynb").read_text() == text


def test_seeds_are_pooled_and_executed_notebooks_kept_beyond_quick(bed):
    done = bed.call(*RUN, "--preset", "gpu", "--seeds", "0,1", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    folder = bed.root / "results/gpu/avae"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    ours = {row["seed"]: row["value"] for row in rows if row["row"] == "ours"}
    assert ours == {0: 1.5, 1: 1.75, None: 1.625}
    assert next(r["value"] for r in rows if r["row"] == "sum") == 1.5 + 1.75 + 0.5
    names = {p.name for p in (folder / "executed").iterdir()}
    assert names == {"2_training.s0.ipynb", "2_training.s1.ipynb", "3_tables.s0.ipynb"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["files"]) >= {"metrics.jsonl", "claims.json", "tables/table_1.csv"}


# --- strictness -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "options", "says"),
    [
        ("x = 1\nraise ValueError('broken\\nhere')", {},
         "2_training.ipynb, cell 4 line 2 `raise ValueError"),
        ("import sys\nprint('careful', file=sys.stderr)", {}, "cell 4 wrote to stderr: careful"),
        ("import importlib\nimportlib.import_module('latentpapers.' + 'check')", {},
         "imported check.py, which its source does not show"),
        ("1", {"end": "pass"}, "must begin with lp.begin('avae', '2_training', ...), without"),
        ("import os\nos.kill(os.getpid(), 9)", {}, "the kernel ended early"),
    ],
    ids=["error", "stderr", "hidden import", "no finish", "killed kernel"],
)  # fmt: skip
def test_a_bad_notebook_fails_in_one_sentence_and_leaves_no_record(bed, body, options, says):
    bed.write("2_training", body, **options)
    done = bed.call(*JOB)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(bed.folder("2_training").glob("record.*"))
    assert not (bed.folder("2_training") / "executed.ipynb").exists()


def test_a_failed_notebook_is_kept_for_the_reader(bed):
    bed.write("2_training", "print('so far')", "1 / 0")
    bed.call(*JOB)
    text = (bed.folder("2_training") / "failed.ipynb").read_text()
    assert "so far" in text
    assert "ZeroDivisionError" in text
    assert str(bed.root) not in text


def test_a_notebook_that_ignores_its_parameters_is_refused(bed):
    file = bed.write("2_training", "print(seed)")
    file.write_text(file.read_text().replace("seed=seed", "seed=0"))
    done = bed.call(*JOB, "--seeds", "1", "--seed", "1")
    assert "the runner asked for quick/avae/2_training/s1" in done.stderr
    assert not bed.folder("2_training").exists(), "it wrote into another job's folder"


def test_a_notebook_that_drops_its_overrides_is_refused(bed):
    file = bed.write("2_training", "print(overrides, run.config.loop.steps)")
    file.write_text(file.read_text().replace("overrides=overrides", "overrides={}"))
    done = bed.call(*JOB, "--set", "loop.steps=5")
    assert "ran without override 'loop.steps'" in done.stderr


def test_a_failing_job_stops_those_that_need_it_and_no_other(bed):
    bed.write("2_training", "raise SystemError('no')")
    bed.write("4_figures", "print(run.config.loop.rate)")
    done = bed.call(*RUN, "--preset", "gpu", "--device", "cpu")
    assert done.returncode == 1
    assert "FAILED gpu/avae/2_training/s0" in done.stdout
    assert done.stderr.count("skipped gpu/avae/") == 2
    bed.write("5_explore", "print(run.config.loop.rate)")
    quick = bed.call(*RUN)
    assert "done quick/avae/3_tables/s0" in quick.stdout
    assert "done quick/avae/5_explore/s0" in quick.stdout
    assert quick.returncode == 1


def test_overrides_run_apart_and_must_be_read(bed):
    done = bed.call(*RUN, "--set", "loop.steps=5")
    assert done.returncode == 0, done.stderr
    assert not (bed.root / "results/quick/avae/metrics.jsonl").exists()
    found = list((bed.root / "results/quick/avae/runs").glob("o-*/collected/metrics.jsonl"))
    rows = [json.loads(line) for line in found[0].read_text().splitlines()]
    assert {r["row"]: r["value"] for r in rows} == {"ours": 2.5, "sum": 0.5}
    unread = bed.call(*RUN, "--budget", "2")
    assert unread.returncode == 2
    assert "override 'loop.seconds' was read by no notebook of avae" in unread.stderr


# --- killed and resumed ---------------------------------------------------------------------


def test_a_run_killed_in_the_middle_resumes_to_the_same_result(bed):
    assert bed.call(*RUN).returncode == 0
    whole = bed.rows("2_training")
    shutil.rmtree(bed.root / "results/quick/avae")

    running = start(bed, *RUN, TOY_HANG="2")
    progress = bed.folder("2_training") / "checkpoints/progress.txt"
    wait_for(lambda: progress.is_file() and progress.read_text() == "2")
    assert kernels(bed)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    wait_for(lambda: not kernels(bed))
    assert not list(bed.folder("2_training").glob("record.*"))

    resumed = bed.call(*RUN)
    assert resumed.returncode == 0, resumed.stderr
    assert bed.rows("2_training") == whole


def test_a_kernel_dies_with_its_runner(bed):
    running = start(bed, *JOB, TOY_HANG="1")
    wait_for(lambda: (bed.folder("2_training") / "checkpoints/progress.txt").is_file())
    assert len(kernels(bed)) == 1
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    wait_for(lambda: not kernels(bed), 15)


@pytest.mark.parametrize(("letters", "spoken"), [(1, "ipc"), (120, "tcp")])
def test_a_kernel_is_reached_without_ports_where_names_allow_it(tmp_path, letters, spoken):
    """Two jobs that start at once can pick one port; the sockets of a folder belong to one."""
    asked = "from ipykernel.kernelapp import IPKernelApp\nIPKernelApp.instance().transport"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(asked)])
    with tempfile.TemporaryDirectory() as short, (tmp_path / "log").open("wb") as log:
        folder = Path(short) / ("f" * letters)
        folder.mkdir()
        NotebookClient(notebook, km=manager(dict(os.environ), log, folder)).execute()
    assert notebook.cells[0].outputs[0]["data"]["text/plain"] == f"'{spoken}'"


INLINE = """
import os, numpy as np, matplotlib.pyplot as plt
from IPython.display import display
from latentpapers import notebook
notebook.small_pictures(40_000)
x, y = np.mgrid[0:1:200j, 0:1:400j]
grain = 0.02 * np.random.default_rng(0).standard_normal((200, 400, 3))
fig = plt.figure(figsize=(8, 4))
plt.imshow(np.clip(np.dstack([x, y, x * y]) + grain, 0, 1))
display(fig)
plt.close(fig)
fig, axes = plt.subplots(2, 4, figsize=(8, 5))
for k, axis in enumerate(axes.flat):
    axis.plot(np.sin((k + 1) * x[:, 0]), "o-")
display(fig)
plt.close(fig)
"""


def test_a_photograph_is_shown_as_jpeg_at_its_size_and_a_drawing_as_png(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(INLINE)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    found = [o["data"] for o in notebook.cells[0]["outputs"] if o["output_type"] == "display_data"]
    kinds = [[k for k in data if k.startswith("image/")] for data in found]
    assert kinds == [["image/jpeg"], ["image/png"]]
    for (kind,), data in zip(kinds, found, strict=True):
        content = base64.b64decode(data[kind])
        assert len(content) <= 40_000
        assert Image.open(io.BytesIO(content)).width == 800


def test_checkpoints_of_other_training_code_are_put_aside(bed):
    """The notebook would happily resume from them and stamp old numbers with new hashes."""
    args = ("--preset", "gpu", "--device", "cpu")
    assert bed.call(*JOB, *args).returncode == 0
    folder = bed.folder("2_training", "gpu")
    (folder / "checkpoints/progress.txt").write_text("7")
    room = bed.root / "lib/latentpapers/papers/avae/presets.py"
    room.write_text(room.read_text().replace("rate: float = 0.5", "rate: float = 0.25"))
    assert bed.call(*JOB, *args).returncode == 0
    assert bed.rows("2_training", "gpu")[0]["value"] == 3 * 0.25
    assert (folder / "superseded/progress.txt").read_text() == "7"


# --- the machine ----------------------------------------------------------------------------


def test_a_full_disk_ends_the_job_in_one_sentence(bed):
    body = "lp.storage.write_bytes(run.out / 'big.bin', bytes(40_000_000))"
    bed.write("2_training", body)

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, 20_000_000))

    done = subprocess.run(
        bed.command(*JOB), env=bed.env, cwd=bed.root, capture_output=True, text=True,
        preexec_fn=small_files, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "StorageFull: cannot write" in done.stderr
    assert "file too large" in done.stderr
    assert not list(bed.folder("2_training").glob("*big*"))


def test_a_run_needs_no_network(bed):
    """Every address but this machine's is refused, in the runner and in its kernels."""
    guard = bed.root / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(
        "import socket\n"
        "real = socket.socket.connect\n"
        "def connect(self, address):\n"
        "    if isinstance(address, tuple) and address[0] not in ('127.0.0.1', '::1'):\n"
        "        raise OSError('no network in this test')\n"
        "    return real(self, address)\n"
        "socket.socket.connect = connect\n"
    )
    body = "import socket\ntry:\n    socket.create_connection(('192.0.2.1', 80), 1)\n"
    body += "except OSError as error:\n    print(error)"
    bed.write("2_training", body)
    path = os.pathsep.join([str(guard), str(bed.root / "lib")])
    done = bed.call(*RUN, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    text = (bed.folder("2_training") / "executed.ipynb").read_text()
    assert "no network in this test" in text, "the guard did not reach the kernel"


# --- Snakemake ------------------------------------------------------------------------------


def test_reproduce_survives_the_death_of_snakemake(bed):
    shutil.copy(Path(__file__).parent.parent / "Snakefile", bed.root)
    words = ("reproduce", "--paper", "avae")
    running = start(bed, *words, TOY_HANG="1")
    wait_for(lambda: (bed.folder("2_training") / "checkpoints/progress.txt").is_file())
    for child in [*psutil.Process(running.pid).children(recursive=True)]:
        if "snakemake" in " ".join(child.cmdline()):
            child.kill()
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    wait_for(lambda: not kernels(bed), 15)
    done = bed.call(*words)
    assert done.returncode == 0, done.stderr
    assert (bed.root / "results/quick/avae/metrics.jsonl").is_file()
    idle = bed.call(*words)
    assert "2 jobs, 0 to run" in idle.stdout
    assert "SNAKEMAKE" not in idle.stderr


def test_a_lock_of_a_living_snakemake_is_respected(bed):
    shutil.copy(Path(__file__).parent.parent / "Snakefile", bed.root)
    running = start(bed, "reproduce", "--paper", "avae", TOY_HANG="1")
    wait_for(lambda: (bed.folder("2_training") / "checkpoints/progress.txt").is_file())
    other = bed.call("reproduce", "--paper", "avae")
    assert other.returncode == 2
    assert "another `make reproduce` is running here" in other.stderr
    assert kernels(bed), "the living run lost its kernel"
    running.kill()
    running.wait()
    wait_for(lambda: not kernels(bed), 15)


# --- a node without network -----------------------------------------------------------------


@pytest.fixture
def bundled(bed, tmp_path_factory):
    """A bundle without packages (this interpreter has them), from a machine with weights."""
    weights = tmp_path_factory.mktemp("cache") / "weights"
    weights.mkdir()
    (weights / "net.safetensors").write_bytes(b"weights")
    (weights / "net.LICENSE.txt").write_text("as you like")
    (weights / "net.safetensors.part").write_bytes(b"half")
    (bed.root / "ci").mkdir()
    shutil.copy(Path(__file__).parent.parent / "ci/offline_node.sh", bed.root / "ci")
    commit(bed)
    made = bed.call("bundle", "--paper", "avae", "--no-packages", "--out", "bundle",
                    LATENTPAPERS_CACHE=str(weights.parent))  # fmt: skip
    assert made.returncode == 0, made.stderr
    return bed.root / "bundle"


def on_node(bundle, folder):
    folder.mkdir(exist_ok=True)
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("LATENTPAPERS", "PYTHONPATH"))}
    command = ["bash", str(bundle / "offline_node.sh"), "work"]
    return subprocess.run(command, cwd=folder, env=keep | {"PYTHON": sys.executable},
                          capture_output=True, text=True, check=False)  # fmt: skip


def test_a_bundle_runs_on_another_machine_and_resumes(bundled, tmp_path):
    node = tmp_path / "node"
    first = on_node(bundled, node)
    assert first.returncode == 0, first.stderr
    assert "2 jobs, 2 to run" in first.stdout
    assert (node / "work/results.tar.gz").stat().st_size > 0
    assert (node / "work/results/quick/avae/metrics.jsonl").is_file()
    again = on_node(bundled, node)
    assert "2 jobs, 0 to run" in again.stdout
    # weights lie where the node's LATENTPAPERS_CACHE points; what is half written stays behind
    carried = {p.name: p.read_bytes() for p in (node / "work/cache/weights").iterdir()}
    assert carried == {"net.safetensors": b"weights", "net.LICENSE.txt": b"as you like"}


def test_a_damaged_bundle_is_refused(bundled, tmp_path):
    part = bundled / "part.000"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    done = on_node(bundled, tmp_path / "node")
    assert done.returncode == 2
    assert "damaged or incomplete" in done.stderr
