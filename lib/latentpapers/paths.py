"""Where things are: the checkout, the results folder, the caches. Nothing is created on import."""

import os
from pathlib import Path

from latentpapers.errors import Missing


def root() -> Path:
    """The checkout: `LATENTPAPERS_ROOT`, else the first parent of this file or of the working
    folder that holds `notebooks/` and `pyproject.toml`.

    Raises:
        Missing: outside any checkout.
    """
    named = os.environ.get("LATENTPAPERS_ROOT")
    starts = [Path(named)] if named else [Path(__file__).resolve(), Path.cwd().resolve()]
    for start in starts:
        for folder in (start, *start.parents):
            if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
                return folder
    raise Missing("no checkout found; set LATENTPAPERS_ROOT to the folder that holds notebooks/.")


def results() -> Path:
    """The folder that runs write to: `LATENTPAPERS_OUT`, else `results/` of the checkout."""
    named = os.environ.get("LATENTPAPERS_OUT")
    return Path(named).resolve() if named else root() / "results"


def checkpoints() -> Path:
    """The shipped checkpoints. Never redirected by `LATENTPAPERS_OUT`: runs only read them."""
    return root() / "results" / "checkpoints"


def cache() -> Path:
    """Downloads and converted weights: `LATENTPAPERS_CACHE`, else the user's cache folder."""
    named = os.environ.get("LATENTPAPERS_CACHE")
    if named:
        return Path(named)
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("latentpapers"))


def data_dirs() -> list[Path]:
    """Folders searched for packed data: `LATENTPAPERS_DATA` (several, separated by the platform's
    path separator), then the cache."""
    named = os.environ.get("LATENTPAPERS_DATA", "")
    return [Path(p) for p in named.split(os.pathsep) if p] + [cache() / "data"]


def relative(path: Path) -> str:
    """`path` as written into results: relative to the checkout, never absolute."""
    path = Path(path).resolve()
    for base in (root(), results().parent):
        if path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return path.name
