# The `headgate serve` image: the services alone, without Envoy.
FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements.lock requirements.serve.lock pyproject.toml README.md LICENSE ./
COPY accesslog accesslog
COPY extauthz extauthz
COPY extproc extproc
COPY headgate headgate
COPY ratelimit ratelimit
# The wheel is built with the locked tools; the final environment holds what `serve` needs.
RUN python -m venv /build && /build/bin/pip install --no-cache-dir --require-hashes -r requirements.lock \
 && /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && python -m venv /opt/headgate \
 && /opt/headgate/bin/pip install --no-cache-dir --require-hashes -r requirements.serve.lock \
 && /opt/headgate/bin/pip install --no-cache-dir --no-deps /wheels/*.whl

FROM python:3.13-slim
COPY --from=build /opt/headgate /opt/headgate
RUN useradd --system --uid 10001 --no-create-home headgate
USER 10001
ENV PATH=/opt/headgate/bin:$PATH PYTHONUNBUFFERED=1
EXPOSE 9001 9002
ENTRYPOINT ["headgate"]
CMD ["serve", "--policy", "/etc/headgate/headgate.yaml"]
