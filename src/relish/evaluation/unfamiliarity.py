"""How unlike the images a model learned from a new one is, from the features that feed its output layer.

The unfamiliarity of an image is one minus the cosine similarity of its features and those of the training image that is
the k-th nearest to it: 0 in their midst, higher where it is stranger, 2 at most. A bank of training images' features
travels in the header of the model file, where whoever loads the network alone does not meet it; the threshold above
which an image is called unknown travels with the decision. docs/evaluating.md compares it with other scores.

Source: Sun et al. 2022, arXiv:2204.06507: the k-th nearest neighbour among features of unit length. The threshold is a
conformal quantile: Vovk et al. 2005, Algorithmic Learning in a Random World, section 2.2.
"""

import base64
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from relish.core.errors import ModelError, RecipeError
from relish.data.split import evenly_spaced
from relish.evaluation.features import Features
from relish.models.head import output_layer

HEADER_KEY = "unfamiliarity"
"""The key of the bank in a model file's header."""
SHARE = 0.01
"""Of held-out images that may be called unknown, unless the user says otherwise."""
MOST_IMAGES = 1000
"""Training images whose features are compared, evenly spaced: a pass over them, where their features are not kept."""
BANK_BYTES = 2**21
"""Of the bank in a model file, at most: 819 images of 1,280 features."""
NEIGHBOURS = 3
"""The k of the k-th nearest, or fewer where there are fewer images."""
SHORTEST = 1e-6
"""Features shorter than this are taken for as long."""


@dataclass(frozen=True, eq=False)
class Unfamiliarity:
    """The features that new ones are compared with."""

    bank: npt.NDArray[np.float16]
    """(M, D) float16, rows of about unit length."""
    neighbours: int
    """The k of the k-th nearest, 1 to M."""

    def similarity(self, features: Tensor) -> Tensor:
        """(B, D) float32 features to their (B, M) cosine similarities with the bank."""
        with torch.autocast(features.device.type, enabled=False):  # bf16 would be too coarse for what is compared
            return _unit(features) @ self._rows.to(features.device).T

    @cached_property
    def _rows(self) -> Tensor:
        return torch.from_numpy(self.bank.astype(np.float32))

    def of(self, similarity: Tensor) -> Tensor:
        """(B, M) similarities to (B,) unfamiliarity, 0 to 2; higher is stranger."""
        return torch.relu(1.0 - similarity.topk(self.neighbours, dim=1).values[:, -1])  # a float16 row may be too long

    def as_header(self) -> str:
        """JSON for a model file's header."""
        rows, features = self.bank.shape
        content = base64.b64encode(self.bank.astype("<f2").tobytes()).decode()
        return json.dumps({"neighbours": self.neighbours, "rows": rows, "features": features, "bank": content})


@dataclass(frozen=True)
class Limit:
    """The unfamiliarity above which an image is called unknown, and what it was chosen on."""

    above: float
    called: int
    """Held-out images above it."""
    held: int
    """Held-out images."""
    share: float
    """That may be called unknown, as it was asked for."""
    scores: Features = field(repr=False, compare=False)
    """(n,) float32: the unfamiliarity of each held-out image."""

    @property
    def rough(self) -> bool:
        """Whether there are too few held-out images for the share: the strangest of them is the limit then."""
        return self.share * (self.held + 1) < 1

    def sentence(self) -> str:
        """Such as `above 0.412: 9 of 1,000 held-out pictures`."""
        words = f"above {self.above:.3f}: {self.called} of {self.held:,} held-out pictures"
        if not self.rough:
            return words
        return f"{words}, the strangest of which is the limit: for {self.share:g} of them it takes {self.needed:,}"

    @property
    def needed(self) -> int:
        """Held-out images that the share takes."""
        return math.ceil(1 / self.share - 1e-9) - 1


def fit_unfamiliarity(
    learned: Features, keys: Sequence[str], share: float = SHARE, held: Features | None = None
) -> tuple[Unfamiliarity, Limit]:
    """The bank of these images, and the limit that calls at most a share of new images like them unknown.

    Held-out images are either given, or each learned one is compared with the bank without its own unit: a bank is no
    more than its rows, so to leave them out is to fit without them. Of n scores of such images the limit is the
    floor(share (n + 1))-th largest: a new image like them is above it with a probability of at most `share`.

    Args:
        learned: (N, D) float32, of training images.
        keys: N; images of equal key (copies, shots of one scene) are left out together.
        share: above 0 and below 1.
        held: (n, D) float32, of images that nothing was fitted to; None leaves out each of the learned ones in turn.

    Raises:
        ModelError: all images of the bank are of one unit, so none can be compared with another.
    """
    rows = evenly_spaced(len(learned), max(2, min(MOST_IMAGES, BANK_BYTES // (2 * learned.shape[1]))))
    kept = [keys[row] for row in rows]
    others = len(kept) - max(Counter(kept).values())
    if others < 1:
        raise ModelError("what is unknown cannot be told: every picture learned from is of one series.")
    bank = _unit(torch.from_numpy(learned[rows])).numpy().astype(np.float16)
    fitted = Unfamiliarity(bank, min(NEIGHBOURS, others))
    similarity = fitted.similarity(torch.from_numpy(learned if held is None else held))
    if held is None:
        number = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        unit, unit_of_row = (torch.tensor([number[key] for key in some]) for some in (keys, kept))
        similarity[unit[:, None] == unit_of_row] = -1.0
    return fitted, limit_of(fitted.of(similarity).numpy(), share)


def limit_of(scores: Features, share: float) -> Limit:
    """The limit that these scores of held-out images give; see `fit_unfamiliarity`."""
    rank = max(1, math.floor(share * (len(scores) + 1) + 1e-9))
    above = float(np.sort(scores)[-rank])
    return Limit(above, int((scores > above).sum()), len(scores), share, scores)


def _unit(features: Tensor) -> Tensor:
    found: Tensor = features / torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp(min=SHORTEST)
    return found


# ---- beside a network -----------------------------------------------------------------------------------------------


class WithFeatures(nn.Module):
    """A network that gives the input of its output layer beside its logits: (B, K) and (B, D)."""

    def __init__(self, network: nn.Module, head: str) -> None:
        """
        Args:
            head: the name of its output layer, which `Backbone` accepts.
        """
        super().__init__()
        self.network, self.head = network, head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) float32, normalised."""
        taken: list[Tensor] = []
        hook = output_layer(self.network, self.head).register_forward_pre_hook(
            lambda _, inputs: taken.append(inputs[0])
        )
        try:
            logits = self.network(images)
        finally:
            hook.remove()
        return logits, taken[-1].flatten(1)


class Scored(nn.Module):
    """A network with one column more than its logits: the unfamiliarity of each image, (B, K + 1) float32."""

    def __init__(self, network: nn.Module, head: str, unfamiliarity: Unfamiliarity) -> None:
        """
        Raises:
            ModelError: the bank is of another network's features.
        """
        super().__init__()
        given, wanted = unfamiliarity.bank.shape[1], output_layer(network, head).weight.shape[1]
        if given != wanted:
            raise ModelError(f"the model's {HEADER_KEY} is of {given} features; its network has {wanted}.")
        self.inner, self.unfamiliarity = WithFeatures(network, head), unfamiliarity

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) float32, normalised."""
        logits, features = self.inner(images)
        score = self.unfamiliarity.of(self.unfamiliarity.similarity(features.float()))
        return torch.cat([logits.float(), score[:, None]], dim=1)


def parted(rows: npt.NDArray[np.float32], classes: int) -> tuple[Features, npt.NDArray[np.float32] | None]:
    """(N, K) logits and (N,) unfamiliarity of the rows that a network gives; None where it is not `Scored`."""
    return rows[:, :classes], rows[:, classes] if rows.shape[1] > classes else None


# ---- what comes from outside ----------------------------------------------------------------------------------------


class _Header(BaseModel):
    model_config = ConfigDict(extra="ignore")

    neighbours: int = Field(ge=1, le=2**31)
    rows: int = Field(ge=1, le=2**31)
    features: int = Field(ge=1, le=2**31)
    bank: str


def unfamiliarity_from(header: Mapping[str, str]) -> Unfamiliarity | None:
    """The bank in a model file's header; None where there is none.

    Raises:
        ModelError: it is not what `as_header` wrote.
    """
    if HEADER_KEY not in header:
        return None
    try:
        found = _Header.model_validate_json(header[HEADER_KEY])
        content = base64.b64decode(found.bank, validate=True)
        bank = np.frombuffer(content, dtype="<f2").astype(np.float16).reshape(found.rows, found.features)
        if found.neighbours > found.rows or not np.isfinite(bank).all():
            raise ValueError("its numbers cannot be")
    except (ValueError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise ModelError(f"the model's {HEADER_KEY} cannot be read ({reason[:80]}).") from None
    return Unfamiliarity(bank, found.neighbours)


def parse_share(words: str) -> float | None:
    """The share of `--unknown`; None for `none` or 0, which turn it off.

    Raises:
        RecipeError: neither a number from 0 to below 1 nor `none`.
    """
    if words.strip().lower() == "none":
        return None
    try:
        share = float(words)
    except ValueError:
        share = math.nan
    if not 0 <= share < 1:
        raise RecipeError(
            f"--unknown {words}: not a share of held-out pictures, 0 to below 1.", hint="Such as 0.01, or none."
        )
    return share or None
