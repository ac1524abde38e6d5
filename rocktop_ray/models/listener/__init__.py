"""A causal student of the bundle's encoder and extractor, for streams."""

from rocktop_ray.models.listener.network import ListenerConfig, ListenerNet
from rocktop_ray.models.listener.stream import ListenerState, ListenerStream, PitchStream

__all__ = ["ListenerConfig", "ListenerNet", "ListenerState", "ListenerStream", "PitchStream"]
