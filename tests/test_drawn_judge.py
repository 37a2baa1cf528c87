"""The judge of drawn faces: what its card says is measured again; bad inputs are refused."""

import pytest
import torch
from torch.nn import functional as F

from latentpapers import data, models
from latentpapers.errors import UnknownName, UserError
from latentpapers.metrics import drawn_judge
from latentpapers.nets.attributenet import AttributeNet


@pytest.fixture(scope="module")
def faces():
    return data.load("drawn-faces", size=32, split="test", n=400)


def column(faces, name):
    return faces.attributes[:, faces.attribute_names.index(name)]


@pytest.mark.parametrize("attribute", ["hat", "glasses", "bald"])
def test_card_is_true(faces, attribute):
    said = drawn_judge.probability(data.to_float(faces.pixels), attribute) > 0.5
    has, card = column(faces, attribute), drawn_judge.accuracy(attribute)
    for share, wanted in (((said & has).sum() / has.sum(), card["with"]),
                          ((~said & ~has).sum() / (~has).sum(), card["without"])):  # fmt: skip
        # 30 to 370 images against 3000: two wrong ones of 30 are 7 %
        assert abs(share.item() - wanted) < 0.07


def test_hats_are_seen_through_blur(faces):
    x = data.to_float(faces.pixels)
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    said = drawn_judge.probability(blurred, "hat") > 0.5
    assert (said == column(faces, "hat")).float().mean() > 0.97


def test_control_the_attributes_are_not_confused(faces):
    said = drawn_judge.probability(data.to_float(faces.pixels), "hat") > 0.5
    has = column(faces, "glasses")
    agreement = (said[has].float().mean() + (~said[~has]).float().mean()) / 2
    assert abs(agreement.item() - 0.5) < 0.1  # chance; factors are independent


def test_judge_refuses(faces):
    x = data.to_float(faces.pixels[:2])
    for wrong in (x[:, :1], x[..., :16, :16], x * 2):
        with pytest.raises(UserError, match="the judge takes"):
            drawn_judge.probability(wrong, "hat")
    for ask in (lambda: drawn_judge.probability(x, "crown"), lambda: drawn_judge.accuracy("crown")):
        with pytest.raises(UnknownName, match="attribute"):
            ask()


def test_training_makes_such_a_file(tmp_path):
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    path = tmp_path / "judge.safetensors"
    right = drawn_judge.train(path, images=256, held_out=64, epochs=2, batch=32)
    assert torch.equal(state, torch.random.get_rng_state())
    model = models.load(path)
    assert isinstance(model["judge"], AttributeNet)
    assert model.card["accuracy"] == right
    assert model["judge"](torch.zeros(2, 3, 32, 32)).shape == (2, len(right))
