"""One process at a time, by a lock that ends with its process, however that ends.

In:   the path of a lock file, and what the work is about.
Out:  a turn; whoever comes second says so and waits.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from relish.core.errors import WriteFailed
from relish.core.progress import Progress


@contextmanager
def one_at_a_time(lock: Path, what: str, progress: Progress) -> Iterator[bool]:
    """Keep other processes of this computer from the same work; waits for its turn.

    Yields:
        Whether they are in fact kept out; False on the few network file systems that know no locks.

    Raises:
        WriteFailed: the folder of the lock cannot be made or written to.
    """
    held = FileLock(lock)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        alone = _take(held, what, progress)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteFailed(
            f"{lock.parent}: cannot write ({reason}).", hint="Free some space or name another folder, then again."
        ) from error
    try:
        yield alone
    finally:
        held.release()


def _take(held: FileLock, what: str, progress: Progress) -> bool:
    try:
        held.acquire(blocking=False)
    except Timeout:
        progress.say(f"another process is at work on {what}; waiting for it")
        held.acquire()
    except NotImplementedError:
        return False
    return True
