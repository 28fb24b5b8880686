"""`predict`: what a saved model says of pictures named on the command line.

In:   files, folders, globs, `-` for standard input.
Out:  one `Prediction` for each picture found, in order; what is no picture gets a row with its error. Or the same as a
      table, which goes on growing where it was broken off.
Not here: finding the pictures (`given.py`), the forms of table (`report/prediction_tables.py`).
"""

import io
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import Any
