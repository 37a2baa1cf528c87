"""The plan: which jobs a preset has, what each one needs, and which are out of date.

A job is up to date exactly if its folder holds `record.<fingerprint>.json`. The fingerprint covers
everything that decides the result and nothing else (docs/architecture.md).
"""

import ast
import functools
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentpapers import config, data, paths, storage
from latentpapers.data.downloads import mark
from latentpapers.errors import UnknownName, UserError
from latentpapers.notebook import TRAINING, job_folder, room_files
from latentpapers.runner.cells import code_cells, python_only, read_notebook
from latentpapers.runner.closure import LIBRARY, PACKAGE, behind, closure
from latentpapers.runner.parameters import parameters

START = "start"  # the group of notebooks/start_here.ipynb
_NUMBERED = re.compile(r"[1-5]_\w+")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
_VARIANT = re.compile(r"[A-Za-z0-9][\w-]*", re.ASCII)
_QUICK_ONLY = ("1_", "5_")
_FROM_RESULTS = ("3_", "4_")
# What a budget multiplies where it multiplies `seconds`: how long a training may last at most, and
# where in it phases end or rates fall. What is 0 (off, or "over all steps") stays 0.
_LASTING = ("steps", "phase", "start_images", "fade_images", "hold_images", "diversity_steps",
            "halve_every", "halve_at")  # fmt: skip
# Before a first run: (seconds, MB) by preset.
_GUESS = {
    "quick": (40.0, 2500), "cpu": (400.0, 4000), "gpu": (900.0, 24000), "paper": (36000.0, 48000),
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One notebook, executed once: (paper, notebook, preset, seed).

    Attributes:
        needs: `<notebook>/s<seed>` of the jobs of the same paper that must have run.
        overrides: canonical JSON of the preset overrides, `{}` for none.
        device: asked for; not part of the fingerprint (the record names the one used).
        run_id: name of a variant, empty for the standard run.
    """

    paper: str
    notebook: str
    preset: str
    seed: int
    needs: tuple[str, ...] = ()
    overrides: str = "{}"
    device: str = "auto"
    run_id: str = ""

    @property
    def name(self) -> str:
        """`<notebook>/s<seed>`, unique within paper, preset and variant."""
        return f"{self.notebook}/s{self.seed}"

    @property
    def id(self) -> str:
        """`<preset>/<paper>/<notebook>/s<seed>`, with the variant where there is one."""
        return "/".join(filter(None, [self.preset, self.paper, self.run_id, self.name]))

    @property
    def source(self) -> Path:
        """The notebook."""
        return notebook_path(self.paper, self.notebook)

    @property
    def folder(self) -> Path:
        """Where the job writes."""
        return job_folder(self.preset, self.paper, self.notebook, self.seed, self.run_id)

    def record(self, fingerprint: str) -> Path:
        """The file whose presence means up to date."""
        return self.folder / f"record.{fingerprint}.json"


def notebook_path(paper: str, notebook: str) -> Path:
    """`notebooks/<paper>/<notebook>.ipynb`, or directly in `notebooks/` for the start page."""
    folder = paths.root() / "notebooks"
    return (folder if paper == START else folder / paper) / f"{notebook}.ipynb"


def papers() -> list[str]:
    """Every group of notebooks: papers, `across`, `metrics`, and `start`."""
    folder = paths.root() / "notebooks"
    groups = sorted(p.name for p in folder.iterdir() if p.is_dir() and any(p.glob("*.ipynb")))
    return groups + [START] * any(folder.glob("*.ipynb"))


def notebooks(paper: str) -> list[str]:
    """The notebooks of a group, in order.

    A paper (a folder with a ledger) has its numbered ones alone; other groups all.

    Raises:
        UnknownName: no such group.
    """
    folder = paths.root() / "notebooks"
    known = {p.name for p in folder.iterdir() if p.is_dir()}
    known |= {START} if any(folder.glob("*.ipynb")) else set()
    if paper not in known:
        raise UnknownName("paper", paper, known)
    files = folder.glob("*.ipynb") if paper == START else (folder / paper).glob("*.ipynb")
    names = sorted(f.stem for f in files)
    is_paper = (folder / paper / "ledger").is_dir()
    return [n for n in names if _NUMBERED.fullmatch(n) or not is_paper]


@dataclass(frozen=True)
class Request:
    """What is asked for on the command line; the same request always makes the same plan.

    Attributes:
        preset: quick | cpu | gpu | paper.
        papers: groups of notebooks, empty for all.
        seeds: training seeds.
        overrides: `{"table.steps": 10}`; each must be known to the preset or to a notebook.
        device: auto | cpu | cuda | cuda:<n>.
        budget: multiplies every field of the preset that is called `seconds`, and beside it the
            fields that count how long a training lasts and where its phases end.
        run_id: name of a variant. With overrides or a budget there always is one: a variant has
            folders of its own and cannot touch the standard results.
    """

    preset: str = "quick"
    papers: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    overrides: dict[str, Any] = field(default_factory=dict)
    device: str = "auto"
    run_id: str = ""
    budget: float = 1.0

    @property
    def variant(self) -> str:
        """`run_id`, or a name made from what was changed."""
        if self.run_id or (not self.overrides and self.budget == 1):
            return self.run_id
        changed = storage.dumps([self.overrides, self.budget]).encode()
        return f"o-{storage.sha256(changed)[:8]}"

    def arguments(self) -> list[str]:
        """Command-line words that make this request again (without the papers)."""
        seeds = ",".join(map(str, self.seeds))
        words = ["--preset", self.preset, "--seeds", seeds, "--device", self.device]
        words += [w for k, v in self.overrides.items() for w in ("--set", f"{k}={json.dumps(v)}")]
        words += ["--budget", str(self.budget)] if self.budget != 1 else []
        return words + (["--run-id", self.run_id] if self.run_id else [])


def jobs(request: Request) -> list[Job]:
    """The jobs of a request, each after those it needs.

    Seeds multiply `2_training` alone. Derivations, explore pages and what is no paper run in quick
    alone; cpu trains nothing and measures the shipped networks on more images. In gpu and paper
    `3_*` needs the training of all seeds and `4_*` that of the first.

    Raises:
        UnknownName: preset, paper, device or override; UserError: an override of the wrong type,
            no seed or a negative one, a run id that is no name, a budget that is no number.
    """
    _check(request)
    seeds = tuple(dict.fromkeys(request.seeds))
    out: list[Job] = []
    for group in request.papers or papers():
        layout = _layout(request.preset, group, seeds)
        given = _overrides(request, group) if layout else {}
        for name, seed, needs in layout:
            text = storage.dumps(given.get(name, {}))
            shared = (request.device, request.variant)
            out.append(Job(group, name, request.preset, seed, needs, text, *shared))
    return out


def _check(request: Request) -> None:
    """What can be wrong with a request whatever the paper."""
    if request.preset not in config.NAMES:
        raise UnknownName("preset", request.preset, config.NAMES)
    if not request.seeds:
        raise UserError("a plan needs at least one seed, for example SEEDS=0.")
    if min(request.seeds) < 0:
        raise UserError(f"a seed is a whole number from 0 on, not {min(request.seeds)}.")
    if not _DEVICE.fullmatch(request.device):
        raise UnknownName("device", request.device, ("auto", "cpu", "cuda", "cuda:<n>"))
    if not math.isfinite(request.budget) or request.budget <= 0:
        raise UserError(f"a budget is a positive number, not {request.budget:g}.")
    # it names a folder beside those of the notebooks, and rules of Snakemake
    taken = request.run_id == "collected" or _NUMBERED.fullmatch(request.run_id)
    if request.run_id and (taken or not _VARIANT.fullmatch(request.run_id)):
        raise UserError(
            f"run id {request.run_id!r} cannot name a folder of its own; use letters, digits, "
            "- and _, and no notebook's name."
        )


def _overrides(request: Request, group: str) -> dict[str, dict[str, Any]]:
    """The overrides of each notebook: those of the preset, and those of its parameters cell.

    A typo is found here, before any kernel starts. Without overrides no paper is imported.
    """
    if not request.overrides and request.budget == 1:
        return {}
    from latentpapers.notebook import preset_table

    preset = config.checked_preset(preset_table(group), request.preset)
    fields = set(config.flat(preset))
    longer = _longer(preset, request, group)
    own = {n: set(parameters(read_notebook(notebook_path(group, n)), n)) for n in notebooks(group)}
    known = fields.union(*own.values()) - {"preset", "seed"}
    for name in request.overrides:
        if name not in known:
            raise UnknownName(f"parameter of {group}:", name, known)
    changes = longer | request.overrides
    config.resolve(preset, {k: v for k, v in changes.items() if k in fields})
    taking = {n: own[n] | (fields if "overrides" in own[n] else set()) for n in own}
    for name in changes:
        if not any(name in names for names in taking.values()):
            raise UserError(f"no notebook of {group} has a parameter `overrides` for {name!r}.")
    return {n: {k: v for k, v in changes.items() if k in taking[n]} for n in own}


def _longer(preset: Any, request: Request, group: str) -> dict[str, Any]:
    """The overrides that a budget stands for: of every part of the preset with a time limit, the
    limit and what else says how long it lasts."""
    if request.budget == 1:
        return {}
    flat = {tuple(name.rpartition(".")[::2]): v for name, v in config.flat(preset).items()}
    limited = {part for (part, name), v in flat.items() if name == "seconds" and v}
    if not limited:
        raise UserError(f"preset {request.preset} of {group} has no time limit to multiply.")
    lasting = ("seconds", *_LASTING)
    found = {k: v for k, v in flat.items() if k[0] in limited and k[1] in lasting and v}
    return {".".join(filter(None, k)): _times(request.budget, v) for k, v in found.items()}


def _times(budget: float, value: Any) -> Any:
    """A time limit, a count (at least 1) or a list of counts, so many times as long."""
    if isinstance(value, list | tuple):
        return [_times(budget, v) for v in value]
    return budget * value if isinstance(value, float) else max(1, round(budget * value))


def _layout(preset: str, group: str, seeds: tuple[int, ...]) -> list[tuple[str, int, tuple]]:
    names = notebooks(group)
    trains = TRAINING in names and preset not in config.FROM_SHIPPED
    out: list[tuple[str, int, tuple[str, ...]]] = []
    for name in names:
        if preset != "quick" and not _runs_in(group, name, preset):
            continue
        if name == TRAINING:
            out += [(name, seed, ()) for seed in seeds if trains or preset == "quick"]
            continue
        read = seeds if name.startswith("3_") else seeds[:1] if name.startswith("4_") else ()
        needs = tuple(f"{TRAINING}/s{seed}" for seed in read if trains)
        needs += tuple(f"{n}/s{seeds[0]}" for n in _earlier(group, name, out))
        out.append((name, seeds[0], needs))
    return out


def _earlier(group: str, name: str, out: list[tuple[str, int, tuple]]) -> list[str]:
    """The notebooks that one says it needs, among those that this preset runs before it."""
    wanted = declared(group, name, "needs")
    for other in wanted:
        if other not in notebooks(group) or other >= name:
            raise UserError(f"{group}/{name} needs {other!r}, which is no notebook before it.")
    return [other for other in wanted if other in {n for n, _, _ in out}]


def _runs_in(group: str, name: str, preset: str) -> bool:
    """Whether a notebook runs in a preset beyond quick: where it says so, or a paper's results."""
    if named := declared(group, name, "presets"):
        return preset in named
    is_paper = (paths.root() / "notebooks" / group / "ledger").is_dir() and group != START
    return is_paper and not name.startswith(_QUICK_ONLY)


def declared(group: str, name: str, what: str) -> list[str]:
    """What a notebook's metadata says under `latentpapers`.

    Args:
        what: `presets` it runs in beyond quick; earlier notebooks of its group that it `needs`;
            files it `reads`, as patterns below the checkout (a report over committed results).
    """
    return read_notebook(notebook_path(group, name))["metadata"].get(PACKAGE, {}).get(what, [])


# --- fingerprints ---------------------------------------------------------------------------


@dataclass
class Plan:
    """Jobs with their fingerprints. Files are read once per plan."""

    jobs: list[Job]
    _hashes: dict[Path, str] = field(default_factory=dict)
    _inputs: dict[str, dict[str, str]] = field(default_factory=dict)

    def inputs(self, job: Job) -> dict[str, str]:
        """Everything that decides the result of a job: name -> SHA-256 or value."""
        if job.id not in self._inputs:
            self._inputs[job.id] = self._gather(job)
        return self._inputs[job.id]

    def fingerprint(self, job: Job) -> str:
        """The first 12 hex digits of the SHA-256 over `inputs`."""
        return storage.sha256(storage.dumps(self.inputs(job)).encode())[:12]

    def record(self, job: Job) -> Path:
        """The file whose presence means that the job is up to date."""
        return job.record(self.fingerprint(job))

    def pending(self) -> list[Job]:
        """The jobs without a record for their fingerprint."""
        return [job for job in self.jobs if not self.record(job).is_file()]

    def needed(self, job: Job) -> list[Job]:
        """The jobs of this plan that `job` depends on."""
        same = (o for o in self.jobs if (o.paper, o.run_id) == (job.paper, job.run_id))
        return [other for other in same if other.name in job.needs]

    def reason(self, job: Job) -> str:
        """Why a job is out of date, in a few words; empty if it is not."""
        if self.record(job).is_file():
            return ""
        old = sorted(job.folder.glob("record.*.json"))
        if not old:
            return "never finished"
        before, now = json.loads(old[-1].read_text())["inputs"], self.inputs(job)
        names = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        return "changed: " + ", ".join(names[:2]) + more

    def training_key(self, job: Job) -> str:
        """What decides a checkpoint: a run resumes only from one made under the same key.

        Narrower than the fingerprint, so that a new figure or measure does not train anew: the
        cells tagged `train`, the closure of what they use of the paper's room, preset, overrides,
        seed, data and lock.
        """
        keep = ("preset", "seed", "overrides", "requirements.lock", "data ")
        inputs = {k: v for k, v in self.inputs(job).items() if k.startswith(keep)}
        cells = read_notebook(job.source)["cells"]
        tagged = [c for c in cells if "train" in c["metadata"].get("tags", [])]
        inputs["cells"] = storage.dumps(code_cells({"cells": tagged}))
        inputs |= {n: self._sha(LIBRARY / n) for n in _training_files(job.paper, inputs["cells"])}
        return storage.sha256(storage.dumps(inputs).encode())[:12]

    def _gather(self, job: Job) -> dict[str, str]:
        cells = code_cells(read_notebook(job.source))
        inputs = {f"cell {i}": storage.sha256(c.encode()) for i, c in enumerate(cells)}
        library = closure(["\n".join(map(python_only, cells))], _by_name(job.paper), LIBRARY)
        inputs |= {f"lib/{PACKAGE}/{name}": self._sha(LIBRARY / name) for name in library}
        inputs |= {paths.relative(f): self._sha(f) for f in self._files(job)}
        inputs |= {f"needs {o.name}": self.fingerprint(o) for o in self.needed(job)}
        inputs |= {"preset": job.preset, "seed": str(job.seed), "overrides": job.overrides}
        return inputs | data_hashes(job)

    def _files(self, job: Job) -> list[Path]:
        root = paths.root()
        found = [root / "requirements.lock", *(root / "notebooks" / job.paper / "ledger").glob("*")]
        if job.notebook == TRAINING and job.preset not in config.FROM_SHIPPED:
            # What is claimed about a result does not change the training that made it.
            found = [f for f in found if f.stem not in ("claims", "errata")]
        shipped = paths.checkpoints()
        own = (root / "notebooks" / job.paper / "ledger").is_dir()
        found += (shipped / "metrics").rglob("*.safetensors")  # feature networks of measurements
        if job.preset in config.FROM_SHIPPED:
            found += (shipped / job.paper if own else shipped).rglob("*.safetensors")
            if job.notebook.startswith(_FROM_RESULTS) or not own:
                found += (root / "results").glob(f"[gp]*/{job.paper if own else '*'}/metrics.jsonl")
        for pattern in declared(job.paper, job.notebook, "reads"):
            found += root.glob(pattern)
        return sorted(f for f in found if f.is_file())

    def _sha(self, file: Path) -> str:
        if file not in self._hashes:
            self._hashes[file] = storage.sha256_file(file)
        return self._hashes[file]


def _by_name(paper: str) -> list[str]:
    """The paper's room, which `lp.begin` imports by name."""
    return [f"{PACKAGE}.papers.{paper}"] if room_files(paper, LIBRARY) else []


def _training_files(paper: str, cells: str) -> set[str]:
    """Library files behind the presets and the names that training cells use of a paper's room. Its
    `__init__.py`, which imports all of its files, is left out."""
    room = room_files(paper, LIBRARY)[:1]
    used = {"PRESETS", *re.findall(r"\w+", cells)}
    return closure([], {m for file in room for m in behind(file, used)}, LIBRARY, without=room)


def data_packs(job: Job) -> dict[str, Path]:
    """The data on this machine that a job may read, by place in its data folder: packs and folders
    of the sets that its notebook, its paper's room or its overrides name."""
    named = set(_WORD.findall(job.overrides)).union(
        *map(_words, [*room_files(job.paper, LIBRARY), job.source])
    )
    sets = sorted(named & set(data.names()))
    return {_place(file): file for name in sets for file in data.files(name)}


def _place(file: Path) -> str:
    inside = (folder for folder in paths.data_dirs() if file.is_relative_to(folder))
    return file.relative_to(next(inside, file.parent)).as_posix()


def data_hashes(job: Job) -> dict[str, str]:
    """A hash of each of `data_packs`: of a pack's size, its first and its last MiB, of a whole tar,
    of a folder's record of its source.

    A pack's index with the hashes of all images lies at one of its ends, so this is enough and
    does not read gigabytes for every plan.
    """
    found = data_packs(job)
    return {f"data {n}": mark(f) if f.is_dir() else _pack_hash(f) for n, f in found.items()}


_WORD = re.compile(r"[\w-]+")


def _words(file: Path) -> set[str]:
    return set(_WORD.findall(file.read_text())) if file.is_file() else set()


def _pack_hash(file: Path) -> str:
    known = file.stat()
    return _hash_of(file, known.st_size, known.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _hash_of(file: Path, size: int, changed: int) -> str:
    if file.suffix == ".tar":  # no index and no checksums: only the whole file tells
        return storage.sha256_file(file)
    with file.open("rb") as stream:
        first = stream.read(2**20)
        stream.seek(max(0, size - 2**20))
        return storage.sha256(str(size).encode() + first + stream.read())


# --- predictions ----------------------------------------------------------------------------


def predicted(job: Job) -> tuple[float, int]:
    """(seconds, MB) that a job will need: its last run, else the paper's EXPECT, else the seconds
    that its preset has ALLOWED, else a guess.

    Both are literals of the paper's room: `EXPECT = {"cpu/3_tables": (250, 3100)}`, measured,
    and `ALLOWED = {"gpu/2_training": 540}`.
    """
    last = job.folder / "runtime.json"
    if last.is_file():
        seen = json.loads(last.read_text())
        return float(seen["seconds"]), int(seen["memory_mb"])
    name, (guess, memory) = f"{job.preset}/{job.notebook}", _GUESS[job.preset]
    allowed = _literal(job.paper, "ALLOWED").get(name, guess), memory
    seconds, memory = _literal(job.paper, "EXPECT").get(name, allowed)
    return float(seconds), int(memory)


def guessed(job: Job) -> bool:
    """Whether what is `predicted` of a job rests on no run of it."""
    ran = (job.folder / "runtime.json").is_file()
    return not ran and f"{job.preset}/{job.notebook}" not in _literal(job.paper, "EXPECT")


def expectations(paper: str, preset: str) -> list[tuple[float, int]]:
    """The measured (seconds, MB) of the jobs of a paper and preset, from its `EXPECT`."""
    known = _literal(paper, "EXPECT")
    return [cost for name, cost in known.items() if name.startswith(f"{preset}/")]


def _literal(paper: str, name: str) -> dict[str, Any]:
    """A dict that a paper's room assigns, read from its source: importing it would cost seconds."""
    found = (_literals(file).get(name) for file in room_files(paper, LIBRARY))
    return next(filter(None, found), {})


@functools.cache
def _literals(room: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for node in ast.parse(room.read_text()).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for name in {getattr(t, "id", "") for t in targets} & {"EXPECT", "ALLOWED"}:
            found[name] = ast.literal_eval(node.value)  # type: ignore[attr-defined]
    return found
