# Two images from one build: `docker build .` is the server,
# `docker build --target resource-example .` the sample API.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN make build BIN=/out
RUN mkdir /data

# The image has no shell; wget is for the health checks.
FROM busybox:1.37.0-musl AS busybox

FROM scratch AS base
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=busybox /bin/wget /bin/wget
USER 65532:65532

FROM base AS resource-example
COPY --from=build /out/resource-example /bin/
ENV LISTEN=:8081
EXPOSE 8081
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/bin/wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8081/healthz"]
ENTRYPOINT ["/bin/resource-example"]

FROM base AS authserver
COPY --from=build /out/authserver /bin/
# ./data: the embedded store and the master key, where the configuration has no others.
COPY --from=build --chown=65532:65532 /data /data
WORKDIR /
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/bin/wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/readyz"]
ENTRYPOINT ["/bin/authserver"]
CMD ["serve"]
