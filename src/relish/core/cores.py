"""How many processor cores this process may use."""

import os


def cores() -> int:
    """Those it is confined to, where the system can say; else those of the machine. 1 or more."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
