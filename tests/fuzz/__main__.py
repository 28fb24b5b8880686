"""`python -m tests.fuzz [TARGET…]`: each target in a process of its own, RELISH_FUZZ_SECONDS (600) each."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
TARGETS = sorted(path.stem.removeprefix("test_") for path in HERE.glob("test_*.py"))


def run(target: str, seconds: str) -> bool:
    """Whether nothing was found; a process that dies counts as a finding."""
    words = ["-q", "-s", "--no-header", "-m", "fuzz", "-p", "no:cacheprovider", "--timeout=0", "--tb=short"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *words, str(HERE / f"test_{target}.py")],
        env={**os.environ, "RELISH_FUZZ_SECONDS": seconds},
    )
    if ended.returncode < 0:
        print(f"fuzz {target}: killed by signal {-ended.returncode}; its input is in .hypothesis/last-{target}")
    return ended.returncode == 0


def main() -> int:
    seconds = os.environ.get("RELISH_FUZZ_SECONDS", "600")
    wanted = sys.argv[1:] or TARGETS
    if unknown := set(wanted) - set(TARGETS):
        print(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
        return 2
    failed = [target for target in wanted if not run(target, seconds)]
    print(f"failed: {', '.join(failed)}" if failed else "no target failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
