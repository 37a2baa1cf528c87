"""The training loop: groups of simultaneous updates, exact resume, one process or many."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from latentpapers import config as configs
from latentpapers.errors import ConfigMismatch, Diverged, UnknownName, UserError
from latentpapers.seeds import derive, generator
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

    Attributes:
        gradients: None where a parameter takes no part.
        scaled: they are those of `Context.scaled` losses, which fp16 asks for.
    """

    gradients: tuple[Tensor | None, ...]
    scaled: bool = False


PRECISIONS = ("fp32", "bf16", "fp16")
SCALE = 2.0**10  # of losses in fp16 at first: what is below 6e-8 there is 0, above 65,504 infinite
COMPILATIONS = 256  # of one function at most, as torch has it for all functions together
Update = dict[str, Tensor | Given]  # simultaneous updates: optimiser name -> its loss


def stepping(precision: str) -> dict[str, bool]:
    """Options of torch's Adam: all tensors at once; fused in fp16, for that takes the scale and
    whether to leave a step out from the device, where others make the host wait for it."""
    return {"fused": True} if precision == "fp16" else {"foreach": True}


class Task:
    """What a paper's room gives the engine; `optimizers` and `updates` are to be written.

    Attributes:
        nets: the networks, by name.
        ema: decay of the running average of each named network (empty: none).
    """

    nets: dict[str, nn.Module]
    ema: dict[str, float]

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """One optimiser per update name."""
        raise NotImplementedError

    def updates(self, batch: Bytes, ctx: Context) -> Iterator[Update]:
        """Yields groups of simultaneous losses; resumes after the engine has stepped them."""
        raise NotImplementedError

    def blocks(self) -> list[nn.Module]:
        """What `compile` compiles, one by one: repeated parts, so that one compilation serves all
        those of a shape, in later trainings of the same process too."""
        return []

    def before_step(self, step: int, images: int) -> float:
        """Called first in every step: grows networks, returns the learning-rate factor.

        Growing means that more levels take part: every parameter exists from the start, so that
        optimisers and checkpoints know it. Those that do not take part yet are not updated.
        """
        return 1.0

    def after_step(self, terms: dict[str, Tensor]) -> None:
        """Called last in every step with the logged terms, averaged over the whole batch.

        It may add terms of its own.
        """

    def state_dict(self) -> dict[str, Any]:
        """State beyond networks and optimisers (a controller), of tensors and JSON values."""
        return {}

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
        precision: fp32 | bf16 | fp16. fp16 has three more bits than bf16 and a narrow range, so
            losses are scaled; the scale is halved, and that update left out, when gradients
            overflow (`torch.amp.GradScaler`).
        compile: `torch.compile` the task's blocks; an error if it names none.
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
    scaler: torch.amp.GradScaler  # does nothing unless in fp16
    sampler: Sampler
    history: History
    step: int = 0
    seconds: float = 0.0
    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)  # a lazy term is not there every step
    saved: int = 0
    rates: dict[str, list[float]] | None = None
    clock: float = 0.0  # when `seconds` was last brought up to date


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
            another one is refused; `steps`, `seconds` and `save_every` may change.
        path: the checkpoint (`.safetensors`); None keeps nothing.
        device: cpu, cuda, ...
        group: the processes that share the work.
        progress: called at every history row with (step, steps, averages, images per second).

    Returns:
        The averaged terms over time.

    Raises:
        ConfigMismatch: `path` was written under another configuration.
        Diverged: a term or a network became NaN or infinite; `path` still holds the last good
            state.
        UserError: a plan that cannot be carried out.
    """
    run = _prepare(task, data, plan, seed, config, path, torch.device(device), group or single())
    if path is not None and Path(path).exists():
        _restore(run)
    with compiled(task) if plan.compile else contextlib.nullcontext():
        _loop(run, progress)
    return run.history


@contextlib.contextmanager
def compiled(task: Task) -> Iterator[None]:
    """Within, the task's blocks are compiled as their shapes come; calls outside run as written.

    A function is compiled for every size and width of a preset's networks, which torch's limit
    of 8 would end.
    """
    import torch.compiler.config as compiler  # imports the compiler: seconds

    blocks = task.blocks()
    for block in blocks:
        block.compile(dynamic=False, fullgraph=True)
    try:
        with compiler.patch(recompile_limit=COMPILATIONS):
            yield
    finally:
        for block in blocks:
            block._compiled_call_impl = None


def _loop(run: _Run, progress: Callable[..., None] | None) -> None:
    plan, logged, before = run.plan, run.step, run.seconds
    run.clock, stop = time.perf_counter(), _late(run)
    while run.step < plan.steps and not stop:
        _one_step(run)
        run.step += 1
        last = run.step == plan.steps
        if run.step % plan.log_every == 0 or last:
            _tick(run)
            row = _log(run)
            rate = (run.step - logged) * plan.batch / max(run.seconds - before, 1e-9)
            logged, before = run.step, run.seconds
            if progress and run.group.rank == 0:
                progress(run.step, plan.steps, row, rate)
            stop = run.group.any(_late(run), run.device)
        if last or stop or (plan.save_every and run.step % plan.save_every == 0):
            _tick(run)
            _save(run)


def _tick(run: _Run) -> None:
    """Adds the time since the last call to the run's."""
    now = time.perf_counter()
    run.seconds, run.clock = run.seconds + now - run.clock, now


def _late(run: _Run) -> bool:
    return run.plan.seconds is not None and run.seconds >= run.plan.seconds


def _prepare(
    task: Task, data: Bytes, plan: Fit, seed: int, config: Any, path: Path | None,
    device: torch.device, group: Group,
) -> _Run:  # fmt: skip
    _refuse_impossible(task, data, plan, group)
    for net in task.nets.values():
        net.to(device, memory_format=torch.channels_last)
    averages = {name: _average(task.nets[name], decay) for name, decay in task.ema.items()}
    scaler = torch.amp.GradScaler(device.type, SCALE, enabled=plan.precision == "fp16")
    return _Run(
        task, data.to(device), plan, seed, configs.as_dict(config), path and Path(path), group,
        device, task.optimizers(), averages, scaler, Sampler(len(data), plan.batch, seed),
        History(),
    )  # fmt: skip


def _refuse_impossible(task: Task, data: Bytes, plan: Fit, group: Group) -> None:
    for name in ("steps", "batch", "micro", "log_every"):
        if getattr(plan, name) < 1:
            raise UserError(f"{name} must be at least 1, not {getattr(plan, name)}.")
    shards = group.world * plan.micro
    if plan.batch % shards:
        raise UserError(f"batch {plan.batch} does not divide into {shards} equal shards.")
    if data.dtype != torch.uint8 or data.ndim != 4 or not len(data):
        what = f"{data.dtype} of shape {tuple(data.shape)}"
        raise UserError(f"training images must be uint8, (N, C, H, W) with N >= 1, not {what}.")
    if plan.precision not in PRECISIONS:
        raise UnknownName("precision", plan.precision, PRECISIONS)
    if plan.compile and not task.blocks():
        raise UserError("this training has no compiled form; leave `compile` off.")


def _average(net: nn.Module, decay: float) -> nn.Module:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    return AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def _one_step(run: _Run) -> None:
    factor = run.task.before_step(run.step, run.step * run.plan.batch)
    _set_rates(run, factor)
    # copies that wait for nothing: the next step is queued while the device works on this one
    batch = run.data[run.sampler.indices(run.step).to(run.device, non_blocking=True)]
    if run.plan.flip:
        g = generator(run.seed, "flip", run.step)
        flips = torch.rand(len(batch), generator=g) < 0.5
        batch = flipped(batch, flips.to(run.device, non_blocking=True))
    contexts = _contexts(run)
    streams = [run.task.updates(batch[c.start : c.stop], c) for c in contexts]
    with _layers_seeded(run):
        while (losses := [next(stream, None) for stream in streams])[0] is not None:
            _apply(run, losses)
            for context in contexts:
                context.scale = _scale(run)  # an update that overflowed has halved it
    terms = _mean_terms(run, contexts)
    run.task.after_step(terms)
    for name, value in terms.items():
        run.sums[name] = run.sums[name] + value if name in run.sums else value
        run.counts[name] = run.counts.get(name, 0) + 1
    for name, average in run.averages.items():
        average.update_parameters(run.task.nets[name])


@contextlib.contextmanager
def _layers_seeded(run: _Run) -> Iterator[None]:
    """Dropout draws from torch's own stream: lends it one that depends on (seed, step) alone."""
    cuda = run.device.type == "cuda"
    number = derive(run.seed, "layers", run.step, run.group.rank)
    with torch.random.fork_rng([run.device] if cuda else []):
        torch.default_generator.manual_seed(number)
        if cuda:
            torch.cuda.manual_seed(number)
        yield


def _contexts(run: _Run) -> list[Context]:
    plan, shards = run.plan, run.group.world * run.plan.micro
    rows, first = plan.batch // shards, run.group.rank * plan.micro
    scale = _scale(run)
    return [
        Context(
            run.seed, run.step, run.device, plan.batch, (first + i) * rows, (first + i + 1) * rows,
            plan.precision, scale,
        )
        for i in range(plan.micro)
    ]  # fmt: skip


def _scale(run: _Run) -> Tensor | None:
    """What the next group of losses is multiplied by; None: by nothing."""
    if not run.scaler.is_enabled():
        return None
    return run.scaler.scale(torch.ones((), device=run.device))


def _set_rates(run: _Run, factor: float) -> None:
    if run.rates is None:
        run.rates = {n: [g["lr"] for g in o.param_groups] for n, o in run.optimizers.items()}
    for name, optimizer in run.optimizers.items():
        for group, rate in zip(optimizer.param_groups, run.rates[name]):
            group["lr"] = rate * factor


def _apply(run: _Run, losses: list[Update]) -> None:
    """Gradients of every loss with respect to its own parameters, averaged; then all steps."""
    alone = len(losses) == run.group.world == 1  # nothing to average, and nobody writes into them
    for micro in losses:
        left = len(micro)
        for name, loss in micro.items():
            left -= 1
            params = _parameters(run.optimizers[name])
            grads = _gradients(run, loss, params, left > 0)
            for param, grad in zip(params, grads, strict=True):
                if grad is not None:
                    grad = grad if alone else grad / len(losses)
                    param.grad = grad if param.grad is None else param.grad + grad
    for name in losses[0]:
        params = [p for p in _parameters(run.optimizers[name]) if p.grad is not None]
        run.group.mean_([p.grad for p in params])
        run.scaler.step(run.optimizers[name])
        run.optimizers[name].zero_grad(set_to_none=True)
    run.scaler.update()


def _gradients(
    run: _Run, loss: Tensor | Given, params: list[nn.Parameter], retain: bool
) -> tuple[Tensor | None, ...]:
    if not isinstance(loss, Given):
        scaled = run.scaler.scale(loss)
        return torch.autograd.grad(scaled, params, retain_graph=retain, allow_unused=True)
    if run.scaler.is_enabled() and not loss.scaled:
        raise UserError(
            "this training makes its gradients itself, of losses that are not scaled; take fp32 or "
            "bf16, not fp16."
        )
    return loss.gradients


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
    values = {name: float(total) / run.counts[name] for name, total in run.sums.items()}
    bad = [name for name, value in values.items() if value - value != 0]
    if bad:
        _diverged(run, f"term {bad[0]!r} is {values[bad[0]]}")
    if run.scaler.get_scale() < 1:  # halved ten times and more, so it is not the scale's fault
        _diverged(run, "gradients overflow fp16 (bf16 has a wider range)")
    run.history.add(run.step, values)
    if run.step % run.plan.log_every == 0:  # else the last row, which a longer run does not have
        run.sums, run.counts = {}, {}
    return values


def _diverged(run: _Run, what: str) -> NoReturn:
    kept = f"the last good checkpoint, of step {run.saved}, is {run.path}"
    rows = [step for step in run.history.steps() if step < run.step]
    raise Diverged(
        f"training diverged: {what} between steps {rows[-1] + 1 if rows else 1} and {run.step}; "
        f"{kept if run.saved else 'no checkpoint was written yet'}. "
        "Lower the learning rate or restart from it."
    )


def _refuse_spoilt(run: _Run) -> None:
    """A checkpoint of NaN must not replace a good one; all processes see the same values."""
    for name, value in run.sums.items():
        if not bool(value.isfinite()):
            _diverged(run, f"term {name!r} is {float(value)}")
    for name, net in run.task.nets.items():
        finite = [p.isfinite().all() for p in net.parameters()]
        if finite and not bool(torch.stack(finite).all()):
            _diverged(run, f"network {name!r} came to hold NaN or infinity")


def _save(run: _Run) -> None:
    _refuse_spoilt(run)
    if run.path is None or run.group.rank != 0:
        return
    optimizers = {name: optimizer.state_dict() for name, optimizer in run.optimizers.items()}
    every = run.plan.log_every
    history = History(run.history.terms, [r for r in run.history.rows if r[0] % every == 0])
    state = {
        "step": run.step, "seconds": run.seconds, "seed": run.seed,
        "nets": {name: net.state_dict() for name, net in run.task.nets.items()},
        "optimizers": optimizers, "rates": run.rates,
        "ema": {name: average.state_dict() for name, average in run.averages.items()},
        "task": run.task.state_dict(), "history": history.state_dict(),
        "scaler": run.scaler.state_dict(),
        "sums": run.sums, "counts": run.counts,
    }  # fmt: skip
    about = {
        "config": run.config, "seed": run.seed, "plan": configs.as_dict(run.plan),
        "step": run.step, "images": run.step * run.plan.batch, "seconds": round(run.seconds, 1),
    }  # fmt: skip
    checkpoint.save(run.path, state, about=about)
    run.saved = run.step


_GROWING = {"steps", "seconds", "save_every"}  # a longer run is the same run


def _restore(run: _Run) -> None:
    about = checkpoint.header(run.path)
    _refuse_other(run, about)
    state = checkpoint.load(run.path)  # on the CPU: Adam keeps its step counts there
    for name, net in run.task.nets.items():
        net.load_state_dict(state["nets"][name])
    for name, optimizer in run.optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])
        _match_layout(optimizer)
    for name, average in run.averages.items():
        average.load_state_dict(state["ema"][name])
    run.task.load_state_dict(state["task"])
    if run.scaler.is_enabled():
        run.scaler.load_state_dict(state["scaler"])
    run.history = History.from_state(state["history"])
    run.step, run.seconds, run.rates = state["step"], state["seconds"], state["rates"]
    run.sums = {name: value.to(run.device) for name, value in (state["sums"] or {}).items()}
    run.counts, run.saved = state.get("counts") or {}, run.step
    if run.step == run.plan.steps and run.sums:
        _log(run)


def _match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Files hold rows in plain order; fast multi-tensor steps need the parameters' order."""
    for param, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == param.shape:
                state[key] = torch.empty_like(param, dtype=value.dtype).copy_(value)


def _refuse_other(run: _Run, about: dict[str, Any]) -> None:
    old = {
        **about.get("plan", {}),
        "seed": about.get("seed"),
        **configs.flat(about.get("config", {})),
    }
    new = {**configs.as_dict(run.plan), "seed": run.seed, **configs.flat(run.config)}
    lines = configs.difference(old, new)
    changed = [line for line in lines if line.split(":")[0] not in _GROWING]
    if changed:
        raise ConfigMismatch(
            f"{run.path} was written under another configuration ({'; '.join(changed)}); "
            "use the old one, or delete the checkpoint to start again."
        )
