"""What MkDocs does for the site besides: pages from beside docs/, links between them, and the second language.

A page `X.id.md` is the translation of `X.md`, and takes its place in the Indonesian build. Its headings get the anchors
of the original, so that a link leads to the same section in both. A page without translation is shown there in English,
which it says at its top, in the navigation and in the menu of languages.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

ROOT = Path(__file__).resolve().parents[1]
BESIDE = {"README.md": "tour.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}
"""What lies beside docs/ and is a page of the site: its path in the repository, and in the site."""
LICENCE = "LICENSE"

SEARCH = 'data-md-component="search" role="dialog"'
"""As Material writes it: a dialog without a name."""
IN_LANGUAGE = "#in-{}"
"""In place of an address in the menu of languages: MkDocs gets relative ones wrong that lead out of its own site."""
OTHER_SITE = re.compile(r'<link rel="alternate"[^>]*>')
"""By these Material's script looks for a map of the other language's site, where there is none."""

FENCED = re.compile(r"(^```.*?^```$\n?)", re.DOTALL | re.MULTILINE)
COMMENT = re.compile(r"^<!--.*?-->\n", re.DOTALL | re.MULTILINE)
OTHER_LANGUAGE = re.compile(r"^\[(?:English|Bahasa Indonesia)\]\([^)]+\)\n", re.MULTILINE)
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)")
HEADING = re.compile(r"^(#+) (.*)$", re.MULTILINE)

UNTRANSLATED = (
    '<p class="untranslated" lang="id">Halaman ini belum diterjemahkan; isinya dalam bahasa Inggris.</p>\n'
    '<div lang="en">\n{}\n</div>'
)


def in_indonesian(config: MkDocsConfig) -> bool:
    return bool(config.theme["language"] == "id")


def original(place: str) -> Path:
    """The file of the English page at this place of the site."""
    beside = {site: path for path, site in BESIDE.items()}
    return ROOT / beside.get(place, f"docs/{place}")


def translation(place: str) -> Path:
    """Where the translation of this page is, if there is one."""
    return original(place).with_suffix(".id.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take in what lies beside docs/, and in the Indonesian build the translations in place of their originals."""
    for path, place in BESIDE.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    files.append(File.generated(config, f"{LICENCE}.txt", abs_src_path=str(ROOT / LICENCE)))
    for file in list(files.documentation_pages()):
        if file.src_uri.endswith(".id.md"):
            files.remove(file)
        elif in_indonesian(config) and translation(file.src_uri).is_file():
            files.remove(file)
            files.append(File.generated(config, file.src_uri, abs_src_path=str(translation(file.src_uri))))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The text as the site needs it: without marks of the tests and links to the other language, its links turned."""
    place = page.file.src_uri
    if in_indonesian(config):
        if translation(place).is_file():
            markdown = with_anchors_of(original(place).read_text(encoding="utf-8"), markdown)
        else:
            page.meta["status"] = "untranslated"
    parts = FENCED.split(OTHER_LANGUAGE.sub("", markdown, count=1))
    parts[::2] = [LINK.sub(lambda link: turned(link[1], place), COMMENT.sub("", part)) for part in parts[::2]]
    return "".join(parts)


def turned(link: str, place: str) -> str:
    """A link between files of the repository as one between pages of the site; one that has no page stays as it is, and
    MkDocs complains of it."""
    folder = original(place).parent.relative_to(ROOT).as_posix()
    path = posixpath.normpath(posixpath.join(folder, link)).replace(".id.md", ".md")
    if path == LICENCE:
        target = f"{LICENCE}.txt"
    elif path in BESIDE:
        target = BESIDE[path]
    elif path.startswith("docs/"):
        target = path.removeprefix("docs/")
    else:
        return link
    return posixpath.relpath(target, posixpath.dirname(place) or ".")


def with_anchors_of(english: str, translated: str) -> str:
    """A translation whose headings have the anchors of the original's, which are as many and in the same order."""
    slug = slugify(case="lower")
    anchors = [slug(found[2], "-") for part in FENCED.split(english)[::2] for found in HEADING.finditer(part)]
    parts = FENCED.split(translated)
    found = sum(len(HEADING.findall(part)) for part in parts[::2])
    if found != len(anchors):
        raise ValueError(f"the translation has {found} headings, its original {len(anchors)}")
    each = iter(anchors)
    parts[::2] = [HEADING.sub(lambda head: f"{head[0]} {{#{next(each)}}}", part) for part in parts[::2]]
    return "".join(parts)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Say at the top of a page that it is not translated."""
    return UNTRANSLATED.format(html) if page.meta.get("status") == "untranslated" else html


def on_page_context(context: dict[str, Any], page: Page, config: MkDocsConfig, nav: object) -> dict[str, Any]:
    """The menu of languages says whether a page is translated; where it leads is put in when the page is written."""
    missing = "" if translation(page.file.src_uri).is_file() else " (belum ada)"
    config.extra["alternate"] = [
        {"name": "English", "lang": "en", "link": IN_LANGUAGE.format("en")},
        {"name": f"Bahasa Indonesia{missing}", "lang": "id", "link": IN_LANGUAGE.format("id")},
    ]
    return context


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Lead to the same page in the other language, and mend what Material writes.

    Its dialog gets a name, for those who do not see it, and its script is spared a request that fails.
    """
    if SEARCH not in output:
        raise ValueError("Material writes its search in another way now: see whether its dialog has a name")
    up = "../" * page.url.count("/")
    english, indonesian = (f"{up}../", up) if in_indonesian(config) else (up, f"{up}id/")
    name = "Cari" if in_indonesian(config) else "Search"
    for language, root in (("en", english), ("id", indonesian)):
        output = output.replace(f'href="{IN_LANGUAGE.format(language)}" hreflang', f'href="{root}{page.url}" hreflang')
    return OTHER_SITE.sub("", output.replace(SEARCH, f'{SEARCH} aria-label="{name}"'))
