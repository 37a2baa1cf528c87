"""What a run starts from: another run's checkpoint, a file, or the RealSR-DF2K weights."""

from pathlib import Path

from torch import Tensor, nn

from latentpapers import models, storage, weights
from latentpapers.errors import Missing, UserError
from latentpapers.papers.lsrgan.training import Training
from latentpapers.train.runs import Networks as States
from latentpapers.weights import rrdb as layouts


def begin_from(nets: dict[str, nn.Module], job: Training, path: Path) -> str:
    """Loads the networks that the run starts from; returns the SHA-256 of their file.

    Raises:
        Missing: no such run beside `path`, nor such a file, nor weights of that name.
        Corrupt: a file without RRDB weights.
        UserError: networks of other sizes.
    """
    if not job.start:
        return ""
    states, digest = _start(job, path)
    for name in nets.keys() & states.keys():
        try:
            nets[name].load_state_dict(states[name])
        except RuntimeError as error:
            raise UserError(
                f"{job.start}: its {name} has other sizes than this run's ({error}); give both "
                "runs the same width, blocks and growth."
            ) from error
    return digest


def _start(job: Training, path: Path) -> tuple[States, str]:
    """The networks that a run starts from, and the SHA-256 of their file."""
    if job.start in weights.names():
        states = {"generator": weights.load(job.start)}
        return states, storage.sha256_file(weights.find(job.start))
    if is_file(job.start):
        file = Path(job.start)
        return {"generator": rrdb_weights(file)}, storage.sha256_file(file)
    file = start_file(job, path)
    found = models.load(file)
    return {name: net.state_dict() for name, net in found.parts.items()}, storage.sha256_file(file)


def is_file(start: str) -> bool:
    """Whether a run's `start` is the path of a file of weights, not a name."""
    return Path(start).suffix in (".pth", ".pt", ".safetensors")


def rrdb_weights(file: Path) -> dict[str, Tensor]:
    """The RRDB weights of a file in any of the three key layouts, under our keys.

    Raises:
        Missing: no such file; Corrupt, UserError: as `weights.rrdb.read`.
    """
    if not file.is_file():
        raise Missing(
            f"there is no file {file} to start from; start takes a file of RRDB weights (.pth or "
            f".safetensors), a run trained before, or one of {', '.join(weights.names())}."
        )
    return layouts.read(file)


def start_file(job: Training, path: Path) -> Path:
    """The file of the run that `job` starts from, in the folder of `path`.

    Raises:
        Missing: it was not trained there.
    """
    ending = path.stem.rpartition("_")[2]
    tried = [path.with_name(f"{job.start}_{ending}.safetensors"),
             path.with_name(f"{job.start}.safetensors")]  # fmt: skip
    for file in tried:
        if file.is_file():
            return file
    raise Missing(f"this run starts from {tried[-1].name}, which is not in {path.parent}; train "
                  f"{job.start!r} there first.")  # fmt: skip
