"""Who is behind an address, as the Kubernetes API server says: `cluster.Cluster` is the way in.

Reading order: decode and objects (JSON to values), rows and store (values to a snapshot), resources (what is asked), client and watch (how), cluster
(all together). Only client and watch touch the outside world, and only client imports the `kubernetes` package, when it is first used.

Permissions, all of them, for a ClusterRole:

| API group        | resource       | verbs       | why                                                                        |
|------------------|----------------|-------------|----------------------------------------------------------------------------|
| (core)           | pods           | list, watch | this node's pods; those of other nodes, trimmed, with `peers: pods`        |
| (core)           | services       | list, watch | ClusterIP, NodePort and load-balancer addresses to Services                |
| discovery.k8s.io | endpointslices | list, watch | addresses behind Services; which nodes run an agent                        |
| (core)           | nodes          | list, watch | addresses and pod ranges of nodes                                          |
| (core)           | namespaces     | list, watch | metadata: annotations, and the uid of kube-system that names the cluster   |
| apps             | replicasets    | get         | metadata: the Deployment above a ReplicaSet of this node's pods            |
| batch            | jobs           | get         | metadata: the CronJob above a Job of this node's pods, and with            |
|                  |                |             | `peers: pods` of those of other nodes that have not ended                  |

Requests at start: one list per kind and page (50 to 500 objects), one watch per kind, one GET per ReplicaSet and Job of this node's pods
and per Job of other nodes' pods that are watched and have not ended, and with `peers: auto` one list of a single pod. Afterwards a watch
lasts 5 to 10 minutes: about 8 requests an hour and kind; and one GET for each new ReplicaSet and Job.
"""

from __future__ import annotations
