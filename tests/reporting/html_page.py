"""An HTML page as tests look at it: tags with their attributes, and the text between them."""

from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """A page that was parsed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        """The attributes of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self):
        """The text with single spaces."""
        return " ".join(self.text.split())
