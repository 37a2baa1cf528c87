"""Features of images for metrics of sets: extraction in batches, kept on disk, and the metrics.

What a metric measures is decided by the network, so it is in the protocol's id. Where a published
network is absent, a named stand-in may be measured, under a metric of its own: `choose` says which.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from latentpapers import storage, weights
from latentpapers.errors import UserError
from latentpapers.metrics import cache, density, frechet
from latentpapers.metrics.protocol import Protocol, Score
from latentpapers.shapes import Bytes, Features

STANDINS = {
    "fid_tf2015_n10000": "fd_efficientnetlite0_n2000",
    "fid_tf2015_n50000": "fd_efficientnetlite0_n2000",
    "fid_torchvision_n20000": "fd_efficientnetlite0_n2000",
    "fid_torchvision_n5000": "fd_efficientnetlite0_n2000",
    "density_vgg16fc2_k5_n2000": "density_efficientnetlite0_k5_n2000",
    "coverage_vgg16fc2_k5_n2000": "coverage_efficientnetlite0_k5_n2000",
    "lpips_alex_pairs45": "lpips_squeeze_deepscale_pairs45",
    "lpips_squeeze_deepscale_pairs45": "featdist_efficientnetlite0_pairs45",
}
"""Metric -> the metric that serves where its network is absent. Never compared with each other."""


def choose(metric_id: str) -> str:
    """The metric itself if its networks are on this machine, else its stand-in, and so on.

    Raises:
        UserError: nothing can serve; the sentence names the weights that are missing.
    """
    from latentpapers.metrics import entry

    wanted = metric_id
    while missing := [w for w in entry.find(metric_id).needs if not weights.available(w)]:
        if metric_id not in STANDINS:
            raise UserError(
                f"{wanted} needs {' and '.join(missing)}, and nothing can stand in; run "
                f"`python -m latentpapers weights fetch {missing[0]}`."
            )
        metric_id = STANDINS[metric_id]
    return metric_id


def extract(
    images: Bytes,
    network: str | nn.Module,
    *,
    layer: str | None = None,
    batch: int = 50,
    device: str | torch.device | None = None,
    keep: bool = True,
) -> Features:
    """Features of images, from disk if the same images met the same network before.

    Args:
        images: (N, C, H, W) uint8; one channel is shown to the network three times.
        network: a name of `latentpapers.weights`, or any module that takes floats (N, 3, H, W) in
            [0, 1].
        layer: of a named network; its usual one if None.
        batch: images a forward pass; it moves results by rounding alone.
        device: where the network runs; that of the images if None.
        keep: whether results are kept on disk.

    Returns:
        (N, F) float32 on the CPU; maps are averaged over space.

    Raises:
        UserError: another type or shape. Missing, UnknownName: as `latentpapers.weights.network`.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise UserError(
            f"features are taken of uint8 images (N, 1 or 3, H, W), not {images.dtype} "
            f"{tuple(images.shape)}."
        )
    net = _named(network, layer) if isinstance(network, str) else network
    device = torch.device(device or images.device)

    def make() -> Features:
        placed = net.to(device)
        return torch.cat([_forward(placed, part.to(device)) for part in images.split(batch)])

    if not keep:
        return make()
    name = cache.key(images=cache.digest(images), network=fingerprint(net), device=device.type)
    return cache.remembered(name, len(images), make)


def fingerprint(net: nn.Module) -> str:
    """Hash of a network's numbers, its structure, its layer and our code that it runs."""
    state = {name: cache.digest(value) for name, value in net.state_dict().items()}
    files = {inspect.getsourcefile(type(m)) for m in net.modules() if _ours(type(m))}
    code = sorted(storage.sha256_file(f) for f in files if f)
    plain = {k: v for k, v in vars(net).items() if isinstance(v, str | int | float) or v is None}
    version = torch.__version__.split("+")[0]  # how it resizes
    return cache.key(state=state, code=code, plain=plain, structure=repr(net), torch=version)


def _ours(kind: type) -> bool:
    return kind.__module__.startswith("latentpapers")


def _named(name: str, layer: str | None) -> nn.Module:
    return _loaded(name, layer, weights.find(name))


@functools.lru_cache(maxsize=2)
def _loaded(name: str, layer: str | None, path: object) -> nn.Module:
    return weights.network(name, layer=layer)  # `path` only tells files apart


@torch.no_grad()
def _forward(net: nn.Module, images: Bytes) -> Features:
    x = images.float() / 255
    out = net(x if x.shape[1] == 3 else x.expand(-1, 3, -1, -1))
    return (out.mean((2, 3)) if out.ndim == 4 else out).float().cpu()


# --- the metrics -----------------------------------------------------------------------------


def _real(reference: Tensor | None) -> Tensor:
    if reference is None:
        raise UserError("the metric compares with real images; pass them as reference.")
    return reference


def _frechet(network: str, layer: str, outputs: int) -> Callable[..., Score]:
    def measure(
        images: Tensor, reference: Tensor | None, *, parts: int = 10, together: int = outputs,
        seed: int = 0, **options: Any,
    ) -> Score:  # fmt: skip
        real = extract(_real(reference), network, layer=layer, **options)
        fake = extract(images, network, layer=layer, **options)
        return frechet.frechet_score(real, fake, parts=parts, together=together, seed=seed)

    return measure


def _balls(which: str, network: str, layer: str) -> Callable[..., Score]:
    def measure(
        images: Tensor, reference: Tensor | None, *, k: int = 5, resamples: int = 200,
        seed: int = 0, **options: Any,
    ) -> Score:  # fmt: skip
        if k != 5 or len(_real(reference)) != len(images):
            raise UserError(
                f"{which} is defined for k = 5 and as many real as generated images, not k = {k} "
                f"and {len(_real(reference))} against {len(images)}."
            )
        real = extract(_real(reference), network, layer=layer, **options)
        fake = extract(images, network, layer=layer, **options)
        found = density.density_coverage(real, fake, k, resamples=resamples, seed=seed)
        return density.scores(found)[which]

    return measure


def _protocols() -> dict[str, Protocol]:
    frechet_rows = (  # id, network, layer, images, outputs for one input
        ("fid_tf2015_n10000", "inception_tf2015", "pool3", 10_000, 1),
        ("fid_tf2015_n50000", "inception_tf2015", "pool3", 50_000, 1),
        ("fid_torchvision_n20000", "inception_torchvision", "pool3", 20_000, 10),
        ("fid_torchvision_n5000", "inception_torchvision", "pool3", 5_000, 10),
        ("fd_efficientnetlite0_n2000", "efficientnetlite0", "pooled", 2_000, 1),
    )
    out = {
        i: Protocol(i, "distribution", _frechet(net, layer, outputs), (net,), n=n)
        for i, net, layer, n, outputs in frechet_rows
    }
    for short, net, layer in (("vgg16fc2", "vgg16", "fc2_relu"),
                              ("efficientnetlite0", "efficientnetlite0", "pooled")):  # fmt: skip
        for which in ("density", "coverage"):
            i = f"{which}_{short}_k5_n2000"
            run = _balls(which, net, layer)
            out[i] = Protocol(i, "distribution", run, (net,), n=2_000, k=5)
    return out


PROTOCOLS = _protocols()
"""Frechet distances, density and coverage by protocol id."""
