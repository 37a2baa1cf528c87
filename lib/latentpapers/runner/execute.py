"""Executes one job: checks its parameters, runs the notebook with papermill, scrubs, stamps.

Strict where papermill only warns: unknown or unread parameters, values of another type, stderr,
a configuration that is not the one asked for, library files outside the plan's closure.
"""

import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from latentpapers import config, paths, storage
from latentpapers.errors import Missing, UserError
from latentpapers.notebook import LIBRARY, clear
from latentpapers.runner import scrub, supervise
from latentpapers.runner.cells import read_notebook
from latentpapers.runner.parameters import injected, parameters
from latentpapers.runner.plan import Job, Plan

_THREADS = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM")
_LOADED_BY_LAUNCHER = {"runner/kernel.py"}


class NotebookFailed(UserError):
    """A notebook that did not run to its end, or ran against the rules."""


# --- running --------------------------------------------------------------------------------


def run(job: Job, plan: Plan, *, force: bool = False) -> Path:
    """Executes a job and returns its record; an up-to-date job is left alone.

    Raises:
        NotebookFailed: the notebook raised, wrote to stderr (quick) or broke a rule. What it
            did up to there is kept as `failed.ipynb`.
        UserError: parameters, or a job that another process is running.
    """
    record = plan.record(job)
    if record.is_file() and not force:
        return record
    _check_needs(job, plan)
    notebook = read_notebook(job.source)
    name = paths.relative(job.source)
    asked = {"preset": job.preset, "seed": job.seed}
    if job.device != "auto":  # else the notebook's own default stands
        asked["device"] = job.device
    values = injected(asked, json.loads(job.overrides), notebook, name)
    interrupted = (job.folder / "pid.json").is_file()
    with storage.writable(job.folder), supervise.claimed(job.folder, job.id):
        _prepare(job, plan, interrupted)
        started = time.perf_counter()
        executed = _execute(job, values, name)
        _accept(job, plan, executed, name)
        _write_runtime(job, time.perf_counter() - started)
        storage.write_json(record, stamp(job, plan))
    return record


def _prepare(job: Job, plan: Plan, interrupted: bool) -> None:
    """Removes what an earlier run left, but keeps checkpoints that this run may resume from.

    They must have been made under the same training key. Quick resumes an interrupted run alone,
    so that its outputs are always those of a whole run.
    """
    note, key = job.folder / "training.json", {"key": plan.training_key(job)}
    same = note.is_file() and json.loads(note.read_text()) == key
    resumes = same and (job.preset != "quick" or interrupted)
    if not resumes and job.preset != "quick":
        _supersede(job.folder / "checkpoints")
    clear(job.folder, keep_checkpoints=resumes)
    storage.write_json(note, key)


def _supersede(checkpoints: Path) -> None:
    """Puts checkpoints of other code aside, hours of work perhaps; the set before them goes."""
    if checkpoints.is_dir():
        aside = checkpoints.with_name("superseded")
        shutil.rmtree(aside, ignore_errors=True)
        checkpoints.rename(aside)


def _check_needs(job: Job, plan: Plan) -> None:
    have = {other.name for other in plan.needed(job) if plan.record(other).is_file()}
    missing = [n for n in job.needs if n not in have]
    if missing:
        raise Missing(
            f"{job.id} needs {', '.join(missing)} of the same preset, which is not up to date; "
            f"run `make reproduce PAPER={job.paper} PRESET={job.preset}`."
        )


def _execute(job: Job, values: dict[str, Any], name: str) -> dict[str, Any]:
    import nbformat

    source = nbformat.reads(job.source.read_text(), as_version=4)
    with tempfile.TemporaryDirectory(prefix="latentpapers-") as scratch:
        draft = Path(scratch) / "draft.ipynb"
        try:
            _papermill(job, source, draft, values, Path(scratch))
        except BaseException as error:
            cells = _keep_failed(job, draft)
            if isinstance(error, Exception):
                raise NotebookFailed(_sentence(name, error, cells, job)) from None
            raise
        return scrub.scrubbed(json.loads(draft.read_text()))


def _papermill(job: Job, source: Any, draft: Path, values: dict[str, Any], scratch: Path) -> None:
    import logging

    import papermill

    from latentpapers.runner.kernels import manager

    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    with (job.folder / "kernel.log").open("wb") as log:
        papermill.execute_notebook(
            source,
            str(draft).replace("{", "{{").replace("}", "}}"),  # papermill formats paths
            values,
            kernel_name="python3",
            language="python",
            km=manager(environment(job, scratch), log, scratch),
            progress_bar=False,
            request_save_on_cell_execute=False,
            cwd=job.source.parent,
        )


def environment(job: Job, scratch: Path) -> dict[str, str]:
    """The kernel's environment: threads and hashes pinned, no profile of the user's.

    Presets of shipped networks run on one thread, so that their numbers are bit-equal; the others
    take what the caller set.
    """
    env = dict(os.environ)
    equal = job.preset in config.FROM_SHIPPED
    threads = "1" if equal else env.get("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    env |= {f"{library}_NUM_THREADS": threads for library in _THREADS}
    lib = str(LIBRARY.parent)
    path = [lib, *(p for p in env.get("PYTHONPATH", "").split(os.pathsep) if p and p != lib)]
    return env | {
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": os.pathsep.join(path),
        "IPYTHONDIR": str(scratch / "ipython"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "LATENTPAPERS_ROOT": str(paths.root()),
        "LATENTPAPERS_OUT": str(paths.results()),
        "LATENTPAPERS_JOB": job.id,
        "LATENTPAPERS_RUN_ID": job.run_id,
        "LATENTPAPERS_NEEDS": ",".join(job.needs),
    }


def _keep_failed(job: Job, draft: Path) -> list[dict[str, Any]]:
    if not draft.is_file():
        return []
    notebook = scrub.scrubbed(json.loads(draft.read_text()))
    with contextlib.suppress(UserError):
        storage.write_text(job.folder / "failed.ipynb", scrub.text(notebook))
    return notebook["cells"]


def _sentence(name: str, error: Exception, cells: list[dict[str, Any]], job: Job) -> str:
    """One sentence: notebook, cell, line, error."""
    kept = paths.relative(job.folder / "failed.ipynb")
    for index, cell in enumerate(_own_cells(cells)):
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                line = _error_line(output.get("traceback", []), cell)
                text = " ".join(f"{output['ename']}: {output['evalue']}".split())
                return f"{name}, cell {index}{line}: {text[:400]} (see {kept})."
    text = " ".join(str(error).split())[:300] or type(error).__name__
    log = paths.relative(job.folder / "kernel.log")
    return f"{name}: the kernel ended early ({text}); its last words are in {log}."


def _own_cells(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the cells that papermill adds, so that an index counts as in the source."""
    added = {"injected-parameters", "papermill-error-cell-tag"}
    return [cell for cell in cells if not added & set(cell["metadata"].get("tags", []))]


def _error_line(traceback: list[str], cell: dict[str, Any]) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(traceback))
    found = re.search(r"^-+> ?(\d+) ", plain, re.MULTILINE)
    lines = "".join(cell["source"]).splitlines()
    if not found or int(found[1]) > len(lines):
        return ""
    return f" line {found[1]} `{lines[int(found[1]) - 1].strip()[:80]}`"


# --- accepting ------------------------------------------------------------------------------


def _accept(job: Job, plan: Plan, executed: dict[str, Any], name: str) -> None:
    """Every rule that a notebook which ran to its end can still break; then it is saved."""
    try:
        _check_outputs(job, executed, name)
        _check_config(job, name)
        _check_imports(job, plan, name)
        if Plan(plan.jobs).fingerprint(job) != plan.fingerprint(job):
            raise NotebookFailed(f"{name}: its inputs changed while it ran; run it again.")
    except UserError:
        storage.write_text(job.folder / "failed.ipynb", scrub.text(executed))
        raise
    storage.write_text(job.folder / "executed.ipynb", scrub.text(executed))


def _check_outputs(job: Job, executed: dict[str, Any], name: str) -> None:
    for index, cell in enumerate(_own_cells(executed["cells"])):
        for output in cell.get("outputs", []):
            if job.preset == "quick" and output.get("name") == "stderr":
                text = " ".join("".join(output["text"]).split())[:200]
                raise NotebookFailed(f"{name}, cell {index} wrote to stderr: {text}")


def _check_config(job: Job, name: str) -> None:
    file = job.folder / "config.json"
    if not file.is_file() or not (job.folder / "imports.json").is_file():
        raise NotebookFailed(
            f"{name} must begin with lp.begin({job.paper!r}, {job.notebook!r}, ...), without "
            "out_dir, and end with run.finish()."
        )
    found = json.loads(file.read_text())
    own = parameters(read_notebook(job.source))
    wrong = [k for k in json.loads(job.overrides) if k not in found["overrides"] and k not in own]
    if wrong:
        raise NotebookFailed(f"{name} ran without override {wrong[0]!r}; pass `overrides` on.")


def _check_imports(job: Job, plan: Plan, name: str) -> None:
    declared = {k.split("/", 2)[2] for k in plan.inputs(job) if k.startswith("lib/")}
    real = set(json.loads((job.folder / "imports.json").read_text())["library"])
    hidden = sorted(real - declared - _LOADED_BY_LAUNCHER)
    if hidden:
        raise NotebookFailed(
            f"{name} imported {', '.join(hidden[:3])}, which its source does not show; import it "
            "by name, so that a change of it reruns this notebook."
        )


# --- stamping -------------------------------------------------------------------------------


def stamp(job: Job, plan: Plan) -> dict[str, Any]:
    """What `record.<fp>.json` holds: everything the result was made from. No times, no paths."""
    inputs = plan.inputs(job)
    made = json.loads((job.folder / "config.json").read_text())
    imports = json.loads((job.folder / "imports.json").read_text())
    cells = {k: v for k, v in inputs.items() if k.startswith("cell ")}
    files = {f: inputs.get(f"lib/latentpapers/{f}") for f in imports["library"]}
    return {
        "fingerprint": plan.fingerprint(job),
        "job": job.id,
        "inputs": inputs,
        "code": storage.sha256(storage.dumps(cells).encode()),
        "library": {name: sha for name, sha in files.items() if sha},
        "data": {k[5:]: v for k, v in inputs.items() if k.startswith("data ")},
        "unread": imports["unread"],
        "config": made["digest"],
        "device": made["device"],
        "preset": job.preset,
        "seed": job.seed,
        "versions": versions(),
        "platform": f"{sys.platform} {os.uname().machine}",
    }


def versions() -> dict[str, str]:
    """Versions of the packages that can move a number."""
    from importlib import metadata

    names = "torch torchvision numpy scipy pandas scikit-image lpips mlxtend matplotlib pillow"
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in names.split():
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _write_runtime(job: Job, seconds: float) -> None:
    """Everything that changes between equal runs; the kernel left its own usage behind."""
    import socket

    usage = job.folder / "usage.json"
    facts = json.loads(usage.read_text()) | {"seconds": round(seconds, 2), "at": time.time()}
    storage.write_json(job.folder / "runtime.json", facts | {"host": socket.gethostname()})
    usage.unlink()
