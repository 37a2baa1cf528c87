"""Adam on many small problems at once: one state, no loop over problems, memory bounded by chunks.

The rows of a variable belong to *batches* of equal size; a batch is one problem, with its own loss
and its own stop. All batches of a chunk share each forward pass. A batch that has settled is frozen
and, every few steps, taken out, so that the result is that of the batches solved one by one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latentpapers.errors import UnknownName, UserError

Rows = Float[Tensor, "N ..."]
PerBatch = Float[Tensor, "U"]
Context = tuple[Tensor, ...]
Objective = Callable[..., tuple[PerBatch, PerBatch, Context]]
_RETIRE_EVERY = 10  # steps between removals; each asks the device for a number


def known(what: str, value: str, names: tuple[str, ...]) -> None:
    """Refuses a name that nothing answers to; otherwise it would silently mean the last branch.

    Raises:
        UnknownName: `value` is none of `names`.
    """
    if value not in names:
        raise UnknownName(what, value, names)


@dataclass(frozen=True)
class Plan:
    """How a descent goes.

    Attributes:
        rate: Adam's learning rate; betas 0.9 and 0.999 (section 4).
        steps: most steps.
        decay_every: the rate falls to a tenth every so many steps; 0 keeps it.
        tolerance: a batch stops when its gauge changes by less than this (`stop="change"`) or
            falls below it (`stop="below"`); 0 never stops early.

    Raises:
        UnknownName: another stop. UserError: a rate that is not positive, steps below 0.
    """

    rate: float = 0.1
    steps: int = 501
    decay_every: int = 200
    tolerance: float = 1e-4
    stop: str = "change"

    def __post_init__(self) -> None:
        known("stop of a descent", self.stop, ("change", "below"))
        if not self.rate > 0 or self.steps < 0:
            raise UserError(f"a descent needs a rate above 0 and steps, not {self}.")


@dataclass(frozen=True)
class Descended:
    """What a descent ended with: the variable, the context, each batch's last loss and steps."""

    variable: Rows
    context: Context
    losses: PerBatch
    steps: Int[Tensor, "U"]


class Adam:
    """Adam's update (Kingma and Ba 2015) of one tensor whose rows may be dropped on the way."""

    def __init__(self, like: Rows) -> None:
        self.mean, self.square, self.step = torch.zeros_like(like), torch.zeros_like(like), 0

    def update(self, variable: Rows, gradient: Rows, rate: float) -> Rows:
        """The variable after one step; its own tensor is left as it was."""
        self.step += 1
        self.mean = torch.lerp(self.mean, gradient, 0.1)
        self.square = self.square.mul(0.999).addcmul(gradient, gradient, value=0.001)
        mean = self.mean / (1 - 0.9**self.step)
        root = (self.square / (1 - 0.999**self.step)).sqrt() + 1e-8
        return variable - rate * mean / root

    def keep(self, rows: Tensor) -> None:
        """Forgets all other rows."""
        self.mean, self.square = self.mean[rows], self.square[rows]


def per_batch(values: Float[Tensor, "N"], batch: int) -> Float[Tensor, "U B"]:
    """One row a batch.

    Raises:
        UserError: a number of values that the batch does not divide.
    """
    if batch < 1 or len(values) % batch:
        raise UserError(f"{len(values)} latent vectors do not fill batches of {batch}.")
    return values.view(-1, batch)


def descend(
    variable: Rows,
    context: Context,
    objective: Objective,
    plan: Plan,
    *,
    batch: int,
    constrain: Callable[[Rows], Rows] | None = None,
) -> Descended:
    """Minimises every batch's loss by Adam, all batches side by side.

    Args:
        variable: (N, ...) start.
        context: tensors of N rows that the objective needs; it returns them renewed.
        objective: (variable, *context) -> losses (U,), gauges (U,) of the stop rule, new context.
            A batch's values must depend on its own rows alone.
        plan: rate, steps, stop.
        batch: rows of a batch; divides N.
        constrain: puts the variable back into its bounds after each step.

    Raises:
        UserError: a number of rows that the batch does not divide.
    """
    state = _State(variable, context, batch)
    for k in range(plan.steps):
        before = state.rows[0]
        leaf = before.clone().requires_grad_()
        losses, gauges, renewed = objective(leaf, *state.rows[1:])
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        tenth = k // plan.decay_every if plan.decay_every else 0
        moved = state.adam.update(before, gradient, plan.rate * 0.1**tenth)
        moved = moved if constrain is None else constrain(moved)
        rows = (moved, *(t.detach() for t in renewed))
        state.advance(rows, losses.detach(), gauges.detach(), plan)
        if plan.tolerance and (k + 1) % _RETIRE_EVERY == 0 and state.retire():
            break
    return state.result()


class _State:
    """Rows still on their way, and the results of those that have arrived."""

    def __init__(self, variable: Rows, context: Context, batch: int) -> None:
        units, device = len(per_batch(variable.flatten(1)[:, 0], batch)), variable.device
        self.batch, self.adam = batch, Adam(variable)
        self.rows = tuple(t.detach() for t in (variable, *context))
        self.units = torch.arange(units, device=device)
        self.done = torch.zeros(units, dtype=torch.bool, device=device)
        self.gauge = variable.new_full((units,), torch.inf)
        self.losses = variable.new_zeros(units)
        self.steps = torch.zeros(units, dtype=torch.long, device=device)
        self.out = tuple(t.clone() for t in self.rows)
        self.out_losses, self.out_steps = self.losses.clone(), self.steps.clone()

    def advance(self, rows: Context, losses: PerBatch, gauges: PerBatch, plan: Plan) -> None:
        """Takes one step for the batches that are not done, and marks those that now are.

        Masks instead of indices: an index would make the device wait for its own numbers.
        """
        frozen = self.done.repeat_interleave(self.batch)
        self.rows = tuple(_where(frozen, a, b) for a, b in zip(self.rows, rows))
        self.losses = torch.where(self.done, self.losses, losses)
        self.steps = self.steps + ~self.done
        if plan.tolerance:
            moved = (gauges - self.gauge).abs() if plan.stop == "change" else gauges
            self.done = self.done | (moved < plan.tolerance)
            self.gauge = gauges

    def retire(self) -> bool:
        """Moves finished batches to the results; true if none is left."""
        if not bool(self.done.any()):
            return False
        self._store(self.done)
        alive = ~self.done
        stays = alive.repeat_interleave(self.batch)
        self.rows = tuple(t[stays] for t in self.rows)
        self.adam.keep(stays)
        self.units, self.gauge, self.losses = (
            t[alive] for t in (self.units, self.gauge, self.losses)
        )
        self.steps, self.done = self.steps[alive], self.done[alive]
        return len(self.units) == 0

    def _store(self, chosen: Tensor) -> None:
        units, inside = self.units[chosen], chosen.repeat_interleave(self.batch)
        within = torch.arange(self.batch, device=units.device)
        rows = (units[:, None] * self.batch + within).flatten()
        for store, now in zip(self.out, self.rows):
            store[rows] = now[inside]
        self.out_losses[units], self.out_steps[units] = self.losses[chosen], self.steps[chosen]

    def result(self) -> Descended:
        self._store(torch.ones_like(self.done))
        return Descended(self.out[0], self.out[1:], self.out_losses, self.out_steps)


def _where(frozen: Tensor, old: Tensor, new: Tensor) -> Tensor:
    return torch.where(frozen.view(-1, *[1] * (new.ndim - 1)), old, new)


def chunks(n: int, batch: int, chunk: int, coupled: bool = False) -> Iterator[tuple[slice, int]]:
    """(rows, batch size) of the chunks in which `n` rows are worked on.

    A chunk holds whole batches, at most `chunk` rows of them but at least one; networks whose
    images depend on each other get one batch at a time. What remains is a smaller batch of its own.

    Raises:
        UserError: a size below 1.
    """
    if min(n, batch, chunk) < 1:
        raise UserError(f"n, batch and chunk must be positive, not {n}, {batch}, {chunk}.")
    wide = batch if coupled else max(chunk // batch, 1) * batch
    whole = n - n % batch
    for start in range(0, whole, wide):
        yield slice(start, min(start + wide, whole)), batch
    if whole < n:
        yield slice(whole, n), n - whole
