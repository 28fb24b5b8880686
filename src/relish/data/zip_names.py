"""What the members of a zip are called: from bytes, in whatever encoding the program that packed them had, to text.

The format knows UTF-8, marked by a flag or held in an extra field, and code page 437 (APPNOTE 6.3.10, sections 4.4.4
and 4.6.9, appendix D). Info-ZIP on Linux and macOS's Archive Utility write UTF-8 and set no flag; Windows and programs
on it write the code page of the country. So names that are UTF-8 are read as such, and others in the code page that
makes the likeliest words of them: a guess, which is reported.
"""

import codecs
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from itertools import pairwise

from relish.core.errors import DataError
from relish.data.dataset import first_few

_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075
_ENOUGH = 500
"""Names that a guess rests on; more are of no further use."""
CODE_PAGES = (
    *("cp437", "cp850", "cp1252", "cp866", "cp1251", "gbk", "cp932", "cp950", "cp949", "cp852", "cp1250"),
    *("cp737", "cp1253", "cp862", "cp1255", "cp857", "cp1254", "cp1256", "cp874"),
)
"""Guesses, the more usual ones first."""


def member_names(members: Sequence[zipfile.ZipInfo], encoding: str | None = None) -> tuple[list[str], str]:
    """The name of each member of a zip, and a sentence on how they were guessed, empty where nothing was.

    Args:
        members: as `zipfile` lists them.
        encoding: of names that are not marked as UTF-8; None guesses.

    Raises:
        DataError: a name is not in that encoding.
    """
    marked = [_marked_name(member) for member in members]
    raw = [b"" if name is not None else _raw(member) for name, member in zip(marked, members, strict=True)]
    if encoding is not None:
        return [_decoded(one, encoding) if name is None else name for name, one in zip(marked, raw, strict=True)], ""
    parts = sorted({part for one in set(raw) for part in one.split(b"/") if not part.isascii()})
    others = [part for part in parts if not _is_utf8(part)]
    is_mixed = 2 * len(others) < len(parts)  # a short name of a code page may be UTF-8 by chance, most names are not
    pages = likeliest(others if is_mixed else parts) if others else ["utf-8"]
    names = [_guessed(one, pages[0], is_mixed) if name is None else name for name, one in zip(marked, raw, strict=True)]
    return names, _guess_in_words(others, pages) if others else ""


def checked_encoding(name: str) -> str:
    """The same name, if it is that of an encoding that a zip's names can be in.

    Raises:
        DataError: it is not.
    """
    try:
        if b"a/b.jpg".decode(name) == "a/b.jpg":
            return codecs.lookup(name).name
    except (LookupError, ValueError):
        pass
    raise DataError(
        f"--zip-encoding {name}: there is no such encoding of names.", hint=f"Such as {', '.join(CODE_PAGES)} or utf-8."
    )


def likeliest(parts: Iterable[bytes]) -> list[str]:
    """The three code pages in which names make the likeliest words, the best first; each reads them in another way.

    Args:
        parts: of paths; none in ASCII alone. `latin-1`, which reads anything, is for those that no other can read.
    """
    used = sorted(parts, key=lambda part: (len(part), part))[-_ENOUGH:]
    costs = {page: _RARER * n + sum(_cost(part, page) for part in used) for n, page in enumerate(CODE_PAGES)}
    found: dict[tuple[str, ...], str] = {}
    for page in sorted((page for page, cost in costs.items() if cost < _NEVER), key=costs.__getitem__):
        found.setdefault(tuple(part.decode(page) for part in used), page)
    return list(found.values())[:3] or ["latin-1"]


def _marked_name(member: zipfile.ZipInfo) -> str | None:
    """The name that the format itself says is UTF-8."""
    if member.flag_bits & _UTF8_FLAG:
        return member.orig_filename
    raw, extra = _raw(member), member.extra
    while len(extra) >= 4:
        size = int.from_bytes(extra[2:4], "little")
        content, kind = extra[4 : 4 + size], int.from_bytes(extra[:2], "little")
        if kind == _UNICODE_PATH and content[:5] == b"\1" + zlib.crc32(raw).to_bytes(4, "little"):
            return content[5:].decode() if _is_utf8(content[5:]) else None
        extra = extra[4 + size :]
    return None


def _raw(member: zipfile.ZipInfo) -> bytes:
    return member.orig_filename.encode("cp437")  # as which `zipfile` has read them, byte for byte


def _decoded(raw: bytes, encoding: str) -> str:
    try:
        return raw.decode(encoding)
    except UnicodeError as error:
        raise DataError(
            f"--zip-encoding {encoding}: the name {ascii(raw)[2:-1][:200]} is not in it.",
            hint=f"In which it could be: {', '.join(likeliest([raw]))}.",
        ) from error


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _guessed(raw: bytes, page: str, is_mixed: bool) -> str:
    return raw.decode() if raw.isascii() or (is_mixed and _is_utf8(raw)) else raw.decode(page, "backslashreplace")


def _guess_in_words(parts: Sequence[bytes], pages: Sequence[str]) -> str:
    read = first_few([f'"{part.decode(pages[0], "backslashreplace")}"' for part in parts])
    others = [f'{page} (then "{parts[0].decode(page, "backslashreplace")}")' for page in pages[1:]]
    return (
        f"its names are not UTF-8 and are read in {pages[0]}, a guess: {read}. "
        f"If that is wrong, say --zip-encoding {' or '.join(others) or 'NAME'}."
    )


# ---- how likely a code page is --------------------------------------------------------------------------------------
# Costs are in nats: minus the logarithm of how often a letter comes up in names of its script, roughly. All code pages
# read the same bytes, so sums can be compared.

_NEVER = 1e6
_RARER = 0.05
"""Each code page than the one before."""
_LATER = 0.015
"""Each letter in the list of its script than the one before."""
_CAPITAL = 2.5
_MIXED = 7.5
"""A change of script within a word, or a capital after a small letter."""
_SIGN = 12.0
"""What is no letter."""
_SCRIPTS = {
    "LATIN": (5.0, 9.0, "éáöäóüèíçñãàêåøæôßúûîâùìłčšžąęćńśőřýůěżźëňťďűğışđăõ"),
    "CYRILLIC": (3.0, 5.5, "оеаинтсрвлкмдпуяыьгзбчйжхюшї"),  # Cyrillic letters are meant
    "GREEK": (3.0, 6.0, "αοιετσνρκπλμυηςάέήίόύ"),  # Greek ones
    "HEBREW": (2.5, 8.0, "אבגדהוזחטיכלמנסעפצקרשת"),
    "ARABIC": (3.0, 4.5, "ابتثجحخدرزسشصضطعفقكلمنهويةى"),
    "THAI": (4.1, 4.1, ""),
    "CJK": (8.25, 14.0, ""),
    "HIRAGANA": (5.5, 7.5, ""),
    "KATAKANA": (6.75, 8.0, ""),
    "HANGUL": (6.5, 10.5, ""),
}
"""By the first word of a letter's name in Unicode: the cost of usual letters and of others, and the usual ones."""
_USUAL_LEADS = {
    "cp932": range(0x88, 0x98),
    "gbk": range(0xB0, 0xD8),
    "cp949": range(0xB0, 0xC9),
    "cp950": range(0xA4, 0xC7),
}
"""First bytes of the usual letters of two bytes, which the standards list apart from the rare ones."""
_USUAL_ENDS = (0, 1, 4, 8, 16, 17, 19, 21)
"""Last sounds of the usual syllables of Korean, by their places among all 28: none, k, n, l, m, p, s, ng."""


def _cost(part: bytes, page: str) -> float:
    """How unlikely a name is in a code page."""
    try:
        text = part.decode(page)
    except UnicodeDecodeError:
        return _NEVER
    cost = sum(_letter_cost(letter, page) for letter in text if not letter.isascii())
    for a, b in pairwise(text):
        if not (a + b).isascii() and _is_letter(a) and _is_letter(b):
            cost += _MIXED * ((_script(a) != _script(b)) + (a.islower() and b.isupper()))
    return cost


def _letter_cost(letter: str, page: str) -> float:
    script = _script(letter)
    if script not in _SCRIPTS or not _is_letter(letter):
        return _SIGN
    usual, other, letters = _SCRIPTS[script]
    small = letter.lower()
    is_usual = not letters or small in letters
    if page in _USUAL_LEADS:
        is_usual = letter.encode(page)[0] in _USUAL_LEADS[page] or (page == "cp932" and script.endswith("KANA"))
    if script == "HANGUL":
        is_usual = (ord(letter) - 0xAC00) % 28 in _USUAL_ENDS
    cost = usual + _LATER * max(0, letters.find(small)) if is_usual else other
    return cost + _CAPITAL * (small != letter)


def _script(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


def _is_letter(letter: str) -> bool:
    """Whether it is a letter, or a mark above or below one."""
    return unicodedata.category(letter)[0] in "LM"
