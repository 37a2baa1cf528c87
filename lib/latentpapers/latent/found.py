"""What a search found, kept in a file: codes in half precision, how they were searched, for how
long. Networks that are shipped bring such a file, because a search takes minutes and reading one
takes none."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from latentpapers import tensorfile
from latentpapers.errors import Corrupt
from latentpapers.latent import walk
from latentpapers.latent.sphere import project
from latentpapers.shapes import Codes, PerImage

_CODES = ("z0", "z1", "zp")


@dataclass(frozen=True)
class Found:
    """What a search found, one row a start.

    Attributes:
        z0, z1, zp: start, recovered code, protoimage's code, (N, Z), on the sphere.
        sigma: (N,) weights of eq 9.
        steps: mean steps of the three stages.
        extra: results of other settings on the first starts, by name: weights (n,) or codes.
    """

    z0: Codes
    z1: Codes
    zp: Codes
    sigma: PerImage
    steps: tuple[float, ...]
    extra: dict[str, Tensor] = field(default_factory=dict)

    def improved(self, sigma: PerImage | float | None = None) -> Codes:
        """The improved codes (eq 8), by their own weights or by one for all."""
        return walk.interpolate(self.z0, self.zp, self.sigma if sigma is None else sigma)

    def first(self, n: int) -> "Found":
        """The first `n` rows."""
        extra = {name: t[:n] for name, t in self.extra.items()}
        return Found(self.z0[:n], self.z1[:n], self.zp[:n], self.sigma[:n], self.steps, extra)

    def to(self, device: str) -> "Found":
        """The same on another device."""
        moved = (t.to(device) for t in (self.z0, self.z1, self.zp, self.sigma))
        extra = {name: t.to(device) for name, t in self.extra.items()}
        return Found(*moved, self.steps, extra)


def save(path: Path, found: Found, card: dict[str, Any]) -> None:
    """Writes a search's result.

    Args:
        path: the `.safetensors` file.
        found: codes; kept in half precision, which moves a code by less than 0.1 degrees.
        card: network, settings, seconds.
    """
    tree = {name: getattr(found, name).cpu().half() for name in _CODES}
    extra = {name: t.cpu().half() for name, t in found.extra.items()}
    tensorfile.save(
        path, {"found": {**tree, "sigma": found.sigma.cpu().float()}, "extra": extra},
        about={**card, "steps_found": list(found.steps)},
    )  # fmt: skip


def load(path: Path) -> tuple[Found, dict[str, Any]]:
    """What `save` wrote, codes back on the sphere, and its card.

    Raises:
        Missing, Corrupt: no such file, or another kind of file.
    """
    card, whole = tensorfile.header(path), tensorfile.load(path)
    if "found" not in whole:
        raise Corrupt(f"{path} holds no result of a latent search.")
    tree = whole["found"]
    codes = (project(tree[name].float()) for name in _CODES)
    extra = {name: t.float() for name, t in whole.get("extra", {}).items()}
    return Found(*codes, tree["sigma"], tuple(card["steps_found"]), extra), card
