"""AVAE's training step: gradients, the BEGAN row, the controller, and runs through the engine.

float64 throughout where two computations of one number are compared: what is left are roundings of
sums in another order.
"""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from latentpapers import config, data, models, paths
from latentpapers.errors import ConfigMismatch, Corrupt, UnknownName
from latentpapers.losses.equilibrium import Controller, Gains, balance, error_signal
from latentpapers.nets.began import Decoder
from latentpapers.papers import avae
from latentpapers.papers.avae import METHODS, Step, Training
from latentpapers.train import checkpoint
from latentpapers.train.context import Context
from latentpapers.train.engine import Fit, Given, fit

TINY = {"data": "none", "size": 16, "images": 12, "width": 4, "latent": 5, "steps": 3, "batch": 4}
ROUNDING = 1e-10  # relative, of float64 sums over a few thousand terms in another order


def pixels(n=12, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, channels, 16, 16), generator=generator, dtype=torch.uint8)


def context(step=3, batch=12):
    return Context(0, step, torch.device("cpu"), batch, 0, batch)


def double_step(method, **options):
    step = Step(Training(method, **TINY, **options), seed=0)
    for net in step.nets.values():
        net.double()
    step.controller.k = torch.tensor(0.37, dtype=torch.float64)
    return step


def parameters(step):
    parts = {"encoder": ["encoder"], "decoder": ["decoder"],
             "critic": ["critic_encoder", "critic_decoder"]}  # fmt: skip
    return {
        name: [p for n in nets for p in step.nets[n].parameters()]
        for name, nets in parts.items()
        if nets[0] in step.nets
    }


def engine_gradients(step, batch):
    (update,) = list(step.updates(batch, context()))
    params = parameters(step)
    assert set(update) == set(params)
    return {
        name: loss.gradients
        if isinstance(loss, Given)
        else torch.autograd.grad(loss, params[name], retain_graph=True)
        for name, loss in update.items()
    }


def inputs(step, batch):
    """What `updates` draws and scales, in the same order."""
    ctx = context()
    x = batch.double() / 127.5 - 1
    return x, ctx.noise(5).double(), step.prior(ctx).double()


def plain_objectives(step, batch):
    """Eqs 2 to 15 written out on the networks; the target of eq 9 alone is detached."""
    x, noise, prior = inputs(step, batch)
    nets, job, k = step.nets, step.job, float(step.controller.k)
    fake = nets["decoder"](prior)
    zero = torch.zeros((), dtype=torch.float64)
    l_e = l_n = l_d = l_g = l_v = l_s = zero
    if step.method.encoder:
        mean, log_variance = nets["encoder"](x).split(5, 1)
        recovered = nets["decoder"](mean + noise * (log_variance / 2).exp())
        l_e = (x - recovered).abs().mean()
        divergence = (mean**2 + log_variance.exp() - log_variance - 1).sum() / (2 * len(x))
        l_n = divergence / {"pixels": x[0].numel(), "mean": 5, "sum": 1}[job.kl]
    if step.method.critic:
        z_d, z_g = nets["critic_encoder"](x), nets["critic_encoder"](fake)
        l_d = (x - nets["critic_decoder"](z_d)).abs().mean()
        l_g = (fake - nets["critic_decoder"](z_g)).abs().mean()
        if step.method.encoder:
            z_v = nets["critic_encoder"](recovered)
            l_v = (recovered - nets["critic_decoder"](z_v)).abs().mean()
        if step.method.similarity == "paired":
            l_s = (z_d.detach() - z_v).abs().mean()
        if step.method.similarity == "unpaired":
            if job.unpaired == "pairs":
                l_s = (z_d.detach() - z_g).abs().mean()
            else:
                l_s = (z_d.detach().mean(0) - z_g.mean(0)).abs().mean()
    return {
        "encoder": l_n + job.beta * l_s + job.gamma * l_e,
        "decoder": l_g + job.alpha * l_v + job.beta * l_s + job.gamma * l_e,
        "critic": l_d - k * (l_g + job.alpha * l_v),
    }


def close(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=ROUNDING, atol=ROUNDING * float(b.abs().max() + 1e-3))


@pytest.mark.parametrize("kl", ["pixels", "mean", "sum"])
@pytest.mark.parametrize("method", METHODS)
def test_shared_backward_gives_the_gradients_of_the_objectives(method, kl):
    step, batch = double_step(method, kl=kl), pixels()
    found = engine_gradients(step, batch)
    x, noise, prior = inputs(step, batch)
    by_library = step.objectives(step.losses(x, step.generate(x, noise, prior)))
    by_hand = plain_objectives(step, batch)
    for name, params in parameters(step).items():
        assert by_library[name].dtype is torch.float64
        for objective in (by_library[name], by_hand[name]):
            close(found[name], torch.autograd.grad(objective, params, retain_graph=True))


def test_random_pairs_give_the_gradients_of_their_objective():
    step, batch = double_step("began_lsm", unpaired="pairs"), pixels()
    found, by_hand = engine_gradients(step, batch), plain_objectives(step, batch)
    for name, params in parameters(step).items():
        close(found[name], torch.autograd.grad(by_hand[name], params, retain_graph=True))
    means = engine_gradients(double_step("began_lsm"), batch)  # control: the other reading
    with pytest.raises(AssertionError):
        close(found["decoder"], means["decoder"])


def test_control_a_wrong_k_or_an_attached_target_is_noticed():
    step, batch = double_step("avae"), pixels()
    found = engine_gradients(step, batch)
    step.controller.k = step.controller.k + 0.01
    critic = parameters(step)["critic"]
    other = torch.autograd.grad(plain_objectives(step, batch)["critic"], critic)
    with pytest.raises(AssertionError):
        close(found["critic"], other)
    # a critic that were trained on eq 9 as well would have another gradient
    x, noise, prior = inputs(step, batch)
    terms = step.losses(x, step.generate(x, noise, prior))
    with_similarity = step.objectives(terms)["critic"] + terms["L_s"]
    with pytest.raises(AssertionError):
        close(found["critic"], torch.autograd.grad(with_similarity, critic))


def test_terms_are_logged_with_the_k_that_weighed_them():
    step, ctx = double_step("avae"), context()
    list(step.updates(pixels(), ctx))
    assert set(ctx.terms) == {"L_e", "L_n", "L_d", "L_g", "L_v", "L_s", "k"}
    assert float(ctx.terms["k"]) == pytest.approx(0.37, rel=1e-7)  # logged as float32
    assert all(v.dtype is torch.float32 and not v.requires_grad for v in ctx.terms.values())


def test_an_unknown_method_is_refused():
    with pytest.raises(UnknownName, match="began_lsm"):
        Step(Training("vaegan", **TINY), seed=0)


# --- the BEGAN row against BEGAN written out -------------------------------------------------


def began_by_hand(step, data, steps, lr):
    """BEGAN (Berthelot et al. 2017): L_D = L(x) - k L(G(z)), L_G = L(G(z)),
    k <- clamp(k + 1e-3 (0.5 L(x) - L(G(z)))), both networks stepped from one forward pass."""
    g = step.nets["decoder"]
    d = torch.nn.ModuleList([step.nets["critic_encoder"], step.nets["critic_decoder"]])
    adam_g = torch.optim.Adam(g.parameters(), lr=lr)
    adam_d = torch.optim.Adam(d.parameters(), lr=lr)
    k, ks = 0.0, []
    for t in range(steps):
        ctx = context(t, batch=len(data))
        ctx.noise(5)  # AVAE's eps, which BEGAN has no use for
        z = 2 * ctx.uniform(5).double() - 1
        order = torch.randperm(len(data), generator=order_of(t))
        x = data[order].double() / 127.5 - 1
        fake = g(z)
        real_energy = (x - d[1](d[0](x))).abs().mean()
        fake_energy = (fake - d[1](d[0](fake))).abs().mean()
        detached = fake.detach()
        critic_energy = (detached - d[1](d[0](detached))).abs().mean()
        adam_d.zero_grad()
        (real_energy - k * critic_energy).backward()
        own = [p.grad.clone() for p in d.parameters()]
        adam_g.zero_grad()
        fake_energy.backward()
        for p, grad in zip(d.parameters(), own, strict=True):
            p.grad = grad
        adam_d.step()
        adam_g.step()
        ks.append(k)
        k = min(max(k + 1e-3 * 100 * (0.5 * real_energy - fake_energy).item(), 0.0), 1.0)
    return ks, [*g.parameters(), *d.parameters()]


def order_of(epoch):
    from latentpapers.seeds import generator

    return generator(0, "order", epoch)


def test_began_row_is_began():
    """Six Adam steps; gains times 100, so that k moves. The engine keeps k and the logged energies
    in float32: k differs by 1e-7, which Adam passes on to parameters of size 0.1."""
    options = {"gains_scale": 100.0, "lr": 1e-3}
    ours, theirs, data = double_step("began", **options), double_step("began", **options), pixels()
    ours.controller = Controller(Gains(0.1, 0.0, 0.0))
    history = fit(ours, data, Fit(steps=6, batch=12, log_every=1), seed=0, config={})
    ks, params = began_by_hand(theirs, data, 6, 1e-3)
    assert history.column("k") == pytest.approx(ks, abs=1e-6)
    assert 0 < ks[-1] != ks[1]  # k is alive
    mine = [*ours.nets["decoder"].parameters(), *ours.nets["critic_encoder"].parameters(),
            *ours.nets["critic_decoder"].parameters()]  # fmt: skip
    for a, b in zip(mine, params, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_began_uses_the_integral_gain_alone_and_a_uniform_prior():
    step = Step(Training("began", **TINY), seed=0)
    assert step.controller.gains.values() == (1e-3, 0.0, 0.0)
    assert Step(Training("avae", **TINY), seed=0).controller.gains.values() == (1e-3, 1e-5, 1e-5)
    ctx = context(batch=4000)
    z = step.prior(ctx)
    # U(-1, 1): bounded, variance 1/3 (standard error of 20,000 draws: 0.002)
    assert float(z.abs().max()) <= 1
    assert float(z.var()) == pytest.approx(1 / 3, abs=0.01)
    assert float(Step(Training("avae", **TINY), seed=0).prior(ctx).abs().max()) > 2


# --- the controller --------------------------------------------------------------------------


def errors(*values):
    return [torch.tensor(float(v)) for v in values]


def test_k_is_clamped_to_the_unit_interval():
    controller = Controller(Gains(1.0, 0.0, 0.0), k=0.5)
    assert [float(controller.step(e)) for e in errors(2, -0.25, -9, 0.125)] == [1, 0.75, 0, 0.125]


def test_a_free_k_is_eq_12_itself():
    """Binary fractions: sums are exact. The clamped controller differs from where it first cuts."""
    values, gains = (2, -0.25, -9, 0.125), Gains(1.0, 0.5, 0.25)
    e = [values[0], values[0], *values]  # e_0 = e_{-1} = e_1
    by_hand = [
        0.5 + sum(e[2 : t + 1]) + 0.5 * (e[t] - e[1]) + 0.25 * (e[t] - e[t - 1])
        for t in range(2, 6)
    ]  # eq 12 summed over t
    free = Controller(gains, k=0.5, clamped=False)
    assert [float(free.step(x)) for x in errors(*values)] == by_hand
    assert (by_hand[0], min(by_hand) < 0) == (2.5, True)  # past both ends
    clamped = Controller(gains, k=0.5)
    assert [float(clamped.step(x)) for x in errors(*values)] != by_hand


def test_by_position_k_is_the_textbooks_sum_of_three_parts():
    """Binary fractions: sums are exact. Eq 12's increments remember what the bound cut off."""
    values, gains = (0.25, 0.125, -2, 0.25), Gains(1.0, 0.5, 0.25)
    e = [values[0], *values]  # e_0 = e_1
    by_hand = [sum(values[:t]) + 0.5 * e[t] + 0.25 * (e[t] - e[t - 1]) for t in range(1, 5)]
    textbook = Controller(gains, positional=True)
    assert [float(textbook.step(x)) for x in errors(*values)] == [
        max(0, min(1, k)) for k in by_hand
    ]
    alone = Gains(0.0, 1.0, 0.0)
    by_parts, by_increments = (Controller(alone, positional=p) for p in (True, False))
    ends = [[float(c.step(x)) for x in errors(0.25, -2, -1)] for c in (by_parts, by_increments)]
    assert ends == [[0.25, 0, 0], [0, 0, 1]]  # k = 1 while the error is negative


def test_inside_the_interval_both_controllers_agree():
    small = errors(*torch.randn(20, generator=torch.Generator().manual_seed(0)) / 100)
    one, other = (Controller(Gains(0.1, 0.2, 0.3), k=0.5, clamped=c) for c in (True, False))
    assert [float(one.step(e)) for e in small] == [float(other.step(e)) for e in small]


def test_differences_start_at_zero():
    controller = Controller(Gains(0.0, 1.0, 1.0), k=0.5)
    first, second, third = (float(controller.step(e)) for e in errors(0.25, 0.375, 0.375))
    assert first == 0.5  # no kick from an error that has no past
    assert second == 0.5 + 0.125 + 0.125
    assert third == second + 0 + (0.375 - 2 * 0.375 + 0.25)


@pytest.mark.parametrize("clamped", [True, False])
def test_a_controller_resumes_from_its_state(clamped):
    one, other = (Controller(Gains(0.1, 0.2, 0.3), k=0.4, clamped=clamped) for _ in range(2))
    values = errors(*torch.randn(12, generator=torch.Generator().manual_seed(0)) * 2)
    for e in values[:6]:
        one.step(e)
    other.load_state_dict(one.state_dict())
    for e in values[6:]:
        assert torch.equal(one.step(e), other.step(e))
    assert (0 <= float(one.k) <= 1) is clamped  # errors of this size lead out


def test_a_controller_by_position_resumes_with_its_sum():
    one, other = (Controller(Gains(0.1, 0.2, 0.3), positional=True) for _ in range(2))
    for e in errors(0.5, 0.25, 1.0):
        one.step(e)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.step(torch.tensor(0.5)), other.step(torch.tensor(0.5)))
    assert float(other.total) == 2.25


def plant(reading, gains, steps=4000):
    """Energies that lag behind k: the more k weighs the fakes, the higher their energy. Returns
    the ratio of eq 10 at the end; the target is 0.5."""
    controller, fake, recovered = Controller(gains), 0.1, 0.2
    for _ in range(steps):
        k = float(controller.k)
        fake += 0.05 * (0.1 + 0.6 * k - fake)
        recovered += 0.05 * (0.2 + 0.3 * k - recovered)
        error = error_signal(1.0, fake, recovered, eta=0.5, alpha=0.3, reading=reading)
        controller.step(torch.tensor(error))
    return balance(fake, recovered, 1.0, 0.3)


@pytest.mark.parametrize("gains", [Gains(1e-2, 0, 0), Gains(1e-2, 1e-2, 1e-2)])
def test_the_controller_reaches_the_target_ratio(gains):
    assert plant("corrected", gains) == pytest.approx(0.5, abs=1e-4)  # float32 k over 4000 sums


def test_control_the_printed_sign_settles_elsewhere():
    assert plant("printed", Gains(1e-2, 0, 0)) > 0.6


def test_a_controller_without_integral_part_keeps_its_error():
    """Section 3.4's steady state error, of a controller that lacks the sum: our lambda_1 = 0."""
    assert abs(plant("corrected", Gains(0.0, 0.1, 0.0)) - 0.5) > 0.05


def ks(field, readings, **terms):
    """k after one step with these losses, under each reading of a field of `Training`."""
    found = {}
    for reading in readings:
        step = Step(Training("avae", **{**TINY, field: reading}, gains_scale=100.0), seed=0)
        step.after_step({name: torch.tensor(v) for name, v in terms.items()})
        found[reading] = float(step.controller.k)
    return found


def test_the_printed_reading_changes_k_exactly_by_the_slip():
    found = ks("eq11", ("corrected", "printed"), L_d=0.4, L_g=0.1, L_v=0.2)
    assert found["corrected"] == pytest.approx(0.1 * (0.5 * 0.4 - 0.1 - 0.3 * 0.2), rel=1e-5)
    assert found["printed"] - found["corrected"] == pytest.approx(0.1 * 2 * 0.3 * 0.2, rel=1e-5)


def test_the_free_reading_lets_k_leave_by_the_error_alone():
    found = ks("eq12", ("clamped", "free"), L_d=0.4, L_g=0.5, L_v=0.2)
    assert found == {"clamped": 0, "free": pytest.approx(0.1 * (0.5 * 0.4 - 0.5 - 0.3 * 0.2))}
    assert Step(Training("avae", **TINY), seed=0).controller.clamped


def test_a_free_training_resumes_to_itself_and_refuses_another_reading(tmp_path, monkeypatch):
    """A k below 0 survives the file; so does the reading under which it got there."""
    loaded = SimpleNamespace(pixels=pixels())
    monkeypatch.setattr(data, "load", lambda *a, **k: loaded)
    options = {**TINY, "steps": 4, "eta": 0.01, "gains_scale": 100.0, "log_every": 1}
    job = Training("avae", **options, eq12="free")  # this eta makes every error negative
    whole = avae.train(job, seed=0, path=tmp_path / "whole_s0.safetensors")
    path = tmp_path / "half_s0.safetensors"
    avae.train(replace(job, steps=2), seed=0, path=path)
    with pytest.raises(ConfigMismatch, match="eq12: free -> clamped"):
        avae.train(replace(job, eq12="clamped"), seed=0, path=path)
    assert avae.train(job, seed=0, path=path).rows == whole.rows
    assert max(whole.column("k")[1:]) < 0  # both halves had something to lose


def test_an_unknown_reading_is_refused():
    with pytest.raises(UnknownName, match="eq12"):
        config.resolve(Training("avae", **TINY), {"eq12": "open"})


def test_readings_change_one_thing_and_shipped_cards_name_their_run():
    runs = avae.SHIPPED
    changed = {"printed": "eq11", "free": "eq12", "kl_mean": "kl", "kl_sum": "kl"}
    lines = config.difference(runs["ablation_p"], runs["ablation_p_textbook"])
    assert [line.split(":")[0] for line in lines] == ["eq12"]
    for name, own in changed.items():
        lines = config.difference(runs["ablation_avae"], runs[f"ablation_{name}"])
        assert {line.split(":")[0] for line in lines} - {"log_every"} == {own}
    lines = config.difference(runs["ablation_no_vae"], runs["ablation_no_vae_pairs"])
    assert {line.split(":")[0] for line in lines} - {"log_every"} == {"unpaired"}
    for path in sorted((paths.checkpoints() / "avae").glob("ablation_*.safetensors")):
        card = models.load(path).card["config"]  # cards older than a field mean its default
        blank = Training("", "", 0, 0, 0, 0, 0)
        assert config.resolve(blank, card) == runs[path.stem.rpartition("_s")[0]], path.name


def test_after_step_adds_the_measure_and_the_ratio():
    step = Step(Training("avae", **TINY), seed=0)
    terms = {name: torch.tensor(v) for name, v in {"L_d": 0.4, "L_g": 0.1, "L_v": 0.2}.items()}
    step.after_step(terms)
    assert float(terms["M"]) == pytest.approx(0.4 + abs(0.2 - 0.1 - 0.06))
    assert float(terms["ratio"]) == pytest.approx(0.16 / 0.4)


def test_the_learning_rate_is_halved_at_every_milestone():
    step = Step(Training("avae", **TINY, halve_every=10), seed=0)
    factors = [step.before_step(s, 0) for s in (0, 9, 10, 19, 20, 35)]
    assert factors == [1, 1, 0.5, 0.5, 0.25, 0.125]
    assert Step(Training("avae", **TINY), seed=0).before_step(10**6, 0) == 1


# --- through the engine, the file and back ---------------------------------------------------


@pytest.fixture
def trained(tmp_path, monkeypatch):
    class Set:
        pixels = pixels()

    monkeypatch.setattr(data, "load", lambda *a, **k: Set, raising=False)
    job = Training("avae", **TINY, lr=1e-3)
    path = tmp_path / "run_s0.safetensors"
    return job, path, avae.train(job, seed=0, path=path)


def test_train_writes_networks_that_load_with_their_card(trained):
    _, path, history = trained
    model = models.load(path)
    assert set(model.parts) == {"encoder", "decoder", "critic_encoder", "critic_decoder"}
    state = checkpoint.networks(path.with_suffix(".state.safetensors"))
    for name, net in model.parts.items():
        for key, value in net.state_dict().items():
            assert torch.equal(value, state[name][key].half().float())  # shipped in half precision
    card = model.card
    assert card["images"] == 3 * 4
    assert card["budget"] == 12 / 4_800_000
    assert card["config"]["method"] == "avae"
    assert card["history"]["terms"] == history.terms
    for told, row in zip(card["history"]["rows"], history.rows, strict=True):
        assert told[0] == row[0]
        assert told == pytest.approx(row, rel=5e-5)  # five digits of each number
        assert all(float(f"{v:.5g}") == v for v in told)
    label = avae.scale_of(model, "quick", "cpu", (0,))
    assert "12 images seen" in label.text()
    assert "stand-in: none" in label.text()  # the data set, under its ledger name


def test_export_can_leave_networks_out(trained, tmp_path):
    job, path, _ = trained
    avae.export(
        path.with_suffix(".state.safetensors"), tmp_path / "d.safetensors", job, 0,
        only=("decoder",),
    )  # fmt: skip
    assert set(models.load(tmp_path / "d.safetensors").parts) == {"decoder"}


def test_a_finished_run_is_not_trained_again(trained):
    job, path, history = trained
    before = path.with_suffix(".state.safetensors").read_bytes()
    assert avae.train(job, seed=0, path=path).rows == history.rows
    assert path.with_suffix(".state.safetensors").read_bytes() == before


def test_an_altered_export_is_refused(trained):
    _, path, _ = trained
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(Corrupt, match="altered"):
        models.load(path)


def model_of(method, latent=16):
    net = Decoder(16, 4, latent).eval().requires_grad_(False)
    return models.Model({"decoder": net}, {"config": {"method": method, "latent": latent}})


@pytest.mark.parametrize("method", ["avae", "began"])
def test_samples_depend_on_the_seed_and_their_place(method):
    model = model_of(method)
    x = avae.sample(model, 10, seed=1, block=5)
    assert x.shape == (10, 3, 16, 16)
    assert float(x.abs().max()) <= 1
    assert torch.equal(x[:5], avae.sample(model, 5, seed=1, block=5))
    assert not torch.equal(x[:5], x[5:])
    assert not torch.equal(x, avae.sample(model, 10, seed=2, block=5))
    # the block size only changes how convolutions round
    assert torch.allclose(x, avae.sample(model, 10, seed=1, block=3), atol=1e-5)


def test_codes_are_drawn_in_the_decoders_own_type():
    model = model_of("avae")
    single = avae.sample(model, 4, seed=0)
    model["decoder"].double()
    assert torch.allclose(avae.sample(model, 4, seed=0).float(), single, atol=1e-5)


def test_two_processes_train_what_one_trains(tmp_path, monkeypatch):
    """The notebook's own call, shared by two gloo processes, gives the same networks."""
    job = avae.Training("avae", "digits", 32, 64, width=4, latent=4, channels=1, steps=3, lr=1e-3,
                       log_every=1)  # fmt: skip
    nets = {}
    for processes in ("1", "2"):
        monkeypatch.setenv("LATENTPAPERS_PROCESSES", processes)
        path = tmp_path / processes / "net.safetensors"
        history = avae.train(job, seed=0, path=path)
        assert len(history.rows) == 3
        nets[processes] = checkpoint.networks(path.with_suffix(".state.safetensors"))
    for name, state in nets["1"].items():
        for key, value in state.items():
            # Adam divides by the gradient's size, so a rounding error of 1e-7 can grow to a
            # thousandth of one step of 1e-3; three steps
            assert torch.allclose(value, nets["2"][name][key], atol=3e-6), (name, key)
    start = avae.Networks(job, 0).all["decoder"].state_dict()
    moved = max(float((start[k] - v).abs().max()) for k, v in nets["1"]["decoder"].items())
    assert moved > 1e-3  # the control: training moves them much further than the tolerance


def test_the_shipped_form_keeps_what_it_says(tmp_path):
    words = ["--run", "table_began", "--out", str(tmp_path), "--set", "steps=1", "--set", "width=4"]
    assert avae.train_from_cli([*words, "--set", "images=64", "--set", "precision=fp32"]) == 0
    assert set(models.load(tmp_path / "table_began_s0.safetensors").parts) == {"decoder"}


# --- learning curves --------------------------------------------------------------------------


def test_held_out_images_are_reproduced_by_vae_and_discriminator():
    job = Training("avae", **TINY)
    nets = {n: net.eval().requires_grad_(False) for n, net in avae.Networks(job, 0).all.items()}
    x = pixels(6).float() / 127.5 - 1
    found = avae.reproduced(models.Model(nets, {"config": {"method": "avae"}}), x, block=4)
    mean = nets["encoder"].moments(x)[0]
    again = nets["critic_decoder"](nets["critic_encoder"](x))
    by_hand = {"vae_l1_held_out": nets["decoder"](mean), "recon_l1": again}
    assert set(found) == set(by_hand)
    for name, made in by_hand.items():  # 1e-5: float32, other batch sizes
        assert torch.allclose(found[name], (x - made).abs().mean((1, 2, 3)), atol=1e-5)
    assert not torch.allclose(found["recon_l1"], found["vae_l1_held_out"], atol=1e-3)  # control


@pytest.mark.parametrize(("method", "has"), [("began", ["recon_l1"]), ("vae", ["vae_l1_held_out"])])
def test_a_method_is_measured_by_what_it_has(method, has):
    nets = avae.Networks(Training(method, **TINY), 0).all
    model = models.Model(nets, {"config": {"method": method}})
    assert [*avae.reproduced(model, pixels(2) / 127.5 - 1)] == has
    assert avae.reproduced(models.Model({}, {"config": {"method": "dcgan"}}), pixels(2) / 1.0) == {}


def test_a_learning_curve_is_measured_on_the_training_s_own_state(tmp_path, monkeypatch):
    """Also of a run whose file keeps the decoder alone."""

    class Set:
        pixels = pixels()

    monkeypatch.setattr(data, "load", lambda *a, **k: Set, raising=False)
    monkeypatch.setattr(avae.measuring, "_distance", lambda *a: {})
    path, job = tmp_path / "run_s0.safetensors", Training("avae", **TINY, lr=1e-3)
    rows = avae.RUNS.curve(job, seed=0, path=path, shares=(0.4, 1.0), only=("decoder",))
    assert [row["images"] for row in rows] == [4, 12]
    assert set(models.load(path).parts) == {"decoder"}
    state = checkpoint.networks(path.with_suffix(".state.safetensors"))
    nets = avae.Networks(job, 1).all  # of another seed, to be overwritten
    for name, net in nets.items():
        net.load_state_dict(state[name])
        net.eval()
    x = pixels() / 127.5 - 1
    mean = avae.reproduced(models.Model(nets, {"config": {"method": "avae"}}), x)["recon_l1"].mean()
    assert rows[1]["recon_l1"][0] == pytest.approx(float(mean), rel=1e-4)  # five digits are kept
    assert rows[0]["recon_l1"] != rows[1]["recon_l1"]  # control: the network of the first stop


def test_the_distance_of_real_digits_to_themselves_is_nothing(monkeypatch):
    job = Training("avae", **{**TINY, "data": "digits", "size": 32})
    real = data.to_float(data.load("digits", size=32, n=1000).pixels)
    for images in (real, torch.zeros_like(real) - 1):
        monkeypatch.setattr(avae.measuring, "sample", lambda *a, x=images: x)
        (found,) = avae.measuring._distance(None, job, 10, "cpu").values()
        if images is real:
            assert found.value < 1e-3  # rounding of a float64 distance between float32 features
        else:
            assert found.value > 10  # control: blank pages


def test_every_preset_names_known_methods_and_stays_in_the_promised_time():
    for preset in avae.PRESETS.values():
        assert {job.method for job in preset.training.values()} <= {*METHODS, *avae.BASELINES}
    gpu = avae.PRESETS["gpu"].training.values()
    assert sum(job.seconds for job in gpu) <= 520  # of 600: the rest is for measuring
    whole = avae.PRESETS["paper"].training.items()  # the paper has no ablations
    paper = [job for name, job in whole if not name.startswith("ablation_")]
    assert all((j.alpha, j.beta, j.gamma, j.eta, j.lr, j.steps) ==
               (0.3, 0.1, 0.1, 0.5, 5e-5, 300_000) for j in paper)  # fmt: skip
    assert all(j.gains_scale == 1 and j.precision == "fp32" for j in paper)
    assert math.prod((300_000, 16)) == avae.BUDGET
