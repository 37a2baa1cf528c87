"""Which networks a run has, and how `lp.models.build` makes each of them."""

from typing import Any

from torch import nn

from latentpapers import config
from latentpapers.errors import UnknownName
from latentpapers.nets.began import Decoder, Encoder, seeded
from latentpapers.papers.avae.baselines import BASELINES
from latentpapers.papers.avae.training import METHODS, Method, Training
from latentpapers.seeds import generator


def method_of(job: Training) -> Method:
    """The `METHODS` row of a run.

    Raises:
        UnknownName: no such method.
    """
    if job.method not in METHODS:
        raise UnknownName("method", job.method, [*METHODS, *BASELINES])
    return METHODS[job.method]


def title_of(method: str) -> str:
    """A method's name in the paper's table and figures.

    Raises:
        UnknownName: neither a row of `METHODS` nor of `BASELINES`.
    """
    return config.named("method", method, METHODS | BASELINES).title


class Networks:
    """The networks of one method, initialised from the seed alone."""

    def __init__(self, job: Training, seed: int) -> None:
        method = method_of(job)
        shape = (job.size, job.width, job.latent)

        def make(name: str, kind: type[nn.Module], **options: Any) -> nn.Module:
            options["channels"] = job.channels
            return seeded(lambda: kind(*shape, **options), generator(seed, "init", name))

        self.all: dict[str, nn.Module] = {"decoder": make("decoder", Decoder)}
        if method.encoder:
            self.all["encoder"] = make("encoder", Encoder, heads=2)
        if method.critic:
            self.all["critic_encoder"] = make("critic_encoder", Encoder)
            self.all["critic_decoder"] = make("critic_decoder", Decoder)


def recipe(job: Training, name: str) -> dict[str, Any]:
    """How `lp.models.build` makes a network of this run."""
    if job.method in BASELINES:
        return BASELINES[job.method].recipes(job)[name]
    options = {"size": job.size, "width": job.width, "latent": job.latent, "channels": job.channels}
    kind = "Decoder" if name.endswith("decoder") else "Encoder"
    return {
        "net": f"began.{kind}",
        "options": options | ({"heads": 2} if name == "encoder" else {}),
    }
