# One image for everything: serve, migrate, demo and the command line.
#
#   docker build -t rampart --build-arg BASE=python:3.13-slim@sha256:… .
#
# Pin BASE by its digest where builds must be repeatable. It needs Python 3.11 or newer and glibc; nothing is
# installed into it but what the lock files name, each package checked against its hash. Without a network, put the
# wheels into wheels/ and say --build-arg PIP_NO_INDEX=1 (tests/image/run.sh does that).
ARG BASE=python:3.13-slim

# hadolint ignore=DL3006
FROM ${BASE} AS build
ARG PIP_NO_INDEX=
ARG PIP_FIND_LINKS=/src/wheels
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# The dependencies are a layer of their own: it changes only with the locks. The odd name lets wheels/ be missing.
COPY requirements.lock requirements-build.lock wheel[s] wheels/
RUN python3 -m venv --without-pip /opt/rampart \
 && python3 -m venv /build \
 && /build/bin/pip --python /opt/rampart/bin/python install --quiet --require-hashes -r wheels/requirements.lock \
 && /build/bin/pip install --quiet --require-hashes -r wheels/requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY controller controller
COPY migrations migrations
COPY policies policies
RUN /build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /dist . \
 && /build/bin/pip --python /opt/rampart/bin/python install --quiet --no-deps --no-index /dist/*.whl

# hadolint ignore=DL3006
FROM ${BASE}
ARG VERSION=
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="Rampart" \
      org.opencontainers.image.description="Raises feature flags step by step, watches what they do, and stops them in time" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
# PostgreSQL wants its user to have a name.
RUN groupadd --gid 10001 rampart \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/rampart --shell /usr/sbin/nologin rampart \
 && install -d -o 10001 -g 10001 -m 0700 /var/lib/rampart
COPY --from=build /opt/rampart /opt/rampart
# The data volume is the one place that is written to: with it the root file system may be read-only.
ENV PATH=/opt/rampart/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TMPDIR=/var/lib/rampart \
    RAMPART_DATA_DIR=/var/lib/rampart \
    RAMPART_SERVER__BIND=0.0.0.0:8400
USER 10001:10001
WORKDIR /var/lib/rampart
VOLUME /var/lib/rampart
EXPOSE 8400
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["rampart", "healthz"]
ENTRYPOINT ["rampart"]
CMD ["serve"]
