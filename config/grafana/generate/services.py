"""The service graph: who asks whom, drawn from the metrics of the asking side, and Tempo's own where that makes one."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard, nodegraph, tempo
from grafana_foundation_sdk.models.dashboard import DataTransformerConfig, MatcherConfig

from config.grafana.generate import parts, red

CHOSEN = 'job=~"$namespace.*"'
SUFFIX = r"(\\.svc(\\..+)?)?"
"""What a cluster's names may have behind `name.namespace`."""


def edges(expr: str) -> str:
    """Rows with id, source and target. A target that answers under `namespace/name` gets that name, any other its address."""
    guessed = f'label_replace({expr}, "target", "$2/$1", "server_address", "([^.]+)\\\\.([^.]+){SUFFIX}")'
    answering = f'sum by (target) (label_replace({red.rate("job", chosen="")}, "target", "$1", "job", "(.+)"))'
    known = f"({guessed} and on (target) {answering})"
    other = f'label_replace({expr} unless on (job, server_address) {known}, "target", "$1", "server_address", "(.+)")'
    named = f'label_replace({known} or {other}, "source", "$1", "job", "(.+)")'
    return f'label_join({named}, "id", " → ", "source", "target")'


def asked() -> str:
    """Exchanges a second by client and server."""
    return edges(red.rate("job, server_address", red.CLIENT, CHOSEN))


def failed() -> str:
    """Share of errors by client and server."""
    return edges(f"({red.share('job, server_address', red.CLIENT, CHOSEN)})")


def slow() -> str:
    """p95 by client and server."""
    return edges(red.quantile(0.95, "job, server_address", red.CLIENT, CHOSEN))


def nodes() -> str:
    """Everyone who asks or is asked, with what it answers a second (0: it was only seen asking, or is not watched)."""
    served = f'sum by (id) (label_replace({red.rate("job", chosen="")}, "id", "$1", "job", "(.+)"))'
    ends = [f'0 * sum by (id) (label_replace({asked()}, "id", "$1", "{end}", "(.+)"))' for end in ("source", "target")]
    return f"{served} or {ends[0]} or {ends[1]}"


def _frame(ref: str, renamed: dict[str, str]) -> DataTransformerConfig:
    options = {"renameByName": renamed, "excludeByName": {"Time": True, "job": True, "server_address": True}}
    return DataTransformerConfig("organize", filter_val=MatcherConfig("byRefId", ref), options=options)


def drawn() -> nodegraph.Panel:
    """The graph; a frame with source and target is one of edges."""
    made = nodegraph.Panel().title("Who asks whom").datasource(parts.METRICS).span(parts.WIDE).height(16)
    made.description("From the CLIENT metrics. Numbers: exchanges a second.")
    made.nodes(nodegraph.NodeOptions().main_stat_unit("reqps")).edges(nodegraph.EdgeOptions().main_stat_unit("reqps"))
    made.with_target(parts.rows(nodes(), ref="nodes")).with_target(parts.rows(asked(), ref="edges"))
    made.with_transformation(_frame("nodes", {"Value #nodes": "mainstat", "id": "id"}))
    return made.with_transformation(_frame("edges", {"Value #edges": "mainstat"}))


def services() -> dashboard.Dashboard:
    """The dashboard."""
    made = parts.board("services", "HTTP: service graph", "Who asks whom, how often, how well.")
    made.with_variable(parts.source("tempo", "Traces (Tempo)", "tempo"))
    made.with_variable(red.variables()[0])
    made.with_panel(drawn())
    columns = {"source": "Client", "target": "Server", "Value #A": "Rate", "Value #B": "Errors", "Value #C": "p95"}
    queries = [parts.rows(f"sum by (source, target) ({expr})", ref=ref) for expr, ref in ((asked(), "A"), (failed(), "B"), (slow(), "C"))]
    units = {"Rate": "reqps", "Errors": "percentunit", "p95": "s"}
    made.with_panel(parts.grid("Edges", "The same as a table.", *queries, columns=columns, units=units))
    own = nodegraph.Panel().title("Tempo's service graph").datasource(parts.TEMPO).span(parts.WIDE).height(12)
    own.description("Only where Tempo's metrics generator makes one of the spans.")
    return made.with_panel(own.with_target(tempo.TempoQuery().ref_id("A").query_type("serviceMap").datasource(parts.TEMPO)))
