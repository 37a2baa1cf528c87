"""The engine in one process: what it computes, compared with loops written out."""

import math

import pytest
import torch
from engine_bed import SIDE, STAGES, ToyGan, differing, images, largest, leaves

from latentpapers.errors import Diverged, UnknownName, UserError
from latentpapers.train import Fit, checkpoint, engine, fit
from latentpapers.train.context import Context, Sampler, flipped
from latentpapers.train.engine import Given
from latentpapers.train.history import History
from latentpapers.train.schedule import Stage, halved_at, stage_at, warm_up

ROUNDING = 1e-12  # float64 sums in another order, over a few steps


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # bit-equality holds for one thread count
    yield
    torch.set_num_threads(before)


def run(task, steps=3, path=None, batch=8, data=None, **plan):
    options = {"log_every": 1, **plan}
    data = images() if data is None else data
    return fit(task, data, Fit(steps, batch, **options), seed=1, config={}, path=path)


def double(**options):
    return ToyGan(dtype=torch.float64, **options)


# --- updates against loops written out -------------------------------------------------------


def batches(task, steps, batch=8):
    sampler = Sampler(24, batch, 1)
    for step in range(steps):
        ctx = Context(1, step, torch.device("cpu"), batch, 0, batch)
        yield images()[sampler.indices(step)].double() / 127.5 - 1, ctx


def adams(task):
    return {n: torch.optim.Adam(net.parameters(), lr=1e-2, betas=(0.5, 0.9))
            for n, net in task.nets.items()}  # fmt: skip


def step_after(loss, optimizer):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def alternate(task, steps):
    """The reference: critic, critic, generator, each from a forward pass of its own."""
    optimizers, d, g = adams(task), task.nets["d"], task.nets["g"]
    for x, ctx in batches(task, steps):
        for _ in range(task.critic_steps):
            fake = g(ctx.noise(4).double()).detach()
            loss = (1 + task.k) * d(fake).mean() - d(x).mean()
            mix = ctx.uniform(1, 1, 1).double()
            step_after(loss + 10 * task.second_order(x, fake, mix), optimizers["d"])
        last = loss.item()
        step_after(-d(g(ctx.noise(4).double())).mean(), optimizers["g"])
        task.k = (task.k + 0.1 * torch.tensor(last)).clamp(-0.5, 0.5)


@pytest.mark.parametrize("critic_steps", [1, 3])
def test_several_critic_updates_alternate_with_the_generators(critic_steps):
    ours, theirs = (double(penalty="gp", critic_steps=critic_steps) for _ in range(2))
    run(ours)
    alternate(theirs, 3)
    # k is logged as float32: 1e-8 in the loss, which Adam passes on
    assert largest_of(ours, theirs) < 1e-7


def largest_of(a, b):
    trees = ({"nets": {n: net.state_dict() for n, net in t.nets.items()}} for t in (a, b))
    return largest(*trees)


def simultaneous(task, steps):
    """Both gradients at the same parameters, then both steps."""
    optimizers, d, g = adams(task), task.nets["d"], task.nets["g"]
    for x, ctx in batches(task, steps):
        fake = g(ctx.noise(4).double())
        own = (1 + task.k) * d(fake.detach()).mean() - d(x).mean()
        grads = {
            "d": torch.autograd.grad(own, list(d.parameters())),
            "g": torch.autograd.grad(-d(fake).mean(), list(g.parameters())),
        }
        for name, optimizer in optimizers.items():
            for p, grad in zip(task.nets[name].parameters(), grads[name], strict=True):
                p.grad = grad
            optimizer.step()
        task.k = (task.k + 0.1 * own.detach().float()).clamp(-0.5, 0.5)


def test_one_group_takes_all_gradients_before_any_step():
    ours, theirs, other = double(together=True), double(together=True), double()
    run(ours)
    simultaneous(theirs, 3)
    assert largest_of(ours, theirs) < 1e-7
    run(other)
    assert largest_of(ours, other) > 1e-4  # control: alternation is something else


def test_given_gradients_are_the_losses_gradients():
    class Handed(ToyGan):
        def updates(self, batch, ctx):
            for group in super().updates(batch, ctx):
                yield {
                    name: Given(torch.autograd.grad(loss, list(self.nets[name].parameters())))
                    for name, loss in group.items()
                }

    plain, handed = double(), Handed(dtype=torch.float64)
    run(plain, micro=2)
    run(handed, micro=2)
    assert largest_of(plain, handed) == 0


def test_given_gradients_of_another_number_are_refused():
    class Short(ToyGan):
        def updates(self, batch, ctx):
            yield {"d": Given(())}

    with pytest.raises(ValueError, match="zip"):
        run(Short())


@pytest.mark.parametrize("options", [{"penalty": "gp", "critic_steps": 2}, {"penalty": "r1"},
                                     {"penalty": "gp", "together": True}])  # fmt: skip
def test_micro_batches_add_up_to_the_batch(options):
    whole = double(**options)
    history = run(whole, flip=True)
    for micro in (2, 4):
        parts = double(**options)
        other = run(parts, flip=True, micro=micro)
        assert largest_of(whole, parts) < 1e-7  # k through float32; gradients below are exact
        for a, b in zip(history.rows, other.rows, strict=True):
            assert a == pytest.approx(b, abs=1e-6)
    one, four = (double(**options, sgd=1.0) for _ in range(2))
    run(one, 1)
    run(four, 1, micro=4)
    assert largest_of(one, four) < ROUNDING


def test_control_noise_drawn_by_the_task_itself_breaks_micro_batches():
    class Private(ToyGan):
        def noise(self, ctx):
            generator = torch.Generator().manual_seed(ctx.step)
            rows = ctx.stop - ctx.start
            return torch.randn(rows, 4, generator=generator, dtype=self.dtype)

    one, two = (Private(dtype=torch.float64, sgd=1.0) for _ in range(2))
    run(one, 1)
    run(two, 1, micro=2)
    assert largest_of(one, two) > 1e-6


def test_averages_follow_the_formula(tmp_path):
    task = double(decay=0.75)
    run(task, 5, tmp_path / "a.safetensors")
    expected = task.path_of_g[0]  # the first step copies
    for params in task.path_of_g[1:]:
        expected = [0.75 * a + 0.25 * p for a, p in zip(expected, params, strict=True)]
    averaged = checkpoint.networks(tmp_path / "a.safetensors")["g"]
    for name, value in zip(dict(task.nets["g"].named_parameters()), expected, strict=True):
        assert torch.allclose(averaged[name], value, rtol=ROUNDING, atol=ROUNDING)
    plain = checkpoint.networks(tmp_path / "a.safetensors", averaged=False)["g"]
    assert all(torch.equal(plain[n], p) for n, p in task.nets["g"].named_parameters())
    assert not torch.equal(plain["code.weight"], averaged["code.weight"])


# --- growing and schedules -------------------------------------------------------------------


def test_growing_trains_a_level_only_from_its_stage_on():
    task = double(grow=True)
    run(task, 8)
    fine = [params[4] for params in task.path_of_g]  # code.weight, .bias, coarse..., fine.weight
    # 24 images of stage 1 are steps 0 to 2; step 3 begins the fade at weight 0
    assert all(torch.equal(fine[0], f) for f in fine[1:3])
    assert torch.equal(fine[3], fine[2])
    assert not torch.equal(fine[4], fine[3])
    assert task.nets["g"].share == 1


def test_the_learning_rate_follows_the_factor():
    class Rated(ToyGan):
        def before_step(self, step, seen):
            return (0.0, 1.0, 0.5)[step]

    task = Rated(dtype=torch.float64, sgd=1.0)
    start = [p.detach().clone() for p in task.nets["g"].parameters()]
    run(task, 3)
    assert all(torch.equal(a, b) for a, b in zip(start, task.path_of_g[0], strict=True))
    full = double(sgd=0.5)
    halved = double(sgd=1.0)
    halved.before_step = lambda step, seen: 0.5
    run(full, 2)
    run(halved, 2)
    assert largest_of(full, halved) < ROUNDING


def test_halved_at():
    assert [halved_at(s, (3, 5)) for s in (0, 2, 3, 4, 5, 9)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert halved_at(10**6, ()) == 1


def test_warm_up():
    assert [warm_up(s, 4) for s in (0, 1, 3, 4, 100)] == [0.25, 0.5, 1, 1, 1]
    assert warm_up(0, 0) == 1


def test_stage_at():
    assert [stage_at(n, STAGES)[::2] for n in (0, 23)] == [(0, 1.0), (0, 1.0)]
    assert [stage_at(n, STAGES)[::2] for n in (24, 30, 47)] == [(1, 0.0), (1, 0.25), (1, 23 / 24)]
    assert stage_at(48, STAGES)[1] is STAGES[2]
    assert stage_at(10**12, (Stage(1, 10, fade=True),)) == (0, Stage(1, 10, fade=True), 1.0)
    assert stage_at(5, (Stage(1, 0), Stage(2, 0, fade=True)))[::2] == (1, 1.0)
    with pytest.raises(ValueError, match="at least one stage"):
        stage_at(0, ())


# --- images and noise ------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "batch"), [(24, 8), (10, 4), (3, 7)])
def test_each_image_comes_once_an_epoch(n, batch):
    steps = 3 * n
    order = torch.cat([Sampler(n, batch, 0).indices(s) for s in range(steps)])
    epochs = order[: len(order) // n * n].view(-1, n)
    assert all(sorted(e.tolist()) == list(range(n)) for e in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    sampler = Sampler(n, batch, 0)
    backwards = {s: sampler.indices(s) for s in reversed(range(steps))}
    for s in range(steps):  # a function of the step, not of what was asked before
        assert torch.equal(backwards[s], order[s * batch : (s + 1) * batch])
    assert not torch.equal(
        order, torch.cat([Sampler(n, batch, 1).indices(s) for s in range(steps)])
    )


def halves():
    """Images that know their orientation: bright on the left."""
    data = torch.zeros(24, 1, SIDE, SIDE, dtype=torch.uint8)
    data[..., : SIDE // 2] = 200
    return data


def test_flip_shows_both_orientations_in_equal_parts():
    task = ToyGan()
    run(task, 50, data=halves(), flip=True)
    seen = torch.cat(task.seen)
    mirrored = (seen[:, 0, 0, 0] == 0).double()
    assert torch.equal(
        seen[mirrored.bool()], halves().flip(3)[:1].expand(int(mirrored.sum()), -1, -1, -1)
    )
    # 400 draws of a fair coin: 5 standard deviations are 0.125
    assert abs(float(mirrored.mean()) - 0.5) < 0.125
    task = ToyGan()
    run(task, 5, data=halves())
    assert torch.equal(torch.cat(task.seen), halves()[:1].expand(40, -1, -1, -1))


def test_flipped_mirrors_columns_of_the_marked_images():
    x = images(4)
    out = flipped(x, torch.tensor([True, False, False, True]))
    assert torch.equal(out[1:3], x[1:3])
    assert torch.equal(out[0, 0], torch.fliplr(x[0, 0]))


def test_noise_does_not_know_its_shards():
    def context(start, stop, step=4):
        return Context(3, step, torch.device("cpu"), 8, start, stop)

    def draws(ctx):
        return ctx.noise(3, 2), ctx.uniform(5), ctx.noise(3, 2)

    whole = draws(context(0, 8))
    parts = [draws(context(i, i + 2)) for i in range(0, 8, 2)]
    for i, value in enumerate(whole):
        assert torch.equal(value, torch.cat([p[i] for p in parts]))
    assert not torch.equal(whole[0], whole[2])  # each call draws anew
    assert not torch.equal(whole[0], draws(context(0, 8, step=5))[0])
    many = Context(3, 0, torch.device("cpu"), 20_000, 0, 20_000)
    noise, uniform = many.noise(), many.uniform()
    # 5 standard errors of 20,000 draws
    assert abs(float(noise.mean())) < 5 / math.sqrt(20_000)
    assert abs(float(uniform.mean()) - 0.5) < 5 / math.sqrt(12 * 20_000)
    assert 0 <= float(uniform.min()) <= float(uniform.max()) < 1


def test_the_global_stream_is_left_alone_and_dropout_follows_the_seed(tmp_path):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    one = ToyGan(dropout=0.5)
    run(one, 4, tmp_path / "a.safetensors")
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(4)
    two = ToyGan(dropout=0.5)
    run(two, 4, tmp_path / "b.safetensors")
    trees = [checkpoint.load(tmp_path / f"{n}.safetensors") for n in "ab"]
    assert differing(*trees) == []


# --- history, time, precision ----------------------------------------------------------------


def test_rows_are_averages_since_the_row_before():
    fine, coarse = ToyGan(), ToyGan()
    each = run(fine, 7)
    rows = run(coarse, 7, log_every=3)
    assert rows.steps() == [3, 6, 7]
    for term in ("L_d", "L_g", "k"):
        values = each.column(term)
        means = [sum(values[a:b]) / (b - a) for a, b in ((0, 3), (3, 6), (6, 7))]
        assert rows.column(term) == pytest.approx(means, abs=1e-6)  # float32 sums


def test_a_term_that_is_logged_now_and_then_is_averaged_over_its_own_steps():
    each = run(ToyGan(penalty="r1", lazy=2), 8)
    assert [v is None for v in each.column("penalty")] == [False, True] * 4
    rows = run(ToyGan(penalty="r1", lazy=2), 8, log_every=4)
    seen = [v for v in each.column("penalty") if v is not None]
    assert rows.column("penalty") == pytest.approx([sum(seen[:2]) / 2, sum(seen[2:]) / 2], rel=1e-5)


def test_history_pads_what_came_late():
    history = History()
    history.add(1, {"a": 1.0})
    history.add(2, {"b": 3.0, "a": 2.0})
    history.add(3, {"b": 4.0})
    assert history.rows == [[1, 1.0, None], [2, 2.0, 3.0], [3, None, 4.0]]
    assert History.from_state(history.state_dict()) == history
    assert history.steps() == [1, 2, 3]


class Clock:
    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now

    def pass_second(self):
        self.now += 1.0


def timed(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(engine, "time", clock)
    return ToyGan(at=dict.fromkeys(range(100), clock.pass_second))


def test_the_time_limit_counts_all_resumes_and_may_grow(monkeypatch, tmp_path):
    path = tmp_path / "a.safetensors"
    assert run(timed(monkeypatch), 50, path, seconds=2.5).steps() == [1, 2, 3]
    assert run(timed(monkeypatch), 50, path, seconds=2.5).steps() == [1, 2, 3]  # spent
    assert run(timed(monkeypatch), 50, path, seconds=4.5).steps()[-1] == 5
    assert checkpoint.header(path)["seconds"] == 5.0
    # no limit at last: the result is that of a run that never stopped
    run(timed(monkeypatch), 8, path)
    run(timed(monkeypatch), 8, tmp_path / "b.safetensors")
    assert differing(checkpoint.load(path), checkpoint.load(tmp_path / "b.safetensors")) == []


def test_time_between_rows_is_not_lost_with_a_checkpoint(monkeypatch, tmp_path):
    task = timed(monkeypatch)
    run(task, 7, tmp_path / "a.safetensors", log_every=7, save_every=2)
    assert checkpoint.header(tmp_path / "a.safetensors")["seconds"] == 7.0


def test_progress_is_told_of_every_row(monkeypatch):
    told, task = [], timed(monkeypatch)
    plan = Fit(steps=6, batch=8, log_every=4, save_every=3)
    fit(task, images(), plan, seed=1, config={}, progress=lambda *row: told.append(row))
    assert [(step, steps) for step, steps, _, _ in told] == [(4, 6), (6, 6)]
    assert [rate for *_, rate in told] == pytest.approx([8.0, 8.0])  # 8 images in each second
    assert set(told[0][2]) == {"L_d", "L_g", "k"}


def test_bf16_computes_in_bf16_and_keeps_fp32_parameters():
    half, full = ToyGan(penalty="gp"), ToyGan(penalty="gp")
    run(half, 2, precision="bf16")
    run(full, 2)
    assert all(p.dtype is torch.float32 for net in half.nets.values() for p in net.parameters())
    # bf16 has 8 bits: losses of size 1 differ by about 1e-2, and here by no more than 0.1
    assert 0 < largest_of(half, full) < 0.1


class Faint(ToyGan):
    """Losses so small that their gradients inside the generator are below what fp16 holds well."""

    def updates(self, batch, ctx):
        for group in super().updates(batch, ctx):
            yield {name: 1e-3 * loss.float() for name, loss in group.items()}


def faint(precision, **plan):
    """Where three steps of plain descent along those gradients lead; the rate makes up for 1e-3."""
    task = Faint(sgd=100.0)
    run(task, precision=precision, **plan)
    return torch.cat([p.detach().flatten() for p in task.nets["g"].parameters()])


def of(name, task):
    return {"nets": {name: task.nets[name].state_dict()}}


def test_fp16_scales_losses_and_is_finer_than_bf16(monkeypatch):
    full, fine, coarse = (faint(p, micro=2) for p in ("fp32", "fp16", "bf16"))
    assert fine.dtype is torch.float32
    error = float((fine - full).norm())
    # bf16 has three bits less, so its roundings are 8 times as large
    assert 0 < error < float((coarse - full).norm()) / 3
    monkeypatch.setattr(engine, "SCALE", 1.0)
    assert float((faint("fp16", micro=2) - full).norm()) > 10 * error  # control: not scaled


class Fused(ToyGan):
    """With the optimisers of the rooms that run in fp16."""

    def optimizers(self):
        how = {"lr": 1e-2, "betas": (0.5, 0.9), **engine.stepping("fp16")}
        return {n: torch.optim.Adam(net.parameters(), **how) for n, net in self.nets.items()}


@pytest.mark.parametrize("kind", [ToyGan, Fused])
def test_an_update_that_overflows_fp16_is_left_out_and_the_scale_halved(
    tmp_path, monkeypatch, kind
):
    """The toy's generator alone runs in fp16."""
    monkeypatch.setattr(engine, "SCALE", 2.0**40)
    before, task = kind(), kind()
    file = tmp_path / "a.safetensors"
    run(task, 2, file, precision="fp16")
    assert largest(of("g", before), of("g", task)) == 0 < largest(of("d", before), of("d", task))
    assert checkpoint.load(file)["scaler"]["scale"] == 2.0**38
    run(task, 40, file, precision="fp16")  # until a scale is found at which it goes on
    assert largest(of("g", before), of("g", task)) > 1e-3


def test_fp16_that_overflows_at_every_scale_is_said(monkeypatch):
    monkeypatch.setattr(engine, "SCALE", 2.0)

    class Endless(ToyGan):
        def updates(self, batch, ctx):
            for group in super().updates(batch, ctx):
                zero = self.nets["d"][0].weight - self.nets["d"][0].weight
                yield {n: x + zero.square().sum().sqrt() for n, x in group.items()}  # slope 0/0

    with pytest.raises(Diverged, match="gradients overflow fp16"):
        run(Endless(together=True), precision="fp16")


class FaintHanded(Faint):
    """Makes its gradients itself: of scaled losses, or (`forgets`) of the losses as they are."""

    forgets = False

    def updates(self, batch, ctx):
        for group in super().updates(batch, ctx):
            yield {name: self.given(name, loss, ctx) for name, loss in group.items()}

    def given(self, name, loss, ctx):
        loss = loss if self.forgets else ctx.scaled(loss)
        gradients = torch.autograd.grad(loss, list(self.nets[name].parameters()))
        return Given(gradients, scaled=True)


def test_gradients_made_by_the_task_are_taken_in_fp16_if_of_scaled_losses():
    def end(kind):
        task = kind(sgd=100.0)
        run(task, precision="fp16", micro=2)
        return task

    plain, handed, other = (
        end(Faint),
        end(FaintHanded),
        end(type("Forgets", (FaintHanded,), {"forgets": True})),
    )
    assert largest_of(plain, handed) == 0
    assert largest_of(plain, other) > 1e-4  # control: a step 1,024 times too short


def test_each_group_of_losses_sees_the_scale_of_its_own_time(monkeypatch):
    """The critic's update overflows; the generator's, in the same step, is made at half the scale
    and would otherwise be divided by it: twice too long."""
    monkeypatch.setattr(engine, "SCALE", 2.0**10)
    scales = []

    class Overflows(ToyGan):
        def updates(self, batch, ctx):
            for group in super().updates(batch, ctx):
                scales.append(float(ctx.scale))
                much = float("inf") if "d" in group else 1.0
                yield {name: much * loss for name, loss in group.items()}

    run(Overflows(), 2, precision="fp16")
    assert scales == [2.0**10, 2.0**9, 2.0**9, 2.0**8]


def test_gradients_made_by_the_task_of_losses_as_they_are_are_not_taken_in_fp16():
    class Handed(ToyGan):
        def updates(self, batch, ctx):
            yield {"d": Given(tuple(map(torch.zeros_like, self.nets["d"].parameters())))}

    with pytest.raises(UserError, match="fp32 or bf16, not fp16"):
        run(Handed(), precision="fp16")


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"batch": 9, "micro": 2}, "2 equal shards"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"micro": 0}, "micro must be at least 1"),
        ({"log_every": 0}, "log_every must be at least 1"),
        ({"compile": True}, "compile"),
    ],
)
def test_plans_that_cannot_be_carried_out_are_refused(plan, message):
    options = {"steps": 1, "batch": 8, **plan}
    with pytest.raises(UserError, match=message):
        fit(ToyGan(), images(), Fit(**options), seed=0, config={})


def test_an_unknown_precision_is_refused():
    with pytest.raises(UnknownName, match="bf16, fp16, fp32"):
        run(ToyGan(), precision="fp8")


@pytest.mark.parametrize("data", [images().float(), images()[0], images()[:0]])
def test_data_that_are_no_uint8_images_are_refused(data):
    with pytest.raises(UserError, match="uint8"):
        run(ToyGan(), data=data)


def test_leaves_see_every_difference():
    """The comparison that the resume tests rest on."""
    a = {"x": torch.zeros(2), "l": [1, {"y": 2.0}], "seconds": 1}
    assert differing(a, {**a, "seconds": 5}) == []
    assert differing(a, {**a, "x": torch.tensor([0.0, 1e-30])}) == ["/x"]
    assert differing(a, {**a, "l": [1, {"y": 2}]}) == ["/l/1/y"]
    assert differing(a, {"x": a["x"], "l": [1]}) == ["/l/1/y"]
    assert set(leaves(a)) == {"/x", "/l/0", "/l/1/y"}
