"""A data folder with a stock v2 48k voice for trials of the service; ``python -m benchmarks.live.stock_home`` names it.

The voice, its index, HuBERT and RMVPE have the random weights of the golden tests, in the published layout and sizes.

    ROCKTOP_HOME=$(python -m benchmarks.live.stock_home) python -m benchmarks.live.delay --voice stock ...
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.compare import BUILD, ROOT, _files
from rocktop_ray.voices.library import VoiceLibrary


def stock_home() -> Path:
    """Made on first use. The voice is called ``stock``."""
    files, home = _files(), BUILD / "live" / "stock-home"
    sys.path.insert(0, str(ROOT / "tests"))
    import golden_data
    from small_hubert import save_fairseq

    layers = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"
    state = golden_data.hubert_state()
    hubert = golden_data.build(
        "hubert_fairseq.pt", lambda path: save_fairseq(path, state, 12, conv_feature_layers=layers)
    )
    (home / "models").mkdir(parents=True, exist_ok=True)
    for name, target in (("hubert_base.pt", hubert), ("rmvpe.pt", Path(files["rmvpe"]))):
        link = home / "models" / name
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    library = VoiceLibrary(home / "voices")
    if not library.has("stock"):
        library.import_(files["voice"], name="stock", index=files["index"])
    return home


if __name__ == "__main__":
    print(stock_home())
