"""`make benchmark`: what the project's own speed claims are worth on this machine.

Each line runs our version and the plain one in the same process, alternating, and prints the median
of each and their ratio. Nothing here is asserted: timings belong to a benchmark, not to a test.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch

from latentpapers.data import drawn_faces
from latentpapers.metrics.images import nearest_distance
from latentpapers.papers import avae
from latentpapers.train.context import Context

REPEATS = 7


def medians(ours: Callable[[], object], plain: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of both, after one run of each to warm up."""
    seen: tuple[list[float], list[float]] = ([], [])
    for turn in range(REPEATS + 1):
        for times, call in zip(seen, (ours, plain)):
            start = time.perf_counter()
            call()
            if turn:
                times.append(time.perf_counter() - start)
    return statistics.median(seen[0]), statistics.median(seen[1])


def avae_step() -> tuple[Callable[[], object], Callable[[], object]]:
    """Gradients of Algorithm 1: shared backward against plain autograd of eqs 13 to 15."""
    job = avae.Training("avae", "noise", 64, 64, width=16, latent=32, steps=1)
    step = avae.Step(job, 0)
    batch = torch.randint(0, 256, (16, 3, 64, 64), dtype=torch.uint8)
    optimizers = step.optimizers()
    params = {n: [p for g in o.param_groups for p in g["params"]] for n, o in optimizers.items()}

    def context() -> Context:
        return Context(0, 0, torch.device("cpu"), 16, 0, 16)

    def ours() -> None:
        losses = next(step.updates(batch, context()))
        for name in ("encoder", "decoder"):
            torch.autograd.grad(losses[name], params[name], retain_graph=True)

    def plain() -> None:
        ctx = context()
        x = batch.float() / 127.5 - 1
        images = step.generate(x, ctx.noise(job.latent), ctx.noise(job.latent))
        for name, loss in step.objectives(step.losses(x, images)).items():
            torch.autograd.grad(loss, params[name], retain_graph=True)

    return ours, plain


def faces() -> tuple[Callable[[], object], Callable[[], object]]:
    """512 drawn faces of 64 px: one batch against one by one."""
    factors = drawn_faces.sample_factors(512, 0)
    return (
        lambda: drawn_faces.render(factors, 64),
        lambda: [drawn_faces.render(row[None], 64) for row in factors],
    )


def distances() -> tuple[Callable[[], object], Callable[[], object]]:
    """Nearest neighbours of 2,000 among 4,000 images: in blocks against one cdist matrix."""
    a, b = torch.rand(2000, 3, 32, 32), torch.rand(4000, 3, 32, 32)
    return (
        lambda: nearest_distance(a, b),
        lambda: torch.cdist(a.flatten(1).double(), b.flatten(1).double()).min(1),
    )


def main() -> int:
    """Prints the table."""
    cases = {
        "AVAE step, shared backward / plain autograd": avae_step,
        "drawn-faces, batch / one by one": faces,
        "nearest distance, blocks / full matrix": distances,
    }
    print(f"{torch.get_num_threads()} thread(s), torch {torch.__version__}, median of {REPEATS}")
    print("| ours / plain | ours, ms | plain, ms | ratio |\n|---|---:|---:|---:|")
    for name, make in cases.items():
        ours, plain = medians(*make())
        print(f"| {name} | {1e3 * ours:.0f} | {1e3 * plain:.0f} | {ours / plain:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
