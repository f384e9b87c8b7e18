# The image of the endpoint: the base install, without Dagster and torch. No HEALTHCHECK: the probes of serving.yaml ask better questions.
#
#   git archive HEAD | docker build -f k8s/serving.Dockerfile -t company/image-classifier:TAG -
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/pipeline && python -m venv /opt/tools
COPY bootstrap.lock requirements.lock k8s/serving.lock ./
RUN /opt/tools/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes -r bootstrap.lock
ENV VIRTUAL_ENV=/opt/pipeline PATH=/opt/pipeline/bin:/opt/tools/bin:$PATH
RUN uv pip sync --no-cache --require-hashes serving.lock
COPY pyproject.toml README.md ./
COPY pipeline_project pipeline_project
# The build tool (setuptools) comes from the lock too, and is not in the image.
RUN uv pip install --no-cache --no-deps --build-constraints requirements.lock .

FROM python:3.11-slim
RUN groupadd --gid 10001 pipeline \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/pipeline pipeline \
 && install -d -o 10001 -g 10001 /var/lib/pipeline
COPY --from=build /opt/pipeline /opt/pipeline
ENV PATH=/opt/pipeline/bin:$PATH PIPELINE_HOME=/var/lib/pipeline PIPELINE_CONFIG=product_images PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /var/lib/pipeline
EXPOSE 8000
CMD ["pipeline", "serve", "production"]
