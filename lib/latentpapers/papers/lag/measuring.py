"""Numbers of outputs: distances to the truth, the error of the network's own input, learning
curves."""

from collections.abc import Callable
from pathlib import Path

import torch

from latentpapers import data, models
from latentpapers.metrics import frechet, full_reference, intervals, possibilities, translation
from latentpapers.metrics.protocol import Score
from latentpapers.papers.lag.outputs import by_blocks, centre, encoded, inputs, job_of, samples
from latentpapers.papers.lag.training import Training, method_of, recipe, reduce
from latentpapers.shapes import Bytes, Images, PerImage
from latentpapers.train.runs import Networks as States


def own_errors(job: Training, nets: States, n: int = 200) -> tuple[list[float], list[float]]:
    """Errors of G(y_i, z_i), and of G(y_i, 0), on the first `n` training images, in grey levels.

    The maps z_i are too many to ship, and no other image has one, so the card keeps these.
    """
    net = models.build(recipe(job, "generator"))
    net.load_state_dict(nets["generator"])
    pixels = data.load(job.data, size=job.size, split="train", n=job.images).pixels[:n]
    x, z = data.to_float(pixels), nets["embedding"]["maps"][:n].float()
    y = reduce(x, job.factor, job.kernel, job.shifted)
    made = (by_blocks(net, y, at).clamp(-1, 1) for at in (z, torch.zeros_like(z)))
    own, central = ([round(float(e), 2) for e in possibilities.rmse_grey(v, x)] for v in made)
    return own, central


def measured(
    job: Training, path: Path, *, device: str = "cpu", n: int = 400
) -> dict[str, Score]:  # fmt: skip
    """What a learning curve of LAG shows, on `n` held-out images: the answer at z = 0 against the
    truth, the spread of answers, and the Frechet distance of one answer each at random z."""
    from latentpapers import weights
    from latentpapers.nets.features import folded

    model = models.load(path, device=device)
    pixels = data.load(job.data, size=job.size, split="test", n=n).pixels
    real = data.load(job.data, size=job.size, split="train", n=4 * n).pixels
    y, look = inputs(model, pixels), folded(weights.network("efficientnetlite0"))
    look.to(device).size = max(job.size, 64)
    middle = centre(model, y)
    drawn = samples(model, y, 2, seed=0) if method_of(job).samples else middle[None]
    features = [translation.pooled(look, images) for images in (data.to_float(real), drawn[0])]
    psnr = full_reference.psnr_y_b4_u8(data.to_bytes(middle), pixels)
    scores = {"psnr_y_b4_u8": intervals.bootstrap_mean(psnr)}
    if len(drawn) > 1:
        scores["spread_grey"] = intervals.bootstrap_mean(possibilities.spread_grey(drawn))
    return scores | {"fd_efficientnetlite0_small": frechet.on_components(*features)}


def unit(images: Images) -> Images:
    """From [-1, 1], clamped, to [0, 1]."""
    return (images.clamp(-1, 1) + 1) / 2


Distances = dict[str, Callable[[Images, Images], PerImage]]


def to_truth(
    pixels: Bytes, images: Images, what: str, distances: Distances
) -> dict[str, PerImage]:  # fmt: skip
    """Table S1's columns of one answer for each image: error, and distances to the truth.

    Args:
        pixels: the truth.
        what: which answer it is; distances at `z = 0` are named without it.
        distances: (images, truth) on [-1, 1] -> a value an image, by column.
    """
    x, at = data.to_float(pixels), "" if what == "z = 0" else f" at {what}"
    far = {f"{name}{at}": distance(images, x) for name, distance in distances.items()}
    return {f"error at {what}": possibilities.rmse_grey(images, x), **far}


def answered(
    model: models.Model, pixels: Bytes, n: int, seed: int, distances: Distances
) -> tuple[dict[str, PerImage], Images]:
    """Table S1's columns of a network, per image, and one output an image (at random z if it can).

    Args:
        pixels: held-out images at the model's size.
        n: outputs an image, where noise enters.
        seed: of the noise.
        distances: as in `to_truth`.
    """
    job, y = job_of(model), inputs(model, pixels)
    middle = centre(model, y)

    def fit(images: Images) -> PerImage:
        return full_reference.lr_rmse(unit(images), (y + 1) / 2, kernel=job.kernel)

    out = {**to_truth(pixels, middle, "z = 0", distances), "LR RMSE": fit(middle),
           "PSNR": full_reference.psnr_y_b4_u8(data.to_bytes(middle), pixels)}  # fmt: skip
    if "encoder" in model.parts:
        out |= to_truth(pixels, encoded(model, pixels), "E(x)", distances)
    if not method_of(job).samples:
        return out, middle
    drawn = samples(model, y, n, seed)
    out |= {"spread over z": possibilities.spread_grey(drawn),
            "LR RMSE at random z": fit(drawn[0]),
            **to_truth(pixels, drawn[0], "random z", distances)}  # fmt: skip
    return out, drawn[0].clone()  # a part would keep the whole alive
