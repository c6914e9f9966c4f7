# Two images: the services alone (the last stage, which is the default), and `--target onebox` with Envoy.
FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements.lock requirements.serve.lock requirements.onebox.lock pyproject.toml README.md LICENSE ./
COPY accesslog accesslog
COPY extauthz extauthz
COPY extproc extproc
COPY headgate headgate
COPY ratelimit ratelimit
# The locked tools build the wheel; the environment that is copied holds only what runs.
RUN python -m venv /build \
 && /build/bin/pip install --no-cache-dir --require-hashes -r requirements.lock \
 && /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && python -m venv /opt/headgate \
 && /opt/headgate/bin/pip install --no-cache-dir --require-hashes -r requirements.serve.lock \
 && /opt/headgate/bin/pip install --no-cache-dir --no-deps /wheels/*.whl

FROM build AS build-onebox
RUN /opt/headgate/bin/pip install --no-cache-dir --require-hashes -r requirements.onebox.lock

# One box: `headgate up` with a real Envoy. Usage records are written into its working directory.
FROM python:3.13-slim AS onebox
COPY --from=build-onebox /opt/headgate /opt/headgate
RUN useradd --system --uid 10001 --no-create-home headgate \
 && install --directory --owner 10001 --mode 750 /var/lib/headgate
USER 10001
ENV PATH=/opt/headgate/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /var/lib/headgate
EXPOSE 8080 8081
ENTRYPOINT ["headgate"]
CMD ["up", "--policy", "/etc/headgate/headgate.yaml", "--listen", "0.0.0.0:8080", "--admin", "0.0.0.0:8081"]

# The services alone, for an Envoy or a mesh that runs elsewhere.
FROM python:3.13-slim AS services
COPY --from=build /opt/headgate /opt/headgate
RUN useradd --system --uid 10001 --no-create-home headgate
USER 10001
ENV PATH=/opt/headgate/bin:$PATH PYTHONUNBUFFERED=1
EXPOSE 9001 9002
ENTRYPOINT ["headgate"]
CMD ["serve", "--policy", "/etc/headgate/headgate.yaml"]
