"""What a task sees of its surroundings: noise, averages, precision. And which images come next.

Both the noise and the order of the images are functions of (seed, step), not of a stream's
position. A resumed run, a run in two processes and a run in micro-batches see the same numbers.
"""

import contextlib
import sys
from dataclasses import dataclass, field

import torch
from torch import Tensor

from latentpapers.precision import HALVES
from latentpapers.seeds import generator
from latentpapers.shapes import Bytes


@dataclass
class Context:
    """One micro-batch's view of one step.

    Attributes:
        seed, step: of the run.
        device: where the tensors live.
        batch: images of the whole step, over all processes and micro-batches.
        start, stop: this micro-batch's rows of it.
        precision: fp32, bf16 or fp16 (autocast; penalties stay in fp32 under `full_precision`).
        scale: what losses are multiplied by before they are differentiated; None: by nothing.
        terms: what the task logged, averaged by the engine.
    """

    seed: int
    step: int
    device: torch.device
    batch: int
    start: int
    stop: int
    precision: str = "fp32"
    scale: Tensor | None = None
    terms: dict[str, Tensor] = field(default_factory=dict)
    calls: int = 0

    def generator(self) -> torch.Generator:
        """A fresh generator for the next draw of this step, the same in every process."""
        self.calls += 1
        return generator(self.seed, "noise", self.step, self.calls, device=str(self.device))

    def noise(self, *shape: int) -> Tensor:
        """This micro-batch's rows of N(0, 1) noise drawn for the whole step: (rows, *shape)."""
        g = self.generator()
        return torch.randn(self.batch, *shape, generator=g, device=self.device)[
            self.start : self.stop
        ]

    def uniform(self, *shape: int) -> Tensor:
        """The same for U(0, 1)."""
        g = self.generator()
        return torch.rand(self.batch, *shape, generator=g, device=self.device)[
            self.start : self.stop
        ]

    def log(self, **terms: Tensor) -> None:
        """Terms to average, record and watch for NaN: 0-d tensors, means over the micro-batch.

        A name logged twice in a step (several critic updates) keeps its last value.
        """
        self.terms.update({name: term.detach().float() for name, term in terms.items()})

    def autocast(self) -> contextlib.AbstractContextManager:
        """Mixed precision if the run asks for it."""
        half = HALVES.get(self.precision)
        return torch.autocast(self.device.type, half) if half else contextlib.nullcontext()

    def scaled(self, loss: Tensor) -> Tensor:
        """A loss as a task differentiates it itself for `Given`: fp16 ends at 6e-8."""
        return loss if self.scale is None else loss * self.scale

    def unscaled(self, gradient: Tensor) -> Tensor:
        """The gradient of a loss from that of the `scaled` one, where it is no longer in fp16."""
        return gradient if self.scale is None else gradient / self.scale

    def full_precision(self) -> contextlib.AbstractContextManager:
        """fp32 inside an autocast region, for penalties."""
        return torch.autocast(self.device.type, enabled=False)

    def uncompiled(self) -> contextlib.AbstractContextManager:
        """Compiled modules run as written, for penalties: `torch.compile` gives a function one
        derivative, and a penalty on slopes needs two."""
        if "torch._dynamo" not in sys.modules:  # nothing was compiled; the import takes seconds
            return contextlib.nullcontext()
        return torch.compiler.set_stance("force_eager")


class Sampler:
    """Which images make up each step: permutation after permutation, by (seed, epoch)."""

    def __init__(self, images: int, batch: int, seed: int) -> None:
        self.images, self.batch, self.seed = images, batch, seed
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    def indices(self, step: int) -> Tensor:
        """The `batch` image numbers of this step."""
        places = range(step * self.batch, (step + 1) * self.batch)
        return torch.stack([self._permutation(p // self.images)[p % self.images] for p in places])

    def _permutation(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            g = generator(self.seed, "order", epoch)
            self._epoch, self._order = epoch, torch.randperm(self.images, generator=g)
        return self._order


def flipped(images: Bytes, flips: Tensor) -> Bytes:
    """Mirrors the images whose flag is set."""
    return torch.where(flips.view(-1, 1, 1, 1), images.flip(3), images)
