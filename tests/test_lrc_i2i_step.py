"""LRC-I2I's training step: gradients, readings, two batched passes, the engine, files and back.

float64 throughout where two computations of one number are compared: what is left are roundings of
sums in another order.
"""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
from step_bed import close, context, doubled, gradients, parameters
from torch.nn import functional as F

from latentpapers import config, data, models
from latentpapers.config import resolve
from latentpapers.errors import ConfigMismatch, UnknownName, UserError
from latentpapers.papers import lrc_i2i as room
from latentpapers.papers.lrc_i2i import Step, Training
from latentpapers.train import checkpoint, engine
from latentpapers.train.context import Context
from latentpapers.train.distributed import join, launch
from latentpapers.train.engine import Fit, fit

TINY = {"data": "none", "size": 16, "images": 12, "low": 4, "steps": 4, "batch": 4, "width": 4,
        "cap": 8, "discriminator_width": 4, "log_every": 1}  # fmt: skip


def pixels(n=12, size=16):
    g = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, 3, size, size), generator=g, dtype=torch.uint8)


def double_step(**options):
    return doubled(Step(Training("lrc", **{**TINY, **options}), seed=0))


def all_close(found, expected):
    for name in ("discriminator", "generator"):
        close(found[name], expected[name])


# --- one step against eqs 3 to 8 written out ------------------------------------------------------


def by_hand(step, batch):
    """Eqs 3 to 8 with textbook R1, four passes of the generator, one image side at a time."""
    g, d = step.nets["generator"], step.nets["discriminator"]
    x = batch.double() / 127.5 - 1
    a, b = x[0::2], x[1::2]
    low = {"a": F.avg_pool2d(a, 4), "b": F.avg_pool2d(b, 4)}
    ab, ba = g(a, low["b"]), g(b, low["a"])
    aa, bb = g(ab, low["a"]), g(ba, low["b"])

    def judged(image, target):
        gap = (F.avg_pool2d(image, 4) - target).abs() * 255 / 8
        rounded = gap + (gap.round() - gap).detach()
        return d(image, rounded * 8 / 255)

    fakes = [(ab, "b"), (ba, "a"), (aa, "a"), (bb, "b")]
    critic = 0.0
    for real in (a, b, a, b):
        critic = critic + F.softplus(-d(real, torch.zeros(2, 3, 4, 4).double())).mean()
    for image, side in fakes:
        critic = critic + F.softplus(judged(image.detach(), low[side])).mean()
    leaf = x.clone().requires_grad_()
    logits = d(leaf, torch.zeros(4, 3, 4, 4).double()).mean((1, 2, 3))
    (slope,) = torch.autograd.grad(logits.sum(), leaf, create_graph=True)
    critic = critic + 0.25 * slope.square().sum((1, 2, 3)).mean()
    maker = sum(F.softplus(-judged(image, low[side])).mean() for image, side in fakes)
    maker = maker + (a - aa).abs().mean() + (b - bb).abs().mean()
    params = parameters(step)
    return {"discriminator": gradients(critic, params["discriminator"]),
            "generator": gradients(maker, params["generator"])}  # fmt: skip


def engine_gradients(step, batch, ctx=None, scale=1.0):
    params, out = parameters(step), {}
    for update in step.updates(batch, ctx or context(batch=len(batch))):
        out |= {name: gradients(scale * loss, params[name]) for name, loss in update.items()}
    return out


def test_one_step_against_the_equations_written_out():
    step, batch = double_step(), pixels(4)
    all_close(engine_gradients(step, batch), by_hand(step, batch))


def test_control_each_slip_is_noticed():
    batch = pixels(4)
    for slip in ({"gamma": 10.0}, {"r1": "code"}, {"reading": "paper"}, {"terms": "both"},
                 {"terms": "paper"}, {"cycle_weight": 0.1}, {"saturating": True}, {"grey": True},
                 {"step": 2 / 255}, {"tolerance": 0.2}, {"epsilon": 0.2},
                 {"shortcut": "none"}):  # fmt: skip
        step = double_step(**slip)
        reference = double_step(shortcut=slip.get("shortcut", "dynamic"))
        if "shortcut" in slip:
            reference = double_step()
        with pytest.raises((AssertionError, ValueError)):
            all_close(engine_gradients(step, batch), by_hand(reference, batch))


def test_the_codes_r1_is_its_four_terms_written_out():
    step, batch = double_step(r1="code", gamma=10.0), pixels(4)
    d = step.nets["discriminator"]
    x = batch.double() / 127.5 - 1
    zeros = torch.zeros(2, 3, 4, 4).double()
    expected = 0.0
    for real in (x[1::2], x[0::2], x[0::2], x[1::2]):
        leaf = real.clone().requires_grad_()
        loss = F.softplus(-d(leaf, zeros)).mean()  # averaged over the half batch and the map
        (slope,) = torch.autograd.grad(loss, leaf, create_graph=True)
        expected = expected + 0.5 * 10 * slope.square().sum((1, 2, 3)).mean()
    params = parameters(step)["discriminator"]
    full = engine_gradients(step, batch)["discriminator"]
    bare = double_step(gamma=0.0)
    assert not bare.penalised(context())
    rest = engine_gradients(bare, batch)["discriminator"]
    found = [f - r if f is not None else None for f, r in zip(full, rest, strict=True)]
    for a, b in zip(found, gradients(expected, params), strict=True):
        if a is not None and b is not None:
            # a difference of two gradients: absolute rounding of the larger
            assert torch.allclose(a, b, rtol=1e-6, atol=1e-12)


def test_a_lazy_penalty_acts_in_its_steps_with_its_weight():
    step = double_step(penalty_every=4)
    assert step.penalised(context(4)) == 4 * 0.25
    assert step.penalised(context(5)) == 0
    heavy = double_step(gamma=2.0)
    close(engine_gradients(step, pixels(4))["discriminator"],
          engine_gradients(heavy, pixels(4))["discriminator"])  # fmt: skip


def test_the_four_passes_are_two_and_give_the_images_of_four():
    step = double_step()
    g, calls = step.nets["generator"], []
    g.register_forward_hook(lambda m, i, o: calls.append(len(o)))
    x = pixels(4).double() / 127.5 - 1
    p = step.passes(x, context())
    assert calls == [4, 4]
    low = F.avg_pool2d(x, 4)
    torch.testing.assert_close(p.translated[0:1], g(x[0:1], low[1:2]))
    torch.testing.assert_close(p.translated[3:4], g(x[3:4], low[2:3]))
    torch.testing.assert_close(p.cycled[1:2], g(p.translated[1:2], low[1:2]))


def test_the_norms_move_once_a_step_and_not_in_the_generators_update():
    step = double_step()
    held = step.nets["discriminator"].from_rgb.parametrizations.weight[0]
    groups = step.updates(pixels(4), context())
    before = held._u.clone()
    next(groups)
    assert torch.equal(held._u, before)
    assert "generator" in next(groups)
    assert torch.equal(held._u, before)
    with torch.no_grad():
        step.nets["discriminator"].from_rgb.parametrizations.weight.original[0].mul_(2)
    step.before_step(1, 0)
    assert not torch.equal(held._u, before)


def smooth(n, size):
    """Images without noise in every pixel, as photographs are."""
    g = torch.Generator().manual_seed(0)
    x = F.interpolate(torch.rand(n, 3, 8, 8, generator=g), size=size, mode="bilinear")
    return (255 * x).byte()


def test_a_step_in_half_precision_agrees_with_one_in_fp32():
    """Gradients point the same way, through 80 layers: bf16 has 8 bits, fp16 has 11."""
    found = {}
    for precision in ("fp32", "fp16", "bf16"):
        job = {**TINY, "size": 32, "low": 8, "width": 32, "cap": 64, "discriminator_width": 32,
               "batch": 8}  # fmt: skip
        step = Step(Training("lrc", **job), seed=0)
        step.before_step(0, 0)
        ctx = Context(0, 0, torch.device("cpu"), 8, 0, 8, precision)
        scale = engine.SCALE if precision == "fp16" else 1.0
        found[precision] = engine_gradients(step, smooth(8, 32), ctx, scale)
    for name in ("discriminator", "generator"):
        full, *halves = (
            torch.cat([g.flatten() for g in grads[name]]).double() for grads in found.values()
        )
        fine, coarse = (float(torch.cosine_similarity(full, half, dim=0)) for half in halves)
        assert 0.99 < coarse < fine < 1, name


# --- through the engine ----------------------------------------------------------------


def run(job, path=None, steps=None, double=False, group=None, **plan):
    step = Step(job, seed=0)
    if double:
        for net in step.nets.values():
            net.double()
    plan = Fit(steps=steps or job.steps, batch=job.batch, log_every=1, save_every=1, flip=job.flip,
               **plan)  # fmt: skip
    history = fit(step, pixels(), plan, seed=0, config=job, path=path, group=group)
    return step, history


def state(step):
    values = [v.detach().flatten() for n in step.nets.values() for v in n.state_dict().values()]
    return torch.cat(values)


def test_a_resumed_run_is_the_run_in_one_piece_to_the_bit(tmp_path):
    job = Training("lrc", **{**TINY, "steps": 4, "penalty_every": 2})
    whole, history = run(job, tmp_path / "whole.safetensors")
    path = tmp_path / "pieces.safetensors"
    run(job, path, steps=2)
    pieces, again = run(job, path)
    assert torch.equal(state(whole), state(pieces))  # singular vectors included
    assert history.rows == again.rows
    one, two = (checkpoint.load(tmp_path / f"{n}.safetensors") for n in ("whole", "pieces"))
    for key, value in one["ema"]["generator"].items():
        assert torch.equal(value, two["ema"]["generator"][key])


def test_a_resume_with_another_weight_is_refused(tmp_path):
    job = Training("lrc", **TINY)
    run(job, tmp_path / "run.safetensors", steps=1)
    with pytest.raises(ConfigMismatch, match=r"gamma: 0.5 -> 10.0"):
        run(resolve(job, {"gamma": 10.0}), tmp_path / "run.safetensors")


@pytest.mark.parametrize("options", [{}, {"r1": "code", "gamma": 10.0}, {"terms": "paper"}])
def test_micro_batches_change_nothing_but_rounding(options):
    """Pairs are neighbours and norms move once a step: two halves see what the whole sees."""
    job = Training("lrc", **{**TINY, "flip": False, **options})
    (one, a), (two, b) = (run(job, double=True, steps=2, micro=m) for m in (1, 2))
    # terms are logged in float32; a few Adam steps of float64 gradients
    assert a.rows[0] == pytest.approx(b.rows[0], rel=1e-5)
    assert torch.allclose(state(one), state(two), atol=1e-6)


SHARED = "import sys; sys.path.insert(0, {tests!r}); import test_lrc_i2i_step as t; t.rank({out!r})"


def rank(out):
    """What each process of `test_two_processes_are_one` runs."""
    group = join()
    step, _ = run(Training("lrc", **TINY), double=True, steps=2, group=group)
    torch.save(state(step), Path(out) / f"rank{group.rank}.pt")


def test_two_processes_are_one(tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(SHARED.format(tests=str(Path(__file__).parent), out=str(tmp_path)))
    launch([str(script)], 2)
    alone, _ = run(Training("lrc", **TINY), double=True, steps=2)
    ranks = [torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in (0, 1)]
    assert torch.equal(*ranks)
    assert torch.allclose(ranks[0], state(alone), atol=1e-6)  # two Adam steps, halves summed
    other, _ = run(Training("lrc", **TINY), double=True, steps=1)
    assert not torch.allclose(ranks[0], state(other), atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{}, {"terms": "both"}, {"terms": "paper"}, {"reading": "paper"}, {"reading": "literal"},
     {"grey": True}, {"epsilon": 0.05}, {"tolerance": 0.05}, {"shortcut": "plain"},
     {"shortcut": "none"}, {"r1": "code", "gamma": 10.0}, {"saturating": True}, {"ema": 0.0},
     {"normed": "paper"}, {"size": 32, "low": 16}],
)  # fmt: skip
def test_every_option_trains_every_network(options, monkeypatch):
    job = Training("lrc", **{**TINY, "steps": 2, **options})
    monkeypatch.setattr(sys.modules[__name__], "pixels", lambda n=12, z=job.size: _noise(n, z))
    before = {n: _weights(net) for n, net in Step(job, seed=0).nets.items()}
    step, history = run(job)
    for name, net in step.nets.items():
        assert not torch.equal(before[name], _weights(net)), name
    assert all(abs(v) < 1e5 for v in history.rows[-1])


def _noise(n, size):
    return torch.randint(256, (n, 3, size, size), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(0))  # fmt: skip


def _weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def test_the_same_seed_gives_the_same_networks_and_another_seed_others():
    a, b, c = (Step(Training("lrc", **TINY), seed=s) for s in (0, 0, 1))
    assert torch.equal(state(a), state(b))
    assert not torch.equal(state(a), state(c))


def test_rates_and_momenta_are_the_papers():
    found = Step(Training("lrc", **TINY), seed=0).optimizers()
    rates = {name: o.param_groups[0]["lr"] for name, o in found.items()}
    assert rates == {"generator": 1e-3, "discriminator": 4e-3}
    assert {o.param_groups[0]["betas"] for o in found.values()} == {(0.0, 0.99)}


# --- refusals ----------------------------------------------------------------


def test_bad_runs_are_refused_in_one_sentence():
    with pytest.raises(UnknownName, match="lrc"):
        Step(Training("munit", **TINY), seed=0)
    with pytest.raises(UnknownName, match="both"):
        Step(Training("lrc", **{**TINY, "terms": "three"}), seed=0)
    for options in ({"size": 48}, {"low": 16}, {"low": 3}):
        with pytest.raises(UserError, match="powers of two"):
            Step(Training("lrc", **{**TINY, **options}), seed=0)
    for batch in (1, 3):
        with pytest.raises(UserError, match="even"):
            Step(Training("lrc", **{**TINY, "batch": batch}), seed=0)


# --- the file and back, outputs ----------------------------------------------------------------


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    class Set:
        pixels = pixels()

    monkeypatch.setattr(data, "load", lambda *a, **k: Set())
    monkeypatch.setenv("LATENTPAPERS_PROCESSES", "1")
    job = Training("lrc", **{**TINY, "data": "drawn-faces", "ema": 0.5})
    room.train(job, seed=0, path=tmp_path / "net.safetensors")
    return models.load(tmp_path / "net.safetensors"), job


def test_a_trained_model_comes_back_with_its_card(shipped):
    model, job = shipped
    assert room.job_of(model) == job
    assert model.card["images"] == 16
    assert model.card["budget"] == pytest.approx(16 / 2_800_000)
    assert set(model.parts) == {"generator", "discriminator"}
    scale = room.scale_of(model, "quick", "cpu", (0,))
    assert scale.standin == ("drawn-faces",)
    assert scale.data == "drawn-faces 4 to 16 px, width 4"
    json.dumps(model.card)


def test_what_is_shipped_is_the_average_with_its_own_norms(tmp_path):
    job = Training("lrc", **{**TINY, "ema": 0.9})
    run(job, tmp_path / "a.state.safetensors")
    path = tmp_path / "a.safetensors"
    room.export(tmp_path / "a.state.safetensors", path, job, 0)
    model = models.load(path)
    assert not any("parametrizations" in k for k in model["generator"].state_dict())
    average = checkpoint.networks(tmp_path / "a.state.safetensors")["generator"]
    raw = checkpoint.networks(tmp_path / "a.state.safetensors", averaged=False)["generator"]
    for source, same in ((average, True), (raw, False)):
        weight = source["from_rgb.parametrizations.weight.original"]
        exact = weight / torch.linalg.matrix_norm(weight.flatten(1), ord=2)
        # half precision has 11 bits; 30 iterations leave 1e-3 where two singular values are near
        found = model["generator"].from_rgb.weight
        assert torch.allclose(found, exact, rtol=3e-3, atol=1e-4) == same


def test_grid_is_pass_by_pass(shipped):
    model, _ = shipped
    x = data.to_float(pixels(3))
    lows = room.targets(model, pixels(5)[1:])
    assert lows.shape == (4, 3, 4, 4)
    found = room.grid(model, x, lows)
    assert found.shape == (3, 4, 3, 16, 16)
    assert float(found.abs().max()) <= 1
    for s in range(3):
        for t in range(4):
            one = room.translate(model, x[s : s + 1], lows[t : t + 1])[0]
            # the bound that the issue asks for; other batch sizes sum in another order
            assert torch.allclose(found[s, t], one, atol=1e-5)
    pairs = room.translate(model, x, lows[:3], block=2)
    assert torch.allclose(pairs[2], found[2, 2], atol=1e-5)


def test_the_low_error_is_in_grey_levels():
    image = torch.full((2, 3, 16, 16), 10 / 127.5)
    found = room.low_error(image, torch.zeros(2, 3, 4, 4))
    assert torch.allclose(found, torch.tensor(10.0), rtol=1e-5)  # float32


def test_presets_resolve_and_the_paper_column_is_the_published_run():
    for preset in room.PRESETS.values():
        for job in preset.training.values():
            room.checked(job)
    for job in room.SHIPPED.values():
        room.checked(job)
    assert len({(j.width, j.cap, j.steps, j.data) for n, j in room.SHIPPED.items()
                if n in room.SWEEP}) == 1  # fmt: skip
    job = room.PRESETS["paper"].training["faces_lrc"]
    assert (job.size, job.low, job.width, job.cap, job.batch) == (128, 8, 64, 512, 8)
    assert (job.lr, job.ratio, job.ema, job.gamma, job.cycle_weight) == (1e-3, 4.0, 0.999, 0.5, 1.0)
    assert (job.penalty_every, job.reading, job.terms, job.precision) == (1, "code", "code", "fp32")
    assert job.steps * job.batch == room.BUDGET
    assert room.PRESETS["paper"].training["faces_lrc_256"].cycle_weight == 0.1
    count = sum(p.numel() for p in _meta(room.recipe(job, "generator")).parameters())
    assert count == 21_575_999


def test_the_gpu_preset_keeps_its_budget_and_its_width():
    preset = room.PRESETS["gpu"]
    jobs = preset.training
    assert 500 < sum(job.seconds for job in jobs.values()) <= 540  # of 600; the rest is evaluation
    head = jobs["cats_lrc"]
    assert jobs["cats_stargan_v2"].seconds == head.seconds
    published = room.PRESETS["paper"].training["cats_lrc"]
    assert (2 * head.width, 2 * head.cap) == (published.width, published.cap)
    full, half = (_parameters(room.recipe(job, "generator")) for job in (published, head))
    assert half <= 6e6  # bytes, at 8 bits a weight
    assert 3.9 < full / half < 4.1
    assert _parameters(room.recipe(head, "discriminator")) * 3.9 < _parameters(
        room.recipe(published, "discriminator")
    )
    assert all(job.batch >= 64 for job in jobs.values())
    assert all(job.penalty_every == 8 for job in jobs.values())
    assert {job.precision for job in jobs.values() if job.method == "lrc"} == {"fp16"}


def test_the_gpu_preset_s_short_runs_differ_from_the_plain_one_in_one_field():
    jobs = room.PRESETS["gpu"].training
    assert room.PRESETS["gpu"].domain == "cats"
    assert {room.PRESETS[name].domain for name in ("quick", "cpu", "paper")} == {"faces"}
    plain, head = (config.as_dict(jobs[name]) for name in ("cats_low8", "cats_lrc"))
    assert (plain["data"], plain["size"]) == ("cats", 128)
    assert {k for k, v in head.items() if v != plain[k]} == {"seconds"}
    assert plain["seconds"] == head["seconds"] / 4
    for name, changed in (room.REMEDIES | room.ABLATIONS).items():
        job = config.as_dict(jobs[room.of_cats(name)])
        assert {k: v for k, v in job.items() if v != plain[k]} == changed
    sizes = {room.of_cats(name): low for name, low in room.SWEEP.items()}
    for name, low in sizes.items():
        assert jobs[name] == dataclasses.replace(jobs["cats_low8"], low=low)
    titled = {f"faces_{k}" for k in (*room.ALONE, *room.READ)}
    assert titled == {*room.REMEDIES, *room.ABLATIONS, *room.READINGS}


@pytest.mark.parametrize("method", ["lrc", "stargan_v2"])
def test_lazy_penalties_add_up_to_those_of_every_step(method):
    """Over any whole period the weights sum to the same: equal in expectation."""
    job = Training(method, **{**TINY, "size": 32, "gamma": 10.0})
    weights = {}
    for every in (1, 8):
        step = room.STEPS[method](dataclasses.replace(job, penalty_every=every), 0)
        weights[every] = [step.penalised(context(i)) for i in range(32)]
    assert sum(weights[8]) == sum(weights[1]) == 32 * 5.0
    assert sum(w > 0 for w in weights[8]) == 4


@pytest.mark.parametrize("name", ["cats_lrc", "cats_low32", "cats_epsilon", "churches_lrc"])
def test_gpu_runs_train_at_a_tiny_size_from_the_command_line(name, tmp_path, monkeypatch):
    """bf16, time limit and card of the `gpu` preset, with sizes that a CPU does at once."""
    asked = []

    class Set:
        pixels = pixels()

    monkeypatch.setattr(data, "load", lambda *a, **k: asked.append((a, k)) or Set())
    monkeypatch.setenv("LATENTPAPERS_PROCESSES", "1")
    sizes = {"size": 16, "low": 4, "width": 4, "cap": 8, "discriminator_width": 4, "batch": 4,
             "steps": 2, "images": 12, "log_every": 1}  # fmt: skip
    words = [word for k, v in sizes.items() for word in ("--set", f"{k}={v}")]
    room.train_from_cli(["--run", name, "--preset", "gpu", "--out", str(tmp_path), *words])
    model = models.load(tmp_path / f"{name}_s0.safetensors")
    published = room.PRESETS["gpu"].training[name]
    assert room.job_of(model) == resolve(published, sizes)
    assert model.card["steps"] == 2
    assert asked[0][0] == (published.data,)
    lows = room.targets(model, pixels(2))
    x = data.to_float(pixels(2))
    assert torch.isfinite(room.grid(model, x, lows)).all()


def _parameters(recipe):
    return sum(p.numel() for p in _meta(recipe).parameters())


def _meta(recipe):
    with torch.device("meta"):
        return models.build(recipe)
