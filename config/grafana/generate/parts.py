"""What all dashboards are made of: data sources, variables, queries, panels. It knows no metric."""

from __future__ import annotations

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as shared
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

METRICS = DataSourceRef("prometheus", "${metrics}")
TEMPO = DataSourceRef("tempo", "${tempo}")
JAEGER = DataSourceRef("jaeger", "${jaeger}")
TAG = "otel-ebpf-receiver"
WIDE, HALF, THIRD, QUARTER = 24, 12, 8, 6


class JaegerSearch(Builder[Dataquery], Dataquery):
    """A search of Jaeger's data source, and its own builder: the SDK has none for it."""

    def __init__(self, service: str, *, tags: str = "", min_duration: str = "", limit: int = 20) -> None:
        self._query = {"refId": "A", "queryType": "search", "service": service, "limit": limit}
        self._query |= {name: value for name, value in (("tags", tags), ("minDuration", min_duration)) if value}

    def build(self) -> JaegerSearch:
        """Itself."""
        return self

    def to_json(self) -> dict[str, object]:
        """As the data source takes it."""
        return {**self._query, "datasource": {"type": JAEGER.type_val, "uid": JAEGER.uid}}


def board(uid: str, title: str, text: str) -> dashboard.Dashboard:
    """An empty dashboard that links to its siblings and chooses its metrics' data source."""
    siblings = dashboard.DashboardLink("More").type(DashboardLinkType.DASHBOARDS).tags([TAG]).as_dropdown(True).keep_time(True)
    made = dashboard.Dashboard(title).uid(f"{TAG}-{uid}").description(text).tags([TAG, "http"]).readonly()
    made.time("now-1h", "now").refresh("1m").timezone("browser").link(siblings)
    return made.with_variable(source("metrics", "Metrics", "prometheus"))


def source(name: str, label: str, kind: str) -> dashboard.DatasourceVariable:
    """A variable that chooses a data source of one kind."""
    return dashboard.DatasourceVariable(name).label(label).type(kind)


def variable(name: str, label: str, query: str, *, regex: str = "", all_value: str = ".*", many: bool = True) -> dashboard.QueryVariable:
    """A variable filled by a Prometheus query; `all_value` empty: one must be chosen."""
    made = dashboard.QueryVariable(name).label(label).datasource(METRICS).query({"query": query, "refId": name})
    made.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC).regex(regex)
    if all_value:
        made.include_all(True).all_value(all_value).multi(many)
    return made


def query(expr: str, legend: str = "", *, ref: str = "A", exemplars: bool = False) -> prometheus.Dataquery:
    """A query over the time shown."""
    return prometheus.Dataquery().expr(expr).legend_format(legend or "__auto").ref_id(ref).exemplar(exemplars).range()


def rows(expr: str, *, ref: str = "A") -> prometheus.Dataquery:
    """A query for a table: the value now, labels as columns."""
    return prometheus.Dataquery().expr(expr).ref_id(ref).format(PromQueryFormat.TABLE).instant()


def graph(title: str, text: str, unit: str, *queries: prometheus.Dataquery, stacked: bool = False, width: int = HALF) -> timeseries.Panel:
    """Lines over time, with a legend that tells the last and the greatest value."""
    legend = common.VizLegendOptions().display_mode(shared.LegendDisplayMode.TABLE).placement(shared.LegendPlacement.BOTTOM)
    legend.show_legend(True).calcs(["lastNotNull", "max"])
    made = timeseries.Panel().title(title).description(text).datasource(METRICS).unit(unit).span(width).height(8).min(0)
    made.fill_opacity(10).show_points(shared.VisibilityMode.NEVER).legend(legend)
    made.tooltip(common.VizTooltipOptions().mode(shared.TooltipDisplayMode.MULTI).sort(shared.SortOrder.DESCENDING))
    if stacked:
        made.stacking(common.StackingConfig().mode(shared.StackingMode.NORMAL))
    for one in queries:
        made.with_target(one)
    return made


def figure(title: str, text: str, unit: str, expr: str, *, limits: tuple[float, float] | None = None) -> stat.Panel:
    """One number. `limits`: where it becomes orange and red."""
    made = stat.Panel().title(title).description(text).datasource(METRICS).unit(unit).span(QUARTER).height(4)
    made.graph_mode(shared.BigValueGraphMode.AREA).with_target(query(expr))
    colours: list[tuple[float | None, str]] = [(None, "green")]
    if limits:
        colours += [(limits[0], "orange"), (limits[1], "red")]
    steps = [Threshold(value, colour) for value, colour in colours]
    return made.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))


def grid(title: str, text: str, *queries: prometheus.Dataquery, columns: dict[str, str], units: dict[str, str]) -> table.Panel:
    """A table of labels and values. `columns`: names shown, by label or `Value #<ref>`, in their order; `units` by name shown."""
    made = table.Panel().title(title).description(text).datasource(METRICS).span(WIDE).height(10)
    for one in queries:
        made.with_target(one)
    order = {name: place for place, name in enumerate(columns)}
    made.with_transformation(DataTransformerConfig("merge", options={}))
    hidden = {"Time": True, "__name__": True}
    made.with_transformation(
        DataTransformerConfig("organize", options={"excludeByName": hidden, "indexByName": order, "renameByName": columns})
    )
    for name, unit in units.items():
        made.override_by_name(name, [DynamicConfigValue("unit", unit)])
    return made


def link(title: str, url: str) -> DynamicConfigValue:
    """A link on the cells of a column."""
    return DynamicConfigValue("links", [{"title": title, "url": url}])
