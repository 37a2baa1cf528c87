"""StarGAN v2: counts of the public code, its blocks against torch's own layers, its losses, its
training step beside a plain one."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from latentpapers import models
from latentpapers.errors import UserError
from latentpapers.losses import logistic, style
from latentpapers.nets import stargan_v2 as net
from latentpapers.papers import lrc_i2i
from latentpapers.train import checkpoint
from latentpapers.train.context import Context
from latentpapers.train.engine import Fit, Given, fit

TINY = {"width": 8, "cap": 16}


def count(module):
    return sum(p.numel() for p in module.parameters())


def on_meta(kind, *args, **options):
    with torch.device("meta"):
        return kind(*args, **options)


def tiny(kind, *args, seed=0, **options):
    torch.manual_seed(seed)
    return kind(*args, **options).double()


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- counts -----------------------------------------------------------------------------------

# of the public code, read off a second, independent build of it
COUNTS = {
    128: (33_632_003, 43_206_403, 20_766_912, 20_734_593),
    256: (33_892_995, 43_467_395, 20_884_096, 20_851_777),
}


@pytest.mark.parametrize("size", sorted(COUNTS))
def test_counts_of_the_public_code(size):
    plain, masked, encoder, critic = COUNTS[size]
    assert count(on_meta(net.Generator, size)) == plain
    assert count(on_meta(net.Generator, size, high_pass=1.0)) == masked
    for domains in (1, 2, 3):
        more = domains - 1
        mapping = on_meta(net.MappingNetwork, domains=domains)
        assert count(mapping) == 1_617_472 + 820_800 * more
        found = on_meta(net.StyleEncoder, size, domains=domains)
        assert count(found) == encoder + 32_832 * more
        assert count(on_meta(net.Discriminator, size, domains=domains)) == critic + 513 * more


def test_counts_of_the_two_domain_run_that_the_paper_quotes():
    assert count(on_meta(net.MappingNetwork, domains=2)) == 2_438_272
    assert count(on_meta(net.StyleEncoder, 128, domains=2)) == 20_799_744
    assert count(on_meta(net.Discriminator, 128, domains=2)) == 20_735_106


def test_docstrings_say_these_counts():
    said = {net.Generator: ("33,632,003", "43,206,403", "33,892,995", "43,467,395"),
            net.MappingNetwork: ("1,617,472", "820,800"),
            net.StyleEncoder: ("20,766,912", "20,884,096", "32,832"),
            net.Discriminator: ("20,734,593", "20,851,777", "513")}  # fmt: skip
    assert all(number in kind.__doc__ for kind, numbers in said.items() for number in numbers)


def test_count_of_a_reduced_generator_by_arithmetic():
    """Widths 8, 16, 16 at 64, 32, 16 px and two blocks more: each layer written out."""

    def encoder(a, b):
        return (9 * a * a + a) + (9 * a * b + b) + 4 * a + (a * b if a != b else 0)

    def decoder(a, b):
        convs = (9 * a * b + b) + (9 * b * b + b) + (a * b if a != b else 0)
        return convs + 5 * 2 * (a + b)  # a linear layer of 4 styles: (4 + 1) * 2 channels

    ends = (27 * 8 + 8) + 2 * 8 + (3 * 8 + 3)
    down = encoder(8, 16) + 3 * encoder(16, 16)
    up = decoder(16, 8) + 3 * decoder(16, 16)
    assert count(on_meta(net.Generator, 64, **TINY, style=4)) == ends + down + up


@pytest.mark.parametrize("size", [0, 16, 48, 100])
def test_sizes_that_cannot_be(size):
    with pytest.raises(UserError, match="power of two"):
        net.Generator(size)


def test_widths_need_channels():
    with pytest.raises(UserError, match="no channels"):
        net.Discriminator(64, width=0)


# --- blocks -----------------------------------------------------------------------------------


def test_style_replaces_mean_and_spread_and_nothing_else():
    """After AdaIN a channel has mean beta and spread |1 + gamma|, whatever its own were."""
    layer, x = tiny(net.AdaIN, 4, 3), draw(2, 3, 16, 16)
    s = draw(2, 4, seed=3)
    gamma, beta = layer.fc(s).chunk(2, 1)
    y = layer(5 * x + 7, s)
    # instance norm's epsilon of 1e-5 beside a variance of 25
    torch.testing.assert_close(y.mean((2, 3)), beta, rtol=1e-6, atol=1e-9)
    spread = y.var((2, 3), correction=0).sqrt()
    torch.testing.assert_close(spread, (1 + gamma).abs(), rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(y, layer(x, s), rtol=1e-4, atol=1e-4)
    assert (layer(x, s) - layer(x, 0 * s)).abs().max() > 0.1  # control: the style counts


def test_a_block_written_out():
    """The generator's block beside torch's layers; a block without norms beside it differs."""
    block, x = tiny(net.ResBlock, 4, 6, normed=True, down=True), draw(2, 4, 8, 8)
    nn.init.normal_(block.norm1.weight)
    y = F.leaky_relu(F.instance_norm(x) * block.norm1.weight[:, None, None], 0.2)
    y = F.avg_pool2d(F.conv2d(y, block.conv1.weight, block.conv1.bias, padding=1), 2)
    y = F.conv2d(
        F.leaky_relu(F.instance_norm(y), 0.2), block.conv2.weight, block.conv2.bias, padding=1
    )
    y = (y + F.conv2d(F.avg_pool2d(x, 2), block.conv1x1.weight)) / math.sqrt(2)
    torch.testing.assert_close(block(x), y)  # pooling and a 1x1 convolution commute
    plain = tiny(net.ResBlock, 4, 6, down=True)
    plain.load_state_dict({k: v for k, v in block.state_dict().items() if "norm" not in k})
    assert (plain(x) - y).abs().max() > 0.1


def test_a_style_block_written_out():
    block, x, s = tiny(net.AdaINResBlock, 6, 4, 5, up=True), draw(2, 6, 4, 4), draw(2, 5, seed=2)
    big = nn.Upsample(scale_factor=2)
    y = block.conv1(big(F.leaky_relu(block.norm1(x, s), 0.2)))
    y = block.conv2(F.leaky_relu(block.norm2(y, s), 0.2))
    torch.testing.assert_close(block(x, s), (y + big(block.conv1x1(x))) / math.sqrt(2))
    bare = tiny(net.AdaINResBlock, 6, 4, 5, up=True, shortcut=False)
    torch.testing.assert_close(bare(x, s), y)  # the same seed, so the same weights
    assert count(bare) == count(block)  # the unused convolution stays


def test_details_are_the_masked_second_differences():
    """The kernel of the public code: 8 in its middle, -1 around it, divided by w_hpf."""
    x, masks = draw(2, 3, 64, 64), tuple(torch.rand(2, 1, 64, 64).double() for _ in range(2))
    kernel = -torch.ones(3, 1, 3, 3, dtype=torch.float64)
    kernel[:, :, 1, 1] = 8
    for weight in (1.0, 2.0):
        want = F.conv2d(x * masks[1], kernel / weight, padding=1, groups=3)
        torch.testing.assert_close(net.details(x, masks, weight), want)
    small = F.avg_pool2d(x, 2)
    mask = F.interpolate(masks[0], size=32, mode="bilinear")
    want = F.conv2d(small * mask, kernel, padding=1, groups=3)
    torch.testing.assert_close(net.details(small, masks, 1.0), want)
    # flat areas have none, inside the border
    assert net.details(torch.ones_like(x), tuple(map(torch.ones_like, masks)), 1.0)[
        :, :, 1:-1, 1:-1
    ].abs().max() < 1e-12  # fmt: skip


# --- networks ---------------------------------------------------------------------------------


def test_the_networks_fit_together():
    g, f = tiny(net.Generator, 32, **TINY), tiny(net.MappingNetwork, hidden=8)
    e, d = tiny(net.StyleEncoder, 32, **TINY), tiny(net.Discriminator, 32, **TINY)
    x = draw(2, 3, 32, 32)
    s = f(draw(2, 16))
    assert s.shape == e(x).shape == (2, 64)
    assert g(x, s).shape == x.shape
    assert d(x).shape == (2,)


def test_masks_add_what_the_shortcut_no_longer_carries():
    g, s = tiny(net.Generator, 64, **TINY, high_pass=1.0), draw(1, 64)
    x = draw(1, 3, 64, 64)
    none, whole = (
        g(x, s, tuple(torch.full((1, 1, 256, 256), v) for _ in range(2))) for v in (0.0, 1.0)
    )
    torch.testing.assert_close(none, g(x, s))
    assert (whole - none).abs().max() > 0.1
    with pytest.raises(UserError, match="no high-pass"):
        tiny(net.Generator, 64, **TINY)(x, s, (x, x))


def test_labels_pick_heads():
    x, z, labels = draw(3, 3, 32, 32), draw(3, 16), torch.tensor([2, 0, 2])
    for module, given in ((tiny(net.MappingNetwork, hidden=8, domains=3), z),
                          (tiny(net.StyleEncoder, 32, **TINY, domains=3), x),
                          (tiny(net.Discriminator, 32, **TINY, domains=3), x)):  # fmt: skip
        mixed = module(given, labels)
        for i, label in enumerate(labels):
            torch.testing.assert_close(mixed[i], module(given, torch.full((3,), label))[i])
        torch.testing.assert_close(module(given)[1], mixed[1])  # no labels: the first domain
        assert (module(given)[0] - mixed[0]).abs().max() > 1e-6


def test_initialisation_is_he_s_by_inputs():
    torch.manual_seed(0)
    d = net.Discriminator(64, width=64, cap=128)
    for layer in d.modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 20_000:
            inputs = layer.weight[0].numel()
            # the spread of n normal numbers is known to 1 / sqrt(2 n): five of those
            slack = 5 / math.sqrt(2 * layer.weight.numel())
            assert abs(float(layer.weight.detach().std()) / math.sqrt(2 / inputs) - 1) < slack
            assert layer.bias is None or not layer.bias.any()


# --- losses -----------------------------------------------------------------------------------


def test_adversarial_terms_are_binary_cross_entropies():
    real, fake = draw(7), draw(7, seed=2)
    bce = F.binary_cross_entropy_with_logits
    want = bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))
    torch.testing.assert_close(logistic.discriminator_loss(real, fake), want)
    want = bce(fake, torch.ones_like(fake))  # not the saturating -bce(fake, 0)
    torch.testing.assert_close(logistic.generator_loss(fake), want)
    wrong = -bce(fake, torch.zeros_like(fake))
    assert (logistic.generator_loss(fake) - wrong).abs() > 0.1


@pytest.mark.parametrize("term", [style.style_reconstruction, style.diversification, style.cycle])
def test_distances_are_torch_s_mean_absolute_difference(term):
    a, b = draw(4, 3, 5, 5), draw(4, 3, 5, 5, seed=2)
    torch.testing.assert_close(term(a, b), F.l1_loss(a, b))
    assert term(a, a) == 0
    # bfloat16 is widened first: a mean of 300 equal differences of 1 is 1, not 0.996
    assert term(torch.ones(300).bfloat16(), torch.zeros(300).bfloat16()) == 1.0


def test_the_second_image_of_diversification_is_a_constant():
    a, b = draw(2, 3, 4, 4).requires_grad_(), draw(2, 3, 4, 4, seed=2).requires_grad_()
    ga, gb = torch.autograd.grad(style.diversification(a, b), (a, b), allow_unused=True)
    assert gb is None
    torch.testing.assert_close(ga, (a - b).sign() / a.numel())
    _, gb = torch.autograd.grad(style.cycle(a, b), (a, b))  # control: of a cycle it is not
    assert gb.abs().max() > 0


def test_the_generator_raises_diversity():
    """One step down the objective moves two outputs apart; with the sign wrong, together."""
    terms = [torch.tensor(v) for v in (0.7, 0.2, 0.5, 0.3)]
    weights = {"style_weight": 2.0, "diversity_weight": 3.0, "cycle_weight": 5.0}
    total = style.generator_objective(*terms, **weights)
    torch.testing.assert_close(total, torch.tensor(0.7 + 2 * 0.2 - 3 * 0.5 + 5 * 0.3))
    a, b, zero = draw(1, 3, 4, 4).requires_grad_(), draw(1, 3, 4, 4, seed=2), torch.zeros(())
    total = style.generator_objective(zero, zero, style.diversification(a, b), zero)
    (slope,) = torch.autograd.grad(total, a)
    before = style.diversification(a, b)
    assert style.diversification(a - 0.1 * slope, b) > before
    assert style.diversification(a + 0.1 * slope, b) < before


def test_diversification_fades():
    weights = [style.diversity_weight(k, 10, start=2.0) for k in (0, 5, 10, 99)]
    assert weights == [2.0, 1.0, 0.0, 0.0]
    with pytest.raises(UserError, match="at least one step"):
        style.diversity_weight(0, 0)


# --- the training step ------------------------------------------------------------------------

JOB = lrc_i2i.Training(
    "stargan_v2", "drawn-faces", 32, 16, 8, 4, batch=8, width=4, cap=6, discriminator_width=4,
    style=5, latent=3, hidden=8, style_weight=2.0, diversity_weight=3.0, cycle_weight=0.5,
    gamma=1.0, ratio=1.0, lr=1e-3, decay=1e-4, ema=0.9, log_every=1, diversity_steps=8,
)  # fmt: skip


def images(n=16):
    g = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=g)


def stepped(job=JOB, step=2):
    """The task in fp64, its batch, and a context of one step."""
    task = lrc_i2i.StyleStep(job, 0)
    for module in task.nets.values():
        module.double()
    context = Context(0, step, torch.device("cpu"), job.batch, 0, job.batch)
    return task, images(job.batch), context


def gradients(task, update):
    """What the engine would step, by parameter name; nothing where there is no gradient."""
    out = {}
    for name, loss in update.items():
        params = [p for g in task.optimizers()[name].param_groups for p in g["params"]]
        given = loss.gradients if isinstance(loss, Given) else torch.autograd.grad(
            loss, params, allow_unused=True, retain_graph=True
        )  # fmt: skip
        names = {id(p): f"{n}.{k}" for n, m in task.nets.items() for k, p in m.named_parameters()}
        out |= {names[id(p)]: g for p, g in zip(params, given, strict=True) if g is not None}
    return out


def test_references_are_other_images_of_the_same_quartet():
    x = torch.arange(8)
    assert lrc_i2i.turned(x, 1).tolist() == [1, 2, 3, 0, 5, 6, 7, 4]
    assert lrc_i2i.turned(x, 2).tolist() == [2, 3, 0, 1, 6, 7, 4, 5]
    halves = [lrc_i2i.turned(part, 1) for part in x.chunk(2)]  # two processes see the same
    assert torch.equal(torch.cat(halves), lrc_i2i.turned(x, 1))


def test_the_four_updates_written_out():
    """Losses of each update from torch's own functions, without the engine between them."""
    task, pixels, context = stepped()
    n, bce, l1 = task.nets, F.binary_cross_entropy_with_logits, F.l1_loss
    x = pixels.double() / 127.5 - 1
    order = torch.tensor([1, 2, 3, 0, 5, 6, 7, 4])
    first = Context(0, 2, torch.device("cpu"), 8, 0, 8)
    z1, z2 = first.noise(3).double(), first.noise(3).double()
    pairs = {"mapping": (n["mapping"](z1), n["mapping"](z2)),
             "style": (n["style"](x[order]), n["style"](x[order][order]))}  # fmt: skip
    updates = task.updates(pixels, context)
    for one, _ in pairs.values():
        got = next(updates)
        real = x.clone().requires_grad_()
        logits, fake = n["discriminator"](real), n["generator"](x, one).detach()
        (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
        want = bce(logits, torch.ones(8).double()) + 0.5 * slope.square().sum((1, 2, 3)).mean()
        want = want + bce(n["discriminator"](fake), torch.zeros(8).double())
        torch.testing.assert_close(got["discriminator"], want)
        assert all(k.startswith("discriminator") for k in gradients(task, got))
    for source, (one, two) in pairs.items():
        got = next(updates)
        fake, other = n["generator"](x, one), n["generator"](x, two).detach()
        want = bce(n["discriminator"](fake), torch.ones(8).double())
        want = (
            want + 2 * l1(n["style"](fake), one) + 0.5 * l1(n["generator"](fake, n["style"](x)), x)
        )
        want = want - 3 * (1 - 2 / 8) * l1(fake, other)
        plain = gradients(task, {"generator": want})
        own = gradients(task, got)
        if source == "style":  # the generator alone
            plain = {k: v for k, v in plain.items() if k.startswith("generator")}
        else:
            torch.testing.assert_close(got["generator"], want)
            assert {k.split(".")[0] for k in own} == {"generator", "mapping", "style"}
        assert own.keys() == plain.keys()
        for key, value in own.items():
            torch.testing.assert_close(value, plain[key], rtol=1e-9, atol=1e-12)
    assert next(updates, None) is None


def test_which_networks_move():
    """Through the engine: the mapping network moves a hundredth as fast; averages follow."""
    task = lrc_i2i.StyleStep(JOB, 0)
    before = {n: [p.detach().clone() for p in m.parameters()] for n, m in task.nets.items()}
    fit(task, images(), Fit(steps=1, batch=8, log_every=1), seed=0, config=JOB)
    moved = {n: max(float((a - b).detach().abs().max()) for a, b in zip(before[n], m.parameters()))
             for n, m in task.nets.items()}  # fmt: skip
    # Adam's first step is the rate; its second one, after a gradient of zero, sqrt(1.99) times it
    assert 1e-3 < moved["generator"] < 2.42e-3
    assert 0.9e-5 < moved["mapping"] < 1.1e-5
    assert 0.9e-3 < moved["style"] < 1.1e-3
    assert 1e-3 < moved["discriminator"] < 2.42e-3


def test_four_steps_are_two_and_two(tmp_path):
    """A resumed run is bit-equal to one that was never interrupted, averages included."""
    files = [tmp_path / name for name in ("whole.safetensors", "halves.safetensors")]
    plan = {"batch": 8, "log_every": 1, "flip": True}
    fit(lrc_i2i.StyleStep(JOB, 0), images(), Fit(steps=4, **plan), seed=0, config=JOB,
        path=files[0])  # fmt: skip
    for steps in (2, 4):
        fit(lrc_i2i.StyleStep(JOB, 0), images(), Fit(steps=steps, **plan), seed=0, config=JOB,
            path=files[1])  # fmt: skip
    whole, halves = (checkpoint.load(f) for f in files)
    for tree in ("nets", "ema"):
        for name, state in whole[tree].items():
            assert all(torch.equal(v, halves[tree][name][k]) for k, v in state.items())
    assert whole["ema"].keys() == {"generator", "mapping", "style"}
    assert whole["history"]["rows"] == halves["history"]["rows"]


def test_micro_batches_change_nothing():
    """Quartets survive slices, so one pass of eight and two of four are one step."""
    tasks = []
    for micro in (1, 2):
        task = lrc_i2i.StyleStep(JOB, 0)
        for module in task.nets.values():
            module.double()
        fit(task, images(), Fit(steps=1, batch=8, micro=micro, log_every=1), seed=0, config=JOB)
        tasks.append(task)
    for name in tasks[0].nets:
        for a, b in zip(*(t.nets[name].parameters() for t in tasks), strict=True):
            # a bias before an instance norm has rounding alone for a gradient, which Adam's eps
            # of 1e-8 still turns into 1e-9; a step is 1e-3
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_batches_without_quartets_are_refused():
    with pytest.raises(UserError, match="quartets"):
        lrc_i2i.StyleStep(dataclasses.replace(JOB, batch=6), 0)


def model(job=JOB):
    parts = {
        name: module.requires_grad_(False) for name, module in lrc_i2i.networks(job, 0).items()
    }
    return models.Model(parts, {"config": dataclasses.asdict(job)})


def test_grids_are_pairs():
    one = model()
    sources, references = (torch.rand(n, 3, 32, 32) * 2 - 1 for n in (3, 4))
    square = lrc_i2i.grid_style(one, sources, references)
    assert square.shape == (3, 4, 3, 32, 32)
    pairs = lrc_i2i.translate_style(
        one, sources.repeat_interleave(4, 0), references.repeat(3, 1, 1, 1), block=5
    )
    # other batch sizes: other orders of summation inside a convolution
    torch.testing.assert_close(square.flatten(0, 1), pairs, rtol=1e-4, atol=1e-5)
    assert pairs.abs().max() <= 1
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)  # the names all methods share
    high = lrc_i2i.targets(one, pixels)
    torch.testing.assert_close(high, pixels.float() / 127.5 - 1)
    assert torch.equal(lrc_i2i.grid(one, sources, high), lrc_i2i.grid_style(one, sources, high))
    both = (
        lrc_i2i.translate(one, sources, high[:3]),
        lrc_i2i.translate_style(one, sources, high[:3]),
    )
    assert torch.equal(*both)
    assert (square[:, 0] - square[:, 1]).abs().max() > 1e-3  # control: the reference counts


def test_a_shipped_run_fits_its_room(tmp_path):
    """Built from its recipe, the two kept networks take at most 0.7 MB in half precision."""
    job = lrc_i2i.SHIPPED["faces_stargan_v2"]
    kept = lrc_i2i.KEPT["faces_stargan_v2"]
    built = [models.build(lrc_i2i.recipe(job, name)) for name in kept]
    assert kept == ("generator", "style")
    assert 2 * sum(map(count, built)) <= 700_000


def test_a_run_is_exported_and_loaded(tmp_path):
    job, path = dataclasses.replace(JOB, steps=1), tmp_path / "run.safetensors"
    lrc_i2i.train(job, seed=0, path=path, only=("generator", "style"))
    loaded = models.load(path)
    assert set(loaded.parts) == {"generator", "style"}
    assert loaded.card["title"] == "StarGAN v2 on drawn-faces, 8 to 32 px"
    x = torch.rand(2, 3, 32, 32)
    assert lrc_i2i.translate_style(loaded, x, x).shape == x.shape
