"""How the agents are: what they watch, what they lost, what left and what waits."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from config.grafana.generate import parts

OWN = "otel_ebpf_receiver"
HERE = 'instance=~"$instance"'
EVERY = "[$__rate_interval]"


def rate(name: str, by: str, more: str = "") -> str:
    """What was counted a second."""
    return f"sum by ({by}) (rate({OWN}_{name}_total{{{HERE}{', ' if more else ''}{more}}}{EVERY}))"


def total(name: str, by: str = "", more: str = "") -> str:
    """The sum of a gauge."""
    return f"sum by ({by}) ({OWN}_{name}{{{HERE}{', ' if more else ''}{more}}})"


def oldest(name: str) -> str:
    """The greatest age at each agent."""
    return f"max by (instance) ({OWN}_{name}{{{HERE}}})"


def counted(events: str) -> str:
    """Kernel counters whose names match, a second."""
    return rate("kernel", "event", f'event=~"{events}"')


def health() -> dashboard.Dashboard:
    """The dashboard."""
    made = parts.board("health", "HTTP: health of the agents", "The agents' own telemetry.")
    made.with_variable(parts.variable("instance", "Agent", f"label_values({OWN}_taps, instance)"))
    made.with_panel(parts.figure("Agents", "That told of themselves.", "none", f"count(sum by (instance) ({OWN}_taps{{{HERE}}}))"))
    lost = counted("http_lost").replace("sum by (event)", "sum")
    made.with_panel(parts.figure("Records lost", "A second, for want of room in the ring. Must be 0.", "cps", lost, limits=(0.001, 1)))
    unwatched = total("taps", more='state=~"failed|one_way"')
    made.with_panel(
        parts.figure("Taps without a whole view", "Failed to attach, or show one direction only.", "none", unwatched, limits=(1, 5))
    )
    left = rate("export_dropped", "") + " + " + rate("export_failed", "") + " + " + rate("export_rejected", "")
    made.with_panel(parts.figure("Telemetry lost", "Items a second dropped, failed or rejected.", "cps", left, limits=(0.001, 1)))
    panels = (
        ("Taps", "Watched interfaces by state.", "none", total("taps", "state"), "{{state}}"),
        ("Records", "From the kernel: copies are the same exchange seen at another device.", "cps", rate("records", "fate"), "{{fate}}"),
        ("Requests without an answer", "Open now.", "none", total("requests_open", "instance"), "{{instance}}"),
        ("Oldest request without an answer", "Its age.", "s", oldest("requests_oldest_seconds"), "{{instance}}"),
        ("Connections by what they are", "Only HTTP/1 is followed.", "cps", counted("flows_(http|tls|http2|other|upgraded)"), "{{event}}"),
        ("Connections that cannot be told", "Joined in the middle, one-sided, contradictory.", "cps", counted("flows_(joined|one_sided|distrusted)"), "{{event}}"),
        ("Positions lost", "Why the parser had to find the next certain start line.", "cps", counted("http_resync_.+|http_unpaired"), "{{event}}"),
        ("Packets by outcome", "Every packet ends in one.", "pps", rate("kernel", "event", 'event!~"packets|(flows|holes|http).*"'), "{{event}}"),
        ("Spans", "By what became of them before export.", "cps", rate("spans", "fate"), "{{fate}}"),
        ("Sent", "Items that a destination accepted.", "cps", rate("export_sent", "destination, signal"), "{{destination}} {{signal}}"),
        ("Not sent", "Dropped for want of room, failed, rejected.", "cps", left.replace("sum by ()", "sum by (destination, signal)"), "{{destination}} {{signal}}"),
        ("Waiting", "Bytes in the queues or on the wire.", "bytes", total("export_queue_bytes", "destination, signal"), "{{destination}} {{signal}}"),
        ("Series", "In the table of metrics.", "none", total("series", "instance"), "{{instance}}"),
        ("Overflow", "Observations that found no room for a series of their own.", "cps", rate("series_overflow", "instance"), "{{instance}}"),
        ("Age of what is known of Kubernetes", "Since the API server last confirmed it.", "s", oldest("kubernetes_snapshot_age_seconds"), "{{instance}}"),
        ("Exchanges by what is known of their sides", "Unnamed peers are known by address only.", "cps", rate("identity", "fate"), "{{fate}}"),
    )  # fmt: skip
    for title, text, unit, expr, legend in panels:
        made.with_panel(parts.graph(title, text, unit, parts.query(expr, legend)))
    return made
