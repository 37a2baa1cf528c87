"""The controller that keeps generator and discriminator in balance.

Written from AVAE section 3.4 (eqs 10 to 12). Eq 12 updates k by increments, so its gains act one
integration higher than they look: lambda_1 multiplies e_t and *sums* it (the integral part),
lambda_2 multiplies e_t - e_{t-1} (the proportional part), lambda_3 the second difference (the
derivative part). BEGAN's k update is the lambda_1 term alone: an integral controller, although the
paper calls it proportional (erratum).
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentpapers.ledger import implements
from latentpapers.shapes import Scalar

Number = TypeVar("Number", float, Tensor)
Reading = Literal["corrected", "printed"]


@implements("avae", eq="10")
def balance(fake: Number, recovered: Number, real: Number, alpha: float) -> Number:
    """(E[L_g] + alpha E[L_v]) / E[L_d]: equals the target eta at equilibrium.

    Algorithm 1 says "calculate eta"; eta is the fixed target ratio, 0.5 (erratum).
    """
    return (fake + alpha * recovered) / real


@implements("avae", eq="11")
def error_signal(
    real: Number,
    fake: Number,
    recovered: Number,
    *,
    eta: float,
    alpha: float,
    reading: Reading = "corrected",
) -> Number:
    """e_t = eta L_d - (L_g + alpha L_v): positive while fakes are too easy for the discriminator.

    Eq 11 prints + alpha L_v; eqs 5, 10 and 13 and the convergence measure need the minus (erratum).
    `reading="printed"` keeps the slip, to show its effect.
    """
    sign = -1 if reading == "corrected" else 1
    return eta * real - fake + sign * alpha * recovered


@implements("avae", eq="12")
def gain_update(
    k: Number, error: Number, previous: Number, earlier: Number, gains: tuple[float, float, float]
) -> Number:
    """k_t = k_{t-1} + l1 e_t + l2 (e_t - e_{t-1}) + l3 (e_t - 2 e_{t-1} + e_{t-2}), not clamped.

    Args:
        k: k_{t-1}.
        error, previous, earlier: e_t, e_{t-1}, e_{t-2}.
        gains: integral, proportional, derivative (lambda_1, lambda_2, lambda_3).
    """
    integral, proportional, derivative = gains
    return (
        k
        + integral * error
        + proportional * (error - previous)
        + derivative * (error - 2 * previous + earlier)
    )


def gain_by_position(
    total: Number, error: Number, previous: Number, gains: tuple[float, float, float]
) -> Number:
    """k_t = l1 sum(e) + l2 e_t + l3 (e_t - e_{t-1}), not clamped: a textbook's controller.

    Without bounds it is eq 12 summed up, but for a constant from the first step. With bounds it is
    another: what a bound cuts off here returns with the error, eq 12's increments forget it
    (erratum avae-e12).

    Args:
        total: the sum of all errors, e_t's included.
        error, previous: e_t, e_{t-1}.
        gains: integral, proportional, derivative.
    """
    integral, proportional, derivative = gains
    return integral * total + proportional * error + derivative * (error - previous)


def convergence_measure(
    real: Number, fake: Number, recovered: Number, *, eta: float, alpha: float
) -> Number:
    """L_d + |eta L_d - L_g - alpha L_v|: falls as training converges (section 3.4)."""
    return real + abs(error_signal(real, fake, recovered, eta=eta, alpha=alpha))


@dataclass(frozen=True)
class Gains:
    """The three gains under their true roles (see the module's text).

    Defaults: section 4 of the paper. `Gains(integral=1e-3, proportional=0, derivative=0)` is BEGAN.
    """

    integral: float = 1e-3
    proportional: float = 1e-5
    derivative: float = 1e-5

    def values(self) -> tuple[float, float, float]:
        """(lambda_1, lambda_2, lambda_3)."""
        return self.integral, self.proportional, self.derivative


class Controller:
    """k and the last two errors, on the device of the losses (no synchronisation per step).

    k is clamped to [0, 1] after every update: the paper states no clamp, but its gains let k leave
    the interval; BEGAN clamps. `clamped=False` leaves k as eq 12 gives it, `positional=True` takes
    k from `gain_by_position` and clamps it (erratum). On the first step e_{t-1} = e_{t-2} = e_1, so
    that the differences start at zero instead of kicking k.
    """

    def __init__(
        self,
        gains: Gains | None = None,
        *,
        k: float = 0.0,
        clamped: bool = True,
        positional: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.gains, self.clamped = gains or Gains(), clamped
        self.k = torch.tensor(float(k), device=device)
        self.errors = torch.full((2,), float("nan"), device=device)  # e_{t-1}, e_{t-2}
        self.total = torch.zeros((), device=device) if positional else None

    def step(self, error: Scalar) -> Float[Tensor, ""]:
        """Takes e_t, returns k_t."""
        error = error.detach().to(self.k)
        previous, earlier = torch.where(self.errors.isnan(), error, self.errors)
        gains = self.gains.values()
        if self.total is None:
            update = gain_update(self.k, error, previous, earlier, gains)
        else:
            self.total = self.total + error
            update = gain_by_position(self.total, error, previous, gains)
        self.k = update.clamp(0, 1) if self.clamped else update
        self.errors = torch.stack([error, previous])
        return self.k

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        state = {"k": self.k.clone(), "errors": self.errors.clone()}
        return state if self.total is None else state | {"total": self.total.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state_dict`."""
        self.k = state["k"].to(self.k)
        self.errors = state["errors"].to(self.errors)
        if self.total is not None:
            self.total = state["total"].to(self.total)
