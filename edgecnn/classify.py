"""What a classifier sees in pictures: `edgecnn classify`, at the desk, with the test-time methods of the papers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.bundle import Bundle
from edgecnn.data.files import read_picture
from edgecnn.errors import ModelError
from edgecnn.progress import bar

if TYPE_CHECKING:
    from edgecnn.zoo.testtime import Method

TOP = 5


def classify(bundle: Bundle, pictures: Sequence[Path], method: Method) -> list[dict[str, Any]]:
    """A row a picture: {picture, method, classes: [{name, probability}, ...]}, the likeliest first, five at most.

    Raises ModelError for a bundle without a classifier's weights, InputError for a file that is no picture.
    """
    spec = bundle.require_model()
    if spec.task != "classify" or not bundle.has("weights"):
        what = "a detector" if spec.task == "detect" else "a network that came as ONNX, without weights"
        raise ModelError(f"{bundle.path} holds {what}", wanted="a classifier of the zoo", do="See recipes/zoo")
    from edgecnn import zoo
    from edgecnn.zoo.testtime import predict

    net, spec = zoo.load(bundle.file("slim" if bundle.has("slim") else "weights"), spec)
    rows = []
    with bar("classify", len(pictures)) as advance:
        for path in pictures:
            probability = predict(net, spec, read_picture(path), method)
            best = probability.argsort()[::-1][:TOP]
            told = [{"name": spec.classes[i], "probability": round(float(probability[i]), 4)} for i in best]
            rows.append({"picture": str(path), "method": method, "classes": told})
            advance(1)
    return rows
