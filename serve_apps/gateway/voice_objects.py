"""Voices as clients see them, and what they say of those that they send."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class VoiceFacts(BaseModel):
    """Facts of a voice."""

    model_config = ConfigDict(extra="allow")

    name: str
    family: str = Field(description="`rvc` or `singer`.")
    sample_rate: int
    uses_f0: bool
    content_name: str = Field(description="The content encoder that it needs.")
    speakers: int
    index_vectors: int = Field(description="Units in its retrieval index; 0 = it has none.")
    median_f0: float | None = Field(description="Hz; null: `auto_key` is not possible.")
    default_extractor: str | None
    defaults: dict[str, Any] = Field(description="Settings that hold where a request does not say otherwise.")
    licence: str


class VoiceList(BaseModel):
    """All voices."""

    voices: list[VoiceFacts]
    damaged: list[str] = Field(description="Names of voices that cannot be read.")


class VoiceForm(BaseModel):
    """What goes with an uploaded voice."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str | None = Field(None, max_length=256, description="Name in the library; left out: from the file's name.")
    licence: str = Field("", max_length=2000, description="A note on what the voice may be used for.")
    replace: bool = Field(False, description="Take the place of a voice of that name.")


class VoiceAddresses(VoiceForm):
    """Where a voice is fetched from."""

    url: str = Field(
        min_length=1,
        max_length=65_536,
        description="A .pth, a .safetensors, or a zip with one; or a registered voice, `mlflow:NAME[/VERSION|@ALIAS]`, "
        "where the service has a registry.",
    )
    index_url: str | None = Field(None, min_length=1, max_length=65_536, description="Its retrieval index.")
