"""PULSE (Menon et al. 2020): search a generator's latent space for images that reduce to a given
low resolution image.

Latent vectors stay on a sphere while Adam moves them; the loss compares reduced images and, where a
generator takes one latent vector for each of its layers, draws those together along great circles.
Every image is a problem of its own, so any number is searched side by side with the result of one
after the other. Written from the paper and the facts of the authors' code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from latentpapers.errors import UserError
from latentpapers.latent.descent import Adam
from latentpapers.shapes import Codes, Images, PerImage

Rows = Float[Tensor, "N R Z"]
Noise = tuple[Tensor, ...]
_TINY = 1e-9  # under roots, as in the authors' code: a finite slope where two rows are equal


@dataclass(frozen=True)
class Space:
    """A generator as the search sees it.

    Attributes:
        generate: (rows (N, R, Z), noise maps) -> images on [-1, 1].
        latent: Z.
        rows: R, latent vectors an image; 18 in StyleGAN at 1024 px, 1 in others.
        noise: sides of the noise maps (N, 1, s, s) that it takes.
        trained, zeroed: the first so many maps are searched too; those of these numbers are zero.
        mean, std: (Z,) each, of the mapped latent vectors before their last activation: a row w
            enters as leaky_relu(w * std + mean). None: rows enter as they are.
    """

    generate: Callable[[Rows, Noise], Images]
    latent: int
    rows: int = 1
    noise: tuple[int, ...] = ()
    trained: int = 0
    zeroed: tuple[int, ...] = ()
    mean: Float[Tensor, "Z"] | None = None
    std: Float[Tensor, "Z"] | None = None

    def entered(self, rows: Rows) -> Rows:
        """What the generator is given for these rows of the sphere."""
        if self.mean is None or self.std is None:
            return rows
        return F.leaky_relu(rows * self.std.to(rows) + self.mean.to(rows), 0.2)


def of_codes(generate: Callable[[Codes], Images], latent: int) -> Space:
    """The space of a generator that takes one latent vector (N, Z) and no noise."""
    return Space(lambda rows, noise: generate(rows[:, 0]), latent)


def of_styles(
    synthesis: Any, mean: Float[Tensor, "Z"], std: Float[Tensor, "Z"], *, trained: int = 5
) -> Space:
    """The space of StyleGAN's second half: a row for each layer, the last noise map zero.

    Args:
        synthesis: a module with `latent`, `rows` and `sides` (`nets.stylegan.Synthesis`).
        mean, std: `fitted` on its mapping network.
        trained: noise maps that are searched too.
    """
    s = synthesis
    return Space(s, s.latent, s.rows, s.sides, trained, (s.rows - 1,), mean, std)


@dataclass(frozen=True)
class Plan:
    """How a search goes; the defaults are the authors'.

    Attributes:
        steps, rate: of Adam (0.9, 0.999); `schedule` multiplies the rate.
        distance_weight, cross_weight: of the two terms.
        floor: the mean squared difference on [0, 1] that is close enough: below it nothing pulls,
            and a search that reached it has succeeded.
        returned: which images are given back: of the `last` step, or of the `best` one.
    """

    steps: int = 100
    rate: float = 0.4
    distance_weight: float = 100.0
    cross_weight: float = 0.05
    floor: float = 2e-3
    returned: str = "last"


@dataclass(frozen=True)
class Start:
    """Where searches begin: rows of the sphere and noise maps, one of each an image."""

    rows: Rows
    noise: Noise

    def part(self, which: slice) -> "Start":
        """The start of these images."""
        return Start(self.rows[which], tuple(n[which] for n in self.noise))


@dataclass(frozen=True)
class Found:
    """What a search ended with.

    Attributes:
        images: (N, C, H, W) on [-1, 1], clamped, as `Plan.returned` says.
        rows: (N, R, Z) behind them.
        distance: mean squared difference to the target on [0, 1], of `images`.
        best: the smallest one of all steps.
        success: whether `best` reached the floor.
    """

    images: Images
    rows: Rows
    distance: PerImage
    best: PerImage
    success: Bool[Tensor, "N"]


def schedule(step: int, steps: int) -> float:
    """The rate's factor: from 0.1 up to 1 at 45 % of the steps, down to 0.1 at 90 %, then to 0.001.

    All stretches are straight lines (the authors' `linear1cycledrop`).
    """
    main = 0.9 * steps
    if step < main:
        return (9 * (1 - abs(2 * step / main - 1)) + 1) / 10
    return 0.1 + (step - main) / (0.1 * steps) * (0.001 - 0.1)


def distance(reduced: Images, target: Images) -> PerImage:
    """Mean squared difference of images on [-1, 1], measured on [0, 1]."""
    return ((reduced - target) / 2).square().flatten(1).mean(1)


def cross(rows: Rows) -> PerImage:
    """GEOCROSS: Z / 8 times the mean squared angle between all pairs of an image's rows.

    An angle is 2 atan2(|a - b|, |a + b|), which is that between a and b where they are equally
    long. Each row's zero angle with itself counts in the mean; one row alone has 0.

    Args:
        rows: as they enter the generator.
    """
    count, latent = rows.shape[1:]
    if count == 1:
        return rows.new_zeros(len(rows))
    a, b = rows[:, :, None], rows[:, None, :]
    apart, together = ((v.square().sum(-1) + _TINY).sqrt() for v in (a - b, a + b))
    angle = 2 * torch.atan2(apart, together)
    return angle.square().mean((1, 2)) * latent / 8


def loss(entered: Rows, reduced: Images, target: Images, plan: Plan) -> PerImage:
    """100 max(L2, floor) + 0.05 GEOCROSS of each image, with the weights of `plan`."""
    near = distance(reduced, target).clamp_min(plan.floor)
    return plan.distance_weight * near + plan.cross_weight * cross(entered)


def start(space: Space, count: int, generator: torch.Generator, device: str = "cpu") -> Start:
    """Random rows and noise maps, N(0, 1), for `count` images."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator).to(device)

    rows = draw(space.rows, space.latent)
    maps = [draw(1, side, side) for side in space.noise]
    return Start(rows, tuple(m * (i not in space.zeroed) for i, m in enumerate(maps)))


def search(
    space: Space,
    targets: Images,
    reduce: Callable[[Images], Images],
    plan: Plan,
    begin: Start,
    *,
    chunk: int = 64,
) -> Found:
    """Images that reduce to the targets, one for each.

    Args:
        space: the generator; its parameters must not want gradients.
        targets: (N, C, h, w) on [-1, 1].
        reduce: the low resolution operator, differentiable, images on [-1, 1].
        plan: steps and weights.
        begin: as many starts as targets (`start`); their lengths are kept.
        chunk: images worked on at once; bounds the memory and changes a result by rounding alone,
            which a long search in single precision may enlarge.

    Raises:
        UserError: another number of starts than of targets, or an unknown `returned`.
    """
    if len(begin.rows) != len(targets):
        raise UserError(f"{len(targets)} targets need as many starts, not {len(begin.rows)}.")
    if plan.returned not in ("last", "best"):
        raise UserError(f"`returned` is last or best, not {plan.returned!r}.")
    slices = [slice(i, i + chunk) for i in range(0, len(targets), chunk)]
    parts = [_searched(space, targets[s], reduce, plan, begin.part(s)) for s in slices]
    return Found(*(torch.cat([getattr(p, name) for p in parts]) for name in _FIELDS))


_FIELDS = ("images", "rows", "distance", "best", "success")


def _searched(
    space: Space, targets: Images, reduce: Callable[[Images], Images], plan: Plan, begin: Start
) -> Found:
    """One chunk. The loss of a step is measured before the step moves anything, as in the code."""
    moved = [begin.rows, *begin.noise[: space.trained]]
    spheres, adams = [_length(v) for v in moved], [Adam(v) for v in moved]
    fixed, kept = begin.noise[space.trained :], None
    for step in range(plan.steps):
        leaves = [v.clone().requires_grad_() for v in moved]
        entered = space.entered(leaves[0])
        images = space.generate(entered, (*leaves[1:], *fixed))
        reduced = reduce(images)
        total = loss(entered, reduced, targets, plan)
        gradients = torch.autograd.grad(total.sum(), leaves)
        kept = _kept(kept, images, moved[0], distance(reduced, targets), total, plan)
        rate = plan.rate * schedule(step, plan.steps)
        moved = [
            _on_sphere(adam.update(v, g, rate), length)
            for adam, v, g, length in zip(adams, moved, gradients, spheres, strict=True)
        ]
    _, images, rows, near, best = kept
    return Found(images.clamp(-1, 1), rows, near, best, best <= plan.floor)


def _kept(
    before: tuple[Tensor, ...] | None, images: Images, rows: Rows, near: PerImage, total: PerImage,
    plan: Plan,
) -> tuple[Tensor, ...]:  # fmt: skip
    """(loss, images, rows, their distance, smallest distance): of the last step or the best."""
    now = tuple(v.detach() for v in (total, images, rows, near))
    if before is None:
        return (*now, now[3])
    least = torch.minimum(before[4], now[3])
    if plan.returned == "last":
        return (*now, least)
    better = now[0] < before[0]
    best = [torch.where(better.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(now, before)]
    return (*best, least)


def _length(v: Tensor) -> Tensor:
    """Of each row (of a noise map: of the whole map)."""
    return (v.square().sum(tuple(range(2, v.ndim)), keepdim=True) + _TINY).sqrt()


def _on_sphere(v: Tensor, length: Tensor) -> Tensor:
    return v / _length(v) * length


@torch.no_grad()
def fitted(
    mapping: Callable[[Codes], Codes], latent: int, generator: torch.Generator, *,
    count: int = 1_000_000, block: int = 10_000,
) -> tuple[Float[Tensor, "Z"], Float[Tensor, "Z"]]:  # fmt: skip
    """`Space.mean` and `Space.std` of a mapping network that ends in a leaky ReLU of slope 0.2.

    The last activation is undone (slope 5), where mapped latent vectors look Gaussian.

    Args:
        mapping: (N, latent) -> (N, Z).
        count: random latent vectors in all, `block` at a time.
    """
    total, squares = 0.0, 0.0
    for first in range(0, count, block):
        z = torch.randn(min(block, count - first), latent, generator=generator)
        w = F.leaky_relu(mapping(z), 5.0).double()
        total, squares = total + w.sum(0), squares + w.square().sum(0)
    mean = total / count
    variance = (squares - count * mean.square()) / (count - 1)
    return mean.float(), variance.clamp_min(0).sqrt().float()
