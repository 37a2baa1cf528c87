"""What a search found, kept in a file, with how it was searched and for how long. Networks that are
shipped bring such a file, because a search takes minutes and reading one takes none.

Two forms: `save` keeps every code in half precision, the starts only where they cannot be drawn
again from their seed; `save_small`, for hundreds of starts, keeps a sixth of that, because all that
a search finds lies on the great circle through start and recovered code, so that an angle says
where. `save_readings` keeps searches of the same starts with other settings beside a first one."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latentpapers import tensorfile
from latentpapers.errors import Corrupt
from latentpapers.latent import walk
from latentpapers.latent.sphere import great_circle, position, project
from latentpapers.shapes import Codes, PerImage

_CODES = ("z0", "z1", "zp")
_LEVELS = 127  # of either sign in 8 bits
_MARK = 4  # elements of a start by which it is known again


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


def joined(parts: list[Found]) -> Found:
    """Searches of successive starts as one; mean steps are weighted, `extra` is the first's."""
    n = [len(part.z0) for part in parts]
    codes = (torch.cat([getattr(p, name) for p in parts]) for name in (*_CODES, "sigma"))
    steps = tuple(
        sum(k * s for k, s in zip(n, of)) / sum(n) for of in zip(*(p.steps for p in parts))
    )
    return Found(*codes, steps, parts[0].extra)


def save(path: Path, found: Found, card: dict[str, Any], *, starts: bool = True) -> None:
    """Writes a search's result.

    Args:
        path: the `.safetensors` file.
        found: codes; kept in half precision, which moves a code by less than 0.1 degrees.
        card: network, settings, seconds.
        starts: keeps z_0, too; without, the reader draws it again, and four elements of each tell
            whether it is the same.
    """
    tree = {name: getattr(found, name).cpu().half() for name in _CODES}
    if not starts:
        tree["mark"] = tree.pop("z0")[:, :_MARK].clone()
    extra = {name: t.cpu().half() for name, t in found.extra.items()}
    tensorfile.save(
        path, {"found": {**tree, "sigma": found.sigma.cpu().float()}, "extra": extra},
        about={**card, "steps_found": list(found.steps)},
    )  # fmt: skip


def save_small(path: Path, found: Found, card: dict[str, Any]) -> None:
    """Writes a search's result without its starts, for which the reader needs their seed.

    Args:
        path: the `.safetensors` file.
        found: z_1 is kept in 8 bits an element, which moves it by about half a degree and its image
            by less than a grey level; codes on the circle through z_0 and z_1 as angles; of z_0
            four elements, to know it again.
        card: network, settings, seconds, and whatever says how z_0 was drawn.
    """
    scale = found.z1.abs().amax(1, keepdim=True) / _LEVELS
    levels = (found.z1 / scale).round().to(torch.int8)
    z1 = project(levels * scale)
    angle = {"zp": position(found.z0, z1, found.zp)}
    angle |= {n: _angles(found, z1, z) for n, z in found.extra.items() if z.ndim == 2}
    tensorfile.save(
        path,
        {
            "small": {"z1": levels.cpu(), "scale": scale.cpu().float(),
                      "mark": found.z0[:, :_MARK].cpu().half(), "sigma": found.sigma.cpu().float()},
            "angle": {n: a.cpu().float() for n, a in angle.items()},
            "extra": {n: t.cpu().half() for n, t in found.extra.items() if t.ndim == 1},
        },
        about={**card, "steps_found": list(found.steps)},
    )  # fmt: skip


def load_small(path: Path, z0: Codes) -> tuple[Found, dict[str, Any]]:
    """What `save_small` wrote, and its card.

    Args:
        path: the `.safetensors` file.
        z0: (N, Z) the starts, drawn as they were for the search.

    Raises:
        Missing, Corrupt: no such file, another kind of file, or other starts than these.
    """
    card, whole = tensorfile.header(path), tensorfile.load(path)
    if "small" not in whole:
        raise Corrupt(f"{path} holds no small result of a latent search.")
    tree, extra = whole["small"], {n: t.float() for n, t in whole.get("extra", {}).items()}
    _same_starts(path, z0, tree)
    z1 = project(tree["z1"] * tree["scale"])
    codes = {n: great_circle(z0[: len(a)], z1[: len(a)], a[None])[0]
             for n, a in whole["angle"].items()}  # fmt: skip
    zp = codes.pop("zp")
    return Found(z0, z1, zp, tree["sigma"], tuple(card["steps_found"]), extra | codes), card


def _same_starts(path: Path, z0: Codes, tree: dict[str, Tensor]) -> None:
    mark = tree["mark"].float()
    if z0.shape != tree["z1"].shape or not torch.allclose(z0[:, :_MARK], mark, atol=5e-3):
        raise Corrupt(f"{path} was searched from other starts than those drawn here; search again.")


def save_readings(
    path: Path, first: Found, others: dict[str, Found], card: dict[str, Any]
) -> None:  # fmt: skip
    """Writes searches of the same starts with other settings, as far as they differ from `first`.

    Args:
        path: the `.safetensors` file.
        first: the search that the reader has already.
        others: by name; z_1 in 8 bits an element where it is not that of `first`, z_p as an angle.
        card: network, settings, seconds.
    """
    own = {n: r.z1 for n, r in others.items() if not torch.equal(r.z1, first.z1)}
    z1 = torch.stack([*own.values()]) if own else first.z1.new_empty(0, *first.z1.shape)
    scale = z1.abs().amax(2, keepdim=True) / _LEVELS
    levels = (z1 / scale).round().to(torch.int8)
    kept = dict(zip(own, project(levels * scale)))
    angle = [position(first.z0, kept.get(n, first.z1), r.zp) for n, r in others.items()]
    tree = {"z1": levels, "scale": scale, "zp": torch.stack(angle),
            "sigma": torch.stack([r.sigma for r in others.values()])}  # fmt: skip
    about = {"readings": list(others), "own": list(own)}
    about["steps_found"] = [list(r.steps) for r in others.values()]
    tensors = {n: t.cpu().float() if n != "z1" else t.cpu() for n, t in tree.items()}
    tensorfile.save(path, {"readings": tensors}, about={**card, **about})


def load_readings(path: Path, first: Found) -> dict[str, Found]:
    """What `save_readings` wrote, by name.

    Args:
        path: the `.safetensors` file.
        first: the search beside which it was written.

    Raises:
        Missing, Corrupt: no such file, another kind of file, or another number of starts.
    """
    card, whole = tensorfile.header(path), tensorfile.load(path)
    if "readings" not in whole or whole["readings"]["zp"].shape[1] != len(first.z0):
        raise Corrupt(f"{path} holds no other readings of these {len(first.z0)} starts.")
    tree = whole["readings"]
    own, out = dict(zip(card["own"], project(tree["z1"] * tree["scale"]))), {}
    for i, name in enumerate(card["readings"]):
        z1 = own.get(name, first.z1)
        zp = great_circle(first.z0, z1, tree["zp"][i][None])[0]
        out[name] = Found(first.z0, z1, zp, tree["sigma"][i], tuple(card["steps_found"][i]))
    return out


def _angles(found: Found, z1: Codes, z: Codes) -> PerImage:
    """Where the first codes' `z` lie on their circles."""
    return position(found.z0[: len(z)], z1[: len(z)], z)


@dataclass(frozen=True)
class Edited:
    """What a search found from edited starts, proj(z_0 + sign direction) (appendix E).

    Attributes:
        rows, sign: (N,) which starts were edited; 1 where the direction was added, -1 where it was
            subtracted.
        zp, sigma: (N, Z), (N,) protoimages' codes and weights of the *edited* starts.
        direction: (Z,) the attribute's vector.
    """

    rows: Int[Tensor, "N"]
    sign: PerImage
    zp: Codes
    sigma: PerImage
    direction: Float[Tensor, "Z"]

    def starts(self, z0: Codes) -> Codes:
        """The edited codes, on the sphere, of the searched starts `z0`."""
        return project(z0[self.rows] + self.sign[:, None] * self.direction)

    def improved(self, z0: Codes) -> Codes:
        """The method's codes for them (eq 8)."""
        return walk.interpolate(self.starts(z0), self.zp, self.sigma)

    def of(self, sign: int, below: int) -> "Edited":
        """Those of one sign among the first `below` starts, in the order of the starts."""
        chosen = ((self.sign == sign) & (self.rows < below)).nonzero().flatten()
        chosen = chosen[self.rows[chosen].argsort()]
        parts = (t[chosen] for t in (self.rows, self.sign, self.zp, self.sigma))
        return Edited(*parts, self.direction)

    def to(self, device: str) -> "Edited":
        """The same on another device."""
        return Edited(*(getattr(self, f.name).to(device) for f in fields(self)))


def save_edited(path: Path, edited: Edited, card: dict[str, Any]) -> None:
    """Writes it; protoimages' codes in 8 bits an element, half a degree at most off."""
    scale = edited.zp.abs().amax(1, keepdim=True) / _LEVELS
    levels = (edited.zp / scale).round().to(torch.int8)
    tree = {"zp": levels, "scale": scale.float(), "rows": edited.rows.to(torch.int16),
            "sign": edited.sign.to(torch.int8), "sigma": edited.sigma.float(),
            "direction": edited.direction.half()}  # fmt: skip
    tensorfile.save(path, {"edited": {n: t.cpu() for n, t in tree.items()}}, about=card)


def load_edited(path: Path) -> Edited:
    """What `save_edited` wrote.

    Raises:
        Missing, Corrupt: no such file, or another kind of file.
    """
    whole = tensorfile.load(path)
    if "edited" not in whole:
        raise Corrupt(f"{path} holds no search of edited starts.")
    tree = whole["edited"]
    zp = project(tree["zp"] * tree["scale"])
    sign, direction = (tree[name].float() for name in ("sign", "direction"))
    return Edited(tree["rows"].long(), sign, zp, tree["sigma"], direction)


def load(path: Path, z0: Codes | None = None) -> tuple[Found, dict[str, Any]]:
    """What `save` wrote, codes back on the sphere, and its card.

    Args:
        path: the `.safetensors` file.
        z0: (N, Z) the starts, drawn as they were for the search, of a file that keeps none.

    Raises:
        Missing, Corrupt: no such file, another kind of file, no starts, or others than these.
    """
    card, whole = tensorfile.header(path), tensorfile.load(path)
    if "found" not in whole:
        raise Corrupt(f"{path} holds no result of a latent search.")
    tree = whole["found"]
    if "z0" not in tree:
        if z0 is None:
            raise Corrupt(f"{path} keeps no starts; draw them from its seed.")
        _same_starts(path, z0, tree)
        tree["z0"] = z0.half()  # as precise as those that are kept
    codes = (project(tree[name].float()) for name in _CODES)
    extra = {name: t.float() for name, t in whole.get("extra", {}).items()}
    return Found(*codes, tree["sigma"], tuple(card["steps_found"]), extra), card
