"""Sample images drawn by code: hot dogs and other foods, and source classes to pretrain on.

In:   a folder to make, counts, a seed.
Out:  a class-folder dataset of JPEG images.

`relief` holds a scene before it is lit, `light` lights and photographs it, `table` lays it; `hotdog`, `long_foods`,
`round_foods`, `side_views`, `things` and `hand` are what can be on it; `scene` composes one image, `datasets` writes
the folders.
"""

from relish.data.drawn.datasets import draw_hotdogs, draw_source_classes

__all__ = ["draw_hotdogs", "draw_source_classes"]
