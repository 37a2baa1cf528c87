"""Errors that a person reads: one sentence that says what is wrong and how to mend it."""


class UserError(Exception):
    """Something the user can mend. The command line prints its text alone and exits with 2."""


_LISTED = 60  # names that one sentence can hold


class UnknownName(UserError):
    """A paper, preset, parameter, data set or checkpoint that does not exist."""

    def __init__(self, kind: str, name: object, known: object) -> None:
        choices = sorted(str(k) for k in known)
        if len(choices) > _LISTED:
            import difflib

            near = difflib.get_close_matches(str(name), choices, n=5, cutoff=0.0)
            more = f"{len(choices) - len(near)} more"
            super().__init__(f"unknown {kind} {name!r}; nearest: {', '.join(near)}; and {more}.")
        else:
            super().__init__(f"unknown {kind} {name!r}; known: {', '.join(choices)}.")


class Missing(UserError):
    """A file that is needed and absent; the sentence names the command that brings it."""


class Corrupt(UserError):
    """A file whose content is not what its hash or format says."""


class ConfigMismatch(UserError):
    """A resume under another configuration than the one that wrote the checkpoint."""


class Diverged(UserError):
    """Training produced NaN or infinity; names the step, the term and the last good checkpoint."""


class StorageFull(UserError):
    """A result could not be written: full disk or read-only folder."""
