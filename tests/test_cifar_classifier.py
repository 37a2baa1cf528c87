"""The classifier behind is_cifarnet_n5000: what its card says, what it refuses, how it is made."""

from typing import NamedTuple

import pytest
import torch

from latentpapers import data, models
from latentpapers.errors import Missing, UserError
from latentpapers.metrics import cifar_classifier
from latentpapers.metrics.inception_score import inception_score


class SimpleSet(NamedTuple):
    pixels: torch.Tensor
    labels: torch.Tensor

    def __len__(self):
        return len(self.labels)


@pytest.fixture(scope="module")
def held_out():
    try:
        return data.load("cifar10-jpeg", size=32, split="test", n=1000)
    except Missing as why:
        pytest.skip(f"the CIFAR-10 pack is not on this machine: {why}")


def test_ceiling_comes_from_the_card_and_lies_in_range():
    sample, limit = cifar_classifier.ceiling()
    assert sample.n == limit.n == 5000
    assert 1 < sample.low <= sample.value <= sample.high < 10
    # extrapolation removes a downward bias, so the limit is not below the sample by more than noise
    assert limit.value > sample.low


def test_card_is_true(held_out):
    said = cifar_classifier.logits(data.to_float(held_out.pixels)).argmax(1)
    right = float((said == held_out.labels).float().mean())
    # 1,000 of the 5,000 images on the card: 4 standard errors of a share of 0.77
    assert abs(right - models.load(cifar_classifier.CHECKPOINT).card["test_accuracy"]) < 0.054


def test_real_images_score_as_the_card_says(held_out):
    p = cifar_classifier.logits(data.to_float(held_out.pixels)).softmax(1)
    ceiling, _ = cifar_classifier.ceiling()
    # a fifth of the images: a wider interval, and a score biased downwards by about 1 %
    assert abs(inception_score(p).value / ceiling.value - 1) < 0.08


def test_control_noise_scores_far_below_real_images():
    noise = torch.rand(200, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    score = inception_score(cifar_classifier.logits(noise).softmax(1))
    assert score.value < cifar_classifier.ceiling()[0].value / 2


def test_blocks_do_not_change_the_result():
    x = torch.rand(7, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    whole, parts = (cifar_classifier.logits(x, block=b) for b in (100, 2))
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-4)  # order of summation


def test_it_refuses():
    x = torch.zeros(2, 3, 32, 32)
    for wrong in (x[:, :1], x[..., :16, :16], x + 2, x.fill_(float("nan"))):
        with pytest.raises(UserError, match="cifarnet takes"):
            cifar_classifier.logits(wrong)


def test_training_makes_such_a_file(tmp_path, monkeypatch):
    g = torch.Generator().manual_seed(0)

    def load(name, *, size, split, n=None):
        labels = torch.arange(n) % 10
        noise = torch.randint(0, 5, (n, 3, 32, 32), generator=g)
        return SimpleSet((labels.view(-1, 1, 1, 1) * 25 + noise).to(torch.uint8), labels)

    monkeypatch.setattr(cifar_classifier.data, "load", load)
    before, path = torch.random.get_rng_state(), tmp_path / "net.safetensors"
    right = cifar_classifier.train(path, images=96, epochs=1, batch=32, ceiling_of=64)
    assert 0 <= right <= 1
    assert torch.equal(before, torch.random.get_rng_state())
    card = models.load(path).card
    assert {"test_accuracy", "ceiling", "ceiling_infinity"} <= card.keys()
    assert card["ceiling"]["n"] == 64
