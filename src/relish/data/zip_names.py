"""What the members of a zip are called: from bytes, in whatever encoding the program that packed them had, to text.

The format knows UTF-8, marked by a flag or held in an extra field, and code page 437 (APPNOTE 6.3.10, sections 4.4.4
and 4.6.9, appendix D). Info-ZIP on Linux and macOS's Archive Utility write UTF-8 and set no flag; Windows and programs
on it write the code page of the country. So names that are UTF-8 are read as such, and others in the code page that
makes the likeliest words of them: a guess, which is reported.
"""

import codecs
import re
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
CODE_PAGES = {
    "cp437": 0.0,
    "cp850": 0.1,
    "cp1252": 0.2,
    "cp852": 1.5,
    "cp1250": 1.6,
    "cp857": 2.5,
    "cp1254": 2.6,
    "cp866": 0.0,
    "cp1251": 0.1,
    "cp737": 2.0,
    "cp1253": 2.1,
    "cp862": 2.0,
    "cp1255": 2.1,
    "cp1256": 2.0,
    "cp874": 2.0,
    "cp932": 0.0,
    "gbk": 0.0,
    "cp949": 1.0,
    "cp950": 0.5,
}
"""Guesses, and how much rarer than the first each is, in nats: Western, Central European and Turkish; Cyrillic, Greek,
Hebrew, Arabic; Thai, Japanese, Chinese, Korean, Taiwanese."""


def member_names(members: Sequence[zipfile.ZipInfo], encoding: str | None = None) -> tuple[list[str], str]:
    """The name of each member of a zip, and a sentence on how they were guessed, empty where nothing was.

    Args:
        members: as `zipfile` lists them.
        encoding: of names that are not marked as UTF-8; None guesses.

    Raises:
        DataError: a name is not in that encoding.
    """
    known = [_marked_name(member) for member in members]
    raw = [b"" if name is not None else _raw(member) for name, member in zip(known, members, strict=True)]
    if encoding is not None:
        return [_decoded(one, encoding) if name is None else name for name, one in zip(known, raw, strict=True)], ""
    parts = sorted({part for one in set(raw) for part in one.split(b"/") if not part.isascii()})
    others = [part for part in parts if not _is_utf8(part)]
    if not others:
        return [one.decode() if name is None else name for name, one in zip(known, raw, strict=True)], ""
    is_mixed = 2 * len(others) < len(parts)  # a short name of a code page may be UTF-8 by chance, most names are not
    pages = likeliest(others if is_mixed else parts)
    names = [
        name if name is not None else _guessed(one, pages[0], is_mixed) for name, one in zip(known, raw, strict=True)
    ]
    return names, _guess_in_words(others, pages)


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


def likeliest(parts: Iterable[bytes], most: int = 3) -> list[str]:
    """The code pages in which names make the likeliest words, the best first; each reads them in another way.

    Args:
        parts: of paths; none in ASCII alone.
        most: code pages at most; `latin-1`, which reads anything, where there is no other.
    """
    used = sorted(parts, key=lambda part: (len(part), part))[-_ENOUGH:]
    costs = {page: rarity + sum(_cost(part, page) for part in used) for page, rarity in CODE_PAGES.items()}
    found: dict[tuple[str, ...], str] = {}
    for page in sorted((page for page, cost in costs.items() if cost < _NEVER), key=costs.__getitem__):
        found.setdefault(tuple(part.decode(page) for part in used), page)
    return list(found.values())[:most] or ["latin-1"]


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
# Costs are in nats: minus the logarithm of how often a letter comes up in text of its script, rounded by hand. All code
# pages read the same bytes, so sums can be compared.


_NEVER = 1e6
_ACCENT = 2.6
"""An accented letter where a plain one is far more usual."""
_MIXED = 6.0
"""A change of script within a word, or a capital after a small letter."""
_BACKSLASH = 2.0
"""Rare in names, and in the code pages of wide letters the second byte of some."""
_SHORT = 2.5
"""A word of one or two letters in a script whose words are longer."""
_COMMON = {
    **dict.fromkeys("é", 2.0),
    **dict.fromkeys("èêàâäáãåçñóôöúüíîøæßë", 3.0),
    **dict.fromkeys("ąćęłńśźżčďěňřšťůžýőűđğışăõ", 3.6),
    **dict.fromkeys("ïìòùûœșțľŕ", 4.5),
    **dict.fromkeys("оеаинтсрвлкмдпу", 2.9),
    **dict.fromkeys("яыьгзбчйхжшюцщэфъёіїєґў", 4.9),  # Cyrillic letters are meant
    **dict.fromkeys("αοιετσνρκπλμυης", 2.9),  # Greek ones
    **dict.fromkeys("άέήίόύώγδθχφωβξζψ", 4.5),
    **dict.fromkeys("אבגדהוזחטיכלמנסעפצקרשת", 3.3),
    **dict.fromkeys("ךםןףץ", 4.5),
}
_RARE = {"Latin": 7.0, "Cyrillic": 8.7, "Greek": 7.0, "Hebrew": 7.0, "Arabic": 3.6, "Thai": 4.1}
"""A letter that is not among the common ones."""
_SCRIPTS = re.compile(
    "(?P<Latin>[a-zA-Z\xc0-\xd6\xd8-\xf6\xf8-\u024f])|(?P<Greek>[\u0370-\u03ff])|(?P<Cyrillic>[\u0400-\u04ff])"
    "|(?P<Hebrew>[\u0590-\u05ff])|(?P<Arabic>[\u0600-\u06ff])|(?P<Thai>[\u0e00-\u0e7f])"
)
_WORDS = re.compile("(?:[^\\W\\d_]|[\u0591-\u05bd\u0610-\u065f\u0e31-\u0e4e])+")
"""Letters, and the marks above and below those of Hebrew, Arabic and Thai."""
_WIDE = ("cp932", "gbk", "cp949", "cp950")
"""Code pages of letters of two bytes."""


def _cost(part: bytes, page: str) -> float:
    """How unlikely a name is in a code page."""
    try:
        text = part.decode(page)
    except UnicodeDecodeError:
        return _NEVER
    of_letter = _wide_cost if page in _WIDE else _letter_cost
    letters = sum(of_letter(letter, page) for letter in text if not letter.isascii())
    letters += _BACKSLASH * text.count("\\")
    return letters + sum(_word_cost(word) for word in _WORDS.findall(text) if not word.isascii())


def _letter_cost(letter: str, page: str) -> float:
    script = _script(letter)
    is_sign = unicodedata.category(letter)[0] not in "LM" or (script == "Greek" and page == "cp437")  # of mathematics
    if script is None or is_sign:
        return 9.0 if letter in "«»“”‘’–—…°·№" else 12.0
    plain = letter.lower()
    capital = 1.5 if plain != letter else 0.0
    return _COMMON.get(plain, _RARE[script]) + capital + (_ACCENT if script == "Latin" else 0.0)


def _word_cost(word: str) -> float:
    scripts = [_script(letter) for letter in word]
    changes = sum(a != b for a, b in pairwise(scripts))
    turns = sum(a.islower() and b.isupper() and not (a + b).isascii() for a, b in pairwise(word))
    is_short = len(word) < 3 and scripts[0] not in (None, "Latin")
    return _MIXED * (changes + turns) + _SHORT * is_short


def _script(letter: str) -> str | None:
    met = _SCRIPTS.match(letter)
    return met.lastgroup if met else None


def _wide_cost(letter: str, page: str) -> float:
    """A letter of two bytes: the standards list the usual ones apart from the rare ones, by their first byte."""
    if unicodedata.category(letter) == "Co":  # of private use
        return 16.0
    pair = letter.encode(page)
    lead, trail = pair[0], pair[-1]
    if page == "cp932":
        if len(pair) == 1:  # katakana of half width
            return 9.5
        is_kana = (lead == 0x82 and trail >= 0x9F) or (lead == 0x83 and trail <= 0x96) or pair == b"\x81\x5b"
        return 5.8 if is_kana else 8.8 if 0x88 <= lead <= 0x97 else 12.0 if 0x98 <= lead <= 0xEA else 10.0
    if page == "cp950":
        return 8.6 if 0xA4 <= lead <= 0xC6 else 12.4 if lead >= 0xC9 else 10.5
    if trail < 0xA1:  # of the extensions to the standards of China and Korea
        return 15.0
    if page == "gbk":
        return 8.3 if 0xB0 <= lead <= 0xD7 else 11.0 if 0xD8 <= lead <= 0xF7 else 10.0 if lead <= 0xA3 else 12.5
    if 0xB0 <= lead <= 0xC8:
        return 6.9 if _is_plain_hangul(letter) else 9.0
    return 11.0 if lead <= 0xA3 else 14.0


def _is_plain_hangul(syllable: str) -> bool:
    """Whether its first sound, vowel and last sound are usual ones: four fifths of text, a third of all syllables."""
    place = ord(syllable) - 0xAC00
    first, vowel, last = place // 588, place // 28 % 21, place % 28
    is_usual = vowel in (0, 1, 4, 5, 6, 8, 9, 13, 18, 20) or first == 11
    return is_usual and first not in (1, 4, 8, 10, 13) and last in (0, 1, 4, 8, 16, 17, 19, 21)
