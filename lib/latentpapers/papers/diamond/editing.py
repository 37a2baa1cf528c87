"""Attributes (appendix E): their directions, and the search of edited starts."""

import torch
from jaxtyping import Float
from torch import Tensor

from latentpapers import data, models
from latentpapers.latent import attributes, found, method
from latentpapers.latent.pair import sample as starting_points
from latentpapers.latent.sphere import project
from latentpapers.metrics import drawn_judge
from latentpapers.papers.diamond.outputs import latents, pair
from latentpapers.seeds import generator
from latentpapers.shapes import Codes, Images, PerImage


def shows(images: Images, attribute: str) -> PerImage:
    """1 for each drawing in which the judge, who looks at 32 px, sees the attribute; on the CPU."""
    images = images.clamp(-1, 1).cpu()
    if images.shape[-1] > 32:
        images = data.downscale((images + 1) / 2, images.shape[-1] // 32, kernel="average") * 2 - 1
    return (drawn_judge.probability(images.clamp(-1, 1), attribute) > 0.5).double()


def attribute_vector(
    model: models.Model, seed: int, *, n: int = 2000, device: str = "cpu"
) -> Float[Tensor, "Z"] | None:
    """Mean latent of `n` generated drawings with the minority's attribute minus that of those
    without it (appendix E), or None where all or none of them have it."""
    z = project(latents(n, seed + 1, pair(model).latent)).to(device)
    has = shows(pair(model).images(z), model.card["config"]["minority"]).bool().to(device)
    some = bool(has.any()) and not bool(has.all())
    return attributes.mean_difference(z, has) if some else None


def edited_rows(
    model: models.Model, z0: Codes, added: int, subtracted: int
) -> tuple[list[int], list[int]]:
    """Rows of the starts that are edited: the first ones, and whoever has the attribute."""
    has = shows(pair(model).images(z0), model.card["config"]["minority"])
    who = has.nonzero().flatten().tolist()
    both = [sorted({*range(min(n, len(z0))), *who}) for n in (added, subtracted)]
    return both[0], both[1]


def search_edited(
    model: models.Model, how: method.Search, z0: Codes, direction: Float[Tensor, "Z"],
    added: list[int], subtracted: list[int], seed: int,
) -> found.Edited:  # fmt: skip
    """The whole method *from edited starts*: the attribute first, then inversion, protoimage and
    weight of what came of it (appendix E: "applying our method on the resulting images").

    Args:
        model, how: as in `search`.
        z0: (N, Z) the starts, on the networks' device.
        direction: (Z,) the attribute's vector.
        added, subtracted: rows of `z0` to which it is added, from which it is subtracted.
        seed: of the inversion's random candidates.
    """
    searched, parts = pair(model, dtype=torch.bfloat16), []
    candidates = starting_points(how.inversion.candidates, searched.latent,
                                 generator(seed, "edited"), reading="paper").to(z0)  # fmt: skip
    for sign, chosen in ((1.0, added), (-1.0, subtracted)):
        if not chosen:
            continue
        rows = torch.tensor(chosen, device=z0.device)
        edited = project(z0[rows] + sign * direction)
        got = method.search(searched, edited, candidates, how)
        parts.append((rows, torch.full_like(got.sigma, sign), got.zp, got.sigma))
    return found.Edited(*(torch.cat(column) for column in zip(*parts)), direction)
