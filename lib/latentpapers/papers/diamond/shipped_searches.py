"""The searches that ship as files: what there is, and how each is read."""

from pathlib import Path
from typing import Any

from latentpapers import paths, tensorfile
from latentpapers.latent import found
from latentpapers.latent.pair import sample as starting_points
from latentpapers.seeds import generator
from latentpapers.shapes import Codes


def searches(name: str, seed: int = 0, *, many: bool = False) -> Path:
    """Where the search results of a shipped checkpoint are: `searches/NAME_sSEED.safetensors`,
    some dozens of starts, and `searches/NAME_many_sSEED.safetensors`, some hundreds in the small
    form (`latent.found`)."""
    stem = f"{name}_many_s{seed}" if many else f"{name}_s{seed}"
    return paths.checkpoints() / "diamond" / "searches" / f"{stem}.safetensors"


def edited_file(name: str, seed: int = 0) -> Path:
    """Where the search from edited starts of a shipped checkpoint is."""
    return searches(name, seed).with_name(f"{name}_edited_s{seed}.safetensors")


def dozens(name: str, seed: int = 0) -> tuple[found.Found, dict[str, Any]]:
    """The shipped search of some dozens of starts, which are drawn again, and its card.

    Raises:
        Missing: none is shipped of that network.
    """
    path = searches(name, seed)
    return found.load(path, starts_of(tensorfile.header(path)))


def shipped_search(name: str, n: int, seed: int = 0) -> found.Found:
    """The first `n` results of a shipped search: of the file of dozens where that has as many, else
    of the file of hundreds; fewer where neither has as many.

    Raises:
        Missing: no search of that network is shipped.
    """
    few, many = searches(name, seed), searches(name, seed, many=True)
    if not many.is_file() or (few.is_file() and tensorfile.header(few)["n"] >= n):
        return dozens(name, seed)[0].first(n)
    return found.load_small(many, starts_of(tensorfile.header(many)))[0].first(n)


def printed_search(name: str, seed: int = 0) -> found.Found:
    """A shipped search with every setting as the paper prints it, but for the starts, which are on
    the sphere (`method.SEARCHES`).

    Raises:
        Missing: none is shipped of that network.
    """
    path = searches(name, seed).with_name(f"{name}_paper_s{seed}.safetensors")
    return found.load_small(path, starts_of(tensorfile.header(path)))[0]


def starts_of(card: dict[str, Any]) -> Codes:
    """The starts of a search, drawn again from its card."""
    g = generator(card["seed"], "search")
    return starting_points(card["n"], card["latent"], g, reading=card["search"]["start"])
