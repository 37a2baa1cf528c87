"""The search under an erratum's other readings (`SINGLE`), run and read."""

from typing import Any

import torch

from latentpapers import config, data, models, tensorfile
from latentpapers.latent import found, method
from latentpapers.papers.diamond.outputs import pair
from latentpapers.papers.diamond.shipped_searches import dozens, searches
from latentpapers.shapes import Codes

# Errata of the search whose other reading can be run: what it sets, the rest being as coded. Those
# of the networks are options of `pair`; `diamond-e21` aims at a measured score (`search_again`).
SINGLE: dict[str, dict[str, Any]] = {
    "e1": {"inversion.reading": "paper", "inversion.shell": "code"},
    "e2": {"inversion.descent.rate": 0.01, "inversion.descent.decay_every": 0},
    "e3": {"inversion.shell": "paper"},
    "e5": {},
    "e6": {"inversion.statistic": "alone"},
    "e8": {},
    "e9": {"proto.step": "paper"},
    "e10": {"proto.start": "forward"},
    "e11": {"proto.descent.stop": "below", "proto.descent.tolerance": 1e-3},
    "e12": {"proto.cosine": "absolute"},
    "e20": {"sigma.start": 0.7, "sigma.low": 0.0, "sigma.high": 1.0},
    "e21": {},
    "e36": {"batch": 10},
}
OF_NETWORKS: dict[str, dict[str, Any]] = {"e5": {"layer": "map"}, "e8": {"average": True}}


def search_again(
    model: models.Model, first: found.Found, candidates: Codes, how: method.Search, name: str
) -> found.Found:
    """The search of the same starts with one reading in the other position (`SINGLE`). Stages
    before the one that it concerns are taken from `first`.

    Args:
        model: the network, a PGAN.
        first, candidates, how: the first starts of a search, its random candidates, its settings.
        name: of the erratum, for example `e9`.

    Raises:
        Missing: `e21` needs real images.
    """
    own = dict(SINGLE[name])
    if name == "e21":  # the middle of the scores of real images and of the starts' images
        own["sigma.target"] = middle_score(model, first.z0)
    searched = pair(model, dtype=torch.bfloat16, **OF_NETWORKS.get(name, {}))
    stage = next((word.partition(".")[0] for word in own), "inversion")
    z1 = first.z1 if stage in ("proto", "sigma") else None
    zp = first.zp if stage == "sigma" else None
    return method.search(searched, first.z0, candidates, config.resolve(how, own), z1=z1, zp=zp)


def middle_score(model: models.Model, z0: Codes) -> float:
    """Half way between the critic's mean scores of a network's training images and of the images of
    `z0`, judged in groups of four, as many of either.

    Raises:
        Missing: no training images.
    """
    job, both = model.card["config"], pair(model)
    images = data.load(job["data"], size=job["size"], split="train", n=len(z0)).pixels
    made = (data.to_float(images).to(z0), both.images(z0))
    return sum(float(both.scores(x, group=4).mean()) for x in made) / 2


def readings(name: str, seed: int = 0) -> dict[str, found.Found]:
    """Shipped searches with one reading each in the other position, by erratum (`SINGLE`): of the
    first starts of `dozens`.

    Raises:
        Missing: none are shipped of that network.
    """
    path = searches(name, seed).with_name(f"{name}_readings_s{seed}.safetensors")
    return found.load_readings(path, dozens(name, seed)[0].first(tensorfile.header(path)["n"]))
