"""POST /v1/convert over real HTTP."""

from __future__ import annotations

import asyncio
import http.client
import io
import threading
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest
import soundfile
from gateway_server import Gateway, eventually, gateway_fixture, home_fixture, serving_gateway  # noqa: F401
from http_server import serving
from serve_cluster import PITCH, take_bytes

from rocktop_ray.audio.decode import read_take
from rocktop_ray.convert import Converter
from rocktop_ray.errors import ModelMissingError
from rocktop_ray.features.pitch.registry import build_pitch_extractor
from rocktop_ray.settings import ConvertSettings
from rocktop_ray.takes import convert_file
from serve_apps.orders import AudioBytes, Event, Order, Started

ASK = {"voice": "anna", "pitch": PITCH}


def convert(client: httpx.Client, take: bytes | None = None, name: str = "verse.wav", **fields: str) -> httpx.Response:
    return client.post("/v1/convert", files={"take": (name, take or take_bytes())}, data={**ASK, **fields})


def test_audio_comes_back_with_its_facts(gateway: Gateway) -> None:
    before = gateway.spooled()
    with gateway.client() as client:
        answer = convert(client)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "audio/flac"
    assert answer.headers["content-disposition"] == 'attachment; filename="verse.anna.flac"'
    assert answer.headers["x-rocktop-key"] == "0"
    assert float(answer.headers["x-rocktop-seconds"]) == pytest.approx(0.6, abs=0.001)
    assert float(answer.headers["x-rocktop-real-time-factor"]) > 0
    audio, rate = soundfile.read(io.BytesIO(answer.content))
    assert (len(audio), rate) == (28_800, 48_000)
    assert abs(audio).max() <= 10 ** (-1 / 20) + 1e-4
    eventually(lambda: set(gateway.spooled()) <= set(before))


def test_every_setting_reaches_the_engine(gateway: Gateway, tmp_path: Path) -> None:
    """The same bytes as the library gives when it is called directly."""
    settings = ConvertSettings(
        key=-3.5,
        formant=1.0,
        index_rate=0.4,
        protect=0.2,
        rms_mix=0.6,
        speaker=2,
        temperature=0.9,
        seed=7,
        unvoiced="interpolate",
        median_radius=2,
        autotune=0.5,
        scale="minor",
        root="F#",
    )
    fields = {name: str(getattr(settings, name)) for name in ConvertSettings.__dataclass_fields__}
    with gateway.client() as client:
        answer = convert(client, **{**fields, "auto_key": "false"}, format="wav16", rate="44100")
    assert answer.status_code == 200, answer.text
    from rocktop_ray.audio.formats import check_output
    from rocktop_ray.features.content.registry import build_content_encoder
    from rocktop_ray.voices.open import open_voice

    library = Path(gateway.config.voices.library or "")
    voice = open_voice("anna", library=library)
    encoder = build_content_encoder("hubert-v1", path=library.parent / "models" / "hubert_base.pt")
    converter = Converter(encoder, build_pitch_extractor(PITCH), voice.model, voice.index)
    source, target = tmp_path / "take.wav", tmp_path / "out.wav"
    source.write_bytes(take_bytes())
    convert_file(converter, source, target, settings, check_output("wav16", 44_100))
    assert answer.content == target.read_bytes()


@pytest.mark.parametrize(
    ("format", "kind"),
    [("wav", "audio/wav"), ("wav24", "audio/wav"), ("ogg", "audio/ogg"), ("mp3", "audio/mpeg"), ("m4a", "audio/mp4")],
)
def test_formats(gateway: Gateway, tmp_path: Path, format: str, kind: str) -> None:
    with gateway.client() as client:
        answer = convert(client, format=format)
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind), answer.text
    (tmp_path / "out").write_bytes(answer.content)
    assert len(read_take(tmp_path / "out")) == pytest.approx(28_800, abs=3000)


def test_json_body_with_an_address(gateway: Gateway) -> None:
    take = take_bytes()

    def answer(link, _request) -> None:
        link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(take) + take)

    with serving({"/my%20verse.wav": answer, "/my verse.wav": answer}) as other, gateway.client() as client:
        url = other.url("/my%20verse.wav?signature=secret")
        got = client.post("/v1/convert", json={**ASK, "take_url": url, "format": "wav"})
        same = convert(client, take, format="wav")
    assert got.status_code == 200, got.text
    assert got.content == same.content
    assert got.headers["content-disposition"] == 'attachment; filename="my verse.anna.wav"'


def test_json_body_with_a_data_address(gateway: Gateway) -> None:
    import base64

    url = "data:audio/wav;base64," + base64.b64encode(take_bytes()).decode()
    with gateway.client() as client:
        got = client.post("/v1/convert", json={**ASK, "take_url": url, "format": "wav"})
        assert got.status_code == 200, got.text
        assert got.content == convert(client, format="wav").content


def test_a_stream_is_whole(gateway: Gateway) -> None:
    before = gateway.spooled()
    with gateway.client() as client:
        answer = convert(client, take_bytes(20.0), stream="true", format="wav")
        assert answer.status_code == 200
        assert answer.headers["transfer-encoding"] == "chunked"
        assert len(answer.content) == pytest.approx(20 * 48_000 * 4, abs=4096)
        assert answer.content == convert(client, take_bytes(20.0), stream="true", format="wav").content
    eventually(lambda: set(gateway.spooled()) <= set(before))


class Slow:
    """Gives two pieces, the second only when it is let."""

    def __init__(self, fails: bool = False) -> None:
        self.begun, self.go_on, self.closed = (threading.Event() for _ in range(3))
        self.fails = fails

    async def run(self, order: Order) -> AsyncGenerator[Event, None]:
        self.begun.set()
        try:
            yield Started(1.0)
            yield AudioBytes(b"first")
            while not self.go_on.is_set():
                await asyncio.sleep(0.01)
            if self.fails:
                raise ModelMissingError("gone")
            yield AudioBytes(b"second")
        finally:
            self.closed.set()


def test_streamed_audio_is_passed_on_as_it_comes(home: Path) -> None:
    slow = Slow()
    with serving_gateway(home, conversions=slow) as own, own.client() as client:
        files = {"take": ("a.wav", take_bytes())}
        with client.stream("POST", "/v1/convert", files=files, data={**ASK, "stream": "true"}) as answer:
            chunks = answer.iter_raw()
            assert next(chunks) == b"first"
            slow.go_on.set()
            assert b"".join(chunks) == b"second"


def test_a_stream_that_breaks_is_not_taken_for_whole(home: Path) -> None:
    slow = Slow(fails=True)
    slow.go_on.set()
    with serving_gateway(home, conversions=slow) as own, own.client() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            convert(client, stream="true")
        assert slow.closed.wait(60)
        assert client.get("/healthz").status_code == 200
        eventually(lambda: own.spooled() == [])


def test_a_stream_that_cannot_begin_is_a_problem(gateway: Gateway) -> None:
    with gateway.client() as client:
        answer = convert(client, b"not audio at all", stream="true")
    assert answer.status_code == 422
    assert answer.json()["code"] in ("invalid_audio", "unsupported_format")


@pytest.mark.parametrize("how", ["field", "accept"])
def test_json_reply_is_a_finished_job(gateway: Gateway, how: str) -> None:
    headers = {"Accept": "application/json"} if how == "accept" else {}
    fields = {"reply": "json"} if how == "field" else {}
    with gateway.client(headers=headers) as client:
        answer = convert(client, **fields)
        assert answer.status_code == 200, answer.text
        job = answer.json()
        assert (job["status"], job["voice"], job["name"]) == ("done", "anna", "verse.wav")
        assert job["settings"]["index_rate"] == 0.75
        audio = client.get(job["result"]["url"])
        assert len(audio.content) == job["result"]["bytes"]
        assert audio.content == convert(client, reply="audio").content
        client.delete(job["links"]["self"])


def test_json_reply_of_a_failed_job_is_a_problem(gateway: Gateway) -> None:
    with gateway.client() as client:
        answer = convert(client, b"<html>no</html>", name="page.wav", reply="json")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert "page.wav" in problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]


def test_range_of_a_whole_result(gateway: Gateway) -> None:
    with gateway.client() as client:
        whole = convert(client).content
        part = client.post(
            "/v1/convert", files={"take": ("a.wav", take_bytes())}, data=ASK, headers={"Range": "bytes=10-19"}
        )
    assert (part.status_code, part.content) == (206, whole[10:20])


def test_the_voices_own_defaults_hold_under_the_clients(home: Path) -> None:
    manifest = home / "home" / "voices" / "berta" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"defaults": {}', '"defaults": {"key": 5, "rms_mix": 0.5}'))
    with serving_gateway(home) as own, own.client() as client:
        job = convert(client, voice="berta", reply="json", rms_mix="0.1").json()
        assert (job["settings"]["key"], job["settings"]["rms_mix"]) == (5, 0.1)
        assert client.get("/v1/voices/berta").json()["defaults"] == {"key": 5, "rms_mix": 0.5}


def test_a_client_that_goes_away_stops_the_work(home: Path) -> None:
    slow = Slow()
    with serving_gateway(home, conversions=slow) as own:
        asked = httpx.Request("POST", own.url, files={"take": ("a.wav", take_bytes())}, data=ASK)
        link = http.client.HTTPConnection(own.url.removeprefix("http://"), timeout=60)
        link.request("POST", "/v1/convert", asked.read(), dict(asked.headers))
        assert slow.begun.wait(60)
        assert own.spooled() and not slow.closed.is_set()
        link.close()
        assert slow.closed.wait(60), "the abandoned conversion was not stopped"
        eventually(lambda: own.spooled() == [])


def test_a_client_that_leaves_a_stream_stops_the_work(home: Path) -> None:
    slow = Slow()
    with serving_gateway(home, conversions=slow) as own:
        fields = {**ASK, "stream": "true", "format": "wav"}
        with own.client() as client:
            files = {"take": ("a.wav", take_bytes())}
            with client.stream("POST", "/v1/convert", files=files, data=fields) as answer:
                chunks = answer.iter_raw()  # kept: what is collected closes the connection
                assert next(chunks) == b"first"
                assert not slow.closed.is_set()
        assert slow.closed.wait(60), "the abandoned conversion was not stopped"
        eventually(lambda: own.spooled() == [])


def test_one_who_leaves_a_real_conversion_gives_its_place_back(home: Path) -> None:
    with serving_gateway(home) as own:
        for length, fields in ((120.0, {}), (90.0, {"stream": "true", "format": "wav"})):
            asked = httpx.Request(
                "POST", own.url, files={"take": ("a.wav", take_bytes(length))}, data={**ASK, **fields}
            )
            link = http.client.HTTPConnection(own.url.removeprefix("http://"), timeout=60)
            link.request("POST", "/v1/convert", asked.read(), dict(asked.headers))
            eventually(lambda: bool(own.spooled()))
            link.close()
            with own.client() as client:
                assert convert(client).status_code == 200
            eventually(lambda: own.spooled() == [])


def test_more_than_may_wait_are_told_to_come_back(home: Path) -> None:
    with serving_gateway(home, limits={"queued": 2}) as own:
        answers: list[httpx.Response] = []

        def ask() -> None:
            with own.client() as client:
                answers.append(convert(client, take_bytes(60.0)))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused and len(refused) + sum(a.status_code == 200 for a in answers) == 8
        assert all(int(a.headers["retry-after"]) >= 1 and a.json()["code"] == "queue_full" for a in refused)
        with own.client() as client:
            assert convert(client).status_code == 200, "a place must be given back"


def test_takes_longer_than_the_limit(home: Path) -> None:
    with serving_gateway(home, limits={"take_seconds": 1.0}) as own, own.client() as client:
        answer = convert(client, take_bytes(2.0))
        assert (answer.status_code, answer.json()["code"]) == (413, "audio_too_large")
        assert "verse.wav is longer than the limit of 1 s" in answer.json()["detail"]
        eventually(lambda: own.spooled() == [])


def test_an_unknown_voice(gateway: Gateway) -> None:
    with gateway.client() as client:
        answer = convert(client, voice="../../etc/passwd")
    assert (answer.status_code, answer.json()["code"]) == (404, "voice_not_found")
