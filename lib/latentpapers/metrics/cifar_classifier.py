"""The classifier behind `is_cifarnet_n5000`: CIFAR-10's classes, in place of Inception's.

It was trained on `cifar10-jpeg`. Its card holds the accuracy and the score of real held-out images,
so that the ceiling of a table is known where the data are not.
`python -m latentpapers.metrics.cifar_classifier FILE` trains it anew (some ten minutes of CPU).
"""

import sys
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from latentpapers import data, models, seeds
from latentpapers.metrics import classifiers
from latentpapers.metrics.inception import score_infinity
from latentpapers.metrics.inception_score import inception_score
from latentpapers.metrics.protocol import Score
from latentpapers.nets.attributenet import AttributeNet
from latentpapers.shapes import Images, Labels

CHECKPOINT = "metrics/cifarnet"
DATA = "cifar10-jpeg"
CEILING = 5000
"""Real images behind the ceiling on the card."""
_RECIPE = {"net": "attributenet.AttributeNet", "options": {"attributes": 10, "width": 24}}


def logits(images: Images, *, block: int = 100) -> Float[Tensor, "N 10"]:
    """The shipped classifier's outputs before the softmax.

    Args:
        images: (N, 3, 32, 32) in [-1, 1].
        block: images a forward pass; it does not change the result beyond rounding.

    Raises:
        UserError: another shape, or values outside [-1, 1].
    """
    images = classifiers.checked(images, 3, "cifarnet")
    return classifiers.logits(models.load(CHECKPOINT)["classifier"], images, block)


def ceiling() -> tuple[Score, Score]:
    """What real held-out images score: over the sample, and extrapolated; from the card."""
    card = models.load(CHECKPOINT).card
    sample, limit = (Score(**card[name]) for name in ("ceiling", "ceiling_infinity"))
    return sample, limit


def train(
    path: Path, *, seed: int = 0, images: int | None = None, epochs: int = 6, batch: int = 128,
    ceiling_of: int = CEILING,
) -> float:  # fmt: skip
    """Trains the classifier, writes it with its card, returns its accuracy on held-out images.

    Raises:
        Missing: the data pack is not on this machine.
    """
    pool = data.load(DATA, size=32, split="train", n=images)
    test = data.load(DATA, size=32, split="test", n=ceiling_of)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeds.derive(seed, "cifarnet"))
        net = AttributeNet(**_RECIPE["options"]).to(memory_format=torch.channels_last)
        _fit(net.train(), pool.pixels, pool.labels, epochs, batch, seed)
    said = classifiers.logits(net.eval().requires_grad_(False), data.to_float(test.pixels), 100)
    right = float((said.argmax(1) == test.labels).float().mean())
    found, limit = inception_score(said.softmax(1)), score_infinity(said)
    card = {
        "title": "classifier of CIFAR-10's classes, 32 px",
        "config": {"data": DATA, "size": 32, "epochs": epochs, "batch": batch},
        "seed": seed, "images": epochs * len(pool), "test_accuracy": round(right, 4),
        "test_images": len(test), "ceiling": _as_dict(found), "ceiling_infinity": _as_dict(limit),
    }  # fmt: skip
    models.save(path, {"classifier": net.state_dict()}, {"classifier": _RECIPE}, card)
    return right


def _as_dict(score: Score) -> dict[str, object]:
    names = ("value", "low", "high", "n", "method")
    return {name: getattr(score, name) for name in names}


def _fit(
    net: torch.nn.Module, pixels: Tensor, y: Labels, epochs: int, batch: int, seed: int
) -> None:
    def loss(index: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            said = net(_moved(data.to_float(pixels[index])))
        return F.cross_entropy(said.float(), y[index].long(), label_smoothing=0.05)

    classifiers.fit(
        net, len(pixels), loss, epochs=epochs, batch=batch, rate=4e-3, decay=2e-2, seed=seed
    )


def _moved(x: Images) -> Images:
    """Each batch moved by up to 2 px; half of the images mirrored."""
    x = classifiers.shifted(x).contiguous(memory_format=torch.channels_last)
    return torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    print(f"test accuracy {train(target):.4f}, written to {target}")
