# `medqlora serve` in a container:
#   docker build --target cpu -t medqlora:cpu .
#   docker build --target cuda -t medqlora:cuda .
# The root file system may be read-only: /cache and /tmp are all that is written. Nothing runs as root.
FROM python:3.12.12-slim-bookworm AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    MEDQLORA_CACHE=/cache HF_HOME=/cache/huggingface HF_HUB_DISABLE_TELEMETRY=1
RUN groupadd --gid 10001 medqlora \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /cache --shell /usr/sbin/nologin medqlora \
    && install -d -o 10001 -g 10001 /cache
WORKDIR /app
COPY pyproject.toml setup.py README.md LICENSE THIRD_PARTY_LICENSES.md ./
COPY medqlora ./medqlora
COPY configs ./configs

FROM base AS cpu
# the project itself: its pyproject.toml bounds the versions
# hadolint ignore=DL3013
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu '.[serve]'
USER 10001:10001
VOLUME /cache
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["medqlora", "serve", "--host", "0.0.0.0"]
CMD ["--tokens", "/run/secrets/tokens", "--adapter", "/adapter", "--device", "cpu"]

FROM base AS cuda
# Triton compiles its kernels with a C compiler; the wheels of torch bring CUDA's own libraries
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
# hadolint ignore=DL3013
RUN pip install '.[serve]'
USER 10001:10001
VOLUME /cache
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=600s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["medqlora", "serve", "--host", "0.0.0.0"]
CMD ["--tokens", "/run/secrets/tokens", "--adapter", "/adapter", "--device", "cuda"]
