"""Networks that others trained: the authors' StarGAN v2, and PULSE over StyleGAN."""

from collections.abc import Iterator

import torch

from latentpapers import config, data, weights
from latentpapers.latent import pulse
from latentpapers.papers.lrc_i2i.presets import AFHQ
from latentpapers.papers.lrc_i2i.protocol import (
    FIRST_TABLES,
    Line,
    Maker,
    Printed,
    lines_of,
    published,
)
from latentpapers.seeds import generator
from latentpapers.shapes import Bytes, Images, Labels

# The authors' StarGAN v2: its weights, the images, and the class of all references where they have
# no label (the two networks count women and men, cats, dogs and wild animals in this order)
AUTHORS = "StarGAN v2, authors' weights"
OFFICIAL: tuple[tuple[tuple[str, ...], Printed, int | None], ...] = (
    (
        ("stargan_v2_celebahq", "wing"),
        Printed(FIRST_TABLES, "StarGAN v2", "CelebA-HQ 256", "celeba-hq", 256),
        None,
    ),
    *(
        (
            ("stargan_v2_afhq",),
            Printed(("table_3",), "StarGAN v2", f"AFHQ {source[5:]}", source, 256),
            number,
        )
        for number, (source, _) in enumerate(AFHQ.values())
    ),
)


def authors_lines(*, seed: int = 0, device: str = "cpu") -> Iterator[Line]:
    """Published numbers of the authors' networks that are here, on the targets and sources that
    ours get: reference-guided within one set of images."""
    for needed, of, number in OFFICIAL:
        if all(map(weights.available, needed)):
            make = authors_maker(needed, number, device)
            scores = published(make, of, seed=seed, device=device)
            yield from lines_of(of, AUTHORS, scores, needed[0], seed)


def authors_maker(needed: tuple[str, ...], number: int | None, device: str = "cpu") -> Maker:
    """The authors' generator and style encoder, as the protocols call them.

    Args:
        needed: names of the weights: the networks, then the landmark network if its generator adds
            masked details of the source.
        number: the class of all references; None: each has its own.
    """
    nets = weights.network(needed[0]).to(device)
    faces = weights.network(needed[1]).to(device) if len(needed) > 1 else None

    def make(sources: Images, behind: Bytes, classes: Labels | None) -> Images:
        if number is not None:
            classes = torch.full((len(sources),), number, device=sources.device)
        style = nets["style"](data.to_float(behind), classes)
        return nets["generator"](sources, style, faces.masks(sources) if faces else None)

    return make


def authors_scale(line: Line, preset: str, device: str) -> config.Scale:
    """The label of an `authors_lines` number."""
    where = line.column.partition(" ")[2].removesuffix(" 256")
    made = f"{where}, 256 px, trained by its authors, not here"
    return config.Scale(preset, 0, None, made, device, ())


def authors_missing() -> list[str]:
    """A sentence for each of the authors' files that is not here: what it is and how it comes."""
    names = dict.fromkeys(name for needed, *_ in OFFICIAL for name in needed)
    return [str(weights.registry.missing(n)) for n in names if not weights.available(n)]


STYLEGAN = ("stylegan_ffhq_synthesis", "stylegan_ffhq_mapping")


def stylegan_space(
    device: str = "cpu", *, seed: int = 0, count: int = 1_000_000
) -> pulse.Space | None:  # fmt: skip
    """What PULSE's authors search: StyleGAN for faces at 1024 px; None where it is not here.

    Args:
        device: where it runs.
        seed, count: of the latent vectors that its space is fitted on.
    """
    if not all(map(weights.available, STYLEGAN)):
        return None
    synthesis, mapping = (weights.network(name).to(device) for name in STYLEGAN)
    latent = next(mapping.parameters()).shape[1]
    draw = generator(seed, "stylegan", "space")
    fitted = pulse.fitted(lambda z: mapping(z.to(device)).cpu(), latent, draw, count=count)
    return pulse.of_styles(synthesis, *fitted)


def pulse_space(
    instead: pulse.Space, *, own: bool = False, device: str = "cpu"
) -> tuple[pulse.Space, int, str]:
    """What PULSE searches in Figure 7, how many images at once, and a line that says so.

    Args:
        instead: of a GAN of this project, where StyleGAN is not asked for or not here.
        own: whether StyleGAN is asked for.
        device: as of `stylegan_space`.
    """
    space = stylegan_space(device) if own else None
    if space is not None:  # 1024 px: a few images fill the memory with what gradients need
        return space, 2, "PULSE searches StyleGAN (FFHQ), as its authors did."
    absent = [name for name in STYLEGAN if own and not weights.available(name)]
    told = [str(weights.registry.missing(name)) for name in absent]
    return instead, 64, "\n".join(["PULSE searches this project's PGAN.", *told])
