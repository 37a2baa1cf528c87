"""LAG's two extensions (an embedding z_i, an encoder E) and SRGAN as rows of the same table."""

import pytest
import torch
from step_bed import context, gradients, parameters

from latentpapers import config, data, models
from latentpapers.papers import lag
from latentpapers.papers.lag import Step, Training

TINY = {"data": "drawn-faces", "size": 16, "images": 12, "factor": 4, "steps": 3, "batch": 4,
        "width": 8, "floor": 4, "blocks": 2, "noise": 3, "log_every": 1}  # fmt: skip


def pixels(n=12, size=16):
    g = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, 3, size, size), generator=g, dtype=torch.uint8)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Trains a method on noise and gives the model as it would ship."""

    class Set:
        pixels = pixels()

    monkeypatch.setattr(data, "load", lambda *a, **k: Set())
    monkeypatch.setenv("LATENTPAPERS_PROCESSES", "1")

    def train(method, only=(), **options):
        path = tmp_path / f"{method}.safetensors"
        lag.train(Training(method, **{**TINY, **options}), seed=0, path=path, only=only)
        return models.load(path)

    return train


# --- rates ------------------------------------------------------------------------------------


def rates(method, **options):
    step = Step(Training(method, **{**TINY, **options}), seed=0)
    return {name: o.param_groups[0]["lr"] for name, o in step.optimizers().items()}


def test_the_latents_rate_is_a_factor_of_its_own():
    plain = rates("lag_embedding")
    assert plain == {"generator": 1e-3, "critic": 1e-3, "latent": 1e-3}
    found = rates("lag_embedding", latent_ratio=10.0, critic_ratio=4.0)
    assert found == pytest.approx({"generator": 1e-3, "critic": 4e-3, "latent": 1e-2}, rel=1e-12)
    assert rates("lag", latent_ratio=10.0) == {"generator": 1e-3, "critic": 1e-3}


# --- what a shipped file of each knows -----------------------------------------------------------


def test_an_embeddings_card_keeps_the_errors_at_its_own_maps(trained):
    """The maps are too many to ship: the card's errors must be those of G(y_i, z_i)."""
    model = trained("lag_embedding")
    x = pixels().float() / 127.5 - 1
    y = torch.nn.functional.avg_pool2d(x, 4)
    with torch.no_grad():
        out = model["generator"](y, model["embedding"].maps).clamp(-1, 1)
    expected = 127.5 * ((out - x) ** 2).mean((1, 2, 3)).sqrt()
    found = torch.tensor(model.card["own_errors"])
    # the file holds half precision (1e-3 of about 70 levels), the card two decimals
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0)
    with torch.no_grad():  # control: other maps
        out = model["generator"](y, 5 * model["embedding"].maps.roll(1, 0)).clamp(-1, 1)
    other = 127.5 * ((out - x) ** 2).mean((1, 2, 3)).sqrt()
    assert float((found - other).abs().max()) > 0.2
    with torch.no_grad():  # beside them, of the same images, those of z = 0
        out = model["generator"](y, torch.zeros(12, 3, 4, 4)).clamp(-1, 1)
    expected = 127.5 * ((out - x) ** 2).mean((1, 2, 3)).sqrt()
    central = torch.tensor(model.card["central_errors"])
    torch.testing.assert_close(central, expected, atol=0.1, rtol=0)
    assert float((central - found).abs().max()) > 0.2
    assert "own_errors" not in trained("lag").card


def test_the_encoder_answers_for_images_that_are_known(trained):
    model = trained("lag_encoder", only=("generator", "encoder"))
    assert set(model.parts) == {"generator", "encoder"}
    found = lag.encoded(model, pixels(3))
    x = pixels(3).float() / 127.5 - 1
    with torch.no_grad():
        by_hand = model["generator"](lag.inputs(model, pixels(3)), model["encoder"](x))
    torch.testing.assert_close(found, by_hand.clamp(-1, 1))
    assert not torch.equal(found, lag.centre(model, lag.inputs(model, pixels(3))))


# --- SRGAN ----------------------------------------------------------------------------------------


def srgan_terms(features, name):
    step = Step(Training("srgan", **TINY, features=name), seed=0, features=features)
    ctx = context()
    (losses,) = list(step.updates(pixels(4), ctx))
    return step, losses, ctx.terms


def test_srgans_loss_is_pixels_and_scaled_features_and_the_adversary():
    net = torch.nn.Conv2d(3, 5, 3)
    step, losses, terms = srgan_terms(net, "vgg16hed")
    x = pixels(4).float() / 127.5 - 1
    fake = step.nets["generator"](torch.nn.functional.avg_pool2d(x, 4))
    far = (net((x + 1) / 2) - net((fake + 1) / 2)) / 1000  # images on 0 to 255 (authors' code)
    made = step.nets["critic"].positions(fake)
    expected = ((fake - x).square().mean() + far.square().mean()
                + 1e-3 * torch.nn.functional.softplus(-made).mean())  # fmt: skip
    # float32; batch normalisation has seen one batch more
    torch.testing.assert_close(losses["generator"], expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(terms["features"], far.square().mean(), rtol=1e-4, atol=1e-9)


def test_control_features_of_another_scale_weigh_another_amount():
    net = torch.nn.Conv2d(3, 5, 3)
    one, other = (float(srgan_terms(net, n)[2]["features"].detach()) for n in ("vgg16hed", "vgg19"))
    assert other == pytest.approx(one * (1000 / 17.4) ** 2, rel=1e-4)


def test_no_gradient_reaches_the_feature_network():
    net = torch.nn.Conv2d(3, 5, 3).requires_grad_(False)
    step, losses, _ = srgan_terms(net, "vgg16hed")
    found = gradients(losses["generator"], parameters(step)["generator"])
    assert all(g is not None for g in found)
    assert net.weight.grad is None


# --- the tables ----------------------------------------------------------------------------------


def test_every_row_of_the_table_has_a_run_in_gpu_and_a_shipped_one():
    assert set(lag.TABLE) <= set(lag.PRESETS["gpu"].training)
    assert set(lag.TABLE) <= set(lag.SHIPPED)
    embedding = lag.PRESETS["gpu"].training["table_embedding_x8"]
    assert (embedding.images, embedding.latent_ratio) == (1000, 10.0)


def test_cpu_measures_what_quick_measures_on_more_images():
    quick, cpu = lag.PRESETS["quick"], lag.PRESETS["cpu"]
    assert cpu.training == quick.training
    assert cpu.n_eval > quick.n_eval
    assert cpu.n_images > quick.n_images
    assert cpu.n_samples > quick.n_samples


def test_runs_with_and_without_rounding_differ_in_the_step_alone():
    one, other = (lag.SHIPPED[name] for name in ("rounded_x4", "exact_x4"))
    assert config.difference(one, other) == ["step: 0.0 -> 1e-06"]
    assert lag.KEPT["exact_x4"] == lag.KEPT["rounded_x4"] == ("no network",)


def test_the_embeddings_shipped_card_holds_what_table_s1_reads():
    assert lag.KEPT["table_embedding_x8"] == ("no network",)
    model = models.load("lag/table_embedding_x8_s0")
    assert not model.parts
    assert len(model.card["own_errors"]) == len(model.card["central_errors"]) == 200
