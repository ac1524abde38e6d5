"""The generator's two passes in training, and fresh networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rocktop_ray.models.rvc.discriminator import MultiPeriodDiscriminator
from rocktop_ray.models.rvc.flow import Coupling
from rocktop_ray.models.rvc.hifigan import HifiganDecoder
from rocktop_ray.models.rvc.prior_encoder import RelativeAttention
from rocktop_ray.models.rvc.source import SINE_AMPLITUDE, sine_source
from rocktop_ray.models.rvc.synthesizer import Synthesizer
from rocktop_ray.models.rvc.weight_norm import add_weight_norm
from train_loops.rvc.batches import Batch
from train_loops.rvc.draws import Draws
from train_loops.rvc.recipe import Recipe
from train_loops.rvc.row_networks import decoded, flowed, posterior


@dataclass(frozen=True, eq=False)
class Rendered:
    """What the posterior encoder heard in a batch, and the wave that the decoder made of its segments."""

    wave: Tensor
    """``[batch, 1, segment_samples]`` within ±1."""
    latent: Tensor
    """The posterior's draw, ``[batch, latent, T]``."""
    log_scale: Tensor
    """The posterior's log-scale, of the same shape."""
    draws: Draws


@dataclass(frozen=True, eq=False)
class Prior:
    """The posterior's draw seen from the prior's side; each ``[batch, latent, T]``."""

    latent: Tensor
    mean: Tensor
    log_scale: Tensor


def fresh(recipe: Recipe) -> tuple[Synthesizer, MultiPeriodDiscriminator]:
    """Networks with random weights that depend on the recipe's seed only, on the CPU, weight norm on.

    The couplings of the flow start as the identity and the attention from Xavier's distribution (as VITS); the source
    starts at full scale, since with torch's default it would be lost under a random constant, and a voice would need
    thousands of steps to find its pitch. All else is as torch has it. The state of torch's generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed % 2**63)
        generator = Synthesizer(recipe.synthesizer, training=True)
        for module in generator.modules():
            if isinstance(module, RelativeAttention):
                for layer in (module.conv_q, module.conv_k, module.conv_v):
                    nn.init.xavier_uniform_(layer.weight)
        for coupling in generator.flow.flows.values():
            assert isinstance(coupling, Coupling)
            for weight in coupling.post.parameters():
                nn.init.zeros_(weight)
        if isinstance(generator.dec, HifiganDecoder) and recipe.synthesizer.uses_f0:
            mix = generator.dec.m_source.l_linear
            nn.init.constant_(mix.weight, 1 / (SINE_AMPLITUDE * mix.in_features))
            nn.init.zeros_(mix.bias)
        discriminator = MultiPeriodDiscriminator(recipe.discriminator)
    for network in (generator, discriminator):
        add_weight_norm(network)
    return generator, discriminator


def harmonics(generator: Synthesizer) -> int:
    """Sines in the decoder's source, the fundamental included."""
    assert isinstance(generator.dec, HifiganDecoder)
    return 1 + generator.dec.overtones


def segments(values: Tensor, starts: tuple[int, ...], length: int, unit: int = 1) -> Tensor:
    """``length * unit`` values of each row of ``[batch, ..., n]``, from ``start * unit`` on."""
    rows = [row[..., start * unit : (start + length) * unit] for row, start in zip(values, starts, strict=True)]
    return torch.stack(rows)


def render(generator: Synthesizer, recipe: Recipe, batch: Batch, draws: Draws) -> Rendered:
    """Spectrogram -> posterior -> latent; a segment of it through the decoder. Padding does not count."""
    speaker = generator.speaker(batch.speaker)
    mean, log_scale = posterior(generator.enc_q, batch.spectrogram, speaker, batch.mask)
    latent = (mean + draws.posterior * log_scale.exp()) * batch.mask
    heard = segments(latent, draws.starts, recipe.segment_frames)
    decoder, sines = generator.dec, None
    assert isinstance(decoder, HifiganDecoder)
    if batch.f0 is not None:
        sines = sine_source(
            segments(batch.f0, draws.starts, recipe.segment_frames),
            hop=recipe.hop,
            sample_rate=recipe.synthesizer.sample_rate,
            overtones=decoder.overtones,
            phase_sum=decoder.phase_sum,
            noise=draws.source,
        )
    return Rendered(decoded(decoder, heard, speaker, sines), latent, log_scale, draws)


def prior(generator: Synthesizer, batch: Batch, rendered: Rendered) -> Prior:
    """Units and pitch -> prior; the latent through the flow to its side."""
    mean, log_scale = generator.enc_p(batch.units, batch.pitch, batch.mask)
    latent = flowed(generator.flow, rendered.latent, generator.speaker(batch.speaker), batch.mask)
    return Prior(latent, mean, log_scale)
