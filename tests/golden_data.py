"""Files with the goldens' weights, built once and kept in ``build/goldens`` (see ``goldens/README.md``)."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from filelock import FileLock

HERE = Path(__file__).parent / "goldens"
BUILT = Path(__file__).parent.parent / "build" / "goldens"
SEED = 1234

_spec = importlib.util.spec_from_file_location("synth_weights", HERE / "synth_weights.py")
assert _spec is not None and _spec.loader is not None
synth = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(synth)


@cache
def layouts() -> dict[str, Any]:
    return json.loads((HERE / "layouts.json").read_text())


def case(name: str) -> dict[str, np.ndarray]:
    """The golden arrays of one case; those equal to the base case are stored there."""
    arrays = dict(np.load(HERE / "v2_48k_f0.npz"))
    if name == "v2_48k_nof0":
        arrays = {key: arrays[key] for key in ("input_16k", "audio_pad", "hubert", "sample_rate")}
    arrays.update(np.load(HERE / f"{name}.npz"))
    return arrays


def half(array: np.ndarray) -> torch.Tensor:
    """Float tensors as published files hold them; integers stay."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.half() if tensor.is_floating_point() else tensor


def voice_state(layout: dict[str, Any]) -> dict[str, torch.Tensor]:
    state = synth.synthesizer_state(SEED, layout["weight"], layout["config"][12])
    return {name: half(value) for name, value in state.items()}


def hubert_state() -> dict[str, torch.Tensor]:
    """Transformers names, float16."""
    return {
        name: half(synth.hubert_tensor(SEED, name, shape)) for name, shape in layouts()["hubert_transformers"].items()
    }


def rmvpe_state() -> dict[str, torch.Tensor]:
    layout = layouts()["rmvpe"]
    norms = {name.rsplit(".", 1)[0] for name in layout if name.endswith("running_mean")}
    return {
        name: half(synth.rmvpe_tensor(SEED, name, shape, name.rsplit(".", 1)[0] in norms))
        for name, (_, shape) in layout.items()
    }


def build(name: str, write: Callable[[Path], None]) -> Path:
    """``build/goldens/name``, written by ``write(path)`` if it is not there yet; safe between processes."""
    BUILT.mkdir(parents=True, exist_ok=True)
    path = BUILT / name
    with FileLock(BUILT / f"{name}.lock"):
        if not path.exists():
            part = path.with_name("part-" + name)
            write(part)
            part.replace(path)
    return path


def voice_file(name: str) -> Path:
    """A small ``.pth`` as RVC writes it: ``v2_48k_f0`` or ``v2_48k_nof0``."""
    layout = layouts()[name]
    return build(f"{name}.pth", lambda p: torch.save({**layout, "weight": voice_state(layout)}, p))


def rmvpe_file() -> Path:
    return build("rmvpe.pt", lambda p: torch.save(rmvpe_state(), p))


def hubert_folder() -> Path:
    """A transformers folder: ``config.json`` + ``pytorch_model.bin``."""
    folder = BUILT / "hubert_base"
    build("hubert_base.bin", lambda p: torch.save(hubert_state(), p))
    folder.mkdir(exist_ok=True)
    config = {"model_type": "hubert", "hidden_size": 768, "num_hidden_layers": 12, "classifier_proj_size": 256}
    (folder / "config.json").write_text(json.dumps(config))
    weights = folder / "pytorch_model.bin"
    if not weights.exists():
        weights.hardlink_to(BUILT / "hubert_base.bin")
    return folder


def index_file() -> Path:
    """The retrieval index of ``v2_48k_f0``: 20,000 x 768, IVF512, Flat, nprobe 1."""

    def write(path: Path) -> None:
        vectors = synth.normal(SEED, "index.v2_48k_f0", (20000, 768))
        index = faiss.index_factory(768, "IVF512,Flat")
        faiss.extract_index_ivf(index).nprobe = 1
        index.train(vectors)
        for start in range(0, len(vectors), 8192):
            index.add(vectors[start : start + 8192])
        faiss.write_index(index, str(path))

    return build("added_IVF512_Flat_nprobe_1_v2_48k_f0_v2.index", write)
