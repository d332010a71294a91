"""JSON of the API server to dictionaries that hold what identity reads of it. The rest (`managedFields`, volumes, environments: nine tenths of
a pod) is skipped without becoming Python objects, which takes a sixth of the time that reading it all does.

Pure. What is not of the shape of the API is read whole, so that whoever looks into it finds and counts what is wrong.
"""

from __future__ import annotations

import json
from typing import Any, TypedDict

import msgspec

# hot: benchmarks/identity.py
_Metadata = TypedDict(
    "_Metadata",
    {
        "uid": Any,
        "name": Any,
        "namespace": Any,
        "resourceVersion": Any,
        "creationTimestamp": Any,
        "labels": Any,
        "annotations": Any,
        "ownerReferences": Any,
        "continue": Any,
        "remainingItemCount": Any,
    },
    total=False,
)


class _Container(TypedDict, total=False):
    name: Any
    image: Any
    ports: Any
    restartPolicy: Any


class _Spec(TypedDict, total=False):
    nodeName: Any
    hostNetwork: Any
    containers: list[_Container] | None
    initContainers: list[_Container] | None
    clusterIP: Any
    clusterIPs: Any
    externalIPs: Any
    ports: Any
    podCIDR: Any
    podCIDRs: Any


class _ContainerStatus(TypedDict, total=False):
    state: Any


class _Condition(TypedDict, total=False):
    lastTransitionTime: Any


class _Status(TypedDict, total=False):
    phase: Any
    startTime: Any
    podIP: Any
    podIPs: Any
    hostIP: Any
    hostIPs: Any
    containerStatuses: list[_ContainerStatus] | None
    conditions: list[_Condition] | None
    addresses: Any
    loadBalancer: Any


class _EndpointConditions(TypedDict, total=False):
    ready: Any


class _Endpoint(TypedDict, total=False):
    addresses: Any
    conditions: _EndpointConditions | None
    nodeName: Any
    targetRef: Any


class _Object(TypedDict, total=False):
    """Of every kind that is watched, and what an ERROR event says."""

    metadata: _Metadata | None
    spec: _Spec | None
    status: _Status | str | None
    ports: Any
    addressType: Any
    endpoints: list[_Endpoint] | None
    code: Any
    reason: Any
    message: Any


class _Event(TypedDict):
    type: Any
    object: _Object


class _Page(TypedDict):
    metadata: _Metadata
    items: list[_Object] | None


_event, _page, _one = (msgspec.json.Decoder(shape) for shape in (_Event, _Page, _Object))


def event(line: bytes) -> Any:
    """An event of a watch. Raises ValueError for what is no JSON."""
    return _decode(_event, line)


def page(body: bytes) -> Any:
    """A page of a list. Raises ValueError for what is no JSON."""
    return _decode(_page, body)


def one(body: bytes) -> Any:
    """A single object. Raises ValueError for what is no JSON."""
    return _decode(_one, body)


def _decode(decoder: msgspec.json.Decoder[Any], text: bytes) -> Any:
    try:
        return decoder.decode(text)
    except msgspec.DecodeError:
        return json.loads(text)
