# The image of the asset graph: code location, runs and steps. No ENTRYPOINT: dagster-k8s sets a container's args only, so the first
# word of them must be the program (`dagster api ...`).
#
#   git archive HEAD | docker build -f k8s/platform.Dockerfile --build-arg COMMIT=$(git rev-parse HEAD) -t company/image-pipeline:TAG -
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/pipeline
ENV VIRTUAL_ENV=/opt/pipeline PATH=/opt/pipeline/bin:$PATH
COPY bootstrap.lock requirements.lock ./
RUN python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes -r bootstrap.lock \
 && uv pip sync --no-cache --require-hashes requirements.lock
COPY pyproject.toml README.md ./
COPY pipeline_project pipeline_project
# Everything that the extras ask for is in the lock, which is installed: --no-deps fetches nothing more.
RUN uv pip install --no-cache --no-deps --no-build-isolation ".[platform,production]"
ARG COMMIT=unknown
RUN echo "$COMMIT" > "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/COMMIT"

FROM python:3.11-slim
RUN groupadd --gid 10001 pipeline \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/pipeline pipeline \
 && install -d -o 10001 -g 10001 /var/lib/pipeline /opt/dagster/dagster_home
COPY --from=build /opt/pipeline /opt/pipeline
ENV PATH=/opt/pipeline/bin:$PATH PIPELINE_HOME=/var/lib/pipeline PIPELINE_CONFIG=product_images PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /var/lib/pipeline
