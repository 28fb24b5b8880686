"""What programs read at the head of a model card: licence, tags, figures.

In:   a run's figures, and the words of its model file.
Out:  YAML in the form of the Hugging Face Hub, by its own library.

Source: https://huggingface.co/docs/hub/model-cards, "Model card metadata" and "Evaluation Results".
"""

import re
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

TASK = "image-classification"
UNKNOWN = "unknown"
"""The Hub's own word for a licence that nobody has named."""
_METRICS = (
    ("top1", "accuracy", "Accuracy"),
    ("balanced_accuracy", "balanced_accuracy", "Balanced accuracy"),
    ("macro_f1", "f1", "Macro-F1"),
    ("auc", "roc_auc", "Area under the ROC curve"),
    ("top5", "top_5_accuracy", "Top-5 accuracy"),
)
"""Key in `evaluation.json`, type as the Hub knows it, name."""


def card_data(
    name: str, dataset: str, evaluation: Mapping[str, Any], header: Mapping[str, str], licence: str | None
) -> str:
    """YAML, without the lines of dashes around it.

    Args:
        name: of the model.
        dataset: its name.
        evaluation: as `evaluation.json` holds it; figures that are absent or null are left out.
        header: of the model file.
        licence: an identifier of the Hub, such as `mit`; None says that it is unknown.
    """
    data = ModelCardData(
        model_name=name,
        license=licence or UNKNOWN,
        library_name="relish",
        pipeline_tag=TASK,
        tags=[TASK, "relish", *([header["library"], header["architecture"]] if "architecture" in header else [])],
        eval_results=[
            EvalResult(
                task_type=TASK,
                dataset_type="imagefolder",  # pictures of one's own, which the Hub does not have
                dataset_name=dataset,
                dataset_split=evaluation["split"],
                metric_type=kind,
                metric_name=title,
                metric_value=evaluation[key]["value"],
                metric_args={"interval_95": evaluation[key]["interval"]},
            )
            for key, kind, title in _METRICS
            if evaluation.get(key)
        ],
        **_made_from(header),
    )
    return str(data.to_yaml())


def source_words(header: Mapping[str, str]) -> str:
    """The source model, without the folders that its file lay in: a card is made to be given away."""
    name, _, origin = header.get("source", "").partition(": ")
    file = re.fullmatch(r"(?:.*[/\\])?(.+? \(SHA-256 .*\))", origin, re.DOTALL)
    return f"{name}: {file[1] if file else origin}" if origin else name


def _made_from(header: Mapping[str, str]) -> dict[str, Any]:
    """`source` in words, and `base_model` where the Hub has it under a name that is known for sure."""
    found: dict[str, Any] = {"source": source_words(header)} if "source" in header else {}
    met = re.match(r"timm/([\w.]+?)(?:\.\w+)?: timm's weights (\w+) ", header.get("source", ""))
    if met is not None:
        from timm.models import get_pretrained_cfg

        record = get_pretrained_cfg(f"{met[1]}.{met[2]}")
        if record is not None and record.hf_hub_id:
            found |= {"base_model": record.hf_hub_id, "base_model_relation": "finetune"}
    return found
