"""INT8 files by others, each used as its documentation shows, on the same FP32 file and calibration pictures.

- onnxruntime: `quantize_static` in its Q/DQ form, per channel; as it comes, and with the options that its page on
  TensorRT names (symmetric activations, biases left in float, pairs on weights).
- modelopt: NVIDIA Model Optimizer's `modelopt.onnx.quantization` (`pip install 'nvidia-modelopt[onnx]'`; no part of
  edgecnn needs it).

And two of edgecnn's own parts alone: its pairs with the greatest magnitude as range, and all but the ranges.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (  # type: ignore[import-untyped]
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process  # type: ignore[import-untyped]

from edgecnn.quantize.graph import load, prepare
from edgecnn.quantize.insert import insert, plan, scales
from edgecnn.quantize.ranges import collect
from edgecnn.quantize.stage import quantize, save
from edgecnn.recipe import QuantizeSection
from edgecnn.scene import F32

Quantizer = Callable[[Path, Sequence[F32], Path], None]  # FP32 file, inputs (1, C, H, W), file to write


class Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, feeds: Sequence[F32]) -> None:
        self.rows: Iterator[dict[str, F32]] = ({name: feeds[i]} for i in range(len(feeds)))

    def get_next(self) -> dict[str, F32] | None:
        return next(self.rows, None)


def onnxruntime_form(source: Path, feeds: Sequence[F32], out: Path, options: Mapping[str, Any]) -> None:
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.onnx"
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            str(out),
            Reader(entry(source), feeds),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options=dict(options),
        )


def modelopt_form(source: Path, feeds: Sequence[F32], out: Path, method: str) -> None:
    from modelopt.onnx.quantization import quantize as theirs  # type: ignore[import-not-found]

    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
        theirs(
            onnx_path=shutil.copy(source, folder),  # it changes the file that it is given
            quantize_mode="int8",
            calibration_data={entry(source): np.concatenate([feeds[i] for i in range(len(feeds))])},
            calibration_method=method,
            calibration_eps=["cpu"],
            high_precision_dtype="fp32",
            output_path=str(out),
            log_level="ERROR",
        )


def edgecnn_form(source: Path, feeds: Sequence[F32], out: Path, section: QuantizeSection) -> None:
    save(quantize(load(source), feeds, section).tensorrt, out)


def edgecnn_pairs(source: Path, feeds: Sequence[F32], out: Path) -> None:
    """The placement alone: no evened channels, no corrected biases, every kernel in INT8, ranges by magnitude."""
    model = prepare(load(source))
    chosen = plan(model)
    found = collect(model, chosen.tensors, (feeds[i] for i in range(len(feeds))), 2048)
    save(insert(model, chosen.points, scales(chosen, {n: h.max for n, h in found.items()}), chosen.kernels), out)


def entry(source: Path) -> str:
    return str(onnx.load(str(source), load_external_data=False).graph.input[0].name)


def quantizers(section: QuantizeSection) -> dict[str, Quantizer]:
    """Row → how its INT8 file is made. `section`: the recipe's, for edgecnn's own row."""
    for_tensorrt = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "AddQDQPairToWeight": True,
        "DedicatedQDQPair": True,
    }
    return {
        "edgecnn": partial(edgecnn_form, section=section),
        "edgecnn, pairs alone": edgecnn_pairs,
        "onnxruntime as it comes": partial(onnxruntime_form, options={}),
        "onnxruntime for TensorRT": partial(onnxruntime_form, options=for_tensorrt),
        # last: modelopt changes onnxruntime's calibrators in this process
        "modelopt, entropy": partial(modelopt_form, method="entropy"),
        "modelopt, max": partial(modelopt_form, method="max"),
    }
