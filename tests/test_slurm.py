"""The plan on a Slurm cluster of one node: asked for by `make test-slurm` alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from runner_bed import Bed

ROOT = Path(__file__).resolve().parent.parent
ASKED = os.environ.get("LATENTPAPERS_SLURM") == "1"

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not ASKED, reason="asked for by `make test-slurm`: needs root and Slurm"),
]


@pytest.fixture
def bed(tmp_path) -> Bed:
    bed = Bed(tmp_path)
    shutil.copy(ROOT / "Snakefile", tmp_path)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    return bed


def snakemake(bed: Bed, *more: str, cluster: bool = True) -> subprocess.CompletedProcess:
    """`snakemake --profile profiles/slurm`, the profile as it is, on a cluster of one node."""
    words = [sys.executable, "-m", "snakemake", "--profile", "profiles/slurm", *more]
    words += ["--config", "request=--preset gpu --seeds 0,1 --device cpu", "papers=avae"]
    node = [str(ROOT / "ci" / "slurm_one_node.sh")] if cluster else []
    return subprocess.run(
        [*node, *words], cwd=bed.root, env=bed.env, text=True, capture_output=True, timeout=500,
        check=False,
    )  # fmt: skip


def by_slurm(bed: Bed) -> int:
    """Jobs that ran as Slurm jobs: each has a log of its own."""
    return len(list(bed.root.glob(".snakemake/slurm_logs/rule_*/*.log")))


def test_the_slurm_profile_runs_a_plan_with_dependencies(bed):
    done = snakemake(bed, "--slurm-keep-successful-logs")
    assert done.returncode == 0, done.stderr[-3000:]
    assert by_slurm(bed) == 3
    trained = [bed.rows("2_training", "gpu", s)[0]["value"] for s in (0, 1)]
    assert bed.rows("3_tables", "gpu")[0]["value"] == sum(trained) + 0.5
    # nothing is left to do, by our record and by Snakemake's
    again = bed.call("plan", "--preset", "gpu", "--seeds", "0,1", "--device", "cpu")
    assert "0 of 3 to run" in again.stdout, again.stdout
    idle = snakemake(bed, "--dry-run", cluster=False)
    assert idle.returncode == 0
    assert "Nothing to be done" in idle.stderr + idle.stdout


def test_a_job_that_fails_on_the_cluster_fails_the_command(bed):
    bed.write("2_training", "raise ValueError('no luck')")
    done = snakemake(bed)
    assert done.returncode != 0
    assert by_slurm(bed) == 2  # and what needs them was not started
    assert not list(bed.folder("2_training", "gpu").glob("record.*"))
