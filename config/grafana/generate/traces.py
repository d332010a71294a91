"""From figures to traces: failed and slow exchanges in Tempo or Jaeger, whichever there is."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard, table, tempo
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from config.grafana.generate import parts, red

SCOPE = 'instrumentation:name = "otel_ebpf_receiver"'
SERVICE = 'resource.service.name =~ "$service"'


def searched(text: str) -> tempo.TempoQuery:
    """A TraceQL search."""
    return tempo.TempoQuery().ref_id("A").query_type("traceql").query(text).limit(20).datasource(parts.TEMPO)


def listed(title: str, text: str, where: DataSourceRef, query: Builder[Dataquery]) -> table.Panel:
    """A table of traces; Grafana links the ids by itself."""
    return table.Panel().title(title).description(text).datasource(where).span(parts.HALF).height(10).with_target(query)


def traces() -> dashboard.Dashboard:
    """The dashboard."""
    made = parts.board("traces", "HTTP: traces", "Failed and slow exchanges, and the way from a point of a graph to its trace.")
    made.with_variable(parts.source("tempo", "Traces (Tempo)", "tempo")).with_variable(parts.source("jaeger", "Traces (Jaeger)", "jaeger"))
    names = f"label_values({red.SERVER}_count, job)"
    made.with_variable(parts.variable("service", "Service", names, regex=r"/(?:.*\/)?(?<value>.+)/", all_value=""))
    job = 'job=~"(.*/)?$service"'
    slowest = parts.query(red.quantile(0.99, "", chosen=job), "p99", exemplars=True)
    made.with_panel(parts.graph("Duration with exemplars", "Each point is one trace.", "s", slowest, width=parts.WIDE))
    made.with_row(dashboard.Row("Tempo"))
    failed, slow = f"{{ {SCOPE} && {SERVICE} && status = error }}", f"{{ {SCOPE} && {SERVICE} && duration > 500ms }}"
    made.with_panel(listed("Failed", "5xx and cut off.", parts.TEMPO, searched(failed)))
    made.with_panel(listed("Slower than 500 ms", "By the agent's spans.", parts.TEMPO, searched(slow)))
    made.with_row(dashboard.Row("Jaeger"))
    failed_too = parts.JaegerSearch("$service", tags='{"error":"true"}')
    made.with_panel(listed("Failed", "5xx and cut off.", parts.JAEGER, failed_too))
    slow_too = parts.JaegerSearch("$service", min_duration="500ms")
    return made.with_panel(listed("Slower than 500 ms", "Of any span.", parts.JAEGER, slow_too))
