"""LSRGAN's training step and evaluation: the four variants, who moves whom, both stages, crops."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from latentpapers import config, data, models, paths, storage
from latentpapers.errors import Corrupt, Missing, UserError
from latentpapers.losses.contextual import contextual
from latentpapers.metrics import intervals
from latentpapers.metrics.protocol import Score
from latentpapers.nets.random_features import RandomFeatures
from latentpapers.nets.rrdb import RRDBNet
from latentpapers.papers import lsrgan
from latentpapers.papers.lsrgan import VARIANTS, Step, Training
from latentpapers.train import checkpoint, engine
from latentpapers.train.context import Context
from latentpapers.train.engine import Fit, fit
from latentpapers.weights import rrdb

TINY = {"data": "photos", "crop": 16, "steps": 3, "batch": 4, "width": 6, "blocks": 1, "growth": 3,
        "critic_width": 2, "encoder_width": 2, "features": "random", "init": "v01"}  # fmt: skip
ROUNDING = 1e-9  # relative, of float64 sums of a few thousand terms in another order


def bank():
    g = torch.Generator().manual_seed(0)
    hr = [torch.randint(256, (3, h, w), generator=g, dtype=torch.uint8)
          for h, w in ((24, 40), (32, 20), (16, 16))]  # fmt: skip
    return data.PairBank(hr, [lsrgan.reduced(x) for x in hr], 4)


def context(step=3, batch=4, start=0, stop=4):
    return Context(0, step, torch.device("cpu"), batch, start, stop)


def made(variant="clsr", seed=0, **options):
    job = Training("joint", variant=variant, **{**TINY, **options})
    step = Step(job, seed, bank(), lsrgan.feature_network(job).double())
    for net in step.nets.values():
        net.double()
    return step


def gradients(step, ctx=None, scale=1.0):
    """{update: gradients} as the engine takes them; the generator's group comes first."""
    ctx, out, order = ctx or context(), {}, []
    for group in step.updates(torch.empty(0), ctx):
        order.append(sorted(group))
        for name, loss in group.items():
            params = list(step.nets[name].parameters())
            out[name] = torch.autograd.grad(scale * loss, params, retain_graph=True)
    return out, order, ctx.terms


def written_out(step):
    """Eqs 1, 11, 13, 14 and 10 and the relativistic losses on the networks, from the paper."""
    hr, lr = step.crops(context())
    nets, kind = step.nets, VARIANTS[step.job.variant]
    fake = nets["generator"](lr)
    if kind.perceptual == "contextual":
        net = RandomFeatures("middle").double()
        percep = contextual(net(fake), net(hr))
    else:
        net = RandomFeatures("deep").double()
        percep = (net(fake) - net(hr)).abs().mean()
    real, judged = nets["critic"](hr), nets["critic"](fake)
    up = torch.sigmoid(judged - real.detach().mean())
    down = torch.sigmoid(real.detach() - judged.mean())
    adversarial = -(up.log().mean() + (1 - down).log().mean()) / 2
    total = percep + 5e-3 * adversarial + 1e-2 * (fake - hr).abs().mean()
    if kind.latent:
        total = total - 1e-3 * (nets["encoder"](hr) - nets["encoder"](fake)).abs().mean()
    still = fake.detach()
    real, judged = nets["critic"](hr), nets["critic"](still)
    own = -(torch.sigmoid(real - judged.mean()).log().mean()
            + (1 - torch.sigmoid(judged - real.mean())).log().mean()) / 2  # fmt: skip
    out = {"generator": total, "critic": own}
    if kind.latent:
        out["encoder"] = (nets["encoder"](hr) - nets["encoder"](still)).abs().mean()
    return {
        name: torch.autograd.grad(loss, list(nets[name].parameters()), retain_graph=True)
        for name, loss in out.items()
    }


def same(found, wanted):
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=ROUNDING, atol=ROUNDING * float(b.abs().max() + 1))


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_every_variant_is_its_equation(variant):
    step = made(variant)
    found, order, _ = gradients(step)
    wanted = written_out(step)
    assert order == [["generator"], sorted(set(wanted) - {"generator"})]
    for name in wanted:
        same(found[name], wanted[name])


def test_the_sign_of_mu_is_seen():
    """Control for the test above: with + mu the gradients differ."""
    right, wrong = made("lsr"), made("lsr", mu=-1e-3)
    pairs = zip(gradients(right)[0]["generator"], gradients(wrong)[0]["generator"], strict=True)
    assert any(float((a - b).abs().max()) > 1e-9 for a, b in pairs)


def test_esr_is_lsr_at_mu_0():
    """L is trained, but what it says reaches nobody: Table 4's first column is ESR retrained."""
    plain, silent = made("esr"), made("lsr", mu=0.0)
    assert "encoder" not in plain.nets
    assert "encoder" in silent.nets
    mine, _, terms = gradients(plain)
    theirs, _, more = gradients(silent)
    for name in ("generator", "critic"):
        same(theirs[name], mine[name])
    assert terms.keys() < more.keys()
    loud = gradients(made("lsr", mu=1.0))[0]["generator"]
    assert any(float((a - b).abs().max()) > 1e-6 for a, b in zip(loud, mine["generator"]))


def test_the_standard_adversary_is_the_logistic_one():
    step = made("esr", adversary="standard", features="random")
    _, lr = step.crops(context())
    _, _, terms = gradients(step)
    judged = step.nets["critic"](step.nets["generator"](lr)).detach()
    assert float(terms["adversarial"]) == pytest.approx(
        float(F.softplus(-judged).mean()),
        rel=1e-6,  # logged in fp32
    )


def direction(variant, precision, step=3):
    """Each network's gradient of a joint step as one vector, fp32 sums."""
    sizes = {"width": 16, "growth": 8, "critic_width": 8, "encoder_width": 4, "crop": 32}
    job = Training("joint", variant=variant, **{**TINY, **sizes, "batch": 8})
    g = torch.Generator().manual_seed(0)
    hr = [torch.randint(256, (3, 48, 40), generator=g, dtype=torch.uint8)]
    with_it = Step(job, 0, data.PairBank(hr, [lsrgan.reduced(hr[0])], 4),
                   lsrgan.feature_network(job))  # fmt: skip
    ctx = Context(0, step, torch.device("cpu"), 8, 0, 8, precision)
    found, _, _ = gradients(with_it, ctx, engine.SCALE if precision == "fp16" else 1.0)
    return {name: torch.cat([x.flatten() for x in g]).double() for name, g in found.items()}


@pytest.mark.parametrize("variant", ["lsr", "clsr"])
def test_half_precision_moves_every_network_the_same_way(variant):
    """The bar is a cosine > 0.99 between the gpu preset's fp16 and fp32; other crops are the
    control. bf16, three bits less, keeps the direction at this width and loses it at full width."""
    full, other = direction(variant, "fp32"), direction(variant, "fp32", step=4)
    halves = {precision: direction(variant, precision) for precision in ("fp16", "bf16")}
    for name in full:
        fine, coarse = (float(F.cosine_similarity(full[name], halves[p][name], dim=0))
                        for p in ("fp16", "bf16"))  # fmt: skip
        assert 0.99 < coarse < fine < 1, name
    assert float(F.cosine_similarity(full["critic"], other["critic"], dim=0)) < 0.99


def test_first_stage_moves_g_and_l_apart():
    job = Training("psnr", **TINY)
    step = Step(job, 0, bank())
    for net in step.nets.values():
        net.double()
    assert sorted(step.nets) == ["encoder", "generator"]
    assert lsrgan.feature_network(job) is None
    found, order, terms = gradients(step)
    assert order == [["encoder", "generator"]]
    hr, lr = step.crops(context())
    wanted = torch.autograd.grad(
        F.l1_loss(step.nets["encoder"](hr), lr), list(step.nets["encoder"].parameters())
    )
    same(found["encoder"], wanted)
    assert float(terms["pixel"]) == pytest.approx(
        float(F.l1_loss(step.nets["generator"](lr).detach(), hr)), rel=1e-6
    )


def test_crops_are_aligned_and_shared_by_micro_batches():
    step = made()
    hr, lr = step.crops(context())
    parts = [step.crops(context(start=s, stop=s + 2)) for s in (0, 2)]
    assert torch.equal(torch.cat([p[0] for p in parts]), hr)
    assert torch.equal(torch.cat([p[1] for p in parts]), lr)
    assert not torch.equal(step.crops(context(step=4))[0], hr)


def test_both_crops_show_the_same_place():
    """Away from the border, where a crop's own reduction lacks its surroundings, they agree."""
    g = torch.Generator().manual_seed(1)
    large = [torch.randint(256, (3, 64, 48), generator=g, dtype=torch.uint8)]
    job = Training("psnr", **{**TINY, "crop": 32})
    hr, lr = Step(job, 0, data.PairBank(large, [lsrgan.reduced(large[0])], 4)).crops(context())
    again = data.downscale(hr, 4)
    inside = slice(2, -2)
    gap = (again - lr)[:, :, inside, inside].abs().max()
    assert float(gap) < 2 / 255  # rounded once an axis, and cut at 0 and 255
    wrong = (again - lr.flip(0))[:, :, inside, inside].abs().max()
    assert float(wrong) > 20 / 255


def test_relu_and_bandwidth_are_options_that_matter():
    base = gradients(made("clsr"))[2]["percep"]
    for option in ({"relu": True}, {"bandwidth": 0.1}):
        assert abs(float(gradients(made("clsr", **option))[2]["percep"] - base)) > 1e-4
    assert float(gradients(made("esr", relu=True))[2]["percep"]) != float(
        gradients(made("esr"))[2]["percep"]
    )


@pytest.mark.parametrize(("init", "scaled"), [("v00", True), ("v01", False)])
def test_readings_of_the_initialisation(init, scaled):
    job = Training("psnr", **{**TINY, "init": init, "width": 16})
    nets = lsrgan.networks(job, 0)
    wide = nets["generator"].conv_body.weight.std().item() / (2 / (9 * 16)) ** 0.5
    assert wide == pytest.approx(0.1 if scaled else 1.0, rel=0.1)  # 2,304 values: 1.5 % spread
    dense = nets["generator"].body[0].rdb1.conv5.weight.std().item()
    assert dense / (2 / (9 * 28)) ** 0.5 == pytest.approx(0.1, rel=0.1)


# --- runs through the engine ----------------------------------------------------------------------


def run(job, path, seed=0, **options):
    lsrgan.train(job, seed=seed, path=path, **options)
    return checkpoint.networks(path.with_suffix(".state.safetensors"))


@pytest.fixture
def started(tmp_path):
    run(Training("psnr", **{**TINY, "images": 1}), tmp_path / "psnr.safetensors")
    return tmp_path


def joint(variant="clsr", **options):
    return Training("joint", variant=variant, start="psnr", **{**TINY, "images": 1, **options})


def test_a_joint_run_starts_from_the_shared_file_and_resumes_to_the_same(started):
    whole = run(joint(), started / "whole.safetensors")
    run(joint(steps=1), started / "pieces.safetensors")
    pieces = run(joint(), started / "pieces.safetensors")
    assert all(torch.equal(whole[n][k], pieces[n][k]) for n in whole for k in whole[n])
    first = models.load(started / "psnr.safetensors")
    nets = lsrgan.networks(joint(), 0)
    digest = lsrgan.begin_from(nets, joint(), started / "x.safetensors")
    assert len(digest) == 64
    for name in ("generator", "encoder"):
        for mine, theirs in zip(nets[name].parameters(), first[name].parameters(), strict=True):
            assert torch.equal(mine, theirs)
    other = run(joint(), started / "other.safetensors", seed=1)
    assert any(not torch.equal(whole["generator"][k], other["generator"][k])
               for k in whole["generator"])  # fmt: skip


def test_the_card_adds_up_both_stages(started):
    run(joint("lsr"), started / "lsr_s0.safetensors", only=("generator",))
    model = models.load(started / "lsr_s0.safetensors")
    assert list(model.parts) == ["generator"]
    assert model.card["images"] == 2 * 3 * 4
    assert model.card["budget"] == pytest.approx(24 / (2 * 16 * 500_000))
    scale = lsrgan.scale_of(model, "quick", "cpu", (0,), "photos")
    assert scale.standin == ("photos", "random", "photos") or scale.standin == ("photos", "random")
    assert "RRDB 6 x 1" in scale.data
    assert "scores only" not in scale.data
    scale = lsrgan.scale_of(model, "quick", "cpu", (1,), "photos", (1, 2))
    assert scale.data.endswith("tested on photos (seeds 1, 2: scores only)")


def test_a_public_origin_is_said_by_every_run_that_goes_back_to_it(started, monkeypatch):
    """The first stage starts from public weights, the variants from the first stage's file."""
    plain = lsrgan.runs._card(joint("lsr"), started / "lsr.safetensors", 12, {})
    assert plain["origin"] == ""
    begun = replace(joint(), stage="psnr", start="realsr_df2k")
    assert lsrgan.runs._card(begun, started / "x", 12, {})["origin"] == "realsr_df2k"
    first = models.Model({}, {"images": 5, "origin": "realsr_df2k"})
    monkeypatch.setattr(models, "load", lambda file: first)
    card = lsrgan.runs._card(joint("lsr"), started / "lsr.safetensors", 12, {})
    assert (card["origin"], card["images"]) == ("realsr_df2k", 17)
    label = {"config": {**config.as_dict(joint("lsr")), "data": "div2k"}, **card}
    for said, origin in ((True, "realsr_df2k"), (False, "")):
        model = models.Model({}, {**label, "origin": origin})
        scale = lsrgan.scale_of(model, "gpu", "cpu", (0,))
        assert ("initialised from RealSR-DF2K" in scale.data) is said


def test_a_learning_curve_is_measured_on_the_crops_of_quick(started, monkeypatch):
    run(joint(), started / "esr_s0.safetensors", only=("generator",))
    pairs = lsrgan.evaluation_pairs("photos", each=1)[:2]
    monkeypatch.setattr(lsrgan.measuring, "evaluation_pairs", lambda name: pairs)
    found = lsrgan.RUNS.measure(joint(), started / "esr_s0.safetensors")
    assert set(found) == {"psnr_y_b4_u8", "ssim_y_7x7_b4", "niqe_pirm", "gradient_energy_ratio"}
    net = lsrgan.load_generator(models.load(started / "esr_s0.safetensors"))
    again = lsrgan.measure(lambda p: lsrgan.enlarge(net, p.lr), {"photos": pairs}, ("photos",))
    for metric, column in (("psnr_y_b4_u8", "PSNR"), ("gradient_energy_ratio", "sharpness")):
        assert found[metric].value == pytest.approx(float(again["photos"][column].mean()))
    assert found["psnr_y_b4_u8"].method == "bootstrap over 2 photographs, 95 %"


def test_a_start_that_is_not_there_or_does_not_fit(started, tmp_path):
    with pytest.raises(Missing, match="train 'nowhere' there first"):
        lsrgan.start_file(replace(joint(), start="nowhere"), tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="other sizes"):
        run(joint(width=8), started / "wide.safetensors")


def rrdb_file(folder, layout, ending="safetensors"):
    """Weights of the tiny generator as others publish them; their state dict under our keys."""
    state = lsrgan.networks(joint(), 7)["generator"].state_dict()
    file = folder / f"{layout}.{ending}"
    theirs = rrdb.convert(state, layout)
    if ending == "pth":
        torch.save(theirs, file)
    else:
        save_file({k: v.contiguous() for k, v in theirs.items()}, file)
    return file, state


@pytest.mark.parametrize(
    ("layout", "ending"), [("old", "pth"), ("esrgan", "safetensors"), ("basicsr", "safetensors")]
)
def test_a_run_starts_from_a_file_of_rrdb_weights_in_any_layout(tmp_path, layout, ending):
    file, state = rrdb_file(tmp_path, layout, ending)
    job = replace(joint("esr"), stage="psnr", start=str(file))
    nets = lsrgan.networks(job, 0)
    key = next(iter(state))
    assert not torch.equal(nets["generator"].state_dict()[key], state[key])  # control
    digest = lsrgan.begin_from(nets, job, tmp_path / "psnr.safetensors")
    assert digest == storage.sha256_file(file)
    found = nets["generator"].state_dict()
    assert all(torch.equal(found[k], state[k]) for k in state)
    run(job, tmp_path / "psnr.safetensors")
    card = models.load(tmp_path / "psnr.safetensors").card
    assert (card["origin"], card["images"]) == (file.name, 12)
    label = lsrgan.scale_of(models.load(tmp_path / "psnr.safetensors"), "quick", "cpu", (0,))
    assert f"initialised from {file.name}" in label.data


def test_a_file_to_start_from_that_is_none_is_said(tmp_path):
    with pytest.raises(Missing, match=r"no file .*absent\.pth.*run trained before.*realsr_df2k"):
        lsrgan.begin_from({}, replace(joint(), start=str(tmp_path / "absent.pth")), tmp_path / "x")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(Corrupt, match="no RRDB network"):
        lsrgan.begin_from(
            {}, replace(joint(), start=str(tmp_path / "other.safetensors")), tmp_path / "x"
        )
    file, _ = rrdb_file(tmp_path, "esrgan")
    job = replace(joint(), start=str(file), width=8)
    with pytest.raises(UserError, match="other sizes"):
        lsrgan.begin_from(lsrgan.networks(job, 0), job, tmp_path / "x")


def test_nothing_starts_from_a_first_stage_below_bicubic(started, monkeypatch):
    pairs = lsrgan.evaluation_pairs("photos", each=1, crop=48)[:2]
    monkeypatch.setattr(lsrgan.measuring, "evaluation_pairs", lambda name: pairs)
    monkeypatch.setitem(lsrgan.TITLES, "set5", "Set5")
    with pytest.raises(UserError, match=r"psnr\.safetensors does not beat bicubic on every picture "
                                        r"of Set5: .* dB\).*no variant may start"):  # fmt: skip
        lsrgan.hold_bar(started / "psnr.safetensors", "set5")
    # a network better than bicubic is let through: here the truth itself, in order
    truth = iter(pairs)
    monkeypatch.setattr(lsrgan.outputs, "enlarge", lambda net, lr: next(truth).hr)
    gains = lsrgan.hold_bar(started / "psnr.safetensors", "set5")
    assert set(gains) == {pair.name for pair in pairs}
    assert min(gains.values()) > 0


def test_the_bar_stands_between_the_stages_of_gpu():
    assert lsrgan.PRESETS["gpu"].bar in lsrgan.PRESETS["gpu"].tests
    assert next(iter(lsrgan.PRESETS["gpu"].training.values())).stage == "psnr"
    book = json.loads((paths.root() / "notebooks/lsrgan/2_training.ipynb").read_text())
    train = next(c for c in book["cells"] if "train" in c["metadata"].get("tags", []))
    code = "".join(train["source"])
    assert code.index("lsrgan.train(") < code.index("lsrgan.hold_bar(path, run.config.bar")


def test_a_run_that_the_clock_ended_says_so_in_its_label(started):
    run(joint("esr"), started / "esr_s0.safetensors", only=("generator",))
    model = models.load(started / "esr_s0.safetensors")
    whole = lsrgan.scale_of(model, "gpu", "cpu", (0,))
    assert "time limit" not in whole.data
    model.card["steps"] = 2
    cut = lsrgan.scale_of(model, "gpu", "cpu", (0,))
    assert "ended by its time limit after 2 of 3 steps" in cut.data


def test_micro_batches_give_the_run_of_one_batch_without_the_critic(tmp_path):
    """The critic's batch normalisation sees each micro-batch apart, so stage 1 alone is equal."""
    job, seen = Training("psnr", **TINY), []
    for micro in (1, 2):
        step = Step(job, 0, bank())
        for net in step.nets.values():
            net.double()
        tickets = torch.zeros(4, 1, 1, 1, dtype=torch.uint8)
        fit(step, tickets, Fit(steps=2, batch=4, micro=micro), seed=0, config=job)
        seen.append([p.detach() for p in step.nets["generator"].parameters()])
    same(*seen)


def test_a_run_survives_its_way_through_json(tmp_path):
    from latentpapers import storage

    job = replace(lsrgan.PRESETS["paper"].training["lsr"], seconds=1.5)
    storage.write_json(tmp_path / "job.json", config.as_dict(job))
    assert lsrgan.RUNS.read(tmp_path / "job.json") == job


def test_paper_preset_is_the_published_setting():
    runs = lsrgan.PRESETS["paper"].training
    first, lsr = runs["psnr"], runs["lsr"]
    assert (first.lr, first.halve_at, first.steps) == (2e-4, (200_000, 400_000), 500_000)
    assert (lsr.lr, lsr.halve_at) == (1e-4, (50_000, 100_000, 200_000, 300_000))
    assert (lsr.lam, lsr.eta, lsr.mu, lsr.batch, lsr.crop) == (5e-3, 1e-2, 1e-3, 16, 128)
    assert (lsr.width, lsr.blocks, lsr.growth, lsr.features) == (64, 23, 32, "vgg19")
    assert sorted({r.mu for r in runs.values() if r.variant == "lsr"}) == [1e-7, 1e-5, 1e-3, 1e-2]
    for name in VARIANTS:
        assert replace(runs[name], variant="esr") == runs["esr"]  # equal but for the variant


def test_every_shorter_joint_stage_keeps_the_paper_s_shares_of_its_schedule():
    """At the full rate to the end, a shipped network would be one sample of Adam's oscillation."""
    paper = lsrgan.PRESETS["paper"].training["esr"]
    shares = [m / paper.steps for m in paper.halve_at]
    tables = {"shipped": lsrgan.SHIPPED, "gpu": lsrgan.PRESETS["gpu"].training}
    for name, table in tables.items():
        joint_runs = [job for job in table.values() if job.stage == "joint"]
        assert len({(j.steps, j.halve_at, j.lr, j.batch, j.crop) for j in joint_runs}) == 1, name
        job = joint_runs[0]
        assert [m / job.steps for m in job.halve_at] == pytest.approx(shares, abs=1 / job.steps)
        assert job.lr == paper.lr
        step = made("esr", steps=job.steps, halve_at=job.halve_at)
        assert (step.before_step(0, 0), step.before_step(job.steps - 1, 0)) == (1, 1 / 16)


def test_gpu_preset_keeps_its_budget():
    runs = lsrgan.PRESETS["gpu"].training.values()
    assert sum(job.seconds for job in runs) <= 600 - 120  # evaluation takes the rest
    assert set(lsrgan.PRESETS["gpu"].niqe) == set(lsrgan.PRESETS["gpu"].tests)
    assert len({(j.steps, j.seconds) for j in runs if j.stage == "joint"}) == 1


def test_the_first_stage_of_gpu_states_its_steps():
    """Ended by the clock at the full rate, it would be another start on every machine."""
    shipped, gpu = lsrgan.SHIPPED["psnr"], lsrgan.PRESETS["gpu"].training["psnr"]
    shares = [[m / job.steps for m in job.halve_at] for job in (shipped, gpu)]
    assert shares[0] == shares[1] == [0.5, 0.75, 0.875]
    assert gpu.steps * 0.075 <= gpu.seconds  # leaves 75 ms a step


# --- inference and evaluation ---------------------------------------------------------------------


def test_enlarge_rounds_and_clamps():
    net = RRDBNet(6, 1, 3).eval()
    lr = torch.randint(256, (3, 9, 7), generator=torch.Generator().manual_seed(1)).byte()
    with torch.no_grad():
        net.conv_last.bias += 0.5
        whole = net(lr[None] / 255)[0]
    wanted = (whole.clamp(0, 1) * 255).round().byte()
    found = lsrgan.enlarge(net, lr, tile=4)
    assert found.dtype == torch.uint8
    assert found.shape == (3, 36, 28)
    # tiles may round a value on the edge of two grey levels the other way
    assert int((found.int() - wanted.int()).abs().max()) <= 1


@pytest.mark.parametrize(
    "picture", [torch.rand(3, 8, 8), torch.zeros(1, 3, 8, 8).byte(), torch.zeros(4, 8, 8).byte(),
                torch.zeros(8, 8, 3).byte()],
)  # fmt: skip
def test_enlarge_takes_bytes_of_three_colours_alone(picture):
    """Values in [0, 1] were divided by 255 once more: a black picture and no word."""
    with pytest.raises(UserError, match="a picture is uint8"):
        lsrgan.enlarge(RRDBNet(4, 1, 2), picture)


@pytest.mark.parametrize("crop", [0, 2, 210, 4000])
def test_crops_that_cannot_be_are_refused(crop):
    """210 px gave a truth of 210 beside an enlargement of 208; 4000 gave whatever was left."""
    with pytest.raises(UserError, match=f"crops of {crop} px"):
        lsrgan.evaluation_pairs("photos", crop=crop)


def test_reduced_does_not_stretch():
    hr = torch.zeros(3, 130, 128, dtype=torch.uint8)
    with pytest.raises(UserError, match="do not divide by 4"):
        lsrgan.reduced(hr)
    assert lsrgan.reduced(hr[:, :128]).shape == (3, 32, 32)


def test_evaluate_is_the_protocol_on_each_picture():
    pairs = lsrgan.evaluation_pairs("photos", crop=64, each=1)
    assert len(pairs) == 6
    assert not {"astronaut", "camera"} & {p.name.split()[0] for p in pairs}  # no person
    found = [lsrgan.bicubic(p.lr) for p in pairs]
    values = lsrgan.evaluate(found, pairs, ("PSNR", "L1"))
    by_hand = [
        np.abs(_y(x)[4:-4, 4:-4] - _y(p.hr)[4:-4, 4:-4]).mean() / 255
        for x, p in zip(found, pairs, strict=True)
    ]
    np.testing.assert_allclose(values["L1"], by_hand, rtol=1e-12)  # integers in float64
    assert float(values["PSNR"].min()) > 15


def _y(x):
    red, green, blue = x.double().numpy()
    return np.round(16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255)


def test_low_resolution_crops_know_their_surroundings():
    """The whole photograph is reduced first: the crop's own border is not an image border."""
    pair = lsrgan.evaluation_pairs("photos", crop=64, each=1)[0]
    alone = lsrgan.reduced(pair.hr)
    assert torch.equal(alone[:, 3:-3, 3:-3], pair.lr[:, 3:-3, 3:-3])
    assert not torch.equal(alone, pair.lr)


def test_all_crops_that_fit_lie_side_by_side():
    found = lsrgan.evaluation_pairs("photos", crop=208, each=0)
    counts = {}
    for pair in found:
        counts[pair.name.split()[0]] = counts.get(pair.name.split()[0], 0) + 1
        assert pair.hr.shape == (3, 208, 208)
        assert pair.lr.shape == (3, 52, 52)
    whole = data.photos()
    assert counts == {n: (whole[n].shape[1] // 208) * (whole[n].shape[2] // 208) for n in counts}
    places = lsrgan.pictures._places(107, 160, 52, 0)
    assert places == [(1, 2), (1, 54), (1, 106), (53, 2), (53, 54), (53, 106)]
    assert lsrgan.pictures._places(107, 160, 52, 1) == [(27, 54)]  # the middle, as before


def test_place_of_largest_difference():
    first = torch.zeros(3, 40, 48, dtype=torch.uint8)
    second = first.clone()
    second[:, 21:29, 33:41] = 200
    top, left = lsrgan.place_of_largest_difference(first, second, 16)
    assert top <= 21
    assert top + 16 >= 29
    assert left <= 33
    assert left + 16 >= 41
    assert (top % 4, left % 4) == (0, 0)
    assert lsrgan.place_of_largest_difference(first, first, 16) == (0, 0)
    shifted = second + 50  # control: a shift of brightness moves nothing
    assert lsrgan.place_of_largest_difference(first, shifted, 16) == (top, left)
    for bad in (64, 18, 0, -4):
        with pytest.raises(UserError, match="cannot cut"):
            lsrgan.place_of_largest_difference(first, second, bad)
    with pytest.raises(UserError, match="cannot cut"):
        lsrgan.place_of_largest_difference(first, second[:, 1:], 16)


def test_sharpness_orders_blur():
    pair = lsrgan.evaluation_pairs("photos", crop=64, each=1)[0]
    blurred = lsrgan.bicubic(pair.lr)
    sharp, soft = lsrgan.sharpness([pair.hr, blurred])
    assert float(soft) < float(sharp)


# --- comparisons ----------------------------------------------------------------------------------


def two_sets(shift):
    g = torch.Generator().manual_seed(5)
    return {
        name: {"PSNR": torch.randn(20, generator=g, dtype=torch.float64) + by}
        for name, by in zip(("set14", "bsd100"), shift, strict=True)
    }


def test_a_claim_about_every_set_is_as_good_as_its_worst_set():
    found = lsrgan.differences(two_sets((1.0, 0.2)), two_sets((0.0, 0.0)), "PSNR")
    assert list(found) == ["set14", "bsd100", "all images"]
    assert found["set14"].value == pytest.approx(1.0)  # equal draws: only the shift is left
    assert found["all images"].value == pytest.approx(0.6)
    assert found["all images"].n == 40
    assert lsrgan.worst_sets([found], higher=True)[0].value == pytest.approx(0.2)
    assert lsrgan.worst_sets([found], higher=False)[0].value == pytest.approx(1.0)
    left = lsrgan.worst_sets([found], higher=False, leave=("set14",))
    assert left[0].value == pytest.approx(0.2)
    with pytest.raises(UserError, match="every test set"):
        lsrgan.worst_sets([found], higher=True, leave=("set14", "bsd100"))


def test_over_seeds_the_worst_set_is_the_one_that_fails():
    """Five pictures give Set5 the widest interval over pictures in every training, whatever its
    mean; the verdict reads the seeds, and there BSD100 is the set on which the method loses."""

    def score(value, half):
        return Score(value, value - half, value + half, 5, "")

    seeds = [{"set5": score(0.30 + e, 0.5), "bsd100": score(-0.10 + e, 0.01)}
             for e in (-0.01, 0.0, 0.01)]  # fmt: skip
    assert all(min(one, key=lambda n: one[n].low) == "set5" for one in seeds)
    found = lsrgan.worst_sets(seeds, higher=True)
    assert [s.value for s in found] == pytest.approx([-0.11, -0.10, -0.09])
    assert intervals.over_seeds([s.value for s in found]).high < 0
    assert lsrgan.worst_sets(seeds[:2], higher=True)[0].value == pytest.approx(-0.11)
    mirrored = [{n: score(-s.value, s.high - s.value) for n, s in one.items()} for one in seeds]
    assert [s.value for s in lsrgan.worst_sets(mirrored, higher=False)] == pytest.approx(
        [0.11, 0.10, 0.09]
    )


def test_photographs_of_several_sets_keep_apart():
    """Both sets have a photograph "cat": two photographs; a set of whole pictures adds its own."""
    cut = {"a": ("cat", "cat", "cup"), "b": ("cat", "cat"), "c": None}
    found = lsrgan.pooled_groups(cut, {"a": 3, "b": 2, "c": 2})
    assert len(found) == 7
    partition = [[found.index(name) for name in found]]
    assert partition == [[0, 0, 2, 3, 3, 5, 6]]  # the first picture of each one's photograph
    assert lsrgan.pooled_groups({"c": None}, {"c": 2}) is None
    assert lsrgan.pooled_groups(cut, {"c": 2}) is None  # sets that are not pooled say nothing
    assert lsrgan.pooled_groups({}, {"c": 2}) is None


def test_pooled_sets_draw_their_photographs_whole():
    """Copies of a crop are no evidence, in either set; taken one by one they would seem to be."""
    base = two_sets((0.3, 0.1))
    copies = {name: {"PSNR": v["PSNR"].repeat(9)} for name, v in base.items()}
    zero = {name: {"PSNR": torch.zeros_like(v["PSNR"])} for name, v in copies.items()}
    of = {name: tuple(f"photo {i}" for i in range(20)) * 9 for name in base}
    ours = lsrgan.differences(copies, zero, "PSNR", groups=of)["all images"]
    none = {name: {"PSNR": torch.zeros(20)} for name in base}
    once = lsrgan.differences(base, none, "PSNR")["all images"]
    # ends of 2000 draws each scatter by 0.03 of the spread, about 1 / sqrt(40)
    near = 5 * 0.05 / np.sqrt(40)
    assert [ours.low, ours.high] == pytest.approx([once.low, once.high], abs=near)
    assert ours.method == "paired bootstrap over 40 photographs, 95 %"
    naive = lsrgan.differences(copies, zero, "PSNR")["all images"]  # the control
    assert naive.high - naive.low < 0.4 * (ours.high - ours.low)


def test_spread_difference_is_numpy_s_and_covers_it():
    g = torch.Generator().manual_seed(6)
    a, b = (s * torch.randn(400, generator=g, dtype=torch.float64) for s in (2.0, 1.0))
    found = lsrgan.spread_difference(a, b)
    assert found.value == pytest.approx(np.std(a.numpy()) - np.std(b.numpy()))
    assert found.low < 1.0 < found.high
    same = lsrgan.spread_difference(a, a)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)  # resampled together


def test_shares_means_and_winners():
    """A difference in per cent, networks averaged picture by picture, who wins a comparison."""
    a = {"x": {"PSNR": torch.tensor([1.0, 3.0]), "NIQE": torch.tensor([5.0, 5.0])}}
    b = {"x": {"PSNR": torch.tensor([2.0, 6.0]), "NIQE": torch.tensor([4.0, 4.0])}}
    assert lsrgan.mean_of([a, b], "PSNR")["x"]["PSNR"].tolist() == [1.5, 4.5]
    plain = lsrgan.differences(a, b, "PSNR")["x"]
    share = lsrgan.differences(a, b, "PSNR", percent=True)["x"]
    assert (plain.value, share.value) == (-2, -50)
    assert share.low == pytest.approx(100 * plain.low / 4)
    best = lsrgan.best_of({"a": a, "b": b}, {"PSNR": True, "NIQE": False, "PI": False})
    assert best == {"PSNR x": "b", "NIQE x": "b"}
    assert lsrgan.best_of({"a": a, "b": b}, {"NIQE": True}) == {"NIQE x": "a"}  # control


def test_range_of_means():
    g = torch.Generator().manual_seed(7)
    base = torch.randn(200, generator=g, dtype=torch.float64)
    found = lsrgan.range_of_means([base, base + 0.5, base + 0.2])
    assert (found.value, found.low) == pytest.approx((0.5, 0.5))  # what images share cancels
    assert lsrgan.range_of_means([base, base]).high == 0.0


def test_columns_name_the_set_and_what_is_missing_of_it():
    assert lsrgan.title_of_set("bsd100", 100, "table_1") == "BSD"
    assert lsrgan.title_of_set("bsd100", 100, "table_4") == "BSD100"
    assert lsrgan.title_of_set("urban100", 20, "table_1") == "Urban100 (20 of 100)"
    assert lsrgan.title_of_set("set14", 14, "table_1") == "Set14"
    assert lsrgan.title_of_set("photos", 12, "table_1") == "photos"


def test_measure_gives_every_column():
    pairs = {"photos": lsrgan.evaluation_pairs("photos", crop=128, each=1)[:2]}
    values = lsrgan.measure(lambda p: lsrgan.bicubic(p.lr), pairs, niqe=())["photos"]
    assert sorted(values) == ["L1", "PSNR", "SSIM", "sharpness", "wrapped L1"]
    assert all(v.shape == (2,) for v in values.values())
    assert float(values["sharpness"].max()) < 1  # bicubic is smoother than the truth
