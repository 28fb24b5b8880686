"""Files of weights with changed headers, tensors and bytes: loaded and usable, or refused; nothing in them is run."""

import io
import json
import os
import pickle
import zipfile
from functools import cache

import numpy as np
import safetensors.torch
import torch
from hypothesis import strategies as st

from relish.evaluation.unfamiliarity import Unfamiliarity
from relish.models.saved_model import ModelDescription, save_model
from relish.models.source import load_source
from relish.tasks.classifier import Classifier
from tests.fuzz.harness import folder, fuzz, kept_in
from tests.fuzz.mutation import WORDS, changed, mutated

LINES = 6
"""Weights of another network are refused with what is missing, unexpected and misshapen, a line each."""
PICTURE = np.zeros((20, 30, 3), dtype=np.uint8)


@cache
def seed() -> bytes:
    """A small model with everything that a header can say."""
    description = ModelDescription(
        library="timm",
        architecture="test_resnet",
        model_args={"channels": [4, 4, 4, 4], "stem_width": 4},
        num_classes=3,
        labels=("a", "b", "é"),
    )
    preprocessing = {"image_size": 32, "resize": 36, "mean": [0.5] * 3, "std": [0.5] * 3, "framing": "crop"}
    network = description.build()
    width = network.get_submodule("fc").weight.shape[1]
    extra = {
        "preprocessing": json.dumps(preprocessing),
        "decision": json.dumps({"temperature": 1.5, "unknown_above": 0.1}),
        "unfamiliarity": Unfamiliarity(np.ones((2, width), np.float16), 1).as_header(),
    }
    with folder() as here:
        save_model(here / "m.safetensors", network, description, extra)
        return (here / "m.safetensors").read_bytes()


def parted() -> tuple[dict, bytes]:
    content = seed()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(layout: object, tensors: bytes, length: int | None = None) -> bytes:
    text = json.dumps(layout, ensure_ascii=False).encode(errors="replace")
    text += b" " * (-len(text) % 8)
    return (len(text) if length is None else length).to_bytes(8, "little") + text + tensors


VALUES = (
    *(
        "1",
        "3",
        "0",
        "-1",
        "1000000",
        "3.0",
        "NaN",
        "1e999",
        "1" + "0" * 400,
        "[]",
        "[0,0,0]",
        "[3,32,32]",
        "[3,1,8192]",
    ),
    *("[3,99999,1]", "[0.5,0.5,0.5]", '["a","b","c"]', '["a","a","b"]', '["a","b","\\ud800"]', "imagenet-1k", "own"),
    *("timm", "torchvision", "gluon", "resnet18", "test_vit", '{"layers":[0,0,0,0]}', '{"in_chans":1}', "bicubic"),
    *('{"in_chans":1000000000}', '{"model_name":"x"}', '{"pretrained":true}', '{"act_layer":"x"}', '{"block":null}'),
    *('{"drop_rate":"x"}', '{"stem_width":-1}', '{"output_stride":7}', '{"global_pool":[]}', '{"num_classes":2}'),
    *(f"[{'9' * 400},1,1]", f"[1,1,{'9' * 400}]", f'{{"image_size":{"9" * 30},"resize":1}}', '{"temperature":0}'),
    *('{"image_size":1,"resize":1,"mean":[0,0,0],"std":[0,0,0]}', '{"positive":"a","threshold":0.5}', "[" * 5000),
    *('{"image_size":32,"resize":32,"mean":[0,0,0],"std":[1,1,1],"value_range":{"low":5,"high":1}}',),
    *('{"image_size":32,"resize":999999999,"mean":[0,0,0],"std":[1,1,1]}', '{"unknown_above":NaN}'),
    *('{"neighbours":1,"rows":1,"features":1,"bank":"AAA="}', '{"neighbours":9,"rows":1,"features":2,"bank":"AA=="}'),
)
values = st.one_of(st.sampled_from(VALUES), st.sampled_from(VALUES), st.sampled_from(WORDS))
DTYPES = (
    "F64",
    "F32",
    "F16",
    "BF16",
    "F8_E5M2",
    "F8_E4M3",
    "I64",
    "I32",
    "I8",
    "U8",
    "BOOL",
    "C64",
    "F4",
    "F8_E8M0",
    "X",
)
shapes = st.lists(st.sampled_from([0, 1, 2, 3, 8, 2**31, 2**63]), max_size=4)


@st.composite
def safetensors_bytes(draw) -> bytes:
    """A file whose words, or tensors, are others."""
    layout, tensors = parted()
    layout["__metadata__"] = draw(changed(layout["__metadata__"], values))
    names = sorted(name for name in layout if name != "__metadata__")
    for name in draw(st.lists(st.sampled_from(names), max_size=2)):
        place = dict(layout.pop(name, {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}))
        match draw(st.integers(0, 4)):
            case 0:
                place["dtype"] = draw(st.sampled_from(DTYPES))
            case 1:
                place["shape"] = draw(shapes)
            case 2:
                place["data_offsets"] = draw(st.lists(st.integers(-1, 2**64), min_size=1, max_size=3))
            case 3:
                name = draw(st.sampled_from([*WORDS, "module.x"]))
            case 4:
                continue
        layout[name] = place
    length = draw(st.none() | st.sampled_from([0, 1, 8, 2**31, 2**40, 2**63]))
    return joined(layout, tensors, length)


@st.composite
def retyped(draw) -> bytes:
    """Tensors of other types under the right names, shapes and header."""
    tensors = safetensors.torch.load(seed())
    for name in draw(st.lists(st.sampled_from(sorted(tensors)), min_size=1, max_size=2, unique=True)):
        form = draw(
            st.sampled_from([torch.complex64, torch.int8, torch.bool, torch.float64, torch.float8_e5m2, torch.uint16])
        )
        nan = draw(st.booleans()) and tensors[name].is_floating_point()
        tensors[name] = torch.full_like(tensors[name], torch.nan) if nan else tensors[name].to(form)
    return safetensors.torch.save(tensors, metadata=parted()[0]["__metadata__"])


class Harm:
    """Unpickled, it would leave a folder behind."""

    def __reduce__(self):
        return os.mkdir, ("../../harm",)


def pickles() -> list[bytes]:
    """State dicts as torch saves them, and what only looks like one."""
    state = {"weight": torch.ones(2, 2), "bias": torch.ones(2)}
    made = []
    for content, options in ((state, {}), (state, {"_use_new_zipfile_serialization": False}), (Harm(), {})):
        file = io.BytesIO()
        torch.save(content, file, **options)
        made.append(file.getvalue())
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as opened:
            opened.writestr("a/data.pkl", pickle.dumps(Harm()))
            opened.writestr("a/version", "3")
        made.append(file.getvalue())
    return [*made, pickle.dumps(Harm()), pickle.dumps({"a": Harm()}, protocol=2)]


files = st.one_of(
    st.tuples(st.just("m.safetensors"), safetensors_bytes()),
    st.tuples(st.just("m.safetensors"), retyped()),
    st.tuples(st.just("m.safetensors"), st.deferred(lambda: mutated([seed()[:4000]]).map(lambda s: s + seed()[4000:]))),
    st.tuples(st.sampled_from(["m.pth", "m.safetensors"]), st.deferred(lambda: mutated(pickles()))),
)


@fuzz(files, examples=50)
def test_a_file_of_weights_is_usable_or_refused(given):
    name, content = given
    with folder() as here:
        path = here / name
        path.write_bytes(content)
        with kept_in(here, LINES):
            model = Classifier.load(path, device="cpu")
            assert all(not value.is_complex() for value in model.network.state_dict().values())
            assert "".join(model.classes).encode()
            (row,) = model.predict(PICTURE)
            assert row.class_name in model.classes
        if name == "m.pth":
            with kept_in(here, LINES):
                load_source("timm/test_resnet", str(path))
