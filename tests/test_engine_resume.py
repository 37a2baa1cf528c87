"""Resuming: bit for bit, after a kill, under another plan, from a damaged file, on a full disk."""

import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import engine_bed
import pytest
import torch
from engine_bed import ToyGan, differing, images, run_killable

from latentpapers.errors import ConfigMismatch, Corrupt, Diverged, StorageFull
from latentpapers.train import Fit, checkpoint, engine, fit

FULL = {"penalty": "gp", "lazy": 2, "critic_steps": 2, "dropout": 0.3, "decay": 0.9, "grow": True}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # bit-equality holds for one thread count
    yield
    torch.set_num_threads(before)


def run(path, steps=6, *, seed=1, config=None, task=None, **plan):
    options = {"batch": 8, "log_every": 2, "save_every": 2, "flip": True, **plan}
    task = task or ToyGan(**FULL)
    return fit(task, images(), Fit(steps, **options), seed=seed, config=config or {}, path=path)


# --- bit for bit -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "log_every", "micro", "precision"),
    [(4, 2, 1, "fp32"), (5, 2, 1, "fp16"), (3, 5, 2, "bf16"), (1, 50, 1, "fp32")],
)
def test_n_and_n_steps_equal_two_n(tmp_path, monkeypatch, first, log_every, micro, precision):
    """Networks, optimisers, averages, controller, history and sums; also where the first run ends
    between two rows or inside a stage of growing."""
    parts, whole = tmp_path / "parts.safetensors", tmp_path / "whole.safetensors"
    plan = {"log_every": log_every, "micro": micro, "precision": precision}
    monkeypatch.setattr(engine, "SCALE", 2.0**24)  # too large: fp16 halves it in the first steps
    run(parts, first, **plan)
    history = run(parts, 2 * first, **plan)
    straight = run(whole, 2 * first, **plan)
    trees = checkpoint.load(parts), checkpoint.load(whole)
    assert differing(*trees) == []
    assert history.rows == straight.rows
    assert set(trees[0]["optimizers"]) == {"g", "d"}
    assert trees[0]["ema"]["g"]
    assert float(trees[0]["task"]["k"]) != 0
    assert (trees[0]["scaler"] or {}).get("scale", 0) < 2**20


def test_control_the_state_matters(tmp_path):
    """Forgetting Adam's moments, the average or k would be seen by the comparison above."""
    path, whole = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    run(whole, 8)
    trees = {}
    for part in ("optimizers", "ema", "task"):
        run(path, 4)
        tree, about = checkpoint.load(path), checkpoint.header(path)
        fresh_path = tmp_path / "fresh.safetensors"
        run(fresh_path, 1)
        tree[part] = checkpoint.load(fresh_path)[part]
        checkpoint.save(path, tree, about=about)
        run(path, 8)
        trees[part] = differing(checkpoint.load(path), checkpoint.load(whole))
        path.unlink()
        fresh_path.unlink()
    assert any(k.startswith("/nets") for k in trees["optimizers"])
    assert any(k.startswith("/ema") for k in trees["ema"])
    assert "/task/k" in trees["task"]


def test_a_finished_run_returns_its_history_and_touches_nothing(tmp_path):
    path = tmp_path / "a.safetensors"
    history = run(path, 5)
    before = path.read_bytes()
    again = run(path, 5)
    assert again.rows == history.rows
    assert again.steps() == [2, 4, 5]
    assert path.read_bytes() == before


def test_a_run_killed_at_any_step_resumes_to_the_same_result(tmp_path):
    """A real process, SIGKILL at a step drawn from a seed; 14 steps, checkpoints every 3."""
    step = random.Random("kill").randrange(4, 13)
    path, whole = tmp_path / "killed.safetensors", tmp_path / "whole.safetensors"
    command = [sys.executable, engine_bed.__file__, "kill", str(path), str(step)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert checkpoint.header(path)["step"] == step // 3 * 3
    run_killable(path)
    run_killable(whole)
    assert differing(checkpoint.load(path), checkpoint.load(whole)) == []


# --- another configuration -------------------------------------------------------------------


def refusal(path, *args, **options):
    before = path.read_bytes()
    with pytest.raises(ConfigMismatch) as caught:
        run(path, *args, **options)
    assert path.read_bytes() == before
    return str(caught.value)


def test_a_resume_under_another_configuration_is_refused_with_the_difference(tmp_path):
    path = tmp_path / "a.safetensors"
    run(path, 2, config={"width": 8, "net": {"kind": "elu"}})
    text = refusal(path, 4, config={"width": 16, "net": {"kind": "relu"}})
    assert "width: 8 -> 16" in text
    assert "net.kind: elu -> relu" in text
    assert "delete the checkpoint" in text
    assert str(path) in text
    same = {"width": 8, "net": {"kind": "elu"}}
    assert "extra: (absent) -> 1" in refusal(path, 4, config={**same, "extra": 1})
    assert "net.kind: elu -> (absent)" in refusal(path, 4, config={"width": 8})


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"seed": 2}, "seed: 1 -> 2"),
        ({"batch": 4}, "batch: 8 -> 4"),
        ({"micro": 2}, "micro: 1 -> 2"),
        ({"flip": False}, "flip: True -> False"),
        ({"log_every": 1}, "log_every: 2 -> 1"),
        ({"precision": "bf16"}, "precision: fp32 -> bf16"),
    ],
)
def test_the_plan_is_part_of_the_configuration(tmp_path, change, line):
    path = tmp_path / "a.safetensors"
    run(path, 2)
    assert line in refusal(path, 4, **change)


def test_steps_seconds_and_the_interval_of_saving_may_change(tmp_path):
    path, whole = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    run(path, 3, seconds=1e9)
    run(path, 6, save_every=0)
    run(whole, 6)
    assert differing(checkpoint.load(path), checkpoint.load(whole)) == []


# --- NaN -------------------------------------------------------------------------------------


class Spoilt(ToyGan):
    """From step 5 on, a term is NaN (`loss`), or a gradient alone (`gradient`)."""

    def __init__(self, how, value=float("nan")):
        super().__init__(**FULL)
        self.how, self.value = how, value

    def critic_loss(self, x, fake, ctx):
        if ctx.step >= 5 and self.how == "loss":
            x = x * self.value
        return super().critic_loss(x, fake, ctx)

    def updates(self, batch, ctx):
        for group in super().updates(batch, ctx):
            if ctx.step == 5 and self.how == "gradient" and "g" in group:
                zero = self.nets["g"].code.weight - self.nets["g"].code.weight
                group["g"] = group["g"] + zero.square().sum().sqrt()  # 0 with slope 0/0
            yield group


def divergence(path, task, steps=12, **plan):
    with pytest.raises(Diverged) as caught:
        run(path, steps, task=task, **plan)
    return str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_stops_with_term_steps_and_checkpoint(tmp_path, value):
    path = tmp_path / "a.safetensors"
    text = divergence(path, Spoilt("loss", value), log_every=3)
    assert "term 'L_d' is " in text
    assert "between steps 4 and 6" in text
    assert f"the last good checkpoint, of step 4, is {path}" in text
    assert "Lower the learning rate" in text
    assert checkpoint.load(path)["step"] == 4
    # the file is good: an unspoilt run goes on from it
    run(path, 6, log_every=3)


def test_nan_between_two_rows_does_not_reach_a_checkpoint(tmp_path):
    path = tmp_path / "a.safetensors"
    text = divergence(path, Spoilt("loss"), log_every=50)
    assert "between steps 1 and 6" in text
    assert checkpoint.load(path)["step"] == 4


def test_nan_in_a_gradient_alone_does_not_reach_a_checkpoint(tmp_path):
    """Step 5's losses are all finite; its update is not, and the checkpoint of step 6 is due."""
    path = tmp_path / "a.safetensors"
    text = divergence(path, Spoilt("gradient"))
    assert "network 'g' came to hold NaN" in text
    nets = checkpoint.load(path)["nets"]
    assert all(v.isfinite().all() for net in nets.values() for v in net.values())
    assert checkpoint.header(path)["step"] == 4


def test_nan_without_a_checkpoint_says_so(tmp_path):
    text = divergence(None, Spoilt("loss"))
    assert "no checkpoint was written yet" in text
    path = tmp_path / "late.safetensors"
    assert "no checkpoint was written yet" in divergence(path, Spoilt("loss"), save_every=0)
    assert not path.exists()


def test_nan_after_a_resume_names_the_checkpoint_it_came_from(tmp_path):
    path = tmp_path / "a.safetensors"
    run(path, 4)
    text = divergence(path, Spoilt("loss"), save_every=0)
    assert f"of step 4, is {path}" in text


# --- damaged files and full disks ------------------------------------------------------------


def damaged(path, change):
    content = bytearray(path.read_bytes())
    path.write_bytes(change(content))


def flipped_bit(place):
    def change(content):
        content[place] ^= 4
        return content

    return change


@pytest.mark.parametrize(
    "change",
    [
        flipped_bit(-3), flipped_bit(0), flipped_bit(400), lambda c: c[:-1], lambda c: c[:100],
        lambda c: b"", lambda c: b"not a checkpoint at all",
    ],
)  # fmt: skip
def test_a_damaged_checkpoint_is_refused_and_left_alone(tmp_path, change):
    path = tmp_path / "a.safetensors"
    run(path, 2)
    damaged(path, change)
    before = path.read_bytes()
    with pytest.raises(Corrupt, match=path.name):
        run(path, 4)
    assert path.read_bytes() == before


def test_a_full_disk_is_one_sentence_and_the_old_checkpoint_stays(tmp_path):
    """A file size limit of the process: the write fails as on a full disk, in the middle."""
    path = tmp_path / "a.safetensors"
    old = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, old[1]))

    try:
        with pytest.raises(StorageFull, match="free space") as caught:
            run(path, 6, task=ToyGan(**FULL, at={3: fill}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert str(path) in str(caught.value)
    assert checkpoint.load(path)["step"] == 2
    assert [p.name for p in Path(tmp_path).iterdir()] == [path.name]
    run(path, 6)
    whole = tmp_path / "whole.safetensors"
    run(whole, 6)
    assert differing(checkpoint.load(path), checkpoint.load(whole)) == []
