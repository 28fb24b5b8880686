"""ImageNet's class names, in the order of the output rows, with their WordNet synonyms.

In:   the name of a label set, such as `imagenet-1k`.
Out:  one label per row, and every single name a row goes by.
Not here: matching a user's classes against them (`matching.py`).

The tables are timm's. A row number alone proves nothing: lists in other orders are about, so names travel with weights.
"""

from functools import cache

LABEL_SETS = (
    "imagenet-1k",
    "imagenet-12k",
    "imagenet-21k-goog",
    "imagenet-21k-miil",
    "imagenet-22k",
    "imagenet-22k-ms",
)
"""The words that `labels` of a weights header may say instead of a list."""


@cache
def imagenet_labels(label_set: str = "imagenet-1k") -> tuple[str, ...]:
    """The label of every output row: its WordNet lemmas, joined by commas (`hotdog, hot dog, red hot`)."""
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo(label_set).label_descriptions())


@cache
def imagenet_descriptions(label_set: str = "imagenet-1k") -> tuple[str, ...]:
    """The same with each class's definition, which tells the two cranes apart."""
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo(label_set).label_descriptions(detailed=True))


def label_set_of(labels: tuple[str, ...] | None) -> str | None:
    """The word for these labels where they are exactly one of ImageNet's lists, else None."""
    from timm.data.imagenet_info import infer_imagenet_subset

    # No two of the lists are of the same length.
    label_set: str | None = infer_imagenet_subset({"num_classes": len(labels)}) if labels else None
    return label_set if label_set and imagenet_labels(label_set) == labels else None


def names_of_rows(labels: tuple[str, ...]) -> list[list[str]]:
    """For each row, every single name it goes by; only ImageNet's labels are split at their commas."""
    if label_set_of(labels):
        return [label.split(", ") for label in labels]
    return [[label] for label in labels]
