"""LRC-I2I's share of `make benchmark`: the batched passes, the training step, evaluation grids.

`python ci/benchmark_lrc_i2i.py` prints each ratio; `benchmark.py` may take `CASES` too.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from latentpapers import config, models
from latentpapers.losses import subspace
from latentpapers.nets import lrc_i2i as nets
from latentpapers.nets import spectral as sn
from latentpapers.papers import lrc_i2i as room
from latentpapers.train.context import Context

Pair = tuple[Callable[[], object], Callable[[], object]]
REPEATS = 7


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _job(precision: str = "") -> room.Training:
    """fp16 as in the gpu preset where nothing is asked; bf16 on a CPU, without products of fp16."""
    precision = precision or ("fp16" if _device() == "cuda" else "bf16")
    if _device() == "cuda":
        return room.Training("lrc", "none", 128, 1, 8, 1, batch=32, precision=precision)
    return room.Training("lrc", "none", 64, 1, 8, 1, width=16, cap=64, discriminator_width=32,
                         precision=precision)  # fmt: skip


def _step(job: room.Training, layout: torch.memory_format) -> room.Step:
    step = room.Step(job, 0, _device())
    for net in step.nets.values():
        net.to(_device(), memory_format=layout)
    return step


def _batch(job: room.Training) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    shape = (job.batch, 3, job.size, job.size)
    return torch.randint(256, shape, generator=g, dtype=torch.uint8).to(_device())


def _context(job: room.Training) -> Context:
    device = torch.device(_device())
    return Context(0, 0, device, job.batch, 0, job.batch, job.precision)


def passes() -> Pair:
    """The step's generator passes, forward and backward: ours against two bare passes."""
    job = _job()
    step = _step(job, torch.channels_last)
    g, x = step.nets["generator"], _batch(job).float().div(127.5).sub(1)
    x = x.contiguous(memory_format=torch.channels_last)
    low, params = subspace.reduce(x, job.low), list(g.parameters())

    def ours() -> None:
        p = step.passes(x, _context(job))
        torch.autograd.grad(p.translated.sum() + p.cycled.sum(), params)
        _wait()

    def bare() -> None:
        with sn.held(g), _context(job).autocast():
            first = g(x, low)
            second = g(first, low)
        torch.autograd.grad(first.sum() + second.sum(), params)
        _wait()

    return ours, bare


def four_passes() -> Pair:
    """The same against four passes at half the batch, norms computed in each, as published."""
    ours, _ = passes()
    job = _job()
    step = _step(job, torch.channels_last)
    g, x = step.nets["generator"], _batch(job).float().div(127.5).sub(1)
    a, b = (v.contiguous(memory_format=torch.channels_last) for v in room.sides(x))
    la, lb, params = subspace.reduce(a, job.low), subspace.reduce(b, job.low), list(g.parameters())

    def four() -> None:
        with _context(job).autocast():
            ab, ba = g(a, lb), g(b, la)
            aa, bb = g(ab, la), g(ba, lb)
        torch.autograd.grad(sum(v.sum() for v in (ab, ba, aa, bb)), params)
        _wait()

    return ours, four


def whole_step() -> Pair:
    """The training step: half precision, channels-last, norms once, against PyTorch's defaults."""
    fast = replace(_job(), penalty_every=1)

    def one(job: room.Training, layout: torch.memory_format) -> Callable[[], object]:
        step, batch = _step(job, layout), _batch(job)
        params = {name: list(net.parameters()) for name, net in step.nets.items()}

        def run() -> None:
            step.before_step(0, 0)
            for group in step.updates(batch, _context(job)):
                for name, loss in group.items():
                    torch.autograd.grad(loss, params[name], retain_graph=True)
            _wait()

        return run

    return (one(fast, torch.channels_last),
            one(replace(fast, precision="fp32"), torch.contiguous_format))  # fmt: skip


def grid(side: int = 10) -> Pair:
    """Ten sources by ten targets: encoded once, against a hundred single passes."""
    job = _job("fp32")
    net = nets.Generator(job.size, job.low, width=job.width, cap=job.cap, spectral=False)
    net = net.to(_device()).eval().requires_grad_(False)
    model = models.Model({"generator": net}, {"config": config.as_dict(job)})
    x = _batch(replace(job, batch=side)).float().div(127.5).sub(1)
    low = subspace.reduce(x, job.low)

    def each() -> torch.Tensor:
        rows = [torch.cat([room.translate(model, s[None], t[None]) for t in low]) for s in x]
        _wait()
        return torch.stack(rows)

    def ours() -> torch.Tensor:
        found = room.grid(model, x, low)
        _wait()
        return found

    gap = float((ours() - each()).abs().max())
    print(f"grid {side} x {side}: largest difference to pass by pass {gap:.1e}")
    return ours, each


CASES: dict[str, Callable[[], Pair]] = {
    "LRC-I2I two batched passes / two bare passes at double batch": passes,
    "LRC-I2I two batched passes / four passes, norms in each": four_passes,
    "LRC-I2I training step, half precision, channels-last / eager fp32": whole_step,
    "LRC-I2I grid of 10 x 10, encoded once / pass by pass": grid,
}


def medians(ours: Callable[[], object], plain: Callable[[], object]) -> tuple[float, float]:
    """Median CPU (GPU: wall) seconds of both, alternating, after one run of each."""
    clock = time.perf_counter if _device() == "cuda" else time.process_time
    seen: tuple[list[float], list[float]] = ([], [])
    for turn in range(REPEATS + 1):
        for times, call in zip(seen, (ours, plain), strict=True):
            start = clock()
            call()
            if turn:
                times.append(clock() - start)
    return statistics.median(seen[0]), statistics.median(seen[1])


if __name__ == "__main__":
    for name, case in CASES.items():
        a, b = medians(*case())
        print(f"{name}: {1e3 * a:.0f} ms / {1e3 * b:.0f} ms = {a / b:.2f} (x{b / a:.2f} faster)")
