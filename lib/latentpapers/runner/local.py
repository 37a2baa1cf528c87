"""Runs a plan without Snakemake: a few processes, dependencies honoured, failures contained."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

from latentpapers import paths
from latentpapers.notebook import LIBRARY
from latentpapers.runner import supervise
from latentpapers.runner.plan import Job, Plan, Request, predicted

Starter = Callable[[Job], "subprocess.Popen[bytes]"]


def command(job: Job, request: Request) -> list[str]:
    """The command line that runs one job of a request."""
    which = ["--paper", job.paper, "--notebook", job.notebook, "--seed", str(job.seed)]
    return [sys.executable, "-m", "latentpapers", "job", *which, *request.arguments()]


def child_environment() -> dict[str, str]:
    """This process' environment, with the library on the path and itself named as supervisor."""
    path = [str(LIBRARY.parent), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    own = {supervise.SUPERVISOR: supervise.identity(), "PYTHONPATH": os.pathsep.join(path)}
    return {**os.environ, **own}


def run(plan: Plan, request: Request, workers: int = 1) -> list[Job]:
    """Runs what is pending and returns the jobs that failed or could not start.

    Args:
        plan: jobs, each after those it needs.
        request: what the plan was made from.
        workers: processes at a time; the longest job starts first.
    """
    waiting = sorted(plan.pending(), key=lambda job: -predicted(job)[0])
    running: dict[Job, tuple[subprocess.Popen[bytes], float]] = {}
    failed: list[Job] = []
    env, total = child_environment(), len(waiting)
    try:
        while waiting or running:
            _start(plan, waiting, running, failed, workers, lambda job: _open(job, request, env))
            _reap(running, failed, total - len(waiting) - len(running) + 1, total)
    finally:
        for process, _ in running.values():
            process.kill()
    return failed


def _open(job: Job, request: Request, env: dict[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command(job, request), env=env, cwd=paths.root())


def _start(
    plan: Plan,
    waiting: list[Job],
    running: dict[Job, tuple["subprocess.Popen[bytes]", float]],
    failed: list[Job],
    workers: int,
    start: Starter,
) -> None:
    for job in list(waiting):
        needed = plan.needed(job)
        if any(other in failed for other in needed):
            waiting.remove(job)
            failed.append(job)
            print(f"skipped {job.id}: what it needs failed", file=sys.stderr, flush=True)
        elif len(running) < workers and all(plan.record(o).is_file() for o in needed):
            waiting.remove(job)
            running[job] = (start(job), time.monotonic())


def _reap(
    running: dict[Job, tuple["subprocess.Popen[bytes]", float]],
    failed: list[Job],
    number: int,
    total: int,
) -> None:
    done = [job for job, (process, _) in running.items() if process.poll() is not None]
    for job in done:
        process, began = running.pop(job)
        word = "FAILED" if process.returncode else "done"
        if process.returncode:
            failed.append(job)
        seconds = time.monotonic() - began
        print(f"[{number}/{total}] {word} {job.id} ({seconds:.0f} s)", flush=True)
        number += 1
    if not done:
        time.sleep(0.1)
