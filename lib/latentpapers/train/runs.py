"""What every paper's room does with a run: train it, share it, write its networks, name it.

A room says what differs (how a step is put together, what a card says beyond what the training
knows) and gets `train`, `export` and `train_from_cli`.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from latentpapers import config, models, storage
from latentpapers.errors import UserError
from latentpapers.metrics.protocol import Score
from latentpapers.train import checkpoint, distributed
from latentpapers.train.distributed import Group
from latentpapers.train.history import History

Progress = Callable[..., None]
Networks = dict[str, dict[str, Tensor]]
Curve = list[dict[str, Any]]
_POINTS = 60  # of a curve on a card: enough to draw
_DIGITS = 5  # of each number there: a curve is half of a small network's file
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of a run, where its learning curve is measured


def state_of(path: Path) -> Path:
    """Where the resumable state of the checkpoint `path` stands."""
    return path.with_suffix(".state.safetensors")


def curve_of(path: Path) -> Path:
    """Where the learning curve of the checkpoint `path` stands while the run trains."""
    return path.with_suffix(".curve.json")


@dataclasses.dataclass(frozen=True)
class Runs:
    """The runs of one paper's room.

    Attributes:
        paper: its id, the word after `latentpapers train`.
        job: the frozen dataclass that describes a run.
        fit: (job, seed, path, device, group, progress) trains into `state_of(path)`, resuming.
        card: (job, path, images, networks) -> the card's title, budget and whatever else is the
            paper's own; `networks` are the state dicts of all of them.
        recipe: (job, network) -> how `lp.models.build` makes it.
        tables: preset -> runs by name, `shipped` among them.
        kept: run -> networks that its shipped file keeps; all of them where nothing is said.
        eight: shipped runs whose file holds 8 bits a weight (`models.save`).
        networks: state file -> state dicts, with averages in place of what they average.
        measure: (job, checkpoint, device=) -> metric id -> score of its networks, for learning
            curves.
    """

    paper: str
    job: type
    fit: Callable[..., None]
    card: Callable[[Any, Path, int, Networks], dict[str, Any]]
    recipe: Callable[[Any, str], dict[str, Any]]
    tables: Mapping[str, Mapping[str, Any]]
    kept: Mapping[str, tuple[str, ...]]
    eight: frozenset[str] = frozenset()
    networks: Callable[[Path], Networks] = checkpoint.networks
    measure: Callable[..., dict[str, Score]] | None = None

    def train(
        self,
        job: Any,
        *,
        seed: int,
        path: Path,
        device: str = "cpu",
        group: Group | None = None,
        only: tuple[str, ...] = (),
        bits: Literal[16, 8] = 16,
        curved: bool = False,
        progress: Progress | None = None,
    ) -> History:
        """Trains one run, resuming it if it was interrupted, and writes its networks with a card.

        With several GPUs (or LATENTPAPERS_PROCESSES) the work is shared by that many processes, to
        the same result up to rounding; the caller need not know.

        Args:
            job: the run.
            seed: of initialisation, order of images and noise.
            path: the checkpoint to write (`.safetensors`); `state_of(path)` stands beside it.
            device, group, progress: see `train.engine.fit`.
            only: networks to keep in `path`, empty for all.
            bits: of a weight in `path`, see `models.save`.
            curved: stop on the way and measure (`curve`).

        Returns:
            The losses over time.
        """
        if curved:
            self.curve(job, seed=seed, path=path, device=device, group=group, only=only, bits=bits,
                       progress=progress)  # fmt: skip
        processes = distributed.processes(device)
        if group is None and processes > 1:
            self._in_processes(job, seed, path, device, processes)
        else:
            self.fit(job, seed, path, device, group, progress)
        state = state_of(path)
        if group is None or group.rank == 0:
            self.export(state, path, job, seed, only=only, bits=bits)
        return History.from_state(checkpoint.load(state)["history"])

    def curve(
        self, job: Any, *, seed: int, path: Path, shares: tuple[float, ...] = SHARES, **how: Any
    ) -> Curve:  # fmt: skip
        """Trains one run in pieces and measures its networks after each.

        The stops change nothing: a longer run is the same run. What is already measured is not
        measured again; where the run is further than a stop, that stop is passed.

        Args:
            job, seed, path: the run, as for `train`; its length is in `seconds` if it has them.
            shares: of the run's length, rising, where to stop and measure.
            how: what else `train` takes.

        Returns:
            A row for each stop: `images` seen, and metric id -> [value, low, high]. The card of
            `path` keeps them under `curve`.

        Raises:
            UserError: the paper measures no learning curves.
        """
        if self.measure is None:
            raise UserError(f"{self.paper} has no measure for learning curves; leave --curve off.")
        file = curve_of(path)
        known = file.exists() and state_of(path).exists()  # without its run, a curve says nothing
        rows: Curve = json.loads(file.read_text()) if known else []
        for piece in _left(_pieces(job, shares), path, rows):
            self.train(piece, seed=seed, path=path, **how)
            found = self.measure(piece, path, device=how.get("device", "cpu"))
            rows.append({"images": _images(path), **_rounded(found)})
            storage.write_json(file, rows)
        only, bits = how.get("only", ()), how.get("bits", 16)
        self.export(state_of(path), path, job, seed, only=only, bits=bits)
        return rows

    def _in_processes(
        self, job: Any, seed: int, path: Path, device: str, processes: int
    ) -> None:  # fmt: skip
        """The same training under torchrun; the run travels as JSON."""
        described = path.with_suffix(".job.json")
        storage.write_json(described, config.as_dict(job))
        words = ["train", self.paper, "--job", str(described), "--seed", str(seed)]
        words += ["--out", str(path), "--device", device.split(":")[0]]
        distributed.launch(["-m", "latentpapers", *words], processes)
        described.unlink()

    def read(self, described: Path) -> Any:
        """The run that `config.as_dict` wrote into a JSON file."""
        fields = json.loads(described.read_text())
        return self.job(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})

    def export(
        self,
        state: Path,
        path: Path,
        job: Any,
        seed: int,
        *,
        only: tuple[str, ...] = (),
        bits: Literal[16, 8] = 16,
    ) -> None:
        """Writes the networks of a training state, with a card.

        Args:
            only: names of the networks to keep, empty for all.
            bits: of a weight, see `models.save`.
        """
        about, nets = checkpoint.header(state), self.networks(state)
        history = History.from_state(checkpoint.load(state)["history"])
        every = max(1, len(history.rows) // _POINTS)
        card = {
            "config": config.as_dict(job), "seed": seed,
            "steps": about["step"], "images": about["images"], "seconds": about["seconds"],
            "history": {"terms": history.terms, "rows": _short(history.rows[every - 1 :: every])},
        }  # fmt: skip
        card |= self.card(job, path, about["images"], nets)
        if curve_of(path).exists():
            card["curve"] = json.loads(curve_of(path).read_text())
        kept = {n: v for n, v in nets.items() if not only or n in only}
        models.save(path, kept, {n: self.recipe(job, n) for n in kept}, card, bits=bits)

    def train_from_cli(self, arguments: list[str]) -> int:
        """`latentpapers train PAPER --run NAME [--preset gpu|shipped] [--seed 0] --out FOLDER`.

        `--curve` stops on the way and measures. `--job FILE --out FILE` is what each process of a
        shared training is called with.

        Raises:
            UnknownName, UserError: no such run or field, a value of another type.
        """
        args = self._parser().parse_args(arguments)
        if args.job:
            job = self.read(args.job)
            self.fit(job, args.seed, args.out, args.device, distributed.join(), print_progress)
            return 0
        job = config.named("run", args.run, self.tables[args.preset])
        job = config.resolve(job, config.parse(args.set))
        shipped = args.preset == "shipped"
        only = self.kept.get(args.run, ()) if shipped else ()
        bits = 8 if shipped and args.run in self.eight else 16
        path = args.out / f"{args.run}_s{args.seed}.safetensors"
        self.train(
            job, seed=args.seed, path=path, device=args.device, only=only, bits=bits,
            curved=args.curve, progress=print_progress,
        )  # fmt: skip
        print(f"{path}: {_images(path):,} images seen")  # all there is to say of a finished run
        return 0

    def _parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(f"latentpapers train {self.paper}", allow_abbrev=False)
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--run")
        what.add_argument("--job", type=Path)
        parser.add_argument("--preset", default="shipped", choices=[*self.tables])
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--out", type=Path, required=True)
        parser.add_argument("--device", default="cpu")
        parser.add_argument("--curve", action="store_true")
        parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
        return parser


def _length(job: Any) -> str:
    return "steps" if job.seconds is None else "seconds"


def _pieces(job: Any, shares: tuple[float, ...]) -> list[Any]:
    """The run, cut off at each share of its length."""
    length = _length(job)
    parts = (getattr(job, length) * share for share in shares)
    whole = [max(1, round(p)) if length == "steps" else p for p in parts]
    return [dataclasses.replace(job, **{length: part}) for part in whole]


def _left(pieces: list[Any], path: Path, rows: Curve) -> list[Any]:
    """Those that the run has not passed, from the one that it has reached if it is not measured."""
    if not state_of(path).exists():
        return pieces
    length = _length(pieces[0])
    reached = checkpoint.header(state_of(path))["step" if length == "steps" else "seconds"]
    passed = sum(getattr(piece, length) <= reached for piece in pieces)
    measured = bool(rows) and rows[-1]["images"] == _images(path)
    return pieces[passed if measured else max(passed - 1, 0) :]


def _images(path: Path) -> int:
    return checkpoint.header(state_of(path))["images"]


def _rounded(scores: dict[str, Score]) -> dict[str, list[float | None]]:
    return {name: _short([[s.value, s.low, s.high]])[0] for name, s in scores.items()}


def _short(rows: list[list[float | None]]) -> list[list[float | None]]:
    return [[float(f"{v:.{_DIGITS}g}") if isinstance(v, float) else v for v in r] for r in rows]


def print_progress(step: int, steps: int, terms: dict[str, float], rate: float) -> None:
    """One line of losses."""
    values = " ".join(f"{name} {value:.4f}" for name, value in terms.items())
    print(f"{step}/{steps} {rate:.0f} images/s {values}", flush=True)
