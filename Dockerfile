# Pluto in a container: compose.yaml beside this file runs it as it is meant to be run.
#
# Debian's Chromium comes with Debian's security updates: build anew, without cache, to get them.
FROM debian:trixie-slim

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
      ca-certificates chromium fonts-liberation libatomic1 python3 python3-venv tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 pluto \
    && install --directory --owner=pluto --group=pluto /data

WORKDIR /opt/pluto
COPY requirements-redis.txt requirements-notify.txt ./
RUN python3 -m venv .venv \
    && .venv/bin/pip install --no-cache-dir --require-hashes -r requirements-redis.txt -r requirements-notify.txt
COPY . .

USER 10001:10001
# Beyond loopback Pluto never listens without an access token: PLUTO_ACCESS_TOKEN, else one that it makes and logs.
ENV PLUTO_HOST=0.0.0.0 \
    PLUTO_DATA=/data \
    PLUTO_BROWSER=/usr/bin/chromium \
    PYTHONUNBUFFERED=1
EXPOSE 8080
VOLUME /data

HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
    CMD [".venv/bin/python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PLUTO_PORT') or 8080), timeout=4); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]

# tini passes SIGTERM on, and buries the processes that a killed browser leaves.
ENTRYPOINT ["tini", "--"]
CMD [".venv/bin/python", "app.py"]
