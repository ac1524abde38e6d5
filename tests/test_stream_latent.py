"""Prior encoder and flow over a stream: what is kept is what the whole would compute, as far as it may look."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_voices import tiny_config, tiny_state

from rocktop_ray.live.state import pack, unpack
from rocktop_ray.models.rvc.latent_stream import LatentState, LatentStream
from rocktop_ray.models.rvc.pitch_bins import coarse_pitch
from rocktop_ray.models.rvc.voice import RvcVoice
from rocktop_ray.noise import SeededNoise

SIZES = {"hidden_channels": 8, "filter_channels": 12, "inter_channels": 6, "n_layers": 2, "content_dim": 10}
FLOW_REACH = 24
NOISE = SeededNoise(0)


def voice(**changes: float) -> RvcVoice:
    config = tiny_config(**{**SIZES, **changes})
    return RvcVoice(config, tiny_state(config, seed=5), content_name="test")


def take(frames: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.normal(size=(frames, 10)).astype(np.float32), random.uniform(0, 500, frames).astype(np.float32)


def step(
    stream: LatentStream, own: RvcVoice, state: LatentState, units: np.ndarray, f0: np.ndarray, at: int, fresh: int
) -> tuple[LatentState, np.ndarray]:
    """Frames ``at ..``, of which ``fresh`` are final."""
    prior = NOISE.normal("prior", at, len(units), own.config.inter_channels)
    pitch = torch.from_numpy(coarse_pitch(f0))[None] if own.spec.uses_f0 else None
    speaker = own.speaker_embedding(1)[None]
    (after,), latent = stream.step_many(
        [state], torch.from_numpy(units)[None], pitch, speaker, torch.from_numpy(prior * np.float32(0.5))[None], fresh
    )
    assert latent.shape == (1, own.config.inter_channels, fresh)
    return after, latent[0].numpy()


def streamed(own: RvcVoice, frames: int, fresh: int, ahead: int, left: int = 200) -> np.ndarray:
    stream, (units, f0) = own.latent_stream(left), take(frames)
    state, parts = stream.begin(), []
    for at in range(0, frames, fresh):
        state = unpack(pack(state), stream.begin())
        end = min(frames, at + fresh + ahead)
        state, latent = step(stream, own, state, units[at:end], f0[at:end], at, min(fresh, frames - at))
        parts.append(latent)
    return np.concatenate(parts, axis=1)


def whole(own: RvcVoice, frames: int) -> np.ndarray:
    units, f0 = take(frames)
    return own.latent(units, f0 if own.spec.uses_f0 else None, speaker=1, temperature=0.5, noise=NOISE)


@pytest.mark.parametrize("f0", [1, 0])
def test_heard_at_once_is_the_whole(f0: int) -> None:
    own = voice(uses_f0=bool(f0))
    assert np.abs(streamed(own, 90, fresh=90, ahead=0) - whole(own, 90)).max() <= 1e-5


@pytest.mark.parametrize("fresh", [4, 10, 30])
def test_convolutions_are_the_whole_from_their_reach_on(fresh: int) -> None:
    """Without attention, what a frame hears ahead is bounded: two frames a layer, and the flow's 24."""
    own = voice()
    for layer in own.model.enc_p.encoder.attn_layers:
        layer.conv_o.weight.zero_()
    reference = whole(own, 120)
    assert np.abs(streamed(own, 120, fresh, FLOW_REACH + 4) - reference).max() <= 1e-4
    assert np.abs(streamed(own, 120, fresh, 2) - reference).max() > 1e-4


def test_attention_keeps_what_the_whole_computes() -> None:
    """With one layer, every block's newest frame is that of a take that ends there if nothing else looks ahead."""
    own = voice(n_layers=1, kernel_size=1)
    for coupling in own.model.flow.flows.values():
        coupling.post.weight.zero_()
        coupling.post.bias.zero_()
    stream, (units, f0) = own.latent_stream(200), take(60)
    state = stream.begin()
    for at in range(0, 60, 6):
        state, latent = step(stream, own, state, units[at : at + 6], f0[at : at + 6], at, 6)
        reference = own.latent(units[: at + 6], f0[: at + 6], speaker=1, temperature=0.5, noise=NOISE)
        assert np.abs(latent[:, -1] - reference[:, -1]).max() <= 1e-5


def test_more_look_ahead_is_nearer_to_the_whole() -> None:
    own = voice()
    reference = whole(own, 150)[:, :80]
    errors = [float(np.abs(streamed(own, 150, 4, ahead)[:, :80] - reference).mean()) for ahead in (0, 8, 60)]
    assert errors[0] > errors[1] > errors[2]


def test_several_streams_are_as_one_by_one() -> None:
    """Of different ages and speakers: one has no context yet, one has forgotten its beginning."""
    own = voice()
    stream = own.latent_stream(20)
    states = []
    for age in (0, 2, 9):
        state = stream.begin()
        for turn in range(age):
            units, f0 = take(8, turn)
            state, _ = step(stream, own, state, units, f0, turn * 4, 4)
        states.append(state)
    units, f0 = zip(*(take(8, seed) for seed in (20, 21, 22)), strict=True)
    pitch = torch.from_numpy(np.stack([coarse_pitch(each) for each in f0]))
    noise = torch.randn(3, 8, own.config.inter_channels)
    speakers = torch.stack([own.speaker_embedding(number) for number in (0, 2, 1)])
    content = torch.from_numpy(np.stack(units))
    after, together = stream.step_many(states, content, pitch, speakers, noise, 4)
    for place, state in enumerate(states):
        at = slice(place, place + 1)
        (alone,), latent = stream.step_many([state], content[at], pitch[at], speakers[at], noise[at], 4)
        assert (latent[0] - together[place]).abs().max() <= 1e-5
        assert (alone.keys - after[place].keys).abs().max() <= 1e-5
        assert alone.frames == after[place].frames


def test_a_state_keeps_its_size_and_is_left_as_it_is() -> None:
    own = voice()
    stream, (units, f0) = own.latent_stream(20), take(8)
    state = stream.begin()
    for turn in range(8):
        before = pack(state)
        after, _ = step(stream, own, state, units, f0, turn * 4, 4)
        assert pack(state) == before
        assert len(pack(unpack(pack(after), stream.begin()))) == len(pack(after))
        state = after
