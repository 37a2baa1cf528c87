"""LPIPS and the diversity of several outputs for one input.

LPIPS (Zhang et al. 2018, eq 1) is the `lpips` package's: its heads ship with it, its trunks come
from `latentpapers.weights`. Diversity (StarGAN v2's protocol) is the mean distance of the 45 pairs
of ten outputs, averaged over inputs; each image passes the network once, not nine times.
"""

import dataclasses
import functools
import itertools
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentpapers import weights
from latentpapers.errors import UnknownName, UserError
from latentpapers.metrics import intervals
from latentpapers.metrics.features import extract
from latentpapers.metrics.protocol import Protocol, Score
from latentpapers.shapes import Images, PerImage

TRUNKS = {
    "alexnet": "alex",
    "vgg16": "vgg",
    "squeezenet1_1": "squeeze",
    "squeeze_deepscale": "squeeze",
}
"""Weights that a head of the `lpips` package fits, and the head's name."""

_SMALLEST = 32  # pixels a side that AlexNet's pools still leave a map of
_OUTPUTS = 10
_NUMBERS = 2**22  # that a block of pairs may hold


def network(trunk: str, state: dict[str, Tensor] | None = None) -> nn.Module:
    """The `lpips` network on a trunk: version 0.1, evaluation mode, no gradients of its own.

    Args:
        trunk: a name of `TRUNKS`.
        state: torchvision's state dict of that trunk; from `latentpapers.weights` if None.

    Raises:
        UnknownName: no such trunk. Missing, Corrupt: as `weights.load`.
        UserError: a state dict of another network.
    """
    if trunk not in TRUNKS:
        raise UnknownName("trunk of LPIPS", trunk, TRUNKS)
    state = weights.load(trunk) if state is None else state
    import lpips

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips calls torchvision by an old argument
        net = lpips.LPIPS(net=TRUNKS[trunk], pnet_rand=True, verbose=False)
    _fill(net.net, state, trunk)
    return net.eval().requires_grad_(False)


def _fill(trunk: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """lpips keeps torchvision's numbering (`features.N`) inside its slices."""
    try:
        own = {key: state["features." + key.split(".", 1)[1]] for key in trunk.state_dict()}
        trunk.load_state_dict(own)
    except (KeyError, RuntimeError) as error:
        raise UserError(f"these weights are not those of {name}: {error}.") from error


def distance(
    x: Images, y: Images, trunk: str | nn.Module = "alexnet", *, block: int = 16
) -> PerImage:
    """LPIPS of pairs of images.

    Args:
        x, y: (N, 3, H, W) in [0, 1], one channel is shown three times.
        trunk: a name of `TRUNKS`, or what `network` gave.
        block: pairs a pass; it moves results by rounding alone.

    Returns:
        (N,), 0 for equal images; larger is more different.

    Raises:
        UserError: another shape or range; two shapes; sides under 32 pixels. And as `network`.
    """
    if x.shape != y.shape:
        raise UserError(f"LPIPS of images {tuple(x.shape)} and {tuple(y.shape)}.")
    net = _placed(trunk, x)
    pairs = zip(_checked(x).split(block), _checked(y).split(block), strict=True)
    with torch.no_grad():
        return torch.cat([net(a, b, normalize=True).flatten() for a, b in pairs])


def pair_distances(
    images: Images, trunk: str | nn.Module = "alexnet", *, block: int = 16
) -> PerImage:
    """LPIPS of every two of K images, (K (K - 1) / 2,), in the order of itertools.combinations.

    Each image passes the network once.

    Raises:
        UserError: as `distance`, or fewer than 2 images.
    """
    net = _placed(trunk, images)
    if len(images) < 2:
        raise UserError("a single image has no pair.")
    with torch.no_grad():
        found = [_unit_maps(net, part) for part in _checked(images).split(block)]
        layers = [torch.cat(parts) for parts in zip(*found, strict=True)]
        return sum(_layer(f, _head(net, i)) for i, f in enumerate(layers))


def diversity(
    groups: list[Images], trunk: str | nn.Module = "alexnet", *, block: int = 16
) -> PerImage:
    """Mean LPIPS over the pairs of each group of outputs, (groups,).

    Raises:
        UserError: as `pair_distances`.
    """
    net = _placed(trunk, groups[0])
    return torch.stack([pair_distances(g, net, block=block).mean() for g in groups])


def feature_distances(features: Tensor) -> PerImage:
    """Euclidean distances of every two unit-normalised rows, in the order of
    itertools.combinations; between 0 and 2.

    Raises:
        UserError: fewer than 2 rows.
    """
    if features.ndim != 2 or len(features) < 2:
        raise UserError(f"pairs need at least 2 rows of features, not {tuple(features.shape)}.")
    i, j = _pairs(len(features), features.device)
    unit = F.normalize(features.double(), dim=1)
    return (unit[i] - unit[j]).norm(dim=1).float()


def _unit_maps(net: nn.Module, x: Images) -> list[Tensor]:
    """Each layer's maps with every pixel's vector of unit length, (N, C, pixels)."""
    from lpips import normalize_tensor

    maps = net.net(net.scaling_layer(2 * x - 1))
    return [normalize_tensor(m).flatten(2) for m in maps]


def _head(net: nn.Module, layer: int) -> Tensor:
    return net.lins[layer].model[-1].weight.flatten()


def _layer(maps: Tensor, head: Tensor) -> PerImage:
    i, j = _pairs(len(maps), maps.device)
    step = max(1, _NUMBERS // maps[0].numel())
    parts = zip(i.split(step), j.split(step), strict=True)
    return torch.cat([(maps[a] - maps[b]).square().mean(2) @ head for a, b in parts])


def _pairs(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    every = torch.tensor(list(itertools.combinations(range(n), 2)), device=device)
    return every[:, 0], every[:, 1]


def _placed(trunk: str | nn.Module, like: Tensor) -> nn.Module:
    net = _loaded(trunk, weights.find(trunk)) if isinstance(trunk, str) else trunk
    return net.to(like.device)


@functools.lru_cache(maxsize=2)
def _loaded(trunk: str, path: Path | None) -> nn.Module:
    return network(trunk)  # `path` only tells files apart


def _checked(x: Images) -> Images:
    if x.ndim != 4 or x.shape[1] not in (1, 3) or not x.is_floating_point():
        raise UserError(f"LPIPS takes float images (N, 3, H, W), not {x.dtype} {tuple(x.shape)}.")
    if min(x.shape[2:]) < _SMALLEST:
        raise UserError(f"LPIPS needs sides of at least {_SMALLEST} px, not {tuple(x.shape[2:])}.")
    if not bool(((x >= 0) & (x <= 1)).all()):  # NaN too
        raise UserError("LPIPS takes images in [0, 1]; map [-1, 1] with (x + 1) / 2.")
    return x.float().expand(-1, 3, -1, -1)


# --- the metrics -----------------------------------------------------------------------------


def _ten(images: Tensor) -> Tensor:
    if len(images) != _OUTPUTS:
        raise UserError(f"the 45 pairs are those of ten outputs, not of {len(images)}.")
    return images


def _to_truth(images: Tensor, reference: Tensor) -> PerImage:
    return distance(images, reference, "alexnet")


def _lpips(trunk: str) -> Callable[[Tensor], float]:
    return lambda images: float(pair_distances(_ten(images), trunk).mean())


def _featdist(images: Tensor) -> float:
    found = extract((_ten(images) * 255).round().to(torch.uint8), "efficientnetlite0", keep=False)
    return float(feature_distances(found).mean())


def _over_targets(values: Tensor) -> Score:
    if len(values) == 1:
        return Score(float(values[0]), None, None, 1, "none: one input")
    found = intervals.bootstrap_mean(values)
    return dataclasses.replace(found, method="bootstrap over inputs, 95 %")


def _protocol(name: str, measure: Callable[[Tensor], float], needs: str) -> Protocol:
    return Protocol(name, "groups", measure, (needs,), form="float", summary=_over_targets)


PROTOCOLS = {
    p.id: p
    for p in (
        Protocol("lpips_alex", "paired", _to_truth, ("alexnet",), form="float"),
        _protocol("lpips_alex_pairs45", _lpips("alexnet"), "alexnet"),
        _protocol(
            "lpips_squeeze_deepscale_pairs45", _lpips("squeeze_deepscale"), "squeeze_deepscale"
        ),
        _protocol("featdist_efficientnetlite0_pairs45", _featdist, "efficientnetlite0"),
    )
}
"""LPIPS to the truth, and diversities, by protocol id."""
