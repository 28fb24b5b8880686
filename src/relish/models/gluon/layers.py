"""The layers of Gluon's networks that torch has in another form.

In:   what Gluon's own constructors take.
Out:  torch modules whose parameters lie where Gluon's do.
Not here: the networks made of them (`networks.py`).

Modules are nested and numbered as in Gluon, activations included, so that `features.5.0.bn1` is the same norm in both.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

NEW_SHARE = 0.1
"""Of a batch's statistics in the running ones: torch's momentum. Gluon's, 0.9, is the share that is kept."""


class Scope(nn.Sequential):
    """A row of modules that begins a scope of Gluon's older names: `stage1_conv0_weight` is in the scope `stage1_`."""

    def __init__(self, scope: str, *modules: nn.Module) -> None:
        super().__init__(*modules)
        self.scope = scope


class Norm(nn.BatchNorm2d):
    """Gluon's batch norm, which differs from torch's in three ways (MXNet 1.9.1, measured on a processor).

    - Its running variance is the mean of *biased* variances of the batches; torch's of unbiased ones.
    - Running statistics move when the gradient comes back through the norm. Where none does, because nothing before it
      learns, they stay: so do those of the very first norm of a ResNet v2, however long it is trained.
    - With `scale=False` the factor is 1 and with `center=False` the offset does not learn. MXNet stores both all the
      same. A stored offset counts, so it is a buffer here; a stored factor does not, so there is none.
    """

    def __init__(self, channels: int, *, scale: bool = True, center: bool = True) -> None:
        super().__init__(channels, eps=1e-5, momentum=NEW_SHARE)
        if not scale:
            self.register_parameter("weight", None)
        if not center:
            del self.bias
            self.register_buffer("bias", torch.zeros(channels))

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, C, H, W) float32, normed by this batch in train mode, by the running statistics in eval mode."""
        if not self.training:
            return super().forward(pictures)
        kept = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        # A momentum of 1 leaves the statistics of this batch alone.
        mean, variance = (torch.zeros_like(tensor) for tensor in kept)
        normed = functional.batch_norm(
            pictures, mean, variance, self.weight, self.bias, training=True, momentum=1.0, eps=self.eps
        )
        if normed.requires_grad:
            count = pictures.numel() // pictures.shape[1]
            self._move(kept, (mean, variance * ((count - 1) / count)))
        return normed

    @torch.no_grad()
    def _move(self, kept: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor]) -> None:
        for old, batch in zip(kept, new, strict=True):
            old.lerp_(batch, NEW_SHARE)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    """A convolution that keeps the size, but for its stride."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=bias)


def conv_norm(outputs: int, inputs: int, kernel: int, stride: int = 1, **how: Any) -> list[nn.Module]:
    """A convolution without bias and its norm."""
    return [conv(inputs, outputs, kernel, stride, **how), Norm(outputs)]


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """Random weights as the book's MXNet tab draws them, `init.Xavier()`: every weight uniform, every bias zero.

    Source: Glorot and Bengio 2010, http://proceedings.mlr.press/v9/glorot10a.html; in MXNet the factor is the mean of
    both fans and the magnitude 3, which is the same bound.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                module.bias.zero_()
