"""The Info frame of an MP3 that is sent while it is made: how much silence the encoder put before and behind the take.

The frame and its fields are those of the Xing/LAME header; LAME's delay and padding rules are those of its frame loop.
A file gets the same facts from FFmpeg, which writes them when all is known; a stream needs them first.
"""

from __future__ import annotations

import struct

DELAY = 576
"""Samples of silence that LAME puts before the take, as the frame counts them."""
_DECODER_DELAY = 529
_KBPS = {
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def info_frame(header: bytes, samples: int) -> bytes:
    """The frame to send before the first.

    Args:
        header: the first four bytes of the first audio frame.
        samples: per channel in all.
    """
    version, rate_index, mono = header[1] >> 3 & 3, header[2] >> 2 & 3, header[3] >> 6 == 3
    per_frame = 1152 if version == 3 else 576
    rate = (44_100, 48_000, 32_000)[rate_index] // {3: 1, 2: 2, 0: 4}[version]
    side_info = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    count = -(-(samples + 2 * DELAY) // per_frame)
    padding = min(count * per_frame - samples - DELAY, per_frame + _DECODER_DELAY)
    # The number of frames, the encoder's name, 12 bytes of settings not told, delay and padding, 12 bytes not told.
    tag = b"Info" + struct.pack(">II", 1, count) + b"LAME".ljust(9, b"\0") + bytes(12)
    tag += (DELAY << 12 | padding).to_bytes(3, "big") + bytes(12)
    body = bytes(side_info) + tag
    sizes = [per_frame // 8 * kbps * 1000 // rate for kbps in _KBPS[3 if version == 3 else 2]]
    index, size = next((index, size) for index, size in enumerate(sizes, 1) if size >= 4 + len(body))
    # The same header without CRC and slot padding, at the smallest bitrate that has the room.
    start = bytes([header[0], header[1] | 1, index << 4 | rate_index << 2, header[3]])
    return (start + body).ljust(size, b"\0")
