# The plan as Snakemake sees it: one rule a job, in the order of lib/latentpapers/runner/plan.py.
# `make reproduce` starts it; on a cluster:
#   .venv/bin/snakemake --profile profiles/slurm --config request="--preset gpu --seeds 0,1,2" papers=avae
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "lib"))
from latentpapers import cli, paths
from latentpapers.config import FROM_SHIPPED
from latentpapers.runner.plan import Plan, jobs, predicted

WORDS = shlex.split(config.get("request", "")) + (
    ["--paper", config["papers"]] if config.get("papers") else []
)
REQUEST = cli.request_from(WORDS)
PLAN = Plan(jobs(REQUEST))
RECORD = {job.id: str(PLAN.record(job)) for job in PLAN.jobs}
RUN = f"PYTHONPATH={shlex.quote(str(Path(workflow.basedir) / 'lib'))} {shlex.quote(sys.executable)}"


rule all:
    input:
        [ancient(record) for record in RECORD.values()],


# A record's name carries the fingerprint of everything that decides the result: that it exists is
# all there is to know, so inputs are `ancient` and neither times nor Snakemake's own notes count.
for job in PLAN.jobs:
    SECONDS, MEMORY = predicted(job)

    rule:
        name:
            job.id.replace("/", "_").replace("-", "_")
        input:
            [ancient(RECORD[other.id]) for other in PLAN.needed(job)],
        output:
            RECORD[job.id],
        threads: 1
        resources:
            mem_mb=int(1.5 * MEMORY),
            runtime=max(10, int(2 * SECONDS / 60)),  # minutes
            gpu=int(job.preset not in FROM_SHIPPED),
        params:
            words=shlex.join(
                ["--paper", job.paper, "--notebook", job.notebook, "--seed", str(job.seed)]
                + REQUEST.arguments()
            ),
        shell:
            RUN + " -m latentpapers job {params.words}"
