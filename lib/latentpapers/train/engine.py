"""The training loop: groups of simultaneous updates, exact resume, one process or many."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from latentpapers import config as configs
from latentpapers.errors import ConfigMismatch, Diverged, UserError
from latentpapers.seeds import generator
from latentpapers.shapes import Bytes
from latentpapers.train import checkpoint
from latentpapers.train.context import Context, Sampler, flipped
from latentpapers.train.distributed import Group, single
from latentpapers.train.history import History


@dataclass(frozen=True)
class Given:
    """Gradients that the task has computed itself, in the order of the optimiser's parameters.

    For steps whose losses share most of a backward pass (AVAE: the critic's energy of a fake serves
    critic and generator with opposite signs).
    """

    gradients: tuple[Tensor, ...]


Update = dict[str, Tensor | Given]  # simultaneous updates: optimiser name -> its loss


class Task(Protocol):
    """What a paper's room gives the engine.

    Attributes:
        nets: the networks, by name.
        ema: decay of the running average of each named network (empty: none).
    """

    nets: dict[str, nn.Module]
    ema: dict[str, float]

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """One optimiser per update name."""

    def updates(self, batch: Bytes, ctx: Context) -> Iterator[Update]:
        """Yields groups of simultaneous losses; resumes after the engine has stepped them."""

    def before_step(self, step: int, images: int) -> float:
        """Called first in every step: grows networks, returns the learning-rate factor."""

    def after_step(self, terms: dict[str, Tensor]) -> None:
        """Called last in every step with the logged terms, averaged over the whole batch."""

    def state_dict(self) -> dict[str, Any]:
        """State beyond networks and optimisers (a controller), of tensors and JSON values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""


@dataclass(frozen=True)
class Fit:
    """How to train, whatever is trained.

    Attributes:
        steps: updates in all (not further ones after a resume).
        batch: images a step, over all processes.
        seconds: stop after this much training time, over all resumes; None: run all steps.
        micro: micro-batches a step (gradient accumulation).
        log_every: steps between history rows; the NaN watch looks as often.
        save_every: steps between checkpoints; 0: at the end alone.
        flip: mirror half of the images.
        precision: fp32 | bf16.
        compile: `torch.compile` the task's forward pass.
    """

    steps: int
    batch: int = 16
    seconds: float | None = None
    micro: int = 1
    log_every: int = 50
    save_every: int = 500
    flip: bool = False
    precision: str = "fp32"
    compile: bool = False


@dataclass
class _Run:
    """The state of one training in one process."""

    task: Task
    data: Bytes
    plan: Fit
    seed: int
    config: Any
    path: Path | None
    group: Group
    device: torch.device
    optimizers: dict[str, torch.optim.Optimizer]
    averages: dict[str, nn.Module]
    sampler: Sampler
    history: History
    step: int = 0
    seconds: float = 0.0
    sums: dict[str, Tensor] | None = None
    saved: int = 0
    rates: dict[str, list[float]] | None = None


def fit(
    task: Task,
    data: Bytes,
    plan: Fit,
    *,
    seed: int,
    config: Any,
    path: Path | None = None,
    device: str | torch.device = "cpu",
    group: Group | None = None,
    progress: Callable[[int, int, dict[str, float], float], None] | None = None,
) -> History:
    """Trains `task` on `data`; resumes from `path` if it exists.

    Args:
        task: see `Task`. Its networks are trained in place, on `device`.
        data: all training images as uint8, (N, C, H, W); they are moved to the device once.
        plan: how long and in what pieces.
        seed: decides the order of the images, flips and noise.
        config: everything that decides the result, stored in the checkpoint. Resuming under
            another one is refused; `steps`, `seconds` and the intervals may grow.
        path: the checkpoint (`.safetensors`); None keeps nothing.
        device: cpu, cuda, ...
        group: the processes that share the work.
        progress: called at every history row with (step, steps, averages, images per second).

    Returns:
        The averaged terms over time.

    Raises:
        ConfigMismatch: `path` was written under another configuration.
        Diverged: a term became NaN or infinite; `path` still holds the last good state.
    """
    run = _prepare(task, data, plan, seed, config, path, torch.device(device), group or single())
    if path is not None and Path(path).exists():
        _restore(run)
    clock, logged = time.perf_counter(), run.step
    stop = plan.seconds is not None and run.seconds >= plan.seconds
    while run.step < plan.steps and not stop:
        _one_step(run)
        run.step += 1
        last = run.step == plan.steps
        if run.step % plan.log_every == 0 or last:
            now = time.perf_counter()
            run.seconds, rate = run.seconds + now - clock, (run.step - logged) * plan.batch / max(now - clock, 1e-9)
            clock, logged = now, run.step
            row = _log(run)
            if progress and run.group.rank == 0:
                progress(run.step, plan.steps, row, rate)
            late = plan.seconds is not None and run.seconds >= plan.seconds
            stop = run.group.any(late, run.device)
        if last or stop or (plan.save_every and run.step % plan.save_every == 0):
            _save(run)
    return run.history


def _prepare(
    task: Task, data: Bytes, plan: Fit, seed: int, config: Any, path: Path | None,
    device: torch.device, group: Group,
) -> _Run:  # fmt: skip
    shards = group.world * plan.micro
    if plan.batch % shards:
        raise UserError(f"batch {plan.batch} does not divide into {shards} equal shards.")
    if data.dtype != torch.uint8:
        raise UserError(f"training images must be uint8, not {data.dtype}.")
    for net in task.nets.values():
        net.to(device, memory_format=torch.channels_last)
    if plan.compile and hasattr(task, "forward"):
        task.forward = torch.compile(task.forward)
    averages = {name: _average(task.nets[name], decay) for name, decay in task.ema.items()}
    return _Run(
        task, data.to(device), plan, seed, configs.as_dict(config), path and Path(path), group,
        device, task.optimizers(), averages, Sampler(len(data), plan.batch, seed), History(),
    )  # fmt: skip


def _average(net: nn.Module, decay: float) -> nn.Module:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    return AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def _one_step(run: _Run) -> None:
    factor = run.task.before_step(run.step, run.step * run.plan.batch)
    _set_rates(run, factor)
    batch = run.data[run.sampler.indices(run.step).to(run.device)]
    if run.plan.flip:
        g = generator(run.seed, "flip", run.step)
        batch = flipped(batch, (torch.rand(len(batch), generator=g) < 0.5).to(run.device))
    contexts = _contexts(run)
    streams = [run.task.updates(batch[c.start : c.stop], c) for c in contexts]
    while True:
        losses = [next(stream, None) for stream in streams]
        if losses[0] is None:
            break
        _apply(run, losses)
    terms = _mean_terms(run, contexts)
    run.task.after_step(terms)
    run.sums = {k: run.sums[k] + v for k, v in terms.items()} if run.sums else terms
    for name, average in run.averages.items():
        average.update_parameters(run.task.nets[name])


def _contexts(run: _Run) -> list[Context]:
    plan, shards = run.plan, run.group.world * run.plan.micro
    rows, first = plan.batch // shards, run.group.rank * plan.micro
    return [
        Context(
            run.seed, run.step, run.device, plan.batch, (first + i) * rows, (first + i + 1) * rows,
            plan.precision,
        )
        for i in range(plan.micro)
    ]  # fmt: skip


def _set_rates(run: _Run, factor: float) -> None:
    if run.rates is None:
        run.rates = {n: [g["lr"] for g in o.param_groups] for n, o in run.optimizers.items()}
    for name, optimizer in run.optimizers.items():
        for group, rate in zip(optimizer.param_groups, run.rates[name]):
            group["lr"] = rate * factor


def _apply(run: _Run, losses: list[Update]) -> None:
    """Gradients of every loss with respect to its own parameters, averaged; then all steps."""
    for micro in losses:
        left = len(micro)
        for name, loss in micro.items():
            left -= 1
            params = _parameters(run.optimizers[name])
            grads = (
                loss.gradients
                if isinstance(loss, Given)
                else torch.autograd.grad(loss, params, retain_graph=left > 0, allow_unused=True)
            )
            for param, grad in zip(params, grads):
                if grad is not None:
                    grad = grad / len(losses)
                    param.grad = grad if param.grad is None else param.grad + grad
    for name in losses[0]:
        params = [p for p in _parameters(run.optimizers[name]) if p.grad is not None]
        run.group.mean_([p.grad for p in params])
        run.optimizers[name].step()
        run.optimizers[name].zero_grad(set_to_none=True)


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for g in optimizer.param_groups for p in g["params"] if p.requires_grad]


def _mean_terms(run: _Run, contexts: list[Context]) -> dict[str, Tensor]:
    names = list(contexts[0].terms)
    if not names:
        return {}
    stacked = torch.stack([torch.stack([c.terms[n] for n in names]) for c in contexts]).mean(0)
    return dict(zip(names, run.group.mean(stacked)))


def _log(run: _Run) -> dict[str, float]:
    """Averages since the last row. NaN and infinity survive a sum, so none is missed."""
    since = run.step - (run.history.steps()[-1] if run.history.rows else 0)
    values = {name: float(total) / since for name, total in (run.sums or {}).items()}
    bad = [name for name, value in values.items() if value - value != 0]
    if bad:
        kept = f"the last good checkpoint, of step {run.saved}, is {run.path}" if run.saved else "no checkpoint was written yet"
        first = run.step - since + 1
        raise Diverged(
            f"training diverged: term {bad[0]!r} is {values[bad[0]]} between steps {first} and {run.step}; "
            f"{kept}. Lower the learning rate or restart from it."
        )
    run.history.add(run.step, values)
    run.sums = None
    return values


def _save(run: _Run) -> None:
    if run.path is None or run.group.rank != 0:
        return
    if run.sums and not all(bool(v.isfinite()) for v in run.sums.values()):
        _log(run)  # raises, and the good checkpoint stays
    optimizers = {name: optimizer.state_dict() for name, optimizer in run.optimizers.items()}
    state = {
        "step": run.step, "seconds": run.seconds, "seed": run.seed,
        "nets": {name: net.state_dict() for name, net in run.task.nets.items()},
        "optimizers": optimizers, "rates": run.rates,
        "ema": {name: average.state_dict() for name, average in run.averages.items()},
        "task": run.task.state_dict(), "history": run.history.state_dict(), "sums": run.sums,
    }  # fmt: skip
    about = {"config": run.config, "seed": run.seed, "plan": configs.as_dict(run.plan), "step": run.step,
             "images": run.step * run.plan.batch, "seconds": round(run.seconds, 1)}  # fmt: skip
    checkpoint.save(run.path, state, about=about)
    run.saved = run.step


_GROWING = {"steps", "seconds", "save_every"}  # a longer run is the same run


def _restore(run: _Run) -> None:
    about = checkpoint.header(run.path)
    _refuse_other(run, about)
    state = checkpoint.load(run.path, device=run.device)
    for name, net in run.task.nets.items():
        net.load_state_dict(state["nets"][name])
    for name, optimizer in run.optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])
    for name, average in run.averages.items():
        average.load_state_dict(state["ema"][name])
    run.task.load_state_dict(state["task"])
    run.history = History.from_state(state["history"])
    run.step, run.seconds, run.rates, run.sums = state["step"], state["seconds"], state["rates"], state["sums"]
    run.saved = run.step


def _refuse_other(run: _Run, about: dict[str, Any]) -> None:
    old = {**about.get("plan", {}), "seed": about.get("seed"), **configs.flat(about.get("config", {}))}
    new = {**configs.as_dict(run.plan), "seed": run.seed, **configs.flat(run.config)}
    lines = configs.difference(old, new)
    changed = [line for line in lines if line.split(":")[0] not in _GROWING]
    if changed:
        raise ConfigMismatch(
            f"{run.path} was written under another configuration ({'; '.join(changed)}); "
            "use the old one, or delete the checkpoint to start again."
        )
