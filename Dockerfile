# The image of everything that the chart runs: controller, worker, Prefect server, command.
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE prefect.yaml ./
COPY konverge konverge
COPY flows flows
COPY tasks tasks
RUN python -m venv /opt/konverge \
 && /opt/konverge/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt .

FROM python:3.11-slim
COPY --from=build /opt/konverge /opt/konverge
ENV PATH=/opt/konverge/bin:$PATH PYTHONUNBUFFERED=1 DO_NOT_TRACK=1
# As in the chart; no such user exists, and none is needed: it mounts /tmp and the root file system is read-only.
USER 1000:1000
ENTRYPOINT ["konverge"]
