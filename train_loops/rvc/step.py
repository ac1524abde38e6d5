"""One step of adversarial training, in phases between which gradients may be exchanged.

Always the discriminator first, then the generator against the discriminator just improved, both with the waves of one
pass of the generator: the order of the reference trainers. Losses are sums divided by the counts of the whole batch
(``losses``), so the gradients of workers add up to those of one worker with all examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.nn.utils.parametrize import cached

from rocktop_ray import heap
from rocktop_ray.errors import TrainingError
from rocktop_ray.models.rvc.discriminator import MultiPeriodDiscriminator
from rocktop_ray.models.rvc.synthesizer import Synthesizer
from rocktop_ray.models.rvc.weight_norm import weights_by_file_name
from train_loops.rvc import losses
from train_loops.rvc.batches import Batch
from train_loops.rvc.draws import draw
from train_loops.rvc.losses import Counts
from train_loops.rvc.networks import Rendered, harmonics, prior, render, segments
from train_loops.rvc.recipe import Recipe
from train_loops.rvc.row_networks import Ready, judged
from train_loops.rvc.spectrogram import Spectra

Part = Literal["discriminator", "generator"]
PARTS: tuple[Part, ...] = ("discriminator", "generator")
"""In the order of a step."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_KEY_BIAS = ".conv_k.bias"
"""A constant on all keys changes no attention, so its gradient is 0. What is computed is rounding noise, which AdamW
would turn into steps of full size, other ones for every division into workers and parts."""
_GENERATOR_LOSSES = ("adversarial", "feature", "mel", "kl")


class Exchange(Protocol):
    """Called between computing and applying gradients, for the discriminator, then for the generator."""

    def __call__(self, part: Part, weights: Sequence[nn.Parameter]) -> None:
        """Replace each ``weight.grad``, in place, by its sum over all workers.

        Every worker calls it with the same weights in the same order; none of the gradients is None. In ``fp16`` they
        are scaled, by the same factor on every worker.
        """


@dataclass(frozen=True)
class StepReport:
    """What a step measured. Losses are this worker's share of the batch's: add them over workers for the whole."""

    discriminator: float
    adversarial: float
    feature: float
    """Without its weight, as the others."""
    mel: float
    kl: float
    generator: float
    """The weighted sum that the generator minimises."""
    discriminator_norm: float
    """L2 norm of the exchanged gradients; not finite if ``fp16`` overflowed, and the step was left out."""
    generator_norm: float
    learning_rate: float
    scale: float
    """Factor on the losses after the step; 1 but in ``fp16``."""


class AdversarialStep:
    """Generator and discriminator, their optimizers, and how a batch trains them.

    Args:
        generator: with its posterior encoder and weight norm (``networks.fresh``).
        discriminator: with weight norm.
        recipe: sizes, weights of losses, precision.
        device: where everything is computed; the networks are moved there.
    """

    def __init__(
        self,
        generator: Synthesizer,
        discriminator: MultiPeriodDiscriminator,
        recipe: Recipe,
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        self.recipe, self.device = recipe, torch.device(device)
        if self.device.type == "cpu":
            heap.keep_pages()
        self.generator = generator.to(self.device).train()
        self.discriminator = discriminator.to(self.device).train()
        self.spectra = Spectra(recipe).to(self.device)
        self.weights: dict[Part, dict[str, nn.Parameter]] = {
            "discriminator": weights_by_file_name(self.discriminator),
            "generator": weights_by_file_name(self.generator),
        }
        """Weights by the names and in the order of RVC's files, which is the optimizers' too."""
        self.optimizers = {part: self._optimizer(part) for part in PARTS}
        self.scaler = torch.amp.GradScaler(
            self.device.type, init_scale=recipe.initial_scale, enabled=recipe.precision == "fp16"
        )
        self._rendered: Rendered | None = None
        self._sums: dict[str, Tensor] = {}

    def run(
        self,
        parts: Sequence[Batch],
        *,
        step: int,
        epoch: int,
        counts: Counts | None = None,
        exchange: Exchange | None = None,
    ) -> StepReport:
        """Train on one batch: both phases of both networks, in order.

        Args:
            parts: this worker's examples on ``device``, in one or more batches (gradient accumulation); may be none.
            step: number of the step, for the random draws.
            epoch: counted from 0, for the learning rate.
            counts: of the whole batch over all workers; None if ``parts`` are all of it.
            exchange: adds gradients over workers; None if there is one.

        Raises TrainingError if the gradients are not finite (other than by overflow of ``fp16``).
        """
        counts = counts or total_counts(parts)
        norms = {}
        for part in PARTS:
            self.gradients(part, parts, step=step, counts=counts)
            if exchange is not None:
                exchange(part, self.exchanged(part))
            norms[part] = self.apply(part, epoch=epoch)
        return self.finish(norms, epoch=epoch)

    # --- the phases, for callers that put something between them ----------------------------------------------------

    def gradients(self, part: Part, parts: Sequence[Batch], *, step: int, counts: Counts) -> None:
        """Compute the gradients of one network on this worker's examples, into ``weight.grad`` (scaled in ``fp16``).

        The discriminator's comes first; the generator's must follow with the same arguments.
        """
        self.optimizers[part].zero_grad(set_to_none=True)
        if part == "discriminator":
            self._sums = {name: torch.zeros((), device=self.device) for name in ("discriminator", *_GENERATOR_LOSSES)}
            self._rendered = None
        for batch in parts:
            if part == "discriminator":
                self._judge(batch, step, counts, keep=len(parts) == 1)
            else:
                self._improve(batch, step, counts)
        self._rendered = None if part == "generator" else self._rendered
        for weight in self.weights[part].values():
            if weight.grad is None:  # no examples, or none that uses it: exchanges and decay want it all the same
                weight.grad = torch.zeros_like(weight)
        for name, weight in self.weights[part].items():
            if name.endswith(_KEY_BIAS) and weight.grad is not None:
                weight.grad.zero_()

    def exchanged(self, part: Part) -> list[nn.Parameter]:
        """The weights of a network whose gradients an exchange adds up, in a fixed order."""
        return list(self.weights[part].values())

    def apply(self, part: Part, *, epoch: int) -> float:
        """One optimizer step with the gradients as they are now; returns their L2 norm, unscaled.

        In ``fp16`` a step whose gradients overflowed is left out. Raises TrainingError if they are not finite else.
        """
        optimizer = self.optimizers[part]
        for group in optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate(epoch)
        self.scaler.unscale_(optimizer)
        gradients = [weight.grad for weight in self.weights[part].values() if weight.grad is not None]
        norm = float(get_total_norm(gradients))
        if not self.scaler.is_enabled() and not _finite(norm):
            raise TrainingError(
                f"the {part}'s gradients are not finite: training diverged; go on from an earlier checkpoint with a "
                "smaller learning_rate, or look for broken examples"
            )
        self.scaler.step(optimizer)
        return norm

    def finish(self, norms: dict[Part, float], *, epoch: int) -> StepReport:
        """After both networks were applied: adapt the scale of ``fp16`` and report."""
        self.scaler.update()
        values = self._numbers()
        return StepReport(
            **values,
            generator=self._weighted(values),
            discriminator_norm=norms["discriminator"],
            generator_norm=norms["generator"],
            learning_rate=self.recipe.learning_rate(epoch),
            scale=self.scaler.get_scale(),
        )

    @torch.no_grad()
    def measure(self, parts: Sequence[Batch], *, step: int, counts: Counts | None = None) -> dict[str, float]:
        """The losses on held-out examples, without training: the names and meanings of ``StepReport``'s."""
        counts = counts or total_counts(parts)
        self._sums = {name: torch.zeros((), device=self.device) for name in ("discriminator", *_GENERATOR_LOSSES)}
        for batch in parts:
            with self._autocast():
                rendered = self._render(batch, step)
                real, made = self._hear(batch, rendered)
            self._count("discriminator", losses.discriminator_loss(real, made), counts.examples)
            self._generator_losses(batch, rendered, real, made, counts)
        values = self._numbers()
        return {**values, "generator": self._weighted(values)}

    # --- inside a phase ----------------------------------------------------------------------------------------------

    def _judge(self, batch: Batch, step: int, counts: Counts, *, keep: bool) -> None:
        """Discriminator: the waves of a pass of the generator against the true ones.

        A single batch keeps the pass for the generator's phase; several do it again there, to need memory for one.
        """
        with torch.set_grad_enabled(keep), self._autocast():
            rendered = self._render(batch, step)
        self._rendered = rendered if keep else None
        with self._autocast():
            true = self._true_wave(batch, rendered)
            features = judged(self.discriminator, torch.cat([true, rendered.wave.detach().to(true)]))
        real = [[layer[: len(true)] for layer in judge] for judge in features]
        made = [[layer[len(true) :] for layer in judge] for judge in features]
        loss = self._count("discriminator", losses.discriminator_loss(real, made), counts.examples)
        self.scaler.scale(loss).backward()

    def _improve(self, batch: Batch, step: int, counts: Counts) -> None:
        """Generator: all its losses, through a discriminator that does not learn from them."""
        with _frozen(self.discriminator), cached():
            with self._autocast():
                rendered = self._rendered or self._render(batch, step)
                real, made = self._hear(batch, rendered)
            loss = self._generator_losses(batch, rendered, real, made, counts)
            self.scaler.scale(loss).backward()

    def _render(self, batch: Batch, step: int) -> Rendered:
        draws = draw(self.recipe, batch, step, harmonics=harmonics(self.generator))
        return render(self.generator, self.recipe, batch, draws)

    def _true_wave(self, batch: Batch, rendered: Rendered) -> Tensor:
        recipe = self.recipe
        return segments(batch.wave[:, None], rendered.draws.starts, recipe.segment_frames, recipe.hop)

    def _hear(self, batch: Batch, rendered: Rendered) -> tuple[losses.Features, losses.Features]:
        """The discriminator's features of true and made waves; only the made ones pass gradients on."""
        ready: Ready = {}
        with torch.no_grad():
            real = judged(self.discriminator, self._true_wave(batch, rendered), ready)
        return real, judged(self.discriminator, rendered.wave, ready)

    def _generator_losses(
        self, batch: Batch, rendered: Rendered, real: losses.Features, made: losses.Features, counts: Counts
    ) -> Tensor:
        """The weighted loss, its terms counted."""
        with self._autocast():
            side = prior(self.generator, batch, rendered)
        true_mel = self.spectra.log_mel(segments(batch.spectrogram, rendered.draws.starts, self.recipe.segment_frames))
        made_mel = self.spectra.log_mel(self.spectra.linear(rendered.wave[:, 0]))
        divergence = losses.kl_loss(side.latent, rendered.log_scale, side.mean, side.log_scale, batch.mask)
        weight = self.recipe.losses
        return (
            weight.adversarial * self._count("adversarial", losses.adversarial_loss(made), counts.examples)
            + weight.feature * self._count("feature", losses.feature_loss(real, made), counts.examples)
            + weight.mel * self._count("mel", losses.mel_loss(true_mel, made_mel), counts.examples)
            + weight.kl * self._count("kl", divergence, counts.frames)
        )

    def _count(self, name: str, loss: Tensor, count: int) -> Tensor:
        """A sum over this worker's examples or frames, divided by the whole batch's count; added to the report."""
        share = loss / count
        self._sums[name] += share.detach()
        return share

    def _numbers(self) -> dict[str, float]:
        values = torch.stack(list(self._sums.values())).tolist()
        return dict(zip(self._sums, values, strict=True))

    def _weighted(self, values: dict[str, float]) -> float:
        return sum(getattr(self.recipe.losses, name) * values[name] for name in _GENERATOR_LOSSES)

    def _autocast(self) -> torch.autocast:
        precision = self.recipe.precision
        return torch.autocast(self.device.type, _DTYPES[precision], enabled=precision != "fp32")

    def _optimizer(self, part: Part) -> torch.optim.AdamW:
        chosen = self.recipe.optimizer
        return torch.optim.AdamW(
            self.weights[part].values(),
            lr=chosen.learning_rate,
            betas=(chosen.beta1, chosen.beta2),
            eps=chosen.epsilon,
            weight_decay=chosen.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )


def total_counts(parts: Iterable[Batch]) -> Counts:
    """Counts of several batches together."""
    return sum((batch.counts for batch in parts), Counts(0, 0))


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """The network's weights get no gradients within; what goes through it still passes them on."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def _finite(value: float) -> bool:
    return value - value == 0
