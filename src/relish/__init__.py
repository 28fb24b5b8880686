"""relish: from a folder of labelled pictures and a pretrained model to a classifier you can trust.

    import relish
    clf = relish.fit("photos/")
    clf.predict(["new.jpg"])
    clf.evaluate("photos/test")

Names are imported when first used, so that `import relish` is quick.
"""

import sys
import warnings
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from relish.core.errors import RelishError as RelishError
    from relish.evaluation.prediction import Prediction as Prediction
    from relish.exporting.onnx_classifier import OnnxClassifier as OnnxClassifier
    from relish.models.own_module import source_model as source_model
    from relish.models.own_module import target_model as target_model
    from relish.tasks.check import Check as Check
    from relish.tasks.check import check as check
    from relish.tasks.classifier import Classifier as Classifier
    from relish.tasks.compare import compare as compare
    from relish.tasks.demo import demo as demo
    from relish.tasks.evaluate import decide as decide
    from relish.tasks.evaluate import evaluate as evaluate
    from relish.tasks.export import export as export
    from relish.tasks.fit import fit as fit
    from relish.tasks.fit import pretrain as pretrain
    from relish.tasks.inspect import convert as convert
    from relish.tasks.inspect import show as show
    from relish.tasks.predict import predict as predict
    from relish.tasks.report import report as report
    from relish.tasks.save import card as card
    from relish.tasks.serve import serve as serve
    from relish.tasks.sources import sources as sources
    from relish.tasks.sweep import sweep as sweep
    from relish.training.recipe import Recipe as Recipe

_HOMES = {
    "Check": "relish.tasks.check",
    "Classifier": "relish.tasks.classifier",
    "OnnxClassifier": "relish.exporting.onnx_classifier",
    "Prediction": "relish.evaluation.prediction",
    "Recipe": "relish.training.recipe",
    "RelishError": "relish.core.errors",
    "card": "relish.tasks.save",
    "check": "relish.tasks.check",
    "compare": "relish.tasks.compare",
    "convert": "relish.tasks.inspect",
    "decide": "relish.tasks.evaluate",
    "demo": "relish.tasks.demo",
    "evaluate": "relish.tasks.evaluate",
    "export": "relish.tasks.export",
    "fit": "relish.tasks.fit",
    "predict": "relish.tasks.predict",
    "pretrain": "relish.tasks.fit",
    "report": "relish.tasks.report",
    "serve": "relish.tasks.serve",
    "show": "relish.tasks.inspect",
    "source_model": "relish.models.own_module",
    "sources": "relish.tasks.sources",
    "sweep": "relish.tasks.sweep",
    "target_model": "relish.models.own_module",
}
__all__ = [
    "Check",
    "Classifier",
    "OnnxClassifier",
    "Prediction",
    "Recipe",
    "RelishError",
    "card",
    "check",
    "compare",
    "convert",
    "decide",
    "demo",
    "evaluate",
    "export",
    "fit",
    "load",
    "predict",
    "pretrain",
    "report",
    "serve",
    "show",
    "source_model",
    "sources",
    "sweep",
    "target_model",
]


def load(
    path: "str | Path", *, network: "nn.Module | None" = None, device: str = "auto", precision: str = "f32"
) -> "Classifier":
    """The classifier of a run folder or of a saved model file; see `Classifier.load`."""
    from relish.tasks.classifier import Classifier

    return Classifier.load(path, network=network, device=device, precision=precision)


if "ipykernel" in sys.modules:
    # Libraries of ours import it, and it warns that ipywidgets are missing, which relish's bar does without.
    with warnings.catch_warnings(), suppress(ImportError):
        warnings.simplefilter("ignore")
        import_module("tqdm.auto")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module relish has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
