# The image of leeward's workers and of the `leeward` command. No secret is ever part of it.

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY vault vault
COPY plans plans
COPY reports reports
COPY replication replication
COPY adapters adapters
COPY activities activities
COPY workflows workflows
COPY workers workers
COPY simulation simulation
COPY console console
# Everything is built or fetched here, so that the image that ships needs no compiler and no network.
RUN pip install --no-cache-dir -c constraints.txt setuptools \
 && pip wheel --no-cache-dir --no-build-isolation -c constraints.txt -w /wheels '.[azure,hyperv]'

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --user-group --create-home --home-dir /home/leeward --shell /usr/sbin/nologin leeward \
 && install -d -o leeward -g leeward /var/lib/leeward /opt/leeward
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --no-compile /wheels/*.whl
COPY deploy/worker_health.py /opt/leeward/worker_health.py
ENV PYTHONUNBUFFERED=1
USER leeward
# leeward.yaml and the data directory .leeward are looked for here.
WORKDIR /var/lib/leeward
VOLUME /var/lib/leeward
ENTRYPOINT ["leeward"]
CMD ["worker", "--help"]
