"""Learning curves: stops that change nothing, rows that are measured once."""

import dataclasses
import json
import shutil

import pytest
import torch

from latentpapers import models
from latentpapers.errors import UserError
from latentpapers.metrics import frechet
from latentpapers.metrics.protocol import Score
from latentpapers.papers import lag
from latentpapers.train import checkpoint
from latentpapers.train.runs import curve_of, state_of

JOB = dataclasses.replace(
    lag.PRESETS["quick"].training["proof"], steps=16, images=16, batch=4, log_every=4
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run with its curve, and what was asked of the measure."""
    asked = []

    def measure(job, path, device):
        assert device == "cpu"
        asked.append((job.steps, models.load(path).card["images"]))
        return {"rmse_grey": Score(1 / job.steps, 0.0, 1.0, 4, "a stand-in")}

    runs = dataclasses.replace(lag.RUNS, measure=measure)
    path = tmp_path_factory.mktemp("curve") / "net.safetensors"
    return runs, path, runs.curve(JOB, seed=0, path=path), asked


def test_a_curve_is_measured_at_its_shares_of_the_run(measured):
    _, path, rows, asked = measured
    steps = [1, 2, 4, 8, 16]  # sixteenths of 16 steps
    assert asked == [(s, 4 * s) for s in steps]  # batch 4
    assert rows == [{"images": 4 * s, "rmse_grey": [1 / s, 0.0, 1.0]} for s in steps]
    card = models.load(path).card
    assert (card["curve"], card["images"], card["config"]["steps"]) == (rows, 64, 16)


def test_the_stops_change_nothing(measured, tmp_path):
    _, path, _, _ = measured
    lag.train(JOB, seed=0, path=tmp_path / "net.safetensors")
    lag.train(JOB, seed=1, path=tmp_path / "other.safetensors")
    ours, straight, other = (
        checkpoint.networks(state_of(p))["generator"]
        for p in (path, tmp_path / "net.safetensors", tmp_path / "other.safetensors")
    )
    assert all(torch.equal(ours[k], straight[k]) for k in ours)
    assert any(not torch.equal(ours[k], other[k]) for k in ours)  # the control


def test_what_is_measured_is_not_measured_again(measured):
    runs, path, rows, asked = measured
    before = len(asked)
    assert runs.curve(JOB, seed=0, path=path) == rows
    assert len(asked) == before
    curve_of(path).write_text(json.dumps(rows[:4]))  # stopped before the last measurement
    assert runs.curve(JOB, seed=0, path=path) == rows
    assert len(asked) == before + 1


def test_a_longer_run_goes_on_and_adds_its_stops(measured, tmp_path):
    runs, path, rows, asked = measured
    longer = dataclasses.replace(JOB, steps=32)
    for file in path.parent.iterdir():
        shutil.copy(file, tmp_path)
    path, before = tmp_path / path.name, len(asked)
    runs.train(longer, seed=0, path=path, curved=True)
    assert asked[before:] == [(32, 128)]  # its other stops are passed: 2, 4, 8 and 16 steps
    card = models.load(path).card
    assert card["curve"] == [*rows, {"images": 128, "rmse_grey": [1 / 32, 0.0, 1.0]}]
    assert (card["images"], card["config"]["steps"]) == (128, 32)
    state_of(path).unlink()  # what was measured of another run is forgotten
    runs.train(JOB, seed=0, path=path, curved=True)
    assert models.load(path).card["curve"] == rows


def test_a_room_without_a_measure_says_so(tmp_path):
    runs = dataclasses.replace(lag.RUNS, measure=None)
    with pytest.raises(UserError, match="lag has no measure"):
        runs.curve(JOB, seed=0, path=tmp_path / "net.safetensors")


def test_frechet_on_components_is_that_of_rotated_and_cut_features():
    g = torch.Generator().manual_seed(0)
    scales = torch.linspace(2, 0.1, 12)
    real, fake = (torch.randn(n, 12, generator=g) * scales for n in (400, 160))
    fake[:, 0] += 1.5
    whole = frechet.on_components(real, fake, components=12)
    # all components are a rotation, under which the distance stays; float32 features
    assert whole.value == pytest.approx(frechet.frechet_distance(real, fake), rel=1e-4)
    few = frechet.on_components(real, fake, components=3)
    assert few.low < few.value < few.high
    assert 1.5**2 < few.value < whole.value
    other = frechet.on_components(real, real[:160], components=3)
    assert other.value < 0.1 * few.value  # the control: the same distribution
