# The broker alone: PostgreSQL and Redis are given by EVENTBROKER_POSTGRES_URL and EVENTBROKER_REDIS_URL. It listens on
# loopback only as long as it has no authentication, so run it with the host's network (compose.yaml does).

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements-server.txt ./
RUN python -m venv /opt/venv \
 && /opt/venv/bin/pip install --require-hashes -r requirements-server.txt
COPY pyproject.toml README.md LICENSE ./
COPY server server
COPY clients/python clients/python
RUN pip wheel --no-deps --wheel-dir /dist . \
 && /opt/venv/bin/pip install --no-index --no-deps /dist/*.whl

FROM python:3.13-slim
RUN useradd --uid 10001 --home-dir /var/lib/eventbroker --create-home --shell /usr/sbin/nologin eventbroker
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    EVENTBROKER_DATA_DIR=/var/lib/eventbroker
USER 10001
WORKDIR /var/lib/eventbroker
EXPOSE 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-m", "eventbroker_server.healthcheck"]
ENTRYPOINT ["eventbroker-server"]
