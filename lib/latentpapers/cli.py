"""The `latentpapers` command. What a person can mend is one sentence on stderr and status 2."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from latentpapers.errors import UserError


def main(words: Sequence[str] | None = None) -> int:
    """Runs a command line; returns the exit status (0, 1: something failed, 2: mend this)."""
    args = parser().parse_args(words)
    try:
        return args.command(args) or 0
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith("latentpapers"):
            raise
        print(
            f"package {error.name!r} is not installed for {sys.executable}; run `make setup` and "
            "use .venv/bin/python, or name an interpreter that has it (PYTHON=...).",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on.", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="latentpapers", description=__doc__)
    sub = top.add_subparsers(required=True, metavar="command")

    def add(name: str, command: Callable[[Any], int | None], help: str, **options: Any) -> Any:
        one = sub.add_parser(name, help=help, description=help, **options)
        one.set_defaults(command=command)
        return one

    for name, command, help in (
        ("reproduce", _reproduce, "run what is out of date (Snakemake) and compare"),
        ("run", _run, "the same without Snakemake"),
        ("plan", _plan, "list the jobs, why they would run, and what they will cost"),
        ("benchmark", _benchmark, "run what is out of date, then list what every job cost"),
        ("collect", _collect, "distil finished runs and compare with the committed results"),
        ("refresh", _refresh, "run, then replace the committed results and notebook outputs"),
    ):
        _plan_options(add(name, command, help))
    _job_options(add("job", _job, "run one job of a plan"))
    _bundle_options(add("bundle", _bundle, "pack a job for a node without network"))
    train = add("train", _train, "train in several processes", add_help=False)
    train.add_argument("paper")
    train.add_argument("rest", nargs=argparse.REMAINDER)
    words = "list | names | info | fetch | verify | show | pack"
    _data_options(add("data", _data, words, add_help=False))
    words = "list | info | fetch | verify | convert"
    _data_options(add("weights", _weights, words, add_help=False))
    ledger = add("ledger", _ledger, "check the ledgers")
    ledger.add_argument("action", choices=["check"])
    add("words", _words, "bring README, pages, floors and notebooks' links up to date")
    gallery = add("gallery", _gallery, "build the static pages")
    gallery.add_argument("--out", type=Path, default=Path("public"))
    clean = add("scrub", _scrub, "strip what differs between equal runs from notebooks")
    clean.add_argument("files", type=Path, nargs="+")
    clean.add_argument("--verify", action="store_true", help="only look; exit 1 if not clean")
    return top


# --- options --------------------------------------------------------------------------------


def _plan_options(one: argparse.ArgumentParser) -> None:
    one.add_argument("--paper", type=_list, default=(), help="comma-separated; all if absent")
    one.add_argument("--jobs", type=_count, default=1, help="jobs at a time")
    _request_options(one)


def _request_options(one: argparse.ArgumentParser) -> None:
    one.add_argument("--preset", default="quick", help="quick | cpu | gpu | paper")
    one.add_argument("--seeds", type=_seeds, default=(0,), help="for example 0,1,2")
    one.add_argument("--device", default="auto", help="auto | cpu | cuda | cuda:<n>")
    one.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="changes")
    one.add_argument("--budget", type=float, default=1.0, help="multiplies the time limits")
    one.add_argument("--run-id", default="", help="keep this run apart under a name")


def _job_options(one: argparse.ArgumentParser) -> None:
    one.add_argument("--paper", required=True)
    one.add_argument("--notebook", required=True)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--force", action="store_true", help="run even if it is up to date")
    _request_options(one)


def _data_options(one: argparse.ArgumentParser) -> None:
    one.add_argument("rest", nargs=argparse.REMAINDER)


def _bundle_options(one: argparse.ArgumentParser) -> None:
    one.add_argument("--out", type=Path, default=Path("bundle"))
    one.add_argument("--have", type=Path, help="`pip freeze` of the node; its packages stay out")
    one.add_argument("--python", default="3.12", help="the node's Python")
    one.add_argument("--part-mib", type=int, default=60, help="largest part")
    one.add_argument("--no-packages", action="store_true", help="the node has every package")
    _plan_options(one)


def _list(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.replace(",", " ").split() if word)


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in _list(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers") from None


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return number


def _request(args: argparse.Namespace) -> Any:
    from latentpapers import config
    from latentpapers.runner.plan import Request

    changes = config.parse(args.changes)
    papers = args.paper if isinstance(args.paper, tuple) else (args.paper,)
    more = (changes, args.device, args.run_id, args.budget)
    return Request(args.preset, papers, args.seeds, *more)


def request_from(words: Sequence[str]) -> Any:
    """The request that command-line words describe, for the Snakefile."""
    one = argparse.ArgumentParser(prog="latentpapers plan")
    _plan_options(one)
    return _request(one.parse_args(words))


# --- commands -------------------------------------------------------------------------------


def _reproduce(args: argparse.Namespace) -> int:
    from latentpapers.runner import reproduce

    return reproduce.reproduce(_request(args), args.jobs)


def _run(args: argparse.Namespace) -> int:
    from latentpapers.runner import reproduce

    return reproduce.reproduce(_request(args), args.jobs, snakemake=False)


def _benchmark(args: argparse.Namespace) -> int:
    from latentpapers.runner import reproduce

    return reproduce.benchmark(_request(args), args.jobs)


def _refresh(args: argparse.Namespace) -> int:
    from latentpapers.runner import reproduce

    return reproduce.reproduce(_request(args), args.jobs, snakemake=False, refresh=True)


def _collect(args: argparse.Namespace) -> int:
    from latentpapers.runner import reproduce

    return reproduce.compare(_request(args))


def _plan(args: argparse.Namespace) -> int:
    from latentpapers.runner import reproduce

    return reproduce.show(_request(args))


def _job(args: argparse.Namespace) -> int:
    from latentpapers.errors import UnknownName
    from latentpapers.runner import execute, plan, supervise

    supervise.end_with_supervisor()
    whole = plan.Plan(plan.jobs(_request(args)))
    wanted = [j for j in whole.jobs if (j.notebook, j.seed) == (args.notebook, args.seed)]
    if not wanted:
        name = f"{args.notebook}/s{args.seed}"
        raise UnknownName(
            f"job of {args.paper} in {args.preset}:", name, [j.name for j in whole.jobs]
        )
    execute.run(wanted[0], whole, force=args.force)
    return 0


def _bundle(args: argparse.Namespace) -> int:
    from latentpapers.runner import bundle

    which = (args.have, args.python, args.part_mib)
    return bundle.build(_request(args), args.out, *which, wheels=not args.no_packages)


def _train(args: argparse.Namespace) -> int:
    from latentpapers import papers

    return papers.room(args.paper).train_from_cli(args.rest) or 0


def _data(args: argparse.Namespace) -> int:
    from latentpapers.data import command

    return command.main(args.rest) or 0


def _weights(args: argparse.Namespace) -> int:
    from latentpapers.weights import command

    return command.main(args.rest) or 0


def _ledger(args: argparse.Namespace) -> int:
    from latentpapers import ledger

    problems = ledger.check_all()
    print("\n".join(problems) or "the ledgers are in order")
    return 1 if problems else 0


def _words(args: argparse.Namespace) -> int:
    from latentpapers.runner import reproduce

    print("\n".join(reproduce.refresh_words()) or "everything generated is current")
    return 0


def _gallery(args: argparse.Namespace) -> int:
    from latentpapers.report import gallery

    gallery.build(args.out)
    print(f"built {args.out / 'index.html'}")
    return 0


def _scrub(args: argparse.Namespace) -> int:
    from latentpapers.errors import Missing
    from latentpapers.runner import scrub

    for file in args.files:
        if not file.is_file():
            raise Missing(f"no notebook {file}; name files, for example notebooks/avae/*.ipynb.")
    unclean = [file for file in args.files if scrub.scrub_file(file, verify=args.verify)]
    for file in unclean:
        print(f"{file}: {'not clean' if args.verify else 'scrubbed'}")
    return 1 if unclean and args.verify else 0
