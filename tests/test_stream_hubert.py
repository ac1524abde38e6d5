"""HuBERT over a stream: what is kept is what the whole would compute, as far as it may look."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from rocktop_ray.features.content.hubert import HubertEncoder
from rocktop_ray.live.content import ContentWindow
from rocktop_ray.live.state import pack, unpack
from rocktop_ray.models.hubert import Hubert, HubertConfig
from rocktop_ray.models.hubert_stream import UNIT, HubertState, HubertStream, HubertWeights

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 8,
}
VARIANTS = {
    "base": HubertConfig(**SIZES, num_conv_pos_embeddings=16),  # type: ignore[arg-type]
    "large": HubertConfig(
        **SIZES, num_conv_pos_embeddings=15, do_stable_layer_norm=True, feat_extract_norm="layer", conv_bias=True  # type: ignore[arg-type]
    ),
}


@cache
def encoder(variant: str, *, half: bool = False) -> HubertEncoder:
    torch.manual_seed(3)
    with torch.device("meta"):
        shapes = Hubert(VARIANTS[variant]).state_dict()
    state: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        fan = shape[0].numel() if shape.ndim > 1 else 1
        drawn = torch.randn(shape.shape) / fan**0.5 if shape.ndim > 1 else torch.randn(shape.shape) * 0.1
        if "norm" in name and name.endswith("weight"):
            drawn = 1 + drawn
        state[name] = drawn.half().float() if half else drawn
    return HubertEncoder(state, VARIANTS[variant], version="v2")


def audio(units: int) -> np.ndarray:
    drawn = np.random.default_rng(1).normal(0, 0.1, units * UNIT)
    return np.asarray(drawn * (1 + np.sin(np.arange(len(drawn)) / 3000)), np.float32)


def settled(state: HubertState, wave: np.ndarray, own: HubertEncoder) -> HubertState:
    """With the statistics of the whole take, as the whole has them."""
    centre, spread = own._net.front_end.stack[0].moments(torch.from_numpy(wave))
    return HubertState(state.known, 10**9, centre, spread, state.rows, state.keys, state.values)


def streamed(
    own: HubertEncoder, wave: np.ndarray, fresh: int, ahead: int, left: int = 100, kept: torch.dtype = torch.float32
) -> np.ndarray:
    """Final units of the take, from ``max(1, ahead)`` before its beginning on, with the norm of the whole."""
    stream = HubertStream(HubertWeights(own._net, own._layer, None), left, ahead, kept=kept)
    held = max(1, ahead)
    padded = np.concatenate([np.zeros((held + 1) * UNIT, np.float32), wave])
    state, parts = stream.begin(), []
    for unit in range(0, len(wave) // UNIT - fresh + 1, fresh):
        state = settled(unpack(pack(state), stream.begin()), wave, own)
        window = torch.from_numpy(padded[(unit + held - ahead) * UNIT :][: (1 + fresh + ahead) * UNIT])
        (state,), units = stream.step_many([state], window[None], fresh, ahead)
        assert units.shape[1] == fresh + ahead
        parts.append(units[0, : fresh - (ahead == 0)].numpy())
    return np.concatenate(parts)


def whole(own: HubertEncoder, wave: np.ndarray, before: int, units: int | None = None) -> np.ndarray:
    """What the first units of a take give after ``before`` units of silence, with the norm of all of the take."""
    heard = np.concatenate([np.zeros(before * UNIT, np.float32), wave[: None if units is None else units * UNIT]])
    first = own._net.front_end.stack[0]
    if isinstance(first.norm, torch.nn.GroupNorm):
        folded = first.folded(*first.moments(torch.from_numpy(wave)))
        first.weights = lambda audio: folded  # type: ignore[method-assign]
    try:
        return own.encode(heard)
    finally:
        first.__dict__.pop("weights", None)


@pytest.mark.parametrize("variant", VARIANTS)
def test_heard_at_once_is_the_whole(variant: str) -> None:
    wave = audio(40)
    ours = streamed(encoder(variant), wave, fresh=40, ahead=0)
    reference = whole(encoder(variant), wave, 1)
    assert np.abs(ours - reference[1:40]).max() <= 1e-4 * np.abs(reference).max()


@pytest.mark.parametrize("variant", VARIANTS)
def test_threads_that_share_a_block_make_the_same(variant: str) -> None:
    """Up to rounding: sums are cut between them."""
    own, wave = encoder(variant), audio(40)
    alone = streamed(own, wave, fresh=8, ahead=2)
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = streamed(own, wave, fresh=8, ahead=2)
    finally:
        torch.set_num_threads(usual)
    assert np.abs(together - alone).max() <= 1e-4 * np.abs(alone).max()


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_what_is_kept_is_what_the_whole_computes(ahead: int) -> None:
    """One layer, and positions that hear nothing ahead: then keys and values are those of the whole, so every block's
    newest unit is the newest of a take that ends there.
    """
    net = Hubert(replace(VARIANTS["base"], num_hidden_layers=1))
    torch.manual_seed(1)
    state = {name: torch.randn(each.shape) * 0.2 for name, each in net.state_dict().items()}
    state["positions.conv.weight"][..., 9:] = 0
    own = HubertEncoder(state, replace(VARIANTS["base"], num_hidden_layers=1))
    wave, held = audio(36), max(1, ahead)
    stream = HubertStream(HubertWeights(own._net, 1, None), 100, ahead, kept=torch.float32)
    padded = np.concatenate([np.zeros((held + 1) * UNIT, np.float32), wave])
    kept = stream.begin()
    for unit in range(0, 36, 6):
        kept = settled(kept, wave, own)
        window = torch.from_numpy(padded[(unit + held - ahead) * UNIT :][: (7 + ahead) * UNIT])
        (kept,), units = stream.step_many([kept], window[None], 6, ahead)
        reference = whole(own, wave, held, unit + 6)
        # What a stream takes for silence before it begins does not know the mean of the take to come.
        tolerance = 1e-4 if ahead < 2 else 2e-3
        assert np.abs(units[0, -1].numpy() - reference[-1]).max() <= tolerance * np.abs(reference).max()
        assert torch.equal(units[0, -1], units[0, -2])


def test_more_look_ahead_is_nearer_to_the_whole() -> None:
    own, wave = encoder("base"), audio(80)
    errors = []
    for ahead in (1, 10, 40):
        ours = streamed(own, wave, fresh=2, ahead=ahead)
        reference = whole(own, wave, ahead)[: len(ours)]
        errors.append(float(np.abs(ours - reference)[40:].mean() / np.abs(reference).mean()))
    assert errors[0] > errors[1] > errors[2]


def test_half_precision_between_blocks_changes_little() -> None:
    own, wave = encoder("base"), audio(60)
    plain = streamed(own, wave, fresh=4, ahead=4)
    halved = streamed(own, wave, fresh=4, ahead=4, kept=torch.float16)
    assert 0 < np.abs(plain - halved).max() <= 1e-3 * np.abs(plain).max()


def test_weights_that_are_half_precision_are_multiplied_as_they_are() -> None:
    own = encoder("base", half=True)
    packed = HubertWeights(own._net, own._layer, None)
    x = torch.randn(2, 5, 32)
    with torch.inference_mode():
        for layer in packed.layers:
            keys, values = torch.empty(2, 2, 5, 32)
            attended = torch.stack([layer.layer._attend(each) for each in x])
            assert (layer.attend(x, keys, values, None) - attended).abs().max() <= 1e-5
            assert (layer.feed(x) - layer.layer._feed(x)).abs().max() <= 1e-5
    assert packed.layers[0].qkv.halved or "fbgemm" not in torch.backends.quantized.supported_engines


def test_statistics_run_over_the_stream() -> None:
    own, wave = encoder("base"), audio(60)
    stream = own.stream(20, 2)
    assert stream is not None
    state, padded = stream.begin(), np.concatenate([np.zeros(3 * UNIT, np.float32), wave])
    for unit in range(0, 60, 5):
        (state,), _ = stream.step_many([state], torch.from_numpy(padded[unit * UNIT :][: 8 * UNIT])[None], 5, 2)
    centre, spread = own._net.front_end.stack[0].moments(torch.from_numpy(wave))
    assert state.heard == 60
    assert (state.centre - centre).abs().max() <= 1e-3 * float(spread.max()) ** 0.5
    assert (state.spread - spread).abs().max() <= 1e-3 * float(spread.max())


def test_several_streams_are_as_one_by_one() -> None:
    """Of different ages, through ``ContentWindow``: one has no context yet."""
    window = ContentWindow(encoder("base"), 10, 2)
    wave, states = audio(80), []
    for age in (0, 1, 5):
        state = window.begin()
        for turn in range(age):
            (state,), _ = window.step([state], wave[turn * 4 * UNIT :][None, : window.needs + 6 * UNIT], 4)
        states.append(state)
    heard = np.stack([wave[at:][: window.needs + 6 * UNIT] for at in (0, 500, 900)])
    for _ in range(3):
        alone = [window.step([state], each[None], 4) for state, each in zip(states, heard, strict=True)]
        states, together = window.step(states, heard, 4)
        for (_, (units,)), row in zip(alone, together, strict=True):
            assert units.shape == (6, 32)
            assert np.abs(units - row).max() <= 1e-5 * np.abs(row).max()


def test_states_keep_their_size() -> None:
    own = encoder("base").stream(10, 4)
    assert own is not None
    sizes = set()
    state, heard = own.begin(), torch.from_numpy(audio(9))[None]
    for _ in range(4):
        sizes.add(tuple((tuple(each.shape), each.dtype) for each in vars(state).values() if isinstance(each, Tensor)))
        (state,), _ = own.step_many([state], heard, 4, 4)
    assert len(sizes) == 1
