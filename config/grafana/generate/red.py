"""Rate, errors and duration by namespace, workload and route."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard, table

from config.grafana.generate import parts

SERVER = "http_server_request_duration_seconds"
CLIENT = "http_client_request_duration_seconds"
CHOSEN = 'job=~"$namespace.*", job=~"$workload"'
"""`job` is `namespace/workload`, as OpenTelemetry maps a Resource to Prometheus; `$namespace` ends in a slash."""
SERVED = f'{CHOSEN}, http_route=~"$route"'
FAILED = 'error_type!=""'
EVERY = "[$__rate_interval]"
TRACES = f"/d/{parts.TAG}-traces?var-service=${{__data.fields.service}}&${{__url_time_range}}"


def rate(by: str, metric: str = SERVER, chosen: str = SERVED, more: str = "") -> str:
    """Exchanges a second."""
    return f"sum by ({by}) (rate({metric}_count{{{chosen}{', ' if more else ''}{more}}}{EVERY}))"


def share(by: str, metric: str = SERVER, chosen: str = SERVED) -> str:
    """Errors of all exchanges, 0 where there were none."""
    every = rate(by, metric, chosen)
    return f"({rate(by, metric, chosen, FAILED)} or 0 * {every}) / {every}"


def quantile(share_of: float, by: str, metric: str = SERVER, chosen: str = SERVED) -> str:
    """Seconds that this share of the exchanges stays below."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share_of:g}, sum by ({labels}) (rate({metric}_bucket{{{chosen}}}{EVERY})))"


def mean(by: str, metric: str = SERVER, chosen: str = SERVED) -> str:
    """Seconds on average."""
    return f"sum by ({by}) (rate({metric}_sum{{{chosen}}}{EVERY})) / {rate(by, metric, chosen)}"


def variables() -> list[dashboard.QueryVariable]:
    """Namespace, workload, route. The namespace's value keeps its slash, so that `shop` does not choose `shopping` too."""
    namespace = parts.variable("namespace", "Namespace", f"label_values({SERVER}_count, job)", regex=r"/(?<value>(?<text>.+)\/).+/")
    workload = parts.variable("workload", "Workload", f'label_values({SERVER}_count{{job=~"$namespace.*"}}, job)')
    route = parts.variable("route", "Route", f"label_values({SERVER}_count{{{CHOSEN}}}, http_route)")
    return [namespace, workload, route]


def red() -> dashboard.Dashboard:
    """The dashboard."""
    made = parts.board("red", "HTTP: rate, errors, duration", "Every HTTP/1.x exchange seen on the wire, by workload and route.")
    for variable in variables():
        made.with_variable(variable)
    made.with_panel(parts.figure("Rate", "Exchanges a second that were answered or failed.", "reqps", rate("")))
    made.with_panel(parts.figure("Errors", "5xx, and exchanges that the server cut off.", "percentunit", share(""), limits=(0.01, 0.05)))
    made.with_panel(parts.figure("p99", "99 % of the exchanges took less.", "s", quantile(0.99, "")))
    made.with_panel(
        parts.figure("Workloads", "That answered something.", "none", f"count(sum by (job) (rate({SERVER}_count{{{SERVED}}}{EVERY})))")
    )
    made.with_row(dashboard.Row("Served"))
    made.with_panel(parts.graph("Rate by workload", "Exchanges a second.", "reqps", parts.query(rate("job"), "{{job}}")))
    made.with_panel(parts.graph("Errors by workload", "Share of 5xx and cut off.", "percentunit", parts.query(share("job"), "{{job}}")))
    durations = [
        parts.query(quantile(q, ""), f"p{q * 100:g}", ref=ref, exemplars=q == 0.99) for ref, q in (("A", 0.5), ("B", 0.95), ("C", 0.99))
    ]
    made.with_panel(parts.graph("Duration", "First byte of the request to last of the answer. Points lead to traces.", "s", *durations))
    made.with_panel(parts.graph("p95 by workload", "95 % took less.", "s", parts.query(quantile(0.95, "job"), "{{job}}")))
    code = "http_response_status_code, error_type"
    legend = "{{http_response_status_code}} {{error_type}}"
    made.with_panel(parts.graph("Rate by outcome", "Status and error.", "reqps", parts.query(rate(code), legend), stacked=True))
    made.with_panel(
        parts.graph(
            "Rate by method", "Request methods.", "reqps", parts.query(rate("http_request_method"), "{{http_request_method}}"), stacked=True
        )
    )
    made.with_panel(by_route())
    made.with_row(dashboard.Row("Asked"))
    asked = {"metric": CLIENT, "chosen": CHOSEN}
    pair, names = "job, server_address", "{{job}} → {{server_address}}"
    made.with_panel(parts.graph("Rate by client and server", "Exchanges a second.", "reqps", parts.query(rate(pair, **asked), names)))
    made.with_panel(
        parts.graph("Errors by client and server", "4xx, 5xx and cut off.", "percentunit", parts.query(share(pair, **asked), names))
    )
    made.with_panel(
        parts.graph("p95 by client and server", "As the client sees it.", "s", parts.query(quantile(0.95, pair, **asked), names))
    )
    made.with_panel(parts.graph("Mean by client and server", "As the client sees it.", "s", parts.query(mean(pair, **asked), names)))
    return made


def by_route() -> table.Panel:
    """Every route of every workload with its three figures; a cell leads to the traces."""
    by = "job, http_request_method, http_route"

    def with_service(expr: str) -> str:
        return f'label_replace({expr}, "service", "$1", "job", "(?:.*/)?(.+)")'

    columns = {"job": "Workload", "service": "service", "http_request_method": "Method", "http_route": "Route"}
    columns |= {"Value #A": "Rate", "Value #B": "Errors", "Value #C": "p95", "Value #D": "Mean"}
    units = {"Rate": "reqps", "Errors": "percentunit", "p95": "s", "Mean": "s"}
    queries = [(rate(by), "A"), (share(by), "B"), (quantile(0.95, by), "C"), (mean(by), "D")]
    text = "Routes appear where patterns or templating give them. The workload leads to its traces."
    made = parts.grid("By route", text, *(parts.rows(with_service(expr), ref=ref) for expr, ref in queries), columns=columns, units=units)
    return made.override_by_name("Workload", [parts.link("Traces of ${__data.fields.service}", TRACES)])
