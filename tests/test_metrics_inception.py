"""Inception scores over splits and the Inception networks, against torch-fidelity."""

import math

import numpy as np
import pytest
import torch

from latentpapers.errors import UserError
from latentpapers.metrics import entry, features, frechet, inception
from latentpapers.nets import features as networks


def logits(n, classes=8, seed=0, sharp=2.0):
    g = torch.Generator().manual_seed(seed)
    return sharp * torch.randn(n, classes, generator=g, dtype=torch.float64)


def test_equal_to_torch_fidelity():
    from torch_fidelity.metric_isc import isc_features_to_metric

    x = logits(103).float()
    for splits in (1, 4, 10):
        ours = inception.split_score(x, splits=splits, seed=None)
        theirs = isc_features_to_metric(x, splits=splits, shuffle=False)
        assert ours.value == pytest.approx(theirs["inception_score_mean"], rel=1e-12)  # float64
    shuffled = isc_features_to_metric(x, splits=10)["inception_score_mean"]
    order = np.random.RandomState(2020).permutation(103)
    assert inception.split_score(x[order], seed=None).value == pytest.approx(shuffled, rel=1e-12)
    assert ours.value != pytest.approx(shuffled, rel=1e-3)  # control: splits see the order


def test_closed_forms():
    sure = 60 * torch.eye(5, dtype=torch.float64).repeat(20, 1)
    assert inception.split_score(sure, splits=1).value == pytest.approx(5, rel=1e-12)
    assert inception.split_score(torch.zeros(40, 7), splits=2).value == pytest.approx(1, rel=1e-6)


def test_interval_and_bias_are_stated():
    x = logits(400)
    found = inception.split_score(x)
    assert found.low < found.value < found.high
    assert "10 splits" in found.method
    assert "biased downwards at 40" in found.method
    assert inception.split_score(x) == found
    assert inception.split_score(x, splits=1).low is None
    assert inception.split_score(x, splits=20).value < found.value  # smaller splits, larger bias


def test_interval_of_splits_covers_their_expectation():
    truth = np.mean([inception.split_score(logits(400, seed=s)).value for s in range(100, 200)])
    found = [inception.split_score(logits(400, seed=s)) for s in range(40)]
    # 95 % promised: 33 or fewer of 40 happen once in 200 times
    assert sum(f.low <= truth <= f.high for f in found) >= 34
    assert np.mean([f.high - f.low for f in found]) < 0.3 * truth


def test_extrapolation_removes_the_bias():
    truth = inception.split_score(logits(50_000, seed=999), splits=1).value
    plain = [inception.split_score(logits(30, seed=s), splits=1).value for s in range(300)]
    bias = np.mean(plain) - truth
    mended = [inception.score_infinity(logits(30, seed=s)).value for s in range(30)]
    step = np.mean(mended) - np.mean(plain[:30])  # of the same draws, so their noise is in both
    assert bias < -0.05
    assert step == pytest.approx(-bias, rel=0.5)  # terms in 1/n^2 and the noise of 30 fits remain


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(19, 3), "10 parts"),
        (torch.zeros(40), "float logits"),
        (torch.zeros(40, 3, dtype=torch.long), "float logits"),
        (torch.full((40, 3), torch.nan), "NaN"),
        (None, "float logits"),
    ],
)
def test_bad_logits_are_refused(x, words):
    with pytest.raises(UserError, match=words):
        inception.split_score(x)


# --- the networks ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def random_state():
    """A state dict of the Inception of 2015 with random numbers that keep activations alive."""
    g = torch.Generator().manual_seed(0)
    state = {}
    for name, like in networks.skeleton("inception_tf2015").state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros((), dtype=torch.long)
        elif name.endswith(("running_var", "bn.weight")):
            state[name] = 0.5 + torch.rand(like.shape, generator=g)
        else:
            size = math.prod(like.shape[1:]) or 1
            state[name] = torch.randn(like.shape, generator=g) * math.sqrt(2 / size)
    return state


def test_fid_and_is_of_torch_fidelity_on_the_same_images(random_state, tmp_path, monkeypatch):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric

    torch.save(random_state, tmp_path / "random.pth")
    theirs = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["64", "logits_unbiased"], str(tmp_path / "random.pth")
    )
    g = torch.Generator().manual_seed(1)
    colours = 255 * torch.rand(6, 3, 1, 1, generator=g)  # noise alone looks the same to a network
    images = (colours + 40 * torch.randn(6, 3, 20, 20, generator=g)).clamp(0, 255).to(torch.uint8)
    pooled, outputs = theirs(images)
    ours = {
        layer: features.extract(
            images, networks.build("inception_tf2015", random_state, layer), batch=4, keep=False
        )
        for layer in ("64", "logits_unbiased")
    }
    # the promise is 1e-4; the same numbers in batches of other sizes
    scale = outputs.std().item()
    assert torch.allclose(ours["logits_unbiased"], outputs, rtol=1e-4, atol=1e-4 * scale)
    a, b = (fid_features_to_statistics(x) for x in pooled.split(3))
    fid = fid_statistics_to_metric(a, b, False)["frechet_inception_distance"]
    assert frechet.frechet_distance(*ours["64"].split(3)) == pytest.approx(fid, rel=1e-4)
    centre = outputs.mean(0)
    scale = (outputs - centre).std()  # random weights favour one class in all images
    calm = (outputs - centre) / scale
    isc = isc_features_to_metric(calm, splits=2, shuffle=False)["inception_score_mean"]
    score = inception.split_score((ours["logits_unbiased"] - centre) / scale, splits=2, seed=None)
    assert score.value == pytest.approx(isc, rel=1e-4)
    assert score.value > 1.01  # control: there is something to compare


def test_by_id():
    grey = torch.zeros(100, 8, 8, 3, dtype=torch.uint8)
    with pytest.raises(UserError, match="50,000 images, not 100"):
        entry.score("is_tf2015_50k_s10", grey)
    protocol = entry.find("is_tf2015_50k_s10")
    with pytest.raises(UserError, match="no reference"):
        protocol.function(grey.movedim(3, 1), grey.movedim(3, 1))


def test_by_id_with_a_stand_in_network(monkeypatch):
    def shown(images, name, *, layer):
        assert (name, layer) == ("inception_tf2015", "logits_unbiased")
        return logits(len(images))

    monkeypatch.setattr(features, "extract", shown)
    found = entry.find("is_tf2015_50k_s10").function(torch.zeros(200, 3, 2, 2), None)
    assert found == inception.split_score(logits(200))
