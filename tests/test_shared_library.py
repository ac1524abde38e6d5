"""The shared voice library when others act, or it dies, between any two of its steps. Over a folder store: fast, and
the contract of both stores is the same (``test_store_storage``)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rocktop_ray.errors import SettingsError, StorageUnavailableError, VoiceNotFoundError
from rocktop_ray.store.cache import ContentCache
from rocktop_ray.store.local import LocalStorage
from rocktop_ray.voices import shared as shared_module
from rocktop_ray.voices.info import VoiceInfo
from rocktop_ray.voices.prepare import PreparedVoice
from rocktop_ray.voices.shared import SharedLibrary

STEPS = ("list", "stat", "read", "write", "open_write", "open_read", "delete")


class Death(BaseException):
    """The process is gone: nothing that follows is done."""


class Stepwise:
    """A store that calls ``at`` before its step of number ``when``, counted from 0."""

    def __init__(self, store: LocalStorage, when: int, at: Callable[[], Any]) -> None:
        self._store, self._when, self._at, self.count = store, when, at, 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in STEPS:
            return found

        def step(*args: Any, **options: Any) -> Any:
            self.count += 1
            if self.count - 1 == self._when:
                self._at()
            return found(*args, **options)

        return step


@pytest.fixture(autouse=True)
def quick_preparation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The voice is made of its source's text, so that hundreds of imports take no time; reading is tested elsewhere."""

    def prepare(source: Any, *, name: str | None = None, index: Any = None, licence: str = "") -> PreparedVoice:
        import hashlib

        voice, index = str(source).encode() * 5, None if index is None else str(index).encode() * 7
        shown = hashlib.sha256(index).hexdigest() if index else ""
        facts = ("rvc", 8000, True, "hubert-v1", 256, 1, "hifigan")
        sha256 = hashlib.sha256(voice).hexdigest()
        info = VoiceInfo(name or "x", *facts, licence=licence, sha256=sha256, size=len(voice), index_sha256=shown)
        return PreparedVoice(info, voice, index)

    monkeypatch.setattr(shared_module, "prepare_voice", prepare)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[[], LocalStorage]]:
    numbers = itertools.count()
    yield lambda: LocalStorage(tmp_path / f"store{next(numbers)}")


@pytest.fixture
def cache(tmp_path: Path) -> ContentCache:
    return ContentCache(tmp_path / "cache", 1 << 30)


def put(who: str, replace: bool = True) -> Callable[[SharedLibrary], str]:
    def act(library: SharedLibrary) -> str:
        try:
            library.import_(who, name="anna", index=who, replace_existing=replace)
            return "put"
        except SettingsError as error:
            assert "already" in error.message
            return "taken"

    return act


def drop(library: SharedLibrary) -> str:
    try:
        library.remove("anna")
        return "dropped"
    except VoiceNotFoundError:
        return "absent"


def whole(store: LocalStorage, cache: ContentCache) -> str:
    """Whose voice is there, after a check that it is all there; empty if none."""
    library = SharedLibrary(store)
    assert not library.damaged()
    for info in library.infos():
        with library.files(info, cache) as (voice, index):
            assert index is not None
            who = voice.read_text()[: voice.stat().st_size // 5]
            assert index.read_text() == who * 7
            return who
    return ""


def check_swept(store: LocalStorage, cache: ContentCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happened before, the next change leaves only what is needed."""
    before = whole(store, cache)
    library = SharedLibrary(store)
    with monkeypatch.context() as patch:
        patch.setattr(shared_module, "_ABANDONED", -60.0)
        library.import_("z", name="zoe")
        library.remove("zoe")
    assert len(list(store.list())) == (3 if before else 0) and whole(store, cache) == before


CASES = {
    "new": ([], put("b", replace=False)),
    "replace": ([put("a")], put("b")),
    "remove": ([put("a")], drop),
}


@pytest.mark.parametrize("case", CASES)
def test_death_between_any_two_steps(case, fresh, cache, monkeypatch):
    before, act = CASES[case]

    def die() -> None:
        raise Death

    for when in itertools.count():
        store = fresh()
        for earlier in before:
            earlier(SharedLibrary(store))
        stepwise = Stepwise(store, when, die)
        old, ended = whole(store, cache), False
        try:
            act(SharedLibrary(stepwise))
            ended = True
        except Death:
            pass
        now = whole(store, cache)
        assert now in ({old, ""} if act is drop else {old, "b"})
        check_swept(store, cache, monkeypatch)
        assert put("c")(SharedLibrary(store)) == "put" and whole(store, cache) == "c"
        if ended:
            break
    assert when >= 5


@pytest.mark.parametrize("other", ["replace", "remove", "new"])
@pytest.mark.parametrize("case", CASES)
def test_another_acts_between_any_two_steps(case, other, fresh, cache, monkeypatch):
    """Both acts end as if one had come after the other."""
    before, act = CASES[case]
    rival = {"replace": put("r"), "remove": drop, "new": put("r", replace=False)}[other]
    for when in itertools.count():
        store = fresh()
        for earlier in before:
            earlier(SharedLibrary(store))
        results: list[str] = []
        stepwise = Stepwise(
            store, when, lambda store=store, results=results: results.append(rival(SharedLibrary(store)))
        )
        mine = act(SharedLibrary(stepwise))
        if not results:
            break
        outcome = (mine, results[0], whole(store, cache))
        assert outcome in serial(before, act, rival, fresh, cache), (when, outcome)
        check_swept(store, cache, monkeypatch)
    assert when >= 5


def serial(before, act, rival, fresh, cache) -> set[tuple[str, str, str]]:
    """The outcomes of both orders, one act after the other."""
    outcomes = set()
    for order in ((0, 1), (1, 0)):
        store, results = fresh(), ["", ""]
        for earlier in before:
            earlier(SharedLibrary(store))
        for which in order:
            results[which] = (act, rival)[which](SharedLibrary(store))
        outcomes.add((results[0], results[1], whole(store, cache)))
    if act is rival is drop:
        outcomes.add(("dropped", "dropped", ""))  # both did it
    return outcomes


def test_gives_up_when_others_never_rest(fresh):
    store = fresh()
    rival = SharedLibrary(store)
    rival.import_("a", name="anna")
    write = store.write

    class Restless(LocalStorage):
        def write(self, key: str, data: bytes, **asked: Any) -> Any:
            rival.import_("r", name="anna", index="r", replace_existing=True)
            return write(key, data, **asked)

    with pytest.raises(StorageUnavailableError, match="try again") as caught:
        SharedLibrary(Restless(store.root)).import_("b", name="anna", replace_existing=True)
    assert caught.value.retryable and rival.info("anna").index_sha256
    assert len(list(store.list())) == 3


def test_own_changes_are_seen_at_once_others_soon(fresh):
    store = fresh()
    one, two = SharedLibrary(store, fresh_seconds=60), SharedLibrary(store, fresh_seconds=60)
    assert one.names() == two.names() == []
    one.import_("a", name="anna")
    assert one.names() == ["anna"] and two.names() == [] and two.info("anna") == one.info("anna")
    two.remove("anna")
    assert two.names() == []
    with pytest.raises(VoiceNotFoundError):
        one.info("anna")
    assert one.names() == []
