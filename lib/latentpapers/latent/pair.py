"""What a latent search needs of a generator and its critic, and nothing more."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from latentpapers.errors import UserError
from latentpapers.latent.descent import known
from latentpapers.latent.sphere import project
from latentpapers.shapes import Codes, Features, Images, PerImage


@dataclass(frozen=True)
class Pair:
    """A generator and its critic as plain functions.

    Attributes:
        generate: (N, Z) codes -> (N, C, H, W) images, not clamped, row by row (unless `coupled`).
        score, features: (N, C, H, W) images and a group size -> (N,) scores (higher: more real),
            or (N, F) features. Each run of `group` images shares one minibatch statistic; with 1
            every image is judged alone. Critics without such a layer ignore it.
        latent: Z.
        coupled: an image depends on the others made with it (batch normalisation in training
            mode), so the networks must see exactly one batch at a time.
    """

    generate: Callable[[Codes], Images]
    score: Callable[[Images, int], PerImage]
    features: Callable[[Images, int], Features]
    latent: int
    coupled: bool = False

    def images(self, z: Codes, *, block: int = 64) -> Images:
        """Images of many codes, block by block, without gradients.

        Args:
            z: (N, Z).
            block: codes at once; a coupled generator sees one batch of this size at a time.
        """
        with torch.no_grad():
            return torch.cat([self.generate(part) for part in z.split(block)])

    def alone(self, images: Images, *, block: int = 64) -> Features:
        """Features of images judged each alone, block by block, without gradients.

        The authors' code judges a single image as a batch of two copies, whose statistic is the
        square root of its 1e-8 guard instead of exactly 0; nothing else differs.
        """
        with torch.no_grad():
            return torch.cat([self.features(part, 1) for part in images.split(block)])

    def scores(self, images: Images, *, group: int = 1, block: int = 64) -> PerImage:
        """Scores block by block, without gradients; a block holds whole groups."""
        whole = max(block // group, 1) * group
        with torch.no_grad():
            return torch.cat([self.score(part, group) for part in images.split(whole)])


def of_networks(
    generator: nn.Module,
    critic: nn.Module,
    *,
    coupled: bool = False,
    dtype: torch.dtype | None = None,
    layer: str = "",
) -> Pair:
    """The pair of two networks of this library.

    Args:
        generator: has `latent`; called with codes.
        critic: called with images; has `features`. If it has a minibatch statistic (`group`), both
            take that size as a keyword.
        coupled: see `Pair`.
        dtype: networks run under autocast to it (bfloat16 doubles the speed where the processor
            has it); codes, losses and the search itself stay as they are.
        layer: whose features are compared, where the critic has several (diamond-e5); "" is its
            own choice.
    """
    grouped = hasattr(critic, "group")
    see = partial(critic.features, layer=layer) if layer else critic.features

    def run(net: Callable[..., Tensor], x: Tensor, group: int | None = None) -> Tensor:
        options = {"group": group} if grouped and group else {}
        with torch.autocast(x.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            return net(x, **options).to(x)

    return Pair(
        generate=lambda z: run(generator, z),
        score=lambda x, group: run(critic, x, group),
        features=lambda x, group: run(see, x, group),
        latent=generator.latent,
        coupled=coupled,
    )


def statistic_group(batch: int) -> int:
    """Images that share a minibatch statistic in a batch of this size: 4 where 4 divides it, else
    all of them.

    Source: the network that the authors use (facebookresearch/pytorch_GAN_zoo); erratum
    `diamond-e36` says what follows from it.

    Raises:
        UserError: no batch.
    """
    if batch < 1:
        raise UserError(f"a batch holds at least one latent vector, not {batch}.")
    return 4 if batch % 4 == 0 else batch


def sample(
    n: int, latent: int, generator: torch.Generator, *, reading: str = "code", device: str = "cpu"
) -> Codes:
    """`n` starting points z_0 ~ N(0, I): raw (`paper`) or put on the sphere (`code`, diamond-e7).

    Drawn on the generator's own device, so that a seed means the same points everywhere.

    Raises:
        UnknownName: another reading.
    """
    known("reading", reading, ("code", "paper"))
    z = torch.randn(n, latent, generator=generator, device=generator.device).to(device)
    return project(z) if reading == "code" else z


def rows(tensors: tuple[Tensor, ...], chosen: slice | Tensor) -> tuple[Tensor, ...]:
    """The chosen rows of every tensor."""
    return tuple(t[chosen] for t in tensors)
