# syntax=docker/dockerfile:1
# Targets: `api` (no torch; the HTTP service, the deliverer of webhooks, keys), `worker` (the model's process, the
# default), `worker-baked` (with a hub's model inside). docs/deployment.md says how to build and what was checked.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
ENV PATH=/opt/foi/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    FOI_DATA_DIR=/data \
    FOI_LOG_FORMAT=json
RUN groupadd --gid 10001 foi \
    && useradd --uid 10001 --gid foi --no-create-home --home-dir /tmp --shell /usr/sbin/nologin foi \
    && install --directory --owner foi --group foi /data /cache
RUN python -m venv /opt/foi
WORKDIR /app
COPY constraints.txt ./


FROM base AS wheel
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip pip wheel --no-deps --wheel-dir /wheels .


FROM base AS api
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    set -- /wheels/*.whl && pip install --constraint constraints.txt "$1[service,webhooks]"
COPY deploy/container/api_health.py ./
# Nobody is let in without a key; `docker run --rm ... python -m jobs.keys create NAME` makes one.
ENV FOI_HOST=0.0.0.0 FOI_PORT=8000 FOI_AUTH=keys
USER 10001:10001
VOLUME ["/data"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["python", "api_health.py"]
STOPSIGNAL SIGTERM
CMD ["python", "-m", "service"]


FROM base AS worker
# CUDA: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 --build-arg WITH_COMPILER=true. The wheels bring
# CUDA's libraries with them, the host its driver. Triton compiles its launchers with a C compiler when it first runs.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG WITH_COMPILER=false
# hadolint ignore=DL3008
RUN if [ "$WITH_COMPILER" = true ]; then \
      apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*; fi
# A layer of its own: it is large, and changes only with its version.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt --extra-index-url "$TORCH_INDEX" torch
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    set -- /wheels/*.whl && pip install --constraint constraints.txt "$1[worker]"
COPY deploy/container/worker.sh deploy/container/worker_health.py deploy/container/bake_model.py ./
ENV HF_HOME=/cache/huggingface TRITON_CACHE_DIR=/cache/triton TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    TRANSFORMERS_VERBOSITY=error
USER 10001:10001
VOLUME ["/data", "/cache"]
HEALTHCHECK --interval=20s --timeout=10s --start-period=60s --retries=3 CMD ["python", "worker_health.py"]
# It finishes its edits for FOI_DRAIN_S (30 s) and hands the rest back: give it that, and 15 s more, before SIGKILL.
STOPSIGNAL SIGTERM
CMD ["sh", "worker.sh"]


FROM worker AS worker-baked
ARG MODEL=timbrooks/instruct-pix2pix
ARG MODEL_REVISION=
ARG MODEL_DTYPE=float32
ENV FOI_MODEL=$MODEL FOI_MODEL_REVISION=$MODEL_REVISION FOI_DTYPE=$MODEL_DTYPE HF_HOME=/opt/huggingface
USER 0:0
# Downloaded, and loaded once: what does not load is no image. A model that needs a token: --secret id=hf_token,env=HF_TOKEN
RUN --mount=type=secret,id=hf_token,env=HF_TOKEN python bake_model.py
USER 10001:10001
ENV HF_HUB_OFFLINE=1


FROM worker
