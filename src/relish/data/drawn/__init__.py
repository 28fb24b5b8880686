"""Sample images drawn by code: hot dogs and other foods, and source classes to pretrain on.

`relief` is a scene and its lighting, `table` lays it; `hotdog`, `long_foods`, `round_foods`, `side_views` and `things`
can be on it; `scene` composes one image, `datasets` writes class folders of JPEG files.
"""

from relish.data.drawn.datasets import draw_hotdogs, draw_source_classes

__all__ = ["draw_hotdogs", "draw_source_classes"]
