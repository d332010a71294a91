"""The agent's own error tree.

Foreign exceptions are translated at the edge module, cause chained; only `cli.py` turns one into an exit code.
"""

from __future__ import annotations


class AgentError(Exception):
    """Anything that the agent reports to its user. Message: what failed, on what (quoted), what to do."""


class ConfigError(AgentError):
    """The configuration is wrong: all its problems at once, one per line."""


class PreflightError(AgentError):
    """This kernel, architecture, privilege or bcc does not allow the agent to run."""


class CaptureError(AgentError):
    """An interface or a capture file cannot be read."""


class KubernetesError(AgentError):
    """The Kubernetes API cannot be used as configured."""


class ExportError(AgentError):
    """An exporter cannot be used as configured."""
