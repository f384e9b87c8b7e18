"""From trained weights to ONNX graphs: fp32, and int8 by static quantisation. The transform's arithmetic is inside the graph.

A graph takes `pixels` (N, S, S, 3) uint8 and gives `logits`, `features` and `feature_map`, so that the server needs no torch and cannot
normalise differently from training.
"""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline_project.settings.tree import ImageSettings

if TYPE_CHECKING:
    from pipeline_project.training.models import ClassifierNetwork

OUTPUTS = ("logits", "features", "feature_map")


def export_fp32(network: "ClassifierNetwork", image: ImageSettings) -> bytes:
    """The network with the transform's arithmetic in front, as ONNX; free of file paths and other traces of where it was made."""
    import torch

    from pipeline_project.training.augmentation import to_input

    class ServedGraph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            output = self.network(to_input(pixels, image))
            return output.logits, output.features, output.feature_map

    example = torch.zeros((2, image.size, image.size, 3), dtype=torch.uint8)
    with _quiet():
        program = torch.onnx.export(
            ServedGraph().eval(),
            (example,),
            dynamo=True,
            input_names=["pixels"],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    return _stripped(program.model_proto.SerializeToString())


def quantise_int8(fp32: bytes, calibration: NDArray[np.uint8]) -> bytes:
    """Static quantisation: unsigned 8-bit activations, signed per-channel weights (U8S8).

    Batch normalisation is folded into the convolutions first: without that, ONNX Runtime's int8 is slower than its fp32.

    Args:
        fp32: a graph of `export_fp32`.
        calibration: (N, S, S, 3) images of the training split.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches: Iterator[NDArray[np.uint8]] = iter(np.array_split(calibration, max(1, len(calibration) // 16)))

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"pixels": batch}

    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, folded, result = (Path(folder) / name for name in ("fp32.onnx", "folded.onnx", "int8.onnx"))
        source.write_bytes(fp32)
        quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
        quantize_static(
            str(folded),
            str(result),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return _stripped(result.read_bytes())


def run_graph(graph: bytes, pixels: NDArray[np.uint8], batch: int = 64) -> dict[str, NDArray[np.float32]]:
    """The graph's outputs for all images, by ONNX Runtime on one thread: {output: (N, ...) float32}."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    parts = [session.run(list(OUTPUTS), {"pixels": np.asarray(pixels[i : i + batch])}) for i in range(0, len(pixels), batch)]
    return {name: np.concatenate([part[k] for part in parts]) for k, name in enumerate(OUTPUTS)}


def head_arrays(network: "ClassifierNetwork") -> dict[str, NDArray[Any]]:
    """The head's two layers (dropout is nothing at inference): w1 (H, D), b1, w2 (C, H), b2; the server explains with them."""
    from torch import nn

    first, second = (layer for layer in network.head.modules() if isinstance(layer, nn.Linear))
    layers = {"w1": first.weight, "b1": first.bias, "w2": second.weight, "b2": second.bias}
    return {name: tensor.detach().cpu().numpy() for name, tensor in layers.items()}


def _stripped(data: bytes) -> bytes:
    """Without stack traces, file names and producer versions: equal networks give equal bytes on every machine."""
    import onnx

    model = onnx.load_model_from_string(data)
    model.producer_name = model.producer_version = model.doc_string = ""
    del model.metadata_props[:]
    graph: Any = model.graph
    for part in (graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        part.doc_string = ""
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
    stripped: bytes = model.SerializeToString(deterministic=True)
    return stripped


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters narrate and warn of their own internals; a failure still raises."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
