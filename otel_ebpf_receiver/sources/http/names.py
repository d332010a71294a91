"""Every attribute, metric and own name of the HTTP source, from the pinned semantic conventions where they have one."""

from __future__ import annotations

from opentelemetry.semconv._incubating.attributes import http_attributes as _http
from opentelemetry.semconv._incubating.attributes import url_attributes as _url
from opentelemetry.semconv._incubating.metrics import http_metrics as _metrics
from opentelemetry.semconv.attributes import client_attributes as _client
from opentelemetry.semconv.attributes import error_attributes as _error
from opentelemetry.semconv.attributes import network_attributes as _network
from opentelemetry.semconv.attributes import server_attributes as _server
from opentelemetry.semconv.attributes import user_agent_attributes as _agent

METHOD = _http.HTTP_REQUEST_METHOD
METHOD_ORIGINAL = _http.HTTP_REQUEST_METHOD_ORIGINAL
STATUS = _http.HTTP_RESPONSE_STATUS_CODE
ROUTE = _http.HTTP_ROUTE
REQUEST_BODY = _http.HTTP_REQUEST_BODY_SIZE
RESPONSE_BODY = _http.HTTP_RESPONSE_BODY_SIZE
REQUEST_HEADER = _http.HTTP_REQUEST_HEADER_TEMPLATE + "."
URL_SCHEME = _url.URL_SCHEME
URL_PATH = _url.URL_PATH
URL_QUERY = _url.URL_QUERY
URL_FULL = _url.URL_FULL
URL_TEMPLATE = _url.URL_TEMPLATE
ERROR_TYPE = _error.ERROR_TYPE
SERVER_ADDRESS = _server.SERVER_ADDRESS
SERVER_PORT = _server.SERVER_PORT
CLIENT_ADDRESS = _client.CLIENT_ADDRESS
CLIENT_PORT = _client.CLIENT_PORT
PEER_ADDRESS = _network.NETWORK_PEER_ADDRESS
PEER_PORT = _network.NETWORK_PEER_PORT
PROTOCOL_VERSION = _network.NETWORK_PROTOCOL_VERSION
USER_AGENT = _agent.USER_AGENT_ORIGINAL

CLOSED_BY = "otel_ebpf_receiver.closed_by"
FLAGS = "otel_ebpf_receiver.flags"
REQUEST_TRANSFER = "otel_ebpf_receiver.request.transfer_ns"
RESPONSE_WAIT = "otel_ebpf_receiver.response.wait_ns"
RESPONSE_TRANSFER = "otel_ebpf_receiver.response.transfer_ns"

SERVER_DURATION = "http.server.request.duration"
CLIENT_DURATION = "http.client.request.duration"
SERVER_REQUEST_BODY = _metrics.HTTP_SERVER_REQUEST_BODY_SIZE
SERVER_RESPONSE_BODY = _metrics.HTTP_SERVER_RESPONSE_BODY_SIZE
CLIENT_REQUEST_BODY = _metrics.HTTP_CLIENT_REQUEST_BODY_SIZE
CLIENT_RESPONSE_BODY = _metrics.HTTP_CLIENT_RESPONSE_BODY_SIZE
SERVER_ACTIVE = _metrics.HTTP_SERVER_ACTIVE_REQUESTS
CLIENT_ACTIVE = _metrics.HTTP_CLIENT_ACTIVE_REQUESTS
SERVER_FIRST_BYTE = "otel_ebpf_receiver.http.server.time_to_first_byte"
CLIENT_FIRST_BYTE = "otel_ebpf_receiver.http.client.time_to_first_byte"
