"""Makes the students' files: ``python -m train_loops.bundle.live_export --listener RUN --live RUN --out FOLDER``.

Writes ``listener.safetensors`` and ``live_net.safetensors`` from the averaged weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from rocktop_ray.models.about import NetworkAbout
from rocktop_ray.models.listener.network import ListenerConfig, ListenerNet
from rocktop_ray.models.singer.live_net import LiveConfig, LiveFrameNet
from rocktop_ray.voices.student_format import LISTENER, LIVE_NET, write_student
from train_loops.bundle.live_run import sized

LICENCE = "GPL-3.0-or-later; see MODEL_CARD.md for the sources"
CREDITS = (
    "Distilled from the Whisper base encoder (OpenAI, MIT), FCPE (torchfcpe, MIT) and the bundle's own voice. Heard in "
    "training: hibari-tts 'heart' (Apache-2.0; distilled from Kokoro-82M, Apache-2.0); flite CMU Arctic voices slt, "
    "rms, awb (CMU, free); gcin-voice '5' (CC BY 3.0) and '3' (LGPL-3/GPL-3); asterisk-core-sounds-ru (provided by "
    "Maxim Topal, ivrvoice.ru, CC BY 3.0) and -it (Carlo Flora, segreterietelefoniche.it, CC BY 3.0)."
)


def described(about: dict[str, Any], info: str) -> NetworkAbout:
    """What the file says, from what the run noted."""
    recipe: dict[str, object] = {
        name: about[name]
        for name in ("steps", "steps_before", "batch", "frames", "rate", "seed", "items", "own_units")
        if name in about
    }
    recipe["minutes"] = round(about["minutes"], 1)
    return NetworkAbout(
        encoder="whisper-base",
        info=info,
        licence=LICENCE,
        credits=CREDITS,
        training_data=about["fingerprint"],
        recipe=recipe,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listener", type=Path, required=True)
    parser.add_argument("--live", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    state = torch.load(given.listener / "checkpoint.pt", weights_only=True)
    config = ListenerConfig(**sized(state["about"]))
    net = ListenerNet(config)
    net.load_state_dict(state["average"])
    info = "Causal student of the bundle's content encoder and pitch extractor."
    write_student(given.out / "listener.safetensors", LISTENER, net, config, described(state["about"], info))
    state = torch.load(given.live / "checkpoint.pt", weights_only=True)
    live_config = LiveConfig(**sized(state["about"]))
    live = LiveFrameNet(live_config)
    live.load_state_dict(state["average"])
    info = "Causal student of the bundle voice's frame network."
    about = described(state["about"], info)
    write_student(given.out / "live_net.safetensors", LIVE_NET, live, live_config, about)


if __name__ == "__main__":
    main()
