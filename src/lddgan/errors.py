"""The exceptions that the command line turns into one sentence; every other one is a fault of ours."""


class UserError(Exception):
    """Bad input. The message is one sentence that names the input, what is wrong and the mend. Exit code 2."""


class RunStopped(Exception):
    """A run that cannot go on (interrupted, diverged, disk full); what it saved before is intact.

    Attributes:
        exit_code: 130 or 143 after SIGINT or SIGTERM, else 1.
        resumable: whether it can go on as it is; a run that diverged would do so again.
    """

    def __init__(self, message: str, exit_code: int = 1, resumable: bool = True) -> None:
        super().__init__(message)
        self.exit_code, self.resumable = exit_code, resumable


def first_line(error: Exception) -> str:
    """What another library's `error` says, short enough for one of our sentences; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
