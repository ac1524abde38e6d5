"""The dashboard and the rules: every expression can be read, and asks for metrics and labels that exist."""

import importlib.util
import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path

import promql_parser
import pytest
import yaml

from serve_apps.observe.catalogue import BY_NAME

ROOT = Path(__file__).parent.parent
PROMETHEUS = ROOT / "cluster" / "prometheus"
DASHBOARD = json.loads((ROOT / "cluster" / "grafana" / "rocktop-ray.json").read_text())
RULES = [rule for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"] for rule in group["rules"]]
RECORDS = {rule["record"] for rule in RULES if "record" in rule}
SERVE_LABELS = {"application", "deployment", "replica", "NodeAddress", "WorkerId"}
VARIABLES = {"$__rate_interval": "5m", "$application": "rocktop"}


def dashboard_expressions():
    """Title of the panel and expression, with Grafana's variables filled in."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            yield panel["title"], expression


EXPRESSIONS = [*dashboard_expressions(), *((rule.get("record") or rule["alert"], rule["expr"]) for rule in RULES)]


def serve_metrics():
    """Names that the installed Ray Serve declares in its source."""
    folder = Path(importlib.util.find_spec("ray").origin).parent / "serve"
    source = "".join(path.read_text() for path in folder.rglob("*.py"))
    return {f"ray_{name}" for name in re.findall(r'"(serve_[a-z_]+)"', source)}


def selectors(expression):
    """Metric names with the labels that are asked of them."""
    for found in re.finditer(r"([a-zA-Z_:][\w:]*)(?:\{([^}]*)\})?", re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)):
        if found[1].startswith(("rocktop", "ray_", "up")):
            yield found[1], set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", found[2] or ""))


def declared(name):
    """The metric of the table behind a series' name, if there is one."""
    for suffix in ("", "_bucket", "_sum", "_count"):
        metric = BY_NAME.get(name.removesuffix(suffix))
        if metric and (not suffix or metric.kind == "histogram"):
            return metric
    return None


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS)
def test_an_expression_can_be_read(where, expression):
    promql_parser.parse(expression)


def test_only_metrics_and_labels_that_exist_are_asked_for():
    ours = serve_metrics()
    for where, expression in EXPRESSIONS:
        for name, labels in selectors(expression):
            metric = declared(name)
            if metric:
                assert labels <= set(metric.labels) | SERVE_LABELS | {"le"}, (where, name, labels)
                assert metric.kind != "histogram" or name.endswith("_bucket"), (
                    where,
                    "sums are not exact: see the docs",
                )
            else:
                known = name in RECORDS or name == "up" or name in ours or name.removesuffix("_total") in ours
                assert known, (where, name)


def test_every_grouping_is_by_labels_of_its_metric():
    for where, expression in EXPRESSIONS:
        for by, name in re.findall(r"by \(([^)]*)\) \((?:rate\()?([a-z_:]+)", expression):
            metric, labels = declared(name), {label.strip() for label in by.split(",")} - {"le"}
            if metric:
                assert labels <= set(metric.labels) | SERVE_LABELS, (where, name, labels)


def test_counters_are_shown_as_rates():
    for where, expression in EXPRESSIONS:
        for name in re.findall(r"(rocktop_\w+_(?:total|bucket))", expression):
            assert re.search(rf"rate\({name}\b", expression), (where, name)


def test_the_dashboard_shows_every_metric():
    asked = {
        declared(name).name for _, text in dashboard_expressions() for name, _ in selectors(text) if declared(name)
    }
    hardly_worth_a_panel = {
        "rocktop_cache_changed_total",
        "rocktop_cache_corrupt_total",
        "rocktop_cache_evictions_total",
        "rocktop_cache_files",
        "rocktop_exporters",
    }
    assert set(BY_NAME) - asked == hardly_worth_a_panel


def test_panels_have_places_of_their_own_and_data():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] >= 0 and place["x"] + place["w"] <= 24 and place["h"] >= 1
        if panel["type"] != "row":
            assert panel["targets"] and panel["datasource"]["uid"] == "${datasource}"
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
            assert panel["fieldConfig"]["defaults"]["unit"]
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource", "application"}


def test_every_alert_is_explained_and_has_a_summary():
    documented = set(re.findall(r"^\| (Rocktop\w+) \|", (ROOT / "docs" / "observe.md").read_text(), re.MULTILINE))
    alerts = [rule for rule in RULES if "alert" in rule]
    assert documented == {rule["alert"] for rule in alerts}
    for rule in alerts:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]


def test_nothing_is_counted_twice_and_nodes_are_renamed():
    jobs = {
        job["job_name"]: job for job in yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    }
    rename = jobs["ray"]["metric_relabel_configs"][0]
    found = re.fullmatch(rename["regex"], "ray_rocktop_orders_total")
    assert found[1] == "rocktop_orders_total" and rename["replacement"] == "$1"
    keep = jobs["rocktop-gateway"]["metric_relabel_configs"][0]
    assert keep["action"] == "keep"
    assert [name for name in BY_NAME if re.fullmatch(keep["regex"], name)] == ["rocktop_exporters"]
    alone = yaml.safe_load((PROMETHEUS / "one-address.yml").read_text())["scrape_configs"]
    assert [job["job_name"] for job in alone] == ["rocktop-gateway"] and "metric_relabel_configs" not in alone[0]


promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


@promtool
@pytest.mark.parametrize("name", ["prometheus.yml", "one-address.yml"])
def test_promtool_accepts_the_configuration(name):
    done = subprocess.run(["promtool", "check", "config", name], cwd=PROMETHEUS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@promtool
def test_promtool_finds_that_alerts_fire_when_they_should():
    done = subprocess.run(
        ["promtool", "test", "rules", "rules_test.yml"], cwd=PROMETHEUS, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
