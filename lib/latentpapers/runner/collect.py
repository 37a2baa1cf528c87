"""Distils the run folders of one (preset, paper) into what is committed. Needs no kernel.

Everything is made in memory first. A rerun that agrees with the committed results writes nothing;
one that does not is put into `runs/collected/` and named; `refresh` alone replaces what is
committed.
"""

import dataclasses
import io
import json
import math
import platform
import subprocess
from pathlib import Path
from typing import Any

from latentpapers import config, paths, storage
from latentpapers.errors import Missing, UserError
from latentpapers.runner import scrub
from latentpapers.runner.plan import Job, Plan, Request, jobs
from latentpapers.runner.pool import order, pooled

# Another CPU sums float32 in another order; a number without an interval may move this much,
ROUNDING = 1e-4
# and what is zero but for the rounding of float64 may become any other such number.
NOTHING = 1e-12
# The same for a figure's arrays: root mean square of the difference over that of the data.
FIGURE_ROUNDING = 1e-2


@dataclasses.dataclass
class Comparison:
    """New results against the committed ones, item by item (numbers, then figures' data)."""

    equal: list[str] = dataclasses.field(default_factory=list)
    within: list[str] = dataclasses.field(default_factory=list)
    differ: list[str] = dataclasses.field(default_factory=list)
    committed: bool = True
    foreign: bool = False  # the committed ones were made on another kind of CPU
    unlike: list[str] = dataclasses.field(default_factory=list)  # of `differ`: no rounding does it

    @property
    def same(self) -> bool:
        """Nothing moved at all."""
        return not self.within and not self.differ

    def text(self) -> str:
        """The line that `make reproduce` ends with."""
        if not self.committed:
            return "nothing is committed yet to compare with"
        counts = f"{len(self.equal)} bit-equal, {len(self.within)} within interval"
        text = f"compared with the committed results: {counts}, {len(self.differ)} differ"
        return text + _FOREIGN * (self.foreign and not self.same)


_FOREIGN = (
    "; they were made on another kind of CPU, whose rounding what is trained or searched inside a "
    "notebook carries beyond an interval"
)


@dataclasses.dataclass
class Collected:
    """What `collect` did: the comparison, and the folder that now holds the new results."""

    preset: str
    paper: str
    comparison: Comparison
    written: Path | None

    @property
    def red(self) -> bool:
        """Quick results that moved beyond their intervals; on another kind of CPU those alone that
        came, went or have another n or unit. Elsewhere seeds and GPUs may differ."""
        found = self.comparison
        return self.preset == "quick" and bool(found.unlike if found.foreign else found.differ)


def collect(request: Request, paper: str, *, refresh: bool = False) -> Collected:
    """Builds the results of one paper from its run folders, compares, and writes where due.

    Raises:
        Missing: a job of the plan has not run; UserError: refresh of a variant, two jobs with
            the same figure, an override that no notebook read.
    """
    plan = Plan(jobs(dataclasses.replace(request, papers=(paper,))))
    waiting = [job.id for job in plan.pending()]
    if waiting or not plan.jobs:
        what = ", ".join(waiting[:3]) or f"any job of {paper} in preset {request.preset}"
        raise Missing(f"nothing collected for {paper}: {what} has not run; see `make plan`.")
    check_unread(plan, paper)
    files = distil(plan, paper, request)
    target = paths.results() / request.preset / paper
    if request.variant:
        if refresh:
            raise UserError("a variant (overrides, run id) cannot become a committed result.")
        target = target / "runs" / request.variant / "collected"
        _write(target, files)
        return Collected(request.preset, paper, Comparison(committed=False), target)
    return _settle(request.preset, paper, files, target, plan, refresh)


def _settle(
    preset: str, paper: str, files: dict[str, bytes], target: Path, plan: Plan, refresh: bool
) -> Collected:
    home = paths.root() / "results" / preset / paper
    elsewhere = target != home
    comparison = compare(home, files) if tracked(home) else Comparison(committed=False)
    if refresh or elsewhere or not comparison.committed:
        _write(target, files)
        if refresh and preset == "quick":
            refresh_notebooks(plan)
        return Collected(preset, paper, comparison, target)
    if comparison.same:
        return Collected(preset, paper, comparison, None)
    target = target / "runs" / "collected"
    _write(target, files)
    return Collected(preset, paper, comparison, target)


def check_unread(plan: Plan, paper: str) -> None:
    """An override that none of a paper's notebooks read is an error: it changed nothing."""
    records = [json.loads(plan.record(job).read_text()) for job in plan.jobs]
    everywhere = set.intersection(*(set(r["unread"]) for r in records)) if records else set()
    if everywhere:
        names = ", ".join(map(repr, sorted(everywhere)))
        raise UserError(f"override {names} was read by no notebook of {paper}: it has no effect.")


# --- distilling -----------------------------------------------------------------------------


def distil(plan: Plan, paper: str, request: Request) -> dict[str, bytes]:
    """Relative path -> content of everything that is committed for one (preset, paper)."""
    rows = [r for job in plan.jobs for r in storage.read_jsonl(job.folder / "rows.jsonl")]
    rows = sorted(pooled(rows), key=order)
    files = {"metrics.jsonl": "".join(storage.dumps(r) + "\n" for r in rows).encode()}
    files |= _tables(plan, paper, rows)
    files |= _figures(plan, figures_kept(request.preset))
    if has_ledger(paper):
        files["claims.json"] = _claims(paper, rows, request.preset)
    if request.preset not in config.FROM_SHIPPED:  # what a GPU did is evidence; a CPU repeats it
        files |= {f"executed/{job.notebook}.s{job.seed}.ipynb":
                  (job.folder / "executed.ipynb").read_bytes() for job in plan.jobs}  # fmt: skip
    files["manifest.json"] = _manifest(plan, paper, request, files)
    return files


def has_ledger(paper: str) -> bool:
    """Whether a group of notebooks is a paper."""
    return (paths.root() / "notebooks" / paper / "ledger").is_dir()


def _tables(plan: Plan, paper: str, rows: list[dict[str, Any]]) -> dict[str, bytes]:
    if not has_ledger(paper):
        return {}
    from latentpapers import ledger
    from latentpapers.report import tables

    shown = {p.stem for job in plan.jobs for p in (job.folder / "tables").glob("*.json")}
    ids = shown | {r["id"] for r in rows if r["id"].startswith("table_")}
    book, files = (ledger.load(paper), {}) if ids else (None, {})
    for id in sorted(ids):
        made = tables.build(book, id, rows)
        files |= {f"tables/{id}{suffix}": content for suffix, content in made.items()}
    return files


def figures_kept(preset: str) -> str:
    """The pattern of the figures' ids that are committed: of cpu the plots of tables alone, for its
    pictures are those of the networks that quick shows."""
    return "table_*" if preset == "cpu" else "*"


def _figures(plan: Plan, kept: str) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    owner: dict[str, str] = {}
    for job in plan.jobs:  # of several seeds the first one's figure counts
        for note in sorted((job.folder / "figures").glob(f"{kept}.json")):
            if owner.setdefault(note.stem, job.notebook) != job.notebook:
                both = f"{owner[note.stem]} and by {job.notebook}"
                raise UserError(f"figure {note.stem} is made by {both}; keep one of them.")
            if f"figures/{note.name}" not in files:
                parts = (note.with_suffix(suffix) for suffix in (".png", ".npz", ".json"))
                files |= {f"figures/{part.name}": part.read_bytes() for part in parts}
    return files


def _claims(paper: str, rows: list[dict[str, Any]], preset: str) -> bytes:
    from latentpapers import ledger
    from latentpapers.ledger import verdicts

    decided = verdicts.decide_all(rows, preset, ledger.load(paper))
    return _json([verdict.as_dict() for verdict in decided])


def _manifest(plan: Plan, paper: str, request: Request, files: dict[str, bytes]) -> bytes:
    stamps = {job.name: json.loads(plan.record(job).read_text()) for job in plan.jobs}
    return _json({
        "paper": paper,
        "preset": request.preset,
        "seeds": list(request.seeds),
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "processor": processor(),
        "jobs": stamps,
        "files": {name: storage.sha256(content) for name, content in sorted(files.items())},
    })  # fmt: skip


def _git(*words: str) -> str | None:
    """What git says in the checkout; None without git or outside a repository."""
    try:
        asked = ["git", "-C", str(paths.root()), *words]
        found = subprocess.run(asked, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def _json(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=2)
    return (text + "\n").encode()


# --- comparing ------------------------------------------------------------------------------


def tracked(folder: Path) -> bool:
    """Whether a folder's results are committed. Without git, what is there counts as committed."""
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return False
    listed = _git("ls-files", "--", str(manifest))
    return listed is None or bool(listed)


def compare(folder: Path, files: dict[str, bytes]) -> Comparison:
    """New results (as `distil` makes them) against those in `folder`."""
    result = Comparison()
    old = {_key(r): r for r in storage.read_jsonl(folder / "metrics.jsonl")}
    new = {_key(r): r for r in map(json.loads, files["metrics.jsonl"].split(b"\n")[:-1])}
    for key in sorted(old.keys() | new.keys(), key=str):
        name = " / ".join(str(part) for part in key)
        getattr(result, _verdict(old.get(key), new.get(key))).append(name)
        if not _same_setting(old.get(key), new.get(key)):
            result.unlike.append(name)
    figures = {n for n in files if n.endswith(".npz")}
    figures |= {p.relative_to(folder).as_posix() for p in folder.glob("figures/*.npz")}
    for name in sorted(figures):
        before = (folder / name).read_bytes() if (folder / name).is_file() else None
        getattr(result, _figure_verdict(before, files.get(name))).append(name)
        if None in (before, files.get(name)):
            result.unlike.append(name)
    manifest = folder / "manifest.json"
    before = json.loads(manifest.read_bytes()).get("processor") if manifest.is_file() else None
    result.foreign = before not in (None, processor())
    return result


def processor(path: Path = Path("/proc/cpuinfo")) -> str:
    """The kind of this machine's CPU, as far as it decides in which order kernels sum: its maker
    and its vector instructions on Linux, else what Python knows."""
    if not path.is_file():
        return " ".join(filter(None, (platform.machine(), platform.processor())))
    lines = [line.partition(":") for line in path.read_text(errors="replace").splitlines()]
    told = {name.strip().lower(): text.strip() for name, _, text in reversed(lines)}
    maker = told.get("vendor_id") or told.get("cpu implementer", "")
    words = (told.get("flags") or told.get("features", "")).split()
    vector = sorted(w for w in words if w.startswith(("avx", "amx", "fma", "asimd", "sve", "bf16")))
    return " ".join([platform.machine(), maker, *vector])


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[k] for k in ("id", "row", "column", "metric", "seed"))


def _verdict(old: dict[str, Any] | None, new: dict[str, Any] | None) -> str:
    if old is None or new is None:
        return "differ"
    if old == new:
        return "equal"
    rounding = max(NOTHING, ROUNDING * abs(old["value"]))
    close = abs(old["value"] - new["value"]) <= rounding
    inside = _inside(new["value"], old) or _inside(old["value"], new)
    return "within" if _same_setting(old, new) and (close or inside) else "differ"


def _same_setting(old: dict[str, Any] | None, new: dict[str, Any] | None) -> bool:
    return bool(old and new) and (old["n"], old["unit"]) == (new["n"], new["unit"])


def _inside(value: float, row: dict[str, Any]) -> bool:
    return row["lo"] is not None and row["hi"] is not None and row["lo"] <= value <= row["hi"]


def _figure_verdict(old: bytes | None, new: bytes | None) -> str:
    if old is None or new is None:
        return "differ"
    if old == new:
        return "equal"
    import numpy as np

    with np.load(io.BytesIO(old)) as a, np.load(io.BytesIO(new)) as b:
        if set(a.files) != set(b.files):
            return "differ"
        return "within" if all(_alike(a[k], b[k]) for k in a.files) else "differ"


def _alike(a: Any, b: Any) -> bool:
    import numpy as np

    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind not in "fiub":
        return bool(np.array_equal(a, b))
    a, b = a.astype(np.float64), b.astype(np.float64)
    error, size = (float(np.sqrt(np.mean(x**2))) if x.size else 0.0 for x in (a - b, a))
    return math.isfinite(error) and error <= FIGURE_ROUNDING * max(size, 1e-12)


# --- writing --------------------------------------------------------------------------------


def _write(target: Path, files: dict[str, bytes]) -> None:
    """Each file atomically, the manifest last; files that are no longer made go."""
    for name in sorted(files, key=lambda n: n == "manifest.json"):
        path = target / name
        if not path.is_file() or path.read_bytes() != files[name]:
            storage.write_bytes(path, files[name])
    for folder in ("tables", "figures", "executed"):
        for path in (target / folder).glob("*"):
            if path.relative_to(target).as_posix() not in files:
                path.unlink()


def refresh_notebooks(plan: Plan) -> None:
    """Puts the outputs of executed quick notebooks into the committed ones, sources untouched."""
    for job in plan.jobs:
        source = json.loads(job.source.read_text())
        executed = json.loads((job.folder / "executed.ipynb").read_text())
        text = scrub.text(scrub.as_committed(executed, source))
        if text != job.source.read_text():
            storage.write_text(job.source, text)


def job_states(plan: Plan) -> list[tuple[Job, str]]:
    """Each job with the reason why it is out of date, empty if it is not."""
    return [(job, plan.reason(job)) for job in plan.jobs]
