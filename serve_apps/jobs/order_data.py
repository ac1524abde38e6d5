"""Orders as plain JSON data, for the payload of a job."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rocktop_ray.audio.formats import check_output
from rocktop_ray.errors import SettingsError
from rocktop_ray.settings import ConvertSettings
from serve_apps.orders import Order, VoiceRef


def order_data(order: Order) -> dict[str, Any]:
    """What ``order_from`` needs. Holds the addresses of a foreign voice: never to be logged."""
    return {
        "request_id": order.request_id,
        "voice": asdict(order.voice),
        "source": order.source,
        "output": {"format": order.output.format.name, "rate": order.output.rate, "bitrate": order.output.bitrate},
        "settings": asdict(order.settings),
        "target": order.target,
        "normalise": order.normalise,
        "pitch": order.pitch,
        "max_seconds": order.max_seconds,
    }


def order_from(data: dict[str, Any]) -> Order:
    """The order that ``order_data`` wrote. Raises SettingsError, AudioFormatError if a newer program disagrees."""
    try:
        output = data["output"]
        return Order(
            request_id=data["request_id"],
            voice=VoiceRef(**data["voice"]),
            source=data["source"],
            output=check_output(output["format"], output["rate"], output["bitrate"]),
            settings=ConvertSettings.from_mapping(data["settings"]),
            target=data["target"],
            normalise=data["normalise"],
            pitch=data["pitch"],
            max_seconds=data["max_seconds"],
        )
    except (KeyError, TypeError) as error:
        raise SettingsError("the job was made by another version of the service; send it again") from error
