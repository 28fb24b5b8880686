"""Write an ONNX graph as one writes a formula: each operator is a call that hands back the name of its result.

In:   operators' names, results of other calls, and plain Python or NumPy values for constants.
Out:  nodes and initialisers, in the order they were written, under names that never change.
Not here: which operators mean what (`resize.py`, `pipeline.py`).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

DOUBLE, FLOAT, INT64, UINT8 = TensorProto.DOUBLE, TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8


class Graph:
    """Nodes and constants under one prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.initialisers: list[TensorProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def op(self, operator: str, *inputs: str, named: str | None = None, **attributes: Any) -> str:
        """Add one node; returns the name of its only output, which is `named` where that is given."""
        number = len(self.nodes)
        result = named or f"{self.prefix}/{number:03}_{operator.lower()}"
        name = f"{self.prefix}/{operator}_{number:03}"
        self.nodes.append(helper.make_node(operator, list(inputs), [result], name=name, **attributes))
        return result

    def constant(self, value: Any, dtype: npt.DTypeLike) -> str:
        """A constant's name; equal ones are kept once."""
        array = np.asarray(value, dtype=dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = f"{self.prefix}/constant_{len(self._constants):03}"
            self.initialisers.append(numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def whole(self, *values: int) -> str:
        """(n,) int64, which is what shapes, axes and slices take."""
        return self.constant(values, np.int64)

    def real(self, value: float) -> str:
        """A float64 scalar."""
        return self.constant(value, np.float64)

    def single(self, value: float) -> str:
        """A float32 scalar."""
        return self.constant(value, np.float32)

    def cast(self, name: str, to: int) -> str:
        """The same values in another type."""
        return self.op("Cast", name, to=to)
