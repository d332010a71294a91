"""Dashboards, rules and provisioning as they stand in the tree."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.grafana.generate.__main__ import dashboards
from docs.generate.own import own_instruments
from otel_ebpf_receiver.sources.http.instruments import all_instruments
from otel_ebpf_receiver.sources.http.options import HttpOptions
from otel_ebpf_receiver.status.exposition import metric_name

CONFIG = Path(__file__).parents[2] / "config"
FOLDER = CONFIG / "grafana" / "dashboards"
SUFFIXES = re.compile(r"_(bucket|count|sum)$")


def boards() -> dict[str, dict[str, Any]]:
    """Every dashboard of the tree, by file name."""
    return {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def expressions(board: dict[str, Any]) -> Iterator[str]:
    """The PromQL of every panel."""
    return (target["expr"] for panel in board["panels"] for target in panel.get("targets", []) if "expr" in target)


def known() -> set[str]:
    """Names of every metric that the agent can export, as Prometheus has them."""
    of_http = {
        metric_name(one.name, one.unit, is_counter=False)
        for one in all_instruments(HttpOptions(body_sizes=True, first_byte=True, active=True))
    }
    return of_http | {one.prometheus for one in own_instruments()}


def named(text: str) -> set[str]:
    """Names of metrics in a piece of PromQL: what stands before a brace or a bracket and is no recorded series."""
    return {SUFFIXES.sub("", name) for name in re.findall(r"(?<![\w:])((?:http|otel)_\w+)[{\[]", text)}


def test_the_tree_holds_what_the_code_makes() -> None:
    """`scripts/dashboards` would change nothing."""
    made = dashboards()

    assert {path.name: path.read_text() for path in FOLDER.glob("*.json")} == made


def test_panels_choose_their_data_source_by_a_variable() -> None:
    """No dashboard names a data source of one installation, and each variable it uses exists."""
    for name, board in boards().items():
        declared = {variable["name"]: variable for variable in board["templating"]["list"]}
        for panel in board["panels"]:
            if panel["type"] == "row":
                continue
            uid, kind = panel["datasource"]["uid"], panel["datasource"]["type"]
            assert declared[uid.strip("${}")]["query"] == kind, (name, panel["title"])
        used = set(re.findall(r"\$\{?(\w+)", " ".join(expressions(board)))) - {"__rate_interval"}
        # `$1` and `$2` are groups of label_replace.
        assert {one for one in used if not one.isdigit()} <= declared.keys(), name


def test_ids_are_unique() -> None:
    """Dashboards have different ids, and so have the panels of one."""
    found = boards()

    assert len({board["uid"] for board in found.values()}) == len(found) == 4
    for board in found.values():
        ids = [panel["id"] for panel in board["panels"]]
        assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", sorted(dashboards()))
def test_dashboards_ask_only_for_metrics_that_exist(name: str) -> None:
    """Each metric in a query is one that the agent can export."""
    asked = set().union(*map(named, expressions(boards()[name])))

    assert asked
    assert asked <= known()


def test_rules_ask_only_for_metrics_that_exist() -> None:
    """Each metric in a rule is one that the agent can export or another rule records."""
    groups = yaml.safe_load((CONFIG / "prometheus" / "rules.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    recorded = {rule["record"] for rule in rules if "record" in rule}

    assert set().union(*(named(rule["expr"]) for rule in rules)) <= known()
    assert {name for rule in rules for name in re.findall(r"\bjob:[\w:]+", rule["expr"])} <= recorded
    assert recorded


def test_provisioning_loads_the_data_sources_that_exemplars_name() -> None:
    """The way from an exemplar leads to a data source that is provisioned."""
    folder = CONFIG / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "datasources.yaml").read_text())["datasources"]
    uids = {one["uid"] for one in sources}

    targets = [way["datasourceUid"] for one in sources for way in one["jsonData"].get("exemplarTraceIdDestinations", [])]
    assert targets
    assert set(targets) <= uids
    provider = yaml.safe_load((folder / "dashboards" / "dashboards.yaml").read_text())["providers"][0]
    assert provider["type"] == "file"
