"""RVC and Applio voice files: the small ``.pth``, its safetensors forms, and our own self-describing safetensors.

A small file is a dictionary: ``weight`` (names to tensors), ``config`` (18 values), ``info``, ``sr``, ``f0`` and
``version``; Applio adds ``vocoder``, ``embedder_model`` and more, the ddPn08 fork a 19th config value. What is missing
takes the defaults of RVC, or what the weights show.
"""

from __future__ import annotations

import io
import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rocktop_ray.errors import VoiceFormatError
from rocktop_ray.models.rvc.config import CONTENT_DIMS, Decoder, SynthesizerConfig
from rocktop_ray.store.atomic import write_bytes
from rocktop_ray.voices.rvc_check import check_weights
from rocktop_ray.voices.safe_load import is_safetensors, load_pickle_tensors, load_safetensors
from rocktop_ray.voices.safetensors_file import safetensors_bytes

FORMAT = "rocktop-rvc"
"""``format`` in the metadata of our own safetensors."""
FORMAT_VERSION = 1
CONTENT_NAMES = {256: "hubert-v1", 768: "hubert-v2"}
"""Content units of ordinary voices, by width."""

_ORDINARY_EMBEDDERS = frozenset(("", "contentvec", "contentvec_base", "hubert", "hubert_base", "hubertbase"))
_HUBERT_LAYERS = {256: 9, 768: 12}
_SKIPPED = ("optimizer", "scaler", "scheduler")
_MAIN_KEYS = ("weight", "config", "info", "sr", "f0", "version")
_KNOWN_KEYS = frozenset((*_MAIN_KEYS, "format", "licence", "training_data"))
_PARAMETRIZED = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}


@dataclass(frozen=True, eq=False)
class RvcFile:
    """What an RVC or Applio voice file says, checked: config and weights fit each other."""

    config: SynthesizerConfig
    state: dict[str, Tensor]
    """Weights by the names of the file, weight normalisation as ``weight_g`` and ``weight_v``; no posterior encoder."""
    version: str
    """``v1`` or ``v2``."""
    content_name: str
    """Which content units the voice sings, e.g. ``hubert-v2``; Applio's ``embedder_model`` if it is another one."""
    info: str = ""
    sr: str | int = ""
    """The rate as the file writes it: ``"48k"``, or a number in Applio."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Keys beyond RVC's own, as plain data, e.g. Applio's ``epoch``, ``author``, ``vocoder``."""
    licence: str = ""
    training_data: str = ""
    """Fingerprint of the training data, if known."""


def read_rvc(path: str | Path) -> RvcFile:
    """Read a voice from ``.pth`` or ``.safetensors``, by content, whatever its name.

    Raises VoiceFormatError with a report if it does not fit, UnsafeFileError, VoiceNotFoundError, StorageError.
    """
    path = Path(path)
    if is_safetensors(path):
        tensors, metadata = load_safetensors(path)
        fields: Mapping[str, Any] = _from_metadata(path.name, metadata)
        return from_dict({**fields, "weight": tensors}, path.name, kind=metadata.get("format", ""))
    return from_dict(load_pickle_tensors(path, skip=_SKIPPED), path.name)


def from_dict(data: Mapping[Any, Any], name: str, *, kind: str = "") -> RvcFile:
    """From the dictionary in a file called ``name``. Raises VoiceFormatError."""
    weight, values = data.get("weight"), data.get("config")
    if not isinstance(weight, dict) or not isinstance(values, list | tuple):
        raise VoiceFormatError(f"{name} is not an RVC voice: {_what_it_is(data)}")
    state = {_legacy_name(str(key)): tensor for key, tensor in weight.items() if "enc_q" not in str(key)}
    if not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise VoiceFormatError(f"{name}: its weights are not all tensors")
    speakers, width = _rows(state, "emb_g.weight", 0, name), _rows(state, "enc_p.emb_phone.weight", 1, name)
    own = kind == FORMAT
    values, listed_dim = _eighteen(values, data.get("encoder_dim") if own else None, name)
    values[15] = speakers
    version = _version(data.get("version"), width, name)
    f0 = _flag(data["f0"], name) if data.get("f0") is not None else "enc_p.emb_pitch.weight" in state
    dim = listed_dim or CONTENT_DIMS[version]
    try:
        config = SynthesizerConfig.from_list(values, version=version, f0=f0, decoder=_decoder(state), content_dim=dim)
    except VoiceFormatError as error:
        raise VoiceFormatError(f"{name}: {error.message}") from error
    check_weights(state, config, name)
    sr = data.get("sr")
    return RvcFile(
        config=config,
        state=state,
        version=version,
        content_name=(own and _text(data.get("encoder"))) or _content_name(data, dim),
        info=_text(data.get("info")),
        sr=sr if type(sr) is int else _text(sr)[:20],
        extra=_plain_extra(data.get("extra") if own else data),
        licence=_text(data.get("licence")),
        training_data=_text(data.get("training_data")),
    )


def pth_bytes(voice: RvcFile) -> bytes:
    """A small ``.pth``: float16, keys, order and types as RVC writes them and RVC and Applio read them."""
    state = OrderedDict((name, _half(tensor, name)) for name, tensor in voice.state.items())
    config = voice.config.to_list()
    if voice.config.content_dim != CONTENT_DIMS[voice.version]:  # only the 19-value form can say so
        config.insert(17, voice.config.content_dim)
    data: dict[str, Any] = {
        "weight": state,
        "config": config,
        "info": voice.info,
        "sr": voice.sr or f"{voice.config.sample_rate // 1000}k",
        "f0": int(voice.config.uses_f0),
        "version": voice.version,
    }
    notes = {"licence": voice.licence, "training_data": voice.training_data}
    stream = io.BytesIO()
    torch.save({**data, **voice.extra, **{key: text for key, text in notes.items() if text}}, stream)
    return stream.getvalue()


def safetensors_form(voice: RvcFile) -> bytes:
    """Our own form: the tensors as they are, and everything else about the voice as metadata."""
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(voice.config.to_list()),
        "version": voice.version,
        "sample_rate": str(voice.config.sample_rate),
        "hop": str(voice.config.hop),
        "encoder": voice.content_name,
        "encoder_dim": str(voice.config.content_dim),
        "f0": str(int(voice.config.uses_f0)),
        "speakers": str(voice.config.speakers),
        "decoder": voice.config.decoder,
        "info": voice.info,
        "sr": json.dumps(voice.sr),
        "extra": json.dumps(voice.extra),
        "licence": voice.licence,
        "training_data": voice.training_data,
    }
    return safetensors_bytes(voice.state, metadata)


def write_rvc(voice: RvcFile, path: str | Path) -> None:
    """Write ``.pth`` or ``.safetensors``, by the ending of ``path``. Raises VoiceFormatError or StorageError."""
    ending = Path(path).suffix.lower()
    if ending not in (".pth", ".safetensors"):
        raise VoiceFormatError(
            f"cannot write a voice as {ending or 'a file without ending'!r}: use .pth or .safetensors"
        )
    write_bytes(path, pth_bytes(voice) if ending == ".pth" else safetensors_form(voice))


# --- parts of a file -----------------------------------------------------------------------------------------------


def _what_it_is(data: Mapping[Any, Any]) -> str:
    if isinstance(data.get("model"), dict) and any(str(key).startswith("enc_p.") for key in data["model"]):
        return "it is a training checkpoint (G_*.pth); 'rocktop voices extract' makes a voice of it"
    if isinstance(data.get("model"), dict):
        return "it is a training checkpoint or another kind of model"
    keys = ", ".join(str(key)[:40] for key in list(data)[:6])
    return f"expected the keys {', '.join(_MAIN_KEYS)}; found {keys or 'nothing'}{', ...' if len(data) > 6 else ''}"


def _from_metadata(name: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    """String metadata -> the fields of a small file: JSON where it parses (deiteris, ours), else the string."""
    if "config" not in metadata:
        kind = metadata.get("format")
        raise VoiceFormatError(
            f"{name} is no RVC voice: its metadata has no 'config'" + (f" (format {kind})" if kind else "")
        )
    if metadata.get("format") == FORMAT:
        number = metadata.get("format_version", "")
        if number != str(FORMAT_VERSION):
            raise VoiceFormatError(f"{name}: format version {number[:20]!r}, this program reads {FORMAT_VERSION}")
    fields: dict[str, Any] = {}
    for key, value in metadata.items():
        fields[key] = value
        if key not in ("info", "encoder", "licence", "training_data", "version", "author", "model_name"):
            try:
                fields[key] = json.loads(value)
            except ValueError:
                continue
            except RecursionError as error:
                raise VoiceFormatError(f"{name}: metadata {key[:40]!r} is nested too deeply") from error
    return {key: value for key, value in fields.items() if key != "weight"}


def _legacy_name(name: str) -> str:
    for new, old in _PARAMETRIZED.items():
        if name.endswith(new):
            return name.removesuffix(new) + old
    return name


def _rows(state: Mapping[str, Tensor], key: str, axis: int, name: str) -> int:
    tensor = state.get(key)
    if tensor is None or tensor.ndim != 2 or not tensor.shape[axis]:
        found = "it is missing" if tensor is None else f"its shape is {list(tensor.shape)}"
        raise VoiceFormatError(f"{name} is not an RVC voice: expected a weight {key!r} of two dimensions; {found}")
    return int(tensor.shape[axis])


def _eighteen(values: list[Any] | tuple[Any, ...], dim: Any, name: str) -> tuple[list[Any], int | None]:
    """RVC's 18 values, and the width of units if the file states it: as ``dim``, or before the rate of 19 values."""
    values = list(values)
    if len(values) not in (18, 19):
        raise VoiceFormatError(f"{name}: its config has {len(values)} values, expected 18 (or 19 in the ddPn08 form)")
    dim = values.pop(17) if len(values) == 19 else dim
    if dim is not None and (type(dim) is not int or not 1 <= dim <= 8192):
        raise VoiceFormatError(f"{name}: it states units of {str(dim)[:20]} numbers")
    return values, dim


def _version(value: Any, width: int, name: str) -> str:
    if value is None:
        return "v2" if width == CONTENT_DIMS["v2"] else "v1"
    if not isinstance(value, str) or value not in CONTENT_DIMS:
        raise VoiceFormatError(f"{name}: version {str(value)[:20]!r} is not supported, expected v1 or v2")
    return value


def _flag(value: Any, name: str) -> bool:
    text = str(value).lower()[:8]
    if text not in ("0", "1", "true", "false"):
        raise VoiceFormatError(f"{name}: f0 is {text!r}, expected 0 or 1")
    return text in ("1", "true")


def _decoder(state: Mapping[str, Tensor]) -> Decoder:
    """By the names of the weights: blending and editing tools lose Applio's ``vocoder`` key."""
    if any(key.startswith("dec.mrfs.") for key in state):
        return "mrf-hifigan"
    return "refinegan" if any(key.startswith("dec.upsample_conv_blocks.") for key in state) else "hifigan"


def _content_name(data: Mapping[Any, Any], dim: int) -> str:
    embedder = _text(data.get("embedder_model") or data.get("embedder_name")).lower()
    embedder = re.sub(r"[^a-z0-9_.-]+", "-", embedder)[:60].removesuffix("768").strip("-")
    layer = data.get("embedder_output_layer", 9 if "embedder_name" in data else _HUBERT_LAYERS.get(dim))
    ordinary = embedder.replace("-", "_") in _ORDINARY_EMBEDDERS
    if ordinary and layer == _HUBERT_LAYERS.get(dim):
        return CONTENT_NAMES.get(dim, f"units-{dim}")
    return f"hubert-layer{str(layer)[:3]}-{dim}" if ordinary else embedder


def _text(value: Any) -> str:
    """Short printable text: it goes to terminals and manifests."""
    text = str(value)[:2000] if isinstance(value, str | int | float) else ""
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()


def _plain_extra(data: Any) -> dict[str, Any]:
    """The keys beyond RVC's own whose values are plain and small."""
    if not isinstance(data, dict):
        return {}
    extra = {}
    for key, value in data.items():
        if isinstance(key, str) and key not in _KNOWN_KEYS and _is_plain(value) and len(str(value)) <= 10_000:
            extra[key] = value
    return extra


def _is_plain(value: Any, depth: int = 0) -> bool:
    if isinstance(value, list) and depth < 4:
        return all(_is_plain(item, depth + 1) for item in value)
    if isinstance(value, dict) and depth < 4:
        return all(isinstance(key, str) and _is_plain(item, depth + 1) for key, item in value.items())
    return value is None or isinstance(value, str | int | float)


def _half(tensor: Tensor, name: str) -> Tensor:
    half = tensor.detach().to(torch.float16).contiguous()
    if not bool(half.isfinite().all()):
        raise VoiceFormatError(f"weight {name} is too large for float16, which .pth voices use: write .safetensors")
    return half.clone() if half.untyped_storage().nbytes() != half.nbytes else half
