"""`python -m tests.fuzz.guided KIND [OPTION…]`: examples chosen by the code that they reach, with Atheris.

It takes `pip install atheris`, which is no dependency: there are wheels for Linux alone. What it found worth keeping
stays in `.hypothesis/corpus-KIND/`, an input that failed beside it; given as an option, it is tried again.
"""

import os
import sys
from importlib import import_module
from typing import Any

import atheris
from hypothesis import given

from tests.fuzz.harness import KEPT, OPTIONS

INSTRUMENTED = ["relish", "PIL", "zipfile", "tarfile", "starlette", "yaml"]
"""Packages in which it is seen which code was reached."""


def main(kind: str, *options: str) -> None:
    with atheris.instrument_imports(include=INSTRUMENTED):
        module = import_module(f"tests.fuzz.test_{kind}")
    test: Any = next(value for name, value in vars(module).items() if name.startswith("test_"))
    corpus = KEPT / f"corpus-{kind}"
    corpus.mkdir(parents=True, exist_ok=True)
    words = [f"-max_total_time={os.environ.get('RELISH_FUZZ_SECONDS', '600')}", f"-artifact_prefix={KEPT}/{kind}-"]
    run = OPTIONS(given(test.inputs)(test.check)).hypothesis.fuzz_one_input
    atheris.Setup([kind, *words, "-max_len=8000", *(options or [str(corpus)])], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
