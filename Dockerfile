# Build: the locked packages, each checked against its hash, and the project with its compiled part, all as wheels.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY requirements.lock .
RUN pip wheel --require-hashes --no-deps --wheel-dir /wheels -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY collector collector
COPY streams streams
COPY warehouse warehouse
COPY reports reports
COPY headrace headrace
RUN pip install --no-index --find-links /wheels --upgrade setuptools cython \
    && pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /dist .
# No index: only what was checked above, and of that only what the project needs to run.
RUN python -m venv /opt/headrace \
    && /opt/headrace/bin/pip install --no-index --find-links /wheels /dist/headrace-*.whl \
    && /opt/headrace/bin/python -I -c "import schemas.avro_kernel"

FROM python:3.11-slim-bookworm
COPY --from=build /opt/headrace /opt/headrace
RUN useradd --system --uid 10001 --home-dir /var/lib/headrace --create-home headrace \
    && mkdir -p /etc/headrace /var/lib/headrace/journal \
    && chown -R headrace:headrace /var/lib/headrace
ENV PATH=/opt/headrace/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HEADRACE_COLLECTOR_HOST=0.0.0.0 \
    HEADRACE_WORKER_HOST=0.0.0.0 \
    HEADRACE_JOURNAL_DIR=/var/lib/headrace/journal \
    HEADRACE_TENANTS_FILE=/etc/headrace/tenants.yaml \
    HEADRACE_LOG_FORMAT=json
USER headrace
WORKDIR /var/lib/headrace
VOLUME /var/lib/headrace/journal
EXPOSE 8700 8704
ENTRYPOINT ["headrace"]
CMD ["--help"]
