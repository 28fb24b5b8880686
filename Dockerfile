# relish for `serve` and `teach`; docs/containers.md says how it is used.
#   docker build --tag relish .                                 for processors
#   docker build --tag relish:cuda --build-arg DEVICE=cuda .    for NVIDIA GPUs
ARG PYTHON=3.11.13-slim-bookworm

FROM python:${PYTHON} AS build
ARG UV=0.13.9
ENV UV_COMPILE_BYTECODE=1 \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir "uv==${UV}"
WORKDIR /src
COPY pyproject.toml MANIFEST.in README.md LICENSE CHANGELOG.md constraints.txt ./
COPY src ./src
# "cpu" takes PyTorch's wheels for processors, which uv knows the place of; those of the package index are for CUDA.
ARG DEVICE=cpu
RUN uv venv /opt/relish \
    && case "${DEVICE}" in \
         cpu) set -- --torch-backend cpu ;; \
         cuda) set -- ;; \
         *) echo "DEVICE is cpu or cuda, not ${DEVICE}" >&2; exit 2 ;; \
       esac \
    && uv pip install "$@" --python /opt/relish/bin/python \
       --constraint constraints.txt ".[serve,export,explain]"

FROM python:${PYTHON}
# A number, so that Kubernetes' runAsNonRoot can tell.
RUN groupadd --gid 10001 relish \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin relish \
    && install --directory --owner=relish --group=relish /data /models
COPY --from=build /opt/relish /opt/relish
# Nothing is written outside /data and /tmp, so the root file system may be read-only.
ENV PATH=/opt/relish/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    RELISH_HOME=/tmp/relish \
    HOME=/tmp
USER 10001:10001
WORKDIR /data
EXPOSE 8000 8008
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["relish"]
# Asks for RELISH_TOKEN, since others than the container itself are let in.
CMD ["serve", "/models/model.onnx", "--host", "0.0.0.0"]
