"""OpenVINO on an x86 CPU: the INT8 file that onnxruntime runs, read from the .onnx itself.

Where the CPU has no VNNI, OpenVINO as onnxruntime adds products of u8 and s8 in pairs in 16 bits; it has no exact
kernels to ask for. There the weights are rounded once more on loading, just so coarsely that no pair can overflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov  # type: ignore[import-not-found,import-untyped,unused-ignore]
from numpy.typing import NDArray

from edgecnn.backends import Array, check_input
from edgecnn.bundle import ModelSpec, check_outputs
from edgecnn.cpu import cores, saturates
from edgecnn.errors import ModelError

LARGEST_PAIR = 128  # of two weights of one sign: 255 * 128 = 32640 fits 16 bits, 255 * 129 does not


class OpenVINO:
    """A compiled network with static shapes. Raises ModelError where it does not load or does not fit `model`."""

    def __init__(self, path: Path, model: ModelSpec, *, threads: int = 0) -> None:
        settings = {
            "INFERENCE_NUM_THREADS": threads or max(1, cores() - 1),
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # of what is not INT8: some CPUs would round it to bfloat16
        }
        try:
            network = ov.Core().read_model(path)
            if saturates():
                without_overflow(network)
            compiled = ov.Core().compile_model(network, "CPU", settings)
        except RuntimeError as error:
            raise ModelError(
                f"openvino {ov.__version__} does not load {path} ({error})", do="Compile the recipe again"
            ) from error
        check_input(model, {i.any_name: tuple(i.shape) for i in compiled.inputs})
        check_outputs(model, {o.any_name: tuple(o.shape) for o in compiled.outputs})
        self._inputs = [i.any_name for i in compiled.inputs]
        self._outputs = [o.any_name for o in compiled.outputs]
        self._request = compiled.create_infer_request()

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self._request.infer({name: feeds[name] for name in self._inputs}, share_inputs=True)
        return {name: self._request.get_output_tensor(i).data.copy() for i, name in enumerate(self._outputs)}


def without_overflow(network: Any) -> None:
    """Round the int8 weights of a network that `quantize` wrote anew, each output channel by its own `coarser`."""
    constants = {op.get_friendly_name(): op for op in network.get_ops() if op.get_type_name() == "Constant"}
    for name, weight in constants.items():
        scale = constants.get(f"{name}_scale")
        if scale is None or weight.get_element_type() != ov.Type.i8:
            continue
        factor = coarser(weight.data)
        whole = np.rint(weight.data / factor.reshape(-1, *[1] * (weight.data.ndim - 1)))
        for old, value in ((weight, whole.astype(np.int8)), (scale, scale.data * factor)):
            old.output(0).replace(ov.opset13.constant(value).output(0))


def coarser(weight: NDArray[np.int8]) -> NDArray[np.float32]:
    """(outputs, inputs, ...) int8 → (outputs,) the factor ≥ 1 by which each output channel must be divided.

    Multiplied and added at once are inputs 2k and 2k + 1 (oneDNN's 4i16o4i and its like; VPMADDUBSW, Intel SDM 2).
    Activations are 0 to 255, so only weights of one sign add up.
    """
    flat = weight.astype(np.int32).reshape(*weight.shape[:2], -1)
    even, odd = flat[:, 0::2], flat[:, 1::2]
    even = even.copy()
    largest = np.zeros(len(flat), np.int32)
    for sign in (1, -1):
        pair = np.maximum(sign * even, 0)
        pair[:, : odd.shape[1]] += np.maximum(sign * odd, 0)
        largest = np.maximum(largest, pair.max((1, 2)))
    # rounding may add half a step to each of the two
    return np.where(largest > LARGEST_PAIR, largest / (LARGEST_PAIR - 1), 1.0).astype(np.float32)
