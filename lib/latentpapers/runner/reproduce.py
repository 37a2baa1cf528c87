"""`make reproduce`: runs what is out of date, resumes what was killed, compares at the end."""

import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from latentpapers import config, paths, storage
from latentpapers.errors import UserError
from latentpapers.report import floors, links, pages, summary
from latentpapers.runner import collect, local, scrub, supervise
from latentpapers.runner.cells import read_notebook
from latentpapers.runner.plan import Job, Plan, Request, expectations, guessed, jobs, predicted


def reproduce(
    request: Request, workers: int = 1, *, snakemake: bool = True, refresh: bool = False
) -> int:
    """Runs a request and compares; returns the exit status.

    The plan decides what runs. With nothing to run Snakemake is not started at all.

    Args:
        request: what to run.
        workers: jobs at a time.
        snakemake: run the plan through Snakemake (else with our own pool of processes).
        refresh: replace the committed results and notebook outputs at the end.
    """
    if refresh and request.variant:
        raise UserError("a variant (overrides, run id) cannot become a committed result.")
    ended = supervise.end_orphans()
    if ended:
        print(f"ended {ended} run(s) that an interrupted command had left behind")
    plan = _planned(request)
    pending = plan.pending()
    print(f"{len(plan.jobs)} jobs, {len(pending)} to run", flush=True)
    if pending and snakemake:
        _snakemake(request, workers)
    elif pending:
        local.run(plan, request, workers)
    failed = Plan(plan.jobs).pending()
    for job in failed:
        print(f"not finished: {job.id}", file=sys.stderr)
    status = max(1 if failed else 0, compare(request, refresh=refresh, skip=failed))
    if refresh:
        status = max(status, 0 if failed else _catch_up(plan, request, workers))
        refresh_words()
    return status


def _catch_up(plan: Plan, request: Request, workers: int) -> int:
    """Runs anew what reads the results that a refresh has just replaced; the exit status.

    A report over all papers' verdicts would else always be one refresh behind them.
    """
    late = Plan(plan.jobs).pending()
    if not late:
        return 0
    print(f"{len(late)} jobs read what was just replaced, and run again", flush=True)
    local.run(Plan(plan.jobs), request, workers)
    failed = Plan(plan.jobs).pending()
    again = dataclasses.replace(request, papers=tuple(dict.fromkeys(job.paper for job in late)))
    return max(1 if failed else 0, compare(again, refresh=True, skip=failed))


def _planned(request: Request) -> Plan:
    """The plan of a request.

    Raises:
        UserError: it holds no job; nothing to do must not look like something done.
    """
    plan = Plan(jobs(request))
    if not plan.jobs:
        named = ", ".join(request.papers)
        raise UserError(f"preset {request.preset} runs nothing of {named}; see `make plan`.")
    return plan


def refresh_words() -> list[str]:
    """Brings everything that is generated from ledgers, results and imports up to date: README, the
    pages, the picture of the floors, the verdicts and links in notebooks. Returns what changed.
    """
    readme, changed = paths.root() / "README.md", []
    if readme.is_file():
        changed += ["README.md"] * summary.update_readme(readme, costs())
        changed += [*pages.write(), *[floors.PICTURE] * floors.write()]
    for paper in summary.sources.papers():
        for file in sorted((paths.root() / "notebooks" / paper).glob("*.ipynb")):
            text = scrub.text(current_words(read_notebook(file), paper, file.stem))
            if text != file.read_text():
                storage.write_text(file, text)
                changed.append(paths.relative(file))
    return changed


def current_words(notebook: dict, paper: str, name: str) -> dict:
    """A copy of a paper's notebook with the current verdicts and links to the code."""
    return links.with_links(summary.with_verdicts(notebook, paper), paper, name)


_NOT_RUN = "not run yet; command: `make reproduce PRESET={} SEEDS=0,1,2`"
_WHERE = {
    "quick": "2 CPU cores", "cpu": "2 CPU cores, a quarter of an hour", "gpu": "one modern GPU",
    "paper": "one or many GPUs",
}  # fmt: skip


def costs() -> dict[str, dict[str, str]]:
    """What each preset costs, from the papers' measured `EXPECT` tables, for README."""
    found: dict[str, list[str]] = {name: [] for name in config.NAMES}
    for paper in summary.sources.papers():
        for preset in config.NAMES:
            seen = expectations(paper, preset)
            if seen:
                seconds, memory = sum(s for s, _ in seen), max(m for _, m in seen)
                found[preset].append(f"{paper} {seconds:.0f} CPU-s, {memory / 1000:.1f} GB")
    return {name: {"where": _WHERE[name], "cost": "; ".join(found[name]) or _NOT_RUN.format(name)}
            for name in config.NAMES}  # fmt: skip


def compare(request: Request, *, refresh: bool = False, skip: list[Job] = ()) -> int:  # type: ignore[assignment]
    """Collects every paper of a request and prints the comparison; 1 if quick results differ."""
    status = 0
    unfinished = {job.paper for job in skip}
    for paper in dict.fromkeys(job.paper for job in jobs(request)):
        if paper in unfinished:
            continue
        done = collect.collect(request, paper, refresh=refresh)
        place = f"; written to {paths.relative(done.written)}" if done.written else ""
        print(f"{paper}: {done.comparison.text()}{place}")
        for name in done.comparison.differ[:10]:
            print(f"  differs: {name}")
        status = max(status, int(done.red and not refresh))
    return status


def show(request: Request) -> int:
    """Prints the plan: every job, its state, its predicted seconds and memory (~: a guess)."""
    plan = _planned(request)
    states = collect.job_states(plan)
    width = max((len(job.id) for job, _ in states), default=0)
    for job, reason in states:
        seconds, memory = predicted(job)
        about = "~" if guessed(job) else ""
        cost = f"{about + format(seconds, '.0f'):>7} s {about + str(memory):>6} MB"
        print(f"{job.id:<{width}}  {cost}  {reason or 'up to date'}")
    waiting = [job for job, reason in states if reason]
    total = sum(predicted(job)[0] for job in waiting)
    free = sum(map(guessed, waiting))
    guess = f" (~: a guess, {free} of these have not run anywhere yet)" if free else ""
    print(f"{len(waiting)} of {len(states)} to run, about {total:.0f} s of work{guess}")
    return 0


def benchmark(request: Request, workers: int = 1) -> int:
    """Runs what is out of date, one job at a time by default, and prints what each job cost."""
    status = reproduce(request, workers, snakemake=False)
    print("| job | wall s | CPU s | memory MB |\n|---|---:|---:|---:|")
    total = [0.0, 0.0]
    for job in jobs(request):
        file = job.folder / "runtime.json"
        if file.is_file():
            cost = json.loads(file.read_text())
            total = [total[0] + cost["seconds"], total[1] + cost["cpu_seconds"]]
            numbers = f"{cost['seconds']:.1f} | {cost['cpu_seconds']:.1f} | {cost['memory_mb']:.0f}"
            print(f"| {job.id} | {numbers} |")
    print(f"| all | {total[0]:.1f} | {total[1]:.1f} | |")
    return status


# --- Snakemake ------------------------------------------------------------------------------


def _snakemake(request: Request, workers: int) -> int:
    """Runs the Snakefile; its state is ours, so a stale lock or an unfinished record is no news."""
    root = paths.root()
    program = _program()
    _unlock(root, program)
    words = [*program, "--snakefile", str(root / "Snakefile"), "--directory", str(root)]
    words += ["--workflow-profile", "none", "--cores", str(workers), "--keep-going"]
    words += ["--rerun-incomplete", "--rerun-triggers", "mtime", "--quiet", "rules", "host"]
    words += ["--resources", f"gpu={workers}"]
    words += ["--config", f"request={shlex.join(request.arguments())}"]
    words += [f"papers={','.join(request.papers)}"] if request.papers else []
    done = subprocess.run(words, env=local.child_environment(), cwd=root, check=False)
    return done.returncode


def _program() -> list[str]:
    """Snakemake of this interpreter.

    Raises:
        UserError: it is not installed.
    """
    from importlib.util import find_spec

    if find_spec("snakemake") is None:
        raise UserError(
            "Snakemake is not installed; use `OFFLINE=1 make reproduce`, which needs none."
        )
    return [sys.executable, "-m", "snakemake"]


def _unlock(root: Path, program: list[str]) -> None:
    """Removes the lock of a Snakemake that was killed; a living one keeps its own."""
    locks = root / ".snakemake" / "locks"
    if not locks.is_dir() or not any(locks.iterdir()):
        return
    import psutil

    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        if (
            process.pid != os.getpid()
            and "--snakefile" in words
            and str(root / "Snakefile") in words
        ):
            raise UserError(f"another `make reproduce` is running here (process {process.pid}).")
    shutil.rmtree(locks)
