"""Sample images drawn by code: hot dogs and other foods.

`shapes` is what everything is drawn with, `relief` a scene and its lighting, `table` what lies beneath; `long_foods`
(hot dogs first), `round_foods`, `side_views` and `things` stand on it; `datasets` composes images in class folders.
"""
