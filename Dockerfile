# docker build -t otel-ebpf-receiver:0.1.0 .
#
# Two stages on one Debian: the first makes the Python environment, the second holds it beside the distribution's bcc. scripts/image makes the same
# file system without an engine; scripts/dockerfile builds this file by buildah, without a registry.

FROM debian:trixie-slim AS environment
RUN apt-get -qq update && apt-get -qq -y install --no-install-recommends ca-certificates python3 python3-venv
WORKDIR /checkout
COPY requirements/run.txt requirements/
COPY config/image/environment config/image/
RUN config/image/environment
# The agent itself as a wheel; its builder stays here.
RUN python3 -m venv /build && /build/bin/pip --quiet install --no-deps --only-binary :all: --require-hashes -r requirements/run.txt
COPY . .
RUN /build/bin/python -m hatchling build -t wheel -d /wheel && \
    python3 -m zipfile -e /wheel/*.whl /opt/otel-ebpf-receiver/lib/python3.*/site-packages && \
    /opt/otel-ebpf-receiver/bin/python - < config/image/finish

FROM debian:trixie-slim
RUN apt-get -qq update && \
    apt-get -qq -y install --no-install-recommends ca-certificates python3 python3-bpfcc && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* /usr/share/doc /usr/share/man
COPY --from=environment /opt/otel-ebpf-receiver /opt/otel-ebpf-receiver
ENV PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 GLIBC_TUNABLES=glibc.malloc.hugetlb=1
RUN ln -s /opt/otel-ebpf-receiver/bin/otel-ebpf-receiver /usr/local/bin/otel-ebpf-receiver && otel-ebpf-receiver --version
# The kernel programs, compiled ahead, where the builder may call bpf(2): `podman build --cap-add=BPF,PERFMON,NET_RAW --security-opt=seccomp=unconfined`.
# Elsewhere each start compiles them, in about six seconds and with 126 MiB more.
RUN otel-ebpf-receiver run --exporter none > /tmp/ready 2> /tmp/log & agent=$!; \
    for _ in $(seq 300); do grep -q ready /tmp/ready && break; kill -0 $agent || break; sleep 0.1; done; \
    kill $agent && wait $agent || cat /tmp/log; rm -f /tmp/ready /tmp/log; \
    ls /var/cache/otel-ebpf-receiver/*.json || echo "not compiled ahead: each start does it"
# UID 0: Kubernetes gives no ambient capabilities, so BPF, PERFMON and NET_RAW would not reach another. Nothing else is needed.
USER 0:0
STOPSIGNAL SIGTERM
ENTRYPOINT ["otel-ebpf-receiver"]
CMD ["run"]
