"""Networks that others trained: walks and a row of figures with BigGAN's weights."""

import torch

from latentpapers import weights
from latentpapers.errors import Missing, UserError
from latentpapers.latent import inversion, method, walk
from latentpapers.latent.pair import Pair, of_networks
from latentpapers.nets.biggan import OfClass
from latentpapers.seeds import generator
from latentpapers.shapes import Images


def walk_of_weights(
    name: str, how: method.Search, n: int, seed: int, *, device: str, steps: int = 9
) -> list[Images]:
    """Section 3.2's walk of `n` starts with public weights, for figures at 512 px and more.

    Args:
        name: of `weights`, for example `pgan_celebahq512`.
        how: its inversion and batch are used, alpha as tuned for that data set (`method.TUNED`).
        device: of more than 128 px not the CPU, where one start would take an hour.

    Returns:
        The images (n, 3, S, S) of each step.

    Raises:
        Missing: the weights are not here. UserError: no GPU.
    """
    nets = weights.network(name)
    if torch.device(device).type == "cpu" and nets["generator_raw"].size > 128:
        raise UserError(f"a walk with {name!r} needs a GPU.")
    nets, tuned = nets.to(device), name.removeprefix("pgan_")
    how = method.tuned(how, tuned) if tuned in method.TUNED["code"] else how
    far = of_networks(nets["generator_raw"], nets["critic"], dtype=torch.bfloat16)
    return _walked(far, how, n, generator(seed, name), device, steps)


def _walked(
    far: Pair, how: method.Search, n: int, g: torch.Generator, device: str, steps: int
) -> list[Images]:
    """Inversion and walk, few images at once."""
    z0, candidates = (z.to(device) for z in method.starts(n, far, how, g))
    size = {"batch": how.batch, "chunk": how.chunk}
    x0 = far.images(z0, block=4)
    z1 = inversion.invert(far, x0, candidates, how.inversion, **size).variable
    return [far.images(z, block=4) for z in walk.walk(z0, z1, steps)]


def biggan_row(
    how: method.Search, seed: int, *, device: str, label: int = 963, steps: int = 7
) -> list[tuple[str, Images | str]]:
    """Figure 4's rows of BigGAN, (label, images), and of [30]; without files or GPU the reason.

    As in the authors' code, BigGAN is only walked (diamond-e34): original, recovered image and the
    steps after it, of one class of ImageNet.

    Args:
        how: its inversion is used, alpha as for BigGAN (`method.TUNED`).
        seed, device: of the start, and where it is searched.
        label: class; 963 is the authors' default.
        steps: of the walk, the inversion included.
    """
    absent = ("[30] on CelebA-HQ", "needs PGAN weights at 1024 px and the published boundary")
    try:
        nets = [weights.network(f"biggan128_{part}") for part in ("generator", "discriminator")]
    except Missing:
        return [("BigGAN", "needs its public files, G_ema.pth and D.pth"), absent]
    if torch.device(device).type == "cpu":
        return [("BigGAN", "needs a GPU"), absent]
    far = of_networks(*(OfClass(net, label).to(device) for net in nets), dtype=torch.bfloat16)
    how = method.tuned(how, "biggan")
    x = _walked(far, how, 1, generator(seed, "biggan"), device, steps)
    return [(f"BigGAN, class {label}", torch.cat(x).clamp(-1, 1)), absent]
