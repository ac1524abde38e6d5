"""The bundle's own synthesizer: a frame network over content units that steers a source-filter vocoder."""

from rocktop_ray.models.singer.network import SingerConfig, SingerNet
from rocktop_ray.models.singer.voice import SingerVoice

__all__ = ["SingerConfig", "SingerNet", "SingerVoice"]
