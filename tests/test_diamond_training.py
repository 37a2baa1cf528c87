"""Diamond's trainings: growth, losses against formulas, exact resume in the middle of a fade, the
encoder, what is shipped."""

import copy
import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from latentpapers import config, data, models, paths
from latentpapers.errors import ConfigMismatch, Missing, UnknownName, UserError
from latentpapers.metrics import projected, walks
from latentpapers.nets import pgan
from latentpapers.papers import diamond
from latentpapers.papers.diamond import Adversarial, Inversion, Training, pixels, shrunk, stages
from latentpapers.seeds import generator
from latentpapers.train import checkpoint
from latentpapers.train.context import Context
from latentpapers.train.engine import Fit, fit

TINY = Training(
    "pgan", "drawn-faces", size=16, images=64, steps=16, fmap_base=64, fmap_max=16, latent=24,
    batch=8, start_images=16, fade_images=24, hold_images=16, log_every=2, save_every=0,
)  # fmt: skip
# steps of 8 images: 0, 1 at 4 px; 2, 3, 4 fade to 8; 5, 6 hold; 7, 8, 9 fade to 16; then hold
WGAN = dataclasses.replace(TINY, method="wgan_gp", width=4, norm="none", steps=4)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images():
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (64, 3, 16, 16), generator=g, dtype=torch.uint8)


def run(job, images, steps, path=None, **options):
    task = Adversarial(job, 0)
    plan = Fit(steps=steps, batch=job.batch, log_every=2, save_every=0, flip=True, **options)
    return task, fit(task, images, plan, seed=0, config=job, path=path)


def state_of(task):
    return {f"{n}/{k}": v for n, net in task.nets.items() for k, v in net.state_dict().items()}


# --- growth -----------------------------------------------------------------------------------


def test_stages_of_a_small_run():
    task = Adversarial(TINY, 0)
    seen = []
    for step in range(14):
        assert task.before_step(step, 8 * step) == 1.0
        net = task.nets["critic"]
        assert (net.level, net.blend) == (task.level, task.blend)
        seen.append((task.level, round(task.blend, 3)))
    third = round(1 / 3, 3)
    fades = [(2, 0.0), (2, third), (2, 0.667)], [(3, 0.0), (3, third), (3, 0.667)]
    assert seen == [(1, 1.0)] * 2 + fades[0] + [(2, 1.0)] * 2 + fades[1] + [(3, 1.0)] * 4


def test_paper_s_run_is_that_of_the_published_file():
    """celebaCropped_s5_i83000: 48k steps at 4 px, 96k at each further size, 83k at 128 px, of 16
    images; a fade takes 600 changes of 32 steps."""
    job = diamond.PRESETS["paper"].training["faces_pgan"]
    plan = stages(job)
    assert job.steps * job.batch == 8_240_000 == diamond.BUDGET["pgan"]
    assert [s.level for s in plan if not s.fade] == [1, 2, 3, 4, 5, 6]
    assert plan[0].images == 48_000 * 16
    for fade, hold in zip(plan[1:-2:2], plan[2:-2:2], strict=True):
        assert fade.images == 600 * 32 * 16
        assert fade.images + hold.images == 96_000 * 16
    assert sum(s.images for s in plan[:-2]) + 83_000 * 16 == 8_240_000
    assert (job.size, job.latent, job.lr, job.betas) == (128, 512, 1e-3, (0.0, 0.99))


def test_growth_that_cannot_be():
    for start in (32, 2):
        with pytest.raises(UserError, match="growth starts"):
            stages(dataclasses.replace(TINY, start=start))


def test_later_start_skips_levels():
    plan = stages(dataclasses.replace(TINY, start=8))
    assert [(s.level, s.fade) for s in plan] == [(2, False), (3, True), (3, False)]


def test_real_images_are_as_sharp_as_the_generator():
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    small = F.avg_pool2d(x, 2)
    assert torch.equal(shrunk(x, 8), small)
    assert torch.equal(shrunk(x, 16), x)
    blurred = F.avg_pool2d(small, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(shrunk(x, 8, 0.25), 0.75 * blurred + 0.25 * small)
    assert torch.equal(shrunk(x, 4, 0.5), F.avg_pool2d(x, 4))  # nothing below 4 px


def test_only_parts_that_take_part_are_trained(images):
    task = Adversarial(TINY, 0)
    before = copy.deepcopy(state_of(task))
    fit(task, images, Fit(steps=4, batch=8, save_every=0), seed=0, config=TINY)  # 4 and 8 px
    moved = {k for k, v in state_of(task).items() if not torch.equal(v, before[k])}
    still = set(before) - moved
    assert {k.split("/")[1].rpartition(".")[0] for k in still} == {
        "blocks.1.0", "blocks.1.1", "to_rgb.2", "from_rgb.2",
    }  # fmt: skip


# --- losses -----------------------------------------------------------------------------------


def plain_losses(task, batch, job, step=0):
    """The objectives of Gulrajani et al. with Karras's drift, written out."""
    nets, x = task.nets, task.real(batch)
    n = len(batch)
    draws = [generator(0, "noise", step, call) for call in (1, 2, 3)]
    fake = nets["generator"](torch.randn(n, job.latent, generator=draws[0]).double()).detach()
    rho = torch.rand(n, generator=draws[1]).double().view(-1, 1, 1, 1)
    mixed = (rho * x + (1 - rho) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(nets["critic"](mixed).sum(), mixed, create_graph=True)
    steep = ((slope.square().sum((1, 2, 3)) + 1e-8).sqrt() - 1).square().mean()
    real, fakes = nets["critic"](x), nets["critic"](fake)
    critic = fakes.mean() - real.mean() + 10 * steep + 0.001 * real.square().mean()
    again = nets["generator"](torch.randn(n, job.latent, generator=draws[2]).double())
    return critic, -nets["critic"](again).mean()


@pytest.mark.parametrize("job", [TINY, WGAN], ids=["pgan", "wgan_gp"])
@pytest.mark.parametrize("step", [0, 8])
def test_losses_are_those_of_the_paper(job, step, images):
    task = Adversarial(job, 0)
    for net in task.nets.values():
        net.double()
    task.before_step(step, 8 * step)
    ctx = Context(0, step, CPU, 8, 0, 8)
    batch = images[:8]
    there = plain_losses(task, batch, job, step)
    ours = [next(iter(update.values())) for update in task.updates(batch, ctx)]
    for a, b in zip(ours, there, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)  # fp64


def test_control_a_penalty_of_another_weight_is_caught(images):
    task = Adversarial(dataclasses.replace(TINY, penalty=9.0), 0)
    for net in task.nets.values():
        net.double()
    task.before_step(0, 0)
    ours = next(task.updates(images[:8], Context(0, 0, CPU, 8, 0, 8)))["critic"]
    assert not torch.allclose(ours, plain_losses(task, images[:8], TINY)[0], rtol=1e-4)


def test_critic_moves_before_the_generator_asks_it(images):
    """Alternation: the generator's loss is that of the critic just trained."""
    task = Adversarial(WGAN, 0)
    task.before_step(0, 0)
    stream = task.updates(images[:8], Context(0, 0, CPU, 8, 0, 8))
    next(stream)
    with torch.no_grad():
        for p in task.nets["critic"].parameters():
            p.zero_()
    assert next(stream)["generator"].item() == 0.0


# --- resume -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [4, 9], ids=["first fade", "second fade"])
def test_resume_inside_a_fade_is_bit_equal(images, tmp_path, stop):
    whole, history = run(TINY, images, 12)
    path = tmp_path / "run.safetensors"
    half, _ = run(TINY, images, stop, path)
    assert 0 < half.blend < 1
    rest, again = run(TINY, images, 12, path)
    for key, value in state_of(whole).items():
        assert torch.equal(value, state_of(rest)[key]), key
    assert again.rows == history.rows
    assert rest.level == 3


def test_averages_resume_bit_equal(images, tmp_path):
    paths_ = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    run(TINY, images, 10, paths_[0])
    run(TINY, images, 5, paths_[1])  # in a fade
    run(TINY, images, 10, paths_[1])
    a, b = (checkpoint.networks(p)["generator"] for p in paths_)
    assert all(torch.equal(v, b[k]) for k, v in a.items())
    raw = checkpoint.networks(paths_[0], averaged=False)["generator"]
    assert not torch.equal(raw["base.weight"], a["base.weight"])


def test_micro_batches_see_the_same_groups(images):
    """Shards are whole groups of four, so the statistic, and with it the network, is the same."""
    one, two = (state_of(run(TINY, images, 9, micro=micro)[0]) for micro in (1, 2))
    for key, value in one.items():
        # fp32 sums in another order; Adam's first steps divide by sizes near 0
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-3)
    three = state_of(run(TINY, images, 9, micro=4)[0])  # pairs: other groups
    assert max(float((three[k] - v).abs().max()) for k, v in one.items()) > 5e-3


def test_resume_under_another_growth_is_refused(images, tmp_path):
    path = tmp_path / "run.safetensors"
    run(TINY, images, 2, path)
    with pytest.raises(ConfigMismatch, match="fade_images: 24 -> 25"):
        run(dataclasses.replace(TINY, fade_images=25), images, 4, path)


def test_bf16_penalty_is_close_to_fp32(images):
    values = []
    for precision in ("fp32", "bf16"):
        task = Adversarial(dataclasses.replace(TINY, penalty_precision=precision), 0)
        task.before_step(11, 88)
        real = task.real(images[:8])
        torch.manual_seed(0)
        fake = task.nets["generator"](torch.randn(8, 24)).detach()
        values.append(task.penalty(real, fake, Context(0, 11, CPU, 8, 0, 8)).item())
    # eight bits of mantissa: 0.4 % a product, some percent after a few layers
    assert math.isclose(*values, rel_tol=0.1)
    assert values[0] != values[1]


# --- the encoder ------------------------------------------------------------------------------


def test_encoder_learns_to_invert(tmp_path, images):
    source = tmp_path / "pgan.safetensors"
    task, _ = run(TINY, images, 12, tmp_path / "state.safetensors")
    diamond.export(tmp_path / "state.safetensors", source, TINY, 0)
    job = dataclasses.replace(
        TINY, method="inverter", source=str(source), width=16, steps=60, batch=16, lr=3e-3
    )
    history = diamond.train(job, seed=0, path=tmp_path / "encoder.safetensors")
    first, last = history.rows[0], history.rows[-1]
    assert last[history.terms.index("L_z") + 1] < 0.9 * first[history.terms.index("L_z") + 1]
    model = models.load(tmp_path / "encoder.safetensors")
    z = model["encoder"](task.nets["generator"](torch.randn(4, 24)))
    torch.testing.assert_close(z.norm(dim=1), torch.full((4,), math.sqrt(24)), rtol=1e-3, atol=0)
    assert model.card["budget"] is None


def test_encoder_leaves_the_generator_alone(tmp_path, images):
    run(TINY, images, 2, tmp_path / "state.safetensors")
    diamond.export(tmp_path / "state.safetensors", tmp_path / "g.safetensors", TINY, 0)
    job = dataclasses.replace(TINY, method="inverter", source=str(tmp_path / "g.safetensors"))
    task = Inversion(dataclasses.replace(job, width=8), 0)
    assert set(task.nets) == {"encoder"}
    assert not any(p.requires_grad for p in task.frozen.parameters())


def test_the_church_encoder_says_that_it_needs_its_generator(tmp_path, images):
    """No preset trains a generator of churches, so none plans its encoder; by hand it is named."""
    planned = {run for preset in diamond.PRESETS.values() for run in preset.training}
    assert "church_encoder" not in planned
    with pytest.raises(UserError, match="--set source=FILE"):
        diamond.train_from_cli(["--run", "church_encoder", "--out", str(tmp_path)])
    run(TINY, images, 2, tmp_path / "state.safetensors")
    diamond.export(tmp_path / "state.safetensors", tmp_path / "g.safetensors", TINY, 0)
    job = diamond.ENCODERS["church_encoder"]
    job = dataclasses.replace(job, size=16, width=8, source=str(tmp_path / "g.safetensors"))
    assert set(Inversion(job, 0).nets) == {"encoder"}  # control: with it, it begins


# --- data -------------------------------------------------------------------------------------


def test_minority_has_its_share():
    job = dataclasses.replace(TINY, images=200, minority="glasses", share=0.25)
    got = pixels(job)
    pool = data.load("drawn-faces", size=16, split="train", n=400)
    has = pool.attributes[:, pool.attribute_names.index("glasses")]
    hashes = {bytes(p.numpy()): bool(h) for p, h in zip(pool.pixels, has, strict=True)}
    flags = [hashes[bytes(p.numpy())] for p in got]
    assert (len(flags), sum(flags)) == (200, 50)
    assert 0.1 < has.float().mean().item() < 0.25  # as they come, 18 %


def test_minority_refuses():
    with pytest.raises(UserError, match="no attribute 'moustache'"):
        pixels(dataclasses.replace(TINY, images=8, minority="moustache"))
    with pytest.raises(UserError, match="too few images"):
        pixels(dataclasses.replace(TINY, images=32, minority="hat", share=0.9))
    with pytest.raises(UserError, match="no attribute"):
        pixels(dataclasses.replace(TINY, data="faces-dcgan", images=32, minority="hat"))


# --- the room ---------------------------------------------------------------------------------


def test_train_writes_networks_with_a_card(tmp_path):
    path = tmp_path / "proof_s0.safetensors"
    history = diamond.train(TINY, seed=0, path=path)
    assert history.column("pixels")[0] == 4.0
    assert history.column("pixels")[-1] == 16.0
    model = models.load(path)
    assert set(model.parts) == {"generator", "generator_raw", "critic"}
    assert model.card["images"] == 16 * 8
    x = diamond.sample(model, 6, 0)
    assert x.shape == (6, 3, 16, 16)
    # not equal: kernels sum in another order for another batch size
    torch.testing.assert_close(x[:2], diamond.sample(model, 2, 0), atol=1e-4, rtol=0)
    assert not torch.equal(x, diamond.sample(model, 6, 0, net="generator_raw"))
    label = diamond.scale_of(model, "quick", "cpu", (0,)).text()
    assert "128 images seen" in label
    assert "stand-in: drawn-faces" in label


def test_kept_networks_alone(tmp_path):
    path = tmp_path / "a.safetensors"
    diamond.train(dataclasses.replace(TINY, steps=2), seed=0, path=path, only=("critic",))
    assert set(models.load(path).parts) == {"critic"}


def test_cli_trains_a_named_run(tmp_path, capsys):
    words = ["--run", "proof", "--preset", "quick", "--out", str(tmp_path)]
    assert diamond.train_from_cli([*words, "--set", "steps=2"]) == 0
    assert "2/2" in capsys.readouterr().out
    assert (tmp_path / "proof_s0.safetensors").is_file()
    with pytest.raises(UnknownName, match="run"):
        diamond.train_from_cli(["--run", "nobody", "--preset", "quick", "--out", str(tmp_path)])
    with pytest.raises(UnknownName, match="parameter"):
        diamond.train_from_cli([*words, "--set", "width_of_everything=2"])


def test_a_run_travels_as_json():
    job = diamond.PRESETS["paper"].training["faces_wgan_gp"]
    assert config.resolve(Training("pgan", "", 0, 0, 0), config.as_dict(job)) == job


@pytest.mark.parametrize("preset", diamond.PRESETS)
def test_presets_build_on_meta(preset):
    for job in diamond.PRESETS[preset].training.values():
        for recipe in diamond.recipes(job).values():
            with torch.device("meta"):
                net = models.build(recipe)
            assert sum(p.numel() for p in net.parameters()) > 0
        if job.method == "pgan":
            assert stages(job)


@pytest.mark.parametrize("name", [*diamond.PRESETS, "shipped"])
def test_presets_name_data_that_exist(name):
    table = diamond.SHIPPED if name == "shipped" else diamond.PRESETS[name].training
    for job in table.values():
        if job.method != "inverter":
            known = data.info(job.data)
            assert job.size in known.sizes
            assert known.counts["train"] is None or job.images <= known.counts["train"]


def test_gpu_preset_fits_its_budget():
    """600 s a seed: two headlines, the others a quarter of one each, the rest for evaluation."""
    jobs = diamond.PRESETS["gpu"].training
    headline = jobs["faces_pgan"].seconds
    assert jobs["cats_pgan"].seconds == headline
    assert jobs["drawn_pgan"].seconds == jobs["faces_wgan_gp"].seconds == headline / 4
    assert jobs["cifar_pgan"].seconds <= headline / 4
    preset = diamond.PRESETS["gpu"]
    limits = {name: diamond.share_of(preset, name) for name in jobs}
    assert limits["faces_pgan"] == limits["cats_pgan"] == (2000, preset.limit.seconds)
    assert limits["faces_wgan_gp"] == (500, preset.limit.seconds / 4)
    assert limits["drawn_pgan"] == (500, preset.limit.seconds / 2)  # edited starts, too
    assert limits["cifar_pgan"] == (200, preset.limit.seconds / 10)
    spent = [sum(job.seconds for job in jobs.values()), sum(s for _, s in limits.values())]
    assert sum(spent) + 60 <= 600, spent  # training, searches, a minute for tables and figures
    g, d = pgan.count(64, jobs["faces_pgan"].fmap_base, 256, 512)
    assert jobs["faces_pgan"].fmap_max == 256
    with torch.device("meta"):
        nets = [models.build(r) for r in diamond.recipes(jobs["faces_pgan"]).values()]
    assert [sum(p.numel() for p in n.parameters()) for n in nets] == [g, d]


def test_gpu_runs_at_tiny_size(images):
    """Every gpu run, thinned, reaches its last level and stays finite."""
    for name, job in diamond.PRESETS["gpu"].training.items():
        thin = dataclasses.replace(
            job, size=16, fmap_base=64, fmap_max=16, width=4, latent=16, batch=8, seconds=None,
            start_images=8, fade_images=16, hold_images=8, precision="fp32",
        )  # fmt: skip
        task, history = run(thin, images, 10)
        assert task.stages == () or task.level == 3, name
        assert all(v == v for row in history.rows for v in row), name


# --- measures: a learning curve, and real images that cannot ship -----------------------------


class Mean(torch.nn.Module):
    """Looks at mean colours: 3 features, in place of a network of 1,280."""

    def __init__(self):
        super().__init__()
        self.size, self.scale = 0, torch.nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, x):
        return self.scale * torch.cat([x.mean((2, 3)), x.amax((2, 3)), x.var((2, 3))], 1)


@pytest.fixture
def mean_eyes(monkeypatch):
    for file in (diamond.measuring, diamond.commands):
        monkeypatch.setattr(file, "eyes", lambda device="cpu": Mean())
    principal = walks.principal  # 9 features have no 32 components
    monkeypatch.setattr(walks, "principal", lambda made, real: principal(made, real, width=4))


def test_a_learning_curve_sees_a_growing_network_at_its_size(tmp_path, mean_eyes, monkeypatch):
    seen = []
    look = diamond.seen
    monkeypatch.setattr(diamond.measuring, "seen", lambda net, x: (seen.append(x), look(net, x))[1])
    rows = diamond.RUNS.curve(
        TINY, seed=0, path=tmp_path / "a.safetensors", shares=(0.0625, 1.0), only=("generator",)
    )
    assert [row["images"] for row in rows] == [8, 128]
    for row in rows:
        value, low, high = row["fd_efficientnetlite0_small"]
        assert low <= value <= high
    early, late = seen[1], seen[3]
    assert early.shape == late.shape == (256, 3, 16, 16)
    blocks = early[:, :, ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.equal(blocks, early)  # still at 4 px
    assert not torch.equal(late[:, :, ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3),
                           late)  # fmt: skip
    assert models.load(tmp_path / "a.safetensors").card["curve"] == rows


def test_the_learning_curve_tells_a_trained_network_from_noise(tmp_path, mean_eyes):
    """Real images moved away stand farther: the distance is one to held-out images."""
    path = tmp_path / "a.safetensors"
    diamond.train(TINY, seed=0, path=path)
    grown = diamond.measured(TINY, path, n=64)["fd_efficientnetlite0_small"]
    assert grown.n == 64
    fewer = diamond.measured(TINY, path, n=32)["fd_efficientnetlite0_small"]
    assert fewer.value != grown.value
    net = models.load(path)["generator"]
    x = diamond.sample(models.load(path), 64, 0)
    real = data.to_float(data.load("drawn-faces", size=16, split="test", n=256).pixels)
    features = [diamond.seen(Mean(), t) for t in (x, real, real[:64])]
    made, truth = walks.principal(torch.stack([features[0], features[2]]), features[1])
    ours, same = walks.Sets(("made", "real"), made, truth).distances(torch.arange(64))
    assert math.isclose(float(ours), grown.value, rel_tol=1e-6)  # the same numbers, in double
    assert float(same) < float(ours)  # control: real images are nearer
    assert net.latent == TINY.latent


def test_eyes_look_at_64_pixels_in_blocks():
    net = diamond.eyes()
    assert net.size == 64
    x = data.to_float(data.load("faces-dcgan", size=32, split="test", n=3).pixels)
    whole, parts = diamond.seen(net, x), diamond.seen(net, x, block=1)
    # fp32 sums in another order
    torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(diamond.seen(net, 3 * x.sign()), diamond.seen(net, x.sign()))
    assert not torch.allclose(whole[0], whole[1], rtol=1e-2)  # control


def test_features_of_real_images_ship_in_their_place(tmp_path, mean_eyes, monkeypatch, capsys):
    monkeypatch.setattr(paths, "checkpoints", lambda: tmp_path)
    monkeypatch.setitem(diamond.SHIPPED, "drawn_pgan", TINY)
    out = tmp_path / "diamond" / "real"
    words = ["--real", "drawn_pgan", "--n", "20", "--out", str(out)]
    job, net = config.as_dict(TINY), Mean()
    exact = diamond.real(job, 20, net, shipped=True)  # no file yet: from the images
    assert diamond.train_from_cli(words) == 0
    assert "features of 20 images" in capsys.readouterr().out
    assert [f.name for f in out.iterdir()] == ["drawn-faces_16.safetensors"]
    kept = diamond.real(job, 12, net, shipped=True)
    assert kept.shape == (12, projected.WIDTH)
    torch.testing.assert_close(kept, exact[:12], rtol=0, atol=float(exact.abs().max()) / 200)
    assert not torch.equal(kept, exact[:12])  # control: 8 bits a number
    assert torch.equal(diamond.real(job, 20, net, shipped=False), exact)
    absent = {**job, "data": "nothing"}
    with pytest.raises(UnknownName):
        diamond.real(absent, 12, net, shipped=True)


def test_what_a_run_of_cifar_is_made_of(images):
    """The run of unstructured data, thinned: it grows to the end and ships in 8 bits."""
    job = diamond.SHIPPED["cifar_pgan"]
    assert (job.data, job.images) == ("cifar10-jpeg", 50_000)
    assert "cifar_pgan" in diamond.RUNS.eight
    parts = [models.build(r) for r in diamond.recipes(job).values()]
    weights_ = sum(p.numel() for net in parts for p in net.parameters())
    assert weights_ < 240_000  # bytes, at one a weight
    thin = dataclasses.replace(job, size=16, fmap_base=64, fmap_max=16, latent=16, batch=8,
                               start_images=8, fade_images=16, hold_images=8)  # fmt: skip
    task, history = run(thin, images, 10)
    assert task.level == 3
    assert all(v == v for row in history.rows for v in row)


SHIPPED = sorted((paths.checkpoints() / "diamond").glob("*.safetensors"))


@pytest.mark.skipif(not SHIPPED, reason="no checkpoint of Diamond is shipped yet")
def test_shipped_checkpoints_are_their_runs():
    for path in SHIPPED:
        model = models.load(path)
        run_name = path.stem.rpartition("_s")[0]
        job = diamond.SHIPPED[run_name]
        assert model.card["config"] == config.as_dict(job) | {
            "steps": model.card["config"]["steps"]
        }
        assert set(model.parts) == set(diamond.KEPT[run_name])
        assert path.stat().st_size <= (6 << 20 if "generator_raw" in model.parts else 1 << 20)
        g = model["generator" if "generator" in model.parts else "generator_raw"]
        c = model["critic"]
        with torch.no_grad():
            score = c(g(diamond.latents(4, 1, g.latent)))
        assert score.shape == (4,)
        assert bool(score.isfinite().all())


REAL = sorted((paths.checkpoints() / "diamond" / "real").glob("*.safetensors"))


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_shipped_features_are_those_of_the_images(path):
    rows, card = projected.load(path)
    jobs = {job.data: name for name, job in diamond.SHIPPED.items()}
    job = config.as_dict(diamond.SHIPPED[jobs[card["data"]]])
    assert path == diamond.real_file(job["data"], job["size"])
    assert (rows.shape, card["n"]) == ((240, projected.WIDTH), 240)
    apart = torch.cdist(rows, rows)[~torch.eye(240, dtype=torch.bool)]
    assert float(apart.min()) > 0  # no image twice
    try:
        again = diamond.real(job, 12, diamond.eyes(), shipped=False)
    except (Missing, UserError) as reason:
        pytest.skip(f"the images have to be fetched: {reason}")
    off = (again - rows[:12]).norm(dim=1) / again.norm(dim=1)
    assert float(off.max()) < 0.02  # 8 bits
    other = (again - rows[12:24]).norm(dim=1) / again.norm(dim=1)
    assert float(other.min()) > 0.1  # control
