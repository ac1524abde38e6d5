"""What is known of any network of ours beside its sizes and weights."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class NetworkAbout:
    """What the file of a network says of where it comes from. Texts, and JSON values."""

    encoder: str
    """Name of the content encoder whose units the network takes or makes."""
    info: str = ""
    licence: str = ""
    credits: str = ""
    training_data: str = ""
    """SHA-256 over the training set."""
    recipe: dict[str, object] = field(default_factory=dict)
    """How it was trained."""
