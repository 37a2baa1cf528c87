"""The promises about a GPU in one call: `python ci/benchmark_gpu.py [PART ...] [--out FILE.json]`.

Speed of the training steps of the `gpu` presets (images a second in the engine, as written and with
compiled blocks; against eager fp32 with PyTorch's defaults), agreement of the fast step with the
exact one, memory, and the latent searches. Drawn faces of the right size stand for data; LSRGAN
starts from its weights where they are at hand. Each line names its bar. `--small` runs every line
at a small size, anywhere: it shows that each can be measured, and judges no bar. The 600 s a seed
are not here: a run's own manifest tells them.
"""

import argparse
import contextlib
import dataclasses
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import benchmark
import benchmark_lrc_i2i
import torch
from torch import Tensor

from latentpapers import data, models, weights
from latentpapers.data import drawn_faces
from latentpapers.latent import method, plain
from latentpapers.latent.pair import of_networks
from latentpapers.nets import lag as nets_lag
from latentpapers.nets import pgan
from latentpapers.papers import avae, diamond, lag, lrc_i2i, lsrgan
from latentpapers.precision import HALVES
from latentpapers.train import engine
from latentpapers.train.context import Context
from latentpapers.train.engine import Fit, Given, fit

START = "realsr_df2k"
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
FULL = GPU and "--small" not in sys.argv
# a CPU does these in seconds
SMALL: dict[str, Any] = {"width": 8, "latent": 8, "batch": 4, "blocks": 1, "floor": 4, "noise": 4,
                         "discriminator_width": 8, "cap": 16, "style": 8, "hidden": 16,
                         "style_cap": 8, "critic_width": 8, "encoder_width": 8, "growth": 4,
                         "crop": 64, "size": 32}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Line:
    """A measured value and the bar that it must reach.

    Attributes:
        at_least: the bar is a lower one; False: an upper one. No bar: a value to know.
    """

    paper: str
    what: str
    value: float
    unit: str
    bar: float | None = None
    at_least: bool = True

    @property
    def met(self) -> str:
        """yes | no; empty without a bar or at a small size."""
        if self.bar is None or not FULL:
            return ""
        return "yes" if (self.value >= self.bar) == self.at_least else "no"


def job_of(room: Any, run: str, **changes: Any) -> Any:
    """A run of the gpu preset, grown from its first step; small unless `FULL`."""
    job = room.PRESETS["gpu"].training[run]
    if room is diamond:
        changes |= {"start": job.size}
    if hasattr(job, "phase"):
        changes |= {"phase": 0}
    small = {} if FULL else {k: v for k, v in SMALL.items() if hasattr(job, k)}
    if not FULL and room is diamond:
        small = {"size": 32, "start": 32, "batch": 4, "fmap_base": 32, "fmap_max": 16, "latent": 16}
    return dataclasses.replace(job, **{**changes, **small})


def task_of(room: Any, job: Any) -> Any:
    """The engine's task of a run, as its room makes it."""
    if room is avae:
        return avae.task_of(job, 0, DEVICE)
    if room is diamond:
        return diamond.task(job, 0, DEVICE)
    if room is lrc_i2i:
        return lrc_i2i.STEPS[job.method](job, 0, DEVICE)
    if room is lsrgan:
        hr = list(drawn(4, 256))
        bank = data.PairBank(hr, [lsrgan.reduced(x) for x in hr], 4, DEVICE)
        step = lsrgan.Step(job, 0, bank, lsrgan.feature_network(job, DEVICE))
        if FULL and weights.available(START):  # its state counts: untrained, gradients are wild
            step.nets["generator"].load_state_dict(weights.load(START))
        return step
    return lag.Step(job, 0, DEVICE)


def images(job: Any, n: int) -> Tensor:
    """Images of the shape of a run's; those of LSRGAN come from its bank."""
    if isinstance(job, lsrgan.Training):
        return torch.zeros(n, 1, 1, 1, dtype=torch.uint8)
    return drawn(n, job.size)[:, : getattr(job, "channels", 3)]


def drawn(n: int, size: int) -> Tensor:
    """Drawn faces as bytes: they can be had anywhere, and are more like data than noise is."""
    found = drawn_faces.render(drawn_faces.sample_factors(min(n, 64), 0), size)
    return found.add(1).mul(127.5).round().byte().repeat(-(-n // len(found)), 1, 1, 1)[:n]


RUNS: tuple[tuple[Any, str], ...] = (
    (avae, "cifar_began"), (avae, "cifar_began_lsm"), (avae, "cifar_avae"), (avae, "faces_avae"),
    (lag, "faces_x8"), (lag, "faces_x32"), (lag, "cats_x8"), (lrc_i2i, "cats_lrc"),
    (lrc_i2i, "cats_stargan_v2"), (lsrgan, "clsr"), (diamond, "faces_pgan"),
    (diamond, "cats_pgan"), (diamond, "faces_wgan_gp"),
)  # fmt: skip
HEADLINES = {"faces_avae", "faces_x8", "faces_x32", "cats_x8", "cats_lrc", "cats_stargan_v2",
             "faces_pgan", "cats_pgan"}  # fmt: skip
HEADLINE = 500_000  # images that each of them should see in its seconds


def bar_of(run: str, job: Any) -> float | None:
    """Images a second that a run must reach: the task's own bar, or a headline's share."""
    if run.startswith("cifar_"):
        return 5000.0
    return HEADLINE / job.seconds if run in HEADLINES else None


def changed(room: Any) -> dict[str, Any]:
    """LSRGAN's features need weights that this may run without."""
    return {"features": "random", "start": "", "data": "none"} if room is lsrgan else {}


def rates(seconds: float) -> Iterator[Line]:
    """Images a second of whole training steps in the engine: losses, optimisers, averages."""
    for room, run in RUNS:
        job = job_of(room, run, **changed(room))
        found = rate(room, job, seconds)
        yield Line(paper(room), f"{run}: training", found, "images/s", bar_of(run, job))


def paper(room: Any) -> str:
    """The paper's name."""
    return room.__name__.rpartition(".")[2]


def rate(room: Any, job: Any, seconds: float, *, compiled: bool = False) -> float:
    """Images a second, the median row; compiling takes part in the first one alone."""
    seen: list[float] = []
    plan = Fit(10**6 if FULL else 3, job.batch, seconds, log_every=10 if FULL else 1,
               precision=job.precision, save_every=0, compile=compiled)  # fmt: skip
    fit(task_of(room, job), images(job, 4 * job.batch), plan, seed=0, config=job, device=DEVICE,
        progress=lambda *row: seen.append(row[-1]))  # fmt: skip
    return statistics.median(seen[1:] or seen)


def compiled(seconds: float) -> Iterator[Line]:
    """The same rates with compiled blocks, what compiling takes, and what it does to gradients:
    which presets should say `compile=True`."""
    for room, run in RUNS:
        name, job = paper(room), job_of(room, run, **changed(room))
        if not task_of(room, job).blocks():
            continue
        torch.compiler.reset()
        exact, start = directions(room, run, "fp32"), perf_counter()
        ours = directions(room, run, job.precision, compiled=True)
        took = perf_counter() - start
        fast = rate(room, job, seconds, compiled=True)
        yield Line(name, f"{run}: training, compiled", fast, "images/s", bar_of(run, job))
        yield Line(name, f"{run}: compiling and one step", took, "s")
        yield cosine(room, f"{run}: gradient cosine, compiled and fp32", ours, exact)


def plain_step(room: Any, job: Any) -> Callable[[], None]:
    """A whole training step as PyTorch does it by default: eager fp32, its own layout and Adam, the
    losses as printed, each differentiated by itself."""
    task = task_of(room, dataclasses.replace(job, precision="fp32"))
    for net in task.nets.values():
        net.to(DEVICE)
    rates = {name: optimizer.defaults["lr"] for name, optimizer in task.optimizers().items()}
    params = {name: [p for g in o.param_groups for p in g["params"] if p.requires_grad]
              for name, o in task.optimizers().items()}  # fmt: skip
    adam = {name: torch.optim.Adam(own, lr=rates[name]) for name, own in params.items()}
    batch = images(job, job.batch).to(DEVICE)
    ctx = Context(0, 0, torch.device(DEVICE), job.batch, 0, job.batch)

    def run() -> None:
        task.before_step(0, 0)
        for update in printed(room, task, batch, ctx):
            for name, loss in update.items():
                if isinstance(loss, Tensor) and loss.requires_grad:
                    found = torch.autograd.grad(
                        loss, params[name], retain_graph=True, allow_unused=True
                    )
                    for param, grad in zip(params[name], found, strict=True):
                        param.grad = grad
            for name in update:
                adam[name].step()
        torch.cuda.synchronize() if GPU else None

    return run


def printed(room: Any, task: Any, batch: Tensor, ctx: Context) -> Iterator[dict[str, Any]]:
    """The updates of a step without shared backward passes, where the room has such."""
    x = batch.float() / 127.5 - 1
    if room is avae:
        made = task.generate(x, ctx.noise(task.job.latent), ctx.noise(task.job.latent))
        return iter([task.objectives(task.losses(x, made))])
    if room is lag:
        y = task.reduced(x)
        noise = ctx.noise(task.job.noise, *y.shape[2:])
        return iter([task.objectives(x, y, noise, ctx)[0]])
    return task.updates(batch, ctx)


TWICE = ("cifar_began", "cifar_began_lsm", "cifar_avae", "faces_x8", "faces_x32", "cats_lrc",
         "clsr")  # fmt: skip


def ratios() -> Iterator[Line]:
    """The fast way against the plain one: whole steps, optimisers included, then parts."""
    for room, run in RUNS:
        if run in TWICE:
            job = job_of(room, run, **changed(room))
            bare, _ = benchmark.medians(plain_step(room, job), lambda: None)
            times = rate(room, job, 5.0) * bare / job.batch
            yield Line(paper(room), f"{run}: training / eager fp32: times as fast", times, "", 2.0)
    cases: tuple[tuple[str, Callable[[], Any], float], ...] = (
        ("grid 10 x 10 / pass by pass", benchmark_lrc_i2i.grid, 3.0),
        ("two bare passes / generator passes", benchmark_lrc_i2i.passes, 1 / 1.1),
    )
    for what, make, bar in cases:
        ours, bare = benchmark.medians(*make())
        yield Line("lrc_i2i", f"{what}: times as fast", bare / ours, "", bar)
    tf32 = torch.backends.cudnn.flags(allow_tf32=False)  # the bar is of exact arithmetic
    with tf32:
        ours, each = benchmark_lrc_i2i.grid()
        gap = float((ours() - each()).abs().max())
    yield Line("lrc_i2i", "grid less pass by pass, largest", gap, "", 1e-5, False)


def directions(room: Any, run: str, precision: str, compiled: bool = False) -> dict[str, Tensor]:
    """All gradients of one step from equal state and batch, a vector an optimiser.

    Args:
        precision: fp32 (exact: no TF32), tf32 (PyTorch's default), bf16, or fp16, whose gradients
            are as many times too long as the engine scales them; halved like there on overflow.
    """
    scale = engine.SCALE
    while True:
        found = gradients(room, run, precision, compiled, scale)
        if precision != "fp16" or scale < 1 or all(g.isfinite().all() for g in found.values()):
            return found
        scale /= 2


def gradients(
    room: Any, run: str, precision: str, compiled: bool, scale: float
) -> dict[str, Tensor]:
    """`directions` at one scale of the losses."""
    exact, precision = precision == "fp32", "fp32" if precision == "tf32" else precision
    job = dataclasses.replace(job_of(room, run, **changed(room)), precision=precision)
    task = task_of(room, job)
    for net in task.nets.values():
        net.to(DEVICE, memory_format=torch.channels_last)
    optimizers, found = task.optimizers(), {}
    task.before_step(0, 0)
    times = torch.tensor(scale, device=DEVICE) if precision == "fp16" else None
    ctx = Context(0, 0, torch.device(DEVICE), job.batch, 0, job.batch, precision, times)
    tf32 = torch.backends.cudnn.flags(allow_tf32=not exact)
    with engine.compiled(task) if compiled else contextlib.nullcontext(), tf32:
        for update in task.updates(images(job, job.batch).to(DEVICE), ctx):
            for name, loss in update.items():
                params = [p for g in optimizers[name].param_groups for p in g["params"]]
                params = [p for p in params if p.requires_grad]
                given = isinstance(loss, Given)
                grads = loss.gradients if given else torch.autograd.grad(
                    ctx.scaled(loss), params, retain_graph=True, allow_unused=True)  # fmt: skip
                found.setdefault(name, torch.cat([g.flatten() for g in grads if g is not None]))
    return found


def cosine(room: Any, what: str, found: dict[str, Tensor], exact: dict[str, Tensor]) -> Line:
    """Between two sets of gradients, of the network where it is least; three rooms have a bar."""
    least = min(float(torch.cosine_similarity(found[k].double(), exact[k].double(), dim=0))
                for k in exact)  # fmt: skip
    bar = 0.99 if room in (lag, lsrgan, lrc_i2i) else None
    return Line(room.__name__.rpartition(".")[2], what, least, "", bar)


def agreements() -> Iterator[Line]:
    """Gradients, and LAG's critic, in a run's own precision and in fp32."""
    for room, run in RUNS:
        precision = job_of(room, run).precision
        exact, found, usual = (directions(room, run, p) for p in ("fp32", precision, "tf32"))
        yield cosine(room, f"{run}: gradient cosine, {precision} and fp32", found, exact)
        # what PyTorch's own fp32 reaches: products of 11 bits too
        line = cosine(room, f"{run}: gradient cosine, TF32 and fp32", usual, exact)
        yield dataclasses.replace(line, bar=None)
    for run in ("faces_x8", "faces_x32"):
        job = job_of(lag, run)
        found = critics(task_of(lag, job).nets["critic"], images(job, 64), job)
        what = f"{run}: critic, {job.precision} less fp32, of its spread"
        yield Line("lag", what, found, "", 0.01, False)
    model = models.load("lag/faces_x8_s0")  # what training does to the bar: weights grow
    shipped, real = lag.job_of(model), data.load("faces-dcgan", size=32, split="test", n=64)
    shipped = dataclasses.replace(shipped, precision=job.precision)
    found = critics(model["critic"], real.pixels, shipped)
    yield Line("lag", f"shipped faces_x8: its trained critic, {job.precision} less fp32, of its "
               "spread", found, "", 0.01, False)  # fmt: skip


def critics(net: torch.nn.Module, pixels: Tensor, job: lag.Training) -> float:
    """The largest change of a critic's output by a run's precision, in standard deviations over
    images.

    Args:
        pixels: (N, C, H, W) uint8, at the size of the run.
    """
    net = net.to(DEVICE, memory_format=torch.channels_last)
    x = pixels.to(DEVICE).div(127.5).sub(1)
    zeros = x.new_zeros(len(x), 3, *[lag.low_side(job)] * 2)
    with torch.no_grad():
        exact = nets_lag.value(net(x, zeros)).double()
        with torch.autocast(DEVICE, HALVES[job.precision]):
            found = nets_lag.value(net(x, zeros)).double()
    return float((found - exact).abs().max() / exact.std())


def memory() -> Iterator[Line]:
    """Peak of a training step of LAG's paper preset, as allocated."""
    job = lag.PRESETS["paper"].training["faces_x8"]
    job = dataclasses.replace(
        job, phase=0, **({} if FULL else {"width": 8, "floor": 4, "size": 32})
    )
    torch.cuda.reset_peak_memory_stats() if GPU else None
    fit(task_of(lag, job), images(job, job.batch), Fit(2, job.batch, precision=job.precision),
        seed=0, config=job, device=DEVICE)  # fmt: skip
    yield Line("lag", "paper preset, 128 px, batch 16: peak memory", allocated(), "GB", 16.0, False)


def allocated() -> float:
    """Peak memory since it was last reset, in GB; 0 on the CPU, which does not count it."""
    return torch.cuda.max_memory_allocated() / 1e9 if GPU else 0.0


def searches(share: int = 10) -> Iterator[Line]:
    """Inversion, protoimage and weight of 1,000 latents on the gpu preset's network, and one by one
    (two, times 500). A `share`-th of each stage's steps is run, and the time multiplied by it: a
    step costs the same from first to last; none stops early."""
    job = job_of(diamond, "faces_pgan")
    shape = {"fmap_base": job.fmap_base, "fmap_max": job.fmap_max}
    nets = pgan.Generator(job.size, latent=job.latent, **shape), pgan.Critic(job.size, **shape)
    nets = tuple(n.to(DEVICE).requires_grad_(False).eval() for n in nets)
    pair = of_networks(*nets, dtype=torch.bfloat16)
    how, n = diamond.PRESETS["gpu"].search, 1000 if FULL else 40

    def shorter(part: Any) -> Any:
        steps = max(1, part.descent.steps // (share if FULL else 200))
        descent = dataclasses.replace(part.descent, steps=steps, tolerance=0.0)
        return dataclasses.replace(part, descent=descent)

    parts = {name: shorter(getattr(how, name)) for name in ("inversion", "proto", "sigma")}
    how = dataclasses.replace(how, **parts)
    starts = method.starts(n, pair, how, torch.Generator().manual_seed(0))
    z0, candidates = (z.to(DEVICE) for z in starts)

    def together() -> None:
        method.search(pair, z0, candidates, how)
        torch.cuda.synchronize() if GPU else None

    # once for all latents, so it is no part of one's time
    judged = pair.alone(pair.images(candidates))

    def alone() -> None:
        for z in z0[:2].split(1):
            z1 = plain.invert(pair, pair.images(z), candidates, judged, how.inversion)
            zp = plain.protoimage(pair, z, z1, how.proto)[-1]
            plain.weights(pair, z, zp, how.sigma)
        torch.cuda.synchronize() if GPU else None

    method.search(pair, z0[: how.batch], candidates, how)  # warms up
    torch.cuda.reset_peak_memory_stats() if GPU else None
    whole, each = (clocked(call) * share for call in (together, alone))
    yield Line("diamond", f"{n} latents, three stages", whole, "s", 180.0, False)
    yield Line("diamond", "together / one by one: times as fast", each / 2 * n / whole, "", 8.0)
    yield Line("diamond", f"{how.chunk} at once: peak memory", allocated(), "GB", 8.0, False)


def clocked(call: Callable[[], object]) -> float:
    """Wall seconds of a call."""
    start = perf_counter()
    call()
    return perf_counter() - start


PARTS: dict[str, Callable[[], Iterator[Line]]] = {
    "rates": lambda: rates(8.0), "ratios": ratios, "agreements": agreements, "memory": memory,
    "searches": searches, "compiled": lambda: compiled(8.0),
}  # fmt: skip


def main() -> int:
    """Prints the table line by line and writes it to a file if one is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    for name in set(args.parts) - set(PARTS):
        parser.error(f"unknown part {name!r}; known: {', '.join(PARTS)}")
    if not (GPU or args.small):
        print("No GPU here, so nothing about one was measured; `--small` runs every line anyway.")
        return 0
    where = torch.cuda.get_device_name() if GPU else "CPU"
    print(f"{where}{'' if FULL else ', small sizes: no bar is judged'}, torch {torch.__version__}")
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    print(f"TF32 in matmul {tf32[0]}, in convolutions {tf32[1]} (PyTorch's defaults)")
    lines: list[Line] = []
    for line in (line for name in args.parts or PARTS for line in PARTS[name]()):
        lines.append(line)
        bar = "" if line.bar is None else f"{'>=' if line.at_least else '<='} {line.bar:.3g}"
        words = (line.paper, line.what, f"{line.value:.4g} {line.unit}".strip(), bar, line.met)
        print("| " + " | ".join(words) + " |", flush=True)
        if args.out:
            rows = [dataclasses.asdict(v) | {"met": v.met} for v in lines]
            args.out.write_text(json.dumps({"device": where, "lines": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
