"""Two processes give the losses and gradients of one, second-order penalties included.

One torchrun of two gloo processes runs everything (`engine_bed.several_ranks`); the tests compare
what it wrote with the same runs in this process.
"""

import json
import shutil
import subprocess
import sys

import engine_bed
import pytest
import torch
from engine_bed import SHARED, STEPS, largest

from latentpapers.train import checkpoint
from latentpapers.train.distributed import Group, join, launch, single

# float64, halves summed in another order: 1e-16 a gradient. The task's k comes from terms that are
# logged in float32, so that later steps differ by 1e-8.
GRADIENT, LATER = 1e-12, 1e-6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    launch([engine_bed.__file__, "ranks", str(folder)], 2)
    before = torch.get_num_threads()
    engine_bed.run_shared(folder)
    torch.set_num_threads(before)
    return folder


def trees(folder, name, steps, tag):
    one, other = (folder / f"{name}_{steps}_{t}.safetensors" for t in ("one", tag))
    return checkpoint.load(one), checkpoint.load(other)


@pytest.mark.parametrize("tag", ["two", "two_by_two"])
@pytest.mark.parametrize("name", SHARED)
def test_gradients_of_two_processes_are_those_of_one(folder, name, tag):
    """One step of SGD at rate 1 moves every parameter by its gradient."""
    assert largest(*trees(folder, name, 1, tag)) < GRADIENT


@pytest.mark.parametrize("tag", ["two", "two_by_two"])
@pytest.mark.parametrize("name", SHARED)
def test_losses_and_networks_agree_over_several_steps(folder, name, tag):
    one, two = trees(folder, name, STEPS, tag)
    assert largest(one, two) < LATER
    assert one["history"]["terms"] == two["history"]["terms"]
    assert "penalty" in one["history"]["terms"]
    for a, b in zip(one["history"]["rows"], two["history"]["rows"], strict=True):
        assert a == pytest.approx(b, abs=LATER)


@pytest.mark.parametrize("name", SHARED)
def test_control_without_the_sum_over_processes_gradients_differ(folder, name):
    assert largest(*trees(folder, name, 1, "silent")) > 1e-3


@pytest.fixture(scope="module")
def facts(folder):
    return [json.loads((folder / f"rank{r}.json").read_text()) for r in (0, 1)]


def test_averages_and_decisions_are_shared(facts):
    assert [f["world"] for f in facts] == [2, 2]
    assert [f["mean"] for f in facts] == [[1.5, 3.0]] * 2
    assert [f["first"] for f in facts] == [[1.0, 2.0], [2.0, 4.0]]  # `mean` makes a new tensor
    assert [f["parts"] for f in facts] == [[[1.5, 3.0], [[0.5, 0.5], [0.5, 0.5]]]] * 2
    assert facts[0]["types"] == ["torch.float32", "torch.float64"]
    assert [f["any"] for f in facts] == [[True, False]] * 2


def test_nan_in_one_process_stops_both_in_the_same_step(facts):
    for fact in facts:
        assert "term 'L_d' is nan between steps 3 and 3" in fact["diverged"]


def test_a_batch_that_cannot_be_halved_is_refused(facts):
    assert all("2 equal shards" in f["uneven"] for f in facts)


def test_one_process_needs_no_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join() == single() == Group(0, 1)
    x = torch.ones(3)
    assert single().mean(x) is x
    assert single().any(True) is True
    single().mean_([x])
    assert torch.equal(x, torch.ones(3))


def test_a_failing_launch_is_an_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(subprocess.CalledProcessError):
        launch(["script.py"], 2)
