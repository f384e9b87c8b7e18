"""The inference engine: an ONNX Runtime session over a verified package. No torch."""

from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pipeline_project.packaging.package import Head, LoadedPackage, PackageError

FloatArray = NDArray[np.float32]
_OUTPUTS = ("logits", "features", "feature_map")
_WARM_UP_RUNS = 3


class EngineError(RuntimeError):
    """The graph failed on an input, or answered with something that is no number."""


@dataclass(frozen=True)
class EnginePrediction:
    """What the graph says of N images: probabilities and logits (N, C), features (N, D), feature_map (N, D, h, w), float32."""

    probabilities: FloatArray
    features: FloatArray
    feature_map: FloatArray
    logits: FloatArray


class Engine:
    """One loaded package, ready to predict from several threads at once.

    Args:
        package: verified by `load_package`.
        threads: threads of one inference; across images the server's pool gives the parallelism.

    Raises:
        PackageError: the graph does not load, fails on a blank image, or its outputs do not fit the package.
    """

    def __init__(self, package: LoadedPackage, threads: int = 1) -> None:
        self.digest = package.digest
        self.manifest = package.manifest
        self.head: Head = package.head
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # spinning would steal the other worker's core
        options.log_severity_level = 3
        where = f"package {package.digest[:12]}"
        try:
            self._session = onnxruntime.InferenceSession(package.graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no common public base
            raise PackageError(f"{where}: ONNX Runtime does not load the graph: {error}. Build the package again.") from None
        missing = set(_OUTPUTS) - {output.name for output in self._session.get_outputs()}
        inputs = [graph_input.name for graph_input in self._session.get_inputs()]
        if missing or inputs != ["pixels"]:
            raise PackageError(f"{where}: the graph must take `pixels` and give {', '.join(_OUTPUTS)}; it takes {inputs}, lacks {missing}.")
        self._warm_up(where)

    def predict(self, pixels: NDArray[np.uint8]) -> EnginePrediction:
        """Predict a batch.

        Args:
            pixels: (N, S, S, 3) uint8, as `imaging.to_pixels` makes them, S the package's image size.

        Raises:
            EngineError: the graph failed, or its logits are not finite.
        """
        try:
            logits, features, feature_map = self._session.run(list(_OUTPUTS), {"pixels": pixels})
        except Exception as error:  # see above
            raise EngineError(f"package {self.digest[:12]}: the graph failed: {error}") from None
        if not np.isfinite(logits).all():
            raise EngineError(f"package {self.digest[:12]}: the graph gave logits that are not finite")
        return EnginePrediction(softmax(logits / np.float32(self.manifest.temperature)), features, feature_map, logits)

    def _warm_up(self, where: str) -> None:
        size, classes, width = self.manifest.image_size, len(self.manifest.classes), self.head.w1.shape[1]
        blank = np.zeros((1, size, size, 3), np.uint8)
        try:
            for _ in range(_WARM_UP_RUNS):
                answer = self.predict(blank)
        except EngineError as error:
            raise PackageError(f"{where}: fails on a blank image: {error}. Build the package again.") from None
        shapes = (answer.logits.shape, answer.features.shape, answer.feature_map.shape[:2])
        if shapes != ((1, classes), (1, width), (1, width)) or answer.feature_map.ndim != 4:
            raise PackageError(
                f"{where}: for one image the graph gives logits {shapes[0]}, features {shapes[1]}, feature_map {answer.feature_map.shape}; "
                f"its head needs (1, {classes}), (1, {width}), (1, {width}, h, w)."
            )


def softmax(logits: FloatArray) -> FloatArray:
    """Softmax over the last axis, without overflow."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: FloatArray = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return shares
