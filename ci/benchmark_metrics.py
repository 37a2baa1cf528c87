"""Speed and memory of the metrics of sets against the packages that define them.

`make benchmark` runs the small cases. `python ci/benchmark_metrics.py --full` measures the sizes
that the project promises: density and coverage of 10,000 x 10,000 x 4096 (time and memory, each
side in a process of its own) and the Frechet distance of 10,000 x 2048. Nothing is asserted.
"""

import argparse
import contextlib
import io
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import torch

from latentpapers.metrics import perceptual
from latentpapers.metrics.density import density_coverage
from latentpapers.metrics.frechet import frechet_distance

Pair = tuple[Callable[[], object], Callable[[], object]]


def features(n: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Real and generated features: rectified, correlated, of a few hundred directions, as a
    network's are."""
    g = torch.Generator().manual_seed(0)
    mix = torch.randn(256, width, generator=g) / 16
    real, fake = ((torch.randn(n, 256, generator=g) @ mix).relu_() for _ in range(2))
    return real, fake.mul_(0.95)


def prdc_of(real: torch.Tensor, fake: torch.Tensor) -> dict[str, float]:
    """The prdc package, without what it prints."""
    from prdc import compute_prdc

    with contextlib.redirect_stdout(io.StringIO()):
        found = compute_prdc(real.numpy(), fake.numpy(), 5)
    return {name: float(value) for name, value in found.items()}


def density(n: int = 1500, width: int = 1024) -> Pair:
    """Density and coverage: blocks against prdc's three matrices."""
    real, fake = features(n, width)
    return lambda: density_coverage(real, fake, 5), lambda: prdc_of(real, fake)


def frechet(n: int = 2000, width: int = 512) -> Pair:
    """Frechet distance: singular values against torch-fidelity's eigenvalues of a product."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    real, fake = features(n, width)

    def plain() -> float:
        stats = (fid_features_to_statistics(x) for x in (real, fake))
        return fid_statistics_to_metric(*stats, False)["frechet_inception_distance"]

    return lambda: frechet_distance(real, fake), plain


def pairs() -> Pair:
    """LPIPS of the 45 pairs of ten images of 64 px: features once against pair by pair."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    state = {"features." + k.split(".", 1)[1]: v for k, v in theirs.net.state_dict().items()}
    ours, x = perceptual.network("alexnet", state), torch.rand(10, 3, 64, 64)
    i, j = torch.combinations(torch.arange(10)).T

    @torch.no_grad()
    def plain() -> float:
        return sum(float(theirs(x[a, None], x[b, None], normalize=True)) for a, b in zip(i, j))

    return lambda: perceptual.pair_distances(x, ours), plain


CASES: dict[str, Callable[[], Pair]] = {
    "density and coverage, 1,500 x 1,500 x 1024, blocks / prdc": density,
    "Frechet distance, 2,000 x 512, ours / torch-fidelity": frechet,
    "LPIPS of 45 pairs, features once / pair by pair": pairs,
}
"""What `make benchmark` adds to its table."""


# --- the promised sizes ------------------------------------------------------------------------


def measured(run: Callable[[], object]) -> dict[str, float]:
    """Wall and processor seconds, and MiB beyond what was held before."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, processor = time.perf_counter(), time.process_time()
    found = run()
    spent = {"wall s": time.perf_counter() - wall, "cpu s": time.process_time() - processor}
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found | spent | {"MiB": (after - before) / 1024}


def one(which: str, n: int, width: int) -> dict[str, float]:
    """One side of one case, in this process."""
    real, fake = features(n, width)
    if which == "prdc":
        prdc_of(real[:50], fake[:50])
        return measured(lambda: prdc_of(real, fake))
    if which == "frechet":
        return measured(lambda: {"frechet": frechet_distance(real, fake)})
    recall, dtype = which == "ours_all", torch.float64 if which == "ours64" else torch.float32
    density_coverage(real[:50], fake[:50])

    def ours() -> dict[str, float]:
        found = density_coverage(real, fake, 5, recall=recall, dtype=dtype)
        return {k: getattr(found, k) for k in ("density", "coverage", "precision", "recall")}

    return measured(ours)


def full(n: int) -> int:
    """Each side in a process of its own, one after the other."""
    cases = ("ours", 4096), ("prdc", 4096), ("ours_all", 4096), ("ours64", 4096), ("frechet", 2048)
    for which, width in cases:
        call = [sys.executable, __file__, "--one", which, "--n", str(n), "--width", str(width)]
        print(which, n, width, subprocess.check_output(call, text=True).strip(), flush=True)
    return 0


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="the promised sizes; minutes")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=4096, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given.n, given.width)))
        return 0
    if given.full:
        return full(given.n)
    parser.error("the small cases belong to ci/benchmark.py; here give --full")
    return 2


if __name__ == "__main__":
    sys.exit(main())
