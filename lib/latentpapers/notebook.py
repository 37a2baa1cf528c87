"""`lp.begin` and what it returns: one run of one notebook, with everything it writes.

    run = lp.begin("avae", "3_tables", preset=preset, seed=seed, device=device)
    run.record("table_1", "Ours", "IS digits", "is_digitsnet_n5000", 7.9, lo=7.8, hi=8.0, ...)
    run.figure("fig_1", fig, data={"samples": samples}, scale=scale)
    run.finish()

A run writes into its own folder alone (docs/architecture.md, "One job, one folder, one record").
Started by a reader or by the runner it does the same.
"""

import contextlib
import dataclasses
import importlib
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentpapers import config as presets
from latentpapers import paths, storage
from latentpapers.errors import Corrupt, Missing, UnknownName, UserError

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

TRAINING = "2_training"
LIBRARY = Path(__file__).resolve().parent
_MAX_LINES = 12


@dataclasses.dataclass(frozen=True)
class NoPreset:
    """The configuration of a notebook that has nothing to set (`start_here`, `across`)."""


def job_folder(preset: str, paper: str, notebook: str, seed: int, run_id: str = "") -> Path:
    """Where a job writes: `results/<preset>/<paper>/runs/[<run_id>/]<notebook>/s<seed>`."""
    return paths.results() / preset / paper / "runs" / run_id / notebook / f"s{seed}"


_OURS = ("rows.jsonl", "imports.json", "config.json", "training.json", "usage.json",
         "executed.ipynb", "failed.ipynb", "figures", "tables")  # fmt: skip
_KEPT = ("lock", "pid.json", "runtime.json", "kernel.log", "superseded")


def clear(folder: Path, *, keep_checkpoints: bool, everything: bool = True) -> None:
    """Removes what an earlier run left in a job's folder.

    Args:
        folder: the job's folder; need not exist.
        keep_checkpoints: so that a training can resume.
        everything: also what the notebook wrote on its own.
    """
    import shutil

    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        ours = entry.name in _OURS or entry.name.startswith("record.")
        stays = entry.name in _KEPT or not (ours or everything)
        if stays or (keep_checkpoints and entry.name == "checkpoints"):
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def room_files(paper: str, library: Path = LIBRARY) -> list[Path]:
    """The files of a paper's room, its `__init__.py` first; none of a notebook folder without a
    room (`across`)."""
    return sorted((library / "papers" / paper).glob("*.py"))


def preset_table(paper: str) -> dict[str, Any]:
    """The presets of a paper: `latentpapers.papers.<paper>.PRESETS`.

    A notebook folder without a room of its own (`across`) has every preset, all empty.

    Raises:
        UnknownName: neither a room nor a notebook folder of that name.
    """
    # Its files, not find_spec, which would import the rooms' package into runs that need no room.
    if room_files(paper):
        return importlib.import_module(f"latentpapers.papers.{paper}").PRESETS
    known = {p.name for p in (paths.root() / "notebooks").iterdir() if p.is_dir()} | {"start"}
    if paper not in known:
        raise UnknownName("paper", paper, known)
    return dict.fromkeys(presets.NAMES, NoPreset())


def resolve(paper: str, preset: str, overrides: dict[str, Any] | None = None) -> Any:
    """The preset of a paper with overrides applied.

    Raises:
        UnknownName: paper, preset or parameter; UserError: a value of the wrong type.
    """
    return presets.resolve(presets.checked_preset(preset_table(paper), preset), overrides)


def pick_device(device: str, preset: str) -> tuple[str, str]:
    """(torch device, its name for labels) for `auto`, `cpu`, `cuda` or `cuda:1`.

    `auto` is the CPU for quick and cpu, whose committed numbers are bit-equal on one kind of
    machine (and so that a derivation need not load torch), else the first GPU if there is one.

    Raises:
        UserError: a GPU was asked for by name and there is none.
    """
    if device == "cpu" or (device == "auto" and preset in presets.FROM_SHIPPED):
        return "cpu", "cpu"
    if device != "auto" and device.split(":")[0] != "cuda":
        raise UnknownName("device", device, ("auto", "cpu", "cuda", "cuda:<n>"))
    import torch

    wanted = int(device.partition(":")[2] or 0)
    if wanted < (torch.cuda.device_count() if torch.cuda.is_available() else 0):
        # `cuda` alone means all of them: a training then shares its work
        where = f"cuda:{wanted}" if ":" in device else "cuda"
        return where, torch.cuda.get_device_name(wanted)
    if device == "auto":
        return "cpu", "cpu"
    raise UserError(f"device {device!r} was asked for and torch sees no such GPU; use device=auto.")


def pin_threads() -> None:
    """Holds torch to OMP_NUM_THREADS threads; a torch loaded later reads the variable itself."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(wanted))


def begin(
    paper: str,
    notebook: str,
    *,
    preset: str = "quick",
    seed: int = 0,
    device: str = "auto",
    data: str = "",
    out_dir: str = "",
    run_id: str = "",
    overrides: dict[str, Any] | None = None,
    picture_bytes: int = 60_000,
) -> "Run":
    """Opens a run: resolves the preset, picks the device, writes `config.json`, prints both.

    Args:
        paper, notebook: `avae`, `3_tables`.
        preset: quick | cpu | gpu | paper.
        seed: seed of every random stream of this run.
        device: auto | cpu | cuda | cuda:<n>.
        data: a packed data set that replaces the preset's own (its `data` field), empty for none.
        out_dir: folder to write to, empty for the job's own.
        run_id: a name for a variant, kept apart from the standard run; empty takes the runner's.
        overrides: `{"table.steps": 10}`, validated against the preset.
        picture_bytes: largest inline picture, so that a notebook with its outputs stays below
            700 kB; a notebook with many pictures asks for less.

    Raises:
        UnknownName: paper, preset, parameter or device; UserError: a wrong type, a missing GPU.
    """
    changes = dict(overrides or {}) | ({"data": data} if data else {})
    resolved = resolve(paper, preset, changes)
    seed = presets.typed("seed", seed, int)
    where, name = pick_device(device, preset)
    pin_threads()
    run_id = run_id or os.environ.get("LATENTPAPERS_RUN_ID", "")
    _check_job("/".join(filter(None, [preset, paper, run_id, notebook, f"s{seed}"])))
    folder = Path(out_dir) if out_dir else job_folder(preset, paper, notebook, seed, run_id)
    run = Run(paper, notebook, preset, seed, where, name, folder, resolved, changes, run_id)
    run._open()
    small_pictures(picture_bytes)
    return run


def small_pictures(limit: int) -> None:
    """Holds inline pictures to `limit` bytes: by a palette or as JPEG, then by size.

    A picture that cannot be held to it (noise, many sharp photographs) may take up to four times
    as much: how large a picture shows must not decide whether a run succeeds. Only in a kernel,
    and only if the notebook imported pyplot before.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if not getattr(shell, "kernel", None) or "matplotlib.pyplot" not in sys.modules:
        return
    from matplotlib.figure import Figure

    # the inline backend registers its own formatter when it is first set up: do that now
    shell.run_line_magic("matplotlib", "inline")
    left: dict[Figure, bytes] = {}  # from one formatter to the other, within one display

    def png(fig: Figure) -> bytes | None:
        kind, content = _inline(fig, limit)
        if kind == "image/jpeg":
            left[fig] = content
            return None
        return content

    def jpeg(fig: Figure) -> bytes | None:
        return left.pop(fig, None)

    formatters = shell.display_formatter.formatters
    formatters["image/png"].for_type(Figure, png)
    formatters["image/jpeg"].for_type(Figure, jpeg)  # IPython asks for it after PNG


def _inline(fig: "Figure", limit: int) -> tuple[str, bytes]:
    from latentpapers.report import figures

    for bound in (limit, 2 * limit):
        with contextlib.suppress(UserError):
            return figures.inline_bytes(fig, bound)
    return figures.inline_bytes(fig, 4 * limit)


def _check_job(opened: str) -> None:
    """A notebook that ignores its parameters must not write into another job's folder."""
    asked = os.environ.get("LATENTPAPERS_JOB", opened)
    if asked != opened:
        raise UserError(
            f"the runner asked for {asked}, but this notebook opened {opened}; pass preset and "
            "seed from the parameters cell on to lp.begin."
        )


@dataclasses.dataclass
class Run:
    """One run of one notebook. `config` is the resolved preset (read-only), `out` its folder."""

    paper: str
    notebook: str
    preset: str
    seed: int
    device: str
    device_name: str
    out: Path
    resolved: Any
    overrides: dict[str, Any]
    run_id: str = ""

    def __post_init__(self) -> None:
        self.config = presets.Tracked(self.resolved)
        self.rows: list[dict[str, Any]] = []
        self._ids: dict[str, list[str]] = {"figures": [], "tables": []}

    # -- opening ---------------------------------------------------------------------------

    @property
    def label(self) -> str:
        """What is known of the scale before anything ran; each number carries its full Scale."""
        return f"{self.preset} · {self.device_name} · seed {self.seed}"

    def _open(self) -> None:
        if "LATENTPAPERS_JOB" not in os.environ:
            self._start_over()
        storage.write_json(self.out / "config.json", self.described())
        print("\n".join(self._summary()))

    def _start_over(self) -> None:
        """Outside the runner nothing vouches for what an earlier run left in this folder.

        Quick trains anew in seconds; elsewhere the engine itself refuses a checkpoint of another
        configuration. A folder that the reader chose loses nothing but our own files.
        """
        own = self.out.resolve() == self._standard_folder().resolve()
        clear(self.out, keep_checkpoints=self.preset != "quick", everything=own)

    def _standard_folder(self) -> Path:
        return job_folder(self.preset, self.paper, self.notebook, self.seed, self.run_id)

    def described(self) -> dict[str, Any]:
        """What `config.json` holds; the runner compares it with what it asked for."""
        return {
            "paper": self.paper,
            "notebook": self.notebook,
            "preset": self.preset,
            "seed": self.seed,
            "device": self.device_name,
            "run_id": self.run_id,
            "overrides": self.overrides,
            "config": presets.as_dict(self.resolved),
            "digest": presets.digest(self.resolved),
            "label": self.label,
        }

    def _summary(self) -> list[str]:
        groups: dict[str, list[str]] = {}
        for name, value in presets.flat(self.resolved).items():
            group, _, field = name.rpartition(".")
            groups.setdefault(group, []).append(f"{field}={_short(value)}")
        lines = [f"{self.paper} · {self.notebook} · {self.label}"]
        for group, fields in groups.items():
            lines += _wrapped(f"{group}: " if group else "", fields)
        if len(lines) > _MAX_LINES:
            hidden = len(lines) - _MAX_LINES + 1
            lines = [*lines[: _MAX_LINES - 1], f"(and {hidden} lines more in config.json)"]
        return lines

    # -- writing ---------------------------------------------------------------------------

    def record(
        self,
        id: str,
        row: str,
        column: str,
        metric: str,
        value: float,
        lo: float | None = None,
        hi: float | None = None,
        *,
        interval: str,
        n: int,
        scale: presets.Scale,
        unit: str = "",
        seed: int | None = None,
    ) -> float:
        """Records one number of table or figure `id` and returns it.

        Args:
            id: `table_1`, `fig_3`.
            row, column: its place there, spelled as in the ledger.
            metric: protocol id known to the ledger; it brings the direction.
            value, lo, hi: the number and its interval.
            interval: how the interval was made; `none: <reason>` if there is none.
            n: size of the sample behind the interval.
            scale: at which scale the number was made.
            unit: printed after the number.
            seed: training seed behind the number; None is this run's own.

        Raises:
            UnknownName: a metric without a protocol, an id that the ledger does not have.
            UserError: NaN or infinity, no interval and no reason for that, the same number
                twice.
        """
        protocol = _protocol(metric)
        _check_id(self.paper, id)
        _check_number(f"{id} / {row} / {column}", value, lo, hi, interval)
        entry = {
            "paper": self.paper, "id": id, "row": row, "column": column, "metric": metric,
            "value": float(value), "lo": _float(lo), "hi": _float(hi), "interval": interval,
            "n": int(n), "unit": unit, "direction": protocol.direction, "seed": self._seed(seed),
            "scale": presets.as_dict(scale),
        }  # fmt: skip
        key = ("id", "row", "column", "metric", "seed")
        if any(all(old[k] == entry[k] for k in key) for old in self.rows):
            raise UserError(f"{id} / {row} / {column} ({metric}) was recorded twice in this run.")
        self.rows.append(entry)
        return entry["value"]

    def figure(
        self,
        id: str,
        fig: Any,
        data: "dict[str, np.ndarray]",
        scale: presets.Scale,
        caption: str = "",
    ) -> Path:
        """Saves figure `id` as PNG with its scale label as footer, and the data behind it.

        Args:
            id: `fig_1`, `fig_A1`.
            fig: a matplotlib figure.
            data: the arrays that are drawn.
            scale: printed as the footer.
            caption: one sentence for the gallery.
        """
        from latentpapers.report import figures

        target = self.out / "figures" / f"{id}.png"
        figures.save(fig, target, footer=scale.text(), data=data)
        note = {"caption": caption, "scale": presets.as_dict(scale), "label": scale.text()}
        storage.write_json(target.with_suffix(".json"), note)
        self._ids["figures"].append(id)
        return target

    def table(self, id: str) -> Any:
        """Table `id`: ours (mean, interval, n) beside the paper's value, styled for the notebook.

        Its rows are those recorded here and those of the training jobs of this preset.
        """
        from latentpapers import ledger
        from latentpapers.report import tables

        rows = [r for r in self._visible_rows() if r["id"] == id]
        named = sorted({(r["row"], r["column"], r["metric"]) for r in rows})
        storage.write_json(self.out / "tables" / f"{id}.json", {"id": id, "rows": named})
        self._ids["tables"].append(id)
        book = ledger.load(self.paper)
        compared = tables.compare(book, id, rows)
        return tables.View(compared, tables.caption(book, id, rows), tables.common_scale(rows))

    def value(self, id: str, row: str, column: str) -> tuple[float, float | None, float | None]:
        """(value, lo, hi) of a number recorded in this run; over seeds where it has several.

        Raises:
            UserError: no such number, or one under several protocols.
        """
        place = (id, row, column)
        found = [r for r in self._visible_rows() if (r["id"], r["row"], r["column"]) == place]
        found = [r for r in found if r["seed"] is None] or found
        if len(found) != 1:
            raise UserError(f"{' / '.join(place)} names {len(found)} recorded numbers, not one.")
        return found[0]["value"], found[0]["lo"], found[0]["hi"]

    def _visible_rows(self) -> list[dict[str, Any]]:
        from latentpapers.runner.pool import pooled

        trained = self.notebook != TRAINING and not self.shipped
        others = self.rows_of(TRAINING) if trained and self._has(TRAINING) else []
        return pooled(others + self.rows)

    # -- reading ---------------------------------------------------------------------------

    @property
    def shipped(self) -> bool:
        """Whether this preset reads the shipped networks instead of training its own."""
        return self.preset in presets.FROM_SHIPPED

    @property
    def runs(self) -> Path:
        """The folder that holds the jobs of this preset, paper and variant."""
        return self._standard_folder().parent.parent

    def rows_of(self, notebook: str) -> list[dict[str, Any]]:
        """The rows that the jobs of another notebook recorded in this preset, all seeds.

        Under the runner only jobs that this one was planned to depend on can be read.

        Raises:
            Missing: no such job ran.
        """
        folders = self._needed(notebook)
        missing = [f for f in folders if not (f / "rows.jsonl").is_file()]
        if missing or not folders:
            raise Missing(
                f"{self.notebook} needs the rows of {notebook} in preset {self.preset}; run "
                f"`make reproduce PAPER={self.paper} PRESET={self.preset}`."
            )
        return [row for f in folders for row in storage.read_jsonl(f / "rows.jsonl")]

    def _needed(self, notebook: str) -> list[Path]:
        declared = os.environ.get("LATENTPAPERS_NEEDS")
        if declared is None:
            return sorted((self.runs / notebook).glob("s*"), key=lambda p: int(p.name[1:]))
        names = [n for n in declared.split(",") if n.partition("/")[0] == notebook]
        return [self.runs / name for name in names]

    def _has(self, notebook: str) -> bool:
        return bool(self._needed(notebook))

    def checkpoint(self, name: str, seed: int | None = None) -> Path:
        """The file of network `name`: trained by this preset, or (quick, cpu) shipped.

        Args:
            name: `ours`, or `lag/x4` for another paper's.
            seed: training seed, None is this run's own. Shipped are `ours_s0.safetensors`, or
                `ours.safetensors` where there is but one.

        Raises:
            Missing: with the command that brings it; Corrupt: not a safetensors file.
        """
        paper, _, name = name.rpartition("/")
        paper, seed = paper or self.paper, self._seed(seed)
        if self.shipped:
            folder = paths.checkpoints() / paper
            of_seed = folder / f"{name}_s{seed}.safetensors"
            file = of_seed if of_seed.is_file() else folder / f"{name}.safetensors"
            remedy = "a complete checkout holds it: `git checkout -- results/checkpoints`"
            seeds = [p.stem.rpartition("_s")[2] for p in sorted(folder.glob(f"{name}_s[0-9]*"))]
            if seeds and str(seed) not in seeds:
                remedy = f"what is shipped of it: SEEDS={','.join(seeds)}"
        else:
            job = job_folder(self.preset, paper, TRAINING, seed, self.run_id)
            file = job / "checkpoints" / f"{name}.safetensors"
            remedy = f"train it: `make reproduce PAPER={paper} PRESET={self.preset} SEEDS={seed}`"
            self._check_declared(paper, seed)
        if not file.is_file():
            raise Missing(f"checkpoint {paths.relative(file)} is missing; {remedy}.")
        _check_safetensors(file, remedy)
        return file

    def _check_declared(self, paper: str, seed: int) -> None:
        """Under the runner a network counts as read only if the plan made this job wait for it."""
        declared = os.environ.get("LATENTPAPERS_NEEDS")
        own = paper == self.paper and self.notebook != TRAINING
        if declared is not None and own and f"{TRAINING}/s{seed}" not in declared.split(","):
            raise Missing(
                f"{self.notebook} reads the training of seed {seed}, which is not in this plan; "
                f"name it: SEEDS={seed}."
            )

    @property
    def training_seeds(self) -> tuple[int, ...]:
        """The seeds whose training this run may read, in order."""
        return tuple(int(folder.name[1:]) for folder in self._needed(TRAINING))

    def _seed(self, seed: int | None) -> int:
        return self.seed if seed is None else seed

    # -- closing ---------------------------------------------------------------------------

    def finish(self) -> None:
        """Closes the run: writes its rows and what it imported, prints one line.

        Raises:
            UserError: an override that nothing read (a parameter without effect). Under the
                runner it is written down instead, because another notebook of the plan may be
                the one that reads it; the runner raises if none does.
        """
        unread = self.config.unread(list(self.overrides))
        if unread and "LATENTPAPERS_JOB" not in os.environ:
            raise UserError(
                f"override {', '.join(map(repr, unread))} was never read by {self.notebook}: it "
                "has no effect here; drop it."
            )
        storage.write_jsonl(self.out / "rows.jsonl", self.rows)
        storage.write_json(self.out / "usage.json", _usage())
        imported = {"library": imported_library(), "unread": unread, **self._ids}
        storage.write_json(self.out / "imports.json", imported)
        counts = [(len(self.rows), "number"), *((len(v), k[:-1]) for k, v in self._ids.items())]
        print("recorded " + ", ".join(f"{n} {what}{'s' * (n != 1)}" for n, what in counts))


def imported_library() -> list[str]:
    """The files of this library that the process imported, relative to the library's folder."""
    files = (getattr(m, "__file__", None) for m in list(sys.modules.values()))
    inside = (Path(f).resolve() for f in files if f)
    return sorted({f.relative_to(LIBRARY).as_posix() for f in inside if f.is_relative_to(LIBRARY)})


def show_source(obj: Any) -> Any:
    """The source of a library function or class as a static Markdown cell, with its place.

    Above it stand links to the file and, for equations, to the section that derives them.

    Args:
        obj: a function or class of this library.

    Raises:
        UserError: an object without Python source.
    """
    import inspect

    from IPython.display import Markdown

    target = inspect.unwrap(obj)
    try:
        lines, start = inspect.getsourcelines(target)
        file = Path(inspect.getsourcefile(target) or "").resolve()
    except (TypeError, OSError) as error:
        raise UserError(f"{obj!r} has no Python source to show.") from error
    inside = file.is_relative_to(LIBRARY)
    place = file.relative_to(LIBRARY.parent).as_posix() if inside else file.name
    named = f"[`{place}:{start}`](../../lib/{place})" if inside else f"`{place}:{start}`"
    head = " · ".join([named, *_derived(target)])
    return Markdown(f"{head}\n\n```python\n{''.join(lines).rstrip()}\n```")


def _derived(target: Any) -> list[str]:
    """Links to the sections that derive what a function implements."""
    from latentpapers.ledger.implements import section

    marks = getattr(target, "__implements__", ())
    return [f"[equation {eq} of {p}](../{p}/{section(p, eq)})" for p, eq in marks]


def _usage() -> dict[str, float]:
    """Peak memory and processor time of this kernel and of processes that it waited for."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    own, below = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    times = (own.ru_utime, own.ru_stime, below.ru_utime, below.ru_stime)
    memory = max(own.ru_maxrss, below.ru_maxrss) * unit / 1e6
    return {"memory_mb": round(memory), "cpu_seconds": round(sum(times), 2)}


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _wrapped(head: str, fields: list[str], width: int = 96) -> list[str]:
    import textwrap

    return textwrap.wrap(
        head + " ".join(fields), width, subsequent_indent=" " * len(head) or "  ",
        break_on_hyphens=False,
    )  # fmt: skip


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def _protocol(metric: str) -> Any:
    from latentpapers import ledger

    known = ledger.metrics()
    if metric not in known:
        raise UnknownName("metric", metric, known)
    return known[metric]


def _check_id(paper: str, id: str) -> None:
    """A paper's numbers belong to a place that its ledger knows; other groups have no ledger."""
    from latentpapers import ledger

    if paper in ledger.papers() and id not in (known := ledger.load(paper).ids()):
        raise UnknownName(f"table, figure or measure of {paper}:", id, known)


def _check_number(where: str, value: Any, lo: Any, hi: Any, interval: str) -> None:
    bounds = [v for v in (lo, hi) if v is not None]
    if not all(math.isfinite(v) for v in (value, *bounds)):
        raise UserError(f"{where}: {value} [{lo}, {hi}] is not a finite number.")
    if not interval or (len(bounds) < 2 and not interval.startswith("none: ")):
        raise UserError(f"{where}: a number without lo and hi needs interval='none: <reason>'.")
    # The value may lie beside a percentile bootstrap's interval: a biased statistic's does.
    if len(bounds) == 2 and lo > hi:
        raise UserError(f"{where}: the interval [{lo}, {hi}] is upside down.")


def _check_safetensors(file: Path, remedy: str) -> None:
    """Reads the header alone: a truncated or foreign file is named before any network is built."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        head = stream.read(length) if 8 + length <= size else b""
    try:
        entries = {k: v for k, v in json.loads(head).items() if k != "__metadata__"}
        end = 8 + length + max((v["data_offsets"][1] for v in entries.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Corrupt(f"{paths.relative(file)} is no safetensors file; {remedy}.") from error
    if end != size:
        raise Corrupt(f"{paths.relative(file)} is cut short or has a tail; {remedy}.")
