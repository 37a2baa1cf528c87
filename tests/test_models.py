"""Shipped networks: written in half precision with their card, built from `nets` alone."""

import pytest
import torch

from latentpapers import models, tensorfile
from latentpapers.errors import Corrupt, Missing, UnknownName, UserError
from latentpapers.nets.began import Decoder, Encoder
from latentpapers.nets.digitsnet import DigitsNet

OPTIONS = {"size": 16, "width": 4, "latent": 5}
RECIPES = {
    "decoder": {"net": "began.Decoder", "options": OPTIONS},
    "encoder": {"net": "began.Encoder", "options": {**OPTIONS, "heads": 2}},
}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one shipped checkpoint, `toy/pair`."""
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("LATENTPAPERS_ROOT", str(tmp_path))
    monkeypatch.setenv("LATENTPAPERS_OUT", str(tmp_path / "elsewhere"))
    nets = {"decoder": Decoder(**OPTIONS), "encoder": Encoder(**OPTIONS, heads=2)}
    path = tmp_path / "results" / "checkpoints" / "toy" / "pair.safetensors"
    states = {n: net.state_dict() for n, net in nets.items()}
    models.save(path, states, RECIPES, {"title": "a pair"})
    return path, nets


def test_shipped_networks_come_back_in_half_precision(checkout):
    path, nets = checkout
    for which in ("toy/pair", path):
        model = models.load(which)
        assert model.card["title"] == "a pair"
        for name, net in nets.items():
            assert not model[name].training
            for key, value in model[name].state_dict().items():
                assert value.dtype is torch.float32
                assert torch.equal(value, net.state_dict()[key].half().float())
            assert not any(p.requires_grad for p in model[name].parameters())
    z = torch.zeros(1, 5)
    assert torch.allclose(models.load("toy/pair")["decoder"](z), nets["decoder"](z), atol=1e-2)
    halves = tensorfile.load(path)["parts"]["decoder"]
    assert all(v.dtype is torch.float16 for v in halves.values())


def test_eight_bits_keep_every_weight_within_half_a_level_of_its_channel(tmp_path):
    net = Decoder(**{**OPTIONS, "width": 32})
    recipe = {"net": "began.Decoder", "options": {**OPTIONS, "width": 32}}
    path = {bits: tmp_path / f"{bits}.safetensors" for bits in (8, 16)}
    for bits, file in path.items():
        models.save(file, {"d": net.state_dict()}, {"d": recipe}, {}, bits=bits)
    found = models.load(path[8])["d"].state_dict()
    packed = tensorfile.load(path[8])["parts"]["d"]
    assert any(isinstance(v, dict) for v in packed.values())
    assert any(not isinstance(v, dict) for v in packed.values())
    for key, value in net.state_dict().items():
        if isinstance(packed[key], dict):
            level = value.flatten(1).abs().amax(1) / 127
            error = (found[key] - value).flatten(1).abs().amax(1)
            assert (error <= level * 0.5001).all()  # half a level, and fp32 rounding
            assert (error > level * 0.1).any()  # it is a rounding, not a copy
        else:
            assert torch.equal(found[key], value.half().float())
    assert path[8].stat().st_size < 0.7 * path[16].stat().st_size
    zero = {k: torch.zeros_like(v) for k, v in net.state_dict().items()}
    models.save(path[8], {"d": zero}, {"d": recipe}, {}, bits=8)
    assert all((v == 0).all() for v in models.load(path[8])["d"].state_dict().values())


@pytest.mark.usefixtures("checkout")
def test_names_lists_what_is_there():
    assert models.names() == ["toy/pair"]
    assert models.names("toy") == ["toy/pair"]
    assert models.names("avae") == []


def test_unknown_names_say_what_is_known(checkout, tmp_path):
    with pytest.raises(UnknownName, match="toy/pair"):
        models.load("toy/par")
    with pytest.raises(UnknownName, match="decoder, encoder"):
        models.load("toy/pair")["critic"]
    with pytest.raises(Missing, match=r"absent\.safetensors"):
        models.load(tmp_path / "absent.safetensors")


def test_counters_and_statistics_survive(tmp_path):
    net = DigitsNet(4)
    net.train()(torch.randn(3, 1, 32, 32))
    recipe = {"net": "digitsnet.DigitsNet", "options": {"width": 4}}
    models.save(tmp_path / "d.safetensors", {"c": net.state_dict()}, {"c": recipe}, {})
    found = models.load(tmp_path / "d.safetensors")["c"].state_dict()
    assert int(found["1.num_batches_tracked"]) == 1
    assert torch.equal(found["1.running_mean"], net[1].running_mean.half().float())


@pytest.mark.parametrize(
    "recipe",
    [
        {"net": "began.Nobody", "options": {}},
        {"net": "nowhere.Decoder", "options": {}},
        {"net": "began.Decoder", "options": {"size": 16}},
        {"net": "began.Decoder", "options": {**OPTIONS, "colour": 1}},
        {"net": "began.levels", "options": {"size": 32}},
        {"net": "began.UserError", "options": {}},
        {"net": "began.torch", "options": {}},
        {"net": "..papers.avae.Step", "options": {}},
        {"net": "os.system", "options": {}},
        {"net": "began", "options": {}},
        {"options": {}},
    ],
)
def test_recipes_build_networks_of_this_library_alone(recipe):
    with pytest.raises(Corrupt):
        models.build(recipe)


def test_a_network_of_an_impossible_size_says_why():
    with pytest.raises(UserError, match="power of two"):
        models.build({"net": "began.Decoder", "options": {**OPTIONS, "size": 20}})


def test_files_that_do_not_fit_their_card_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    state = {k: v.half() for k, v in Decoder(**OPTIONS).state_dict().items()}
    recipe = RECIPES["decoder"]
    wider = {"net": "began.Decoder", "options": {**OPTIONS, "width": 8}}
    for tree, card in (
        ({"parts": {"decoder": state}}, {}),
        ({"parts": {"decoder": state}}, {"parts": {"decoder": wider}}),
        ({"parts": {}}, {"parts": {"decoder": recipe}}),
        ({"parts": {"decoder": {}}}, {"parts": {"decoder": recipe}}),
        ({}, {"parts": {"decoder": recipe}}),
    ):
        tensorfile.save(path, tree, about=card)
        with pytest.raises(Corrupt, match=r"x\.safetensors"):
            models.load(path)


def test_a_network_without_a_recipe_is_refused(tmp_path):
    state = Decoder(**OPTIONS).state_dict()
    for recipes in ({}, RECIPES):
        with pytest.raises(Missing, match="recipes for"):
            models.save(tmp_path / "x.safetensors", {"decoder": state}, recipes, {})
    assert not (tmp_path / "x.safetensors").exists()
