"""Tracking: where it goes, and names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocktop_ray.errors import SettingsError
from rocktop_ray.tracking.place import masked, tracking_place
from rocktop_ray.tracking.registry import VoiceReference
from rocktop_ray.tracking.tracker import Tracker, plain_key
from train_loops.rvc.tracked import _kept, flat

REPOSITORY = Path(__file__).parent.parent


# --- where it goes ----------------------------------------------------------------------------------------------------


def test_places(tmp_path, monkeypatch):
    monkeypatch.setenv("ROCKTOP_HOME", str(tmp_path / "home"))
    own = tracking_place("", {})
    assert own.uri == f"sqlite:///{tmp_path}/home/tracking/mlflow.db" and not own.remote
    assert own.artifacts == f"file://{tmp_path}/home/tracking/artifacts"
    told = {"MLFLOW_TRACKING_URI": "http://server:5000/"}
    assert tracking_place("", told).uri == "http://server:5000" and tracking_place("", told).remote
    assert tracking_place("https://other", told).uri == "https://other"
    assert tracking_place("none", told) is None and tracking_place("", {"MLFLOW_TRACKING_URI": "NONE"}) is None
    assert tracking_place(str(tmp_path / "here"), {}).uri == f"sqlite:///{tmp_path}/here/mlflow.db"
    assert tracking_place((tmp_path / "here").as_uri(), {}).uri == f"sqlite:///{tmp_path}/here/mlflow.db"
    assert tracking_place(f"sqlite:///{tmp_path}/a.db", {}).artifacts == f"file://{tmp_path}/artifacts"
    assert not tracking_place("postgresql+psycopg2://me:pw@db/runs", {}).remote
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("uri", ["htp://x", "http://", "http://a b", "http://[::1", "sqlite://", "http://a/?x=1"])
def test_what_is_no_place(uri):
    with pytest.raises(SettingsError, match="none"):
        tracking_place(uri, {})


@given(st.text(st.characters(exclude_characters="/ ?#[]@:\n\r\t", min_codepoint=33, max_codepoint=126), min_size=4))
def test_secrets_are_never_shown(password):
    place = tracking_place(f"https://me:{password}@tracking.example:5000/root", {})
    shown = place.masked(f"cannot reach {place.uri}/api?token={password} with '{password}'")
    rest = "cannot reach https://***@tracking.example:5000/root/api?... with '***' TrackingPlace(uri shown artifacts"
    assert password in rest or (password not in shown and password not in repr(place) and password not in place.shown)


def test_masked_leaves_the_rest():
    assert masked("see http://a.example/b: what? a=b") == "see http://a.example/b: what? a=b"
    assert masked("postgresql://u:p@w@db/x s3://b/c") == "postgresql://***@db/x s3://b/c"


def test_without_mlflow_all_else_works(tmp_path):
    (tmp_path / "mlflow.py").write_text("raise ModuleNotFoundError(\"No module named 'mlflow'\", name='mlflow')")
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import rocktop_ray.cli, rocktop_ray.tracking.registry
from rocktop_ray.errors import SettingsError
from rocktop_ray.tracking.place import tracking_place
from rocktop_ray.tracking.tracker import Tracker
assert "mlflow" not in sys.modules and tracking_place("none") is None
try:
    Tracker(tracking_place())
except SettingsError as error:
    assert "pip install 'rocktop-ray[track]'" in error.message, error.message
else:
    raise AssertionError
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- names ------------------------------------------------------------------------------------------------------------


@given(st.text(max_size=300))
def test_plain_keys_are_as_mlflow_wants_them(text):
    Tracker(tracking_place("http://127.0.0.1:9"))  # imports MLflow as it should be
    from mlflow.utils.validation import _validate_metric_name

    key = plain_key(text)
    _validate_metric_name(key)
    assert plain_key(key) == key


def test_references():
    assert VoiceReference.parse("mlflow:anna") == VoiceReference("anna")
    assert VoiceReference.parse("mlflow:anna b/12") == VoiceReference("anna b", "12")
    assert str(VoiceReference.parse("mlflow:anna@cham-pion_1")) == "mlflow:anna@cham-pion_1"


@pytest.mark.parametrize(
    "text",
    [
        *("anna", "mlflow:", "mlflow:../x", "mlflow:a/b/c", "mlflow:a/0", "mlflow:a/1@b", "mlflow:a@", "mlflow:a@b'c"),
        *("mlflow:a' OR 1=1", "mlflow:a/-1", "mlflow:a/1x", "mlflow:http://evil/x", "mlflow:bundle"),
    ],
)
def test_what_is_no_reference(text):
    with pytest.raises(SettingsError, match="mlflow:NAME"):
        VoiceReference.parse(text)


def test_flat_settings():
    assert flat({"a": {"b": 1, "c": (1, 2)}, "d": None}) == {"a.b": 1, "a.c": "[1, 2]", "d": None}


def test_samples_are_kept_of_ever_fewer_validations():
    kept = [number for number in range(1, 2001) if _kept(number)]
    assert kept[:17] == [*range(1, 17), 18] and len(kept) < 80 and max(kept) > 1700
