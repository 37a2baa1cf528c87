"""The methods of Figures 5 and 7 that are games of their own (`BASELINES`): their papers' networks
and rates, to be played by `train.games`."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from latentpapers import models
from latentpapers.nets import gans as nets_of_gans
from latentpapers.nets.began import seeded
from latentpapers.papers.avae.training import Training
from latentpapers.seeds import generator
from latentpapers.train import games
from latentpapers.train.games import Pace

Recipes = dict[str, dict[str, Any]]


def _recipes(**parts: tuple[str, dict[str, Any]]) -> Recipes:
    # getattr: a misspelled class fails here, and its file is one that a job depends on
    return {
        name: {"net": f"gans.{getattr(nets_of_gans, kind).__name__}", "options": own}
        for name, (kind, own) in parts.items()
    }


def _dcgan(job: Training, kernel: int = 4) -> Recipes:
    own = {"size": job.size, "width": job.width, "channels": job.channels, "kernel": kernel}
    decoder = own | {"latent": job.latent, "cap": job.cap}
    return _recipes(decoder=("Generator", decoder), critic=("Critic", own))


def _ebgan(job: Training) -> Recipes:
    own = {"size": job.size, "width": job.width // 2, "channels": job.channels}
    return {"decoder": _dcgan(job)["decoder"]} | _recipes(critic=("EnergyCritic", own))


def _vae_gan(job: Training) -> Recipes:
    own = {"size": job.size, "width": job.width, "channels": job.channels}
    coded = own | {"latent": job.latent, "cap": job.cap}
    encoder = coded | {"hidden": 16 * job.width}
    return _recipes(encoder=("Encoder", encoder), decoder=("SimilarityDecoder", coded),
                    critic=("SimilarityCritic", own))  # fmt: skip


def _ali(job: Training) -> Recipes:
    own = {"size": job.size, "width": job.width, "channels": job.channels, "latent": job.latent}
    coded = own | {"cap": job.cap, "kernel": 4, "slope": 0.02, "deviation": 0.01}
    return _recipes(encoder=("Encoder", coded | {"bottom": 4}), critic=("PairCritic", own),
                    decoder=("Generator", coded | {"squash": "sigmoid"}))  # fmt: skip


@dataclass(frozen=True)
class Baseline:
    """A method of Figure 5 or 7 that is not AVAE with terms switched off.

    Attributes:
        title: as the paper's figures name it.
        game: what is played, see `train.games`.
        recipes: run -> how `lp.models.build` makes each network.
        pace: its own paper's rates and optimiser.
        defaults: its own paper's width and latent; the batch is equal for all.
        options: of the game.
        prior: of z.
        source: the paper.
        objective: player -> its loss in LaTeX; D is a logit, f the discriminator's features.
    """

    title: str
    game: type[games.Game]
    recipes: Callable[[Training], Recipes]
    pace: Pace
    defaults: dict[str, int]
    options: dict[str, float] = field(default_factory=dict)
    prior: Literal["normal", "uniform"] = "normal"
    source: str = ""
    objective: dict[str, str] = field(default_factory=dict)


# Reference settings of each paper's public code; where code and paper differ, the code's.
BASELINES: dict[str, Baseline] = {
    "dcgan": Baseline(
        "DCGAN", games.Logistic, _dcgan, Pace({"critic": 2e-4, "decoder": 2e-4}),
        {"width": 64, "latent": 100}, source="Radford et al. 2016",
        objective={"critic": r"-\log\sigma(D(x)) - \log\sigma(-D(G(z)))",
                   "decoder": r"-\log\sigma(D(G(z)))"},
    ),
    "vae_gan": Baseline(
        "VAE/GAN", games.LearnedSimilarity, _vae_gan,
        Pace(dict.fromkeys(("encoder", "decoder", "critic"), 0.025 / 64), rule="rmsprop",
             decay=0.75, floor=1e-5 / 0.025),
        {"width": 64, "latent": 128}, source="Larsen et al. 2016",
        objective={"encoder": r"\mathrm{KL} + \frac{1}{2}\|f(x) - f(x_v)\|^2",
                   "decoder": r"\epsilon\,\frac{1}{2}\|f(x) - f(x_v)\|^2"
                              r" - (1 - \epsilon)\log\sigma(D(G(z)))",
                   "critic": r"-\log\sigma(D(x)) - \log\sigma(-D(G(z)))"},
    ),
    "ebgan": Baseline(
        "EBGAN", games.EnergyBased, _ebgan, Pace({"critic": 1e-4, "decoder": 2e-4}),
        {"width": 128, "latent": 100}, {"margin": 0.1}, source="Zhao et al. 2017",
        objective={"critic": r"E(x) + \max(0, m - E(G(z)))",
                   "decoder": r"E(G(z)) + 0.1\,\overline{\cos^2}_{i \neq j}"},
    ),
    "bgan": Baseline(
        "BGAN", games.BoundarySeeking, lambda job: _dcgan(job, kernel=5),
        Pace({"critic": 1e-4, "decoder": 1e-4}), {"width": 128, "latent": 128},
        source="Hjelm et al. 2018",
        objective={"critic": r"-\log\sigma(D(x)) - \log\sigma(-D(G(z)))",
                   "decoder": r"(D(G(z)) - \log Z)^2"},
    ),
    "ali": Baseline(
        "ALI", games.Inference, _ali, Pace({"critic": 1e-4, "decoder": 1e-4}),
        {"width": 32, "latent": 256}, source="Dumoulin et al. 2017",
        objective={"critic": r"-\log\sigma(D(x, E(x))) - \log\sigma(-D(G(z), z))",
                   "decoder": r"-\log\sigma(-D(x, E(x))) - \log\sigma(D(G(z), z))"},
    ),
}  # fmt: skip

# What the paper's figures show and this project does not train.
NOT_TRAINED = {
    "pixelcnn": "draws pixel by pixel and has no latent of its own to walk in; "
    "the paper's panel walks in another network's codes"
}


def game(job: Training, seed: int) -> games.Game:
    """A baseline's game with its networks, initialised from the seed alone."""
    row = BASELINES[job.method]
    nets = {
        name: seeded(lambda r=recipe: models.build(r), generator(seed, "init", name))
        for name, recipe in row.recipes(job).items()
    }
    rates = {player: job.speed * rate for player, rate in row.pace.rates.items()}
    pace = replace(row.pace, rates=rates, decay_images=job.images if row.pace.decay < 1 else 0)
    return row.game(nets, job.latent, pace, **row.options)
