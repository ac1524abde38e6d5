"""The Serve config files that ship, and what the command line makes of them."""

from __future__ import annotations

import inspect
import re
import socket
from pathlib import Path

import pytest
import yaml
from free_ports import free_port
from ray.serve.schema import LoggingConfig, ServeDeploySchema
from typer.testing import CliRunner

import serve_apps.configs
from rocktop_ray.errors import SettingsError, StorageError
from serve_apps.app import build_app
from serve_apps.config import ServeConfig, StageConfig
from serve_apps.launch import BUILDER, check_store, missing_models, port_is_free, read_launch
from serve_apps.main import app
from serve_apps.replicas import computing_replicas

FILE = "applications: [{import_path: 'serve_apps.app:build_app'}]\n"
FILES = sorted(Path(next(iter(serve_apps.configs.__path__))).glob("*.yaml"))


def test_the_files_are_there() -> None:
    assert [file.stem for file in FILES] == ["cluster", "laptop", "one_gpu"]


def test_a_section_given_in_part_keeps_its_own_defaults() -> None:
    config = ServeConfig.model_validate({"gateway": {"cpus": 1}, "live": {"windows": {"hop": 10}}, "pitch": {}})
    assert config.gateway == StageConfig(cpus=1, concurrency=256, target_ongoing=64)
    assert config.live.windows.ahead == ServeConfig().live.windows.ahead and config.live.windows.hop == 10
    assert config.pitch == ServeConfig().pitch and ServeConfig.model_validate(config.model_dump()) == config


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_is_what_serve_and_the_builder_want(file: Path) -> None:
    data = yaml.safe_load(file.read_text())
    schema = ServeDeploySchema.model_validate(data)
    assert schema.http_options.request_timeout_s is None and schema.proxy_location in ("HeadOnly", "EveryNode")
    assert set(data) <= set(ServeDeploySchema.model_fields)  # the schema itself lets unknown keys pass
    (application,) = schema.applications
    assert application.import_path == BUILDER and application.route_prefix == "/"
    config = ServeConfig.model_validate(application.args)
    launch = read_launch(file)
    assert (launch.config, launch.host, launch.port) == (config, schema.http_options.host, schema.http_options.port)
    if schema.http_options.host != "127.0.0.1":
        assert config.security.keys is not None
    stages = [
        getattr(config, name) for name in ServeConfig.model_fields if isinstance(getattr(config, name), StageConfig)
    ]
    for stage in stages:
        if stage.gpus and stage.surge_percent:  # the new replica must fit beside the old one
            assert 2 * stage.gpus <= 1
    if config.placement == "split":
        assert config.batch.max_calls <= config.content.concurrency


def test_serve_sees_the_type_of_the_arguments() -> None:
    (parameter,) = inspect.signature(build_app).parameters.values()
    assert parameter.annotation is ServeConfig  # not its name: Serve would pass a plain dictionary


@pytest.mark.parametrize("placement", ["fused", "split"])
def test_the_builder_names_and_places_the_deployments(placement: str) -> None:
    config = ServeConfig.model_validate(
        {
            "placement": placement,
            "converter": {"replicas": 2, "max_replicas": 5, "gpus": 0.5, "concurrency": 7, "target_ongoing": 3},
            "content": {"labels": {"ray.io/accelerator-type": "A100"}},
            "limits": {"queued": 9},
            "live": {"replicas": 2, "ears": {"replicas": 3, "labels": {"ears": "yes"}}},
        }
    )
    found = {}
    pending = [build_app(config)]
    while pending:
        deployment = pending.pop()._bound_deployment
        found[deployment.name] = deployment
        arguments = list(deployment.init_args)
        arguments += [value for item in arguments if isinstance(item, dict) for value in item.values()]
        pending += [value for value in arguments if type(value).__name__ == "Application"]
    stages = {"ContentEncoder", "PitchExtractor", "AcousticModel", "Vocoder", "LiveEars"}
    always = {"Gateway", "Jobs", "Converter", "Live", "LiveDesk"}
    assert set(found) == always | (stages if placement == "split" else set())
    live = found["Live"]
    assert live.num_replicas == 2 and live._deployment_config.max_surge_percent == 100  # the new beside the old
    assert found["LiveDesk"].num_replicas == 1 and found["LiveDesk"]._deployment_config.max_surge_percent == 0
    converter = found["Converter"]
    assert converter.max_ongoing_requests == 7 and converter.max_queued_requests == 9
    scaling = converter._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (2, 5, 3)
    assert converter.ray_actor_options["num_gpus"] == 0.5
    assert found["Jobs"].num_replicas == 1
    if placement == "split":
        labels = found["ContentEncoder"].ray_actor_options["label_selector"]
        assert labels == {"ray.io/accelerator-type": "A100"}
        ears = found["LiveEars"]
        assert ears.num_replicas == 3 and ears.ray_actor_options["label_selector"] == {"ears": "yes"}
    assert computing_replicas(config) == (5 if placement == "fused" else 4)


def test_a_file_of_bare_settings_and_the_command_line_over_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("placement: split\nlimits: {queued: 3}\n")
    launch = read_launch(file, host="0.0.0.0", port=9000, placement="fused")
    assert (launch.host, launch.port, launch.config.placement, launch.config.limits.queued) == (
        "0.0.0.0",
        9000,
        "fused",
        3,
    )
    assert read_launch().config == ServeConfig() and launch.http == {"request_timeout_s": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limits: {queued: no}", "limits.queued"),
        ("queued: 3", "queued: unknown; known are placement"),
        ("- 1", "holds no settings"),
        ("a: [", "not YAML"),
        ("applications: [{import_path: other:app}]", "no application with import_path"),
        ("applications: 7", "no application with import_path"),
        ("converter: {replcas: 2}", "converter.replcas: unknown; known are replicas, max_replicas"),
        (FILE + "http_option: {port: 1}", "http_option: unknown; known are applications"),
        (FILE + "http_options: {prot: 1}", "http_options.prot: unknown; known are host, port"),
        (FILE + "http_options: {port: high}", "http_options.port: should be a valid integer"),
        (FILE + "http_options: {port: 99999}", "http_options.port: should be less than or equal to 65535"),
        (FILE + "http_options: 7", "http_options"),
        (FILE + "logging_config: {log_level: LOUD}", "logging_config.log_level: should be 'DEBUG'"),
        ("applications: [{import_path: 'serve_apps.app:build_app', args: 7}]", "applications.args"),
        ("applications: [{import_path: 'serve_apps.app:build_app', deployments: []}]", "applications.deployments"),
    ],
)
def test_a_file_that_is_wrong_is_named(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=re.escape(message)) as error:
        read_launch(file)
    assert "mine.yaml" in error.value.message and "\n" not in error.value.message


def test_what_a_file_says_of_serve_itself(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(FILE + "http_options: {port: 8123, keep_alive_timeout_s: 5}\nlogging_config: {encoding: JSON}")
    launch = read_launch(file)
    assert launch.port == 8123 and launch.http == {"request_timeout_s": None, "keep_alive_timeout_s": 5.0}
    assert launch.logging["encoding"] == "JSON" and launch.logging["log_level"] == "WARNING"
    LoggingConfig.model_validate(read_launch().logging)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(StorageError, match="No such file"):
        read_launch(Path("/nowhere.yaml"))
    with pytest.raises(SettingsError, match="placement"):
        read_launch(placement="both")


def test_a_busy_port_is_said_before_anything_starts() -> None:
    with socket.socket() as server:
        port = free_port()
        server.bind(("127.0.0.1", port))
        server.listen()
        assert not port_is_free("127.0.0.1", port)
        result = CliRunner().invoke(app, ["--port", str(port)])
        assert isinstance(result.exception, SettingsError) and f"port {port}" in result.exception.message
    assert port_is_free("127.0.0.1", port)
    with pytest.raises(SettingsError, match=r"cannot listen on 192\.0\.2\.77"):
        port_is_free("192.0.2.77", port)


def test_a_store_that_cannot_be_written_is_said_before_anything_starts(tmp_path: Path) -> None:
    check_store(ServeConfig(store=str(tmp_path / "new")))
    file = tmp_path / "file"
    file.write_text("")
    for store in (str(file), "s3://", "ftp://host/x"):
        with pytest.raises(SettingsError, match=r"store|S3 place"):
            check_store(ServeConfig(store=store))


def test_missing_models_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCKTOP_HOME", str(tmp_path))
    assert missing_models(ServeConfig()) == ["whisper-base-encoder", "fcpe"]
    assert missing_models(ServeConfig.model_validate({"voices": {"preload": []}})) == []
