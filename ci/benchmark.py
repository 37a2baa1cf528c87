"""`make benchmark`: what the project's own speed claims are worth on this machine.

Each line runs our version and the plain one in the same process, alternating, and prints the median
of each and their ratio. Nothing here is asserted: timings belong to a benchmark, not to a test.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import benchmark_lrc_i2i
import benchmark_lsrgan
import benchmark_metrics
import torch

from latentpapers.data import bank, degrade, drawn_faces
from latentpapers.latent import method, plain, walk
from latentpapers.latent.descent import Plan
from latentpapers.latent.inversion import Inversion
from latentpapers.latent.pair import of_networks
from latentpapers.metrics.images import nearest_distance
from latentpapers.nets import pgan
from latentpapers.papers import avae, lag
from latentpapers.train import engine
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


def avae_table() -> tuple[Callable[[], object], Callable[[], object]]:
    """A step of Table 1's last row, 32 px, batch 64: bf16, channels last and shared backward
    against eager fp32 in the default layout and the printed eqs 13 to 15. On a GPU if there is one.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    width = 64 if device == "cuda" else 16
    job = avae.Training("avae", "noise", 32, 64, width=width, latent=64, steps=1, batch=64)
    steps = avae.Step(job, 0, device), avae.Step(job, 0, device)
    for net in steps[0].nets.values():
        net.to(device, memory_format=torch.channels_last)
    for net in steps[1].nets.values():
        net.to(device)
    batch = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8, device=device)

    def gradients(step: avae.Step, losses: dict[str, object]) -> None:
        for name, optimizer in step.optimizers().items():
            params = [p for g in optimizer.param_groups for p in g["params"]]
            if isinstance(losses[name], torch.Tensor):
                torch.autograd.grad(losses[name], params, retain_graph=True)
        if device == "cuda":
            torch.cuda.synchronize()

    def context(precision: str) -> Context:
        return Context(0, 0, torch.device(device), 64, 0, 64, precision)

    def ours() -> None:
        gradients(steps[0], next(steps[0].updates(batch, context("bf16"))))

    def plain() -> None:
        ctx, step = context("fp32"), steps[1]
        x = batch.float() / 127.5 - 1
        images = step.generate(x, ctx.noise(job.latent), ctx.noise(job.latent))
        gradients(step, step.objectives(step.losses(x, images)))

    return ours, plain


def lag_step() -> tuple[Callable[[], object], Callable[[], object]]:
    """All gradients of eqs 7 and 8 with penalty: half precision, channels last, one shared pass,
    against eager fp32 in torch's default layout and the losses as printed. On a GPU where there is
    one, in fp16 as in the gpu preset; bf16 on a CPU, which has no products of fp16."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    small = device == "cpu"
    half = "bf16" if small else "fp16"
    job = lag.Training("lag", "noise", 64, 16, 8, 1, norm="l2", precision=half,
                       width=64 if small else 256, floor=16 if small else 64)  # fmt: skip
    steps = lag.Step(job, 0, device), lag.Step(job, 0, device)
    for net in steps[0].nets.values():
        net.to(device, memory_format=torch.channels_last)
    for net in steps[1].nets.values():
        net.to(device)
    batch = torch.randint(0, 256, (16, 3, 64, 64), dtype=torch.uint8, device=device)

    def gradients(step: lag.Step, losses: dict[str, object]) -> None:
        for name, net in step.nets.items():
            if isinstance(losses[name], torch.Tensor):
                torch.autograd.grad(losses[name], list(net.parameters()), retain_graph=True)
        if device == "cuda":
            torch.cuda.synchronize()

    scale = None if small else torch.tensor(engine.SCALE, device=device)

    def context(precision: str) -> Context:
        how = scale if precision == "fp16" else None
        return Context(0, 0, torch.device(device), 16, 0, 16, precision, how)

    def ours() -> None:
        gradients(steps[0], next(steps[0].updates(batch, context(half))))

    def plain() -> None:
        ctx, step = context("fp32"), steps[1]
        x = batch.float() / 127.5 - 1
        y = step.reduced(x)
        gradients(step, step.objectives(x, y, ctx.noise(job.noise, *y.shape[2:]), ctx)[0])

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


def _bicubic_x4() -> tuple[torch.Tensor, Callable[[], object]]:
    x = torch.rand(4, 3, 1024, 1024)
    return x, lambda: degrade.downscale(x, 4)


def against_dense() -> tuple[Callable[[], object], Callable[[], object]]:
    """x4 bicubic of 4 images of 1024 px: tiles of the band against the dense matrix."""
    x, ours = _bicubic_x4()
    matrix = degrade._dense(degrade._Axis("bicubic", 1024, 256), x.dtype, "cpu")
    return ours, lambda: matrix @ x @ matrix.T


def against_rows() -> tuple[Callable[[], object], Callable[[], object]]:
    """The same against one new row or column at a time."""
    x, ours = _bicubic_x4()
    matrix = degrade._dense(degrade._Axis("bicubic", 1024, 256), x.dtype, "cpu")
    bands = [(row, int(row.nonzero()[0]), int(row.nonzero()[-1]) + 1) for row in matrix]

    def plain() -> None:
        rows = [torch.einsum("k,nckw->ncw", r[a:b], x[:, :, a:b]) for r, a, b in bands]
        y = torch.stack(rows, 2)
        torch.stack([y[..., a:b] @ r[a:b] for r, a, b in bands], 3)

    return ours, plain


def against_torch() -> tuple[Callable[[], object], Callable[[], object]]:
    """The same against torch's antialiased bicubic, whose borders are not MATLAB's."""
    x, ours = _bicubic_x4()
    resize = torch.nn.functional.interpolate
    return ours, lambda: resize(x, scale_factor=0.25, mode="bicubic", antialias=True)


def crops() -> tuple[Callable[[], object], Callable[[], object]]:
    """64 mirrored crops of 64 px from 12,000 images of 128 px: one gather against one by one."""
    pixels = torch.randint(0, 256, (12_000, 3, 128, 128), dtype=torch.uint8)
    images, index = bank.Bank(pixels), torch.randint(12_000, (64,))

    def plain() -> torch.Tensor:
        w = images.draw(index, 64, (0, 0), flip=True)
        places = zip(index.tolist(), w.top.tolist(), w.left.tolist(), w.mirror.tolist())
        cut = ((pixels[i, :, y : y + 64, x : x + 64], m) for i, y, x, m in places)
        return torch.stack([c.flip(2) if m else c for c, m in cut])

    return lambda: images.crops(index, 64, (0, 0), flip=True), plain


def latents() -> tuple[Callable[[], object], Callable[[], object]]:
    """Inversion, protoimage and weight of 16 latents, 32 px, fmap_max 64: together, one by one.

    Five steps a stage: they cost the same from first to last. One candidate, so that neither side
    gains by judging candidates once for all.
    """
    networks = pgan.Generator(32, fmap_max=64, latent=512), pgan.Critic(32, fmap_max=64)
    both = of_networks(*(n.requires_grad_(False).eval() for n in networks))
    short = Plan(steps=5, tolerance=0.0)
    how = method.Search(
        Inversion(statistic="alone", candidates=1, descent=short),
        walk.Proto(descent=short), walk.Sigma(descent=replace(short, rate=0.01)), batch=1,
    )  # fmt: skip
    z0, candidates = method.starts(16, both, how, torch.Generator().manual_seed(0))

    def plain_search() -> None:
        judged = both.alone(both.images(candidates))
        for z in z0.split(1):
            z1 = plain.invert(both, both.images(z), candidates, judged, how.inversion)
            zp = plain.protoimage(both, z, z1, how.proto)[-1]
            plain.weights(both, z, zp, how.sigma)

    return lambda: method.search(both, z0, candidates, how), plain_search


def main() -> int:
    """Prints the table."""
    cases = {
        "AVAE step, shared backward / plain autograd": avae_step,
        "AVAE step, bf16 and shared backward / eager fp32": avae_table,
        "LAG step, half precision and shared pass / eager fp32": lag_step,
        "drawn-faces, batch / one by one": faces,
        "nearest distance, blocks / full matrix": distances,
        "latent search, 16 at once / one by one": latents,
        "bicubic x4 of 4 x 1024 px, band / dense matrix": against_dense,
        "bicubic x4 of 4 x 1024 px, band / row by row": against_rows,
        "bicubic x4 of 4 x 1024 px, band / torch antialias": against_torch,
        "64 crops of 64 px, one gather / one by one": crops,
        **benchmark_lrc_i2i.CASES,
        **benchmark_lsrgan.CASES,
        **benchmark_metrics.CASES,
    }
    print(f"{torch.get_num_threads()} thread(s), torch {torch.__version__}, median of {REPEATS}")
    print("| ours / plain | ours, ms | plain, ms | ratio |\n|---|---:|---:|---:|")
    for name, make in cases.items():
        ours, plain = medians(*make())
        print(f"| {name} | {1e3 * ours:.2f} | {1e3 * plain:.2f} | {ours / plain:.2f} |", flush=True)
        if make is against_dense:
            rate = 4 * 1024**2 / 1e6 / ours
    print(f"bicubic x4: {rate:.0f} megapixels/s (H x W of the input, three channels each)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
