"""Export: a zoo model becomes ONNX, folded and compared with torch on real input; a user's ONNX is taken in whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgecnn.bundle import Bundle, ModelSpec, TensorSpec, atomic, check_outputs, sha256
from edgecnn.errors import InputError, MissingDependency, ModelError
from edgecnn.recipe import ExportSection, ModelSection, Recipe

if TYPE_CHECKING:
    import onnx
    from torch import nn

VERSION = 1
FILE = "model.onnx"
REGIONS_FILE = "model.regions.onnx"
TASKS: dict[str, Literal["classify", "embed", "detect"]] = {
    "logits": "classify",
    "embedding": "embed",
    "yolox": "detect",
}


def settings(recipe: Recipe) -> dict[str, Any]:
    own = recipe.export.model_dump(mode="json")
    if recipe.model.onnx is not None:
        if not recipe.model.onnx.is_file():
            raise InputError(f"no network at {recipe.model.onnx}", do="Name the ONNX file under model.onnx")
        own["model"] = recipe.model.model_dump(mode="json", exclude={"onnx"})
        own["onnx_sha256"] = sha256(recipe.model.onnx)
    if recipe.run.regions is not None:  # a bundle without them keeps its key
        own["regions"] = recipe.run.regions.model_dump(mode="json")
    return own


def run_stage(bundle: Bundle, recipe: Recipe) -> Bundle:
    """Write model.onnx. Raises ModelError if torch and ONNX disagree, or a user's network does not fit its decoder."""
    try:
        import onnx
    except ImportError as error:
        raise MissingDependency("onnx is not installed", do="Run: pip install 'edgecnn[desk]'") from error

    from edgecnn import onnxfile

    tools = {"onnx": onnx.__version__}
    if recipe.model.onnx is not None:
        model, spec = take_in(recipe.model)
        with atomic(bundle.path / FILE) as temporary:
            onnx.save(model, temporary)
        facts: dict[str, Any] = {"source": recipe.model.onnx.name}
    else:
        import torch

        from edgecnn import zoo

        before = bundle.require_model()
        net, _ = zoo.load(bundle.file("slim" if bundle.has("slim") else "weights"), before)
        with atomic(bundle.path / FILE) as temporary:
            write(net, before, temporary, recipe.export.opset)
            model = onnx.load(temporary)
            spec = replace(before, outputs=_tensors(model.graph.output))
            facts = compare(net, spec, temporary, recipe.export)
        tools["torch"] = torch.__version__
    files = {"fp32": FILE}
    facts |= {"nodes": len(model.graph.node), "bytes": (bundle.path / FILE).stat().st_size}
    facts["macs"] = onnxfile.multiply_adds(model)
    if recipe.run.regions is not None:
        spec = replace(spec, regions=(recipe.run.regions.height, recipe.run.regions.width))
        small = at_regions(model, spec)
        facts["macs_regions"] = onnxfile.multiply_adds(small)
        files["fp32_regions"] = REGIONS_FILE
        with atomic(bundle.path / REGIONS_FILE) as temporary:
            onnx.save(small, temporary)
    return bundle.with_stage(
        "export",
        settings=settings(recipe),
        version=VERSION,
        files=files,
        facts=facts,
        tools=tools,
        model=spec,
    )


def before_slimming(bundle: Bundle, folder: Path) -> list[Path]:
    """Write the network that the slim stage began with as ONNX: the whole frame's, and that of regions where the bundle
    has them. Raises ModelError where slimming changed the classes or the input, so that no figure would be comparable.
    """
    import onnx

    from edgecnn import zoo

    now, before = bundle.require_model(), bundle.stages["train"].model
    assert before is not None
    spec = replace(before, outputs=now.outputs, regions=now.regions)
    if (spec.classes, spec.input) != (now.classes, now.input):
        raise ModelError(
            "slimming changed the network's classes or its input, so before and after are not comparable",
            do="Leave check.max_slim_drop out of the recipe",
        )
    net, _ = zoo.load(bundle.file("weights"), before)
    paths = [folder / FILE]
    write(net, spec, paths[0], bundle.stages["export"].settings["opset"])
    if spec.regions is not None:
        paths.append(folder / REGIONS_FILE)
        onnx.save(at_regions(onnx.load(paths[0]), spec), paths[1])
    return paths


def at_regions(model: onnx.ModelProto, spec: ModelSpec) -> onnx.ModelProto:
    """The same network at `spec.regions`. Raises ModelError where it can't run at that size, or is no detector."""
    import numpy as np
    import onnxruntime as ort  # type: ignore[import-untyped]

    from edgecnn import onnxfile

    assert spec.regions is not None
    height, width = spec.regions
    if spec.task != "detect":
        raise ModelError(f"regions for a model for '{spec.task}'", wanted="a detector", do="Leave run.regions out")
    if uneven := [n for n in spec.regions if n % max(spec.strides)]:
        raise ModelError(f"regions of side {uneven[0]}", wanted=f"multiples of the stride {max(spec.strides)}")
    small, own = onnxfile.resized(model, height, width), spec.at_regions
    try:
        options = ort.SessionOptions()
        options.log_severity_level = 4  # what goes wrong arrives as an exception
        session = ort.InferenceSession(small.SerializeToString(), options, providers=["CPUExecutionProvider"])
        answers = session.run(None, {own.input.name: np.zeros(own.input.shape, np.float32)})
        check_outputs(own, {t.name: a.shape for t, a in zip(session.get_outputs(), answers, strict=True)})
    except Exception as error:  # onnxruntime's errors share no base class of their own
        reason = " ".join(str(error).split())[:160]
        raise ModelError(
            f"the network can't run at {width}x{height} ({reason})",
            wanted="a fully convolutional one that holds no size in its constants",
            do="Leave run.regions out of the recipe",
        ) from error
    return small


def write(net: nn.Module, spec: ModelSpec, path: Path, opset: int) -> None:
    """The network as ONNX, its tensors named as in `spec`."""
    from edgecnn.zoo.trace import trace

    trace(net, spec.input.shape, path, opset, [spec.input.name], [t.name for t in spec.outputs])


def compare(net: nn.Module, spec: ModelSpec, path: Path, section: ExportSection) -> dict[str, float]:
    """Largest difference between torch and onnxruntime, relative to the output's own range, on real input.

    Raises ModelError above the section's tolerance.
    """
    import numpy as np
    import onnxruntime as ort
    import torch

    from edgecnn.data import open_dataset
    from edgecnn.vision import Preprocess

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    preprocess, worst = Preprocess(spec), 0.0
    pictures = open_dataset(section.compare)
    for i in range(min(len(pictures), section.compare.pictures)):
        tensor, _ = preprocess(pictures[i].bgr)
        with torch.no_grad():
            answer = net(torch.from_numpy(tensor))
        wanted = answer if isinstance(answer, tuple) else (answer,)
        for a, b in zip(session.run(None, {spec.input.name: tensor}), wanted, strict=True):
            worst = max(worst, float(np.abs(a - b.numpy()).max() / max(float(np.ptp(a)), 1e-6)))
    if not worst <= section.tolerance:
        raise ModelError(
            f"ONNX and torch differ by {worst:.2e} of the output's range",
            wanted=f"at most {section.tolerance:g}",
            do="Raise export.tolerance only if you know why",
        )
    return {"difference": worst}


def take_in(section: ModelSection) -> tuple[onnx.ModelProto, ModelSpec]:
    """A user's network and the ModelSpec that the recipe and the graph give together.

    Axes that its input leaves open (a batch, a height, a width) are fixed to the recipe's. Raises InputError for a file
    that is no ONNX, ModelError for shapes that stay open, several inputs, or outputs that do not fit the decoder.
    """
    import onnx

    from edgecnn import onnxfile

    path = section.onnx
    assert path is not None and section.decode is not None
    model = onnxfile.read(path)
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.shape_inference.InferenceError as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path} is no sound ONNX network ({reason})", do="Export or copy it again") from error
    wanted = (1, 1 if section.channels == "grey" else 3, section.height, section.width)
    constants = {t.name for t in model.graph.initializer}
    taken = [i for i in model.graph.input if i.name not in constants]
    if section.height and section.width and len(taken) == 1 and len(taken[0].type.tensor_type.shape.dim) == 4:
        model = onnxfile.fix_axes(model, taken[0].name, (1, wanted[1], section.height, section.width))
    inputs = _tensors([i for i in model.graph.input if i.name not in constants])
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise ModelError(
            f"{path} takes {', '.join(f'{t.name}{list(t.shape)}' for t in inputs) or 'nothing'}",
            wanted="one input (1, 3, height, width)",
        )
    if inputs[0].shape != wanted:
        raise ModelError(
            f"{path} takes {inputs[0].name}{list(inputs[0].shape)}",
            wanted=f"{list(wanted)} from the recipe",
            do="Set model.height and model.width to the network's, or export it with a fixed shape",
        )
    outputs = _tensors(model.graph.output)
    spec = ModelSpec(
        arch="onnx",
        task=TASKS[section.decode],
        classes=() if section.decode == "embedding" else section.classes,
        input=inputs[0],
        outputs=outputs,
        decode=section.decode,
        strides=section.strides if section.decode == "yolox" else (),
        mean=section.mean,
        std=section.std,
        channels=section.channels,
        fit=section.fit,
        pad=section.pad,
    )
    check_outputs(spec, {t.name: t.shape for t in outputs})
    return model, spec


def _tensors(values: Any) -> tuple[TensorSpec, ...]:
    """Names and shapes of graph inputs or outputs. Raises ModelError for a dynamic axis or another type than float."""
    import onnx

    found = []
    for value in values:
        kind = value.type.tensor_type
        shape = tuple(int(d.dim_value) for d in kind.shape.dim)
        if not shape or min(shape) <= 0:
            axes = [d.dim_param or d.dim_value or "?" for d in kind.shape.dim]
            raise ModelError(
                f"'{value.name}' has a dynamic shape {axes}",
                wanted="fixed numbers",
                do="Set model.height and model.width, or export the network with a fixed batch, height and width",
            )
        names: dict[int, Literal["float32", "uint8"]] = {
            onnx.TensorProto.FLOAT: "float32",
            onnx.TensorProto.UINT8: "uint8",
        }
        if kind.elem_type not in names:
            raise ModelError(
                f"'{value.name}' is {onnx.TensorProto.DataType.Name(kind.elem_type).lower()}", wanted="float32"
            )
        found.append(TensorSpec(value.name, shape, names[kind.elem_type]))
    return tuple(found)
